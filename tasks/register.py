"""The registration task.

The best weights become a version of a registered model that can be served.
"""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import task

from ..console import say
from ..datasets.batches import PackDataset
from ..datasets.pack import open_view
from ..faults import reach
from ..models import build_model
from ..runs import BEST, JOURNAL_FILE, Journal, load_record, mark_done, read_recipe
from ..schema import Schema
from ..tracking.registry import stage_model
from ..weights import load_into, load_weights
from .assembly import Servable
from .options import UNCACHED


@task(**UNCACHED)
def register_model(run_dir: Path) -> None:
    """Put a version of the model that the recipe's `tracking.register` names
    together; nothing where it names none.

    It is in the registry once the run's journal is in MLflow.
    """
    record, recipe = load_record(run_dir), read_recipe(run_dir)
    name = recipe.tracking.register_as
    if not name or "register" in record.done:
        return
    reach("register.begun")
    view = open_view(Path(record.pack_dir), Path(record.split_dir))
    model = build_model(recipe.model, view.schema)
    weights = run_dir / BEST
    load_into(model, load_weights(weights), str(weights))
    servable = Servable(view.schema, model).eval()
    rows = view.rows["train"][:2]
    inputs = PackDataset(view.pack, view.schema, rows).__getitems__(range(len(rows))).inputs
    example = inputs[0].contiguous().numpy()
    obstacle = _why_not_served(view.schema)
    with torch.random.fork_rng(devices=[]), Journal(run_dir / JOURNAL_FILE) as journal:
        stage_model(journal, record, name, *((None, None) if obstacle else (servable, example)))
    mark_done(run_dir, "register")
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
