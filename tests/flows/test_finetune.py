"""One source of two classes and two colours, finetuned on a table that has more of both."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.engine.weights import load_weights, save_weights, sha256_of
from torchrelay.errors import RecipeError, SourceError
from torchrelay.flows.finetune import finetune
from torchrelay.flows.train import train
from torchrelay.schema import Schema
from torchrelay.tracking.records import update_record

pytestmark = pytest.mark.usefixtures("prefect_server")

# A net with a norm that keeps running statistics, between a body that can be frozen and a head.
NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, schema, num_outputs):
        super().__init__()
        colours = schema.inputs[1]
        self.colour = nn.Embedding(len(colours.classes) + 1, 4, padding_idx=0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x, colour):
        return self.head(self.drop(self.body(torch.cat([x, self.colour(colour[:, 0])], 1))))
"""


def write_recipe(folder: Path, name: str, classes: Sequence[str], colours: Sequence[str]) -> Path:
    """60 rows; a row's class decides where its two numbers lie."""
    generator = np.random.default_rng(len(classes))
    rows = []
    for number in range(60):
        place = number % len(classes)
        a, b = generator.normal(0, 0.3, 2) + (2 * place, -place)
        split = ("train", "train", "valid", "train", "test")[number // len(classes) % 5]
        rows.append((f"{a:.5f}", f"{b:.5f}", colours[number % len(colours)], classes[place], split))
    pd.DataFrame(rows, columns=["a", "b", "colour", "label", "split"]).to_csv(folder / f"{name}.csv", index=False)
    (folder / "nets_to_finetune.py").write_text(NET)
    recipe = {
        "name": name,
        "data": {
            "table": f"{name}.csv",
            "inputs": {"x": {"kind": "number", "columns": ["a", "b"]}, "colour": {"kind": "category"}},
            "target": {"label": {"kind": "category"}},
            "split": {"column": "split"},
        },
        "model": {"name": "nets_to_finetune:Net"},
        "train": {"epochs": 2, "batch_size": 8, "optimizer": {"name": "adamw", "args": {"lr": 0.01}}},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def report_of(run_dir: str) -> dict[str, dict[str, str]]:
    with (Path(run_dir) / "transfer.csv").open() as file:
        return {line["key"]: line for line in csv.DictReader(file)}


def test_a_classifier_with_more_classes_keeps_the_rows_of_those_that_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = train(recipe_file=str(write_recipe(tmp_path, "few", ["wasp", "bee"], ["red", "tan"])))
    more = write_recipe(tmp_path, "more", ["ant", "wasp", "bee"], ["blue", "red", "tan"])
    capsys.readouterr()
    tuned = finetune(
        source=few["run_id"],
        recipe_file=str(more),
        overrides={"warm_start": {"freeze": ["body.*"], "thaw_after": 1}, "train.epochs": 3},
    )
    assert (tuned["status"], tuned["source"]) == ("FINISHED", few["run_id"])
    said = capsys.readouterr().err
    assert f"warm start: 10 of 10 keys from {few['run_id']}: 7 loaded, 3 grown; 7 frozen" in said
    assert "2 of 3 rows" in said

    old, start = (
        load_weights(Path(run["run_dir"]) / "weights" / name) for run, name in ((few, "best.pt"), (tuned, "start.pt"))
    )
    schema = Schema.load(Path(tuned["run_dir"]) / "schema.json")
    assert schema.targets[0].classes == ["bee", "wasp", "ant"]
    assert schema.inputs[1].classes == ["red", "tan", "blue"]
    assert torch.equal(start["head.weight"][:2], old["head.weight"])
    assert torch.equal(start["head.bias"][:2], old["head.bias"])
    assert torch.equal(start["colour.weight"][:3], old["colour.weight"])  # id 0 is unseen
    assert not torch.equal(start["head.weight"][2], torch.zeros(8))
    before = Schema.load(Path(few["run_dir"]) / "schema.json")
    assert schema.inputs[0].mean == before.inputs[0].mean

    run = MlflowClient(tracking_uri=settings.tracking_uri()).get_run(tuned["mlflow_run_id"])
    assert run.data.tags["torchrelay.source"] == few["run_id"]
    assert run.data.tags["torchrelay.source_sha256"] == sha256_of(old)
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    assert {"transfer.csv", "weights"} <= {item.path for item in client.list_artifacts(tuned["mlflow_run_id"])}
    report = report_of(tuned["run_dir"])
    assert report["head.weight"] == {
        "key": "head.weight",
        "source_key": "head.weight",
        "shape": "3x8",
        "source_shape": "2x8",
        "what": "grown",
        "note": "2 of 3 rows",
        "frozen": "false",
    }
    assert (report["body.1.running_mean"]["what"], report["body.1.running_mean"]["frozen"]) == ("loaded", "true")


def test_a_warm_started_run_ends_with_the_same_bits_however_it_was_interrupted(tmp_path: Path) -> None:
    few = train(recipe_file=str(write_recipe(tmp_path, "few", ["wasp", "bee"], ["red", "tan"])))
    more = str(write_recipe(tmp_path, "more", ["ant", "wasp", "bee"], ["blue", "red", "tan"]))
    changes = {"warm_start": {"freeze": ["body.*"], "thaw_after": 2, "lr_factors": {"head.*": 3}}, "train.ema": 0.9}
    whole = finetune(few["run_id"], recipe_file=more, overrides={**changes, "train.epochs": 4})
    short = finetune(few["run_id"], recipe_file=more, overrides={**changes, "train.epochs": 1})
    shutil.rmtree(few["run_dir"])  # what a run began with is its own
    at_three = train(resume=short["run_id"], overrides={"train.epochs": 3})  # over the thaw
    assert at_three["weights_sha256"] != short["weights_sha256"]
    assert train(resume=short["run_id"], overrides={"train.epochs": 4})["weights_sha256"] == whole["weights_sha256"]

    # As after a kill before the first checkpoint.
    run_dir = Path(short["run_dir"])
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "journal.jsonl").unlink()
    update_record(run_dir, status="RUNNING", epochs=0, steps=0)
    assert train(resume=short["run_id"])["weights_sha256"] == whole["weights_sha256"]


def test_a_file_of_others_is_renamed_and_without_a_recipe_the_sources_own_is_taken(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "few", ["wasp", "bee"], ["red", "tan"])
    few = train(recipe_file=str(recipe))
    state = load_weights(Path(few["run_dir"]) / "weights" / "best.pt")
    renamed = {f"module.net.{key.replace('head', 'fc')}": value for key, value in state.items()}
    save_weights({"state_dict": renamed, "epoch": 3}, tmp_path / "others.pth")
    rename = {"net.fc.*": "head.*", "net.*": "*"}
    tuned = finetune("others.pth", recipe_file=str(recipe), overrides={"warm_start.rename": rename})
    assert tuned["source"] == str(tmp_path / "others.pth")
    assert {line["what"] for line in report_of(tuned["run_dir"]).values()} == {"renamed"}
    assert sha256_of(load_weights(Path(tuned["run_dir"]) / "weights" / "start.pt")) == sha256_of(state)
    # The first finetuning's own warm start is not done again.
    again = finetune(tuned["run_id"], overrides={"train.epochs": 1})
    assert {line["what"] for line in report_of(again["run_dir"]).values()} == {"loaded"}
    with pytest.raises(RecipeError, match=r"others.pth is a weights file in no run folder.*finetune RECIPE --from"):
        finetune("others.pth")


def test_mistakes_are_refused_before_a_run_is_opened(tmp_path: Path) -> None:
    few = train(recipe_file=str(write_recipe(tmp_path, "few", ["wasp", "bee"], ["red", "tan"])))
    more = str(write_recipe(tmp_path, "more", ["ant", "wasp", "bee"], ["blue", "red", "tan"]))
    source = few["run_id"]
    with pytest.raises(SourceError, match=r"no outputs for ant; warm_start.grow_head: true"):
        finetune(source, recipe_file=more, overrides={"warm_start.grow_head": False})
    with pytest.raises(
        RecipeError, match=r"warm_start.freeze: 'bodi.\*' fits no key of the model; did you mean body.\*"
    ):
        finetune(source, recipe_file=more, overrides={"warm_start.freeze": ["bodi.*"]})
    with pytest.raises(RecipeError, match=r"warm_start.source is missing"):
        finetune(recipe_file=more)
    with pytest.raises(SourceError, match=r"nothing of few-.* fits the model: it has colour.weight, .*; the model has"):
        finetune(source, recipe_file=more, overrides={"warm_start.exclude": ["*"]})
    assert [path.name for path in settings.home().runs.iterdir()] == [source]
