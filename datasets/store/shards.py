"""A shard of the pixel store.

Written as a whole, never changed, set aside where it is not as it was written.

On disk a folder: `pixels.npy` (uint8, uint16 or float32, shape (N, H, W, C)); `index.arrow`, one
row a file that was seen: its key (path and stamp), the hash of its bytes, and where its pixels are
or why there are none; and `manifest.json`, the size and sha256 of both. Which files go into which
shard is decided in `store.py`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import uuid
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from ...disk import (
    commit_folder,
    is_damage,
    make_folder,
    open_to_write,
    read_json,
    set_aside,
    sha256_file,
    writing,
)
from ...errors import DataError
from ...faults import reach
from ...recipe import Feature
from ..images import num_channels
from ..layout import MANIFEST, PIXELS

# Raise it when a shard's files change: every store is then decoded anew.
SHARD_VERSION = 4
INDEX = "index.arrow"
BAD = "bad-"
# What reading a shard raises where it is not as it was written, or cannot be read.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


# Whether a file's path and stamp stand for its content: not yet where it may still change without
# another stamp, never where it did.
Trust = Literal["yes", "not yet", "never"]
# Before the key of a file, which is an absolute path and its stamp.
SIGNS: dict[Trust, str] = {"yes": "", "not yet": "?", "never": "!"}


class Seen(NamedTuple):
    """What became of one file.

    The reason is a `verdicts.Reason` as text.
    """

    content: bytes = b""
    shard: int = -1
    offset: int = -1
    size: tuple[int, int] = (0, 0)
    source: tuple[int, int] = (0, 0)
    reason: str = ""
    notes: int = 0  # what the data report says of it, see `raster.Note`
    lasting: bool = (
        True  # false where there is nothing to remember, or the next call should look again
    )
    trust: Trust = "yes"


def open_shard(store_folder: Path, shard: str) -> np.ndarray:
    """The pixels of a shard, memory-mapped.

    (N, C, H, W), where the channels of a pixel lie side by side in memory.
    """
    return np.load(store_folder / shard / PIXELS, mmap_mode="r").transpose(0, 3, 1, 2)


def verify_shard(folder: Path) -> None:
    """Read every byte of a shard and compare its sha256.

    Raises:
        DataError: a file is missing or differs; names it.
    """
    try:
        _verify_now(folder)
    except _DAMAGE as error:
        _check_readable(folder, error)
        raise DataError(
            f"shard {folder} does not verify ({error}); delete that folder and run `torchrelay "
            "ingest` again, which "
            f"decodes its files anew"
        ) from error


def _verify_now(folder: Path) -> None:
    for name, facts in _check_sizes(folder).items():
        with (folder / name).open("rb") as file:
            header = file.read(facts["header"])
            total = hashlib.file_digest(file, "sha256")
        total.update(header)
        if total.hexdigest() != facts["sha256"]:
            raise ValueError(f"{name} does not have the sha256 of the manifest")


def set_damaged_aside(folders: Sequence[Path]) -> list[Path]:
    """Set aside the shards that do not verify, with a warning.

    Each is read once by this process while it is the same.

    Raises:
        DataError: one cannot be read now, which says nothing of what stands in it.
    """
    with ThreadPoolExecutor(thread_name_prefix="verify") as threads:
        reasons = list(threads.map(_verify_once, folders))
    damaged = [folder for folder, reason in zip(folders, reasons, strict=True) if reason]
    for folder, reason in zip(folders, reasons, strict=True):
        if reason:
            _set_aside(folder, reason)
    return damaged


def _verify_once(folder: Path) -> str:
    """Why a shard does not verify.

    Empty where it does.
    """
    try:
        _verify(
            folder, *(number for name in (PIXELS, MANIFEST) for number in _state_of(folder / name))
        )
    except _DAMAGE as error:
        _check_readable(folder, error)
        return str(error)
    return ""


def _state_of(path: Path) -> tuple[int, ...]:
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


@functools.lru_cache(maxsize=4096)
def _verify(folder: Path, *state: int) -> None:
    _verify_now(folder)


def _check_sizes(folder: Path) -> dict[str, Any]:
    """The manifest of a shard whose files have the sizes that it says.

    Name -> size, header, sha256.

    Raises:
        ValueError: one has another size.
    """
    manifest = read_json(folder / MANIFEST)["files"]
    for name, facts in manifest.items():
        size = (folder / name).stat().st_size
        if size != facts["size"]:
            raise ValueError(f"{name} has {size:,} bytes, expected {facts['size']:,}")
    return manifest


def read_shard(folder: Path) -> pa.Table | None:
    """The index of a shard.

    None where the shard does not fit its manifest, in which case it is set aside.

    Raises:
        DataError: it cannot be read now, which says nothing of what stands in it.
    """
    try:
        facts = _check_sizes(folder)[INDEX]
        with pa.memory_map(str(folder / INDEX)) as source:
            content = source.read_buffer()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise ValueError(f"{INDEX} does not have the sha256 of the manifest")
        return pa.ipc.open_file(pa.BufferReader(content)).read_all()
    except _DAMAGE as error:
        _check_readable(folder, error)
        _set_aside(folder, str(error))
        return None


def _set_aside(folder: Path, reason: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # another ingest was quicker
        aside = set_aside(folder)
        warnings.warn(
            f"shard {folder} does not verify ({reason}); set aside as {aside.name}, its files are "
            "decoded anew",
            stacklevel=6,
        )


def _check_readable(folder: Path, error: Exception) -> None:
    """Raise where a shard was not found bad, but could not be read.

    Raises:
        DataError: names the file, and leaves it where it is.
    """
    if isinstance(error, OSError) and not is_damage(error):
        raise DataError(
            f"{error.filename or folder} cannot be read: {error.strerror or error}; that says "
            "nothing of the shard, "
            "which stays as it is. Mend the cause, for example the rights on that file or the "
            "limit of open files, "
            f"and try again"
        ) from error


class ShardWriter:
    """Streams images into a file beside the shards.

    `commit` makes a shard of them and starts the next.

    Both raise a DataError where the disk refuses, and `close` leaves nothing of what is not
    committed.

    Attributes:
        name: of the shard that is being written.
        num_rows: images in it so far.
        num_committed: files whose fate is committed.
    """

    def __init__(self, folder: Path, feature: Feature, size: tuple[int, int]) -> None:
        self._folder = folder
        self._shape = (*size, num_channels(feature))
        self._dtype = np.dtype(feature.dtype)
        self._file: IO[bytes] | None = None
        self.num_committed = 0
        self._begin()

    def _begin(self) -> None:
        self.name = uuid.uuid4().hex
        self.num_rows = 0
        self._sha256 = hashlib.sha256()
        self._part = self._folder / f".{self.name}.npy.tmp"

    def append(self, pixels: np.ndarray) -> None:
        """Write images (N, H, W, C) behind those that are there."""
        if not len(pixels):
            return
        with writing("pixels", self._folder):
            if self._file is None:
                make_folder(self._folder)
                self._file = open_to_write(self._part, "wb")
                self._file.write(self._header())
            self._file.write(pixels.data)
        self._sha256.update(pixels.data)
        self.num_rows += len(pixels)

    def commit(self, keys: pa.Array, seen: list[Seen], shards: list[str]) -> None:
        """Make the shard visible, with what is to be remembered about the
        files since the last commit.
        """
        self.num_committed += len(seen)
        lasting = [position for position, one in enumerate(seen) if one.lasting]
        if lasting:
            with writing("pixels", self._folder), commit_folder(self._folder / self.name) as folder:
                files: dict[str, dict[str, Any]] = {}
                if self._file is not None:
                    files[PIXELS] = self._finish(self._file, folder / PIXELS)
                    reach("ingest.shard_written")
                index = folder / INDEX
                remembered = [seen[at] for at in lasting]
                _write_index(
                    index, _sign(keys.take(pa.array(lasting)), remembered), remembered, shards
                )
                files[INDEX] = {
                    "size": index.stat().st_size,
                    "header": 0,
                    "sha256": sha256_file(index),
                }
                (folder / MANIFEST).write_text(
                    json.dumps({"files": files}, indent=2) + "\n", "utf-8"
                )
                reach("ingest.index_written")
        self._begin()

    def _finish(self, file: IO[bytes], path: Path) -> dict[str, Any]:
        """Write the header for all rows, and move the file into its shard.

        Its entry in the manifest.

        The header is hashed last: it is known last.
        """
        header = self._header()
        file.seek(0)
        file.write(header)
        file.close()
        self._file = None
        self._part.rename(path)
        self._sha256.update(header)
        return {
            "size": path.stat().st_size,
            "header": len(header),
            "sha256": self._sha256.hexdigest(),
        }

    def close(self) -> None:
        """Drop what is not committed."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what cannot be flushed is dropped as well
                self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink()

    def _header(self) -> bytes:
        """The header of `pixels.npy`.

        NumPy pads it, so that it has one length for any number of rows.
        """
        header = io.BytesIO()
        shape = (self.num_rows, *self._shape)
        np.lib.format.write_array_header_1_0(
            header, {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        )
        return header.getvalue()


def _sign(keys: pa.Array, seen: list[Seen]) -> pa.Array:
    if all(one.trust == "yes" for one in seen):
        return keys
    texts = [SIGNS[one.trust] + key for one, key in zip(seen, keys.to_pylist(), strict=True)]
    return pa.array(texts, keys.type)


def _write_index(path: Path, keys: pa.Array, seen: list[Seen], shards: list[str]) -> None:
    names = ["", *shards]
    codes = np.array([one.shard + 1 for one in seen], np.int32)
    used, codes = np.unique(codes, return_inverse=True)
    table = pa.table(
        {
            "key": keys,
            "content": pa.array([one.content for one in seen], pa.binary(32)),
            "shard": pa.DictionaryArray.from_arrays(
                codes.astype(np.int32), [names[code] for code in used]
            ),
            "offset": np.array([one.offset for one in seen], np.int64),
            "height": np.array([one.size[0] for one in seen], np.int32),
            "width": np.array([one.size[1] for one in seen], np.int32),
            "source_height": np.array([one.source[0] for one in seen], np.int32),
            "source_width": np.array([one.source[1] for one in seen], np.int32),
            "notes": np.array([one.notes for one in seen], np.uint8),
            "reason": pa.array([one.reason for one in seen], pa.large_string()),
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
