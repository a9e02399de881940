"""Rows of a pack -> batches of raw values in torch's memory, in an order that is a function of (seed, epoch) alone.

Nothing is decoded, standardised or augmented here: that is in `images.py`, once, and in `transform.py`, on the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError, RecipeError
from ..schema import Batch, FeatureSchema, Schema
from .pack import Pack
from .pixels import as_elements
from .points import file_scale, scale_to_stored
from .text import text_gatherer
from .triples import Questions, ask_questions

# Shapes: B rows in a batch, C channels, H height, W width, D columns, T targets, P points.
_Gather = Callable[[np.ndarray], Tensor]

PR_SET_PDEATHSIG = 1  # of prctl(2)

# Bytes of pixels that are copied into memory, and how many rows of them at once.
MOST_IN_MEMORY = 2**29
ROWS_AT_ONCE = 4096


class _HasKind(Protocol):
    """A feature, of a recipe or of a schema."""

    @property
    def kind(self) -> str: ...


class PackDataset(Dataset[Batch]):
    """Some rows of a pack, gathered a batch at a time.

    Args:
        pack: raw values.
        schema: the features that make a batch, and the ids of their classes.
        rows: int64, positions in the pack, for example those of one split.
        in_memory: copy the pixels of these rows into memory, where they are few enough: for rows that are gathered
            again and again, at random. From one block they come three times as fast as from the shards of a store.

    A target that the pack does not have, because its rows are to be predicted, is zeros: their losses mean nothing.

    Triples whose tails are ranked are asked in both directions, so that there are twice as many items as rows, the
    backward ones last; to be predicted, each is asked for its tail alone. See `triples.py`.

    Raises:
        DataError: a row's target is no class of the schema.
    """

    def __init__(self, pack: Pack, schema: Schema, rows: np.ndarray, in_memory: bool = False) -> None:
        self._pack, self._schema, self._in_memory = pack, schema, in_memory
        self.rows = np.asarray(rows, np.int64)
        if schema.triple is None:
            self._of_item = self.rows
            self._inputs = [_gatherer(pack, feature, self.rows, schema, in_memory) for feature in schema.inputs]
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
            indices: positions in this data set, not in the pack; of shape (2, B) with `Batch.repeats` beneath.
        """
        index, repeats = np.asarray(indices, np.int64), None
        if index.ndim == 2:
            index, repeats = index[0], torch.from_numpy(index[1])
        return Batch(
            torch.from_numpy(self._of_item[index]),
            tuple(gather(index) for gather in self._inputs),
            self._target(index),
            repeats,
        )

    def questions(self) -> Questions:
        """What the items ask, where the schema has a triple."""
        [target] = self._schema.targets
        is_known = target.name in self._pack.features
        tails = _target_ids(self._pack, target, self.rows) if is_known else None
        return ask_questions(self._pack, self._schema, self.rows, tails)

    def scale(self, points: FeatureSchema) -> Tensor:
        """Pixels of the file in a pixel of the stored image, along x and y, for each of these rows.

        Args:
            points: a feature of points; a distance between two of them times this is one in the table's units.
        Returns:
            float64, shape (rows, 2), in the order of the rows.
        """
        return torch.from_numpy(file_scale(*_sizes(self._pack, self._schema, points, self.rows)))

    def classes(self) -> np.ndarray:
        """The class id of every row, int64 (N,); of several category targets, that of the first."""
        return self._target(np.arange(len(self))).numpy().reshape(len(self), -1)[:, 0]

    def __reduce__(self) -> tuple[type[PackDataset], tuple[Pack, Schema, np.ndarray, bool]]:
        return PackDataset, (self._pack, self._schema, self.rows, self._in_memory)


def make_loader(
    dataset: PackDataset,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start_batch: int = 0,
    shuffle: bool = True,
    balanced: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
    batches_at_once: int = 1,
) -> DataLoader[Batch]:
    """One epoch's batches, from `start_batch` on; the same ones for any number of workers.

    Small batches cost more to handle than to gather, so that several may come as one: see `split_batches`.

    Args:
        dataset: the rows.
        batch_size: rows in a batch; a last batch of one row joins the batch before it.
        seed: decides the order, together with `epoch`.
        epoch: counts from 0.
        start_batch: batches of this epoch that are done already.
        shuffle: false keeps the order of the rows.
        balanced: draw as many rows with replacement, each class of the first target equally often; see
            `balanced_order`.
        num_workers: processes that gather; 0 gathers in this one.
        pin_memory: copy each batch to pinned memory, for a device that is not the CPU.
        batches_at_once: how many batches are gathered as one.
    Raises:
        RecipeError: the draws are to be balanced and the target is no category.
    """
    if balanced:
        check_sampling("balanced", dataset.targets)
        order = balanced_order(dataset.classes(), seed, epoch)
    else:
        order = epoch_order(len(dataset), seed, epoch) if shuffle else np.arange(len(dataset))
    # Without a generator of its own a DataLoader draws from torch's global one, and a resumed run would differ.
    return DataLoader(
        dataset,
        batch_sampler=_Groups(order, batch_size, start_batch, batches_at_once),  # pyright: ignore[reportArgumentType]
        collate_fn=_identity,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=functools.partial(_begin_worker, os.getpid()),
        generator=torch.Generator().manual_seed(0),
    )


def num_batches(num_rows: int, batch_size: int) -> int:
    """Batches in one pass: the rest is a batch too, unless it is one row that can join the batch before it."""
    full, rest = divmod(num_rows, batch_size)
    return full + (rest > 1 or (rest == 1 and full == 0))


def split_batches(group: Batch, batch_size: int) -> Iterator[Batch]:
    """The batches that were gathered as one: views of it."""
    num_rows = len(group.rows)
    before_last = num_batches(num_rows, batch_size) - 1
    sizes = [batch_size] * before_last + [num_rows - before_last * batch_size]
    rows, target = group.rows.split(sizes), group.target.split(sizes)
    inputs = zip(*(one.split(sizes) for one in group.inputs), strict=True)
    repeats = itertools.repeat(None) if group.repeats is None else group.repeats.split(sizes)
    return map(Batch, rows, inputs, target, repeats)


def check_sampling(sampling: str, targets: Iterable[_HasKind]) -> None:
    """Refuse to balance what has no classes.

    Args:
        sampling: as the recipe's train.sampling.
        targets: of the recipe or the schema.

    Raises:
        RecipeError: a target is no category.
    """
    for target in targets:
        if sampling == "balanced" and target.kind != "category":
            raise RecipeError(
                f"train.sampling: balanced draws every class equally often, and a row of a {target.kind} target has "
                f"no one class; leave it at shuffle"
            )


def epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the rows, int64, that depends on nothing but the arguments."""
    return np.random.Generator(np.random.PCG64([seed % 2**64, epoch])).permutation(num_rows)


def balanced_order(classes: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many draws as there are rows, with replacement; each class that has rows equally often in expectation.

    Args:
        classes: of each row, int64 (N,).
        seed, epoch: decide the draws, together with the classes.

    Returns:
        int64 (2, N): positions of rows, and beneath them how often each was drawn before, so that a row which comes
        again can be augmented in another way.
    """
    num_rows = len(classes)
    rng = np.random.Generator(np.random.PCG64([seed % 2**64, epoch, 1]))
    by_class = np.argsort(classes, kind="stable")
    counts = np.unique(classes, return_counts=True)[1]
    first = np.cumsum(counts) - counts
    drawn = rng.integers(len(counts), size=num_rows)
    order = by_class[first[drawn] + rng.integers(counts[drawn])]
    # Equal rows side by side, in the order of the draws: the place within the run of equals is what was before.
    together = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[together], prepend=-1))
    before = np.empty(num_rows, np.int64)
    before[together] = np.arange(num_rows) - np.repeat(starts, np.diff(starts, append=num_rows))
    return np.stack([order, before])


def prefetch(loader: Iterable[Batch], depth: int = 2) -> Iterator[Batch]:
    """Gather and pin the next batches in a thread while the caller works: for accelerators, whose host would else wait.

    Args:
        loader: raw batches, in pinned memory.
        depth: batches that may be ready.

    Raises:
        Exception: whatever the loader raised, here in the caller's thread.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(item, timeout=0.1)

    def work() -> None:
        try:
            for batch in loader:
                put(batch)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            put(error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


class _Groups:
    """A batch sampler: index arrays of one epoch, each of one batch or of several."""

    def __init__(self, order: np.ndarray, batch_size: int, start: int, at_once: int) -> None:
        self._order, self._batch_size, self._start, self._at_once = order, batch_size, start, at_once
        self._num_rows = order.shape[-1]
        self._num_batches = num_batches(self._num_rows, batch_size)

    def __len__(self) -> int:
        return len(range(self._start, self._num_batches, self._at_once))

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self._start, self._num_batches, self._at_once):
            is_last = number + self._at_once >= self._num_batches
            stop = self._num_rows if is_last else (number + self._at_once) * self._batch_size
            yield self._order[..., number * self._batch_size : stop]


def _begin_worker(parent: int, worker: int) -> None:
    """Make a worker live and die with its parent, the process with the id `parent`.

    A signal to the whole process group, as Ctrl-C and `timeout` send it, is the parent's: it finishes the step and then
    ends its workers. A parent that is killed takes them along at once, where the system can do that, and with them the
    lock that they inherited; elsewhere torch's own watchdog ends them within seconds.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)
    # What the parent's threads would do at exit: they are not in a forked worker, which would exit with code 1.
    # Prefect's event worker, which runs beside every flow, leaves such a callback.
    getattr(threading, "_threading_atexits", []).clear()


def _identity(batch: Any) -> Any:
    return batch


def _picker(values: np.ndarray) -> _Gather:
    """What gathers from an array in memory."""
    return lambda index: torch.from_numpy(values[index])


def _gatherer(pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema, in_memory: bool = False) -> _Gather:
    """What gathers an input."""
    if feature.kind == "image":
        gather = _image_gatherer(pack, feature, rows)
        return _from_memory(gather, feature, len(rows)) if in_memory else gather
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
    """What gathers all targets: class ids (B,) or (B, T), or all columns or tags (B, D)."""
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
    """1 for each tag of a row, else 0: float32 (B, K); a tag that the schema lacks is no column."""
    values, num_tags = np.asarray(pack.column(target.name)), len(target.classes)
    column_of = _class_ids(pack.vocabulary(target.name), target, first=1)
    column_of = np.append(np.where(column_of > 0, column_of - 1, num_tags), num_tags)  # the last one is that of -1

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
            f"target {target.name}: {unknown.size} rows have a class that the schema does not know, the first is "
            f"row {pack.rows[row] + 1} with {label!r}; leave them out"
        )
    return ids


def _point_gatherer(pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema) -> _Gather:
    """Points (B, P, 2) in pixels of the stored images."""
    values = np.asarray(pack.column(feature.name))
    source, stored = _sizes(pack, schema, feature, rows)

    def gather(index: np.ndarray) -> Tensor:
        points = values[rows[index]].reshape(len(index), *feature.shape)
        return torch.from_numpy(scale_to_stored(points, source[index], stored))

    return gather


def _sizes(pack: Pack, schema: Schema, points: FeatureSchema, rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Height and width of the rows' pictures in their files, and of the stored images, that points lie on."""
    [image] = [feature for feature in schema.inputs if feature.name == points.image]
    return np.asarray(pack.source(image.name))[rows], image.shape[1:]


def _class_ids(vocabulary: list[str], feature: FeatureSchema, first: int) -> np.ndarray:
    """Raw id -> `first` + position in the classes, or `first` - 1 for one that training has not seen; int64."""
    position = {name: at for at, name in enumerate(feature.classes, first)}
    return np.array([position.get(name, first - 1) for name in vocabulary], np.int64)


def _image_gatherer(pack: Pack, feature: FeatureSchema, rows: np.ndarray) -> _Gather:
    """Pixels (B, C, H, W) of the batch, channels last in memory, as the store has them."""
    image = pack.image(feature.name)
    shard, offset = np.asarray(image.shard)[rows], np.asarray(image.offset)[rows]
    channels, height, width = feature.shape
    dtype = getattr(torch, feature.dtype)
    with warnings.catch_warnings(action="ignore"):  # the shards are read-only, and are only read
        shards = [torch.from_numpy(one.transpose(0, 2, 3, 1)) for one in image.shards]

    def gather(index: np.ndarray) -> Tensor:
        number, row = shard[index], torch.from_numpy(offset[index])
        used = np.unique(number).tolist()
        if len(used) == 1:
            return shards[used[0]].index_select(0, row).permute(0, 3, 1, 2)
        batch = torch.empty((len(index), height, width, channels), dtype=dtype)
        images = as_elements(batch.numpy())
        for one in used:
            places = np.flatnonzero(number == one)
            images[places] = as_elements(shards[one].index_select(0, row[torch.from_numpy(places)]).numpy())
        return batch.permute(0, 3, 1, 2)

    return gather


def _from_memory(gather: _Gather, feature: FeatureSchema, num_rows: int) -> _Gather:
    """The same from a copy in memory; what would take too much of it goes on as before."""
    channels, height, width = feature.shape
    dtype = np.dtype(feature.dtype)
    num_bytes = num_rows * math.prod(feature.shape) * dtype.itemsize
    if num_bytes > min(MOST_IN_MEMORY, psutil.virtual_memory().available // 4):
        return gather
    # NumPy asks the system for huge pages, so that a picture is found without a walk through page tables.
    pixels = np.empty((num_rows, height, width, channels), dtype)
    for start in range(0, num_rows, ROWS_AT_ONCE):
        part = np.arange(start, min(start + ROWS_AT_ONCE, num_rows))
        pixels[part[0] : part[-1] + 1] = gather(part).permute(0, 2, 3, 1).numpy()
    images = torch.from_numpy(pixels)
    return lambda index: images.index_select(0, torch.from_numpy(index)).permute(0, 3, 1, 2)
