"""A run's life: recipe resolved, folder and tracker run opened, status told truthfully, record closed."""

from __future__ import annotations

import contextlib
import math
import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import prefect.runtime.flow_run as flow_run
from prefect import task
from prefect.artifacts import create_markdown_artifact

from ..datasets.build import open_view
from ..datasets.pack import Pack
from ..engine.devices import pick_device, pick_precision
from ..engine.signals import StopFlag
from ..errors import DataError, RecipeError, SourceError, TorchrelayError
from ..faults import reach
from ..files import lock, write_atomic
from ..recipe import Recipe, dump_recipe, flatten, load_recipe
from ..schema import Schema
from ..settings import home, prefect_is_embedded
from ..tracking.cursor import Cursor
from ..tracking.journal import JOURNAL_FILE, Journal
from ..tracking.mlflow_run import page_of
from ..tracking.opening import is_open, journal_opening, journal_reopening, milliseconds
from ..tracking.records import (
    RECORD_FILE,
    RunRecord,
    describe_run,
    find_run,
    git_commit,
    list_records,
    load_record,
    new_run_id,
    now,
    save_record,
    update_record,
)
from ..tracking.shipper import settle, start_shipping, stop_shipping
from .console import say
from .ingest import Ingested, draw_report
from .options import UNCACHED
from .preflight import check_names, check_recipe, check_validation, has_images
from .sources import pin_source, recipe_of
from .warm_start import TRANSFER_FILE, Start, keep_start, plan_start, say_doubts

# What a run can change on its way; all else would break its optimizer's state, its order of rows, or its meaning.
CHANGEABLE = (
    "train.epochs",
    "train.optimizer.args.lr",
    "train.optimizer.args.weight_decay",
    "train.schedule",
    "train.augment",
    "train.label_smoothing",
    "train.clip_norm",
    "train.early_stop_epochs",
    "train.max_minutes",
    "train.device",
    "train.precision",
    "train.deterministic",
    "train.num_workers",
    "warm_start.thaw_after",
    "checkpoint.every_epochs",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "checkpoint.on_error",
    "tracking",
)
# A cancelled process is killed after 30 s.
SECONDS_AFTER_A_FAILURE = 10.0
ERROR_FILE = "error.txt"


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


def name_run(recipe: Recipe) -> Path:
    """Where the folder of a new run will be."""
    return home().runs / new_run_id(recipe.name)


@task(**UNCACHED)
def start_run(run_dir: Path, recipe: Recipe, ingested: Ingested, recipe_file: str) -> None:
    """Open a new run: its folder with recipe and schema, its journal with all that is known before training.

    Hold the run first. Where the recipe's split is a pattern of columns, it is the parent of one run for each of them
    (`splits.py`).

    Raises:
        RecipeError: a setting needs validation rows and there are none, or a pattern of the warm start fits no key.
        SourceError: the weights of a warm start do not fit.
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
        run_dir.name,
        seconds={"ingest": round(ingested.seconds, 3)},
        recipe_file=str(Path(recipe_file).absolute()) if recipe_file else "",
        pack_dir=str(data.pack_dir),
        fingerprint=data.fingerprint,
        **describe_source(start),
        **own,
    )
    # The runs over several splits begin each with weights of their own; here they were tried on the first.
    open_run(record, recipe, schema, rows, None if ingested.several else start)


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
        "prefect_flow_run_id": flow_run_id(),
        "prefect_flow_run_url": flow_run_url(),
    }
    return RunRecord(**{**values, **fields})


@contextlib.contextmanager
def hold_run(run_dir: Path) -> Iterator[None]:
    """Be the one writer of a run; what sends its journal to MLflow once it is open ends with the block.

    Raises:
        BusyError: another process is; names its pid and host.
    """
    with lock(run_dir / "lock", f"run {run_dir.name}"):
        try:
            yield
        finally:
            stop_shipping(run_dir)


class Attempt(NamedTuple):
    """What an earlier attempt of this flow run left.

    Attributes:
        run_dir: of the run that it began or took up; None where it did not come so far, or there was none.
        result: of the flow, where that run is finished.
    """

    run_dir: Path | None
    result: dict[str, Any] | None


@task(**UNCACHED)
def find_attempt() -> Attempt:
    """Look for the run of an earlier attempt: Prefect keeps a flow run's id when it retries it."""
    records = list_records(home()) if flow_run_id() else []
    own = [record for record in records if not record.parent and _is_ours(record)]
    if not own:
        return Attempt(None, None)
    result = describe_run(home(), own[0]) if own[0].status == "FINISHED" else None
    return Attempt(home().runs / own[0].run_id, result)


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
    drift = changes_between(before, recipe)
    check_names(recipe)
    _check_data(record)
    trains_on = recipe.train != before.train if record.stopped else recipe.train.epochs > record.epochs
    is_renamed = recipe.tracking.register_as != before.tracking.register_as
    if record.status == "FINISHED" and not trains_on and not is_renamed:
        raise SourceError(
            f"run {record.run_id} is finished: {record.stopped}; --set that to 0, or to more, lets it go on"
            if record.stopped
            else f"run {record.run_id} is finished ({record.epochs} of {recipe.train.epochs} epochs); "
            f"--set train.epochs={2 * record.epochs} makes it longer"
        )
    done = [part for part in record.done if not trains_on and not (part == "register" and is_renamed)]
    if recipe.train.schedule.name == "plateau" and "train.optimizer.args.lr" in drift:
        say(
            "warning: train.optimizer.args.lr has no effect: plateau goes on from the learning rate that it has come to"
        )
    has_schedule = any(f"{key}.".startswith("train.schedule.") for key in overrides)
    schedule = recipe.train.schedule.name
    if recipe.train.epochs > record.schedule_epochs and not has_schedule and schedule not in ("constant", "plateau"):
        say(
            f"warning: the schedule {schedule} ends with epoch {record.schedule_epochs}, and the learning rate stays "
            f"as it is then; --set train.schedule.name={schedule} spreads it over all {recipe.train.epochs}"
        )
    was_lost = record.status == "RUNNING"  # nobody ended it, so nobody counted its seconds
    links = {"prefect_flow_run_id": flow_run_id(), "prefect_flow_run_url": flow_run_url()}
    if recipe != before:
        write_atomic(run_dir / "recipe.yaml", dump_recipe(recipe))
    record = update_record(
        run_dir,
        status="RUNNING",
        ended="",
        error="",
        stopped="" if trains_on else record.stopped,
        done=done,
        schedule_epochs=recipe.train.epochs if has_schedule else record.schedule_epochs,
        **links,
    )
    with Journal(run_dir / JOURNAL_FILE) as journal:
        lines = journal.read()
        if was_lost and lines:
            update_record(run_dir, seconds={**record.seconds, "total": seconds_until(record, lines, lines[-1]["time"])})
        journal.append_event("resumed", step=record.steps)
        if drift:
            journal.append_event("drift", changes=drift)
        if not is_open(journal):
            _journal_opening(journal, record, recipe)
        journal_reopening(journal, record, recipe)
    start_shipping(run_dir)
    reach("run.reopened")
    say(f"run: {record.run_id} goes on in {run_dir}")


def change_recipe(run_dir: Path, overrides: Mapping[str, Any]) -> Recipe:
    """A run's recipe with overrides that it can take on its way.

    Raises:
        RecipeError: an override is not legal, or is one that only a new run can have.
    """
    before = load_recipe(run_dir / "recipe.yaml")
    recipe = load_recipe(run_dir / "recipe.yaml", None, overrides)
    fixed = [key for key in changes_between(before, recipe) if not key.startswith(CHANGEABLE)]
    if fixed:
        raise RecipeError(
            f"{', '.join(fixed)}: a run goes on with what it began with; train a new run to change that "
            f"(it can change {', '.join(CHANGEABLE)})"
        )
    return recipe


def changes_between(before: Recipe, recipe: Recipe) -> dict[str, list[str | None]]:
    """What two recipes differ in: dotted key -> [then, now], None where one does not have it."""
    then, now_ = ({key: value for key, value in flatten(one).items() if value != "{}"} for one in (before, recipe))
    keys = sorted(key for key in now_.keys() | then.keys() if now_.get(key) != then.get(key))
    return {key: [then.get(key), now_.get(key)] for key in keys}


def _check_data(record: RunRecord) -> None:
    """Refuse to go on with other rows than the run began with; reads the pack once.

    Raises:
        SourceError: the pack is gone, damaged, or another.
    """
    data_dir = record.split_dir or record.pack_dir
    if not Path(data_dir).is_dir():
        raise SourceError(f"the pack of run {record.run_id} is gone from {data_dir}; train a new run")
    try:
        pack = Pack.open(Path(record.pack_dir))
        pack.verify()
    except DataError as error:
        raise SourceError(f"run {record.run_id} cannot go on: {error}") from error
    if pack.manifest.fingerprint != record.fingerprint:
        raise SourceError(
            f"run {record.run_id} began with data of the fingerprint {record.fingerprint}, the pack in "
            f"{record.pack_dir} has {pack.manifest.fingerprint}; bring the old pack back, or train a new run"
        )


@contextlib.contextmanager
def keep_status(run_dir: Path) -> Iterator[None]:
    """Tell the truth about how a run ends: an exception is FAILED, a signal or a cancel KILLED.

    A run that has ended already stays as it is, and so does one that this flow run has not made its own: whoever may
    not let it go on has no word in how it ended. A folder that has no record yet is removed.
    """
    try:
        yield
    except BaseException as error:
        with StopFlag():
            if not (run_dir / RECORD_FILE).exists():
                shutil.rmtree(run_dir, ignore_errors=True)
            elif (record := load_record(run_dir)).status == "RUNNING" and _is_ours(record):
                _note_end(run_dir, error)
        raise


def _note_end(run_dir: Path, error: BaseException) -> None:
    """Write down how a run ended; what cannot be written, as on a full disk, does not hide the error itself."""
    try:
        if not isinstance(error, Exception):
            _end(run_dir, "KILLED", _name_signal(error))
            return
        said = str(error) if isinstance(error, TorchrelayError) else "".join(traceback.format_exception(error))
        write_atomic(run_dir / ERROR_FILE, said.rstrip() + "\n")
        _end(run_dir, "FAILED", f"{type(error).__name__}: {error}")
    except OSError as problem:
        say(
            f"warning: how run {run_dir.name} ended cannot be written: {problem}; torchrelay doctor --fix does it later"
        )


def _name_signal(error: BaseException) -> str:
    """What stopped a run, for people."""
    names = {
        "KeyboardInterrupt": "Ctrl-C (SIGINT)",
        "TerminationSignal": "SIGTERM",
        "SystemExit": "SIGTERM",
        "StopRequested": "a signal",
    }
    return f"stopped by {names.get(type(error).__name__, type(error).__name__)}"


@task(**UNCACHED)
def finish_run(run_dir: Path) -> dict[str, Any]:
    """Close a run that is done, and give its record as JSON, with its children's where it has some.

    A signal waits until that is written, so that what is done is called done.
    """
    with StopFlag():
        record = _end(run_dir, "FINISHED", "")
    if not record.parent:
        _link_from_prefect(run_dir, record)
    return describe_run(home(), record)


def open_run(
    record: RunRecord, recipe: Recipe, schema: Schema, rows: Mapping[str, int], start: Start | None = None
) -> Path:
    """Fill the folder of a run, with a journal that opens the MLflow run; where that fails, nothing stays.

    Hold the run first. The record is the last of the files: without it the folder is no run, whenever we die.

    Args:
        record: one with a parent becomes a child of the parent's MLflow run.
        recipe: what is run.
        schema: of its data.
        rows: rows of each split, by its name.
        start: weights that a warm-started run begins with; they go into its folder.
    Raises:
        TrackingError: the journal cannot be written.
    """
    run_dir = home().runs / record.run_id
    try:
        write_atomic(run_dir / "recipe.yaml", dump_recipe(recipe))
        reach("run.recipe_written")
        schema.save(run_dir / "schema.json")
        if start is not None:
            keep_start(run_dir, start)
        if record.split_dir:
            (run_dir / "figures").mkdir()
            shutil.copyfile(draw_report(Path(record.split_dir)), run_dir / "figures" / "data.png")
        with Journal(run_dir / JOURNAL_FILE) as journal:
            _journal_opening(journal, record, recipe, schema, rows)
        save_record(home(), record)
        reach("run.recorded")
    except BaseException:
        shutil.rmtree(run_dir)
        raise
    start_shipping(run_dir)
    reach("run.opened")
    say(f"run: {record.run_id} in {run_dir}")
    return run_dir


def _journal_opening(
    journal: Journal,
    record: RunRecord,
    recipe: Recipe,
    schema: Schema | None = None,
    rows: Mapping[str, int] | None = None,
) -> None:
    """Journal a run's beginning, and the files that it has from there; a run that died before it has its schema."""
    run_dir = journal.path.parent
    if rows is None:
        view = open_view(Path(record.pack_dir), Path(record.split_dir)) if record.split_dir else None
        rows = {} if view is None else {name: len(some) for name, some in view.rows.items()}
    with journal.together():
        journal_opening(journal, record, recipe, schema or Schema.load(run_dir / "schema.json"), rows)
        for name in ("recipe.yaml", "schema.json", TRANSFER_FILE):
            if (run_dir / name).exists():
                journal.append_artifact(run_dir / name)
        for name in ("report.json", "data_report.csv", "quarantine.csv") if record.split_dir else ():
            journal.append_artifact(Path(record.split_dir) / name, "data")
        if (run_dir / "figures").is_dir():
            journal.append_artifact(run_dir / "figures", "figures")


def _end(run_dir: Path, status: str, error: str) -> RunRecord:
    """Say how a run ended, and give MLflow the time to hear of it, as long as it answers."""
    record = load_record(run_dir)
    ended = now()
    with Journal(run_dir / JOURNAL_FILE) as journal:
        total = seconds_until(record, journal.lines(), milliseconds(ended))
        if status == "FAILED" and (run_dir / ERROR_FILE).exists():
            journal.append_artifact(run_dir / ERROR_FILE)
        journal.append_status(status, milliseconds(ended))
    reach("run.ended")  # a run that dies here is still RUNNING, and a resume ends it
    update_record(run_dir, status=status, ended=ended, error=error, seconds={**record.seconds, "total": total})
    patience = load_recipe(run_dir / "recipe.yaml").tracking.wait_seconds
    shipped = settle(run_dir, patience, math.inf if status == "FINISHED" else SECONDS_AFTER_A_FAILURE)
    for name, number in shipped.registered:
        say(f"registered: {name} version {number}")
    if shipped.num_waiting:
        say(
            f"warning: {shipped.num_waiting} lines of the journal wait for the tracker; "
            f"torchrelay sync {run_dir.name} sends them: {shipped.reason}"
        )
    return load_record(run_dir)


def seconds_until(record: RunRecord, lines: Iterable[Mapping[str, Any]], end: float) -> float:
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


def _is_ours(record: RunRecord) -> bool:
    """Whether this flow run, in this or an earlier attempt, was the last to begin a run or let it go on."""
    return record.prefect_flow_run_id == flow_run_id()


def flow_run_id() -> str:
    """Prefect's id of the flow run that we are in; empty outside of one."""
    return str(flow_run.get_id() or "")


def flow_run_url() -> str:
    """The flow run's page, where a server outlives it."""
    return "" if prefect_is_embedded() else flow_run.get_flow_run_ui_url() or ""


def _link_from_prefect(run_dir: Path, record: RunRecord) -> None:
    """Lead from the flow run to MLflow's page, where MLflow has the run."""
    place = Cursor.load(run_dir)
    if record.prefect_flow_run_id and place.mlflow_run_id:
        create_markdown_artifact(
            key="mlflow-run",
            markdown=f"Run `{record.run_id}` in MLflow: {page_of(place.experiment_id, place.mlflow_run_id)}",
            description=f"MLflow run of {record.run_id}",
        )
