"""The registration task.

The best weights become a version of a registered model that can be served.
"""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import task

from ..console import say
from ..datasets.batches import PackDataset
from ..faults import reach
from ..models import build_model
from ..runs import BEST, Run
from ..schema import Schema
from ..tracking.registry import stage_model
from ..weights import load_into, load_weights
from .assembly import Servable, view_of
from .options import UNCACHED


@task(**UNCACHED)
def register_model(folder: Path) -> None:
    """Put a version of the model that the recipe's `tracking.register` names
    together; nothing where it names none.

    It is in the registry once the run's journal is in MLflow.
    """
    run = Run.open(folder)
    record, recipe = run.record, run.recipe
    name = recipe.tracking.register_as
    if not name or "register" in record.done:
        return
    reach("register.begun")
    view = view_of(run)
    model = build_model(recipe.model, view.schema)
    weights = folder / BEST
    load_into(model, load_weights(weights), str(weights))
    servable = Servable(view.schema, model).eval()
    rows = view.rows["train"][:2]
    inputs = PackDataset(view.pack, view.schema, rows).__getitems__(range(len(rows))).inputs
    example = inputs[0].contiguous().numpy()
    obstacle = _why_not_served(view.schema)
    with torch.random.fork_rng(devices=[]), run.journal:
        stage_model(run, name, *((None, None) if obstacle else (servable, example)))
    run.mark_done("register")
    if obstacle:
        say(f"weights only: {obstacle}")


def _why_not_served(schema: Schema) -> str:
    """What keeps a model from being served by MLflow, or nothing."""
    texts = [feature.name for feature in schema.inputs if feature.facts.is_sequence]
    if texts:
        source = "torchrelay predict models:/NAME@ALIAS --table T --out F"
        return (
            f"{texts[0]!r} is text, and torch.export has no strings to cut into tokens; {source} "
            "does it"
        )
    if len(schema.inputs) > 1:
        return f"the model has {len(schema.inputs)} inputs, which mlflow cannot serve as one array"
    return ""
