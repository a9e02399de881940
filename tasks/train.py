"""The training task.

Open the run's pack and checkpoint, build the job, run the loop, keep the weights.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from prefect import task

from ..addresses import hide_in_values
from ..console import Progress, say
from ..datasets import quote
from ..datasets.batches import is_lost_worker
from ..disk import describe_failure
from ..engine import Job, OnStep, StopFlag, StopRequested, kept_weights, train
from ..engine import Progress as TrainingProgress
from ..engine.checkpoints import Checkpoint, CheckpointStore
from ..engine.hardware import CoreSharing, fingerprint, keep_freed_memory, pick_device
from ..engine.metrics import HEADLINES, RANKED_HEADLINE
from ..errors import CheckpointError, TrackingError, TrainingError
from ..faults import reach
from ..recipe import (
    Recipe,
    alters_curves,
    changes_between,
    flatten,
    parse_recipe,
)
from ..runs import (
    BEST,
    CHECKPOINTS,
    LAST,
    OPTIMIZER,
    WEIGHTS,
    Journal,
    Recorder,
    Run,
    RunRecord,
    check_folder,
    checked,
    rewriting,
    tag_files,
    thin,
)
from ..weights import save_weights, sha256_of, state_of
from .assembly import (
    build_job,
    checkpoint_facts,
    load_start,
    names_of_run,
    naming_table_rows,
    restore_job,
    run_threads,
    share_batches,
    view_of,
)
from .options import UNCACHED
from .reopen import journal_resumption
from .services import acknowledge_cancel


@task(**UNCACHED)
def train_model(folder: Path) -> None:
    """Train a run from its last checkpoint, or from the start, to its last
    epoch or until there is reason to stop.

    Writes checkpoints, `weights/last.pt`, `weights/best.pt`, `weights/optimizer.pt` and the journal
    into the run's folder. Nothing of it is done again where it is done.

    Raises:
        TrainingError: the loss is not finite; names the step and the rows.
        RecipeError: model, optimizer or monitor does not fit the data, or the checkpoint is of
            another recipe.
        SourceError: the checkpoint is of other rows.
        CheckpointError: a checkpoint cannot be written, and `checkpoint.on_error` is stop; or the
            weights cannot.
        TrackingError: journal or record cannot be written, whatever `checkpoint.on_error` is.
    """
    reach("train.begun")
    run = Run.open(folder)
    if "train" in run.record.done:
        say(f"train: done, {run.record.epochs} epochs")
        return
    keep_freed_memory()
    with run_threads(run, view_of(run)) as cores:
        _train(run, cores)


def _train(run: Run, cores: CoreSharing) -> None:
    record, recipe, view, journal = run.record, run.recipe, view_of(run), run.journal
    here = fingerprint(pick_device(recipe.train.device))
    store = _open_store(run, here)
    checkpoint = store.load_last()
    start = load_start(run) if checkpoint is None else None
    job = build_job(recipe, view, record.schedule_epochs, is_new=checkpoint is None, start=start)
    job = share_batches(replace(job, facts=checkpoint_facts(record, recipe, view)), cores)
    job = replace(job, valid_batches=checked(run, job.valid_batches))
    progress = TrainingProgress()
    if checkpoint is not None:
        progress = restore_job(job, checkpoint, here, recipe)
    with journal:
        note_resumption(journal, record, recipe, checkpoint, progress.step)
    reach("train.restored")
    _say_begin(job, recipe)
    with journal, Progress("train", "steps") as bar:
        every = thin(recipe.tracking.every_steps, job.num_epochs * job.steps_per_epoch)
        recorder = Recorder(journal, every, names_of_run(journal, view.schema))
        with (
            _noting_progress(run, job, progress),
            _naming_causes(run, store),
            naming_table_rows(view),
        ):
            stopped = _run_loop(job, progress, store, _Report(run, job, recorder, bar))
            if stopped:
                journal.append_event(
                    "stopped", step=progress.step, epoch=progress.epoch, reason=stopped
                )
                say(f"stopped: {stopped}")
    reach("train.loop_done")
    check_folder(run, is_now=True)
    run.update(stopped=stopped)
    _keep_weights(run, job, store)
    with journal:
        recorder.log_artifacts(run.folder / WEIGHTS, WEIGHTS)
        journal.append_tags(tag_files(run))
    run.mark_done("train")
    reach("train.done")


def _open_store(run: Run, here: Mapping[str, str]) -> CheckpointStore:
    """The run's checkpoints.

    The journal is durable before each of them, as a run that goes on from one computes nothing
    before it again.
    """

    def make_durable() -> None:
        check_folder(run, is_now=True)
        run.journal.sync()

    settings = run.recipe.checkpoint
    return CheckpointStore(
        run.folder / CHECKPOINTS,
        settings.keep,
        {"run_id": run.run_id},
        here,
        settings.on_error,
        on_save=make_durable,
    )


def _say_begin(job: Job, recipe: Recipe) -> None:
    say(
        f"train: {recipe.model.name} on {job.scorer.device} in {job.scorer.precision.name}, "
        f"{job.num_epochs} epochs"
    )
    if recipe.train.deterministic and job.scorer.device.type == "mps":
        say("warning: train.deterministic has no effect on mps")


class _Report:
    """Takes what the loop reports into the journal and onto the console."""

    def __init__(self, run: Run, job: Job, recorder: Recorder, bar: Progress) -> None:
        self._run, self._num_epochs, self._recorder = run, job.num_epochs, recorder
        self._bar, self._num_steps = bar, job.num_epochs * job.steps_per_epoch

    def __call__(
        self, progress: TrainingProgress, values: dict[str, float], epoch_ended: bool
    ) -> None:
        check_folder(self._run)
        if not epoch_ended:
            self._recorder.log_step(progress.step, progress.epoch, values)
            loss = f"loss {values['train/loss']:.4f}"
            self._bar.update(progress.step, self._num_steps, loss)
            return
        self._recorder.log_epoch(progress.step, progress.epoch, values)
        say(_epoch_line(progress, self._num_epochs, values))


@contextlib.contextmanager
def _noting_progress(run: Run, job: Job, progress: TrainingProgress) -> Iterator[None]:
    """Write into the record how far the training came, however the block ends."""
    started, seconds_before = time.perf_counter(), run.record.seconds

    def note() -> None:
        run.journal.flush()
        seconds = seconds_before.get("train", 0.0) + time.perf_counter() - started
        run.update(
            device=str(job.scorer.device),
            precision=job.scorer.precision.name,
            epochs=progress.epoch,
            steps=progress.step,
            metrics=run.journal.newest(),
            rows_per_second=round(progress.rows_per_second, 1),
            seconds={**seconds_before, "train": round(seconds, 3)},
        )

    try:
        yield
    except BaseException:
        # A full disk refuses this too, and what is raised is the cause.
        with contextlib.suppress(TrackingError):
            note()
        raise
    note()


@contextlib.contextmanager
def _naming_causes(run: Run, store: CheckpointStore) -> Iterator[None]:
    """Say what an error in the block, and a checkpoint that was not written, come from."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_worker(error):
            raise
        raise TrainingError(
            f"a process that gathers batches was killed ({quote(error)}), for example for "
            "want of memory; "
            f"torchrelay resume {run.run_id} goes on from the last checkpoint, with "
            "--set "
            f"train.num_workers=0 in this process alone"
        ) from error
    finally:
        if store.failures:
            kinds = ", ".join(f"{count:,} x {kind}" for kind, count in store.failures.items())
            say(
                f"warning: checkpoints could not be written ({kinds}); the last one that was "
                "is intact"
            )


def _run_loop(job: Job, progress: TrainingProgress, store: CheckpointStore, on_step: OnStep) -> str:
    """Train, and give the reason why it ended before the last epoch.

    Raises:
        StopRequested: a signal came, and whatever heard it ended nothing.
    """
    stop = StopFlag()
    with acknowledge_cancel(stop):
        stopped = _train_until_stopped(job, progress, store, on_step, stop)
    if stop.requested:
        raise StopRequested
    return stopped


def _train_until_stopped(
    job: Job, progress: TrainingProgress, store: CheckpointStore, on_step: OnStep, stop: StopFlag
) -> str:
    """Train; a signal is one, too, where the checkpoint that it asked for
    cannot be written.
    """
    try:
        return train(job, progress, store, on_step, stop)
    except (CheckpointError, TrackingError) as error:
        if not stop.requested:
            raise
        say(f"warning: nothing more is kept of the training before the signal: {error}")
    stop.repeat()
    return ""


def note_resumption(
    journal: Journal, record: RunRecord, recipe: Recipe, checkpoint: Checkpoint | None, step: int
) -> None:
    """Journal that the training goes on from a step, and warn where the
    curves behind it are of an older recipe.
    """
    params: dict[str, str] | None = None
    was_open, last = False, 0
    for line in journal.lines():
        if line["kind"] == "metrics":
            last = max(last, line["step"])
        elif line["kind"] == "params" and params is None:
            params = line["values"]
        was_open = was_open or line["kind"] == "status"
    now = flatten(recipe)
    if checkpoint is not None:
        then = flatten(parse_recipe(checkpoint.state["facts"]["recipe"]))
    elif (
        was_open
    ):  # and died before its first checkpoint; what a journal has of a recipe is without secrets
        now = hide_in_values(now)
        then = now if params is None else hide_in_values(params)
    else:
        return
    changes = changes_between(then, now)
    is_new = journal_resumption(journal, step, changes)
    telling = [key for key in changes if alters_curves(key)]
    if "train.epochs" in changes and record.schedule_epochs == recipe.train.epochs:
        telling.append("train.epochs")  # the schedule spans the epochs
    if is_new and telling and last > step:
        say(
            f"warning: steps {step + 1:,} to {last:,} of the curves are those of before the change "
            "of "
            f"{', '.join(telling)}, because a step is journaled once"
        )


def _keep_weights(run: Run, job: Job, store: CheckpointStore) -> None:
    """Write the last and the best weights and the optimizer's state as files
    of their own.
    """
    last = state_of(job.kept_model)
    best = store.load_best()
    folder = run.folder / WEIGHTS
    try:
        with rewriting(run, LAST, BEST, OPTIMIZER):
            save_weights(last, run.folder / LAST)
            reach("train.last_written")
            save_weights(kept_weights(best.state) if best else last, run.folder / BEST)
            reach("train.best_written")
            save_weights(job.optimizer.state_dict(), run.folder / OPTIMIZER)
            reach("train.optimizer_written")
    except OSError as error:
        raise CheckpointError(
            f"weights cannot be written to {folder}: {describe_failure(error)}; then resume the run"
        ) from error
    run.update(weights=str(run.folder / BEST), weights_sha256=sha256_of(last))


def _epoch_line(progress: TrainingProgress, num_epochs: int, values: dict[str, float]) -> str:
    names = (
        "valid/loss",
        *(f"valid/{name}" for name in dict.fromkeys([*HEADLINES.values(), RANKED_HEADLINE])),
    )
    shown = {name: values[name] for name in names if name in values}
    valid = "".join(f"  {name.replace('/', ' ')} {value:.4f}" for name, value in shown.items())
    if progress.batch:
        return f"epoch {progress.epoch + 1}/{num_epochs}, batch {progress.batch}{valid}"
    rate = f"  {values['rows_per_second']:,.0f} rows/s" if "rows_per_second" in values else ""
    return f"epoch {progress.epoch}/{num_epochs}  train loss {progress.loss:.4f}{valid}{rate}"
