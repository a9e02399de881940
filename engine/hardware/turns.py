"""Turns on the cores.

Trainings of one user on one machine compute one after another instead of against each other.

A core is a lock file in a folder that all processes of the user share. A training takes as many as
it has threads and keeps them for a slice of time; it hands them over when another one queues, and
goes on at once when none does. The locks die with their process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from .cpu_load import usable_cores

# How often a lock that another process holds is tried again.
POLL_SECONDS = 0.002
# Who does not get its cores within that time goes on without them, and asks again only after the
# pause: the one that has them is stopped, or in a step that takes long.
PATIENCE_SECONDS = 5.0
PAUSE_SECONDS = 60.0


def lock_folder() -> Path:
    """The folder of the locks.

    It need not exist yet.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"torchrelay-cores-{os.getuid()}"


@contextlib.contextmanager
def turn_alone() -> Iterator[None]:
    """A turn on all cores for the life of the block, for what is to be timed.

    Without one where there is no folder.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            cores = usable_cores()
            turns = Turns(lock_folder(), cores, len(cores))
            stack.callback(turns.close)
            turns.take()
        yield


class Turns:
    """A process's place among those that take turns.

    Args:
        folder: of the locks.
        cores: that this process may compute on.
        count: how many of them it needs at a time.
    Raises:
        OSError: the folder cannot be made, or is not this user's own.
    """

    def __init__(self, folder: Path, cores: frozenset[int], count: int) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
            raise PermissionError(f"{folder} is not a folder that this user alone can write")
        self._files: list[int] = []
        try:
            self._queue = self._open(folder / "queue")
            self._cores = [self._open(folder / f"core-{core}") for core in sorted(cores)]
        except OSError:
            self.close()
            raise
        self._count = min(count, len(self._cores))
        self._held: list[int] = []
        self._not_before = 0.0
        _all_turns.add(self)

    def take(self) -> None:
        """Wait for a turn.

        Where it does not come in time, go on without one.
        """
        if self._held or time.monotonic() < self._not_before:
            return
        give_up = time.monotonic() + PATIENCE_SECONDS
        if not _lock_within(self._queue, give_up):
            self._not_before = time.monotonic() + PAUSE_SECONDS
            return
        # Only the first of the queue takes cores, so that no two wait for cores of each other.
        try:
            while not self._take_free_cores():
                if time.monotonic() > give_up:
                    self.give()
                    self._not_before = time.monotonic() + PAUSE_SECONDS
                    return
                time.sleep(POLL_SECONDS)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def give(self) -> None:
        """End the turn."""
        for core in self._held:
            fcntl.flock(core, fcntl.LOCK_UN)
        self._held = []

    def pass_on(self) -> None:
        """Let the first of the queue have a turn, and wait for the next.

        At once where nobody queues.
        """
        if not self._held:
            self.take()
        elif _try_lock(self._queue):
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        else:
            self.give()
            time.sleep(POLL_SECONDS)  # the first of the queue looks as often
            self.take()

    def close(self) -> None:
        """End the turn, and let go of the files."""
        for file in self._files:
            with contextlib.suppress(OSError):
                os.close(file)
        self._files, self._held = [], []

    def _take_free_cores(self) -> bool:
        for core in self._cores:
            if len(self._held) < self._count and core not in self._held and _try_lock(core):
                self._held.append(core)
        return len(self._held) == self._count

    def _open(self, path: Path) -> int:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._files.append(file)
        return file


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_within(file: int, give_up: float) -> bool:
    while not _try_lock(file):
        if time.monotonic() > give_up:
            return False
        time.sleep(POLL_SECONDS)
    return True


# A forked child has the files open too; it must not keep the locks of a parent that died.
_all_turns: weakref.WeakSet[Turns] = weakref.WeakSet()


def _close_all() -> None:
    for turns in list(_all_turns):
        turns.close()


os.register_at_fork(after_in_child=_close_all)
