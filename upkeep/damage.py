"""What is half-written or does not verify.

Found, and removed or set aside where nobody may be writing it.

Removed is what a writer of ours left, under a name that we found in its folder: never a link, never
a folder that has no lock of ours, and never one in which a run has done anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..datasets.pack import claim_data, list_hidden, list_packs, remove_data
from ..disk import is_locked, lock, set_aside
from ..engine.checkpoints import DamagedError, list_generations, read_manifest, read_state
from ..errors import BusyError, CheckpointError, DataError
from ..runs import CHECKPOINTS, LOCK_FILE, RECORD_FILE
from ..settings import Home
from .altered import mend_by_ingest
from .bad_runs import what_is_left
from .examination import VERIFY_PREFIX, Examination, Finding, is_quiet, may_be_alive

# What a pack's error says that is to be done begins so.
AGAIN = "; run `torchrelay ingest` again"


def find_leftovers(exam: Examination) -> Iterator[Finding]:
    """What writers that died left half-written.

    Nothing where somebody may be writing there now.
    """
    found: list[Path] = []
    with (
        claim_data(exam.home)
        if exam.home.root.is_dir()
        else contextlib.nullcontext(False) as is_alone
    ):
        if is_alone:
            for root in (exam.home.packs, exam.home.store):
                found += list_hidden(root, ".tmp")
    known = {record.run_id for record in exam.runs().records}
    for run_dir in exam.run_dirs():
        if not is_quiet(exam, run_dir):
            continue
        if run_dir.name in known or (run_dir / RECORD_FILE).exists():
            found += list_hidden(run_dir, ".tmp")
        elif (run_dir / LOCK_FILE).is_file() and not what_is_left(run_dir):
            found.append(run_dir)
    for path in sorted(found):
        where = path.relative_to(exam.home.root)
        yield Finding(
            "leftovers",
            f"{where} is half-written, and its writer is gone",
            f"{exam.fix} removes it",
            lambda path=path, where=where: _remove_leftover(exam.home, path, where),
        )
    for folder in sorted(exam.home.root.glob(f"{VERIFY_PREFIX}*")):
        if not is_locked(folder / LOCK_FILE):
            yield Finding(
                "leftovers",
                f"{folder.name} holds the runs of a verify-resume that found a difference or was "
                "ended",
                "delete that folder when you have looked at them",
            )


def _remove_leftover(home: Home, path: Path, where: Path) -> str:
    if where.parts[0] == home.runs.name and may_be_alive(home.runs / where.parts[1]):
        raise BusyError(f"{where} is being written after all")
    remove_data(path)
    if path.parent == home.runs:  # of a run that never began
        from ..tasks.assembly import forget  # which knows models, and so torch

        forget(path.name)
    return f"{where}: removed"


def find_bad_checkpoints(exam: Examination) -> Iterator[Finding]:
    """Checkpoints that do not verify, or that this torchrelay does not read."""
    for record in exam.runs().records:
        run_dir = exam.folder(record.run_id)
        if not is_quiet(exam, run_dir):
            continue
        for folder in list_generations(run_dir / CHECKPOINTS):
            try:
                read_state(folder, read_manifest(folder, run_dir.name))
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
    with lock(folder.parents[1] / LOCK_FILE, f"run {folder.parents[1].name}"):
        aside = set_aside(folder)
    return f"checkpoint {folder.parents[1].name}/{folder.name}: set aside as {aside.name}"


def find_bad_packs(exam: Examination) -> Iterator[Finding]:
    """Packs that do not verify, with the pixels that they refer to.

    Only an ingest of their tables can mend them.
    """
    for folder in list_packs(exam.home):
        from ..datasets.pack import Pack  # heavy, and a home may have none

        try:
            Pack.open(folder).verify()
        except (DataError, OSError) as error:
            what, again, rest = str(error).rpartition(AGAIN)  # a path may have any other sign
            what, remedy = (
                (what, f"{AGAIN[2:]}{rest}")
                if again
                else (str(error), "mend that, then look again")
            )
            mend = mend_by_ingest(exam, folder)
            remedy = f"{exam.fix} reads its table again" if mend else remedy
            yield Finding("packs", what, remedy, mend)
