"""What the data report says of pictures that are good but not all that they
seem: transparent, animated, of 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ...recipe import Feature
from ..verdicts import PREVIEW
from .formats import Note

_NAMES = {Note.TRANSPARENT: "transparent", Note.ANIMATED: "animated", Note.DEEP: "cut_to_8_bits"}


def count_notes(notes: np.ndarray) -> dict[str, int]:
    """Pictures of each kind, uint8 of `Note` a row."""
    return {name: int((notes & note > 0).sum()) for note, name in _NAMES.items()}


def warn_of_notes(
    name: str, feature: Feature, notes: np.ndarray, cells: pd.Series
) -> Iterator[str]:
    """Sentences for the user, each with its count and the first files.

    Args:
        name: of the feature.
        feature: the image specification.
        notes: uint8 of `Note`, of all rows; 0 for those that are not used.
        cells: the file's name in each row.
    """
    if (has := notes & Note.TRANSPARENT > 0).any():
        ground = f"data.inputs.{name}.background: {feature.background}"
        said = (
            f"lose their alpha, so that what lies beneath enters ({ground})"
            if feature.background == "keep"
            else f"are laid onto {feature.background} ({ground})"
        )
        yield f"{name!r}: {_pictures(has, cells)} have transparent pixels, which {said}"
    if (has := notes & Note.ANIMATED > 0).any():
        yield f"{name!r}: {_pictures(has, cells)} hold several frames, of which the first is read"
    if (notes & Note.DEEP > 0).any():
        yield f"{name!r}: of 16 bits dtype uint8 keeps the high 8; say `dtype: uint16` to keep all"


def _pictures(has: np.ndarray, cells: pd.Series) -> str:
    rows = np.flatnonzero(has)
    first = ", ".join(f"row {row + 1} {cells[row]}" for row in rows[:PREVIEW].tolist())
    return (
        f"{len(rows):,} picture{'s' if len(rows) > 1 else ''} "
        f"({first}{', …' if len(rows) > PREVIEW else ''})"
    )
