"""From a table to everything that training reads.

Rows judged, images decoded, split, pack and schema written.

This is the one entry for tasks. A pack lies in `packs/<pack id>/`; what depends on the split lies
below it, in
`splits/<split id>/`, so that deleting a pack leaves no split behind. Both are immutable and named
by what is in them: a call with the same data finds them and writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from ...disk import commit_folder, digest, read_json, write_json, writing
from ...errors import DataError
from ...faults import reach
from ...recipe import Data, Split, nearest
from ...schema import FORMAT_VERSION as SCHEMA_FORMAT_VERSION
from ...schema import SPLITS, Schema
from ...settings import Home
from ..cells import compose_cells, is_empty
from ..features import find_triple, reject_unknown_parts, reject_unseen_relations
from ..files import Files
from ..images import count_notes, warn_of_notes
from ..layout import SCHEMA_FILE
from ..pack import REJECTED, Pack, fingerprint_table, write_pack
from ..splits import (
    TEST,
    TRAIN,
    UNUSED,
    Sides,
    assign_by_column,
    assign_by_hash,
    check_files,
    combine,
    find_split,
    hash_texts,
    number_repeats,
    unused_settings,
    verify_split,
    warn_of_few_keys,
    write_manifest,
)
from ..table import (
    Table,
    advise_dialect,
    features_of,
    open_table,
    reject_torn_end,
    resolve_features,
    unused_feature_settings,
    warn_of_index,
)
from ..verdicts import QUARANTINE, REPORT, Verdicts
from .classes import (
    check_trained_classes,
    match_classes,
    move_rare_classes,
    reject_unknown_classes,
    reject_untrained_classes,
    warn_of_unknown_tags,
)
from .doubts import count_contradictions, warn_of_contradictions, warn_of_wild_numbers
from .fit import find_farthest, fit_schema
from .inherit import inherit
from .report import describe_data
from .report_csv import tabulate_report
from .rows import Cells, Progress, Rows, read_cells, read_rows
from .unfamiliar import describe_strange, reject_strange, warn_of_strange

SPLIT_FORMAT_VERSION = 5
KEYS_FILE = "keys.parquet"
GROUPS_FILE = "groups.npy"
# Float pixels whose mean or deviation is larger are warned of: one wild pixel then hides what all
# others say.
FAR_PIXELS = 1e6


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


class Heritage(NamedTuple):
    """What a model that is to be trained takes over from another.

    See `inherit.inherit`.

    Attributes:
        schema: of the other model.
        statistics: source or data.
    """

    schema: Schema
    statistics: Literal["source", "data"]


class View(NamedTuple):
    """A pack seen through one split.

    Attributes:
        pack: the raw values.
        schema: fitted on the training rows, or given.
        rows: int64 positions in the pack, ascending, for train, valid and test.
        groups: int64, shape (rows of the pack,), equal for rows that belong together; None where
            the recipe has no
            `data.split.group`, or an older torchrelay made the split.
    """

    pack: Pack
    schema: Schema
    rows: dict[str, np.ndarray]
    groups: np.ndarray | None


def prepare_data(
    data: Data,
    home: Home,
    on_progress: Progress | None = None,
    heritage: Heritage | None = None,
    *,
    recheck: bool = False,
) -> Prepared:
    """Make the pack of a recipe's table, and its split and schema.

    Or find them.

    Args:
        data: the recipe's part.
        home: where store and packs are.
        on_progress: called with the numbers of images done and of all images.
        heritage: what the schema takes over from that of another model.
        recheck: read all files again, also those that seem to be as they were.
    Raises:
        RecipeError: the recipe's data part is incomplete or contradicts itself.
        DataError: the data cannot be trained on; says why and what to do.
    """
    reach("ingest.begun")
    table = open_table(data)
    columns = resolve_features(data, list(table.frame.columns), table.index_columns)
    verdicts = _judge_shape(data, columns, table)
    cells = read_cells(data, columns, table.frame, verdicts)
    if heritage is not None:
        cells = match_classes(data, cells, heritage.schema, table.notes)
    reach("ingest.rows_read")
    sides = _assign_by_column(data, table.frame, cells, verdicts)
    _check_limit(data, home, table.frame, verdicts)
    rows = read_rows(data, home, columns, cells, verdicts, on_progress, recheck=recheck)
    reach("ingest.decoded")
    if sides is None:
        sides = Sides(assign_by_hash(data.split, _choose_keys(data, table.frame, rows)), {})
        _check_files(data, cells, sides.side, verdicts)
    for row, reason in sides.reasons.items():
        verdicts.reject(row, *reason)
    _reject_repeated_keys(data, table.frame, verdicts)
    if data.rare_classes == "keep" and not data.split.column:
        sides = sides._replace(side=move_rare_classes(data, rows, sides.side, verdicts))
    num_dropped = reject_untrained_classes(data, rows, sides.side, verdicts)
    data = data.model_copy(
        update={"max_bad_rows": min(1.0, data.max_bad_rows + num_dropped / len(table.frame))}
    )
    reject_unseen_relations(data, rows.columns, sides.side, verdicts)
    _check_limit(data, home, table.frame, verdicts)
    side = np.where(verdicts.good, sides.side, UNUSED).astype(np.int8)
    _check_training(data, rows, side)
    prepared = _commit(data, home, table.frame, cells, rows, verdicts, side, None, heritage)
    return prepared._replace(
        warnings=[*table.notes, *warn_of_index(data, columns, table), *prepared.warnings]
    )


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
    table = open_table(data)
    names = list(table.frame.columns)
    key = data.key if data.key in names else ""
    split = Split(group=data.split.group if data.split.group in names else "")
    data = data.model_copy(update={"split": split, "key": key, "max_bad_rows": 1.0})
    columns = _columns_of(data, schema, names)
    verdicts = _judge_shape(data, columns, table)
    cells = match_classes(
        data, read_cells(data, columns, table.frame, verdicts), schema, table.notes
    )
    _check_limit(data, home, table.frame, verdicts)
    rows = read_rows(data, home, columns, cells, verdicts, on_progress)
    _reject_repeated_keys(data, table.frame, verdicts)
    reject_unknown_classes(data, schema, rows, verdicts)
    reject_unknown_parts(schema, rows.columns, verdicts)
    reject_strange(schema, rows.columns, verdicts, data.max_unknown)
    _check_limit(data, home, table.frame, verdicts)
    _check_shapes(data, schema, rows)
    side = np.where(verdicts.good, TEST, UNUSED).astype(np.int8)
    prepared = _commit(data, home, table.frame, cells, rows, verdicts, side, schema)
    return prepared._replace(warnings=[*table.notes, *prepared.warnings])


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
    table = open_table(data)
    data = data.model_copy(update={"target": {}, "split": Split(), "key": "", "max_bad_rows": 1.0})
    columns = _columns_of(
        data, schema.model_copy(update={"targets": []}), list(table.frame.columns)
    )
    verdicts = _judge_shape(data, columns, table)
    cells = match_classes(
        data, read_cells(data, columns, table.frame, verdicts), schema, table.notes
    )
    _check_limit(data, home, table.frame, verdicts)
    rows = read_rows(data, home, columns, cells, verdicts, on_progress)
    reject_unknown_parts(schema, rows.columns, verdicts)
    reject_strange(schema, rows.columns, verdicts, data.max_unknown)
    _check_limit(data, home, table.frame, verdicts)
    _check_shapes(data, schema, rows)
    side = np.where(verdicts.good, TEST, UNUSED).astype(np.int8)
    prepared = _commit(data, home, table.frame, cells, rows, verdicts, side, schema)
    return prepared._replace(warnings=[*table.notes, *prepared.warnings])


def open_view(pack_dir: Path, split_dir: Path) -> View:
    """Open what `prepare_data` made.

    Raises:
        DataError: pack or split are missing or do not belong together, or the split is not as it
            was written.
    """
    pack = Pack.open(pack_dir)
    verify_split(split_dir)
    try:
        side = np.load(split_dir / "split.npy")
        groups = (
            np.load(split_dir / GROUPS_FILE, mmap_mode="r")
            if (split_dir / GROUPS_FILE).exists()
            else None
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{split_dir} is not a split: {error}; run `torchrelay ingest` again"
        ) from error
    for array in (side,) if groups is None else (side, groups):
        if array.shape != (pack.num_rows,):
            raise DataError(
                f"{split_dir} splits {len(array):,} rows, the pack {pack_dir} has {pack.num_rows:,}"
            )
    rows = {name: np.flatnonzero(side == at) for at, name in enumerate(SPLITS)}
    return View(pack, Schema.load(split_dir / SCHEMA_FILE), rows, groups)


def read_keys(split_dir: Path) -> np.ndarray | None:
    """Text of `data.key` for each row of the pack.

    None where no key is declared.
    """
    path = split_dir / KEYS_FILE
    return pd.read_parquet(path).iloc[:, 0].to_numpy(dtype=object) if path.exists() else None


def _judge_shape(data: Data, columns: Mapping[str, list[str]], table: Table) -> Verdicts:
    verdicts = Verdicts(len(table.frame))
    for row, reason in table.bad.items():
        verdicts.reject(row, *reason)
    reject_torn_end(data, columns, table, verdicts)
    return verdicts


def _assign_by_column(
    data: Data, frame: pd.DataFrame, cells: Mapping[str, Cells], verdicts: Verdicts
) -> Sides | None:
    """The sides where a column says them.

    Then a file in two splits is found before anything is decoded.
    """
    if not data.split.column:
        return None
    sides = assign_by_column(frame[data.split.column])
    _check_files(data, cells, sides.side, verdicts)
    return sides


def _choose_keys(data: Data, frame: pd.DataFrame, rows: Rows) -> np.ndarray:
    """The group, else the key, else the inputs.

    A row whose cell is empty belongs to no group.

    A triple is known by its three parts: one question may have many answers.
    """
    names = find_triple(data) or list(data.inputs)
    own = hash_texts(frame[data.key]) if data.key else combine([rows.keys[name] for name in names])
    if data.split.repeats == "apart":
        own = number_repeats(own)
    if not data.split.group:
        return own
    groups = frame[data.split.group]
    return np.where(is_empty(groups), own, hash_texts(groups))


def _number_groups(cells: pd.Series) -> np.ndarray:
    """The number of each row's group, int64, shape (rows,).

    A row whose cell is empty is a group by itself.
    """
    numbers, values = pd.factorize(compose_cells(cells))
    is_alone = is_empty(cells)
    return np.where(is_alone, len(values) + np.cumsum(is_alone), numbers)


def _check_files(
    data: Data, cells: Mapping[str, Cells], side: np.ndarray, verdicts: Verdicts
) -> None:
    paths = [found.paths for found in cells.values() if isinstance(found, Files)]
    if paths:
        rows = np.tile(np.arange(len(side)), len(paths))
        used = np.where(verdicts.good, side, UNUSED)
        check_files(data.table, [path for column in paths for path in column], rows, used)


def _check_limit(data: Data, home: Home, frame: pd.DataFrame, verdicts: Verdicts) -> None:
    name = f"{Path(data.table).stem}-{digest(str(Path(data.table).absolute()))[:8]}"
    verdicts.check_limit(
        data.max_bad_rows, data.table, frame, home.packs / REJECTED / name / QUARANTINE
    )


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


def _check_training(data: Data, rows: Rows, side: np.ndarray) -> None:
    counts = {name: int((side == at).sum()) for at, name in enumerate(SPLITS)}
    if not counts["train"]:
        said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        remedy = (
            f"column {data.split.column!r} must say train somewhere"
            if data.split.column
            else "add rows, or lower data.split.valid and data.split.test"
        )
        raise DataError(f"{data.table}: no row trains ({said}); {remedy}")
    check_trained_classes(data, rows, side)


def _columns_of(data: Data, schema: Schema, names: Sequence[str]) -> dict[str, list[str]]:
    """The columns that the schema was fitted on, in the table that is to be
    read.
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


def _check_shapes(data: Data, schema: Schema, rows: Rows) -> None:
    for feature in schema.inputs:
        shape = rows.columns[feature.name].feature.shape
        if feature.kind == "image" and shape != feature.shape:
            raise DataError(
                f"{data.table}: the images of {feature.name!r} are {_shape_text(shape)}, the model "
                "was trained on "
                f"{_shape_text(feature.shape)}; set data.inputs.{feature.name}.size: "
                f"{feature.shape[1:]}"
            )


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(str(number) for number in shape)


def _commit(
    data: Data,
    home: Home,
    frame: pd.DataFrame,
    cells: Mapping[str, Cells],
    rows: Rows,
    verdicts: Verdicts,
    side: np.ndarray,
    schema: Schema | None,
    heritage: Heritage | None = None,
) -> Prepared:
    """Write pack and split, unless they are there.

    `side` has one entry a row of the table.
    """
    contents = [
        column.arrays["content"]
        for column in rows.columns.values()
        if column.feature.kind == "image"
    ]
    fingerprint = fingerprint_table(frame, contents)
    in_pack = np.flatnonzero(rows.readable)
    reach("pack.begun")
    pack_dir, pack_found = write_pack(home.packs, list(rows.columns.values()), in_pack, fingerprint)
    reach("pack.committed")
    pack = Pack.open(pack_dir)
    split_dir = pack_dir / "splits" / _name_split(data, verdicts, side, schema, heritage)
    split_found = find_split(split_dir)
    if not split_found:
        split = side[in_pack]
        fitted = fit_schema(pack, data, split) if schema is None else schema
        warnings = _warn_of_pictures(data, rows, frame, side)
        warnings += (
            _warn_of_far_pixels(pack, fitted, frame, in_pack, split) if schema is None else []
        )
        if heritage is not None:
            fitted = inherit(fitted, *heritage)
        warnings += warn_of_unknown_tags(fitted, rows, side)
        warnings += [
            f"{name!r}: {note}"
            for name, one in cells.items()
            if isinstance(one, Files)
            for note in one.notes
        ]
        report = _report(
            data, frame, rows, verdicts, side, warnings, fitted, is_given=schema is not None
        )
        with (
            writing(f"split {split_dir.name}", split_dir.parent, split.nbytes),
            commit_folder(split_dir) as temporary,
        ):
            np.save(temporary / "split.npy", split)
            fitted.save(temporary / SCHEMA_FILE)
            (temporary / QUARANTINE).write_text(verdicts.to_csv(frame), "utf-8")
            if data.split.group:
                np.save(temporary / GROUPS_FILE, _number_groups(frame[data.split.group])[in_pack])
            if data.key:
                frame[[data.key]].iloc[in_pack].to_parquet(temporary / KEYS_FILE, index=False)
            write_json(temporary / REPORT, {"fingerprint": fingerprint, **report})
            (temporary / "data_report.csv").write_text(tabulate_report(report), "utf-8")
            write_manifest(temporary)
            reach("pack.split_written")
    reach("pack.split_committed")
    report = read_json(split_dir / REPORT)
    return Prepared(
        pack_dir=pack_dir,
        split_dir=split_dir,
        fingerprint=fingerprint,
        rows=report["splits"],
        num_quarantined=len(verdicts.reasons),
        num_decoded=rows.num_decoded,
        reused=pack_found and split_found,
        warnings=report["warnings"],
    )


def _name_split(
    data: Data,
    verdicts: Verdicts,
    side: np.ndarray,
    schema: Schema | None,
    heritage: Heritage | None,
) -> str:
    """Everything that the split's files depend on, the pack aside."""
    given: Any = None if schema is None else schema.model_dump()
    if heritage is not None:
        given = [heritage.schema.model_dump(), heritage.statistics]
    spec = data.model_dump(
        include={"table", "inputs", "target", "key", "split", "missing_values", "rare_classes"}
    )
    versions = [SPLIT_FORMAT_VERSION, SCHEMA_FORMAT_VERSION]
    return digest(
        versions, spec, verdicts.digest(), hashlib.sha256(side.tobytes()).hexdigest(), given
    )


def _report(
    data: Data,
    frame: pd.DataFrame,
    rows: Rows,
    verdicts: Verdicts,
    side: np.ndarray,
    warnings: Sequence[str],
    schema: Schema,
    *,
    is_given: bool,
) -> dict[str, Any]:
    samples = {"rows": combine(list(rows.keys.values()))}
    samples |= {
        name: rows.keys[name]
        for name, column in rows.columns.items()
        if column.feature.kind == "image"
    }
    warnings = [*unused_feature_settings(data), *unused_settings(data), *warnings]
    report = describe_data(data, frame, rows.columns, verdicts, side, samples, warnings, schema)
    for name, notes in rows.notes.items():
        report["features"][name]["pictures"] = count_notes(notes[side != UNUSED])
    # Of a table that is scored all rows that could be read, of one that is trained on those that
    # only test the model.
    is_new = (
        np.where(rows.readable, TEST, UNUSED) if is_given else np.where(side == TRAIN, UNUSED, side)
    )
    strange = describe_strange(schema, rows.columns, is_new)
    contradictions = count_contradictions(data, rows.keys, side)
    report |= {"unfamiliar": strange, "contradictions": contradictions}
    report["warnings"] += warn_of_strange(strange, 0 if is_given else int((side == TRAIN).sum()))
    if not is_given:
        report["warnings"] += warn_of_wild_numbers(data, frame, rows.columns, side)
        report["warnings"] += warn_of_contradictions(contradictions, int((side != UNUSED).sum()))
        if not data.split.column:
            report["warnings"] += warn_of_few_keys(
                data.split, _choose_keys(data, frame, rows), side
            )
    return report


def _warn_of_pictures(data: Data, rows: Rows, frame: pd.DataFrame, side: np.ndarray) -> list[str]:
    found = []
    for name, notes in rows.notes.items():
        cells = frame[rows.columns[name].feature.columns[0]]
        found += warn_of_notes(
            name, features_of(data)[name], np.where(side == UNUSED, 0, notes), cells
        )
    return found


def _warn_of_far_pixels(
    pack: Pack, schema: Schema, frame: pd.DataFrame, in_pack: np.ndarray, split: np.ndarray
) -> list[str]:
    """Name the features of float pixels far out of a usual range, by what was
    fitted; looks for one only then.

    Args:
        pack: raw values.
        schema: fitted on the training rows.
        frame: text cells.
        in_pack: int64, the table's row of each of the pack's.
        split: int8, the side of each row of the pack.
    """
    found = []
    for feature in schema.inputs:
        largest = {
            "mean": max(feature.mean, key=abs, default=0),
            "standard deviation": max(feature.std, default=0),
        }
        if feature.kind != "image" or max(map(abs, largest.values())) <= FAR_PIXELS:
            continue
        at, pixel = find_farthest(pack.image(feature.name), np.flatnonzero(split == TRAIN))
        row = int(in_pack[at])
        said = " and ".join(f"{name} {value:.3g}" for name, value in largest.items())
        found.append(
            f"{feature.name!r}: pixels with {said} are far out of a usual range; the farthest, "
            f"{pixel:.3g}, is in row "
            f"{row + 1} ({frame[feature.columns[0]].iloc[row]}): if it is a mistake, mend that "
            "file or leave the row "
            f"out, as beside it all others look alike"
        )
    return found
