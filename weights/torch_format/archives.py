"""The zip archive of `torch.save`, looked through before anything is read out
of it.

torch writes every record uncompressed, under one folder, with a directory at the file's very end.
Whatever differs from that is refused: compressed records (bombs), names that lead elsewhere,
records that overlap or reach beyond the file, names that two readers would understand differently.
Nothing is unpacked to disk at any time. Format: PKWARE's APPNOTE.TXT, sections 4.3 and 4.4.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from typing import IO, NamedTuple

from ...errors import SourceError

MOST_RECORDS = 200_000
MOST_DIRECTORY_BYTES = 20_000_000
CHUNK_BYTES = 1 << 22
_END, _END_BYTES = b"PK\x05\x06", 22
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED = 0x1


class Record(NamedTuple):
    """A record's bytes.

    Where they begin in the file, how many they are, their CRC-32.
    """

    start: int
    num_bytes: int
    crc: int


def list_entries(file: IO[bytes], num_bytes: int, place: str) -> list[zipfile.ZipInfo]:
    """The archive's directory, in the order in which the records lie.

    Args:
        file: the archive.
        num_bytes: of the file.
        place: the file, for messages.
    Raises:
        SourceError: there is no directory, or it is larger than weights need.
    """
    _check_end(file, num_bytes, place)
    try:
        with zipfile.ZipFile(file) as archive:
            return sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as error:
        raise SourceError(
            f"{place} is torn or no zip archive of torch: {error}; fetch it again"
        ) from error


def check_entries(
    entries: list[zipfile.ZipInfo], file: IO[bytes], num_bytes: int, place: str
) -> dict[str, Record]:
    """Check an archive's structure.

    Returns:
        The records by their full names.
    Raises:
        SourceError: says what is wrong.
    """
    if not entries or entries[0].header_offset:
        raise SourceError(f"{place} is refused: a zip archive that does not begin with a record")
    records: dict[str, Record] = {}
    seen: set[str] = set()
    end = 0
    for entry in entries:
        name = _check_name(entry, place)
        if name.lower() in seen:
            raise SourceError(f"{place} is refused: the record {name!r} stands in it twice")
        seen.add(name.lower())
        record = _check_record(entry, file, place)
        if entry.header_offset < end:
            raise SourceError(f"{place} is refused: the record {name!r} overlaps the one before it")
        end = record.start + record.num_bytes
        if end > num_bytes:
            raise SourceError(
                f"{place} is torn: the record {name!r} reaches beyond the file's {num_bytes:,} "
                "bytes"
            )
        if not name.endswith("/"):
            records[name] = record
    return records


def check_bytes(file: IO[bytes], records: dict[str, Record], place: str) -> None:
    """Read every record once and compare its CRC-32.

    `torch.load` does not.

    Raises:
        SourceError: bytes have changed since the file was written.
    """
    for name, record in records.items():
        file.seek(record.start)
        crc, left = 0, record.num_bytes
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            crc, left = zlib.crc32(chunk, crc), left - len(chunk)
        if left or crc != record.crc:
            raise SourceError(
                f"{place} is damaged: the record {name!r} does not have the checksum that it was "
                "written with; "
                f"fetch the file again, or save it again with torch.save"
            )


def _check_end(file: IO[bytes], num_bytes: int, place: str) -> None:
    """The directory's size and number of records, before a library makes
    objects of them.
    """
    file.seek(max(0, num_bytes - _END_BYTES))
    tail = file.read(_END_BYTES)
    if len(tail) < _END_BYTES or not tail.startswith(_END) or tail[-2:] != b"\0\0":
        raise SourceError(
            f"{place} is torn: a zip archive without its directory at the end, cut off while it "
            "was written or "
            f"fetched; fetch it again"
        )
    count, directory_bytes, start = struct.unpack("<HII", tail[10:20])
    if (count, directory_bytes) != (0xFFFF, 0xFFFFFFFF) and start != 0xFFFFFFFF:
        directory_end = num_bytes - _END_BYTES
        if start + directory_bytes > directory_end:
            raise SourceError(f"{place} is torn: its directory lies outside the file")
        directory_bytes = directory_end - start
    else:
        count, directory_bytes = _read_large_end(file, num_bytes, place)
    if count > MOST_RECORDS or directory_bytes > MOST_DIRECTORY_BYTES:
        raise SourceError(
            f"{place} is refused: a directory of {directory_bytes:,} bytes for {count:,} records, "
            "more than weights "
            f"need"
        )


def _read_large_end(file: IO[bytes], num_bytes: int, place: str) -> tuple[int, int]:
    """Number of records and bytes of the directory, of an archive of the
    64-bit form.
    """
    file.seek(max(0, num_bytes - _END_BYTES - 20 - 56))
    tail = file.read(56 + 20)
    if len(tail) < 76 or tail[:4] != b"PK\x06\x06" or tail[56:60] != b"PK\x06\x07":
        raise SourceError(f"{place} is torn: the directory of a large zip archive is missing")
    return struct.unpack("<QQ", tail[32:48])


def _check_name(entry: zipfile.ZipInfo, place: str) -> str:
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    if (
        name.startswith("/")
        or "\\" in name
        or "\0" in name
        or ":" in parts[0]
        or {"", ".", ".."} & set(parts)
    ):
        raise SourceError(
            f"{place} is refused: a record is named {name!r}, which leads out of the archive"
        )
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise SourceError(
            f"{place} is refused: the record {name!r} is a link or a device, not a file"
        )
    return name


def _check_record(entry: zipfile.ZipInfo, file: IO[bytes], place: str) -> Record:
    """Compare the directory's words on a record with those that stand before
    its bytes.
    """
    name = entry.orig_filename
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise SourceError(
            f"{place} is refused: the record {name!r} is compressed ({entry.compress_size:,} bytes "
            "that would become "
            f"{entry.file_size:,}); torch.save compresses nothing"
        )
    if entry.flag_bits & _ENCRYPTED:
        raise SourceError(f"{place} is refused: the record {name!r} is encrypted")
    file.seek(entry.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
        raise SourceError(
            f"{place} is torn: the record {name!r} does not begin where the directory says"
        )
    *_, method, _, _, _, _, _, name_bytes, extra_bytes = _LOCAL.unpack(header)
    if method != zipfile.ZIP_STORED or file.read(name_bytes) != name.encode("utf-8"):
        raise SourceError(
            f"{place} is refused: the record {name!r} has another name or form where its bytes "
            "begin"
        )
    return Record(
        entry.header_offset + _LOCAL.size + name_bytes + extra_bytes, entry.file_size, entry.CRC
    )
