"""Finds out how a text table that nobody described is written.

Delimiter, lines above its header, spaces, escapes.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ...recipe import Dialect
from ..cells import MISSING_WORDS, parse_cell
from .encoding import check_encoding
from .long_cells import long_cells

OTHER_DELIMITERS = {";": '";"', "\t": r'"\t"', "|": '"|"', ",": '","'}
# What is looked at: the first characters of a file, and of them at most so many records.
_SAMPLE, _MOST_RECORDS, _MOST_LINES_ABOVE = 1 << 18, 500, 50
# This part of the records has the usual number of fields where a delimiter is the right one.
_EVEN = 0.8
_SEP_LINE = re.compile(r'"?sep=(?P<sign>.)"?\s*', re.IGNORECASE)
_ESCAPED = re.compile(r'[^\\,;\t|\r\n"]\\"[^,;\t|\r\n]')


class _Reading(NamedTuple):
    """A sample read by one delimiter.

    Attributes:
        records: fields of each, blank lines aside.
        lines: of the file that stand above each record.
        width: the usual number of fields.
        header: which record names the columns.
        is_even: most records from the header on have that number of fields.
    """

    records: list[list[str]]
    lines: list[int]
    width: int
    header: int
    is_even: bool


def find_sep_line(line: str) -> str:
    """The delimiter that the first line of a file from a spreadsheet says,
    `sep=;`; empty where it says none.
    """
    found = _SEP_LINE.fullmatch(line.removeprefix("\ufeff"))
    return found["sign"] if found else ""


def find_dialect(path: Path, given: Dialect) -> Dialect:
    """How a table is written, its numbers aside.

    Args:
        path: of the file.
        given: its encoding, and what else is known; only what is left at its default is looked for.
    """
    return _look(path, given)[0]


def _look(path: Path, given: Dialect) -> tuple[Dialect, str]:
    """How a table is written, and what stands between its fields, also where
    that goes without saying.
    """
    encoding = "utf-8-sig" if given.encoding == "utf-8" else given.encoding
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        text = file.read(_SAMPLE)
    if len(text) == _SAMPLE:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    lines = text.splitlines(keepends=True)
    said = find_sep_line(lines[0]) if lines and not given.skip_lines else ""
    lines = lines[1:] if said else lines[given.skip_lines :]
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    fixed = given.delimiter or said
    escape = given.escape or ("\\" if _has_escapes(lines, fixed, usual) else "")
    sign = fixed or _find_delimiter(lines, usual, escape)
    reading = _read(lines, sign, escape)
    found: dict[str, object] = {}
    if not fixed and sign != usual:
        found["delimiter"] = sign
    if not given.skip_lines and reading.header:
        found["skip_lines"] = reading.lines[reading.header] + bool(said)
        if said:
            found["delimiter"] = sign
    table = lines[reading.lines[reading.header] if reading.records else 0 :]
    if not given.skip_spaces and (sign == " " or _has_spaces(table, sign)):
        found["skip_spaces"] = True
    return given.model_copy(update={**found, "escape": escape}), sign


def advise(path: Path, dialect: Dialect) -> str:
    """What of a dialect a look at the file would change, as the recipe writes
    it.

    Empty where nothing.
    """
    check_encoding(path, dialect.encoding)
    # What a recipe says is doubted, too: it may have been written for another table.
    loose = dialect.model_copy(update={"delimiter": "", "skip_lines": 0, "skip_spaces": False})
    found, sign = _look(path, loose)
    return describe_changes(
        dialect, found.model_copy(update={"delimiter": sign}) if dialect.delimiter else found
    )


def describe_changes(before: Dialect, after: Dialect) -> str:
    """Settings of a dialect that differ from another's, as the recipe writes
    them.
    """
    said = []
    for key in Dialect.model_fields:
        value = getattr(after, key)
        if value == getattr(before, key):
            continue
        if isinstance(value, bool | int):
            written = str(value).lower()
        else:
            written = OTHER_DELIMITERS.get(value) or json.dumps(value, ensure_ascii=False)
        said.append(f"data.{key}: {written}")
    return " and ".join(said)


def looks_like_data(names: list[str], rows: list[list[str]]) -> bool:
    """Whether a header is a row of data by mistake.

    Its numbers stand where all numbers stand, or it repeats cells.

    Names such as 400, 410, 420 (of wavelengths or years) count up and are names.
    """
    if not rows:
        return False
    values, others = [], []
    for at, name in enumerate(names):
        if not all(_is_number(row[at]) for row in rows):
            others.append(at)
        elif math.isnan(number := parse_cell(name)):
            return False
        else:
            values.append(number)
    if not values:
        return False
    counts_up = len(values) > 1 and all(
        two > one and one == int(one) for one, two in itertools.pairwise(values)
    )
    repeats = [at for at in others if any(row[at] == names[at] for row in rows)]
    return bool(repeats) or not counts_up


def _find_delimiter(lines: list[str], usual: str, escape: str = "") -> str:
    """The sign by which the records below the header have one number of fields.

    The usual one where none does.
    """
    best, best_rank = usual, (False, False, 0, 0.0)
    for sign in dict.fromkeys((usual, ";", "\t", "|", ",")):
        reading = _read(lines, sign, escape)
        if reading.width < 2 or not reading.records:
            continue
        names = reading.records[reading.header]
        has_names = _names(names)
        rank = (reading.is_even, has_names, -reading.header, float(reading.width))
        if rank > best_rank:
            best, best_rank = sign, rank
    if best_rank == (False, False, 0, 0.0):
        return " " if _are_spaced(_read(lines, " ", escape)) else usual
    return best


def _are_spaced(reading: _Reading) -> bool:
    """Whether spaces part fields, and not the words of one column.

    All have names, and one of them holds numbers.
    """
    names, below = reading.records[reading.header :][:1], reading.records[reading.header + 1 :]
    even = [fields for fields in below if len(fields) == reading.width]
    if (
        reading.width < 2
        or not reading.is_even
        or not even
        or [*map(len, names)] != [reading.width]
    ):
        return False
    return (
        all(names[0])
        and _names(names[0])
        and any(all(map(_is_number, cells)) for cells in zip(*even, strict=True))
    )


def _read(lines: list[str], sign: str, escape: str = "") -> _Reading:
    """A sample as records of one delimiter."""
    records: list[list[str]] = []
    above: list[int] = []
    begun = 0
    with long_cells():
        reader = csv.reader(
            lines, delimiter=sign, escapechar=escape or None, skipinitialspace=sign == " "
        )
        for fields in reader:
            if any(fields):
                records.append(fields)
                above.append(begun)
            begun = reader.line_num
            if len(records) == _MOST_RECORDS:
                break
    if not records:
        return _Reading([], [], 0, 0, is_even=False)
    widths = Counter(map(len, records[1:] or records))
    width = max(widths, key=lambda one: (widths[one], one))
    header = _find_header(records, width)
    below = records[header:]
    is_even = sum(len(fields) == width for fields in below) >= _EVEN * len(below)
    return _Reading(records, above, width, header, is_even)


def _find_header(records: list[list[str]], width: int) -> int:
    """The first record that can name the columns.

    Not a title, nor a comment above the names.
    """
    filled = [sum(map(bool, fields)) for fields in records if len(fields) == width]
    usual = sorted(filled)[len(filled) // 2] if filled else 0
    for at, fields in enumerate(records[:_MOST_LINES_ABOVE]):
        below, rows = next(iter(records[at + 1 : at + 2]), []), records[at + 2 :]
        has_names_below = len(below) == width and _names(below) and not all(map(_names, rows[:10]))
        num_filled = sum(map(bool, fields))
        is_title = bool(fields[0]) and 2 * num_filled <= usual
        is_title &= num_filled == 1 or _names_columns(below, rows, width)
        is_title |= len(fields) < width and has_names_below
        is_comment = fields[0].startswith("#") and below != []
        is_comment = is_comment and (
            len(fields) != width or below[0].startswith("#") or _names_columns(below, rows, width)
        )
        if not is_title and not is_comment:
            return at
    return 0


def _names_columns(fields: list[str], rows: list[list[str]], width: int) -> bool:
    """Whether fields name the columns of the rows below them, and are no row
    like these.

    A name is no number and no missing cell, stands over numbers, or over cells that come again
    while it does not.
    """
    rows = [row for row in rows if len(row) == width]
    if (
        len(fields) != width
        or not _names(fields)
        or any(cell.lower() in MISSING_WORDS for cell in fields[1:])
    ):
        return False
    columns = list(zip(*rows, strict=True)) or [()] * width
    if any(cell in column for cell, column in zip(fields, columns, strict=True)):
        return False
    return not all(map(_names, rows[:10])) or any(
        2 * len(set(column)) <= len(column) > 0 for column in columns
    )


def _names(fields: list[str]) -> bool:
    """Whether fields could be names of columns.

    None is a number.
    """
    return not any(map(_is_number, fields))


def _is_number(cell: str) -> bool:
    return not math.isnan(parse_cell(cell))


def _has_spaces(lines: list[str], sign: str) -> bool:
    """Whether fields begin with a space that belongs to the delimiter."""
    with long_cells():
        reader = csv.reader(lines, delimiter=sign)
        records = [fields[1:] for fields in itertools.islice(reader, _MOST_RECORDS) if fields]
    if not records or not records[0]:
        return False
    fields = [field for one in records[1:] for field in one if field.strip()]
    if all(name.startswith(" ") for name in records[0]):
        return True
    return bool(fields) and sum(field.startswith(" ") for field in fields) >= 0.95 * len(fields)


def _has_escapes(lines: list[str], sign: str, usual: str) -> bool:
    """Whether a backslash stands before quotes that belong to a cell."""
    text = "".join(lines[:_MOST_RECORDS])
    if not _ESCAPED.search(text) or re.search(r'[^,;\t|\r\n"]""[^,;\t|\r\n"]', text):
        return False
    plain = _read(lines, sign or _find_delimiter(lines, usual))
    escaped = _read(lines, sign or _find_delimiter(lines, usual, "\\"), "\\")
    even = [sum(len(fields) == one.width for fields in one.records) for one in (plain, escaped)]
    return even[1] * max(1, len(plain.records)) >= even[0] * max(1, len(escaped.records))
