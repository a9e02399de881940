"""Reads ordinary files, and tells damage from an error of the system."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

# What an error of reading must say for a file to count as damaged; pyarrow gives no number to what
# it cannot parse.
DAMAGE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EIO)


def open_file(path: Path) -> io.BufferedReader:
    """Open an ordinary file to read.

    A pipe or a device, whose bytes may never come or never end, is none.

    Raises:
        OSError: it cannot be opened, or is no ordinary file.
    """
    return open(path, "rb", opener=_open_ordinary)


def _open_ordinary(path: str, flags: int) -> int:
    descriptor = os.open(
        path, flags | os.O_NONBLOCK
    )  # so that a pipe without a writer answers at once
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.ENXIO, "Is a pipe or a device and no file", path)


def read_json(path: Path, most_bytes: float = math.inf) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, nested too deep, or larger than `most_bytes`; then nothing of it
            is read.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most_bytes:
                raise ValueError(
                    f"{path} has {size:,} bytes, more than the {most_bytes:,} that such a file can "
                    "have"
                )
            return json.loads(file.read().decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deep") from error


def why_no_path(path: Path) -> str:
    """Why a path can be none.

    It has a NUL, a name that is too long, links in a circle. Empty where it may be one.
    """
    try:
        path.stat()
    except ValueError:
        return "it has a NUL, or half a character"
    except OSError as error:
        return (
            (error.strerror or str(error))
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
            else ""
        )
    return ""


def is_damage(error: OSError) -> bool:
    """Whether an error of reading says that the file is gone or bad.

    Any other, as too many open files or missing rights, says nothing of it: there the file stays
    where it is.
    """
    return error.errno in DAMAGE
