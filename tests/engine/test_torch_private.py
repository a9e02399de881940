"""torch still has the private parts that the engine uses, and they do what it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchrelay.engine.torch_private import (
    add_to_each,
    copy_each,
    fused_adam,
    fused_adamw,
    fused_sgd,
    parameter_slots,
)


def test_what_lies_in_a_slot_is_what_the_layer_computes_with() -> None:
    layer = nn.Linear(2, 2)
    assert list(parameter_slots(layer)) == ["weight", "bias"]
    other = nn.Parameter(torch.full((2, 2), 3.0))
    parameter_slots(layer)["weight"] = other
    assert layer.weight is other
    torch.testing.assert_close(layer(torch.ones(1, 2))[0], 6 + layer.bias)


def test_one_call_copies_with_a_cast_and_adds() -> None:
    into = [torch.zeros(2, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)]
    copy_each(into, [torch.tensor([1.0, 2.0]), torch.tensor([3.0])])
    add_to_each(into, 1)
    assert [one.tolist() for one in into] == [[2.0, 3.0], [4.0]]
    assert {one.dtype for one in into} == {torch.bfloat16}


def stepped(kind: Callable[..., torch.optim.Optimizer], **args: Any) -> Tensor:
    """Where torch's own optimizer moves the weights 1 and 2 by the gradients 3 and -4."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.grad = torch.tensor([3.0, -4.0])
    kind([weight], fused=True, **args).step()
    return weight.detach()


def test_the_kernel_of_sgd_takes_the_step_of_torchs_sgd() -> None:
    weight, momentum = torch.tensor([1.0, 2.0]), torch.zeros(2)
    fused_sgd(
        [weight],
        [torch.tensor([3.0, -4.0])],
        [momentum],
        weight_decay=0.1,
        momentum=0.9,
        lr=0.5,
        dampening=0.0,
        nesterov=True,
        maximize=False,
        is_first_step=False,
    )
    expected = stepped(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=True)
    assert torch.equal(weight, expected)


@pytest.mark.parametrize(
    ("kernel", "kind"), [(fused_adam, torch.optim.Adam), (fused_adamw, torch.optim.AdamW)]
)
def test_the_kernels_of_adam_take_the_step_of_torchs_adam(
    kernel: Callable[..., Any], kind: type[torch.optim.Optimizer]
) -> None:
    weight = torch.tensor([1.0, 2.0])
    kernel(
        [weight],
        [torch.tensor([3.0, -4.0])],
        [torch.zeros(2)],
        [torch.zeros(2)],
        [],
        [torch.tensor(1.0)],
        amsgrad=False,
        lr=0.5,
        beta1=0.9,
        beta2=0.999,
        weight_decay=0.1,
        eps=1e-8,
        maximize=False,
    )
    assert torch.equal(weight, stepped(kind, lr=0.5, weight_decay=0.1))
