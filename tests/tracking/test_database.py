"""A look at the tracker's database before MLflow opens it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay import settings
from torchrelay.errors import TrackingError
from torchrelay.settings import Home
from torchrelay.tracking.client import make_database, open_client
from torchrelay.tracking.database import database_of


def make_folder(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (make_folder, r"mlflow.db is a folder; "),
        (make_pipe, r"mlflow.db is no ordinary file"),
    ],
)
@pytest.mark.parametrize("is_embedded", [True, False])
def test_what_is_no_database_is_said_at_once(
    make: Callable[[Path], None], said: str, is_embedded: bool, monkeypatch: pytest.MonkeyPatch
):
    root = settings.home().root
    root.mkdir()
    make(root / "mlflow.db")
    if not is_embedded:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    began = time.monotonic()
    with pytest.raises(TrackingError, match=said):
        open_client()
    assert time.monotonic() - began < 2


def test_a_database_that_is_locked_for_long_is_said_within_seconds(home: Home):
    began = time.monotonic()
    with contextlib.closing(sqlite3.connect(home.root / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            TrackingError, match="database is locked; another process holds its lock"
        ):
            make_database()
    assert time.monotonic() - began < 5
    make_database()


@pytest.mark.parametrize(
    "uri", ["http://host", "sqlite://", "sqlite:///:memory:", "sqlite:///file:a?uri=true", "sqlite"]
)
def test_what_is_no_file_is_not_looked_at(uri: str):
    assert database_of(uri) is None
    assert database_of("sqlite:////a/b.db") == Path("/a/b.db")


def test_a_database_of_another_version_of_mlflow_is_named_as_such(home: Home):
    with contextlib.closing(sqlite3.connect(home.root / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from2099'")
    began = time.monotonic()
    with pytest.raises(
        TrackingError, match=r"of another version of MLflow .*from2099.* of a newer one, install"
    ):
        open_client()
    assert time.monotonic() - began < 5


def test_a_database_in_a_home_with_a_question_mark_is_made_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHRELAY_HOME", str(tmp_path / "a?b#c%3F;d"))
    settings.home().root.mkdir(0o700)
    client = open_client()
    experiment = client.get_experiment(client.create_experiment("it"))
    assert experiment.name == "it"
    assert [path.name for path in tmp_path.iterdir()] == ["a?b#c%3F;d"]
    assert (settings.home().root / "mlflow.db").stat().st_mode & 0o777 == 0o600
