"""Reads CSV and TSV as text cells by pandas' C engine, and finds out why where
it cannot; knows no features.

What the bytes are is found out in `encoding.py`, how a table that nobody described is written
in `dialects.py`, which rows cannot be what was meant in `csv_rows.py`.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import csv
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from ...errors import DataError
from ...recipe import Dialect
from ..cells import parse_cell
from ..verdicts import Reason
from .csv_rows import NUL, TextTable, drop_empty, reject_marked, reject_repeated_headers
from .dialects import OTHER_DELIMITERS, advise, find_sep_line
from .encoding import (
    MARKING,
    MARKS,
    check_encoding,
    describe_mark,
    find_broken,
    find_mixed,
    find_mojibake,
    find_utf8,
    guess_encoding,
)
from .long_cells import long_cells

_BLOCK = 1 << 20
_END = "\0end of the table\0"


def read_csv(path: Path, dialect: Dialect) -> TextTable:
    """Read a table whose first line names its columns.

    Blank lines do not count, nor do empty rows at the end.

    Args:
        path: a file that exists.
        dialect: how it is written; a byte order mark is dropped.
    Returns:
        The cells as text, exactly as written, a missing last cell as "".
    Raises:
        DataError: not in that encoding, no header, a column name twice, an extra field in every
            row, or not CSV.
    """
    check_encoding(path, dialect.encoding)
    _check_not_utf8(path, dialect.encoding)
    before = path.stat()
    reader = _Reader(path, dialect, has_nul=_has_nul(path, dialect.encoding))
    try:
        table = reader.read()
    except UnicodeError as error:
        broken = find_broken(path, dialect.encoding)
        if broken is None or not broken.is_few:
            raise _explain_encoding(path, dialect.encoding, error) from error
        reader = reader._replace(errors=MARKING)
        table = reader.read()
    table = drop_empty(table)
    reject_repeated_headers(path, table)
    if reader.has_nul or reader.errors == MARKING:
        table = reject_marked(table, dialect.encoding)
    if table.is_torn:
        _reject_short_end(reader, table)
    if table.num_fields and len(table.num_fields) == len(table.frame):
        _refuse_shape(path, dialect, table)
    table.notes.extend(_warn_of_mixture(path, dialect.encoding))
    _check_unchanged(path, before, table.notes)
    return table


class _Reader(NamedTuple):
    """One way to read a file."""

    path: Path
    dialect: Dialect
    has_nul: bool
    errors: str = "strict"

    def read(self) -> TextTable:
        with self.open() as (file, separator):
            header = self.read_header(file, separator)
            names = name_columns(self.path, header)
            try:
                frame = self._read_rows(file, separator, names)
            except (pd.errors.ParserError, pd.errors.ParserWarning):
                frame = None
        is_torn = not _ends_with_newline(self.path)
        bad: dict[int, Reason] = {}
        if frame is None:
            frame, num_fields, bad = self._read_uneven_rows(names, is_torn=is_torn)
        else:
            surplus = frame.pop(frame.columns[-1])
            frame.columns = pd.Index(names, dtype=str)
            num_fields = {
                int(row): len(names) + 1 for row in (surplus != "").to_numpy().nonzero()[0]
            }
        for row, number in num_fields.items():
            bad[row] = Reason(
                "extra field", detail=f"{number} fields, the header names {len(names)} columns"
            )
        return TextTable(frame, bad, [], is_torn and len(frame) > 1, num_fields)

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[Any, str]]:
        """The file as text from the header on, and what stands between its
        fields.
        """
        dialect = self.dialect
        encoding = (
            "utf-8-sig" if codecs.lookup(dialect.encoding).name == "utf-8" else dialect.encoding
        )
        with self.path.open(encoding=encoding, errors=self.errors, newline="") as opened:
            file = _WithoutNul(opened) if self.has_nul else opened
            said = "" if dialect.skip_lines else find_sep_line(file.readline())
            if not said:
                opened.seek(0)
            for _ in range(dialect.skip_lines):
                file.readline()
            usual = "\t" if self.path.suffix.lower() == ".tsv" else ","
            separator = dialect.delimiter or said or usual
            if len(separator) != 1 or separator in '"\r\n\0' or separator.isalnum():
                raise DataError(
                    f"{self.path}: data.delimiter is {separator[:20]!r}, "
                    'expected one character, for tab "\\t"'
                )
            yield file, separator

    def options(self, separator: str) -> dict[str, Any]:
        """Of Python's reader."""
        dialect = self.dialect
        return {
            "delimiter": separator,
            "skipinitialspace": dialect.skip_spaces,
            "escapechar": dialect.escape or None,
        }

    def read_header(self, file: Any, separator: str) -> list[str]:
        with long_cells():
            header = next(
                (row for row in csv.reader(file, **self.options(separator)) if any(row)), None
            )
        if header is None:
            raise DataError(
                f"{self.path} is empty; expected a line that names the columns, then one line a row"
            )
        if MARKS.search("".join(header)):
            raise DataError(
                f"{self.path}: the header has byte {describe_mark(''.join(header))}, which is not "
                f"{self.dialect.encoding}; save the table again"
            )
        if len(header) == 1 and not self.dialect.delimiter:
            _check_delimiter(self.path, header[0], self.dialect)
        return header

    def _read_rows(self, file: Any, separator: str, names: list[str]) -> pd.DataFrame:
        # One column is added, so that pandas neither takes the first column for an index nor shifts
        # cells when rows have one field more than the header.
        width = len(names) + 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                return pd.read_csv(
                    file,
                    sep=separator,
                    skipinitialspace=self.dialect.skip_spaces,
                    header=None,
                    names=list(range(width)),
                    index_col=False,
                    dtype=str,
                    na_filter=False,
                    escapechar=self.dialect.escape or None,
                )
            except pd.errors.EmptyDataError:
                return pd.DataFrame({name: [] for name in range(width)}, dtype=str)

    def _read_uneven_rows(
        self, names: list[str], *, is_torn: bool
    ) -> tuple[pd.DataFrame, dict[int, int], dict[int, Reason]]:
        """The slow way, for rows of any length.

        The cells, the number of fields of long rows, and bad rows.
        """
        width, rows, num_fields, bad = len(names), [], {}, {}
        with self.open() as (file, separator), long_cells():
            self.read_header(file, separator)
            reader = csv.reader(itertools.chain(file, [_END]), **self.options(separator))
            begun, line, fields = 0, 0, []
            for fields in reader:
                if fields == [_END]:
                    break
                if fields:
                    if any(fields[width:]):
                        num_fields[len(rows)] = len(fields)
                    rows.append((fields + [""] * width)[:width])
                    begun, line = line, reader.line_num
            else:
                self._explain_open_quote(rows, begun, line, fields, is_torn=is_torn)
                rows[-1] = [cell.removesuffix(_END) for cell in rows[-1]]
                bad[len(rows) - 1] = Reason(
                    "torn line", detail="a quote is opened in it, and the file ends"
                )
        return pd.DataFrame(rows, columns=pd.Index(names, dtype=str), dtype=str), num_fields, bad

    def _explain_open_quote(
        self, rows: list[list[str]], begun: int, line: int, fields: list[str], *, is_torn: bool
    ) -> None:
        """Refuse a table whose last record swallows other lines.

        Of the last line alone the end is missing.
        """
        swallowed = line - begun - 2
        if is_torn and swallowed <= 0:
            return
        at = next((cell for cell in fields if "\n" in cell or _END in cell), fields[-1])
        raise DataError(
            f"{self.path} is not CSV with a quote around some fields: in row {len(rows):,} a quote "
            "is opened and never "
            f"closed, before {at[:30]!r}; close it, or double a quote that belongs to a cell"
            + (
                ""
                if self.dialect.escape
                else ', or say data.escape: "\\\\" where a backslash stands before it'
            )
        )


class _Text(Protocol):
    def read(self, size: int = -1, /) -> str: ...
    def readline(self) -> str: ...


class _WithoutNul:
    """A text file whose NUL characters, which end a string for C, are
    marked.
    """

    def __init__(self, file: _Text) -> None:
        self._file = file

    def read(self, size: int = -1) -> str:
        return self._file.read(size).replace("\0", NUL)

    def readline(self) -> str:
        return self._file.readline().replace("\0", NUL)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.readline()
        if not line:
            raise StopIteration
        return line


def name_columns(path: Path, header: list[str]) -> list[str]:
    """Refuse names that stand twice.

    Call a column without a name as pandas does, for example `Unnamed: 0`.
    """
    names = [name or f"Unnamed: {position}" for position, name in enumerate(header)]
    twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if twice:
        shown = ", ".join(repr(name) if name != name.strip() else name for name in twice[:5])
        are_numbers = not any(np.isnan(parse_cell(name)) for name in twice)
        remedy = "write a line of names above it" if are_numbers else "rename all but one of each"
        what = "; it looks like a row of data" if are_numbers else ""
        raise DataError(f"{path}: the header names a column twice: {shown}{what}; {remedy}")
    return names


def _check_delimiter(path: Path, column: str, dialect: Dialect) -> None:
    advice = advise(path, dialect)
    if "data.delimiter" in advice or "data.skip_lines" in advice:
        raise DataError(
            f"{path}: the header is one column, {column[:80]!r}; it reads better with {advice}, "
            "and where it is one "
            f'column, say data.delimiter: ","'
        )
    for sign, written in OTHER_DELIMITERS.items():
        if sign in column:
            raise DataError(
                f"{path}: the header is one column, {column[:80]!r}; if its fields are separated "
                f"by {sign!r}, "
                f"set data.delimiter: {written}"
            )


def _reject_short_end(reader: _Reader, table: TextTable) -> None:
    """Call the last row bad where the file ends before its last field
    begins.
    """
    num_fields = _count_last_fields(reader)
    width, row = table.frame.shape[1], len(table.frame) - 1
    if num_fields < width and row not in table.bad:
        said = f"the file ends after {num_fields} of {width} fields, without a line's end"
        table.bad[row] = Reason("torn line", detail=said)


def _count_last_fields(reader: _Reader) -> int:
    """Fields of the last line.

    The file ends within it.
    """
    with reader.open() as (file, separator), long_cells():
        last = collections.deque(file, maxlen=1)
        return len(next(csv.reader(last, **reader.options(separator)), []))


def _refuse_shape(path: Path, dialect: Dialect, table: TextTable) -> None:
    """Refuse a table whose rows all have more fields than its header."""
    names = [str(name) for name in table.frame.columns]
    fields = max(table.num_fields.values())
    advice = advise(path, dialect)
    remedy = (
        f"set {advice}" if advice else "name the missing column in the header, or remove the field"
    )
    raise DataError(
        f"{path}: every row has an extra field: {fields} fields where the header names "
        f"{len(names)} columns "
        f"({', '.join(names[:8])}); {remedy}"
    )


def _has_nul(path: Path, encoding: str) -> bool:
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        return False
    with path.open("rb") as file:
        return any(b"\0" in block for block in iter(lambda: file.read(_BLOCK), b""))


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4))
        end = file.read()
    return end.rstrip(b"\0")[-1:] in (b"\n", b"\r", b"\x85") and not end.endswith(b"\0\0\0\0")


def _check_unchanged(path: Path, before: os.stat_result, notes: list[str]) -> None:
    """Say that a table has grown while it was read.

    Raises:
        DataError: it was replaced or written anew.
    """
    after = path.stat()
    if (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    ):
        return
    if after.st_ino != before.st_ino or after.st_size <= before.st_size:
        raise DataError(
            f"{path} was written anew while it was read; begin again when its writer is done"
        )
    added = after.st_size - before.st_size
    notes.append(
        f"{path.name} grew by {added:,} bytes while it was read; they wait for the next run"
    )


def _check_not_utf8(path: Path, encoding: str) -> None:
    """Refuse to read UTF-8 by an encoding that reads any bytes, and makes other
    letters of them.

    Raises:
        DataError: names the encoding to set.
    """
    if codecs.lookup(encoding).name.startswith("utf"):
        return
    cells = find_utf8(path)
    if cells:
        raise DataError(
            f"{path} is UTF-8, not {encoding}: its cells such as {', '.join(map(repr, cells))} "
            "would become other "
            f"letters; set data.encoding: utf-8"
        )


def _warn_of_mixture(path: Path, encoding: str) -> list[str]:
    """Name cells that are UTF-8 among others, or were so before they were
    read by something else and saved.
    """
    if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
        what, found = f"are UTF-8, beside others in {encoding}", find_mixed(path, encoding)
    else:
        what, found = (
            "seem to be UTF-8 read as Windows-1252 before it was saved",
            find_mojibake(path),
        )
    said = (
        f"{path.name} has cells that {what}: {', '.join(found)}; mend them where the table is made"
    )
    return [said] if found else []


def _explain_encoding(path: Path, encoding: str, error: UnicodeError) -> DataError:
    """Name the line and the byte, which pandas counts from the start of its
    block, and what the file seems to be.
    """
    name = encoding.removesuffix("-sig")
    guess = guess_encoding(path)
    remedy = f"set data.encoding: {guess.encoding} ({guess.describe()})"
    others = ", or whatever it was written in, or save it as UTF-8"
    if codecs.lookup(guess.encoding).name == codecs.lookup(name).name:
        remedy, others = "it is cut short, or of another encoding: save it again, as UTF-8", ""
    elif guess.encoding.startswith("utf-16"):
        return DataError(f"{path} is UTF-16, not {name}; {remedy}")
    broken = find_broken(path, name)
    if broken is None:
        return DataError(f"{path} is not {name}: {error}; {remedy}")
    return DataError(
        f"{path} is not {name}: byte 0x{broken.byte:02x} at position {broken.position:,}, line "
        f"{broken.line:,}; "
        f"{remedy}{others}"
    )
