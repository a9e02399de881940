"""Reads CSV and TSV as text cells by pandas' C engine, and finds out why where it cannot; knows no recipe."""

from __future__ import annotations

import codecs
import csv
import encodings.aliases
import itertools
import warnings
from pathlib import Path

import pandas as pd

from ..errors import DataError
from ..recipe import nearest

_BLOCK = 1 << 20
_OTHER_DELIMITERS = {";": '";"', "\t": r'"\t"', "|": '"|"', ",": '","'}


def read_csv(path: Path, encoding: str, delimiter: str) -> tuple[pd.DataFrame, dict[int, int]]:
    """Read a table whose first line names its columns; blank lines do not count.

    Args:
        path: a file that exists.
        encoding: any of Python's; a byte order mark is dropped.
        delimiter: one character; empty means comma, or tab where the file ends in .tsv.
    Returns:
        The cells as text, exactly as written, a missing last cell as "". And the rows (from 0) with more fields than
        the header, with their number of fields; the surplus is dropped.
    Raises:
        DataError: not in that encoding, no header, a column name twice, an extra field in every row, or not CSV.
    """
    _check_encoding(path, encoding)
    separator = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    if len(separator) != 1:
        raise DataError(f'{path}: data.delimiter is {delimiter!r}, expected one character, for tab "\\t"')
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    try:
        header = _read_header(path, encoding, separator)
        if len(header) == 1 and not delimiter:
            _check_delimiter(path, header[0])
        frame, malformed = _read_rows(path, encoding, separator, _name_columns(path, header))
    except UnicodeError as error:
        raise _explain_encoding(path, encoding, error) from error
    except csv.Error as error:
        raise DataError(
            f"{path} is not CSV with {separator!r} between its fields: {error}; look for a quote that is opened and "
            f"never closed"
        ) from error
    if malformed and len(malformed) == len(frame):
        fields = max(malformed.values())
        raise DataError(
            f"{path}: every row has an extra field: {fields} fields where the header names {len(header)} columns "
            f"({', '.join(header[:8])}); name the missing column in the header, or remove the field"
        )
    return frame, malformed


def _read_rows(path: Path, encoding: str, separator: str, names: list[str]) -> tuple[pd.DataFrame, dict[int, int]]:
    # The header is read as a row and one column is added, so that pandas neither takes the first column for an index
    # nor shifts cells when rows have one field more than the header.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=separator,
                encoding=encoding,
                header=None,
                names=list(range(len(names) + 1)),
                index_col=False,
                dtype=str,
                na_filter=False,
                compression=None,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning):
        return _read_uneven_rows(path, encoding, separator, names)
    frame = frame.iloc[1:].reset_index(drop=True)
    surplus = frame.iloc[:, -1]
    frame = frame.iloc[:, :-1].set_axis(pd.Index(names, dtype=str), axis=1)
    return frame, {int(row): len(names) + 1 for row in (surplus != "").to_numpy().nonzero()[0]}


def _read_uneven_rows(
    path: Path, encoding: str, separator: str, names: list[str]
) -> tuple[pd.DataFrame, dict[int, int]]:
    """The slow way, for rows of any length."""
    width, rows, malformed = len(names), [], {}
    with path.open(encoding=encoding, newline="") as file:
        lines = (fields for fields in csv.reader(file, delimiter=separator, strict=True) if fields)
        for fields in itertools.islice(lines, 1, None):
            if any(fields[width:]):
                malformed[len(rows)] = len(fields)
            rows.append((fields + [""] * width)[:width])
    return pd.DataFrame(rows, columns=pd.Index(names, dtype=str), dtype=str), malformed


def _read_header(path: Path, encoding: str, separator: str) -> list[str]:
    with path.open(encoding=encoding, newline="") as file:
        header = next((row for row in csv.reader(file, delimiter=separator) if any(row)), None)
    if header is None:
        raise DataError(f"{path} is empty; expected a line that names the columns, then one line a row")
    return header


def _name_columns(path: Path, header: list[str]) -> list[str]:
    """Refuse names that stand twice; call a column without a name as pandas does, for example `Unnamed: 0`."""
    names = [name or f"Unnamed: {position}" for position, name in enumerate(header)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names a column twice: {', '.join(twice[:5])}; rename all but one of each")
    return names


def _check_delimiter(path: Path, column: str) -> None:
    for sign, written in _OTHER_DELIMITERS.items():
        if sign in column:
            raise DataError(
                f"{path}: the header is one column, {column!r}; if its fields are separated by {sign!r}, "
                f"set data.delimiter: {written}"
            )


def _check_encoding(path: Path, encoding: str) -> None:
    try:
        b"-".decode(encoding, errors="ignore")
    except LookupError as error:
        known = {name.replace("_", "-") for name in {*encodings.aliases.aliases.values(), "latin_1"}}
        raise DataError(
            f"{path}: data.encoding {encoding!r} is not a text encoding; {nearest(encoding.lower(), known)}"
        ) from error


def _explain_encoding(path: Path, encoding: str, error: UnicodeError) -> DataError:
    """Name the line and the byte, which pandas counts from the start of its block."""
    name = encoding.removesuffix("-sig")
    with path.open("rb") as file:
        start = file.read(2)
    is_utf16 = codecs.lookup(name).name.startswith("utf-16")
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and not is_utf16:
        return DataError(f"{path} is UTF-16, not {name}; set data.encoding: utf-16")
    decoder = codecs.getincrementaldecoder(name)()
    line, offset = 1, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as found:
                at = offset - pending + found.start
                line += found.object[: found.start].count(b"\n")
                byte = found.object[found.start]
                remedy = "latin-1" if name == "utf-8" else "utf-8"
                return DataError(
                    f"{path} is not {name}: byte 0x{byte:02x} at position {at:,}, line {line:,}; set "
                    f"data.encoding: {remedy}, or whatever it was written in, or save it as UTF-8"
                )
            line += block.count(b"\n")
            offset += len(block)
    return DataError(f"{path} is not {name}: {error}; it is cut short, or of another encoding: save it again, as UTF-8")
