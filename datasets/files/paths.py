"""Finds the files that a column of relative paths names, and refuses every path
that leaves the root.

Reads no file's content: one lstat a file, one walk a parent folder. 60,000 paths take about 0.2 s.
A name that is not there as the cell spells it may be there in another spelling (`names.py`):
then that file is taken, and said.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..verdicts import MISSING_FILE, Reason, Verdicts, quote
from .names import UNICODE, Folders, fold, is_windows, respell

URL = "a URL"
# Parts of the path of a folder that links may be proposed to lead into: `/srv/cache` has three.
MIN_DEPTH = 3
LEAVES, BROKEN = "a symlink that leaves data.files", "a broken link"
# How a link of a tool leads to its cache, and what puts there what is missing.
_CACHES = {
    "/annex/objects/": "git annex get",
    "/files/md5/": "dvc pull",
    "/.dvc/cache/": "dvc pull",
}


class Files(NamedTuple):
    """The files of a column, one entry a row.

    Rows without a file have "" and 0.

    Attributes:
        paths: absolute, symlinks resolved. Two spellings of one file have one path.
        sizes: int64, shape (rows,), bytes.
        stamps: see `stamp_of`.
        notes: sentences on cells that were read in another spelling.
        links: folders outside the root that refused symlinks lead to, each once.
    """

    paths: list[str]
    sizes: np.ndarray
    stamps: list[str]
    notes: list[str]
    links: list[str]

    def take(self, rows: np.ndarray) -> Files:
        """The files of some rows."""
        some = rows.tolist()
        return self._replace(
            paths=[self.paths[row] for row in some],
            sizes=self.sizes[rows],
            stamps=[self.stamps[row] for row in some],
        )


def stamp_of(status: os.stat_result) -> str:
    """What changes with a file's bytes, as text.

    Size, times of modification and of change, inode and device.

    A copy that keeps size and time of modification has another inode, or at least another time of
    change, which no program sets. Where a network's file system numbers its files anew, they are
    only read and hashed again.
    """
    return (
        f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} "
        f"{status.st_dev}"
    )


def find_files(
    cells: Sequence[str], root: Path, verdicts: Verdicts, links: Sequence[str] = ()
) -> Files:
    r"""Find the file of each cell, and reject a row without one.

    Bad are an absolute path, `..`, a URL, a path inside an archive or through any other file, a
    symlink that ends neither in the root nor in one of `links`, and what is missing, not a file, or
    empty. A cell that names no file as it stands is read with `/` for `\`, without spaces and
    quotes around it, with `%20` as a space, and in another Unicode form, where that file exists. A
    name of other letters or another case is no such file, and said.

    Args:
        cells: paths relative to the root.
        root: the folder that no path may leave.
        verdicts: gets the reasons.
        links: folders that symlinks may lead into.
    """
    finder = _Finder(root, links)
    found: list[_File] = []
    for row, cell in enumerate(cells):
        one = finder.find(cell)
        if isinstance(one, Reason):
            verdicts.reject(row, *one)
            one = _NO_FILE
        found.append(one)
    return Files(
        [one.path for one in found],
        np.array([one.size for one in found], np.int64),
        [one.stamp for one in found],
        finder.notes(),
        list(finder.leaving),
    )


def count_files(cells: Sequence[str], root: Path) -> int:
    """How many cells name a file below a folder, or a link there that leads
    out of it.
    """
    finder = _Finder(root, ())
    found = [finder.find(cell) for cell in cells]
    return sum(not isinstance(one, Reason) or one.kind == LEAVES for one in found)


def common_folders(folders: Sequence[str]) -> list[str]:
    """The folder that holds all of these, as links lead into a cache.

    Nothing where that holds half the disk.
    """
    common = os.path.commonpath(folders) if folders else ""
    is_wide = len(Path(common).parts) < MIN_DEPTH or Path(common) in (
        Path.home(),
        *Path.home().parents,
    )
    return [] if is_wide else [common]


class _File(NamedTuple):
    """A file that a cell names."""

    path: str
    size: int
    stamp: str


_NO_FILE = _File("", 0, "")


class _Finder:
    """Remembers the parent folders and files that it has seen."""

    def __init__(self, root: Path, links: Sequence[str]) -> None:
        self.root = os.path.realpath(root)
        self.allowed = [self.root, *map(os.path.realpath, links)]
        self.folders: dict[str, str | Reason] = {"": self.root}
        self.listed = Folders()
        self.leaving: dict[str, None] = {}
        self.path_of: dict[tuple[int, int], str] = {}
        self.respelled: dict[str, tuple[int, str]] = {}

    def notes(self) -> list[str]:
        """How many cells were read in which other spelling, each with an
        example.
        """
        return [
            f"{num:,} {'cell names its file' if num == 1 else 'cells name their files'} in another "
            f"spelling ({how}), "
            f"for example {cell!r}; that file is taken"
            for how, (num, cell) in self.respelled.items()
        ]

    def find(self, cell: str) -> _File | Reason:
        """A cell's file, or why there is none."""
        found, how = self._look(cell), ""
        if isinstance(found, Reason) and found.kind in (MISSING_FILE, URL):
            if is_windows(cell):
                return Reason(
                    "an absolute path of Windows, expected one relative to data.files", cell
                )
            found, how, text = self._look_again(cell, found)
        else:
            text = cell
        if isinstance(found, Reason):
            return found._replace(value=cell)
        if not text.isascii() and not os.path.lexists(f"{self.root}/{text}"):
            how = ", ".join(filter(None, (how, UNICODE)))
        if how:
            num, first = self.respelled.get(how, (0, cell))
            self.respelled[how] = num + 1, first
        return found

    def _look_again(self, cell: str, found: Reason) -> tuple[_File | Reason, str, str]:
        """The file that a cell means in another spelling, how that is and
        which.

        Else why there is none.
        """
        for how, text in respell(cell):
            other = self._look(text)
            if not isinstance(other, Reason) or other.kind not in (MISSING_FILE, URL):
                return other, how, text
            found = other if other.detail else found
        return found, "", cell

    def _look(self, cell: str) -> _File | Reason:
        split = cell.rfind("/") + 1
        folder, name = cell[:split], cell[split:]
        parent = self.folders.get(folder)
        if parent is None:
            parent = self.folders[folder] = self._find_folder(folder)
        if isinstance(parent, Reason):
            return parent
        if name == "..":
            return Reason("a path with .. that may leave data.files")
        found = self._follow(parent, name) if cell.strip() else Reason("empty path")
        if isinstance(found, Reason):
            return found
        path, status = found
        if not stat.S_ISREG(status.st_mode):
            return Reason("not a file")
        size = status.st_size
        return (
            _File(self._name(path, status), size, stamp_of(status))
            if size
            else Reason("file of zero bytes")
        )

    def _name(self, path: str, status: os.stat_result) -> str:
        """The path of a file, or that of the same file by which it came
        before, where the disk knows no case.
        """
        if status.st_nlink != 1:
            return path
        known = self.path_of.setdefault((status.st_dev, status.st_ino), path)
        return known if known == path or fold(known) == fold(path) else path

    def _find_folder(self, folder: str) -> str | Reason:
        if "://" in folder:
            return Reason(URL, remedy="name a file by its path relative to data.files")
        if folder.startswith("/"):
            return Reason("an absolute path, expected one relative to data.files")
        parts = [part for part in folder.split("/") if part not in ("", ".")]
        if ".." in parts:
            return Reason("a path with .. that may leave data.files")
        found, seen = self.root, ""
        for part in parts:  # each folder on the way is looked at once
            seen = f"{seen}/{part}"
            below = self.folders.get(seen)
            if below is None:
                below = self.folders[seen] = self._step_into(found, part)
            if isinstance(below, Reason):
                return below
            found = below
        return found

    def _step_into(self, parent: str, name: str) -> str | Reason:
        found = self._follow(parent, name)
        if isinstance(found, Reason):
            return found
        path, status = found
        if not stat.S_ISDIR(status.st_mode):
            return Reason("a path inside an archive or another file", remedy="unpack it first")
        return path

    def _follow(self, parent: str, name: str) -> tuple[str, os.stat_result] | Reason:
        """Where a name in a folder leads, symlinks resolved, and what is
        there.
        """
        path = f"{parent}/{name}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            same = self.listed.same_letters(parent, name)
            if len(same) == 1:
                return self._follow(parent, same[0]) if same[0] != name else Reason(MISSING_FILE)
            if not same and (instead := self.listed.stand_in(parent, name)):
                return Reason(
                    MISSING_FILE, detail=f"in its place is {instead.name!r}", remedy=instead.remedy
                )
            near = same or self.listed.nearest(parent, name)
            shown = ", ".join(repr(os.path.relpath(f"{parent}/{one}", self.root)) for one in near)
            return Reason(MISSING_FILE, detail=f"nearest there is {shown}" if near else "")
        except (OSError, ValueError) as error:
            return Reason("a path that cannot be opened", said=quote(error))
        return self._resolve(path) if stat.S_ISLNK(status.st_mode) else (path, status)

    def _resolve(self, link: str) -> tuple[str, os.stat_result] | Reason:
        """Where a symlink ends, and what is there."""
        path = os.path.realpath(link)
        try:
            status = os.lstat(path)
        except OSError as error:
            remedy = next((what for cache, what in _CACHES.items() if cache in path), "")
            return Reason(BROKEN, detail=f"nothing is at {path}", remedy=remedy, said=quote(error))
        if stat.S_ISLNK(status.st_mode):
            return Reason("a link that leads to itself")
        if not any(path == one or path.startswith(one.rstrip("/") + "/") for one in self.allowed):
            folder = path if stat.S_ISDIR(status.st_mode) else path.rpartition("/")[0]
            self.leaving[folder] = None
            remedy = f"name the folder that it leads to: `data.links: [{folder}]`"
            return Reason(LEAVES, detail=f"it leads to {path}", remedy=remedy)
        return path, status
