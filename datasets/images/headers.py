"""What a sample of image files is.

Channels, bits and sizes, read from headers; decodes small pictures at most.
"""

from __future__ import annotations

import statistics
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ...recipe import Feature
from .decode import decode_image
from .formats import (
    MOST_CHANNELS,
    PILLOW_FORMATS,
    TIFF,
    BadImage,
    Shape,
    describe_pages,
    shape_of_pillow,
    shape_of_tiff,
)

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".webp",
    ".ppm",
    ".pgm",
    ".npy",
)
IMAGE_SUFFIXES += (".avif", ".jp2", ".j2k", ".pbm", ".apng", ".jpe", ".jfif")
# Pictures of so few pixels are decoded, to see whether their colours are all gray.
FEW_PIXELS = 1_000_000
NUM_DECODED = 10
# Bytes that hold what a file says of its picture, ahead of the pixels; a TIFF may say it at its
# end.
HEAD_BYTES = 1 << 16


class Pictures(NamedTuple):
    """What the files of a sample have in common.

    Attributes:
        num_looked: files whose header could be read.
        channels: of most of them; 1 also where all colours are gray.
        bits: 8, 16 or 32 (floats), the most of any.
        height, width: medians in pixels.
        same_size: all have one size.
        smallest, largest: (height, width) of the pictures with the fewest and the most pixels.
    """

    num_looked: int
    channels: int
    bits: int
    height: int
    width: int
    same_size: bool
    smallest: tuple[int, int]
    largest: tuple[int, int]


def look_at_pictures(paths: Sequence[Path]) -> Pictures | None:
    """Read the headers of some image files.

    None where none can be read.

    Raises:
        DataError: an array has its channels first, or most files are TIFFs whose pages are the rows
            of a picture.
    """
    looked = [(path, header) for path in paths if (header := _read_header(path)) is not None]
    if not looked:
        return None
    headers = [header for _, header in looked]
    channels = Counter(header.channels for header in headers).most_common(1)[0][0]
    if channels == 3 and all(_is_gray(path, header) for path, header in looked[:NUM_DECODED]):
        channels = 1
    _check_pages([(path, header) for path, header in looked if header.channels == channels])
    by_pixels = sorted(headers, key=lambda header: header.height * header.width)
    return Pictures(
        num_looked=len(headers),
        channels=channels,
        bits=max(header.bits for header in headers),
        height=round(statistics.median(header.height for header in headers)),
        width=round(statistics.median(header.width for header in headers)),
        same_size=len({(header.height, header.width) for header in headers}) == 1,
        smallest=(by_pixels[0].height, by_pixels[0].width),
        largest=(by_pixels[-1].height, by_pixels[-1].width),
    )


def _read_header(path: Path) -> Shape | None:
    """What the file's picture will be decoded to.

    None where it will not be.
    """
    from PIL import Image

    try:
        if path.suffix.lower() == ".npy":
            return _of_array(path, np.load(path, mmap_mode="r", allow_pickle=False))
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if head.startswith(TIFF):
            return shape_of_tiff(path)
        with Image.open(path, formats=("JPEG", "PNG", *PILLOW_FORMATS)) as image:
            return shape_of_pillow(image, head)
    except (
        OSError,
        ValueError,
        SyntaxError,
        LookupError,
        struct.error,
        Image.DecompressionBombError,
    ):
        return None


def _check_pages(looked: Sequence[tuple[Path, Shape]]) -> None:
    for path, header in looked:
        pages = describe_pages(header.channels, header.height, header.width)
        if pages and path.suffix.lower() in (".tif", ".tiff"):
            raise DataError(f"{path}: a TIFF of {pages}")


def _of_array(path: Path, array: np.ndarray) -> Shape | None:
    """Height, width and channels of (H, W) or (H, W, C), as the decoder
    reads them.
    """
    if array.ndim not in (2, 3):
        return None
    height, width, channels = (*array.shape, 1)[:3]
    if height <= MOST_CHANNELS and 2 * height <= min(width, channels):
        raise DataError(
            f"{path}: an array of shape {array.shape}, which looks like channels, height, width; "
            "expected "
            f"(height, width) or (height, width, channels): save np.moveaxis(array, 0, -1)"
        )
    return Shape(height, width, channels, _bits(array.dtype))


def _bits(dtype: np.dtype | None) -> int:
    if dtype is None or dtype.itemsize == 1:
        return 8
    return 16 if dtype == np.uint16 else 32


def _is_gray(path: Path, header: Shape) -> bool:
    """Whether all pixels of a small picture are gray, decoded as training
    will.
    """
    if header.height * header.width > FEW_PIXELS:
        return False
    try:
        image = decode_image(path.read_bytes(), Feature(kind="image"), 4 * FEW_PIXELS)
    except (OSError, BadImage):
        return False
    return (
        int(np.ptp(image.pixels.astype(np.int16), axis=0).max(initial=0)) <= 8
    )  # JPEG's chroma is not exactly gray
