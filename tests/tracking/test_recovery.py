"""A lost database of MLflow's is said, and its runs and versions come back from journals and
folders.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.disk import sha256_file
from torchrelay.errors import GoneError
from torchrelay.runs import (
    JOURNAL_FILE,
    Cursor,
    Journal,
    Run,
    list_records,
    load_record,
    update_record,
    waiting,
)
from torchrelay.settings import Home
from torchrelay.tracking.client import make_database
from torchrelay.tracking.database import set_database_aside, what_is_wrong
from torchrelay.tracking.recovery import find_lost, recover
from torchrelay.tracking.registry import stage_model
from torchrelay.tracking.shipping import sync_run
from torchrelay.upkeep import Examination, find_bad_journals, find_lost_database

LONG_AGO = "2026-01-01T00:00:00.000+00:00"
PIXELS = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
COMMAND = [sys.executable, "-c", "from torchrelay.cli import main; main()"]

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "text": (lambda path: path.write_text("mine"), "is no SQLite database"),
    "half": (lambda path: os.truncate(path, path.stat().st_size // 2), "of its"),
    "a byte short": (lambda path: os.truncate(path, path.stat().st_size - 1), "of its"),
    "no tables": (
        lambda path: (path.unlink(), sqlite3.connect(path).execute("CREATE TABLE a (b)")),
        "no tables",
    ),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "is no SQLite database"),
    "schema": (lambda path: overwrite(path, 100, b"\xff" * 200), "is damaged"),
}


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def finish(run_dir: Path) -> None:
    """End a run long ago, with a metric."""
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_metrics(1, 1, {"test/accuracy": 0.5})
        journal.append_tags({"mood": "good"})
        journal.append_status("FINISHED", 1_767_225_600_000)
    update_record(run_dir, status="FINISHED", ended=LONG_AGO, steps=1)
    (run_dir / "lock").write_text("")


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_file_that_is_no_database_is_said_and_mlflow_is_not_started_on_it(
    home: Home, damage: Callable[[Path], object], said: str
) -> None:
    path = home.root / "mlflow.db"
    assert what_is_wrong(path, reads_all=True) == ""
    damage(path)
    before = path.read_bytes()
    assert said in what_is_wrong(path)
    with pytest.raises(GoneError, match="torchrelay sync sets it aside"):
        make_database()
    [finding] = find_lost_database(Examination.of(home))
    assert f"MLflow's database {path} {what_is_wrong(path)}" in finding.what
    assert path.read_bytes() == before
    [done] = recover(home)
    assert "set aside as bad-mlflow.db" in done
    assert (home.root / "bad-mlflow.db").read_bytes() == before
    assert not path.exists()


def test_a_database_that_another_process_locks_is_not_taken_for_a_damaged_one(home: Home) -> None:
    path = home.root / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert what_is_wrong(path) == ""
    connection.close()


def test_what_sqlite_keeps_beside_a_database_goes_aside_with_it(home: Home) -> None:
    path = home.root / "mlflow.db"
    path.with_name("mlflow.db-journal").write_bytes(b"old")
    set_database_aside(path)
    assert sorted(one.name for one in home.root.glob("*mlflow.db*")) == [
        "bad-mlflow.db",
        "bad-mlflow.db-journal",
    ]


def test_runs_and_versions_come_back_from_journals_and_folders(home: Home, make_run) -> None:
    (first, run, net), (second, _, _) = (
        make_run(run_id="first"),
        make_run(run_id="second", created=LONG_AGO),
    )
    for run_dir, servable in ((first, net), (second, None)):
        run = Run.open(run_dir)
        with run.journal:
            stage_model(run, "net", servable, None if servable is None else PIXELS)
        finish(run_dir)
        assert sync_run(Run(run_dir)).num_waiting == 0
    (home.root / "mlflow.db").unlink()
    [finding] = find_lost_database(Examination.of(home))
    assert "is gone, and 2 runs say that they are in it" in finding.what
    assert not (home.root / "mlflow.db").exists()
    assert find_lost(home, list_records(home)).run_ids == ["second", "first"]

    done = subprocess.run([*COMMAND, "sync"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (
        "runs that MLflow's database lost: 2; they are sent again from their journals"
        in done.stderr
    )
    assert "registered: net version 2" in done.stderr
    shutil.copyfile(
        home.root / "mlflow.db", home.root / "copy.db"
    )  # this process has the lost one open
    client = MlflowClient(tracking_uri=f"sqlite:///{home.root / 'copy.db'}")
    for run_dir in (first, second):
        found = client.get_run(load_record(run_dir).mlflow_run_id)
        assert found.data.tags["torchrelay.run_id"] == run_dir.name
        assert (found.info.status, found.info.end_time) == ("FINISHED", 1_767_225_600_000)
        assert (found.data.metrics["test/accuracy"], found.data.tags["mood"]) == (0.5, "good")
        assert found.data.params["model.name"] == "lenet"
        assert found.inputs.dataset_inputs[0].dataset.digest == "0123456789abcdef" * 2
        assert {one.path for one in client.list_artifacts(found.info.run_id)} == {
            "recipe.yaml",
            "schema.json",
            "weights",
        }
    assert found.info.run_id != run.run_id
    aliases = client.get_registered_model("net").aliases
    assert {name: str(number) for name, number in aliases.items()} == {
        "champion": "1",
        "challenger": "2",
    }
    kept = Path(client.get_model_version("net", "2").source.removeprefix("file://"))
    assert sha256_file(kept / "weights" / "best.pt") == sha256_file(first / "weights" / "best.pt")
    assert (kept / "MLmodel").is_file()  # it can be served, as before
    assert find_lost(home, list_records(home)) == ("", [])


def test_a_run_that_a_new_database_never_had_is_found_and_one_that_was_deleted_there_is_not(
    home: Home, open_run, make_record
) -> None:
    old = open_run(make_record(run_id="old", created=LONG_AGO))
    gone = open_run(make_record(run_id="gone", created="2030-01-01T00:00:00.000+00:00"))
    Cursor(offset=(gone / JOURNAL_FILE).stat().st_size).save(gone)
    for run_dir in (old, gone):
        update_record(run_dir, mlflow_run_id="0" * 32)
    assert find_lost(home, list_records(home)).run_ids == ["old"]
    assert [*recover(home)] == [
        "runs that MLflow's database lost: 1; they are sent again from their journals"
    ]
    assert (waiting(Run(old)) > 0, waiting(Run(gone))) == (True, 0)


def test_a_run_of_a_server_is_not_looked_for_in_the_database_of_the_home(
    home: Home, open_run, make_record, monkeypatch
) -> None:
    run_dir = open_run(make_record(run_id="old", created=LONG_AGO))
    update_record(run_dir, mlflow_run_id="0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert find_lost(home, list_records(home)).run_ids == []
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    journal = run_dir / JOURNAL_FILE
    journal.write_text(journal.read_text().replace('"tracker":""', '"tracker":"http://team:5000"'))
    assert find_lost(home, list_records(home)).run_ids == []


def garble(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = bytes(byte ^ 0x80 for byte in lines[2][:-1]) + b"\n"
    path.write_bytes(b"".join(lines))


JOURNALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (lambda path: path.unlink(), "is gone"),
    "emptied": (lambda path: path.write_bytes(b""), "is empty"),
    "zeroed": (
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        "no line that a journal begins with",
    ),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
    "another file": (
        lambda path: path.write_text("a,b\n1,2\n"),
        "no line that a journal begins with",
    ),
    "a line garbled": (garble, "has 1 lines that are garbled, the first of them line 3"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:900]), "its end is missing"),
}


@pytest.mark.parametrize(("damage", "said"), JOURNALS.values(), ids=JOURNALS.keys())
def test_a_finished_runs_journal_that_is_not_as_it_was_is_found(
    home: Home, open_run, make_record, damage: Callable[[Path], object], said: str
) -> None:
    run_dir = open_run(make_record(run_id="done", mlflow_run_id="0" * 32))
    finish(run_dir)
    assert list(find_bad_journals(Examination.of(home))) == []
    damage(run_dir / JOURNAL_FILE)
    [finding] = find_bad_journals(Examination.of(home))
    assert finding.what.startswith("the journal of done, which is FINISHED, ")
    assert said in finding.what
    assert "MLflow has what was sent of it" in finding.remedy


def test_lines_that_a_crash_tore_are_no_finding(home: Home, open_run, make_record) -> None:
    run_dir = open_run(make_record(run_id="done"))
    path = run_dir / JOURNAL_FILE
    path.write_bytes(
        path.read_bytes()
        + b'{"time":17672256\n{"ti\n\n'
        + bytes(50)
        + b"\n"
        + bytes(9)
        + b'{"time":5\n'
    )
    finish(run_dir)
    assert list(find_bad_journals(Examination.of(home))) == []


def test_the_command_ends_with_1_where_it_finds_something(
    home: Home, open_run, make_record
) -> None:
    run_dir = open_run(make_record(run_id="done"))
    finish(run_dir)
    (run_dir / "run.json").write_text("{")
    done = subprocess.run(
        [*COMMAND, "doctor", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert any("done is no run" in one["what"] for one in json.loads(done.stdout)["findings"])
    assert settings.home() == home
