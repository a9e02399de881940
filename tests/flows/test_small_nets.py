from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from torchrelay.flows.train import train

from ..conftest import WriteRecipe

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_the_two_layer_net_descends_by_hand_on_the_sum_of_squares(
    number_recipe: WriteRecipe,
) -> None:
    overrides = {
        "model": {"name": "two_layer", "args": {"hidden": 8, "form": "tensors"}},
        "train": {
            "epochs": 4,
            "batch_size": 16,
            "optimizer": {"name": "sgd_by_hand", "args": {"lr": 0.01}},
            "loss": "mse_sum",
            "precision": "fp64",
        },
    }
    result = train(recipe_file=str(number_recipe()), overrides=overrides)
    metrics, rows = (
        result["metrics"],
        pd.read_parquet(Path(result["run_dir"]) / "predictions.parquet"),
    )
    assert (result["precision"], result["status"]) == ("fp64", "FINISHED")
    assert metrics["test/loss"] == pytest.approx(rows["loss"].sum())
    # Of one column a row's loss is its squared error, standardised: rmse in the table's units is
    # its root, times std.
    std = (rows["residual"].abs() / rows["loss"].pow(0.5)).median()
    assert metrics["test/rmse"] == pytest.approx(
        std * (metrics["test/loss"] / len(rows)) ** 0.5, rel=1e-4
    )
    assert metrics["test/r2"] > 0.9


@pytest.mark.slow
def test_a_net_of_drawn_depth_goes_on_to_the_bits_of_one_that_was_longer_from_the_start(
    number_recipe: WriteRecipe,
) -> None:
    recipe = str(number_recipe(model={"name": "dynamic_net", "args": {"hidden": 8}}))
    args = {
        "train.optimizer": {"name": "sgd", "args": {"lr": 0.01, "momentum": 0.9}},
        "train.schedule.name": "constant",
        "train.ema": 0.9,
        "train.accumulate": 2,
    }
    whole = train(recipe_file=recipe, overrides={"train.epochs": 4, **args})
    short = train(recipe_file=recipe, overrides={"train.epochs": 2, **args})
    longer = train(resume=short["run_id"], overrides={"train.epochs": 4})
    assert longer["weights_sha256"] == whole["weights_sha256"] != short["weights_sha256"]
    assert longer["metrics"]["test/rmse"] == whole["metrics"]["test/rmse"]
