"""The train flow turns a table into a trained, evaluated, tracked model.

It also lets a run go on that stopped. A recipe that is split by several columns makes a run of
each, below a parent with their mean and deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from ..recipe import Recipe
from ..tasks import (
    evaluate_model,
    find_attempt,
    finish_run,
    hold_run,
    ingest_table,
    is_over_splits,
    keep_status,
    list_unfinished,
    locate_run,
    name_run,
    note_failure,
    open_split,
    register_model,
    reopen_run,
    resolve_recipe,
    start_run,
    summarise_splits,
    train_model,
)
from ..tasks.services import quiet_user_errors


@flow(name="train", persist_result=False)
def train(
    recipe: Recipe = Recipe(),
    recipe_file: str = "",
    overrides: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
    resume: str = "",
    recheck: bool = False,
    trust_code: list[str] = [],  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
) -> dict[str, Any]:
    """Train a new run, or let one go on.

    If Prefect retries the flow run, its run goes on too; a finished run is not trained again.

    Args:
        recipe: fields that go over the file's.
        recipe_file: recipe to start from; relative to the working directory.
        overrides: dotted keys that go over both, for example {"train.epochs": 3}.
        resume: id of a run that goes on instead; its own recipe is used, with the overrides.
        recheck: read all files of the table again, also those that seem to be as they were.
        trust_code: modules that the recipe of a run that goes on may have imported, where it was
            not begun here.

    Returns:
        The run's record as JSON: ids, status, metrics, seconds, and where the weights are; over
        several split columns the parent's, with its children's below `runs`.
    """
    quiet_user_errors()
    attempt = find_attempt()
    if attempt.result is not None:
        return attempt.result
    if attempt.folder is not None or resume:
        return go_on(attempt.folder or locate_run(resume), overrides if resume else {}, trust_code)
    return begin(resolve_recipe(recipe, recipe_file, overrides), recipe_file, recheck)


def begin(
    recipe: Recipe, recipe_file: str, recheck: bool = False, trust_code: Sequence[str] = ()
) -> dict[str, Any]:
    """Make a new run, from ingest to its end, and give its record."""
    ingested, folder = ingest_table(recipe, recheck), name_run(recipe)
    with hold_run(folder), keep_status(folder):
        start_run(folder, recipe, ingested, recipe_file, trust_code)
        train_to_the_end(folder)
        return finish_run(folder)


def go_on(
    folder: Path, overrides: dict[str, Any], trust_code: Sequence[str] = ()
) -> dict[str, Any]:
    """Take a run from where it stopped to its end and give its record."""
    with hold_run(folder), keep_status(folder):
        reopen_run(folder, overrides, trust_code)
        train_to_the_end(folder)
        return finish_run(folder)


def train_to_the_end(folder: Path) -> None:
    """Do all that an open run has left to do."""
    if is_over_splits(folder):
        train_splits(folder)
    else:
        train_one(folder)


def train_one(folder: Path) -> None:
    """Train, evaluate and register one run, from where it stands."""
    train_model(folder)
    evaluate_model(folder)
    register_model(folder)


def train_splits(folder: Path) -> None:
    """Train a run for each split column, or let the one it has go on.

    A run that fails does not stop the others.
    """
    failures: dict[str, str] = {}
    for column in list_unfinished(folder):
        with note_failure(column, failures), open_split(folder, column) as child:
            train_one(child)
    summarise_splits(folder, failures)
