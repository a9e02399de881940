"""What the disk says while data is written, as an error that says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from ..files import describe_failure, require_space

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
            f"{what} cannot be written to {folder}: {describe_failure(error)}. What is complete stays; "
            f"run it again to go on from there"
        ) from error
