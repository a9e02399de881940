"""The training loop and the evaluation pass: plain PyTorch over batches that somebody else prepares.

    zero gradients -> forward -> loss -> finite? -> backward -> clip -> step -> schedule -> report -> checkpoint

It knows no files but the checkpoint store, no tracker and no data format.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..schema import Batch, Schema
from .checkpoint import CheckpointStore
from .devices import Precision
from .metrics import compute_metrics
from .optimizers import needs_closure
from .signals import StopFlag


class Batches(Protocol):
    """Batches of one epoch from a batch position on, ready for the model: on its device, augmented, standardised."""

    def __call__(self, epoch: int, start_batch: int) -> Iterable[Batch]:
        """The batches of an epoch, counted from 0."""
        ...


class OnStep(Protocol):
    """Where reports go. At a step: `train/loss` and `lr`. At an epoch's end: `rows_per_second` and `valid/…` too."""

    def __call__(self, progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        """Take what was measured at this step, or over the epoch that it ended."""
        ...


@dataclass
class Progress:
    """Where a run is; part of every checkpoint.

    Attributes:
        epoch: epochs that are done.
        batch: batches done in the epoch after them.
        step: optimizer steps done.
        loss_sum, loss_rows: training loss so far in this epoch, and its rows.
        loss: mean training loss of the last whole epoch.
        best_metric: of the monitored metric; NaN before there is one.
        rows_per_second: training, the best epoch.
        seconds: spent in training steps.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_rows: int = 0
    loss: float = math.nan
    best_metric: float = math.nan
    rows_per_second: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Scorer:
    """A model with all that it takes to score batches.

    Attributes:
        loss: (outputs, target) to one loss a row, shape (B,).
    """

    schema: Schema
    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    device: torch.device
    precision: Precision


@dataclass(frozen=True)
class Job:
    """All that the training loop works with.

    Attributes:
        monitor: name of the metric that decides which checkpoint is best; empty where no rows validate.
        monitor_mode: max or min.
        every_epochs, every_steps: when a checkpoint is due; 0 steps means at epochs alone.
        measure: the metrics of an evaluation of the validation rows; None means `compute_metrics`, which is enough
            where outputs, target and losses say all.
    """

    scorer: Scorer
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    train_batches: Batches
    valid_batches: Callable[[], Iterable[Batch]]
    num_epochs: int
    steps_per_epoch: int
    clip_norm: float = 0.0
    monitor: str = ""
    monitor_mode: str = "max"
    every_epochs: int = 1
    every_steps: int = 0
    measure: Measure | None = None


class Evaluation(NamedTuple):
    """Outputs of a pass without training, on the CPU, in the order of the batches.

    Attributes:
        rows: (N,) int64, positions in the pack.
        outputs: (N, K) or (N, D) float32 or float64.
        target: (N,) int64 or (N, D) float.
        losses: (N,) float.
    """

    rows: Tensor
    outputs: Tensor
    target: Tensor
    losses: Tensor


Measure = Callable[[Evaluation], dict[str, float]]


def train(job: Job, progress: Progress, store: CheckpointStore, on_step: OnStep) -> None:
    """Train from where `progress` stands to the last epoch; `progress` is moved along in place.

    SIGTERM and SIGINT commit a checkpoint at the next step boundary, then do what they did before.

    Raises:
        TrainingError: the loss, or the norm of the gradients, is not finite; the weights are as before that step.
        CheckpointError: a checkpoint cannot be written.
    """
    scorer, optimizer = job.scorer, job.optimizer
    with StopFlag() as stop:
        while progress.epoch < job.num_epochs and not stop.requested:
            scorer.model.train()
            started, rows_at_start = time.perf_counter(), progress.loss_rows
            for batch in job.train_batches(progress.epoch, progress.batch):
                loss = _backward(job, progress, batch)
                if job.clip_norm:
                    _clip(job, progress, batch)
                if needs_closure(optimizer):
                    optimizer.step(lambda batch=batch: _backward(job, progress, batch).item())
                else:
                    optimizer.step()
                learning_rate = float(optimizer.param_groups[0]["lr"])
                job.scheduler.step()
                num_rows, value = len(batch.rows), loss.item()
                progress.step += 1
                progress.batch += 1
                progress.loss_sum += value * num_rows
                progress.loss_rows += num_rows
                on_step(progress, {"train/loss": value, "lr": learning_rate}, epoch_ended=False)
                if stop.requested or (job.every_steps and progress.step % job.every_steps == 0):
                    _commit(job, progress, store)
                if stop.requested:
                    return
            _end_epoch(job, progress, store, on_step, time.perf_counter() - started, rows_at_start)
            if stop.requested:
                _commit(job, progress, store)


def evaluate(scorer: Scorer, batches: Iterable[Batch]) -> Evaluation:
    """Run the model over batches without training; its modes and all random states are as before afterwards."""
    parts: list[Evaluation] = []
    with _evaluating(scorer.model, scorer.device), torch.inference_mode():
        for batch in batches:
            with _autocast(scorer):
                outputs = scorer.model(*batch.inputs)
            losses = scorer.loss(outputs, batch.target)
            outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
            parts.append(Evaluation(batch.rows, outputs.cpu(), batch.target.cpu(), losses.cpu()))
    return Evaluation(*(torch.cat(column) for column in zip(*parts, strict=True)))


def state_of_run(job: Job, progress: Progress) -> dict[str, Any]:
    """Everything that a resumed run needs, as tensors and plain values."""
    return {
        **asdict(progress),
        "model_state_dict": job.scorer.model.state_dict(),
        "optimizer_state_dict": job.optimizer.state_dict(),
        "scheduler_state_dict": job.scheduler.state_dict(),
        "random_states": random_states(),
    }


def restore_run(job: Job, state: dict[str, Any]) -> Progress:
    """Put a job into the state that `state_of_run` gave, and say where it stands."""
    job.scorer.model.load_state_dict(state["model_state_dict"])
    job.optimizer.load_state_dict(state["optimizer_state_dict"])
    job.scheduler.load_state_dict(state["scheduler_state_dict"])
    set_random_states(state["random_states"])
    return Progress(**{name: state[name] for name in Progress.__dataclass_fields__})


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as plain values that a safe load accepts."""
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set the generators as `random_states` found them."""
    random.setstate(states["python"])
    numpy_state = states["numpy"]
    key = numpy_state["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy_state["pos"], numpy_state["has_gauss"], numpy_state["gauss"]))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])


def _backward(job: Job, progress: Progress, batch: Batch) -> Tensor:
    """Gradients of the mean loss of a batch; the loss itself, checked to be finite before anything is changed."""
    job.optimizer.zero_grad(set_to_none=True)
    with _autocast(job.scorer):
        outputs = job.scorer.model(*batch.inputs)
    losses = job.scorer.loss(outputs, batch.target)
    loss = losses.mean()
    if not math.isfinite(loss.item()):
        bad = ~losses.detach().isfinite().cpu()
        _stop_not_finite(progress, f"the loss is {loss.item()}", batch.rows[bad] if bad.any() else batch.rows)
    loss.backward()
    return loss.detach()


def _clip(job: Job, progress: Progress, batch: Batch) -> None:
    norm = nn.utils.clip_grad_norm_(job.scorer.model.parameters(), job.clip_norm).item()
    if not math.isfinite(norm):
        _stop_not_finite(progress, f"the norm of the gradients is {norm}", batch.rows)


def _stop_not_finite(progress: Progress, what: str, rows: Tensor) -> None:
    raise NotFiniteError(f"{what} at step {progress.step + 1} (epoch {progress.epoch + 1})", rows.tolist(), "pack")


class NotFiniteError(TrainingError):
    """The loss or the norm of the gradients is NaN or infinite; no weight was changed by it.

    Args:
        what: what is not finite, and at which step.
        rows: that caused it.
        place: what `rows` are positions in.
    """

    def __init__(self, what: str, rows: list[int], place: str) -> None:
        shown = ", ".join(str(row) for row in rows[:10]) + (", …" if len(rows) > 10 else "")
        super().__init__(
            f"{what}, from these rows of the {place}: {shown}. No weight was changed by it; look at those rows, "
            f"or try a smaller learning rate, train.clip_norm, or train.precision fp32"
        )
        self.what = what
        self.rows = rows


def _end_epoch(
    job: Job, progress: Progress, store: CheckpointStore, on_step: OnStep, seconds: float, rows_at_start: int
) -> None:
    """Count the epoch, validate, report, and commit a checkpoint where one is due or the best so far."""
    rate = (progress.loss_rows - rows_at_start) / max(seconds, 1e-9)
    progress.loss = progress.loss_sum / max(progress.loss_rows, 1)
    progress.epoch, progress.batch, progress.loss_sum, progress.loss_rows = progress.epoch + 1, 0, 0.0, 0
    progress.rows_per_second = max(progress.rows_per_second, rate)
    progress.seconds += seconds
    values = {"train/epoch_loss": progress.loss, "rows_per_second": rate}
    if job.monitor:
        found = evaluate(job.scorer, job.valid_batches())
        values |= {f"valid/{name}": value for name, value in _measure(job, found).items()}
        if job.monitor not in values:
            raise TrainingError(
                f"checkpoint.monitor: {job.monitor} is not defined on these validation rows (a class without rows, or "
                f"one class alone); monitor another of {', '.join(sorted(name for name in values if '/' in name))}"
            )
    is_better = bool(job.monitor) and _is_better(values[job.monitor], progress.best_metric, job.monitor_mode)
    if is_better:
        progress.best_metric = values[job.monitor]
    on_step(progress, values, epoch_ended=True)
    if is_better or progress.epoch % job.every_epochs == 0 or progress.epoch == job.num_epochs:
        _commit(job, progress, store, is_best=is_better or not job.monitor)


def _commit(job: Job, progress: Progress, store: CheckpointStore, is_best: bool = False) -> None:
    """Save a checkpoint, unless the weights overflowed at this very step: the ones before it are the good ones."""
    if not all(bool(parameter.isfinite().all()) for parameter in job.scorer.model.parameters()):
        raise TrainingError(
            f"weights are not finite after step {progress.step}; no checkpoint was written, the run goes on from the "
            f"one before. A smaller learning rate, train.clip_norm or train.precision fp32 may mend it"
        )
    store.save(state_of_run(job, progress), progress.step, is_best=is_best)


def _measure(job: Job, found: Evaluation) -> dict[str, float]:
    if job.measure is not None:
        return job.measure(found)
    return compute_metrics(job.scorer.schema, found.outputs, found.target, found.losses)


def _is_better(value: float, best: float, mode: str) -> bool:
    return math.isnan(best) or (value > best if mode == "max" else value < best)


def _autocast(scorer: Scorer) -> contextlib.AbstractContextManager[Any]:
    if scorer.precision.autocast is None:
        return contextlib.nullcontext()
    return torch.autocast(scorer.device.type, dtype=scorer.precision.autocast)


@contextlib.contextmanager
def _evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode; each module's own mode and the random states come back afterwards."""
    modes = {module: module.training for module in model.modules()}
    states = random_states()
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        set_random_states(states)
