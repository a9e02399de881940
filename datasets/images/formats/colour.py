"""From the colours that a file holds to those that a feature asks for.

Inks, palettes, grounds beneath, gray.

Everything takes and gives (C, H, W).
"""

from __future__ import annotations

import numpy as np

from .raster import CMYK, BadImage, Raster, top_of

# ITU-R 601, as JPEG and TIFF take it.
LUMA = (0.299, 0.587, 0.114)
GROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}


def inks_to_rgb(inks: np.ndarray, top: int) -> np.ndarray:
    """Cyan, magenta, yellow and black, 0 to `top` where 0 is no ink, as
    Pillow turns them into red, green and blue.
    """
    paper = (top - inks).astype(np.uint64)
    return ((paper[:3] * paper[3] * 2 + top) // (2 * top)).astype(inks.dtype)


def ycc_to_rgb(
    pixels: np.ndarray, top: int, luma: tuple[float, ...] = LUMA, reference: tuple[float, ...] = ()
) -> np.ndarray:
    """Luma and two differences of colour to red, green and blue, as section 21
    of TIFF 6.0 has it.

    Args:
        pixels: whole numbers, 0 to `top`.
        top: the largest value.
        luma: what red, green and blue weigh in the first channel.
        reference: black and white of each channel; empty for the full range.
    """
    middle = (top + 1) / 2
    black_y, white_y, black_b, white_b, black_r, white_r = reference or (
        0,
        top,
        middle,
        top,
        middle,
        top,
    )
    y = (pixels[0].astype(np.float64) - black_y) * top / (white_y - black_y)
    b = (pixels[1].astype(np.float64) - black_b) * (top - middle) / (white_b - black_b)
    r = (pixels[2].astype(np.float64) - black_r) * (top - middle) / (white_r - black_r)
    red, blue = r * (2 - 2 * luma[0]) + y, b * (2 - 2 * luma[2]) + y
    green = (y - luma[2] * blue - luma[0] * red) / luma[1]
    return np.rint(np.clip(np.stack([red, green, blue]), 0, top)).astype(pixels.dtype)


def colours_of(palette: np.ndarray) -> np.ndarray:
    """A palette of 16 bits, of 8 where it says no more than 8 do.

    Writers fill it with 8 bits (which libtiff takes for such as well), with 8 bits and zeros, or
    with 8 bits twice.
    """
    if palette.max(initial=0) < 256:
        return palette.astype(np.uint8)
    high, low = palette >> 8, palette & 255
    return high.astype(np.uint8) if not low.any() or (low == high).all() else palette


def fill_range(raster: Raster) -> Raster:
    """Samples of 1 to 7 bits brought to 8, of 9 to 15 to 16, so that white
    is the largest number of all bits.
    """
    if not raster.bits:
        return raster
    dtype = np.uint8 if raster.bits < 8 else np.uint16
    top, full = top_of(raster), int(np.iinfo(dtype).max)
    pixels = ((raster.pixels.astype(np.uint64) * full * 2 + top) // (2 * top)).astype(dtype)
    return raster._replace(pixels=pixels, bits=0)


def straighten(raster: Raster) -> Raster:
    """Divide out an alpha that is multiplied into the colours.

    What is wholly transparent has none.
    """
    pixels, top = raster.pixels, top_of(raster)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        alpha = np.maximum(pixels[-1], 1).astype(np.uint64)
        colours = np.minimum((pixels[:-1].astype(np.uint64) * top * 2 + alpha) // (2 * alpha), top)
    else:
        shown = pixels[-1] > 0
        colours = np.where(shown, pixels[:-1] / np.where(shown, pixels[-1], 1) * top, 0)
        colours = colours if pixels.dtype.kind == "f" else np.rint(np.minimum(colours, top))
    return raster._replace(pixels=np.concatenate([colours.astype(pixels.dtype), pixels[-1:]]))


def is_transparent(raster: Raster) -> bool:
    """Whether any pixel is not opaque."""
    if not raster.has_alpha:
        return False
    return bool((raster.pixels[-1] < top_of(raster)).any())


def compose(raster: Raster, channels: str, background: str) -> np.ndarray:
    """Lay a picture with alpha onto a ground.

    The alpha is gone.

    Args:
        raster: gray or rgb, with alpha.
        channels: rgb or gray, what is wanted: gray onto a coloured ground becomes coloured where
            that is wanted.
        background: white, black, #rrggbb; keep takes the colours as they lie beneath, whatever
            their alpha.
    Raises:
        BadImage: an alpha of floats that does not count from 0 to 1.
    """
    pixels = raster.pixels
    if background == "keep":
        return pixels[:-1]
    ground = np.array(GROUNDS.get(background) or list(bytes.fromhex(background[1:])), np.float64)
    colours, alpha = pixels[:-1], pixels[-1]
    if len(colours) == 1:
        if channels == "rgb" and len(set(ground)) > 1:
            colours = colours.repeat(3, 0)
        else:
            ground = ground @ np.array([LUMA]).T
    if pixels.dtype.kind == "f" and (alpha.min() < 0 or alpha.max() > 1):
        detail = f"it goes from {alpha.min():g} to {alpha.max():g}"
        raise BadImage(
            "an alpha of floats outside 0 to 1", detail, "say `background: keep`, or save it anew"
        )
    top = top_of(raster)
    opacity = alpha.astype(np.float64) / top
    if pixels.dtype.kind == "f":  # what is not seen may be no number
        colours = np.where(opacity > 0, colours, 0)
    mixed = colours * opacity + (ground / 255 * top)[:, None, None] * (1 - opacity)
    return (
        mixed.astype(pixels.dtype)
        if pixels.dtype.kind == "f"
        else np.rint(mixed).astype(pixels.dtype)
    )


def to_channels(raster: Raster, channels: str, background: str) -> np.ndarray:
    """The channels of a feature.

    (1, H, W) for gray, (3, H, W) for rgb, else the file's own where their number fits.

    Raises:
        BadImage: the file has others.
    """
    pixels, num, what = raster.pixels, len(raster.pixels), raster.what
    if channels.isdigit():
        if num != int(channels):
            remedy = "say `channels: rgb`" if what == CMYK else ""
            raise BadImage(
                "wrong channels",
                f"expected {channels}, got {what if what == CMYK else num}",
                remedy,
            )
        return pixels
    if not raster.colour and num > 1:
        raise BadImage(
            "wrong channels",
            f"expected {channels}, got {num}",
            f"say `channels: {num}` to keep them{what}",
        )
    if raster.has_alpha:
        pixels = compose(raster, channels, background)
    return weigh(pixels, channels)


def weigh(pixels: np.ndarray, channels: str) -> np.ndarray:
    """Red, green and blue to gray by ITU-R 601, as Pillow does.

    Gray to three times the same.
    """
    if len(pixels) == 1:
        return np.broadcast_to(pixels, (3, *pixels.shape[1:])) if channels == "rgb" else pixels
    if channels == "rgb":
        return pixels
    if pixels.dtype.kind == "f":
        return np.tensordot(np.array(LUMA, pixels.dtype), pixels, 1)[None]
    red, green, blue = pixels.astype(np.uint64 if pixels.dtype.itemsize > 2 else np.uint32)
    return (((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(pixels.dtype))[None]
