"""Finds what lost processes left, and mends it.

Runs that nobody writes, here, in MLflow and in Prefect; leftovers.

Nothing that a living process writes is touched, and no data is deleted: what does not verify is set
aside. How each part is examined stands in `lost_runs.py`, `damage.py` and `installation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from ..errors import TorchrelayError
from ..runs import list_records
from ..settings import Home
from .accelerators import begin_to_ask
from .altered import (
    find_altered_artifacts,
    find_altered_files,
    find_altered_versions,
    find_bad_pointers,
    find_bad_splits,
)
from .bad_runs import find_bad_journals, find_bad_records, find_lost_database
from .damage import find_bad_checkpoints, find_bad_packs, find_leftovers
from .examination import Examination, Finding, host_of
from .installation import check_devices, check_installation
from .lost_runs import (
    find_lost_in_mlflow,
    find_lost_in_prefect,
    find_lost_runs,
    find_orphans,
    find_waiting,
)


class Examined(NamedTuple):
    """What an examination gave.

    Attributes:
        left: findings that stand.
        mended: what was done, a sentence each.
    """

    left: list[Finding]
    mended: list[str]


def doctor(
    home: Home,
    *,
    fix: bool = False,
    gone_hosts: Collection[str] = (),
    tell: Callable[[str], object] = lambda line: None,
) -> Examined:
    """Examine a home and the installation.

    With `fix`, mend what can be mended.

    Args:
        home: what is examined.
        fix: mend.
        gone_hosts: hosts that are no more, such as containers that were replaced: runs whose last
            process was there are lost.
        tell: is given each thing that was mended as soon as it is, in a sentence.
    """
    begin_to_ask()
    left: list[Finding] = []
    mended: list[str] = []
    for finding in examine(Examination.of(home, gone_hosts)):
        if not fix or finding.mend is None:
            left.append(finding)
            continue
        try:
            done = finding.mend()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other findings do not have it
            left.append(
                finding._replace(
                    remedy=f"it could not be mended ({_describe(error)}); {finding.remedy}"
                )
            )
            continue
        mended.append(done)
        tell(done)
    return Examined(left, mended)


def examine(exam: Examination) -> Iterator[Finding]:
    """All findings, in the order in which they are to be mended.

    Each is looked for when the one before is done.

    A part that cannot be examined to its end is a finding itself.
    """
    parts: tuple[tuple[str, Callable[[Examination], Iterator[Finding]]], ...] = (
        ("installation", _installation),
        ("runs", find_bad_records),
        ("runs", find_lost_runs),
        ("runs", find_bad_journals),
        ("MLflow", find_lost_database),
        ("MLflow", find_waiting),
        ("MLflow", find_lost_in_mlflow),
        ("Prefect", find_lost_in_prefect),
        ("processes", find_orphans),
        ("leftovers", find_leftovers),
        ("checkpoints", find_bad_checkpoints),
        ("checkpoints", find_bad_pointers),
        ("packs", find_bad_packs),
        ("packs", find_bad_splits),
        ("runs", find_altered_files),
        ("MLflow", find_altered_artifacts),
        ("MLflow", find_altered_versions),
        ("installation", _devices),  # last, as torch answers meanwhile
    )
    for name, part in parts:
        try:
            yield from part(exam)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts do not have it
            yield Finding(
                name,
                f"cannot be examined further: {_describe(error)}",
                "mend that, then look again",
            )


def _describe(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, TorchrelayError | OSError)
        else f"{type(error).__name__}: {error}"
    )


def last_hosts(home: Home) -> set[str]:
    """The hosts on which the runs of a home had their last process."""
    return {host_of(home.runs / record.run_id) for record in list_records(home)} - {""}


def _installation(exam: Examination) -> Iterator[Finding]:
    found = check_installation(exam.home, exam.runs().records)
    yield from (Finding("installation", what, remedy) for what, remedy in found)


def _devices(exam: Examination) -> Iterator[Finding]:
    yield from (Finding("installation", what, remedy) for what, remedy in check_devices())
