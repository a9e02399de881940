"""A dry run.

Everything that a training needs is checked, and two steps are trained, without leaving a run
behind.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...console import hearing_warnings
from ...datasets.pack import View, open_view
from ...disk import make_folder
from ...engine import Evaluation, Job, Progress, check_monitor, evaluate, reduce_sum, train
from ...engine.checkpoints import CheckpointStore
from ...engine.hardware import keep_freed_memory
from ...recipe import Recipe
from ...schema import Batch
from ...settings import home
from ...tasks import ingest_table
from ...tasks.assembly import (
    build_job,
    check_recipe,
    check_validation,
    choose_threads,
    naming_table_rows,
    plan_start,
    say_start,
    share_batches,
    share_cores,
    try_early,
    try_ingested,
    warn_unused_settings,
)

NUM_STEPS = 2
NUM_VALID_BATCHES = 2


def dry_run(recipe: Recipe, *, recheck: bool = False) -> dict[str, Any]:
    """Check a recipe, ingest its table, train two steps and score two batches
    of validation rows, or all if need be.

    The pack and the decoded images stay: they are a cache, which the real run finds. Of several
    splits the first is tried. No run, and nothing in MLflow, is made; Prefect is not needed. With
    `recheck` every file is read again.

    Returns:
        What was found, as JSON: rows by split, parameters, device, precision, losses, seconds of a
            step and, from
        that, of an epoch; all warnings that were said; of several splits the one that was tried.
    Raises:
        TorchrelayError: whatever the real run would raise.
    """
    with hearing_warnings() as warnings:
        found = _try(recipe, recheck)
    return {**found, "warnings": warnings}


def _try(recipe: Recipe, recheck: bool) -> dict[str, Any]:
    check_recipe(recipe)
    try_early(recipe)
    ingested = ingest_table.fn(recipe, recheck)
    for one in ingested.splits.values():
        check_validation(recipe, one.rows["valid"])
    try_ingested(recipe, ingested.splits)
    data = ingested.first
    view = open_view(data.pack_dir, data.split_dir)
    keep_freed_memory()
    warn_unused_settings(recipe)
    start = plan_start(recipe, view.schema)
    if start is not None:
        say_start(start)
    num_valid = len(view.rows["valid"]) * (
        1 if view.schema.triple is None else 2
    )  # asked in both directions
    threads = choose_threads(recipe, view)
    with share_cores(recipe, threads.number) as cores:
        job = build_job(
            recipe, view, recipe.train.epochs, start=None if start is None else start.state
        )
        job = share_batches(job, cores)
        losses, step_seconds = _train_steps(job, view, recipe.train.accumulate)
        with naming_table_rows(view):
            valid_loss, row_seconds = _score_batches(job) if num_valid else (None, 0.0)
    result = {
        "rows": data.rows,
        "model": recipe.model.name,
        "parameters": sum(parameter.numel() for parameter in job.scorer.model.parameters()),
        "device": str(job.scorer.device),
        "precision": job.scorer.precision.name,
        "threads": threads.number,
        "losses": losses,
        "valid_loss": valid_loss,
        "steps_per_epoch": job.steps_per_epoch,
        "epochs": recipe.train.epochs,
        "seconds": {
            "ingest": round(ingested.seconds, 3),
            "step": step_seconds,
            "epoch": job.steps_per_epoch * step_seconds + num_valid * row_seconds,
        },
        "pack_dir": str(data.pack_dir),
    }
    if ingested.several:
        result["splits"] = {column: one.rows for column, one in ingested.splits.items()}
        result["tried_split"] = next(iter(ingested.splits))
    return result


def _train_steps(job: Job, view: View, accumulate: int) -> tuple[list[float], float]:
    """Train two steps in the real loop.

    The losses, and the seconds of the faster: the first warms up.
    """

    def few_batches(epoch: int, start_batch: int) -> Iterator[Batch]:
        two_epochs = itertools.chain(job.train_batches(0, 0), job.train_batches(1, 0))
        return itertools.islice(two_epochs, NUM_STEPS * accumulate)

    losses: list[float] = []
    times = [time.perf_counter()]

    def on_step(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if not epoch_ended:
            losses.append(values["train/loss"])
            times.append(time.perf_counter())

    endless = replace(job, early_stop_epochs=0, max_seconds=0.0)
    few = replace(endless, train_batches=few_batches, num_epochs=1, monitor="", every_steps=0)
    cache = home().cache
    make_folder(cache)
    # The loop wants to keep a checkpoint.
    with (
        tempfile.TemporaryDirectory(prefix="dry-run-", dir=cache) as folder,
        naming_table_rows(view),
    ):
        train(
            few,
            Progress(),
            CheckpointStore(Path(folder), keep=1, facts={}, fingerprint={}),
            on_step,
        )
    return losses, min(end - start for start, end in itertools.pairwise(times))


def _score_batches(job: Job) -> tuple[float, float]:
    """The loss of two batches of validation rows, and the seconds that a row
    takes.

    Raises:
        TrainingError: the monitor is defined neither on these rows nor on all that validate.
    """
    started = time.perf_counter()
    scorer = replace(job.scorer, model=job.kept_model)
    found = evaluate(scorer, itertools.islice(job.valid_batches(), NUM_VALID_BATCHES))
    row_seconds = (time.perf_counter() - started) / len(found.rows)
    if job.monitor not in _measure(job, found):  # a class may be missing in two batches alone
        check_monitor(job, _measure(job, evaluate(scorer, job.valid_batches())))
    return reduce_sum(found.losses.sum().item(), len(found.losses), job.reduction), row_seconds


def _measure(job: Job, found: Evaluation) -> dict[str, float]:
    return {f"valid/{name}": value for name, value in job.measure(found).items()}
