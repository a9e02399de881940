"""The threads of a run.

How many, found once and kept by the run, and how they share the cores with other work.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.optim.lr_scheduler import ConstantLR

from ...console import say
from ...datasets.pack import View
from ...disk import digest
from ...engine import Job, Progress, build_training_loss, reduction_of, take_step
from ...engine.checkpoints import list_generations, read_manifest
from ...engine.hardware import (
    CoreSharing,
    ThreadCount,
    find_thread_count,
    fingerprint,
    pick_device,
    random_states,
    set_random_states,
    threads_by_user,
    turn_alone,
)
from ...errors import CheckpointError
from ...recipe import Recipe
from ...runs import CHECKPOINTS, Run
from ...schema import Batch
from ...settings import home
from .job import build_scorer, rows_in_order

MEMORY_FILE = "threads.json"
# What of the fingerprint says which machine and libraries computed.
MACHINE = ("torch", "cpu", "cpu_capability", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "machine")


@contextlib.contextmanager
def run_threads(run: Run, view: View) -> Iterator[CoreSharing]:
    """Compute with the threads of a run for the life of the block.

    A run keeps the number that it began with, whatever the environment says where it goes on,
    unless its recipe names another. The record of the run says how many they are, and how they
    wait.
    """
    recipe = run.recipe
    found = _find(run, view)
    with share_cores(recipe, found.number) as cores:
        run.update(threads=found.number, waiting=cores.waiting)
        if pick_device(recipe.train.device).type == "cpu":
            say(f"threads: {found.number} ({found.reason}); waiting: {cores.waiting}")
        yield cores


@contextlib.contextmanager
def share_cores(recipe: Recipe, num_threads: int = 0) -> Iterator[CoreSharing]:
    """Compute with so many threads, and share the cores with other work, for
    the life of the block.

    Args:
        recipe: whose device says whether the CPU computes; else nothing is shared.
        num_threads: 0 means as many as torch computes with now. The number of before comes back
            afterwards.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads or before)
    try:
        on_cpu = pick_device(recipe.train.device).type == "cpu"
        with CoreSharing(torch.get_num_threads() if on_cpu else 1, say) as cores:
            yield cores
    finally:
        torch.set_num_threads(before)


def share_batches(job: Job, cores: CoreSharing) -> Job:
    """The same job, which follows the load of the machine before each batch."""

    def train_batches(epoch: int, start_batch: int) -> Iterator[Batch]:
        return cores.around(job.train_batches(epoch, start_batch))

    return replace(
        job, train_batches=train_batches, valid_batches=lambda: cores.around(job.valid_batches())
    )


def _find(run: Run, view: View) -> ThreadCount:
    recipe = run.recipe
    kept = run.record.threads or _threads_of_checkpoint(run)
    return (
        ThreadCount(kept, "as the run began")
        if kept and recipe.train.threads == "auto"
        else choose_threads(recipe, view)
    )


def choose_threads(recipe: Recipe, view: View) -> ThreadCount:
    """The number of threads of a new run.

    What recipe or user say, else what is fastest.
    """
    if recipe.train.threads != "auto":
        return ThreadCount(int(recipe.train.threads), "as train.threads says")
    device = pick_device(recipe.train.device)
    if device.type != "cpu":
        return ThreadCount(torch.get_num_threads(), f"the computing is done by {device}")
    if by_user := threads_by_user():
        return by_user
    train, schema = recipe.train, view.schema
    shapes = [
        (one.kind, one.shape, one.dtype, len(one.classes), one.vocabulary)
        for one in (*schema.inputs, *schema.targets)
    ]
    facts = fingerprint(device)
    machine = [facts[name] for name in MACHINE] + [
        os.cpu_count(),
        torch.get_num_threads(),
        platform.node(),
    ]
    settings = [recipe.model.model_dump(), train.batch_size, train.precision, train.loss, shapes]
    states = random_states()
    try:
        step = _Step(recipe, view)
        with turn_alone():
            return find_thread_count(step, home().cache / MEMORY_FILE, digest(machine, settings))
    except Exception:  # noqa: BLE001 - whatever is wrong with model or rows, the training says it better than a trial
        return ThreadCount(torch.get_num_threads(), "all cores")
    finally:
        set_random_states(states)


class _Step:
    """A training step of the recipe's model on one batch of its rows, with
    weights of its own.
    """

    def __init__(self, recipe: Recipe, view: View) -> None:
        scorer = build_scorer(recipe, view.schema)
        self._batch = next(iter(rows_in_order(recipe, view, "train", scorer)))
        optimizer = torch.optim.SGD(scorer.model.parameters(), lr=0.0)
        loss = build_training_loss(
            recipe.train.loss,
            view.schema,
            label_smoothing=recipe.train.label_smoothing,
            balanced=False,
            device=scorer.device,
        )
        self._job = Job(
            scorer=scorer,
            loss=loss,
            optimizer=optimizer,
            scheduler=ConstantLR(optimizer),
            train_batches=lambda epoch, start_batch: (),
            valid_batches=tuple,
            measure=lambda found: {},
            num_epochs=1,
            steps_per_epoch=1,
            reduction=reduction_of(recipe.train.loss),
        )
        scorer.model.train()

    def __call__(self) -> None:
        take_step(self._job, Progress(), [self._batch])


def _threads_of_checkpoint(run: Run) -> int:
    """The number of threads of a run that began before records named it.

    0 where no checkpoint says.
    """
    for folder in reversed(list_generations(run.folder / CHECKPOINTS)):
        with contextlib.suppress(CheckpointError, ValueError):
            return int(read_manifest(folder)["fingerprint"].get("num_threads", 0))
    return 0
