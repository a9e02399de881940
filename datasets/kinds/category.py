"""Columns whose cells are one of several classes each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ...errors import DataError
from ...kinds import KINDS
from ...recipe import Feature
from ...schema import SPLITS, FeatureSchema, Schema
from ..cells import Categories, read_categories, sort_classes
from ..pack import Pack, PackColumn, PackFeature
from ..splits import UNUSED, hash_ids
from ..verdicts import PREVIEW
from .kind import Fitting, Gather, Kind, Packed, Packing, Reading, Reporting, Strange


class Category(Kind[Categories]):
    """Classes as ids of which 0 of an input means unseen in training."""

    facts = KINDS["category"]

    def is_of_one_column(self, *, is_target: bool) -> bool:
        """A target's classes are those of one column."""
        return is_target

    def read(self, reading: Reading) -> Categories:
        """The ids of the cells of all columns, and what they stand for."""
        return read_categories(
            reading.frame, reading.columns, reading.verdicts, reading.asked.labels
        )

    def pack(self, packing: Packing, entry: PackFeature, cells: Categories) -> Packed:
        """The ids as they are."""
        entry = entry.model_copy(update={"vocabulary": cells.vocabulary})
        return Packed(PackColumn(entry, {"values": cells.ids}), hash_ids(*cells))

    def fit(self, fitting: Fitting) -> FeatureSchema:
        """The classes of the training rows, or a vocabulary that is shared.

        A target keeps the classes of all rows where the recipe keeps rare ones.
        """
        entry = fitting.entry
        if vocabulary := fitting.asked.vocabulary:
            names, counts = fitting.shared[vocabulary]
        else:
            ids = fitting.pack.column(fitting.name)
            keeps_rare = fitting.is_target and fitting.data.rare_classes == "keep"
            kept = np.flatnonzero(fitting.split != UNUSED) if keeps_rare else fitting.train
            names, _ = count_fitted(entry.vocabulary, ids[kept])
            count_of = dict(zip(*count_fitted(entry.vocabulary, ids[fitting.train]), strict=True))
            counts = [count_of.get(name, 0) for name in names]
        return FeatureSchema(
            name=entry.name,
            kind=entry.kind,
            columns=entry.columns,
            shape=[] if fitting.is_target else [len(entry.columns)],
            dtype="int64",
            classes=names,
            counts=counts,
            vocabulary=vocabulary,
        )

    def told_by(self, asked: Feature) -> dict[str, object]:
        """With whom it shares its classes."""
        return {"vocabulary": asked.vocabulary}

    def gatherer(
        self, pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
    ) -> Gather:
        """Ids, int64 (B, N)."""
        values = np.asarray(pack.column(feature.name))
        ids = class_ids(pack.vocabulary(feature.name), feature, first=1)
        return lambda index: torch.from_numpy(ids[values[rows[index]]])

    def target_gatherer(self, pack: Pack, schema: Schema, rows: np.ndarray) -> Gather:
        """Class ids, int64 (B,), or (B, T) of several targets.

        Raises:
            DataError: a row's class is none of the schema's.
        """
        ids = np.stack([target_ids(pack, target, rows) for target in schema.targets], 1)
        ids = ids[:, 0].copy() if len(schema.targets) == 1 else ids
        return lambda index: torch.from_numpy(ids[index])

    def zeros(self, schema: Schema) -> Gather:
        """Class 0 for each row."""
        size = (len(schema.targets),) if len(schema.targets) > 1 else ()
        return lambda index: torch.zeros((len(index), *size), dtype=torch.int64)

    def describe(self, reporting: Reporting) -> dict[str, Any]:
        """Rows of each class on each side, or how many entities are ranked."""
        if reporting.is_entity:
            return {"distinct": _count_distinct(reporting.column, reporting.side)}
        return {"classes": count_classes(reporting.column, reporting.side)}

    def find_strange(self, feature: FeatureSchema, column: PackColumn) -> Iterator[Strange]:
        """Classes that no training row had."""
        texts = column.feature.vocabulary
        known = is_known(texts, feature)
        said = f"; known are {', '.join(map(repr, feature.classes[:PREVIEW]))}"
        said += f", … ({len(feature.classes):,} in all)" if len(feature.classes) > PREVIEW else ""
        for at, name in enumerate(feature.columns):
            ids = column.arrays["values"][:, at]
            unknown = ~known[ids]
            what = "unknown to the model"
            yield Strange(name, "unknown", what, unknown, unknown, ids, texts, said)


def class_ids(vocabulary: Sequence[str], feature: FeatureSchema, first: int) -> np.ndarray:
    """Raw id -> `first` + position in the classes, or `first` - 1 for one
    that training has not seen; int64.
    """
    position = {name: at for at, name in enumerate(feature.classes, first)}
    return np.array([position.get(name, first - 1) for name in vocabulary], np.int64)


def target_ids(pack: Pack, target: FeatureSchema, rows: np.ndarray) -> np.ndarray:
    """The class of each row, int64.

    Raises:
        DataError: a row's class is none of the schema's.
    """
    values = np.asarray(pack.column(target.name))
    ids = class_ids(pack.vocabulary(target.name), target, first=0)[values[rows, 0]]
    if (unknown := np.flatnonzero(ids < 0)).size:
        row = rows[unknown[0]]
        label = pack.vocabulary(target.name)[values[row, 0]]
        raise DataError(
            f"target {target.name}: {unknown.size} rows have a class that the schema does not "
            "know, the first is "
            f"row {pack.rows[row] + 1} with {label!r}; leave them out"
        )
    return ids


def count_fitted(vocabulary: list[str], ids: np.ndarray) -> tuple[list[str], list[int]]:
    """The labels of these ids, in order, and how often each stands there."""
    counts = np.bincount(ids.ravel(), minlength=len(vocabulary))
    count_of = {vocabulary[number]: int(counts[number]) for number in np.flatnonzero(counts)}
    classes = sort_classes(list(count_of))
    return classes, [count_of[name] for name in classes]


def count_classes(column: PackColumn, side: np.ndarray) -> dict[str, dict[str, int]]:
    """Rows of each class or tag on each side, in order."""
    vocabulary = column.feature.vocabulary
    ids = column.arrays["values"]
    each = {name: ids[side == at] for at, name in enumerate(SPLITS)}
    counts = {
        name: np.bincount(some[some >= 0], minlength=len(vocabulary)) for name, some in each.items()
    }
    id_of = {label: number for number, label in enumerate(vocabulary)}
    present = [
        label for label, number in id_of.items() if any(count[number] for count in counts.values())
    ]
    return {
        label: {name: int(count[id_of[label]]) for name, count in counts.items()}
        for label in sort_classes(present)
    }


def is_known(vocabulary: Sequence[str], feature: FeatureSchema) -> np.ndarray:
    """Which of these texts are classes or tokens of a fitted feature, bool."""
    known = set(feature.classes)
    return np.array([text in known for text in vocabulary], dtype=bool)


def _count_distinct(column: PackColumn, side: np.ndarray) -> dict[str, int]:
    """Distinct values on each side."""
    return {
        name: len(np.unique(column.arrays["values"][side == at])) for at, name in enumerate(SPLITS)
    }


KIND = Category()
