"""The Dataset of a pack.

Some of its rows, gathered a batch at a time as raw values in torch's memory.

Nothing is decoded or standardised here. `datasets/images/` decodes each picture once, and
`transform.py` standardises on the device.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import DataError
from ...schema import Batch, FeatureSchema, Schema
from ..augment import as_elements, mirror_rows
from ..kinds import Questions, ask_questions, file_scale, scale_to_stored, text_gatherer
from ..pack import Pack

# Shapes: B rows in a batch, C channels, H height, W width, D columns, T targets, P points.
_Gather = Callable[[np.ndarray], Tensor]

# Bytes of pixels that are copied into memory, and how many rows of them at once.
MOST_IN_MEMORY = 2**29
ROWS_AT_ONCE = 256
# Where a process in a container sees its own limits.
CGROUP = Path("/sys/fs/cgroup")


class PackDataset(Dataset[Batch]):
    """Some rows of a pack, gathered a batch at a time.

    Args:
        pack: raw values.
        schema: the features that make a batch, and the ids of their classes.
        rows: int64, positions in the pack, for example those of one split.
        in_memory: copy the pixels of these rows into memory, where they are few enough: for rows
            that are gathered again and again, at random. From one block they come three times as
            fast as from the shards of a store.
        with_mirrors: copy their mirror images too, where both are few enough: for rows that are
            asked for mirrored.

    A target that the pack does not have, because its rows are to be predicted, is zeros: their
    losses mean nothing.

    Triples whose tails are ranked are asked in both directions, so that there are twice as many
    items as rows, the backward ones last; to be predicted, each is asked for its tail alone. See
    `datasets/kinds/triples.py`.

    Raises:
        DataError: a row's target is no class of the schema.
    """

    def __init__(
        self,
        pack: Pack,
        schema: Schema,
        rows: np.ndarray,
        in_memory: bool = False,
        with_mirrors: bool = False,
    ) -> None:
        self._pack, self._schema = pack, schema
        self.rows = np.asarray(rows, np.int64)
        if schema.triple is None:
            self._of_item = self.rows
            self._inputs = [
                _gatherer(pack, feature, self.rows, schema) for feature in schema.inputs
            ]
            if in_memory:
                self._copy_pictures(with_mirrors)
            self._target = _target_gatherer(pack, schema, self.rows)
        else:
            asked = self.questions()
            self._of_item = self.rows[asked.row]
            given = {schema.triple.head: asked.head, schema.triple.relation: asked.relation}
            self._inputs = [_picker(given[at][:, None]) for at in sorted(given)]
            self._target = _picker(asked.answer)

    def __len__(self) -> int:
        return len(self._of_item)

    @property
    def targets(self) -> list[FeatureSchema]:
        """What the batches' target is."""
        return self._schema.targets

    def __getitem__(self, index: int) -> Batch:
        """One row, without the first dimension."""
        batch = self.__getitems__([index])
        return Batch(batch.rows[0], tuple(one[0] for one in batch.inputs), batch.target[0])

    def __getitems__(self, indices: Iterable[int] | np.ndarray) -> Batch:
        """Gather a whole batch, copied into memory of its own.

        Args:
            indices: positions in this data set, not in the pack; of shape (2, B) with
                `Batch.repeats` beneath, of (3, B) with 1 beneath these for rows whose pictures come
                mirrored, else 0.
        """
        index, repeats, mirrored = np.asarray(indices, np.int64), None, None
        if index.ndim == 2:
            index, repeats, mirrored = (
                index[0],
                torch.from_numpy(index[1]),
                index[2] if len(index) > 2 else None,
            )
        return Batch(
            torch.from_numpy(self._of_item[index]),
            tuple(
                gather(index, mirrored) if isinstance(gather, Pictures) else gather(index)
                for gather in self._inputs
            ),
            self._target(index),
            repeats,
        )

    def rows_of(self, items: np.ndarray) -> np.ndarray:
        """Positions in the pack of positions in this data set, int64."""
        return self._of_item[items]

    def questions(self) -> Questions:
        """What the items ask, where the schema has a triple."""
        [target] = self._schema.targets
        is_known = target.name in self._pack.features
        tails = _target_ids(self._pack, target, self.rows) if is_known else None
        return ask_questions(self._pack, self._schema, self.rows, tails)

    def scale(self, points: FeatureSchema) -> Tensor:
        """Pixels of the file in a pixel of the stored image, along x and y, for
        each of these rows.

        Args:
            points: a feature of points; a distance between two of them times this is one in the
                table's units.
        Returns:
            float64, shape (rows, 2), in the order of the rows.
        """
        return torch.from_numpy(file_scale(*_sizes(self._pack, self._schema, points, self.rows)))

    def classes(self) -> np.ndarray:
        """The class id of every row, int64 (N,).

        Of several category targets, that of the first.
        """
        return self._target(np.arange(len(self))).numpy().reshape(len(self), -1)[:, 0]

    def _copy_pictures(self, with_mirrors: bool) -> None:
        """Copy pictures, and where asked their mirror images, into memory,
        as far as there is room.
        """
        room = min(MOST_IN_MEMORY, free_memory() // 4)
        for one in self._inputs:
            if isinstance(one, Pictures) and one.num_bytes <= room:
                both = with_mirrors and 2 * one.num_bytes <= room
                one.copy(both)
                room -= (1 + both) * one.num_bytes

    def __reduce__(self) -> tuple[type[PackDataset], tuple[Pack, Schema, np.ndarray]]:
        # Without the copies, which each worker of a system that cannot fork would make anew.
        return PackDataset, (self._pack, self._schema, self.rows)


def _picker(values: np.ndarray) -> _Gather:
    """What gathers from an array in memory."""
    return lambda index: torch.from_numpy(values[index])


def _gatherer(pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema) -> _Gather:
    """What gathers an input."""
    if feature.kind == "image":
        return Pictures(pack, feature, rows)
    if feature.kind == "points":
        return _point_gatherer(pack, feature, rows, schema)
    if feature.kind == "text":
        return text_gatherer(pack, feature, rows)
    values = np.asarray(pack.column(feature.name))
    if feature.kind == "number":
        return lambda index: torch.from_numpy(values[rows[index]])
    ids = _class_ids(pack.vocabulary(feature.name), feature, first=1)
    return lambda index: torch.from_numpy(ids[values[rows[index]]])


def _target_gatherer(pack: Pack, schema: Schema, rows: np.ndarray) -> _Gather:
    """What gathers all targets.

    Class ids (B,) or (B, T), or all columns or tags (B, D).
    """
    if not all(target.name in pack.features for target in schema.targets):
        return _zeros(schema)
    if schema.target_kind == "category":
        ids = np.stack([_target_ids(pack, target, rows) for target in schema.targets], 1)
        ids = ids[:, 0].copy() if len(schema.targets) == 1 else ids
        return lambda index: torch.from_numpy(ids[index])
    if schema.target_kind == "labels":
        each = [_tag_gatherer(pack, target, rows) for target in schema.targets]
        return lambda index: torch.cat([gather(index) for gather in each], 1)
    gatherers = [_gatherer(pack, target, rows, schema) for target in schema.targets]
    if len(gatherers) == 1:
        return lambda index: gatherers[0](index).flatten(1)
    return lambda index: torch.cat([gather(index).flatten(1) for gather in gatherers], 1)


def _zeros(schema: Schema) -> _Gather:
    """Targets of rows that have none."""
    if schema.target_kind == "category":
        size = (len(schema.targets),) if len(schema.targets) > 1 else ()
        return lambda index: torch.zeros((len(index), *size), dtype=torch.int64)
    dtype = torch.float32 if schema.target_kind == "labels" else torch.float64
    return lambda index: torch.zeros((len(index), schema.num_outputs), dtype=dtype)


def _tag_gatherer(pack: Pack, target: FeatureSchema, rows: np.ndarray) -> _Gather:
    """1 for each tag of a row, else 0.

    Float32 (B, K); a tag that the schema lacks is no column.
    """
    values, num_tags = np.asarray(pack.column(target.name)), len(target.classes)
    column_of = _class_ids(pack.vocabulary(target.name), target, first=1)
    column_of = np.append(
        np.where(column_of > 0, column_of - 1, num_tags), num_tags
    )  # the last one is that of -1

    def gather(index: np.ndarray) -> Tensor:
        has = torch.zeros((len(index), num_tags + 1))
        has.scatter_(1, torch.from_numpy(column_of[values[rows[index]]]), 1.0)
        return has[:, :num_tags].contiguous()

    return gather


def _target_ids(pack: Pack, target: FeatureSchema, rows: np.ndarray) -> np.ndarray:
    """The class of each row, int64."""
    values = np.asarray(pack.column(target.name))
    ids = _class_ids(pack.vocabulary(target.name), target, first=0)[values[rows, 0]]
    if (unknown := np.flatnonzero(ids < 0)).size:
        row = rows[unknown[0]]
        label = pack.vocabulary(target.name)[values[row, 0]]
        raise DataError(
            f"target {target.name}: {unknown.size} rows have a class that the schema does not "
            "know, the first is "
            f"row {pack.rows[row] + 1} with {label!r}; leave them out"
        )
    return ids


def _point_gatherer(
    pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
) -> _Gather:
    """Points (B, P, 2) in pixels of the stored images."""
    values = np.asarray(pack.column(feature.name))
    source, stored = _sizes(pack, schema, feature, rows)

    def gather(index: np.ndarray) -> Tensor:
        points = values[rows[index]].reshape(len(index), *feature.shape)
        return torch.from_numpy(scale_to_stored(points, source[index], stored))

    return gather


def _sizes(
    pack: Pack, schema: Schema, points: FeatureSchema, rows: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Height and width of the rows' pictures in their files, and of the
    stored images, that points lie on.
    """
    [image] = [feature for feature in schema.inputs if feature.name == points.image]
    return np.asarray(pack.source(image.name))[rows], image.shape[1:]


def _class_ids(vocabulary: list[str], feature: FeatureSchema, first: int) -> np.ndarray:
    """Raw id -> `first` + position in the classes, or `first` - 1 for one
    that training has not seen; int64.
    """
    position = {name: at for at, name in enumerate(feature.classes, first)}
    return np.array([position.get(name, first - 1) for name in vocabulary], np.int64)


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


def free_memory() -> int:
    """Bytes that this process may still take.

    What the machine has, or what a container allows (control groups, v2).
    """
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError, KeyError):  # another system, or no limit
        limit, used = (
            int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        free = min(
            free, max(0, limit - used + int(stat["inactive_file"]))
        )  # files that were read give way
    return free
