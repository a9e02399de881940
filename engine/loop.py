"""The training loop.

Plain PyTorch over batches that somebody else prepares.

    at a step: batches -> gradients -> clip -> step -> average -> schedule -> report -> checkpoint
    after an epoch: validate -> compare with the best -> report -> checkpoint -> stop?

A checkpoint lies between two optimizer steps: the batches that one of them accumulates are never
torn apart. A validation that a signal interrupts is given up; the run that goes on begins with it.
It knows no files but the checkpoint store, no tracker and no data format.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

from ..errors import TrainingError
from ..faults import reach
from ..schema import Kind
from .checkpoints import CheckpointStore
from .evaluation import evaluate
from .gradients import grouped, take_step
from .job import Job, OnStep, Progress, state_of_run
from .losses import reduce_sum
from .metrics import metric_names
from .optim import after_epoch, after_step
from .signals import StopFlag, StopRequested
from .stopping import is_out_of_time, reason_to_stop

# How rows leave a metric of such a target undefined.
WHY_UNDEFINED: dict[Kind, str] = {
    "category": "a class without rows, or one class alone",
    "labels": "no row has a tag, or none has this one, or all have",
    "number": "a column whose true values are all the same",
    "points": "in no row do the true points span a distance to count errors in",
}


def train(
    job: Job,
    progress: Progress,
    store: CheckpointStore,
    on_step: OnStep,
    stop: StopFlag | None = None,
) -> str:
    """Train from where `progress` stands to the last epoch.

    `progress` is moved along in place.

    SIGTERM and SIGINT commit a checkpoint at the next step boundary, or where a validation is given
    up for them; then they do what they did before. A second signal does that at once, and the
    checkpoint before stays the last.

    Returns:
        Why it stopped before the last epoch, see `engine/stopping.py`; empty where it did not, or
        for a signal.
    Raises:
        NotFiniteError: the loss, or the norm of the gradients, is not finite; the weights are as
            before that step.
        CheckpointError: a checkpoint cannot be written, and the store does not only warn of that.
    """
    clock = _Clock(progress)
    with stop or StopFlag() as stop:
        while progress.epoch < job.num_epochs and not stop.requested:
            if reason := reason_to_stop(job, progress):
                _commit(job, progress, store)
                return reason
            job.scorer.model.train()
            if job.frozen is not None:
                job.frozen.hold(progress.epoch)
            started, rows_at_start = time.perf_counter(), progress.loss_rows
            for group in grouped(job.train_batches(progress.epoch, progress.batch), job.accumulate):
                learning_rate = float(job.optimizer.param_groups[0]["lr"])
                reach("train.batch_ready")
                taken = take_step(job, progress, group)
                reach("train.stepped")
                if job.average is not None and taken.changed:
                    job.average.update()
                after_step(job.scheduler)
                progress.step += 1
                progress.batch += taken.num_batches
                progress.loss_sum += taken.loss * (1 if job.reduction == "sum" else taken.num_rows)
                progress.loss_rows += taken.num_rows
                on_step(
                    progress, {"train/loss": taken.loss, "lr": learning_rate}, epoch_ended=False
                )
                reach("train.reported")
                clock.tick()
                epoch_is_done = progress.step % job.steps_per_epoch == 0
                if is_out_of_time(job, progress) and not epoch_is_done and not stop.requested:
                    try:
                        _judge(job, progress, store, on_step, {}, is_due=True, stop=stop)
                    except StopRequested:
                        _commit(job, progress, store)
                        return ""
                    return reason_to_stop(job, progress)
                if stop.requested or (job.every_steps and progress.step % job.every_steps == 0):
                    _commit(job, progress, store)
                if stop.requested:
                    return ""
            try:
                _end_epoch(
                    job,
                    progress,
                    store,
                    on_step,
                    time.perf_counter() - started,
                    rows_at_start,
                    stop,
                )
            except StopRequested:
                _commit(job, progress, store)
                return ""
            clock.tick()
            if stop.requested:
                _commit(job, progress, store)
    return ""


def check_monitor(job: Job, values: Mapping[str, float]) -> None:
    """Refuse a monitor that the validation rows leave undefined.

    Args:
        values: what was measured on them, as valid/<name>.
    Raises:
        TrainingError: says why, and what else may be monitored.
    """
    if job.monitor in values:
        return
    schema = job.scorer.schema
    others = [name for name in metric_names(schema) if name in values]
    raise TrainingError(
        f"checkpoint.monitor: {job.monitor} is not defined on these validation rows "
        f"({WHY_UNDEFINED[schema.target_kind]}); monitor another of {', '.join(others)}"
    )


def _end_epoch(
    job: Job,
    progress: Progress,
    store: CheckpointStore,
    on_step: OnStep,
    seconds: float,
    rows_at_start: int,
    stop: StopFlag,
) -> None:
    """Count the epoch, then judge the weights that it gave.

    Raises:
        StopRequested: the validation was given up; the epoch is not counted, as if its last step
            had just been taken.
    """
    before = replace(progress)
    num_rows = (
        progress.loss_rows - rows_at_start
    )  # none, where a run goes on with an epoch's validation
    rate = num_rows / max(seconds, 1e-9)
    progress.loss = reduce_sum(progress.loss_sum, progress.loss_rows, job.reduction)
    progress.epoch, progress.batch, progress.loss_sum, progress.loss_rows = (
        progress.epoch + 1,
        0,
        0.0,
        0,
    )
    progress.rows_per_second = max(progress.rows_per_second, rate)
    values = {"train/epoch_loss": progress.loss, **({"rows_per_second": rate} if num_rows else {})}
    reach("train.epoch_done")
    is_due = progress.epoch % job.every_epochs == 0 or progress.epoch == job.num_epochs
    try:
        _judge(job, progress, store, on_step, values, is_due=is_due, stop=stop)
    except StopRequested:
        for name, value in vars(before).items():
            setattr(progress, name, value)
        raise


def _judge(
    job: Job,
    progress: Progress,
    store: CheckpointStore,
    on_step: OnStep,
    values: dict[str, float],
    *,
    is_due: bool,
    stop: StopFlag,
) -> None:
    """Validate, report, and commit a checkpoint where one is due or the weights
    are the best so far.

    Raises:
        StopRequested: a signal came before the validation was through; nothing was changed or
            reported.
    """
    if job.monitor:
        values |= {f"valid/{name}": value for name, value in _validate(job, stop).items()}
        check_monitor(job, values)
        reach("train.validated")
    is_better = bool(job.monitor) and _is_better(
        values[job.monitor], progress.best_metric, job.monitor_mode
    )
    before = progress.best_metric, progress.best_epoch
    if is_better:
        progress.best_metric, progress.best_epoch = values[job.monitor], progress.epoch
    if job.monitor and progress.batch == 0:
        after_epoch(job.scheduler, values[job.monitor])
    on_step(progress, values, epoch_ended=True)
    if (is_due or is_better) and not _commit(job, progress, store, is_best=is_better):
        progress.best_metric, progress.best_epoch = before  # the best is the best that is kept


def _validate(job: Job, stop: StopFlag) -> dict[str, float]:
    scorer = replace(job.scorer, model=job.kept_model)
    return job.measure(evaluate(scorer, stop.watch(job.valid_batches())))


def _commit(job: Job, progress: Progress, store: CheckpointStore, is_best: bool = False) -> bool:
    """Save a checkpoint, unless the weights overflowed at this very step.

    The ones before it are the good ones.

    Where no rows validate, the last is the best.

    Returns:
        Whether it was saved; false where it failed and the store only warns of that.
    """
    if not all(bool(parameter.isfinite().all()) for parameter in job.scorer.model.parameters()):
        raise TrainingError(
            f"weights are not finite after step {progress.step}; no checkpoint was written, the "
            "run goes on from the "
            "one before. A smaller learning rate, train.clip_norm or train.precision fp32 may "
            "mend it"
        )
    return (
        store.save(state_of_run(job, progress), progress.step, is_best=is_best or not job.monitor)
        is not None
    )


def _is_better(value: float, best: float, mode: str) -> bool:
    if math.isnan(best):
        return not math.isnan(value)
    return value > best if mode == "max" else value < best


class _Clock:
    """Adds the time that passes to `progress.seconds`, which goes on
    counting in a resumed run.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._last = progress, time.perf_counter()

    def tick(self) -> None:
        """Count the time since the last tick."""
        now = time.perf_counter()
        self._progress.seconds += now - self._last
        self._last = now
