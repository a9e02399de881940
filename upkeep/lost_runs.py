"""Runs that nobody writes, here, in MLflow and in Prefect, and what their
processes left running: found, and ended.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import psutil

from ..errors import ServerError, TrackingError
from ..runs import (
    ERROR_FILE,
    LOCK_FILE,
    Run,
    RunRecord,
    flow_runs_of,
    is_meant_for_here,
    seconds_until,
    tracker_of,
    waiting,
)
from ..settings import Home, shown_tracking_uri
from ..tasks.services import end_flow_run, list_abandoned, list_orphans, list_unfinished, within
from ..tracking import end_run, list_running
from ..tracking.shipping import Sender
from .examination import (
    ENDING_SECONDS,
    LOST,
    Examination,
    Finding,
    age_of,
    host_of,
    is_elsewhere,
    is_over,
    may_be_alive,
)

# For all that a server has to say of our runs; its clients bound each read alone.
LISTING_SECONDS = 120.0

# What a record says of a run that was lost when its journal had its end already.
ERRORS_OF_ENDED = {
    "FINISHED": "",
    "FAILED": f"see {ERROR_FILE}",
    "KILLED": "stopped by a signal or a cancel",
}


def find_lost_runs(exam: Examination) -> Iterator[Finding]:
    """Runs whose record says RUNNING and that no process writes, here or
    perhaps on another host.
    """
    for record in exam.runs().records:
        folder = exam.folder(record.run_id)
        if record.status != "RUNNING" or may_be_alive(folder):
            continue
        if is_elsewhere(exam, folder):
            host = host_of(folder)
            yield Finding(
                "runs",
                f"{record.run_id} is RUNNING, last on host {host}",
                f"run torchrelay doctor --fix there; where that host is no more, {exam.fix} --host "
                f"{host}",
            )
            continue
        yield Finding(
            "runs",
            f"{record.run_id} is RUNNING and no process writes it",
            f"{exam.fix} calls it KILLED, or as its journal says that it ended; "
            f"{_how_to_go_on(record)}",
            lambda folder=folder: _close_lost_run(exam, Run(folder)),
        )


def _how_to_go_on(record: RunRecord) -> str:
    if record.kind in ("evaluate", "predict"):
        return f"it cannot go on: run torchrelay {record.kind} again"
    return f"torchrelay resume {record.run_id} lets it go on"


def _close_lost_run(exam: Examination, run: Run) -> str:
    """Write down that a run's process was lost, with what its journal says of
    how far it came.

    One that was lost when it had just ended ended as its journal says.
    """
    with run.lock():
        record, journal = run.record, run.journal
        ending = _ending_of(run, journal.lines())
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
        run.update(
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
    exam.buried.add(run.run_id)
    exam.listing.clear()
    return f"run {run.run_id}: {status}, " + (error if ending is None else "as its journal says")


def _ending_of(run: Run, lines: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The journal's line that says how a run ended.

    None where it says no end, or one before the run went on.

    A run that dies while it is reopened may have no line of that yet, but some part of its work is
    not done any more.
    """
    last: Mapping[str, Any] | None = None
    for line in lines:
        if line["kind"] == "status" or (line["kind"] == "event" and line["name"] == "resumed"):
            last = line
    if last is None or last.get("status", "RUNNING") == "RUNNING":
        return None
    if last["status"] == "FINISHED" and run.record.kind == "train":
        is_registered = bool(run.recipe.tracking.register_as)
        parts = {"train", "evaluate", "register"} if is_registered else {"train", "evaluate"}
        return last if parts <= set(run.record.done) else None
    return last


def find_waiting(exam: Examination) -> Iterator[Finding]:
    """Runs that are over and of whose journals MLflow does not have all, the
    oldest first: a parent before its own.
    """
    for record in reversed(exam.runs().records):
        run = exam.run(record)
        if not is_over(exam, record):
            continue
        try:
            num_waiting = waiting(run)
            if not num_waiting:
                continue
            journal = run.journal
            is_for_here, tracker = is_meant_for_here(journal), tracker_of(journal)
        except TrackingError as error:
            yield Finding("MLflow", str(error), "do that, then look again")
            continue
        what = f"{num_waiting:,} lines of the journal of {record.run_id} wait for the tracker"
        if not is_for_here:
            setting = (
                f"set MLFLOW_TRACKING_URI={tracker}" if tracker else "unset MLFLOW_TRACKING_URI"
            )
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
            lambda run=run: _send(exam.sender, run),
        )


def _num_waiting(run: Run) -> int:
    """Lines of a journal that MLflow does not have.

    None where nobody can say.
    """
    with contextlib.suppress(TrackingError):
        return waiting(run)
    return 0


def _send(sender: Sender, run: Run) -> str:
    """Send what waits.

    What a tracker will not take goes on waiting.
    """
    shipped = sender.send(run)
    registered = "".join(
        f"; registered: {name} version {number}" for name, number in shipped.registered
    )
    if shipped.num_waiting:
        raise TrackingError(
            f"{shipped.num_waiting:,} lines wait still: {shipped.reason}{registered}"
        )
    sent = f"{shipped.num_sent:,} lines of its journal sent to MLflow at {shown_tracking_uri()}"
    return f"run {run.run_id}: {sent}{registered}"


def find_lost_in_mlflow(exam: Examination) -> Iterator[Finding]:
    """Runs that are over and of which MLflow believes that they go on."""
    if exam.sender.unreachable:  # found already; asking again would only take as long again
        return
    try:
        running = within(LISTING_SECONDS, list_running)
    except (TrackingError, TimeoutError) as error:
        yield Finding("MLflow", str(error), "start it, then look again")
        return
    records = {record.run_id: record for record in exam.runs().records}
    for believed in running:
        if believed.run_id not in records:  # a run of another home, or a tag that somebody set
            continue
        record = records[believed.run_id]
        # What waits says it, or is found already.
        if not is_over(exam, record) or _num_waiting(exam.run(record)):
            continue
        yield Finding(
            "MLflow",
            f"run {believed.mlflow_run_id} is RUNNING there, {believed.run_id} is over",
            f"{exam.fix} tells MLflow",
            lambda one=believed: _end_in_mlflow(exam.home, one.mlflow_run_id, one.run_id),
        )


def _end_in_mlflow(home: Home, mlflow_run_id: str, run_id: str) -> str:
    record = Run.open(home.runs / run_id).record
    end_run(
        mlflow_run_id, record.status, round(datetime.fromisoformat(record.ended).timestamp() * 1000)
    )
    return f"MLflow run {mlflow_run_id} of {run_id}: {record.status}"


def find_lost_in_prefect(exam: Examination) -> Iterator[Finding]:
    """Flow runs of which Prefect believes that they go on.

    Of runs that are over, or without a process.
    """
    records = exam.runs().records
    over = {one: record for record in records for one in _flow_runs_over(exam, record)}
    try:
        states = within(LISTING_SECONDS, lambda: list_unfinished(exam.home, over))
        abandoned = list_abandoned(exam.home)
    except (ServerError, sqlite3.Error, TimeoutError) as error:
        yield Finding(
            "Prefect", f"its flow runs cannot be read: {error}", "start its server, then look again"
        )
        return
    for flow_run_id, state in states.items():
        record = over[flow_run_id]
        is_newest = flow_run_id == record.prefect_flow_run_id
        yield Finding(
            "Prefect",
            f"flow run {flow_run_id} is {state} there, {record.run_id} "
            + ("is over" if is_newest else "went on in another flow run"),
            f"{exam.fix} tells Prefect",
            lambda one=flow_run_id, state=state, run_id=record.run_id: _end_in_prefect(
                exam.home, one, state, run_id
            ),
        )
    # On a disk that another host uses too, its processes cannot be seen.
    if abandoned and any(is_elsewhere(exam, exam.folder(record.run_id)) for record in records):
        return
    known = {one for record in records for one in flow_runs_of(record)}
    for flow_run_id, state in abandoned.items():
        if flow_run_id not in known:
            yield Finding(
                "Prefect",
                f"flow run {flow_run_id} is {state} there, and its process was lost before it had "
                "a run",
                f"{exam.fix} tells Prefect",
                lambda one=flow_run_id, state=state: _end_deserted(one, state),
            )


def _flow_runs_over(exam: Examination, record: RunRecord) -> list[str]:
    """The flow runs of a run of which Prefect should know that they are over.

    One that had the run before another took it up is over too, whatever becomes of the run: it
    cannot have its lock.
    """
    folder = exam.folder(record.run_id)
    if record.parent or not flow_runs_of(record):
        return []
    if is_over(exam, record):
        return flow_runs_of(record)
    is_taken_up = not is_elsewhere(exam, folder) and age_of(folder / LOCK_FILE) > ENDING_SECONDS
    return record.earlier_flow_runs if is_taken_up else []


def _end_in_prefect(home: Home, flow_run_id: str, state: str, run_id: str) -> str:
    record = Run.open(home.runs / run_id).record
    if flow_run_id == record.prefect_flow_run_id:
        new = end_flow_run(flow_run_id, record.status, state, record.error or record.status)
    else:
        message = f"{LOST}; {run_id} went on in flow run {record.prefect_flow_run_id}"
        new = end_flow_run(flow_run_id, "KILLED", state, message)
    return f"Prefect flow run {flow_run_id} of {run_id}: {new}"


def _end_deserted(flow_run_id: str, state: str) -> str:
    return f"Prefect flow run {flow_run_id}: {end_flow_run(flow_run_id, 'KILLED', state, LOST)}"


def find_orphans(exam: Examination) -> Iterator[Finding]:
    """Temporary Prefect servers of this home that outlived the process that
    started them.
    """
    for process in list_orphans(exam.home):
        yield Finding(
            "processes",
            f"pid {process.pid} is a temporary Prefect server of this home, and who started it is "
            "gone",
            f"{exam.fix} ends it, or kill {process.pid}",
            lambda process=process: _end_process(process),
        )


def _end_process(process: psutil.Process) -> str:
    process.terminate()
    _, alive = psutil.wait_procs([process], timeout=10)
    for one in alive:
        one.kill()
    return f"process {process.pid}: ended"
