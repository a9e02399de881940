"""Makers of picture files for tests: by Pillow, by tifffile, and byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 24, 32
DEFLATE = 8


class Sample(NamedTuple):
    """A file and the picture that it holds.

    Attributes:
        picture: uint8, (H, W) or (H, W, 3), on white where it is transparent; None where it is to
            be refused.
        verdict: a pattern of the refusal.
        tolerance: largest difference in levels.
    """

    name: str
    data: bytes
    picture: np.ndarray | None = None
    verdict: str = ""
    tolerance: int = 0


def known_picture() -> Image.Image:
    """A smooth colour picture."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def encode(picture: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def encode_tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=options.pop("metadata", None), **options)
    return buffer.getvalue()


def seen_by_pillow(name: str, data: bytes, tolerance: int = 2) -> Sample:
    """A file that keeps its picture with losses."""
    with Image.open(io.BytesIO(data)) as image:
        return Sample(name, data, np.asarray(image.convert("RGB")), tolerance=tolerance)


def tiff_by_hand(
    tags: Mapping[int, tuple[int, Sequence[Any]]], strip: bytes, order: str = "<"
) -> bytes:
    """A TIFF of one strip, byte by byte as section 2 of TIFF 6.0 has it: code -> type (1, 3, 4
    or 5) and values.
    """
    letters = {1: "B", 3: "H", 4: "I", 5: "II", 77: "H"}
    told = {**tags, 273: (4, [0]), 279: (4, [len(strip)])}
    packed = {
        code: b"".join(
            struct.pack(order + letters[kind], *(one if isinstance(one, tuple) else (one,)))
            for one in values
        )
        for code, (kind, values) in told.items()
    }
    start = 8 + 2 + 12 * len(told) + 4
    beyond = b"".join(packed[code] for code in sorted(told) if len(packed[code]) > 4)
    packed[273] = struct.pack(order + "I", start + len(beyond))
    entries, at = b"", start
    for code in sorted(told):
        kind, values = told[code]
        entries += struct.pack(order + "HHI", code, kind, len(values))
        entries += (
            packed[code].ljust(4, b"\0") if len(packed[code]) <= 4 else struct.pack(order + "I", at)
        )
        at += len(packed[code]) if len(packed[code]) > 4 else 0
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(told))
    return head + entries + bytes(4) + beyond + strip


def tags_of(
    photometric: int, bits: int, samples: int = 1, compression: int = 1
) -> dict[int, tuple[int, list[Any]]]:
    tags: dict[int, tuple[int, list[Any]]] = {
        256: (4, [WIDTH]),
        257: (4, [HEIGHT]),
        258: (3, [bits] * samples),
    }
    return tags | {
        259: (3, [compression]),
        262: (3, [photometric]),
        277: (3, [samples]),
        278: (4, [HEIGHT]),
    }


def pack_bits(samples: np.ndarray, bits: int) -> bytes:
    """Whole numbers (H, W) side by side in rows of bytes, high bits first."""
    planes = (samples[..., None].astype(int) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(planes.reshape(len(samples), -1), axis=1).tobytes()


def png_by_hand(
    rows: Sequence[bytes], bits: int, colour: int, chunks: Mapping[bytes, bytes] = {}
) -> bytes:
    """A PNG of rows without filters."""
    header = struct.pack(">IIBBBBB", WIDTH, len(rows), bits, colour, 0, 0, 0)
    body = {
        b"IHDR": header,
        **chunks,
        b"IDAT": zlib.compress(b"".join(b"\0" + row for row in rows)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(one)) + name + one + struct.pack(">I", zlib.crc32(name + one))
        for name, one in body.items()
    )
