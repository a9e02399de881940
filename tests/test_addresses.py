"""Addresses: paths of any characters lead to their file, and no secret of an address is shown."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy

from torchrelay.addresses import (
    hide_in_process,
    hide_in_values,
    hide_secrets,
    sqlite_address,
    tell_apart,
)
from torchrelay.errors import DataError, TrackingError

SECRET = "s3cr3tpw"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:s3cr3tpw@127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://user:a@s3cr3tpw@127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://user:s3cr3tpw/x@127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://user:s3cr3tpw#x@host/", "http://host/"),
        ("http://user:s3cr3tpw?x@host/", "http://host/"),
        ("http://user:x?a=s3cr3tpw@host/", "http://***"),
        ("http://user:b:s3cr3tpw@host", "http://host"),
        ("HTTP://USER:s3cr3tpw@[::1]:5000/x", "HTTP://[::1]:5000/x"),
        ("https://s3cr3tpw@host/x.git", "https://host/x.git"),
        ("mysql+pymysql://user:s3cr3tpw@host/db", "mysql+pymysql://host/db"),
        ("http://127.0.0.1:1/?token=s3cr3tpw", "http://127.0.0.1:1/?token=***"),
        ("http://host/?token=a@s3cr3tpw", "http://host/?token=***"),
        ("https://host/#access_token=s3cr3tpw", "https://host/#access_token=***"),
        (
            "postgresql://host/db?user=u&password=s3cr3tpw",
            "postgresql://host/db?user=***&password=***",
        ),
        ("host=h password=s3cr3tpw dbname=x", "host=h password=*** dbname=x"),
        ("Server=h;Uid=u;Pwd={s3cr3tpw;x};", "Server=h;Uid=u;Pwd=***;"),
        ("AccountKey=s3cr3tpw==;Suffix=y", "AccountKey=***;Suffix=y"),
        ("(of http://a:s3cr3tpw@h1,http://b:s3cr3tpw@h2 too)", "(of http://h1,http://h2 too)"),
        (
            "Max retries exceeded with url: /x?sig=s3cr3tpw (",
            "Max retries exceeded with url: /x?sig=*** (",
        ),
        ("http%3A%2F%2Fuser%3As3cr3tpw%40host", "http%3A%2F%2F***%40host"),
        ("{'Authorization': 'Basic s3cr3tpw=='}", "{'Authorization': ***}"),
        ("Authorization: Bearer s3cr3tpw.x", "Authorization: ***"),
        ('{"password": "s3cr3tpw x"}', '{"password": ***}'),
        ("http://user:pa's3cr3tpw@host/x", "http://host/x"),
        ('http://user:pa"<s3cr3tpw>@host/x is gone', "http://host/x is gone"),
        ("'http://user:pa`s3cr3tpw@h:1' and 'b@c'", "'http://h:1' and 'b@c'"),
        ("password = 'hun\\'s3cr3tpw'", "password = ***"),
        ('{"token": "a\\"s3cr3tpw"}', '{"token": ***}'),
        ("password: s3cr3tpw\nuser: u", "password: ***\nuser: u"),
        ("    api_key: s3cr3tpw1", "    api_key: ***"),
        ("key sk-s3cr3tpwABCDEFGHIJKL is old", "key *** is old"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.s3cr3tpwabc ends", "*** ends"),
        ("key pnu_s3cr3tpwabcdef is no more valid", "key *** is no more valid"),
    ],
)
def test_what_an_address_carries_is_hidden_wherever_it_stands(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(
        "PYTEST_CURRENT_TEST"
    )  # which has the address in it, and is of the environment
    assert hide_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/user@host/mlflow.db",
        "http://127.0.0.1:5000/#/experiments/1/runs/2",
        "--set data.key=patient; torchrelay sync it",
        "models:/net@champion",
        "https://host/package@1.2/x",
        "f(num_tokens=3), at 12:30@noon",
        "('http://h:80', 'a@b')",
        "model.args.token: unknown argument; did you mean tokens?",
        "    max_token: 128\n    api_key: null\n",
        "sk-learn-is-a-long-name of it",
    ],
)
def test_what_is_no_secret_stays(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert hide_secrets(text) == text


def test_what_is_secret_in_the_environment_is_hidden_without_its_address_too(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:s3cr3tpw/x@127.0.0.1:1")
    monkeypatch.setenv("PREFECT_API_KEY", "a key with spaces")
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:tulips@proxy:3128")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "ü/%")
    said = hide_secrets(
        "bad port 's3cr3tpw' at ada; a key with spaces; tulips, not tulipshow; %C3%BC%2F%25"
    )
    assert said == "bad port '***' at ada; ***; ***, not tulipshow; %C3%BC%2F%25"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "über/%1")
    assert hide_secrets("Basic %C3%BCber%2F%251") == "Basic ***"


def test_texts_of_a_value_are_hidden_and_those_under_a_name_that_says_so():
    value = {
        "uri": "http://a:s3cr3tpw@h",
        "model.args.api_key": "s3cr3tpw",
        "n": 3,
        "all": ["http://a:s3cr3tpw@h"],
    }
    assert hide_in_values(value) == {
        "uri": "http://h",
        "model.args.api_key": "***",
        "n": 3,
        "all": ["http://h"],
    }


def test_trackers_that_look_alike_are_told_apart_without_a_password():
    first, second = (tell_apart(f"http://user:s3cr3tpw@host/?space={space}") for space in "ab")
    assert len({first, second, ""}) == 3
    assert tell_apart("http://other:word@host/?space=a") == first
    assert tell_apart("http://user:s3cr3tpw@host") == ""


def test_errors_hide_secrets_and_verdicts_on_rows_are_the_same_in_every_environment(
    monkeypatch: pytest.MonkeyPatch,
):
    assert str(TrackingError(f"http://user:{SECRET}@host: gone")) == "http://host: gone"
    monkeypatch.setenv("SOME_TOKEN", "leaf.png")
    assert str(DataError("leaf.png is torn")) == "leaf.png is torn"


def test_no_library_logs_a_secret_neither_in_its_words_nor_in_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
):
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    for place, name in ((sys, "excepthook"), (__import__("threading"), "excepthook")):
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setattr("warnings.formatwarning", __import__("warnings").formatwarning)
    monkeypatch.setattr("torchrelay.addresses.is_hiding", False)
    hide_in_process()
    logger, stream = logging.getLogger("urllib3.connectionpool"), io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        raise OSError(f"http://user:{SECRET}@host does not answer")
    except OSError:
        logger.exception("Starting new connection: %s", f"http://user:{SECRET}@host")
    finally:
        logger.removeHandler(handler)
        logging.setLogRecordFactory(factory)
    assert SECRET not in stream.getvalue()
    assert "connection: http://host\n" in stream.getvalue()
    assert "OSError: http://host does not answer" in stream.getvalue()


LEAKS = """
import threading, warnings
from torchrelay.addresses import hide_in_process
hide_in_process()
warnings.warn("http://user:s3cr3tpw@host is old")
def die():
    raise RuntimeError("http://user:s3cr3tpw@host in a thread")
thread = threading.Thread(target=die); thread.start(); thread.join()
raise RuntimeError("http://user:s3cr3tpw@host at the end")
"""


def test_a_process_dies_without_showing_a_secret():
    died = subprocess.run([sys.executable, "-c", LEAKS], capture_output=True, text=True, timeout=60)
    assert died.returncode == 1
    said = [line for line in died.stderr.splitlines() if "http://" in line and "(" not in line]
    assert [line.partition("http://")[2] for line in said] == [
        "host is old",
        "host in a thread",
        "host at the end",
    ]


@pytest.mark.parametrize(
    "name", ["a?b", "a#b%41;&=c", "größe @:+*[日本", "two\nlines", ":memory:", "file:x?uri=true"]
)
def test_a_database_is_opened_where_it_lies_whatever_its_path_has(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    engine = sqlalchemy.create_engine(sqlite_address(tmp_path / name / "mlflow.db"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE one (two)"))
    engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in (tmp_path / name).iterdir()] == ["mlflow.db"]
