"""Cross-entropy over very many classes on the CPU, in fewer passes over memory
than torch's own.

Torch makes three float32 copies of the scores: widened, their log-softmax, and the gradient. At 512
rows and 41,105 classes that is 250 MB a step. Here one kernel reads the scores and gives the
probabilities, which are kept in the scores' own type and are the gradient but for a factor.
"""

# Shapes: B rows in a batch, K classes.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# With fewer classes than these the difference is not worth a path of its own.
FEWEST_CLASSES = 4096


def is_wide(scores_BK: Tensor) -> bool:
    """Whether `wide_cross_entropy` is the faster one."""
    return scores_BK.device.type == "cpu" and scores_BK.shape[1] >= FEWEST_CLASSES


def wide_cross_entropy(scores_BK: Tensor, target_B: Tensor) -> Tensor:
    """Negative log of the softmax probability of the true class, in nats.

    Differentiable once.

    Args:
        scores_BK: unnormalised, of any floating type; sums are in float32, or float64 where the
            scores are. The gradient has the scores' type.
        target_B: int64 class ids.
    Returns:
        Loss of each row, shape (B,), float32 or float64.
    """
    return _WideCrossEntropy.apply(scores_BK, target_B)


class _WideCrossEntropy(torch.autograd.Function):
    """d loss_b / d score_bk = probability_bk - [k is the target of b]."""

    @staticmethod
    def forward(ctx: Any, scores_BK: Tensor, target_B: Tensor) -> Tensor:
        wide = torch.float64 if scores_BK.dtype == torch.float64 else torch.float32
        target_B1 = target_B[:, None]
        probabilities_BK = scores_BK.softmax(dim=1, dtype=wide)
        # The largest probability is at least 1/K, so that its log is safe where the target's may be
        # that of 0; the difference of the two scores leads from the one to the other.
        behind_B1 = scores_BK.amax(dim=1, keepdim=True).to(wide) - scores_BK.gather(
            1, target_B1
        ).to(wide)
        losses_B1 = behind_B1 - probabilities_BK.amax(dim=1, keepdim=True).log()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(probabilities_BK.to(scores_BK.dtype), target_B1)
        return losses_B1[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        probabilities_BK, target_B1 = ctx.saved_tensors
        # In the scores' type on both sides, so that a row's gradient sums to 0 as it should.
        grad_B1 = grad_B[:, None].to(probabilities_BK.dtype)
        return (probabilities_BK * grad_B1).scatter_add_(1, target_B1, -grad_B1), None
