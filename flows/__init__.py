"""Prefect flows, one file each, that read as their own summaries."""

import contextlib
from typing import Any

import lazy_loader

from ..console import log_in_worker
from ..settings import make_home, prefect_is_embedded, set_environment

# A worker imports a flow after it has gone to the deployment's folder: there the home is known and
# matplotlib and MLflow are not imported yet. Without this they write into the user's own folders.
set_environment()

if prefect_is_embedded():
    with contextlib.suppress(OSError):  # which a run says better
        make_home()  # or Prefect would, for everybody to read

    from ..tasks.services import use_own_server

    use_own_server()


def _flow_logger() -> Any:
    from prefect.logging import get_run_logger  # reads the environment that is set above

    return get_run_logger()


log_in_worker(_flow_logger)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
