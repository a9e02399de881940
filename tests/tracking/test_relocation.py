from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from torchrelay.errors import GoneError, TrackingError
from torchrelay.runs import JOURNAL_FILE, Journal, RunRecord
from torchrelay.settings import Home
from torchrelay.tracking.client import make_database, open_client
from torchrelay.tracking.relocation import follow_home

from ..mlflow_private import forget_places
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
    open_client().create_registered_model("net")
    version = open_client().create_model_version(
        "net", f"{home.artifacts.as_uri()}/models/m/artifacts"
    )
    foreign = open_client().create_experiment(
        "foreign", artifact_location=f"{home.artifacts.as_uri()}-of-others/x"
    )
    moved = tmp_path / "new place" / "home"
    moved.parent.mkdir()
    home.root.rename(moved)
    monkeypatch.setenv("TORCHRELAY_HOME", str(moved))
    forget_places()
    run_dir = moved / "runs" / run_dir.name
    add_file(run_dir, "after.txt")
    run = shipped_run(run_dir)
    assert [item.path for item in run.client.list_artifacts(run.run_id)] == [
        "after.txt",
        "before.txt",
    ]
    assert Path(run.client.download_artifacts(run.run_id, "before.txt")).read_text() == "before.txt"
    assert not home.root.exists()
    source = run.client.get_model_version("net", version.version).source
    assert source == f"{moved.as_uri()}/artifacts/models/m/artifacts"
    kept = run.client.get_experiment(foreign).artifact_location
    assert kept == f"{home.artifacts.as_uri()}-of-others/x"


def test_a_database_that_stays_is_not_written_to(home: Home) -> None:
    database = make_database()
    before = database.stat().st_mtime_ns
    make_database()
    assert database.stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_a_database_that_cannot_be_read_is_left_as_it_is(content: bytes, home: Home) -> None:
    path = home.root / "mlflow.db"
    path.write_bytes(content)
    with pytest.raises(GoneError, match="torchrelay sync sets it aside, makes a new one"):
        make_database()
    assert path.read_bytes() == content


def test_a_database_that_somebody_holds_costs_seconds_alone(home: Home) -> None:
    path = make_database()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(TrackingError, match="another process holds its lock"):
            make_database()
        assert time.monotonic() - began < 10


def test_a_database_with_a_root_of_its_own_is_left_alone(home: Home, tmp_path: Path) -> None:
    path = home.root / "mlflow.db"
    path.unlink()
    SqlAlchemyStore(
        f"sqlite:///{path}", (tmp_path / "theirs" / "mlartifacts").as_uri()
    ).engine.dispose()
    before = path.read_bytes()
    make_database()
    assert path.read_bytes() == before


def test_a_moved_database_that_cannot_be_changed_is_named(home: Home, tmp_path: Path) -> None:
    path = make_database()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER never BEFORE UPDATE ON runs BEGIN SELECT raise(ABORT, 'never'); END"
        )
        connection.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON experiments BEGIN SELECT raise(ABORT, 'never'); END"
        )
    with pytest.raises(
        TrackingError, match=r"mlflow.db has files in file:.*, where its home was, and .*: never"
    ):
        follow_home(path, tmp_path / "new" / "artifacts")
