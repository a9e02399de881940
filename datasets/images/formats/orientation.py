"""Which way up a file's picture is, by EXIF's number from 1 to 8, and by XMP
where EXIF does not say: in every format.

Walks EXIF's first directory by itself: Pillow's reader says on standard error what is wrong with
the others.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

EXIF_ORIENTATION = 0x0112
# What a PNG calls EXIF and XMP among its texts; ImageMagick writes the first, in hexadecimal
# digits.
EXIF_TEXT, XMP_TEXT = "Raw profile type exif", "XML:com.adobe.xmp"
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# EXIF's kinds of whole numbers.
_KINDS = {1: "B", 3: "H", 4: "I"}


def find_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """What a file says in its EXIF, else in its XMP.

    1, upright, where neither can be read.

    Args:
        exif: a TIFF of tags, with or without `Exif` and two zeros before it; empty where there is
            none.
        xmp: empty where there is none.
    """
    found = _read_exif(exif)
    if found is None:
        said = _XMP.search(xmp)
        found = int(said[1]) if said else 1
    return found if 1 <= found <= 8 else 1


def orientation_of_pillow(image: PillowImage) -> int:
    """The same of a file that Pillow has opened.

    A PNG loaded as well, whose texts may stand behind its pixels.
    """
    told = image.info
    exif = told.get("exif") or _of_digits(told.get(EXIF_TEXT, ""))
    xmp = told.get(XMP_TEXT) or told.get("xmp") or b""
    return find_orientation(exif, xmp.encode() if isinstance(xmp, str) else xmp)


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """(C, H, W) upright, by EXIF's number from 1 to 8."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(0, 2, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, :, ::-1]
    return image[:, ::-1] if orientation in (3, 4, 7, 8) else image


def _read_exif(exif: bytes) -> int | None:
    tags = exif
    while tags.startswith(b"Exif\0\0"):
        tags = tags[6:]
    order = _ORDERS.get(tags[:4])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(f"{order}I", tags, 4)
        (num,) = struct.unpack_from(f"{order}H", tags, at)
        for entry in range(at + 2, at + 2 + 12 * num, 12):
            code, kind, count = struct.unpack_from(f"{order}HHI", tags, entry)
            if code == EXIF_ORIENTATION and kind in _KINDS and count:
                at = entry + 8
                if count * struct.calcsize(_KINDS[kind]) > 4:
                    (at,) = struct.unpack_from(f"{order}I", tags, at)
                return struct.unpack_from(order + _KINDS[kind], tags, at)[0]
    except struct.error:
        pass  # what cannot be read says nothing, here as in every viewer
    return None


def _of_digits(text: str) -> bytes:
    """EXIF as a PNG's text has it.

    An empty line, its name, its length, then its bytes.
    """
    try:
        return bytes.fromhex("".join(str(text).split("\n")[3:]))
    except ValueError:
        return b""
