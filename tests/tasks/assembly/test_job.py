from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torchrelay import settings
from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import open_view
from torchrelay.errors import RecipeError
from torchrelay.recipe import Recipe, load_recipe
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.tasks.assembly.job import build_job, build_scorer, choose_monitor

from ...conftest import WriteRecipe

X = FeatureSchema(
    name="x", kind="number", columns=["x"], shape=[1], dtype="float64", mean=[0], std=[1]
)
RARE = FeatureSchema(
    name="rare",
    kind="category",
    columns=["rare"],
    shape=[],
    dtype="int64",
    classes=["no", "yes"],
    counts=[98, 2],
)


@pytest.mark.parametrize(
    ("train", "monitor"),
    [
        ({}, "valid/accuracy"),
        ({"class_weights": "balanced"}, "valid/recall_macro"),
        ({"sampling": "balanced"}, "valid/recall_macro"),
    ],
)
def test_what_auto_monitors_does_not_reward_a_model_that_never_names_a_rare_class(
    train: dict[str, Any], monitor: str
) -> None:
    schema = Schema(inputs=[X], targets=[RARE])
    assert choose_monitor(Recipe.model_validate({"train": train}), schema) == monitor
    explicit = Recipe.model_validate({"train": train, "checkpoint": {"monitor": "valid/loss"}})
    assert choose_monitor(explicit, schema) == "valid/loss"


def test_nll_needs_a_model_that_gives_log_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_logs.py").write_text(
        "from torch import nn\n"
        "class Logs(nn.Sequential):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__(nn.Linear(1, num_classes), nn.BatchNorm1d(num_classes), "
        "nn.LogSoftmax(dim=1))\n"
    )
    train = {"loss": "nll", "device": "cpu"}
    schema = Schema(inputs=[X], targets=[RARE])
    scorer = build_scorer(
        Recipe.model_validate({"model": {"name": "own_logs:Logs"}, "train": train}), schema
    )
    assert scorer.model.training
    assert (
        int(scorer.model.state_dict()["1.num_batches_tracked"]) == 0
    )  # looking at its outputs left no trace
    with pytest.raises(
        RecipeError, match=r"train\.loss: nll takes log-probabilities.*use cross_entropy"
    ):
        build_scorer(Recipe.model_validate({"model": {"name": "mlp"}, "train": train}), schema)


def test_training_pictures_are_mirrored_once(picture_recipe: WriteRecipe) -> None:
    def images(p: float) -> list[Tensor]:
        augment = [{"name": "flip", "args": {"p": p}}]
        recipe = load_recipe(str(picture_recipe()), None, {"train.augment": augment})
        data = prepare_data(recipe.data, settings.home())
        job = build_job(recipe, open_view(data.pack_dir, data.split_dir), 1)
        return [batch.inputs[0] for batch in job.train_batches(0, 0)]

    plain, half, mirrored = images(0), images(0.5), images(1)
    assert len(plain) == len(mirrored) > 0
    assert all(torch.equal(one.flip(-1), other) for one, other in zip(plain, mirrored, strict=True))
    rows = list(zip(torch.cat(plain), torch.cat(half), strict=True))
    num_mirrored = sum(torch.equal(one.flip(-1), other) for one, other in rows)
    assert 0 < num_mirrored < len(rows)
    assert num_mirrored + sum(torch.equal(one, other) for one, other in rows) == len(rows)
