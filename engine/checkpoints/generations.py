"""One generation of a checkpoint on disk.

Its name, its manifest, and whether its bytes are those that were written.

Imports no torch, so that `torchrelay checkpoints` answers at once. Which generations there are to
be is the business of `store.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...disk import is_damage, is_sealed, open_file, seal, unseal, unseal_name
from ...errors import CheckpointError, check_format, shown

FORMAT_VERSION = 2
STATE_FILE, MANIFEST_FILE = "state.pt", "manifest.json"
# Of so few digits that any is a number: a manifest may state what no file could be called.
_NAME = re.compile(r"step-(\d{1,99})(?:-(\d{1,99}))?")


class DamagedError(CheckpointError):
    """A generation is not as it was written.

    Says what is wrong.
    """


def name_generation(step: int, number: int = 1) -> str:
    """`step-00001234`.

    The second of one step, as at an epoch's last step, is `step-00001234-2`.
    """
    return f"step-{step:08d}" + (f"-{number}" if number > 1 else "")


def parse_name(name: str) -> tuple[int, int] | None:
    """Step and number of a generation, the order in which generations were
    made.

    None where it is no name of one.
    """
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2] or 1))


def list_generations(folder: Path) -> list[Path]:
    """The generations that stand in a folder of checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = {path: parse_name(path.name) for path in folder.glob("step-*")}
    return sorted(
        (path for path, order in found.items() if order), key=lambda path: found[path] or (0, 0)
    )


def list_set_aside(folder: Path) -> list[Path]:
    """The generations that were set aside, in the order of their names."""
    return sorted(folder.glob("bad-step-*"))


def read_pointer(folder: Path, name: str) -> str:
    """The generation that `last` or `best` names.

    Empty where there is no such file, or it does not verify.

    Raises:
        OSError: it cannot be read, which does not mean that there is none.
    """
    try:
        return verify_pointer(folder, name)
    except DamagedError:
        return ""


def verify_pointer(folder: Path, name: str) -> str:
    """The same, but a pointer that does not verify is an error.

    Raises:
        DamagedError: it is not as it was written.
        OSError: it cannot be read, which does not mean that there is none.
    """
    try:
        text = _read_file(folder / name).decode().strip()
        found = unseal_name(text)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError:
        found = None
    if found is None or parse_name(found) is None:
        raise DamagedError(f"{name} is not as it was written")
    return found


def dump_manifest(manifest: Mapping[str, Any]) -> str:
    """The text of a manifest, with a digest over all its values."""
    return json.dumps(seal(manifest), indent=2) + "\n"


def read_manifest(folder: Path, run_id: str = "") -> dict[str, Any]:
    """Read a generation's manifest.

    Args:
        folder: of the generation.
        run_id: whose it must be; empty takes anybody's.
    Raises:
        DamagedError: it is missing, not as it was written, of another run, or says what no manifest
            does.
        CheckpointError: it was written by another version of torchrelay, or cannot be read now.
    """
    data = _read(folder / MANIFEST_FILE)
    try:
        values = dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{MANIFEST_FILE} cannot be read: {error}") from error
    version, manifest = values.get("format_version"), unseal(values)
    # Every version from 2 on is sealed in this way: a version that was changed by accident is no
    # other version.
    if manifest is None and (is_sealed(values) or version in (None, FORMAT_VERSION)):
        raise DamagedError(f"{MANIFEST_FILE} does not have the digest that it names")
    again = "resume the run with the torchrelay that wrote it, or train it again"
    check_format(f"checkpoint {folder}", version, FORMAT_VERSION, again, CheckpointError)
    manifest = manifest or {}
    if run_id and manifest.get("run_id", run_id) != run_id:
        raise DamagedError(
            f"it is of run {manifest['run_id']}, not of {run_id}: a run goes on from its own alone"
        )
    _check(manifest)
    return manifest


def _check(manifest: Mapping[str, Any]) -> None:
    """Refuse what was sealed and is followed nowhere.

    A best that is no generation's name, a state without facts.

    Raises:
        DamagedError: says what.
    """
    best, files = manifest.get("best"), manifest.get("files")
    if not isinstance(best, str) or (best and parse_name(best) is None):
        raise DamagedError(
            f"{MANIFEST_FILE} names {shown(repr(best))} as the best, which is no generation"
        )
    facts = files.get(STATE_FILE) if isinstance(files, dict) else None
    if (
        not isinstance(facts, dict)
        or not isinstance(facts.get("bytes"), int)
        or "sha256" not in facts
    ):
        raise DamagedError(f"{MANIFEST_FILE} does not say what {STATE_FILE} is")
    if not isinstance(manifest.get("fingerprint"), dict):
        raise DamagedError(f"{MANIFEST_FILE} does not say on what it was trained")


def read_state(folder: Path, manifest: Mapping[str, Any]) -> bytes:
    """Read a generation's state once, and verify these bytes.

    Raises:
        DamagedError: the state is missing, or is not what the manifest says.
        CheckpointError: it cannot be read now, which says nothing of what stands in it.
    """
    facts = manifest["files"][STATE_FILE]
    data = _read(folder / STATE_FILE)
    if len(data) != facts["bytes"]:
        raise DamagedError(f"{STATE_FILE} has {len(data):,} bytes, expected {facts['bytes']:,}")
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise DamagedError(f"{STATE_FILE} does not have the sha256 of the manifest")
    return data


def _read_file(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def _read(path: Path) -> bytes:
    try:
        return _read_file(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path.name} is missing") from error
    except OSError as error:
        if is_damage(error):
            raise DamagedError(f"{path.name} cannot be read: {error.strerror}") from error
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; that says nothing of the checkpoint, which "
            "stays as it is. "
            "Mend the cause, for example the rights on that file or the limit of open files, and "
            "try again"
        ) from error
