"""A home that was moved or copied: MLflow's embedded database says where files lie by whole paths, which follow it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

from ..errors import TrackingError

# Where MLflow keeps addresses of files.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
TIMEOUT_SECONDS = 30.0

logger = logging.getLogger(__name__)


def follow_home(database: Path, artifacts: Path) -> None:
    """Let what the database says of the home's old place hold for its new one; nothing where it is still there.

    MLflow's default experiment, which is made together with the database, tells the old place. Without it MLflow would
    look for a run's files where they were, and write new ones there.

    Args:
        database: of the home.
        artifacts: folder of the home that MLflow's files lie in.
    Raises:
        TrackingError: the database cannot be read or changed; then it is as before.
    """
    new = artifacts.as_uri()
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=TIMEOUT_SECONDS)) as connection, connection:
            found = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
            old = found[0].removesuffix("/0") if found else new
            if old == new or not old.startswith("file:"):
                return
            for table, column in COLUMNS:
                moved = f"{column} = ? || substr({column}, ?)"
                lies_there = f"{column} = ? OR substr({column}, 1, ?) = ?"
                connection.execute(
                    f"UPDATE {table} SET {moved} WHERE {lies_there}",  # noqa: S608  names of our own
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
    except sqlite3.Error as error:
        raise TrackingError(f"MLflow's database {database} cannot be read: {error}") from error
    logger.info("MLflow's files are looked for in %s, no more in %s", new, old)
