"""A Prefect cancel that comes while a `StopFlag` stands in for Prefect's own
handler of SIGTERM.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import prefect.utilities.engine as prefect_engine

from ...engine import StopFlag

HANDLER = "_prefect_sigterm_handler"


@contextlib.contextmanager
def acknowledge_cancel(stop: StopFlag) -> Iterator[None]:
    """Let Prefect tell a cancel from a plain SIGTERM although the flag's
    handler stands where its own did.

    Before `prefect flow-run cancel` sends SIGTERM, the worker says so over a socket, and the flow's
    process takes it for a cancel only if the handler that is installed is the one that Prefect
    knows by this name; else the flow run ends as Crashed. The flag calls Prefect's handler when its
    block ends, so that it may answer for it.
    """
    known = getattr(prefect_engine, HANDLER, None)
    if known is None:  # a Prefect without this check
        yield
        return
    setattr(prefect_engine, HANDLER, stop.handler)
    try:
        yield
    finally:
        setattr(prefect_engine, HANDLER, known)
