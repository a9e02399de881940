"""Columns of numbers, each in a unit of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...errors import DataError
from ...kinds import KINDS
from ...recipe import Data
from ...schema import SPLITS, FeatureSchema, Schema
from ..cells import is_missing_number, notation_of, read_numbers
from ..pack import Pack, PackColumn, PackFeature
from ..splits import hash_numbers
from .kind import Fitting, Gather, Kind, Packed, Packing, Reading, Reporting, Strange

# Schemas of an older torchrelay say no range: then it reaches so many deviations from the mean.
OLD_RANGE = 6.0


class Number(Kind[np.ndarray]):
    """Numbers, of which those of an input may be missing."""

    facts = KINDS["number"]

    def read(self, reading: Reading) -> np.ndarray:
        """Float64, shape (rows, columns), NaN where a number is missing."""
        is_input = reading.name in reading.data.inputs
        return read_cells(reading, may_be_missing=is_input and reading.asked.missing != "reject")

    def pack(self, packing: Packing, entry: PackFeature, cells: np.ndarray) -> Packed:
        """The numbers as they are."""
        return Packed(PackColumn(entry, {"values": cells}), hash_numbers(cells))

    def fit(self, fitting: Fitting) -> FeatureSchema:
        """Mean, deviation and range of each column, and what fills its gaps.

        Raises:
            DataError: a column has no number in the training rows.
        """
        entry, asked = fitting.entry, fitting.asked
        values = fitting.pack.column(fitting.name)
        # So that a column is summed as if it stood alone.
        each = np.ascontiguousarray(np.asarray(values[fitting.train]).T)
        has_gaps = np.isnan(each).any(axis=1)
        moments = _measure_lines(each)
        fill = [] if asked.missing == "reject" else _fill_lines(each, asked.missing)
        for at in np.flatnonzero(has_gaps):
            present = each[at][~np.isnan(each[at])]
            if not len(present):
                raise DataError(
                    f"column {entry.columns[at]!r} of {entry.name!r} has no number in the training "
                    "rows; take it out "
                    f"of its columns"
                )
            moments[:, at] = _measure_lines(present[None])[:, 0]
            if asked.missing != "reject":
                fill[at] = _fill_lines(present[None], asked.missing)[0]
        flagged = np.flatnonzero(has_gaps).tolist()
        mean, std, low, high = moments.tolist()
        return FeatureSchema(
            name=entry.name,
            kind=entry.kind,
            columns=entry.columns,
            shape=[len(mean) + len(flagged)],
            dtype="float64",
            mean=mean,
            std=std,
            fill=fill,
            flagged=flagged,
            low=low,
            high=high,
            unit=asked.unit,
        )

    def gatherer(
        self, pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
    ) -> Gather:
        """Float64 (B, D), in the table's units."""
        values = np.asarray(pack.column(feature.name))
        return lambda index: torch.from_numpy(values[rows[index]])

    def describe(self, reporting: Reporting) -> dict[str, Any]:
        """The range of each column, of all used rows and of each split."""
        columns, values = reporting.column.feature.columns, reporting.column.arrays["values"]
        by_split = {
            split: describe_numbers(columns, values[reporting.side == at])
            for at, split in enumerate(SPLITS)
            if (reporting.side == at).any()
        }
        ranges = describe_numbers(columns, values[reporting.used])
        return {"ranges": ranges, "ranges_by_split": by_split}

    def count_missing(self, column: PackColumn, frame: pd.DataFrame, data: Data) -> dict[str, int]:
        """See `count_missing_numbers`."""
        return count_missing_numbers(column, frame, data)

    def find_strange(self, feature: FeatureSchema, column: PackColumn) -> Iterator[Strange]:
        """Missing numbers, and those outside of the training range."""
        low, high = np.array(feature.low), np.array(feature.high)
        if not feature.low:
            mean, std = np.array(feature.mean), np.array(feature.std)
            low, high = mean - OLD_RANGE * std, mean + OLD_RANGE * std
        for at, name in enumerate(feature.columns):
            cells, width = column.arrays["values"][:, at], high[at] - low[at]
            missing = np.isnan(cells)
            with np.errstate(invalid="ignore"):
                outside = (cells < low[at]) | (cells > high[at])
                # Numbers may leave the training range a little in any other sample; beyond its
                # width on either side they are far.
                far = (cells < low[at] - width) | (cells > high[at] + width)
            if width == 0:
                what = f"not {low[at]:g}, which all were in training,"
                yield Strange(name, "changed", what, outside, outside, cells)
            else:
                what = f"outside the training range ({low[at]:g} to {high[at]:g})"
                yield Strange(name, "outside", what, outside, far, cells)
            if at not in feature.flagged and missing.any():
                what = "missing, as none was in training,"
                yield Strange(name, "missing", what, missing, missing)


def read_cells(reading: Reading, *, may_be_missing: bool = False) -> np.ndarray:
    """The numbers of a feature, float64, shape (rows, columns)."""
    data = reading.data
    return read_numbers(
        reading.frame,
        reading.columns,
        reading.verdicts,
        notation_of(data),
        data.missing_values,
        may_be_missing,
    )


def count_missing_numbers(column: PackColumn, frame: pd.DataFrame, data: Data) -> dict[str, int]:
    """Cells of each column that say that there is no number.

    Only columns with values that could not be read are looked at.
    """
    unread = set(np.flatnonzero(np.isnan(column.arrays["values"]).any(axis=0)).tolist())
    return {
        name: int(is_missing_number(frame[name], data.missing_values).sum()) if at in unread else 0
        for at, name in enumerate(column.feature.columns)
    }


def describe_numbers(columns: Sequence[str], values: np.ndarray) -> dict[str, dict[str, float]]:
    """Minimum, maximum, mean and deviation of each column that has a number."""
    has_gaps = np.isnan(values).any(axis=0)
    wide = np.ascontiguousarray(values[:, ~has_gaps].T)
    found = dict(zip(np.flatnonzero(~has_gaps).tolist(), _describe_lines(wide), strict=True))
    for at in np.flatnonzero(has_gaps).tolist():
        present = values[~np.isnan(values[:, at]), at]
        if len(present):
            found |= {at: _describe_lines(present[None])[0]}
    return {name: found[at] for at, name in enumerate(columns) if at in found}


def _describe_lines(wide: np.ndarray) -> list[dict[str, float]]:
    """Minimum, maximum, mean and deviation of each line of an array."""
    if not wide.size:
        return []
    found = {"min": wide.min(1), "max": wide.max(1), "mean": wide.mean(1), "std": wide.std(1)}
    return [
        dict(zip(found, line, strict=True))
        for line in zip(*(one.tolist() for one in found.values()), strict=True)
    ]


def _measure_lines(lines: np.ndarray) -> np.ndarray:
    """Mean, deviation, minimum and maximum of each line.

    Shape (4, lines); NaN for a line with NaN.
    """
    with np.errstate(invalid="ignore"):
        mean, std, low, high = lines.mean(1), lines.std(1), lines.min(1), lines.max(1)
    # A constant column is recognised by its range: rounding gives it a tiny deviation, not 0.
    return np.stack([mean, np.where(high > low, std, 1.0), low, high])


def _fill_lines(lines: np.ndarray, how: str | float) -> list[float]:
    """What stands for a missing number of each line."""
    if isinstance(how, float):
        return [how] * len(lines)
    with np.errstate(invalid="ignore"):
        return (np.median(lines, axis=1) if how == "median" else lines.mean(1)).tolist()


KIND = Number()
