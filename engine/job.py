"""What the training loop works with, where it stands, and both as the
contents of a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from ..errors import CheckpointError, SourceError
from ..schema import Batch
from ..weights import check_state
from .evaluation import Measure, Scorer
from .hardware import Lowered, random_states, set_random_states
from .losses import Loss, Reduction
from .optim import Average, Frozen, Stepper, restore_schedule


class Batches(Protocol):
    """Batches of one epoch from a batch position on, ready for the model.

    On its device, augmented, standardised.
    """

    def __call__(self, epoch: int, start_batch: int) -> Iterable[Batch]:
        """The batches of an epoch, counted from 0."""
        ...


class OnStep(Protocol):
    """Where reports go. At a step.

    `train/loss` and `lr`. At an epoch's end: `train/epoch_loss`, `valid/…` and

    `rows_per_second`, which an epoch lacks that was trained before the run went on.
    """

    def __call__(self, progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        """Take what was measured at this step, or over the epoch that it
        ended.
        """
        ...


@dataclass
class Progress:
    """Where a run is.

    Part of every checkpoint.

    Attributes:
        epoch: epochs that are done.
        batch: batches done in the epoch after them.
        step: optimizer steps done, those among them that fp16's scaler skipped.
        loss_sum, loss_rows: training loss so far in this epoch, and its rows.
        loss: training loss of the last whole epoch, the mean over its rows or, see `Job.reduction`,
            their sum.
        best_metric: of the monitored metric; NaN before there is one.
        best_epoch: epochs that were done when it was found.
        rows_per_second: training, the best epoch.
        seconds: spent in the loop, validation and checkpoints among it, over all resumes.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_rows: int = 0
    loss: float = math.nan
    best_metric: float = math.nan
    best_epoch: int = 0
    rows_per_second: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """All that the training loop works with.

    Attributes:
        loss: what is minimised, one value a row, shape (B,); `scorer.loss` is what evaluations
            report.
        reduction: whether a step minimises, and reports give, the mean of the rows' losses or their
            sum.
        accumulate: batches that make one optimizer step.
        steps_per_epoch: optimizer steps; the last one of an epoch may have fewer batches.
        frozen: parameters that are not trained, or not yet.
        average: of the weights; where there is one, it is what is validated and kept.
        scaler: of the loss, for fp16; switched off in other precisions, where it changes and costs
            nothing.
        monitor: name of the metric that decides which checkpoint is best; empty where no rows
            validate.
        monitor_mode: max or min.
        measure: the metrics of an evaluation of the validation rows.
        every_epochs, every_steps: when a checkpoint is due; 0 steps means at epochs alone.
        early_stop_epochs: see `engine/stopping.py`; 0 means never.
        max_seconds: of training, over all resumes; 0 means no limit.
        facts: what else a checkpoint says of its run: ids, recipe. One of another
            `data_fingerprint` is refused.
    """

    scorer: Scorer
    loss: Loss
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    train_batches: Batches
    valid_batches: Callable[[], Iterable[Batch]]
    measure: Measure
    num_epochs: int
    steps_per_epoch: int
    reduction: Reduction = "mean"
    accumulate: int = 1
    frozen: Frozen | None = None
    average: Average | None = None
    scaler: GradScaler = field(default_factory=lambda: GradScaler("cpu", enabled=False))
    clip_norm: float = 0.0
    monitor: str = ""
    monitor_mode: str = "max"
    every_epochs: int = 1
    every_steps: int = 0
    early_stop_epochs: int = 0
    max_seconds: float = 0.0
    facts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def stepper(self) -> Stepper:
        """What steps the optimizer."""
        return Stepper(self.optimizer)

    @cached_property
    def lowered(self) -> Lowered:
        """What gives layers low-precision weights for computing gradients."""
        return Lowered(self.scorer.model, self.scorer.precision.autocast)

    @property
    def kept_model(self) -> nn.Module:
        """The model that is validated and kept.

        The averaged one where there is one.
        """
        return self.scorer.model if self.average is None else self.average.model


def state_of_run(job: Job, progress: Progress) -> dict[str, Any]:
    """Everything that a resumed run needs, as tensors and plain values."""
    state = {
        **asdict(progress),
        "facts": dict(job.facts),
        "model_state_dict": job.scorer.model.state_dict(),
        "optimizer_state_dict": job.optimizer.state_dict(),
        "scheduler_state_dict": job.scheduler.state_dict(),
        "random_states": random_states(),
    }
    if job.average is not None:
        state["average_state_dict"] = job.average.state_dict()
    if job.scaler.is_enabled():
        state["scaler_state_dict"] = job.scaler.state_dict()
    return state


def restore_run(job: Job, state: dict[str, Any], place: str = "") -> Progress:
    """Put a job into the state that `state_of_run` gave, and say where it
    stands.

    Args:
        job: as it was built.
        state: of a checkpoint.
        place: its folder, for messages.

    Raises:
        CheckpointError: it was trained on other data, or has other parameters than the job's model,
            or such as are not finite.
    """
    then, now = (facts.get("data_fingerprint") for facts in (state.get("facts", {}), job.facts))
    if then and now and then != now:
        raise CheckpointError(
            f"the checkpoint of step {state['step']} was trained on data with the fingerprint "
            f"{then}, the pack has "
            f"{now}: bring the old pack back, or train a new run"
        )
    _check_values(job, state, place or f"the checkpoint of step {state['step']}")
    progress = Progress(
        **{name: state[name] for name in Progress.__dataclass_fields__ if name in state}
    )
    try:
        job.scorer.model.load_state_dict(state["model_state_dict"])
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint of step {state['step']} does not fit the model: {error}; bring back "
            "the code that it was "
            f"trained with, or train a new run"
        ) from error
    decays = [group.get("weight_decay") for group in job.optimizer.param_groups]
    job.optimizer.load_state_dict(state["optimizer_state_dict"])
    for group, decay in zip(job.optimizer.param_groups, decays, strict=True):
        if decay is not None:
            group["weight_decay"] = (
                decay  # the recipe's, which may have changed; so may the rate, see below
            )
    restore_schedule(job.scheduler, state["scheduler_state_dict"], progress.step)
    if job.average is not None:
        job.average.load_state_dict(state["average_state_dict"])
    if (
        job.scaler.is_enabled() and "scaler_state_dict" in state
    ):  # else the run had another precision
        job.scaler.load_state_dict(state["scaler_state_dict"])
    set_random_states(state["random_states"])
    return progress


def _check_values(job: Job, state: dict[str, Any], place: str) -> None:
    try:
        check_state(job.scorer.model.state_dict(), state["model_state_dict"], place)
        if job.average is not None:
            check_state(
                job.average.model.state_dict(),
                state["average_state_dict"]["model_state_dict"],
                place,
            )
    except SourceError as error:
        raise CheckpointError(f"{error}; or train a new run") from error


def kept_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The `state_dict` of `Job.kept_model` in a checkpoint.

    Averaged where the run averages.
    """
    return state.get("average_state_dict", state)["model_state_dict"]
