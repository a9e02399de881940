"""The bootstrap: how far a mean over rows would move if other rows like these had been drawn.

Efron and Tibshirani 1993, chapter 13: the percentile interval. It keeps its meaning under a root or any other rising
function, needs no formula for the spread, and never leaves the metric's range.
"""

# Shapes: N rows, D columns, U units (rows, or groups of rows) that are resampled, R resamples.

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LEVEL = 0.95
NUM_RESAMPLES = 1000
SEED = 0
# More rows than these are joined at random to this many groups, which are resampled in their place: the spread of the
# mean stays the same, and time and memory stay bounded.
MAX_UNITS = 20_000
_DRAWS_AT_ONCE = 1 << 20


def resampled_interval(values_ND: np.ndarray, weights_D: np.ndarray, *, root: bool) -> tuple[float, float] | None:
    """The 95 % interval of sum over columns of weight times mean over rows, rows drawn with replacement.

    Where all rows say the same 0 or the same 1 (every prediction right), resampling cannot see how it might be
    otherwise; the exact bound of Clopper and Pearson 1934 stands in.

    Args:
        values_ND: float64; NaN leaves a row out of a column's mean.
        weights_D: of the columns.
        root: take the square root of each column's mean first.
    Returns:
        Low and high; None where a column has fewer than two rows.
    """
    defined_ND = ~np.isnan(values_ND)
    num_rows_D = defined_ND.sum(axis=0)
    if not len(values_ND) or num_rows_D.min() < 2:
        return None
    sums_UD, counts_UD = _join(np.nan_to_num(values_ND)), _join(defined_ND.astype(np.float64))
    estimates_R = np.concatenate([_estimate(w, sums_UD, counts_UD, weights_D, root) for w in _draw(len(sums_UD))])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(estimates_R, [tail, 1 - tail])
    if low == high and not root and low in (0.0, 1.0):
        farthest = 1 - tail ** (1 / int(num_rows_D.min()))
        low, high = (1 - farthest, 1.0) if low else (0.0, farthest)
    return float(low), float(high)


def resampled_ratio_interval(
    numerators_ND: np.ndarray, denominators_ND: np.ndarray, weights_D: np.ndarray
) -> tuple[float, float] | None:
    """The 95 % interval of sum over columns of weight times the ratio of two sums over rows, rows drawn as above.

    Args:
        numerators_ND, denominators_ND: float64, not negative.
        weights_D: of the columns.
    Returns:
        Low and high; None where fewer than two rows have something in their denominator, or all resamples agree.
    """
    if not len(numerators_ND) or ((denominators_ND > 0).sum(axis=0) < 2).any():
        return None
    above_UD, below_UD = _join(numerators_ND), _join(denominators_ND)
    estimates_R = np.concatenate([_estimate(w, above_UD, below_UD, weights_D, False) for w in _draw(len(above_UD))])
    low, high = np.quantile(estimates_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return None if low == high else (float(low), float(high))


def _estimate(
    draws_RU: np.ndarray, sums_UD: np.ndarray, counts_UD: np.ndarray, weights_D: np.ndarray, root: bool
) -> np.ndarray:
    means_RD = (draws_RU @ sums_UD) / np.maximum(draws_RU @ counts_UD, 1)
    return (np.sqrt(means_RD) if root else means_RD) @ weights_D


def _join(values_ND: np.ndarray) -> np.ndarray:
    """Sums over groups of rows, at most `MAX_UNITS`; the rows of a group are far apart in the table."""
    num_rows = len(values_ND)
    if num_rows <= MAX_UNITS:
        return values_ND
    order = np.random.default_rng(SEED).permutation(num_rows)
    starts = np.linspace(0, num_rows, MAX_UNITS, endpoint=False).astype(np.int64)
    return np.add.reduceat(values_ND[order], starts, axis=0)


def _draw(num_units: int) -> Iterator[np.ndarray]:
    """How often each unit stands in each resample: float64, shape (R, U), a part of the resamples at a time."""
    generator = np.random.default_rng(SEED)
    at_once = max(1, _DRAWS_AT_ONCE // num_units)
    for first in range(0, NUM_RESAMPLES, at_once):
        number = min(at_once, NUM_RESAMPLES - first)
        drawn = generator.integers(num_units, size=(number, num_units)) + np.arange(number)[:, None] * num_units
        counts = np.bincount(drawn.ravel(), minlength=number * num_units)
        yield counts.reshape(number, num_units).astype(np.float64)
