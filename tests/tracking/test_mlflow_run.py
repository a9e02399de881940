from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.errors import TrackingError
from torchrelay.recipe import Named, Recipe, flatten
from torchrelay.schema import Schema
from torchrelay.settings import Home
from torchrelay.tracking.client import legal_name, make_database
from torchrelay.tracking.journal import Journal, Point
from torchrelay.tracking.mlflow_run import MlflowRun
from torchrelay.tracking.records import RunRecord

Make = Callable[..., RunRecord]
ROWS = {"train": 8, "valid": 1, "test": 2}


@pytest.fixture
def run(home: Home, make_record: Make, recipe: Recipe, schema: Schema) -> MlflowRun:
    return MlflowRun.start(make_record(), recipe, schema, ROWS)


def history(run: MlflowRun, key: str) -> list[tuple[int, float, int]]:
    found = run.client.get_metric_history(run.run_id, key)
    return sorted((metric.step, metric.value, metric.timestamp) for metric in found)


def test_a_started_run_carries_names_parameters_tags_and_data_set(home, make_record: Make, recipe, schema):
    record = make_record(
        device="cpu",
        git_commit="c" * 40,
        prefect_flow_run_id="p-1",
        prefect_flow_run_url="http://x/p-1",
        recipe_file="r.yaml",
    )
    run = MlflowRun.start(record, recipe, schema, ROWS, {"extra": "1"})
    found = run.client.get_run(run.run_id)
    assert (found.info.run_name, found.info.status) == (record.run_id, "RUNNING")
    assert run.client.get_experiment(found.info.experiment_id).name == "digits"
    assert found.info.artifact_uri.startswith(home.artifacts.as_uri())
    assert found.data.params == flatten(recipe)
    expected = {
        "torchrelay.run_id": record.run_id,
        "torchrelay.fingerprint": record.fingerprint,
        "device": "cpu",
        "mlflow.source.git.commit": "c" * 40,
        "mlflow.source.name": "r.yaml",
        "mlflow.source.type": "LOCAL",
        "prefect.flow_run_id": "p-1",
        "prefect.flow_run_url": "http://x/p-1",
        "extra": "1",
    }
    assert expected.items() <= found.data.tags.items()
    assert found.data.tags["mlflow.user"]
    dataset = found.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("digits", record.fingerprint)
    assert json.loads(dataset.source) == {"uri": "/data/digits.csv"}
    profile = {"num_rows": 11, "num_rows_train": 8, "num_rows_valid": 1, "num_rows_test": 2}
    assert json.loads(dataset.profile or "") == profile
    columns = json.loads(dataset.schema or "")["mlflow_colspec"]
    assert [column["name"] for column in columns] == ["image", "label"]


def test_more_than_100_parameters_long_values_and_strange_names_are_taken(home, make_record: Make, recipe, schema):
    args = {f"a{number}": number for number in range(250)} | {"long": "x" * 7000, "a@b": 1, "..": 2}
    recipe = recipe.model_copy(update={"model": Named(name="lenet", args=args)})
    params = MlflowRun.start(make_record(), recipe, schema, ROWS)
    found = params.client.get_run(params.run_id).data.params
    assert len(found) == len(flatten(recipe))
    assert found["model.args.a249"] == "249"
    assert found["model.args.long"] == "x" * 6000


def test_points_keep_their_time_and_sent_twice_they_are_there_once(run: MlflowRun):
    points = [Point("train/loss", 1 / step, step, 1_700_000_000_000 + step) for step in range(1, 2502)]
    run.log_metrics(points)
    run.log_metrics(points[1200:])
    assert history(run, "train/loss") == [(point.step, point.value, point.timestamp) for point in points]


def test_values_that_are_not_finite_and_illegal_names_do_not_cost_the_batch(run: MlflowRun):
    run.log_metrics([("loss", math.nan, 1, 5), ("test/accuracy/a@b", 0.5, 1, 5), ("test/accuracy/a#b", 0.25, 1, 5)])
    metrics = run.client.get_run(run.run_id).data.metrics
    assert math.isnan(metrics.pop("loss"))
    assert sorted(metrics.values()) == [0.25, 0.5]


def test_a_resumed_run_has_each_point_once(home: Home, make_record: Make, recipe, schema, tmp_path):
    record = make_record()
    run = MlflowRun.start(record, recipe, schema, ROWS)
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for step in range(1, 7):
            points = journal.append_metrics(step, 0, {"train/loss": 1 / step})
            if step < 5:  # killed before the last two were sent
                run.log_metrics(points)
    resumed = MlflowRun.attach(record.model_copy(update={"mlflow_run_id": run.run_id}), recipe)
    with Journal(path) as journal:
        resumed.log_metrics(journal.points())
        for step in range(3, 10):  # from the checkpoint of step 2
            resumed.log_metrics(journal.append_metrics(step, 0, {"train/loss": 1 / step}))
    assert [(step, value) for step, value, _ in history(run, "train/loss")] == [(n, 1 / n) for n in range(1, 10)]


def test_attaching_sets_the_status_back_and_tags_what_has_changed(home: Home, make_record: Make, recipe, schema):
    record = make_record()
    run = MlflowRun.start(record, recipe, schema, ROWS)
    run.finish("KILLED")
    assert run.client.get_run(run.run_id).info.status == "KILLED"
    longer = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 20})})
    record = record.model_copy(update={"mlflow_run_id": run.run_id})
    MlflowRun.attach(record, longer)
    found = run.client.get_run(run.run_id)
    assert found.info.status == "RUNNING"
    assert found.data.params["train.epochs"] == "10"
    assert json.loads(found.data.tags["torchrelay.drift"]) == {"train.epochs": ["10", "20"]}
    MlflowRun.attach(record, recipe)
    assert json.loads(run.client.get_run(run.run_id).data.tags["torchrelay.drift"]) == {}


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_an_ended_run_has_its_status_and_its_end(run: MlflowRun, status):
    run.finish(status)
    info = run.client.get_run(run.run_id).info
    assert info.status == status
    assert info.end_time is not None
    assert abs(info.end_time / 1000 - time.time()) < 60


def test_starting_a_run_that_the_tracker_has_already_takes_it_up(home: Home, make_record: Make, recipe, schema):
    record = make_record()
    first, second = (MlflowRun.start(record, recipe, schema, ROWS) for _ in range(2))
    assert first.run_id == second.run_id


def test_files_and_folders_become_artifacts(run: MlflowRun, tmp_path: Path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "curves.png").write_bytes(b"x")
    run.log_artifacts(tmp_path / "figures", "figures")
    run.log_artifacts(tmp_path / "figures" / "curves.png")
    assert [item.path for item in run.client.list_artifacts(run.run_id)] == ["curves.png", "figures"]
    assert [item.path for item in run.client.list_artifacts(run.run_id, "figures")] == ["figures/curves.png"]
    assert not Path("mlruns").exists()


def test_the_address_of_a_run_says_how_to_open_it(run: MlflowRun, monkeypatch):
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert run.url == f"torchrelay ui, then http://127.0.0.1:5000/{page}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000/")
    assert run.url == f"http://tracker:5000/{page}"


def test_a_deleted_run_or_experiment_says_how_to_bring_it_back(run: MlflowRun, make_record: Make, recipe, schema):
    run.client.delete_run(run.run_id)
    with pytest.raises(TrackingError, match=rf"mlflow runs restore --run-id {run.run_id}"):
        MlflowRun.attach(make_record(mlflow_run_id=run.run_id), recipe)
    run.client.delete_experiment(run.experiment_id)
    with pytest.raises(TrackingError, match="'digits' was deleted; bring it back with mlflow experiments restore"):
        MlflowRun.start(make_record(), recipe, schema, ROWS)


def test_a_server_that_is_gone_is_named_within_seconds(make_record: Make, recipe, schema, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(
        TrackingError, match=f"http://127.0.0.1:{port}: .* no server answers .* MLFLOW_TRACKING_URI"
    ) as caught:
        MlflowRun.start(make_record(), recipe, schema, ROWS)
    assert time.monotonic() - began < 20
    assert "secret" not in str(caught.value)


def test_what_the_user_set_for_http_stays(home: Home, make_record: Make, recipe, schema, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    MlflowRun.start(make_record(), recipe, schema, ROWS)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 30


def test_an_address_that_mlflow_does_not_know_is_refused(make_record: Make, recipe, schema, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://x")
    with pytest.raises(TrackingError, match="gopher://x"):
        MlflowRun.start(make_record(), recipe, schema, ROWS)


def test_legal_names_stay_and_others_never_collide():
    for name in ("train/loss", "accuracy/a b", "größe", "x:y.z-1_2"):
        assert legal_name(name) == name
    strange = ["a@b", "a#b", "a//b", "a/../b", "/a", "a/", "", ".", "x" * 251, "x" * 252, "a/./b"]
    legal = [legal_name(name) for name in strange]
    assert len(set(legal)) == len(strange)
    assert all(len(name) <= 250 for name in legal)


# One process imports MLflow, which takes seconds, and becomes eight.
STARTER = """
import multiprocessing
import mlflow.store.tracking.sqlalchemy_store
import mlflow.store.model_registry.sqlalchemy_store
from torchrelay.recipe import Data, Recipe
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.tracking.mlflow_run import MlflowRun
from torchrelay.tracking.records import RunRecord, now

def start(number, barrier):
    y = FeatureSchema(name="y", kind="number", columns=["y"], shape=[1], dtype="float32")
    record = RunRecord(run_id=f"run-{number}", name="x", experiment="shared", created=now(), fingerprint="f" * 32)
    barrier.wait()
    recipe = Recipe(name="x", data=Data(table="t.csv"))
    run = MlflowRun.start(record, recipe, Schema(inputs=[y], targets=[y]), {"train": 1})
    for step in range(1, 11):
        run.log_metrics([("loss", 1 / step, step, step)])
    run.finish()

context = multiprocessing.get_context("fork")
barrier = context.Barrier(8)
processes = [context.Process(target=start, args=(number, barrier)) for number in range(8)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


def test_eight_processes_start_runs_at_once_in_a_fresh_home(own_folders: None):
    done = subprocess.run([sys.executable, "-c", STARTER], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == str([0] * 8), done.stderr
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    experiment = client.get_experiment_by_name("shared")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name or "" for run in runs) == [f"run-{number}" for number in range(8)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 10 for run in runs)


def test_a_home_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHRELAY_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(TrackingError, match=r"file/home/mlflow\.db"):
        make_database()
