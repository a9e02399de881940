from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import View, open_view
from torchrelay.errors import RecipeError
from torchrelay.recipe import Recipe, load_recipe
from torchrelay.schema import Batch
from torchrelay.settings import Home
from torchrelay.tasks.assembly import build_job, check_names

from ..conftest import WriteRecipe

EVERYTHING = [
    {"name": name}
    for name in (
        "flip",
        "crop",
        "erase",
        "rotate",
        "scale",
        "brightness",
        "contrast",
        "noise",
        "mixup",
        "cutmix",
    )
]


def view_of(recipe: Recipe, folder: Path) -> View:
    data = prepare_data(recipe.data, Home(folder / "home"))
    return open_view(data.pack_dir, data.split_dir)


def train_of(**changes: Any) -> dict[str, Any]:
    return {"epochs": 2, "batch_size": 4, "precision": "fp32", **changes}


def tensors_of(batch: Batch) -> list[torch.Tensor]:
    assert batch.mix is not None
    assert batch.mixed_target is not None
    return [batch.rows, *batch.inputs, batch.target, batch.mixed_target, batch.mix]


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_every_augmentation_gives_the_same_bits_from_any_batch_on(
    picture_recipe: WriteRecipe, tmp_path: Path, sampling: str
) -> None:
    recipe = load_recipe(picture_recipe(train=train_of(augment=EVERYTHING, sampling=sampling)))
    job = build_job(recipe, view_of(recipe, tmp_path), 2)
    whole = [tensors_of(batch) for batch in job.train_batches(1, 0)]
    assert len(whole) == 6
    for start in (1, 4):
        late = [tensors_of(batch) for batch in job.train_batches(1, start)]
        assert len(late) == 6 - start
        for one, other in zip(whole[start:], late, strict=True):
            assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_a_row_that_is_drawn_again_is_another_picture(
    picture_recipe: WriteRecipe, tmp_path: Path
) -> None:
    augment = [{"name": "noise"}]
    recipe = load_recipe(picture_recipe(train=train_of(augment=augment, sampling="balanced")))
    job = build_job(recipe, view_of(recipe, tmp_path), 2)
    batches = list(job.train_batches(0, 0))
    rows, images = (
        torch.cat([batch.rows for batch in batches]),
        torch.cat([batch.inputs[0] for batch in batches]),
    )
    again = [row for row in rows.unique() if (rows == row).sum() > 1]
    assert again
    for row in again:
        first, second = images[rows == row][:2]
        assert not torch.equal(first, second)


def test_settings_without_effect_are_said_before_training(
    number_recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(number_recipe(train=train_of(augment=[{"name": "flip"}])))
    build_job(recipe, view_of(recipe, tmp_path), 2)
    assert "warning: train.augment: flip without effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": "balanced"}, "train.sampling: balanced .* number target"),
        (
            {"augment": [{"name": "noise", "args": {"std": 9}}]},
            "train.augment.noise.args.std: got 9",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_ingest(
    number_recipe: WriteRecipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check_names(load_recipe(number_recipe(train=train_of(**changes))))
