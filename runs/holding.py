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

from ..disk import hold_folder
from ..errors import RunLostError, SourceError
from .layout import LOCK_FILE, RECORD_FILE
from .record import RunRecord, load_record

CHECK_SECONDS = 2.0

T = TypeVar("T")


class Hold:
    """A run's folder and its lock, both open.

    While they are open, what takes their place never has their numbers.

    Args:
        run_dir: of the run.
        lock_file: its lock, held.
    """

    def __init__(self, run_dir: Path, lock_file: IO[str]) -> None:
        self.run_dir = run_dir
        self._lock_file = lock_file
        self._folder = os.open(run_dir, os.O_RDONLY)
        self._created = ""
        self._due = 0.0

    def close(self) -> None:
        """Release the folder."""
        os.close(self._folder)

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
                f"run {self.run_dir.name} ends here: {reason}, and what it would write on is "
                "nobody's; bring the "
                f"folder back and torchrelay resume it, or train a new run"
            )

    def why_lost(self) -> str:
        """Why the folder is not this run's any more.

        Empty if it is.
        """
        if not is_same_file(self.run_dir, os.fstat(self._folder)):
            return (
                f"its folder {self.run_dir} was "
                f"{'replaced by another' if self.run_dir.exists() else 'removed'}"
            )
        if reason := self._why_another_record():
            return reason
        if not is_same_file(self.run_dir / LOCK_FILE, os.fstat(self._lock_file.fileno())):
            return (
                f"its lock {self.run_dir / 'lock'} was "
                f"{'replaced' if self._has_lock() else 'removed'}"
            )
        return ""

    def lacks_lock_alone(self) -> bool:
        """Whether only the lock is gone and nobody has its place."""
        is_here = (
            is_same_file(self.run_dir, os.fstat(self._folder)) and not self._why_another_record()
        )
        return is_here and not self._has_lock()

    def _has_lock(self) -> bool:
        return (self.run_dir / LOCK_FILE).exists()

    def _why_another_record(self) -> str:
        """Why the record is not this run's any more.

        A run that begins has no record yet.
        """
        if not self._created and not (self.run_dir / RECORD_FILE).exists():
            return ""
        try:
            record: RunRecord = load_record(self.run_dir)
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
def watch_folder(run_dir: Path, lock_file: IO[str]) -> Iterator[None]:
    """Watch a run's folder within the block, and never make it again."""
    hold = _holds[run_dir] = Hold(run_dir, lock_file)
    try:
        with hold_folder(run_dir):
            yield
    finally:
        del _holds[run_dir]
        hold.close()


def hold_of(run_dir: Path) -> Hold | None:
    """The hold of a run that this process writes."""
    return _holds.get(run_dir)


def check_folder(run_dir: Path, *, is_now: bool = False) -> None:
    """Do as `Hold.check` does, if this process holds the run."""
    if (hold := _holds.get(run_dir)) is not None:
        hold.check(is_now=is_now)


def checked(run_dir: Path, batches: Callable[[], Iterable[T]]) -> Callable[[], Iterator[T]]:
    """Give batches, and check the run's folder between them."""

    def give() -> Iterator[T]:
        for batch in batches():
            check_folder(run_dir)
            yield batch

    return give


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
