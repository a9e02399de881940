"""Files that are not as they were written, of runs, their journals and splits.

Found. `mending.py` has them back.

A file of a run is put back from a copy with the sha256 that the run's record has of it; a split is
made anew from its table. What is in the way is set aside, never deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ...datasets.pack import list_folders, list_packs
from ...datasets.splits import AGAIN, DamagedSplitError, verify_split
from ...disk import seal_name, set_aside, write_atomic
from ...engine.checkpoints import DamagedError, list_generations, read_manifest, verify_pointer
from ...errors import DataError, SourceError
from ...runs import CHECKPOINTS, Run, RunRecord
from ..examination import Examination, Finding, resting


def find_altered_files(exam: Examination) -> Iterator[Finding]:
    """Files of runs that do not have the sha256 that the record has of them."""
    for run in resting(exam):
        for name in run.record.files:
            try:
                reason = run.why_changed(name)
            except SourceError as error:
                yield Finding("runs", str(error), "mend that, then look again")
                continue
            if reason:
                yield Finding(
                    "runs",
                    f"{run.run_id}: {reason}",
                    f"{exam.fix} puts it back where it finds a copy; else put one back, or train "
                    "the run again",
                    lambda run=run, name=name: _put_back(exam, run, name),
                )


def find_bad_pointers(exam: Examination) -> Iterator[Finding]:
    """Pointers to checkpoints that are not as they were written."""
    for run in resting(exam):
        for pointer in ("best", "last") if (run.folder / CHECKPOINTS).exists() else ():
            try:
                verify_pointer(run.folder / CHECKPOINTS, pointer)
            except (DamagedError, OSError) as error:
                yield Finding(
                    "checkpoints",
                    f"{run.run_id}/{CHECKPOINTS}: {error}",
                    f"{exam.fix} writes it anew, as the newest manifest says",
                    lambda run=run, pointer=pointer: _point_anew(run, pointer),
                )


def _point_anew(run: Run, pointer: str) -> str:
    """Write a pointer to a checkpoint as the newest manifest says, or set it
    aside where none does.
    """
    with run.lock():
        folder = run.folder / CHECKPOINTS
        for generation in reversed(list_generations(folder)):
            try:
                best = read_manifest(generation, run.run_id)["best"]
            except DamagedError:
                continue
            name = best if pointer == "best" else generation.name
            if name:
                write_atomic(folder / pointer, seal_name(name))
                return f"{run.run_id}/{CHECKPOINTS}/{pointer}: names {name} again"
        return (
            f"{run.run_id}/{CHECKPOINTS}/{pointer}: set aside as {set_aside(folder / pointer).name}"
        )


def find_bad_splits(exam: Examination) -> Iterator[Finding]:
    """Splits of packs that do not verify."""
    for pack_dir in list_packs(exam.home):
        for split_dir in list_folders(pack_dir / "splits"):
            if split_dir.name.startswith("bad-"):
                continue
            try:
                verify_split(split_dir)
            except DamagedSplitError as error:
                mend = mend_by_ingest(exam, split_dir)
                yield Finding(
                    "packs",
                    error.what,
                    f"{exam.fix} makes it anew from its table" if mend else AGAIN,
                    mend,
                )
            except DataError as error:
                yield Finding("packs", str(error), "mend that, then look again")


def mend_by_ingest(exam: Examination, folder: Path) -> Callable[[], str] | None:
    """What makes a pack or a split anew.

    The ingest of a run that refers to it; None where no run does.
    """
    found = (
        one for one in exam.runs().records if folder in (Path(one.split_dir), Path(one.pack_dir))
    )
    record = next((one for one in found if one.kind != "splits"), None)
    return None if record is None else lambda: _ingest_again(exam, record, folder)


def _put_back(exam: Examination, run: Run, name: str) -> str:
    from .mending import put_back  # torch, and all that reads tables

    return put_back(exam.home, Run(run.folder), name)


def _ingest_again(exam: Examination, record: RunRecord, folder: Path) -> str:
    from .mending import ingest_again

    return ingest_again(exam.home, record, folder)
