"""Judges the classes and tags of a table.

Which no training row has, what a model knows them by, which look alike.

Which spellings are one stands in `datasets/cells/spelling.py`; classes are fitted in `fit.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...recipe import Data
from ...schema import FeatureSchema, Schema
from ..cells import Categories, Labels, find_look_alikes, match_known, respell
from ..kinds import find_triple
from ..pack import PackColumn
from ..splits import TRAIN, UNUSED
from ..table import check_num_classes, check_tags, features_of
from ..verdicts import PREVIEW, Verdicts
from .rows import Cells, Rows

_KEEP = "data.rare_classes: keep or drop lets the run go on"


def match_classes(
    data: Data, cells: Mapping[str, Cells], schema: Schema, notes: list[str]
) -> dict[str, Cells]:
    """The cells with classes, categories and tags in the spelling of a model
    that knows them.

    Args:
        data: the features.
        cells: what `read_cells` found.
        schema: the model's.
        notes: gets what was spelt otherwise in the table.
    """
    known = {(feature.name, feature.kind): feature for feature in [*schema.inputs, *schema.targets]}
    found = dict(cells)
    for name, feature in features_of(data).items():
        theirs = known.get((name, feature.kind)) or _only_target(data, schema, name)
        some = cells[name]
        if theirs is not None and isinstance(some, (Categories, Labels)):
            names = match_known(some.vocabulary, theirs.classes, feature.labels)
            notes.extend(_describe_respelt(name, some, names))
            found[name] = respell(some, names)
    return found


def _describe_respelt(name: str, cells: Categories | Labels, names: Sequence[str]) -> Iterator[str]:
    """How many cells are taken for something that is not what they say."""
    changed = [at for at, text in enumerate(cells.vocabulary) if text != names[at]]
    if changed:
        counts = np.bincount(cells.ids[cells.ids >= 0], minlength=len(names))
        shown = ", ".join(
            f"{counts[at]:,} cell{'s' if counts[at] != 1 else ''} {cells.vocabulary[at]!r} for "
            f"{names[at]!r}"
            for at in changed[:PREVIEW]
        )
        yield (
            f"{name!r}: cells are taken for what the model knows: {shown}"
            f"{', …' if len(changed) > PREVIEW else ''}"
        )


def reject_untrained_classes(data: Data, rows: Rows, side: np.ndarray, verdicts: Verdicts) -> int:
    """Call rows bad whose class no training row has, unless the recipe keeps
    them.

    Gives how many it drops.
    """
    if data.rare_classes == "keep":
        return 0
    before = len(verdicts.reasons)
    for column, is_untrained in _untrained(data, rows, side, verdicts):
        for row in np.flatnonzero(is_untrained):
            _reject_class(column, int(row), "class without a training row", data, verdicts, _KEEP)
    return len(verdicts.reasons) - before if data.rare_classes == "drop" else 0


def move_rare_classes(data: Data, rows: Rows, side: np.ndarray, verdicts: Verdicts) -> np.ndarray:
    """The sides with all rows of a class that no training row has among the
    training rows; int8, shape (rows,).
    """
    side = side.copy()
    for _, is_untrained in _untrained(data, rows, side, verdicts):
        side[is_untrained] = TRAIN
    return side


def _untrained(
    data: Data, rows: Rows, side: np.ndarray, verdicts: Verdicts
) -> Iterator[tuple[PackColumn, np.ndarray]]:
    """Of each category target the good rows whose class no training row has.

    Bool, shape (rows,).
    """
    trains = verdicts.good & (side == TRAIN)
    if not trains.any() or find_triple(data) is not None:
        # The first has an error of its own; entities that no training row has stay in the ranking.
        return
    for column in category_targets(data, rows):
        ids = column.arrays["values"][:, 0]
        trained = np.bincount(ids[trains], minlength=len(column.feature.vocabulary)) > 0
        yield column, verdicts.good & ~trained[ids]


def warn_of_untrained_classes(
    schema: Schema, side: np.ndarray, columns: Mapping[str, PackColumn]
) -> list[str]:
    """Name the classes that the model has and no training row.

    Their rows count, and it cannot learn them.
    """
    found = []
    for target in schema.targets:
        names = [
            name for name, count in zip(target.classes, target.counts, strict=True) if not count
        ]
        if (
            not target.facts.is_one_class
            or target.vocabulary
            or not names
            or target.name not in columns
        ):
            continue
        of_none = np.isin(columns[target.name].feature.vocabulary, names)
        num = int((of_none[columns[target.name].arrays["values"][:, 0]] & (side != UNUSED)).sum())
        if num:
            found.append(
                f"{target.name!r}: {num:,} rows are of {len(names):,} classes without a training "
                "row, which cannot be "
                f"learned ({_preview(names)}); they are kept, as data.rare_classes says, and count "
                "as wrong"
            )
    return found


def reject_unknown_classes(data: Data, schema: Schema, rows: Rows, verdicts: Verdicts) -> None:
    """Call rows bad whose class a model does not know."""
    classes_of = {target.name: target.classes for target in schema.targets}
    for column in category_targets(data, rows):
        known = np.isin(column.feature.vocabulary, classes_of[column.feature.name])
        for row in np.flatnonzero(verdicts.good & ~known[column.arrays["values"][:, 0]]):
            _reject_class(column, int(row), "class that the model does not know", data, verdicts)


def check_trained_classes(data: Data, rows: Rows, side: np.ndarray) -> None:
    """Refuse a target whose training rows have nothing to tell apart.

    Raises:
        DataError: a category of one class, labels without a tag.
    """
    for name in (name for name, feature in data.target.items() if feature.facts.has_tags):
        column = rows.columns[name]
        if not (column.arrays["values"][side == TRAIN] >= 0).any():
            check_tags(data.table, column.feature.columns[0], [], " among its training rows")
    for column in category_targets(data, rows) if find_triple(data) is None else ():
        present = np.unique(column.arrays["values"][side == TRAIN])
        classes = [column.feature.vocabulary[number] for number in present]
        check_num_classes(
            data.table, column.feature.columns[0], classes, " among its training rows"
        )


def category_targets(data: Data, rows: Rows) -> list[PackColumn]:
    """The targets that are categories."""
    return [
        rows.columns[name] for name, feature in data.target.items() if feature.facts.is_one_class
    ]


def count_look_alikes(
    data: Data, columns: Mapping[str, PackColumn], side: np.ndarray
) -> dict[str, Any]:
    """What classes, categories and tags look alike and are several, by feature.

    Args:
        data: the features.
        columns: the features by name, arrays of all rows of the table.
        side: int8, shape (rows,); -1 for rows that are not used.
    Returns:
        `spellings`: of each group the cells of each spelling; `labels`: what the recipe could say
        to make each group one. A feature without any is left out.
    """
    found = {}
    for name, feature in features_of(data).items():
        if not feature.facts.has_classes or name not in columns:
            continue
        vocabulary, ids = (
            columns[name].feature.vocabulary,
            columns[name].arrays["values"][side != UNUSED],
        )
        counts = np.bincount(ids[ids >= 0], minlength=len(vocabulary))
        count_of = {vocabulary[number]: int(counts[number]) for number in np.flatnonzero(counts)}
        if alike := find_look_alikes(list(count_of), feature.labels):
            found[name] = {
                "spellings": [{text: count_of[text] for text in group} for group in alike.groups],
                "labels": {key: True for key, value in alike.rule.model_dump().items() if value},
            }
    return found


def warn_of_look_alikes(data: Data, found: Mapping[str, Any]) -> list[str]:
    """Name the classes that `count_look_alikes` counted, and the setting
    that makes them one.
    """
    warnings = []
    for name, alike in found.items():
        groups = alike["spellings"]
        shown = "; ".join(
            " and ".join(f"{text!r} ({count:,})" for text, count in [*group.items()][:4])
            for group in groups[:PREVIEW]
        )
        more = "; …" if len(groups) > PREVIEW else ""
        part = "inputs" if name in data.inputs else "target"
        settings = ", ".join(f"{key}: true" for key in alike["labels"])
        what = (
            "tags"
            if features_of(data)[name].facts.has_tags
            else "classes"
            if part == "target"
            else "categories"
        )
        warnings.append(
            f"{name!r}: {sum(map(len, groups)):,} {what} look like {len(groups):,}: {shown}{more}; "
            "if they are the "
            f"same, say data.{part}.{name}.labels: {{{settings}}}"
        )
    return warnings


def warn_of_unknown_tags(schema: Schema, rows: Rows, side: np.ndarray) -> list[str]:
    """Name the tags that rows have and no training row had.

    The rows stay, and these tags of theirs do not count.
    """
    found = []
    for target in schema.targets:
        if not target.facts.has_tags or target.name not in rows.columns:
            continue
        vocabulary, ids = (
            rows.columns[target.name].feature.vocabulary,
            rows.columns[target.name].arrays["values"],
        )
        known = set(target.classes)
        unknown = np.array(
            [*(tag not in known for tag in vocabulary), False]
        )  # the last one is that of -1
        has_NM = unknown[ids] & (side != UNUSED)[:, None]
        tags = sorted({vocabulary[number] for number in np.unique(ids[has_NM])})
        if tags:
            found.append(
                f"{target.name!r}: {int(has_NM.any(axis=1).sum()):,} rows have tags that no "
                "training row has, which do "
                f"not count ({len(tags)}: {_preview(tags)})"
            )
    return found


def _only_target(data: Data, schema: Schema, name: str) -> FeatureSchema | None:
    """The model's target where both have but one of this kind, whatever it
    is called.
    """
    [theirs, *others] = schema.targets or [None]
    if theirs is None or others or list(data.target) != [name]:
        return None
    return theirs if theirs.kind == data.target[name].kind else None


def _reject_class(
    column: PackColumn, row: int, kind: str, data: Data, verdicts: Verdicts, remedy: str = ""
) -> None:
    label = repr(column.feature.vocabulary[column.arrays["values"][row, 0]])
    value = label if len(data.target) == 1 else f"{label} in {column.feature.name!r}"
    verdicts.reject(row, kind, value, remedy=remedy)


def _preview(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
