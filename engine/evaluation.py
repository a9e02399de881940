"""The evaluation pass: a model's outputs and losses over batches, without training; `metrics.py` measures them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..schema import Batch, Schema
from .devices import Precision
from .losses import Loss
from .randomness import random_states, set_random_states

# Shapes: N rows of a pass, K outputs of a model.


Summarise = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class Scorer:
    """A model with all that it takes to score batches.

    Attributes:
        loss: (outputs, target) to one loss a row, shape (B,): the plain loss, neither smoothed nor weighted.
        summarise: of a batch's outputs, what an evaluation keeps, shape (B, any); None keeps them all, which over ten
            thousands of entities would not fit.
    """

    schema: Schema
    model: nn.Module
    loss: Loss
    device: torch.device
    precision: Precision
    summarise: Summarise | None = None


class Evaluation(NamedTuple):
    """Outputs of a pass without training, on the CPU, in the order of the batches.

    Attributes:
        rows: (N,) int64, positions in the pack.
        outputs: (N, K) float32 or float64, all targets' side by side; or what `Scorer.summarise` keeps of them.
        target: as in a batch, see `Batch`.
        losses: (N,) float.
    """

    rows: Tensor
    outputs: Tensor
    target: Tensor
    losses: Tensor


Measure = Callable[[Evaluation], dict[str, float]]


def evaluate(scorer: Scorer, batches: Iterable[Batch]) -> Evaluation:
    """Run the model over batches without training; its modes and all random states are as before afterwards."""
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
    return Evaluation(*(torch.cat(column) for column in zip(*parts, strict=True)))


def autocast(scorer: Scorer) -> contextlib.AbstractContextManager[Any]:
    """What the forward pass runs in: the precision's autocast, or nothing."""
    if scorer.precision.autocast is None:
        return contextlib.nullcontext()
    return torch.autocast(scorer.device.type, dtype=scorer.precision.autocast)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
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
