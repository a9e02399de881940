"""One MLflow run, by an explicit run id: what it was started with, its metrics, artifacts, tags and status.

The run folder and the journal hold the same and more; how the server is reached stands in `client`.
"""

from __future__ import annotations

import functools
import getpass
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from .. import settings
from ..errors import TrackingError
from ..recipe import Recipe, flatten
from ..schema import FeatureSchema, Schema
from .client import call, legal_name, open_client
from .journal import Point
from .records import RunRecord

MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
RUN_ID_TAG = "torchrelay.run_id"
FINGERPRINT_TAG = "torchrelay.fingerprint"
DRIFT_TAG = "torchrelay.drift"
# MLflow's UI shows a run with this tag below the run of that id.
PARENT_TAG = "mlflow.parentRunId"
# Without it MLflow's UI shows an experiment as one of language models, its metrics hidden.
EXPERIMENT_KIND_TAG = "mlflow.experimentKind"


class MlflowRun:
    """One run in MLflow; made by `start`, taken up by `attach`, reached by `of`.

    Attributes:
        client: the client that reaches it.
        run_id: MLflow's id.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    @classmethod
    def of(cls, record: RunRecord) -> MlflowRun:
        """The MLflow run of a record, as it is: nothing is asked of the server and nothing is changed."""
        return cls(open_client(), record.mlflow_run_id)

    @classmethod
    def start(
        cls,
        record: RunRecord,
        recipe: Recipe,
        schema: Schema,
        rows: Mapping[str, int],
        tags: Mapping[str, str] | None = None,
    ) -> MlflowRun:
        """Make the run with its parameters, tags and data set; one that carries our run id already is taken up instead.

        Args:
            record: the run; its names, device, commit, Prefect flow run and fingerprint become tags.
            recipe: resolved; each of its values becomes a parameter.
            schema: of the table; its columns are shown with the data set.
            rows: rows of each split, by its name.
            tags: further tags.
        Raises:
            TrackingError: the server cannot be reached or refuses something.
        """
        client = open_client()
        experiment_id = _find_experiment(client, record.experiment)
        known = call(
            "look for the run",
            client.search_runs,
            [experiment_id],
            filter_string=f"tags.`{RUN_ID_TAG}` = '{record.run_id}'",
            max_results=1,
        )
        if known:
            return cls.attach(record.model_copy(update={"mlflow_run_id": known[0].info.run_id}), recipe)
        all_tags = {**_record_tags(record), **(tags or {})}
        run = call(
            "create the run",
            client.create_run,
            experiment_id,
            start_time=round(datetime.fromisoformat(record.created).timestamp() * 1000),
            tags={legal_name(key): value[:MAX_TAG_LENGTH] for key, value in all_tags.items() if value},
            run_name=record.run_id,
        )
        result = cls(client, run.info.run_id)
        result._log_params(flatten(recipe))
        if record.fingerprint:
            result._log_dataset(record, recipe, schema, rows)
        return result

    @classmethod
    def attach(cls, record: RunRecord, recipe: Recipe) -> MlflowRun:
        """Go on with a run that exists: its status is RUNNING again.

        Args:
            record: the run, with MLflow's id.
            recipe: what it goes on with. Parameters cannot be changed, so that what differs from them is set as the
                tag `torchrelay.drift`, JSON of `{key: [before, now]}`.
        Raises:
            TrackingError: there is no such run, or the server cannot be reached.
        """
        result = cls.of(record)
        run = call(f"find run {result.run_id}", result.client.get_run, result.run_id)
        if run.info.lifecycle_stage == "deleted":
            raise TrackingError(
                f"MLflow run {result.run_id} was deleted; bring it back with mlflow runs restore "
                f"--run-id {result.run_id}, or start a new run"
            )
        call("set the run's status", result.client.update_run, result.run_id, status="RUNNING")
        params = {legal_name(key): value[:MAX_PARAM_LENGTH] for key, value in flatten(recipe).items()}
        before = run.data.params
        result._log_params({key: value for key, value in params.items() if key not in before})
        drift = {key: [before[key], value] for key, value in params.items() if before.get(key, value) != value}
        tags = {name: value for name, value in _record_tags(record).items() if name.startswith("prefect.") and value}
        if drift or DRIFT_TAG in run.data.tags:
            tags[DRIFT_TAG] = json.dumps(drift, ensure_ascii=False)
        result.set_tags(tags)
        return result

    @functools.cached_property
    def experiment_id(self) -> str:
        """MLflow's id of the run's experiment."""
        return call(f"find run {self.run_id}", self.client.get_run, self.run_id).info.experiment_id

    @property
    def url(self) -> str:
        """The run's page where the tracker is a server; else how to open it."""
        page = f"#/experiments/{self.experiment_id}/runs/{self.run_id}"
        uri = settings.tracking_uri()
        if uri.startswith(("http://", "https://")):
            return f"{uri.rstrip('/')}/{page}"
        return f"torchrelay ui, then http://127.0.0.1:5000/{page}"

    def log_metrics(self, points: Sequence[Point | tuple[str, float, int, int]]) -> None:
        """Send metrics; the one place where they go to MLflow.

        Args:
            points: key, value, step and timestamp in milliseconds. Timestamps go verbatim, so that sending a point
                twice leaves one.
        """
        for first in range(0, len(points), MAX_METRICS):
            batch = [
                Metric(legal_name(key), float(value), timestamp, step)
                for key, value, step, timestamp in points[first : first + MAX_METRICS]
            ]
            call("log metrics", self.client.log_batch, self.run_id, metrics=batch, synchronous=True)

    def log_artifacts(self, path: Path, artifact_path: str = "") -> None:
        """Send a file, or all that is in a folder, into a folder of the run's artifacts; what is there is replaced."""
        if path.is_dir():
            call(f"log {path}", self.client.log_artifacts, self.run_id, str(path), artifact_path or None)
        else:
            call(f"log {path}", self.client.log_artifact, self.run_id, str(path), artifact_path or None)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; a value longer than 8,000 characters is cut."""
        batch = [RunTag(legal_name(key), str(value)[:MAX_TAG_LENGTH]) for key, value in tags.items()]
        for first in range(0, len(batch), MAX_PARAMS):
            some = batch[first : first + MAX_PARAMS]
            call("set tags", self.client.log_batch, self.run_id, tags=some, synchronous=True)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        call("end the run", self.client.set_terminated, self.run_id, status, time.time_ns() // 1_000_000)

    def _log_params(self, params: Mapping[str, str]) -> None:
        batch = [Param(legal_name(key), value[:MAX_PARAM_LENGTH]) for key, value in params.items()]
        for first in range(0, len(batch), MAX_PARAMS):
            some = batch[first : first + MAX_PARAMS]
            call("log parameters", self.client.log_batch, self.run_id, params=some, synchronous=True)

    def _log_dataset(self, record: RunRecord, recipe: Recipe, schema: Schema, rows: Mapping[str, int]) -> None:
        columns = [
            *(("input", feature) for feature in schema.inputs),
            *(("target", feature) for feature in schema.targets),
        ]
        dataset = Dataset(
            name=Path(recipe.data.table).stem or recipe.name,
            digest=record.fingerprint,
            source_type="local",
            source=json.dumps({"uri": recipe.data.table}, ensure_ascii=False),
            # The shape that MLflow's UI draws as a list of columns.
            schema=json.dumps(
                {"mlflow_colspec": [{"name": f.name, "type": _describe(role, f)} for role, f in columns]},
                ensure_ascii=False,
            ),
            profile=json.dumps({"num_rows": sum(rows.values()), **{f"num_rows_{key}": n for key, n in rows.items()}}),
        )
        context = InputTag("mlflow.data.context", "evaluation" if record.kind == "evaluate" else "training")
        call("log the data set", self.client.log_inputs, self.run_id, [DatasetInput(dataset, [context])])


def _find_experiment(client: MlflowClient, name: str) -> str:
    """The id of an experiment, made where there is none; several processes may ask for one name at once."""
    for _ in range(2):
        experiment = call("look for the experiment", client.get_experiment_by_name, name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise TrackingError(
                f"MLflow experiment {name!r} was deleted; bring it back with mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}, or name another in tracking.experiment"
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
            if not (isinstance(cause, MlflowException) and cause.error_code == "RESOURCE_ALREADY_EXISTS"):
                raise
    raise TrackingError(f"MLflow experiment {name!r} can be neither found nor created")


def _record_tags(record: RunRecord) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        user = "unknown"
    return {
        RUN_ID_TAG: record.run_id,
        FINGERPRINT_TAG: record.fingerprint,
        "torchrelay.kind": record.kind,
        "torchrelay.source": record.source,
        "torchrelay.source_sha256": record.source_sha256,
        "torchrelay.parent": record.parent,
        "torchrelay.split_column": record.split_column,
        "device": record.device,
        "precision": record.precision,
        "prefect.flow_run_id": record.prefect_flow_run_id,
        "prefect.flow_run_url": record.prefect_flow_run_url,
        "mlflow.user": user,
        "mlflow.source.name": record.recipe_file or sys.argv[0] or "torchrelay",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": record.git_commit,
    }


def _describe(role: str, feature: FeatureSchema) -> str:
    size = "".join(f" {number} x" for number in feature.shape).removesuffix(" x")
    classes = f", {len(feature.classes)} classes" if feature.classes else ""
    return f"{role}: {feature.kind}, {feature.dtype}{size}{classes}"
