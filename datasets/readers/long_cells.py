"""Lets Python's reader of CSV take cells of any length.

Every use of it stands in this block.
"""

from __future__ import annotations

import contextlib
import csv
import threading
from collections.abc import Iterator

_limit_of_fields = threading.RLock()


@contextlib.contextmanager
def long_cells() -> Iterator[None]:
    """Read cells of any length, as pandas does, for the life of the block.

    The limit is one for the whole process.
    """
    with _limit_of_fields:
        before = csv.field_size_limit(2**31 - 1)
        try:
            yield
        finally:
            csv.field_size_limit(before)
