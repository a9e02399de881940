"""A user's mistake is said once and without a traceback, also through Prefect's loggers."""

from __future__ import annotations

import logging

from ..errors import TorchrelayError
from ..tasks.console import runs_in_worker


class _UserErrors(logging.Filter):
    """Turns the traceback of one of our errors into its message where only the log can show it; else drops it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, TorchrelayError):
            return True
        record.exc_info = None
        record.msg, record.args = "%s", (str(error),)
        return runs_in_worker() and record.name == "prefect.flow_runs"


_FILTER = _UserErrors()


def quiet_user_errors() -> None:
    """Install the filter; a second call changes nothing."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_FILTER)
