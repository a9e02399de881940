"""The journal, a run's append-only log on the local disk.

Each line is one JSON object. Everything that MLflow gets stands here first; `tracking/shipping/`
sends it on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ..disk import describe_failure, make_folder, mode_of_files, open_file, seal_line, unseal_line
from ..errors import TrackingError, check_format
from ..faults import reach

FORMAT_VERSION = 1
MAX_POINTS = 2000
# A step's metrics wait in memory for at most so long while steps follow each other.
BUFFER_SECONDS = 0.5
# What each line begins with.
LINE_START = b'{"time":'
# As Python's JSON writes and reads them.
NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

logger = logging.getLogger(__name__)


class Point(NamedTuple):
    """One value of one metric.

    Attributes:
        timestamp: when it was journaled, in milliseconds since 1970; sent verbatim, so that a point
            that is sent twice is one point in MLflow.
    """

    key: str
    value: float
    step: int
    timestamp: int


class Journal:
    """Appends to, and reads, one journal file.

    Each line is `{"time": ms, "kind": …, …, "crc": …}`; the first says the format version. Lines of
    older journals have no CRC. The kinds:

        metrics       step, epoch, values by name; "kept": false if MLflow does not get them
        event         name, fields: what happened, for people; stays here
        open          tracker (empty: the embedded one), experiment, start_ms, parent (our id),
                      tags: the run begins
        params, tags  values by name
        dataset       what MLflow's data set has
        artifact      path (relative to the run's folder if it lies in the home), artifact_path
        model         name, folder, weights_sha256, step, tags: a version to be registered
        status        status, in MLflow's words, and ended_ms; RUNNING if a run goes on

    NaN and infinities stand as Python's JSON writes them. A line that a crash tore is dropped on
    reading, never cut from the file; so is a line that was changed, with a warning. Metrics are
    buffered for up to `BUFFER_SECONDS`; `flush` writes them, `sync` makes them durable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._buffer: list[str] = []
        self._written = 0.0
        self._is_together = False
        self._last_step: dict[str, int] = {}
        self._quoted: dict[str, str] = {}

    def append_metrics(
        self, step: int, epoch: int, values: Mapping[str, float], *, is_kept: bool = True
    ) -> None:
        """Journal a step's metrics, unless the journal has that step already.

        A metric that the journal has of a later step is left out too.

        Args:
            step: optimizer steps that are done. A run's steps only rise: one that is behind what is
                journaled is being computed again after a resume.
            epoch: epochs that are done or begun, as the caller counts them.
            values: by metric name; anything that `float` takes.
            is_kept: whether MLflow gets them.
        Raises:
            TrackingError: the file cannot be written, or its format cannot be read.
        """
        if self._descriptor is None:
            self._open()
        last_step, fresh = self._last_step, []
        for key, value in values.items():
            if last_step.get(key, -1) < step:
                last_step[key] = step
                text = repr(float(value))
                fresh.append(
                    f"{self._quoted.get(key) or self._quote(key)}:{NOT_FINITE.get(text, text)}"
                )
        if not fresh:
            return
        self._buffer.append(
            seal_line(
                f'{{"time":{_milliseconds()},"kind":"metrics","step":{step},"epoch":{epoch},'
                f'"values":{{{",".join(fresh)}}}{"" if is_kept else NOT_KEPT}}}'
            )
        )
        reach("journal.buffered")
        if time.monotonic() - self._written > BUFFER_SECONDS:
            self.flush()

    def append(self, kind: str, **fields: Any) -> None:
        """Write a line of a kind at once.

        The fields must be JSON values.

        Raises:
            TrackingError: the file cannot be written, or its format cannot be read.
        """
        if self._descriptor is None:
            self._open()
        self._buffer.append(_dump({"time": _milliseconds(), "kind": kind, **fields}))
        if not self._is_together:
            self.flush()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write all lines of the block as one.

        A kill leaves all of them or none.
        """
        self._is_together = True
        try:
            yield
        finally:
            self._is_together = False
        self.flush()

    def append_event(self, name: str, **fields: Any) -> None:
        """Write that something happened, such as a checkpoint or a resume."""
        self.append("event", name=name, fields=fields)

    def append_params(self, values: Mapping[str, str]) -> None:
        """Write parameters, which MLflow lets nobody change afterwards."""
        if values:
            self.append("params", values=dict(values))

    def append_tags(self, values: Mapping[str, str]) -> None:
        """Write tags, which replace those of the same name."""
        if values:
            self.append("tags", values=dict(values))

    def append_artifact(self, path: Path, artifact_path: str = "") -> None:
        """Write that MLflow gets a file, or all files of a folder.

        They are sent as they are at that time.

        Args:
            path: what is sent.
            artifact_path: folder of the run's artifacts that it goes into.
        """
        folder, path = self.path.parent.absolute(), path.absolute()
        is_at_home = path.is_relative_to(
            folder.parent.parent
        )  # which may be moved while the line waits
        shown = os.path.relpath(path, folder) if is_at_home else str(path)
        self.append("artifact", path=shown, artifact_path=artifact_path)

    def append_status(self, status: str, ended_ms: int = 0) -> None:
        """Write that the run goes on (RUNNING), or how and when it ended.

        The time is in milliseconds since 1970.
        """
        self.append("status", status=status, ended_ms=ended_ms)

    def flush(self) -> None:
        """Write what is buffered to the file.

        Raises:
            TrackingError: the file cannot be written.
        """
        if not self._buffer or self._descriptor is None:
            return
        data = "".join(self._buffer).encode()
        self._buffer.clear()
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self.close()  # opening it again ends the line that may be torn now
            raise self._not_written(error) from error
        self._written = time.monotonic()
        reach("journal.flushed")

    def sync(self) -> None:
        """Write what is buffered, and make the file durable.

        Raises:
            TrackingError: it cannot be written.
        """
        self.flush()
        if self._descriptor is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._not_written(error) from error

    def lines(self) -> Iterator[dict[str, Any]]:
        """All whole lines after the first, in the order of writing.

        None if there is no file.

        Raises:
            TrackingError: the file has a format version that this torchrelay does not read.
        """
        self.flush()
        return (line for line in self._lines() if line["kind"] != "journal")

    def points(self) -> list[Point]:
        """All metrics, in the order of writing."""
        return [point for line in self.lines() for point in points_of(line)]

    def newest(self) -> dict[str, float]:
        """The newest value of each metric."""
        values: dict[str, float] = {}
        for line in self.lines():
            if line["kind"] == "metrics":
                values.update(line["values"])
        return values

    def close(self) -> None:
        """Write what is buffered and close the file.

        Appending opens it again.
        """
        try:
            self.flush()
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        has_head = False
        for line in self._lines():
            has_head = has_head or line["kind"] == "journal"
            if line["kind"] == "metrics":
                self._last_step.update(dict.fromkeys(line["values"], line["step"]))
        try:
            make_folder(self.path.parent)
            mode = mode_of_files(self.path.parent)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                self._buffer.insert(0, "\n")  # a torn line: end it, so that ours begins on its own
        except OSError as error:
            raise TrackingError(f"journal {self.path} cannot be opened: {error}") from error
        if not has_head:
            self._buffer.append(
                _dump(
                    {"time": _milliseconds(), "kind": "journal", "format_version": FORMAT_VERSION}
                )
            )
        reach("journal.opened")

    def _not_written(self, error: OSError) -> TrackingError:
        return TrackingError(
            f"journal {self.path} cannot be written: {describe_failure(error)}; then resume the run"
        )

    def _quote(self, key: str) -> str:
        return self._quoted.setdefault(key, json.dumps(key, ensure_ascii=False))

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            file = open_file(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise TrackingError(f"journal {self.path} cannot be read: {error}") from error
        with file:
            for number, data in enumerate(file, start=1):
                line = parse(data)
                if line is None:
                    if is_torn(data):
                        logger.info("%s: line %d is torn and dropped", self.path, number)
                    else:
                        warn_of_damage(self.path, f"line {number:,}")
                    continue
                if line["kind"] == "journal":
                    version = line.get("format_version")
                    check_format(
                        f"journal {self.path}",
                        version,
                        FORMAT_VERSION,
                        "train the run again",
                        TrackingError,
                    )
                yield line


NOT_KEPT = ',"kept":false'


def parse(data: bytes) -> dict[str, Any] | None:
    """Read a line of a journal without its CRC.

    None if it is torn or was changed.
    """
    try:
        line = json.loads(unseal_line(data).text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("kind"), str) else None


def is_torn(data: bytes) -> bool:
    """Whether a line that `parse` refuses is what a crash left of one.

    Any other refused line was changed since. A torn line begins as a line does, or has zeros where
    the file system had not written it yet, and ends before its CRC does.
    """
    line = data.strip(b"\0\n")
    _, begun, rest = line.rpartition(b',"crc":"')
    is_cut = not unseal_line(line).has_crc and (not begun or len(rest) < len('01234567"}'))
    return is_cut and line.startswith(LINE_START[: len(line)])


def warn_of_damage(path: Path, where: str) -> None:
    """Warn that a line was changed and is left out."""
    warnings.warn(
        f"journal {path}: {where} is not as it was written, and is left out", stacklevel=4
    )


def points_of(line: Mapping[str, Any]) -> list[Point]:
    """The metric values of a line.

    None if it is of another kind.
    """
    if line["kind"] != "metrics":
        return []
    return [Point(key, value, line["step"], line["time"]) for key, value in line["values"].items()]


def thin(every_steps: int, num_steps: int) -> Callable[[int], bool]:
    """Choose which steps' training metrics go to MLflow.

    The journal has all of them.

    Args:
        every_steps: steps between two points, as the recipe says; 0 means that at most 2,000 points
            are kept.
        num_steps: steps of the whole run.
    Returns:
        A function that says of a step, counted from 1, whether it is kept; the last step always is.
    """
    stride = every_steps or max(1, -(-num_steps // MAX_POINTS))
    return lambda step: step % stride == 0 or step == num_steps


def _dump(line: Mapping[str, Any]) -> str:
    return seal_line(json.dumps(line, ensure_ascii=False, separators=(",", ":")))


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
