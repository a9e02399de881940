"""The way to MLflow.

One client with an explicit address, its embedded database, its errors in our words.

What is sent stands in `mlflow_run` and `registry`; nothing here or there touches MLflow's active
run.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from .. import settings
from ..addresses import sqlite_address
from ..disk import lock, mode_of_files
from ..errors import BusyError, LockError, TrackingError
from .database import check_database, check_lock, database_of, set_companions_aside, what_is_wrong
from .relocation import follow_home

P = ParamSpec("P")
T = TypeVar("T")

MAX_NAME_LENGTH = 250
# By MLflow's defaults a call to a server that is gone lasts four minutes, to one that hangs twenty.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output belongs to --json
}
# Two processes that both read and then want to write: SQLite refuses one of them at once, without
# waiting. Two that log one data set at once: the second to insert it fails, and finds it when it
# asks again.
RACES = ("database is locked", "unique constraint")
RACE_RETRIES = 8
DATABASE_TIMEOUT_SECONDS = 120.0
# HTTP statuses of a request that may be taken another time: not signed in, too slow, too many.
PASSING = (401, 403, 408, 429)
# Of whoever stands between us and the tracker.
GATEWAY = (502, 503, 504)
# What a file system says of a name that it does not take.
NAME_ERRORS = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
CLOSED = (
    "database is locked",
    "readonly database",
    "disk is full",
    "no space left",
    "disk i/o error",
)
# Called with each answer of the tracker, in the thread that asked.
on_answer: ContextVar[Callable[[], None] | None] = ContextVar("on_answer", default=None)

# What this process set, not its user.
_ours: dict[str, str] = {}


def open_client() -> MlflowClient:
    """A client of `settings.tracking_uri()`.

    Makes the embedded database where there is none yet.

    Raises:
        TrackingError: the address is not one that MLflow knows, or its database cannot be opened.
    """
    for name, value in ENVIRONMENT.items():
        if name not in os.environ:
            _ours[name] = os.environ[name] = value
    if settings.tracking_is_embedded():
        make_database()
    uri = settings.tracking_uri()
    if not settings.tracking_is_embedded() and (named := database_of(uri)) is not None:
        problem = what_is_wrong(named) if named.exists() and not named.is_file() else ""
        if problem:
            raise TrackingError(
                f"MLflow's database {named} {problem}; point MLFLOW_TRACKING_URI at another"
            )
        if named.is_file() and named.stat().st_size:
            check_lock(named)
    return call("open the tracker", MlflowClient, tracking_uri=uri, registry_uri=uri)


def override_environment(values: Mapping[str, str]) -> None:
    """Change what `ENVIRONMENT` sets for MLflow in this process.

    What the user set stays.
    """
    for name, value in values.items():
        if os.environ.get(name) == _ours.get(name):
            _ours[name] = os.environ[name] = value


def make_database() -> Path:
    """Make the embedded MLflow database, once, however many processes ask for
    it at the same time.

    It is migrated under a temporary name, so that a process that dies leaves none or a whole one.
    One that is there follows its home to another place.

    Returns:
        Its path.
    Raises:
        GoneError: what is there is no database of MLflow's.
        TrackingError: it cannot be made or read.
    """
    home = settings.home()
    path = home.root / "mlflow.db"
    if path.exists():
        check_database(path)
        follow_home(path, home.artifacts)
        return path
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    deadline = time.monotonic() + DATABASE_TIMEOUT_SECONDS
    while not path.exists():
        try:
            with lock(home.root / "mlflow.lock", f"the database {path}"):
                if not path.exists():
                    for left in home.root.glob(".mlflow.*.tmp*"):  # of a process that died here
                        left.unlink()
                    temporary = path.with_name(f".mlflow.{uuid.uuid4().hex[:8]}.tmp")
                    try:
                        store = call(
                            "make its database",
                            SqlAlchemyStore,
                            sqlite_address(temporary),
                            home.artifacts.as_uri(),
                        )
                        store.engine.dispose()
                        set_companions_aside(path)
                        temporary.chmod(mode_of_files(home.root))
                        temporary.replace(path)
                    finally:
                        temporary.unlink(missing_ok=True)
        except BusyError as error:
            if time.monotonic() > deadline:
                raise TrackingError(f"MLflow's database is still being made: {error}") from error
            time.sleep(0.05)
        except (LockError, OSError) as error:
            raise TrackingError(f"MLflow's database {path} cannot be made: {error}") from error
    return path


def call(doing: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call MLflow.

    Where another process came in between, it is tried again for some seconds.

    Args:
        doing: what it is for, for the message: "log metrics".
        function: a method of MLflow's client, with its arguments.
    Raises:
        TrackingError: MLflow refused or cannot be reached; names the address and what to do.
    """
    for attempt in range(RACE_RETRIES + 1):
        try:
            result = function(*args, **kwargs)
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            if _is_race(error) and attempt < RACE_RETRIES:
                time.sleep(random.uniform(0.05, 0.1) * 2**attempt)
                continue
            raise TrackingError(
                f"MLflow at {settings.shown_tracking_uri()}: cannot {doing}: {_reason(error)}"
            ) from error
        if (note := on_answer.get()) is not None:
            note()
        return result
    raise AssertionError("unreachable")


def is_refused(error: Exception) -> bool:
    """Whether the tracker understood a request and will not take it, however
    often it is sent.
    """
    cause = error.__cause__
    if not isinstance(cause, MlflowException):
        return False
    status = cause.get_http_status_code()
    return 400 <= status < 500 and status not in PASSING


def has_answered(error: Exception) -> bool:
    """Whether the tracker answered a request with a failure that may lie in the
    request, and not in its own state.

    As a 500 does, or a name that a file system does not take; a gateway before it, a lock or a full
    disk does not.
    """
    cause = error.__cause__
    if _has_no_way(cause):
        return False
    if isinstance(cause, MlflowException):
        failed = re.search(r"too many (\d+) error responses", str(cause))
        status = int(failed[1]) if failed else cause.get_http_status_code()
        is_silent = "failed with" in str(cause) and not failed
        return not is_silent and status not in (*PASSING, *GATEWAY)
    return isinstance(cause, OSError | SQLAlchemyError)


def _has_no_way(error: BaseException | None) -> bool:
    """Whether the way to the tracker's store is closed.

    A lock, a full disk, missing rights, a connection lost.
    """
    text = str(error).lower()
    if isinstance(error, OSError) and error.errno in NAME_ERRORS:
        return False
    return isinstance(error, OSError | OperationalError) or any(sign in text for sign in CLOSED)


def is_missing(error: Exception) -> bool:
    """Whether the tracker says that what was asked for is not there."""
    cause = error.__cause__
    return isinstance(cause, MlflowException) and cause.error_code == "RESOURCE_DOES_NOT_EXIST"


def _is_race(error: Exception) -> bool:
    if isinstance(error, MlflowException) and error.error_code == "RESOURCE_ALREADY_EXISTS":
        return False
    return any(sign in str(error).lower() for sign in RACES)


def legal_name(name: str) -> str:
    """A name that MLflow takes for a metric, a parameter or a tag.

    One that is legal stays as it is.

    In others each illegal character becomes `_`, and a digest of the whole name follows, so that
    two never collide.
    """
    parts = re.sub(r"[^/\w.\- :]", "_", name).split("/")
    legal = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if legal == name and len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{legal[: MAX_NAME_LENGTH - 9]}-{digest}"


def _reason(error: Exception) -> str:
    text = str(error)
    if "failed with exception" in text or "failed with timeout" in text:
        failed = re.search(r"too many (\d+) error responses", text)
        if failed:
            detail = f"it answers with the HTTP status {failed[1]}; see its log and mend it"
        else:
            detail = (
                f"{'no answer in time' if 'timeout' in text else 'no server answers there'}; start "
                "that server"
            )
        return (
            f"{detail}, point MLFLOW_TRACKING_URI at another, or unset it to track in "
            f"{settings.home().root}"
        )
    if "database is locked" in text:
        return "another process holds its lock for long; end what reads or writes it and try again"
    if "out-of-date database schema" in text:
        found = re.search(r"found version (\w+), but expected (\w+)", text)
        return (
            f"its schema is of another version of MLflow ({found[0] if found else 'unknown'}); of "
            "an older one, make a "
            "copy of it and call mlflow db upgrade with its address; of a newer one, install that "
            "version"
        )
    if isinstance(error, MlflowException):
        return text.splitlines()[0][:500]
    if isinstance(error, ImportError):
        return f"{error}; install the driver of that database, or unset MLFLOW_TRACKING_URI"
    return text[:1000]
