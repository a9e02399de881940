"""A source of two classes and two colours, finetuned on a table that has more of both."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.errors import RecipeError
from torchrelay.flows.finetune import finetune
from torchrelay.flows.train import train
from torchrelay.recipe import load_recipe
from torchrelay.runs import update_record
from torchrelay.schema import Schema
from torchrelay.weights import load_weights, sha256_of

from ..conftest import WriteRecipe

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_classifier_with_more_classes_keeps_what_it_knows_and_ends_alike_after_a_kill(
    insect_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    few = train(recipe_file=str(insect_recipe("few", ["wasp", "bee"], ["red", "tan"])))
    more = str(insect_recipe("more", ["ant", "wasp", "bee"], ["blue", "red", "tan"]))
    with pytest.raises(
        RecipeError,
        match=r"warm_start.freeze: 'bodi.\*' fits no key of the model; did you mean body.\*",
    ):
        finetune(
            source=few["run_id"], recipe_file=more, overrides={"warm_start.freeze": ["bodi.*"]}
        )
    assert [path.name for path in settings.home().runs.iterdir()] == [few["run_id"]]
    capsys.readouterr()
    warm_start = {"freeze": ["body.*"], "thaw_after": 1, "lr_factors": {"head.*": 3}}
    tuned = finetune(
        source=few["run_id"][:-1],
        recipe_file=more,
        overrides={"warm_start": warm_start, "train.ema": 0.9},
    )
    assert (tuned["status"], tuned["source"]) == ("FINISHED", few["run_id"])
    said = capsys.readouterr().err
    assert f"warm start: 10 of 10 keys from {few['run_id']}: 7 loaded, 3 grown; 7 frozen" in said
    run_dir = Path(tuned["run_dir"])
    assert load_recipe(run_dir / "recipe.yaml").warm_start.source == few["run_id"]  # all of it

    old = load_weights(Path(few["run_dir"]) / "weights" / "best.pt")
    start = load_weights(run_dir / "weights" / "start.pt")
    schema, before = (Schema.load(Path(run["run_dir"]) / "schema.json") for run in (tuned, few))
    assert schema.targets[0].classes == ["bee", "wasp", "ant"]
    assert schema.inputs[1].classes == ["red", "tan", "blue"]
    assert schema.inputs[0].mean == before.inputs[0].mean
    assert torch.equal(start["head.weight"][:2], old["head.weight"])
    assert torch.equal(start["colour.weight"][:3], old["colour.weight"])  # id 0 is what is unseen
    assert start["head.weight"][2].abs().sum() > 0

    client = MlflowClient(tracking_uri=settings.tracking_uri())
    tags = client.get_run(tuned["mlflow_run_id"]).data.tags
    assert (tags["torchrelay.source"], tags["torchrelay.source_sha256"]) == (
        few["run_id"],
        sha256_of(old),
    )
    assert {"transfer.csv", "weights"} <= {
        item.path for item in client.list_artifacts(tuned["mlflow_run_id"])
    }
    with (run_dir / "transfer.csv").open() as file:
        report = {line["key"]: line for line in csv.DictReader(file)}
    assert report["head.weight"] == {
        "key": "head.weight",
        "source_key": "head.weight",
        "shape": "3x8",
        "source_shape": "2x8",
        "what": "grown",
        "note": "2 of 3 rows",
        "frozen": "false",
    }
    assert (report["body.1.running_mean"]["what"], report["body.1.running_mean"]["frozen"]) == (
        "loaded",
        "true",
    )

    # As after a kill before the first checkpoint; what a run began with is its own.
    shutil.rmtree(few["run_dir"])
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "journal.jsonl").unlink()
    update_record(run_dir, status="RUNNING", epochs=0, steps=0, weights_sha256="")
    assert train(resume=tuned["run_id"])["weights_sha256"] == tuned["weights_sha256"]
