"""A user's mistake is said once and without a traceback, also through
Prefect's loggers.
"""

from __future__ import annotations

import logging

from ...console import runs_in_worker
from ...errors import TorchrelayError


class _UserErrors(logging.Filter):
    """Says one of our errors without its traceback, and only where the log
    alone can show it: in a worker.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, TorchrelayError):
            record.exc_info = record.exc_text = None
            record.msg, record.args = "%s", (str(error),)
            return runs_in_worker() and record.name == "prefect.flow_runs"
        if isinstance(error, OSError | MemoryError) and not runs_in_worker():
            return False  # the command line says it in one line, and the run keeps the traceback
        if record.getMessage().startswith("Failed to write result"):
            return False  # nothing reads Prefect's copy of an exception
        # The engine says of a task that failed what the flow, and then the command line, say again.
        return runs_in_worker() or not record.getMessage().startswith("Finished in state Failed")


_FILTER = _UserErrors()


def quiet_user_errors() -> None:
    """Install the filter.

    A second call changes nothing.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_FILTER)
