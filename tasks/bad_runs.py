"""Folders of runs whose record or journal is not as a run leaves it: found, with what can be had back of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..datasets.space import list_folders
from ..errors import TorchrelayError
from ..tracking.journal import JOURNAL_FILE, Journal
from ..tracking.records import RECORD_FILE, list_runs
from .examination import Examination, Finding, is_elsewhere, may_be_alive

PART = "runs"


def find_bad_records(exam: Examination) -> Iterator[Finding]:
    """Folders with a record that cannot be read or is of another run, and those whose record is gone."""
    for name, problem in list_runs(exam.home).problems.items():
        run_dir = exam.home.runs / name
        yield Finding(PART, f"{name} is no run: {problem}", _what_can_be_had(run_dir))
    for run_dir in list_folders(exam.home.runs):
        if (run_dir / RECORD_FILE).exists() or may_be_alive(run_dir) or is_elsewhere(exam, run_dir):
            continue
        if what_is_left(run_dir):
            yield Finding(PART, f"{run_dir.name} has no {RECORD_FILE}, so it is no run", _what_can_be_had(run_dir))


def what_is_left(run_dir: Path) -> list[str]:
    """What a run has done, in a folder that may have no record any more; empty where it only began.

    A journal that cannot be read counts: nobody knows what stands in it.
    """
    left = [name for name in ("checkpoints", "predictions.parquet", "tables") if (run_dir / name).exists()]
    left += [f"weights/{name}" for name in ("last.pt", "optimizer.pt") if (run_dir / "weights" / name).exists()]
    try:
        has_lines = any(line["kind"] in ("metrics", "status") for line in Journal(run_dir / JOURNAL_FILE).lines())
    except (TorchrelayError, OSError):
        has_lines = True
    return [*left, *([JOURNAL_FILE] if has_lines else [])]


def _what_can_be_had(run_dir: Path) -> str:
    """What still works with a folder that is no run."""
    has_weights = all((run_dir / name).is_file() for name in ("recipe.yaml", "schema.json", "weights/best.pt"))
    can = []
    if has_weights:
        can.append(f"torchrelay evaluate {run_dir / 'weights' / 'best.pt'} takes its weights")
    if what_is_left(run_dir)[-1:] == [JOURNAL_FILE]:
        can.append(f"its metrics stand in {run_dir / JOURNAL_FILE}")
    if (run_dir / "checkpoints").is_dir() and not has_weights:
        can.append(f"its checkpoints stand in {run_dir / 'checkpoints'}")
    had = " and ".join(can) or "nothing of it is left that torchrelay can use"
    return f"{had}; put its {RECORD_FILE} back from a copy, or delete the folder by hand"
