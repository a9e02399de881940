"""How far a table's inputs are from those that a model was trained on.

Counted, said, and past a limit a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ...schema import FeatureSchema, Schema
from ..pack import PackColumn
from ..splits import UNUSED
from ..verdicts import PREVIEW, Verdicts, shorten_warnings

# Schemas of an older torchrelay say no range: then it reaches so many deviations from the mean.
OLD_RANGE = 6.0
# Fewer cells than these say nothing about a table.
FEWEST_CELLS = 5
# A warning from these parts of a column's cells on; fewer are counted. Short texts of rare words
# are usual.
WARN_OUTSIDE, WARN_UNKNOWN = 0.2, 0.01
# Of numbers like those of the n training rows 2 in n + 1 are outside their range; so many times
# more are not chance.
TIMES_CHANCE = 10
# Numbers may leave the training range a little in any other sample; beyond its width on either side
# they are far.


class Strange(NamedTuple):
    """What a model does not know in one column.

    Attributes:
        name: of the column.
        kind: unknown, tokens (most of a text's are unknown), outside (of the training range),
            changed (a column that was constant in training) or missing.
        what: what is strange about its cells, after their number.
        counted: bool, shape (rows,): rows whose cell leaves what training rows had.
        unknown: bool, shape (rows,): those of them about which training says nothing.
        cells: what each row has, ids of `texts` or numbers, shape (rows,); none of a text.
        texts: of the ids.
        known: what the model knows in their place, as the end of a sentence.
    """

    name: str
    kind: Literal["unknown", "tokens", "outside", "changed", "missing"]
    what: str
    counted: np.ndarray
    unknown: np.ndarray
    cells: np.ndarray | None = None
    texts: Sequence[str] = ()
    known: str = ""

    def say_cell(self, row: int) -> str:
        """A row's cell for a message."""
        if self.cells is None or self.kind == "missing":
            return ""
        return repr(self.texts[self.cells[row]]) if self.texts else f"{self.cells[row]:g}"


def find_strange(schema: Schema, columns: Mapping[str, PackColumn]) -> Iterator[Strange]:
    """Look through the columns of all inputs.

    Args:
        schema: the model's.
        columns: the features by name, arrays of all rows of the table.
    """
    for feature in schema.inputs if schema.triple is None else ():
        column = columns[feature.name]
        if feature.kind == "category":
            texts, known = column.feature.vocabulary, _is_known(column.feature.vocabulary, feature)
            said = f"; known are {', '.join(map(repr, feature.classes[:PREVIEW]))}"
            said += (
                f", … ({len(feature.classes):,} in all)" if len(feature.classes) > PREVIEW else ""
            )
            for at, name in enumerate(feature.columns):
                ids = column.arrays["values"][:, at]
                yield Strange(
                    name,
                    "unknown",
                    "unknown to the model",
                    ~known[ids],
                    ~known[ids],
                    ids,
                    texts,
                    said,
                )
        elif feature.kind == "number":
            yield from _look_at_numbers(feature, column.arrays["values"])
        elif feature.kind == "text":
            tokens = column.ragged["tokens"]
            unknown = ~_is_known(column.vocabulary, feature)[tokens.values]
            row_of = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
            num_unknown = np.bincount(row_of, weights=unknown, minlength=len(tokens.lengths))
            most = num_unknown * 2 > tokens.lengths
            yield Strange(feature.columns[0], "tokens", "mostly of unknown tokens", most, most)


def describe_strange(
    schema: Schema, columns: Mapping[str, PackColumn], side: np.ndarray
) -> list[dict[str, Any]]:
    """The counts of each column that has something strange, for the data
    report.

    Args:
        schema, columns: see `find_strange`.
        side: int8, shape (rows,); -1 for rows that are not used.
    Returns:
        column, kind and what (see `Strange`), cells, unknown (those about which training says
        nothing), share (of the rows); in the order of the inputs.
    """
    used = side != UNUSED
    counted = [(one, int(one.counted[used].sum())) for one in find_strange(schema, columns)]
    return [
        {
            "column": one.name,
            "kind": one.kind,
            "what": one.what,
            "cells": num,
            "unknown": int(one.unknown[used].sum()),
            "share": num / int(used.sum()),
        }
        for one, num in counted
        if num
    ]


def say_strange(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `describe_strange` counted as sentences."""
    return [
        f"{one['column']!r}: {one['cells']:,} {'cell' if one['cells'] == 1 else 'cells'} "
        f"({one['share']:.1%}) "
        f"{'is' if one['cells'] == 1 else 'are'} {one['what']}"
        for one in found
    ]


def warn_of_strange(found: Sequence[Mapping[str, Any]], num_trained: int = 0) -> list[str]:
    """Warn of columns of which the model does not know many cells.

    Args:
        found: what `describe_strange` counted.
        num_trained: training rows of the same table, which of few rows tells chance from a
            difference; 0: not known.
    """
    chance = 2 / (num_trained + 1) if num_trained else 0.0
    most = max(WARN_OUTSIDE, TIMES_CHANCE * chance)
    many = [
        one
        for one in found
        if (one["cells"] >= FEWEST_CELLS and one["share"] >= most)
        or (
            one["kind"] != "tokens"
            and one["unknown"] >= FEWEST_CELLS
            and one["unknown"] / one["cells"] * one["share"] >= WARN_UNKNOWN
        )
    ]
    return shorten_warnings(
        say_strange(many), "columns hold cells that the model does not know; see report.json"
    )


def reject_strange(
    schema: Schema, columns: Mapping[str, PackColumn], verdicts: Verdicts, max_unknown: float
) -> None:
    """Call rows bad whose cells say nothing to a model, in columns of which
    more than a part of the cells does.

    Args:
        schema, columns: see `find_strange`.
        verdicts: of the rows.
        max_unknown: that part.
    """
    good = verdicts.good.copy()
    for one in find_strange(schema, columns):
        unknown = one.unknown & good
        num, num_good = int(unknown.sum()), int(good.sum())
        if num < FEWEST_CELLS or num <= max_unknown * num_good:
            continue
        detail = f"as {num / num_good:.0%} of its cells are{one.known}"
        remedy = "write it as in the training table, or raise data.max_unknown"
        for row in np.flatnonzero(unknown):
            verdicts.reject(
                int(row), f"{one.name!r} is {one.what}", one.say_cell(int(row)), detail, remedy
            )


def _look_at_numbers(feature: FeatureSchema, values: np.ndarray) -> Iterator[Strange]:
    low, high = np.array(feature.low), np.array(feature.high)
    if not feature.low:
        mean, std = np.array(feature.mean), np.array(feature.std)
        low, high = mean - OLD_RANGE * std, mean + OLD_RANGE * std
    for at, name in enumerate(feature.columns):
        column, width = values[:, at], high[at] - low[at]
        missing = np.isnan(column)
        with np.errstate(invalid="ignore"):
            outside = (column < low[at]) | (column > high[at])
            far = (column < low[at] - width) | (column > high[at] + width)
        if width == 0:
            yield Strange(
                name,
                "changed",
                f"not {low[at]:g}, which all were in training,",
                outside,
                outside,
                column,
            )
        else:
            what = f"outside the training range ({low[at]:g} to {high[at]:g})"
            yield Strange(name, "outside", what, outside, far, column)
        if at not in feature.flagged and missing.any():
            yield Strange(name, "missing", "missing, as none was in training,", missing, missing)


def _is_known(vocabulary: Any, feature: FeatureSchema) -> np.ndarray:
    known = set(feature.classes)
    return np.array([text in known for text in vocabulary], dtype=bool)
