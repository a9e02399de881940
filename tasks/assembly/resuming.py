"""What a checkpoint says of its run, and how a job goes on from one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from ...console import say
from ...datasets.pack import View
from ...disk import digest
from ...engine import Job, Progress, restore_run
from ...engine.checkpoints import Checkpoint
from ...errors import SourceError
from ...recipe import Recipe, changes_between, dump_recipe, flatten, parse_recipe, refuse_fixed
from ...runs import RunRecord


def checkpoint_facts(record: RunRecord, recipe: Recipe, view: View) -> dict[str, str]:
    """What a checkpoint says of its run beside the state.

    `data_fingerprint` is of the table and of its split.
    """
    sides = [hashlib.sha256(view.rows[name].tobytes()).hexdigest() for name in sorted(view.rows)]
    return {
        "run_id": record.run_id,
        "mlflow_run_id": record.mlflow_run_id,
        "prefect_flow_run_id": record.prefect_flow_run_id,
        "git_commit": record.git_commit,
        "data_fingerprint": digest(record.fingerprint, sides),
        "recipe": dump_recipe(recipe),
    }


def restore_job(
    job: Job, checkpoint: Checkpoint, here: Mapping[str, str], recipe: Recipe
) -> Progress:
    """Put a job into the state of a checkpoint, and say where it goes on.

    Args:
        job: as it was built, with the facts of the run.
        checkpoint: of the same run.
        here: fingerprint of this machine.
        recipe: of the run, as it is now.
    Raises:
        RecipeError: the run's recipe differs in something that a run cannot change on its way, for
            example its seed.
        SourceError: its pack or its split has other rows.
        CheckpointError: it does not fit the model, or has values that are not finite.
    """
    _check_facts(checkpoint, job.facts, recipe)
    progress = restore_run(job, checkpoint.state, str(checkpoint.folder))
    if checkpoint.best_is_lost:
        # No weights have it any more: the next validation begins the search anew.
        progress.best_metric = math.nan
    if why := why_not_identical(
        checkpoint.fingerprint, here, is_deterministic=recipe.train.deterministic
    ):
        say(f"warning: not bit-identical from here on: {why}")
    say(
        f"resume: from step {progress.step:,} (epoch {progress.epoch + 1}, batch "
        f"{progress.batch + 1})"
    )
    return progress


def why_not_identical(
    then: Mapping[str, str], here: Mapping[str, str], *, is_deterministic: bool
) -> str:
    """Why a run that goes on is not promised the bits of one that was never
    stopped; empty where it is.

    Args:
        then: fingerprint of the machine that wrote the checkpoint.
        here: fingerprint of this one.
        is_deterministic: `train.deterministic`.
    """
    if differs := sorted(name for name in here if then.get(name) != here[name]):
        return f"{', '.join(differs)} changed since the checkpoint"
    if here["device"] == "mps":
        return "on mps sums come in another order each time"
    if here["device"] == "cuda" and not is_deterministic:
        return (
            "on cuda sums come in another order each time; runs with train.deterministic do not "
            "have that"
        )
    return ""


def _check_facts(checkpoint: Checkpoint, facts: Mapping[str, str], recipe: Recipe) -> None:
    """Refuse to go on with another recipe or other rows than it was made with, whoever
    changed them.
    """
    then = checkpoint.state["facts"]
    refuse_fixed(changes_between(flatten(parse_recipe(then["recipe"])), flatten(recipe)))
    if then.get("data_fingerprint", facts["data_fingerprint"]) != facts["data_fingerprint"]:
        raise SourceError(
            f"{checkpoint.folder} was made with data of the fingerprint "
            f"{then['data_fingerprint']}, the run's split "
            f"has {facts['data_fingerprint']}: other rows train, validate or test now; bring the "
            "old split back, or "
            f"train a new run"
        )
