"""A run's life: recipe resolved, folder and tracker run opened, status told truthfully, record closed."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import prefect.runtime.flow_run as flow_run
from prefect import task
from prefect.artifacts import create_markdown_artifact

from ..datasets.build import Prepared, prepare_for_schema, prepare_inputs
from ..datasets.output import check_new_columns, locate_output
from ..datasets.space import hold_data, mark_used
from ..datasets.table import locate_table
from ..engine.devices import pick_device, pick_precision
from ..engine.weights import load_weights, save_weights
from ..errors import RecipeError, SourceError, TrackingError
from ..faults import reach
from ..files import lock, sha256_file, write_atomic
from ..recipe import Recipe, dump_recipe, flatten, load_recipe
from ..schema import Schema
from ..settings import home, prefect_is_embedded
from ..tracking.journal import Journal
from ..tracking.mlflow_run import PARENT_TAG, MlflowRun
from ..tracking.records import (
    RunRecord,
    describe_run,
    find_run,
    git_commit,
    load_record,
    new_run_id,
    now,
    save_record,
    update_record,
)
from ..tracking.registry import Source, resolve_source
from .console import Progress, say
from .ingest import Ingested, draw_report
from .options import UNCACHED
from .predictions import VERDICT, name_columns
from .preflight import check_names, check_recipe, check_validation, has_images
from .sources import pin_source, recipe_of
from .warm_start import TRANSFER_FILE, Start, keep_start, plan_start, say_doubts

# What a run can change on its way; all else would break its optimizer's state, its order of rows, or its meaning.
CHANGEABLE = (
    "train.epochs",
    "train.schedule",
    "train.augment",
    "train.clip_norm",
    "train.early_stop_epochs",
    "train.max_minutes",
    "train.device",
    "train.num_workers",
    "warm_start.thaw_after",
    "checkpoint.every_epochs",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "checkpoint.on_error",
    "tracking",
)


@task(**UNCACHED)
def resolve_recipe(recipe: Recipe, recipe_file: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of file, fields and overrides, checked before anything expensive starts.

    Raises:
        RecipeError: something in it is not legal or does not exist.
        SourceError: the source of its warm start cannot be had.
        DataError: its table cannot be read or lacks columns, or has other inputs than the source.
    """
    resolved = load_recipe(recipe_file, recipe, overrides)
    check_recipe(resolved)
    return pin_source(resolved)


@task(**UNCACHED)
def resolve_finetune(recipe: Recipe, recipe_file: str, overrides: Mapping[str, Any], source: str) -> Recipe:
    """The recipe of a finetuning, checked; where neither file nor fields are given, the source's own.

    Raises:
        RecipeError: something in it is not legal or does not exist, or it names no source.
        SourceError: the source cannot be had.
        DataError: its table cannot be read or lacks columns, or has other inputs than the source.
    """
    resolved = recipe_for_finetune(recipe, recipe_file, overrides, source)
    check_recipe(resolved)
    return pin_source(resolved)


def recipe_for_finetune(recipe: Recipe, recipe_file: str, overrides: Mapping[str, Any], source: str) -> Recipe:
    """The recipe that file, fields, overrides and a source make.

    Args:
        recipe: fields that go over the file's.
        recipe_file: empty, where the fields name no table either, means the recipe that the source was trained by,
            without the warm start that it may have had itself.
        overrides: dotted keys that go over both.
        source: goes over all three; empty means the one that they name.
    Raises:
        RecipeError: something is not legal, or no source is named.
        SourceError: the source does not exist.
    """
    over = dict(overrides)
    if source:
        over["warm_start.source"] = source
    if not recipe_file and not recipe.data.table:
        named = source or str(over.get("warm_start.source", "")) or recipe.warm_start.source
        if named:
            own = recipe.warm_start.model_dump(exclude_unset=True)
            recipe_file, over = str(recipe_of(named)), {"warm_start": own, **over}
    resolved = load_recipe(recipe_file, recipe, over)
    if not resolved.warm_start.source:
        raise RecipeError(
            "warm_start.source is missing: a finetuning begins from the weights of a run, a registered model or a "
            "file, for example torchrelay finetune RECIPE --from models:/digits@champion"
        )
    return resolved


@task(**UNCACHED)
def start_run(recipe: Recipe, ingested: Ingested, recipe_file: str) -> Path:
    """Open a new run: its folder with recipe and schema, its MLflow run with all that is known before training.

    Where the recipe's split is a pattern of columns, it is the parent of one run for each of them (`splits.py`).

    Raises:
        RecipeError: a setting needs validation rows and there are none, or a pattern of the warm start fits no key.
        SourceError: the weights of a warm start do not fit.
        TrackingError: the tracking server refuses or cannot be reached.
    """
    reach("run.begun")
    data = ingested.first
    for one in ingested.splits.values():
        check_validation(recipe, one.rows["valid"])
    say_doubts(recipe)
    schema = Schema.load(data.split_dir / "schema.json")
    start = plan_start(recipe, schema)
    if ingested.several:
        if recipe.tracking.register_as:
            say(
                "warning: tracking.register: without effect, because runs over several splits measure the recipe; "
                "train with data.split.column at one of them to register a model"
            )
        own: dict[str, Any] = {
            "kind": "splits",
            "splits": {column: str(one.split_dir) for column, one in ingested.splits.items()},
        }
        rows = {"table": max(sum(one.rows.values()) for one in ingested.splits.values())}
    else:
        own, rows = {"split_dir": str(data.split_dir)}, data.rows
    record = new_record(
        recipe,
        new_run_id(recipe.name),
        seconds={"ingest": round(ingested.seconds, 3)},
        recipe_file=str(Path(recipe_file).absolute()) if recipe_file else "",
        pack_dir=str(data.pack_dir),
        fingerprint=data.fingerprint,
        **describe_source(start),
        **own,
    )
    # The runs over several splits begin each with weights of their own; here they were tried on the first.
    return open_run(record, recipe, schema, rows, None if ingested.several else start)


def describe_source(start: Start | None) -> dict[str, str]:
    """What a record says of the weights that a run begins with."""
    return {} if start is None else {"source": start.source.label, "source_sha256": start.source_sha256}


def new_record(recipe: Recipe, run_id: str, **fields: Any) -> RunRecord:
    """The record of a training that begins now, on this machine and in this flow run."""
    device = pick_device(recipe.train.device)
    values: dict[str, Any] = {
        "run_id": run_id,
        "name": recipe.name,
        "experiment": recipe.experiment,
        "created": now(),
        "device": str(device),
        "precision": pick_precision(recipe.train.precision, device, has_images(recipe)).name,
        "schedule_epochs": recipe.train.epochs,
        "git_commit": git_commit(Path.cwd()),
        "prefect_flow_run_id": _flow_run_id(),
        "prefect_flow_run_url": _flow_run_url(),
    }
    return RunRecord(**{**values, **fields})


@contextlib.contextmanager
def hold_run(run_dir: Path) -> Iterator[None]:
    """Be the one writer of a run.

    Raises:
        BusyError: another process is; names its pid and host.
    """
    with lock(run_dir / "lock", f"run {run_dir.name}"):
        yield


@task(**UNCACHED)
def locate_run(run: str) -> Path:
    """The folder of a training run, by our id, the beginning of it, or MLflow's.

    Raises:
        SourceError: there is none, or it is an evaluation or a prediction.
    """
    run_dir = find_run(home(), run)
    if (kind := load_record(run_dir).kind) not in ("train", "splits"):
        raise SourceError(f"run {run_dir.name} is of kind {kind}; only training runs can go on")
    return run_dir


@task(**UNCACHED)
def reopen_run(run_dir: Path, overrides: Mapping[str, Any]) -> None:
    """Let a run go on: same folder, same MLflow run, its own recipe with the overrides. Hold the run first.

    Raises:
        SourceError: its pack is gone, or it is finished already.
        RecipeError: an override is not legal, or is one that a run cannot change on its way.
    """
    record = load_record(run_dir)
    recipe, before = change_recipe(run_dir, overrides), load_recipe(run_dir / "recipe.yaml")
    check_names(recipe)
    data_dir = record.split_dir or record.pack_dir
    if not Path(data_dir).is_dir():
        raise SourceError(f"the pack of run {record.run_id} is gone from {data_dir}; train a new run")
    if record.status == "FINISHED" and record.epochs >= recipe.train.epochs:
        raise SourceError(
            f"run {record.run_id} is finished ({record.epochs} of {recipe.train.epochs} epochs); "
            f"--set train.epochs={2 * record.epochs} makes it longer"
        )
    if record.status == "FINISHED" and record.stopped and recipe.train == before.train:
        raise SourceError(
            f"run {record.run_id} is finished: {record.stopped}; --set that to 0, or to more, lets it go on"
        )
    has_schedule = any(f"{key}.".startswith("train.schedule.") for key in overrides)
    schedule = recipe.train.schedule.name
    if recipe.train.epochs > record.schedule_epochs and not has_schedule and schedule not in ("constant", "plateau"):
        say(
            f"warning: the schedule {schedule} ends with epoch {record.schedule_epochs}, and the learning rate stays "
            f"as it is then; --set train.schedule.name={schedule} spreads it over all {recipe.train.epochs}"
        )
    was_lost = record.status == "RUNNING"  # nobody ended it, so nobody counted its seconds
    links = {"prefect_flow_run_id": _flow_run_id(), "prefect_flow_run_url": _flow_run_url()}
    tracker = MlflowRun.attach(record.model_copy(update=links), recipe)
    if recipe != before:
        write_atomic(run_dir / "recipe.yaml", dump_recipe(recipe))
    epochs = recipe.train.epochs if has_schedule else record.schedule_epochs
    record = update_record(run_dir, status="RUNNING", ended="", error="", stopped="", schedule_epochs=epochs, **links)
    with Journal(run_dir / "journal.jsonl") as journal:
        lines = journal.read()
        if was_lost and lines:
            update_record(
                run_dir, seconds={**record.seconds, "total": _seconds_until(record, lines, lines[-1]["time"])}
            )
        journal.append_event("resumed", step=record.steps)
    reach("run.reopened")
    say(f"run: {record.run_id} goes on in {run_dir}")
    _link_from_prefect(record, tracker)


def change_recipe(run_dir: Path, overrides: Mapping[str, Any]) -> Recipe:
    """A run's recipe with overrides that it can take on its way.

    Raises:
        RecipeError: an override is not legal, or is one that only a new run can have.
    """
    before = load_recipe(run_dir / "recipe.yaml")
    recipe = load_recipe(run_dir / "recipe.yaml", None, overrides)
    now_, then = flatten(recipe), flatten(before)
    changed = sorted(key for key in now_.keys() | then.keys() if now_.get(key) != then.get(key))
    fixed = [key for key in changed if not key.startswith(CHANGEABLE)]
    if fixed:
        raise RecipeError(
            f"{', '.join(fixed)}: a run goes on with what it began with; train a new run to change that "
            f"(it can change {', '.join(CHANGEABLE)})"
        )
    return recipe


@task(**UNCACHED)
def start_evaluation(source: str, table: str, files: str, device: str) -> Path:
    """Open a run that scores all rows of a table with the best weights of a source.

    Raises:
        SourceError: there is no such source, or it lacks recipe, schema or weights.
        DataError: the table does not have the columns that the source was trained on, or no row that can be read.
    """
    return _start_scoring("evaluate", _open_source(source, table, files, device), prepare_for_schema)


class Prediction(NamedTuple):
    """What the task that predicts goes on with.

    Attributes:
        run_dir: the run's folder.
        out: where the table is written, absolute.
        prefix: before the names of the columns that are added.
        table_sha256: of the table's file when its rows were read.
    """

    run_dir: Path
    out: Path
    prefix: str
    table_sha256: str


@task(**UNCACHED)
def start_prediction(source: str, table: str, out: str, files: str, device: str, prefix: str) -> Prediction:
    """Open a run that predicts all rows of a table with the best weights of a source.

    Raises:
        SourceError: there is no such source, or it lacks recipe, schema or weights.
        DataError: the table cannot be written where it should, or has a column of a name that is to be added, or
            does not have the inputs that the source was trained on, or no row that can be read.
    """
    opened = _open_source(source, table, files, device)
    data = opened.recipe.data
    path = locate_output(out, str(locate_table(data)))
    added = [f"{prefix}{name}" for name in (*name_columns(opened.schema), VERDICT)]
    check_new_columns(data, added, "give ours another beginning with --prefix, for example --prefix new_")
    digest = sha256_file(Path(data.table))
    return Prediction(_start_scoring("predict", opened, prepare_inputs), path, prefix, digest)


class _Opened(NamedTuple):
    """A source, and its recipe with another table."""

    source: Source
    recipe: Recipe
    schema: Schema
    seconds: float


def _open_source(source: str, table: str, files: str, device: str) -> _Opened:
    started = time.perf_counter()
    found = resolve_source(source, home())
    recipe = load_recipe(found.folder / "recipe.yaml")
    schema = Schema.load(found.folder / "schema.json")
    # Fp16 is a way to train, on CUDA; elsewhere such a model is scored in fp32.
    precision = recipe.train.precision
    if precision == "fp16" and pick_device(device).type != "cuda":
        precision = "fp32"
    paths = {"table": str(Path(table).absolute()), "files": str(Path(files).absolute()) if files else ""}
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=paths),
            "train": recipe.train.model_copy(update={"device": device, "precision": precision}),
        }
    )
    check_names(recipe)
    return _Opened(found, recipe, schema, time.perf_counter() - started)


def _start_scoring(kind: Literal["evaluate", "predict"], opened: _Opened, prepare: Callable[..., Prepared]) -> Path:
    """Open a run with the weights of a source, on all good rows of the table that its recipe names."""
    started = time.perf_counter()
    found, recipe, schema, seconds = opened
    weights = load_weights(found.weights)
    picked = pick_device(recipe.train.device)
    with Progress("ingest", "images") as progress, hold_data(home()):
        data = prepare(recipe.data, schema, home(), progress.update)
        mark_used(data.pack_dir)
    for warning in data.warnings:
        say(f"warning: {warning}")
    quarantined = f", {data.num_quarantined:,} quarantined" if data.num_quarantined else ""
    say(f"data: {data.rows['test']:,} rows{quarantined}")
    record = RunRecord(
        run_id=new_run_id(f"{recipe.name}-{kind}"),
        name=recipe.name,
        experiment=recipe.experiment,
        kind=kind,
        device=str(picked),
        precision=pick_precision(recipe.train.precision, picked, has_images(recipe)).name,
        created=now(),
        seconds={"ingest": round(seconds + time.perf_counter() - started, 3)},
        pack_dir=str(data.pack_dir),
        split_dir=str(data.split_dir),
        fingerprint=data.fingerprint,
        source=found.label,
        git_commit=git_commit(Path.cwd()),
        prefect_flow_run_id=_flow_run_id(),
        prefect_flow_run_url=_flow_run_url(),
    )
    run_dir = home().runs / record.run_id
    (run_dir / "weights").mkdir(parents=True)
    save_weights(weights, run_dir / "weights" / "best.pt")
    return open_run(record, recipe, schema, data.rows)


@contextlib.contextmanager
def keep_status(run_dir: Path) -> Iterator[None]:
    """Tell the truth about a run's end: an exception is FAILED, a signal or cancel KILLED."""
    try:
        yield
    except Exception as error:
        _end(run_dir, "FAILED", f"{type(error).__name__}: {error}")
        raise
    except BaseException as error:
        _end(run_dir, "KILLED", type(error).__name__)
        raise


@task(**UNCACHED)
def finish_run(run_dir: Path) -> dict[str, Any]:
    """Close a run that is done, and give its record as JSON, with its children's where it has some."""
    return describe_run(home(), _end(run_dir, "FINISHED", ""))


def open_run(
    record: RunRecord, recipe: Recipe, schema: Schema, rows: Mapping[str, int], start: Start | None = None
) -> Path:
    """Make folder and MLflow run of a record; where that fails, neither folder nor record stays.

    Args:
        record: without MLflow's id; one with a parent becomes a child of the parent's MLflow run.
        recipe: what is run.
        schema: of its data.
        rows: rows of each split, by its name.
        start: weights that a warm-started run begins with; they go into its folder.
    Raises:
        TrackingError: the tracking server refuses or cannot be reached.
    """
    run_dir = home().runs / record.run_id
    parent = load_record(home().runs / record.parent).mlflow_run_id if record.parent else ""
    try:
        save_record(home(), record)
        reach("run.recorded")
        write_atomic(run_dir / "recipe.yaml", dump_recipe(recipe))
        reach("run.recipe_written")
        schema.save(run_dir / "schema.json")
        if start is not None:
            keep_start(run_dir, start)
        tracker = MlflowRun.start(record, recipe, schema, rows, {PARENT_TAG: parent})
        update_record(run_dir, mlflow_run_id=tracker.run_id)
        for name in ("recipe.yaml", "schema.json", *([] if start is None else [TRANSFER_FILE])):
            tracker.log_artifacts(run_dir / name)
        for name in ("report.json", "data_report.csv", "quarantine.csv") if record.split_dir else ():
            tracker.log_artifacts(Path(record.split_dir) / name, "data")
        if record.split_dir:
            (run_dir / "figures").mkdir()
            shutil.copyfile(draw_report(Path(record.split_dir)), run_dir / "figures" / "data.png")
            tracker.log_artifacts(run_dir / "figures", "figures")
    except BaseException:
        shutil.rmtree(run_dir)
        raise
    reach("run.opened")
    say(f"run: {record.run_id} in {run_dir}")
    if not parent:
        _link_from_prefect(record, tracker)
    return run_dir


def _end(run_dir: Path, status: str, error: str) -> RunRecord:
    record = load_record(run_dir)
    ended = now()
    lines = Journal(run_dir / "journal.jsonl").read()
    total = _seconds_until(record, lines, datetime.fromisoformat(ended).timestamp() * 1000)
    record = update_record(run_dir, status=status, ended=ended, error=error, seconds={**record.seconds, "total": total})
    reach("run.ended")
    try:
        MlflowRun.of(record).finish(status)
    except TrackingError as problem:
        say(f"warning: the tracker does not know that the run ended as {status}: {problem}")
    return record


def _seconds_until(record: RunRecord, lines: Sequence[Mapping[str, Any]], end: float) -> float:
    """Seconds of a run up to a time: those counted before it was last resumed, and those since.

    Args:
        record: with the seconds counted so far.
        lines: of its journal.
        end: milliseconds since 1970.
    """
    resumed = [line["time"] for line in lines if line["kind"] == "event" and line["name"] == "resumed"]
    began = resumed[-1] if resumed else datetime.fromisoformat(record.created).timestamp() * 1000
    before = record.seconds.get("total", record.seconds.get("ingest", 0.0))
    return round(before + (end - began) / 1000, 3)


def _flow_run_id() -> str:
    return str(flow_run.get_id() or "")


def _flow_run_url() -> str:
    """The flow run's page, where a server outlives it."""
    return "" if prefect_is_embedded() else flow_run.get_flow_run_ui_url() or ""


def _link_from_prefect(record: RunRecord, tracker: MlflowRun) -> None:
    if record.prefect_flow_run_id:
        create_markdown_artifact(
            key="mlflow-run",
            markdown=f"Run `{record.run_id}` in MLflow: {tracker.url}",
            description=f"MLflow run of {record.run_id}",
        )
