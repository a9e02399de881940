"""Safetensors files.

A length, a JSON header, raw bytes. Read by memory map with every bound checked, and written.

Format: https://github.com/huggingface/safetensors, "Format": 8 bytes little-endian length N, N
bytes of JSON `{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {text:
text}}`, then the data, without holes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..disk import write_atomic
from ..errors import SourceError

MOST_HEADER_BYTES = 16_000_000
ALIGNMENT = 8
METADATA = "__metadata__"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def looks_like_safetensors(head: bytes, num_bytes: int) -> bool:
    """Whether a file that begins with these bytes has a length and then a
    JSON object.
    """
    return len(head) > 8 and head[8:9] == b"{" and num_bytes > 8


def read_safetensors(path: Path, place: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map the tensors into memory, on the CPU.

    Also gives the metadata.

    Args:
        path: a file that `looks_like_safetensors`.
        place: the file, for messages.
    Raises:
        SourceError: the header is torn or too long, or tensors overlap, leave holes, or reach
            beyond the file.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        if header_bytes > min(MOST_HEADER_BYTES, num_bytes - 8):
            raise SourceError(
                f"{place} is refused: safetensors with a header of {header_bytes:,} bytes in a "
                f"file of {num_bytes:,}; "
                f"the header may have {MOST_HEADER_BYTES:,}, and has to lie in the file"
            )
        header, metadata = _parse_header(file.read(header_bytes), place)
    begin = 8 + header_bytes
    ranges = {name: _check_entry(name, entry, place) for name, entry in header.items()}
    _check_ranges(ranges, num_bytes - begin, place)
    bytes_N = torch.from_file(str(path), shared=False, size=num_bytes, dtype=torch.uint8)
    state = {}
    for name, (start, end) in ranges.items():
        dtype, shape = DTYPES[header[name]["dtype"]], header[name]["shape"]
        part = bytes_N[begin + start : begin + end]
        aligned = part if (begin + start) % dtype.itemsize == 0 else part.clone()
        state[name] = aligned.view(dtype).view(shape)
    return state, metadata


def write_safetensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors by name, atomically, in their order, those of wide elements
    first.

    Raises:
        SourceError: a tensor has a dtype that the format does not know.
    """
    header: dict[str, Any] = {METADATA: {"format": "pt", **metadata}}
    blocks: list[bytes] = []
    position = 0
    for name in sorted(
        state, key=lambda name: -state[name].dtype.itemsize
    ):  # so that each lies aligned
        value = state[name].detach().cpu().contiguous()
        if value.dtype not in NAMES:
            raise SourceError(
                f"{name!r} is {value.dtype}, which safetensors do not have; write {path.stem}.pt "
                "instead"
            )
        blocks.append(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        end = position + len(blocks[-1])
        header[name] = {
            "dtype": NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    write_atomic(path, b"".join([struct.pack("<Q", len(text)), text, *blocks]))


def _parse_header(text: bytes, place: str) -> tuple[dict[str, Any], dict[str, str]]:
    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("a key stands twice")
        return made

    try:
        header = json.loads(text, object_pairs_hook=refuse_twice)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{place} is refused: the header of its safetensors is no JSON: {error}"
        ) from error
    metadata = header.pop(METADATA, {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise SourceError(
            f"{place} is refused: the header of its safetensors is no object, or has odd metadata"
        )
    return header, metadata


def _check_entry(name: str, entry: Any, place: str) -> tuple[int, int]:
    """First byte of a tensor, and the one behind its last."""
    match entry:
        case {
            "dtype": str(dtype),
            "shape": list(shape),
            "data_offsets": [int(start), int(end)],
            **more,
        } if not more:
            if dtype not in DTYPES:
                raise SourceError(
                    f"{place}: {name!r} is {dtype}; safetensors are read as {', '.join(DTYPES)}"
                )
            is_shape = len(shape) <= 64 and all(
                type(length) is int and 0 <= length < 2**63 for length in shape
            )
            if (
                is_shape
                and 0 <= start <= end
                and end - start == math.prod(shape) * DTYPES[dtype].itemsize
            ):
                return start, end
            raise SourceError(
                f"{place} is refused: {name!r} of {dtype} and shape {str(shape)[:80]} does not "
                "have the bytes "
                f"{start} to {end}"
            )
    raise SourceError(
        f"{place} is refused: {name!r} has no dtype, shape and data_offsets in the header"
    )


def _check_ranges(ranges: Mapping[str, tuple[int, int]], num_bytes: int, place: str) -> None:
    """The tensors lie one behind the other and fill the data."""
    position, before = 0, "the beginning"
    for name, (start, end) in sorted(ranges.items(), key=lambda item: item[1]):
        if start != position:
            what = "overlaps" if start < position else "leaves a hole behind"
            raise SourceError(f"{place} is refused: {name!r} {what} {before}")
        position, before = end, repr(name)
    if position != num_bytes:
        raise SourceError(
            f"{place} is torn: its tensors take {position:,} bytes, and behind its header it has "
            f"{num_bytes:,}"
        )
