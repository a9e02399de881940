"""Judges each row of a table, and says which side it is on or why it is bad.

Training and scoring differ here alone. A table that trains a model splits, and its schema is
fitted; all rows of a table that a model reads test it, and are judged by its schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from ...disk import digest
from ...errors import DataError
from ...recipe import Data, nearest
from ...schema import SPLITS, Schema
from ...settings import Home
from ..cells import compose_cells, is_empty
from ..files import Files
from ..kinds import find_triple, reject_unknown_parts, reject_unseen_relations
from ..pack import REJECTED
from ..splits import (
    TEST,
    UNUSED,
    Sides,
    assign_by_column,
    assign_by_hash,
    check_files,
    combine,
    hash_texts,
    number_repeats,
)
from ..table import Table, advise_dialect, reject_torn_end
from ..verdicts import QUARANTINE, Verdicts
from .classes import (
    check_trained_classes,
    move_rare_classes,
    reject_unknown_classes,
    reject_untrained_classes,
)
from .inherit import InheritedSchema
from .rows import Cells, Rows
from .unfamiliar import reject_strange


class Plan(NamedTuple):
    """How a table is read and by what its rows are judged.

    Attributes:
        data: the recipe's part, as far as it holds for this table.
        columns: of each feature that is read.
        given: the schema of a model that exists; None where one is fitted on the training rows.
        inherited_schema: what a fitted schema takes over from that of another model.
    """

    data: Data
    columns: Mapping[str, list[str]]
    given: Schema | None = None
    inherited_schema: InheritedSchema | None = None

    @property
    def known(self) -> Schema | None:
        """The schema whose classes are known before a row is read."""
        return self.given if self.inherited_schema is None else self.inherited_schema.schema


class Judged(NamedTuple):
    """A table whose rows are read and judged.

    Every array has one entry a row of the table.

    Attributes:
        data: the recipe's part.
        frame: text cells.
        cells: of each feature, as they were read.
        rows: what the cells became.
        verdicts: why rows are bad.
        side: int8, where each row belongs; UNUSED for bad rows.
    """

    data: Data
    frame: pd.DataFrame
    cells: Mapping[str, Cells]
    rows: Rows
    verdicts: Verdicts
    side: np.ndarray

    @property
    def in_pack(self) -> np.ndarray:
        """The rows that a pack holds, int64, ascending."""
        return np.flatnonzero(self.rows.readable)

    @property
    def file_notes(self) -> list[str]:
        """What is to be said of how files were found, by feature."""
        return [
            f"{name!r}: {note}"
            for name, one in self.cells.items()
            if isinstance(one, Files)
            for note in one.notes
        ]

    def without_bad(self) -> Self:
        """The same with no side for rows that are bad by now."""
        side = np.where(self.verdicts.good, self.side, UNUSED).astype(np.int8)
        return self._replace(side=side)


def judge_shape(plan: Plan, table: Table) -> Verdicts:
    """The verdicts with the rows that are no whole rows of the table."""
    verdicts = Verdicts(len(table.frame))
    for row, reason in table.bad.items():
        verdicts.reject(row, *reason)
    reject_torn_end(plan.data, plan.columns, table, verdicts)
    return verdicts


def assign_early(
    plan: Plan, frame: pd.DataFrame, cells: Mapping[str, Cells], verdicts: Verdicts
) -> Sides | None:
    """The sides that are known before anything is decoded.

    All rows test a model that exists. Where a column says the sides, a file in two splits is found
    here.

    Returns:
        None where the contents of the rows decide.
    """
    if plan.given is not None:
        return Sides(np.full(len(frame), TEST, dtype=np.int8), {})
    if not plan.data.split.column:
        return None
    sides = assign_by_column(frame[plan.data.split.column])
    _check_files(plan.data, cells, sides.side, verdicts)
    return sides


def assign_by_contents(
    data: Data, frame: pd.DataFrame, cells: Mapping[str, Cells], rows: Rows, verdicts: Verdicts
) -> Sides:
    """The sides by a hash of the group, the key or the inputs.

    Raises:
        DataError: a file stands in two splits.
    """
    sides = Sides(assign_by_hash(data.split, choose_keys(data, frame, rows)), {})
    _check_files(data, cells, sides.side, verdicts)
    return sides


def reject_rows(judged: Judged, sides: Sides, given: Schema | None) -> Judged:
    """Call rows bad that cannot train a model, or that a given one cannot read.

    Args:
        judged: with verdicts on the shape and the cells of its rows.
        sides: of all rows.
        given: the schema of a model that exists.
    Returns:
        With the side of each row. Rows that are dropped as the recipe asks, because no training
        row has their class, do not count against its limit.
    """
    if given is not None:
        _reject_for_model(judged, given)
        return judged._replace(side=sides.side)
    data, rows, verdicts, side = judged.data, judged.rows, judged.verdicts, sides.side
    for row, reason in sides.reasons.items():
        verdicts.reject(row, *reason)
    _reject_repeated_keys(data, judged.frame, verdicts)
    if data.rare_classes == "keep" and not data.split.column:
        side = move_rare_classes(data, rows, side, verdicts)
    num_dropped = reject_untrained_classes(data, rows, side, verdicts)
    limit = min(1.0, data.max_bad_rows + num_dropped / len(judged.frame))
    reject_unseen_relations(data, rows.columns, side, verdicts)
    return judged._replace(data=data.model_copy(update={"max_bad_rows": limit}), side=side)


def check_limit(data: Data, home: Home, frame: pd.DataFrame, verdicts: Verdicts) -> None:
    """Refuse a table with more bad rows than the recipe allows.

    Raises:
        DataError: says how many, why, and where they are listed.
    """
    name = f"{Path(data.table).stem}-{digest(str(Path(data.table).absolute()))[:8]}"
    verdicts.check_limit(
        data.max_bad_rows, data.table, frame, home.packs / REJECTED / name / QUARANTINE
    )


def check_rows(judged: Judged, given: Schema | None) -> None:
    """Refuse a table whose good rows cannot train or do not suit a given model.

    Raises:
        DataError: no row trains, there is nothing to tell apart, or images have another shape than
            the model's.
    """
    if given is None:
        _check_training(judged)
    else:
        _check_shapes(judged, given)


def find_columns(data: Data, schema: Schema, names: Sequence[str]) -> dict[str, list[str]]:
    """The columns that a schema was fitted on, in the table that is to be read.

    Raises:
        DataError: the features are not the model's, or the table lacks one of their columns.
    """
    if list(data.inputs) != [feature.name for feature in schema.inputs] or list(data.target) != [
        target.name for target in schema.targets
    ]:
        raise DataError(
            f"the recipe's features {', '.join([*data.inputs, *data.target])} are not the model's, "
            "which are "
            f"{', '.join(feature.name for feature in [*schema.inputs, *schema.targets])}"
        )
    known = set(names)
    for feature in [*schema.inputs, *schema.targets]:
        for column in feature.columns:
            if column not in known:
                raise DataError(
                    f"{data.table}: the model's feature {feature.name!r} reads column {column!r}, "
                    "which the table does "
                    f"not have; {nearest(column, names)}{advise_dialect(data)}"
                )
    return {feature.name: feature.columns for feature in [*schema.inputs, *schema.targets]}


def choose_keys(data: Data, frame: pd.DataFrame, rows: Rows) -> np.ndarray:
    """What decides the side of each row, uint64, shape (rows,).

    The group, else the key, else the inputs. A row whose cell is empty belongs to no group. A
    triple is known by its three parts, as one question may have many answers.
    """
    names = find_triple(data) or list(data.inputs)
    own = hash_texts(frame[data.key]) if data.key else combine([rows.keys[name] for name in names])
    if data.split.repeats == "apart":
        own = number_repeats(own)
    if not data.split.group:
        return own
    groups = frame[data.split.group]
    return np.where(is_empty(groups), own, hash_texts(groups))


def number_groups(cells: pd.Series) -> np.ndarray:
    """The number of each row's group, int64, shape (rows,).

    A row whose cell is empty is a group by itself.
    """
    numbers, values = pd.factorize(compose_cells(cells))
    is_alone = is_empty(cells)
    return np.where(is_alone, len(values) + np.cumsum(is_alone), numbers)


def _reject_for_model(judged: Judged, schema: Schema) -> None:
    data, rows, verdicts = judged.data, judged.rows, judged.verdicts
    _reject_repeated_keys(data, judged.frame, verdicts)
    reject_unknown_classes(data, schema, rows, verdicts)
    reject_unknown_parts(schema, rows.columns, verdicts)
    reject_strange(schema, rows.columns, verdicts, data.max_unknown)


def _check_files(
    data: Data, cells: Mapping[str, Cells], side: np.ndarray, verdicts: Verdicts
) -> None:
    paths = [found.paths for found in cells.values() if isinstance(found, Files)]
    if paths:
        rows = np.tile(np.arange(len(side)), len(paths))
        used = np.where(verdicts.good, side, UNUSED)
        check_files(data.table, [path for column in paths for path in column], rows, used)


def _reject_repeated_keys(data: Data, frame: pd.DataFrame, verdicts: Verdicts) -> None:
    """Of the good rows with one key, the first stays."""
    if not data.key:
        return
    keys = compose_cells(frame[data.key])[verdicts.good]
    repeated = keys[keys.duplicated()]
    first = keys[keys.isin(repeated) & ~keys.duplicated()]
    row_of = dict(zip(first, first.index, strict=True))
    for row, key in repeated.items():
        verdicts.reject(
            int(str(row)),
            f"{data.key!r} stands in an earlier row",
            f"{key!r}, row {row_of[key] + 1}",
        )


def _check_training(judged: Judged) -> None:
    data, side = judged.data, judged.side
    counts = {name: int((side == at).sum()) for at, name in enumerate(SPLITS)}
    if not counts["train"]:
        said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        remedy = (
            f"column {data.split.column!r} must say train somewhere"
            if data.split.column
            else "add rows, or lower data.split.valid and data.split.test"
        )
        raise DataError(f"{data.table}: no row trains ({said}); {remedy}")
    check_trained_classes(data, judged.rows, side)


def _check_shapes(judged: Judged, schema: Schema) -> None:
    for feature in schema.inputs:
        shape = judged.rows.columns[feature.name].feature.shape
        if feature.facts.is_image and shape != feature.shape:
            raise DataError(
                f"{judged.data.table}: the images of {feature.name!r} are {_shape_text(shape)}, "
                f"the model was trained on {_shape_text(feature.shape)}; set "
                f"data.inputs.{feature.name}.size: {feature.shape[1:]}"
            )


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(str(number) for number in shape)
