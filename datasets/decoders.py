"""PNG, npy and all that scikit-image reads: a file's bytes -> pixels as in the file, upright, or why there are none.

JPEG and TIFF have files of their own, `jpeg.py` and `tiff.py`, which begin with what stands here.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

from .verdicts import Reason

PNG, NPY = b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"

# What Pillow may be asked to open; its other formats include ones that start programs (EPS) or are no pictures.
PILLOW_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TIFF")
EXIF_ORIENTATION = 0x0112
SAVE_ARRAY = "save an array of numbers"


class BadImage(ValueError):  # noqa: N818  a verdict on a row, not a failure
    """The bytes are no image that fits the feature.

    Args:
        kind, detail, remedy, said: of the reason (see `verdicts.Reason`), which does not name the file.
    """

    def __init__(self, kind: str, detail: str = "", remedy: str = "", said: str = "") -> None:
        self.reason = Reason(kind, "", detail, remedy, said)
        super().__init__(str(self.reason))


class TooLarge(BadImage):
    """The image declares more pixels than the recipe allows."""


class Header(NamedTuple):
    """What a file says of itself before it is decoded."""

    height: int
    width: int
    channels: int
    bits: int
    has_exif: bool


def decode_png(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode a PNG, of 8 bits by Pillow: (C, H, W).

    Raises:
        BadImage: it is cut or damaged, or has more pixels than allowed.
    """
    from PIL import Image

    header = _png_header(data)
    check_size(header.height, header.width, header.channels, max_pixels)
    if header.bits != 8:
        return decode_by_skimage(data, max_pixels)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.mode == "P":
            image = image.convert("RGB")
        pixels = channels_first(np.asarray(image))
        return orient(pixels, image.getexif().get(EXIF_ORIENTATION, 1)) if header.has_exif else pixels


def decode_npy(data: bytes, max_pixels: int) -> np.ndarray:
    """An array that numpy saved, (H, W) or (H, W, C); its header is judged before its data, and no pickle is read."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise BadImage("npy of another version", f"{version[0]}.{version[1]}, expected 1.0 or 2.0", SAVE_ARRAY)
    shape, in_fortran_order, dtype = read_header[version](file)
    if dtype.hasobject:
        raise BadImage("a pickled npy, which is not read because it could run a program", remedy=SAVE_ARRAY)
    if dtype.kind not in "buif":
        raise BadImage("npy of no numbers", f"it holds {dtype}", SAVE_ARRAY)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise BadImage(*_wrong_shape(shape))
    check_size(shape[0], shape[1], shape[2] if len(shape) == 3 else 1, max_pixels)
    expected, found = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if found < expected:
        raise BadImage("truncated", f"the npy holds {found:,} of {expected:,} bytes")
    pixels = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    pixels = pixels.reshape(shape, order="F" if in_fortran_order else "C")
    return channels_first(pixels.astype(dtype.newbyteorder("="), copy=False))


def decode_by_skimage(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode any format but TIFF through scikit-image; channels and values as in the file.

    Returns:
        Shape (C, H, W).

    Raises:
        BadImage: more pixels than allowed, several frames, or 16-bit colour that would be cut to 8 bits.
    """
    import skimage.io
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
        check_size(image.height, image.width, len(image.getbands()), max_pixels)
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise BadImage("several frames", f"expected one picture, got {frames} frames", "save the one to learn from")
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        if image.mode == "CMYK":
            return orient(channels_first(np.asarray(image.convert("RGB"))), orientation)
    pixels = np.asarray(skimage.io.imread(io.BytesIO(data)))
    pixels = pixels[0] if pixels.ndim == 4 else pixels  # a GIF of one frame
    if data.startswith(PNG) and pixels.ndim == 3 and _png_header(data).bits == 16:
        raise BadImage("16-bit colour PNG, of which only 8 bits can be read", remedy="save it as TIFF")
    return orient(channels_first(pixels), orientation)


def check_size(height: int, width: int, channels: int, max_pixels: int) -> None:
    """Refuse what would decode to more than `max_pixels` numbers.

    Raises:
        TooLarge: it declares more.
    """
    if height * width * channels > max_pixels:
        shape = f"{height} x {width} x {channels}" if width > 1 else f"{height}"
        raise TooLarge("an image bomb", f"it declares {shape} pixels, data.max_pixels allows {max_pixels}")


def _wrong_shape(shape: tuple[int, ...]) -> tuple[str, str]:
    return "an array of another shape", f"expected height, width and channels, got {shape}"


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) -> (C, H, W)."""
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise BadImage(*_wrong_shape(pixels.shape))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """(C, H, W) upright, by EXIF's number from 1 to 8."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(0, 2, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, :, ::-1]
    return image[:, ::-1] if orientation in (3, 4, 7, 8) else image


def _png_header(data: bytes) -> Header:
    """Walk all chunks and check their sums, so that a cut or damaged file is found whatever its decoder does."""
    at, names = len(PNG), set()
    while b"IEND" not in names:
        length, name = struct.unpack_from(">I4s", data, at) if at + 12 <= len(data) else (0, b"")
        end = at + 12 + length
        if not name or end > len(data):
            raise BadImage("truncated", "the PNG ends before its last chunk")
        body = memoryview(data)[at + 4 : end - 4]
        if zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadImage("damaged", f"the check sum of the PNG chunk {name.decode('latin-1')} does not fit")
        names.add(name)
        at = end
    if data[12:16] != b"IHDR":
        raise BadImage("damaged", "the PNG has no header")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    return Header(height, width, {0: 1, 4: 2, 6: 4}.get(colour, 3), bits, has_exif=b"eXIf" in names)
