"""The verdict on each row.

Good, or bad for one reason; counts them, limits them and writes `quarantine.csv`.

`files/paths.py` finds what is wrong with files, `cells/columns.py` with cells, and
`splits/splits.py` with sides. A reason is kept in its parts and becomes one sentence where somebody
reads it, so that nobody has to take a sentence apart.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from ..disk import digest, read_json, write_atomic
from ..errors import DataError
from .layout import QUARANTINE

PREVIEW = 3
MISSING_FILE = "missing file"
REPORT = "report.json"
# A message names at most so many kinds of reasons, and of a value or another's words at most so
# many characters.
MOST_KINDS = 8
MOST_CHARACTERS = 200
_ADDRESS = re.compile(r"\s+at 0x[0-9a-fA-F]+|0x[0-9a-fA-F]{6,}")


class Reason(NamedTuple):
    """Why a row is bad, as the parts of a sentence.

    The sentence is `kind: value, detail (said); remedy`.

    Attributes:
        kind: what rows are counted by, so that it names neither the row nor its value.
        value: the cell, or the file that it names.
        detail: what was expected and what came.
        remedy: what to do.
        said: the words of a library or of the system (see `quote`). They may change with its
            version, so that nothing is named by them.
    """

    kind: str
    value: str = ""
    detail: str = ""
    remedy: str = ""
    said: str = ""

    def __str__(self) -> str:
        told = ", ".join(_shorten(part) for part in (self.value, self.detail) if part)
        text = f"{self.kind}: {told}" if told else self.kind
        text += f" ({self.said})" if self.said else ""
        return f"{text}; {self.remedy}" if self.remedy else text

    def dump(self) -> str:
        """The parts as one text, for a file."""
        return json.dumps(self)

    @classmethod
    def load(cls, text: str) -> Self:
        """A reason from what `dump` gave."""
        return cls(*json.loads(text))


def quote(error: BaseException) -> str:
    """The first line of what a library or the system says of an error,
    without what differs from run to run.
    """
    text = error.strerror or "" if isinstance(error, OSError) else ""
    lines = (text or str(error)).strip().splitlines()
    said = _ADDRESS.sub("", lines[0] if lines else type(error).__name__)
    return _shorten(said.encode("utf-8", "replace").decode("utf-8"))


def say_counts(counts: Mapping[str, int], remedies: Mapping[str, str] | None = None) -> str:
    """Bad rows of each kind in words, the first `MOST_KINDS` of them, each
    with what to do where that is given.
    """
    said = []
    for kind, count in list(counts.items())[:MOST_KINDS]:
        remedy = (remedies or {}).get(kind, "")
        said.append(f"{count:,} {kind}" + (f" ({remedy})" if remedy else ""))
    if len(counts) > MOST_KINDS:
        rest = list(counts.values())[MOST_KINDS:]
        said.append(f"{sum(rest):,} for {len(rest):,} other reasons")
    return ", ".join(said)


def shorten_warnings(found: Sequence[str], others: str) -> list[str]:
    """The first `MOST_KINDS` of warnings that are alike, and how many more
    there are: a wide table has one a column.
    """
    if len(found) <= MOST_KINDS + 1:
        return list(found)
    return [*found[:MOST_KINDS], f"{len(found) - MOST_KINDS:,} more {others}"]


def _say_first(reasons: Mapping[int, Reason]) -> str:
    """The first rows with their reasons.

    What to do is said once.
    """
    said, told = [], set[tuple[str, str]]()
    for row in sorted(reasons)[:PREVIEW]:
        reason = reasons[row]
        known = (reason.kind, reason.remedy) in told
        told.add((reason.kind, reason.remedy))
        said.append(f"row {row + 1}: {reason._replace(remedy='') if known else reason}")
    return "; ".join(said)


def _shorten(text: str) -> str:
    """At most `MOST_CHARACTERS`, both ends kept, with control characters
    written out.
    """
    text = text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 60]}…{text[-59:]}"
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


class NoRowsError(DataError):
    """All rows of a table are bad.

    Args:
        reasons: of each row, by its position in the table.
    """

    def __init__(self, message: str, reasons: dict[int, Reason]) -> None:
        super().__init__(message)
        self.reasons = reasons


class Verdicts:
    """One verdict a row of the table.

    The first reason stays.

    Attributes:
        good: bool, shape (rows,).
        reasons: of the bad rows, by their position in the table (from 0).
    """

    def __init__(self, num_rows: int) -> None:
        self.good = np.ones(num_rows, dtype=bool)
        self.reasons: dict[int, Reason] = {}

    def reject(
        self,
        row: int,
        kind: str,
        value: str = "",
        detail: str = "",
        remedy: str = "",
        said: str = "",
    ) -> None:
        """Call a row bad for a `Reason` of these parts.

        Without effect where it is bad already.
        """
        if self.good[row]:
            self.good[row] = False
            self.reasons[row] = Reason(kind, value, detail, remedy, said)

    @property
    def counts(self) -> dict[str, int]:
        """Bad rows of each kind, most frequent first."""
        return dict(Counter(reason.kind for reason in self.reasons.values()).most_common())

    @property
    def remedies(self) -> dict[str, str]:
        """What to do about each kind, by its first row that says so."""
        found: dict[str, str] = {}
        for row in sorted(self.reasons):
            if remedy := self.reasons[row].remedy:
                found.setdefault(self.reasons[row].kind, remedy)
        return found

    def digest(self) -> str:
        """32 hex digits over all rows' verdicts, but for the words of others
        in them.
        """
        return digest(
            len(self.good), [(row, *self.reasons[row][:-1]) for row in sorted(self.reasons)]
        )

    def to_csv(self, frame: pd.DataFrame) -> str:
        """The bad rows as CSV.

        Row (the table's first row of data is 1), reason, then the row's cells.
        """
        rows = sorted(self.reasons)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "reason", *frame.columns])
        cells = frame.iloc[rows].to_numpy() if rows else []
        writer.writerows(
            [row + 1, str(self.reasons[row]), *line] for row, line in zip(rows, cells, strict=True)
        )
        return text.getvalue()

    def check_limit(
        self, max_bad_rows: float, table: str, frame: pd.DataFrame, quarantine: Path
    ) -> None:
        """Stop where too many rows are bad.

        Then, and only then, write them to `quarantine`.

        Raises:
            DataError: more than the fraction `max_bad_rows` of the rows are bad, or all of them
                (NoRowsError); counts them by reason, names the first ones and where all of them
                lie.
        """
        num_bad, num_rows = len(self.reasons), len(self.good)
        if num_bad <= max_bad_rows * num_rows and num_bad < num_rows:
            return
        write_atomic(quarantine, self.to_csv(frame))
        counts = say_counts(self.counts)
        first = _say_first(self.reasons)
        if num_bad < num_rows:
            allowed = (
                f", data.max_bad_rows = {max_bad_rows:g} allows {int(max_bad_rows * num_rows):,}"
            )
            remedy = f"correct them, or raise data.max_bad_rows above {num_bad / num_rows:.2g}"
        else:
            allowed, remedy = "", "no row is left, correct the table"
            if MISSING_FILE in self.counts:
                remedy += ", or the folder that its files are looked for in"
        message = (
            f"{table}: {num_bad:,} of {num_rows:,} rows are bad{allowed} ({counts}). First: "
            f"{first}. All of them "
            f"with their reasons are in {quarantine}; {remedy}. Rows are counted from 1, without "
            "the header"
        )
        raise DataError(message) if num_bad < num_rows else NoRowsError(message, self.reasons)


def read_verdicts(split_dir: Path) -> dict[int, str]:
    """Why rows are bad, each a sentence, by their position in the table
    (from 0).
    """
    cells = pd.read_csv(split_dir / QUARANTINE, usecols=[0, 1], dtype=str, na_filter=False)
    return {
        int(row) - 1: str(reason)
        for row, reason in zip(cells.iloc[:, 0], cells.iloc[:, 1], strict=True)
    }


def say_verdicts(split_dir: Path) -> str:
    """How many rows are bad for which kinds of reasons, and what to do about
    them.
    """
    found = read_json(split_dir / REPORT)["quarantined"]
    return say_counts(found["reasons"], found.get("remedies"))  # which older reports do not have
