"""The one-writer lock, which dies with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import BusyError, LockError
from .atomic import make_folder, open_to_write
from .reading import open_file
from .space import describe_failure

# `is_locked` holds a lock for an instant; who finds it held looks again for so long.
LOCK_PATIENCE_SECONDS = 0.2


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock at a path now.

    Leaves the file as it is.
    """
    try:
        with open_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def share_lock(path: Path) -> Iterator[None]:
    """Hold a lock together with others who share it, for the life of the block.

    Waits for a `lock` on it to end.

    Raises:
        LockError: its file cannot be opened, as on a disk that is read-only.
    """
    with _own(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[IO[str]]:
    """Hold an advisory lock for the life of the block.

    It dies with its process, whatever becomes of its children.

    Args:
        path: the lock file; it says who holds it.
        what: named in the error, for example "run digits-…".
    Raises:
        BusyError: another process holds it; names its pid and host.
        LockError: its file cannot be opened or written, as on a disk that is read-only or full.
    """
    with _own(path) as file:
        give_up = time.monotonic() + LOCK_PATIENCE_SECONDS
        while not _try_lock(file):
            if time.monotonic() > give_up:
                file.seek(0)
                raise BusyError(
                    f"{what} is being written by {file.read().strip() or 'another process'}; "
                    f"wait for it to end, or end it, and try again"
                )
            time.sleep(0.01)
        try:
            file.truncate(0)
            os.write(file.fileno(), f"pid {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            raise _no_lock(path, error) from error
        yield file


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Lock files that this process has open. A forked child has them open too, and would hold the lock
# when we are dead.
_open_locks: set[IO[str]] = set()


@contextlib.contextmanager
def _own(path: Path) -> Iterator[IO[str]]:
    try:
        make_folder(path.parent)
        file = open_to_write(path, "a+")
    except OSError as error:
        raise _no_lock(path, error) from error
    with file:
        _open_locks.add(file)
        try:
            yield file
        finally:
            _open_locks.discard(file)


def _no_lock(path: Path, error: OSError) -> LockError:
    return LockError(
        f"{path} cannot be written, and without that lock nothing beside it is: "
        f"{describe_failure(error)}"
    )


def _disown() -> None:
    """In a forked child.

    Close the locks. The parent keeps them, for it has them open itself.
    """
    for file in _open_locks:
        file.close()
    _open_locks.clear()


os.register_at_fork(after_in_child=_disown)
