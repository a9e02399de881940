"""A run's life: recipe resolved, folder and tracker run opened, status told truthfully, record closed."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import prefect.runtime.flow_run as flow_run
from prefect import task
from prefect.artifacts import create_markdown_artifact

from ..datasets.build import prepare_for_schema
from ..engine.devices import pick_device, pick_precision
from ..errors import RecipeError, SourceError, TrackingError
from ..files import lock, write_atomic
from ..recipe import Recipe, dump_recipe, load_recipe
from ..schema import Schema
from ..settings import home
from ..tracking.journal import Journal
from ..tracking.mlflow_run import MlflowRun
from ..tracking.records import RunRecord, find_run, git_commit, load_record, new_run_id, now, save_record, update_record
from ..tracking.registry import resolve_source
from .console import Progress, runs_in_worker, say
from .ingest import Ingested
from .options import UNCACHED
from .preflight import check_names, check_recipe, has_images


@task(**UNCACHED)
def resolve_recipe(recipe: Recipe, recipe_file: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of file, fields and overrides, checked before anything expensive starts.

    Raises:
        RecipeError: something in it is not legal or does not exist.
        DataError: its table cannot be read or lacks columns.
    """
    resolved = load_recipe(recipe_file, recipe, overrides)
    check_recipe(resolved)
    return resolved


@task(**UNCACHED)
def start_run(recipe: Recipe, ingested: Ingested, recipe_file: str) -> Path:
    """Open a new run: its folder with recipe and schema, its MLflow run with all that is known before training.

    Raises:
        TrackingError: the tracking server refuses or cannot be reached.
    """
    data = ingested.data
    device = pick_device(recipe.train.device)
    record = RunRecord(
        run_id=new_run_id(recipe.name),
        name=recipe.name,
        experiment=recipe.experiment,
        created=now(),
        device=str(device),
        precision=pick_precision(recipe.train.precision, device, has_images(recipe)).name,
        schedule_epochs=recipe.train.epochs,
        seconds={"ingest": round(ingested.seconds, 3)},
        recipe_file=str(Path(recipe_file).absolute()) if recipe_file else "",
        pack_dir=str(data.pack_dir),
        split_dir=str(data.split_dir),
        fingerprint=data.fingerprint,
        git_commit=git_commit(Path.cwd()),
        prefect_flow_run_id=_flow_run_id(),
        prefect_flow_run_url=_flow_run_url(),
    )
    return _open(record, recipe, Schema.load(data.split_dir / "schema.json"), data.rows)


@task(**UNCACHED)
def reopen_run(run: str, overrides: Mapping[str, Any]) -> Path:
    """Let a run go on: same folder, same MLflow run, its own recipe with the overrides.

    Raises:
        SourceError: there is no such run, or its pack is gone.
        RecipeError: an override is not legal, or would change the data that the run trains on.
    """
    run_dir = find_run(home(), run)
    record = load_record(run_dir)
    if record.kind != "train":
        raise SourceError(f"run {record.run_id} is an evaluation; only training runs can go on")
    before = load_recipe(run_dir / "recipe.yaml")
    recipe = load_recipe(run_dir / "recipe.yaml", None, overrides)
    for part in ("data", "model"):
        if getattr(recipe, part) != getattr(before, part):
            raise RecipeError(f"a run goes on with the {part} that it began with; train a new run to change {part}.…")
    check_recipe(recipe)
    if not Path(record.split_dir).is_dir():
        raise SourceError(f"the pack of run {record.run_id} is gone from {record.split_dir}; train a new run")
    if recipe != before:
        write_atomic(run_dir / "recipe.yaml", dump_recipe(recipe))
    has_schedule = recipe.train.schedule != before.train.schedule
    record = update_record(
        run_dir,
        status="RUNNING",
        ended="",
        error="",
        schedule_epochs=recipe.train.epochs if has_schedule else record.schedule_epochs,
        prefect_flow_run_id=_flow_run_id(),
        prefect_flow_run_url=_flow_run_url(),
    )
    MlflowRun.attach(record, recipe)
    with Journal(run_dir / "journal.jsonl") as journal:
        journal.append_event("resumed", step=record.steps)
    say(f"run: {record.run_id} goes on in {run_dir}")
    return run_dir


@task(**UNCACHED)
def start_evaluation(source: str, table: str, files: str, device: str) -> Path:
    """Open a run that scores all rows of a table with the best weights of a source.

    Raises:
        SourceError: there is no such source, or it lacks recipe, schema or weights.
        DataError: the table does not have the columns that the source was trained on.
    """
    started = time.perf_counter()
    found = resolve_source(source, home())
    recipe = load_recipe(found.folder / "recipe.yaml")
    schema = Schema.load(found.folder / "schema.json")
    paths = {"table": str(Path(table).absolute()), "files": str(Path(files).absolute()) if files else ""}
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=paths),
            "train": recipe.train.model_copy(update={"device": device}),
        }
    )
    check_names(recipe)
    with Progress("ingest", "images") as progress:
        data = prepare_for_schema(recipe.data, schema, home(), progress.update)
    for warning in data.warnings:
        say(f"warning: {warning}")
    record = RunRecord(
        run_id=new_run_id(f"{recipe.name}-evaluate"),
        name=recipe.name,
        experiment=recipe.experiment,
        kind="evaluate",
        device=str(pick_device(device)),
        created=now(),
        seconds={"ingest": round(time.perf_counter() - started, 3)},
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
    shutil.copyfile(found.weights, run_dir / "weights" / "best.pt")
    return _open(record, recipe, schema, data.rows)


@contextlib.contextmanager
def keep_status(run_dir: Path) -> Iterator[None]:
    """Hold the run's lock, and tell the truth about its end: an exception is FAILED, a signal or cancel KILLED.

    Raises:
        BusyError: another process writes this run; names its pid and host.
    """
    with lock(run_dir / "lock", f"run {run_dir.name}"):
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
    """Close a run that is done, and give its record as JSON."""
    record = _end(run_dir, "FINISHED", "")
    return {**record.model_dump(), "run_dir": str(run_dir)}


def _open(record: RunRecord, recipe: Recipe, schema: Schema, rows: Mapping[str, int]) -> Path:
    run_dir = home().runs / record.run_id
    try:
        save_record(home(), record)
        write_atomic(run_dir / "recipe.yaml", dump_recipe(recipe))
        schema.save(run_dir / "schema.json")
        tracker = MlflowRun.start(record, recipe, schema, rows)
        update_record(run_dir, mlflow_run_id=tracker.run_id)
        for name in ("recipe.yaml", "schema.json"):
            tracker.log_artifacts(run_dir / name)
        for name in ("report.json", "quarantine.csv"):
            tracker.log_artifacts(Path(record.split_dir) / name, "data")
    except BaseException:
        shutil.rmtree(run_dir)
        raise
    say(f"run: {record.run_id} in {run_dir}")
    _link_from_prefect(record, tracker)
    return run_dir


def _end(run_dir: Path, status: str, error: str) -> RunRecord:
    record = load_record(run_dir)
    ended = now()
    events = [line for line in Journal(run_dir / "journal.jsonl").read() if line["kind"] == "event"]
    resumed = [line["time"] / 1000 for line in events if line["name"] == "resumed"]
    began = resumed[-1] if resumed else datetime.fromisoformat(record.created).timestamp()
    before = record.seconds.get("total", record.seconds.get("ingest", 0.0))
    total = round(before + datetime.fromisoformat(ended).timestamp() - began, 3)
    record = update_record(run_dir, status=status, ended=ended, error=error, seconds={**record.seconds, "total": total})
    try:
        MlflowRun.of(record).finish(status)
    except TrackingError as problem:
        say(f"warning: the tracker does not know that the run ended as {status}: {problem}")
    return record


def _flow_run_id() -> str:
    return str(flow_run.get_id() or "")


def _flow_run_url() -> str:
    """The flow run's page, where a server outlives it."""
    return (flow_run.get_flow_run_ui_url() or "") if runs_in_worker() else ""


def _link_from_prefect(record: RunRecord, tracker: MlflowRun) -> None:
    if record.prefect_flow_run_id:
        create_markdown_artifact(
            key="mlflow-run",
            markdown=f"Run `{record.run_id}` in MLflow: {tracker.url}",
            description=f"MLflow run of {record.run_id}",
        )
