"""Turns text cells into numbers and ids, and rejects the rows whose cells
cannot be turned; opens no file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ...recipe import Spelling
from ..verdicts import Reason, Verdicts
from .numerals import (
    MISSING_WORDS,
    PLAIN,
    Finding,
    Notation,
    describe_notation,
    find_notation,
    find_other_units,
    name_notation,
    parse_numbers,
)
from .spelling import spell, strip_unseen

# Batches are float32; beyond this they would hold infinity.
_LARGEST = float(np.finfo(np.float32).max)
# Cells are one value where Unicode says so, and else as they are written.
AS_WRITTEN = Spelling()
# So many cells are looked at at once: some columns of a table with few rows, one of a table with
# many.
CELLS_AT_ONCE = 1 << 18
_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,99}")


class Categories(NamedTuple):
    """Cells as ids of their distinct values.

    Attributes:
        ids: int32, shape (rows, columns).
        vocabulary: text of each id, in the order of its first row; the columns share it.
    """

    ids: np.ndarray
    vocabulary: list[str]


class Labels(NamedTuple):
    """Cells of several tags as ids of the distinct tags.

    Attributes:
        ids: int32, shape (rows, M), M the most tags of a cell and at least 1: the tags of each cell
            in the order of their ids, then -1. A tag that stands twice in a cell counts once.
        vocabulary: text of each id, in the order of its first row.
    """

    ids: np.ndarray
    vocabulary: list[str]


def read_numbers(
    frame: pd.DataFrame,
    columns: list[str],
    verdicts: Verdicts,
    notation: Notation = PLAIN,
    missing_values: Sequence[str] = (),
    may_be_missing: bool = False,
) -> np.ndarray:
    """Parse columns of numbers.

    A row with a cell that is none, or not finite, is rejected.

    Args:
        frame: text cells.
        columns: which of them.
        verdicts: gets the reasons.
        notation: how the numbers are written.
        missing_values: texts, or numbers, that say that there is none.
        may_be_missing: a cell that is empty or says so rejects no row.
    Returns:
        float64, shape (rows, columns), correctly rounded; NaN where the row is rejected or the
        number is missing.
    """
    values = np.empty((len(frame), len(columns)), dtype=np.float64)
    at_once = max(1, CELLS_AT_ONCE // max(1, len(frame)))
    for start in range(0, len(columns), at_once):
        some = columns[start : start + at_once]
        cells = flatten_columns(frame, some)
        numbers = parse_numbers(cells, notation)
        units = _find_other_units(cells, len(some), notation.units)
        if units:
            numbers[list(units)] = np.nan
        is_bad = ~(np.abs(numbers) <= _LARGEST)
        is_named = _is_named(cells, numbers, missing_values)
        if may_be_missing:
            is_missing = is_named | (is_bad & is_missing_number(cells))
            numbers, is_bad = np.where(is_missing, np.nan, numbers), is_bad & ~is_missing
        read = np.where(is_bad, np.nan, numbers).reshape(len(some), len(frame))
        values[:, start : start + len(some)] = read.T
        bad = is_bad | (is_named & ~may_be_missing)
        has_bad = np.array(bad.reshape(read.shape).any(axis=1))
        has_bad[[row // len(frame) for row in units]] = True
        for position in np.flatnonzero(has_bad).tolist():
            begin = position * len(frame)
            part = slice(begin, begin + len(frame))
            column = _Column(some[position], cells.iloc[part], numbers[part], is_named[part])
            for row in range(begin, begin + len(frame)) if units else ():
                if row in units:
                    verdicts.reject(
                        row - begin, f"{units[row]} in {column.name!r}", repr(cells.iloc[row])
                    )
            _reject_numbers(column, np.flatnonzero(bad[part]), notation, verdicts)
    return values


class _Column(NamedTuple):
    """A column of numbers.

    Its cells, what they are read as, and which say that a number is missing.
    """

    name: str
    cells: pd.Series
    numbers: np.ndarray
    is_named: np.ndarray


def _reject_numbers(
    column: _Column, rows: np.ndarray, notation: Notation, verdicts: Verdicts
) -> None:
    """Say of these rows of a column why their cell is no number."""
    if not len(rows):
        return
    finding = find_notation((str(value) for value in column.cells.unique()), notation)
    for row in rows:
        cell = str(column.cells.iloc[row])
        what = (
            "missing value"
            if column.is_named[row]
            else _what_is_wrong(cell, float(column.numbers[row]))
        )
        reason = Reason(f"{what} in {column.name!r}", repr(cell))
        if reason.kind.startswith("not a number"):
            reason = reason._replace(**_explain_notation(cell, finding, notation))
        verdicts.reject(int(row), *reason)


def flatten_columns(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """The text cells of columns one below the other.

    Of a wide table at once, as pandas is slow column by column.
    """
    if len(columns) == 1:
        return frame[columns[0]]
    arrays = [pa.array(cells.array) for _, cells in frame[list(columns)].items()]
    chunks = [
        chunk
        for one in arrays
        for chunk in (one.chunks if isinstance(one, pa.ChunkedArray) else [one])
    ]
    return pd.Series(
        pd.array(pa.chunked_array(chunks, pa.large_string()).combine_chunks(), dtype="str")
    )


def _find_other_units(cells: pd.Series, num_columns: int, units: Sequence[str]) -> dict[int, str]:
    """See `find_other_units`.

    Of columns that stand one below the other, by the row in all of them.
    """
    num_rows = len(cells) // num_columns
    found: dict[int, str] = {}
    for start in range(0, len(cells), max(1, num_rows)) if units else ():
        each = find_other_units(cells.iloc[start : start + num_rows], units)
        found |= {start + row: what for row, what in each.items()}
    return found


def _explain_notation(cell: str, of_column: Finding | None, notation: Notation) -> dict[str, str]:
    """How a number is written that the recipe's notation does not read, and
    what to do; empty for what is none.
    """
    finding = find_notation([cell], notation)
    if finding is None:
        return {}
    if of_column is None:
        return {
            "detail": f"{name_notation(finding)}, which others do not have",
            "remedy": "write them alike",
        }
    return {"detail": name_notation(of_column), "remedy": describe_notation(of_column, notation)}


def _is_named(cells: pd.Series, numbers: np.ndarray, missing_values: Sequence[str]) -> np.ndarray:
    """Which cells are one of these texts or numbers.

    Bool, shape (rows,).
    """
    if not missing_values:
        return np.zeros(len(cells), dtype=bool)
    wanted = [float(value) for value in parse_numbers(list(missing_values))]
    texts = {value.strip().lower() for value in missing_values}
    is_text = cells.str.strip().str.lower().isin(texts).to_numpy(dtype=bool)
    return is_text | np.isin(numbers, [value for value in wanted if not np.isnan(value)])


def read_categories(
    frame: pd.DataFrame, columns: list[str], verdicts: Verdicts, rule: Spelling = AS_WRITTEN
) -> Categories:
    """Give each distinct value an id.

    A row with an empty cell is rejected.

    Args:
        frame: text cells.
        columns: which of them; they share one vocabulary.
        verdicts: gets the reasons.
        rule: which cells are one value.
    """
    cells = pd.concat([frame[column] for column in columns], ignore_index=True)
    ids, values = pd.factorize(cells)
    vocabulary, number_of = _number([spell(str(value), rule) for value in values])
    ids = number_of[ids].reshape(len(columns), len(frame)).T.copy()
    is_empty = np.array([not strip_unseen(value) for value in vocabulary], dtype=bool)
    if is_empty.any():
        for row, position in zip(*np.nonzero(is_empty[ids]), strict=True):
            verdicts.reject(int(row), f"empty cell in {columns[position]!r}")
    return Categories(ids, vocabulary)


def respell(found: Categories | Labels, names: Sequence[str]) -> Categories | Labels:
    """The same cells under other names of their values.

    Values of one name become one.

    Args:
        found: ids of a vocabulary.
        names: the new name of each entry of the vocabulary.
    """
    if list(names) == found.vocabulary:
        return found
    vocabulary, number_of = _number(names)
    ids = np.append(number_of, np.int32(-1))[found.ids]  # the last one is that of -1
    if isinstance(found, Categories):
        return Categories(ids, vocabulary)
    return Labels(_sort_tags(ids), vocabulary)


def _number(names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct names in the order of their first place, and the number
    of each, int32.
    """
    id_of: dict[str, int] = {}
    numbers = np.array([id_of.setdefault(name, len(id_of)) for name in names], dtype=np.int32)
    return list(id_of), numbers


def _sort_tags(ids: np.ndarray) -> np.ndarray:
    """Each row's ids of tags once and in order, then -1."""
    far = np.iinfo(np.int32).max
    ids = np.sort(np.where(ids < 0, far, ids), axis=1)
    again = np.zeros(ids.shape, dtype=bool)
    again[:, 1:] = ids[:, 1:] == ids[:, :-1]
    ids = np.sort(np.where(again, far, ids), axis=1)
    return np.where(ids == far, -1, ids).astype(np.int32)


def read_texts(frame: pd.DataFrame, column: str, verdicts: Verdicts) -> pd.Series:
    """A column of texts as it is.

    A row with an empty or blank cell is rejected.
    """
    for row in np.flatnonzero(is_empty(frame[column])):
        verdicts.reject(int(row), f"empty cell in {column!r}")
    return frame[column]


def sort_classes(classes: list[str]) -> list[str]:
    """By value where all are integers as Python writes them ("2" before
    "10"; "007" is none), else as text.
    """
    if all(_PLAIN_INTEGER.fullmatch(name) for name in classes):
        return sorted(classes, key=int)
    return sorted(classes)


def read_labels(cells: pd.Series, separator: str, rule: Spelling = AS_WRITTEN) -> Labels:
    """Take cells apart into tags.

    White space around a tag does not count, and an empty cell has none.

    Args:
        cells: text.
        separator: what stands between the tags of a cell.
        rule: which tags are one.
    """
    codes, values = pd.factorize(cells)
    id_of: dict[str, int] = {}
    each: list[list[int]] = []
    for value in values:
        tags = [spell(tag.strip(), rule) for tag in str(value).split(separator)]
        each.append(
            sorted({id_of.setdefault(tag, len(id_of)) for tag in tags if strip_unseen(tag)})
        )
    table = np.full((len(each), max(1, *map(len, each)) if each else 1), -1, dtype=np.int32)
    for line, ids in zip(table, each, strict=True):
        line[: len(ids)] = ids
    return Labels(table[codes], list(id_of))


def is_empty(cells: pd.Series) -> np.ndarray:
    """Which text cells are blank.

    Bool, shape (rows,).
    """
    return (cells.str.strip() == "").to_numpy(dtype=bool)


def is_missing_number(cells: pd.Series, missing_values: Sequence[str] = ()) -> np.ndarray:
    """Which text cells of a column of numbers are blank or say that they are
    missing: bool, shape (rows,).

    Args:
        cells: of one column.
        missing_values: other texts, or numbers, that say so.
    """
    is_word = cells.str.strip().str.lower().isin(MISSING_WORDS).to_numpy(dtype=bool)
    return (
        is_word | _is_named(cells, parse_numbers(cells), missing_values)
        if missing_values
        else is_word
    )


def _what_is_wrong(cell: str, number: float) -> str:
    text = cell.strip().lower().lstrip("+-")
    if not text:
        return "empty cell"
    if text == "nan":
        return "NaN"
    if text in ("inf", "infinity"):
        return "infinite number"
    return "not a number" if np.isnan(number) else "number too large for float32"
