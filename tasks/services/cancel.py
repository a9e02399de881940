"""A Prefect cancel that comes while a `StopFlag` handles SIGTERM."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ...engine import StopFlag
from .prefect_private import known_as_sigterm_handler


def acknowledge_cancel(stop: StopFlag) -> AbstractContextManager[None]:
    """Let Prefect tell a cancel from a plain SIGTERM while the flag is entered.

    The flag calls Prefect's handler when its block ends, so that it may answer for it.
    """
    return known_as_sigterm_handler(stop.handler)
