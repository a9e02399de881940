"""What the samples of a TIFF's page mean, by its photometric interpretation
(TIFF 6.0, sections 3 to 24).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .colour import colours_of, inks_to_rgb, straighten, ycc_to_rgb
from .raster import CMYK, BadImage, Raster, top_of

if TYPE_CHECKING:
    from tifffile import TiffPage

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _MASK, _INKS, _YCC = range(7)
# Samples of a pixel that its colour takes; any more are extra samples.
_NUM_COLOURS = {
    _WHITE_IS_ZERO: 1,
    _BLACK_IS_ZERO: 1,
    _RGB: 3,
    _PALETTE: 1,
    _MASK: 1,
    _INKS: 4,
    _YCC: 3,
}
_UNREAD = {
    8: "CIE L*a*b* colours",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "raw data of a camera's sensor (CFA)",
    32844: "logarithmic luminance (LogL)",
    32845: "logarithmic colours (LogLuv)",
    34892: "raw data of a camera (LinearRaw)",
    51177: "a map of depths",
    52527: "a semantic mask",
}
_PAGES = ": they are pages, planes or times, of which one may be the picture"
_SAVE = "save it as RGB or gray"
_JPEG = 7
# Compressions that give back what was put in, without a colour space of their own.
_PLAIN = (1, 5, 8, 32946, 32773, 34925, 50000)
_ASSOCIATED, _UNASSOCIATED = 1, 2
_INK_SET, _SUBSAMPLING, _COEFFICIENTS, _REFERENCE = 332, 530, 529, 532


def check_colours(page: TiffPage) -> None:
    """Judge a page before its pixels are decoded.

    Raises:
        BadImage: its colours are not read, or contradict its samples; says what they are.
    """
    kind = int(page.photometric)
    if kind in _UNREAD:
        raise BadImage(f"a TIFF of {_UNREAD[kind]}, which is not read", remedy=_SAVE)
    if kind not in _NUM_COLOURS:
        raise BadImage(
            "a TIFF of colours that are not known", f"photometric interpretation {kind}", _SAVE
        )
    if page.dtype is None or page.dtype.kind == "c" or not isinstance(page.bitspersample, int):
        what = "complex numbers" if page.dtype is not None else "samples of an unknown kind"
        raise BadImage(
            f"a TIFF of {what}, which is not read", remedy="save its numbers as channels"
        )
    if page.samplesperpixel < _NUM_COLOURS[kind]:
        raise BadImage(
            "damaged",
            f"a TIFF of {page.samplesperpixel} channels that says it has {_NUM_COLOURS[kind]}",
        )
    if kind in (_WHITE_IS_ZERO, _PALETTE, _INKS, _YCC) and page.dtype.kind not in "bu":
        raise BadImage(
            f"a TIFF of {_name(kind)} in numbers that have no top", f"they are {page.dtype}", _SAVE
        )
    if kind == _PALETTE and (
        page.colormap is None or page.colormap.shape[1] < 1 << page.bitspersample
    ):
        raise BadImage("damaged", "a TIFF of palette indices without their palette")
    if kind == _INKS and (tag := page.tags.get(_INK_SET)) and tag.value != 1:
        raise BadImage(
            "a TIFF of inks that are not cyan, magenta, yellow and black, which is not read",
            remedy=_SAVE,
        )
    if kind == _YCC and page.compression != _JPEG:
        tag = page.tags.get(_SUBSAMPLING)
        if page.compression not in _PLAIN or tuple(tag.value if tag else (2, 2)) != (1, 1):
            raise BadImage(
                "a TIFF of YCbCr with fewer colours than pixels, which is read as JPEG alone",
                remedy=_SAVE,
            )


def describe_colours(page: TiffPage) -> tuple[int, int]:
    """Channels as a feature sees them, alpha aside, and bits (8, 16 or 32) of a
    page that is one picture.

    Raises:
        BadImage: its colours are not read.
    """
    check_colours(page)
    assert page.dtype is not None
    kind, bits = (
        int(page.photometric),
        8 if page.dtype.itemsize == 1 else 16 if page.dtype == np.uint16 else 32,
    )
    if kind == _PALETTE:
        bits = 8 * colours_of(np.asarray(page.colormap)).itemsize
    if _num_extra(page) and not _has_alpha(page):
        return page.samplesperpixel, bits
    return 1 if _NUM_COLOURS[kind] == 1 and kind != _PALETTE else 3, bits


def read_colours(pixels: np.ndarray, page: TiffPage, *, is_one: bool) -> Raster:
    """Turn samples into gray or red, green and blue, and alpha.

    Or leave them, where they say no colour.

    Args:
        pixels: (C, H, W), as stored.
        page: the first, whose like the others are.
        is_one: the channels are samples of a pixel; else they are pages, planes of a stack, or
            times.
    Raises:
        BadImage: pages of colours.
    """
    kind = int(page.photometric)
    bits = (
        page.bitspersample
        if pixels.dtype.kind in "bu" and page.bitspersample < pixels.itemsize * 8
        else 0
    )
    raster = Raster(pixels, "", bits=bits)
    if not is_one:
        raster = raster._replace(what=_PAGES)
        if kind not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _MASK):
            raise BadImage(
                "several pictures", f"expected one, got {len(pixels)} pages of {_name(kind)}"
            )
        return _invert(raster) if kind == _WHITE_IS_ZERO else raster
    if _num_extra(page) and not _has_alpha(page):
        if kind not in (_BLACK_IS_ZERO, _RGB):
            raise BadImage(
                f"a TIFF of {_name(kind)} with more channels, which is not read", remedy=_SAVE
            )
        return raster
    raster = _interpret(raster._replace(has_alpha=_has_alpha(page)), page)
    if raster.has_alpha and page.extrasamples[0] == _ASSOCIATED:
        raster = straighten(raster)
    return raster


def _interpret(raster: Raster, page: TiffPage) -> Raster:
    kind = int(page.photometric)
    if kind == _PALETTE:
        return _look_up(raster, page)
    if kind == _WHITE_IS_ZERO:
        return _invert(raster)._replace(colour="gray")
    if kind in (_BLACK_IS_ZERO, _MASK):
        return raster._replace(colour="gray")
    if kind == _INKS:
        rgb = inks_to_rgb(raster.pixels[:4], top_of(raster))
        raster = raster._replace(pixels=np.concatenate([rgb, raster.pixels[4:]]), what=CMYK)
    elif kind == _YCC and page.compression != _JPEG:
        luma, reference = (_numbers(page, code) for code in (_COEFFICIENTS, _REFERENCE))
        more = {"luma": luma} if luma else {}
        rgb = ycc_to_rgb(raster.pixels[:3], top_of(raster), reference=reference, **more)
        raster = raster._replace(pixels=np.concatenate([rgb, raster.pixels[3:]]))
    return raster._replace(colour="rgb")


def _invert(raster: Raster) -> Raster:
    """Of a picture whose white is 0.

    Its alpha stays.
    """
    pixels = raster.pixels
    gray = ~pixels if pixels.dtype == bool else pixels.dtype.type(top_of(raster)) - pixels
    return raster._replace(
        pixels=np.concatenate([gray[:-1], pixels[-1:]]) if raster.has_alpha else gray
    )


def _look_up(raster: Raster, page: TiffPage) -> Raster:
    colours = colours_of(np.asarray(page.colormap))
    pixels = colours[:, raster.pixels[0].astype(np.intp)]
    if raster.has_alpha:
        top = np.iinfo(colours.dtype).max
        alpha = raster.pixels[-1].astype(np.float64) * top / top_of(raster)
        pixels = np.concatenate([pixels, np.rint(alpha)[None].astype(colours.dtype)])
    return Raster(pixels, "rgb", raster.has_alpha)


def _name(kind: int) -> str:
    return ("white is zero", "gray", "RGB", "palette indices", "a mask", "CMYK", "YCbCr")[kind]


def _num_extra(page: TiffPage) -> int:
    return page.samplesperpixel - _NUM_COLOURS[int(page.photometric)]


def _has_alpha(page: TiffPage) -> bool:
    return _num_extra(page) == 1 and tuple(page.extrasamples[:1]) in (
        (_ASSOCIATED,),
        (_UNASSOCIATED,),
    )


def _numbers(page: TiffPage, code: int) -> tuple[float, ...]:
    """A tag of fractions, each stored as two numbers.

    Empty where it is absent.
    """
    tag = page.tags.get(code)
    if tag is None:
        return ()
    values = np.asarray(tag.value, np.float64).ravel()
    if tag.dtype in (5, 10):  # RATIONAL, SRATIONAL
        values = values[::2] / values[1::2]
    return tuple(values.tolist())
