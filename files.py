"""Writing to disk so that a kill leaves the old or the new, never a half; hashing; the one-writer lock.

A write that fails throws away what it wrote, and the next attempt writes new files: after a failed fsync the kernel may
have dropped the pages, and a second fsync of the same file would succeed without them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import BusyError, LockError
from .settings import home, make_home

# What some file systems answer to the fsync of a folder, which they do not need.
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)
# What an error of reading must say for a file to count as damaged; pyarrow gives no number to what it cannot parse.
DAMAGE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EIO)
# `is_locked` holds a lock for an instant; who finds it held looks again for so long.
LOCK_PATIENCE_SECONDS = 0.2
# Characters of JSON that are still indented for people.
LONGEST_INDENTED = 1 << 20


def open_file(path: Path) -> io.BufferedReader:
    """Open an ordinary file to read; a pipe or a device, whose bytes may never come or never end, is none.

    Raises:
        OSError: it cannot be opened, or is no ordinary file.
    """
    return open(path, "rb", opener=_open_ordinary)


def _open_ordinary(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)  # so that a pipe without a writer answers at once
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.ENXIO, "Is a pipe or a device and no file", path)


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: object) -> str:
    """32 hex digits over the parts' JSON, the same on every machine and in every process."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


# Folders that this process writes to and that are there; one that somebody removed is not made again by half.
_held: set[Path] = set()


@contextlib.contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Never make a folder for the life of the block: what is in the way of that was done by somebody else."""
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each durable under its name and with no more rights than the one above.

    The home is made for its owner alone.

    Raises:
        OSError: the system refuses, or a folder is held (`hold_folder`) and was removed.
    """
    if path.is_dir():
        return
    if path in _held:
        raise FileNotFoundError(errno.ENOENT, "Was removed while it was written to", str(path))
    make_folder(path.parent)
    if path == home().root:
        make_home()
    else:
        path.mkdir(0o777 & path.parent.stat().st_mode, exist_ok=True)
    fsync_folder(path.parent)


def mode_of_files(folder: Path) -> int:
    """The rights of a new file: no more than its folder has, so that a private home has private files."""
    return 0o666 & folder.stat().st_mode


def open_to_write(path: Path, mode: str) -> IO[Any]:
    """Open a file to write, a new one with the rights of `mode_of_files`.

    Raises:
        OSError: the system refuses.
    """
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, mode_of_files(path.parent)))


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file as a whole: temporary name, fsync, rename, fsync of the folder.

    Raises:
        OSError: the old file is as it was; or, where the last fsync alone failed, the new one is there and it is not
            known which of the two a power cut would leave.
    """
    make_folder(path.parent)
    temporary = _temporary(path)
    try:
        with open_to_write(temporary, "xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a write does not say of which file, and nobody knows the temporary name
            error.filename, error.filename2 = str(path), None
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically; indented unless it is so long that nobody reads it and writing it is slow."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= LONGEST_INDENTED:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    write_atomic(path, text + "\n")


def read_json(path: Path, most_bytes: float = math.inf) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, nested too deep, or larger than `most_bytes`; then nothing of it is read.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most_bytes:
                raise ValueError(f"{path} has {size:,} bytes, more than the {most_bytes:,} that such a file can have")
            return json.loads(file.read().decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deep") from error


def why_no_path(path: Path) -> str:
    """Why a path can be none: it has a NUL, a name that is too long, links in a circle. Empty where it may be one."""
    try:
        path.stat()
    except ValueError:
        return "it has a NUL, or half a character"
    except OSError as error:
        return (error.strerror or str(error)) if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else ""
    return ""


def require_place(path: Path) -> None:
    """Find out before anything expensive whether a file can be written at a place; leaves nothing there.

    Raises:
        OSError: what the system says, with the path: no such folder, no rights, a name too long, a loop of links; or
            that something stands there which is no file, as a folder or a device, and would be replaced.
    """
    if not path.parent.exists():  # made together with the file
        return
    with contextlib.suppress(FileNotFoundError):
        path.stat()
    if path.exists() and not path.is_file():
        kind = errno.EISDIR if path.is_dir() else errno.EEXIST
        raise OSError(kind, "Is a folder" if path.is_dir() else "Is there and is no file", str(path))
    probe = _temporary(path)
    try:
        with probe.open("wb"):
            pass
    except OSError as error:
        error.filename = str(path)
        raise
    probe.unlink()


@contextlib.contextmanager
def commit_folder(final: Path) -> Iterator[Path]:
    """Fill a temporary sibling folder, then rename it to `final` once every file in it is durable.

    Where `final` exists by then (another process made it), that one stays and ours is dropped. An exception inside
    the block removes the temporary folder. All in it has no more rights than the folder above.

    Raises:
        OSError: nothing was committed; or, where the last fsync alone failed, `final` is there, whole, and it is not
            known whether it outlasts a power cut.
    """
    make_folder(final.parent)
    temporary = _temporary(final)
    rights = 0o777 & final.parent.stat().st_mode
    temporary.mkdir(rights)
    try:
        yield temporary
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    _restrict(Path(folder, name), rights)
                    os.fsync(file.fileno())
            _restrict(Path(folder), rights)
            fsync_folder(Path(folder))
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            shutil.rmtree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(final.parent)


def _restrict(path: Path, rights: int) -> None:
    """Take away rights that are not among these; of a link, nothing."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & ~rights and not path.is_symlink():
        path.chmod(mode & rights)


def remove_folder(path: Path) -> None:
    """Remove a folder, under another name first, so that no half of it is ever taken for a whole.

    What cannot be removed stays under a name that `remove_leftovers` knows.
    """
    remove_tree(path.rename(_temporary(path)))


def remove_tree(path: Path) -> None:
    """Remove a file, a link but not what it leads to, or a folder; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what writers left half-written or half-removed in a folder; for its only writer, before it writes."""
    for path in folder.glob(".*.tmp"):
        remove_tree(path)


def set_aside(path: Path) -> Path:
    """Rename a bad file or folder to `bad-<name>`, or `bad-<name>-2` and so on; it is never removed.

    Returns:
        Where it is now.
    """
    aside = path.with_name(f"bad-{path.name}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"bad-{path.name}-{number}")
    path.rename(aside)
    fsync_folder(path.parent)
    return aside


def require_space(folder: Path, num_bytes: int) -> None:
    """Find out before anything is written whether a file system has room.

    Args:
        folder: it, or the nearest above it that exists, says which file system.
        num_bytes: what will be written, and a margin.
    Raises:
        OSError: ENOSPC, as a write would raise it; says how much is needed and free.
    """
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < num_bytes:  # some file systems do not know their size
        raise OSError(errno.ENOSPC, f"about {num_bytes:,} bytes are needed and {usage.free:,} are free", str(folder))


def describe_failure(error: OSError) -> str:
    """What the system said, and what to do about it."""
    said = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{said}; free space there, for example with torchrelay prune"
    return f"{said}; look at the health of that disk and the rights on that folder"


def is_damage(error: OSError) -> bool:
    """Whether an error of reading says that the file is gone or bad.

    Any other, as too many open files or missing rights, says nothing of it: there the file stays where it is.
    """
    return error.errno in DAMAGE


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with contextlib.suppress(OSError):
            total += one.lstat().st_size if not one.is_dir() else 0
    return total


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock at a path now; leaves the file as it is."""
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
    """Hold a lock together with others who share it, for the life of the block; waits for a `lock` on it to end.

    Raises:
        LockError: its file cannot be opened, as on a disk that is read-only.
    """
    with _own(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[IO[str]]:
    """Hold an advisory lock for the life of the block; it dies with its process, whatever becomes of its children.

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


# Lock files that this process has open. A forked child has them open too, and would hold the lock when we are dead.
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
    return LockError(f"{path} cannot be written, and without that lock nothing beside it is: {describe_failure(error)}")


def _disown() -> None:
    """In a forked child: close the locks. The parent keeps them, for it has them open itself."""
    for file in _open_locks:
        file.close()
    _open_locks.clear()


os.register_at_fork(after_in_child=_disown)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
