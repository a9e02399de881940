"""Finds the folder that the file paths of a table start at, where nobody
named it.
"""

from __future__ import annotations

from pathlib import Path, PurePath

from ...datasets import Verdicts
from ...datasets.files import (
    HEAD_BYTES,
    SAVE_PICTURE,
    count_files,
    find_files,
    is_windows,
    name_contents,
)
from ...errors import DataError

# Folders beside the table where its pictures may lie.
FOLDERS = ("", "images", "image", "imgs", "img", "pictures", "photos", "files", "data")
MOST_FOLDERS = 50


def find_root(table: Path, column: str, cells: list[str], given: Path | None) -> Path:
    """The folder where most of these files are.

    Raises:
        DataError: none has half of them, or half of the paths cannot start at any.
    """
    leaving = [cell for cell in cells if _is_absolute(cell) or ".." in PurePath(cell).parts]
    if 2 * len(leaving) >= len(cells):
        what = "absolute paths" if _is_absolute(leaving[0]) else "paths with .."
        raise DataError(
            f"{table}: column {column!r} holds {what} such as {leaving[0]!r}; expected paths "
            "relative to data.files, "
            f"the folder that --files DIR names: shorten them in the table"
        )
    cells = [cell for cell in cells if cell not in leaving]
    candidates = [given.absolute()] if given else _folders_near(table)
    counts = {folder: count_files(cells, folder) for folder in candidates}
    best = max(counts, key=lambda folder: counts[folder])
    if 2 * counts[best] > len(cells):
        return best
    some = ", ".join(str(folder) for folder in candidates[:4]) + (
        ", …" if len(candidates) > 4 else ""
    )
    verdicts = Verdicts(len(cells))
    find_files(cells, best, verdicts)
    reason, advice = "", "say with --files DIR where these paths start"
    if near := next((one for one in verdicts.reasons.values() if one.detail), None):
        reason = f" ({near._replace(remedy='')})"
        advice = (
            near.remedy
            or "write the paths as the files are named, or say with --files DIR where they start"
        )
    raise DataError(
        f"{table}: column {column!r} names pictures such as {cells[0]!r}, and {counts[best]} of "
        f"{len(cells)} that were "
        f"looked for are in {some}{reason}; {advice}"
    )


def _is_absolute(cell: str) -> bool:
    return PurePath(cell).is_absolute() or is_windows(cell)


def no_picture(column: str, looked: list[str], verdicts: Verdicts) -> DataError:
    """Why no file of a column can be looked at, by the first of them."""
    if not looked:
        return DataError(
            f"{column}: no file can be read; the first: {next(iter(verdicts.reasons.values()))}"
        )
    path = Path(looked[0])
    with path.open("rb") as file:
        contents = name_contents(file.read(HEAD_BYTES))
    what = f", which is {contents.what}; {contents.remedy or SAVE_PICTURE}" if contents else ""
    return DataError(f"{column}: no file that was looked at is a picture; one is {path}{what}")


def _folders_near(table: Path) -> list[Path]:
    folder = table.parent
    near = [folder / name for name in FOLDERS] + [
        folder / table.stem,
        folder.parent,
        folder.parent / "images",
    ]
    below = sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    return list(dict.fromkeys(one for one in [*near, *below[:MOST_FOLDERS]] if one.is_dir()))
