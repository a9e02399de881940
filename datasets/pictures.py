"""What a sample of image files is: channels, bits and sizes, read from headers; decodes small pictures at most."""

from __future__ import annotations

import statistics
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .decoders import PILLOW_FORMATS
from .tiff import MOST_CHANNELS, describe_pages, hear_tifffile

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".npy")
# Pictures of so few pixels are decoded, to see whether their colours are all gray.
FEW_PIXELS = 1_000_000
NUM_DECODED = 10
_MODES = {"1": (1, 8), "L": (1, 8), "LA": (1, 8), "I;16": (1, 16), "I;16B": (1, 16), "I": (1, 16), "F": (1, 32)}


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


class _Header(NamedTuple):
    height: int
    width: int
    channels: int
    bits: int


def look_at_pictures(paths: Sequence[Path]) -> Pictures | None:
    """Read the headers of some image files; None where none can be read.

    Raises:
        DataError: an array has its channels first, or most files are TIFFs whose pages are the rows of a picture.
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


def _read_header(path: Path) -> _Header | None:
    from PIL import Image

    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return _of_array(path, np.load(path, mmap_mode="r", allow_pickle=False))
        if suffix in (".tif", ".tiff"):
            return _read_tiff(path)
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            width, height = image.size
            if image.getexif().get(0x0112, 1) >= 5:  # stored on its side
                width, height = height, width
            return _Header(height, width, *_MODES.get(image.mode, (3, 8)))
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return None


def _read_tiff(path: Path) -> _Header | None:
    import tifffile

    with hear_tifffile(), tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        sizes = dict(zip(series.axes, series.shape, strict=True))
        if "Y" not in sizes or "X" not in sizes:
            return None
        channels = int(np.prod([length for axis, length in sizes.items() if axis not in "YX"]))
        return _Header(sizes["Y"], sizes["X"], channels, _bits(series.dtype))


def _check_pages(looked: Sequence[tuple[Path, _Header]]) -> None:
    for path, header in looked:
        pages = describe_pages(header.channels, header.height, header.width)
        if pages and path.suffix.lower() in (".tif", ".tiff"):
            raise DataError(f"{path}: a TIFF of {pages}")


def _of_array(path: Path, array: np.ndarray) -> _Header | None:
    """Height, width and channels of (H, W) or (H, W, C), as the decoder reads them."""
    if array.ndim not in (2, 3):
        return None
    height, width, channels = (*array.shape, 1)[:3]
    if height <= MOST_CHANNELS and 2 * height <= min(width, channels):
        raise DataError(
            f"{path}: an array of shape {array.shape}, which looks like channels, height, width; expected "
            f"(height, width) or (height, width, channels): save np.moveaxis(array, 0, -1)"
        )
    return _Header(height, width, channels, _bits(array.dtype))


def _bits(dtype: np.dtype | None) -> int:
    if dtype is None or dtype.itemsize == 1:
        return 8
    return 16 if dtype == np.uint16 else 32


def _is_gray(path: Path, header: _Header) -> bool:
    from PIL import Image

    if header.height * header.width > FEW_PIXELS:
        return False
    try:
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return False
    return int(np.ptp(pixels, axis=2).max(initial=0)) <= 8  # JPEG's chroma is not exactly gray
