from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from torchrelay import settings
from torchrelay.errors import TrackingError
from torchrelay.settings import Home
from torchrelay.tracking.client import make_database, open_client
from torchrelay.tracking.journal import JOURNAL_FILE, Journal
from torchrelay.tracking.records import RunRecord
from torchrelay.tracking.relocation import follow_home

from .conftest import shipped_run


def add_file(run_dir: Path, name: str) -> None:
    (run_dir / name).write_text(name)
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_artifact(run_dir / name)


def test_mlflow_finds_old_files_and_puts_new_ones_where_the_home_is_now(
    open_run: Callable[..., Path],
    make_record: Callable[..., RunRecord],
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = open_run(make_record())
    add_file(run_dir, "before.txt")
    shipped_run(run_dir)
    foreign = open_client().create_experiment("foreign", artifact_location=f"{home.artifacts.as_uri()}-of-others/x")
    moved = tmp_path / "new place" / "home"
    moved.parent.mkdir()
    home.root.rename(moved)
    monkeypatch.setenv("TORCHRELAY_HOME", str(moved))
    _artifact_repos_cache.clear()  # which a process that begins in the new place does not have
    run_dir = moved / "runs" / run_dir.name
    add_file(run_dir, "after.txt")
    run = shipped_run(run_dir)
    assert [item.path for item in run.client.list_artifacts(run.run_id)] == ["after.txt", "before.txt"]
    assert Path(run.client.download_artifacts(run.run_id, "before.txt")).read_text() == "before.txt"
    assert not home.root.exists()
    kept = run.client.get_experiment(foreign).artifact_location
    assert kept == f"{home.artifacts.as_uri()}-of-others/x"


def test_a_database_that_stays_is_not_written_to(home: Home) -> None:
    database = make_database()
    before = database.stat().st_mtime_ns
    make_database()
    assert database.stat().st_mtime_ns == before


def test_a_database_that_cannot_be_read_is_named(home: Home) -> None:
    path = settings.home().root / "mlflow.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(TrackingError, match=r"mlflow.db cannot be read: file is not a database"):
        follow_home(path, home.artifacts)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id, artifact_location)")
    follow_home(path, home.artifacts)
