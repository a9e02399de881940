"""Reads a weights file, ours or others', without running code, and says what is in it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import SourceError

# Keys under which others keep a model's state_dict.
ENTRIES = ("model_state_dict", "state_dict")


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        path: of the file.
        form: how the state_dict stands in it.
        state: of the model, on the CPU, with the keys of the file.
        models: of a file of several models, by name.
        optimizers: optimizers' state_dicts by the model's name.
        extras: plain values, for example epoch and loss.
    """

    path: Path
    form: str
    state: dict[str, Tensor]
    models: dict[str, dict[str, Tensor]]
    optimizers: dict[str, dict[str, Any]]
    extras: dict[str, Any]


def read_weights_file(path: Path, model: str = "") -> WeightsFile:
    """Read a weights file with `weights_only=True`.

    Args:
        path: of the file.
        model: of a file of several, the one that is meant.
    Raises:
        SourceError: it is missing, torn, would run code, or holds no state_dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SourceError(f"weights {path} do not exist; `torchrelay runs` lists the runs that have some") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"weights {path} cannot be loaded safely: {reason}") from error
    form = next((name for name in ENTRIES if isinstance(content, dict) and name in content), "")
    state = content[form] if form else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise SourceError(f"weights {path} hold no state_dict of tensors")
    extras = {name: value for name, value in content.items() if isinstance(value, int | float | str)} if form else {}
    return WeightsFile(path, form or "state_dict", dict(state), {model: dict(state)}, {}, extras)
