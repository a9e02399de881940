"""The training loop.

Plain PyTorch over batches that somebody else prepares.

    at a step: batches -> gradients -> clip -> step -> average -> schedule -> report -> pause
    after an epoch: validate -> compare with the best -> report -> pause
    at a pause: checkpoint? -> stop?

A checkpoint lies between two optimizer steps: the batches that one of them accumulates are never
torn apart. A validation that a signal interrupts is given up; the run that goes on begins with it.
It knows no files but the checkpoint store, no tracker and no data format.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ..errors import TrainingError
from ..faults import reach
from ..schema import Batch
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
WHY_UNDEFINED: dict[str, str] = {
    "category": "a class without rows, or one class alone",
    "labels": "no row has a tag, or none has this one, or all have",
    "number": "a column whose true values are all the same",
    "points": "in no row do the true points span a distance to count errors in",
}


class Pause(NamedTuple):
    """A place between two steps where a checkpoint can lie.

    Attributes:
        is_due: a checkpoint is to be written.
        replaced: the best metric and its epoch before the weights became the best; None where they
            did not.
        reason: why the training ends here; empty where it goes on.
    """

    is_due: bool = False
    replaced: tuple[float, int] | None = None
    reason: str = ""


INTERRUPTED = Pause()


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
    with stop or StopFlag() as stop:
        if stop.requested:
            return ""
        for pause in _run(job, progress, on_step, stop):
            if pause.is_due or stop.requested:
                _commit(job, progress, store, pause)
                # A signal that comes later stops at the next pause, after its checkpoint.
                if stop.requested:
                    return ""
            if pause.reason:
                return pause.reason
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
        f"({WHY_UNDEFINED[schema.target_facts.learned_as]}); monitor another of {', '.join(others)}"
    )


def _run(job: Job, progress: Progress, on_step: OnStep, stop: StopFlag) -> Iterator[Pause]:
    """Train step by step, and pause after each."""
    clock = _Clock(progress)
    while progress.epoch < job.num_epochs:
        if reason := reason_to_stop(job, progress):
            yield Pause(is_due=True, reason=reason)
        job.scorer.model.train()
        if job.frozen is not None:
            job.frozen.hold(progress.epoch)
        started, rows_at_start = time.perf_counter(), progress.loss_rows
        for group in grouped(job.train_batches(progress.epoch, progress.batch), job.accumulate):
            _take_step(job, progress, on_step, group)
            clock.tick()
            epoch_is_done = progress.step % job.steps_per_epoch == 0
            if is_out_of_time(job, progress) and not epoch_is_done and not stop.requested:
                yield _judge(job, progress, on_step, {}, is_due=True, stop=stop)
                yield Pause(reason=reason_to_stop(job, progress))
            yield Pause(is_due=bool(job.every_steps) and progress.step % job.every_steps == 0)
        num_rows = progress.loss_rows - rows_at_start  # none where only the validation was left
        rate = num_rows / max(time.perf_counter() - started, 1e-9)
        pause = _end_epoch(job, progress, on_step, rate if num_rows else None, stop)
        clock.tick()
        yield pause
        clock.tick()


def _take_step(job: Job, progress: Progress, on_step: OnStep, group: Iterable[Batch]) -> None:
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
    on_step(progress, {"train/loss": taken.loss, "lr": learning_rate}, epoch_ended=False)
    reach("train.reported")


def _end_epoch(
    job: Job, progress: Progress, on_step: OnStep, rate: float | None, stop: StopFlag
) -> Pause:
    """Count the epoch, then judge the weights that it gave.

    Where a signal comes before the validation is through, the epoch is not counted, as if its last
    step had just been taken.

    Args:
        job, progress, on_step, stop: see `train`.
        rate: rows that were trained on in a second; None where there were none.
    """
    before = replace(progress)
    progress.loss = reduce_sum(progress.loss_sum, progress.loss_rows, job.reduction)
    progress.epoch += 1
    progress.batch, progress.loss_sum, progress.loss_rows = 0, 0.0, 0
    values = {"train/epoch_loss": progress.loss}
    if rate is not None:
        progress.rows_per_second = max(progress.rows_per_second, rate)
        values["rows_per_second"] = rate
    reach("train.epoch_done")
    is_due = progress.epoch % job.every_epochs == 0 or progress.epoch == job.num_epochs
    pause = _judge(job, progress, on_step, values, is_due=is_due, stop=stop)
    if pause is INTERRUPTED:
        for name, value in vars(before).items():
            setattr(progress, name, value)
    return pause


def _judge(
    job: Job,
    progress: Progress,
    on_step: OnStep,
    values: dict[str, float],
    *,
    is_due: bool,
    stop: StopFlag,
) -> Pause:
    """Validate and report, and say whether a checkpoint is due.

    One is where the weights are the best so far, too.

    Returns:
        `INTERRUPTED` where a signal came before the validation was through; nothing was changed or
        reported then.
    """
    if job.monitor:
        try:
            measured = _validate(job, stop)
        except StopRequested:
            return INTERRUPTED
        values |= {f"valid/{name}": value for name, value in measured.items()}
        check_monitor(job, values)
        reach("train.validated")
    replaced: tuple[float, int] | None = None
    if job.monitor and _is_better(values[job.monitor], progress.best_metric, job.monitor_mode):
        replaced = progress.best_metric, progress.best_epoch
        progress.best_metric, progress.best_epoch = values[job.monitor], progress.epoch
    if job.monitor and progress.batch == 0:
        after_epoch(job.scheduler, values[job.monitor])
    on_step(progress, values, epoch_ended=True)
    return Pause(is_due or replaced is not None, replaced)


def _validate(job: Job, stop: StopFlag) -> dict[str, float]:
    scorer = replace(job.scorer, model=job.kept_model)
    return job.measure(evaluate(scorer, stop.watch(job.valid_batches())))


def _commit(job: Job, progress: Progress, store: CheckpointStore, pause: Pause) -> None:
    """Save a checkpoint, unless the weights overflowed at this very step.

    The ones before it are the good ones.

    Where no rows validate, the last is the best. Where the checkpoint cannot be written and the
    store only warns of that, the best is the one before, which is kept.
    """
    if not all(bool(parameter.isfinite().all()) for parameter in job.scorer.model.parameters()):
        raise TrainingError(
            f"weights are not finite after step {progress.step}; no checkpoint was written, the "
            "run goes on from the "
            "one before. A smaller learning rate, train.clip_norm or train.precision fp32 may "
            "mend it"
        )
    is_best = pause.replaced is not None or not job.monitor
    saved = store.save(state_of_run(job, progress), progress.step, is_best=is_best)
    if saved is None and pause.replaced is not None:
        progress.best_metric, progress.best_epoch = pause.replaced


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
