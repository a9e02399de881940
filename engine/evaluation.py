"""The evaluation pass.

A model's outputs and losses over batches, without training; `engine/metrics/` measures them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..schema import Batch, Schema
from .hardware import Precision, random_states, set_random_states
from .losses import Loss

# Shapes: N rows of a pass, K outputs of a model.


# Precisions that overflow where fp32 does not: fp16 beyond 65,504, bf16 in what it rounds away.
NARROW = ("bf16", "fp16")

Summarise = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class Scorer:
    """A model with all that it takes to score batches.

    Attributes:
        loss: (outputs, target) to one loss a row, shape (B,): the plain loss, neither smoothed nor
            weighted.
        summarise: of a batch's outputs, what an evaluation keeps, shape (B, any), with NaN where
            they are not finite; None keeps them all, which over ten thousands of entities would not
            fit.
    """

    schema: Schema
    model: nn.Module
    loss: Loss
    device: torch.device
    precision: Precision
    summarise: Summarise | None = None


class Evaluation(NamedTuple):
    """Outputs of a pass without training, on the CPU, in the order of the
    batches.

    Attributes:
        rows: (N,) int64, positions in the pack.
        outputs: (N, K) float32 or float64, all targets' side by side; or what `Scorer.summarise`
            keeps of them.
        target: as in a batch, see `Batch`.
        losses: (N,) float.
    """

    rows: Tensor
    outputs: Tensor
    target: Tensor
    losses: Tensor


class OutputsNotFiniteError(TrainingError):
    """A model gave NaN or infinity for rows that were to be measured.

    No metric is computed from them.

    Args:
        rows: whose outputs are not finite, each once.
        num_rows: that were scored.
        precision: that the model ran in.
        place: what `rows` are positions in.
    """

    def __init__(self, rows: list[int], num_rows: int, precision: str, place: str) -> None:
        shown = ", ".join(str(row) for row in rows[:10]) + (", …" if len(rows) > 10 else "")
        which = "all" if len(rows) == num_rows else f"{len(rows):,} of"
        causes = ["weights that have grown without bound"] if len(rows) == num_rows else []
        causes += ["inputs far outside of what the model was trained on"]
        causes += [f"{precision}, which overflows where fp32 does not (train.precision: fp32)"] * (
            precision in NARROW
        )
        super().__init__(
            f"the model's outputs are not finite for {which} {num_rows:,} rows, in these rows of "
            f"the {place}: {shown}. "
            f"Nothing is measured; the cause may be {', or '.join(causes)}"
        )
        self.rows, self.num_rows, self.precision = rows, num_rows, precision


Measure = Callable[[Evaluation], dict[str, float]]


def evaluate(
    scorer: Scorer, batches: Iterable[Batch], *, must_be_finite: bool = True
) -> Evaluation:
    """Run the model over batches without training.

    Its modes and all random states are as before afterwards.

    Args:
        must_be_finite: whether the outputs are to be measured; else rows whose outputs are not
            finite are the caller's.
    Raises:
        OutputsNotFiniteError: an output is NaN or infinite; says of which rows, as positions in the
            pack.
    """
    parts: list[Evaluation] = []
    with _evaluating(scorer.model), torch.inference_mode():
        for batch in batches:
            with autocast(scorer):
                outputs = scorer.model(*batch.inputs)
            losses = scorer.loss(outputs, batch.target)
            if scorer.summarise is not None:
                outputs = scorer.summarise(outputs, batch)
            outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
            parts.append(Evaluation(batch.rows, outputs.cpu(), batch.target.cpu(), losses.cpu()))
    columns = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()
    found = Evaluation(*map(_join, columns))
    is_bad_N = ~finite_rows(found.outputs)
    if must_be_finite and bool(is_bad_N.any()):
        rows = found.rows[is_bad_N].unique().tolist()
        raise OutputsNotFiniteError(rows, len(found.rows.unique()), scorer.precision.name, "pack")
    return found


def _join(parts: list[Tensor]) -> Tensor:
    """The rows of all parts, which are let go one by one.

    Scores of many classes must not stand in memory twice.
    """
    joined = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    end = len(joined)
    while parts:
        part = parts.pop()
        joined[end - len(part) : end] = part
        end -= len(part)
    return joined


def finite_rows(outputs_NK: Tensor) -> Tensor:
    """Whether all of a row's outputs are finite.

    Bool, shape (N,). A sum tells it, but where it overflows itself.
    """
    is_finite_N = outputs_NK.sum(dim=1).isfinite()
    if bool(is_finite_N.all()):
        return is_finite_N
    return outputs_NK.isfinite().all(dim=1)


def autocast(scorer: Scorer) -> contextlib.AbstractContextManager[Any]:
    """What the forward pass runs in.

    The precision's autocast, or nothing.
    """
    if scorer.precision.autocast is None:
        return contextlib.nullcontext()
    return torch.autocast(scorer.device.type, dtype=scorer.precision.autocast)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode.

    Each module's own mode and the random states come back afterwards.
    """
    modes = {module: module.training for module in model.modules()}
    states = random_states()
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        set_random_states(states)
