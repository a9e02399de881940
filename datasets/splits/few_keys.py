"""A split by fractions of rows that few different keys name.

Says so, and tells rows of one key apart where asked.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...recipe import Split
from ...schema import SPLITS
from .splits import UNUSED, combine

# A side is far off where its part of the rows differs from the fraction by more than half of that.
MOST_OFF = 0.5
FEWEST_ROWS = 20
# So many keys with equally many rows each keep a side of a tenth near its fraction (standard
# deviation 3 %).
FEWEST_KEYS = 100


def number_repeats(keys: np.ndarray) -> np.ndarray:
    """Another key for each row.

    Of its own and how many rows with the same stood before it.

    Rows that are added at the table's end leave those of all others as they are.

    Args:
        keys: uint64, shape (rows,).
    """
    return combine([keys, pd.Series(keys).groupby(keys).cumcount().to_numpy(np.uint64)])


def are_few(counts: np.ndarray) -> bool:
    """Whether keys that stand in so many rows each are too few, or too uneven,
    for a hash of them to keep fractions.

    Args:
        counts: shape (keys,).
    """
    num_rows = int(counts.sum())
    if num_rows < FEWEST_ROWS or 2 * len(counts) > num_rows:
        return False
    return num_rows**2 / float((counts.astype(np.float64) ** 2).sum()) < FEWEST_KEYS


def warn_of_few_keys(split: Split, keys: np.ndarray, side: np.ndarray) -> list[str]:
    """Say where so few keys decide that a side is empty or far from its
    fraction, and what to do.

    Args:
        split: fractions.
        keys: uint64, shape (rows,); equal ones are on one side.
        side: int8, shape (rows,); -1 for rows that are not used.
    """
    used = side != UNUSED
    num_rows, num_keys = int(used.sum()), len(np.unique(keys[used]))
    if num_rows < FEWEST_ROWS or 2 * num_keys > num_rows:
        return []
    wanted = [1 - split.valid - split.test, split.valid, split.test]
    counts = [int((side == at).sum()) for at in range(len(SPLITS))]
    off = [
        abs(count / num_rows - part) > MOST_OFF * part
        for count, part in zip(counts, wanted, strict=True)
        if part > 0
    ]
    if not any(off):
        return []
    got = ", ".join(f"{count:,} {name}" for count, name in zip(counts, SPLITS, strict=True))
    asked = ", ".join(f"{part:.0%} {name}" for part, name in zip(wanted, SPLITS, strict=True))
    return [
        f"{num_rows:,} rows have {num_keys:,} different keys (the group, else data.key, else the "
        "inputs), and those of "
        f"one stay on one side: {got} where data.split asks for {asked}. Name a column that tells "
        "rows apart with "
        f"data.key, or say data.split.repeats: apart"
    ]
