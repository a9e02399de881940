"""The registration task: the best weights become a version of a registered model that can be served."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import task
from torch import Tensor, nn

from ..datasets.build import open_view
from ..datasets.loader import PackDataset
from ..datasets.transform import Standardise
from ..engine.weights import load_into, load_weights
from ..models.registry import build_model
from ..recipe import load_recipe
from ..tracking.mlflow_run import MlflowRun
from ..tracking.records import load_record
from ..tracking.registry import register
from .console import say
from .options import UNCACHED


class Servable(nn.Module):
    """A model that takes raw values, pixels or numbers as they stand in the table, and standardises them itself."""

    def __init__(self, standardise: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.standardise = standardise
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        """Score raw inputs, one tensor an input feature; shape (B, K) or (B, D)."""
        return self.model(*self.standardise(*inputs))


@task(**UNCACHED)
def register_model(run_dir: Path) -> None:
    """Make a version of the model that the recipe's `tracking.register` names; nothing where it names none.

    Raises:
        TrackingError: the registry refuses it or cannot be reached.
    """
    record, recipe = load_record(run_dir), load_recipe(run_dir / "recipe.yaml")
    name = recipe.tracking.register_as
    if not name:
        return
    view = open_view(Path(record.pack_dir), Path(record.split_dir))
    model = build_model(recipe.model, view.schema)
    weights = run_dir / "weights" / "best.pt"
    load_into(model, load_weights(weights), str(weights))
    servable = Servable(Standardise(view.schema), model).eval()
    rows = view.rows["train"][:2]
    inputs = PackDataset(view.pack, view.schema, rows).__getitems__(range(len(rows))).inputs
    example = inputs[0].contiguous().numpy()
    with torch.random.fork_rng(devices=[]):
        tracker = MlflowRun.of(record)
        version = register(name, tracker, *((servable, example) if len(inputs) == 1 else (None, None)), weights)
    say(f"registered: {name} version {version}")
