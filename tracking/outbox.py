"""What a run's journal holds that MLflow does not have yet, sent in order and in batches from where a cursor stands.

A batch that is sent again leaves the same as one that is sent once. Threads and patience are `shipper`'s.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mlflow import MlflowClient

from .. import settings
from ..errors import GoneError, SourceError, TrackingError, shown
from ..faults import reach
from ..files import size_of
from ..settings import Home
from .aside import MAX_REASON_LENGTH, Aside, load_aside, save_aside, set_aside
from .client import call, has_answered, is_refused, open_client
from .cursor import CURSOR_FILE, Cursor, Line, is_shipped, opened, unshipped
from .journal import JOURNAL_FILE, points_of
from .mlflow_run import MAX_METRICS, MlflowRun, check_run, create_run, find_experiment, find_ours, owner_of
from .opening import RUN_ID_TAG
from .records import load_record, update_record
from .registry import register_staged, staged_folder

# Lines that are looked at before the cursor may move: of a long training most are not for MLflow.
MAX_LINES = 20_000
# What says that a line is not taken: the tracker, or MLflow's client of values that no disk kept right.
REFUSALS = (TrackingError, ValueError, KeyError, TypeError)
# Before a line that the tracker fails at is sent again.
PAUSES = (0.3, 1.0)

logger = logging.getLogger(__name__)


class NotYetError(TrackingError):
    """The MLflow run of the parent, which this one is shown below, is not there yet."""


class Registered(NamedTuple):
    """A version that was made."""

    name: str
    number: str


class Outbox:
    """The outbox of one run; only one at a time may send.

    Args:
        run_dir: the run.
        expect: called before an upload with its bytes, so that whoever waits for the answer gives it time.

    Attributes:
        cursor: where it stands.
        num_sent: lines that it has sent.
        registered: versions that it has made.
    """

    def __init__(self, run_dir: Path, expect: Callable[[int], None] = lambda num_bytes: None) -> None:
        self.run_dir = run_dir
        self._expect = expect
        self.cursor = Cursor.load(run_dir)
        self.num_sent = 0
        self.registered: list[Registered] = []
        self._client: MlflowClient | None = None
        # Whether MLflow has the cursor's run as this one: its id may be stated by anybody.
        self._is_ours = False
        # Names of metrics that the tracker did not take.
        self._suspects: set[str] = set()
        # What is not taken of what was set aside, while that is tried again.
        self._left: list[Aside] | None = None

    def send_batch(self) -> bool:
        """Send the next lines: up to 1,000 points, or one line of another kind.

        Returns:
            Whether there may be more.
        Raises:
            GoneError: MLflow has no such run any more; what waits goes on waiting.
            TrackingError: the tracker cannot be reached, or the journal cannot be read.
        """
        with opened(self.run_dir) as file:
            if file is None:
                return False
            lines, end, is_end = self._next_lines(file)
            if not lines:
                self.cursor.offset = end
                return not is_end
            os.fsync(file.fileno())  # MLflow must not have what a crash could still take from the journal
        reach("ship.begun")
        self._send(lines)
        reach("ship.batch_sent")
        self.num_sent += len(lines)
        self.cursor.offset = end
        self.cursor.save(self.run_dir)
        reach("ship.cursor_moved")
        return True

    def retry_aside(self) -> None:
        """Send again what was set aside; what is not taken this time stays there.

        Raises:
            TrackingError: as of `send_batch`.
        """
        before = load_aside(self.run_dir)
        if not before:
            return
        wanted: dict[int, list[Aside]] = {}
        for one in before:
            wanted.setdefault(one.end, []).append(one)
        self._left = []
        try:
            with opened(self.run_dir) as file:
                if file is None:
                    return
                for line in unshipped(file, 0):
                    for one in wanted.pop(line.end, ()):
                        self._send([_only(line, one.keys)])
            save_aside(self.run_dir, self._left)
            self.num_sent += len(before) - len(self._left)
        finally:
            self._left = None

    def _next_lines(self, file: BinaryIO) -> tuple[list[Line], int, bool]:
        """Lines of one batch, the offset after them, and whether the journal ends there."""
        lines: list[Line] = []
        end, num_points = self.cursor.offset, 0
        for number, line in enumerate(unshipped(file, self.cursor.offset)):
            if number >= MAX_LINES:
                return lines, end, False
            if is_shipped(line.values):
                num_points += len(points_of(line.values))
                if lines and (line.values["kind"] != "metrics" or num_points > MAX_METRICS):
                    return lines, end, False
                lines.append(line)
            end = line.end
            if lines and lines[0].values["kind"] != "metrics":
                return lines, end, False
        return lines, end, True

    def _send(self, lines: Sequence[Line]) -> None:
        """Send lines of one batch; what the tracker does not take is set aside with a warning."""
        kind = lines[0].values["kind"]
        if kind == "open":
            self._open(lines[0].values)
            return
        run = self._run()
        if kind != "metrics":
            self._try(run, lines[0], lambda: self._send_one(run, lines[0].values))
            return
        # Metrics that were not taken before travel alone, so that they cost the others nothing.
        suspects = frozenset(self._suspects)
        for is_suspect in (False, True):
            some = [
                _only(line, keys)
                for line in lines
                if (keys := [key for key in line.values["values"] if (key in suspects) == is_suspect])
            ]
            if some:
                self._send_metrics(run, some)

    def _send_metrics(self, run: MlflowRun, lines: Sequence[Line]) -> None:
        """Send metrics; of a batch that is not taken each half again, down to single points."""

        def send() -> None:
            run.log_metrics(list(itertools.chain.from_iterable(points_of(line.values) for line in lines)))

        keys = list(lines[0].values["values"])
        if len(lines) == 1 and len(keys) == 1:
            self._suspects |= set() if self._try(run, lines[0], send) else set(keys)
            return
        try:
            send()
            return
        except REFUSALS as error:
            if not self._is_refusal(run, error):
                raise
        if len(lines) == 1:
            halves = [[_only(lines[0], keys[: len(keys) // 2])], [_only(lines[0], keys[len(keys) // 2 :])]]
        else:
            halves = [lines[: len(lines) // 2], lines[len(lines) // 2 :]]
        for half in halves:
            self._send_metrics(run, half)

    def _try(self, run: MlflowRun, line: Line, send: Callable[[], None]) -> bool:
        """Send one line, or one point; set it aside where it is not taken, and say whether it was."""
        keys = tuple(line.values["values"]) if line.values["kind"] == "metrics" else ()
        for pause in (*PAUSES, None):
            try:
                send()
                return True
            except REFUSALS as error:
                if not self._is_refusal(run, error):
                    raise
                if pause is not None and isinstance(error, TrackingError) and not is_refused(error):
                    time.sleep(pause)  # a failure that may pass, as of a server that was busy
                    continue
                self._set_aside(Aside(line.end, line.values["kind"], keys, str(error)[:MAX_REASON_LENGTH]))
                return False
        return False

    def _set_aside(self, one: Aside) -> None:
        which = f"metric {one.keys[0]}: " if one.keys else ""
        if not self._suspects.issuperset(one.keys) or not one.keys:  # of a metric, once
            logger.warning(
                "MLflow does not take a line of kind %s, which stays in the journal: %s%s", one.kind, which, one.reason
            )
        if self._left is not None:
            self._left.append(one)
        else:
            set_aside(self.run_dir, one)

    def _is_refusal(self, run: MlflowRun, error: Exception) -> bool:
        """Whether it is what was sent that the tracker does not take, while it takes other things for this run.

        Raises:
            GoneError: it is the run that is not there.
        """
        if not isinstance(error, TrackingError):
            return True
        if not (is_refused(error) or has_answered(error)):
            return False
        check_run(run.client, run.run_id)
        if is_refused(error):
            return True
        try:
            run.set_tags({RUN_ID_TAG: self.run_dir.name})  # which it has: asking to write changes nothing
        except TrackingError:
            return False
        return True

    def _send_one(self, run: MlflowRun, line: Mapping[str, Any]) -> None:
        match line["kind"]:
            case "params":
                run.log_params(line["values"])
            case "tags":
                run.set_tags(line["values"])
            case "dataset":
                run.log_dataset(line)
            case "artifact":
                self._send_files(run, line["path"], line["artifact_path"])
                reach("ship.artifact_sent")
            case "model":
                self._expect(size_of(staged_folder(self.run_dir, line)))
                if number := register_staged(run, self.run_dir, line):
                    self.registered.append(Registered(line["name"], number))
            case "status":
                if line["status"] != "RUNNING" and self.cursor.is_uncertain:
                    self._remove_twins(run)
                run.set_status(line["status"], line["ended_ms"])
                reach("ship.status_sent")
            case kind:
                raise TrackingError(f"{self.run_dir / JOURNAL_FILE}: a line of kind {kind!r} cannot be sent")

    def _send_files(self, run: MlflowRun, stated: str, artifact_path: str) -> None:
        """Send a file or a folder's files.

        Raises:
            ValueError: one is none of this run's, and nothing was sent: a journal may be from anybody.
        """
        path = self.run_dir / stated
        self._check_place(path)
        if path.is_dir():
            files = sorted(one for one in path.rglob("*") if one.is_file())
            for file in files:
                self._check_place(file)
            for file in files:
                self._expect(size_of(file))
                below = file.parent.relative_to(path).as_posix()
                run.log_artifact(file, "/".join(part for part in (artifact_path, below) if part not in ("", ".")))
        elif path.is_file():
            self._expect(size_of(path))
            run.log_artifact(path, artifact_path)
        else:
            logger.warning("%s is gone; MLflow does not get it", path)

    def _check_place(self, path: Path) -> None:
        """Refuse what lies, once links are followed, neither in the run's folder nor in the home's packs."""
        packs = (Home(self.run_dir.absolute().parents[1]).packs, settings.home().packs)
        places = [Path(os.path.realpath(one)) for one in (self.run_dir, *packs)]
        if not any(Path(os.path.realpath(path)).is_relative_to(one) for one in places):
            raise ValueError(f"{shown(str(path))} is no file of this run or of a pack, and is not sent")

    def _open(self, line: Mapping[str, Any]) -> None:
        """Take up the run that carries our id, or make it."""
        client = self._connect()
        run_id, cursor = self.run_dir.name, self.cursor
        cursor.experiment_id = find_experiment(client, line["experiment"])
        known = find_ours(client, cursor.experiment_id, run_id)
        if known:
            cursor.mlflow_run_id = cursor.mlflow_run_id if cursor.mlflow_run_id in known else known[0]
        else:
            parent = self._parent_of(line)
            was_uncertain, cursor.is_uncertain = cursor.is_uncertain, True
            cursor.save(self.run_dir)
            cursor.mlflow_run_id = create_run(client, cursor.experiment_id, run_id, line, parent)
            reach("ship.run_created")
            cursor.is_uncertain = was_uncertain
        self._is_ours = True
        cursor.save(self.run_dir)
        update_record(self.run_dir, mlflow_run_id=cursor.mlflow_run_id)

    def _parent_of(self, line: Mapping[str, Any]) -> str:
        """MLflow's id of the run's parent; empty where it has none, or where that was removed.

        Raises:
            NotYetError: it is not in MLflow yet.
        """
        parent_dir = self.run_dir.parent / line["parent"]
        if not line["parent"] or parent_dir.name != line["parent"] or not parent_dir.is_dir():
            return ""
        found = Cursor.load(parent_dir).mlflow_run_id or load_record(parent_dir).mlflow_run_id
        if not found:
            raise NotYetError(f"run {line['parent']}, which it belongs to, is not in MLflow yet")
        return found

    def _remove_twins(self, run: MlflowRun) -> None:
        """Delete the empty runs that a tracker made after nobody waited for its answer any more."""
        for twin in find_ours(run.client, run.experiment_id, self.run_dir.name):
            if twin != run.run_id:
                call(f"delete run {twin}", run.client.delete_run, twin)
        self.cursor.is_uncertain = False

    def _run(self) -> MlflowRun:
        """The run, which a line before has opened, or an older version.

        Raises:
            GoneError: nothing says which it is, or MLflow has that one as another's.
        """
        client, cursor = self._connect(), self.cursor
        if not cursor.mlflow_run_id:
            try:
                cursor.mlflow_run_id = load_record(self.run_dir).mlflow_run_id
            except SourceError as error:
                raise GoneError(str(error)) from error
        if not cursor.mlflow_run_id:
            raise GoneError(f"{self.run_dir / JOURNAL_FILE} does not say how its run began; it cannot be sent")
        if not self._is_ours:
            found = check_run(client, cursor.mlflow_run_id)
            if (owner := owner_of(found)) != self.run_dir.name:
                raise GoneError(
                    f"MLflow run {cursor.mlflow_run_id} is {shown(repr(owner))}, not {self.run_dir.name}; where that "
                    f"run was copied here, remove {self.run_dir / CURSOR_FILE}: all of it is sent again, once"
                )
            cursor.experiment_id, self._is_ours = found.info.experiment_id, True
        return MlflowRun(client, cursor.mlflow_run_id, cursor.experiment_id)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            self._client = open_client()
        return self._client


def _only(line: Line, keys: Collection[str]) -> Line:
    """A line with some of its metrics; all of it where none are named."""
    if not keys or line.values["kind"] != "metrics":
        return line
    values = {key: value for key, value in line.values["values"].items() if key in keys}
    return Line({**line.values, "values": values}, line.end)
