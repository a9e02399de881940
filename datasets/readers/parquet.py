"""Reads Parquet as text cells, with what pandas wrote beside them.

Knows no recipe.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import DataError


class ParquetTable(NamedTuple):
    """A table of Parquet as text.

    Attributes:
        frame: text cells, indexed from 0.
        index_columns: columns that pandas wrote as the index of its rows.
        numbers: columns that are numbers by their type.
    """

    frame: pd.DataFrame
    index_columns: list[str]
    numbers: frozenset[str]


def read_parquet(path: Path, decimal: str, is_read: Callable[[str], bool]) -> ParquetTable:
    """All columns as text.

    Those that hold lists and the like are left out where nobody reads them.

    Args:
        path: of the file.
        decimal: sign of fractions, see `texts_of`.
        is_read: whether a recipe reads a column.
    Raises:
        DataError: it is not Parquet, has a column twice, or one that is read and has no text.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not Parquet: {error}; write it again") from error
    names = table.column_names
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(
            f"{path} has a column twice: {', '.join(twice[:5])}; rename all but one of each"
        )
    texts, others = {}, {}
    for name, column in zip(names, table.columns, strict=True):
        try:
            texts[name] = texts_of(column, decimal)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            others[name] = column.type
    for name, kind in others.items():
        if not texts or is_read(name):
            raise DataError(
                f"{path}: column {name!r} holds {kind}, expected text, numbers or dates; write it "
                "as one of them or "
                f"drop it"
            )
    index = [name for name in _find_index(table.schema) if name in texts]
    numbers = [
        name
        for name, kind in zip(names, table.schema.types, strict=True)
        if _is_number(kind) and name in texts
    ]
    return ParquetTable(pd.DataFrame(texts), index, frozenset(numbers))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def texts_of(column: pa.ChunkedArray, decimal: str = ".") -> pd.Series:
    """Cells of Parquet as text, as one of this table's features would find them
    in a CSV file; null is "".

    Args:
        column: of any type that has one text a cell.
        decimal: sign of fractions, as the recipe says it for text tables.
    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError: cells are lists and the like, or bytes that
        are no text.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = pc.cast(column, kind.value_type), kind.value_type
    if pa.types.is_float16(kind):
        column = pc.cast(column, pa.float32())
    text = pd.Series(pd.array(pc.fill_null(pc.cast(column, pa.large_string()), ""), dtype="str"))
    has_fraction = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return text.str.replace(".", decimal, regex=False) if has_fraction and decimal != "." else text


def _find_index(schema: pa.Schema) -> list[str]:
    """The columns that pandas wrote as the index of its rows.

    What it says itself, and those of its names.
    """
    found = [name for name in schema.names if re.fullmatch(r"__index_level_\d+__", name)]
    try:
        said = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):  # not pandas' own
        said = []
    return list(dict.fromkeys([*found, *(name for name in said if isinstance(name, str))]))
