"""How far a table's inputs are from those that a model was trained on.

Counted, said, and past a limit a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...schema import Schema
from ..kinds import Strange, kind_of
from ..pack import PackColumn
from ..splits import UNUSED
from ..verdicts import Verdicts, shorten_warnings

# Fewer cells than these say nothing about a table.
FEWEST_CELLS = 5
# A warning from these parts of a column's cells on; fewer are counted. Short texts of rare words
# are usual.
WARN_OUTSIDE, WARN_UNKNOWN = 0.2, 0.01
# Of numbers like those of the n training rows 2 in n + 1 are outside their range; so many times
# more are not chance.
TIMES_CHANCE = 10


def find_strange(schema: Schema, columns: Mapping[str, PackColumn]) -> Iterator[Strange]:
    """Look through the columns of all inputs.

    Args:
        schema: the model's.
        columns: the features by name, arrays of all rows of the table.
    """
    for feature in schema.inputs if schema.triple is None else ():
        yield from kind_of(feature.kind).find_strange(feature, columns[feature.name])


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
