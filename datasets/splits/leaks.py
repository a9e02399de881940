"""Finds the same sample twice.

In one split (counted) or in two (an error for a file, a warning for content).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...errors import DataError
from ...schema import SPLITS
from ..verdicts import PREVIEW
from .splits import UNUSED


def check_files(table: str, paths: Sequence[str], rows: np.ndarray, side: np.ndarray) -> None:
    """Refuse a file that two splits share.

    Args:
        table: named in the error.
        paths: resolved path of each use of a file, "" for none.
        rows: int64, the row of each use.
        side: int8, the side of each row of the table; -1 is not looked at.
    Raises:
        DataError: names up to three files, each with a row of either side.
    """
    ids, names = pd.factorize(np.array(paths, dtype=object))
    used = np.array([bool(path) for path in paths], dtype=bool)
    shared = rows_in_two(ids, np.where(used, side[rows], UNUSED))
    if not shared.any():
        return
    first = []
    for number in dict.fromkeys(ids[shared].tolist()):
        uses = rows[ids == number]
        sides = {int(side[row]): int(row) for row in uses[::-1] if side[row] != UNUSED}
        where = ", ".join(f"row {row + 1} {SPLITS[of]}" for of, row in sorted(sides.items()))
        first.append(f"{names[number]} ({where})")
        if len(first) == PREVIEW:
            break
    num_files = len(np.unique(ids[shared]))
    what = "file stands" if num_files == 1 else "files stand"
    raise DataError(
        f"{table}: {num_files:,} {what} in two splits: {'; '.join(first)}. "
        "A model must not be tested on what it was trained on: keep one row of each, or name "
        "their common column in "
        f"data.split.group. Rows are counted from 1, without the header"
    )


def rows_in_two(keys: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Which rows have a key that stands on two sides.

    Args:
        keys: integers, shape (rows,).
        side: int8, shape (rows,); rows with -1 do not count.
    Returns:
        bool, shape (rows,).
    """
    ids, values = pd.factorize(keys)
    used = side != UNUSED
    on_side = np.zeros((len(values), len(SPLITS)), dtype=bool)
    on_side[ids[used], side[used]] = True
    return used & (on_side.sum(1) > 1)[ids]


def count_duplicates(keys: np.ndarray) -> int:
    """How many rows have a key that an earlier row has."""
    return len(keys) - len(np.unique(keys))
