"""What is wrong with rows of a text table, whatever their columns mean.

The header again, bytes that are no text.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...errors import DataError
from ..verdicts import Reason
from .encoding import MARKS, describe_mark, mark

NUL = mark(0)
# Of more rows, and more than half of a table, none is a header.
_MOST_HEADERS = 2


class TextTable(NamedTuple):
    """A text table as it stands in the file.

    Attributes:
        frame: text cells, indexed from 0; row 0 is the first row of data.
        bad: rows that cannot be what was meant, by their position.
        notes: sentences for the user.
        is_torn: the file ends within its last line, whose last cell may be cut short.
        num_fields: of the rows with more fields than the header; the surplus is dropped.
    """

    frame: pd.DataFrame
    bad: dict[int, Reason]
    notes: list[str]
    is_torn: bool
    num_fields: dict[int, int]


def drop_empty(table: TextTable) -> TextTable:
    """Without the rows at the end and the unnamed columns at the right that
    hold nothing, as spreadsheets write.
    """
    frame, notes = table.frame, list(table.notes)
    num_rows = len(frame)
    while (
        num_rows
        and frame.shape[1] > 1
        and not frame.iat[num_rows - 1, 0]
        and num_rows - 1 not in table.bad
    ):
        if any(frame.iloc[num_rows - 1]):
            break
        num_rows -= 1
    if 0 < num_rows < len(frame):
        notes.append(f"{len(frame) - num_rows:,} empty rows at the end of the table are left out")
        frame = frame.iloc[:num_rows]
    width = frame.shape[1]
    while (
        width > 1
        and frame.columns[width - 1] == f"Unnamed: {width - 1}"
        and not frame.iloc[:, width - 1].any()
    ):
        width -= 1
    if width < frame.shape[1] and len(frame):
        frame = frame.iloc[:, :width]
    return table._replace(frame=frame, notes=notes)


def reject_repeated_headers(path: Path, table: TextTable) -> None:
    """Call a row bad that says the header again, as where files were put one
    after another.

    Raises:
        DataError: it names the columns in another order, which what follows it then has, too.
    """
    names = [str(name) for name in table.frame.columns]
    wanted = set(names) if len(names) > 1 else set[str]()
    rows = np.arange(len(table.frame))
    for position in range(len(names)):
        rows = rows[table.frame.iloc[rows, position].str.removeprefix("\ufeff").isin(wanted)]
        if not len(rows):
            return
    if _are_data(table.frame.iloc[rows], len(table.frame)):
        return
    for row in rows:
        cells = [str(cell).removeprefix("\ufeff") for cell in table.frame.iloc[row]]
        if cells == names:
            table.bad.setdefault(int(row), Reason("the header again", detail=", ".join(names[:8])))
        elif set(cells) == wanted:
            raise DataError(
                f"{path}: row {row + 1:,} is a header whose columns stand in another order "
                f"({', '.join(cells[:8])}): "
                f"two tables were put one after another; join them by their columns' names"
            )


def _are_data(said: pd.DataFrame, num_rows: int) -> bool:
    """Whether rows whose cells are names of columns are no headers, as where
    the columns left and right say such.
    """
    is_frequent = len(said) > max(_MOST_HEADERS, num_rows / 2)
    return is_frequent or any(len(set(row)) < len(row) for row in said.itertuples(index=False))


def reject_marked(table: TextTable, encoding: str) -> TextTable:
    """Call rows bad that have NUL characters or bytes that are no text.

    Their cells show a replacement character.
    """
    frame, bad = table.frame.copy(), dict(table.bad)
    for name in frame.columns:
        marked = frame[name].str.contains(MARKS.pattern, regex=True).to_numpy(dtype=bool)
        for row in np.flatnonzero(marked):
            cell = str(frame[name].iat[int(row)])
            shown, num_nul = repr(MARKS.sub("\ufffd", cell)), cell.count(NUL)
            if num_nul:
                reason = Reason(
                    f"NUL byte in {str(name)!r}", shown, f"{num_nul:,} of {len(cell):,} characters"
                )
            else:
                reason = Reason(
                    f"byte that is not {encoding} in {str(name)!r}", shown, describe_mark(cell)
                )
            bad.setdefault(int(row), reason)
        if marked.any():
            frame[name] = frame[name].str.replace(MARKS.pattern, "\ufffd", regex=True)
    return table._replace(frame=frame, bad=bad)
