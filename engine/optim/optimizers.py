"""Any optimizer of `torch.optim` by the name of its class, and `sgd_by_hand`.

Stepping it is left to the loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from ...errors import RecipeError
from ...recipe import Named, check_arguments, check_values, nearest
from .sgd_by_hand import SGDByHand

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name.lower(): value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
} | {"sgd_by_hand": SGDByHand}

FUSED_ON_CPU = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
IMPLEMENTATIONS = {"fused", "foreach", "differentiable", "capturable"}


def check_optimizer(optimizer: Named) -> None:
    """Refuse an optimizer that does not exist, or arguments that it does not
    take or torch refuses.

    Raises:
        RecipeError: names the key, the value, and the nearest legal ones or torch's reason.
    """
    kind = _find(optimizer)
    check_arguments("train.optimizer", optimizer.name, optimizer.args, kind, filled=("params",))
    if kind is torch.optim.SparseAdam:
        raise RecipeError(
            f"train.optimizer.name: {optimizer.name} takes sparse gradients alone, and the output "
            "layer of a model "
            f"gives dense ones; use adam or adamw"
        )
    check_values(
        "train.optimizer", optimizer.name, optimizer.args, lambda args: _refusal(kind, args)
    )


def build_optimizer(
    optimizer: Named,
    parameters: Iterable[nn.Parameter],
    factors: Mapping[nn.Parameter, float] | None = None,
) -> Optimizer:
    """Build the optimizer over a model's parameters, with torch's own defaults
    where the recipe is silent.

    Args:
        optimizer: name and arguments.
        parameters: of the model, in its order.
        factors: what the learning rate of some of them is multiplied by; those of one factor make a
            group. The first group is that of all others, even if there are none.
    Raises:
        RecipeError: see `check_optimizer`; or there is nothing to train; or the optimizer (Muon)
            takes matrices alone and a parameter is none.
    """
    check_optimizer(optimizer)
    kind, params = _find(optimizer), list(parameters)
    if not params:
        raise RecipeError("model: expected parameters to train, the model has none")
    odd = [tuple(p.shape) for p in params if p.ndim != 2]
    if kind.__name__ == "Muon" and odd:
        raise RecipeError(
            f"train.optimizer.name: {optimizer.name} takes 2-D weights alone; {len(odd)} of the "
            f"model's {len(params)} "
            f"parameters (biases, convolutions, norms) have other shapes, the first {odd[0]}; use "
            "adamw or sgd"
        )
    groups = _group(optimizer, kind, params, factors) if factors else params
    built = kind(groups, **_fused(kind, params, optimizer.args), **optimizer.args)
    _begin_momentum(built)
    return built


def _group(
    optimizer: Named,
    kind: type[Optimizer],
    params: list[nn.Parameter],
    factors: Mapping[nn.Parameter, float],
) -> list[dict[str, Any]]:
    """Parameter groups.

    Those without a factor, then those of each factor, with its multiple of the learning rate.
    """
    rate = optimizer.args.get("lr", inspect.signature(kind).parameters["lr"].default)
    distinct = dict.fromkeys(factors[p] for p in params if p in factors)
    return [
        {"params": [p for p in params if p not in factors]},
        *(
            {"params": [p for p in params if factors.get(p) == one], "lr": rate * one}
            for one in distinct
        ),
    ]


def _fused(
    kind: type[Optimizer], params: list[nn.Parameter], args: Mapping[str, Any]
) -> dict[str, Any]:
    """One kernel for all parameters in a step, where the CPU has it and the
    recipe says nothing of the implementation.

    On small nets torch's default, a few operators for each parameter, costs some per cent of a
    step.
    """
    if kind not in FUSED_ON_CPU or not IMPLEMENTATIONS.isdisjoint(args) or args.get("dampening"):
        return {}
    fits = all(p.device.type == "cpu" and p.is_floating_point() for p in params)
    return {"fused": True} if fits else {}


def _begin_momentum(optimizer: Optimizer) -> None:
    """Let fused SGD's momentum begin at zero for every parameter, which without
    dampening changes no step.

    Its kernel fails where some parameters have a momentum and others none yet: layers that a net
    did not use in its first passes, or that were frozen.
    """
    for group in optimizer.param_groups:
        if (
            isinstance(optimizer, torch.optim.SGD)
            and group["fused"]
            and group["momentum"]
            and not group["dampening"]
        ):
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether `step` wants a function that computes the loss anew (LBFGS)."""
    return isinstance(optimizer, LBFGS)


def _find(optimizer: Named) -> type[Optimizer]:
    kind = OPTIMIZERS.get(optimizer.name.lower())
    if kind is None:
        hint = nearest(optimizer.name.lower(), OPTIMIZERS)
        raise RecipeError(
            f"train.optimizer.name: {optimizer.name!r} is no optimizer of torch.optim; {hint}"
        )
    return kind


def _refusal(kind: type[Optimizer], args: dict[str, Any]) -> str:
    """Torch's reason for not building the optimizer over one small matrix,
    or nothing.
    """
    try:
        kind([nn.Parameter(torch.zeros(2, 2))], **args)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        return str(error) or type(error).__name__
    return ""
