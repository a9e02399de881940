"""The two-layer network without biases, in every form that PyTorch offers.

All forms compute the same. They differ in who takes the gradient: a backward pass by hand over the
whole net (`tensors`), autograd over plain operations (`autograd`), autograd with a ReLU of our own
(`function`), or autograd over the layers of `torch.nn` (`sequential`, `optim`, `module`).
"""

# Shapes: B rows in a batch, D input columns, H hidden units, K outputs.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...errors import ShapeError

Form = Literal["tensors", "autograd", "function", "sequential", "optim", "module"]


class HandWrittenNet(torch.autograd.Function):
    """relu(x W1ᵀ) W2ᵀ with the backward pass written out by the chain rule."""

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, w1_HD: Tensor, w2_KH: Tensor) -> Tensor:
        """Outputs, shape (B, K).

        Keeps what the backward pass needs.
        """
        hidden_BH = x_BD @ w1_HD.T
        active_BH = hidden_BH.clamp(min=0)
        ctx.save_for_backward(x_BD, w1_HD, w2_KH, hidden_BH, active_BH)
        return active_BH @ w2_KH.T

    @staticmethod
    # It reads the hidden units as numbers, which no second derivative could pass through.
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradients of x, W1 and W2 from that of the outputs, shape (B, K).

        That of x is None if nobody asks for it.
        """
        [grad_BK] = grad_outputs
        # Under autocast the outputs, and so their gradient, have fewer digits than the weights.
        x_BD, w1_HD, w2_KH, hidden_BH, active_BH = (
            saved.to(grad_BK.dtype) for saved in ctx.saved_tensors
        )
        grad_w2_KH = grad_BK.T @ active_BH
        grad_hidden_BH = (grad_BK @ w2_KH) * (hidden_BH > 0)
        grad_x_BD = grad_hidden_BH @ w1_HD if ctx.needs_input_grad[0] else None
        return grad_x_BD, grad_hidden_BH.T @ x_BD, grad_w2_KH


class HandWrittenReLU(torch.autograd.Function):
    """ReLU with its own backward pass.

    The gradient passes where the input is positive, as torch's does.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Replace negative values by 0, in any shape."""
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """The gradient of the input, of its shape."""
        [grad] = grad_outputs
        [x] = ctx.saved_tensors
        return grad * (x > 0)


class TwoLayerNet(nn.Module):
    """Affine, ReLU, affine, without biases, over numbers side by side.

    Two layers hold the weights of all forms. The same random state gives all forms the same weights
    and the same keys, so that the weights of one form fit the others.

    Args:
        num_inputs: columns of all inputs together.
        num_outputs: values for each row.
        hidden: units of the hidden layer.
        form: what `forward` computes with.
    """

    def __init__(self, num_inputs: int, num_outputs: int, hidden: int, form: Form) -> None:
        super().__init__()
        self.linear1 = nn.Linear(num_inputs, hidden, bias=False)
        self.linear2 = nn.Linear(hidden, num_outputs, bias=False)
        self._compute = _FORMS[form]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Give each row its outputs.

        Args:
            inputs: one tensor a feature: floating and standardised, first dimension B.
        Returns:
            Standardised values or unnormalised scores, shape (B, K).
        Raises:
            ShapeError: the inputs have another number of columns than the net was built for.
        """
        x_BD = _side_by_side(inputs, self.linear1.in_features)
        return self._compute(x_BD, self.linear1, self.linear2)


class SequentialNet(nn.Sequential):
    """The same net as a list of layers.

    Arguments and `forward` as of `TwoLayerNet`.
    """

    def __init__(self, num_inputs: int, num_outputs: int, hidden: int) -> None:
        layers = {
            "linear1": nn.Linear(num_inputs, hidden, bias=False),
            "relu": nn.ReLU(),
            "linear2": nn.Linear(hidden, num_outputs, bias=False),
        }
        super().__init__(OrderedDict(layers))
        self.num_inputs = num_inputs

    def forward(self, *inputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give each row its outputs.

        See `TwoLayerNet.forward`.
        """
        return super().forward(_side_by_side(inputs, self.num_inputs))


def build_net(num_inputs: int, num_outputs: int, hidden: int, form: Form) -> nn.Module:
    """The net in one of its forms.

    Args:
        num_inputs, num_outputs, hidden: see `TwoLayerNet`.
        form: `tensors`, one function with its backward pass by hand; `autograd`, plain operations;
            `function`, these with a ReLU of our own; `module`, layers called one after another;
            `sequential`, a list of layers; `optim`, that list under the name of who changes its
            weights, which for every form is the recipe's optimizer.
    """
    if form in ("sequential", "optim"):
        return SequentialNet(num_inputs, num_outputs, hidden)
    return TwoLayerNet(num_inputs, num_outputs, hidden, form)


def _tensors(x_BD: Tensor, linear1: nn.Linear, linear2: nn.Linear) -> Tensor:
    return HandWrittenNet.apply(x_BD, linear1.weight, linear2.weight)  # pyright: ignore[reportReturnType]


def _autograd(x_BD: Tensor, linear1: nn.Linear, linear2: nn.Linear) -> Tensor:
    return (x_BD @ linear1.weight.T).relu() @ linear2.weight.T


def _function(x_BD: Tensor, linear1: nn.Linear, linear2: nn.Linear) -> Tensor:
    active_BH: Any = HandWrittenReLU.apply(x_BD @ linear1.weight.T)
    return active_BH @ linear2.weight.T


def _module(x_BD: Tensor, linear1: nn.Linear, linear2: nn.Linear) -> Tensor:
    return linear2(linear1(x_BD).relu())


# Functions of this file, not of an instance: a copy of a net, as an average of weights is, computes
# with its own.
_FORMS: dict[Form, Callable[[Tensor, nn.Linear, nn.Linear], Tensor]] = {
    "tensors": _tensors,
    "autograd": _autograd,
    "function": _function,
    "module": _module,
}


def _side_by_side(inputs: Sequence[Tensor], num_columns: int) -> Tensor:
    x_BD = torch.cat([one.flatten(1) for one in inputs], dim=1)
    if x_BD.shape[1] != num_columns:
        raise ShapeError(f"two_layer: expected rows of {num_columns} numbers, got {x_BD.shape[1]}")
    return x_BD
