from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from torchrelay.cli import commands
from torchrelay.errors import SourceError
from torchrelay.runs import JOURNAL_FILE, Journal, RunRecord, load_record
from torchrelay.settings import tracking_uri

from ...faults.proxy import proxied

OpenRun = Callable[..., Path]
Make = Callable[..., RunRecord]


def command(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments)


@pytest.fixture
def two_runs(open_run: OpenRun, make_record: Make) -> list[Path]:
    return [
        open_run(make_record(run_id=name, created=f"2026-01-0{day}T00:00:00+00:00"))
        for day, name in enumerate(("first", "second"), start=1)
    ]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that is gone."""
    with socket.socket() as holder, monkeypatch.context() as patch:
        holder.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{holder.getsockname()[1]}"
        patch.setenv("MLFLOW_TRACKING_URI", address)
        patch.setattr("torchrelay.settings.SYNC_PATIENCE_SECONDS", 0.2)
        yield address


def test_sync_sends_what_waits_of_all_runs_and_says_so_of_each(two_runs: list[Path]):
    done = command("sync", "--json")
    assert done.exit_code == 0
    assert "first: 3 lines sent\n" in done.stderr
    assert f"tracker: {tracking_uri()}\n" in done.stderr
    said = json.loads(done.stdout)["runs"]
    assert [(one["run_id"], one["sent"], one["waiting"], one["reason"]) for one in said] == [
        ("first", 3, 0, ""),
        ("second", 3, 0, ""),
    ]
    assert [one["mlflow_run_id"] for one in said] == [
        load_record(run_dir).mlflow_run_id for run_dir in two_runs
    ]
    assert command("sync").stderr == "nothing waits\n"


def test_sync_sends_the_one_run_that_is_named(two_runs: list[Path]):
    assert command("sync", "second").exit_code == 0
    assert [load_record(run_dir).mlflow_run_id != "" for run_dir in two_runs] == [False, True]
    assert isinstance(command("sync", "third").exception, SourceError)


def test_a_journal_that_cannot_be_read_is_said_at_once_and_holds_up_no_other(
    two_runs: list[Path], caplog
):
    (two_runs[0] / JOURNAL_FILE).unlink()
    (two_runs[0] / JOURNAL_FILE).mkdir()
    done = command("sync", "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)["runs"]
    assert [(one["run_id"], one["sent"], one["waiting"]) for one in said] == [
        ("first", 0, 1),
        ("second", 3, 0),
    ]
    assert "journal.jsonl cannot be read: Is a directory" in said[0]["reason"]
    assert caplog.text == ""  # no thread tried it


def test_sync_without_a_tracker_says_why_all_wait_and_asks_it_once(
    two_runs: list[Path], nobody: str
):
    done = command("sync", "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)["runs"]
    assert [(one["run_id"], one["sent"], one["waiting"]) for one in said] == [
        ("first", 0, 3),
        ("second", 0, 3),
    ]
    assert (
        f"MLflow at {nobody}: cannot look for the experiment: no server answers there"
        in said[0]["reason"]
    )
    assert said[0]["reason"] == said[1]["reason"]


def test_sync_names_the_status_of_a_server_that_fails(
    two_runs: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torchrelay.settings.SYNC_PATIENCE_SECONDS", 0.2)
    with proxied(mode="500") as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        said = json.loads(command("sync", "--json").stdout)["runs"]
    assert "it answers with the HTTP status 500; see its log and mend it" in said[0]["reason"]
    assert "no server answers" not in said[0]["reason"]


def test_runs_and_show_say_how_much_waits(two_runs: list[Path]):
    with Journal(two_runs[1] / JOURNAL_FILE) as journal:
        journal.append_metrics(1, 0, {"loss": 1.0})
    assert (
        "waiting for MLflow: 7 lines of the journals of 2 runs; torchrelay sync sends them"
        in command("runs").stderr
    )
    listed = json.loads(command("runs", "--json").stdout)["runs"]
    assert {one["run_id"]: one["waiting"] for one in listed} == {"first": 3, "second": 4}
    assert json.loads(command("show", "second", "--json").stdout)["waiting"] == 4
    command("sync")
    assert "waiting" not in command("runs").stderr
    assert "waiting" not in command("show", "second").stdout
