"""A column whose cells have any number of tags."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kinds import KINDS
from ...schema import FeatureSchema, Schema
from ..cells import Labels, read_labels
from ..pack import Pack, PackColumn, PackFeature
from ..splits import hash_tags
from .category import class_ids, count_classes, count_fitted
from .kind import Fitting, Gather, Kind, Packed, Packing, Reading, Reporting


class Tags(Kind[Labels]):
    """Tags, a column of the target each."""

    facts = KINDS["labels"]

    def is_of_one_column(self, *, is_target: bool) -> bool:
        """The tags of a row stand in one cell."""
        return True

    def read(self, reading: Reading) -> Labels:
        """The ids of the tags of each cell, and what they stand for."""
        asked = reading.asked
        return read_labels(reading.frame[reading.columns[0]], asked.separator, asked.labels)

    def pack(self, packing: Packing, entry: PackFeature, cells: Labels) -> Packed:
        """The ids as they are. The order of tags does not count in the keys."""
        entry = entry.model_copy(update={"vocabulary": cells.vocabulary})
        return Packed(PackColumn(entry, {"values": cells.ids}), hash_tags(*cells))

    def fit(self, fitting: Fitting) -> FeatureSchema:
        """The tags of the training rows, and how often each stands there."""
        entry = fitting.entry
        some = np.asarray(fitting.pack.column(fitting.name)[fitting.train])
        classes, counts = count_fitted(entry.vocabulary, some[some >= 0])
        return FeatureSchema(
            name=entry.name,
            kind=entry.kind,
            columns=entry.columns,
            shape=[len(classes)],
            dtype="float32",
            classes=classes,
            counts=counts,
            separator=fitting.asked.separator,
        )

    def gatherer(
        self, pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
    ) -> Gather:
        """1 for each tag of a row, else 0.

        Float32 (B, K); a tag that the schema lacks is no column.
        """
        values, num_tags = np.asarray(pack.column(feature.name)), len(feature.classes)
        column_of = class_ids(pack.vocabulary(feature.name), feature, first=1)
        column_of = np.append(
            np.where(column_of > 0, column_of - 1, num_tags), num_tags
        )  # the last one is that of -1

        def gather(index: np.ndarray) -> Tensor:
            has = torch.zeros((len(index), num_tags + 1))
            has.scatter_(1, torch.from_numpy(column_of[values[rows[index]]]), 1.0)
            return has[:, :num_tags].contiguous()

        return gather

    def zeros(self, schema: Schema) -> Gather:
        """No tag for each row."""
        return lambda index: torch.zeros((len(index), schema.num_outputs), dtype=torch.float32)

    def describe(self, reporting: Reporting) -> dict[str, Any]:
        """Rows of each tag on each side."""
        return {"classes": count_classes(reporting.column, reporting.side)}


KIND = Tags()
