"""What a decoder makes of a file, upright, and what it says of it.

The verdict on a file that is no picture.

The decoders stand in `jpeg.py`, `png.py`, `tiff.py` and, for all others, `decoders.py`;
`datasets/images/decode.py` chooses among them.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from ...verdicts import Reason

# What a picture of inks is called where a recipe asks for another number of channels.
CMYK = "CMYK, four inks that are read as red, green and blue"


class BadImage(ValueError):  # noqa: N818  a verdict on a row, not a failure
    """The bytes are no image that fits the feature.

    Args:
        kind, detail, remedy, said: of the reason (see `verdicts.Reason`), which does not name the
            file.
    """

    def __init__(self, kind: str, detail: str = "", remedy: str = "", said: str = "") -> None:
        self.reason = Reason(kind, "", detail, remedy, said)
        super().__init__(str(self.reason))


class TooLarge(BadImage):
    """The image declares more pixels than the recipe allows."""


class Note(enum.IntFlag):
    """What the data report says of a picture that is good."""

    TRANSPARENT = 1
    """Pixels that are not opaque were composed onto the recipe's ground, or lost their alpha."""
    ANIMATED = 2
    """The file holds several frames, of which the first was read."""
    DEEP = 4
    """Samples of 9 to 16 bits, of which dtype uint8 keeps the high 8."""


class Raster(NamedTuple):
    """A decoded picture, upright.

    Attributes:
        pixels: shape (C, H, W), values as in the file.
        colour: gray (one channel), rgb (three), or empty where the channels say no colour:
            measurements, pages.
        has_alpha: one channel more, the last, is opacity, which is not multiplied into the colours.
        bits: of a sample, where they are fewer than those of the pixels' dtype, 1 in a picture of
            two levels; 0 where they are all.
        num_frames: pictures in the file, of which this is the first.
        what: what the channels are, where their number does not say it, to end the advice to keep
            them.
    """

    pixels: np.ndarray
    colour: str
    has_alpha: bool = False
    bits: int = 0
    num_frames: int = 1
    what: str = ""


def plain_raster(pixels: np.ndarray, has_alpha: bool = False) -> Raster:
    """Channels (C, H, W) that are gray or red, green and blue by their
    number.
    """
    colour = {1: "gray", 3: "rgb"}.get(len(pixels) - has_alpha, "")
    return Raster(pixels, colour, has_alpha and colour != "")


def check_size(height: int, width: int, channels: int, max_pixels: int) -> None:
    """Refuse what would decode to more than `max_pixels` numbers.

    Raises:
        TooLarge: it declares more.
    """
    if height * width * channels > max_pixels:
        shape = f"{height} x {width} x {channels}" if width > 1 else f"{height}"
        raise TooLarge(
            "an image bomb", f"it declares {shape} pixels, data.max_pixels allows {max_pixels}"
        )


def wrong_shape(shape: tuple[int, ...]) -> tuple[str, str]:
    """Kind and detail of the verdict on an array that is no picture."""
    return "an array of another shape", f"expected height, width and channels, got {shape}"


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) -> (C, H, W)."""
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise BadImage(*wrong_shape(pixels.shape))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def top_of(raster: Raster) -> int:
    """The value of white, or of full opacity."""
    if raster.pixels.dtype.kind in "bf":
        return 1
    return (1 << raster.bits) - 1 if raster.bits else int(np.iinfo(raster.pixels.dtype).max)
