"""The files of a split and their manifest.

Sha256 and size of each, so that a damaged one is noticed where it is read.

What stands in them is the business of `datasets/ingest/prepare.py`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from ...disk import (
    describe_failure,
    find_changed,
    is_damage,
    list_files,
    read_json,
    seal,
    set_aside,
    unseal,
    why_no_list,
)
from ...errors import DataError, check_format
from ..layout import MANIFEST

FORMAT_VERSION = 1
AGAIN = "run `torchrelay ingest` again, which makes it anew"


class DamagedSplitError(DataError):
    """A split is not as it was written.

    Says which file, and what to do.

    Attributes:
        what: is wrong; what to do stands in `AGAIN`.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; {AGAIN}")
        self.what = what


def write_manifest(split_dir: Path) -> None:
    """Write down what the other files of a split are.

    For a folder that nobody else sees yet.
    """
    names = sorted(path.name for path in split_dir.iterdir() if path.name != MANIFEST)
    values = {"format_version": FORMAT_VERSION, "files": list_files(split_dir, names)}
    (split_dir / MANIFEST).write_text(json.dumps(seal(values), indent=2) + "\n", "utf-8")


def verify_split(split_dir: Path) -> None:
    """Read every file of a split, once for each process, and compare its
    sha256.

    A split of an older version has no manifest: then nothing is known of its bytes, and nothing is
    said.

    Raises:
        DamagedSplitError: a file is missing or differs; names it.
        DataError: one cannot be read now, or another version wrote the manifest.
    """
    if not (split_dir / MANIFEST).exists():
        return
    try:
        changed = next(find_changed(split_dir, _read_manifest(split_dir)["files"]), "")
    except OSError as error:
        if not is_damage(error):
            raise DataError(
                f"split {split_dir} cannot be read: {describe_failure(error)}"
            ) from error
        changed = f"{Path(error.filename or MANIFEST).name} cannot be read: {error.strerror}"
    if changed:
        raise DamagedSplitError(f"split {split_dir}: {changed}")


def list_split(split_dir: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of a split's files, by name, each in its folder.

    None of a split of an older version.

    Raises:
        DamagedSplitError: the list itself is not as it was written.
    """
    return _read_manifest(split_dir)["files"] if (split_dir / MANIFEST).exists() else {}


def find_split(split_dir: Path) -> bool:
    """Whether a split of this version is there as it was written.

    One that is not is set aside, with a warning.

    Raises:
        DataError: it cannot be read now, which says nothing of what stands in it.
    """
    if not split_dir.is_dir():
        return False
    try:
        if not (split_dir / MANIFEST).exists():
            raise DamagedSplitError(f"split {split_dir}: {MANIFEST} is missing")
        verify_split(split_dir)
    except DamagedSplitError as error:
        warnings.warn(
            f"{error.what}; made anew, the old one is {set_aside(split_dir).name}", stacklevel=4
        )
        return False
    return True


def _read_manifest(split_dir: Path) -> dict[str, Any]:
    try:
        values = unseal(dict(read_json(split_dir / MANIFEST)))
    except (ValueError, TypeError):
        values = None
    if values is None:
        raise DamagedSplitError(
            f"split {split_dir}: {MANIFEST} does not have the digest that it names"
        )
    check_format(
        f"split {split_dir}", values.get("format_version"), FORMAT_VERSION, AGAIN, DataError
    )
    if reason := why_no_list(values.get("files")):
        raise DamagedSplitError(f"split {split_dir}: {MANIFEST} cannot be followed: {reason}")
    return values
