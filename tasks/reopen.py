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
from ..disk import describe_failure, digest
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
    RECIPE_FILE,
    SCHEMA_FILE,
    Journal,
    Run,
    RunRecord,
    describe_run,
    digests_of,
    find_run,
    flow_runs_of,
    is_open,
    journal_reopening,
    list_records,
    seconds_until,
    tag_files,
)
from ..settings import home
from ..tracking.shipping import start_shipping
from .assembly import admit_code, check_names, trusted_by_word, try_training, vouch
from .options import UNCACHED
from .runs import journal_run
from .services import flow_run_id, flow_run_url


class Attempt(NamedTuple):
    """What an earlier attempt of this flow run left.

    Attributes:
        folder: of the run that it began or took up; None where it did not come so far, or there
            was none.
        result: of the flow, where that run is finished.
    """

    folder: Path | None
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
    folder = find_run(home(), run)
    if (kind := Run.open(folder).record.kind) not in ("train", "splits"):
        raise SourceError(f"run {folder.name} is of kind {kind}; only training runs can go on")
    return folder


@task(**UNCACHED)
def reopen_run(folder: Path, overrides: Mapping[str, Any], trust_code: Sequence[str] = ()) -> None:
    """Let a run go on.

    Same folder, same MLflow run, its own recipe with the overrides. Hold the run first.

    Raises:
        SourceError: its pack is gone, it is finished already, or its recipe names code that nobody
            has let in.
        RecipeError: an override is not legal, or is one that a run cannot change on its way.
    """
    run = Run.open(folder)
    record, recipe = run.record, change_recipe(run, overrides)
    is_retry = bool(flow_run_id()) and flow_run_id() in flow_runs_of(record)
    admit_code(recipe, folder, f"run {record.run_id}", trust_code, anywhere=is_retry)
    run.verify([SCHEMA_FILE])
    change = _compare(run, recipe)
    check_names(recipe)
    _check_data(record)
    if change.drift:
        _try_changed(record, recipe)
    _refuse_finished(record, change)
    has_schedule = any(f"{key}.".startswith("train.schedule.") for key in overrides)
    _warn_of_schedule(change, has_schedule=has_schedule)
    if trust_code:
        vouch(run.run_id, recipe, trust_code)
        run.update(trust_code=trusted_by_word(run.run_id))
    _take_up(run, change, recipe.train.epochs if has_schedule else change.schedule_epochs)
    start_shipping(run)
    reach("run.reopened")
    say(f"run: {record.run_id} goes on in {folder}")


class _Change(NamedTuple):
    """What is different where a run goes on.

    Attributes:
        before, now: its recipe.
        drift: what they differ in; see `changes_between`.
        schedule_epochs: that the learning rate's schedule spans before.
        last_time: of the last line of the journal, in milliseconds since 1970; 0 where it has none.
    """

    before: Recipe
    now: Recipe
    drift: dict[str, list[str | None]]
    schedule_epochs: int
    last_time: int

    @property
    def is_renamed(self) -> bool:
        """Whether its model is to be registered under another name."""
        return self.now.tracking.register_as != self.before.tracking.register_as

    def trains_on(self, record: RunRecord) -> bool:
        """Whether there is anything to train."""
        if record.stopped:
            return any(key.startswith("train.") for key in self.drift)
        return self.now.train.epochs > record.epochs


def _compare(run: Run, recipe: Recipe) -> _Change:
    """The change that a run goes on with, whole where an earlier one died in the middle of it."""
    before, schedule_epochs = run.recipe, run.record.schedule_epochs
    begun, last_time = find_unfinished_change(run.journal, before)
    if begun is not None:
        before, schedule_epochs = parse_recipe(begun["before"]), begun["schedule_epochs"]
    drift = changes_between(flatten(before), flatten(recipe))
    if begun is not None:  # what a journal has of a recipe is without secrets
        drift = {
            key: values
            for key, values in drift.items()
            if len(set(hide_in_values({key: values})[key])) > 1
        }
    return _Change(before, recipe, drift, schedule_epochs, last_time)


def _refuse_finished(record: RunRecord, change: _Change) -> None:
    """Refuse a run that has nothing left to do.

    Raises:
        SourceError: says what would let it go on.
    """
    if record.status != "FINISHED" or change.trains_on(record) or change.is_renamed:
        return
    if record.stopped:
        raise SourceError(
            f"run {record.run_id} is finished: {record.stopped}; --set that to 0, or to more, lets "
            "it go on"
        )
    raise SourceError(
        f"run {record.run_id} is finished ({record.epochs} of {change.now.train.epochs} epochs); "
        f"--set train.epochs={2 * record.epochs} makes it longer"
    )


def _warn_of_schedule(change: _Change, *, has_schedule: bool) -> None:
    """Warn of a learning rate that is not what the new settings seem to say.

    Args:
        change: what the run goes on with.
        has_schedule: whether the schedule was named anew.
    """
    train, schedule = change.now.train, change.now.train.schedule.name
    if schedule == "plateau" and "train.optimizer.args.lr" in change.drift:
        say(
            "warning: train.optimizer.args.lr has no effect: plateau goes on from the learning "
            "rate that it has come to"
        )
    is_flat = schedule in ("constant", "plateau")
    if train.epochs > change.schedule_epochs and not has_schedule and not is_flat:
        say(
            f"warning: the schedule {schedule} ends with epoch {change.schedule_epochs}, and the "
            "learning rate stays "
            f"as it is then; --set train.schedule.name={schedule} spreads it over all "
            f"{train.epochs}"
        )


def _take_up(run: Run, change: _Change, schedule_epochs: int) -> None:
    """Write down that a run goes on: recipe, record, journal."""
    before, recipe = run.record, change.now
    was_lost = before.status == "RUNNING"  # nobody ended it, so nobody counted its seconds
    trains_on = change.trains_on(before)
    is_registered = not trains_on and not change.is_renamed
    done = [part for part in before.done if not trains_on and (part != "register" or is_registered)]
    with run.journal as journal:
        if change.drift or schedule_epochs != change.schedule_epochs:
            write_changed_recipe(run, change.before, recipe, schedule_epochs)
        record = run.update(
            status="RUNNING",
            ended="",
            error="",
            stopped="" if trains_on else before.stopped,
            done=done,
            schedule_epochs=schedule_epochs,
            files={**before.files, **digests_of(run.folder, (RECIPE_FILE, SCHEMA_FILE))},
            **_link(before),
        )
        if was_lost and change.last_time:
            total = seconds_until(record, journal.lines(), change.last_time)
            run.update(seconds={**record.seconds, "total": total})
        # Else the training says it, which knows from where it goes on.
        if record.kind == "splits" or "train" in done:
            journal_resumption(journal, record.steps, change.drift)
        if not is_open(journal):
            journal_run(run, recipe)
        elif change.drift:
            journal.append_artifact(run.folder / RECIPE_FILE)
            journal.append_tags(tag_files(run))
        journal_reopening(journal, record, recipe)


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


def write_changed_recipe(run: Run, before: Recipe, recipe: Recipe, schedule_epochs: int) -> None:
    """Write a run's changed recipe.

    The journal knows of it first, so that a kill between two files loses nothing.
    """
    fields = {
        "before": dump_hidden(before),
        "digest": digest(dump_recipe(recipe)),
        "schedule_epochs": schedule_epochs,
    }
    run.journal.append_event("recipe", **fields)
    run.journal.sync()
    try:
        run.write_recipe(recipe)
    except OSError as error:
        raise TrackingError(
            f"recipe {run.folder / RECIPE_FILE} cannot be written: {describe_failure(error)}; "
            "then resume again"
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


def change_recipe(run: Run, overrides: Mapping[str, Any]) -> Recipe:
    """A run's recipe with overrides that it can take on its way.

    Raises:
        RecipeError: an override is not legal, or is one that only a new run can have.
    """
    before = run.recipe
    recipe = load_recipe(run.folder / RECIPE_FILE, None, overrides)
    refuse_fixed(changes_between(flatten(before), flatten(recipe)))
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
