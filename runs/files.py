"""Reads the files of a run and checks them against their sha256.

The record has the sha256 of each. Older runs have none there; their files are read as they are. The
tasks decide which file is written when.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..disk import (
    describe_failure,
    digest,
    is_damage,
    read_json,
    sha256_of_file,
    unseal,
    why_no_list,
)
from ..errors import SourceError, TorchrelayError
from ..recipe import Recipe, load_recipe
from ..schema import Schema
from .journal import Journal
from .layout import CHECKPOINTS, JOURNAL_FILE, NEEDED, RECIPE_FILE, SCHEMA_FILE
from .record import RunRecord, load_record, update_record

# Tag of a run and of a version in MLflow: sha256 of these, as JSON; those of before have none.
FILES_TAG = "torchrelay.files_sha256"
# In a version's folder: sha256 and size of its other files, of which MLflow serves some.
VERSION_FILES = "files.json"


def read_recipe(run_dir: Path) -> Recipe:
    """Read a run's recipe.

    Raises:
        SourceError: it is not the one that the run was made with.
    """
    verify_files(run_dir, load_record(run_dir), [RECIPE_FILE])
    return load_recipe(run_dir / RECIPE_FILE)


def read_schema(run_dir: Path) -> Schema:
    """Read a run's schema.

    Raises:
        SourceError: it is not the one that the run was made with.
    """
    verify_files(run_dir, load_record(run_dir), [SCHEMA_FILE])
    return Schema.load(run_dir / SCHEMA_FILE)


def digests_of(run_dir: Path, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of the files of a run that exist, by their path.

    A folder that is named stands for its files.
    """
    found: dict[str, str] = {}
    for name in names:
        path = run_dir / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[file.relative_to(run_dir).as_posix()] = sha256_of_file(file)
    return found


def tag_files(run_dir: Path) -> dict[str, str]:
    """The tag by which MLflow's copies of a run's files are checked."""
    return {FILES_TAG: json.dumps(digests_of(run_dir, NEEDED))}


@contextlib.contextmanager
def rewriting(run_dir: Path, *names: str) -> Iterator[None]:
    """Write files of a run, or all in a folder, within the block.

    The record's digests of them are removed before and written again after it. A process that dies
    in between leaves files without digests.
    """
    known = load_record(run_dir).files
    kept = {
        one: value for one, value in known.items() if not any(_is_in(one, name) for name in names)
    }
    if kept != known:
        update_record(run_dir, files=kept)
    yield
    update_record(run_dir, files={**kept, **digests_of(run_dir, names)})


def _is_in(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}/")


def verify_files(run_dir: Path, record: RunRecord, names: Iterable[str]) -> None:
    """Compare files of a run with the sha256 in its record.

    Each file is read once by this process.

    Raises:
        SourceError: one differs; says which, and what to do.
    """
    for name in names:
        if reason := why_changed(run_dir, record, name):
            raise SourceError(
                f"run {record.run_id}: {reason}; put it back from a copy (torchrelay doctor --fix "
                "does where it finds "
                f"one), or train the run again"
            )


def why_changed(run_dir: Path, record: RunRecord, name: str) -> str:
    """Why a file does not match the sha256 in a record.

    Empty if it matches, or if the record has none.
    """
    if name not in record.files:
        return ""
    try:
        if sha256_of_file(run_dir / name) == record.files[name] or (
            name == RECIPE_FILE and _is_changing(run_dir)
        ):
            return ""
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        if not is_damage(error):
            raise SourceError(
                f"{run_dir / name} cannot be read: {describe_failure(error)}"
            ) from error
        return f"{name} cannot be read: {error.strerror}"
    return f"{name} does not have the sha256 that the run's record has of it"


def _is_changing(run_dir: Path) -> bool:
    """Whether a process died between writing journal, recipe and record.

    Then the recipe is the one that the run was about to have.
    """
    last = None
    with contextlib.suppress(TorchrelayError):
        for line in Journal(run_dir / JOURNAL_FILE).lines():
            last = line["fields"] if line["kind"] == "event" and line["name"] == "recipe" else last
    return last is not None and last["digest"] == digest(
        (run_dir / RECIPE_FILE).read_text("utf-8", "replace")
    )


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


def verify_weights(run_dir: Path, record: RunRecord, weights: Path) -> None:
    """Check a run's weights file, or a checkpoint's state, by its sha256.

    The run's record has the one, the checkpoint's manifest the other.

    Raises:
        SourceError: it is not what was written, or a checkpoint of another run.
    """
    verify_files(
        run_dir, record, [RECIPE_FILE, SCHEMA_FILE, weights.relative_to(run_dir).as_posix()]
    )
    generation = weights.parent
    if generation.parent != run_dir / CHECKPOINTS:
        return
    try:
        manifest = unseal(read_json(generation / "manifest.json")) or {}
    except (OSError, ValueError, AttributeError):
        manifest = {}
    files = manifest.get("files")
    facts = files.get(weights.name) if isinstance(files, dict) else None
    if not isinstance(facts, dict) or facts.get("sha256") != sha256_of_file(weights):
        raise SourceError(
            f"{weights} is not what the manifest beside it says; torchrelay checkpoints "
            f"{record.run_id}"
        )
    if manifest.get("run_id", record.run_id) != record.run_id:
        raise SourceError(
            f"{weights} is of run {manifest['run_id']}, and recipe and schema around it are of "
            f"{record.run_id}; name "
            f"the file in that run's own folder"
        )
