"""Files and folders written so that a kill leaves the old or the new.

A write that fails throws away what it wrote, and the next attempt writes new files. After a failed
fsync the kernel may have dropped the pages, and a second fsync of the same file would succeed
without them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..settings import home, make_home

# What some file systems answer to the fsync of a folder, which they do not need.
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)

# Characters of JSON that are still indented for people.
LONGEST_INDENTED = 1 << 20


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


# Folders that this process writes to and that are there; one that somebody removed is not made
# again by half.
_held: set[Path] = set()


@contextlib.contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Never make a folder for the life of the block.

    What is in the way of that was done by somebody else.
    """
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each durable under its name and with no
    more rights than the one above.

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
    """The rights of a new file.

    No more than its folder has, so that a private home has private files.
    """
    return 0o666 & folder.stat().st_mode


def open_to_write(path: Path, mode: str) -> IO[Any]:
    """Open a file to write, a new one with the rights of `mode_of_files`.

    Raises:
        OSError: the system refuses.
    """
    return open(
        path, mode, opener=lambda name, flags: os.open(name, flags, mode_of_files(path.parent))
    )


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file as a whole.

    Temporary name, fsync, rename, fsync of the folder.

    Raises:
        OSError: the old file is as it was; or, where the last fsync alone failed, the new one is
            there and it is not known which of the two a power cut would leave.
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
        if isinstance(
            error, OSError
        ):  # a write does not say of which file, and nobody knows the temporary name
            error.filename, error.filename2 = str(path), None
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically.

    Indented unless it is so long that nobody reads it and writing it is slow.
    """
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= LONGEST_INDENTED:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    write_atomic(path, text + "\n")


def require_place(path: Path) -> None:
    """Find out before anything expensive whether a file can be written at a
    place.

    Leaves nothing there.

    Raises:
        OSError: what the system says, with the path: no such folder, no rights, a name too long, a
            loop of links; or that something stands there which is no file, as a folder or a device,
            and would be replaced.
    """
    if not path.parent.exists():  # made together with the file
        return
    with contextlib.suppress(FileNotFoundError):
        path.stat()
    if path.exists() and not path.is_file():
        kind = errno.EISDIR if path.is_dir() else errno.EEXIST
        raise OSError(
            kind, "Is a folder" if path.is_dir() else "Is there and is no file", str(path)
        )
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
    """Fill a temporary sibling folder, then rename it to `final` once every
    file in it is durable.

    Where `final` exists by then (another process made it), that one stays and ours is dropped. An
    exception inside the block removes the temporary folder. All in it has no more rights than the
    folder above.

    Raises:
        OSError: nothing was committed; or, where the last fsync alone failed, `final` is there,
            whole, and it is not known whether it outlasts a power cut.
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
    """Take away rights that are not among these.

    Of a link, nothing.
    """
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & ~rights and not path.is_symlink():
        path.chmod(mode & rights)


def remove_folder(path: Path) -> None:
    """Remove a folder, under another name first, so that no half of it is ever
    taken for a whole.

    What cannot be removed stays under a name that `remove_leftovers` knows.
    """
    remove_tree(path.rename(_temporary(path)))


def remove_tree(path: Path) -> None:
    """Remove a file, a link but not what it leads to, or a folder.

    What cannot be removed stays.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what writers left half-written or half-removed in a folder.

    For its only writer, before it writes.
    """
    for path in folder.glob(".*.tmp"):
        remove_tree(path)


def set_aside(path: Path) -> Path:
    """Rename a bad file or folder to `bad-<name>`, or `bad-<name>-2` and so on.

    It is never removed.

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


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
