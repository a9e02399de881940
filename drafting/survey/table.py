"""Looks at a table and says what each column seems to be, and why.

Decodes nothing, decides no recipe.

Every guess carries its reason, so that whoever reads the recipe made of it (`drafting/draft.py`)
can judge it.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from ...datasets import Verdicts
from ...datasets.cells import (
    MISSING_WORDS,
    PLAIN,
    Notation,
    compose_cells,
    distinct_cells,
    notation_of,
    parse_numbers,
    read_labels,
)
from ...datasets.files import common_folders, find_files
from ...datasets.images import IMAGE_SUFFIXES, Pictures, look_at_pictures
from ...datasets.splits import SPLIT_WORDS, TRAIN, VALID
from ...datasets.table import find_torn
from ...recipe import Dialect, Spelling
from .classes import Classes, count_classes
from .dialect import open_undescribed
from .files import find_root, no_picture
from .triples import TripleColumns, find_triple

Role = Literal[
    "image",
    "split",
    "parts",
    "points",
    "number",
    "category",
    "labels",
    "key",
    "group",
    "id",
    "constant",
    "text",
    "unspaced",
    "name",
    "comma",
]

# How many cells and pictures are looked at more closely, spread over the whole table.
SAMPLE = 50
# A category has this many rows a value on average, and not more values than these.
ROWS_A_VALUE = 4
MOST_CLASSES = 1000
MOST_INTEGER_CLASSES = 20
MOST_INPUT_VALUES = 100
# What stands between the tags of a cell. A column is one of tags where this part of its cells has
# several, no tag is longer than this, and cells have different numbers of them, as places ("Oslo,
# Norway") do not.
SEPARATORS = (",", ";", "|")
SEVERAL_TAGS = 0.1
LONGEST_TAG = 40
# A column of numbers may lack this fraction of its cells and still be an input, with the missing
# ones filled.
MOST_FILLED = 0.5
# Cells that say something else make bad rows: no more than this fraction.
MOST_MISSING = 0.01
# A column of so many distinct numbers stays one where this fraction of its other cells says
# something else.
MOST_NO_NUMBERS = 0.02
# And this one where they all say one word.
MOST_ODD = 0.5
# Distinct whole numbers of at least so many rows are those of the rows in another order, where they
# reach no farther.
FEWEST_COUNTED, MOST_GAPS = 20, 1.1
_INDEX = re.compile(r"Unnamed: 0|__index_level_\d+__")
# Texts have so many words on average, or so many letters of a script without spaces.
FEWEST_WORDS = 2.5
FEWEST_LETTERS = 4
_WORD = re.compile(r"[^\W\d_]+")
# Kana, Chinese characters, Thai, Lao, Myanmar, Khmer.
_UNSPACED = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
_LOOSEST = Spelling(strip=True, fold_case=True, numbers=True)
CATEGORY_NAMES = re.compile(
    r"(label|labels|class|classes|category|species|diagnosis)", re.IGNORECASE
)
TARGET_NAMES = re.compile(
    rf"{CATEGORY_NAMES.pattern}|tags?|topics?|genres?|y|y_?\d+|target|targets|outcome|output",
    re.IGNORECASE,
)
KEY_NAMES = re.compile(r"id|key|uuid|guid", re.IGNORECASE)
GROUP_NAMES = re.compile(
    r"(patient|subject|person|group|family|session|site|donor)(_?id)?", re.IGNORECASE
)
SPLIT_NAMES = re.compile(
    r"(data_?)?(split|subset|partition|set)(_?\d+)?|(cv_?)?fold|is_?(train|training|valid|val|test)",
    re.IGNORECASE,
)


class Column(NamedTuple):
    """What a column seems to be.

    Attributes:
        role: as which it can be read; `id` and `constant` say nothing about a row, `name` is many
            values that are no text of several words, `unspaced` text of a script that puts no
            spaces between words, `parts` is named like a split and says other words, `comma` holds
            numbers that are written otherwise than those of most columns.
        why: the reason, as the end of a sentence that begins with the column.
        num_values: distinct cells, missing ones aside.
        num_missing: cells that are empty; in a column of numbers also those that say so (NA, nan,
            …) or are no number.
        num_odd: cells in a column of numbers that are no number and do not say that it is missing.
        odd_word: what those say, where they are one word that stands there again and again.
        is_integer: all of its cells are whole numbers.
        is_number: all of its cells that are not missing are numbers.
        separator: labels: what stands between the tags of a cell.
        by_cells: the index that pandas wrote: what it seems to be by its cells, for whoever names
            it.
    """

    name: str
    role: Role
    why: str
    num_values: int
    num_missing: int
    is_integer: bool
    is_number: bool
    separator: str = ""
    num_odd: int = 0
    odd_word: str = ""
    by_cells: Column | None = None


class Survey(NamedTuple):
    """What a table seems to hold.

    Attributes:
        table: its path, absolute.
        num_rows: rows of data.
        frame: text cells of the rows that the columns are judged by.
        columns: in the table's order.
        dialect: how it is written.
        dialect_whys: the reason of each setting that is not the default, by its name.
        warnings: sentences for the user.
        num_bad_rows: rows that cannot be what was meant, such as the header again; the columns are
            judged without.
        files: the folder that the paths of the image columns start at.
        links: folders outside of it that links there lead into, which the recipe has to allow.
        num_bad_files: rows whose file is not there.
        num_unread: about as many rows have a file that is no readable picture, by the sample.
        pictures: what a sample of the first image column's files is; None where there is none.
        train_fraction: share of the rows that train, by the first split column; 0 where there is
            none.
        has_valid: rows validate, by the first split column.
        classes: those of each column of categories or tags.
        triple: the columns that hold triples of a knowledge graph; None where none do.
    """

    table: Path
    num_rows: int
    frame: pd.DataFrame
    columns: dict[str, Column]
    dialect: Dialect
    dialect_whys: dict[str, str]
    warnings: list[str]
    num_bad_rows: int
    files: Path | None
    links: list[str]
    num_bad_files: int
    num_unread: int
    pictures: Pictures | None
    train_fraction: float
    has_valid: bool
    classes: dict[str, Classes]
    triple: TripleColumns | None

    def of_role(self, *roles: Role) -> list[str]:
        """Names of the columns of some roles, in the table's order."""
        return [column.name for column in self.columns.values() if column.role in roles]


def survey_table(
    table: Path, files: Path | None = None, given: Mapping[str, Any] = MappingProxyType({})
) -> Survey:
    """Look at all cells of a table, at whether its files are there, and into
    some of them.

    Args:
        table: CSV, TSV or Parquet file.
        files: root of its file paths; looked for beside the table where it is not given.
        given: settings of the table's dialect that the user names; the others are looked for.
    Raises:
        DataError: it cannot be read, or its file paths lead nowhere, out of the folder or to no
            pictures.
    """
    opened = open_undescribed(table, given)
    path, num_rows = opened.path, len(opened.table.frame)
    frame = opened.table.frame.drop(index=list(opened.table.bad)).reset_index(drop=True)
    notation = notation_of(opened.dialect)
    columns = {str(name): _judge_cells(str(name), frame[name], notation) for name in frame.columns}
    last = columns[str(frame.columns[-1])]
    may_be_torn = (
        opened.table.is_torn
        and last.role in ("category", "labels")
        and num_rows - 1 not in opened.table.bad
    )
    if may_be_torn and find_torn(frame[last.name], _LOOSEST, last.separator):
        frame = frame.iloc[:-1]
        columns[last.name] = _judge_cells(last.name, frame[last.name], notation)
    columns |= {
        name: columns[name]._replace(role="comma", why=why) for name, why in opened.odd.items()
    }
    columns |= {name: _judge_index(columns[name]) for name in opened.table.index_columns}
    columns = _find_points(columns)
    images = [name for name, column in columns.items() if column.role == "image"]
    root, links, num_bad, num_unread, pictures = None, [], 0, 0, None
    if images:
        cells = frame[images[0]].tolist()
        root = find_root(path, images[0], _spread(cells), files)
        verdicts = Verdicts(len(frame))
        found = find_files(cells, root, verdicts)
        if links := common_folders(found.links):
            verdicts = Verdicts(len(frame))
            found = find_files(cells, root, verdicts, links)
        num_bad = len(verdicts.reasons)
        looked = _spread([one for one in found.paths if one])
        pictures = look_at_pictures([Path(one) for one in looked])
        if pictures is None:
            raise no_picture(f"{path}: column {images[0]!r}", looked, verdicts)
        num_unread = math.ceil((1 - pictures.num_looked / len(looked)) * (len(frame) - num_bad))
    splits = [name for name, column in columns.items() if column.role == "split"]
    words = (
        frame[splits[0]].str.strip().str.lower().map(SPLIT_WORDS).value_counts() if splits else {}
    )
    classes = {
        name: count_classes(frame[name], one.separator)
        for name, one in ((name, one.by_cells or one) for name, one in columns.items())
        if one.role in ("category", "labels")
    }
    return Survey(
        table=path,
        num_rows=num_rows,
        frame=frame,
        columns=columns,
        dialect=opened.dialect,
        dialect_whys=opened.whys,
        warnings=opened.warnings,
        num_bad_rows=len(opened.table.bad),
        files=root,
        links=links,
        num_bad_files=num_bad,
        num_unread=num_unread,
        pictures=pictures,
        train_fraction=float(words.get(TRAIN, 0)) / len(frame) if splits else 0.0,
        has_valid=bool(splits and words.get(VALID, 0)),
        classes=classes,
        triple=find_triple(
            frame, _telling(columns), [name for name, one in columns.items() if one.is_number]
        ),
    )


def _telling(columns: dict[str, Column]) -> list[str]:
    """The columns that say something about a row."""
    return [
        name
        for name, one in columns.items()
        if one.role not in ("split", "key", "id", "constant", "image")
    ]


def common_pattern(names: Sequence[str], columns: Sequence[str]) -> str:
    """The shortest pattern `prefix*` that fits these columns of a table and
    no other; empty where there is none.
    """
    prefix = os.path.commonprefix(list(names))  # noqa: RUF071 - of names, not of paths
    prefix = re.sub(r"\d+$", "", prefix) if len(names) > 1 else prefix
    plain = prefix and not any(sign in prefix for sign in "*?[")
    return (
        f"{prefix}*"
        if plain and [one for one in columns if one.startswith(prefix)] == list(names)
        else ""
    )


def _judge_index(column: Column) -> Column:
    """A column that pandas wrote as the index of the rows.

    It may name or group them, and says nothing about one.
    """
    if column.role in ("key", "group", "split", "parts"):
        return column
    return column._replace(
        role="id", why="is the index of the rows that pandas wrote", by_cells=column
    )


def _judge_cells(name: str, cells: pd.Series, notation: Notation = PLAIN) -> Column:
    """One column by its own cells and name."""
    codes, values = distinct_cells(cells)
    if not all(map(str.isascii, values)):
        codes, values = distinct_cells(compose_cells(cells))
    texts = [value.strip() for value in values]
    missing = np.array([text.lower() in MISSING_WORDS for text in texts], dtype=bool)
    kept = [text for text, is_missing in zip(texts, missing, strict=True) if not is_missing]
    numbers = parse_numbers(kept, notation)
    is_finite = np.isfinite(numbers)
    num_odd, odd_word = 0, ""
    if (
        not is_finite.all()
        and is_finite.sum() > MOST_INTEGER_CLASSES
        and not CATEGORY_NAMES.fullmatch(name)
    ):
        is_other = missing.copy()
        is_other[~missing] = ~is_finite
        others = {text for text, is_number in zip(kept, is_finite, strict=True) if not is_number}
        num_odd = int(is_other[codes].sum() - missing[codes].sum())
        odd_word = others.pop() if len(others) == 1 and num_odd > 1 else ""
        if num_odd <= (MOST_ODD if odd_word else MOST_NO_NUMBERS) * (~missing[codes]).sum():
            kept = [text for text, is_kept in zip(kept, is_finite, strict=True) if is_kept]
            missing, numbers, is_finite = is_other, numbers[is_finite], is_finite[is_finite]
        else:
            num_odd, odd_word = 0, ""
    is_number = bool(len(kept)) and bool(is_finite.all())
    odd = next((text for text, is_one in zip(kept, is_finite, strict=True) if not is_one), "")
    example = f"{_preview(odd)!r}" + (
        ", which is no number" if 2 * is_finite.sum() > len(kept) else ""
    )
    is_integer = is_number and bool((numbers == np.round(numbers)).all())
    if not is_number:  # among names, "NA" is one like any other
        missing = np.array([not text for text in texts], dtype=bool)
        kept = [text for text in texts if text]
    num_missing = int(missing[codes].sum())
    role, why = _role_of(
        name, cells, kept, numbers, example, is_number=is_number, is_integer=is_integer
    )
    separator = _find_separator(cells) if role in ("category", "text") and not is_number else ""
    if separator:
        tags = read_labels(cells, separator).vocabulary
        role, why = (
            "labels",
            f"holds several of {len(tags):,} tags in a cell, with {separator!r} between them",
        )
    return Column(
        name, role, why, len(kept), num_missing, is_integer, is_number, separator, num_odd, odd_word
    )


def _role_of(
    name: str,
    cells: pd.Series,
    kept: list[str],
    numbers: np.ndarray,
    example: str,
    *,
    is_number: bool,
    is_integer: bool,
) -> tuple[Role, str]:
    num_rows, num_values = len(cells), len(kept)
    if num_values < 2:
        return "constant", f"has the one value {kept[0]!r}" if kept else "is empty"
    words = {text.lower() for text in kept}
    if words <= SPLIT_WORDS.keys() and TRAIN in map(SPLIT_WORDS.__getitem__, words):
        return "split", f"says {', '.join(sorted(words, key=SPLIT_WORDS.__getitem__))}"
    num_pictures = sum(text.lower().endswith(IMAGE_SUFFIXES) for text in kept)
    if num_pictures > 0.9 * num_values:
        return "image", f"holds paths of pictures such as {kept[0]}"
    is_unique = num_values == num_rows
    if is_unique and KEY_NAMES.fullmatch(name):
        return "key", "names each row once"
    if is_integer and is_unique and _counts_rows(numbers):
        return "id", "counts the rows"
    if (is_unique and re.search(r"(^|_)(id|key|uuid)$|^Unnamed: ", name)) or (
        is_integer and _INDEX.fullmatch(name)
    ):
        return "id", "counts or names the rows"
    if GROUP_NAMES.fullmatch(name):
        return (
            ("id", "names each row once")
            if is_unique
            else ("group", f"has {num_values:,} values that repeat")
        )
    is_hinted = CATEGORY_NAMES.fullmatch(name) is not None
    most = MOST_CLASSES if is_hinted or not is_number else MOST_INTEGER_CLASSES
    repeats = num_rows >= ROWS_A_VALUE * num_values or (is_hinted and num_rows > num_values)
    if SPLIT_NAMES.fullmatch(name) and (is_integer or not is_number):
        some = ", ".join(_preview(text) for text in kept[:3]) + (", …" if num_values > 3 else "")
        return (
            "parts",
            f"is named like a split and says {some}; only train, valid and test are read",
        )
    num_kinds = len(np.unique(numbers)) if is_integer else num_values  # 1 and 1.0 are one
    if num_kinds <= most and repeats and (is_integer or not is_number):
        kind = "whole numbers" if is_integer else "values"
        return "category", f"has {num_values:,} distinct {kind} in {num_rows:,} rows"
    if is_number:
        return "number", f"holds numbers, {num_values:,} of them distinct"
    kind = _kind_of_text(kept)
    what = "values" if kind == "name" else "texts"
    return kind, f"holds {num_values:,} distinct {what} in {num_rows:,} rows, for example {example}"


def _counts_rows(numbers: np.ndarray) -> bool:
    """Whether distinct whole numbers are those of rows.

    In order, or in another one after rows were shuffled.

    Numbers of a shuffled table begin at 0 or 1 and leave few out, as where rows were filtered
    before.
    """
    if np.ptp(numbers) == len(numbers) - 1 and (np.diff(numbers) == 1).all():
        return True
    is_dense = numbers.max() <= MOST_GAPS * len(numbers)
    return len(numbers) >= FEWEST_COUNTED and numbers.min() in (0, 1) and bool(is_dense)


def _kind_of_text(texts: list[str]) -> Role:
    """Whether these are texts, by words that have letters.

    Names, codes and dates have few of them.
    """
    some = _spread(texts)
    letters = "".join(some)
    num_unspaced = len(_UNSPACED.findall(letters))
    if num_unspaced > 0.3 * len(letters) and num_unspaced >= FEWEST_LETTERS * len(some):
        return "unspaced"
    num_words = sum(len(_WORD.findall(text)) for text in some)
    return "text" if num_words >= FEWEST_WORDS * len(some) else "name"


def _find_separator(cells: pd.Series) -> str:
    """What parts the tags in the cells of a column.

    Empty where they are no tags: they must repeat, and combine.
    """
    for separator in SEPARATORS:
        if not cells.str.contains(separator, regex=False).any():
            continue
        ids, tags = read_labels(cells, separator)
        num_tags_N = (ids >= 0).sum(axis=1)
        combines = (
            len(np.unique(num_tags_N[num_tags_N > 0])) > 1
            and (num_tags_N > 1).mean() >= SEVERAL_TAGS
        )
        repeats = num_tags_N.sum() >= ROWS_A_VALUE * len(tags) and len(tags) < cells.nunique()
        if (
            combines
            and repeats
            and len(tags) <= MOST_CLASSES
            and max(map(len, tags)) <= LONGEST_TAG
        ):
            return separator
    return ""


def _find_points(columns: dict[str, Column]) -> dict[str, Column]:
    """Call adjacent columns `NAME_x`, `NAME_y` of numbers points, where there
    are pictures for them to lie on.

    So are `x_NAME`, `y_NAME` and `x0`, `y0`, where two pairs or more are named so.
    """
    if not any(column.role == "image" for column in columns.values()):
        return columns
    names, found = list(columns), dict(columns)
    pairs = [pair for pair in itertools.pairwise(names) if _is_pair(*pair)]
    pairs = [pair for pair in pairs if all(columns[name].is_number for name in pair)]
    if sum(first[0] in "xX" for first, _ in pairs) < 2:
        pairs = [pair for pair in pairs if pair[0][-2:].lower() == "_x"]
    for name in itertools.chain(*pairs):
        found[name] = columns[name]._replace(role="points", why="is x or y of a point")
    return found


def _is_pair(first: str, second: str) -> bool:
    """Whether two columns are by their names x and y of one point."""
    if first[-2:].lower() == "_x" and second[-2:].lower() == "_y":
        return first[:-2] == second[:-2] != ""
    is_axis = first[:1].lower() == "x" and second[:1].lower() == "y" and first[1:] == second[1:]
    return is_axis and re.fullmatch(r"_?\d+|_.+", first[1:]) is not None


def _spread(items: list[str]) -> list[str]:
    """At most `SAMPLE` items, at equal distances."""
    positions = np.unique(np.linspace(0, len(items) - 1, min(SAMPLE, len(items))).astype(int))
    return [items[position] for position in positions]


def _preview(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
