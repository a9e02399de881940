"""Frees space by a rule.

Old runs, then packs that no run refers to, then pixels that no pack refers to.

In that order, so that a prune that is killed leaves nothing that points at what is gone; the next
one goes on. A run goes with all that MLflow holds of it. What would be missed stays: see
`_reason_to_keep`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from ..datasets.pack import (
    TRASH,
    claim_data,
    fresh_packs,
    leftovers,
    old_sources,
    remove_data,
    remove_shard,
    unneeded_packs,
    unneeded_shards,
)
from ..disk import is_locked, lock, read_json, remove_tree, size_of
from ..errors import BusyError, DataError, RecipeError, SourceError, TrackingError
from ..runs import (
    JOURNAL_FILE,
    LOCK_FILE,
    RECORD_FILE,
    Run,
    RunRecord,
    list_records,
    load_record,
    waiting,
)
from ..settings import Home, tracking_is_embedded
from ..tracking import Holdings, Version, has_unreferenced, list_holdings

# A run that begins has a record a moment before it has its lock.
STARTING_SECONDS = 600.0
UNIT_SECONDS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


class Item(NamedTuple):
    """Something that goes.

    Attributes:
        name: run id, pack id, or path below the home.
        num_bytes: what it frees on this machine.
    """

    kind: Literal["run", "pack", "pixels", "cache", "leftover"]
    name: str
    num_bytes: int


class Pruned(NamedTuple):
    """What a prune did, or would do.

    Attributes:
        gone: in the order in which it went.
        kept: runs that the rule names and that stay, with the reason.
        notes: sentences for the user.
    """

    gone: list[Item]
    kept: dict[str, str]
    notes: list[str]

    @property
    def num_bytes(self) -> int:
        """All that was freed."""
        return sum(item.num_bytes for item in self.gone)


class _Family(NamedTuple):
    """Runs that go together.

    A parent and its children, or one run alone.
    """

    records: list[RunRecord]
    created: str
    last_sign: float


def prune(
    home: Home,
    *,
    keep_runs: int | None,
    older_than: float | None,
    versions: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Remove runs by the rule and all that only they needed.

    Args:
        home: whose runs, packs, store and cache.
        keep_runs: the newest so many stay, a parent and its children counting as one; None means
            any number.
        older_than: seconds since a run's last sign of life, after which it goes; None means any
            age. A run goes where both say so.
        versions: registered versions without an alias do not keep their run, and go with it.
        dry_run: remove nothing.
    Raises:
        RecipeError: neither a number nor an age is given.
        TrackingError: MLflow cannot be asked which runs are registered; nothing was removed.
    """
    if keep_runs is None and older_than is None:
        raise RecipeError(
            "say what may go: --keep-runs N (the newest N stay), --older-than D (30d, 12h), or both"
        )
    result = Pruned([], {}, [])
    if not home.root.is_dir():
        return result
    held = list_holdings()
    families = _choose_runs(home, keep_runs, older_than)
    gone_runs = _prune_runs(home, families, held, result, versions=versions, dry_run=dry_run)
    if not dry_run and has_unreferenced():
        from ..tracking import remove_unreferenced  # MLflow, which takes seconds

        remove_unreferenced()
    with claim_data(home) as is_alone:
        if not is_alone:
            result.notes.append(
                "an ingest is at work: packs and pixels stay for now; prune again when it has ended"
            )
            return result
        _prune_data(home, gone_runs, result, dry_run=dry_run)
    if gone_runs and not tracking_is_embedded():
        result.notes.append(
            "on the MLflow server the runs are marked as deleted; `mlflow gc` there frees them for "
            "good"
        )
    return result


def parse_age(text: str) -> float:
    """Seconds of an age such as 30d, 12h, 90m or 2w.

    Raises:
        RecipeError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if match is None:
        raise RecipeError(
            f"--older-than {text}: expected a number of m(inutes), h(ours), d(ays) or w(eeks), as "
            "30d"
        )
    return float(match[1]) * UNIT_SECONDS[match[2]]


def _choose_runs(home: Home, keep_runs: int | None, older_than: float | None) -> list[_Family]:
    """The families that the rule names, oldest first."""
    records = {record.run_id: record for record in list_records(home)}
    members: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records.values():
        members[_head(record, records)].append(record)
    families = [
        _Family(some, max(one.created for one in some), max(_last_sign(home, one) for one in some))
        for some in members.values()
    ]
    families.sort(key=lambda family: family.created, reverse=True)
    chosen = families[keep_runs or 0 :]
    if older_than is not None:
        chosen = [family for family in chosen if time.time() - family.last_sign > older_than]
    return chosen[::-1]


def _head(record: RunRecord, records: dict[str, RunRecord]) -> str:
    """The run at the top of a run's ancestors, itself where it has none."""
    seen = {record.run_id}
    while (parent := record.parent) and parent in records and parent not in seen:
        record = records[parent]
        seen.add(parent)
    return record.run_id


def _last_sign(home: Home, record: RunRecord) -> float:
    """When a run ended.

    Of one that did not, when its folder was last written to. Seconds since 1970.
    """
    if record.ended:
        return datetime.fromisoformat(record.ended).timestamp()
    run_dir = home.runs / record.run_id
    times = [datetime.fromisoformat(record.created).timestamp()]
    for name in (RECORD_FILE, JOURNAL_FILE):
        with contextlib.suppress(OSError):
            times.append((run_dir / name).stat().st_mtime)
    return max(times)


def _prune_runs(
    home: Home,
    families: Sequence[_Family],
    held: Holdings,
    result: Pruned,
    *,
    versions: bool,
    dry_run: bool,
) -> set[str]:
    """Remove families whole, and what an earlier prune left of a run.

    Gives the ids of the runs that are gone.
    """
    registered = held.versions
    if not dry_run:
        for trash in sorted(home.runs.glob(f".*{TRASH}")):
            if said := _empty(trash, registered, versions=versions):
                result.notes.append(said)
    gone: set[str] = set()
    for family in families:
        sizes = {one.run_id: _measure(home, one, held) for one in family.records}
        reasons = {
            one.run_id: _reason_to_keep(home, one, sizes, registered, versions)
            for one in family.records
        }
        if not any(reasons.values()) and not dry_run:
            reasons = _move(home, family)
        if any(reasons.values()):
            of_another = next(
                f"it belongs to {run}, which stays" for run, reason in reasons.items() if reason
            )
            result.kept.update({run: reason or of_another for run, reason in reasons.items()})
            continue
        for one in family.records:
            if not dry_run:
                _empty(_trash_of(home.runs / one.run_id), registered, versions=versions)
            gone.add(one.run_id)
            result.gone.append(Item("run", one.run_id, sizes[one.run_id] or 0))
    return gone


def _measure(home: Home, record: RunRecord, held: Holdings) -> int | None:
    """Bytes of a run here and in the embedded tracker.

    None where the tracker does not have it.
    """
    in_mlflow = held.measure(record.mlflow_run_id, record.run_id) if record.mlflow_run_id else 0
    return None if in_mlflow is None else in_mlflow + size_of(home.runs / record.run_id)


def _reason_to_keep(
    home: Home,
    record: RunRecord,
    sizes: dict[str, int | None],
    registered: dict[str, list[Version]],
    versions: bool,
) -> str:
    """Why a run stays although the rule names it.

    Empty where it may go.
    """
    if (home.runs / record.run_id).is_symlink():
        return "its folder is a link that leads elsewhere; delete it by hand"
    if is_locked(home.runs / record.run_id / LOCK_FILE):
        return "it is being written"
    if record.status == "RUNNING" and time.time() - _last_sign(home, record) < STARTING_SECONDS:
        return "it has just been started"
    made = registered.get(record.mlflow_run_id, []) if record.mlflow_run_id else []
    for version in made:
        if version.aliases:
            return f"{version} is @{', @'.join(version.aliases)}"
    if made and not versions:
        return f"{made[0]} was made from it; --versions deletes versions without an alias"
    try:
        num_waiting = waiting(Run(home.runs / record.run_id, record))
    except TrackingError as error:
        return f"nobody can say whether its journal waits for MLflow: {error}"
    if num_waiting:
        return "its journal waits for MLflow; torchrelay sync sends it"
    if sizes[record.run_id] is None:
        return (
            "this tracker does not have it, so that nobody can say whether it is registered; "
            "delete its folder by hand"
        )
    return ""


def _move(home: Home, family: _Family) -> dict[str, str]:
    """Take the runs of a family out of sight, all or none.

    Reasons where one is being written after all.
    """
    with contextlib.ExitStack() as stack:
        for one in family.records:
            try:
                stack.enter_context(lock(home.runs / one.run_id / LOCK_FILE, f"run {one.run_id}"))
            except BusyError:
                return {
                    other.run_id: "it is being written" if other is one else ""
                    for other in family.records
                }
        for one in family.records:
            run_dir = home.runs / one.run_id
            run_dir.rename(_trash_of(run_dir))
    return {one.run_id: "" for one in family.records}


def _trash_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{TRASH}")


def _empty(trash: Path, registered: dict[str, list[Version]], *, versions: bool) -> str:
    """Remove a run that is out of sight.

    From MLflow first, as its record says who it is there.

    One of an earlier prune that was registered since then comes back.

    Returns:
        Why it stays, where its record is not that of the run whose folder it was.
    """
    run_id = trash.name.removeprefix(".").removesuffix(TRASH)
    if (trash / RECORD_FILE).exists() and not trash.is_symlink():
        try:
            record = load_record(trash, run_id)
        except SourceError as error:
            return f"{trash} stays: {error}; delete it by hand"
        made = registered.get(record.mlflow_run_id, []) if record.mlflow_run_id else []
        if any(version.aliases for version in made) or (made and not versions):
            trash.rename(trash.with_name(run_id))
            return ""
        if record.mlflow_run_id:
            from ..tracking import remove_run

            remove_run(record.mlflow_run_id, run_id, made)
    from ..tasks.assembly import forget  # which knows models, and so torch

    remove_tree(trash)
    forget(run_id)
    return ""


def _prune_data(home: Home, gone_runs: set[str], result: Pruned, *, dry_run: bool) -> None:
    """Packs, then pixels, then what can be made again."""
    needed = _packs_in_use(home, gone_runs)
    if needed is None:
        result.notes.append(
            f"packs and pixels stay: a run in {home.runs} does not say which pack it needs"
        )
        return
    packs = unneeded_packs(home, needed)
    if fresh := len(fresh_packs(home, needed)):
        some = (
            "1 pack was used just now and stays"
            if fresh == 1
            else f"{fresh:,} packs were used just now and stay"
        )
        result.notes.append(f"{some}; prune again in a minute")
    for pack in packs:
        result.gone.append(Item("pack", pack.name, size_of(pack)))
        if not dry_run:
            remove_data(pack)
    try:
        shards = unneeded_shards(home, packs)
    except DataError as error:
        result.notes.append(f"pixels stay: {error}")
        shards = []
    for shard in shards:
        result.gone.append(Item("pixels", str(shard.relative_to(home.root)), size_of(shard)))
        if not dry_run:
            remove_shard(shard)
    kinds: tuple[tuple[Literal["cache", "leftover"], list[Path]], ...] = (
        ("cache", old_sources(home)),
        ("leftover", leftovers(home)),
    )
    for kind, paths in kinds:
        for path in paths:
            result.gone.append(Item(kind, str(path.relative_to(home.root)), size_of(path)))
            if not dry_run:
                remove_data(path)


def _packs_in_use(home: Home, gone_runs: set[str]) -> set[str] | None:
    """Names of the packs that the runs refer to, whatever version wrote them.

    None where one cannot be read.
    """
    needed = set()
    for run_dir in home.runs.iterdir() if home.runs.is_dir() else ():
        path = run_dir / RECORD_FILE
        if run_dir.name in gone_runs or run_dir.name.startswith(".") or not path.exists():
            continue
        try:
            needed.add(Path(read_json(path)["pack_dir"]).name)
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return needed
