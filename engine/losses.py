"""Losses by name, one value a row; taking their mean and checking that it is finite is left to the loop."""

# Shapes: B rows in a batch, K classes, D columns of a number target.

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RecipeError
from ..recipe import nearest
from ..schema import Schema

# Of outputs and target, the loss of each row, shape (B,), in float32 or, for float64 outputs, float64.
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(scores_BK: Tensor, target_B: Tensor) -> Tensor:
    """Negative log of the softmax probability of the true class, in nats.

    Args:
        scores_BK: unnormalised, of any floating type.
        target_B: int64 class ids.
    Returns:
        Loss of each row, shape (B,).
    """
    return F.cross_entropy(_upcast(scores_BK), target_B, reduction="none")


def mse(outputs_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Squared error, averaged over the target's columns.

    Args:
        outputs_BD: in standardised units, of any floating type.
        target_BD: in standardised units.
    Returns:
        Loss of each row, shape (B,).
    """
    return (_upcast(outputs_BD) - target_BD).square().mean(dim=1)


class _Entry(NamedTuple):
    function: Loss
    target_kind: str


LOSSES = {"cross_entropy": _Entry(cross_entropy, "category"), "mse": _Entry(mse, "number")}


def check_loss(name: str, target_kind: str) -> None:
    """Refuse a loss that does not exist or does not fit the target.

    Args:
        name: "auto" or a loss.
        target_kind: kind of the recipe's target.
    Raises:
        RecipeError: names the value, and the nearest losses or those that fit.
    """
    fitting = ["auto", *(loss for loss, entry in LOSSES.items() if entry.target_kind == target_kind)]
    if name != "auto" and name not in LOSSES:
        raise RecipeError(f"train.loss: {name!r} is no loss; {nearest(name, ['auto', *LOSSES])}")
    if name not in fitting:
        raise RecipeError(
            f"train.loss: {name} does not fit a {target_kind} target; those that do are {', '.join(fitting)}"
        )


def build_loss(name: str, schema: Schema) -> Loss:
    """The loss of that name; auto is cross_entropy for a category and mse for numbers.

    Raises:
        RecipeError: see `check_loss`.
    """
    kind = schema.target.kind
    check_loss(name, kind)
    if name == "auto":
        return next(entry.function for entry in LOSSES.values() if entry.target_kind == kind)
    return LOSSES[name].function


def _upcast(outputs: Tensor) -> Tensor:
    # Half precision has too few digits for sums of exponentials and squares; float64 stays float64.
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
