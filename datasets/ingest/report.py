"""The data report.

What is in a table, who trains on what, and what is odd about it; a plain dict for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...schema import SPLITS, FeatureSchema, Schema
from ..cells import compose_cells, is_empty, is_missing_number, sort_classes
from ..images import count_notes
from ..kinds import count_outside, describe_texts, find_image, find_triple, warn_of_unknown
from ..pack import PackColumn
from ..splits import (
    TEST,
    TRAIN,
    UNUSED,
    are_few,
    combine,
    count_duplicates,
    rows_in_two,
    unused_settings,
    warn_of_few_keys,
)
from ..table import unused_feature_settings
from .classes import count_look_alikes, warn_of_look_alikes, warn_of_untrained_classes
from .doubts import (
    count_contradictions,
    warn_of_classes,
    warn_of_contradictions,
    warn_of_leaks,
    warn_of_split,
    warn_of_wild_numbers,
)
from .judge import Judged, choose_keys
from .rows import Rows
from .unfamiliar import describe_strange, warn_of_strange

FORMAT_VERSION = 3
MOST_SIZES = 20


def describe_data(
    judged: Judged, schema: Schema, warnings: Sequence[str], *, is_given: bool
) -> dict[str, Any]:
    """Collect the report.

    Args:
        judged: the table.
        schema: of the training rows, or a model's.
        warnings: found so far.
        is_given: the schema is that of a model that exists, which all rows test.
    """
    data, rows, side = judged.data, judged.rows, judged.side
    samples = _sample(rows)
    leaked = {name: rows_in_two(keys, side) for name, keys in samples.items()}
    report = _count_table(judged, schema, samples["rows"], leaked)
    # Of a table that is scored all rows that could be read, of one that is trained on those that
    # only test the model.
    is_new = (
        np.where(rows.readable, TEST, UNUSED) if is_given else np.where(side == TRAIN, UNUSED, side)
    )
    report["warnings"] = [
        *unused_feature_settings(data),
        *unused_settings(data),
        *warnings,
        *warn_of_look_alikes(data, report["look_alikes"]),
        *warn_of_untrained_classes(schema, side, rows.columns),
        *warn_of_leaks(leaked, are_apart=_are_apart(judged, samples["rows"])),
        *warn_of_split(data.split, report),
        *_warn_of_texts(report["features"]),
        *warn_of_classes(_find_classes(judged, report), side),
    ]
    strange = report["unfamiliar"] = describe_strange(schema, rows.columns, is_new)
    contradictions = report["contradictions"] = count_contradictions(data, rows.keys, side)
    report["warnings"] += warn_of_strange(strange, 0 if is_given else int((side == TRAIN).sum()))
    if not is_given:
        report["warnings"] += warn_of_wild_numbers(data, judged.frame, rows.columns, side)
        report["warnings"] += warn_of_contradictions(contradictions, int((side != UNUSED).sum()))
        if not data.split.column:
            keys = choose_keys(data, judged.frame, rows)
            report["warnings"] += warn_of_few_keys(data.split, keys, side)
    return report


def _sample(rows: Rows) -> dict[str, np.ndarray]:
    """Keys of each row, uint64, shape (rows,); rows with equal ones hold the same.

    Of "rows", which are inputs and target, and of each feature the values (of an image, its file's
    content).
    """
    samples = {"rows": combine(list(rows.keys.values()))}
    return samples | {
        name: rows.keys[name]
        for name, column in rows.columns.items()
        if column.feature.kind == "image"
    }


def _count_table(
    judged: Judged, schema: Schema, keys: np.ndarray, leaked: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Count what a table and its features have.

    Args:
        judged: the table.
        schema: of the training rows, or a model's.
        keys: uint64, shape (rows,), equal where rows are the same.
        leaked: of rows and images, bool, shape (rows,): the same stands on another side.
    """
    data, side, columns = judged.data, judged.side, judged.rows.columns
    used = side != UNUSED
    triple = find_triple(data) if data.target else None
    entities = () if triple is None else (triple.head, triple.tail)
    fitted = {one.name: one for one in schema.inputs}
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "table": data.table,
        "rows": len(judged.frame),
        "splits": _count_sides(side),
        "quarantined": {
            "rows": len(judged.verdicts.reasons),
            "reasons": judged.verdicts.counts,
            "remedies": judged.verdicts.remedies,
        },
        "features": {
            name: _describe_feature(judged, name, fitted, is_entity=name in entities)
            for name in columns
        },
        "duplicate_rows": count_duplicates(keys[used]),
        "rows_in_two_splits": {name: int(rows.sum()) for name, rows in leaked.items()},
    }
    if stratify := data.split.stratify:
        report["stratify"] = _count_values(judged.frame[stratify][used], side[used])
    if group := data.split.group:
        report["group"] = _count_groups(judged.frame[group][used], side[used])
    if triple is not None:
        report["entities"] = _count_entities([columns[name] for name in entities], side)
    report["look_alikes"] = count_look_alikes(data, columns, side)
    return report


def _find_classes(
    judged: Judged, report: Mapping[str, Any]
) -> dict[str, dict[str, dict[str, int]]]:
    """Rows of each class on each side, for targets and the column that is stratified."""
    data, columns = judged.data, judged.rows.columns
    classes = {name: report["features"][name].get("classes", {}) for name in data.target}
    # A target that is stratified by itself is warned of once.
    if data.split.stratify not in [columns[name].feature.columns[0] for name in classes]:
        classes |= {data.split.stratify: report.get("stratify", {})}
    return {name: counts for name, counts in classes.items() if counts}


def _describe_feature(
    judged: Judged, name: str, fitted: Mapping[str, FeatureSchema], *, is_entity: bool
) -> dict[str, Any]:
    data, side, columns = judged.data, judged.side, judged.rows.columns
    feature, arrays = columns[name].feature, columns[name].arrays
    used = side != UNUSED
    found: dict[str, Any] = {
        "kind": feature.kind,
        "columns": feature.columns,
        "missing": _count_missing(columns[name], judged.frame, data.missing_values),
    }
    if feature.kind == "image":
        num_distinct = len(np.unique(arrays["content"][used]))
        found |= {"shape": feature.shape, "dtype": feature.dtype, "distinct_images": num_distinct}
        found["sizes"] = _describe_sizes(arrays["source"][used])
        found["pictures"] = count_notes(judged.rows.notes[name][used])
    elif feature.kind == "points":
        source = columns[find_image(data, name)].arrays["source"]
        found |= _describe_points(
            arrays["values"][used].reshape(int(used.sum()), -1, 2), source[used]
        )
    elif feature.kind == "number":
        found["ranges"] = _describe_numbers(feature.columns, arrays["values"][used])
        found["ranges_by_split"] = {
            split: _describe_numbers(feature.columns, arrays["values"][side == at])
            for at, split in enumerate(SPLITS)
            if (side == at).any()
        }
    elif feature.kind == "text":
        found |= describe_texts(columns[name], side, fitted[name])
    elif is_entity:  # of which there may be as many as rows
        found["distinct"] = _count_distinct(columns[name], side)
    else:
        found["classes"] = _count_classes(columns[name], side)
    return found


def _count_missing(column: PackColumn, frame: pd.DataFrame, words: Sequence[str]) -> dict[str, int]:
    """Missing cells of each column of a feature.

    Only columns with values that could not be read are looked at.
    """
    names = column.feature.columns
    if column.feature.kind not in ("number", "points"):
        return {name: int(is_empty(frame[name]).sum()) for name in names}
    unread = set(np.flatnonzero(np.isnan(column.arrays["values"]).any(axis=0)).tolist())
    return {
        name: int(is_missing_number(frame[name], words).sum()) if at in unread else 0
        for at, name in enumerate(names)
    }


def _describe_sizes(source: np.ndarray) -> dict[str, Any]:
    """Heights and widths of the files' upright pictures, shape (rows, 2).

    The most frequent sizes first.
    """
    sizes, counts = np.unique(source, axis=0, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:MOST_SIZES]
    return {
        "height": _quantiles(source[:, 0]),
        "width": _quantiles(source[:, 1]),
        "distinct": len(sizes),
        "most_frequent": [
            {"height": int(sizes[at, 0]), "width": int(sizes[at, 1]), "rows": int(counts[at])}
            for at in frequent
        ],
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    names = ("min", "quarter", "median", "three_quarters", "max")
    return dict(zip(names, np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist(), strict=True))


def _describe_points(points: np.ndarray, source: np.ndarray) -> dict[str, Any]:
    """Points of shape (rows, P, 2) in pixels of their files, whose pictures
    have the sizes `source`.
    """
    outside = count_outside(points, source)
    return {
        "points": points.shape[1],
        "ranges": _describe_numbers(("x", "y"), points.reshape(-1, 2)),
        "points_outside": int(outside.sum()),
        "rows_with_points_outside": int((outside > 0).sum()),
    }


def _describe_numbers(columns: Sequence[str], values: np.ndarray) -> dict[str, dict[str, float]]:
    has_gaps = np.isnan(values).any(axis=0)
    wide = np.ascontiguousarray(values[:, ~has_gaps].T)
    found = dict(zip(np.flatnonzero(~has_gaps).tolist(), _describe_lines(wide), strict=True))
    for at in np.flatnonzero(has_gaps).tolist():
        present = values[~np.isnan(values[:, at]), at]
        if len(present):
            found |= {at: _describe_lines(present[None])[0]}
    return {name: found[at] for at, name in enumerate(columns) if at in found}


def _describe_lines(wide: np.ndarray) -> list[dict[str, float]]:
    """Minimum, maximum, mean and deviation of each line of an array."""
    if not wide.size:
        return []
    found = {"min": wide.min(1), "max": wide.max(1), "mean": wide.mean(1), "std": wide.std(1)}
    return [
        dict(zip(found, line, strict=True))
        for line in zip(*(one.tolist() for one in found.values()), strict=True)
    ]


def _count_classes(column: PackColumn, side: np.ndarray) -> dict[str, dict[str, int]]:
    """Rows of each class or tag on each side, in order."""
    vocabulary = column.feature.vocabulary
    ids = column.arrays["values"]
    each = {name: ids[side == at] for at, name in enumerate(SPLITS)}
    counts = {
        name: np.bincount(some[some >= 0], minlength=len(vocabulary)) for name, some in each.items()
    }
    id_of = {label: number for number, label in enumerate(vocabulary)}
    present = [
        label for label, number in id_of.items() if any(count[number] for count in counts.values())
    ]
    return {
        label: {name: int(count[id_of[label]]) for name, count in counts.items()}
        for label in sort_classes(present)
    }


def _count_distinct(column: PackColumn, side: np.ndarray) -> dict[str, int]:
    """Distinct values on each side."""
    return {
        name: len(np.unique(column.arrays["values"][side == at])) for at, name in enumerate(SPLITS)
    }


def _count_entities(columns: Sequence[PackColumn], side: np.ndarray) -> dict[str, int]:
    """All entities of the table, in whichever column they stand, and those
    that no training row has.
    """
    present, trained = set[str](), set[str]()
    for column in columns:
        vocabulary, values = column.feature.vocabulary, column.arrays["values"]
        present |= {vocabulary[number] for number in np.unique(values[side != UNUSED])}
        trained |= {vocabulary[number] for number in np.unique(values[side == TRAIN])}
    return {"distinct": len(present), "without_training_rows": len(present - trained)}


def _count_sides(side: np.ndarray) -> dict[str, int]:
    return {name: int((side == at).sum()) for at, name in enumerate(SPLITS)}


def _count_values(cells: pd.Series, side: np.ndarray) -> dict[str, dict[str, int]]:
    ids, values = pd.factorize(compose_cells(cells))
    each = [
        np.bincount(ids[side == at], minlength=len(values)).tolist() for at in range(len(SPLITS))
    ]
    counts = zip(*each, strict=True)
    return {
        str(value): dict(zip(SPLITS, some, strict=True))
        for value, some in zip(values, counts, strict=True)
    }


def _count_groups(cells: pd.Series, side: np.ndarray) -> dict[str, Any]:
    """Groups on each side, the rows of the largest, and those whose cell is
    empty.
    """
    is_none = is_empty(cells)
    ids, values = pd.factorize(compose_cells(cells[~is_none]))
    side = side[~is_none]
    return {
        "groups": {name: len(np.unique(ids[side == at])) for at, name in enumerate(SPLITS)},
        "largest": int(np.bincount(ids, minlength=len(values)).max(initial=0)),
        "rows_of_none": int(is_none.sum()),
    }


def _are_apart(judged: Judged, keys: np.ndarray) -> bool:
    """Whether the recipe wants equal rows on several sides.

    It says so, or names rows of few different contents.
    """
    data = judged.data
    if data.split.repeats == "apart":
        return True
    has_pictures = any(column.feature.kind == "image" for column in judged.rows.columns.values())
    counts = np.unique(keys[judged.side != UNUSED], return_counts=True)[1]
    return bool(data.key) and not has_pictures and are_few(counts)


def _warn_of_texts(features: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        text
        for name, one in features.items()
        if one["kind"] == "text"
        for text in warn_of_unknown(name, one)
    ]
