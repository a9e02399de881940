"""What MLflow believes of our runs, and telling it otherwise.

Which is dead is found in `upkeep/lost_runs.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import settings
from ..runs import RUN_ID_TAG
from .database import DATABASE_FILE, ask_database, has_our_schema
from .mlflow_private import RUNNING

# Somebody waits for the answer, who is told of a silence and can ask again.
ENVIRONMENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


class Believed(NamedTuple):
    """A run that MLflow takes for running.

    Attributes:
        run_id: ours, from its tag.
    """

    mlflow_run_id: str
    run_id: str


def list_running() -> list[Believed]:
    """The runs of ours that MLflow takes for running.

    Makes no database where there is none.

    Raises:
        TrackingError: the tracker cannot be reached.
    """
    path = settings.home().root / DATABASE_FILE
    if settings.tracking_is_embedded():
        if not path.exists():
            return []
        if has_our_schema(path):
            return [Believed(*row) for row in ask_database(path, RUNNING, RUN_ID_TAG)]
    from .client import call, open_client, override_environment

    override_environment(ENVIRONMENT)
    client = open_client()
    experiments = [
        one.experiment_id for one in call("list the experiments", client.search_experiments)
    ]
    found: list[Believed] = []
    token = None
    while experiments:
        page = call(
            "list the running runs",
            client.search_runs,
            experiments,
            filter_string=f"attributes.status = 'RUNNING' AND tags.`{RUN_ID_TAG}` LIKE '%'",
            page_token=token,
        )
        found += [Believed(run.info.run_id, run.data.tags[RUN_ID_TAG]) for run in page]
        token = page.token
        if not token:
            break
    return found


def end_run(mlflow_run_id: str, status: str, ended: int) -> None:
    """Tell MLflow how and when a run ended.

    Args:
        status: in MLflow's words.
        ended: milliseconds since 1970.
    Raises:
        TrackingError: the tracker cannot be reached.
    """
    from .client import call, open_client

    call("end the run", open_client().set_terminated, mlflow_run_id, status, ended)
