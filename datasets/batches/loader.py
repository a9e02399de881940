"""Rows of a pack -> batches of raw values, in an order that is a function of
(seed, epoch) alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import multiprocessing.util
import os
import queue
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ...errors import RecipeError
from ...kinds import Facts
from ...schema import Batch
from .dataset import PackDataset
from .python_private import forget_exit_callbacks

# Shapes: B rows in a batch, N rows in an epoch.

# Says of rows, and how often the epoch drew each before, which ones' pictures are mirrored: bool,
# shape (N,).
ChooseMirrored = Callable[[Tensor, Tensor], np.ndarray]

PR_SET_PDEATHSIG = 1  # of prctl(2)


class _HasFacts(Protocol):
    """A feature, of a recipe or of a schema."""

    @property
    def facts(self) -> Facts: ...


class Order(NamedTuple):
    """In which order the rows of an epoch come, and from where on.

    Attributes:
        seed: decides the order, together with `epoch`.
        epoch: counts from 0.
        start_batch: batches of this epoch that are done already.
        shuffle: false keeps the order of the rows.
        balanced: draw as many rows with replacement, each class of the first target equally often;
            see `balanced_order`.
        mirrored: chooses the rows whose pictures come mirrored.
    """

    seed: int = 0
    epoch: int = 0
    start_batch: int = 0
    shuffle: bool = True
    balanced: bool = False
    mirrored: ChooseMirrored | None = None

    def arrange(self, dataset: PackDataset) -> np.ndarray:
        """What a dataset is asked for, int64, shape (N,), (2, N) or (3, N).

        Positions of rows; beneath them how often each was drawn before, and whether its picture is
        mirrored.

        Raises:
            RecipeError: the draws are to be balanced and the target is no category.
        """
        if self.balanced:
            check_sampling("balanced", dataset.targets)
            order = balanced_order(dataset.classes(), self.seed, self.epoch)
        elif self.shuffle:
            order = epoch_order(len(dataset), self.seed, self.epoch)
        else:
            order = np.arange(len(dataset))
        return order if self.mirrored is None else _with_mirrored(dataset, order, self.mirrored)


def make_loader(
    dataset: PackDataset,
    batch_size: int,
    order: Order,
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
    batches_at_once: int = 1,
) -> DataLoader[Batch]:
    """The batches of one epoch, from `order.start_batch` on.

    The same ones for any number of workers.

    Small batches cost more to handle than to gather, so that several may come as one: see
    `split_batches`.

    Args:
        dataset: the rows.
        batch_size: rows in a batch; a last batch of one row joins the batch before it.
        order: of the rows.
        num_workers: processes that gather; 0 gathers in this one.
        pin_memory: copy each batch to pinned memory, for a device that is not the CPU.
        batches_at_once: how many batches are gathered as one.
    Raises:
        RecipeError: the draws are to be balanced and the target is no category.
    """
    groups = _Groups(order.arrange(dataset), batch_size, order.start_batch, batches_at_once)
    # Without a generator of its own a DataLoader draws from torch's global one, and a resumed run
    # would differ.
    return DataLoader(
        dataset,
        batch_sampler=groups,  # pyright: ignore[reportArgumentType]
        collate_fn=_identity,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=functools.partial(_begin_worker, os.getpid()),
        generator=torch.Generator().manual_seed(0),
    )


def num_batches(num_rows: int, batch_size: int) -> int:
    """Batches in one pass.

    The rest is a batch too, unless it is one row that can join the batch before it.
    """
    full, rest = divmod(num_rows, batch_size)
    return full + (rest > 1 or (rest == 1 and full == 0))


def split_batches(group: Batch, batch_size: int) -> Iterator[Batch]:
    """The batches that were gathered as one.

    Views of it.
    """
    num_rows = len(group.rows)
    before_last = num_batches(num_rows, batch_size) - 1
    sizes = [batch_size] * before_last + [num_rows - before_last * batch_size]
    rows, target = group.rows.split(sizes), group.target.split(sizes)
    inputs = zip(*(one.split(sizes) for one in group.inputs), strict=True)
    repeats = itertools.repeat(None) if group.repeats is None else group.repeats.split(sizes)
    return map(Batch, rows, inputs, target, repeats)


def check_sampling(sampling: str, targets: Iterable[_HasFacts]) -> None:
    """Refuse to balance what has no classes.

    Args:
        sampling: as the recipe's train.sampling.
        targets: of the recipe or the schema.

    Raises:
        RecipeError: a target is no category.
    """
    for target in targets:
        if sampling == "balanced" and not target.facts.is_one_class:
            raise RecipeError(
                "train.sampling: balanced draws every class equally often, and a row of a "
                f"{target.facts.name} target has "
                f"no one class; leave it at shuffle"
            )


def epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the rows, int64, that depends on nothing but the
    arguments.
    """
    return np.random.Generator(np.random.PCG64([seed % 2**64, epoch])).permutation(num_rows)


def balanced_order(classes: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many draws as there are rows, with replacement.

    Each class that has rows equally often in expectation.

    Args:
        classes: of each row, int64 (N,).
        seed, epoch: decide the draws, together with the classes.

    Returns:
        int64 (2, N): positions of rows, and beneath them how often each was drawn before, so that a
        row which comes again can be augmented in another way.
    """
    num_rows = len(classes)
    rng = np.random.Generator(np.random.PCG64([seed % 2**64, epoch, 1]))
    by_class = np.argsort(classes, kind="stable")
    counts = np.unique(classes, return_counts=True)[1]
    first = np.cumsum(counts) - counts
    drawn = rng.integers(len(counts), size=num_rows)
    order = by_class[first[drawn] + rng.integers(counts[drawn])]
    # Equal rows side by side, in the order of the draws: the place within the run of equals is what
    # was before.
    together = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[together], prepend=-1))
    before = np.empty(num_rows, np.int64)
    before[together] = np.arange(num_rows) - np.repeat(starts, np.diff(starts, append=num_rows))
    return np.stack([order, before])


def prefetch(loader: Iterable[Batch], depth: int = 2) -> Iterator[Batch]:
    """Gather and pin the next batches in a thread while the caller works.

    For accelerators, whose host would else wait.

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


def _with_mirrored(dataset: PackDataset, order: np.ndarray, mirrored: ChooseMirrored) -> np.ndarray:
    """An order of shape (N,) or (2, N) as one of (3, N), with what
    `mirrored` chooses.
    """
    index, repeats = order if order.ndim == 2 else (order, np.zeros_like(order))
    chosen = mirrored(torch.from_numpy(dataset.rows_of(index)), torch.from_numpy(repeats))
    return np.stack([index, repeats, chosen.astype(np.int64)])


class _Groups:
    """A batch sampler.

    Index arrays of one epoch, each of one batch or of several.
    """

    def __init__(self, order: np.ndarray, batch_size: int, start: int, at_once: int) -> None:
        self._order, self._batch_size, self._start, self._at_once = (
            order,
            batch_size,
            start,
            at_once,
        )
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
    """Make a worker live and die with its parent, the process with the id
    `parent`.

    A signal to the whole process group, as Ctrl-C, `timeout` and a lost terminal send it, is the
    parent's: it finishes the step and then ends its workers. A parent that is killed takes them
    along at once, where the system can do that, and with them the lock that they inherited;
    elsewhere torch's own watchdog ends them within seconds.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)
    # What the parent's threads would do at exit: they are not in a forked worker, which would exit
    # with code 1. Prefect's event worker, which runs beside every flow, leaves such a callback.
    forget_exit_callbacks()


def _end_workers() -> None:
    """End the workers of loaders that an error left in the middle of an epoch,
    which its traceback keeps alive.

    At the end of its process multiprocessing would ask them by SIGTERM, which they leave to their
    parent, and wait.
    """
    workers = [process for process in multiprocessing.active_children() if process.daemon]
    if workers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise that a worker was killed
    for process in workers:
        process.kill()


multiprocessing.util.Finalize(None, _end_workers, exitpriority=0)


def is_lost_worker(error: RuntimeError) -> bool:
    """Whether torch says that a process which gathers batches has died.

    It says so by the message alone.
    """
    return (
        re.match(
            r"DataLoader worker \(pid\S* [\d, ]+\) (is killed|exited unexpectedly)", str(error)
        )
        is not None
    )


def _identity(batch: Any) -> Any:
    return batch
