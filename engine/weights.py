"""Weights on disk: a model's `state_dict` alone, saved whole or not at all, loaded without running code."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SourceError
from ..files import write_atomic


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and buffers as contiguous tensors on the CPU, detached copies."""
    state = model.state_dict()
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def save_weights(state: Mapping[str, Any], path: Path) -> None:
    """Write a state_dict (of a model or an optimizer) with `torch.save`, atomically."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue())


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state_dict onto the CPU with `weights_only=True`.

    Raises:
        SourceError: the file is missing, torn, or holds something other than tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SourceError(f"weights {path} do not exist; `torchrelay runs` lists the runs that have some") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"weights {path} cannot be loaded safely: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SourceError(f"weights {path} hold no state_dict of tensors")
    return state


def load_into(model: nn.Module, state: Mapping[str, Tensor], place: str) -> None:
    """Load a state_dict whose keys and shapes are the model's own.

    Raises:
        SourceError: keys are missing or surplus, or shapes differ; names them.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"{place} does not fit the model that the recipe builds: {reason}") from error


def sha256_of(state: Mapping[str, Tensor]) -> str:
    """Hex digest over the tensors' names, dtypes, shapes and bytes, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
