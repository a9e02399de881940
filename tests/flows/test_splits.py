from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.errors import DataError, SourceError, TrainingError
from torchrelay.flows.ingest import ingest
from torchrelay.flows.train import train
from torchrelay.runs import list_children, list_records
from torchrelay.tracking.registry import resolve_source

from ..conftest import WriteRecipe

pytestmark = pytest.mark.usefixtures("prefect_server")

# Learns like any other, until a file says that it fails on a batch of so many rows: those of one
# split.
NETS = """
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.layer = nn.Linear(2, num_outputs)

    def forward(self, x):
        for name, error in (("fails", RuntimeError), ("stops", KeyboardInterrupt)):
            if Path(name).exists() and len(x) == int(Path(name).read_text()):
                raise error(f"no batch of {len(x)}")
        return self.layer(x)
"""


@pytest.fixture
def net(tmp_path: Path) -> Iterator[dict[str, Any]]:
    (tmp_path / "foldnets.py").write_text(NETS)
    yield {"name": "foldnets:Net"}
    sys.modules.pop("foldnets", None)


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=settings.tracking_uri())


def test_a_pattern_of_split_columns_makes_a_run_each_below_a_parent_with_mean_and_deviation(
    splits_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(splits_recipe(tracking={"register": "folds"}))
    parent = train(recipe_file=recipe)
    run_dir, children = Path(parent["run_dir"]), parent["runs"]
    assert (parent["kind"], parent["status"], parent["epochs"], parent["steps"]) == (
        "splits",
        "FINISHED",
        2,
        6,
    )
    assert [child["split_column"] for child in children] == ["split_0", "split_1", "split_2"]
    assert {child["parent"] for child in children} == {parent["run_id"]}
    assert all(child["run_id"].startswith(f"folds-{child['split_column']}-") for child in children)
    assert len({child["weights_sha256"] for child in children}) == 3

    for name in ("test/rmse", "test/r2", "valid/loss", "train/epoch_loss"):
        values = [child["metrics"][name] for child in children]
        assert parent["metrics"][name] == pytest.approx(statistics.mean(values))
        assert parent["metrics"][f"{name}_std"] == pytest.approx(statistics.stdev(values))
    assert {"lr", "train/loss", "rows_per_second"}.isdisjoint(parent["metrics"])
    assert parent["seconds"]["train"] == pytest.approx(
        sum(child["seconds"]["train"] for child in children), abs=0.01
    )

    with (run_dir / "splits.csv").open() as file:
        rows = [(row["metric"], row["split"], float(row["value"])) for row in csv.DictReader(file)]
    assert [row for row in rows if row[0] == "test/rmse"] == [
        ("test/rmse", child["split_column"], child["metrics"]["test/rmse"]) for child in children
    ]

    run = client().get_run(parent["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/rmse_std"] == pytest.approx(parent["metrics"]["test/rmse_std"])
    assert {"recipe.yaml", "splits.csv", "figures"} <= {
        one.path for one in client().list_artifacts(run.info.run_id)
    }
    tags = [client().get_run(child["mlflow_run_id"]).data.tags for child in children]
    assert {one["mlflow.parentRunId"] for one in tags} == {parent["mlflow_run_id"]}
    assert client().search_registered_models() == []
    assert "warning: tracking.register: without effect" in capsys.readouterr().err

    assert len(list(settings.home().packs.glob("*/manifest.json"))) == 1
    child = train(
        recipe_file=recipe, overrides={"data.split.column": "split_2", "tracking.register": ""}
    )
    assert (child["kind"], child["parent"], child["splits"]) == ("train", "", {})
    assert child["weights_sha256"] == children[2]["weights_sha256"]
    with pytest.raises(
        SourceError, match="has no weights of its own; name one of its runs: folds-split_0"
    ):
        resolve_source(parent["run_id"], settings.home())


@pytest.mark.slow
def test_a_split_that_fails_stops_no_other_and_the_parent_trains_it_when_it_is_resumed(
    splits_recipe: WriteRecipe, net: dict[str, Any]
) -> None:
    Path("fails").write_text("24")
    with pytest.raises(
        TrainingError,
        match=r"1 of 3 splits failed: split_1: RuntimeError: no batch of 24.*resume fol",
    ):
        train(recipe_file=str(splits_recipe(model=net)))
    [parent] = [record for record in list_records(settings.home()) if not record.parent]
    first = list_children(settings.home(), parent)
    assert [child.status for child in first] == ["FINISHED", "FAILED", "FINISHED"]
    assert (parent.status, parent.metrics, "no batch of 24" in parent.error) == ("FAILED", {}, True)
    assert client().get_run(parent.mlflow_run_id).info.status == "FAILED"

    Path("fails").unlink()
    resumed = train(resume=parent.run_id)
    second = list_children(settings.home(), parent)
    assert (resumed["status"], resumed["mlflow_run_id"]) == ("FINISHED", parent.mlflow_run_id)
    assert [child.run_id for child in second] == [child.run_id for child in first]
    assert (second[0], second[2]) == (first[0], first[2])
    assert second[1].status == "FINISHED"
    assert resumed["metrics"]["test/rmse"] == pytest.approx(
        statistics.mean(child.metrics["test/rmse"] for child in second)
    )


@pytest.mark.slow
def test_a_parent_that_was_stopped_goes_on_where_it_was_and_all_its_runs_can_be_made_longer(
    splits_recipe: WriteRecipe, net: dict[str, Any]
) -> None:
    Path("stops").write_text("24")
    with pytest.raises(KeyboardInterrupt):
        train(
            recipe_file=str(splits_recipe(model=net)), overrides={"data.split.column": "split_[12]"}
        )
    [parent] = [record for record in list_records(settings.home()) if not record.parent]
    [stopped] = list_children(settings.home(), parent)
    assert (parent.status, stopped.status, stopped.split_column) == ("KILLED", "KILLED", "split_1")

    Path("stops").unlink()
    Path("folds.csv").unlink()
    whole = train(resume=parent.run_id)
    assert whole["runs"][0]["run_id"] == stopped.run_id
    assert [(child["split_column"], child["epochs"]) for child in whole["runs"]] == [
        ("split_1", 2),
        ("split_2", 2),
    ]

    alone = train(resume=whole["runs"][1]["run_id"], overrides={"train.epochs": 3})
    assert (alone["epochs"], alone["parent"]) == (3, parent.run_id)
    with pytest.raises(SourceError, match=r"is finished \(2 of 2 epochs\)"):
        train(resume=parent.run_id)
    longer = train(resume=parent.run_id, overrides={"train.epochs": 3})
    assert [child["epochs"] for child in longer["runs"]] == [3, 3]
    assert longer["runs"][1]["ended"] == alone["ended"]
    points = client().get_metric_history(parent.mlflow_run_id, "test/rmse")
    assert [point.step for point in points] == [4, 6]
    assert longer["seconds"]["total"] > whole["seconds"]["total"]


def test_ingest_reports_each_split_of_one_pack(splits_recipe: WriteRecipe) -> None:
    result = ingest(recipe_file=str(splits_recipe()))
    assert {column: one["rows"]["train"] for column, one in result["splits"].items()} == {
        "split_0": 25,
        "split_1": 24,
        "split_2": 23,
    }
    assert result["rows"] == result["splits"]["split_0"]["rows"]
    assert len({one["report"] for one in result["splits"].values()}) == 3


def test_a_split_column_that_cannot_be_used_is_refused_before_any_split_is_trained(
    splits_recipe: WriteRecipe,
) -> None:
    recipe = splits_recipe()
    table = Path("folds.csv")
    table.write_text(table.read_text().replace(",train\n", ",trainee\n"))
    with pytest.raises(DataError, match="split column 'split_2' is not train, valid or test"):
        train(recipe_file=str(recipe))
    assert not settings.home().runs.exists()
