"""Finds how much memory a model takes before any is taken.

The caller decides what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import nn

from ..errors import RecipeError, ShapeError

# Where a container's limits stand: of the second and of the first version of control groups.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def count_bytes(build: Callable[[], nn.Module]) -> int:
    """Count the bytes of a model's parameters and buffers.

    Builds the model without memory. 0 if that is not possible.

    Raises:
        RecipeError: no machine could hold it: a single tensor has more numbers than 64 bits can
            count.
    """
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            state = build().state_dict()
    except (RuntimeError, OverflowError, ShapeError) as error:
        if "overflow" in str(error).lower():
            raise RecipeError(
                f"model.args: a tensor of this model is larger than any memory: {error}"
            ) from error
        return (
            0  # some nets compute with values while they are built, which shapes alone do not have
        )
    return sum(
        value.numel() * value.element_size()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )


def check_room(name: str, what: str, num_bytes: int) -> None:
    """Refuse a model for which this process cannot have the memory.

    Args:
        name: of the model.
        what: it needs memory for, such as "weights".
        num_bytes: how much.
    Raises:
        RecipeError: names both sizes.
    """
    free = free_memory()
    if num_bytes > free:
        raise RecipeError(
            f"model.name: {name}: its {what} take {num_bytes / 2**30:,.1f} GiB, and "
            f"{free / 2**30:,.1f} GiB of memory "
            f"are free; make it smaller with model.args, or the images with data.inputs.….size"
        )


def free_memory() -> int:
    """The bytes that this process can still have.

    Counts this machine's memory and the limits of the container.
    """
    free = psutil.virtual_memory().available
    for limit, used in _LIMITS:
        try:
            free = min(
                free, int(Path(limit).read_text("utf-8")) - int(Path(used).read_text("utf-8"))
            )
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return max(0, free)
