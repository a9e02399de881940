"""TIFF bytes -> pixels as in the file by tifffile; keeps what tifffile says of a file for whoever asks."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Iterator

import numpy as np

from .decoders import EXIF_ORIENTATION, BadImage, channels_first, check_size, orient

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# An axis as short as this, beside two that are longer, counts channels.
MOST_CHANNELS = 16


def decode_tiff(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode a TIFF, upright: (C, H, W), where pages are channels.

    Raises:
        BadImage: more pixels than allowed, or more axes than height, width and channels.
    """
    with hear_tifffile() as lines:
        try:
            return _decode_series(data, max_pixels)
        except BadImage:
            raise
        except Exception as error:  # which is about numbers, where what was said before it is about the file
            raise ValueError("; ".join([str(error) or type(error).__name__, *lines[:1]])) from error


def _decode_series(data: bytes, max_pixels: int) -> np.ndarray:
    import tifffile
    from PIL import Image

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        check_size(int(np.prod(shape, dtype=object)), 1, 1, max_pixels)
        tag = tiff.pages.first.tags.get(EXIF_ORIENTATION)
        orientation = int(tag.value) if tag else 1
        try:
            pixels = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:  # compressed in a way that libtiff reads
                return orient(channels_first(np.asarray(image)), orientation)
    others = [axis for axis, length in zip(axes, shape, strict=True) if axis not in "YX" and length > 1]
    if len(others) > 1 or "Y" not in axes or "X" not in axes:
        raise BadImage("too many axes", f"expected height, width and at most one axis of channels, got {axes} {shape}")
    order = sorted(range(len(axes)), key=lambda at: (axes[at] in "YX", "YX".find(axes[at])))
    return orient(pixels.transpose(order).reshape(-1, shape[axes.index("Y")], shape[axes.index("X")]), orientation)


def is_rgba(data: bytes) -> bool:
    """Whether a TIFF says that its fourth channel is alpha."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return image.mode == "RGBA"
    except (OSError, Image.DecompressionBombError):  # no TIFF, or none that Pillow knows: four channels of floats
        return False


def describe_pages(num: int, height: int, width: int) -> str:
    """What is wrong with a TIFF whose pages seem to be the rows of one picture; empty where they do not.

    tifffile writes an array (H, W, C) that it cannot tell to be colour as H pages of W x C pixels.
    """
    if num <= 4 or not 1 < width <= MOST_CHANNELS or 2 * width > min(num, height):
        return ""
    return (
        f"{num} pages of {height} x {width} pixels, which look like the rows of a picture of {num} x {height} pixels "
        f"and {width} channels; save it with tifffile.imwrite(…, photometric='minisblack', planarconfig='contig')"
    )


@contextlib.contextmanager
def hear_tifffile() -> Iterator[list[str]]:
    """Collect what tifffile says of a file in this thread, which else goes to standard error and names no file."""
    logging.getLogger("tifffile").addFilter(_LISTENER)  # once, however often
    _Listener.said.lines = lines = []
    try:
        yield lines
    finally:
        _Listener.said.lines = None


class _Said(threading.local):
    """What tifffile has said in this thread; None where nobody asks.

    Attributes:
        lines: first to last.
    """

    lines: list[str] | None = None


class _Listener(logging.Filter):
    """Keeps what tifffile logs in a thread that asks for it, and lets the rest pass."""

    said = _Said()

    def filter(self, record: logging.LogRecord) -> bool:
        if self.said.lines is None:
            return True
        self.said.lines.append(record.getMessage())
        return False


_LISTENER = _Listener()
