"""Private parts of MLflow that are used here, checked on MLflow 3.17.2.

They are the tables of its SQLite database, and what its store does for `mlflow gc`. MLflow is not
imported here. tests/tracking/test_mlflow_private.py fails where MLflow changes or drops one;
`database.has_our_schema` looks whether a database has the tables of the installed MLflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's client takes seconds to be imported and milliseconds a run: what is asked of all runs at
# once is asked by SQL.
SCHEMA = "SELECT version_num FROM alembic_version"
RUN_IDS = "SELECT run_uuid FROM runs"
MADE = "SELECT min(creation_time) FROM experiments"
# As MLflow's search finds them: not those in its trash.
RUNNING = """SELECT runs.run_uuid, tags.value FROM runs JOIN tags USING (run_uuid)
    WHERE runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active' AND tags.key = ?"""

ALIASES = "SELECT name, version, alias FROM registered_model_aliases"
# MLflow keeps the rows of versions that were deleted.
VERSIONS = (
    "SELECT name, version, run_id FROM model_versions WHERE current_stage <> 'Deleted_Internal'"
)
# Those in MLflow's trash too. A run of before has no tag of ours, and our id as its name.
RUNS = """SELECT runs.run_uuid, coalesce(tags.value, runs.name), artifact_uri FROM runs
    LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = ?"""
MODELS = (
    "SELECT source_run_id, model_id, artifact_location FROM logged_models WHERE lifecycle_stage <> "
    "'deleted'"
)
# What a run read and made stands under the run's id without a foreign key: deleting the run leaves
# it, and MLflow has no way to delete it. Table and condition. First come the edges, whose deletion
# takes the lock that the rest needs.
UNREFERENCED = (
    (
        "inputs",
        """(destination_type = 'RUN' AND destination_id NOT IN (SELECT run_uuid FROM runs))
        OR (source_type IN ('RUN_INPUT', 'RUN_OUTPUT') \
AND source_id NOT IN (SELECT run_uuid FROM runs))""",
    ),
    ("input_tags", "input_uuid NOT IN (SELECT input_uuid FROM inputs)"),
    (
        "datasets",
        """dataset_uuid NOT IN (SELECT source_id FROM inputs WHERE source_type = 'DATASET')
        AND dataset_uuid NOT IN (SELECT dataset_uuid FROM logged_model_metrics \
WHERE dataset_uuid IS NOT NULL)""",
    ),
)
# Columns with addresses of files. MLflow has no way to change them, and a home that was moved has
# others.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
# The address of the default experiment, which is made together with the database.
DEFAULT_PLACE = "SELECT artifact_location FROM experiments WHERE experiment_id = 0"


def free_model(client: MlflowClient, model_id: str) -> None:
    """Take a logged model, which was deleted before, out of MLflow's trash.

    As `mlflow gc` does it, which would also empty the trash of all deleted experiments.
    """
    _store(client)._hard_delete_logged_model(model_id)


def free_run(client: MlflowClient, mlflow_run_id: str) -> None:
    """The same for a run."""
    _store(client)._hard_delete_run(mlflow_run_id)


def delete_rows(client: MlflowClient, conditions: Sequence[tuple[str, str]]) -> None:
    """Delete rows of the database, all in one transaction of MLflow's own.

    Args:
        client: of a tracker that is a database.
        conditions: a table, and which of its rows go, in the order in which they are deleted.
    """
    from sqlalchemy import text

    with _store(client).ManagedSessionMaker(read_only=False) as session:
        for table, condition in conditions:
            session.execute(text(f"DELETE FROM {table} WHERE {condition}"))  # noqa: S608


def _store(client: MlflowClient) -> Any:
    return client._tracking_client.store
