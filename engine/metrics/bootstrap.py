"""The bootstrap.

How far a mean over rows would move if other rows like these had been drawn.

Efron and Tibshirani 1993, chapter 13: the percentile interval. It keeps its meaning under a root or
any other rising function, needs no formula for the spread, and never leaves the metric's range.
Rows that belong together are drawn together (the cluster bootstrap; Davison and Hinkley 1997,
section 3.8): two pictures of one patient say less than two of two.
"""

# Shapes: N rows, D columns, G groups of rows, U units (groups, or several joined) that are
# resampled, R resamples.

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LEVEL = 0.95
NUM_RESAMPLES = 1000
SEED = 0
# More groups than these are joined at random to this many units, which are resampled in their
# place: the spread of the mean stays the same, and time and memory stay bounded.
MAX_UNITS = 20_000
_DRAWS_AT_ONCE = 1 << 20


def resampled_interval(
    values_ND: np.ndarray, weights_D: np.ndarray, groups_N: np.ndarray | None = None, *, root: bool
) -> tuple[float, float] | None:
    """The 95 % interval of sum over columns of weight times mean over rows,
    groups of rows drawn with replacement.

    Where all rows say the same 0 or the same 1 (every prediction right), resampling cannot see how
    it might be otherwise; the exact bound of Clopper and Pearson 1934 stands in, for as many rows
    as there are groups.

    Args:
        values_ND: float64; NaN leaves a row out of a column's mean.
        weights_D: of the columns.
        groups_N: integers, equal ones for rows that belong together; None where each row is alone.
        root: take the square root of each column's mean first.
    Returns:
        Low and high; None where a column has rows of fewer than two groups.
    """
    if not len(values_ND):
        return None
    sums_GD = _gather(np.nan_to_num(values_ND), groups_N)
    counts_GD = _gather((~np.isnan(values_ND)).astype(np.float64), groups_N)
    num_groups = int((counts_GD > 0).sum(axis=0).min())
    if num_groups < 2:
        return None
    sums_UD, counts_UD = _join(sums_GD), _join(counts_GD)
    estimates_R = np.concatenate(
        [_estimate(w, sums_UD, counts_UD, weights_D, root) for w in _draw(len(sums_UD))]
    )
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(estimates_R, [tail, 1 - tail])
    if low == high and not root and low in (0.0, 1.0):
        farthest = 1 - tail ** (1 / num_groups)
        low, high = (1 - farthest, 1.0) if low else (0.0, farthest)
    return float(low), float(high)


def resampled_ratio_interval(
    numerators_ND: np.ndarray,
    denominators_ND: np.ndarray,
    weights_D: np.ndarray,
    groups_N: np.ndarray | None = None,
) -> tuple[float, float] | None:
    """The 95 % interval of sum over columns of weight times the ratio of two
    sums over rows, groups drawn as above.

    Args:
        numerators_ND, denominators_ND: float64, not negative.
        weights_D: of the columns.
        groups_N: see `resampled_interval`.
    Returns:
        Low and high; None where fewer than two groups have something in their denominator, or all
        resamples agree.
    """
    if not len(numerators_ND):
        return None
    below_GD = _gather(denominators_ND, groups_N)
    if ((below_GD > 0).sum(axis=0) < 2).any():
        return None
    above_UD, below_UD = _join(_gather(numerators_ND, groups_N)), _join(below_GD)
    estimates_R = np.concatenate(
        [_estimate(w, above_UD, below_UD, weights_D, False) for w in _draw(len(above_UD))]
    )
    low, high = np.quantile(estimates_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return None if low == high else (float(low), float(high))


def _estimate(
    draws_RU: np.ndarray,
    sums_UD: np.ndarray,
    counts_UD: np.ndarray,
    weights_D: np.ndarray,
    root: bool,
) -> np.ndarray:
    means_RD = (draws_RU @ sums_UD) / np.maximum(draws_RU @ counts_UD, 1)
    return (np.sqrt(means_RD) if root else means_RD) @ weights_D


def _gather(values_ND: np.ndarray, groups_N: np.ndarray | None) -> np.ndarray:
    """Sums over the rows of each group, shape (G, D)."""
    if groups_N is None:
        return values_ND
    order = np.argsort(groups_N, kind="stable")
    _, starts = np.unique(groups_N[order], return_index=True)
    return np.add.reduceat(values_ND[order], starts, axis=0)


def _join(values_GD: np.ndarray) -> np.ndarray:
    """Sums over units of groups, at most `MAX_UNITS`.

    The groups of a unit are far apart in the table.
    """
    num_groups = len(values_GD)
    if num_groups <= MAX_UNITS:
        return values_GD
    order = np.random.default_rng(SEED).permutation(num_groups)
    starts = np.linspace(0, num_groups, MAX_UNITS, endpoint=False).astype(np.int64)
    return np.add.reduceat(values_GD[order], starts, axis=0)


def _draw(num_units: int) -> Iterator[np.ndarray]:
    """How often each unit stands in each resample.

    Float64, shape (R, U), a part of the resamples at a time.
    """
    generator = np.random.default_rng(SEED)
    at_once = max(1, _DRAWS_AT_ONCE // num_units)
    for first in range(0, NUM_RESAMPLES, at_once):
        number = min(at_once, NUM_RESAMPLES - first)
        drawn = (
            generator.integers(num_units, size=(number, num_units))
            + np.arange(number)[:, None] * num_units
        )
        counts = np.bincount(drawn.ravel(), minlength=number * num_units)
        yield counts.reshape(number, num_units).astype(np.float64)
