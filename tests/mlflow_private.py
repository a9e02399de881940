"""The private part of MLflow that tests use, checked on MLflow 3.17.2."""

from __future__ import annotations

from mlflow.tracking._tracking_service.utils import _artifact_repos_cache


def forget_places() -> None:
    """Let MLflow's clients ask again where the files of a run lie.

    They remember it for the life of a process. A process that begins after a home was moved knows
    nothing yet.
    """
    _artifact_repos_cache.clear()
