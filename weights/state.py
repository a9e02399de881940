"""Weights on disk.

A model's `state_dict` alone, saved whole or not at all, loaded without running code.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..disk import write_atomic
from ..errors import SourceError
from .file import (
    PACK_KEY,
    PACK_VERSION,
    match_module_prefix,
    read_weights_file,
    strip_module_prefix,
)
from .values import check_state


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and buffers as contiguous tensors on the CPU,
    detached copies.
    """
    state = model.state_dict()
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def save_weights(state: Mapping[str, Any], path: Path) -> None:
    """Write a state_dict (of a model or an optimizer) with `torch.save`,
    atomically.
    """
    write_atomic(path, dump_weights(state))


def dump_weights(state: Mapping[str, Any]) -> bytes:
    """What `save_weights` writes."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def save_pack(parts: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write several models into one file, atomically.

    `read_weights_file(path, name)` reads one back.

    Args:
        parts: by the model's name: `model_state_dict`, and where there are any
            `optimizer_state_dict` and plain values such as `epoch` and `loss`.
    """
    save_weights(
        {PACK_KEY: PACK_VERSION, "models": {name: dict(part) for name, part in parts.items()}}, path
    )


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the one model of any weights file onto the CPU, see
    `file.py`.

    Raises:
        SourceError: the file is missing, torn, of another kind, needs code to run, or holds several
            models.
    """
    return read_weights_file(path).state


def load_unwrapped(path: Path) -> dict[str, Tensor]:
    """The same without the `module.` of a wrapper before the keys."""
    return strip_module_prefix(load_weights(path))


def load_into(model: nn.Module, state: Mapping[str, Tensor], place: str) -> None:
    """Load a state_dict whose keys and shapes are the model's own, but for the
    `module.` of a wrapper.

    Args:
        model: as it was built.
        state: floats of another width are cast to the model's.
        place: the file, for messages.
    Raises:
        SourceError: keys are missing or surplus, shapes differ, or values are not finite or of
            another class of number, see `check_state`; names them.
    """
    own = model.state_dict()
    matched = match_module_prefix(state, own)
    check_state(own, matched, place)
    try:
        model.load_state_dict(matched)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise SourceError(
            f"{place} does not fit the model that the recipe builds: {reason}"
        ) from error


def sha256_of(state: Mapping[str, Tensor]) -> str:
    """Hex digest over the tensors' names, dtypes, shapes and bytes, in the
    order of their names.
    """
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(
            value.reshape(-1).view(torch.uint8).numpy().data
        )  # without a copy: it may be mapped from a file
    return total.hexdigest()
