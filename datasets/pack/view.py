"""A pack seen through one split, as training and scoring open it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...errors import DataError
from ...schema import SPLITS, Schema
from ..layout import SCHEMA_FILE
from ..splits import verify_split
from .pack import Pack

KEYS_FILE = "keys.parquet"
GROUPS_FILE = "groups.npy"


class View(NamedTuple):
    """A pack seen through one split.

    Attributes:
        pack: the raw values.
        schema: fitted on the training rows, or given.
        rows: int64 positions in the pack, ascending, for train, valid and test.
        groups: int64, shape (rows of the pack,), equal for rows that belong together; None where
            the recipe has no `data.split.group`, or an older torchrelay made the split.
    """

    pack: Pack
    schema: Schema
    rows: dict[str, np.ndarray]
    groups: np.ndarray | None


def open_view(pack_dir: Path, split_dir: Path) -> View:
    """Open a pack and one of its splits.

    Raises:
        DataError: pack or split are missing or do not belong together, or the split is not as it
            was written.
    """
    pack = Pack.open(pack_dir)
    verify_split(split_dir)
    try:
        side = np.load(split_dir / "split.npy")
        groups = (
            np.load(split_dir / GROUPS_FILE, mmap_mode="r")
            if (split_dir / GROUPS_FILE).exists()
            else None
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{split_dir} is not a split: {error}; run `torchrelay ingest` again"
        ) from error
    for array in (side,) if groups is None else (side, groups):
        if array.shape != (pack.num_rows,):
            raise DataError(
                f"{split_dir} splits {len(array):,} rows, the pack {pack_dir} has {pack.num_rows:,}"
            )
    rows = {name: np.flatnonzero(side == at) for at, name in enumerate(SPLITS)}
    return View(pack, Schema.load(split_dir / SCHEMA_FILE), rows, groups)


def read_keys(split_dir: Path) -> np.ndarray | None:
    """Text of `data.key` for each row of the pack.

    None where no key is declared.
    """
    path = split_dir / KEYS_FILE
    return pd.read_parquet(path).iloc[:, 0].to_numpy(dtype=object) if path.exists() else None
