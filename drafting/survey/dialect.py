"""Opens a table that nobody described.

Finds its encoding, its dialect and how its numbers are written, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ...datasets.cells import (
    PLAIN,
    Finding,
    Notation,
    find_notation,
    find_other_units,
    name_notation,
    notation_of,
)
from ...datasets.files import check_table_file
from ...datasets.readers import Guess, find_dialect, find_sep_line, guess_encoding, looks_like_data
from ...datasets.table import Table, locate_table, open_table
from ...errors import DataError
from ...recipe import Data, Dialect

# What a table is named by here, for messages.
NAMED_BY = "the argument TABLE"
# Rows that are held against the header.
_ROWS_TO_LOOK_AT = 50
# So many rows may be left out as bad ones, by the recipe's default.
_MOST_OTHER_UNITS = 0.01


class Opened(NamedTuple):
    """A table that is open, and how it is written.

    Attributes:
        path: absolute.
        dialect: how it is written; what is left at its default is not worth a word.
        whys: the reason of each setting that is not, by its name, as the end of a sentence.
        table: its cells.
        odd: columns of numbers that this dialect does not read, with the reason.
        warnings: sentences for the user.
    """

    path: Path
    dialect: Dialect
    whys: dict[str, str]
    table: Table
    odd: dict[str, str]
    warnings: list[str]


def open_undescribed(table: Path, given: Mapping[str, Any]) -> Opened:
    """Open a table by what its bytes and cells say.

    Args:
        table: CSV, TSV or Parquet file.
        given: settings of its dialect that the user names; the others are looked for.
    Raises:
        DataError: it cannot be read, or its numbers could be read in two ways and nothing tells by
            which.
    """
    path = locate_table(Data(table=str(table)), NAMED_BY)
    check_table_file(path)
    data, whys = Data(table=str(path), **given), dict.fromkeys(given, "as it was named")
    if path.suffix.lower() != ".parquet":
        data, found = _find_dialect(path, data, given)
        whys = found | whys
    # Whoever reads this has no recipe to say another delimiter in, as an error about one column
    # only would ask for.
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    said = data.delimiter or _sep_line(path, data)
    opened = open_table(data.model_copy(update={"delimiter": said or usual}), NAMED_BY)
    notation, found, odd = _find_numbers(opened, data, given)
    numbers = {
        "decimal": notation.decimal,
        "thousands": notation.thousands,
        "units": list(notation.units),
    }
    whys |= {key: found for key, value in numbers.items() if value != getattr(data, key)}
    data = data.model_copy(update=numbers)
    if path.suffix.lower() == ".parquet" and notation.decimal != ".":
        opened = open_table(data, NAMED_BY)
    warnings = list(opened.notes)
    names = [str(name) for name in opened.frame.columns]
    if looks_like_data(names, opened.frame.head(_ROWS_TO_LOOK_AT).to_numpy().tolist()):
        warnings.append(
            f"the first line looks like data, not like names of columns ({', '.join(names[:6])}"
            f"{', …' if len(names) > 6 else ''}): write a line of names above it, else its row is "
            "lost"
        )
    dialect = Dialect(**{key: getattr(data, key) for key in Dialect.model_fields})
    return Opened(path, dialect, whys, opened, odd, warnings)


def _find_dialect(path: Path, data: Data, given: Mapping[str, Any]) -> tuple[Data, dict[str, str]]:
    whys: dict[str, str] = {}
    if "encoding" not in given:
        guess: Guess = guess_encoding(path)
        data = data.model_copy(update={"encoding": guess.encoding})
        if guess.encoding != "utf-8":
            whys["encoding"] = guess.describe()
    found = find_dialect(path, data).model_copy(update=dict(given))
    above = "1 line stands" if found.skip_lines == 1 else f"{found.skip_lines} lines stand"
    reasons = {
        "delimiter": f"fields are separated by {found.delimiter!r}",
        "skip_lines": f"{above} above the line that names the columns",
        "skip_spaces": "a space stands after each delimiter, and is no part of names and cells",
        "escape": "a backslash stands before a quote that belongs to a cell",
    }
    whys |= {key: why for key, why in reasons.items() if getattr(found, key) != getattr(data, key)}
    return data.model_copy(update={key: getattr(found, key) for key in Dialect.model_fields}), whys


def _sep_line(path: Path, data: Data) -> str:
    if path.suffix.lower() == ".parquet" or data.skip_lines:
        return ""
    with path.open(
        encoding="utf-8-sig" if data.encoding == "utf-8" else data.encoding, errors="replace"
    ) as file:
        return find_sep_line(file.readline(100))


def _find_numbers(
    table: Table, data: Data, given: Mapping[str, Any]
) -> tuple[Notation, str, dict[str, str]]:
    """One notation for all columns, an example of what it reads, and the
    columns that it does not read.
    """
    asked = {"decimal", "thousands", "units"} & given.keys()
    findings = _look_at_columns(table, with_points=False)
    if any(one.notation.decimal == "," for one in findings.values()) or data.decimal == ",":
        findings = _look_at_columns(table, with_points=True)
    mixed = {
        name: others
        for name, one in findings.items()
        if (others := _count_other_units(table, name, one))
    }
    findings = {name: one for name, one in findings.items() if name not in mixed}
    notation = notation_of(data) if asked else _choose(table, data, findings)
    odd = mixed
    for name, one in findings.items():
        read = _fits(one, notation)
        if not read:
            odd[name] = (
                f"holds numbers {name_notation(one)} such as {_example(one)}, as other columns do "
                "not"
            )
    examples = [text for one in findings.values() if _fits(one, notation) for text in one.examples][
        :3
    ]
    shown = ", ".join(f"{text!r} is {_value(findings, text):.12g}" for text in examples)
    return (
        notation,
        f"how numbers are written: {shown}" if shown else "how numbers are written",
        odd,
    )


def _count_other_units(table: Table, name: str, finding: Finding) -> str:
    """How many cells of a column count in another unit than most.

    Empty where these are few enough to be left out.
    """
    others = find_other_units(table.frame[name], finding.notation.units)
    if len(others) <= _MOST_OTHER_UNITS * len(table.frame):
        return ""
    row, said = next(iter(others.items()))
    return (
        f"holds numbers, of which {len(others):,} have {said}, for example "
        f"{str(table.frame[name].iat[row])!r}"
    )


def _look_at_columns(table: Table, *, with_points: bool) -> dict[str, Finding]:
    """What is unusual about each column of numbers.

    Args:
        table: its cells.
        with_points: whether columns that are read as they are count, too, where they have points:
            beside decimal commas these are thousands, or a contradiction.
    """
    found = {}
    for name in table.frame.columns:
        if name in table.numbers:
            continue
        cells = table.frame[name]
        try:
            pc.cast(pa.array(cells), pa.float64())
            if not with_points or not cells.str.contains(".", regex=False).any():
                continue
        except pa.ArrowInvalid:
            pass
        finding = find_notation(str(text) for text in cells.unique())
        if finding is not None and (finding.notation != PLAIN or with_points):
            found[str(name)] = finding
    return found


def _choose(table: Table, data: Data, findings: Mapping[str, Finding]) -> Notation:
    """What most columns of numbers are written by.

    Raises:
        DataError: commas could be decimal signs or part thousands, and nothing tells.
    """
    sure = [one for one in findings.values() if not one.is_ambiguous]
    doubtful = {name: one for name, one in findings.items() if one.is_ambiguous}
    num_comma = sum(one.notation.decimal == "," for one in sure)
    num_point = sum(one.has_point or one.notation.thousands == "," for one in sure)
    decimal = "," if num_comma > num_point else "."
    if doubtful and not num_comma and not num_point and data.delimiter not in ("", ","):
        name, one = next(iter(doubtful.items()))
        raise DataError(
            f"{data.table}: column {name!r} holds numbers such as {next(iter(one.examples))!r}, "
            "whose comma may be a "
            f"decimal sign or part thousands; say --decimal , or --thousands ,"
        )
    parts = Counter(
        one.notation.thousands for one in sure if one.notation.thousands not in ("", decimal)
    )
    if doubtful and decimal == ".":
        parts[","] += len(doubtful)
    if decimal == "," and any(not one.has_point and one.notation == PLAIN for one in sure):
        parts["."] += 1
    units = dict.fromkeys(unit for one in findings.values() for unit in one.notation.units)
    return Notation(decimal, parts.most_common(1)[0][0] if parts else "", tuple(units))


def _fits(finding: Finding, notation: Notation) -> bool:
    """Whether a table's notation reads a column."""
    own = finding.notation
    if own == PLAIN or finding.is_ambiguous:
        return notation.decimal == "." or not finding.has_point
    if finding.has_point and notation.decimal == ",":
        return False
    same = own.decimal == notation.decimal or (own.decimal == "." and not finding.has_point)
    return (
        same and own.thousands in ("", notation.thousands) and set(own.units) <= set(notation.units)
    )


def _example(finding: Finding) -> str:
    return ", ".join(map(repr, finding.examples)) or "others"


def _value(findings: Mapping[str, Finding], text: str) -> float:
    return next(one.examples[text] for one in findings.values() if text in one.examples)
