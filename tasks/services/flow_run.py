"""The flow run that this process is in, and its part in a run of ours."""

from __future__ import annotations

import prefect.runtime.flow_run as flow_run
from prefect.artifacts import create_markdown_artifact

from ...addresses import hide_secrets
from ...runs import Cursor, Run, RunRecord
from ...settings import prefect_is_embedded
from ...tracking import page_of


def is_ours(record: RunRecord) -> bool:
    """Whether this flow run, in this or an earlier attempt, was the last to
    begin a run or let it go on.
    """
    return record.prefect_flow_run_id == flow_run_id()


def flow_run_id() -> str:
    """Prefect's id of the flow run that we are in.

    Empty outside of one.
    """
    return str(flow_run.get_id() or "")


def flow_run_url() -> str:
    """The flow run's page, where a server outlives it."""
    return "" if prefect_is_embedded() else hide_secrets(flow_run.get_flow_run_ui_url() or "")


def lead_to_mlflow(run: Run) -> None:
    """Lead from the flow run to MLflow's page, where MLflow has the run."""
    record, place = run.record, Cursor.load(run.folder)
    if record.prefect_flow_run_id and place.mlflow_run_id:
        create_markdown_artifact(
            key="mlflow-run",
            markdown=(
                f"Run `{record.run_id}` in MLflow: "
                f"{page_of(place.experiment_id, place.mlflow_run_id)}"
            ),
            description=f"MLflow run of {record.run_id}",
        )
