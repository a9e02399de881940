"""Runs whose record, journal or MLflow database is not as a run leaves it.

Found, with what can be had back of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..disk import are_sealed, open_file
from ..errors import TorchrelayError
from ..runs import (
    BEST,
    CHECKPOINTS,
    JOURNAL_FILE,
    LAST,
    NEEDED,
    OPTIMIZER,
    PREDICTIONS_FILE,
    RECORD_FILE,
    TABLES,
    Run,
    RunRecord,
    is_torn,
    parse,
)
from ..tracking import DATABASE_FILE, find_lost, recover, what_is_wrong
from .examination import Examination, Finding, is_quiet

PART = "runs"
# How a journal begins, and what it says last of a run that finished.
HEAD = re.compile(rb'\{"time":\d+,"kind":"journal"')
FINISHED = re.compile(rb'\{"time":\d+,"kind":"status","status":"FINISHED"')


def find_bad_records(exam: Examination) -> Iterator[Finding]:
    """Folders with a record that cannot be read or is of another run, and
    those whose record is gone.
    """
    for name, problem in exam.runs().problems.items():
        folder = exam.folder(name)
        yield Finding(PART, f"{name} is no run: {problem}", _what_can_be_had(folder))
    known = {record.run_id for record in exam.runs().records}
    for folder in exam.run_dirs():
        if folder.name in known or (folder / RECORD_FILE).exists() or not is_quiet(exam, folder):
            continue
        if what_is_left(folder):
            yield Finding(
                PART,
                f"{folder.name} has no {RECORD_FILE}, so it is no run",
                _what_can_be_had(folder),
            )


def find_bad_journals(exam: Examination) -> Iterator[Finding]:
    """Journals of runs that nobody writes, that are gone or not as a run
    leaves them.
    """
    for record in exam.runs().records:
        folder = exam.folder(record.run_id)
        if not is_quiet(exam, folder):
            continue
        if problem := _what_is_wrong(folder / JOURNAL_FILE, record):
            has = (
                "MLflow has what was sent of it"
                if record.mlflow_run_id
                else "MLflow was sent nothing of it"
            )
            yield Finding(
                PART,
                f"the journal of {record.run_id}, which is {record.status}, {problem}",
                f"put it back from a copy; without one its curves are lost here, {has}, and its "
                "newest metrics, "
                f"weights and figures stand in {folder}",
            )


def _what_is_wrong(path: Path, record: RunRecord) -> str:
    """Why a journal is not what a run leaves.

    Empty where it is.

    A line that a crash tore begins as a line does, or is of zeros where a file system had not
    written it yet; any other line that is none was garbled later. One that ends with RUNNING is of
    a run that was lost, which is found as such.
    """
    try:
        with open_file(path) as file:
            data = file.read()
    except FileNotFoundError:
        return "is gone" if record.steps or record.status == "FINISHED" else ""
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if _is_as_left(data, record):
        return ""
    lines = data.splitlines()
    read = [parse(line) for line in lines]
    if not any(line is not None and line["kind"] == "journal" for line in read):
        return "is empty" if not path.stat().st_size else "has no line that a journal begins with"
    garbled = [at for at, line in enumerate(read, 1) if line is None and not is_torn(lines[at - 1])]
    if garbled:
        return f"has {len(garbled):,} lines that are garbled, the first of them line {garbled[0]:,}"
    last = [line.get("status") for line in read if line is not None and line["kind"] == "status"][
        -1:
    ]
    is_sent_by_journal = any(line is not None and line["kind"] == "open" for line in read)
    if record.status == "FINISHED" and is_sent_by_journal and last != ["FINISHED"]:
        return "does not say that it finished: its end is missing"
    return ""


def _is_as_left(data: bytes, record: RunRecord) -> bool:
    """Whether a journal is what a run leaves, by its CRCs, its first line and
    its last status; false where in doubt.

    So that of ten thousand journals each byte is looked at, and hardly a line is parsed.
    """
    if not are_sealed(data) or not HEAD.match(data):
        return False
    last_status = data.rfind(b"\n", 0, max(data.rfind(b'"kind":"status"'), 0)) + 1
    return record.status != "FINISHED" or bool(FINISHED.match(data, last_status))


def find_lost_database(exam: Examination) -> Iterator[Finding]:
    """An embedded database that is none, or that does not have the runs that
    say that they are in it.
    """
    path = exam.home.root / DATABASE_FILE
    lost = find_lost(exam.home, exam.runs().records, reads_all=True)
    if not lost.problem and not lost.run_ids:
        return
    state = lost.problem or ("is another one" if path.exists() else "is gone")
    say = (
        f"{len(lost.run_ids):,} runs say that they are in it"
        if len(lost.run_ids) != 1
        else "1 run says that it is in it"
    )
    yield Finding(
        "MLflow",
        f"MLflow's database {path} {state}, and {say}",
        f"{exam.fix}, or torchrelay sync, makes a new one and sends them again from their journals "
        "and folders: "
        "metrics, parameters, tags, artifacts and registered versions; a file that is there is "
        "set aside",
        lambda: _recover(exam, lost.problem),
    )
    if problem := what_is_wrong(path):
        exam.sender.unreachable = f"MLflow's database {path} {problem}"


def _recover(exam: Examination, problem: str) -> str:
    done = "; ".join(recover(exam.home, problem))
    exam.listing.clear()
    return done


def what_is_left(folder: Path) -> list[str]:
    """What a run has done, in a folder that may have no record any more.

    Empty where it only began.

    A journal that cannot be read counts: nobody knows what stands in it.
    """
    left = [
        name
        for name in (CHECKPOINTS, PREDICTIONS_FILE, TABLES, LAST, OPTIMIZER)
        if (folder / name).exists()
    ]
    try:
        has_lines = any(
            line["kind"] in ("metrics", "status") for line in Run(folder).journal.lines()
        )
    except (TorchrelayError, OSError):
        has_lines = True
    return [*left, *([JOURNAL_FILE] if has_lines else [])]


def _what_can_be_had(folder: Path) -> str:
    """What still works with a folder that is no run."""
    has_weights = all((folder / name).is_file() for name in NEEDED)
    can = []
    if has_weights:
        can.append(f"torchrelay evaluate {folder / BEST} takes its weights")
    if what_is_left(folder)[-1:] == [JOURNAL_FILE]:
        can.append(f"its metrics stand in {folder / JOURNAL_FILE}")
    if (folder / CHECKPOINTS).is_dir() and not has_weights:
        can.append(f"its checkpoints stand in {folder / CHECKPOINTS}")
    had = " and ".join(can) or "nothing of it is left that torchrelay can use"
    return f"{had}; put its {RECORD_FILE} back from a copy, or delete the folder by hand"
