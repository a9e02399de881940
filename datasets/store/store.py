"""The pixel store.

Every distinct image file is decoded once, ever. Decoding itself is in `datasets/images/decode.py`.

On disk, `store/<digest of the image specification>/<shard>/`; what is in a shard stands in
`shards.py`. A shard is committed as a whole and never changes; files that were only touched or are
bad are remembered in shards without pixels.

A file is known by its path and its stamp (`paths.stamp_of`), which changes with its bytes, where it
had not been touched for `SETTLED_SECONDS` when it was read; `recheck` believes no stamp. Else its
bytes are read and hashed, and decoded where their hash is new.

An ingest reads every index and looks at the size of the pixels; a shard that does not fit its
manifest is set aside as `bad-<shard>` with a warning, and its files are decoded anew. Every byte of
the pixels is read by `verify_shard` alone.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import hashlib
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...disk import digest, writing
from ...recipe import Feature
from ..files import Files, stamp_of
from ..images import DECODER_VERSION, decode_image, decode_images, num_channels
from ..images.formats import BadImage, TooLarge
from ..layout import STALE_SECONDS
from ..verdicts import Reason, quote
from .shards import (
    BAD,
    SHARD_VERSION,
    SIGNS,
    Seen,
    ShardWriter,
    Trust,
    read_shard,
    set_damaged_aside,
)

SHARD_BYTES = 64_000_000
# A batch is what one thread reads and decodes before it hands over; it bounds the memory.
BATCH_BYTES = 8_000_000
BATCH_FILES = 256
# A file that was changed less than this before it was read may change again without another stamp:
# by the clock of its file system, or through memory that is mapped to it, which the system writes
# and stamps within half a minute.
SETTLED_SECONDS = 60
# How often a file is read again that changes meanwhile.
TRIES = 3

Progress = Callable[[int, int], None]


class Located(NamedTuple):
    """Where the pixels of the requested files are, in the order of the request.

    Attributes:
        content: S32, first 32 hex digits of the sha256 of each file's bytes; b"" where it cannot be
            read as a file.
        shard: int32, position in `shards`; -1 where the image is bad.
        offset: int64, row in the shard; -1 where the image is bad.
        shards: names of the shards that are used.
        source: int32, shape (N, 2), height and width of each file's upright picture; 0 where the
            image is bad.
        shape: (C, H, W) of each image; H and W are 0 where no image is good.
        dtype: of the pixels.
        notes: uint8, `Note` of each file; 0 where the image is bad.
        reasons: position in the request -> why the image is bad.
        num_decoded: images decoded by this call.
    """

    content: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    shards: list[str]
    source: np.ndarray
    shape: tuple[int, ...]
    dtype: str
    notes: np.ndarray
    reasons: dict[int, Reason]
    num_decoded: int


class _Index(NamedTuple):
    """The rows of every `index.arrow`, as columns."""

    key: pa.ChunkedArray  # path and stamp, behind the sign of `shards.SIGNS`
    content: np.ndarray  # S32
    shard: np.ndarray  # int32, position in `shards`; -1 without pixels
    offset: np.ndarray  # int64, row in the shard
    size: np.ndarray  # int32 (N, 2), height and width; 0 where it is no image
    source: (
        np.ndarray
    )  # int32 (N, 2), height and width of the file's upright picture; 0 where it is no image
    notes: np.ndarray  # uint8, what the data report says of it
    reason: pa.ChunkedArray  # why it is no image, a `Reason` as text
    shards: list[str]

    def extend(self, seen: list[Seen], shards: list[str]) -> _Index:
        """Add rows, whose keys nobody will ask for."""
        if not seen:
            return self._replace(shards=shards)
        content, shard, offset, size, source, reason, notes = zip(
            *(one[:7] for one in seen), strict=True
        )
        return _Index(
            key=self.key,
            content=np.concatenate([self.content, np.array(content, "S32")]),
            shard=np.concatenate([self.shard, np.array(shard, np.int32)]),
            offset=np.concatenate([self.offset, np.array(offset, np.int64)]),
            size=np.concatenate([self.size, np.array(size, np.int32)]),
            source=np.concatenate([self.source, np.array(source, np.int32)]),
            notes=np.concatenate([self.notes, np.array(notes, np.uint8)]),
            reason=pa.chunked_array([*self.reason.chunks, pa.array(reason, pa.large_string())]),
            shards=shards,
        )


class _Wanted(NamedTuple):
    """A file to read.

    `content` is what it had under this stamp, b"" where nothing is known, and then no trust.
    """

    path: str
    size: int
    stamp: str
    content: bytes
    trust: Trust | Literal[""]


_Decoded = tuple[list[Seen], np.ndarray]


class PixelStore:
    """The decoded images of one image specification.

    Several processes may ingest at once; each writes shards of its own, so at worst a file is
    decoded twice.
    """

    def __init__(self, root: Path, feature: Feature, max_pixels: int) -> None:
        """Name the store.

        Nothing is read or written yet.

        Args:
            root: folder of all stores.
            feature: the image specification.
            max_pixels: larger images are refused before they are decoded.
        """
        spec = feature.model_dump(include={"size", "channels", "dtype", "background", "preprocess"})
        self.folder = root / digest("pixels", DECODER_VERSION, SHARD_VERSION, spec)
        self._feature = feature
        self._max_pixels = max_pixels

    def ingest(
        self, files: Files, on_progress: Progress | None = None, *, recheck: bool = False
    ) -> Located:
        """Locate the pixels of all files, decoding those whose content is new.

        A file is read only if its path and stamp are new. Complete shards survive a kill; calling
        again goes on. Where the feature has no size, the first good image sets it, and images of
        another size are bad. The shards that the files' pixels are in are read and verified, once
        for each process; what a damaged one held is decoded anew.

        Args:
            files: may repeat.
            on_progress: called with the number of files done and the number of all files.
            recheck: read all files, also those that are known.
        Raises:
            DataError: what is new cannot be written, as on a full disk; complete shards stay.
        """
        located = self._ingest(files, on_progress, recheck=recheck)
        while set_damaged_aside([self.folder / shard for shard in located.shards]):
            located = self._ingest(files, on_progress, recheck=False)
        return located

    def _ingest(self, files: Files, on_progress: Progress | None, *, recheck: bool) -> Located:
        index = _read_index(self.folder)
        keys = _keys(files)
        row = _find(keys, index.key)
        believed = _find_believed(keys, row, index.key)
        row[[at for at, (trust, _) in believed.items() if trust == "never"]] = -1
        if recheck:
            for at in np.flatnonzero(row >= 0).tolist():
                believed.setdefault(at, ("yes", int(row[at])))
            row[:] = -1
        size = self._image_size(files, row, index)
        # A known image that was of the wrong size has no pixels in the store; now its size may be
        # the right one.
        absent = (index.shard < 0) & (index.size == size).all(1) & (index.size[:, 0] > 0)
        row[np.isin(row, np.flatnonzero(absent))] = -1
        unknown = np.flatnonzero(row < 0)
        new, place = _first_of_each(keys, unknown)
        ingest = _Ingest(self.folder, self._feature, self._max_pixels, size, index)
        wanted = []
        for at in new.tolist():
            known = believed.get(at)
            content = bytes(index.content[known[1]]) if known else b""
            trust = known[0] if known else ""
            wanted.append(
                _Wanted(files.paths[at], int(files.sizes[at]), files.stamps[at], content, trust)
            )
        seen = ingest.run(wanted, keys.take(pa.array(new)), len(files.paths), on_progress)
        row[unknown] = len(index.shard) + place
        return self._locate(row, index.extend(seen, ingest.shards), size, ingest.num_decoded)

    def _image_size(self, files: Files, row: np.ndarray, index: _Index) -> tuple[int, int]:
        if self._feature.size:
            return self._feature.size[0], self._feature.size[1]
        for position, path in enumerate(files.paths):
            if row[position] >= 0:
                height, width = index.size[row[position]].tolist()
            else:
                try:
                    data = _read_file(path, int(files.sizes[position]), files.stamps[position])[0]
                    image = decode_image(data, self._feature, self._max_pixels)
                    _, height, width = image.pixels.shape
                except (OSError, BadImage):
                    continue
            if height:
                return height, width
        return 0, 0

    def _locate(
        self, row: np.ndarray, index: _Index, size: tuple[int, int], num_decoded: int
    ) -> Located:
        bad = (index.shard[row] < 0) | (index.size[row] != size).any(1)
        reasons: dict[int, Reason] = {}
        for position in np.flatnonzero(bad).tolist():
            at = int(row[position])
            known = index.reason[at].as_py()
            reasons[position] = (
                Reason.load(known) if known else _wrong_size(index.size[at].tolist(), size)
            )
        shard = np.where(bad, -1, index.shard[row])
        used, place = np.unique(shard, return_inverse=True)
        names = [index.shards[number] for number in used.tolist() if number >= 0]
        return Located(
            content=index.content[row],
            shard=(place - (len(used) - len(names))).astype(np.int32),
            offset=np.where(bad, -1, index.offset[row]),
            shards=names,
            source=np.where(bad[:, None], 0, index.source[row]),
            shape=(num_channels(self._feature), *size),
            dtype=self._feature.dtype,
            notes=np.where(bad, 0, index.notes[row]).astype(np.uint8),
            reasons=reasons,
            num_decoded=num_decoded,
        )


class _Ingest:
    """One pass over new files.

    Threads read, hash and decode batches; this thread writes them in order.
    """

    def __init__(
        self, folder: Path, feature: Feature, max_pixels: int, size: tuple[int, int], index: _Index
    ) -> None:
        self.shards = list(index.shards)
        self.num_decoded = 0
        self._folder = folder
        self._feature = feature
        self._max_pixels = max_pixels
        self._size = size
        self._image_bytes = (
            num_channels(feature) * size[0] * size[1] * np.dtype(feature.dtype).itemsize
        )
        self._index = index
        self._placed: dict[bytes, Seen] = {}
        # Reading is a row of short calls, between which threads would only take the interpreter's
        # lock from each other.
        self._reading = threading.Lock()

    def run(
        self, files: list[_Wanted], keys: pa.Array, num_all: int, on_progress: Progress | None
    ) -> list[Seen]:
        """Read the files, whose keys these are.

        What became of each, in their order.
        """
        if not files:
            return []
        _remove_stale(self._folder)
        num_new = sum(not one.content for one in files)
        with writing("pixels", self._folder, num_new * self._image_bytes):
            pass  # there is room, should each of the new files be a picture of its own
        # Else the collector, woken by each thousand of files, looks through all libraries again.
        gc.freeze()
        try:
            return self._run(files, keys, num_all, on_progress)
        finally:
            gc.unfreeze()

    def _run(
        self, files: list[_Wanted], keys: pa.Array, num_all: int, on_progress: Progress | None
    ) -> list[Seen]:
        seen: list[Seen] = []
        parts = self._batches(np.array([one.size for one in files], np.int64))
        batches = _in_order(self._decode, [files[part] for part in parts])
        with contextlib.closing(ShardWriter(self._folder, self._feature, self._size)) as writer:
            for part, (batch, pixels) in zip(parts, batches, strict=True):
                seen.extend(self._place(batch, pixels, writer))
                if on_progress:
                    on_progress(num_all - len(files) + part.stop, num_all)
                if writer.num_rows * self._image_bytes >= SHARD_BYTES or part.stop == len(files):
                    first = writer.num_committed
                    writer.commit(keys[first : part.stop], seen[first:], self.shards)
        return seen

    def _batches(self, sizes: np.ndarray) -> list[slice]:
        """Cut the files into batches that need about `BATCH_BYTES`,
        undecoded or decoded.
        """
        cost = np.maximum(np.maximum(sizes, self._image_bytes) / BATCH_BYTES, 1 / BATCH_FILES)
        number = np.floor(np.cumsum(cost) - cost / 2)
        edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sizes)]
        return [slice(start, stop) for start, stop in itertools.pairwise(edges)]

    def _decode(self, files: list[_Wanted]) -> _Decoded:
        """In a thread.

        What can be said of each file alone, and the pixels of those that are new and good.
        """
        with self._reading:
            seen, new = self._read(files)
        decoded = decode_images(list(new.values()), self._feature, self._max_pixels, self._size)
        for at, found in zip(new, decoded.found, strict=True):
            if isinstance(found, BadImage):
                lasting = not isinstance(found, TooLarge)
                seen[at] = seen[at]._replace(reason=found.reason.dump(), lasting=lasting)
            else:
                seen[at] = seen[at]._replace(
                    size=found.size, source=found.source, notes=int(found.notes)
                )
        return seen, decoded.pixels

    def _read(self, files: list[_Wanted]) -> tuple[list[Seen], dict[int, bytes]]:
        """What is known of each file by its bytes alone.

        And, by position, the bytes of those to be decoded.
        """
        seen: list[Seen] = []
        new: dict[int, bytes] = {}
        for at, (path, size, stamp, known, believed) in enumerate(files):
            try:
                data, is_settled = _read_file(path, size, stamp)
            except OSError as error:
                reason = Reason("a file that cannot be read", said=quote(error))
                seen.append(Seen(reason=reason.dump(), lasting=False))
                continue
            except BadImage as error:
                seen.append(Seen(reason=error.reason.dump(), lasting=False))
                continue
            content = hashlib.sha256(data).hexdigest()[:32].encode()
            has_lied = believed == "never" or known not in (b"", content)
            trust: Trust = "never" if has_lied else "yes" if is_settled else "not yet"
            old = self._placed.get(content) or self._stored(content)
            if old is None:
                new[at] = data
            says_new = (trust, content) != (believed, known) and (believed, trust) != (
                "yes",
                "not yet",
            )
            says_new &= believed != "never"  # which stays so
            seen.append(
                Seen(content, trust=trust)
                if old is None
                else old._replace(trust=trust, lasting=says_new)
            )
        return seen, new

    def _stored(self, content: bytes) -> Seen | None:
        """What the index says of a content that no known path has.

        Nothing where its pixels are wanted and absent.
        """
        contents, order = self._by_content
        if not len(contents):
            return None
        at = int(np.searchsorted(contents, content))
        while at < len(contents) and contents[at] == content:
            row = int(order[at])
            shard, offset = int(self._index.shard[row]), int(self._index.offset[row])
            size, source = _pair(self._index.size[row]), _pair(self._index.source[row])
            reason = self._index.reason[row].as_py()
            if shard >= 0 or reason or size != self._size:
                return Seen(
                    content, shard, offset, size, source, reason, int(self._index.notes[row])
                )
            at += 1
        return None

    @functools.cached_property
    def _by_content(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self._index.content, kind="stable")
        return self._index.content[order], order

    def _place(self, batch: list[Seen], pixels: np.ndarray, writer: ShardWriter) -> list[Seen]:
        """Give each new image its row in the shard.

        The same content decoded twice is written once.
        """
        placed: list[Seen] = []
        keep: list[int] = []
        at = 0
        for one in batch:
            if one.size == self._size and one.shard < 0 and not one.reason:
                if one.content not in self._placed:
                    if not writer.num_rows + len(keep):
                        self.shards.append(writer.name)
                    row = writer.num_rows + len(keep)
                    one = self._placed[one.content] = one._replace(
                        shard=len(self.shards) - 1, offset=row
                    )
                    keep.append(at)
                else:
                    one = self._placed[one.content]._replace(trust=one.trust)
                at += 1
            placed.append(one)
        self.num_decoded += len(pixels)
        writer.append(pixels if len(keep) == len(pixels) else pixels[keep])
        return placed


def _keys(files: Files) -> pa.Array:
    text = pa.large_string()
    columns = [pa.array(files.paths, text), pa.array(files.stamps, text)]
    return pc.call_function("binary_join_element_wise", [*columns, pa.scalar("\0", text)])


def _find_believed(
    keys: pa.Array, row: np.ndarray, known: pa.ChunkedArray
) -> dict[int, tuple[Trust, int]]:
    """The files whose stamp stands for nothing, or not yet.

    By position, and a row of the index with their content.
    """
    text = pa.large_string()
    found: dict[int, tuple[Trust, int]] = {}
    for trust in ("not yet", "never"):
        options = pc.MatchSubstringOptions(SIGNS[trust])
        if not pc.call_function("any", [pc.call_function("starts_with", [known], options)]).as_py():
            continue
        sign, nothing = pa.scalar(SIGNS[trust], text), pa.scalar("", text)
        signed = pc.call_function("binary_join_element_wise", [sign, keys, nothing])
        rows = _find(signed, known)
        for at in np.flatnonzero((rows >= 0) & ((row < 0) | (trust == "never"))).tolist():
            found[at] = trust, int(rows[at])
    return found


def _find(keys: pa.Array, known: pa.ChunkedArray) -> np.ndarray:
    """The first row of each key in the index, int64.

    -1 where it has none.
    """
    options = pc.SetLookupOptions(value_set=known)
    return pc.call_function("index_in", [keys], options).fill_null(-1).to_numpy().astype(np.int64)


def _first_of_each(keys: pa.Array, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first position of each distinct key.

    And for each position the place of its key among those.
    """
    codes = keys.take(pa.array(positions)).dictionary_encode().indices.to_numpy()
    highest = np.maximum.accumulate(codes)  # codes count up in the order of appearance
    return positions[np.diff(highest, prepend=-1) > 0], codes


def _pair(numbers: np.ndarray) -> tuple[int, int]:
    return int(numbers[0]), int(numbers[1])


def _wrong_size(found: Sequence[int], size: tuple[int, int]) -> Reason:
    return Reason(
        "wrong size",
        detail=f"{found[0]}x{found[1]} (height x width), the first image has {size[0]}x{size[1]}",
        remedy="give the feature a size to bring all images to",
    )


def _read_file(path: str, size: int, stamp: str) -> tuple[bytes, bool]:
    """A file's bytes.

    And whether that stamp stands for them: it is theirs, and they have not changed for a while.

    Raises:
        BadImage: it changes all the time.
    """
    for _ in range(TRIES):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            now, before = time.time_ns(), os.fstat(descriptor)
            data = os.read(descriptor, size + 1)
            if len(data) != size:
                with open(
                    descriptor, "rb", closefd=False
                ) as file:  # the file is another than the caller saw
                    data += file.read()
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if stamp_of(before) == stamp_of(after):
            is_settled = max(after.st_mtime_ns, after.st_ctime_ns) + SETTLED_SECONDS * 1e9 < now
            return data, is_settled and stamp_of(after) == stamp
    raise BadImage("a file that changes while it is read", remedy="ingest again when it is written")


def _in_order(
    work: Callable[[list[_Wanted]], _Decoded], batches: list[list[_Wanted]]
) -> Iterator[_Decoded]:
    """The results of `work` for all batches, in order, made by one thread a
    core with a bounded lead.
    """
    num_threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    waiting: collections.deque[Future[_Decoded]] = collections.deque()
    with ThreadPoolExecutor(num_threads, "decode") as threads:
        try:
            for batch in batches:
                waiting.append(threads.submit(work, batch))
                if len(waiting) > 2 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read_index(folder: Path) -> _Index:
    """All shards' rows, those with pixels first."""
    found = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
    read = {name: read_shard(folder / name) for name in found if not name.startswith((".", BAD))}
    shards = {name: table for name, table in read.items() if table is not None}
    names = list(shards)
    position = {name: at for at, name in enumerate(names)} | {"": -1}
    tables, codes = [], [np.empty(0, np.int32)]
    for table in shards.values():
        shard = table["shard"].combine_chunks()
        place = np.array(
            [position.get(value, -2) for value in shard.dictionary.to_pylist()], np.int32
        )
        codes.append(place[shard.indices.to_numpy()])
        tables.append(table.drop_columns("shard"))
    if not tables:
        empty = pa.chunked_array([], pa.large_string())
        nothing, pairs = np.empty(0, np.int64), np.empty((0, 2), np.int32)
        notes = np.empty(0, np.uint8)
        return _Index(
            empty,
            np.empty(0, "S32"),
            np.empty(0, np.int32),
            nothing,
            pairs,
            pairs,
            notes,
            empty,
            [],
        )
    code = np.concatenate(codes)
    table = pa.concat_tables(tables)
    if (code < 0).any():  # a row that lost its shard (-2) is forgotten
        order = np.concatenate([np.flatnonzero(code >= 0), np.flatnonzero(code == -1)])
        code, table = code[order], table.take(pa.array(order))
    content = table["content"].combine_chunks()
    return _Index(
        key=table["key"],
        content=np.frombuffer(content.buffers()[1], "S32", len(content), content.offset * 32),
        shard=code,
        offset=table["offset"].to_numpy(),
        size=np.stack([table["height"].to_numpy(), table["width"].to_numpy()], 1),
        source=np.stack([table["source_height"].to_numpy(), table["source_width"].to_numpy()], 1),
        notes=table["notes"].to_numpy(),
        reason=table["reason"],
        shards=names,
    )


def _remove_stale(folder: Path) -> None:
    """Remove what killed ingests left half-written."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
