"""The embedded tracker's database as a file.

Whether it is whole, and which runs it has. Looks with SQLite alone.

MLflow would fill an empty file with empty tables, and so hide that all runs are gone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..disk import set_aside
from ..errors import GoneError, TrackingError
from .mlflow_private import MADE, RUN_IDS, SCHEMA

DATABASE_FILE = "mlflow.db"
MAGIC = b"SQLite format 3\0"
LOOK_SECONDS = 1.0
# Whoever writes a database holds its lock for an instant.
LOCK_SECONDS = 3.0
# For reading every page of a large one; what is damaged behind them is found by whoever reads it.
EXAMINE_SECONDS = 20.0
# Files beside a database that SQLite would apply to another one of that name.
COMPANIONS = ("-journal", "-wal", "-shm")


class Content(NamedTuple):
    """What stands in a database.

    Attributes:
        run_ids: MLflow's ids of its runs, those in its trash too.
        made_ms: when it was made, in milliseconds since 1970.
    """

    run_ids: set[str]
    made_ms: int


def what_is_wrong(path: Path, *, reads_all: bool = False) -> str:
    """Why a file is no database of MLflow's.

    Empty where it is one, is not there, or is locked by somebody.

    Args:
        path: of the file.
        reads_all: read every page, for `EXAMINE_SECONDS` at most.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe would not even let itself be opened
            return "is a folder" if stat.S_ISDIR(mode) else "is no ordinary file"
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size == 0:
        return "has 0 bytes"
    if head[:16] != MAGIC:
        return "is no SQLite database"
    expected = (int.from_bytes(head[16:18], "big") or 1) * int.from_bytes(head[28:32], "big")
    if size < expected and not any(path.with_name(path.name + end).exists() for end in COMPANIONS):
        return f"has {size:,} of its {expected:,} bytes"
    try:
        with _opened(path) as connection:
            tables = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            }
            if not {"runs", "experiments"} <= tables:
                return "has no tables of MLflow's"
            return _read_all(connection) if reads_all else ""
    except sqlite3.OperationalError:  # locked, most likely: MLflow says what is wrong
        return ""
    except sqlite3.DatabaseError as error:
        return f"is damaged: {error}"


def check_database(path: Path) -> None:
    """Make sure that the embedded database, which is there, is one of MLflow's
    and can be written now.

    Raises:
        GoneError: what is there is none; `sync` makes a new one.
        TrackingError: it is locked for seconds, or must not be written.
    """
    if problem := what_is_wrong(path):
        raise GoneError(
            f"MLflow's database {path} {problem}; torchrelay sync sets it aside, makes a new one "
            "and sends all runs "
            f"again"
        )
    check_lock(path)


def has_our_schema(path: Path) -> bool:
    """Whether the embedded database, which is there, has the tables of the
    installed MLflow, so that we can read them.

    One of another version is for MLflow to speak of, and for its client to be asked.

    Raises:
        TrackingError: it is none, or cannot be written now; a `GoneError` where it is none.
    """
    check_database(path)
    return {one for (one,) in ask_database(path, SCHEMA)} == _newest_schemas()


def _newest_schemas() -> set[str]:
    """The revisions of MLflow's tables that no other follows, as its
    migrations say.
    """
    # Not imported: that takes seconds.
    found = importlib.util.find_spec("mlflow")
    folders = found.submodule_search_locations if found else None
    texts = [
        path.read_text("utf-8", "replace")
        for folder in folders or ()
        for path in Path(folder, "store", "db_migrations", "versions").glob("*.py")
    ]
    named, followed = (
        {
            match[1]
            for text in texts
            if (match := re.search(rf"^{name} = [\"'](\w+)[\"']", text, re.MULTILINE))
        }
        for name in ("revision", "down_revision")
    )
    return named - followed


def ask_database(path: Path, question: str, *values: str) -> list[tuple[str, ...]]:
    """The rows that a database answers with.

    Raises:
        TrackingError: it cannot be read.
    """
    try:
        with _opened(path) as connection:
            return connection.execute(question, values).fetchall()
    except sqlite3.Error as error:
        raise TrackingError(f"MLflow's database {path} cannot be read: {error}") from error


def check_lock(path: Path) -> None:
    """Make sure that a database can be written now.

    MLflow would try for a minute and more.

    Raises:
        TrackingError: it is locked for seconds, or must not be written; says what to do.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        said = str(error)
        remedy = "make it and its folder writable, or free space there"
        if "locked" in said:
            remedy = (
                "another process holds its lock for long; end what reads or writes it and try again"
            )
        raise TrackingError(
            f"MLflow's database {path} cannot be written: {said}; {remedy}"
        ) from error


def database_of(uri: str) -> Path | None:
    """The file of a tracker's address.

    None where it is no SQLite database, or one in memory.
    """
    if not uri.lower().startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        named = make_url(uri).database or ""
    except ArgumentError:
        return None
    return None if named in ("", ":memory:") or named.startswith("file:") else Path(named)


def read_content(path: Path) -> Content:
    """The runs of a database.

    None where it is not there or cannot be read.
    """
    if not path.is_file():
        return Content(set(), 0)
    try:
        with _opened(path) as connection:
            run_ids = {run_id for (run_id,) in connection.execute(RUN_IDS)}
            made = connection.execute(MADE).fetchone()[0]
            return Content(run_ids, int(made or 0))
    except sqlite3.DatabaseError:
        return Content(set(), 0)


def set_database_aside(path: Path) -> Path:
    """Give a database another name, and what SQLite keeps beside it too.

    Nothing of it is removed.

    Returns:
        Where it is now.
    """
    set_companions_aside(path)
    return set_aside(path)


def set_companions_aside(path: Path) -> None:
    """The same for what SQLite keeps beside a database alone, before another
    takes its place.
    """
    for end in COMPANIONS:
        if (companion := path.with_name(path.name + end)).exists():
            set_aside(companion)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """For reading alone.

    A file that is not there is not made.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=LOOK_SECONDS
    )
    with contextlib.closing(connection):
        yield connection


def _read_all(connection: sqlite3.Connection) -> str:
    """What SQLite finds wrong in the pages."""
    give_up = time.monotonic() + EXAMINE_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > give_up, 100_000)
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return "" if found == "ok" else f"is damaged: {' '.join(found.split())}"
