"""Finds what lost processes left, and mends it: runs that nobody writes, here, in MLflow and in Prefect; leftovers.

Nothing that a living process writes is touched, and no data is deleted: what does not verify is set aside.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

from ..datasets.pack import Pack
from ..datasets.space import claim_data, list_packs, remove
from ..engine.generations import DamagedError, list_generations, read_manifest, read_state
from ..errors import CheckpointError, DataError, TorchrelayError, TrackingError
from ..files import is_locked, lock, set_aside
from ..recipe_file import load_recipe
from ..settings import Home, shown_tracking_uri
from ..tracking.cursor import waiting
from ..tracking.journal import JOURNAL_FILE, Journal
from ..tracking.opening import is_meant_for_here, tracker_of
from ..tracking.reconcile import end_run, list_running
from ..tracking.records import RECORD_FILE, RunRecord, flow_runs_of, list_records, load_record, update_record
from ..tracking.shipper import Sender
from .flow_runs import end_flow_run, list_deserted, list_orphans, list_unfinished
from .installation import check_installation
from .runs import seconds_until
from .verify import VERIFY_PREFIX

# An evaluation has a folder a moment before it has its lock.
STARTING_SECONDS = 600.0
# Prefect and MLflow hear of an end a moment after the run's record.
ENDING_SECONDS = 60.0
LOST = "process ended without a word"
# What a record says of a run that was lost when its journal had its end already.
ERRORS_OF_ENDED = {"FINISHED": "", "FAILED": "see error.txt", "KILLED": "stopped by a signal or a cancel"}


class Finding(NamedTuple):
    """Something that is not as it should be.

    Attributes:
        part: what it belongs to, for grouping.
        what: is wrong, in a sentence.
        remedy: what to do.
        mend: does that, and says what it did; None where only a person can.
    """

    part: str
    what: str
    remedy: str
    mend: Callable[[], str] | None = None


class Examined(NamedTuple):
    """What an examination gave.

    Attributes:
        left: findings that stand.
        mended: what was done, a sentence each.
    """

    left: list[Finding]
    mended: list[str]


class Examination(NamedTuple):
    """What the parts of one examination share.

    Attributes:
        home: what is examined.
        gone_hosts: hosts that somebody says are no more; whose last process was there is lost.
        sender: sends what waits for MLflow, until the tracker is silent.
        buried: ids of runs that were found lost and are called ended now; nobody else tells anybody of that.
    """

    home: Home
    gone_hosts: Collection[str]
    sender: Sender
    buried: set[str]

    @property
    def fix(self) -> str:
        """The command that mends what this examination finds."""
        return " ".join(("torchrelay doctor --fix", *(f"--host {name}" for name in self.gone_hosts)))


def doctor(
    home: Home,
    *,
    fix: bool = False,
    gone_hosts: Collection[str] = (),
    tell: Callable[[str], object] = lambda line: None,
) -> Examined:
    """Examine a home and the installation; with `fix`, mend what can be mended.

    Args:
        home: what is examined.
        fix: mend.
        gone_hosts: hosts that are no more, such as containers that were replaced: runs whose last process was there
            are lost.
        tell: is given each thing that was mended as soon as it is, in a sentence.
    """
    left: list[Finding] = []
    mended: list[str] = []
    for finding in examine(Examination(home, gone_hosts, Sender(), set())):
        if not fix or finding.mend is None:
            left.append(finding)
            continue
        try:
            done = finding.mend()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other findings do not have it
            left.append(finding._replace(remedy=f"it could not be mended ({_describe(error)}); {finding.remedy}"))
            continue
        mended.append(done)
        tell(done)
    return Examined(left, mended)


def examine(exam: Examination) -> Iterator[Finding]:
    """All findings, in the order in which they are to be mended; each is looked for when the one before is done.

    A part that cannot be examined to its end is a finding itself.
    """
    parts: tuple[tuple[str, Callable[[Examination], Iterator[Finding]]], ...] = (
        ("installation", _installation),
        ("runs", _lost_runs),
        ("MLflow", _waiting),
        ("MLflow", _lost_in_mlflow),
        ("Prefect", _lost_in_prefect),
        ("processes", _orphans),
        ("leftovers", _leftovers),
        ("checkpoints", _bad_checkpoints),
        ("packs", _bad_packs),
    )
    for name, part in parts:
        try:
            yield from part(exam)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts do not have it
            yield Finding(name, f"cannot be examined further: {_describe(error)}", "mend that, then look again")


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, TorchrelayError | OSError) else f"{type(error).__name__}: {error}"


def last_hosts(home: Home) -> set[str]:
    """The hosts on which the runs of a home had their last process."""
    return {_host_of(home.runs / record.run_id) for record in list_records(home)} - {""}


def _installation(exam: Examination) -> Iterator[Finding]:
    found = check_installation(exam.home, list_records(exam.home))
    yield from (Finding("installation", what, remedy) for what, remedy in found)


def _lost_runs(exam: Examination) -> Iterator[Finding]:
    for record in list_records(exam.home):
        run_dir = exam.home.runs / record.run_id
        if record.status != "RUNNING" or _may_be_alive(run_dir):
            continue
        if _is_elsewhere(exam, run_dir):
            host = _host_of(run_dir)
            yield Finding(
                "runs",
                f"{record.run_id} is RUNNING, last on host {host}",
                f"run torchrelay doctor --fix there; where that host is no more, {exam.fix} --host {host}",
            )
            continue
        yield Finding(
            "runs",
            f"{record.run_id} is RUNNING and no process writes it",
            f"{exam.fix} calls it KILLED, or as its journal says that it ended; {_how_to_go_on(record)}",
            lambda run_dir=run_dir: _bury(exam, run_dir),
        )


def _how_to_go_on(record: RunRecord) -> str:
    if record.kind in ("evaluate", "predict"):
        return f"it cannot go on: run torchrelay {record.kind} again"
    return f"torchrelay resume {record.run_id} lets it go on"


def _bury(exam: Examination, run_dir: Path) -> str:
    """Write down that a run's process was lost, with what its journal says of how far it came.

    One that was lost when it had just ended ended as its journal says.
    """
    with lock(run_dir / "lock", f"run {run_dir.name}"):
        record = load_record(run_dir)
        journal = Journal(run_dir / JOURNAL_FILE)
        ending = _ending_of(run_dir, record, journal.lines())
        end = datetime.fromisoformat(record.created).timestamp() * 1000
        steps, epochs = record.steps, record.epochs
        for line in journal.lines():
            end = line["time"]
            if line["kind"] == "metrics":
                steps = max(steps, line["step"])
                epochs = max(epochs, line["epoch"] if "train/epoch_loss" in line["values"] else 0)
        if ending is not None:
            end = ending["ended_ms"]
        status = "KILLED" if ending is None else ending["status"]
        error = f"{LOST}; last step {steps}" if ending is None else ERRORS_OF_ENDED[status]
        update_record(
            run_dir,
            status=status,
            ended=datetime.fromtimestamp(end / 1000, UTC).isoformat(timespec="milliseconds"),
            error=error,
            steps=steps,
            epochs=epochs,
            metrics={**record.metrics, **journal.newest()},
            seconds={**record.seconds, "total": seconds_until(record, journal.lines(), end)},
        )
        if ending is None:
            with journal:
                journal.append_status("KILLED", round(end))
    exam.buried.add(run_dir.name)
    return f"run {run_dir.name}: {status}, " + (error if ending is None else "as its journal says")


def _ending_of(run_dir: Path, record: RunRecord, lines: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The journal's line that says how a run ended; None where it says no end, or one before the run went on.

    A run that dies while it is reopened may have no line of that yet, but some part of its work is not done any more.
    """
    last: Mapping[str, Any] | None = None
    for line in lines:
        if line["kind"] == "status" or (line["kind"] == "event" and line["name"] == "resumed"):
            last = line
    if last is None or last.get("status", "RUNNING") == "RUNNING":
        return None
    if last["status"] == "FINISHED" and record.kind == "train":
        is_registered = bool(load_recipe(run_dir / "recipe.yaml").tracking.register_as)
        parts = {"train", "evaluate", "register"} if is_registered else {"train", "evaluate"}
        return last if parts <= set(record.done) else None
    return last


def _waiting(exam: Examination) -> Iterator[Finding]:
    """Runs that are over and of whose journals MLflow does not have all, the oldest first: a parent before its own."""
    for record in reversed(list_records(exam.home)):
        run_dir = exam.home.runs / record.run_id
        if not _is_over(exam, run_dir):
            continue
        try:
            num_waiting = waiting(run_dir)
            journal = Journal(run_dir / JOURNAL_FILE)
            is_for_here, tracker = is_meant_for_here(journal), tracker_of(journal)
        except TrackingError as error:
            yield Finding("MLflow", str(error), "do that, then look again")
            continue
        if not num_waiting:
            continue
        what = f"{num_waiting:,} lines of the journal of {record.run_id} wait for the tracker"
        if not is_for_here:
            setting = f"set MLFLOW_TRACKING_URI={tracker}" if tracker else "unset MLFLOW_TRACKING_URI"
            yield Finding(
                "MLflow",
                f"{what} {tracker or 'of this home'}, not for {shown_tracking_uri()}",
                f"{setting}, then torchrelay sync {record.run_id}",
            )
            continue
        yield Finding(
            "MLflow",
            what,
            f"{exam.fix}, or torchrelay sync {record.run_id}, sends them",
            lambda run_dir=run_dir: _send(exam.sender, run_dir),
        )


def _num_waiting(run_dir: Path) -> int:
    """Lines of a journal that MLflow does not have; none where nobody can say."""
    with contextlib.suppress(TrackingError):
        return waiting(run_dir)
    return 0


def _send(sender: Sender, run_dir: Path) -> str:
    """Send what waits; what a tracker will not take goes on waiting."""
    shipped = sender.send(run_dir)
    registered = "".join(f"; registered: {name} version {number}" for name, number in shipped.registered)
    if shipped.num_waiting:
        raise TrackingError(f"{shipped.num_waiting:,} lines wait still: {shipped.reason}{registered}")
    sent = f"{shipped.num_sent:,} lines of its journal sent to MLflow at {shown_tracking_uri()}"
    return f"run {run_dir.name}: {sent}{registered}"


def _lost_in_mlflow(exam: Examination) -> Iterator[Finding]:
    if exam.sender.silence:  # found already; asking again would only take as long again
        return
    try:
        running = list_running()
    except TrackingError as error:
        yield Finding("MLflow", str(error), "start it, then look again")
        return
    for believed in running:
        run_dir = exam.home.runs / believed.run_id
        if not _is_over(exam, run_dir) or _num_waiting(run_dir):  # what waits says it, or is found already
            continue
        yield Finding(
            "MLflow",
            f"run {believed.mlflow_run_id} is RUNNING there, {believed.run_id} is over",
            f"{exam.fix} tells MLflow",
            lambda one=believed: _end_in_mlflow(exam.home, one.mlflow_run_id, one.run_id),
        )


def _end_in_mlflow(home: Home, mlflow_run_id: str, run_id: str) -> str:
    record = load_record(home.runs / run_id)
    end_run(mlflow_run_id, record.status, round(datetime.fromisoformat(record.ended).timestamp() * 1000))
    return f"MLflow run {mlflow_run_id} of {run_id}: {record.status}"


def _lost_in_prefect(exam: Examination) -> Iterator[Finding]:
    records = list_records(exam.home)
    over = {one: record for record in records for one in _flow_runs_over(exam, record)}
    try:
        states = list_unfinished(exam.home, over)
        # On a disk that another host uses too, its processes cannot be seen.
        is_shared = any(_is_elsewhere(exam, exam.home.runs / record.run_id) for record in records)
        deserted = {} if is_shared else list_deserted(exam.home)
    except (httpx.HTTPError, sqlite3.Error) as error:
        yield Finding("Prefect", f"its flow runs cannot be read: {error}", "start its server, then look again")
        return
    for flow_run_id, state in states.items():
        record = over[flow_run_id]
        is_newest = flow_run_id == record.prefect_flow_run_id
        yield Finding(
            "Prefect",
            f"flow run {flow_run_id} is {state} there, {record.run_id} "
            + ("is over" if is_newest else "went on in another flow run"),
            f"{exam.fix} tells Prefect",
            lambda one=flow_run_id, state=state, run_id=record.run_id: _end_in_prefect(exam.home, one, state, run_id),
        )
    known = {one for record in records for one in flow_runs_of(record)}
    for flow_run_id, state in deserted.items():
        if flow_run_id not in known:
            yield Finding(
                "Prefect",
                f"flow run {flow_run_id} is {state} there, and its process was lost before it had a run",
                f"{exam.fix} tells Prefect",
                lambda one=flow_run_id, state=state: _end_deserted(one, state),
            )


def _flow_runs_over(exam: Examination, record: RunRecord) -> list[str]:
    """The flow runs of a run of which Prefect should know that they are over.

    One that had the run before another took it up is over too, whatever becomes of the run: it cannot have its lock.
    """
    run_dir = exam.home.runs / record.run_id
    if record.parent:
        return []
    if _is_over(exam, run_dir):
        return flow_runs_of(record)
    is_taken_up = not _is_elsewhere(exam, run_dir) and _age(run_dir / "lock") > ENDING_SECONDS
    return record.earlier_flow_runs if is_taken_up else []


def _end_in_prefect(home: Home, flow_run_id: str, state: str, run_id: str) -> str:
    record = load_record(home.runs / run_id)
    if flow_run_id == record.prefect_flow_run_id:
        new = end_flow_run(flow_run_id, record.status, state, record.error or record.status)
    else:
        message = f"{LOST}; {run_id} went on in flow run {record.prefect_flow_run_id}"
        new = end_flow_run(flow_run_id, "KILLED", state, message)
    return f"Prefect flow run {flow_run_id} of {run_id}: {new}"


def _end_deserted(flow_run_id: str, state: str) -> str:
    return f"Prefect flow run {flow_run_id}: {end_flow_run(flow_run_id, 'KILLED', state, LOST)}"


def _orphans(exam: Examination) -> Iterator[Finding]:
    for process in list_orphans(exam.home):
        yield Finding(
            "processes",
            f"pid {process.pid} is a temporary Prefect server of this home, and who started it is gone",
            f"{exam.fix} ends it, or kill {process.pid}",
            lambda process=process: _end_process(process),
        )


def _end_process(process: psutil.Process) -> str:
    process.terminate()
    _, alive = psutil.wait_procs([process], timeout=10)
    for one in alive:
        one.kill()
    return f"process {process.pid}: ended"


def _leftovers(exam: Examination) -> Iterator[Finding]:
    """What writers that died left half-written; nothing where somebody may be writing there now."""
    found: list[Path] = []
    with claim_data(exam.home) if exam.home.root.is_dir() else contextlib.nullcontext(False) as is_alone:
        if is_alone:
            for root in (exam.home.packs, exam.home.store):
                found += root.rglob(".*.tmp")
    for run_dir in exam.home.runs.iterdir() if exam.home.runs.is_dir() else ():
        if (
            not run_dir.is_dir()
            or run_dir.name.startswith(".")
            or _may_be_alive(run_dir)
            or _is_elsewhere(exam, run_dir)
        ):
            continue
        found += run_dir.rglob(".*.tmp") if (run_dir / RECORD_FILE).exists() else [run_dir]
    for path in sorted(found):
        where = path.relative_to(exam.home.root)
        yield Finding(
            "leftovers",
            f"{where} is half-written, and its writer is gone",
            f"{exam.fix} removes it",
            lambda path=path, where=where: _remove_leftover(path, where),
        )
    for folder in sorted(exam.home.root.glob(f"{VERIFY_PREFIX}*")):
        if not is_locked(folder / "lock"):
            yield Finding(
                "leftovers",
                f"{folder.name} holds the runs of a verify-resume that found a difference or was ended",
                "delete that folder when you have looked at them",
            )


def _remove_leftover(path: Path, where: Path) -> str:
    remove(path)
    return f"{where}: removed"


def _bad_checkpoints(exam: Examination) -> Iterator[Finding]:
    for record in list_records(exam.home):
        run_dir = exam.home.runs / record.run_id
        if _may_be_alive(run_dir) or _is_elsewhere(exam, run_dir):
            continue
        for folder in list_generations(run_dir / "checkpoints"):
            try:
                read_state(folder, read_manifest(folder))
            except DamagedError as error:
                yield Finding(
                    "checkpoints",
                    f"{folder.relative_to(exam.home.root)}: {error}",
                    f"{exam.fix} sets it aside; the run goes on from the one before",
                    lambda folder=folder: _set_aside(folder),
                )
            except CheckpointError as error:
                yield Finding("checkpoints", str(error), "nothing else is wrong with it")


def _set_aside(folder: Path) -> str:
    with lock(folder.parents[1] / "lock", f"run {folder.parents[1].name}"):
        aside = set_aside(folder)
    return f"checkpoint {folder.parents[1].name}/{folder.name}: set aside as {aside.name}"


def _bad_packs(exam: Examination) -> Iterator[Finding]:
    """Packs that do not verify, with the pixels that they refer to; only an ingest of their tables can mend them."""
    for folder in list_packs(exam.home):
        try:
            Pack.open(folder).verify()
        except (DataError, OSError) as error:
            what, _, remedy = str(error).partition("; ")
            yield Finding("packs", what, remedy or "look at the health of that disk")


def _may_be_alive(run_dir: Path) -> bool:
    """Whether a process writes a run, or is about to: one that begins may have its folder before its lock."""
    if is_locked(run_dir / "lock"):
        return True
    return not (run_dir / "lock").exists() and _age(run_dir) < STARTING_SECONDS


def _is_over(exam: Examination, run_dir: Path) -> bool:
    """Whether a run has ended, or its process was lost, long enough ago that everybody should know."""
    try:
        record = load_record(run_dir)
    except TorchrelayError:
        return False
    if _may_be_alive(run_dir) or _is_elsewhere(exam, run_dir):
        return False
    if record.status == "RUNNING" or run_dir.name in exam.buried:
        return True
    ended = datetime.fromisoformat(record.ended).timestamp() if record.ended else 0.0
    return time.time() - ended > ENDING_SECONDS or record.error.startswith(LOST)


def _is_elsewhere(exam: Examination, run_dir: Path) -> bool:
    """Whether a run's last process was on another host, of which nothing is known here."""
    return _host_of(run_dir) not in ("", socket.gethostname(), *exam.gone_hosts)


def _host_of(run_dir: Path) -> str:
    """The host whose process last held a run's lock; empty where none did."""
    with contextlib.suppress(OSError):
        if match := re.search(r" on (\S+)", (run_dir / "lock").read_text("utf-8", "replace")):
            return match[1]
    return ""


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
