"""Checks that files carry of their own bytes, so that a flipped bit is noticed
where the file is read.

A JSON document has a digest over its values, a line of a journal and a pointer a CRC, and files
that make something up together stand with their sha256 in a list. None of it is proof against
somebody who means to deceive.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import shown
from .digest import digest, sha256_file

DIGEST = "digest"
# What ends a line: its CRC, in hex digits, over all bytes before this.
_LINE_BEGIN, _LINE_END, _CRC_DIGITS = b',"crc":"', b'"}', 8
_TAIL = len(_LINE_BEGIN) + _CRC_DIGITS + len(_LINE_END)
# So many wrong bytes leave the end of a line one that was meant to have a CRC; a line without one
# differs in more.
_MOST_WRONG = 2
_POINTER = re.compile(r"(\S+) ([0-9a-f]{8})")


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with a digest over them all."""
    return {**values, DIGEST: digest(values)}


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Whether values carry a digest, right or wrong.

    Those of before had none.
    """
    return DIGEST in values


def unseal(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values without their digest.

    None where it is not theirs, or they have none.
    """
    rest = {key: value for key, value in values.items() if key != DIGEST}
    return rest if values.get(DIGEST) == digest(rest) else None


class Line(NamedTuple):
    """A line of a file of JSON lines.

    Attributes:
        text: without its CRC; empty where it is not as it was written.
        has_crc: false of a line of before, of whose bytes nothing is known.
    """

    text: bytes
    has_crc: bool


def seal_line(text: str) -> str:
    """A JSON object on one line, with a CRC as its last value and a line break.

    Args:
        text: ends with "}".
    """
    begin = text[:-1]
    return f'{begin},"crc":"{zlib.crc32(begin.encode()):08x}"}}\n'


def unseal_line(data: bytes) -> Line:
    """Check a line, with its line break or without."""
    data = data.removesuffix(b"\n")
    begin, tail = data[:-_TAIL], data[-_TAIL:]
    frame = tail[: len(_LINE_BEGIN)] + tail[-len(_LINE_END) :]
    wrong = sum(one != other for one, other in zip(frame, _LINE_BEGIN + _LINE_END, strict=False))
    if len(data) < _TAIL or wrong > _MOST_WRONG:
        return Line(data, has_crc=False)
    is_right = not wrong and tail[len(_LINE_BEGIN) : -len(_LINE_END)] == b"%08x" % zlib.crc32(begin)
    return Line(begin + b"}" if is_right else b"", has_crc=True)


def are_sealed(data: bytes) -> bool:
    """Whether whole lines all have a CRC, and the right one.

    For whoever reads many and needs nothing of them.
    """
    lines = data.split(b"\n")
    return lines.pop() == b"" and all(
        line[-_TAIL:] == b"%s%08x%s" % (_LINE_BEGIN, zlib.crc32(line[:-_TAIL]), _LINE_END)
        for line in lines
    )


def seal_name(name: str) -> str:
    """The text of a pointer.

    A name, and a CRC over it.
    """
    return f"{name} {zlib.crc32(name.encode()):08x}"


def unseal_name(text: str) -> str | None:
    """The name that a pointer holds.

    None where it is not as it was written. One of before is a name alone.
    """
    match = _POINTER.fullmatch(text)
    if match is None:
        return text if text and " " not in text else None
    return match[1] if seal_name(match[1]) == text else None


def list_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """sha256 and size of files, by their path within a folder."""
    paths = {name: folder / name for name in names}
    return {
        name: {"sha256": sha256_file(path), "size": path.stat().st_size}
        for name, path in paths.items()
    }


def is_within(name: str) -> bool:
    """Whether a name that a list states is a path below its folder, which no
    `..` and no other root leads out of.
    """
    return (
        bool(name)
        and "\0" not in name
        and not Path(name).is_absolute()
        and ".." not in Path(name).parts
    )


def why_no_list(files: object) -> str:
    """Why what a file says of others in its folder is not as `list_files`
    gives it; empty where it is.
    """
    if not isinstance(files, dict):
        return "it has no list of files"
    for name, facts in files.items():
        if not is_within(name):
            return f"it names {shown(repr(name))}, which is no file of its folder"
        if not isinstance(facts, dict) or not {"sha256", "size"} <= facts.keys():
            return f"it does not say what {shown(name)} is"
    return ""


def find_changed(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What is wrong with files that stand in a list.

    One is missing, or has another size or sha256.

    Args:
        folder: that the names are in.
        files: as `list_files` gave them.
    Raises:
        OSError: a file cannot be read, which says nothing of what stands in it.
    """
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif (size := path.stat().st_size) != facts["size"]:
            yield f"{name} has {size:,} bytes, expected {facts['size']:,}"
        elif sha256_of_file(path) != facts["sha256"]:
            yield f"{name} does not have the sha256 that it was written with"


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file's bytes, read once by this process for as long as
    the file is the same one.
    """
    state = path.stat()
    return _sha256(
        path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
    )


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, *state: int) -> str:
    return sha256_file(path)
