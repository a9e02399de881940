from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from torchrelay.errors import TrackingError
from torchrelay.settings import Home
from torchrelay.tracking.mlflow_run import page_of
from torchrelay.tracking.ui import serve_ui

from .conftest import shipped_run

SERVE = """
import sys
from torchrelay.tracking.ui import serve_ui
serve_ui(port=int(sys.argv[1]), on_ready=lambda address: print(address, flush=True))
print("ended", flush=True)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_ui_serves_this_home_until_a_signal_and_leaves_no_process(
    home: Home, open_run, make_record, sign, monkeypatch
):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address == f"http://127.0.0.1:{port}"
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    with urllib.request.urlopen(address) as answer:
        assert b"MLflow" in answer.read()
    # The same server as a tracker: a run over HTTP, with what JSON and MLflow make difficult.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    record = make_record(experiment="over http")
    run = shipped_run(open_run(record))
    run.log_metrics([("loss", float("nan"), 1, 5), ("loss", 0.5, 2, 6)])
    run.log_metrics([("loss", 0.5, 2, 6)])
    run.set_status("FINISHED")
    assert (
        page_of(run.experiment_id, run.run_id)
        == f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    )
    body = json.dumps({"experiment_ids": [run.experiment_id]}).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        assert [found["info"]["run_name"] for found in json.load(answer)["runs"]] == [record.run_id]
    assert len(run.client.get_metric_history(run.run_id, "loss")) == 2
    os.kill(process.pid, sign)
    assert process.stdout.read() == "ended\n"
    assert process.wait(20) == 0
    deadline = time.monotonic() + 10
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(child.is_running() for child in children)
    assert sorted(path.name for path in Path().iterdir()) == ["home"]


def test_a_port_that_is_taken_is_named(home: Home):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(TrackingError, match=f"port {port} on 127.0.0.1 is taken"):
            serve_ui(port=port)


def test_the_ui_listens_on_this_machine_only(home: Home):
    with pytest.raises(TrackingError, match=r"host 0\.0\.0\.0: the UI has no password"):
        serve_ui(host="0.0.0.0", port=5000)


def test_a_tracker_that_is_a_server_needs_no_ui(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    with pytest.raises(TrackingError, match="open http://tracker:5000"):
        serve_ui()


def test_a_password_of_the_trackers_stands_neither_on_a_command_line_nor_in_what_the_server_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    server = tmp_path / "server"
    server.write_text(
        '#!/bin/sh\necho "words $*"\n'
        'echo "opens $MLFLOW_BACKEND_STORE_URI $MLFLOW_REGISTRY_STORE_URI" >&2\nexit 3\n'
    )
    server.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(server))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:s3cr3tpw@h/db")
    with pytest.raises(TrackingError, match="ended by itself with exit code 3"):
        serve_ui(port=free_port(), on_ready=lambda address: None)
    said = capsys.readouterr().err
    assert "s3cr3tpw" not in said
    assert said.startswith("words -m mlflow server ")
    assert said.endswith("opens postgresql://h/db postgresql://h/db\n")
