"""Room on the disk, and what the disk says, as an error that says what to
do.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError

# Beside the arrays: indices, manifests, reports.
MARGIN_BYTES = 1_000_000


@contextlib.contextmanager
def writing(what: str, folder: Path, num_bytes: int = 0) -> Iterator[None]:
    """Write something, once there is room for it.

    Args:
        what: named in the error: "pack 0123…".
        folder: where; it need not exist yet.
        num_bytes: what will be written, as far as it is known; 0 asks for no room.
    Raises:
        DataError: there is no room, or the disk refuses; what was complete before is complete.
    """
    try:
        if num_bytes:
            require_space(folder, num_bytes + MARGIN_BYTES)
        yield
    except OSError as error:
        raise DataError(
            f"{what} cannot be written to {folder}: {describe_failure(error)}. What is complete "
            "stays; "
            f"run it again to go on from there"
        ) from error


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
        raise OSError(
            errno.ENOSPC,
            f"about {num_bytes:,} bytes are needed and {usage.free:,} are free",
            str(folder),
        )


def describe_failure(error: OSError) -> str:
    """What the system said, and what to do about it."""
    said = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{said}; free space there, for example with torchrelay prune"
    return f"{said}; look at the health of that disk and the rights on that folder"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder.

    What vanishes meanwhile counts nothing.
    """
    total = 0
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with contextlib.suppress(OSError):
            total += one.lstat().st_size if not one.is_dir() else 0
    return total
