"""What tifffile and imagecodecs say of a file, kept for whoever asks.

Else it goes to standard error without a name.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def hear_decoders() -> Iterator[list[str]]:
    """Collect what tifffile and imagecodecs say of a file in this thread."""
    for name in ("tifffile", "imagecodecs"):
        logging.getLogger(name).addFilter(_LISTENER)  # once, however often
    _Listener.said.lines = lines = []
    try:
        yield lines
    finally:
        _Listener.said.lines = None


class _Said(threading.local):
    """What has been said in this thread.

    None where nobody asks.

    Attributes:
        lines: first to last.
    """

    lines: list[str] | None = None


class _Listener(logging.Filter):
    """Keeps what is logged in a thread that asks for it, and lets the rest
    pass.
    """

    said = _Said()

    def filter(self, record: logging.LogRecord) -> bool:
        if self.said.lines is None:
            return True
        self.said.lines.append(record.getMessage())
        return False


_LISTENER = _Listener()
