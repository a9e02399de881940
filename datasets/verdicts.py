"""The verdict on each row: good, or bad for one reason; counts them, limits them and writes `quarantine.csv`.

Who finds what is wrong stands elsewhere: `paths.py` for files, `columns.py` for cells, `splits.py` for sides.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import DataError
from ..files import digest, write_atomic

PREVIEW = 3


class Reason(NamedTuple):
    """Why a row is bad: the kind is what rows are counted by, the detail names the value."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


class NoRowsError(DataError):
    """All rows of a table are bad.

    Args:
        reasons: of each row, by its position in the table.
    """

    def __init__(self, message: str, reasons: dict[int, Reason]) -> None:
        super().__init__(message)
        self.reasons = reasons


class Verdicts:
    """One verdict a row of the table; the first reason stays.

    Attributes:
        good: bool, shape (rows,).
        reasons: of the bad rows, by their position in the table (from 0).
    """

    def __init__(self, num_rows: int) -> None:
        self.good = np.ones(num_rows, dtype=bool)
        self.reasons: dict[int, Reason] = {}

    def reject(self, row: int, kind: str, detail: str = "") -> None:
        """Call a row bad; without effect where it is bad already."""
        if self.good[row]:
            self.good[row] = False
            self.reasons[row] = Reason(kind, detail)

    @property
    def counts(self) -> dict[str, int]:
        """Bad rows of each kind, most frequent first."""
        return dict(Counter(reason.kind for reason in self.reasons.values()).most_common())

    def digest(self) -> str:
        """32 hex digits over all rows' verdicts."""
        return digest(len(self.good), [(row, *self.reasons[row]) for row in sorted(self.reasons)])

    def to_csv(self, frame: pd.DataFrame) -> str:
        """The bad rows as CSV: row (the table's first row of data is 1), reason, then the row's cells."""
        rows = sorted(self.reasons)
        cells = frame.iloc[rows].reset_index(drop=True)
        head = pd.DataFrame({"row": [row + 1 for row in rows], "reason": [str(self.reasons[row]) for row in rows]})
        text = io.StringIO()
        pd.concat([head, cells], axis=1).to_csv(text, index=False)
        return text.getvalue()

    def check_limit(self, max_bad_rows: float, table: str, frame: pd.DataFrame, quarantine: Path) -> None:
        """Stop where too many rows are bad; then, and only then, write them to `quarantine`.

        Raises:
            DataError: more than the fraction `max_bad_rows` of the rows are bad, or all of them (NoRowsError); counts
                them by reason, names the first ones and where all of them lie.
        """
        num_bad, num_rows = len(self.reasons), len(self.good)
        if num_bad <= max_bad_rows * num_rows and num_bad < num_rows:
            return
        write_atomic(quarantine, self.to_csv(frame))
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items())
        first = "; ".join(f"row {row + 1}: {self.reasons[row]}" for row in sorted(self.reasons)[:PREVIEW])
        if num_bad < num_rows:
            allowed = f", data.max_bad_rows = {max_bad_rows:g} allows {int(max_bad_rows * num_rows):,}"
            remedy = f"correct them, or raise data.max_bad_rows above {num_bad / num_rows:.2g}"
        else:
            allowed, remedy = "", "no row is left, correct the table, or the folder that its files are looked for in"
        message = (
            f"{table}: {num_bad:,} of {num_rows:,} rows are bad{allowed} ({counts}). First: {first}. All of them "
            f"with their reasons are in {quarantine}; {remedy}. Rows are counted from 1, without the header"
        )
        raise DataError(message) if num_bad < num_rows else NoRowsError(message, self.reasons)
