"""The train flow: a table becomes a trained, evaluated, tracked model; also how a run that stopped goes on."""

from __future__ import annotations

from typing import Any

from prefect import flow

from ..recipe import Recipe
from ..tasks.evaluate import evaluate_model
from ..tasks.ingest import ingest_table
from ..tasks.register import register_model
from ..tasks.runs import finish_run, hold_run, keep_status, locate_run, reopen_run, resolve_recipe, start_run
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
        The run's record as JSON: ids, status, metrics, seconds, and where the weights are.
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
        with keep_status(run_dir):
            train_model(run_dir)
            evaluate_model(run_dir)
            register_model(run_dir)
        return finish_run(run_dir)
