"""What a file is by its first bytes, where it is no weights file.

So that a refusal can say it and what to do.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ..recipe import WEIGHTS_SUFFIXES

HEAD_BYTES = 512


class Kind(NamedTuple):
    """What it is, and what its owner, or whoever has it, can do."""

    what: str
    remedy: str


_SAVE = "its owner can save the weights alone: torch.save(model.state_dict(), 'weights.pt')"
_UNPACK = "unpack it and name the weights file inside"
_CONVERT = (
    "the weights have to be converted to a state_dict of torch, or to safetensors, where it was "
    "made"
)

_BY_BEGINNING = (
    (b"\x89HDF\r\n\x1a\n", Kind("an HDF5 file (Keras, h5py)", _CONVERT)),
    (b"\x93NUMPY", Kind("a NumPy array (.npy)", _CONVERT)),
    (b"GGUF", Kind("a GGUF file", _CONVERT)),
    (b"\x1f\x8b", Kind("compressed by gzip", _UNPACK)),
    (b"BZh", Kind("compressed by bzip2", _UNPACK)),
    (b"\xfd7zXZ\0", Kind("compressed by xz", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", Kind("compressed by zstd", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", _UNPACK)),
    (b"\x89PNG", Kind("a picture", "name a weights file")),
    (b"\xff\xd8\xff", Kind("a picture", "name a weights file")),
    (b"PAR1", Kind("a Parquet table", "name a weights file")),
    (
        b"version https://git-lfs",
        Kind("a pointer of Git LFS, not the file itself", "git lfs pull fetches it"),
    ),
)


def name_kind(head: bytes, path: Path) -> Kind:
    """Name a file that is neither an archive of torch, nor of its older
    format, nor safetensors.
    """
    for beginning, kind in _BY_BEGINNING:
        if head.startswith(beginning):
            return kind
    if not head:
        return Kind("empty", "fetch or save it again")
    if head[257:262] == b"ustar":
        return Kind(
            "a tar archive, or weights of torch before 0.2 (2017)", f"{_UNPACK}, or {_SAVE}"
        )
    if head[:1] == b"\x08" and (path.suffix == ".onnx" or b"\x12" in head[2:4]):
        return Kind("an ONNX graph", _CONVERT)
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return Kind("a plain pickle, not written by torch.save", _SAVE)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return Kind("a web page, so a download that went wrong", "fetch the file itself")
    if _is_text(head):
        return Kind(
            f"text that begins with {head[:40].decode('utf-8', 'replace')!r}", "name a weights file"
        )
    return Kind(f"of no kind that is known here (first bytes {head[:8].hex(' ')})", _SAVE)


def name_archive(names: Collection[str]) -> Kind | None:
    """Name a zip archive by its records.

    None where they are those of torch.save.
    """
    inner = {name.partition("/")[2] or name for name in names}
    if any(name.endswith(".npy") for name in names):
        return Kind("a NumPy archive (.npz)", _CONVERT)
    if "constants.pkl" in inner:
        return Kind("a TorchScript archive, which carries code", _SAVE)
    if "archive_format" in inner or "serialized_exported_program.json" in inner:
        return Kind(
            "an exported program of torch.export (.pt2), a graph and no model's weights", _SAVE
        )
    if "[Content_Types].xml" in names or "config.json" in names or "META-INF/MANIFEST.MF" in names:
        return Kind("a zip archive of another program (Keras, Office, Java)", _CONVERT)
    if "data.pkl" not in inner:
        return Kind("a zip archive that torch.save did not write", _UNPACK)
    return None


def name_folder(path: Path) -> Kind:
    """Say of a folder which files in it could be meant."""
    if (path / ".metadata").is_file():
        return Kind("a folder of torch.distributed.checkpoint, which needs pickle", _SAVE)
    inside = sorted(one.name for one in path.iterdir() if one.suffix in WEIGHTS_SUFFIXES)[:5]
    return Kind("a folder", f"name one of {', '.join(inside)}" if inside else "name a weights file")


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(
            head
        )  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\r\n\t" for char in text)
