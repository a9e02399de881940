"""From a table to everything that training reads.

A table is opened, its cells and files are read, its rows judged (`judge.py`), and pack, split and
schema written.

This is the one entry for tasks. A pack lies in `packs/<pack id>/`; what depends on the split lies
below it, in `splits/<split id>/`, so that deleting a pack leaves no split behind. Both are
immutable and named by what is in them: a call with the same data finds them and writes nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...disk import commit_folder, digest, read_json, write_json, writing
from ...faults import reach
from ...recipe import Data, Split
from ...schema import FORMAT_VERSION as SCHEMA_FORMAT_VERSION
from ...schema import Schema
from ...settings import Home
from ..layout import SCHEMA_FILE
from ..pack import GROUPS_FILE, KEYS_FILE, Pack, fingerprint_table, write_pack
from ..splits import find_split, write_manifest
from ..table import Table, open_table, resolve_features, warn_of_index
from ..verdicts import QUARANTINE, REPORT
from .classes import match_classes, warn_of_unknown_tags
from .doubts import warn_of_far_pixels, warn_of_pictures
from .fit import fit_schema
from .inherit import InheritedSchema, inherit
from .judge import (
    Judged,
    Plan,
    assign_by_contents,
    assign_early,
    check_limit,
    check_rows,
    find_columns,
    judge_shape,
    number_groups,
    reject_rows,
)
from .report import describe_data
from .report_csv import tabulate_report
from .rows import Progress, read_cells, read_rows

SPLIT_FORMAT_VERSION = 5


class Prepared(NamedTuple):
    """What `prepare_data` made or found.

    Attributes:
        pack_dir: the pack.
        split_dir: `split.npy`, `schema.json`, `quarantine.csv`, `report.json`, `data_report.csv`.
        fingerprint: 32 hex digits over every row and every file's bytes.
        rows: how many train, valid and test.
        num_quarantined: bad rows.
        num_decoded: images decoded by this call.
        reused: nothing had to be written.
        warnings: sentences for the user.
    """

    pack_dir: Path
    split_dir: Path
    fingerprint: str
    rows: dict[str, int]
    num_quarantined: int
    num_decoded: int
    reused: bool
    warnings: list[str]


def prepare_data(
    data: Data,
    home: Home,
    on_progress: Progress | None = None,
    inherited_schema: InheritedSchema | None = None,
    *,
    recheck: bool = False,
) -> Prepared:
    """Make the pack of a recipe's table, and its split and schema.

    Or find them.

    Args:
        data: the recipe's part.
        home: where store and packs are.
        on_progress: called with the numbers of images done and of all images.
        inherited_schema: what the schema takes over from that of another model.
        recheck: read all files again, also those that seem to be as they were.
    Raises:
        RecipeError: the recipe's data part is incomplete or contradicts itself.
        DataError: the data cannot be trained on; says why and what to do.
    """
    table = _open(data)
    columns = resolve_features(data, list(table.frame.columns), table.index_columns)
    plan = Plan(data, columns, inherited_schema=inherited_schema)
    return _prepare(table, plan, home, on_progress, recheck=recheck)


def prepare_for_schema(
    data: Data, schema: Schema, home: Home, on_progress: Progress | None = None
) -> Prepared:
    """Make the pack of a table whose rows all test a model that exists.

    Nothing is fitted.

    Bad rows are left out, however many they are.

    Args:
        data: the table, and the features that the model was trained on; of its split the group
            alone is looked at.
        schema: the model's. Its columns are read, and rows with a class that it does not know are
            quarantined.
        home: where store and packs are.
        on_progress: called with the numbers of images done and of all images.
    Raises:
        DataError: the table cannot be read as the schema says, or none of its rows can be.
    """
    table = _open(data)
    names = list(table.frame.columns)
    key = data.key if data.key in names else ""
    split = Split(group=data.split.group if data.split.group in names else "")
    data = data.model_copy(update={"split": split, "key": key, "max_bad_rows": 1.0})
    plan = Plan(data, find_columns(data, schema, names), schema)
    return _prepare(table, plan, home, on_progress)


def prepare_inputs(
    data: Data, schema: Schema, home: Home, on_progress: Progress | None = None
) -> Prepared:
    """Make the pack of a table whose rows a model that exists is to predict.

    It needs no column of the target.

    Bad rows are left out, however many they are. All others are test rows, and have no target in
    the pack.

    Args:
        data: the table, and the features that the model was trained on; its split and its key are
            not looked at.
        schema: the model's. The columns of its inputs are read.
        home: where store and packs are.
        on_progress: called with the numbers of images done and of all images.
    Raises:
        DataError: the table cannot be read as the schema says, or none of its rows can be.
    """
    table = _open(data)
    data = data.model_copy(update={"target": {}, "split": Split(), "key": "", "max_bad_rows": 1.0})
    inputs = schema.model_copy(update={"targets": []})
    plan = Plan(data, find_columns(data, inputs, list(table.frame.columns)), schema)
    return _prepare(table, plan, home, on_progress)


def _open(data: Data) -> Table:
    reach("ingest.begun")
    return open_table(data)


def _prepare(
    table: Table, plan: Plan, home: Home, on_progress: Progress | None, *, recheck: bool = False
) -> Prepared:
    """Read, judge and commit an open table."""
    data, frame = plan.data, table.frame
    verdicts = judge_shape(plan, table)
    cells = read_cells(data, plan.columns, frame, verdicts)
    if plan.known is not None:
        cells = match_classes(data, cells, plan.known, table.notes)
    reach("ingest.rows_read")
    sides = assign_early(plan, frame, cells, verdicts)
    check_limit(data, home, frame, verdicts)
    rows = read_rows(data, home, plan.columns, cells, verdicts, on_progress, recheck=recheck)
    reach("ingest.decoded")
    if sides is None:
        sides = assign_by_contents(data, frame, cells, rows, verdicts)
    judged = Judged(data, frame, cells, rows, verdicts, sides.side)
    judged = reject_rows(judged, sides, plan.given)
    check_limit(judged.data, home, frame, verdicts)
    judged = judged.without_bad()
    check_rows(judged, plan.given)
    prepared = _commit(judged, plan, home)
    index = [] if plan.given is not None else warn_of_index(data, plan.columns, table)
    return prepared._replace(warnings=[*table.notes, *index, *prepared.warnings])


def _commit(judged: Judged, plan: Plan, home: Home) -> Prepared:
    """Write pack and split, unless they are there."""
    rows = judged.rows
    contents = [
        column.arrays["content"]
        for column in rows.columns.values()
        if column.feature.facts.is_image
    ]
    fingerprint = fingerprint_table(judged.frame, contents)
    reach("pack.begun")
    pack_dir, pack_found = write_pack(
        home.packs, list(rows.columns.values()), judged.in_pack, fingerprint
    )
    reach("pack.committed")
    pack = Pack.open(pack_dir)
    split_dir = pack_dir / "splits" / _name_split(judged, plan)
    split_found = find_split(split_dir)
    if not split_found:
        schema, warnings = _fit(judged, plan, pack)
        report = describe_data(judged, schema, warnings, is_given=plan.given is not None)
        _write_split(split_dir, judged, schema, {"fingerprint": fingerprint, **report})
    reach("pack.split_committed")
    report = read_json(split_dir / REPORT)
    return Prepared(
        pack_dir=pack_dir,
        split_dir=split_dir,
        fingerprint=fingerprint,
        rows=report["splits"],
        num_quarantined=len(judged.verdicts.reasons),
        num_decoded=rows.num_decoded,
        reused=pack_found and split_found,
        warnings=report["warnings"],
    )


def _fit(judged: Judged, plan: Plan, pack: Pack) -> tuple[Schema, list[str]]:
    """The schema, fitted or given, and what is odd about the values that the split holds."""
    warnings = warn_of_pictures(judged)
    schema = plan.given
    if schema is None:
        schema = fit_schema(pack, judged.data, judged.side[judged.in_pack])
        warnings += warn_of_far_pixels(judged, pack, schema)
    if plan.inherited_schema is not None:
        schema = inherit(schema, *plan.inherited_schema)
    warnings += warn_of_unknown_tags(schema, judged.rows, judged.side)
    return schema, [*warnings, *judged.file_notes]


def _write_split(split_dir: Path, judged: Judged, schema: Schema, report: dict[str, Any]) -> None:
    data, frame, in_pack = judged.data, judged.frame, judged.in_pack
    split = judged.side[in_pack]
    with (
        writing(f"split {split_dir.name}", split_dir.parent, split.nbytes),
        commit_folder(split_dir) as temporary,
    ):
        np.save(temporary / "split.npy", split)
        schema.save(temporary / SCHEMA_FILE)
        (temporary / QUARANTINE).write_text(judged.verdicts.to_csv(frame), "utf-8")
        if data.split.group:
            np.save(temporary / GROUPS_FILE, number_groups(frame[data.split.group])[in_pack])
        if data.key:
            frame[[data.key]].iloc[in_pack].to_parquet(temporary / KEYS_FILE, index=False)
        write_json(temporary / REPORT, report)
        (temporary / "data_report.csv").write_text(tabulate_report(report), "utf-8")
        write_manifest(temporary)
        reach("pack.split_written")


def _name_split(judged: Judged, plan: Plan) -> str:
    """Everything that the split's files depend on, the pack aside."""
    given: Any = None if plan.given is None else plan.given.model_dump()
    if plan.inherited_schema is not None:
        given = [plan.inherited_schema.schema.model_dump(), plan.inherited_schema.statistics]
    spec = judged.data.model_dump(
        include={"table", "inputs", "target", "key", "split", "missing_values", "rare_classes"}
    )
    versions = [SPLIT_FORMAT_VERSION, SCHEMA_FORMAT_VERSION]
    side = hashlib.sha256(judged.side.tobytes()).hexdigest()
    return digest(versions, spec, judged.verdicts.digest(), side, given)
