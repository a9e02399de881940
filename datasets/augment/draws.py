"""Random numbers of rows.

Each row draws for itself, from a hash of (seed, epoch, its position in the pack).

What is drawn for a row depends neither on the other rows of its batch, nor on the number of
workers, nor on where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

# Shapes: B rows in a batch.

# A row's random numbers: call it with a stream number, get uint64 of shape (B,).
Draw = Callable[[int], np.ndarray]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def drawer(seed: int, epoch: int, rows: Tensor, repeats: Tensor | None = None) -> Draw:
    """Random numbers of each row.

    Splitmix64 (Steele, Lea and Flood 2014) of seed, epoch, row and stream.

    Args:
        rows: int64, shape (B,): positions in the pack.
        repeats: int64, shape (B,): how often the epoch drew the row before; another time gives
            other numbers.
    """
    key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(epoch))
    base = _mix(rows.numpy().astype(np.uint64) + key)
    if repeats is not None:
        again = repeats.numpy().astype(np.uint64)
        base = np.where(again > 0, _mix(base ^ (again * _GOLDEN)), base)

    def draw(stream: int) -> np.ndarray:
        return _mix(
            base + np.array([stream + 1], np.uint64) * _GOLDEN
        )  # an array wraps without a warning

    return draw


def uniform(draws: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Draws (B,) as float64, evenly from `low` to, but not including,
    `high`.
    """
    unit = (draws >> np.uint64(11)) * 2.0**-53
    return unit if (low, high) == (0.0, 1.0) else low + unit * (high - low)


def below(draws: np.ndarray, number: int | np.ndarray) -> np.ndarray:
    """Draws (B,) as int64, from 0 to `number` - 1."""
    return (draws % np.asarray(number, np.uint64)).astype(np.int64)


def _mix(state: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, on uint64, which wraps."""
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
