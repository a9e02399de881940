"""Autocast's copies of a small net's weights, all made by one call.

Autocast casts a weight where a layer uses it, and autograd casts its gradient back. Here the layers
get weights in autocast's type for a pass, by `engine/torch_private.py`. The numbers are the same,
bit by bit. With torch 2.15.0 it saves 25 to 40 us of each step of LeNet where the CPU computes
bfloat16 fast (docs/benchmarks.md), and nothing that can be measured where it does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from ..torch_private import copy_each, parameter_slots

# Autocast lowers the weights of these layers as they are.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Their nets use such weights for nothing else; of another's class nobody knows.
PACKAGES = ("torch", "torchvision", __name__.partition(".")[0])
# With more of them the layers take so long that casting is no matter, and the copies take memory.
MOST_WEIGHTS = 2**22


class _Place(NamedTuple):
    """Where a layer has a weight.

    `holder[name]`.
    """

    holder: dict[str, nn.Parameter | None]
    name: str
    number: int  # of the weight, which several layers may share


class Lowered:
    """Low-precision weights of a model's layers, for passes under autocast.

    Where that would not pay, or might change a number, it does nothing: for nets of other packages
    than torch's, torchvision's and ours, that compute their own losses, that are large, or that are
    not on the CPU.

    Args:
        model: its parameters are fixed; their values, and whether they are trained, are not.
        dtype: autocast's, None where there is none.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None) -> None:
        self._dtype = dtype
        self._weights, self._places = _find_weights(model) if dtype is not None else ([], [])
        self._low_precision: list[nn.Parameter] = []
        self._trained: list[bool] = []

    @contextlib.contextmanager
    def with_low_precision_weights(self) -> Iterator[None]:
        """Within, the layers have lowered weights.

        Afterwards their own, and what these gave is added to their grad.
        """
        if not self._weights:
            yield
            return
        self._refresh()
        try:
            for place in self._places:
                place.holder[place.name] = self._low_precision[place.number]
            yield
        finally:
            for place in self._places:
                place.holder[place.name] = self._weights[place.number]
        self._add_gradients()

    @torch.no_grad()
    def _refresh(self) -> None:
        trained = [weight.requires_grad for weight in self._weights]
        if trained != self._trained:
            self._low_precision = [
                nn.Parameter(one.detach().to(self._dtype), one.requires_grad)
                for one in self._weights
            ]
            self._trained = trained
        copy_each(tuple(self._low_precision), tuple(self._weights))
        for low_precision in self._low_precision:
            low_precision.grad = None

    @torch.no_grad()
    def _add_gradients(self) -> None:
        for own, low_precision in zip(self._weights, self._low_precision, strict=True):
            if low_precision.grad is not None:
                gradient = low_precision.grad.to(own.dtype)
                own.grad = gradient if own.grad is None else own.grad.add_(gradient)


def _find_weights(model: nn.Module) -> tuple[list[nn.Parameter], list[_Place]]:
    """Weights that may be exchanged, each once, and the places that hold them."""
    modules = list(model.modules())
    is_known = all(type(module).__module__.partition(".")[0] in PACKAGES for module in modules)
    is_small = sum(weight.numel() for weight in model.parameters()) <= MOST_WEIGHTS
    if not is_known or not is_small or hasattr(model, "training_losses"):
        return [], []
    layers = [module for module in modules if type(module) in LAYERS]
    others = {
        weight
        for module in modules
        if module not in layers
        for weight in module.parameters(recurse=False)
    }
    numbers: dict[nn.Parameter, int] = {}
    places: list[_Place] = []
    for layer in layers:
        slots = parameter_slots(layer)
        for name, weight in slots.items():
            if weight is not None and weight not in others and _is_wide(weight):
                places.append(_Place(slots, name, numbers.setdefault(weight, len(numbers))))
    return list(numbers), places


def _is_wide(weight: nn.Parameter) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"
