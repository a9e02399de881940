"""The data report.

What is in a table, who trains on what, and what is odd about it; a plain dict for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...schema import SPLITS, FeatureSchema, Schema
from ..cells import compose_cells, is_empty
from ..kinds import Reporting, find_triple, kind_of
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
        *_warn_of_features(report["features"]),
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
        if column.feature.facts.is_image
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
    column, notes = judged.rows.columns[name], judged.rows.notes.get(name)
    kind = kind_of(column.feature.kind)
    reporting = Reporting(
        judged.data, name, judged.rows.columns, judged.side, fitted.get(name), notes, is_entity
    )
    return {
        "kind": column.feature.kind,
        "columns": column.feature.columns,
        "missing": kind.count_missing(column, judged.frame, judged.data),
        **kind.describe(reporting),
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
    has_pictures = any(column.feature.facts.is_image for column in judged.rows.columns.values())
    counts = np.unique(keys[judged.side != UNUSED], return_counts=True)[1]
    return bool(data.key) and not has_pictures and are_few(counts)


def _warn_of_features(features: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [text for name, one in features.items() for text in kind_of(one["kind"]).warn(name, one)]
