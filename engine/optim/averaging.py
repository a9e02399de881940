"""An exponential moving average of a model's weights, validated and kept.

torch's `AveragedModel` copies the weights at its first update, where the average here warms up from
the weights that training begins with, and it sorts all tensors by device and type at each update.
Of torch, the update itself is used.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """A copy of a model that follows it slowly.

    After update n the copy is `d * copy + (1 - d) * model` with d = min(decay, (1 + n) / (10 + n)),
    the warm-up of TensorFlow's ExponentialMovingAverage: an early average forgets the weights that
    training began with. Buffers of floating type, for example the statistics of a batch norm, are
    averaged alike; counters are copied.

    Args:
        model: where it is computed, with the weights that training begins with.
        decay: from 0 to 1; 0.999 averages over about 1,000 steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay = decay
        self._num_updates = 0
        values, ours = _values(model), _values(self.model)
        is_float = [value.is_floating_point() for value in values]
        self._followed = [value for value, yes in zip(values, is_float, strict=True) if yes]
        self._averaged = [value for value, yes in zip(ours, is_float, strict=True) if yes]
        self._counters = [
            (mine, value)
            for mine, value, yes in zip(ours, values, is_float, strict=True)
            if not yes
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the model.

        Call it after each step that changed the weights.
        """
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        get_ema_multi_avg_fn(decay)(self._averaged, self._followed, self._num_updates)
        for mine, value in self._counters:
            mine.copy_(value)
        self._num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and how many updates they have seen."""
        return {"model_state_dict": self.model.state_dict(), "num_updates": self._num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model_state_dict"])
        self._num_updates = state["num_updates"]


def _values(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
