"""The training task: open the run's pack and checkpoint, build the job, run the loop, keep the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from prefect import task

from ..datasets.build import open_view
from ..engine.checkpoint import Checkpoint, CheckpointStore
from ..engine.devices import fingerprint, pick_device
from ..engine.gradients import NotFiniteError
from ..engine.job import Job, kept_weights, restore_run
from ..engine.job import Progress as TrainingProgress
from ..engine.loop import train
from ..engine.memory import keep_freed_memory
from ..engine.metrics import HEADLINES, RANKED_HEADLINE
from ..engine.weights import save_weights, sha256_of, state_of
from ..faults import reach
from ..recipe import load_recipe
from ..tracking.journal import Journal, thin
from ..tracking.mlflow_run import MlflowRun
from ..tracking.recorder import Recorder
from ..tracking.records import load_record, update_record
from .assemble import build_job, name_table_rows
from .console import Progress, say
from .options import UNCACHED
from .warm_start import load_start


@task(**UNCACHED)
def train_model(run_dir: Path) -> None:
    """Train a run from its last checkpoint, or from the start, to its last epoch or until there is reason to stop.

    Writes checkpoints, `weights/last.pt`, `weights/best.pt`, `weights/optimizer.pt` and the journal into the run's
    folder. Does nothing more where the epochs are done already.

    Raises:
        TrainingError: the loss is not finite; names the step and the rows.
        RecipeError: model, optimizer or monitor does not fit the data.
        CheckpointError: a checkpoint cannot be written, and `checkpoint.on_error` is stop.
    """
    reach("train.begun")
    record, recipe = load_record(run_dir), load_recipe(run_dir / "recipe.yaml")
    view = open_view(Path(record.pack_dir), Path(record.split_dir))
    keep_freed_memory()
    here = fingerprint(pick_device(recipe.train.device))
    keep, on_error = recipe.checkpoint.keep, recipe.checkpoint.on_error
    store = CheckpointStore(run_dir / "checkpoints", keep, {"run_id": run_dir.name}, here, on_error)
    checkpoint = store.load_last()
    start = load_start(run_dir, recipe) if checkpoint is None else None
    job = build_job(recipe, view, record.schedule_epochs, is_new=checkpoint is None, start=start)
    progress = TrainingProgress() if checkpoint is None else _restore(job, checkpoint, here)
    reach("train.restored")
    tracker = MlflowRun.of(record)
    say(f"train: {recipe.model.name} on {job.scorer.device} in {job.scorer.precision.name}, {job.num_epochs} epochs")
    if recipe.train.deterministic and job.scorer.device.type == "mps":
        say("warning: train.deterministic has no effect on mps")
    started = time.perf_counter()
    with Journal(run_dir / "journal.jsonl") as journal, Progress("train", "steps") as bar:
        num_steps = job.num_epochs * job.steps_per_epoch
        recorder = Recorder(journal, tracker, thin(recipe.tracking.every_steps, num_steps))
        if progress.step:
            recorder.replay()

        def on_step(progress: TrainingProgress, values: dict[str, float], epoch_ended: bool) -> None:
            if not epoch_ended:
                recorder.log_step(progress.step, progress.epoch, values)
                bar.update(progress.step, num_steps, f"loss {values['train/loss']:.4f}")
                return
            recorder.log_epoch(progress.step, progress.epoch, values)
            say(_epoch_line(progress, job.num_epochs, values))

        try:
            if stopped := train(job, progress, store, on_step):
                journal.append_event("stopped", step=progress.step, epoch=progress.epoch, reason=stopped)
                say(f"stopped: {stopped}")
        except NotFiniteError as error:
            raise name_table_rows(error, view) from error
        finally:
            recorder.flush()
            if store.failures:
                kinds = ", ".join(f"{count:,} x {kind}" for kind, count in store.failures.items())
                say(f"warning: checkpoints could not be written ({kinds}); the last one that was is intact")
            seconds = record.seconds.get("train", 0.0) + time.perf_counter() - started
            _note_progress(run_dir, job, progress, {**record.seconds, "train": round(seconds, 3)})
    reach("train.loop_done")
    update_record(run_dir, stopped=stopped)
    _keep_weights(run_dir, job, store)
    recorder.log_artifacts(run_dir / "weights", "weights")
    reach("train.done")


def _restore(job: Job, checkpoint: Checkpoint, here: Mapping[str, str]) -> TrainingProgress:
    progress = restore_run(job, checkpoint.state)
    if checkpoint.best_is_lost:
        progress.best_metric = math.nan  # no weights have it any more: the next validation begins the search anew
    differs = sorted(name for name in here if checkpoint.fingerprint.get(name) != here[name])
    if differs:
        say(f"warning: not bit-identical from here on: {', '.join(differs)} changed since the checkpoint")
    say(f"resume: from step {progress.step:,} (epoch {progress.epoch + 1}, batch {progress.batch + 1})")
    return progress


def _note_progress(run_dir: Path, job: Job, progress: TrainingProgress, seconds: dict[str, float]) -> None:
    lines = Journal(run_dir / "journal.jsonl").points()
    metrics = {point.key: point.value for point in lines}
    update_record(
        run_dir,
        device=str(job.scorer.device),
        precision=job.scorer.precision.name,
        epochs=progress.epoch,
        steps=progress.step,
        metrics=metrics,
        rows_per_second=round(progress.rows_per_second, 1),
        seconds=seconds,
    )


def _keep_weights(run_dir: Path, job: Job, store: CheckpointStore) -> None:
    """Write the last and the best weights and the optimizer's state as files of their own."""
    last = state_of(job.kept_model)
    best = store.load_best()
    folder = run_dir / "weights"
    save_weights(last, folder / "last.pt")
    reach("train.last_written")
    save_weights(kept_weights(best.state) if best else last, folder / "best.pt")
    reach("train.best_written")
    save_weights(job.optimizer.state_dict(), folder / "optimizer.pt")
    reach("train.optimizer_written")
    update_record(run_dir, weights=str(folder / "best.pt"), weights_sha256=sha256_of(last))


def _epoch_line(progress: TrainingProgress, num_epochs: int, values: dict[str, float]) -> str:
    names = ("valid/loss", *(f"valid/{name}" for name in dict.fromkeys([*HEADLINES.values(), RANKED_HEADLINE])))
    shown = {name: values[name] for name in names if name in values}
    valid = "".join(f"  {name.replace('/', ' ')} {value:.4f}" for name, value in shown.items())
    if progress.batch:
        return f"epoch {progress.epoch + 1}/{num_epochs}, batch {progress.batch}{valid}"
    rate = f"{values['rows_per_second']:,.0f} rows/s"
    return f"epoch {progress.epoch}/{num_epochs}  train loss {progress.loss:.4f}{valid}  {rate}"
