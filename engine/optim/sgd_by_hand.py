"""Gradient descent with its updates written out, as `sgd_by_hand`.

What an optimizer is, in four lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer


class SGDByHand(Optimizer):
    """Each step takes the learning rate times its gradient off every weight.

    Torch's SGD without anything else.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, not negative.
    Raises:
        ValueError: the learning rate is negative.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3) -> None:
        if lr < 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        super().__init__(params, {"lr": lr})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change the weights.

        A closure, where there is one, computes the gradients first and gives the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():  # the update is no part of what the next gradient is taken of
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        weight -= group["lr"] * weight.grad
        return loss
