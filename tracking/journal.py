"""The journal: a run's append-only log of metrics and events on local disk, the truth that MLflow mirrors.

One JSON object a line, flushed at each append. Sending the points on is `mlflow_run`'s work.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from ..errors import TrackingError, check_format

FORMAT_VERSION = 1
MAX_POINTS = 2000

logger = logging.getLogger(__name__)


class Point(NamedTuple):
    """One value of one metric.

    Attributes:
        timestamp: when it was journaled, in milliseconds since 1970; sent verbatim, so that a point that is sent
            twice is one point in MLflow.
    """

    key: str
    value: float
    step: int
    timestamp: int


class Journal:
    """Appends to, and reads, one journal file.

    Each line is `{"time": ms, "kind": "metrics", "step": n, "epoch": e, "values": {...}}` or `{"time": ms, "kind":
    "event", "name": ..., "fields": {...}}`; the first says the format version. NaN and infinities stand as Python's
    JSON writes them. A line that a crash tore is dropped on reading, never cut from the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._known: set[tuple[str, int]] = set()

    def append_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> list[Point]:
        """Write the metrics of a step, except those that the journal already has for that step.

        Args:
            step: optimizer steps that are done.
            epoch: epochs that are done or begun, as the caller counts them.
            values: by metric name; anything that `float` takes.
        Returns:
            The points that are new, in the order of `values`: what remains to be sent to MLflow.
        Raises:
            TrackingError: the file cannot be written, or its format cannot be read.
        """
        file = self._open()
        timestamp = _milliseconds()
        points = [Point(key, float(value), step, timestamp) for key, value in values.items()]
        points = [point for point in points if (point.key, step) not in self._known]
        if points:
            fresh = {point.key: point.value for point in points}
            self._write(file, {"time": timestamp, "kind": "metrics", "step": step, "epoch": epoch, "values": fresh})
            self._known.update((point.key, step) for point in points)
        return points

    def append_event(self, name: str, **fields: Any) -> None:
        """Write that something happened, for example a checkpoint or a resume; the fields must be JSON values."""
        file = self._open()
        self._write(file, {"time": _milliseconds(), "kind": "event", "name": name, "fields": fields})

    def read(self) -> list[dict[str, Any]]:
        """All whole lines after the first, in the order in which they were written; empty where there is no file.

        Raises:
            TrackingError: the file has a format version that this torchrelay does not read.
        """
        return [line for line in self._lines() if line["kind"] != "journal"]

    def points(self) -> list[Point]:
        """All metrics, in the order in which they were written."""
        return [
            Point(key, value, line["step"], line["time"])
            for line in self._lines()
            if line["kind"] == "metrics"
            for key, value in line["values"].items()
        ]

    def close(self) -> None:
        """Close the file; appending opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> BinaryIO:
        if self._file is not None:
            return self._file
        lines = list(self._lines())
        self._known = {(key, line["step"]) for line in lines if line["kind"] == "metrics" for key in line["values"]}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab+")
            if file.tell() > 0:
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # a torn line: end it, so that ours begins on its own
                    file.write(b"\n")
        except OSError as error:
            raise TrackingError(f"journal {self.path} cannot be opened: {error}") from error
        if not any(line["kind"] == "journal" for line in lines):
            self._write(file, {"time": _milliseconds(), "kind": "journal", "format_version": FORMAT_VERSION})
        self._file = file
        return file

    def _write(self, file: BinaryIO, line: dict[str, Any]) -> None:
        try:
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            file.flush()
        except OSError as error:
            raise TrackingError(f"journal {self.path} cannot be written: {error}; mend that and resume") from error

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise TrackingError(f"journal {self.path} cannot be read: {error}") from error
        with file:
            for number, data in enumerate(file, start=1):
                try:
                    line = json.loads(data)
                except ValueError:
                    logger.info("%s: line %d is torn and dropped", self.path, number)
                    continue
                if line["kind"] == "journal":
                    version = line.get("format_version")
                    check_format(f"journal {self.path}", version, FORMAT_VERSION, "train the run again", TrackingError)
                yield line


def thin(every_steps: int, num_steps: int) -> Callable[[int], bool]:
    """Which steps' training metrics go to MLflow; the journal has all.

    Args:
        every_steps: steps between two points, as the recipe says; 0 means that at most 2,000 points are kept.
        num_steps: steps of the whole run.
    Returns:
        A function that says of a step, counted from 1, whether it is kept; the last step always is.
    """
    stride = every_steps or max(1, -(-num_steps // MAX_POINTS))
    return lambda step: step % stride == 0 or step == num_steps


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
