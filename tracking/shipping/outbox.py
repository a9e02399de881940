"""What a run's journal holds that MLflow does not have yet, sent in order and
in batches from where a cursor stands.

A batch that is sent again leaves the same as one that is sent once. Threads and patience are
`shipper`'s.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mlflow import MlflowClient

from ... import settings
from ...disk import size_of
from ...errors import GoneError, SourceError, TrackingError, shown
from ...faults import reach
from ...runs import (
    CURSOR_FILE,
    JOURNAL_FILE,
    RUN_ID_TAG,
    Cursor,
    Line,
    Run,
    is_shipped,
    opened,
    points_of,
    unshipped,
)
from ...settings import Home
from ..client import call, has_answered, is_refused, on_answer, open_client
from ..mlflow_run import (
    MAX_METRICS,
    MlflowRun,
    check_run,
    create_run,
    find_experiment,
    find_ours,
    owner_of,
)
from ..registry import register_staged, staged_folder
from .aside import AS_BEFORE, MAX_REASON_LENGTH, Aside, load_aside, save_aside, set_aside

# Lines that are looked at before the cursor may move: of a long training most are not for MLflow.
MAX_LINES = 20_000
# What says that a line is not taken: the tracker, or MLflow's client of values that no disk kept
# right.
REFUSALS = (TrackingError, ValueError, KeyError, TypeError)
# Before a line that the tracker fails at is sent again.
PAUSES = (0.3, 1.0)
# Points of one metric that are not taken, in a row, before the others of it are not looked through
# any more.
MOST_REFUSALS = 3
# Requests of one batch that are not taken before what is left of it is not looked through either.
MOST_REFUSALS_OF_A_BATCH = 1000

logger = logging.getLogger(__name__)


class NotYetError(TrackingError):
    """The MLflow run of the parent, which this one is shown below, is not
    there yet.
    """


class Registered(NamedTuple):
    """A version that was made."""

    name: str
    number: str


class Outbox:
    """The outbox of one run.

    Only one at a time may send.

    Args:
        ours: the run.
        expect: called before an upload with its bytes, so that whoever waits for the answer gives
            it time.

    Attributes:
        cursor: where it stands.
        num_sent: lines that it has sent.
        registered: versions that it has made.
    """

    def __init__(self, ours: Run, expect: Callable[[int], None] = lambda num_bytes: None) -> None:
        self.ours = ours
        self._expect = expect
        self.cursor = Cursor.load(ours.folder)
        self.num_sent = 0
        self.registered: list[Registered] = []
        self._client: MlflowClient | None = None
        # Whether MLflow has the cursor's run as this one: its id may be stated by anybody.
        self._is_ours = False
        # By name of a metric, how many of its points in a row the tracker did not take.
        self._refusals = Counter(key for one in load_aside(ours) for key in one.keys)
        self._num_refused = 0
        # What is not taken of what was set aside, while that is tried again.
        self._left: list[Aside] | None = None

    def send_batch(self) -> bool:
        """Send the next lines.

        Up to 1,000 points, or one line of another kind.

        Returns:
            Whether there may be more.
        Raises:
            GoneError: MLflow has no such run any more; what waits goes on waiting.
            TrackingError: the tracker cannot be reached, or the journal cannot be read.
        """
        with opened(self.ours) as file:
            if file is None:
                return False
            lines, end, is_end = self._next_lines(file)
            if not lines:
                self.cursor.offset = end
                return not is_end
            os.fsync(
                file.fileno()
            )  # MLflow must not have what a crash could still take from the journal
        reach("ship.begun")
        self._send(lines)
        reach("ship.batch_sent")
        self.num_sent += len(lines)
        self.cursor.offset = end
        self.cursor.save(self.ours.folder)
        reach("ship.cursor_moved")
        return True

    def retry_aside(self) -> None:
        """Send again what was set aside.

        What is not taken this time stays there.

        Raises:
            TrackingError: as of `send_batch`.
        """
        before = load_aside(self.ours)
        if not before:
            return
        wanted: dict[int, list[Aside]] = {}
        for one in before:
            wanted.setdefault(one.end, []).append(one)
        self._left = []
        self._refusals.clear()
        try:
            with opened(self.ours) as file:
                if file is None:
                    return
                again = (
                    _only(line, one.keys)
                    for line in unshipped(file, 0)
                    for one in wanted.pop(line.end, ())
                )
                for batch in _batches(again):
                    self._send(batch)
            save_aside(self.ours, self._left)
            self.num_sent += sum(max(1, len(one.keys)) for one in before)
            self.num_sent -= sum(max(1, len(one.keys)) for one in self._left)
        finally:
            self._left = None

    def _next_lines(self, file: BinaryIO) -> tuple[list[Line], int, bool]:
        """Lines of one batch, the offset after them, and whether the journal
        ends there.
        """
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
        """Send lines of one batch.

        What the tracker does not take is set aside with a warning.
        """
        kind = lines[0].values["kind"]
        if kind == "open":
            self._open(lines[0].values)
            return
        run = self._run()
        if kind == "metrics":
            self._num_refused = 0
            self._send_metrics(run, lines)
        elif (
            error := self._refusal_of(run, lambda: self._send_one(run, lines[0].values), PAUSES)
        ) is not None:
            self._set_aside(run, lines, error)

    def _send_metrics(self, run: MlflowRun, lines: Sequence[Line]) -> None:
        """Send metrics.

        Of what is not taken each half again, first of its names and then of its lines.

        What there is of names that are not taken again and again is one request, apart from the
        others.
        """
        keys = list(dict.fromkeys(key for line in lines for key in line.values["values"]))
        others = [key for key in keys if self._refusals[key] < MOST_REFUSALS]
        if 0 < len(others) < len(keys):
            self._send_metrics(run, _with(lines, others))
            self._send_metrics(run, _with(lines, [key for key in keys if key not in set(others)]))
            return
        is_point = len(lines) == len(keys) == 1
        pauses = (
            PAUSES if not self._refusals else (0.0,) * len(PAUSES)
        )  # a server that was busy has had its time

        def send() -> None:
            run.log_metrics(
                list(itertools.chain.from_iterable(points_of(line.values) for line in lines))
            )

        error = self._refusal_of(run, send, pauses if is_point else ())
        if error is None:
            for key in keys:
                self._refusals.pop(key, None)
            return
        is_asked = isinstance(
            error, TrackingError
        )  # and not a value that MLflow's client refuses by itself
        self._num_refused += is_asked
        if is_point or (is_asked and not others) or self._num_refused > MOST_REFUSALS_OF_A_BATCH:
            self._set_aside(run, lines, error)
            self._refusals.update(keys if is_point and is_asked else ())
            return
        middle = len(keys) // 2
        halves = [_with(lines, keys[:middle]), _with(lines, keys[middle:])]
        if len(keys) == 1:
            halves = [lines[: len(lines) // 2], lines[len(lines) // 2 :]]
        for half in halves:
            self._send_metrics(run, half)

    def _refusal_of(
        self, run: MlflowRun, send: Callable[[], None], pauses: Sequence[float]
    ) -> Exception | None:
        """Send something, after a failure that may pass again after each pause.

        Why it is not taken, None where it is.

        Raises:
            TrackingError: the tracker cannot be reached.
        """
        for pause in (*pauses, None):
            try:
                send()
                return None
            except REFUSALS as error:
                if isinstance(error, TrackingError) and not (
                    is_refused(error) or has_answered(error)
                ):
                    raise
                if pause is None or not isinstance(error, TrackingError) or is_refused(error):
                    return error
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _set_aside(self, run: MlflowRun, lines: Sequence[Line], error: Exception) -> None:
        """Note what the tracker does not take, while it takes other things for
        this run.

        Raises:
            GoneError: it is the run that is not there.
            TrackingError: it takes nothing else either.
        """
        if isinstance(error, TrackingError):
            self._confirm(run, error)
        kind, reason = lines[0].values["kind"], str(error)[:MAX_REASON_LENGTH]
        found = [
            Aside(
                line.end,
                kind,
                tuple(line.values["values"]) if kind == "metrics" else (),
                reason if at == 0 else AS_BEFORE,
            )
            for at, line in enumerate(lines)
        ]
        keys = list(dict.fromkeys(key for one in found for key in one.keys))
        new = [key for key in keys if key not in self._refusals]
        if new or not keys:  # of a metric, once
            which = (
                f"metric {new[0]}{f' and {len(new) - 1:,} more' * (len(new) > 1)}: " if new else ""
            )
            logger.warning(
                "MLflow does not take a line of kind %s, which stays in the journal: %s%s",
                kind,
                which,
                reason,
            )
        if self._left is not None:
            self._left += found
        else:
            set_aside(self.ours, found)

    def _confirm(self, run: MlflowRun, error: TrackingError) -> None:
        """Raise an error that says nothing of what was sent.

        The run is not there, or nothing is taken for it.
        """
        noting = on_answer.set(None)  # these answers bring nothing on
        try:
            check_run(run.client, run.run_id)
            if not is_refused(error):
                run.set_tags(
                    {RUN_ID_TAG: self.ours.run_id}
                )  # which it has: asking to write changes nothing
        finally:
            on_answer.reset(noting)

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
                self._expect(size_of(staged_folder(self.ours, line)))
                if number := register_staged(run, self.ours, line):
                    self.registered.append(Registered(line["name"], number))
            case "status":
                if line["status"] != "RUNNING" and self.cursor.is_uncertain:
                    self._remove_twins(run)
                run.set_status(line["status"], line["ended_ms"])
                reach("ship.status_sent")
            case kind:
                raise TrackingError(
                    f"{self.ours.folder / JOURNAL_FILE}: a line of kind {kind!r} cannot be sent"
                )

    def _send_files(self, run: MlflowRun, stated: str, artifact_path: str) -> None:
        """Send a file or a folder's files.

        Raises:
            ValueError: one is none of this run's, and nothing was sent: a journal may be from
                anybody.
        """
        path = self.ours.folder / stated
        self._check_place(path)
        if path.is_dir():
            files = sorted(one for one in path.rglob("*") if one.is_file())
            for file in files:
                self._check_place(file)
            for file in files:
                self._expect(size_of(file))
                below = file.parent.relative_to(path).as_posix()
                run.log_artifact(
                    file, "/".join(part for part in (artifact_path, below) if part not in ("", "."))
                )
        elif path.is_file():
            self._expect(size_of(path))
            run.log_artifact(path, artifact_path)
        else:
            logger.warning("%s is gone; MLflow does not get it", path)

    def _check_place(self, path: Path) -> None:
        """Refuse what lies, once links are followed, neither in the run's
        folder nor in the home's packs.
        """
        packs = (Home(self.ours.folder.absolute().parents[1]).packs, settings.home().packs)
        places = [Path(os.path.realpath(one)) for one in (self.ours.folder, *packs)]
        if not any(Path(os.path.realpath(path)).is_relative_to(one) for one in places):
            raise ValueError(
                f"{shown(str(path))} is no file of this run or of a pack, and is not sent"
            )

    def _open(self, line: Mapping[str, Any]) -> None:
        """Take up the run that carries our id, or make it."""
        client = self._connect()
        run_id, cursor = self.ours.run_id, self.cursor
        cursor.experiment_id = find_experiment(client, line["experiment"])
        known = find_ours(client, cursor.experiment_id, run_id)
        if known:
            cursor.mlflow_run_id = (
                cursor.mlflow_run_id if cursor.mlflow_run_id in known else known[0]
            )
        else:
            parent = self._parent_of(line)
            was_uncertain, cursor.is_uncertain = cursor.is_uncertain, True
            cursor.save(self.ours.folder)
            cursor.mlflow_run_id = create_run(client, cursor.experiment_id, run_id, line, parent)
            reach("ship.run_created")
            cursor.is_uncertain = was_uncertain
        self._is_ours = True
        cursor.save(self.ours.folder)
        self.ours.update(mlflow_run_id=cursor.mlflow_run_id)

    def _parent_of(self, line: Mapping[str, Any]) -> str:
        """MLflow's id of the run's parent.

        Empty where it has none, or where that was removed.

        Raises:
            NotYetError: it is not in MLflow yet.
        """
        parent_dir = self.ours.folder.parent / line["parent"]
        if not line["parent"] or parent_dir.name != line["parent"] or not parent_dir.is_dir():
            return ""
        found = Cursor.load(parent_dir).mlflow_run_id or Run.open(parent_dir).record.mlflow_run_id
        if not found:
            raise NotYetError(f"run {line['parent']}, which it belongs to, is not in MLflow yet")
        return found

    def _remove_twins(self, run: MlflowRun) -> None:
        """Delete the empty runs that a tracker made after nobody waited for
        its answer any more.
        """
        for twin in find_ours(run.client, run.experiment_id, self.ours.run_id):
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
                cursor.mlflow_run_id = self.ours.reread().mlflow_run_id
            except SourceError as error:
                raise GoneError(str(error)) from error
        if not cursor.mlflow_run_id:
            raise GoneError(
                f"{self.ours.folder / JOURNAL_FILE} does not say how its run began; it cannot be "
                "sent"
            )
        if not self._is_ours:
            found = check_run(client, cursor.mlflow_run_id)
            if (owner := owner_of(found)) != self.ours.run_id:
                raise GoneError(
                    f"MLflow run {cursor.mlflow_run_id} is {shown(repr(owner))}, not "
                    f"{self.ours.run_id}; where that "
                    f"run was copied here, remove {self.ours.folder / CURSOR_FILE}: all of it is "
                    "sent again, once"
                )
            cursor.experiment_id, self._is_ours = found.info.experiment_id, True
        return MlflowRun(client, cursor.mlflow_run_id, cursor.experiment_id)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            self._client = open_client()
        return self._client


def _only(line: Line, keys: Collection[str]) -> Line:
    """A line with some of its metrics.

    All of it where none are named.
    """
    if not keys or line.values["kind"] != "metrics":
        return line
    values = {key: value for key, value in line.values["values"].items() if key in keys}
    return Line({**line.values, "values": values}, line.end)


def _with(lines: Sequence[Line], keys: Collection[str]) -> list[Line]:
    """Lines of metrics with some of their names alone.

    Without those that have none of them.
    """
    names = set(keys)
    return [
        _only(line, some) for line in lines if (some := names.intersection(line.values["values"]))
    ]


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Lines that travel together.

    Metrics up to 1,000 points, any other alone.
    """
    batch: list[Line] = []
    num_points = 0
    for line in lines:
        is_alone = line.values["kind"] != "metrics"
        num_points += 0 if is_alone else len(line.values["values"])
        if batch and (is_alone or num_points > MAX_METRICS):
            yield batch
            batch, num_points = [], 0 if is_alone else len(line.values["values"])
        batch.append(line)
        if is_alone:
            yield batch
            batch = []
    if batch:
        yield batch
