"""MLflow still has the tables and the ways of its store that are used."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from torchrelay.runs import RUN_ID_TAG
from torchrelay.settings import Home
from torchrelay.tracking.client import open_client
from torchrelay.tracking.mlflow_private import (
    ADDRESSES,
    ALIASES,
    DEFAULT_PLACE,
    MADE,
    MODELS,
    RUN_IDS,
    RUNNING,
    RUNS,
    SCHEMA,
    UNREFERENCED,
    VERSIONS,
    delete_rows,
    free_model,
    free_run,
)


@pytest.fixture
def client(home: Home) -> MlflowClient:
    """Of a database with a run of ours, its logged model, and a version of it with an alias."""
    client = open_client()
    run = client.create_run("0", tags={RUN_ID_TAG: "ours"}).info
    model = client.create_logged_model("0", name="net", source_run_id=run.run_id)
    client.create_registered_model("net")
    client.create_model_version("net", model.artifact_location, run.run_id)
    client.set_registered_model_alias("net", "champion", "1")
    return client


def ask(home: Home, question: str, *values: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(home.root / "mlflow.db")) as database:
        return database.execute(question, values).fetchall()


def columns(home: Home) -> list[tuple[str, str]]:
    tables = [name for (name,) in ask(home, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        (table, column)
        for table in tables
        for _, column, *_ in ask(home, f"PRAGMA table_info({table})")
    ]


def test_the_tables_answer_what_they_are_asked(client: MlflowClient, home: Home) -> None:
    (run,), (model,) = client.search_runs(["0"]), client.search_logged_models(["0"])
    mine, place = run.info.run_id, run.info.artifact_uri
    assert len(ask(home, SCHEMA)) == 1
    assert ask(home, RUN_IDS) == [(mine,)]
    assert ask(home, RUNNING, RUN_ID_TAG) == [(mine, "ours")]
    assert ask(home, RUNS, RUN_ID_TAG) == [(mine, "ours", place)]
    assert ask(home, MODELS) == [(mine, model.model_id, model.artifact_location)]
    assert ask(home, VERSIONS) == [("net", 1, mine)]
    assert ask(home, ALIASES) == [("net", 1, "champion")]
    assert ask(home, MADE)[0][0] == client.get_experiment("0").creation_time
    assert ask(home, DEFAULT_PLACE) == [(client.get_experiment("0").artifact_location,)]


def test_addresses_of_files_stand_in_no_other_columns(client: MlflowClient, home: Home) -> None:
    known = columns(home)
    assert set(ADDRESSES) <= set(known)
    start = home.artifacts.as_uri()
    found = {
        (table, column)
        for table, column in known
        if ask(home, f"SELECT 1 FROM {table} WHERE substr({column}, 1, {len(start)}) = ?", start)
    }
    assert found == set(ADDRESSES)


def test_what_is_freed_is_gone_for_good(client: MlflowClient, home: Home) -> None:
    (run,), (model,) = client.search_runs(["0"]), client.search_logged_models(["0"])
    client.delete_logged_model(model.model_id)
    client.delete_run(run.info.run_id)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    free_model(client, model.model_id)
    free_run(client, run.info.run_id)
    with pytest.raises(MlflowException, match="not found"):
        client.get_run(run.info.run_id)
    assert ask(home, "SELECT count(*) FROM logged_models") == [(0,)]


def test_rows_that_no_run_refers_to_are_deleted_and_others_stay(
    client: MlflowClient, home: Home
) -> None:
    for table, condition in UNREFERENCED:
        ask(home, f"SELECT 1 FROM {table} WHERE {condition}")
    delete_rows(client, [("tags", f"key = '{RUN_ID_TAG}'")])
    assert ask(home, RUNNING, RUN_ID_TAG) == []
    assert len(ask(home, RUN_IDS)) == 1
