"""A column of image files, whose pixels lie in a store."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import RecipeError
from ...kinds import KINDS
from ...recipe import Data, Feature
from ...schema import FeatureSchema, Schema
from ..augment import as_elements, mirror_rows
from ..files import Files, find_files
from ..images import count_notes, num_channels
from ..pack import Pack, PackColumn, PackFeature
from ..splits import hash_contents
from ..store import Located, PixelStore
from ..verdicts import Verdicts
from .kind import Fitting, Gather, Kind, Packed, Packing, Progress, Reading, Reporting
from .pixels import check_range, measure_pixels, pin_pixels

# Of the sizes of pictures the data report names so many.
MOST_SIZES = 20
# How many rows of pixels are copied into memory at once.
ROWS_AT_ONCE = 256


class Image(Kind[Files]):
    """Images of one size."""

    facts = KINDS["image"]

    def is_of_one_column(self, *, is_target: bool) -> bool:
        """A picture is one file."""
        return True

    def check(self, data: Data, name: str) -> None:
        """Refuse ImageNet's statistics of other than three channels."""
        feature = data.inputs[name]
        if feature.statistics == "imagenet" and feature.channels not in ("rgb", "3"):
            raise RecipeError(
                f"data.inputs.{name}.statistics: ImageNet's are of 3 channels, channels is "
                f"{feature.channels}; "
                f"say channels: rgb, or statistics: data"
            )

    def read(self, reading: Reading) -> Files:
        """The files that the cells name."""
        cells = reading.frame[reading.columns[0]].tolist()
        return find_files(cells, reading.find_root(), reading.verdicts, reading.data.links)

    def pack(self, packing: Packing, entry: PackFeature, cells: Files) -> Packed:
        """Bring the pixels of all good rows into the store."""
        data, verdicts = packing.data, packing.verdicts
        store = PixelStore(packing.home.store, data.inputs[entry.name], data.max_pixels)
        located, at = _ingest_images(
            store,
            cells,
            packing.find_root(),
            verdicts,
            packing.on_progress,
            recheck=packing.recheck,
        )
        notes = np.zeros(len(verdicts.good), np.uint8)
        notes[at] = located.notes
        store_folder = os.path.relpath(store.folder, packing.home.packs / "pack")
        column = _pack_images(entry, located, at, len(verdicts.good), store_folder)
        keys = hash_contents(column.arrays["content"])
        return Packed(column, keys, notes, located.num_decoded)

    def fit(self, fitting: Fitting) -> FeatureSchema:
        """Mean and deviation of each channel, as the recipe asks.

        Raises:
            DataError: ImageNet's are asked for, and pixels are not from 0 to 1.
        """
        entry, asked = fitting.entry, fitting.asked
        image = fitting.pack.image(fitting.name)
        if asked.statistics == "imagenet" and entry.dtype == "float32":
            check_range(entry.name, image, fitting.train)
        moments = (
            measure_pixels(image, fitting.train)
            if asked.statistics == "data"
            else pin_pixels(entry, asked)
        )
        return FeatureSchema(
            name=entry.name,
            kind=entry.kind,
            columns=entry.columns,
            shape=entry.shape,
            dtype=entry.dtype,
            mean=moments.mean.tolist(),
            std=moments.std.tolist(),
        )

    def told_by(self, asked: Feature) -> dict[str, object]:
        """The type of a pixel, and the shape where the recipe says the size."""
        shape = {"shape": [num_channels(asked), *asked.size]} if asked.size else {}
        return {**shape, "dtype": asked.dtype}

    def gatherer(
        self, pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
    ) -> Gather:
        """Pixels (B, C, H, W)."""
        return Pictures(pack, feature, rows)

    def describe(self, reporting: Reporting) -> dict[str, Any]:
        """Shape, sizes of the files, and what is odd about them."""
        entry, arrays, used = reporting.column.feature, reporting.column.arrays, reporting.used
        found = {
            "shape": entry.shape,
            "dtype": entry.dtype,
            "distinct_images": len(np.unique(arrays["content"][used])),
            "sizes": _describe_sizes(arrays["source"][used]),
        }
        assert reporting.notes is not None
        return {**found, "pictures": count_notes(reporting.notes[used])}


class Pictures:
    """Gathers pixels of rows.

    From the shards of a store, or from a copy in memory.

    Attributes:
        num_bytes: of all rows together.
    """

    def __init__(self, pack: Pack, feature: FeatureSchema, rows: np.ndarray) -> None:
        image = pack.image(feature.name)
        self._shard, self._offset = np.asarray(image.shard)[rows], np.asarray(image.offset)[rows]
        channels, height, width = feature.shape
        self._shape, self._dtype = (height, width, channels), np.dtype(feature.dtype)
        self.num_bytes = len(rows) * math.prod(self._shape) * self._dtype.itemsize
        with warnings.catch_warnings(
            action="ignore"
        ):  # the shards are read-only, and are only read
            self._shards = [torch.from_numpy(one.transpose(0, 2, 3, 1)) for one in image.shards]
        self._copied: Tensor | None = None
        self._has_mirrors = False

    def __call__(self, index: np.ndarray, mirrored: np.ndarray | None = None) -> Tensor:
        """Pixels (B, C, H, W) of a batch, channels last in memory, as the store
        has them.

        Args:
            index: which rows.
            mirrored: 1 for those that are mirrored left to right, else 0.
        """
        if self._copied is not None:
            if mirrored is not None and self._has_mirrors:
                index, mirrored = index + mirrored * len(self._shard), None
            pixels = self._copied.index_select(0, torch.from_numpy(index))
        else:
            pixels = self._from_shards(index)
        if mirrored is not None:
            mirror_rows(pixels.numpy(), np.flatnonzero(mirrored))
        return pixels.permute(0, 3, 1, 2)

    def copy(self, with_mirrors: bool) -> None:
        """Copy the pixels of all rows into memory, and where asked their
        mirror images behind them.
        """
        num_rows = len(self._shard)
        # NumPy asks the system for huge pages, so that a picture is found without a walk through
        # page tables.
        copied = np.empty(((1 + with_mirrors) * num_rows, *self._shape), self._dtype)
        for start in range(0, num_rows, ROWS_AT_ONCE):
            part = np.arange(start, min(start + ROWS_AT_ONCE, num_rows))
            pixels = self._from_shards(part).numpy()
            copied[part[0] : part[-1] + 1] = pixels
            if with_mirrors:
                mirror_rows(pixels, np.arange(len(part)))
                copied[num_rows + part[0] : num_rows + part[-1] + 1] = pixels
        self._copied, self._has_mirrors = torch.from_numpy(copied), with_mirrors

    def _from_shards(self, index: np.ndarray) -> Tensor:
        """Pixels (B, H, W, C)."""
        number, row = self._shard[index], torch.from_numpy(self._offset[index])
        used = np.unique(number).tolist()
        if len(used) == 1:
            return self._shards[used[0]].index_select(0, row)
        batch = np.empty((len(index), *self._shape), self._dtype)
        images = as_elements(batch)
        for one in used:
            places = np.flatnonzero(number == one)
            images[places] = as_elements(
                self._shards[one].index_select(0, row[torch.from_numpy(places)]).numpy()
            )
        return torch.from_numpy(batch)


def _describe_sizes(source: np.ndarray) -> dict[str, Any]:
    """Heights and widths of the files' upright pictures, shape (rows, 2).

    The most frequent sizes first.
    """
    sizes, counts = np.unique(source, axis=0, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:MOST_SIZES]
    return {
        "height": _quantiles(source[:, 0]),
        "width": _quantiles(source[:, 1]),
        "distinct": len(sizes),
        "most_frequent": [
            {"height": int(sizes[at, 0]), "width": int(sizes[at, 1]), "rows": int(counts[at])}
            for at in frequent
        ],
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    names = ("min", "quarter", "median", "three_quarters", "max")
    return dict(zip(names, np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist(), strict=True))


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


KIND = Image()
