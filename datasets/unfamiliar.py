"""How far a table's inputs are from those that a model was trained on: counted, said, and past a limit a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..schema import FeatureSchema, Schema
from .pack import PackColumn
from .splits import UNUSED
from .verdicts import Verdicts

# Schemas of an older torchrelay say no range: then it reaches so many deviations from the mean.
OLD_RANGE = 6.0
# Fewer cells than these say nothing about a table.
FEWEST_CELLS = 5
# A warning from these parts of a column's cells on; fewer are counted.
WARN_OUTSIDE, WARN_UNKNOWN = 0.2, 0.01
# Numbers may leave the training range a little in any other sample; beyond its width on either side they are far.


class Strange(NamedTuple):
    """What a model does not know in one column.

    Attributes:
        name: of the column.
        what: what is strange about its cells, after their number.
        counted: bool, shape (rows,): rows whose cell leaves what training rows had.
        unknown: bool, shape (rows,): those of them about which training says nothing.
    """

    name: str
    what: str
    counted: np.ndarray
    unknown: np.ndarray


def find_strange(schema: Schema, columns: Mapping[str, PackColumn]) -> Iterator[Strange]:
    """Look through the columns of all inputs.

    Args:
        schema: the model's.
        columns: the features by name, arrays of all rows of the table.
    """
    for feature in schema.inputs if schema.triple is None else ():
        column = columns[feature.name]
        if feature.kind == "category":
            known = _is_known(column.feature.vocabulary, feature)
            for at, name in enumerate(feature.columns):
                unknown = ~known[column.arrays["values"][:, at]]
                yield Strange(name, "unknown to the model", unknown, unknown)
        elif feature.kind == "number":
            yield from _look_at_numbers(feature, column.arrays["values"])
        elif feature.kind == "text":
            tokens = column.ragged["tokens"]
            unknown = ~_is_known(column.vocabulary, feature)[tokens.values]
            row_of = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
            num_unknown = np.bincount(row_of, weights=unknown, minlength=len(tokens.lengths))
            most = num_unknown * 2 > tokens.lengths
            yield Strange(feature.columns[0], "mostly of unknown tokens", most, most)


def describe_strange(schema: Schema, columns: Mapping[str, PackColumn], side: np.ndarray) -> dict[str, Any]:
    """The counts of each column that has something strange, by name, for the data report.

    Args:
        schema, columns: see `find_strange`.
        side: int8, shape (rows,); -1 for rows that are not used.
    """
    used = side != UNUSED
    found = {}
    for one in find_strange(schema, columns):
        if num := int(one.counted[used].sum()):
            found[one.name] = {
                "what": one.what,
                "cells": num,
                "unknown": int(one.unknown[used].sum()),
                "share": num / int(used.sum()),
            }
    return found


def say_strange(found: Mapping[str, Any]) -> list[str]:
    """What `describe_strange` counted as sentences."""
    return [f"{name!r}: {one['cells']:,} cells ({one['share']:.0%}) are {one['what']}" for name, one in found.items()]


def warn_of_strange(found: Mapping[str, Any]) -> list[str]:
    """Warn of columns of which the model does not know many cells."""
    rows = {name: one["unknown"] / one["cells"] * one["share"] for name, one in found.items()}
    many = {
        name: one
        for name, one in found.items()
        if one["cells"] >= FEWEST_CELLS and (one["share"] >= WARN_OUTSIDE or rows[name] >= WARN_UNKNOWN)
    }
    return say_strange(many)


def reject_strange(schema: Schema, columns: Mapping[str, PackColumn], verdicts: Verdicts, max_unknown: float) -> None:
    """Call rows bad whose cells say nothing to a model, in columns of which more than a part of the cells does.

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
        detail = f"as {num / num_good:.0%} of its cells"
        remedy = "write it as in the training table, or train with a higher data.max_unknown"
        for row in np.flatnonzero(unknown):
            verdicts.reject(int(row), f"{one.name!r} is {one.what}", "", detail, remedy)


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
            yield Strange(name, f"not {low[at]:g}, which all were in training,", outside, outside)
        else:
            yield Strange(name, f"outside the training range ({low[at]:g} to {high[at]:g})", outside, far)
        if at not in feature.flagged and missing.any():
            yield Strange(name, "missing, as none was in training,", missing, missing)


def _is_known(vocabulary: Any, feature: FeatureSchema) -> np.ndarray:
    known = set(feature.classes)
    return np.array([text in known for text in vocabulary], dtype=bool)
