"""The train flow: a table becomes a trained, evaluated, tracked model; also how a run that stopped goes on.

A recipe that is split by several columns makes a run of each, below a parent with their mean and deviation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from ..recipe import Recipe
from ..tasks.evaluate import evaluate_model
from ..tasks.ingest import ingest_table
from ..tasks.register import register_model
from ..tasks.runs import finish_run, hold_run, keep_status, locate_run, reopen_run, resolve_recipe, start_run
from ..tasks.splits import is_over_splits, list_unfinished, note_failure, open_split, summarise_splits
from ..tasks.train import train_model
from .quiet import quiet_user_errors


@flow(name="train", persist_result=False)
def train(
    recipe: Recipe = Recipe(),
    recipe_file: str = "",
    overrides: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
    resume: str = "",
) -> dict[str, Any]:
    """Train a new run, or let one go on.

    Args:
        recipe: fields that go over the file's.
        recipe_file: recipe to start from; relative to the working directory.
        overrides: dotted keys that go over both, for example {"train.epochs": 3}.
        resume: id of a run that goes on instead; its own recipe is used, with the overrides.

    Returns:
        The run's record as JSON: ids, status, metrics, seconds, and where the weights are; over several split columns
        the parent's, with its children's below `runs`.
    """
    quiet_user_errors()
    if resume:
        run_dir = locate_run(resume)
    else:
        resolved = resolve_recipe(recipe, recipe_file, overrides)
        run_dir = start_run(resolved, ingest_table(resolved), recipe_file)
    with hold_run(run_dir):
        if resume:
            reopen_run(run_dir, overrides)
        return train_to_the_end(run_dir)


def train_to_the_end(run_dir: Path) -> dict[str, Any]:
    """All that an open run has to do; gives its record as JSON. Hold the run first."""
    with keep_status(run_dir):
        if is_over_splits(run_dir):
            train_splits(run_dir)
        else:
            train_one(run_dir)
    return finish_run(run_dir)


def train_one(run_dir: Path) -> None:
    """A run's own work, from where it stands."""
    train_model(run_dir)
    evaluate_model(run_dir)
    register_model(run_dir)


def train_splits(run_dir: Path) -> None:
    """A run for each split column that has none, or goes on with the one it has; one that fails stops no other."""
    failures: dict[str, str] = {}
    for column in list_unfinished(run_dir):
        with note_failure(column, failures), open_split(run_dir, column) as child_dir:
            train_one(child_dir)
    summarise_splits(run_dir, failures)
