"""One MLflow run, by an explicit run id.

What the lines of a journal become there.

Each call may be made twice and leaves the same. When they are made stands in `outbox`, how the
server is reached in `client`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from .. import settings
from ..errors import GoneError, TrackingError
from ..runs import RUN_ID_TAG, Point
from .client import call, is_missing, legal_name

MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
# MLflow's UI shows a run with this tag below the run of that id.
PARENT_TAG = "mlflow.parentRunId"
# Without it MLflow's UI shows an experiment as one of language models, its metrics hidden.
EXPERIMENT_KIND_TAG = "mlflow.experimentKind"


class MlflowRun:
    """One run in MLflow.

    Attributes:
        client: the client that reaches it.
        run_id: MLflow's id.
        experiment_id: MLflow's id of its experiment.
    """

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self.experiment_id = experiment_id

    def log_metrics(self, points: Sequence[Point | tuple[str, float, int, int]]) -> None:
        """Send metrics.

        The one place where they go to MLflow.

        Args:
            points: key, value, step and timestamp in milliseconds. Timestamps go verbatim, so that
                sending a point twice leaves one.
        """
        for first in range(0, len(points), MAX_METRICS):
            batch = [
                Metric(legal_name(key), float(value), timestamp, step)
                for key, value, step, timestamp in points[first : first + MAX_METRICS]
            ]
            call("log metrics", self.client.log_batch, self.run_id, metrics=batch, synchronous=True)

    def log_artifact(self, path: Path, artifact_path: str = "") -> None:
        """Send a file into a folder of the run's artifacts.

        What is there is replaced.
        """
        call(f"log {path}", self.client.log_artifact, self.run_id, str(path), artifact_path or None)

    def log_params(self, params: Mapping[str, str]) -> None:
        """Send parameters.

        A value longer than 6,000 characters is cut. One that MLflow has with another is
        refused.
        """
        batch = [Param(legal_name(key), value[:MAX_PARAM_LENGTH]) for key, value in params.items()]
        for first in range(0, len(batch), MAX_PARAMS):
            some = batch[first : first + MAX_PARAMS]
            call(
                "log parameters", self.client.log_batch, self.run_id, params=some, synchronous=True
            )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags.

        A value longer than 8,000 characters is cut.
        """
        batch = [RunTag(key, value) for key, value in legal_tags(tags).items()]
        for first in range(0, len(batch), MAX_PARAMS):
            some = batch[first : first + MAX_PARAMS]
            call("set tags", self.client.log_batch, self.run_id, tags=some, synchronous=True)

    def log_dataset(self, line: Mapping[str, str]) -> None:
        """Send a `dataset` line.

        What the run read.
        """
        dataset = Dataset(
            name=line["name"],
            digest=line["digest"],
            source_type="local",
            source=line["source"],
            schema=line["schema"],
            profile=line["profile"],
        )
        context = InputTag("mlflow.data.context", line["context"])
        call(
            "log the data set",
            self.client.log_inputs,
            self.run_id,
            [DatasetInput(dataset, [context])],
        )

    def set_status(self, status: str, ended_ms: int = 0) -> None:
        """Say that the run goes on, RUNNING, or how it ended.

        FINISHED, FAILED or KILLED.

        Args:
            status: in MLflow's words.
            ended_ms: when it ended, in milliseconds since 1970; 0 means now.
        """
        if status == "RUNNING":
            call("set the run's status", self.client.update_run, self.run_id, status=status)
        else:
            ended = ended_ms or time.time_ns() // 1_000_000
            call("end the run", self.client.set_terminated, self.run_id, status, ended)


def page_of(experiment_id: str, mlflow_run_id: str) -> str:
    """A run's page where the tracker is a server.

    Else how to open it.
    """
    page = f"#/experiments/{experiment_id}/runs/{mlflow_run_id}"
    uri = settings.shown_tracking_uri()
    if uri.startswith(("http://", "https://")):
        return f"{uri.rstrip('/')}/{page}"
    return f"torchrelay ui, then http://127.0.0.1:5000/{page}"


def check_run(client: MlflowClient, mlflow_run_id: str) -> Run:
    """The run of an id.

    Raises:
        GoneError: MLflow has no such run, or it was deleted there.
        TrackingError: the server cannot be reached.
    """
    try:
        run = call(f"find run {mlflow_run_id}", client.get_run, mlflow_run_id)
    except TrackingError as error:
        if is_missing(error):
            raise GoneError(
                f"MLflow at {settings.shown_tracking_uri()} has no run {mlflow_run_id}; point "
                "MLFLOW_TRACKING_URI at "
                f"the tracker that has it"
            ) from error
        raise
    if run.info.lifecycle_stage == "deleted":
        raise GoneError(
            f"MLflow run {mlflow_run_id} was deleted; bring it back with mlflow runs restore "
            f"--run-id {mlflow_run_id}, or start a new run"
        )
    return run


def owner_of(run: Run) -> str:
    """Our id of a run that MLflow has.

    Of a run of before, which has no tag of ours, its name.
    """
    return run.data.tags.get(RUN_ID_TAG, run.info.run_name or "")


def find_experiment(client: MlflowClient, name: str) -> str:
    """The id of an experiment, made where there is none.

    Several processes may ask for one name at once.

    Raises:
        GoneError: it was deleted.
        TrackingError: the server refuses the name or cannot be reached.
    """
    for _ in range(2):
        experiment = call("look for the experiment", client.get_experiment_by_name, name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise GoneError(
                f"MLflow experiment {name!r} was deleted; bring it back with mlflow experiments "
                "restore "
                f"--experiment-id {experiment.experiment_id}, or name another in "
                "tracking.experiment"
            )
        if experiment is not None:
            return experiment.experiment_id
        location = settings.home().artifacts.as_uri() if settings.tracking_is_embedded() else None
        try:
            return call(
                f"create the experiment {name!r}",
                client.create_experiment,
                name,
                artifact_location=location,
                tags={EXPERIMENT_KIND_TAG: "custom_model_development"},
            )
        except TrackingError as error:
            cause = error.__cause__
            if not (
                isinstance(cause, MlflowException) and cause.error_code == "RESOURCE_ALREADY_EXISTS"
            ):
                raise
    raise TrackingError(f"MLflow experiment {name!r} can be neither found nor created")


def find_ours(client: MlflowClient, experiment_id: str, run_id: str) -> list[str]:
    """MLflow's ids of the runs that carry our id, the oldest first.

    Deleted ones are not among them.
    """
    found = call(
        "look for the run",
        client.search_runs,
        [experiment_id],
        filter_string=f"tags.`{RUN_ID_TAG}` = '{run_id}'",
        order_by=["attributes.start_time ASC"],
    )
    return [run.info.run_id for run in found]


def create_run(
    client: MlflowClient, experiment_id: str, run_id: str, line: Mapping[str, Any], parent: str
) -> str:
    """Make the run of an `open` line.

    Args:
        client: the client.
        experiment_id: of its experiment.
        run_id: ours.
        line: of the journal.
        parent: MLflow's id of the run that it is shown below; empty means none.
    Returns:
        MLflow's id.
    """
    tags = {**line["tags"], **({PARENT_TAG: parent} if parent else {})}
    run = call(
        "create the run",
        client.create_run,
        experiment_id,
        start_time=line["start_ms"],
        tags=legal_tags(tags),
        run_name=run_id,
    )
    return run.info.run_id


def legal_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as MLflow takes them."""
    return {legal_name(key): str(value)[:MAX_TAG_LENGTH] for key, value in tags.items()}
