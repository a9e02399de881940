"""torchrelay.

A growing table becomes a trained, evaluated, tracked PyTorch model, again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .tasks.assembly import LoadedModel

__version__ = "0.1.0"


def load_model(source: str, device: str = "cpu", trust_code: Sequence[str] = ()) -> LoadedModel:
    """A trained model out of a run, a registered model or a weights file, ready
    for inference.

    See `torchrelay.tasks.assembly.saved_models.load_model`; this one imports it when it is called.
    """
    from .tasks.assembly import load_model as load

    return load(source, device, trust_code)
