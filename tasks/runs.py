"""A run's life.

Recipe resolved, folder and tracker run opened, status told truthfully, record closed.

How a run goes on is in `reopen.py`.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import prefect.runtime.flow_run as flow_run
from prefect import task
from prefect.artifacts import create_markdown_artifact

from ..addresses import hidden_traceback, hide_secrets
from ..console import say
from ..datasets import QUARANTINE
from ..datasets.pack import open_view
from ..disk import lock, write_atomic
from ..engine import StopFlag
from ..engine.hardware import pick_device, pick_precision
from ..errors import FAILED_RUN, BusyError, LockError, RecipeError, RunLostError, TorchrelayError
from ..faults import reach
from ..recipe import Recipe, dump_recipe, load_recipe
from ..runs import (
    ERROR_FILE,
    FIGURES,
    JOURNAL_FILE,
    LOCK_FILE,
    RECIPE_FILE,
    RECORD_FILE,
    ROOM_FILE,
    SCHEMA_FILE,
    TRANSFER_FILE,
    WEIGHTS,
    Cursor,
    Hold,
    Journal,
    RunRecord,
    check_folder,
    describe_run,
    digests_of,
    git_commit,
    hold_of,
    journal_opening,
    load_record,
    milliseconds,
    new_run_id,
    now,
    read_schema,
    save_record,
    update_record,
    watch_folder,
)
from ..schema import Schema
from ..settings import home, prefect_is_embedded
from ..tracking import page_of
from ..tracking.shipping import abandon, settle, start_shipping, stop_shipping
from .assembly import (
    Start,
    admit_code,
    check_recipe,
    check_validation,
    forget,
    has_images,
    keep_start,
    pin_source,
    plan_start,
    recipe_of,
    trusted_by_word,
    try_early,
    try_ingested,
    vouch,
    warn_unused_settings,
)
from .ingest import Ingested, draw_report
from .options import UNCACHED

# A cancelled process is killed after 30 s.
SECONDS_AFTER_A_FAILURE = 10.0
# The end of a run is a line of its journal, its record, and a traceback.
ROOM_BYTES = 1 << 17


@task(**UNCACHED)
def resolve_recipe(recipe: Recipe, recipe_file: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of file, fields and overrides, checked before anything
    expensive starts.

    Raises:
        RecipeError: something in it is not legal or does not exist.
        SourceError: the source of its warm start cannot be had.
        DataError: its table cannot be read or lacks columns, or has other inputs than the source.
    """
    resolved = load_recipe(recipe_file, recipe, overrides)
    check_recipe(resolved)
    try_early(resolved)
    return pin_source(resolved)


@task(**UNCACHED)
def resolve_finetune(
    recipe: Recipe,
    recipe_file: str,
    overrides: Mapping[str, Any],
    source: str,
    trust_code: Sequence[str] = (),
) -> Recipe:
    """The recipe of a finetuning, checked.

    Where neither file nor fields are given, the source's own.

    Raises:
        RecipeError: something in it is not legal or does not exist, or it names no source.
        SourceError: the source cannot be had.
        DataError: its table cannot be read or lacks columns, or has other inputs than the source.
    """
    resolved = recipe_for_finetune(recipe, recipe_file, overrides, source, trust_code)
    check_recipe(resolved)
    try_early(resolved)
    return pin_source(resolved)


def over_data(overrides: Mapping[str, Any], dialect: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides of a recipe, and over them the settings of its table's
    dialect by their last names.
    """
    return {**overrides, **{f"data.{key}": value for key, value in dialect.items()}}


def recipe_for_finetune(
    recipe: Recipe,
    recipe_file: str,
    overrides: Mapping[str, Any],
    source: str,
    trust_code: Sequence[str] = (),
) -> Recipe:
    """The recipe that file, fields, overrides and a source make.

    Args:
        recipe: fields that go over the file's.
        recipe_file: empty, where the fields name no table either, means the recipe that the source
            was trained by, without the warm start that it may have had itself.
        overrides: dotted keys that go over both.
        source: goes over all three; empty means the one that they name.
        trust_code: modules that may be imported where the recipe is the source's own.
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
            if not recipe.model.name and over.keys().isdisjoint(("model", "model.name")):
                folder = Path(recipe_file).parent
                admit_code(load_recipe(recipe_file), folder, named, trust_code)
    resolved = load_recipe(recipe_file, recipe, over)
    if not resolved.warm_start.source:
        raise RecipeError(
            "warm_start.source is missing: a finetuning begins from the weights of a run, a "
            "registered model or a "
            "file, for example torchrelay finetune RECIPE --from models:/digits@champion"
        )
    return resolved


def name_run(recipe: Recipe) -> Path:
    """Where the folder of a new run will be."""
    return home().runs / new_run_id(recipe.name)


@task(**UNCACHED)
def start_run(
    run_dir: Path,
    recipe: Recipe,
    ingested: Ingested,
    recipe_file: str,
    trust_code: Sequence[str] = (),
) -> None:
    """Open a new run.

    Its folder with recipe and schema, its journal with all that is known before training.

    Hold the run first. Where the recipe's split is a pattern of columns, it is the parent of one
    run for each of them (`splits.py`).

    Raises:
        RecipeError: a setting needs validation rows and there are none, a batch is too small for
            the model, or a pattern of the warm start fits no key.
        SourceError: the weights of a warm start do not fit.
    """
    reach("run.begun")
    data = ingested.first
    for one in ingested.splits.values():
        check_validation(recipe, one.rows["valid"])
    try_ingested(recipe, ingested.splits)
    warn_unused_settings(recipe)
    schema = Schema.load(data.split_dir / SCHEMA_FILE)
    start = plan_start(recipe, schema)
    if ingested.several:
        if recipe.tracking.register_as:
            say(
                "warning: tracking.register: without effect, because runs over several splits "
                "measure the recipe; "
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
    vouch(run_dir, recipe, trust_code)
    # The runs over several splits begin each with weights of their own; here they were tried on the
    # first.
    open_run(record, recipe, schema, rows, None if ingested.several else start)


def describe_source(start: Start | None) -> dict[str, str]:
    """What a record says of the weights that a run begins with."""
    return (
        {}
        if start is None
        else {"source": start.source.label, "source_sha256": start.source_sha256}
    )


def new_record(recipe: Recipe, run_id: str, **fields: Any) -> RunRecord:
    """The record of a training that begins now, on this machine and in this
    flow run.
    """
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
    """Be the one writer of a run.

    What sends its journal to MLflow once it is open ends with the block.

    Raises:
        BusyError: another process is; names its pid and host.
    """
    with lock(run_dir / LOCK_FILE, f"run {run_dir.name}") as file, watch_folder(run_dir, file):
        keep_room(run_dir)
        try:
            yield
        finally:
            stop_shipping(run_dir)
            if (
                hold := hold_of(run_dir)
            ) is not None and not hold.why_lost():  # else what lies there is another's
                give_room(run_dir)


def keep_room(run_dir: Path) -> None:
    """Keep a little room for the end of a run to be written down on a disk
    that is full by then.
    """
    with contextlib.suppress(OSError):
        # Random, as a file system that compresses would keep nothing for zeros.
        write_atomic(run_dir / ROOM_FILE, os.urandom(ROOM_BYTES))


def give_room(run_dir: Path) -> bool:
    """Give it to whatever is written next.

    Whether there was any.
    """
    with contextlib.suppress(OSError):
        (run_dir / ROOM_FILE).unlink()
        return True
    return False


@contextlib.contextmanager
def keep_status(run_dir: Path) -> Iterator[None]:
    """Tell the truth about how a run ends.

    An exception is FAILED, a signal or a cancel KILLED.

    A run that has ended already stays as it is, and so does one that this flow run has not made its
    own: whoever may not let it go on has no word in how it ended. A folder that has no record yet
    is removed, and with it the word that its code may run.
    """
    try:
        yield
    except BaseException as error:
        is_noted = False
        if (hold := hold_of(run_dir)) is not None and hold.why_lost():
            _end_lost(run_dir, hold, error)
        with StopFlag():
            if not (run_dir / RECORD_FILE).exists():
                shutil.rmtree(run_dir, ignore_errors=True)
                with contextlib.suppress(OSError):  # what is raised says more
                    forget(run_dir.name)
            elif (record := load_record(run_dir)).status == "RUNNING" and is_ours(record):
                is_noted = note_end(run_dir, error)
        if is_noted:  # what a second signal has to wait for is written
            with contextlib.suppress(OSError, TorchrelayError):  # what is raised says more
                settle_run(run_dir, SECONDS_AFTER_A_FAILURE)
        if (run_dir / ERROR_FILE).exists() and not isinstance(error, TorchrelayError):
            error.add_note(
                f"{FAILED_RUN}{run_dir.name} failed; more stands in {run_dir / ERROR_FILE}"
            )
        raise


def _end_lost(run_dir: Path, hold: Hold, error: BaseException) -> NoReturn:
    """End a run whose folder is not its own any more.

    Nothing is written there, and MLflow is told.

    Raises:
        RunLostError: says what became of it; or the signal that came.
    """
    lost = error if isinstance(error, RunLostError) else _lost(hold)
    if hold.lacks_lock_alone():
        with (
            contextlib.suppress(BusyError, LockError),
            lock(run_dir / LOCK_FILE, f"run {run_dir.name}"),
        ):
            if note_end(run_dir, lost):
                with contextlib.suppress(OSError, TorchrelayError):
                    settle_run(run_dir, SECONDS_AFTER_A_FAILURE)
    else:
        with StopFlag():
            abandon(run_dir, SECONDS_AFTER_A_FAILURE)
    if not isinstance(error, Exception):
        raise error
    raise lost from error


def _lost(hold: Hold) -> RunLostError:
    try:
        hold.check(is_now=True)
    except RunLostError as lost:
        return lost
    raise AssertionError("unreachable")


def note_end(run_dir: Path, error: BaseException) -> bool:
    """Write down how a run ended.

    What cannot be written, as on a full disk, does not hide the error itself.

    Returns:
        Whether it could be written.
    """
    try:
        if not isinstance(error, Exception):
            end_record(run_dir, "KILLED", _name_signal(error))
            return True
        give_room(run_dir)
        said = (
            hide_secrets(str(error))
            if isinstance(error, TorchrelayError)
            else hidden_traceback(error)
        )
        with contextlib.suppress(
            OSError
        ):  # the record is smaller, says it too, and may still find room
            write_atomic(run_dir / ERROR_FILE, said.rstrip() + "\n")
        end_record(run_dir, "FAILED", hide_secrets(f"{type(error).__name__}: {error}"))
        return True
    except (OSError, TorchrelayError) as problem:
        say(
            f"warning: how run {run_dir.name} ended cannot be written: {problem}; torchrelay "
            "doctor --fix does it later"
        )
        return False


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
    """Close a run that is done, and give its record as JSON, with its
    children's where it has some.

    A signal waits until that is written, so that what is done is called done.
    """
    check_folder(run_dir, is_now=True)
    with StopFlag():
        end_record(run_dir, "FINISHED", "")
    settle_run(run_dir, math.inf)
    check_folder(run_dir, is_now=True)
    (run_dir / ERROR_FILE).unlink(
        missing_ok=True
    )  # of an earlier attempt; MLflow keeps what it was sent of it
    record = load_record(run_dir)
    if not record.parent:
        _link_from_prefect(run_dir, record)
    return describe_run(home(), record)


def open_run(
    record: RunRecord,
    recipe: Recipe,
    schema: Schema,
    rows: Mapping[str, int],
    start: Start | None = None,
) -> Path:
    """Fill the folder of a run, with a journal that opens the MLflow run.

    Hold the run first, within `keep_status`, which removes the folder where this fails. The record
    is the last of the files: without it the folder is no run, whenever we die.

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
    record = record.model_copy(
        update={"trust_code": trusted_by_word(record.parent or record.run_id)}
    )
    try:
        write_atomic(run_dir / RECIPE_FILE, dump_recipe(recipe))
        reach("run.recipe_written")
        schema.save(run_dir / SCHEMA_FILE)
        if start is not None:
            keep_start(run_dir, start)
        if record.split_dir:
            write_atomic(
                run_dir / FIGURES / "data.png", draw_report(Path(record.split_dir)).read_bytes()
            )
        with Journal(run_dir / JOURNAL_FILE) as journal:
            journal_run(journal, record, recipe, schema, rows)
        files = digests_of(run_dir, (RECIPE_FILE, SCHEMA_FILE, TRANSFER_FILE, WEIGHTS))
        save_record(home(), record.model_copy(update={"files": files}))
        reach("run.recorded")
    except BaseException:
        (run_dir / RECORD_FILE).unlink(
            missing_ok=True
        )  # `keep_status` removes a folder that is no run
        raise
    start_shipping(run_dir)
    reach("run.opened")
    say(f"run: {record.run_id} in {run_dir}")
    return run_dir


def journal_run(
    journal: Journal,
    record: RunRecord,
    recipe: Recipe,
    schema: Schema | None = None,
    rows: Mapping[str, int] | None = None,
) -> None:
    """Journal a run's beginning, and the files that it has from there.

    A run that died before it has its schema.
    """
    run_dir = journal.path.parent
    if rows is None:
        view = (
            open_view(Path(record.pack_dir), Path(record.split_dir)) if record.split_dir else None
        )
        rows = {} if view is None else {name: len(some) for name, some in view.rows.items()}
    with journal.together():
        journal_opening(journal, record, recipe, schema or read_schema(run_dir), rows)
        for name in (RECIPE_FILE, SCHEMA_FILE, TRANSFER_FILE):
            if (run_dir / name).exists():
                journal.append_artifact(run_dir / name)
        for name in ("report.json", "data_report.csv", QUARANTINE) if record.split_dir else ():
            journal.append_artifact(Path(record.split_dir) / name, "data")
        if (run_dir / FIGURES).is_dir():
            journal.append_artifact(run_dir / FIGURES, FIGURES)


def end_record(run_dir: Path, status: str, error: str) -> None:
    """Write down how a run ended.

    On a full disk in the room that was kept for it.
    """
    try:
        _write_end(run_dir, status, error)
    except (OSError, TorchrelayError):
        if not give_room(run_dir):
            raise
        _write_end(run_dir, status, error)


def _write_end(run_dir: Path, status: str, error: str) -> None:
    record = load_record(run_dir)
    ended = now()
    with Journal(run_dir / JOURNAL_FILE) as journal:
        total = seconds_until(record, journal.lines(), milliseconds(ended))
        if status == "FAILED" and (run_dir / ERROR_FILE).exists():
            journal.append_artifact(run_dir / ERROR_FILE)
        journal.append_status(status, milliseconds(ended))
    reach("run.ended")  # a run that dies here is still RUNNING, and a resume ends it
    update_record(
        run_dir, status=status, ended=ended, error=error, seconds={**record.seconds, "total": total}
    )


def settle_run(run_dir: Path, at_most_seconds: float) -> None:
    """Give MLflow the time to hear of a run's end, as long as it answers."""
    patience = load_recipe(run_dir / RECIPE_FILE).tracking.wait_seconds
    shipped = settle(run_dir, patience, at_most_seconds)
    for name, number in shipped.registered:
        say(f"registered: {name} version {number}")
    if shipped.num_waiting:
        say(
            f"warning: {shipped.num_waiting} lines of the journal wait for the tracker; "
            f"torchrelay sync {run_dir.name} sends them: {shipped.reason}"
        )
    if shipped.aside:
        say(f"warning: MLflow does not take {shipped.aside}")


def seconds_until(record: RunRecord, lines: Iterable[Mapping[str, Any]], end: float) -> float:
    """Seconds of a run up to a time.

    Those counted before it was last resumed, and those since.

    Args:
        record: with the seconds counted so far.
        lines: of its journal.
        end: milliseconds since 1970.
    """
    began = datetime.fromisoformat(record.created).timestamp() * 1000
    for line in lines:
        if line["kind"] == "status" and line["status"] == "RUNNING":
            began = line["time"]
    before = record.seconds.get("total", record.seconds.get("ingest", 0.0))
    return round(before + (end - began) / 1000, 3)


def is_ours(record: RunRecord) -> bool:
    """Whether this flow run, in this or an earlier attempt, was the last to
    begin a run or let it go on.
    """
    return record.prefect_flow_run_id == flow_run_id()


def flow_run_id() -> str:
    """Prefect's id of the flow run that we are in.

    Empty outside of one.
    """
    return str(flow_run.get_id() or "")


def flow_run_url() -> str:
    """The flow run's page, where a server outlives it."""
    return "" if prefect_is_embedded() else hide_secrets(flow_run.get_flow_run_ui_url() or "")


def _link_from_prefect(run_dir: Path, record: RunRecord) -> None:
    """Lead from the flow run to MLflow's page, where MLflow has the run."""
    place = Cursor.load(run_dir)
    if record.prefect_flow_run_id and place.mlflow_run_id:
        create_markdown_artifact(
            key="mlflow-run",
            markdown=(
                f"Run `{record.run_id}` in MLflow: "
                f"{page_of(place.experiment_id, place.mlflow_run_id)}"
            ),
            description=f"MLflow run of {record.run_id}",
        )
