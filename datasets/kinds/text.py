"""What becomes of a text feature.

Its column in a pack, its vocabulary, the ids of a batch, its part of the report.
"""

# Shapes: B rows in a batch, L tokens in the longest of them.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from ...errors import DataError
from ...kinds import KINDS
from ...recipe import Feature
from ...schema import SPLITS, FeatureSchema, Schema
from ..cells import read_texts
from ..pack import Pack, PackColumn, PackFeature, Ragged
from ..splits import hash_texts
from .category import is_known
from .kind import Fitting, Gather, Kind, Packed, Packing, Reading, Reporting, Strange
from .tokenise import tokenise

# Ids of a batch; the vocabulary's tokens follow.
PADDING, UNKNOWN, FIRST = 0, 1, 2


class Text(Kind[pd.Series]):
    """The tokens of a cell, as ids of a vocabulary."""

    facts = KINDS["text"]

    def is_of_one_column(self, *, is_target: bool) -> bool:
        """A text stands in one cell."""
        return True

    def read(self, reading: Reading) -> pd.Series:
        """The cells as they stand in the table."""
        return read_texts(reading.frame, reading.columns[0], reading.verdicts)

    def pack(self, packing: Packing, entry: PackFeature, cells: pd.Series) -> Packed:
        """The tokens, and the cells themselves to show them to people."""
        tokens = tokenise(cells, packing.data.inputs[entry.name])
        ragged = {"tokens": tokens.rows, "characters": _as_bytes(cells)}
        return Packed(PackColumn(entry, {}, ragged, tokens.vocabulary), hash_texts(cells))

    def fit(self, fitting: Fitting) -> FeatureSchema:
        """See `fit_text`."""
        return fit_text(fitting.pack, fitting.asked, fitting.name, fitting.train)

    def told_by(self, asked: Feature) -> dict[str, object]:
        """How its cells become tokens."""
        return {field: getattr(asked, field) for field in ("tokens", "ngrams", "lowercase")}

    def gatherer(
        self, pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
    ) -> Gather:
        """Token ids, int64 (B, L), padded at the end with 0.

        The tokens that are classes of the feature have an id of their own; all others are id 1.
        """
        tokens, ids = pack.tokens(feature.name), _token_ids(pack.vocabulary(feature.name), feature)

        def gather(index: np.ndarray) -> Tensor:
            some = tokens.take(rows[index])
            longest = max(1, int(some.lengths.max(initial=0)))
            batch_BL = np.full((len(index), longest), PADDING, np.int64)
            batch_BL[np.arange(longest) < some.lengths[:, None]] = ids[some.values]
            return torch.from_numpy(batch_BL)

        return gather

    def describe(self, reporting: Reporting) -> dict[str, Any]:
        """Tokens of each split that has rows, and the unknown ones of them."""
        assert reporting.fitted is not None
        column, feature = reporting.column, reporting.fitted
        tokens = column.ragged["tokens"]
        knows = _token_ids(column.vocabulary or (), feature) != UNKNOWN
        found: dict[str, Any] = {"vocabulary": len(feature.classes), "texts": {}}
        for at, split in enumerate(SPLITS):
            rows = np.flatnonzero(reporting.side == at)
            if not len(rows):
                continue
            some = tokens.take(rows)
            found["texts"][split] = {
                "tokens": len(some.values),
                "unknown_tokens": int((~knows[some.values]).sum()),
                "texts_without_tokens": int((some.lengths == 0).sum()),
                "longest": int(some.lengths.max()),
                "median": float(np.median(some.lengths)),
            }
        return found

    def warn(self, name: str, described: Mapping[str, Any]) -> list[str]:
        """Name the splits of which most tokens are unknown."""
        return [
            f"{name!r}: {found['unknown_tokens'] / found['tokens']:.0%} of the tokens of {split} "
            "rows are unknown, because the vocabulary of the training rows lacks them"
            for split, found in described["texts"].items()
            if split != SPLITS[0] and 2 * found["unknown_tokens"] > found["tokens"]
        ]

    def find_strange(self, feature: FeatureSchema, column: PackColumn) -> Iterator[Strange]:
        """Texts of which most tokens are unknown."""
        tokens = column.ragged["tokens"]
        unknown = ~is_known(column.vocabulary or (), feature)[tokens.values]
        row_of = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
        num_unknown = np.bincount(row_of, weights=unknown, minlength=len(tokens.lengths))
        most = num_unknown * 2 > tokens.lengths
        yield Strange(feature.columns[0], "tokens", "mostly of unknown tokens", most, most)


def fit_text(pack: Pack, asked: Feature, name: str, train: np.ndarray) -> FeatureSchema:
    """Fit a vocabulary on the training rows.

    The most frequent tokens, of equally frequent ones the first by text.

    Args:
        pack: has the tokens.
        asked: `min_count` and `max_vocabulary` of the recipe.
        name: of the feature.
        train: int64, positions of the training rows in the pack.
    Raises:
        DataError: no token stands in the training rows as often as it must.
    """
    vocabulary = pack.vocabulary(name)
    counts = np.bincount(pack.tokens(name).take(train).values, minlength=len(vocabulary))
    kept = np.flatnonzero(counts >= asked.min_count)
    if not len(kept):
        most = int(counts.max(initial=0))
        remedy = (
            "lower it"
            if most
            else "the training rows have no token at all; look at tokens and ngrams"
        )
        raise DataError(
            f"data.inputs.{name}.min_count: {asked.min_count}, and no token of the training rows "
            "stands there more "
            f"than {most} times; {remedy}"
        )
    by_text = np.array(sorted(kept.tolist(), key=vocabulary.__getitem__), np.int64)
    ranked = by_text[np.argsort(-counts[by_text], kind="stable")][: asked.max_vocabulary or None]
    return FeatureSchema(
        name=name,
        kind="text",
        columns=pack.features[name].columns,
        shape=[0],
        dtype="int64",
        classes=[vocabulary[number] for number in ranked],
        counts=counts[ranked].tolist(),
        tokens=asked.tokens,
        ngrams=asked.ngrams,
        lowercase=asked.lowercase,
    )


def _token_ids(vocabulary: Sequence[str], feature: FeatureSchema) -> np.ndarray:
    """Raw id -> id in a batch, int64."""
    position = {token: at for at, token in enumerate(feature.classes, FIRST)}
    return np.array([position.get(token, UNKNOWN) for token in vocabulary], np.int64)


def _as_bytes(cells: pd.Series) -> Ragged:
    """The cells in UTF-8."""
    contents = [cell.encode() for cell in pa.array(cells, type=pa.large_string()).to_pylist()]
    lengths = np.array([len(content) for content in contents], np.int64)
    return Ragged.of_lengths(np.frombuffer(b"".join(contents), np.uint8), lengths)


KIND = Text()
