"""Takes away for good what MLflow holds of a run.

Its versions, logged models, metrics and artifacts.

Which runs go is decided in `upkeep/prune.py`. Here is no way back: MLflow's own trash is emptied as
well, where the tracker is the database inside the home. A server keeps that to itself: `mlflow gc`
there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException

from .. import settings
from ..disk import remove_tree, size_of
from ..errors import TrackingError
from .client import call, open_client
from .holdings import Version, join_versions, own_folders
from .mlflow_private import UNREFERENCED, delete_rows, free_model, free_run
from .mlflow_run import owner_of


def list_versions() -> dict[str, list[Version]]:
    """All versions of all registered models, by MLflow's id of the run that
    they were made from.

    Raises:
        TrackingError: the registry cannot be reached.
    """
    client = open_client()
    models = list(_pages("list registered models", client.search_registered_models))
    aliases = (
        (model.name, str(number), alias)
        for model in models
        for alias, number in model.aliases.items()
    )
    made = _pages("list model versions", client.search_model_versions)
    return join_versions(((one.name, str(one.version), one.run_id or "") for one in made), aliases)


def measure_run(mlflow_run_id: str, run_id: str) -> int | None:
    """Bytes of a run's artifacts inside the home, 0 where they are on a server.

    None where MLflow has no such run.

    Args:
        mlflow_run_id: MLflow's id, as the run's record states it.
        run_id: ours. A run that MLflow has as another one of ours is not this one.
    """
    client = open_client()
    run = _find(client, mlflow_run_id, run_id)
    if run is None:
        return None
    return sum(size_of(folder) for folder in own_folders(_places(run, _logged_models(client, run))))


def remove_run(mlflow_run_id: str, run_id: str, versions: Sequence[Version]) -> None:
    """Delete a run with its versions and logged models.

    What is gone already is passed over.

    Args:
        mlflow_run_id: MLflow's id, as the run's record states it.
        run_id: ours, which MLflow's run must carry.
        versions: those made from it; none of them may have an alias.
    Raises:
        TrackingError: the server refuses or cannot be reached; calling again goes on.
    """
    client = open_client()
    run = _find(client, mlflow_run_id, run_id)
    if run is None:
        return
    for version in versions:
        call(f"delete {version}", client.delete_model_version, version.name, version.number)
    models = _logged_models(client, run)
    for model in models:
        call(f"delete model {model.model_id}", client.delete_logged_model, model.model_id)
    call(f"delete run {mlflow_run_id}", client.delete_run, mlflow_run_id)
    if not settings.tracking_is_embedded():
        return
    for folder in own_folders(_places(run, models)):
        remove_tree(folder)
    for model in models:
        call(f"free model {model.model_id}", free_model, client, model.model_id)
    call(f"free run {mlflow_run_id}", free_run, client, mlflow_run_id)


def remove_unreferenced() -> None:
    """Delete the data sets, and what MLflow knows of their use, that no run in
    the embedded database refers to.

    Runs in MLflow's trash count as runs. All in one transaction; of a server nothing is touched.

    Raises:
        TrackingError: the database cannot be written; nothing of it was removed.
    """
    if not settings.tracking_is_embedded():
        return
    call("remove data sets that no run refers to", delete_rows, open_client(), UNREFERENCED)


def _find(client: MlflowClient, mlflow_run_id: str, run_id: str) -> Run | None:
    """A run of ours, deleted or not.

    None where there is none of these two ids.
    """
    try:
        run = call(f"find run {mlflow_run_id}", client.get_run, mlflow_run_id)
        return run if owner_of(run) == run_id else None
    except TrackingError as error:
        if (
            isinstance(error.__cause__, MlflowException)
            and error.__cause__.error_code == "RESOURCE_DOES_NOT_EXIST"
        ):
            return None
        raise


def _logged_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    return list(
        _pages(
            f"list the models of run {run.info.run_id}",
            client.search_logged_models,
            [run.info.experiment_id],
            filter_string=f"source_run_id = '{run.info.run_id}'",
        )
    )


def _places(run: Run, models: Sequence[LoggedModel]) -> list[tuple[str, str]]:
    return [
        (run.info.run_id, run.info.artifact_uri or ""),
        *((one.model_id, one.artifact_location) for one in models),
    ]


def _pages(doing: str, search: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """All that a search of MLflow's client finds, page by page."""
    token = None
    while True:
        page = call(doing, search, *args, page_token=token, **kwargs)
        yield from page
        token = page.token
        if not token:
            return
