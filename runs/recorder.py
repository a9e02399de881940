"""Takes the reports of a running training and journals them.

It decides which of them MLflow gets, and never waits for a server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from .journal import Journal

# Logged at every step; MLflow gets them thinned.
STEP_METRICS = ("train/loss", "lr")


class Recorder:
    """The reports of one run.

    Args:
        is_kept: of a step, whether its training metrics go to MLflow too; see `journal.thin`.
        names: what this run calls metrics that newer ones call otherwise, by the name of today.
    """

    def __init__(
        self,
        journal: Journal,
        is_kept: Callable[[int], bool],
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._journal = journal
        self._is_kept = is_kept
        self._names = names

    def named(self, values: Mapping[str, float]) -> dict[str, float]:
        """Metrics under the names that this run uses."""
        return {self._names.get(name, name): value for name, value in values.items()}

    def log_step(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Journal a step's metrics."""
        self._journal.append_metrics(step, epoch, values, is_kept=self._is_kept(step))

    def log_epoch(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Journal the metrics of an epoch, or of the end, all for MLflow."""
        self._journal.append_metrics(step, epoch, self.named(values))
        self._journal.flush()

    def log_artifacts(self, path: Path, artifact_path: str) -> None:
        """Journal that MLflow gets a file, or a folder's files."""
        self._journal.append_artifact(path, artifact_path)
