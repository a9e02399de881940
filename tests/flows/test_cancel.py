"""A run in a worker of a real Prefect server, cancelled: the slow proof that three systems agree
on how it ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from torchrelay.engine.checkpoints import read_pointer
from torchrelay.runs import list_records
from torchrelay.settings import Home

from ..conftest import WriteRecipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(600)]

DEPLOYMENTS = {
    "name": "cancelled",
    "deployments": [
        {
            "name": "numbers",
            "entrypoint": "torchrelay.flows.train.train",
            "parameters": {"recipe_file": "numbers.yaml", "overrides": {"train.epochs": 100_000}},
            "work_pool": {"name": "cancelling"},
        }
    ],
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = ("TORCHRELAY_", "PREFECT_", "MLFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    user = tmp_path / "user"
    user.mkdir()
    own = {"HOME": str(user), "TORCHRELAY_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    return kept | own | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}


@pytest.fixture
def worker(
    tmp_path: Path, environment: dict[str, str]
) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        arguments = [
            str(Path(sys.executable).with_name("prefect")),
            "worker",
            "start",
            "--pool",
            "cancelling",
        ]
        with (tmp_path / "worker.log").open("ab") as log:
            started.append(
                subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=log, stderr=log)
            )
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(what: str, is_so: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := is_so():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds} s")


def test_a_cancelled_flow_run_is_cancelled_in_prefect_killed_in_mlflow_and_goes_on(
    tmp_path: Path,
    number_recipe: WriteRecipe,
    environment: dict[str, str],
    worker: Callable[[], Any],
) -> None:
    number_recipe()
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({**DEPLOYMENTS, "pull": pull}))

    def call(name: str, *arguments: str) -> str:
        path = Path(sys.executable).with_name(name)
        done = subprocess.run(
            [path, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{name} {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    home = Home(tmp_path / "home")
    call("prefect", "work-pool", "create", "cancelling", "--type", "process")
    call("prefect", "--no-prompt", "deploy", "--all")
    call("prefect", "deployment", "run", "train/numbers")
    worker()
    wait_for("a checkpoint", lambda: list(home.runs.glob("*/checkpoints/last")))
    [record] = list_records(home)
    began = time.monotonic()
    call("prefect", "flow-run", "cancel", record.prefect_flow_run_id)
    wait_for("its end", lambda: list_records(home)[0].status != "RUNNING", 60)
    took = time.monotonic() - began
    [record] = list_records(home)
    assert (record.status, record.error) == ("KILLED", "stopped by SIGTERM")
    assert took < 30

    with get_client(sync_client=True) as client:

        def verdict() -> Any:
            state = client.read_flow_run(uuid.UUID(record.prefect_flow_run_id)).state
            return state if state and state.is_final() else None

        state = wait_for("Prefect's verdict", verdict, 60)
    assert state.is_cancelled(), state
    tracker = MlflowClient(tracking_uri=f"sqlite:///{home.root / 'mlflow.db'}")
    assert tracker.get_run(record.mlflow_run_id).info.status == "KILLED"
    checkpoints = home.runs / record.run_id / "checkpoints"
    manifest = json.loads(
        (checkpoints / read_pointer(checkpoints, "last") / "manifest.json").read_text()
    )
    assert manifest["step"] == record.steps

    epochs = f"train.epochs={record.epochs + 1}"
    resumed = json.loads(call("torchrelay", "resume", record.run_id, "--set", epochs, "--json"))
    assert (resumed["status"], resumed["run_id"]) == ("FINISHED", record.run_id)
    assert resumed["mlflow_run_id"] == record.mlflow_run_id
