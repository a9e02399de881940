from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from torchrelay import settings
from torchrelay.flows import train

from ..conftest import WriteRecipe

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_registered_model_of_numbers_serves_what_the_run_predicts_in_the_tables_units(
    number_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = number_recipe(tracking={"register": "numbers"})
    result = train(recipe_file=str(recipe), overrides={"train.epochs": 2})
    predictions = pd.read_parquet(Path(result["run_dir"]) / "predictions.parquet")
    table = pd.read_csv(next(recipe.parent.glob("*.csv")))
    rows = table.iloc[predictions["row"] - 1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri())
    model = mlflow.pytorch.load_model("models:/numbers@champion")
    served = model(torch.tensor(rows[["a", "b"]].to_numpy()))
    np.testing.assert_allclose(served.detach()[:, 0], predictions["prediction"], rtol=0, atol=1e-4)


def test_a_model_of_several_inputs_says_that_it_is_registered_with_its_weights_alone(
    number_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = number_recipe(tracking={"register": "two"})
    two = {"data.inputs": {"a": {"kind": "number"}, "b": {"kind": "number"}}}
    train(recipe_file=str(recipe), overrides={"train.epochs": 1, **two})
    assert (
        "weights only: the model has 2 inputs, which mlflow cannot serve as one array"
        in capsys.readouterr().err
    )
