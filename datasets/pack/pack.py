"""The pack.

A table's readable rows as memory-mapped arrays of raw values, with offsets into the pixel store.

A pack is immutable and named by its content; nothing in it depends on the split. It holds no
pixels: those stay in the store. `datasets/ingest/prepare.py` fills it, and
`datasets/batches/loader.py` makes batches of it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import urllib.parse
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from ...disk import commit_folder, digest, read_json, set_aside, sha256_file, write_atomic, writing
from ...errors import DataError, check_format
from ...faults import reach
from ...kinds import KINDS, Facts, KindName
from ..cells import CELLS_AT_ONCE, flatten_columns
from ..layout import MANIFEST
from ..store import open_shard, verify_shard
from .ragged import Ragged

FORMAT_VERSION = 2


class PackFeature(BaseModel):
    """What the manifest says about a feature.

    Attributes:
        file: its arrays are the files `<file>.<array>.npy`; of a text also `<file>.vocabulary.npy`.
        vocabulary: category and labels: the text of each raw id.
        shape, dtype: image: (C, H, W) and the type of a pixel.
        store, shards: image: folder of the pixel store, relative to the pack's, and the shards in
            it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: KindName
    columns: list[str]
    file: str
    vocabulary: list[str] = []
    shape: list[int] = []
    dtype: str = ""
    store: str = ""
    shards: list[str] = []

    @property
    def facts(self) -> Facts:
        """What is true of its kind."""
        return KINDS[self.kind]


class PackFile(BaseModel):
    """One of the pack's files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int


class Manifest(BaseModel):
    """`manifest.json`.

    Everything about a pack that is not in an array.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2] = FORMAT_VERSION
    fingerprint: str
    num_rows: int
    features: list[PackFeature]
    files: dict[str, PackFile]


class ImageColumn(NamedTuple):
    """Where the pixels of each row lie.

    Row i is `shards[shard[i]][offset[i]]`, of shape (C, H, W).

    Attributes:
        shard: int32, shape (rows,).
        offset: int64, shape (rows,).
        shards: memory-mapped, each (N, C, H, W).
    """

    shard: np.ndarray
    offset: np.ndarray
    shards: list[np.ndarray]


class Pack:
    """An opened pack.

    Its arrays are memory-mapped when they are first used.

    It travels to another process as its path.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.features = {feature.name: feature for feature in manifest.features}

    @classmethod
    def open(cls, folder: Path) -> Pack:
        """Open a pack.

        Checks its manifest and the files' sizes, not their bytes.

        Raises:
            DataError: it is not there or of another format version, its manifest is not the one
                that it is named by, or a file is missing or has another size.
        """
        try:
            values = read_json(folder / MANIFEST)
            again = (
                "run `torchrelay ingest` again; a run that needs this pack must be trained again"
            )
            check_format(
                f"pack {folder}", values.get("format_version"), FORMAT_VERSION, again, DataError
            )
            manifest = Manifest.model_validate(values)
            if digest(values) != folder.name:
                raise ValueError(
                    f"its {MANIFEST} does not have the digest that its folder is named by"
                )
        except (OSError, ValueError, AttributeError, ValidationError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{folder} is not a pack: {reason}; run `torchrelay ingest` again"
            ) from error
        for name, file in manifest.files.items():
            path = folder / name
            size = path.stat().st_size if path.is_file() else 0
            if size != file.size:
                raise DataError(
                    f"pack {folder}: {name} has {size:,} bytes, expected {file.size:,}; run "
                    "`torchrelay ingest` again, "
                    f"which writes it anew"
                )
        return cls(folder, manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pack.open, (self.folder,)

    def verify(self) -> None:
        """Read every file and every shard of pixels that it refers to, and
        compare their sha256.

        Raises:
            DataError: one differs; names it.
        """
        for name, file in self.manifest.files.items():
            if sha256_file(self.folder / name) != file.sha256:
                raise DataError(
                    f"pack {self.folder}: {name} does not have the sha256 of the manifest; run "
                    "`torchrelay ingest` "
                    f"again, which writes it anew"
                )
        for feature in self.manifest.features:
            for shard in feature.shards:
                verify_shard(self._store_of(feature) / shard)

    @property
    def num_rows(self) -> int:
        """Rows in the pack.

        Those of the table that could be read.
        """
        return self.manifest.num_rows

    @property
    def fingerprint(self) -> str:
        """32 hex digits over every row of the table and every file's bytes."""
        return self.manifest.fingerprint

    @cached_property
    def rows(self) -> np.ndarray:
        """int64, shape (rows,).

        Each row's position in the table, from 0.
        """
        return self._load("row")

    def column(self, name: str) -> np.ndarray:
        """Raw values of a feature, shape (rows, columns).

        Float64 numbers, or int32 ids into the vocabulary.

        Of labels the columns are the tags of a row, -1 where it has no more.

        Points are numbers x, y by turns, in pixels of the file's upright picture.
        """
        return self._load(f"{self.features[name].file}.values")

    def vocabulary(self, name: str) -> list[str]:
        """Text of each raw id of a category, of labels or of a text's
        tokens, over the whole table.
        """
        feature = self.features[name]
        if f"{feature.file}.vocabulary.npy" not in self.manifest.files:
            return feature.vocabulary
        joined = self._load(f"{feature.file}.vocabulary").tobytes().decode()
        return joined.split("\n") if joined else []

    def tokens(self, name: str) -> Ragged:
        """Tokens of each row of a text, int32 ids into the vocabulary."""
        return self._load_ragged(f"{self.features[name].file}.tokens")

    def texts(self, name: str, rows: np.ndarray) -> list[str]:
        """The cells of some rows of a text as they stand in the table.

        Args:
            name: of the feature.
            rows: int64, positions in the pack.
        """
        found = self._load_ragged(f"{self.features[name].file}.characters").take(
            np.asarray(rows, np.int64)
        )
        ends, content = found.offsets.tolist(), found.values.tobytes()
        return [content[start:end].decode() for start, end in itertools.pairwise(ends)]

    def source(self, name: str) -> np.ndarray:
        """Height and width of each row's upright picture in its file, int32
        of shape (rows, 2).
        """
        return self._load(f"{self.features[name].file}.source")

    def image(self, name: str) -> ImageColumn:
        """Where the pixels of an image feature lie.

        Raises:
            DataError: a shard of the store is gone.
        """
        feature = self.features[name]
        store = self._store_of(feature)
        try:
            shards = [open_shard(store, shard) for shard in feature.shards]
        except (OSError, ValueError) as error:
            raise DataError(
                f"pack {self.folder} needs pixels from {store} that cannot be read ({error}); "
                f"run `torchrelay ingest` again"
            ) from error
        return ImageColumn(
            self._load(f"{feature.file}.shard"), self._load(f"{feature.file}.offset"), shards
        )

    def _store_of(self, feature: PackFeature) -> Path:
        return Path(os.path.normpath(self.folder / feature.store))

    def _load_ragged(self, name: str) -> Ragged:
        return Ragged(self._load(name), self._load(f"{name}_offsets"))

    def _load(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


class PackColumn(NamedTuple):
    """A feature on its way into a pack.

    Attributes:
        feature: its entry in the manifest.
        arrays: by name, first dimension rows: `values`; or `shard`, `offset`, `source` and
            `content` of an image.
        ragged: by name, of a text: `tokens`, int32, and `characters`, uint8: the cell in UTF-8.
        vocabulary: of a text: each token, none of which has a line break; else None.
    """

    feature: PackFeature
    arrays: Mapping[str, np.ndarray]
    ragged: Mapping[str, Ragged] = {}
    vocabulary: Sequence[str] | None = None


def name_file(name: str) -> str:
    """The start of a feature's file names, free of slashes."""
    return urllib.parse.quote(name, safe="")


def write_pack(
    packs: Path, columns: Sequence[PackColumn], rows: np.ndarray, fingerprint: str
) -> tuple[Path, bool]:
    """Commit a pack, unless it is there already.

    Then every byte of it is compared, and what differs written anew.

    Args:
        packs: folder of all packs.
        columns: the features, with the arrays of all rows of the table.
        rows: int64, the positions in the table of the rows that go into the pack.
        fingerprint: of the data.
    Returns:
        Its folder, named by the digest of its manifest, and whether it was there.
    Raises:
        DataError: it cannot be written, as on a full disk; nothing of it stays.
    """
    arrays: dict[str, np.ndarray] = {"row": rows.astype(np.int64)}
    for column in columns:
        for name, values in column.arrays.items():
            arrays[f"{column.feature.file}.{name}"] = values[rows]
        for name, values in column.ragged.items():
            kept = values if len(rows) == len(values.lengths) else values.take(rows)
            arrays |= {f"{column.feature.file}.{name}": kept.values}
            arrays |= {f"{column.feature.file}.{name}_offsets": kept.offsets}
        if column.vocabulary is not None:
            joined = "\n".join(column.vocabulary).encode()
            arrays[f"{column.feature.file}.vocabulary"] = np.frombuffer(joined, np.uint8)
    contents = {f"{name}.npy": _to_npy(array) for name, array in arrays.items()}
    files = {
        name: PackFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in contents.items()
    }
    features = [column.feature for column in columns]
    manifest = Manifest(
        fingerprint=fingerprint, num_rows=len(rows), features=features, files=files
    ).model_dump()
    folder = packs / digest(manifest)
    contents[MANIFEST] = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    found = folder.is_dir()
    with writing(f"pack {folder.name}", packs, 0 if found else sum(map(len, contents.values()))):
        if found:
            _mend(folder, contents)
            return folder, True
        with commit_folder(folder) as temporary:
            manifest_text = contents.pop(MANIFEST)
            for name, content in contents.items():
                (temporary / name).write_bytes(content)
            reach("pack.arrays_written")
            (temporary / MANIFEST).write_bytes(manifest_text)
    return folder, False


def _mend(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write a pack's files anew that are not as they should be, in place.

    Runs and splits refer to the pack by path.
    """
    for name, content in contents.items():
        path = folder / name
        if path.is_file():
            if path.stat().st_size == len(content) and path.read_bytes() == content:
                continue
            aside = set_aside(path).name
            warnings.warn(
                f"pack {folder}: {name} was damaged; written anew, the old one is {aside}",
                stacklevel=4,
            )
        write_atomic(path, content)


def fingerprint_table(frame: pd.DataFrame, contents: Sequence[np.ndarray]) -> str:
    """32 hex digits over every cell of every row and every file's bytes.

    Args:
        frame: text cells; the same cells give the same fingerprint whatever file they came from.
        contents: for each column of files the digests of their bytes, shape (rows,), "" where there
            is no file.
    """
    total = hashlib.sha256(digest(list(frame.columns), len(frame), len(contents)).encode())
    at_once = max(1, CELLS_AT_ONCE // max(1, len(frame)))
    names = [str(name) for name in frame.columns]
    for start in range(0, len(names), at_once):
        some = names[start : start + at_once]
        texts = _texts(flatten_columns(frame, some))
        _, ends, characters = texts.buffers()
        ends = np.frombuffer(ends, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
        for begin in range(0, len(frame) * len(some), len(frame)) if len(frame) else ():
            of_column = ends[begin : begin + len(frame) + 1]
            total.update(np.diff(of_column).tobytes())
            if characters is not None:
                total.update(memoryview(characters)[int(of_column[0]) : int(of_column[-1])])
    for content in contents:
        total.update(content.astype("S32").tobytes())
    return total.hexdigest()[:32]


def _texts(cells: pd.Series) -> pa.LargeStringArray:
    """The cells as one Arrow array, whose buffers are the lengths and the
    bytes.
    """
    array = pa.array(cells, type=pa.large_string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _to_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
