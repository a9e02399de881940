"""Finds packs, shards of the pixel store and leftovers that nothing needs, and
removes them; knows no runs.

An ingest holds the data of a home (`hold_data`) from its first look into the store until its pack
is committed; what it is about to refer to cannot go meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ...disk import lock, read_json, remove_tree, share_lock
from ...errors import BusyError, DataError
from ...settings import Home
from ..layout import MANIFEST, PIXELS, QUARANTINE, STALE_SECONDS

# Between an ingest and the record of the run that it was for, nothing refers to a pack but the
# process in between.
GRACE_SECONDS = 60.0
TRASH = ".trash"
# Below the packs: a folder for each table that was refused, with its bad rows.
REJECTED = "rejected"
# What goes by itself has a name that we gave it: a pack or a store its digest, a shard a random
# one, perhaps set aside.
OUR_NAME, OUR_SHARD = re.compile(r"[0-9a-f]{32}"), re.compile(r"(bad-)?[0-9a-f]{32}(-\d+)?")


def hold_data(home: Home) -> contextlib.AbstractContextManager[None]:
    """Keep packs and store as they are, apart from what is added.

    Any number of processes may.
    """
    return share_lock(home.root / "data.lock")


def mark_used(pack: Path) -> None:
    """Keep a pack for a while although no run refers to it yet.

    Call it while the data is held.
    """
    os.utime(pack)


@contextlib.contextmanager
def claim_data(home: Home) -> Iterator[bool]:
    """Be alone with packs and store.

    Gives False, at once, where an ingest is at work.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(home.root / "data.lock", "the data of this home"))
        except BusyError:
            yield False
            return
        yield True


def unneeded_packs(home: Home, needed: Collection[str]) -> list[Path]:
    """Packs that are not among the needed ones, by name, and were not made
    or found just now.
    """
    return [pack for pack in _idle_packs(home, needed) if not _is_fresh(pack)]


def fresh_packs(home: Home, needed: Collection[str]) -> list[Path]:
    """Packs that are not among the needed ones, by name, and stay because
    they were made or found just now.
    """
    return [pack for pack in _idle_packs(home, needed) if _is_fresh(pack)]


def _idle_packs(home: Home, needed: Collection[str]) -> list[Path]:
    return [
        pack
        for pack in list_packs(home)
        if pack.name not in needed and OUR_NAME.fullmatch(pack.name)
    ]


def unneeded_shards(home: Home, gone: Collection[Path]) -> list[Path]:
    """Shards that no pack names.

    Those without pixels go with the last shard of their store.

    Args:
        home: whose store and packs.
        gone: packs that do not count.
    Raises:
        DataError: a pack does not say which shards it needs, so that none can go.
    """
    needed = {shard for pack in list_packs(home) if pack not in gone for shard in shards_of(pack)}
    unneeded = []
    for store in list_folders(home.store):
        if not OUR_NAME.fullmatch(store.name):
            continue
        shards = [shard for shard in list_folders(store) if OUR_SHARD.fullmatch(shard.name)]
        kept = [shard for shard in shards if shard.resolve() in needed]
        for shard in shards:
            has_pixels = (shard / PIXELS).exists()
            if shard not in kept and (has_pixels or not kept):
                unneeded.append(shard)
    return unneeded


def shards_of(pack: Path) -> set[Path]:
    """The shards that a pack of any format version points into, absolute.

    Raises:
        DataError: its manifest cannot be read.
    """
    try:
        features: list[dict[str, Any]] = read_json(pack / MANIFEST)["features"]
        return {
            (pack / one["store"] / name).resolve()
            for one in features
            for name in one.get("shards", [])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"pack {pack} does not say which shards it needs ({error}); delete it and prune again"
        ) from error


def old_sources(home: Home) -> list[Path]:
    """What was downloaded from MLflow into the cache, and can be again."""
    return [folder for folder in list_folders(home.cache / "sources") if not _is_fresh(folder)]


def leftovers(home: Home) -> list[Path]:
    """What writers that died left half-written and what refused tables left,
    older than a day; and what an earlier prune did not finish.
    """
    found = [
        folder
        for folder in list_folders(home.packs / REJECTED)
        if _age(folder / QUARANTINE) > STALE_SECONDS
    ]
    for root in (home.store, home.packs, home.runs, home.cache):
        found += [path for path in list_hidden(root, ".tmp") if _age(path) > STALE_SECONDS]
        found += list_hidden(root, TRASH) if root != home.runs else []
    return found


def list_hidden(root: Path, suffix: str) -> list[Path]:
    """All below a folder whose names begin with a dot and end so.

    Behind links nothing is looked for.
    """
    return [
        Path(folder, name)
        for folder, folders, names in os.walk(root)
        for name in (*folders, *names)
        if name.startswith(".") and name.endswith(suffix)
    ]


def remove_data(path: Path) -> None:
    """Remove a file or folder.

    Under another name first, so that no half of it is ever taken for a whole.
    """
    trash = (
        path if path.name.startswith(".") else path.rename(path.with_name(f".{path.name}{TRASH}"))
    )
    remove_tree(trash)


def remove_shard(shard: Path) -> None:
    """Remove a shard, and its store where it was the last."""
    remove_data(shard)
    with contextlib.suppress(OSError):
        shard.parent.rmdir()


def list_packs(home: Home) -> list[Path]:
    """The folders of all packs."""
    return [folder for folder in list_folders(home.packs) if (folder / MANIFEST).exists()]


def list_folders(root: Path) -> list[Path]:
    """Sub-folders in order, without those that are half-written or going,
    and without links: those lead elsewhere.
    """
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        names = [
            one.name
            for one in entries
            if one.is_dir(follow_symlinks=False) and not one.name.startswith(".")
        ]
    return [root / name for name in sorted(names)]


def _is_fresh(path: Path) -> bool:
    return _age(path) < GRACE_SECONDS


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
