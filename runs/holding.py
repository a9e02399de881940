"""Checks that a run's folder still belongs to the process that writes it.

The folder must not be removed or replaced, and its lock must be ours. A lock keeps our other
writers out. It does not keep a folder from being removed or replaced by other means; then what its
writer goes on writing is lost, or mixes with what belongs to another.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from ..disk import hold_folder, write_atomic
from ..errors import RunLostError, SourceError
from .layout import LOCK_FILE, RECORD_FILE, ROOM_FILE
from .record import RunRecord, load_record
from .run import Run

CHECK_SECONDS = 2.0
# The end of a run is a line of its journal, its record, and a traceback.
ROOM_BYTES = 1 << 17

T = TypeVar("T")


class Hold:
    """A run's folder and its lock, both open.

    While they are open, what takes their place never has their numbers.

    Args:
        run: whose folder it is.
        lock_file: its lock, held.
    """

    def __init__(self, run: Run, lock_file: IO[str]) -> None:
        self.folder = run.folder
        self._lock_file = lock_file
        self._open_folder = os.open(run.folder, os.O_RDONLY)
        self._created = ""
        self._due = 0.0

    def close(self) -> None:
        """Release the folder."""
        os.close(self._open_folder)

    def check(self, *, is_now: bool = False) -> None:
        """Check that the folder is still this run's.

        It does so every `CHECK_SECONDS`, or at once.

        Raises:
            RunLostError: it is not.
        """
        if not is_now and time.monotonic() < self._due:
            return
        self._due = time.monotonic() + CHECK_SECONDS
        if reason := self.why_lost():
            raise RunLostError(
                f"run {self.folder.name} ends here: {reason}, and what it would write on is "
                "nobody's; bring the "
                f"folder back and torchrelay resume it, or train a new run"
            )

    def why_lost(self) -> str:
        """Why the folder is not this run's any more.

        Empty if it is.
        """
        if not is_same_file(self.folder, os.fstat(self._open_folder)):
            return (
                f"its folder {self.folder} was "
                f"{'replaced by another' if self.folder.exists() else 'removed'}"
            )
        if reason := self._why_another_record():
            return reason
        if not is_same_file(self.folder / LOCK_FILE, os.fstat(self._lock_file.fileno())):
            return (
                f"its lock {self.folder / 'lock'} was "
                f"{'replaced' if self._has_lock() else 'removed'}"
            )
        return ""

    def lacks_lock_alone(self) -> bool:
        """Whether only the lock is gone and nobody has its place."""
        is_here = (
            is_same_file(self.folder, os.fstat(self._open_folder))
            and not self._why_another_record()
        )
        return is_here and not self._has_lock()

    def _has_lock(self) -> bool:
        return (self.folder / LOCK_FILE).exists()

    def _why_another_record(self) -> str:
        """Why the record is not this run's any more.

        A run that begins has no record yet.
        """
        if not self._created and not (self.folder / RECORD_FILE).exists():
            return ""
        try:
            record: RunRecord = load_record(self.folder)
        except SourceError as error:
            return f"its record cannot be read any more ({error})"
        self._created = self._created or record.created
        return (
            ""
            if record.created == self._created
            else "its record was replaced by that of another run"
        )


_holds: dict[Path, Hold] = {}


@contextlib.contextmanager
def watch_folder(run: Run, lock_file: IO[str]) -> Iterator[None]:
    """Watch a run's folder within the block, and never make it again."""
    hold = _holds[run.folder] = Hold(run, lock_file)
    try:
        with hold_folder(run.folder):
            yield
    finally:
        del _holds[run.folder]
        hold.close()


def hold_of(run: Run) -> Hold | None:
    """The hold of a run that this process writes."""
    return _holds.get(run.folder)


def check_folder(run: Run, *, is_now: bool = False) -> None:
    """Do as `Hold.check` does, if this process holds the run."""
    if (hold := _holds.get(run.folder)) is not None:
        hold.check(is_now=is_now)


def checked(run: Run, batches: Callable[[], Iterable[T]]) -> Callable[[], Iterator[T]]:
    """Give batches, and check the run's folder between them."""

    def give() -> Iterator[T]:
        for batch in batches():
            check_folder(run)
            yield batch

    return give


def keep_room(run: Run) -> None:
    """Keep a little room for the end of a run to be written down on a disk
    that is full by then.
    """
    with contextlib.suppress(OSError):
        # Random, as a file system that compresses would keep nothing for zeros.
        write_atomic(run.folder / ROOM_FILE, os.urandom(ROOM_BYTES))


def give_room(run: Run) -> bool:
    """Give it to whatever is written next.

    Whether there was any.
    """
    with contextlib.suppress(OSError):
        (run.folder / ROOM_FILE).unlink()
        return True
    return False


def is_same_file(path: Path, opened: os.stat_result) -> bool:
    """Whether a path leads to what is open.

    If the system cannot say, as when a disk is away, it counts as the same.
    """
    try:
        return os.path.samestat(path.stat(), opened)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
