"""Reads every row of a table.

Cells become numbers and ids, paths become files and then pixels in the store.

Rows that cannot be read are rejected on the way. What depends on the split is decided in
`judge.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ...recipe import Data
from ...settings import Home
from ..kinds import Packed, Packing, Progress, Reading, kind_of
from ..pack import PackColumn, PackFeature, name_file
from ..table import features_of, locate_files
from ..verdicts import Verdicts

# What a kind reads the cells of a feature as.
Cells = Any


class Rows(NamedTuple):
    """All rows of a table, read.

    Every array has one entry a row of the table.

    Attributes:
        columns: the features, inputs first and then the targets, as a pack takes them.
        keys: uint64 for each feature, equal where its values are: of an image, where the files'
            bytes are.
        notes: of each image feature, uint8, `raster.Note` of each row's picture.
        readable: bool, rows whose features could all be read.
        num_decoded: images decoded by this call.
    """

    columns: dict[str, PackColumn]
    keys: dict[str, np.ndarray]
    notes: dict[str, np.ndarray]
    readable: np.ndarray
    num_decoded: int


def read_cells(
    data: Data, columns: Mapping[str, list[str]], frame: pd.DataFrame, verdicts: Verdicts
) -> dict[str, Cells]:
    """Read the cells of each feature.

    Opens no image.

    Args:
        data: the features.
        columns: of each feature.
        frame: text cells.
        verdicts: gets what is wrong with a row.
    Raises:
        DataError: the folder of files is not there.
    """
    return {
        name: kind_of(feature.kind).read(
            Reading(data, name, columns[name], frame, verdicts, lambda: locate_files(data))
        )
        for name, feature in features_of(data).items()
    }


def read_rows(
    data: Data,
    home: Home,
    columns: Mapping[str, list[str]],
    cells: Mapping[str, Cells],
    verdicts: Verdicts,
    on_progress: Progress | None,
    *,
    recheck: bool = False,
) -> Rows:
    """Bring the images of all good rows into the store, and every feature into
    the form of a pack.

    Args:
        data: the features.
        home: where the store is.
        columns: of each feature.
        cells: what `read_cells` found.
        verdicts: gets what is wrong with an image.
        on_progress: called with the numbers of images done and of all images, for each image
            feature.
        recheck: read all files, also those that are known.
    """
    features = features_of(data)
    packing = Packing(data, home, verdicts, lambda: locate_files(data), on_progress, recheck)
    packed: dict[str, Packed] = {}
    for name, found in cells.items():
        kind = features[name].kind
        entry = PackFeature(name=name, kind=kind, columns=columns[name], file=name_file(name))
        packed[name] = kind_of(kind).pack(packing, entry, found)
    return Rows(
        columns={name: one.column for name, one in packed.items()},
        keys={name: one.keys for name, one in packed.items()},
        notes={name: one.notes for name, one in packed.items() if one.notes is not None},
        readable=verdicts.good.copy(),
        num_decoded=sum(one.num_decoded for one in packed.values()),
    )
