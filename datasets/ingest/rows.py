"""Reads every row of a table.

Cells become numbers and ids, paths become files and then pixels in the store.

Rows that cannot be read are rejected on the way. What depends on the split is decided in
`judge.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...recipe import Data
from ...settings import Home
from ..cells import (
    Categories,
    Labels,
    notation_of,
    read_categories,
    read_labels,
    read_numbers,
    read_texts,
)
from ..files import Files, find_files
from ..kinds import pack_texts
from ..pack import PackColumn, PackFeature, name_file
from ..splits import hash_contents, hash_ids, hash_numbers, hash_tags, hash_texts
from ..store import Located, PixelStore
from ..table import features_of, locate_files
from ..verdicts import Verdicts

Progress = Callable[[int, int], None]
Cells = np.ndarray | Categories | Labels | Files | pd.Series


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
    cells: dict[str, Cells] = {}
    for name, feature in features_of(data).items():
        if feature.kind == "image":
            cells[name] = find_files(
                frame[columns[name][0]].tolist(), locate_files(data), verdicts, data.links
            )
        elif feature.kind in ("number", "points"):
            may_be_missing = (
                feature.kind == "number" and name in data.inputs and feature.missing != "reject"
            )
            cells[name] = read_numbers(
                frame,
                columns[name],
                verdicts,
                notation_of(data),
                data.missing_values,
                may_be_missing,
            )
        elif feature.kind == "text":
            cells[name] = read_texts(frame, columns[name][0], verdicts)
        elif feature.kind == "labels":
            cells[name] = read_labels(frame[columns[name][0]], feature.separator, feature.labels)
        else:
            cells[name] = read_categories(frame, columns[name], verdicts, feature.labels)
    return cells


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
    packed: dict[str, PackColumn] = {}
    keys: dict[str, np.ndarray] = {}
    notes: dict[str, np.ndarray] = {}
    num_decoded = 0
    for name, found in cells.items():
        feature = PackFeature(
            name=name, kind=features[name].kind, columns=columns[name], file=name_file(name)
        )
        if isinstance(found, Files):
            store = PixelStore(home.store, features[name], data.max_pixels)
            located, at = _ingest_images(
                store, found, locate_files(data), verdicts, on_progress, recheck=recheck
            )
            num_decoded += located.num_decoded
            notes[name] = np.zeros(len(verdicts.good), np.uint8)
            notes[name][at] = located.notes
            store_folder = os.path.relpath(store.folder, home.packs / "pack")
            packed[name] = _pack_images(feature, located, at, len(verdicts.good), store_folder)
            keys[name] = hash_contents(packed[name].arrays["content"])
        elif isinstance(found, Categories):
            feature = feature.model_copy(update={"vocabulary": found.vocabulary})
            packed[name], keys[name] = PackColumn(feature, {"values": found.ids}), hash_ids(*found)
        elif isinstance(found, pd.Series):
            packed[name], keys[name] = pack_texts(feature, features[name], found), hash_texts(found)
        elif isinstance(found, Labels):
            feature = feature.model_copy(update={"vocabulary": found.vocabulary})
            packed[name], keys[name] = PackColumn(feature, {"values": found.ids}), hash_tags(*found)
        else:
            packed[name], keys[name] = PackColumn(feature, {"values": found}), hash_numbers(found)
    return Rows(packed, keys, notes, verdicts.good.copy(), num_decoded)


def _ingest_images(
    store: PixelStore,
    files: Files,
    root: Path,
    verdicts: Verdicts,
    on_progress: Progress | None,
    *,
    recheck: bool,
) -> tuple[Located, np.ndarray]:
    """Locate the images of all good rows.

    Also gives these rows, int64.
    """
    rows = np.flatnonzero(verdicts.good)
    wanted = files.take(rows)
    located = store.ingest(wanted, on_progress, recheck=recheck)
    for position, reason in located.reasons.items():
        path = os.path.relpath(wanted.paths[position], os.path.realpath(root))
        verdicts.reject(
            int(rows[position]), *reason._replace(kind=f"bad image, {reason.kind}", value=path)
        )
    return located, rows


def _pack_images(
    feature: PackFeature, located: Located, at: np.ndarray, num_rows: int, store: str
) -> PackColumn:
    """The column of all rows, of which `located` describes those `at` these
    positions.
    """
    shards, shard = _sort_shards(located)
    arrays = {
        "shard": np.full(num_rows, -1, dtype=np.int32),
        "offset": np.full(num_rows, -1, dtype=np.int64),
        "source": np.zeros((num_rows, 2), dtype=np.int32),
        "content": np.zeros(num_rows, dtype="S32"),
    }
    arrays["shard"][at], arrays["offset"][at], arrays["content"][at] = (
        shard,
        located.offset,
        located.content,
    )
    arrays["source"][at] = located.source
    found = {"shape": list(located.shape), "dtype": located.dtype, "store": store, "shards": shards}
    return PackColumn(feature.model_copy(update=found), arrays)


def _sort_shards(located: Located) -> tuple[list[str], np.ndarray]:
    """Number the shards by their names.

    The store's order depends on what it decoded in this call.
    """
    shards = sorted(located.shards)
    place = {name: at for at, name in enumerate(shards)}
    number = np.array([place[name] for name in located.shards] + [-1], dtype=np.int32)
    return shards, number[located.shard]
