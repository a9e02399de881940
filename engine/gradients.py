"""One optimizer step over one batch or several.

Gradients, checked, scaled and clipped, and what is done with them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..schema import Batch
from .evaluation import autocast
from .job import Job, Progress
from .losses import reduce_sum
from .optim import needs_closure

# fp16's gradients overflow now and then while the scaler looks for a scale; at this one they would
# in fp32 too.
SMALLEST_SCALE = 1.0


class Taken(NamedTuple):
    """What a step was made from.

    Attributes:
        loss: mean over its rows, or their sum, as `Job.reduction` says.
        num_rows, num_batches: how many.
        changed: whether the weights were changed; false where fp16's scaler skipped the step.
    """

    loss: float
    num_rows: int
    num_batches: int
    changed: bool = True


def grouped(batches: Iterable[Batch], size: int) -> Iterator[Iterable[Batch]]:
    """The batches of each step, `size` of them or, in the last, the rest.

    Gathered as they are used.
    """
    rest = iter(batches)
    for first in rest:
        group = itertools.chain((first,), itertools.islice(rest, size - 1))
        del (
            first
        )  # so that the next batch may take its place in memory, and in the processor's cache
        yield group
        del group


def take_step(job: Job, progress: Progress, group: Iterable[Batch]) -> Taken:
    """Change the weights by the gradient of the mean, or the sum, of the loss
    over all rows of a group of batches.

    Raises:
        NotFiniteError: the loss, or the norm of the gradients, is not finite; the weights are as
            before.
    """
    optimizer, scaler = job.optimizer, job.scaler
    if needs_closure(optimizer):
        batches = list(group)
        taken, _ = _backward(job, progress, batches)
        optimizer.step(lambda: _backward(job, progress, batches)[0].loss)
        return taken
    taken, rows = _backward(job, progress, group)
    if job.clip_norm:
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(job.scorer.model.parameters(), job.clip_norm).item()
        if not math.isfinite(norm) and not scaler.is_enabled():
            _stop(progress, f"the norm of the gradients is {norm}", rows)
    if not scaler.is_enabled():
        job.stepper.step()
        return taken
    scaler.step(optimizer)
    return taken._replace(changed=_rescale(job, progress, rows))


def _backward(job: Job, progress: Progress, group: Iterable[Batch]) -> tuple[Taken, list[Tensor]]:
    """Gradients of the reduced loss over the rows of a group.

    Each loss is checked before anything is changed.
    """
    job.stepper.zero_grad()
    rows: list[Tensor] = []
    is_summed = job.reduction == "sum"
    num_rows = expected_rows = 0
    loss_sum = 0.0
    for batch in group:
        with job.lowered.with_low_precision_weights():
            losses = _losses(job, batch)
            loss, size = losses.mean(), len(batch.rows)
            value = loss.item()
            if not math.isfinite(value):
                bad = ~losses.detach().isfinite().cpu()
                _stop(
                    progress, f"the loss is {value}", [batch.rows[bad] if bad.any() else batch.rows]
                )
            expected_rows = expected_rows or job.accumulate * size
            if is_summed:
                loss = losses.sum()
            elif size != expected_rows:
                loss = loss * (size / expected_rows)
            job.scaler.scale(loss).backward()
        rows.append(batch.rows)
        num_rows += size
        loss_sum += value * size
    if num_rows != expected_rows and not is_summed:  # fewer batches than usual, or of other sizes
        for parameter in job.scorer.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(expected_rows / num_rows)
    return Taken(reduce_sum(loss_sum, num_rows, job.reduction), num_rows, len(rows)), rows


def _losses(job: Job, batch: Batch) -> Tensor:
    """Loss of each row, shape (B,).

    That of a row that was mixed with another is in proportion that of both classes.
    """
    measure = _measure(job, batch)
    losses = measure(batch.target)
    if batch.mix is None or batch.mixed_target is None:
        return losses
    return torch.lerp(measure(batch.mixed_target), losses, batch.mix.to(losses.dtype))


def _measure(job: Job, batch: Batch) -> Callable[[Tensor], Tensor]:
    """What gives each row's loss for a target.

    The recipe's, or the model's own.
    """
    own = getattr(
        job.scorer.model, "training_losses", None
    )  # see `TrainsItself` in models/registry.py
    if own is None:
        with autocast(job.scorer):
            outputs = job.scorer.model(*batch.inputs)
        return lambda target: job.loss(outputs, target)

    def measure(target: Tensor) -> Tensor:
        with autocast(job.scorer):
            return own(batch.inputs, target, job.loss)

    return measure


def _rescale(job: Job, progress: Progress, rows: list[Tensor]) -> bool:
    """Let fp16's scaler choose its next scale.

    Whether the step before was taken. Waits for the device.
    """
    before = job.scaler.get_scale()
    job.scaler.update()
    after = job.scaler.get_scale()
    if after < SMALLEST_SCALE:
        _stop(progress, f"gradients are not finite at a loss scale of {before:g}", rows)
    return after >= before


def _stop(progress: Progress, what: str, rows: list[Tensor]) -> None:
    where = f"{what} at step {progress.step + 1} (epoch {progress.epoch + 1})"
    raise NotFiniteError(where, torch.cat(rows).tolist(), "pack")


class NotFiniteError(TrainingError):
    """The loss or the gradients are NaN or infinite.

    No weight was changed by it.

    Args:
        what: what is not finite, and at which step.
        rows: that caused it.
        place: what `rows` are positions in.
    """

    def __init__(self, what: str, rows: list[int], place: str) -> None:
        shown = ", ".join(str(row) for row in rows[:10]) + (", …" if len(rows) > 10 else "")
        super().__init__(
            f"{what}, from these rows of the {place}: {shown}. No weight was changed by it; look "
            "at those rows, "
            f"or try a smaller learning rate, train.clip_norm, or train.precision fp32"
        )
        self.what = what
        self.rows = rows
