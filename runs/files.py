"""The files of a run, with their sha256 in its record and in MLflow.

Runs of before have none there: their files are read as they are. Which file is written when is the
tasks' business.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..disk import read_json, sha256_of_file, unseal, why_no_list
from ..errors import SourceError
from .layout import CHECKPOINTS, NEEDED, RECIPE_FILE, SCHEMA_FILE
from .run import Run

# Tag of a run and of a version in MLflow: sha256 of these, as JSON; those of before have none.
FILES_TAG = "torchrelay.files_sha256"
# In a version's folder: sha256 and size of its other files, of which MLflow serves some.
VERSION_FILES = "files.json"


def digests_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of the files of a run that exist, by their path.

    A folder that is named stands for its files.
    """
    found: dict[str, str] = {}
    for name in names:
        path = folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[file.relative_to(folder).as_posix()] = sha256_of_file(file)
    return found


def tag_files(run: Run) -> dict[str, str]:
    """The tag by which MLflow's copies of a run's files are checked."""
    return {FILES_TAG: json.dumps(digests_of(run.folder, NEEDED))}


@contextlib.contextmanager
def rewriting(run: Run, *names: str) -> Iterator[None]:
    """Write files of a run, or all in a folder, within the block.

    The record's digests of them are removed before and written again after it. A process that dies
    in between leaves files without digests.
    """
    known = run.record.files
    kept = {
        one: value for one, value in known.items() if not any(_is_in(one, name) for name in names)
    }
    if kept != known:
        run.update(files=kept)
    yield
    run.update(files={**kept, **digests_of(run.folder, names)})


def _is_in(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}/")


def read_version_files(folder: Path) -> dict[str, dict[str, Any]]:
    """The sha256 and size of a version's files, by their path in its folder.

    None for a version of an older torchrelay.

    Raises:
        SourceError: the list is not as it was written.
    """
    try:
        values = unseal(dict(read_json(folder / VERSION_FILES)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{VERSION_FILES} cannot be read: {error}") from error
    if values is None:
        raise SourceError(f"{VERSION_FILES} does not have the digest that it names")
    if reason := why_no_list(values.get("files")):
        raise SourceError(f"{VERSION_FILES} cannot be followed: {reason}")
    return values["files"]


def verify_weights(run: Run, weights: Path) -> None:
    """Check a run's weights file, or a checkpoint's state, by its sha256.

    The run's record has the one, the checkpoint's manifest the other.

    Raises:
        SourceError: it is not what was written, or a checkpoint of another run.
    """
    run.verify([RECIPE_FILE, SCHEMA_FILE, weights.relative_to(run.folder).as_posix()])
    run_id = run.record.run_id
    generation = weights.parent
    if generation.parent != run.folder / CHECKPOINTS:
        return
    try:
        manifest = unseal(read_json(generation / "manifest.json")) or {}
    except (OSError, ValueError, AttributeError):
        manifest = {}
    files = manifest.get("files")
    facts = files.get(weights.name) if isinstance(files, dict) else None
    if not isinstance(facts, dict) or facts.get("sha256") != sha256_of_file(weights):
        raise SourceError(
            f"{weights} is not what the manifest beside it says; torchrelay checkpoints {run_id}"
        )
    if manifest.get("run_id", run_id) != run_id:
        raise SourceError(
            f"{weights} is of run {manifest['run_id']}, and recipe and schema around it are of "
            f"{run_id}; name "
            f"the file in that run's own folder"
        )
