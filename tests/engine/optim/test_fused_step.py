"""Steps without torch's Python around them give the bits that the optimizer's own `step` gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from torchrelay.engine.optim.fused_step import Stepper
from torchrelay.engine.optim.optimizers import build_optimizer
from torchrelay.recipe import Named

SGD = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}


class Net(nn.Module):
    """Two layers, the second of which a pass may leave out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.late = nn.Linear(3, 3), nn.Linear(3, 3)

    def loss(self, *, whole: bool) -> torch.Tensor:
        hidden = self.first(torch.linspace(-1, 1, 24).reshape(8, 3))
        return (self.late(hidden) if whole else hidden).square().sum()


def train(
    name: str, args: dict[str, Any], *, lean: bool, passes: str = "wwwwww", reload_at: int = -1
) -> torch.Tensor:
    """Weights after a step for each letter of `passes`: w over both layers, p over the first
    alone.
    """
    net = Net()
    optimizer = build_optimizer(Named(name=name, args=args), net.parameters(), {net.late.bias: 0.5})
    stepper = Stepper(optimizer)
    for number, letter in enumerate(passes):
        if number == reload_at:
            optimizer.load_state_dict(optimizer.state_dict())
            for (
                state
            ) in optimizer.state.values():  # another's state, which the next steps must go on from
                for value in state.values():
                    value.mul_(2)
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        stepper.zero_grad() if lean else optimizer.zero_grad()
        net.loss(whole=letter == "w").backward()
        stepper.step() if lean else optimizer.step()
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sgd", SGD),
        ("sgd", {"lr": 0.05}),
        ("sgd", {"lr": 0.05, "maximize": True, "momentum": 0.5}),
        ("adam", {"lr": 0.05, "weight_decay": 0.1}),
        ("adam", {"lr": 0.05, "amsgrad": True}),
        ("adamw", {"lr": 0.05, "betas": [0.8, 0.9], "eps": 1e-6}),
        ("adagrad", {"lr": 0.05}),
        ("rmsprop", {"lr": 0.05}),
    ],
)
@pytest.mark.parametrize("passes", ["wwwwww", "ppwpww", "wpwwpw"])
def test_the_bits_are_those_of_the_optimizers_own_step(
    name: str, args: dict[str, Any], passes: str
) -> None:
    ours, theirs = (train(name, args, lean=lean, passes=passes) for lean in (True, False))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("name", "args"), [("sgd", SGD), ("adamw", {"lr": 0.05})])
def test_a_state_that_was_replaced_is_the_one_that_steps_go_on_from(
    name: str, args: dict[str, Any]
) -> None:
    ours, theirs = (train(name, args, lean=lean, reload_at=3) for lean in (True, False))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, train(name, args, lean=True))


def test_after_the_first_step_the_kernel_alone_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    optimizer = build_optimizer(Named(name="sgd", args=SGD), net.parameters())
    stepper, calls = Stepper(optimizer), []
    step = optimizer.step
    monkeypatch.setattr(optimizer, "step", lambda: calls.append(1) or step())
    for _ in range(4):
        stepper.zero_grad()
        net.loss(whole=True).backward()
        stepper.step()
    assert len(calls) == 1
