"""What the parts of an examination share.

What a finding is, and which runs are alive, elsewhere or over.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..datasets.pack import list_folders
from ..disk import is_locked
from ..runs import LOCK_FILE, Listing, Run, RunRecord, list_runs
from ..settings import Home
from ..tracking.shipping import Sender

# An evaluation has a folder a moment before it has its lock.
STARTING_SECONDS = 600.0
# Prefect and MLflow hear of an end a moment after the run's record.
ENDING_SECONDS = 60.0
# Of the folders in which verify-resume lets runs die and go on.
VERIFY_PREFIX = "verify-"
LOST = "process ended without a word"


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


class Examination(NamedTuple):
    """What the parts of one examination share.

    Attributes:
        home: what is examined.
        gone_hosts: hosts that somebody says are no more; whose last process was there is lost.
        sender: sends what waits for MLflow, until the tracker is silent.
        buried: ids of runs that were found lost and are called ended now; nobody else tells anybody
            of that.
        listing: what `list_runs` found; emptied by whoever changes a record.
        quiet: run's name -> whether nobody writes it, here or perhaps elsewhere, as it was when it
            was first asked.
        folders: run's name -> its folder; of ten thousand runs each path is put together once.
    """

    home: Home
    gone_hosts: Collection[str]
    sender: Sender
    buried: set[str]
    listing: list[Listing]
    quiet: dict[str, bool]
    folders: dict[str, Path]

    @classmethod
    def of(cls, home: Home, gone_hosts: Collection[str] = ()) -> Examination:
        """One that begins."""
        return cls(home, gone_hosts, Sender(), set(), [], {}, {})

    def runs(self) -> Listing:
        """All runs of the home, and what is none.

        Each record is read once, until one is changed.
        """
        if not self.listing:
            self.listing.append(list_runs(self.home))
        return self.listing[0]

    def run_dirs(self) -> list[Path]:
        """The folders in which runs may be, in order, as they were when they
        were first asked for.
        """
        if not self.folders:
            self.folders.update((one.name, one) for one in list_folders(self.home.runs))
        return list(self.folders.values())

    def folder(self, name: str) -> Path:
        """The folder of a run."""
        if not self.folders:
            self.run_dirs()
        return self.folders.get(name) or self.home.runs / name

    def run(self, record: RunRecord) -> Run:
        """The run of a record that was just listed."""
        return Run(self.folder(record.run_id), record)

    @property
    def fix(self) -> str:
        """The command that mends what this examination finds."""
        return " ".join(
            ("torchrelay doctor --fix", *(f"--host {name}" for name in self.gone_hosts))
        )


def may_be_alive(folder: Path) -> bool:
    """Whether a process writes a run, or is about to.

    One that begins may have its folder before its lock.
    """
    held = folder / LOCK_FILE
    return is_locked(held) or (not held.exists() and age_of(folder) < STARTING_SECONDS)


def is_quiet(exam: Examination, folder: Path) -> bool:
    """Whether no process writes a run, here or perhaps elsewhere.

    Asked once. Whoever mends something asks again.
    """
    if (known := exam.quiet.get(folder.name)) is None:
        known = exam.quiet[folder.name] = not may_be_alive(folder) and not is_elsewhere(
            exam, folder
        )
    return known


def is_over(exam: Examination, record: RunRecord) -> bool:
    """Whether a run has ended, or its process was lost, long enough ago that
    everybody should know.
    """
    folder = exam.folder(record.run_id)
    if not is_quiet(exam, folder):
        return False
    if record.status == "RUNNING" or folder.name in exam.buried:
        return True
    ended = datetime.fromisoformat(record.ended).timestamp() if record.ended else 0.0
    return time.time() - ended > ENDING_SECONDS or record.error.startswith(LOST)


def is_elsewhere(exam: Examination, folder: Path) -> bool:
    """Whether a run's last process was on another host, of which nothing is
    known here.
    """
    return host_of(folder) not in ("", socket.gethostname(), *exam.gone_hosts)


def resting(exam: Examination) -> Iterator[Run]:
    """Runs that nobody writes, here or perhaps elsewhere."""
    for record in exam.runs().records:
        if is_quiet(exam, exam.folder(record.run_id)):
            yield exam.run(record)


def artifacts_of(home: Home, record: RunRecord) -> Path:
    """Where the embedded MLflow keeps a run's artifacts.

    Whether there are any is not said.
    """
    return home.artifacts / record.mlflow_run_id / "artifacts"


def host_of(folder: Path) -> str:
    """The host whose process last held a run's lock.

    Empty where none did.
    """
    with contextlib.suppress(OSError):
        if match := re.search(r" on (\S+)", (folder / LOCK_FILE).read_text("utf-8", "replace")):
            return match[1]
    return ""


def age_of(path: Path) -> float:
    """Seconds since a file was written or a folder changed.

    0 where there is none.
    """
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
