"""How a run goes on.

Found by its id or by its flow run, its changes and its data checked, its folder opened again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task

from ..addresses import hide_in_values
from ..console import say
from ..datasets.pack import Pack, open_view
from ..datasets.splits import verify_split
from ..disk import describe_failure, digest, write_atomic
from ..errors import DataError, SourceError, TrackingError
from ..faults import reach
from ..recipe import (
    Recipe,
    changes_between,
    dump_hidden,
    dump_recipe,
    flatten,
    load_recipe,
    parse_recipe,
    refuse_fixed,
)
from ..runs import (
    JOURNAL_FILE,
    RECIPE_FILE,
    SCHEMA_FILE,
    Journal,
    RunRecord,
    describe_run,
    digests_of,
    find_run,
    flow_runs_of,
    is_open,
    journal_reopening,
    list_records,
    load_record,
    read_recipe,
    tag_files,
    update_record,
    verify_files,
)
from ..settings import home
from ..tracking.shipping import start_shipping
from .assembly import admit_code, check_names, trusted_by_word, try_training, vouch
from .options import UNCACHED
from .runs import flow_run_id, flow_run_url, journal_run, seconds_until


class Attempt(NamedTuple):
    """What an earlier attempt of this flow run left.

    Attributes:
        run_dir: of the run that it began or took up; None where it did not come so far, or there
            was none.
        result: of the flow, where that run is finished.
    """

    run_dir: Path | None
    result: dict[str, Any] | None


@task(**UNCACHED)
def find_attempt() -> Attempt:
    """Look for the run of an earlier attempt.

    Prefect keeps a flow run's id when it retries it.
    """
    records = list_records(home()) if flow_run_id() else []
    # Another flow run may have taken up the run since, as `torchrelay resume` does: it is the same
    # run.
    own = [
        record for record in records if not record.parent and flow_run_id() in flow_runs_of(record)
    ]
    if not own:
        return Attempt(None, None)
    result = describe_run(home(), own[0]) if own[0].status == "FINISHED" else None
    return Attempt(home().runs / own[0].run_id, result)


@task(**UNCACHED)
def locate_run(run: str) -> Path:
    """The folder of a training run, by our id, the beginning of it, or
    MLflow's.

    Raises:
        SourceError: there is none, or it is an evaluation or a prediction.
    """
    run_dir = find_run(home(), run)
    if (kind := load_record(run_dir).kind) not in ("train", "splits"):
        raise SourceError(f"run {run_dir.name} is of kind {kind}; only training runs can go on")
    return run_dir


@task(**UNCACHED)
def reopen_run(run_dir: Path, overrides: Mapping[str, Any], trust_code: Sequence[str] = ()) -> None:
    """Let a run go on.

    Same folder, same MLflow run, its own recipe with the overrides. Hold the run first.

    Raises:
        SourceError: its pack is gone, it is finished already, or its recipe names code that nobody
            has let in.
        RecipeError: an override is not legal, or is one that a run cannot change on its way.
    """
    record = load_record(run_dir)
    recipe, before = change_recipe(run_dir, overrides), read_recipe(run_dir)
    is_retry = bool(flow_run_id()) and flow_run_id() in flow_runs_of(record)
    admit_code(recipe, run_dir, f"run {record.run_id}", trust_code, anywhere=is_retry)
    verify_files(run_dir, record, [SCHEMA_FILE])
    journal = Journal(run_dir / JOURNAL_FILE)
    begun, last_time = find_unfinished_change(journal, before)
    if begun is not None:
        before = parse_recipe(begun["before"])
        record = record.model_copy(update={"schedule_epochs": begun["schedule_epochs"]})
    drift = changes_between(flatten(before), flatten(recipe))
    if begun is not None:  # what a journal has of a recipe is without secrets
        drift = {
            key: values
            for key, values in drift.items()
            if len(set(hide_in_values({key: values})[key])) > 1
        }
    check_names(recipe)
    _check_data(record)
    if drift:
        _try_changed(record, recipe)
    is_changed = any(key.startswith("train.") for key in drift)
    trains_on = is_changed if record.stopped else recipe.train.epochs > record.epochs
    is_renamed = recipe.tracking.register_as != before.tracking.register_as
    if record.status == "FINISHED" and not trains_on and not is_renamed:
        raise SourceError(
            f"run {record.run_id} is finished: {record.stopped}; --set that to 0, or to more, lets "
            "it go on"
            if record.stopped
            else f"run {record.run_id} is finished "
            f"({record.epochs} of {recipe.train.epochs} epochs); "
            f"--set train.epochs={2 * record.epochs} makes it longer"
        )
    done = [
        part for part in record.done if not trains_on and not (part == "register" and is_renamed)
    ]
    if recipe.train.schedule.name == "plateau" and "train.optimizer.args.lr" in drift:
        say(
            "warning: train.optimizer.args.lr has no effect: plateau goes on from the learning "
            "rate that it has come to"
        )
    has_schedule = any(f"{key}.".startswith("train.schedule.") for key in overrides)
    schedule = recipe.train.schedule.name
    if (
        recipe.train.epochs > record.schedule_epochs
        and not has_schedule
        and schedule not in ("constant", "plateau")
    ):
        say(
            f"warning: the schedule {schedule} ends with epoch {record.schedule_epochs}, and the "
            "learning rate stays "
            f"as it is then; --set train.schedule.name={schedule} spreads it over all "
            f"{recipe.train.epochs}"
        )
    was_lost = record.status == "RUNNING"  # nobody ended it, so nobody counted its seconds
    links = _link(record)
    if trust_code:
        vouch(run_dir, recipe, trust_code)
        record = update_record(run_dir, trust_code=trusted_by_word(run_dir.name))
    schedule_epochs = recipe.train.epochs if has_schedule else record.schedule_epochs
    with journal:
        if drift or schedule_epochs != record.schedule_epochs:
            write_changed_recipe(journal, before, recipe, schedule_epochs)
        record = update_record(
            run_dir,
            status="RUNNING",
            ended="",
            error="",
            stopped="" if trains_on else record.stopped,
            done=done,
            schedule_epochs=schedule_epochs,
            files={**record.files, **digests_of(run_dir, (RECIPE_FILE, SCHEMA_FILE))},
            **links,
        )
        if was_lost and last_time:
            total = seconds_until(record, journal.lines(), last_time)
            update_record(run_dir, seconds={**record.seconds, "total": total})
        if (
            record.kind == "splits" or "train" in done
        ):  # else the training says it, which knows from where it goes on
            journal_resumption(journal, record.steps, drift)
        if not is_open(journal):
            journal_run(journal, record, recipe)
        elif drift:
            journal.append_artifact(run_dir / RECIPE_FILE)
            journal.append_tags(tag_files(run_dir))
        journal_reopening(journal, record, recipe)
    start_shipping(run_dir)
    reach("run.reopened")
    say(f"run: {record.run_id} goes on in {run_dir}")


def _link(record: RunRecord) -> dict[str, Any]:
    """What a record says of Prefect from now on.

    Flow runs that had the run before stay known.
    """
    had = dict.fromkeys((*record.earlier_flow_runs, record.prefect_flow_run_id))
    return {
        "prefect_flow_run_id": flow_run_id(),
        "prefect_flow_run_url": flow_run_url(),
        "earlier_flow_runs": [one for one in had if one not in ("", flow_run_id())],
    }


def journal_resumption(
    journal: Journal, step: int, changes: Mapping[str, list[str | None]]
) -> bool:
    """Journal from which step a run goes on, and what is different from there
    on.

    Args:
        journal: of the run.
        step: optimizer steps that are done.
        changes: what `changes_between` gave.
    Returns:
        Whether there are changes that were not journaled before, when the run went on from there.
    """
    journal.append_event("resumed", step=step)
    fields = {"changes": hide_in_values(changes), "from_step": step}
    known = [
        line["fields"]
        for line in journal.lines()
        if line["kind"] == "event" and line["name"] == "drift"
    ]
    is_new = bool(changes) and known[-1:] != [fields]
    if is_new:
        journal.append_event("drift", **fields)
    return is_new


def write_changed_recipe(
    journal: Journal, before: Recipe, recipe: Recipe, schedule_epochs: int
) -> None:
    """Write a run's changed recipe.

    The journal knows of it first, so that a kill between two files loses nothing.
    """
    text = dump_recipe(recipe)
    fields = {
        "before": dump_hidden(before),
        "digest": digest(text),
        "schedule_epochs": schedule_epochs,
    }
    journal.append_event("recipe", **fields)
    journal.sync()
    path = journal.path.parent / RECIPE_FILE
    try:
        write_atomic(path, text)
    except OSError as error:
        raise TrackingError(
            f"recipe {path} cannot be written: {describe_failure(error)}; then resume again"
        ) from error
    reach("run.recipe_changed")


def find_unfinished_change(journal: Journal, recipe: Recipe) -> tuple[dict[str, Any] | None, int]:
    """What a process wrote before it changed the recipe to what it is, where it
    died before the run was open again.

    Also gives the time of the last line, in milliseconds since 1970; 0 where there is none.
    """
    begun: dict[str, Any] | None = None
    last_time = 0
    for line in journal.lines():
        last_time = line["time"]
        if line["kind"] == "status" and line["status"] == "RUNNING":
            begun = None
        elif line["kind"] == "event" and line["name"] == "recipe":
            begun = line["fields"]
    if begun is not None and begun["digest"] != digest(dump_recipe(recipe)):
        begun = None
    return begun, last_time


def change_recipe(run_dir: Path, overrides: Mapping[str, Any]) -> Recipe:
    """A run's recipe with overrides that it can take on its way.

    Raises:
        RecipeError: an override is not legal, or is one that only a new run can have.
    """
    before = read_recipe(run_dir)
    recipe = load_recipe(run_dir / RECIPE_FILE, None, overrides)
    changed = changes_between(flatten(before), flatten(recipe))
    refuse_fixed(changed)
    return recipe


def _try_changed(record: RunRecord, recipe: Recipe) -> None:
    """Try the model with the changed recipe.

    A norm that thaws, or another device, may not take the run's batches.

    Raises:
        RecipeError: see `try_training`.
    """
    split_dirs = [record.split_dir] if record.split_dir else list(record.splits.values())
    views = [open_view(Path(record.pack_dir), Path(one)) for one in split_dirs]
    view = min(views, key=lambda one: len(one.rows["train"]))
    try_training(recipe, view.schema, len(view.rows["train"]))


def _check_data(record: RunRecord) -> None:
    """Refuse to go on with other rows than the run began with.

    Reads the pack once.

    Raises:
        SourceError: the pack is gone, damaged, or another.
    """
    data_dir = record.split_dir or record.pack_dir
    if not Path(data_dir).is_dir():
        raise SourceError(
            f"the pack of run {record.run_id} is gone from {data_dir}; bring it back, or train a "
            "new run"
        )
    try:
        pack = Pack.open(Path(record.pack_dir))
        pack.verify()
        for split_dir in (record.split_dir, *record.splits.values()):
            if split_dir:
                verify_split(Path(split_dir))
    except DataError as error:
        raise SourceError(f"run {record.run_id} cannot go on: {error}") from error
    if pack.manifest.fingerprint != record.fingerprint:
        raise SourceError(
            f"run {record.run_id} began with data of the fingerprint {record.fingerprint}, the "
            "pack in "
            f"{record.pack_dir} has {pack.manifest.fingerprint}; bring the old pack back, or train "
            "a new run"
        )
