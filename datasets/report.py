"""The data report: what is in a table, who trains on what, and what is odd about it; a plain dict for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..recipe import Data
from ..schema import SPLITS
from .fit import sort_classes
from .leaks import count_duplicates, rows_in_two
from .pack import PackColumn
from .splits import TEST, UNUSED, VALID
from .verdicts import PREVIEW, Verdicts

FORMAT_VERSION = 1


def describe_data(
    data: Data,
    frame: pd.DataFrame,
    columns: Mapping[str, PackColumn],
    verdicts: Verdicts,
    side: np.ndarray,
    samples: Mapping[str, np.ndarray],
    warnings: list[str],
) -> dict[str, Any]:
    """Collect the report.

    Args:
        data: the recipe's part.
        frame: text cells.
        columns: the features by name, arrays of all rows of the table.
        verdicts: why rows are quarantined.
        side: int8, shape (rows,); -1 for quarantined rows.
        samples: uint64 keys, shape (rows,); rows with equal ones hold the same: "rows" (inputs and target), and
            for each image feature its files' content.
        warnings: found so far.
    """
    used = side != UNUSED
    leaked = {name: rows_in_two(keys, side) for name, keys in samples.items()}
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "table": data.table,
        "rows": len(frame),
        "splits": _count_sides(side),
        "quarantined": {"rows": len(verdicts.reasons), "reasons": verdicts.counts},
        "features": {name: _describe_feature(column, side, frame) for name, column in columns.items()},
        "duplicate_rows": count_duplicates(samples["rows"][used]),
        "rows_in_two_splits": {name: int(rows.sum()) for name, rows in leaked.items()},
    }
    if data.split.stratify:
        report["stratify"] = _count_values(frame[data.split.stratify], side)
    report["warnings"] = [
        *warnings,
        *_warn_of_leaks(leaked),
        *(
            warning
            for target in data.target
            for warning in _warn_of_classes(report["features"][target].get("classes", {}), side)
        ),
        *_warn_of_tests(side),
    ]
    return report


def _describe_feature(column: PackColumn, side: np.ndarray, frame: pd.DataFrame) -> dict[str, Any]:
    feature = column.feature
    used = side != UNUSED
    found: dict[str, Any] = {
        "kind": feature.kind,
        "columns": feature.columns,
        "missing": {name: int((frame[name].str.strip() == "").sum()) for name in feature.columns},
    }
    if feature.kind == "image":
        num_distinct = len(np.unique(column.arrays["content"][used]))
        found |= {"shape": feature.shape, "dtype": feature.dtype, "distinct_images": num_distinct}
    elif feature.kind == "number":
        values = column.arrays["values"][used]
        found["ranges"] = {
            name: {"min": float(values[:, at].min()), "max": float(values[:, at].max())}
            for at, name in enumerate(feature.columns)
        }
    else:
        found["classes"] = _count_classes(column, side)
    return found


def _count_classes(column: PackColumn, side: np.ndarray) -> dict[str, dict[str, int]]:
    """Rows of each class on each side, classes in order."""
    vocabulary = column.feature.vocabulary
    ids = column.arrays["values"]
    counts = {name: np.bincount(ids[side == at].ravel(), minlength=len(vocabulary)) for at, name in enumerate(SPLITS)}
    id_of = {label: number for number, label in enumerate(vocabulary)}
    present = [label for label, number in id_of.items() if any(count[number] for count in counts.values())]
    return {
        label: {name: int(count[id_of[label]]) for name, count in counts.items()} for label in sort_classes(present)
    }


def _count_sides(side: np.ndarray) -> dict[str, int]:
    return {name: int((side == at).sum()) for at, name in enumerate(SPLITS)}


def _count_values(cells: pd.Series, side: np.ndarray) -> dict[str, dict[str, int]]:
    ids, values = pd.factorize(cells)
    return {str(value): _count_sides(side[ids == number]) for number, value in enumerate(values)}


def _warn_of_leaks(leaked: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    for name, rows in leaked.items():
        if rows.any():
            what = "hold the same row" if name == "rows" else f"hold the same picture in {name!r} under different names"
            first = ", ".join(str(row + 1) for row in np.flatnonzero(rows)[:PREVIEW])
            found.append(f"{int(rows.sum()):,} rows of different splits {what}, for example rows {first}")
    return found


def _warn_of_classes(classes: Mapping[str, Mapping[str, int]], side: np.ndarray) -> list[str]:
    """Name the classes that have no row where the others have some."""
    found = []
    for at in (VALID, TEST):
        name = SPLITS[at]
        absent = [label for label, counts in classes.items() if counts[name] == 0]
        if absent and (side == at).any():
            found.append(f"{len(absent)} of {len(classes)} classes have no {name} row: {', '.join(absent[:5])}")
    return found


def _warn_of_tests(side: np.ndarray) -> list[str]:
    return [] if (side == TEST).any() else ["no row tests: there will be no test metrics"]
