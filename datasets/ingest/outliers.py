"""Finds numbers so far from all others of their column that, beside them, all
others look alike; rejects nothing.

Means and deviations are fitted over all training rows, so that one -99999999 flattens a column.
Heavy tails are none: a few cells count as wild where a gap parts them from the rest, where they
make most of the deviation, and, in a column of one sign, where they are far on a logarithmic scale
too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

# At most this part of the cells is wild, and they are so many times as far from the median as any
# other cell.
MOST_WILD = 0.1
SMALLEST_GAP = 30.0
# With them the column's deviation is so many times that of the rest.
SMALLEST_SPREAD = 3.0
# So many robust deviations from the median of the logarithms, which count at least as so much.
FAR_IN_LOGARITHMS = 10.0
LEAST_DEVIATION, LEAST_DEVIATION_OF_FEW = 0.3, 1.0
FEWEST_CELLS = 20
# What tables write where there is no number: -9, -99.0, 9999 and the like, or the end of a range of
# whole numbers.
_SENTINEL = re.compile(
    r"-?9{2,}|-9|-8{3,}|-7{3,}|-?32768|32767|65535|-?2147483648|2147483647|4294967295"
)
# Median absolute deviation to standard deviation, of a normal distribution.
_MAD = 1.4826


class Wild(NamedTuple):
    """The wild numbers of a column.

    Attributes:
        rows: positions, the farthest first.
        times: how many times as far from the median the nearest of them is as the farthest other
            number.
        median: of the column.
    """

    rows: np.ndarray
    times: float
    median: float

    @property
    def times_text(self) -> str:
        """`times` for people."""
        return f"{self.times:,.0f}" if self.times < 1e9 else f"{self.times:.0e}"


class Sentinel(NamedTuple):
    """A number that may say that there is none.

    Attributes:
        value: it.
        num: cells that say it.
        low, high: the least and the largest of the others.
    """

    value: float
    num: int
    low: float
    high: float


def find_sentinel(values: np.ndarray) -> Sentinel | None:
    """The number of a column that is written like -999, again and again, and
    lies outside of the others' range.

    Args:
        values: float64, shape (rows,); NaN does not count.
    """
    present = values[~np.isnan(values)]
    distinct, counts = np.unique(present, return_counts=True)
    if len(present) < FEWEST_CELLS or len(distinct) < 3:
        return None
    for at, rest in ((0, distinct[1:]), (-1, distinct[:-1])):
        value, low, high = float(distinct[at]), float(rest[0]), float(rest[-1])
        is_far = (low - value if at == 0 else value - high) > high - low
        written = f"{value:.0f}" if value == round(value) else ""
        if is_far and counts[at] > 1 and _SENTINEL.fullmatch(written):
            return Sentinel(value, int(counts[at]), low, high)
    return None


def find_wild(values: np.ndarray) -> Wild | None:
    """The wild numbers of one column.

    None where it has none.

    Args:
        values: float64, shape (rows,); NaN does not count.
    """
    present = np.flatnonzero(~np.isnan(values))
    if len(present) < FEWEST_CELLS:
        return None
    numbers = values[present]
    median = float(np.median(numbers))
    distance = np.abs(numbers - median)
    order = np.argsort(distance, kind="stable")
    ordered = distance[order]
    first = max(1, len(ordered) - int(MOST_WILD * len(ordered)))
    below = ordered[first - 1 : -1]
    if not len(below) or ordered[-1] < SMALLEST_GAP * below[0] or ordered[first - 1] == ordered[-1]:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.where(below > 0, ordered[first:] / below, 0.0)
    at = int((gaps >= SMALLEST_GAP).argmax())
    start = first + at
    rest, wild = numbers[order[:start]], numbers[order[start:]]
    if gaps[at] < SMALLEST_GAP or numbers.std() < SMALLEST_SPREAD * rest.std():
        return None
    if _is_tail(rest, wild):
        return None
    return Wild(present[order[start:]][::-1], float(gaps[at]), median)


def may_be_wild(values: np.ndarray) -> np.ndarray:
    """Columns that `find_wild` has to look at.

    Bool, shape (columns,); quick for many columns.

    Args:
        values: float64, shape (rows, columns); columns with NaN are always looked at.
    """
    num_rows = len(values)
    if num_rows < FEWEST_CELLS:
        return np.zeros(values.shape[1], dtype=bool)
    with np.errstate(invalid="ignore"):
        distance = np.sort(np.abs(values - np.median(values, axis=0)), axis=0)
    first = max(1, num_rows - int(MOST_WILD * num_rows))
    usual, farthest = distance[first - 1], distance[-1]
    return np.isnan(values).any(axis=0) | ((farthest >= SMALLEST_GAP * usual) & (farthest > usual))


def _is_tail(rest: np.ndarray, wild: np.ndarray) -> bool:
    """Whether numbers of one sign go on on a logarithmic scale, as those of
    a heavy-tailed column do.
    """
    sign = 1.0 if rest.max() > 0 else -1.0
    if (sign * rest < 0).any() or (sign * wild < 0).any():
        return False
    logarithms = np.log(np.abs(rest[rest != 0]))
    median = float(np.median(logarithms))
    deviation = _MAD * float(np.median(np.abs(logarithms - median)))
    least = LEAST_DEVIATION if 2 * len(logarithms) > len(rest) else LEAST_DEVIATION_OF_FEW
    return float(np.log(np.abs(wild)).min()) - median < FAR_IN_LOGARITHMS * max(deviation, least)
