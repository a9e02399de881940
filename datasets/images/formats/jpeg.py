"""JPEG bytes -> pixels as in the file by libjpeg-turbo, whose warnings are
verdicts: it fills what it lacks with gray.

simplejpeg is the binding that hears them; torchvision's and Pillow's decoders give the same pixels
and say nothing.
"""

from __future__ import annotations

import io
import re
import struct
from typing import NamedTuple

import numpy as np
import simplejpeg

from ...verdicts import quote
from .colour import inks_to_rgb
from .orientation import find_orientation, orient
from .raster import CMYK, BadImage, Raster, channels_first, check_size

JPEG = b"\xff\xd8\xff"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"

# The segment JFIF to its revision, of which libjpeg knows 1.
_JFIF = re.compile(rb"(\xff\xe0..JFIF\0)[^\x01]", re.DOTALL)
# By the number of the frame's marker, SOF.
_UNREAD = {3: "lossless", 5: "hierarchical", 6: "hierarchical", 7: "lossless", 11: "lossless"}
_UNREAD |= {13: "hierarchical", 14: "hierarchical", 15: "lossless"}
_SAVE = "save it as PNG or TIFF"
# By the same number, those whose pixels get their bits scan by scan.
_PROGRESSIVE = (2, 10)
# A marker among entropy-coded bytes, where a 0 follows any other 0xFF; RST stands between those.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
_SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}


class JpegHeader(NamedTuple):
    """What a JPEG says of itself before it is decoded.

    Attributes:
        process: the number of the frame's marker: 0 and 1 baseline, 2 progressive, 9 and 10
            arithmetic.
        exif, xmp: what the segment holds, empty where there is none.
        is_adobe: its inks are stored inverted, as Adobe's programs do.
    """

    height: int
    width: int
    channels: int
    bits: int
    process: int
    exif: bytes
    xmp: bytes
    is_adobe: bool

    @property
    def orientation(self) -> int:
        """EXIF's number, from 1 to 8."""
        return find_orientation(self.exif, self.xmp) if self.exif or self.xmp else 1


def decode_jpeg(data: bytes, max_pixels: int) -> Raster:
    """Decode a JPEG, upright.

    Inks become red, green and blue.

    Raises:
        BadImage: it is cut or damaged, of a kind that is not read, or has more pixels than allowed.
    """
    header = read_jpeg_header(data)
    check_size(header.height, header.width, header.channels, max_pixels)
    _check_kind(header)
    pixels = channels_first(decode_pixels(data, _SPACES[header.channels]))
    _check_scans(data, header)
    what = ""
    if header.channels == 4:
        pixels, what = inks_to_rgb(255 - pixels if header.is_adobe else pixels, 255), CMYK
    return Raster(
        orient(pixels, header.orientation), "gray" if header.channels == 1 else "rgb", what=what
    )


def decode_into(out: np.ndarray, data: bytes, max_pixels: int) -> bool:
    """Decode a JPEG into an array where nothing is to be done to its pixels but
    that; whether it was.

    Args:
        out: uint8, (H, W, 3), or (H, W, 1) for gray files.
        data: the whole file.
        max_pixels: largest height x width x channels that the file may declare.
    Raises:
        BadImage: it is cut or damaged.
    """
    height, width, channels = out.shape
    header = read_jpeg_header(data)
    fits = (header.height, header.width, header.channels) in (
        (height, width, channels),
        (height, width, 1),
    )
    if not fits or header.bits != 8 or header.process in _UNREAD or header.orientation != 1:
        return False
    if height * width * header.channels > max_pixels:
        return False
    decode_pixels(data, "GRAY" if channels == 1 else "RGB", out)
    _check_scans(data, header)
    return True


def decode_pixels(data: bytes, space: str, out: np.ndarray | None = None) -> np.ndarray:
    """Decode a JPEG as stored, not turned upright.

    (H, W, C).

    Args:
        data: a whole JPEG.
        space: GRAY, RGB or CMYK.
        out: written to where it is given.
    Raises:
        BadImage: it is cut or damaged.
    """
    try:
        return simplejpeg.decode_jpeg(data, space, buffer=out)
    except ValueError as error:
        said = str(error)
    if (mended := _mend_header(data, said)) != data:
        return decode_pixels(mended, space, out)
    if "subsampling" in said:
        return _decode_by_pillow(data, space, out)
    raise _damaged(said, is_cut=said.startswith("Premature end"))


def _mend_header(data: bytes, said: str) -> bytes:
    """The JPEG without what libjpeg said, where that changes no pixel and
    might hide what it would say of them.
    """
    if "unknown JFIF revision" in said:
        return _JFIF.sub(b"\\1\x01", data)
    if "Invalid SOS parameters for sequential" not in said:
        return data
    mended = bytearray(data)
    for found in re.finditer(rb"\xff\xda", data):
        at = found.end()
        length = int.from_bytes(data[at : at + 2])
        if length == 6 + 2 * int.from_bytes(data[at + 2 : at + 3]):
            mended[at + length - 3 : at + length] = (
                b"\x00\x3f\x00"  # a sequential scan has all coefficients, whole
            )
    return bytes(mended)


def _damaged(said: str, *, is_cut: bool) -> BadImage:
    if is_cut:
        return BadImage("truncated", "the JPEG ends before its last row", said=said)
    return BadImage(
        "damaged", "the JPEG's pixels cannot all be read", "fetch or save the file again", said
    )


def _decode_by_pillow(data: bytes, space: str, out: np.ndarray | None) -> np.ndarray:
    """Decode a JPEG whose channels are sampled in a way that TurboJPEG has
    no name for; libjpeg's warnings are lost.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            pixels = np.asarray(image.convert({"GRAY": "L"}.get(space, space)))
    except OSError as error:
        raise _damaged(quote(error), is_cut="runcated" in str(error)) from error
    pixels = (
        255 - pixels if space == "CMYK" else np.atleast_3d(pixels)
    )  # Pillow turns all inks around
    if out is not None:
        out[:] = pixels
    return pixels


def _check_scans(data: bytes, header: JpegHeader) -> None:
    """Refuse a progressive JPEG that ends after a scan which a later one was to
    refine; libjpeg takes it for whole.

    ITU T.81, G.1.1.1: a scan gives the bits of some coefficients of some channels down to the one
    that it names.
    """
    if header.process not in _PROGRESSIVE:
        return
    missing: dict[tuple[int, int], int] = {}
    at = 2
    while (found := _MARKER.search(data, at)) and data[found.start() + 1] != 0xD9:
        at = found.start()
        segment = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
        if data[at + 1] == 0xDA and len(segment) > 3:
            channels, (first, last, bits) = segment[1 : 1 + 2 * segment[0] : 2], segment[-3:]
            missing |= {
                (one, place): bits & 15 for one in channels for place in range(first, last + 1)
            }
        at += 4 + len(segment)
    if any(missing.values()):
        raise BadImage(
            "truncated",
            "the progressive JPEG ends before its last scan",
            "fetch or save the file again",
        )


def _check_kind(header: JpegHeader) -> None:
    if kind := _UNREAD.get(header.process):
        raise BadImage(f"a {kind} JPEG, which is not read", remedy=_SAVE)
    if header.bits != 8:
        raise BadImage(
            f"a JPEG of {header.bits} bits, which is not read", remedy=f"{_SAVE} of 16 bits"
        )
    if header.channels not in _SPACES:
        raise BadImage(
            "a JPEG of other channels than 1, 3 or 4", f"it has {header.channels}", _SAVE
        )


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Walk the markers to the frame header (SOF).

    Raises:
        BadImage: there is none.
    """
    at, end, exif, xmp, is_adobe = 2, len(data) - 10, b"", b"", False
    while at < end:
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            if not height or not width:
                break
            return JpegHeader(height, width, channels, bits, marker - 0xC0, exif, xmp, is_adobe)
        elif marker == 0xF7:
            raise BadImage("a JPEG-LS, which is not read", remedy=_SAVE)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no length
            at += 2
        else:
            length = data[at + 2] << 8 | data[at + 3]
            if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
                exif = exif or data[at + 4 : at + 2 + length]
            elif marker == 0xE1 and data.startswith(_XMP, at + 4):
                xmp = data[at + 4 + len(_XMP) : at + 2 + length]
            elif marker == 0xEE and data.startswith(b"Adobe", at + 4):
                is_adobe = True
            at += 2 + length
    raise BadImage("truncated or damaged", "a JPEG without a frame header")
