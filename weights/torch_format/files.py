"""Files of `torch.save`, the zip archive and the format before it.

Checked from outside, then loaded by torch.

`torch.load(weights_only=True)` reads them in the end. Before that the container and the pickle are
looked through (`archives.py`, `pickle_scan.py`), so that what is loaded is known to be dense
tensors and plain values that lie inside the file; nothing falls back to a load that would run code.
torch >= 2.10 has the repairs of CVE-2025-32434 and CVE-2026-24747.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
from pathlib import Path
from typing import IO, Any

import torch

from ...errors import SourceError
from ..file_kinds import name_archive
from .archives import check_bytes, check_entries, list_entries
from .pickle_scan import Scan, scan_pickle

ZIP_MAGIC = b"PK\x03\x04"
# The first pickle of the older format: protocol 2, and a number of ten bytes.
LEGACY_MAGIC = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
MOST_PICKLE_BYTES = 256_000_000


def load_archive(path: Path, place: str) -> Any:
    """Load a zip archive of torch.save, its tensors mapped into memory.

    Raises:
        SourceError: it is another kind of archive, damaged, or holds more than tensors and plain
            values.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        entries = list_entries(file, num_bytes, place)
        if kind := name_archive([entry.orig_filename for entry in entries]):
            raise SourceError(f"{place} is {kind.what}; {kind.remedy}")
        records = check_entries(entries, file, num_bytes, place)
        folder = entries[0].orig_filename.partition("/")[0]
        outside = [name for name in records if not name.startswith(f"{folder}/")]
        pickled = records.get(f"{folder}/data.pkl")
        if outside or pickled is None or pickled.num_bytes > MOST_PICKLE_BYTES:
            why = (
                f"the record {outside[0]!r} lies outside the folder {folder!r}"
                if outside
                else "its pickle is odd"
            )
            raise SourceError(f"{place} is refused: {why}")
        check_bytes(file, records, place)
        file.seek(pickled.start)
        scan = scan_pickle(io.BytesIO(file.read(pickled.num_bytes)), place)
    for storage in scan.storages.values():
        record = records.get(f"{folder}/data/{storage.key}")
        if record is None or record.num_bytes != storage.num_bytes:
            there = "is not there" if record is None else f"has {record.num_bytes:,}"
            raise SourceError(
                f"{place} is refused: its pickle names a storage {storage.key!r} of "
                f"{storage.num_bytes:,} bytes, "
                f"which {there}"
            )
    return _load(path, place, mmap=True)


def load_legacy(path: Path, place: str) -> Any:
    """Load a file of torch.save as it was before 1.6.

    Five pickles, then the storages' bytes.

    Raises:
        SourceError: it is damaged, or holds more than tensors and plain values.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        for _ in ("magic number", "version of the protocol", "facts about the machine"):
            scan_pickle(file, place)
        scan = scan_pickle(file, place)
        _check_blocks(file, scan, scan_pickle(file, place).value, num_bytes, place)
    return _load(path, place, mmap=False)


def _check_blocks(file: IO[bytes], scan: Scan, keys: Any, num_bytes: int, place: str) -> None:
    """Each storage is a count of its elements in 8 bytes, and the elements."""
    if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, scan.storages)):
        raise SourceError(
            f"{place} is refused: its list of storages is not the one that its tensors lie in"
        )
    for key in keys:
        storage, count = scan.storages[key], file.read(8)
        declared = struct.unpack("<q", count)[0] * storage.dtype.itemsize if len(count) == 8 else -1
        end = file.tell() + storage.num_bytes
        if declared != storage.num_bytes or end > num_bytes:
            raise SourceError(
                f"{place} is torn: its pickle names a storage {key!r} of {storage.num_bytes:,} "
                "bytes, "
                f"of which the file has {max(0, min(declared, num_bytes - file.tell())):,}"
            )
        file.seek(end)


def _load(path: Path, place: str, *, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch's warnings are about its own classes, not about the file
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (
        *(
            RuntimeError,
            pickle.UnpicklingError,
            EOFError,
            OSError,
            ValueError,
            AssertionError,
            LookupError,
            TypeError,
        ),
        *(AttributeError, struct.error, MemoryError),
    ) as error:
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        raise SourceError(
            f"{place} cannot be loaded safely: {reason}; save it again with torch.save"
        ) from error
