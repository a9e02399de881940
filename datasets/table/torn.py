"""What the end of a text table says of its last row, and what its columns
say of where a row stood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from ...recipe import Data, Spelling
from ..cells import spell, strip_unseen
from ..verdicts import Verdicts
from .table import Table, features_of

_INDEX = re.compile(r"Unnamed: 0|__index_level_\d+__")


def reject_torn_end(
    data: Data, columns: Mapping[str, list[str]], table: Table, verdicts: Verdicts
) -> None:
    """Call the last row bad where the file ends within its last cell, which is
    a class or tag that no other row has.

    Args:
        data: the features.
        columns: of each feature.
        table: its cells, and whether its last line has an end.
        verdicts: gets the reason.
    """
    if not table.is_torn:
        return
    last, row = str(table.frame.columns[-1]), len(table.frame) - 1
    for name, feature in features_of(data).items():
        if not feature.facts.has_classes or last not in columns.get(name, ()):
            continue
        separator = feature.separator if feature.facts.has_tags else ""
        if tag := find_torn(table.frame[last], feature.labels, separator):
            verdicts.reject(
                row,
                "torn line",
                repr(tag),
                f"the file ends within it, and no other row has this {last!r}",
                "end the last line where it is whole",
            )


def find_torn(cells: pd.Series, rule: Spelling, separator: str = "") -> str:
    """What the last cell of a column says, of tags the last one, where no other
    cell says it; else nothing.

    Args:
        cells: of the column.
        rule: what does not count in the spelling.
        separator: what stands between the tags of a cell; empty where a cell is one class.
    """
    *others, last = map(str, cells)
    tags = {
        tag for cell in set(others) for tag in (cell.split(separator) if separator else (cell,))
    }
    tag = last.rpartition(separator)[2] if separator else last
    is_known = strip_unseen(spell(tag, rule)) in {strip_unseen(spell(one, rule)) for one in tags}
    return "" if is_known or not tag.strip() else tag


def warn_of_index(data: Data, columns: Mapping[str, list[str]], table: Table) -> list[str]:
    """Name the inputs that read numbers of rows, which say where a row stood
    and not what it is.
    """
    index = {name for name in table.frame.columns if _INDEX.fullmatch(str(name))} | set(
        table.index_columns
    )
    return [
        f"{name!r} reads {column!r}, the index of pandas: it says where a row stood, which may "
        "give the target away"
        for name in data.inputs
        for column in columns[name]
        if column in index
    ]
