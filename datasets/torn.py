"""What the end of a text table says of its last row, and what its columns say of where a row stood."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..recipe import Data
from .table import Table, features_of
from .verdicts import Verdicts

_INDEX = re.compile(r"Unnamed: 0|__index_level_\d+__")


def reject_torn_end(data: Data, columns: Mapping[str, list[str]], table: Table, verdicts: Verdicts) -> None:
    """Call the last row bad where the file ends within its last cell, which is a class or tag that no other row has.

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
        if feature.kind not in ("category", "labels") or last not in columns.get(name, ()):
            continue
        cells = table.frame[last]
        tag = str(cells.iloc[row])
        others = cells.iloc[:row]
        if feature.kind == "labels":
            tag = tag.rpartition(feature.separator)[2]
            others = others.str.split(feature.separator).explode()
        if tag.strip() and not (others.str.strip() == tag.strip()).any():
            verdicts.reject(
                row,
                "torn line",
                repr(tag),
                f"the file ends within it, and no other row has this {last!r}",
                "end the last line where it is whole",
            )


def warn_of_index(columns: Mapping[str, list[str]], table: Table) -> list[str]:
    """Name the features that read numbers of rows, which say where a row stood and not what it is."""
    index = {name for name in table.frame.columns if _INDEX.fullmatch(str(name))} | set(table.index_columns)
    return [
        f"{name!r} reads {column!r}, the index of pandas: it says where a row stood, which may give the target away"
        for name, read in columns.items()
        for column in read
        if column in index
    ]
