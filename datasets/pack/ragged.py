"""Rows of different lengths in one array, with the places where they begin.

What is called compressed rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Ragged(NamedTuple):
    """Row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: all rows', one after the other.
        offsets: int64, shape (rows + 1,), from 0 to the number of values.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Rows of these lengths, int64 of shape (rows,)."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @property
    def lengths(self) -> np.ndarray:
        """Values of each row, int64, shape (rows,)."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """Some rows, in the order of `rows` (int64 positions), in memory of
        their own.
        """
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        places = np.repeat(starts, lengths) + spread(lengths)
        return Ragged.of_lengths(self.values[places], lengths)


def spread(lengths: np.ndarray, *, down: bool = False) -> np.ndarray:
    """The place of each value in its row, int64.

    0, 1, …; or `down`, from the row's length to 1.
    """
    stops = np.cumsum(lengths)
    numbers = np.arange(stops[-1] if len(stops) else 0)
    return (
        np.repeat(stops, lengths) - numbers
        if down
        else numbers - np.repeat(stops - lengths, lengths)
    )
