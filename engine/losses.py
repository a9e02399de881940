"""Losses by name, one value a row.

What becomes of the rows is named here and left to the loop.
"""

# Shapes: B rows in a batch, K classes or tags, D columns of a target of numbers or coordinates of
# points.

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RecipeError
from ..recipe import nearest
from ..schema import FeatureSchema, Schema
from .wide_softmax import is_wide, wide_cross_entropy

# Of outputs and target, the loss of each row, shape (B,), in float32 or, for float64 outputs,
# float64.
Loss = Callable[[Tensor, Tensor], Tensor]
# What becomes of the rows' losses in a step, an epoch or a split: what is minimised and what is
# reported.
Reduction = Literal["mean", "sum"]

# How far the probabilities of a row may be from 1 together, as a logarithm, and pass for
# log-probabilities.
LOG_TOLERANCE = 1e-3


def cross_entropy(scores_BK: Tensor, target_B: Tensor) -> Tensor:
    """Negative log of the softmax probability of the true class, in nats.

    Args:
        scores_BK: unnormalised, of any floating type.
        target_B: int64 class ids.
    Returns:
        Loss of each row, shape (B,).
    """
    if is_wide(scores_BK):
        return wide_cross_entropy(scores_BK, target_B)
    return F.cross_entropy(_upcast(scores_BK), target_B, reduction="none")


def nll(log_probabilities_BK: Tensor, target_B: Tensor) -> Tensor:
    """Negative log-probability of the true class, in nats, of a model that ends
    in a log-softmax.

    Args:
        log_probabilities_BK: of any floating type; their exponentials add up to 1, see
            `check_log_probabilities`.
        target_B: int64 class ids.
    Returns:
        Loss of each row, shape (B,).
    """
    return F.nll_loss(_upcast(log_probabilities_BK), target_B, reduction="none")


def bce(scores_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Binary cross-entropy of each tag, in nats, averaged over the tags.

    Args:
        scores_BK: unnormalised: the sigmoid of one is the probability of its tag.
        target_BK: 1 where the row has the tag, else 0.
    Returns:
        Loss of each row, shape (B,).
    """
    scores_BK = _upcast(scores_BK)
    losses_BK = F.binary_cross_entropy_with_logits(
        scores_BK, target_BK.to(scores_BK.dtype), reduction="none"
    )
    return losses_BK.mean(dim=1)


def mse(outputs_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Squared error, averaged over the target's columns.

    Args:
        outputs_BD: in standardised units, of any floating type.
        target_BD: in standardised units.
    Returns:
        Loss of each row, shape (B,).
    """
    return (_upcast(outputs_BD) - target_BD).square().mean(dim=1)


def mse_sum(outputs_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Squared error, added up over the target's columns, and over the rows
    by whoever reduces it; else as `mse`.
    """
    return (_upcast(outputs_BD) - target_BD).square().sum(dim=1)


def l1(outputs_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Absolute error, averaged over the target's columns.

    Arguments and result as of `mse`.
    """
    return (_upcast(outputs_BD) - target_BD).abs().mean(dim=1)


def smooth_l1(outputs_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Half the squared error below 1, the absolute error less 1/2 above,
    averaged over the columns, as of `mse`.

    Girshick 2015: few large errors do not drown the many small ones.
    """
    return F.smooth_l1_loss(_upcast(outputs_BD), target_BD, reduction="none").mean(dim=1)


class _Entry(NamedTuple):
    function: Loss
    target_kinds: tuple[str, ...]
    reduction: Reduction = "mean"


# The first that fits a kind is its auto.
LOSSES = {
    "cross_entropy": _Entry(cross_entropy, ("category",)),
    "nll": _Entry(nll, ("category",)),
    "bce": _Entry(bce, ("labels",)),
    "mse": _Entry(mse, ("number", "points")),
    "mse_sum": _Entry(mse_sum, ("number", "points"), "sum"),
    "smooth_l1": _Entry(smooth_l1, ("number", "points")),
    "l1": _Entry(l1, ("number", "points")),
}


def check_loss(name: str, target_kind: str) -> None:
    """Refuse a loss that does not exist or does not fit the target.

    Args:
        name: "auto" or a loss.
        target_kind: kind of the recipe's targets.
    Raises:
        RecipeError: names the value, and the nearest losses or those that fit.
    """
    fitting = [
        "auto",
        *(loss for loss, entry in LOSSES.items() if target_kind in entry.target_kinds),
    ]
    if name != "auto" and name not in LOSSES:
        raise RecipeError(f"train.loss: {name!r} is no loss; {nearest(name, ['auto', *LOSSES])}")
    if name not in fitting:
        raise RecipeError(
            f"train.loss: {name} does not fit a {target_kind} target; those that do are "
            f"{', '.join(fitting)}"
        )


def build_loss(name: str, schema: Schema) -> Loss:
    """The loss of that name, the mean over the targets, of mse_sum their sum.

    auto is cross_entropy for categories, bce for labels and mse for the others.

    Raises:
        RecipeError: see `check_loss`.
    """
    function = _find(name, schema)
    if len(schema.targets) == 1:
        return function
    join = _sum if reduction_of(name) == "sum" else _mean
    return lambda outputs, target: join(
        function(part.outputs, part.target) for part in schema.parts(outputs, target)
    )


def reduction_of(name: str) -> Reduction:
    """What becomes of the rows' losses.

    Their sum for mse_sum, their mean for the others and for auto.
    """
    return LOSSES[name].reduction if name in LOSSES else "mean"


def reduce_sum(loss_sum: float, num_rows: int, reduction: Reduction) -> float:
    """What is reported of rows whose losses add up to `loss_sum`."""
    return loss_sum if reduction == "sum" else loss_sum / max(num_rows, 1)


def check_log_probabilities(schema: Schema, outputs: Tensor) -> None:
    """Refuse nll for a model whose outputs are no log-probabilities.

    The loss would be no likelihood, in silence.

    Args:
        schema: of the targets.
        outputs: of the model for any rows, shape (B, num_outputs).
    Raises:
        RecipeError: the probabilities of a row do not add up to 1.
    """
    for part in schema.parts(outputs, outputs):
        total = part.outputs.double().logsumexp(dim=1)
        if not bool((total.abs() <= LOG_TOLERANCE).all()):
            raise RecipeError(
                "train.loss: nll takes log-probabilities, whose exponentials add up to 1; those "
                "of the model's "
                f"outputs add up to {total[0].exp().item():.4g}; use cross_entropy, which takes "
                "unnormalised scores, "
                f"or a model that ends in a log-softmax"
            )


def build_training_loss(
    name: str, schema: Schema, *, label_smoothing: float, balanced: bool, device: torch.device
) -> Loss:
    """The loss that is minimised.

    `build_loss`, smoothed and weighted where the recipe asks for it.

    Label smoothing (Szegedy et al. 2016) is torch's: a share of the true class's probability is
    spread over all K. Balanced weights are scikit-learn's: a row of class k counts n / (K n_k),
    over the n training rows of the target. A weight multiplies its row's loss; the batch's mean
    divides by its rows, not by the sum of their weights as torch's CrossEntropyLoss does, so that
    each row counts the same in every batch. The weights of all training rows have the mean 1.

    Args:
        name, schema: see `build_loss`.
        label_smoothing: share, from 0 to 1; categories alone.
        balanced: weigh rows by their class; categories alone.
        device: where the batches are.
    """
    if not label_smoothing and not balanced:
        return build_loss(name, schema)
    weights = [_balance(target, device) if balanced else None for target in schema.targets]

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        parts = schema.parts(outputs, target)
        return _mean(
            _smoothed(part.outputs, part.target, label_smoothing, weights_K)
            for part, weights_K in zip(parts, weights, strict=True)
        )

    return loss


def _find(name: str, schema: Schema) -> Loss:
    check_loss(name, schema.target_facts.learned_as)
    if name == "auto":
        return next(
            entry.function
            for entry in LOSSES.values()
            if schema.target_facts.learned_as in entry.target_kinds
        )
    return LOSSES[name].function


def _mean(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean(dim=0)


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum(dim=0)


def _balance(target: FeatureSchema, device: torch.device) -> Tensor:
    """n / (K n_k) for each class, shape (K,).

    Float64, or float32 on MPS, which has no other.
    """
    counts_K = torch.tensor(target.counts, dtype=torch.float64)
    weights_K = counts_K.sum() / (len(counts_K) * counts_K.clamp(min=1))
    return weights_K.to(torch.float32 if device.type == "mps" else torch.float64).to(device)


def _smoothed(
    scores_BK: Tensor, target_B: Tensor, smoothing: float, weights_K: Tensor | None
) -> Tensor:
    """Smoothed cross-entropy of each row, times its class's weight.

    Log-probabilities are scores as well.
    """
    losses_B = F.cross_entropy(
        _upcast(scores_BK), target_B, reduction="none", label_smoothing=smoothing
    )
    return losses_B if weights_K is None else losses_B * weights_K[target_B].to(losses_B.dtype)


def _upcast(outputs: Tensor) -> Tensor:
    # Half precision has too few digits for sums of exponentials and squares; float64 stays float64.
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
