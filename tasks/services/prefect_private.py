"""Private parts of Prefect that are used here, checked on Prefect 3.8.8.

tests/tasks/services/test_prefect_private.py fails where Prefect changes or drops one.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a flow on a server of its own never imports Prefect's server
    from prefect.server.api.server import SubprocessASGIServer

HANDLER = "_prefect_sigterm_handler"
BEGIN = "_run_uvicorn_command"
# Read from its SQLite database, so that no server is started to look. Takes the states as JSON.
FLOW_RUNS = """SELECT id, state_type FROM flow_run
    WHERE state_type IN (SELECT value FROM json_each(?))"""


@contextlib.contextmanager
def known_as_sigterm_handler(handler: Callable[..., Any]) -> Iterator[None]:
    """Within, Prefect takes a handler of SIGTERM for its own.

    Before `prefect flow-run cancel` sends SIGTERM, the worker says so over a socket, and the flow's
    process acknowledges it only if the handler that is installed is the one that Prefect knows by
    this name; else the flow run ends as Crashed. Prefect has no public way to name another.
    """
    import prefect.utilities.engine as prefect_engine  # not needed to read its database

    known = getattr(prefect_engine, HANDLER, None)
    if known is None:  # a Prefect without this check
        yield
        return
    setattr(prefect_engine, HANDLER, handler)
    try:
        yield
    finally:
        setattr(prefect_engine, HANDLER, known)


def begin_by(
    kind: type[SubprocessASGIServer], begin: Callable[[Any], subprocess.Popen[Any]]
) -> None:
    """Let the temporary servers of a class start their process by our function.

    Prefect's own lets it write to the terminal, and begins one that ends at once again and again.

    Args:
        kind: a class of ours.
        begin: is given the server, and gives its process.
    """
    setattr(kind, BEGIN, begin)
