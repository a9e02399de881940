"""Where a running training reports to: everything goes to the journal first, then, in batches, to MLflow.

This is the one place that sends metrics. When the tracker does not answer, training goes on: the points stay queued
for the next batch and in the journal for good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import TrackingError
from .journal import Journal, Point
from .mlflow_run import MlflowRun

logger = logging.getLogger(__name__)

# Logged at every step; MLflow gets them thinned.
STEP_METRICS = ("train/loss", "lr")


class Recorder:
    """Journal and tracker of one run.

    Args:
        is_kept: of a step, whether its training metrics go to MLflow too; see `journal.thin`.
    """

    def __init__(self, journal: Journal, run: MlflowRun, is_kept: Callable[[int], bool]) -> None:
        self._journal = journal
        self._run = run
        self._is_kept = is_kept
        self._waiting: list[Point] = []

    def replay(self) -> None:
        """Queue all that the journal has: a run may have died before it was sent; sent twice, it is there once."""
        points = self._journal.points()
        self._waiting = [point for point in points if point.key not in STEP_METRICS or self._is_kept(point.step)]

    def log_step(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Journal a step's metrics; queue them where the step is kept."""
        points = self._journal.append_metrics(step, epoch, values)
        if self._is_kept(step):
            self._waiting += points

    def log_epoch(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Journal an epoch's metrics and send all that waits."""
        self._waiting += self._journal.append_metrics(step, epoch, values)
        self.flush()

    def log_artifacts(self, path: Path, artifact_path: str) -> None:
        """Send a folder's files; a tracker that does not take them costs a warning: they stay in the run's folder."""
        try:
            self._run.log_artifacts(path, artifact_path)
        except TrackingError as error:
            logger.warning("%s was not sent to the tracker: %s", path, error)

    def flush(self) -> None:
        """Send what waits; what cannot be sent goes on waiting, with a warning."""
        try:
            self._run.log_metrics(self._waiting)
        except TrackingError as error:
            logger.warning("%d points wait for the tracker: %s", len(self._waiting), error)
        else:
            self._waiting = []
