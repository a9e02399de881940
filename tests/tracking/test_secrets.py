"""No command shows a secret of the tracker's address, and no file of the home has it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from torchrelay import settings
from torchrelay.cli import commands, tell_notes
from torchrelay.errors import DataError
from torchrelay.runs import JOURNAL_FILE, Journal, Run, RunRecord, is_meant_for_here, tracker_of
from torchrelay.settings import Home
from torchrelay.tasks import note_end

OpenRun = Callable[..., Path]
Make = Callable[..., RunRecord]
SECRET = "s3cr3tpw"
ADDRESSES = [
    f"http://user:{SECRET}@127.0.0.1:9",
    f"http://user:a@{SECRET}@127.0.0.1:9",
    f"http://user:{SECRET}/x@127.0.0.1:9",
    f"http://127.0.0.1:9/?token={SECRET}",
    f"postgresql://127.0.0.1:9/db?user=u&password={SECRET}",
    f"user:{SECRET}@127.0.0.1:9",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_command_shows_the_trackers_password_and_no_file_has_it(
    address: str,
    home: Home,
    open_run: OpenRun,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr("torchrelay.settings.SYNC_PATIENCE_SECONDS", 0.2)
    open_run(make_record())
    said = ""
    with caplog.at_level(logging.DEBUG, "torchrelay"):
        for words in ("sync", "sync --json", "runs", "evaluate models:/x@y --table pyproject.toml"):
            done = CliRunner().invoke(commands, words.split())
            said += done.output + str(done.exception)
    assert "127.0.0.1" in said
    assert SECRET not in said + caplog.text
    for path in home.root.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_the_ui_of_a_server_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESSES[1])
    error = CliRunner().invoke(commands, ["ui"]).exception
    assert str(error) == (
        "the tracker is a server already: open http://127.0.0.1:9 (MLFLOW_TRACKING_URI) in a "
        "browser"
    )


def test_doctor_names_servers_without_their_passwords(monkeypatch: pytest.MonkeyPatch, home: Home):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESSES[1])
    monkeypatch.setenv("PREFECT_API_URL", f"http://user:{SECRET}@127.0.0.1:9/api")
    done = CliRunner().invoke(commands, ["doctor", "--json"])
    assert (
        "MLflow: http://127.0.0.1:9; Prefect: http://127.0.0.1:9/api"
        in json.loads(done.stdout)["facts"]
    )
    assert SECRET not in done.output


def test_a_run_knows_its_tracker_by_more_than_what_is_shown(
    home: Home, open_run: OpenRun, make_record: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:first@host/?space=a")
    run_dir = open_run(make_record())
    journal = Journal(run_dir / JOURNAL_FILE)
    assert tracker_of(journal) == "http://host/?space=***"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:second@host/?space=a")
    assert is_meant_for_here(journal)  # its password may change
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:first@host/?space=b")
    assert not is_meant_for_here(journal)


def test_what_older_versions_let_into_a_journal_is_not_shown_either(tmp_path: Path):
    settings.home().runs.mkdir(parents=True)
    with Journal(tmp_path / JOURNAL_FILE) as journal:
        journal.append(
            "open",
            tracker=f"http://{SECRET}@host:1",
            experiment="x",
            start_ms=1,
            parent="",
            tags={},
        )
        assert tracker_of(journal) == "http://host:1"


def test_a_verdict_with_an_address_ends_a_run_and_a_command_without_its_password(
    open_run: OpenRun, make_record: Make, capsys: pytest.CaptureFixture[str]
):
    run_dir = open_run(make_record())
    error = DataError(f"http://user:{SECRET}@host/leaf.png is torn")
    error.add_note(f"more of http://user:{SECRET}@host/leaf.png stands elsewhere")
    assert note_end(Run(run_dir), error)
    tell_notes(error)
    assert (run_dir / "error.txt").read_text() == "http://host/leaf.png is torn\n"
    assert capsys.readouterr().err == "more of http://host/leaf.png stands elsewhere\n"
    assert SECRET not in (run_dir / "run.json").read_text()
