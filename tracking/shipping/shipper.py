"""Sends journals to MLflow.

A thread beside each run, and `sync_home` for what it left. Nobody ever waits for it long.

A training writes its journal and never calls MLflow; the thread follows the file. So a tracker that
is gone, hangs or fails costs a training nothing, and at its end no more than its patience. What is
sent, and how, stands in `outbox`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ... import settings
from ...disk import is_locked, lock
from ...errors import BusyError, GoneError, LockError, TorchrelayError, TrackingError
from ...runs import (
    LOCK_FILE,
    SHIP_LOCK_FILE,
    Cursor,
    Run,
    is_meant_for_here,
    list_records,
    waiting,
)
from ...settings import Home
from ..client import make_database, on_answer, override_environment
from ..reconcile import end_run
from ..recovery import forget, is_lost
from .aside import describe_aside
from .outbox import NotYetError, Outbox
from .sender import Sender, Shipped

POLL_SECONDS = 5.0
# The embedded database's Python holds up a training while it writes: 0.1 s for 500 points.
EMBEDDED_POLL_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
# Nobody waits for the thread, so that it may give an answer its time: a request that is given up is
# one to send again. MLflow's own retries would sleep where ours look whether the tracker is back.
ENVIRONMENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
# A database that somebody locks is free again sooner or later; a server may be gone for good.
EMBEDDED_PATIENCE_SECONDS = 30.0
# The same Python takes a second or two for a run's beginning: better before the first step than
# beside it.
EMBEDDED_START_SECONDS = 5.0
# What an upload is worth waiting for, to a tracker that has just answered.
BYTES_PER_SECOND = 5e6

logger = logging.getLogger(__name__)


class Shipper:
    """The thread that sends one run's journal.

    It dies with its process, whatever it waits for.

    Args:
        run: the run.
        is_helpful: send what other runs left, too, while its own has nothing to send.
        is_asked: somebody asked for it, so that what was set aside is tried again.
    """

    def __init__(self, run: Run, *, is_helpful: bool = False, is_asked: bool = False) -> None:
        self._run = Run(run.folder)  # of its own, as the thread reads beside the training
        self._is_helpful = is_helpful
        self._is_asked = is_asked
        self._outbox: Outbox | None = None
        self._ending, self._stopped, self._finished = (
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )
        self._begun, self._wake = threading.Event(), threading.Event()
        # When the tracker answered last, and when that last brought something on; what an upload
        # may take by then.
        self._answered = self._progressed = -math.inf
        self._granted = 0.0
        self._error: Exception | None = None
        self._warned = False

    def start(self) -> None:
        """Begin to follow the journal."""
        override_environment(ENVIRONMENT)
        if settings.tracking_is_embedded():
            try:
                make_database()
            except TrackingError as error:
                self._note_failure(error)
            # Here, not in the thread: processes that are forked while it imports would find its
            # locks held for ever.
            import mlflow.store.model_registry.sqlalchemy_store
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        threading.Thread(target=self._work, name=f"ship {self._run.run_id}", daemon=True).start()
        if settings.tracking_is_embedded():
            self._begun.wait(EMBEDDED_START_SECONDS)

    def settle(self, patience_seconds: float, at_most_seconds: float = math.inf) -> Shipped:
        """Send what there is to its end, as long as the tracker answers.

        Then the thread ends.

        Args:
            patience_seconds: how long to wait for an answer; the embedded database is given 30 s.
            at_most_seconds: how long to wait for all of them.
        """
        if settings.tracking_is_embedded():
            patience_seconds = max(patience_seconds, EMBEDDED_PATIENCE_SECONDS)
        began = time.monotonic()
        self._error = None
        self._ending.set()
        self._wake.set()
        while not self._finished.wait(0.02):
            now = time.monotonic()
            is_silent = now - max(began, self._answered) > patience_seconds
            if self._error is not None:  # answers that bring nothing on are no reason to wait
                is_silent = now - max(began, self._progressed) > patience_seconds + self._granted
            if is_silent or now - began > at_most_seconds or isinstance(self._error, GoneError):
                break
        return self.stop()

    def stop(self) -> Shipped:
        """End the thread after the call that it is in, without waiting for
        that.
        """
        self._stopped.set()
        self._wake.set()
        num_waiting, outbox = waiting(self._run), self._outbox
        return Shipped(
            self._run.run_id,
            Cursor.load(self._run.folder).mlflow_run_id,
            outbox.num_sent if outbox else 0,
            num_waiting,
            self._why() if num_waiting else "",
            is_silent=num_waiting > 0
            and not isinstance(self._error, GoneError | NotYetError | BusyError),
            registered=tuple(outbox.registered) if outbox else (),
            aside=describe_aside(self._run),
        )

    def forsake(self) -> str:
        """End the thread like `stop`, and give MLflow's id of the run as the
        thread knows it; looks at no file.
        """
        self._stopped.set()
        self._wake.set()
        return self._outbox.cursor.mlflow_run_id if self._outbox else ""

    def _why(self) -> str:
        if self._error is not None:
            return str(self._error)
        return f"MLflow at {settings.shown_tracking_uri()} does not answer in time"

    def _work(self) -> None:
        on_answer.set(self._note_answer)
        try:
            while not self._stopped.is_set():
                try:
                    with lock(
                        self._run.folder / SHIP_LOCK_FILE, f"run {self._run.run_id} in MLflow"
                    ):
                        self._follow()
                        return
                except BusyError as error:
                    self._error = error
                    self._begun.set()
                    self._stopped.wait(0.1)
        except (LockError, OSError) as error:
            self._note_failure(error)
        finally:
            self._begun.set()
            self._finished.set()

    def _follow(self) -> None:
        """Send what the journal has and what is added to it, until it is to
        end.
        """
        pause = FIRST_PAUSE
        while not self._stopped.is_set():
            is_ending = self._ending.is_set()
            try:
                self._outbox = self._outbox or Outbox(self._run, self._expect)
                has_more = self._outbox.send_batch()
                if self._is_asked and not has_more:
                    self._outbox.retry_aside()
                    self._is_asked = False
            except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on and the lines wait
                self._note_failure(error)
                self._pause(min(pause, 1.0) if is_ending else pause, is_ending)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause, self._error = FIRST_PAUSE, None
            self._progressed, self._granted = time.monotonic(), 0.0
            if has_more:
                continue
            if is_ending:
                return
            self._begun.set()
            if self._is_helpful:
                self._is_helpful = False
                self._help_others()
            self._pause(
                EMBEDDED_POLL_SECONDS if settings.tracking_is_embedded() else POLL_SECONDS,
                is_ending,
            )

    def _help_others(self) -> None:
        """Send what other runs left when their process ended, until this run
        ends or the tracker is silent.

        What was meant for another tracker waits for it, or for a `torchrelay sync`, which somebody
        asked for.
        """
        for other in _left_behind(self._run.folder.parent, but=self._run.folder):
            try:
                is_for_here = is_meant_for_here(other.journal)
            except TrackingError as error:
                logger.info("%s waits: %s", other.run_id, error)
                continue
            if not is_for_here:
                continue
            with (
                contextlib.suppress(BusyError, LockError),
                lock(other.folder / SHIP_LOCK_FILE, f"run {other.run_id} in MLflow"),
            ):
                try:
                    outbox = Outbox(other)
                    while (
                        not (self._ending.is_set() or self._stopped.is_set())
                        and outbox.send_batch()
                    ):
                        pass
                except GoneError as error:
                    logger.info("%s waits: %s", other.run_id, error)
                except Exception as error:  # noqa: BLE001 - another run's lines, for which nobody waits here
                    logger.info("%s waits: %s", other.run_id, error)
                    return

    def _pause(self, seconds: float, is_ending: bool) -> None:
        """Sleep, but not through a wish to end that came after `is_ending`
        was read.
        """
        if is_ending:
            self._stopped.wait(seconds)
        else:
            self._wake.wait(seconds)
            self._wake.clear()

    def _note_answer(self) -> None:
        self._answered = max(self._answered, time.monotonic())

    def _expect(self, num_bytes: int) -> None:
        """An upload is given its time where the tracker has just answered."""
        now = time.monotonic()
        if now - self._answered < 1.0:
            self._granted = num_bytes / BYTES_PER_SECOND
            self._answered = now + self._granted

    def _note_failure(self, error: Exception) -> None:
        self._error = error
        self._begun.set()
        if self._warned or self._stopped.is_set():
            return
        self._warned = True
        with _speaking:
            if isinstance(error, TrackingError):
                logger.warning(
                    "%s waits in its journal for the tracker: %s", self._run.run_id, error
                )
            else:
                logger.warning(
                    "%s waits in its journal for the tracker", self._run.run_id, exc_info=error
                )


# A loader's worker that is forked while this thread writes to stderr inherits that stream locked,
# and hangs on it for ever; so a fork waits for the end of the line.
_speaking = threading.Lock()
os.register_at_fork(
    before=_speaking.acquire, after_in_parent=_speaking.release, after_in_child=_speaking.release
)
_shippers: dict[Path, Shipper] = {}


def start_shipping(run: Run) -> None:
    """Send a run's journal, which has its beginning, from now on.

    `settle` waits for it to be complete.
    """
    stop_shipping(run)
    home = Home(run.folder.parent.parent)
    if run.record.mlflow_run_id and is_lost(home, run.record):
        forget(run)
    _shippers[run.folder] = Shipper(run, is_helpful=True)
    _shippers[run.folder].start()


def stop_shipping(run: Run) -> None:
    """End it without waiting."""
    if (shipper := _shippers.pop(run.folder, None)) is not None:
        shipper.stop()


def abandon(run: Run, at_most_seconds: float) -> bool:
    """Tell MLflow that a run failed whose folder, and with it its journal and
    cursor, is not its own any more.

    Args:
        run: the run, whose journal was being sent.
        at_most_seconds: how long to wait for the answer.
    Returns:
        Whether MLflow was told; where it does not have the run, or its database is gone, there is
        nothing to tell.
    """
    shipper = _shippers.pop(run.folder, None)
    mlflow_run_id = "" if shipper is None else shipper.forsake()
    if not mlflow_run_id or (
        settings.tracking_is_embedded() and not (settings.home().root / "mlflow.db").is_file()
    ):
        return False
    told = threading.Event()

    def tell() -> None:
        with contextlib.suppress(TorchrelayError):
            end_run(mlflow_run_id, "FAILED", time.time_ns() // 1_000_000)
            told.set()

    thread = threading.Thread(target=tell, name=f"end {run.run_id}", daemon=True)
    thread.start()
    thread.join(at_most_seconds)
    return told.is_set()


def settle(run: Run, patience_seconds: float, at_most_seconds: float = math.inf) -> Shipped:
    """Wait until MLflow has all of a run's journal, or does not answer any
    more.

    See `Shipper.settle`.
    """
    shipper = _shippers.pop(run.folder, None)
    if shipper is None:
        shipper = Shipper(run)
        shipper.start()
    return shipper.settle(patience_seconds, at_most_seconds)


def sync_run(
    run: Run, patience_seconds: float = settings.SYNC_PATIENCE_SECONDS, *, is_asked: bool = False
) -> Shipped:
    """Send what one run left.

    Args:
        run: the run.
        patience_seconds: how long to wait for an answer.
        is_asked: for this run by its name, so that what was set aside is tried again.
    Raises:
        BusyError: its process lives, and sends it itself.
        TrackingError: its cursor or journal cannot be read.
    """
    if is_locked(run.folder / LOCK_FILE):
        raise BusyError(
            f"run {run.run_id} is being written by a process that sends its journal itself"
        )
    waiting(run)  # what cannot be read is said at once; the thread would wait for it
    shipper = Shipper(run, is_asked=is_asked)
    shipper.start()
    return shipper.settle(patience_seconds)


def sync_home(home: Home, runs: list[Run] | None = None) -> Iterator[Shipped]:
    """Send what runs left, the oldest first.

    After one to which the tracker is silent, the others wait too.

    Args:
        home: whose runs.
        runs: only these, with what was set aside of them.
    """
    sender = Sender()
    for run in _left_behind(home.runs) if runs is None else runs:
        try:
            done = sender.send(run, is_asked=runs is not None)
        except TorchrelayError as error:
            done = Shipped(run.run_id, "", 0, _count_waiting(run), str(error))
        yield done


def _count_waiting(run: Run) -> int:
    """Lines that wait.

    Where nobody can say how many, at least the one that cannot be read.
    """
    try:
        return waiting(run)
    except TrackingError:
        return 1


def _left_behind(runs: Path, but: Path | None = None) -> list[Run]:
    """Runs whose journal waits, the oldest first.

    Not the one in the folder `but`.
    """
    records = reversed(list_records(Home(runs.parent)))
    found = (Run(runs / record.run_id, record) for record in records)
    return [run for run in found if run.folder != but and _count_waiting(run)]
