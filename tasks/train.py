"""The training task.

Open the run's pack and checkpoint, build the job, run the loop, keep the weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import task

from ..addresses import hide_in_values
from ..console import Progress, say
from ..datasets import quote
from ..datasets.batches import is_lost_worker
from ..datasets.pack import View, open_view
from ..disk import describe_failure, digest
from ..engine import Job, OnStep, StopFlag, StopRequested, kept_weights, restore_run, train
from ..engine import Progress as TrainingProgress
from ..engine.checkpoints import Checkpoint, CheckpointStore
from ..engine.hardware import CoreSharing, fingerprint, keep_freed_memory, pick_device
from ..engine.metrics import HEADLINES, RANKED_HEADLINE
from ..errors import CheckpointError, SourceError, TrackingError, TrainingError
from ..faults import reach
from ..recipe import (
    Recipe,
    alters_curves,
    changes_between,
    dump_recipe,
    flatten,
    parse_recipe,
    refuse_fixed,
)
from ..runs import (
    BEST,
    CHECKPOINTS,
    JOURNAL_FILE,
    LAST,
    OPTIMIZER,
    WEIGHTS,
    Journal,
    Recorder,
    RunRecord,
    check_folder,
    checked,
    load_record,
    mark_done,
    read_recipe,
    rewriting,
    tag_files,
    thin,
    update_record,
)
from ..weights import save_weights, sha256_of, state_of
from .assembly import (
    build_job,
    load_start,
    names_of_run,
    naming_table_rows,
    run_threads,
    share_batches,
)
from .options import UNCACHED
from .reopen import journal_resumption
from .services import acknowledge_cancel


@task(**UNCACHED)
def train_model(run_dir: Path) -> None:
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
    record, recipe = load_record(run_dir), read_recipe(run_dir)
    if "train" in record.done:
        say(f"train: done, {record.epochs} epochs")
        return
    view = open_view(Path(record.pack_dir), Path(record.split_dir))
    keep_freed_memory()
    with run_threads(run_dir, record, recipe, view) as cores:
        _train(run_dir, record, recipe, view, cores)


def _train(
    run_dir: Path, record: RunRecord, recipe: Recipe, view: View, cores: CoreSharing
) -> None:
    here = fingerprint(pick_device(recipe.train.device))
    journal = Journal(run_dir / JOURNAL_FILE)
    facts = {"run_id": run_dir.name}
    keep, on_error = recipe.checkpoint.keep, recipe.checkpoint.on_error
    store = _JournaledStore(journal, run_dir / CHECKPOINTS, keep, facts, here, on_error)
    checkpoint = store.load_last()
    start = load_start(run_dir, recipe) if checkpoint is None else None
    job = build_job(recipe, view, record.schedule_epochs, is_new=checkpoint is None, start=start)
    job = share_batches(replace(job, facts=_facts_of(record, recipe, view)), cores)
    if checkpoint is not None:
        _check_facts(checkpoint, job.facts, recipe)
    job = replace(job, valid_batches=checked(run_dir, job.valid_batches))
    progress = TrainingProgress() if checkpoint is None else _restore(job, checkpoint, here, recipe)
    with journal:
        _note_resumption(journal, record, recipe, checkpoint, progress.step)
    reach("train.restored")
    say(
        f"train: {recipe.model.name} on {job.scorer.device} in {job.scorer.precision.name}, "
        f"{job.num_epochs} epochs"
    )
    if recipe.train.deterministic and job.scorer.device.type == "mps":
        say("warning: train.deterministic has no effect on mps")
    started = time.perf_counter()
    with journal, Progress("train", "steps") as bar:
        num_steps = job.num_epochs * job.steps_per_epoch
        recorder = Recorder(
            journal,
            thin(recipe.tracking.every_steps, num_steps),
            names_of_run(journal, view.schema),
        )

        def on_step(
            progress: TrainingProgress, values: dict[str, float], epoch_ended: bool
        ) -> None:
            check_folder(run_dir)
            if not epoch_ended:
                recorder.log_step(progress.step, progress.epoch, values)
                bar.update(progress.step, num_steps, f"loss {values['train/loss']:.4f}")
                return
            recorder.log_epoch(progress.step, progress.epoch, values)
            say(_epoch_line(progress, job.num_epochs, values))

        def note_progress() -> None:
            journal.flush()
            seconds = record.seconds.get("train", 0.0) + time.perf_counter() - started
            _note_progress(
                run_dir, journal, job, progress, {**record.seconds, "train": round(seconds, 3)}
            )

        stop = StopFlag()
        try:
            with acknowledge_cancel(stop), naming_table_rows(view):
                stopped = _train_until_stopped(job, progress, store, on_step, stop)
            if (
                stop.requested
            ):  # whatever heard the signal ended nothing; the training is not through all the same
                raise StopRequested
            if stopped:
                journal.append_event(
                    "stopped", step=progress.step, epoch=progress.epoch, reason=stopped
                )
                say(f"stopped: {stopped}")
        except BaseException as error:
            with contextlib.suppress(
                TrackingError
            ):  # a full disk refuses this too, and what is raised is the cause
                note_progress()
            if isinstance(error, RuntimeError) and is_lost_worker(error):
                raise TrainingError(
                    f"a process that gathers batches was killed ({quote(error)}), for example for "
                    "want of memory; "
                    f"torchrelay resume {run_dir.name} goes on from the last checkpoint, with "
                    "--set "
                    f"train.num_workers=0 in this process alone"
                ) from error
            raise
        finally:
            if store.failures:
                kinds = ", ".join(f"{count:,} x {kind}" for kind, count in store.failures.items())
                say(
                    f"warning: checkpoints could not be written ({kinds}); the last one that was "
                    "is intact"
                )
        note_progress()
    reach("train.loop_done")
    check_folder(run_dir, is_now=True)
    update_record(run_dir, stopped=stopped)
    _keep_weights(run_dir, job, store)
    with journal:
        recorder.log_artifacts(run_dir / WEIGHTS, WEIGHTS)
        journal.append_tags(tag_files(run_dir))
    mark_done(run_dir, "train")
    reach("train.done")


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


class _JournaledStore(CheckpointStore):
    """Makes the journal durable before a checkpoint, as a run that goes on
    from there computes nothing before again.
    """

    def __init__(self, journal: Journal, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._journal = journal

    def save(self, *args: Any, **options: Any) -> Path | None:
        """Commit a generation, where the run's folder is still its own."""
        check_folder(self.folder.parent, is_now=True)
        self._journal.sync()
        return super().save(*args, **options)


def _facts_of(record: RunRecord, recipe: Recipe, view: View) -> dict[str, str]:
    """What a checkpoint says of its run beside the state.

    `data_fingerprint` is of the table and of its split.
    """
    sides = [hashlib.sha256(view.rows[name].tobytes()).hexdigest() for name in sorted(view.rows)]
    return {
        "run_id": record.run_id,
        "mlflow_run_id": record.mlflow_run_id,
        "prefect_flow_run_id": record.prefect_flow_run_id,
        "git_commit": record.git_commit,
        "data_fingerprint": digest(record.fingerprint, sides),
        "recipe": dump_recipe(recipe),
    }


def _check_facts(checkpoint: Checkpoint, facts: Mapping[str, str], recipe: Recipe) -> None:
    """Refuse to go on from a checkpoint with another recipe or other rows than
    it was made with, whoever changed them.

    Raises:
        RecipeError: the run's recipe differs in something that a run cannot change on its way, for
            example its seed.
        SourceError: its pack or its split has other rows.
    """
    then = checkpoint.state["facts"]
    refuse_fixed(changes_between(flatten(parse_recipe(then["recipe"])), flatten(recipe)))
    if then.get("data_fingerprint", facts["data_fingerprint"]) != facts["data_fingerprint"]:
        raise SourceError(
            f"{checkpoint.folder} was made with data of the fingerprint "
            f"{then['data_fingerprint']}, the run's split "
            f"has {facts['data_fingerprint']}: other rows train, validate or test now; bring the "
            "old split back, or "
            f"train a new run"
        )


def _restore(
    job: Job, checkpoint: Checkpoint, here: Mapping[str, str], recipe: Recipe
) -> TrainingProgress:
    progress = restore_run(job, checkpoint.state, str(checkpoint.folder))
    if checkpoint.best_is_lost:
        progress.best_metric = (
            math.nan
        )  # no weights have it any more: the next validation begins the search anew
    if why := why_not_identical(
        checkpoint.fingerprint, here, is_deterministic=recipe.train.deterministic
    ):
        say(f"warning: not bit-identical from here on: {why}")
    say(
        f"resume: from step {progress.step:,} (epoch {progress.epoch + 1}, batch "
        f"{progress.batch + 1})"
    )
    return progress


def why_not_identical(
    then: Mapping[str, str], here: Mapping[str, str], *, is_deterministic: bool
) -> str:
    """Why a run that goes on is not promised the bits of one that was never
    stopped; empty where it is.

    Args:
        then: fingerprint of the machine that wrote the checkpoint.
        here: fingerprint of this one.
        is_deterministic: `train.deterministic`.
    """
    if differs := sorted(name for name in here if then.get(name) != here[name]):
        return f"{', '.join(differs)} changed since the checkpoint"
    if here["device"] == "mps":
        return "on mps sums come in another order each time"
    if here["device"] == "cuda" and not is_deterministic:
        return (
            "on cuda sums come in another order each time; runs with train.deterministic do not "
            "have that"
        )
    return ""


def _note_resumption(
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


def _note_progress(
    run_dir: Path, journal: Journal, job: Job, progress: TrainingProgress, seconds: dict[str, float]
) -> None:
    update_record(
        run_dir,
        device=str(job.scorer.device),
        precision=job.scorer.precision.name,
        epochs=progress.epoch,
        steps=progress.step,
        metrics=journal.newest(),
        rows_per_second=round(progress.rows_per_second, 1),
        seconds=seconds,
    )


def _keep_weights(run_dir: Path, job: Job, store: CheckpointStore) -> None:
    """Write the last and the best weights and the optimizer's state as files
    of their own.
    """
    last = state_of(job.kept_model)
    best = store.load_best()
    folder = run_dir / WEIGHTS
    try:
        with rewriting(run_dir, LAST, BEST, OPTIMIZER):
            save_weights(last, run_dir / LAST)
            reach("train.last_written")
            save_weights(kept_weights(best.state) if best else last, run_dir / BEST)
            reach("train.best_written")
            save_weights(job.optimizer.state_dict(), run_dir / OPTIMIZER)
            reach("train.optimizer_written")
    except OSError as error:
        raise CheckpointError(
            f"weights cannot be written to {folder}: {describe_failure(error)}; then resume the run"
        ) from error
    update_record(run_dir, weights=str(run_dir / BEST), weights_sha256=sha256_of(last))


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
