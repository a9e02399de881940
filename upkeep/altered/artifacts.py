"""Files of the embedded MLflow that are not as torchrelay sent them.

What runs and registered versions are there.

A run's are copies of what its folder and its split hold, and are put back from there. A version's
stand in a list of its own. Figures are for people, and are not looked at.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ...datasets.splits import list_split
from ...disk import find_changed, set_aside, sha256_of_file
from ...errors import DataError, TorchrelayError
from ...runs import RECORD_FILE, Run, read_version_files, waiting
from ...tracking import list_owners
from ..examination import Examination, Finding, artifacts_of, resting

PART = "MLflow"


def find_altered_artifacts(exam: Examination) -> Iterator[Finding]:
    """Artifacts of runs that differ from what was sent.

    Of runs of which nothing waits to be sent.

    A run's record may state any id: what MLflow has as another run's is named and left alone.
    """
    owners: dict[str, str] | None = None
    for run in resting(exam):
        record = run.record
        if not record.mlflow_run_id:
            continue
        folder = artifacts_of(exam.home, record)
        if not folder.is_dir() or _waits(run):
            continue
        owners = list_owners() if owners is None else owners
        if (owner := owners.get(record.mlflow_run_id)) != record.run_id:
            if owner is not None:
                yield Finding(
                    PART,
                    f"run {record.run_id} says that in MLflow it is {record.mlflow_run_id}, which "
                    f"is {owner}",
                    f"put a copy of its {RECORD_FILE} back; until then nothing of it is looked at "
                    "there",
                )
            continue
        for name, (sha256, origin) in _sent(run).items():
            copy = folder / name
            if copy.is_file() and _is_own(folder, copy) and sha256_of_file(copy) != sha256:
                yield Finding(
                    PART,
                    f"artifact {name} of run {record.run_id} is not what was sent to MLflow",
                    f"{exam.fix} copies it from {origin}, where that is as it was",
                    lambda copy=copy, origin=origin, sha256=sha256: _copy_again(
                        copy, origin, sha256
                    ),
                )


def _is_own(folder: Path, copy: Path) -> bool:
    """Whether a file lies among a run's artifacts once links below those of
    all runs are followed.
    """
    of_all = folder.parents[1]
    return of_all.resolve() / folder.relative_to(of_all) in copy.resolve().parents


def _waits(run: Run) -> bool:
    try:
        return waiting(run) > 0
    except TorchrelayError:
        return True


def _sent(run: Run) -> dict[str, tuple[str, Path]]:
    """What a run's artifacts must be.

    By name its sha256, and the file that it is a copy of.
    """
    record = run.record
    sent = {name: (sha256, run.folder / name) for name, sha256 in record.files.items()}
    if record.split_dir:
        with contextlib.suppress(DataError):  # found as a damaged split
            for name, facts in list_split(Path(record.split_dir)).items():
                sent[f"data/{name}"] = facts["sha256"], Path(record.split_dir) / name
    return sent


def _copy_again(copy: Path, origin: Path, sha256: str) -> str:
    if not origin.is_file() or sha256_of_file(origin) != sha256:
        raise DataError(f"{origin} is not as it was either")
    aside = set_aside(copy).name
    shutil.copyfile(origin, copy)
    return f"artifact {copy}: copied from {origin}; what was there is {aside}"


def find_altered_versions(exam: Examination) -> Iterator[Finding]:
    """Files of registered versions that are not those that were registered."""
    for folder in sorted(exam.home.artifacts.glob("models/*/artifacts")):
        where = folder.relative_to(exam.home.root)
        remedy = "put it back from a copy, or delete that version and register one of its run again"
        try:
            for changed in find_changed(folder, read_version_files(folder)):
                yield Finding(PART, f"registered model in {where}: {changed}", remedy)
        except TorchrelayError as error:
            yield Finding(PART, f"registered model in {where}: {error}", remedy)
