from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from torchrelay.engine.optim.optimizers import build_optimizer, check_optimizer, needs_closure
from torchrelay.errors import RecipeError
from torchrelay.recipe import Named

NAMES = [
    name
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value)
    and issubclass(value, torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam")
]


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_of_torch_lowers_the_loss_by_its_name_in_any_case(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer(Named(name=name.upper(), args={"lr": 0.05}), model.parameters())
    assert type(optimizer) is getattr(torch.optim, name)
    inputs = torch.randn(16, 3)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (model(inputs) - 1).square().mean()
        loss.backward()
        return loss.item()

    before = closure()
    for _ in range(5):
        if needs_closure(optimizer):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    assert closure() < before
    assert needs_closure(optimizer) == (name == "LBFGS")


def test_sgd_by_hand_is_gradient_descent_with_a_learning_rate_and_nothing_else() -> None:
    def weights_after(name: str, steps: int = 5) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(3, 2).double()
        unused = nn.Parameter(torch.ones(2))  # has no gradient
        optimizer = build_optimizer(
            Named(name=name, args={"lr": 0.05}), [*model.parameters(), unused]
        )
        inputs = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.05 / (step + 1)  # as a schedule sets it
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
        assert torch.equal(unused, torch.ones(2))
        assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.05 / steps
        return torch.cat([weight.detach().flatten() for weight in model.parameters()])

    torch.testing.assert_close(
        weights_after("sgd_by_hand"), weights_after("SGD"), rtol=1e-12, atol=0
    )
    with pytest.raises(
        RecipeError, match=r"train\.optimizer\.args\.lr: got -1; sgd_by_hand refuses it"
    ):
        check_optimizer(Named(name="sgd_by_hand", args={"lr": -1}))
    with pytest.raises(
        RecipeError, match=r"args\.momentum \(value 0\.9\): sgd_by_hand takes no such argument"
    ):
        check_optimizer(Named(name="sgd_by_hand", args={"momentum": 0.9}))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sgd", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("adam", {"lr": 0.05}),
        ("adamw", {"lr": 0.05}),
        ("adagrad", {"lr": 0.05}),
    ],
)
def test_the_fused_step_is_used_on_the_cpu_and_gives_what_the_plain_one_does(
    name: str, args: dict[str, Any]
) -> None:
    def train_with(chosen: dict[str, Any]) -> tuple[bool | None, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
        optimizer = build_optimizer(Named(name=name, args=args | chosen), model.parameters())
        inputs = torch.randn(8, 3, dtype=torch.float64)
        for _ in range(20):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
        weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
        return optimizer.param_groups[0]["fused"], weights

    fused, weights = train_with({})
    plain, expected = train_with({"foreach": False})
    assert fused is True
    assert not plain
    assert not train_with({"fused": False})[0]  # the recipe's word counts
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sgd", {"momentum": 0.9}),
        ("sgd", {"momentum": 0.9, "dampening": 0.1}),
        ("sgd", {}),
        ("adam", {}),
        ("adamw", {}),
        ("adagrad", {}),
        ("sgd_by_hand", {}),
    ],
)
def test_a_layer_may_join_later_and_is_stepped_as_by_the_plain_optimizer(
    name: str, args: dict[str, Any]
) -> None:
    def train_with(chosen: dict[str, Any]) -> torch.Tensor:
        torch.manual_seed(0)
        first, late = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
        parameters = [*first.parameters(), *late.parameters()]
        optimizer = build_optimizer(Named(name=name, args={"lr": 0.05} | args | chosen), parameters)
        inputs = torch.randn(8, 3, dtype=torch.float64)
        for step in range(6):
            optimizer.zero_grad()
            hidden = first(inputs)
            (late(hidden) if step in (2, 3, 5) else hidden).square().sum().backward()
            optimizer.step()
        return torch.cat([weight.detach().flatten() for weight in parameters])

    plain = {} if name == "sgd_by_hand" else {"foreach": False}
    torch.testing.assert_close(train_with({}), train_with(plain), rtol=1e-9, atol=1e-12)


def test_the_fused_step_is_left_out_where_the_cpu_has_none() -> None:
    model = nn.Linear(3, 2)
    assert "fused" not in build_optimizer(Named(name="rmsprop"), model.parameters()).param_groups[0]
    with torch.device("meta"):
        elsewhere = nn.Linear(3, 2)
    assert not build_optimizer(Named(name="adam"), elsewhere.parameters()).param_groups[0]["fused"]


def test_arguments_reach_torch_and_the_others_are_its_own_defaults() -> None:
    model = nn.Linear(3, 2)
    args = {"lr": 1, "momentum": 0.9, "nesterov": True}
    group = build_optimizer(Named(name="sgd", args=args), model.parameters()).param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (
        1,
        0.9,
        True,
        0,
    )
    adamw = build_optimizer(
        Named(name="adamw", args={"betas": [0.8, 0.9]}), model.parameters()
    ).param_groups[0]
    assert (adamw["lr"], tuple(adamw["betas"])) == (0.001, (0.8, 0.9))


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        (
            "adan",
            {},
            r"train\.optimizer\.name: 'adan' is no optimizer of torch\.optim; did you mean .*adam",
        ),
        ("adam_w", {}, r"train\.optimizer\.name: 'adam_w'.*adamw"),
        ("optimizer", {}, r"train\.optimizer\.name: 'optimizer'"),
        (
            "sgd",
            {"momentun": 0.9},
            r"train\.optimizer\.args\.momentun \(value 0\.9\).*did you mean momentum",
        ),
        ("sgd", {"params": []}, r"train\.optimizer\.args\.params.*leave it out"),
        (
            "sgd",
            {"lr": -1},
            r"train\.optimizer\.args\.lr: got -1; sgd refuses it: Invalid learning rate: -1",
        ),
        ("SGD", {"lr": -1, "momentum": 0.9}, r"train\.optimizer\.args\.lr: got -1;"),
        (
            "sgd",
            {"lr": -1, "momentum": -1},
            r"train\.optimizer\.args: got \{'lr': -1, 'momentum': -1\}",
        ),
        (
            "sgd",
            {"lr": "0.1"},
            r"train\.optimizer\.args\.lr: got '0\.1'; input should be a valid number",
        ),
        (
            "sgd",
            {"nesterov": True},
            r"train\.optimizer\.args\.nesterov: got True.*requires a momentum",
        ),
        ("adam", {"betas": [0.9]}, r"train\.optimizer\.args\.betas.*: got \[0\.9\]"),
        ("sparseadam", {}, r"sparseadam takes sparse gradients alone.*use adam or adamw"),
    ],
)
def test_a_wrong_name_argument_or_value_is_refused_before_there_is_a_model(
    name: str, args: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_optimizer(Named(name=name, args=args))


def test_muon_is_refused_for_a_model_with_other_than_matrices() -> None:
    with pytest.raises(
        RecipeError,
        match=r"muon takes 2-D weights alone; 1 of the model's 2 parameters.*\(2,\).*use adamw",
    ):
        build_optimizer(Named(name="muon"), nn.Linear(3, 2).parameters())


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(RecipeError, match="the model has none"):
        build_optimizer(Named(name="sgd"), nn.Flatten().parameters())
