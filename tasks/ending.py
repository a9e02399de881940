"""How a run ends.

Its status is told truthfully, its record is closed, MLflow is told of it.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from prefect import task

from ..addresses import hidden_traceback, hide_secrets
from ..console import say
from ..disk import write_atomic
from ..engine import StopFlag
from ..errors import FAILED_RUN, BusyError, LockError, RunLostError, TorchrelayError
from ..faults import reach
from ..recipe import load_recipe
from ..runs import (
    ERROR_FILE,
    RECIPE_FILE,
    RECORD_FILE,
    Hold,
    Run,
    check_folder,
    describe_run,
    give_room,
    hold_of,
    milliseconds,
    now,
    seconds_until,
)
from ..settings import home
from ..tracking.shipping import abandon, settle
from .assembly import forget
from .options import UNCACHED
from .services import is_ours, lead_to_mlflow

# A cancelled process is killed after 30 s.
SECONDS_AFTER_A_FAILURE = 10.0


@contextlib.contextmanager
def keep_status(folder: Path) -> Iterator[None]:
    """Tell the truth about how a run ends.

    An exception is FAILED, a signal or a cancel KILLED.

    A run that has ended already stays as it is, and so does one that this flow run has not made its
    own: whoever may not let it go on has no word in how it ended. A folder that has no record yet
    is removed, and with it the word that its code may run.
    """
    try:
        yield
    except BaseException as error:
        run, is_noted = Run(folder), False
        if (hold := hold_of(run)) is not None and hold.why_lost():
            _end_lost(run, hold, error)
        with StopFlag():
            if not (run.folder / RECORD_FILE).exists():
                shutil.rmtree(run.folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # what is raised says more
                    forget(run.run_id)
            elif run.record.status == "RUNNING" and is_ours(run.record):
                is_noted = note_end(run, error)
        if is_noted:  # what a second signal has to wait for is written
            with contextlib.suppress(OSError, TorchrelayError):  # what is raised says more
                settle_run(run, SECONDS_AFTER_A_FAILURE)
        if (run.folder / ERROR_FILE).exists() and not isinstance(error, TorchrelayError):
            error.add_note(
                f"{FAILED_RUN}{run.run_id} failed; more stands in {run.folder / ERROR_FILE}"
            )
        raise


def _end_lost(run: Run, hold: Hold, error: BaseException) -> NoReturn:
    """End a run whose folder is not its own any more.

    Nothing is written there, and MLflow is told.

    Raises:
        RunLostError: says what became of it; or the signal that came.
    """
    lost = error if isinstance(error, RunLostError) else _lost(hold)
    if hold.lacks_lock_alone():
        with (
            contextlib.suppress(BusyError, LockError),
            run.lock(),
        ):
            if note_end(run, lost):
                with contextlib.suppress(OSError, TorchrelayError):
                    settle_run(run, SECONDS_AFTER_A_FAILURE)
    else:
        with StopFlag():
            abandon(run, SECONDS_AFTER_A_FAILURE)
    if not isinstance(error, Exception):
        raise error
    raise lost from error


def _lost(hold: Hold) -> RunLostError:
    try:
        hold.check(is_now=True)
    except RunLostError as lost:
        return lost
    raise AssertionError("unreachable")


def note_end(run: Run, error: BaseException) -> bool:
    """Write down how a run ended.

    What cannot be written, as on a full disk, does not hide the error itself.

    Returns:
        Whether it could be written.
    """
    try:
        if not isinstance(error, Exception):
            end_record(run, "KILLED", _name_signal(error))
            return True
        give_room(run)
        said = (
            hide_secrets(str(error))
            if isinstance(error, TorchrelayError)
            else hidden_traceback(error)
        )
        with contextlib.suppress(
            OSError
        ):  # the record is smaller, says it too, and may still find room
            write_atomic(run.folder / ERROR_FILE, said.rstrip() + "\n")
        end_record(run, "FAILED", hide_secrets(f"{type(error).__name__}: {error}"))
        return True
    except (OSError, TorchrelayError) as problem:
        say(
            f"warning: how run {run.run_id} ended cannot be written: {problem}; torchrelay "
            "doctor --fix does it later"
        )
        return False


def _name_signal(error: BaseException) -> str:
    """What stopped a run, for people."""
    names = {
        "KeyboardInterrupt": "Ctrl-C (SIGINT)",
        "TerminationSignal": "SIGTERM",
        "SystemExit": "SIGTERM",
        "StopRequested": "a signal",
    }
    return f"stopped by {names.get(type(error).__name__, type(error).__name__)}"


@task(**UNCACHED)
def finish_run(folder: Path) -> dict[str, Any]:
    """Close a run that is done, and give its record as JSON, with its
    children's where it has some.

    A signal waits until that is written, so that what is done is called done.
    """
    run = Run.open(folder)
    check_folder(run, is_now=True)
    with StopFlag():
        end_record(run, "FINISHED", "")
    settle_run(run, math.inf)
    check_folder(run, is_now=True)
    (run.folder / ERROR_FILE).unlink(
        missing_ok=True
    )  # of an earlier attempt; MLflow keeps what it was sent of it
    record = run.reread()  # what sent the journal has noted MLflow's id
    if not record.parent:
        lead_to_mlflow(run)
    return describe_run(home(), record)


def end_record(run: Run, status: str, error: str) -> None:
    """Write down how a run ended.

    On a full disk in the room that was kept for it.
    """
    try:
        _write_end(run, status, error)
    except (OSError, TorchrelayError):
        if not give_room(run):
            raise
        _write_end(run, status, error)


def _write_end(run: Run, status: str, error: str) -> None:
    record, ended = run.reread(), now()
    with run.journal as journal:
        total = seconds_until(record, journal.lines(), milliseconds(ended))
        if status == "FAILED" and (run.folder / ERROR_FILE).exists():
            journal.append_artifact(run.folder / ERROR_FILE)
        journal.append_status(status, milliseconds(ended))
    reach("run.ended")  # a run that dies here is still RUNNING, and a resume ends it
    run.update(status=status, ended=ended, error=error, seconds={**record.seconds, "total": total})


def settle_run(run: Run, at_most_seconds: float) -> None:
    """Give MLflow the time to hear of a run's end, as long as it answers."""
    patience = load_recipe(run.folder / RECIPE_FILE).tracking.wait_seconds
    shipped = settle(run, patience, at_most_seconds)
    for name, number in shipped.registered:
        say(f"registered: {name} version {number}")
    if shipped.num_waiting:
        say(
            f"warning: {shipped.num_waiting} lines of the journal wait for the tracker; "
            f"torchrelay sync {run.run_id} sends them: {shipped.reason}"
        )
    if shipped.aside:
        say(f"warning: MLflow does not take {shipped.aside}")
