"""A home that was moved or copied.

MLflow's embedded database says where files lie by whole paths, which follow it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

from ..errors import TrackingError
from .mlflow_private import ADDRESSES, DEFAULT_PLACE

LOOK_SECONDS, CHANGE_SECONDS = 1, 30

logger = logging.getLogger(__name__)


def follow_home(database: Path, artifacts: Path) -> None:
    """Let what the database says of the home's old place hold for its new one.

    Nothing where it is still there.

    MLflow's default experiment, which is made together with the database, tells the old place.
    Without it MLflow would look for a run's files where they were, and write new ones there.

    A database that cannot be read, as one that another process holds, is left to MLflow, which says
    what is wrong.

    Args:
        database: of the home.
        artifacts: folder of the home that MLflow's files lie in.
    Raises:
        TrackingError: the home was moved and the database cannot be changed; then it is as before.
    """
    new = artifacts.as_uri()
    old = _old_place(database) or new
    # Of another kind of address, or another folder: not made by us.
    if old == new or not old.startswith("file:") or not old.endswith(f"/{artifacts.name}"):
        return
    try:
        with (
            contextlib.closing(sqlite3.connect(database, timeout=CHANGE_SECONDS)) as connection,
            connection,
        ):
            for table, column in ADDRESSES:
                moved = f"{column} = ? || substr({column}, ?)"
                lies_there = f"{column} = ? OR substr({column}, 1, ?) = ?"
                connection.execute(
                    f"UPDATE {table} SET {moved} WHERE {lies_there}",  # noqa: S608  names of our own
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
    except sqlite3.Error as error:
        raise TrackingError(
            f"MLflow's database {database} has files in {old}, where its home was, and cannot be "
            f"changed: {error}"
        ) from error
    logger.info("MLflow's files are looked for in %s, no more in %s", new, old)


def _old_place(database: Path) -> str:
    """The folder of MLflow's files, as the database has it.

    Empty where it cannot be read.
    """
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=LOOK_SECONDS)) as connection:
            found = connection.execute(DEFAULT_PLACE).fetchone()
    except sqlite3.Error as error:
        logger.info("%s cannot be read: %s", database, error)
        return ""
    return found[0].removesuffix("/0") if found else ""
