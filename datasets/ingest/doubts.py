"""What is odd about the values of a table, counted for the data report and said
as warnings: wild numbers, numbers that are more exact than they are read, rows that are the same
but for their class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...recipe import Data
from ..features import find_triple
from ..pack import PackColumn
from ..splits import UNUSED, combine
from ..verdicts import PREVIEW, shorten_warnings
from .outliers import Wild, find_wild, may_be_wild

# Above it float64 lacks whole numbers.
EXACT = 2.0**53


def warn_of_wild_numbers(
    data: Data, frame: pd.DataFrame, columns: Mapping[str, PackColumn], side: np.ndarray
) -> list[str]:
    """Name the columns of numbers in which a few are so far off that all others
    look alike, and what to do.

    Args:
        data: the features.
        frame: text cells.
        columns: the features by name, arrays of all rows of the table.
        side: int8, shape (rows,); -1 for rows that are not used.
    """
    found = []
    used = np.flatnonzero(side != UNUSED)
    for name, column in columns.items():
        if column.feature.kind != "number":
            continue
        values = column.arrays["values"][used]
        for at in np.flatnonzero(may_be_wild(values) | (np.abs(values) >= EXACT).any(axis=0)):
            of = column.feature.columns[at]
            if wild := find_wild(values[:, at]):
                found.append(
                    _say_wild(of, wild, frame[of], used, name if name in data.inputs else "")
                )
            if text := _say_inexact(values[:, at], frame[of].iloc[used]):
                found.append(f"{of!r}: {text}")
    return shorten_warnings(found, "columns have numbers that are as odd")


def _say_wild(column: str, wild: Wild, cells: pd.Series, used: np.ndarray, feature: str) -> str:
    rows = used[wild.rows]
    texts = list(dict.fromkeys(str(cells.iloc[row]).strip() for row in rows))
    where = ", ".join(str(row + 1) for row in rows[:PREVIEW]) + (
        ", …" if len(rows) > PREVIEW else ""
    )
    named = ", ".join(texts[:PREVIEW])
    fill = f" with data.inputs.{feature}.missing: median" if feature else ""
    return (
        f"{column!r}: {len(rows):,} of {len(used):,} numbers {'is' if len(rows) == 1 else 'are'} "
        "at least "
        f"{wild.times_text} times as far from the median ({wild.median:g}) as any other: {named} "
        "in row "
        f"{where}; beside it all others look alike. If it means that the number is missing, say "
        f"data.missing_values: [{named}]{fill}; if it is a mistake, correct or drop the row"
    )


def count_contradictions(
    data: Data, keys: Mapping[str, np.ndarray], side: np.ndarray
) -> dict[str, Any]:
    """Rows with the same inputs and another class.

    How many, some of them, and what share of all can be right at most.

    Args:
        data: the features.
        keys: uint64 for each feature, shape (rows,), equal where its values are.
        side: int8, shape (rows,); -1 for rows that are not used.
    Returns:
        rows, examples (two rows, counted from 1) and best_share; empty where there are none, or no
        classes.
    """
    kinds = {feature.kind for feature in data.target.values()}
    if not kinds or not kinds <= {"category", "labels"} or find_triple(data) is not None:
        return {}
    used = np.flatnonzero(side != UNUSED)
    inputs, targets = (
        combine([keys[name][used] for name in part]) for part in (data.inputs, data.target)
    )
    _, group = np.unique(inputs, return_inverse=True)
    pairs, pair_of, counts = np.unique(
        combine([inputs, targets]), return_inverse=True, return_counts=True
    )
    group_of_pair = np.zeros(len(pairs), dtype=np.int64)
    group_of_pair[pair_of] = group
    num_classes = np.bincount(group_of_pair, minlength=group.max(initial=-1) + 1)
    is_mixed = num_classes[group] > 1
    if not is_mixed.any():
        return {}
    most = np.zeros(len(num_classes), dtype=np.int64)
    np.maximum.at(most, group_of_pair, counts)
    mixed = np.flatnonzero(is_mixed)
    first = mixed[0]
    other = mixed[(group[mixed] == group[first]) & (pair_of[mixed] != pair_of[first])][0]
    return {
        "rows": int(is_mixed.sum()),
        "examples": [int(used[first]) + 1, int(used[other]) + 1],
        "best_share": float(most.sum() / len(used)),
    }


def warn_of_contradictions(found: Mapping[str, Any], num_rows: int) -> list[str]:
    """Say what `count_contradictions` counted."""
    if not found:
        return []
    first, other = found["examples"]
    return [
        f"{found['rows']:,} of {num_rows:,} rows have the same inputs as a row of another class, "
        "for example rows "
        f"{first} and {other}: no model can be right in more than {found['best_share']:.1%} of all "
        "rows; correct them, "
        f"or give it an input that tells them apart"
    ]


def _say_inexact(values: np.ndarray, cells: pd.Series) -> str:
    """What to say of whole numbers that are one in float64 and several in
    the table; nothing where there are none.
    """
    far = np.abs(values) >= EXACT
    if not far.any():
        return ""
    texts, numbers = cells[far].str.strip(), values[far]
    num_lost = texts.nunique() - len(np.unique(numbers))
    if num_lost <= 0:
        return ""
    same = pd.Series(numbers, index=texts.index)
    pair = texts[same.duplicated(keep=False) & ~texts.duplicated()]
    return (
        f"numbers beyond 2**53 lose digits, so that {num_lost:,} become others, such as "
        f"{pair.iloc[0]}; if they are "
        f"names, read the column as category, or leave it out"
    )
