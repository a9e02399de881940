"""A kind of feature that the package does not have: dates, as year and season."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from torchrelay.datasets.kinds import (
    Fitting,
    Gather,
    Kind,
    Packed,
    Packing,
    Reading,
    Reporting,
    Strange,
)
from torchrelay.datasets.pack import Pack, PackColumn, PackFeature
from torchrelay.datasets.splits import hash_numbers
from torchrelay.kinds import Facts
from torchrelay.schema import FeatureSchema, Schema


class Date(Kind[np.ndarray]):
    """The year, and the day of the year as sine and cosine."""

    facts = Facts("date", is_number=True)

    def is_of_one_column(self, *, is_target: bool) -> bool:
        return True

    def read(self, reading: Reading) -> np.ndarray:
        values = np.full((len(reading.frame), 3), np.nan)
        for row, cell in enumerate(reading.frame[reading.columns[0]]):
            try:
                date = datetime.date.fromisoformat(cell.strip())
            except ValueError:
                reading.verdicts.reject(row, f"{reading.columns[0]!r} is no date", repr(cell))
                continue
            turn = 2 * math.pi * date.timetuple().tm_yday / 365.25
            values[row] = date.year, math.sin(turn), math.cos(turn)
        return values

    def pack(self, packing: Packing, entry: PackFeature, cells: np.ndarray) -> Packed:
        return Packed(PackColumn(entry, {"values": cells}), hash_numbers(cells))

    def fit(self, fitting: Fitting) -> FeatureSchema:
        values = np.asarray(fitting.pack.column(fitting.name))[fitting.train]
        std = values.std(axis=0)
        return FeatureSchema(
            name=fitting.name,
            kind=self.facts.name,
            columns=fitting.entry.columns,
            shape=[3],
            dtype="float64",
            mean=values.mean(axis=0).tolist(),
            std=np.where(std > 0, std, 1.0).tolist(),
            low=values.min(axis=0).tolist(),
            high=values.max(axis=0).tolist(),
        )

    def gatherer(
        self, pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
    ) -> Gather:
        values = np.asarray(pack.column(feature.name))
        return lambda index: torch.from_numpy(values[rows[index]])

    def describe(self, reporting: Reporting) -> dict[str, Any]:
        years = reporting.column.arrays["values"][reporting.used, 0]
        return {"years": [int(years.min()), int(years.max())]}

    def find_strange(self, feature: FeatureSchema, column: PackColumn) -> Iterator[Strange]:
        years = column.arrays["values"][:, 0]
        outside = (years < feature.low[0]) | (years > feature.high[0])
        what = "of a year that no training row has"
        yield Strange(feature.columns[0], "outside", what, outside, outside, years)
