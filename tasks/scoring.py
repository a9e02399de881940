"""How an evaluation or a prediction begins.

The source's weights, another table, a run of its own.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import torch
from prefect import task

from ..console import Progress, say, saying_still
from ..datasets import QUARANTINE, NoRowsError
from ..datasets.ingest import Prepared, prepare_for_schema, prepare_inputs
from ..datasets.pack import hold_data, mark_used
from ..datasets.table import check_new_columns, locate_output, locate_table, write_output
from ..disk import read_json, sha256_file
from ..engine.hardware import pick_device
from ..errors import DataError
from ..models import build_model
from ..recipe import Dialect, Recipe, load_recipe
from ..runs import BEST, RECIPE_FILE, SCHEMA_FILE, new_run_id
from ..schema import Schema
from ..settings import home
from ..tracking.registry import Source, resolve_source
from ..weights import load_into, load_weights, save_weights
from .assembly import admit_code, check_memory, check_names, vouch
from .ingest import tell_quarantine
from .options import UNCACHED
from .results import VERDICT, name_columns
from .runs import new_record, open_run

Kind = Literal["evaluate", "predict"]


def name_scoring(kind: Kind, source: str, trust_code: Sequence[str] = ()) -> Path:
    """Where the folder of a new evaluation or prediction will be.

    It may import what the user lets the source import.

    Raises:
        SourceError: there is no such source, or it lacks recipe, schema or weights.
    """
    found = resolve_source(source, home())
    recipe = load_recipe(found.folder / RECIPE_FILE)
    admit_code(recipe, found.folder, source, trust_code)
    folder = home().runs / new_run_id(f"{recipe.name}-{kind}")
    vouch(folder.name, recipe, trust_code)
    return folder


class OtherTable(NamedTuple):
    """A table that a model is used on.

    Attributes:
        path: as the user names it.
        files: root of its file paths; empty means its folder.
        dialect: how it is written where that is not as the source's recipe says, by the last names
            of its keys, and another `max_unknown` than that.
    """

    path: str
    files: str
    dialect: Mapping[str, Any]


class Scored(NamedTuple):
    """What an evaluation is about.

    Attributes:
        rows: of the table.
        rows_scored: those that could be read; the others have a verdict.
        quarantine: file with the verdicts.
        unfamiliar: what the model does not know of the inputs, by column; see
            `datasets/ingest/unfamiliar.py`.
    """

    rows: int
    rows_scored: int
    quarantine: str
    unfamiliar: list[dict[str, Any]]


@task(**UNCACHED)
def start_evaluation(folder: Path, source: str, table: OtherTable, device: str) -> Scored:
    """Open a run that scores all rows of a table with the best weights of a
    source. Hold the run first.

    Raises:
        SourceError: there is no such source, or it lacks recipe, schema or weights.
        DataError: the table does not have the columns that the source was trained on, or no row
            that can be read.
    """
    data = _start_scoring(
        folder, "evaluate", _open_source(folder, source, table, device), prepare_for_schema
    )
    scored = data.rows["test"]
    quarantine = str(data.split_dir / QUARANTINE)
    return Scored(scored + data.num_quarantined, scored, quarantine, _read_unfamiliar(data))


class Prediction(NamedTuple):
    """What the task that predicts goes on with.

    Attributes:
        out: where the table is written, absolute.
        prefix: before the names of the columns that are added.
        table_sha256: of the table's file when its rows were read.
        unfamiliar: what the model does not know of the inputs, by column; see
            `datasets/ingest/unfamiliar.py`.
    """

    out: Path
    prefix: str
    table_sha256: str
    unfamiliar: list[dict[str, Any]]


@task(**UNCACHED)
def start_prediction(
    folder: Path, source: str, table: OtherTable, out: str, device: str, prefix: str
) -> Prediction:
    """Open a run that predicts all rows of a table with the best weights of a
    source. Hold the run first.

    Raises:
        SourceError: there is no such source, or it lacks recipe, schema or weights.
        DataError: the table cannot be written where it should, or has a column of a name that is to
            be added, or does not have the inputs that the source was trained on. Where no row can
            be read the table is written with their verdicts first, and no run is opened.
    """
    opened = _open_source(folder, source, table, device)
    data = opened.recipe.data
    path = locate_output(out, str(locate_table(data)))
    added = [f"{prefix}{name}" for name in (*name_columns(opened.schema), VERDICT)]
    with _naming_options():
        check_new_columns(
            data, added, "give ours another beginning with --prefix, for example --prefix new_"
        )
    digest = sha256_file(Path(data.table))
    try:
        prepared = _start_scoring(folder, "predict", opened, prepare_inputs)
    except NoRowsError as error:
        rows = range(len(error.reasons))
        columns: dict[str, pa.Array] = dict.fromkeys(added, pa.nulls(len(rows)))
        columns[f"{prefix}{VERDICT}"] = pa.array(
            [str(error.reasons[row]) for row in rows], pa.string()
        )
        write_output(data, columns, path)
        raise DataError(f"{error}. {path} has these verdicts and no prediction") from error
    return Prediction(path, prefix, digest, _read_unfamiliar(prepared))


def _read_unfamiliar(data: Prepared) -> list[dict[str, Any]]:
    return read_json(data.split_dir / "report.json").get("unfamiliar", [])


class _Opened(NamedTuple):
    """A source, and its recipe with another table."""

    source: Source
    recipe: Recipe
    schema: Schema
    seconds: float


def _open_source(folder: Path, source: str, table: OtherTable, device: str) -> _Opened:
    started = time.perf_counter()
    found = resolve_source(source, home())
    overrides = {f"data.{key}": value for key, value in table.dialect.items()}
    recipe = load_recipe(found.folder / RECIPE_FILE, None, overrides)
    schema = Schema.load(found.folder / SCHEMA_FILE)
    # Fp16 is a way to train, on CUDA; elsewhere such a model is scored in fp32.
    precision = recipe.train.precision
    if precision == "fp16" and pick_device(device).type != "cuda":
        precision = "fp32"
    files = str(Path(table.files).absolute()) if table.files else ""
    paths = {"table": str(Path(table.path).absolute()), "files": files}
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=paths),
            "train": recipe.train.model_copy(update={"device": device, "precision": precision}),
        }
    )
    admit_code(recipe, folder, source, ())  # `name_scoring` has let it in
    check_names(recipe)
    with torch.random.fork_rng(devices=[]):
        model = build_model(recipe.model, schema)
    load_into(
        model, load_weights(found.weights), f"weights {found.weights}"
    )  # before any row is read
    return _Opened(found, recipe, schema, time.perf_counter() - started)


@contextlib.contextmanager
def _naming_options() -> Iterator[None]:
    """Say by which options a setting of the recipe can be given that an
    error advises: another table has no recipe.
    """
    try:
        yield
    except DataError as error:
        known = [
            key
            for key in (*Dialect.model_fields, "max_unknown")
            if re.search(rf"\bdata\.{key}\b", str(error))
        ]
        options = ", ".join(f"--{key.replace('_', '-')}" for key in known)
        error.args = (f"{error}. Of this table say it with {options}" if options else str(error),)
        raise


def _start_scoring(
    folder: Path, kind: Kind, opened: _Opened, prepare: Callable[..., Prepared]
) -> Prepared:
    """Open a run with the weights of a source, on all good rows of the table
    that its recipe names.
    """
    started = time.perf_counter()
    found, recipe, schema, seconds = opened
    weights = load_weights(found.weights)
    work = f"reading {Path(recipe.data.table).name}"
    with (
        Progress("ingest", "images") as progress,
        hold_data(home()),
        _naming_options(),
        saying_still(work, progress),
    ):
        data = prepare(recipe.data, schema, home(), progress.update)
        mark_used(data.pack_dir)
    check_memory(schema, data.rows["test"], recipe.data.table)
    for warning in data.warnings:
        say(f"warning: {warning}")
    quarantined = f", {data.num_quarantined:,} quarantined" if data.num_quarantined else ""
    say(f"data: {data.rows['test']:,} rows{quarantined}")
    tell_quarantine(data)
    record = new_record(
        recipe,
        folder.name,
        kind=kind,
        seconds={"ingest": round(seconds + time.perf_counter() - started, 3)},
        pack_dir=str(data.pack_dir),
        split_dir=str(data.split_dir),
        fingerprint=data.fingerprint,
        source=found.label,
    )
    save_weights(weights, folder / BEST)
    open_run(record, recipe, schema, data.rows)
    return data
