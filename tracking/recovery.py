"""Runs that MLflow's embedded database was lost with.

Found, and let be sent again from their journals' beginning.

Whether a run was lost or deleted in MLflow on purpose is told by the time at which the database was
made.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from .. import settings
from ..disk import lock
from ..errors import BusyError, TrackingError
from ..runs import (
    SHIP_LOCK_FILE,
    Cursor,
    Run,
    RunRecord,
    is_meant_for_here,
    is_open,
    list_records,
)
from ..settings import Home
from .database import DATABASE_FILE, Content, read_content, set_database_aside, what_is_wrong

logger = logging.getLogger(__name__)


class Lost(NamedTuple):
    """What is wrong with the embedded database.

    Attributes:
        problem: why the file is no database; empty where it is one or is gone.
        run_ids: ours, of runs that say that they are in it and are not, the oldest first.
    """

    problem: str
    run_ids: list[str]


def find_lost(home: Home, records: Sequence[RunRecord], *, reads_all: bool = False) -> Lost:
    """Look whether the embedded database has the runs that say so.

    Of a server nothing is known here.

    Args:
        home: its home.
        records: of all runs, newest first.
        reads_all: read every page of the database.
    """
    if not settings.tracking_is_embedded():
        return Lost("", [])
    is_new = not any(one.mlflow_run_id for one in records)
    path = home.root / DATABASE_FILE
    problem = what_is_wrong(path, reads_all=reads_all)
    content = Content(set(), 0) if problem or is_new else read_content(path)
    missing = [
        one
        for one in reversed(records)
        if one.mlflow_run_id and one.mlflow_run_id not in content.run_ids
    ]
    if not problem and path.exists():
        missing = [one for one in missing if _began(one) < content.made_ms]
    return Lost(problem, [one.run_id for one in missing if _is_meant_for_here(home, one)])


def recover(home: Home, problem: str = "") -> Iterator[str]:
    """Set a database aside that is none, and let the runs that were lost with
    it be sent again, as `sync` does then.

    Args:
        home: its home.
        problem: why it is none, where somebody has read all of it.
    Yields:
        What was done, in a sentence each.
    Raises:
        TrackingError: the database is being made just now, or cannot be set aside.
    """
    records = list_records(home)
    lost = find_lost(home, records)
    path = home.root / DATABASE_FILE
    if problem := problem or lost.problem:
        try:
            with lock(home.root / "mlflow.lock", f"the database {path}"):
                aside = set_database_aside(path)
        except OSError as error:
            raise TrackingError(
                f"MLflow's database {path} {problem}, and cannot be set aside: {error}"
            ) from error
        yield f"MLflow's database {problem}: set aside as {aside.name}"
        lost = find_lost(home, records)
    again = [run_id for run_id in lost.run_ids if forget(Run(home.runs / run_id))]
    if again:
        yield (
            f"runs that MLflow's database lost: {len(again):,}; "
            "they are sent again from their journals"
        )


def forget(run: Run) -> bool:
    """Let a run be sent again from its journal's beginning.

    Not one that somebody sends just now.

    What MLflow has of it is found by its tag, so that nothing is there twice.
    """
    with (
        contextlib.suppress(BusyError),
        lock(run.folder / SHIP_LOCK_FILE, f"run {run.run_id} in MLflow"),
    ):
        Cursor().save(run.folder)
        run.update(mlflow_run_id="")
        return True
    return False


def is_lost(home: Home, record: RunRecord) -> bool:
    """Whether a run says that it is in the embedded database, and is not in
    the one that is there or will be made.
    """
    return record.run_id in find_lost(home, [record]).run_ids


def _is_meant_for_here(home: Home, record: RunRecord) -> bool:
    try:
        journal = Run(home.runs / record.run_id, record).journal
        return is_open(journal) and is_meant_for_here(journal)
    except TrackingError as error:
        logger.info("%s: %s", record.run_id, error)
        return False


def _began(record: RunRecord) -> float:
    return datetime.fromisoformat(record.created).timestamp() * 1000
