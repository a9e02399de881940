"""Puts known data sets under a folder as a table and image files, or takes them
from a local folder. Trains nothing.

What is being written has a temporary name until it is whole, so that a data set is either there or
not.
"""

from __future__ import annotations

import csv
import io
import lzma
import os
import shutil
import stat
import tempfile
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ..disk import digest
from ..errors import DataError
from ..recipe import nearest
from .files import fold
from .readers import long_cells

# scikit-learn, torchvision and PIL are imported where they are used: the command line reads this
# file first.

# An archive that unpacks to more than this, or to more than this many times its own size, is
# refused.
MAX_UNPACKED_BYTES = 50_000_000_000
MAX_UNPACKED_RATIO = 200
MAX_ENTRIES = 5_000_000
# Bytes of a name that any disk takes, and letters of a path below the folder.
MAX_NAME, MAX_PATH = 255, 1_000
# A table of a data set.
MAX_TABLE_BYTES = 20_000_000_000
# Data sets of ready recipes that have no source to fetch them from, and their tables.
PLACED = {
    "faces": ("face_landmarks.csv",),
    "languages": ("languages.csv",),
    "uci": ("concrete.csv", "energy.csv"),
    "wn18rr": ("wn18rr.csv",),
}
Progress = Callable[[int, int], None]


class Fetched(NamedTuple):
    """A data set on disk.

    Attributes:
        table: the CSV file.
        files: root of the file paths in the table; the table's folder where it has none.
        rows: of the table.
    """

    table: Path
    files: Path
    rows: int


def fetch(name: str, folder: Path, on_progress: Progress | None = None) -> Fetched:
    """Write `folder/NAME/`, unless it is there.

    Args:
        name: digits (scikit-learn's bundled scans) or cifar10 (what torchvision downloads); one of
            `PLACED` is found where it is, and not fetched.
        folder: where data sets lie.
        on_progress: called with the numbers of images written and of all images.

    Raises:
        DataError: there is no such data set, it cannot be downloaded, or the folder holds other
            images.
    """
    if name in PLACED:
        return _find_placed(name, folder)
    if name not in _WRITERS:
        raise DataError(
            f"there is no data set {name!r} to fetch; {nearest(name, [*_WRITERS, *PLACED])}"
        )
    final = folder / name
    table = final / f"{name}.csv"
    if not table.is_file():
        _WRITERS[name](final, on_progress)
    return Fetched(table, final / "images", _count_rows(table))


def _find_placed(name: str, folder: Path) -> Fetched:
    """A data set that nobody offers for download, where it is there already.

    Of several tables the first.
    """
    tables = [folder / name / table for table in PLACED[name]]
    if not all(table.is_file() for table in tables):
        wanted = " and ".join(f"{name}/{table}" for table in PLACED[name])
        raise DataError(
            f"{name} cannot be fetched, as nobody offers it in this form for download; from a "
            "folder DIR that holds "
            f"{wanted} and, if it has pictures, {name}/images.zip, `torchrelay fetch {name} --from "
            "DIR` places it (in "
            f"the repository: make data FROM=DIR)"
        )
    table = tables[0]
    images = table.parent / "images"
    return Fetched(table, images if images.is_dir() else table.parent, _count_rows(table))


def place(source: Path, folder: Path, names: Sequence[str] = ()) -> list[Fetched]:
    """Copy data sets of a local folder.

    Each sub-folder of `source` with a CSV, and its images.zip if it has one.

    Args:
        source: its sub-folders are data sets, by name.
        folder: gets `NAME/*.csv` and `NAME/images/`; what is complete there stays as it is.
        names: which data sets; all where empty.

    Raises:
        DataError: there is no such folder or data set, or an archive is not safe to unpack.
    """
    if not source.is_dir():
        raise DataError(
            f"{source} is not a folder; expected one whose sub-folders hold a CSV table each"
        )
    try:
        entries = sorted(entry for entry in source.iterdir() if entry.is_dir())
        found = {entry.name: entry for entry in entries if list(entry.glob("*.csv"))}
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from error
    if not found:
        raise DataError(f"no sub-folder of {source} holds a CSV table")
    for name in names:
        if name not in found:
            raise DataError(f"{source} has no data set {name!r}; {nearest(name, found)}")
    try:
        return [
            fetched for name in names or found for fetched in _place_one(found[name], folder / name)
        ]
    except OSError as error:
        place_of = error.filename2 or error.filename or folder
        raise DataError(
            f"data sets cannot be placed in {folder}: {place_of}: {error.strerror}"
        ) from error


def _place_one(source: Path, final: Path) -> Iterator[Fetched]:
    archive = source / "images.zip"
    tables = sorted(source.glob("*.csv"))
    for file, limit in [
        (archive, MAX_UNPACKED_BYTES),
        *((table, MAX_TABLE_BYTES) for table in tables),
    ]:
        if file == archive and not os.path.lexists(file):
            continue
        _check_file(file, limit)
    if archive.is_file() and not (final / "images").is_dir():
        with _whole_folder(final / "images") as images:
            _unpack(archive, images)
    final.mkdir(parents=True, exist_ok=True)
    for table in tables:
        target = final / table.name
        if not target.is_file():
            with _whole_file(target) as temporary:
                shutil.copyfile(table, temporary)
        yield Fetched(target, final / "images" if archive.is_file() else final, _count_rows(target))


def _check_file(path: Path, limit: int) -> None:
    """Refuse what is no regular file, as a pipe or a device gives bytes without
    an end, or too large.

    Raises:
        DataError: says what it is.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        what = (
            f"a link to {path.resolve()}, which is no regular file"
            if path.is_symlink()
            else "no regular file"
        )
        raise DataError(f"{path} is {what}, expected a file that ends; nothing was copied from it")
    if status.st_size > limit:
        raise DataError(f"{path} has {status.st_size:,} bytes, at most {limit:,} are copied")


def check_names(
    archive: Path, entries: Sequence[zipfile.ZipInfo], key_of: Callable[[str], str]
) -> None:
    """Refuse entries whose files would not all be there beside each other.

    Args:
        archive: for messages.
        entries: of files.
        key_of: what the disk compares a name by.
    Raises:
        DataError: names the entries.
    """
    if len(entries) > MAX_ENTRIES:
        raise DataError(
            f"{archive} holds {len(entries):,} files, at most {MAX_ENTRIES:,} are unpacked"
        )
    firsts: dict[str, zipfile.ZipInfo] = {}
    folders: dict[str, str] = {}
    for entry in entries:
        parts = entry.filename.split("/")
        _check_name(archive, entry, parts)
        first = firsts.setdefault(key_of(entry.filename), entry)
        is_same = first.filename == entry.filename and (first.CRC, first.file_size) == (
            entry.CRC,
            entry.file_size,
        )
        if first is not entry and not is_same:
            what = (
                "twice with other bytes"
                if first.filename == entry.filename
                else f"beside {_shown(first)}"
            )
            why = "" if first.filename == entry.filename else ", which this disk takes for one name"
            raise DataError(
                f"{archive}: it holds {_shown(entry)} {what}{why}; nothing was unpacked"
            )
        for depth in range(1, len(parts)):
            below = "/".join(parts[:depth])
            if (known := folders.setdefault(key_of(below), below)) != below:
                raise DataError(
                    f"{archive}: it holds the folders {known!r} and {below!r}, which this disk "
                    "takes for one; "
                    f"nothing was unpacked"
                )
    for key, folder in folders.items():
        if key in firsts:
            raise DataError(
                f"{archive}: it holds {folder!r} as a file and as a folder; nothing was unpacked"
            )


def _check_name(archive: Path, entry: zipfile.ZipInfo, parts: Sequence[str]) -> None:
    if "\0" in entry.orig_filename:  # behind which zipfile cuts a name off
        raise DataError(
            f"{archive}: the entry {_shown(entry)} has a NUL in its name; nothing was unpacked"
        )
    if any(part in ("", ".") for part in parts) or entry.filename.endswith("\\"):
        raise DataError(f"{archive}: the entry {_shown(entry)} names no file; nothing was unpacked")
    if (
        max(len(part.encode("utf-8", "replace")) for part in parts) > MAX_NAME
        or len(entry.filename) > MAX_PATH
    ):
        raise DataError(
            f"{archive}: the entry {_shown(entry)} has too long a name; nothing was unpacked"
        )


def find_key(folder: Path) -> Callable[[str], str]:
    """What the disk of a folder compares names by.

    As they are, or without their case and Unicode form.
    """
    name = f".{uuid.uuid4()}-é"
    with tempfile.TemporaryDirectory(dir=folder) as probe:
        Path(probe, name).touch()
        others = (name.upper(), unicodedata.normalize("NFD", name))
        return fold if any(Path(probe, other).exists() for other in others) else str


def _shown(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename
    return repr(name if len(name) <= 120 else f"{name[:80]}…{name[-39:]}")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack plain files that stay in the folder.

    Raises:
        DataError: an entry would leave the folder, is a link, or there is too much.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            limit = min(MAX_UNPACKED_BYTES, archive.stat().st_size * MAX_UNPACKED_RATIO)
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > limit:
                raise DataError(
                    f"{archive} would unpack to {unpacked:,} bytes, at most {limit:,} are allowed"
                )
            for entry in entries:
                parts = entry.filename.replace("\\", "/").split("/")
                if ".." in parts or not parts[0] or ":" in parts[0] or "\0" in entry.filename:
                    raise DataError(
                        f"{archive}: the entry {entry.filename!r} leaves the folder; nothing was "
                        "unpacked"
                    )
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise DataError(
                        f"{archive}: the entry {entry.filename!r} is a link; nothing was unpacked"
                    )
            check_names(archive, entries, find_key(folder))
            for entry in entries:  # zipfile stops at the declared size and checks the sum
                opened.extract(entry, folder)
    except (
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
        OSError,
    ) as error:
        if (
            isinstance(error, OSError) and error.errno is not None
        ):  # bz2 raises one without a number
            raise
        raise DataError(f"{archive} cannot be unpacked: {error}; get it anew") from error


def _write_digits(final: Path, on_progress: Progress | None) -> None:
    """1,797 scans of 8 x 8. In each class a fifth tests and a tenth validates.

    The first ones by the hash of a name.
    """
    from sklearn.datasets import load_digits

    scans = cast(Any, load_digits())
    pixels = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    names = [f"{label}/{number:04d}.png" for number, label in enumerate(scans.target.tolist())]
    split = dict.fromkeys(names, "train")
    for label in range(10):
        members = sorted((name for name in names if name[0] == str(label)), key=digest)
        num_test, num_valid = round(len(members) * 0.2), round(len(members) * 0.1)
        split |= dict.fromkeys(members[:num_test], "test")
        split |= dict.fromkeys(members[num_test : num_test + num_valid], "valid")
    _write(final, pixels, [(name, name[0], split[name]) for name in names], on_progress)


def _write_cifar10(final: Path, on_progress: Progress | None) -> None:
    from torchvision.datasets import CIFAR10

    try:
        parts = [
            (split, CIFAR10(final, train=split == "train", download=True))
            for split in ("train", "test")
        ]
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(
            f"CIFAR-10 cannot be downloaded ({error}); without a network put {CIFAR10.filename} "
            f"(md5 {CIFAR10.tgz_md5}) into {final.absolute()} and fetch again"
        ) from error
    rows: list[tuple[str, str, str]] = []
    for split, data in parts:
        seen = [0] * len(data.classes)
        for target in data.targets:
            label = data.classes[target]
            rows.append((f"{split}/{label}/{seen[target]:04d}.png", label, split))
            seen[target] += 1
    _write(final, np.concatenate([data.data for _, data in parts]), rows, on_progress)
    shutil.rmtree(final / CIFAR10.base_folder)  # the archive stays: it may be the user's


_WRITERS: dict[str, Callable[[Path, Progress | None], None]] = {
    "digits": _write_digits,
    "cifar10": _write_cifar10,
}


def _write(
    final: Path,
    pixels: Iterable[np.ndarray],
    rows: list[tuple[str, str, str]],
    on_progress: Progress | None,
) -> None:
    """Write images, then the table.

    Where the table is, everything is.

    Args:
        pixels: uint8, each (H, W) or (H, W, C).
        rows: path below images/, label and split of each.
    """
    from PIL import Image

    images = final / "images"
    if images.is_dir():
        if missing := [path for path, *_ in rows if not (images / path).is_file()]:
            raise DataError(
                f"{images} holds other images, {missing[0]} is not there; move it away and fetch "
                "again"
            )
    else:
        with _whole_folder(images) as folder:
            for path in sorted({(folder / path).parent for path, *_ in rows}):
                path.mkdir(parents=True, exist_ok=True)
            for number, (picture, (path, _, _)) in enumerate(zip(pixels, rows, strict=True), 1):
                Image.fromarray(picture).save(folder / path)
                if on_progress and (number % 500 == 0 or number == len(rows)):
                    on_progress(number, len(rows))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "label", "split"))
    writer.writerows(rows)
    with _whole_file(final / f"{final.name}.csv") as temporary:
        temporary.write_text(text.getvalue(), "utf-8")


@contextmanager
def _whole_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, renamed to it at the end.

    Unlike `files.commit_folder` it flushes all disks once, not each of up to 60,000 small files.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        os.sync()
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def _whole_file(final: Path) -> Iterator[Path]:
    """A temporary path beside `final`, renamed to it at the end."""
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def _count_rows(table: Path) -> int:
    """Rows below the header.

    Raises:
        DataError: it cannot be read, or a cell has more than 2 GiB.
    """
    try:
        with table.open(encoding="utf-8", errors="replace", newline="") as file, long_cells():
            return max(sum(1 for _ in csv.reader(file)) - 1, 0)
    except (OSError, csv.Error) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise DataError(f"the rows of {table} cannot be counted: {said}") from error
