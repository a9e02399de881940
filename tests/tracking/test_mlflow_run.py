from __future__ import annotations

import json
import math
import os
import re
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
from torchrelay.recipe import Named, flatten
from torchrelay.runs import JOURNAL_FILE, Journal, Point, Run, RunRecord, journal_reopening
from torchrelay.settings import Home
from torchrelay.tracking.client import legal_name, make_database
from torchrelay.tracking.mlflow_run import MlflowRun, page_of
from torchrelay.tracking.shipping import sync_run

from .conftest import shipped_run

Make = Callable[..., RunRecord]
OpenRun = Callable[..., Path]


@pytest.fixture
def run(open_run: OpenRun, make_record: Make) -> MlflowRun:
    return shipped_run(open_run(make_record()))


def history(run: MlflowRun, key: str) -> list[tuple[int, float, int]]:
    found = run.client.get_metric_history(run.run_id, key)
    return sorted((metric.step, metric.value, metric.timestamp) for metric in found)


def test_a_started_run_carries_names_parameters_tags_and_data_set(
    home: Home, open_run, make_record: Make, recipe
):
    record = make_record(
        device="cpu",
        git_commit="c" * 40,
        prefect_flow_run_id="p-1",
        prefect_flow_run_url="http://x/p-1",
        recipe_file="r.yaml",
    )
    run = shipped_run(open_run(record))
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


def test_more_than_100_parameters_long_values_and_strange_names_are_taken(
    open_run, make_record: Make, recipe
):
    args = {f"a{number}": number for number in range(250)} | {"long": "x" * 7000, "a@b": 1, "..": 2}
    recipe = recipe.model_copy(update={"model": Named(name="lenet", args=args)})
    params = shipped_run(open_run(make_record(), recipe))
    found = params.client.get_run(params.run_id).data.params
    assert len(found) == len(flatten(recipe))
    assert found["model.args.a249"] == "249"
    assert found["model.args.long"] == "x" * 6000


def test_points_keep_their_time_and_sent_twice_they_are_there_once(run: MlflowRun):
    points = [
        Point("train/loss", 1 / step, step, 1_700_000_000_000 + step) for step in range(1, 2502)
    ]
    run.log_metrics(points)
    run.log_metrics(points[1200:])
    assert history(run, "train/loss") == [
        (point.step, point.value, point.timestamp) for point in points
    ]


def test_values_that_are_not_finite_and_illegal_names_do_not_cost_the_batch(run: MlflowRun):
    run.log_metrics(
        [
            ("loss", math.nan, 1, 5),
            ("test/accuracy/a@b", 0.5, 1, 5),
            ("test/accuracy/a#b", 0.25, 1, 5),
        ]
    )
    metrics = run.client.get_run(run.run_id).data.metrics
    assert math.isnan(metrics.pop("loss"))
    assert sorted(metrics.values()) == [0.25, 0.5]


def test_going_on_sets_the_status_back_and_tags_what_has_changed(
    open_run, make_record: Make, recipe
):
    record = make_record()
    run_dir = open_run(record)
    longer = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 20})})
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_status("KILLED", 1_800_000_000_000)
        run = shipped_run(run_dir)
        assert run.client.get_run(run.run_id).info.status == "KILLED"
        journal_reopening(journal, record, longer)
        shipped_run(run_dir)
        found = run.client.get_run(run.run_id)
        assert found.info.status == "RUNNING"
        assert found.data.params["train.epochs"] == "10"
        assert json.loads(found.data.tags["torchrelay.drift"]) == {"train.epochs": ["10", "20"]}
        journal_reopening(journal, record, recipe)
    shipped_run(run_dir)
    assert json.loads(run.client.get_run(run.run_id).data.tags["torchrelay.drift"]) == {}


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_an_ended_run_has_its_status_and_the_end_that_the_journal_says(
    open_run, make_record: Make, status
):
    run_dir = open_run(make_record())
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_status(status, 1_800_000_000_123)
    run = shipped_run(run_dir)
    info = run.client.get_run(run.run_id).info
    assert (info.status, info.end_time) == (status, 1_800_000_000_123)


def test_files_and_folders_become_artifacts(open_run, make_record: Make):
    run_dir = open_run(make_record())
    (run_dir / "figures" / "deep").mkdir(parents=True)
    (run_dir / "figures" / "curves.png").write_bytes(b"x")
    (run_dir / "figures" / "deep" / "a.png").write_bytes(b"x")
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_artifact(run_dir / "figures", "figures")
        journal.append_artifact(run_dir / "figures" / "curves.png")
        journal.append_artifact(run_dir / "gone.csv")
    run = shipped_run(run_dir)
    assert [item.path for item in run.client.list_artifacts(run.run_id)] == [
        "curves.png",
        "figures",
    ]
    assert [item.path for item in run.client.list_artifacts(run.run_id, "figures")] == [
        "figures/curves.png",
        "figures/deep",
    ]
    assert [item.path for item in run.client.list_artifacts(run.run_id, "figures/deep")] == [
        "figures/deep/a.png"
    ]
    assert not Path("mlruns").exists()


def test_the_address_of_a_run_says_how_to_open_it(monkeypatch):
    assert (
        page_of("7", "abc") == "torchrelay ui, then http://127.0.0.1:5000/#/experiments/7/runs/abc"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000/")
    assert page_of("7", "abc") == "http://tracker:5000/#/experiments/7/runs/abc"


def test_a_deleted_run_or_experiment_says_how_to_bring_it_back_and_then_all_is_sent(
    open_run, make_record: Make, run: MlflowRun
):
    run_dir = settings.home().runs / next(iter(settings.home().runs.iterdir())).name
    run.client.delete_run(run.run_id)
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_metrics(1, 0, {"loss": 1.0})
    done = sync_run(Run(run_dir))
    assert done.num_waiting == 1
    assert f"mlflow runs restore --run-id {run.run_id}" in done.reason
    run.client.restore_run(run.run_id)
    assert sync_run(Run(run_dir)).num_waiting == 0
    run.client.delete_experiment(run.experiment_id)
    other = sync_run(Run(open_run(make_record())))
    assert "'digits' was deleted; bring it back with mlflow experiments restore" in other.reason
    assert other.mlflow_run_id == ""


def test_a_server_that_is_gone_is_named_without_its_password(
    open_run, make_record: Make, monkeypatch
):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    began = time.monotonic()
    done = sync_run(Run(open_run(make_record())), patience_seconds=0.5)
    assert time.monotonic() - began < 5
    assert re.search(
        f"http://127.0.0.1:{port}: .* no server answers .* MLFLOW_TRACKING_URI", done.reason
    )
    assert "secret" not in done.reason


def test_what_the_user_set_for_http_stays(open_run, make_record: Make, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    sync_run(Run(open_run(make_record())))
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 60


def test_an_address_that_mlflow_does_not_know_is_named(open_run, make_record: Make, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://x")
    assert "gopher://x" in sync_run(Run(open_run(make_record())), patience_seconds=0.1).reason


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
from torchrelay import settings
from torchrelay.recipe import Data, Recipe
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.runs import JOURNAL_FILE, Journal
from torchrelay.runs import journal_opening
from torchrelay.runs import RunRecord, now, save_record
from torchrelay.tracking.shipping import sync_run

def start(number, barrier):
    y = FeatureSchema(name="y", kind="number", columns=["y"], shape=[1], dtype="float32")
    record = RunRecord(run_id=f"run-{number}", name="x", experiment="shared", \
created=now(), fingerprint="f" * 32)
    barrier.wait()
    recipe = Recipe(name="x", data=Data(table="t.csv"))
    run_dir = save_record(settings.home(), record)
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal_opening(journal, record, recipe, Schema(inputs=[y], targets=[y]), {"train": 1})
        for step in range(1, 11):
            journal.append_metrics(step, 0, {"loss": 1 / step})
        journal.append_status("FINISHED", 1)
    assert sync_run(Run(run_dir)).num_waiting == 0

context = multiprocessing.get_context("fork")
barrier = context.Barrier(8)
processes = [context.Process(target=start, args=(number, barrier)) for number in range(8)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


@pytest.mark.slow
def test_eight_processes_start_runs_at_once_in_a_fresh_home(own_folders: None):
    done = subprocess.run(
        [sys.executable, "-c", STARTER], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == str([0] * 8), done.stderr
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    experiment = client.get_experiment_by_name("shared")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name or "" for run in runs) == [
        f"run-{number}" for number in range(8)
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 10 for run in runs)


def test_a_home_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHRELAY_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(TrackingError, match=r"file/home/mlflow\.db"):
        make_database()
