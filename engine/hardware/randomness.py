"""The states of all random generators that a run may draw from, taken and
put back.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as plain
    values that a safe load accepts.
    """
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set the generators as `random_states` found them.

    Those of CUDA devices as far as these are here.
    """
    random.setstate(states["python"])
    numpy_state = states["numpy"]
    key = numpy_state["key"].numpy().astype(np.uint32)
    np.random.set_state(
        ("MT19937", key, numpy_state["pos"], numpy_state["has_gauss"], numpy_state["gauss"])
    )
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        num_devices = torch.cuda.device_count()
        torch.cuda.set_rng_state_all(states["cuda"][:num_devices])
        if num_devices != len(states["cuda"]):
            warnings.warn(
                f"the random states are of {len(states['cuda'])} CUDA devices, {num_devices} are "
                "here: those of "
                f"{min(num_devices, len(states['cuda']))} are restored",
                stacklevel=2,
            )
    if states.get("mps") and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"][0])
