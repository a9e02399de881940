"""Lists the checkpoints of a run and verifies each, without torch and
without a server; changes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..disk import describe_failure, size_of
from ..engine.checkpoints import (
    list_generations,
    list_set_aside,
    parse_name,
    read_manifest,
    read_pointer,
    read_state,
)
from ..errors import CheckpointError
from ..runs import CHECKPOINTS, Run, find_run, list_children
from ..settings import Home


class Generation(NamedTuple):
    """One generation of a run's checkpoints.

    Attributes:
        run_id: whose it is; of a run over several splits, one of its children.
        epoch: epochs that were done; None where no manifest says so.
        created: ISO 8601 in UTC.
        is_set_aside: it did not verify when it was to be loaded, and is no longer in use.
        problem: what is wrong with it; empty where it verifies.
    """

    run_id: str
    name: str
    step: int
    epoch: int | None
    bytes: int
    created: str
    is_best: bool
    is_last: bool
    is_set_aside: bool
    problem: str


def list_checkpoints(home: Home, run: str) -> list[Generation]:
    """All generations of a run, or of the runs below it, oldest first, then
    those that were set aside.

    Reads every byte of them. One that a training removes meanwhile is left out.

    Raises:
        SourceError: there is no such run.
    """
    found = Run.open(find_run(home, run))
    record = found.record
    runs = (
        [Run(home.runs / one.run_id, one) for one in list_children(home, record)]
        if record.splits
        else [found]
    )
    return [one for each in runs for one in _list_run(each)]


def has_damage(found: list[Generation]) -> bool:
    """Whether a generation that is in use does not verify."""
    return any(one.problem and not one.is_set_aside for one in found)


def _list_run(run: Run) -> list[Generation]:
    folder = run.folder / CHECKPOINTS
    try:
        best, last = read_pointer(folder, "best"), read_pointer(folder, "last")
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {describe_failure(error)}") from error
    found = []
    for path in (*list_generations(folder), *list_set_aside(folder)):
        is_set_aside = path.name.startswith("bad-")
        manifest, problem = _verify(path, run.run_id)
        if not path.is_dir():
            continue
        step, _ = parse_name(path.name.removeprefix("bad-")) or (manifest.get("step", 0), 1)
        found.append(
            Generation(
                run_id=run.run_id,
                name=path.name,
                step=step,
                epoch=manifest.get("epoch"),
                bytes=size_of(path),
                created=manifest.get("created") or _changed(path),
                is_best=path.name == best,
                is_last=path.name == last,
                is_set_aside=is_set_aside,
                problem=problem,
            )
        )
    return found


def _verify(path: Path, run_id: str) -> tuple[dict[str, Any], str]:
    """A generation's manifest, empty where it has none that can be read, and
    what is wrong.
    """
    manifest: dict[str, Any] = {}
    try:
        manifest = read_manifest(path, run_id)
        read_state(path, manifest)
    except CheckpointError as error:
        return manifest, str(error)
    return manifest, ""


def _changed(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
