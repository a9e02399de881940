"""The registration task: the best weights become a version of a registered model that can be served."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import task
from torch import Tensor, nn

from ..datasets.build import open_view
from ..datasets.pack_dataset import PackDataset
from ..datasets.transform import Standardise, Unstandardise
from ..engine.weights import load_into, load_weights
from ..faults import reach
from ..models.registry import build_model
from ..schema import Schema
from ..tracking.journal import JOURNAL_FILE, Journal
from ..tracking.records import load_record, mark_done
from ..tracking.run_files import read_recipe
from ..tracking.staging import stage_model
from .console import say
from .options import UNCACHED


class Servable(nn.Module):
    """A model that takes pixels or numbers as they stand in the table, and gives numbers as they stand there.

    Args:
        schema: of the model: how its inputs and targets were standardised.
        model: takes and gives standardised values.
    """

    def __init__(self, schema: Schema, model: nn.Module) -> None:
        super().__init__()
        self.standardise = Standardise(schema)
        self.model = model
        self.unstandardise = Unstandardise(schema)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Predict from raw inputs, one tensor an input feature.

        Returns:
            Of categories and labels the unnormalised scores, shape (B, K); of numbers and points the values, float64,
            shape (B, D), points in pixels of the stored image.
        """
        return self.unstandardise(self.model(*self.standardise(*inputs)))


@task(**UNCACHED)
def register_model(run_dir: Path) -> None:
    """Put a version of the model that the recipe's `tracking.register` names together; nothing where it names none.

    It is in the registry once the run's journal is in MLflow.
    """
    record, recipe = load_record(run_dir), read_recipe(run_dir)
    name = recipe.tracking.register_as
    if not name or "register" in record.done:
        return
    reach("register.begun")
    view = open_view(Path(record.pack_dir), Path(record.split_dir))
    model = build_model(recipe.model, view.schema)
    weights = run_dir / "weights" / "best.pt"
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
    texts = [feature.name for feature in schema.inputs if feature.kind == "text"]
    if texts:
        source = "torchrelay predict models:/NAME@ALIAS --table T --out F"
        return f"{texts[0]!r} is text, and torch.export has no strings to cut into tokens; {source} does it"
    if len(schema.inputs) > 1:
        return f"the model has {len(schema.inputs)} inputs, which mlflow cannot serve as one array"
    return ""
