"""TIFF bytes -> pixels by tifffile, whatever their compression.

`tiff_colour.py` says what they mean.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...verdicts import quote
from .decoders import Shape
from .jpeg import decode_pixels
from .listening import hear_decoders
from .orientation import EXIF_ORIENTATION, find_orientation, orient
from .raster import BadImage, Raster, check_size, top_of
from .tiff_colour import check_colours, describe_colours, read_colours

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# An axis as short as this, beside two that are longer, counts channels.
MOST_CHANNELS = 16
# Kinds of files, in tifffile's words, whose series are pictures in their own right; those of
# scanners for slides hold labels and overviews beside the one.
_ALBUMS = ("generic", "uniform", "shaped", "ome", "imagej")
_BITS_PER_SAMPLE, _XMP, _DNG_VERSION = 258, 700, 50706
_SPLIT = "save each as a file of its own"
_UNCOMPRESSED, _FAXES, _OLD_JPEG, _JPEG = 1, (2, 3, 4), 6, 7
# LZW, deflate, PackBits, LZMA and Zstandard give back the bytes that were put in.
_BYTES = (5, 8, 32946, 32773, 34925, 50000)


def decode_tiff(data: bytes, max_pixels: int) -> Raster:
    """Decode the one picture of a TIFF, upright.

    Pages and planes of one picture become channels.

    Raises:
        BadImage: more pixels than allowed, several pictures, more axes than height, width and
            channels, or colours that are not read.
    """
    import tifffile

    with hear_decoders() as lines:
        try:
            with tifffile.TiffFile(io.BytesIO(data)) as tiff:
                return _decode_picture(tiff, data, max_pixels)
        except BadImage:
            raise
        except (
            Exception
        ) as error:  # which is about numbers, where what was said before it is about the file
            raise ValueError("; ".join([quote(error), *lines[:1]])) from error


def shape_of_tiff(path: Path) -> Shape | None:
    """What a TIFF will be decoded to.

    None where it has no height and width.

    Raises:
        BadImage: it will not be decoded.
    """
    import tifffile

    with hear_decoders(), tifffile.TiffFile(path) as tiff:
        series = _find_picture(tiff)
        page, sizes = _first_page(series), dict(zip(series.axes, series.shape, strict=True))
        if "Y" not in sizes or "X" not in sizes:
            return None
        height, width = sizes["Y"], sizes["X"]
        if _orientation(page) >= 5:
            height, width = width, height
        if _is_one_picture(series):
            return Shape(height, width, *describe_colours(page))
        channels = math.prod(length for axis, length in sizes.items() if axis not in "YX")
        return Shape(height, width, channels, describe_colours(page)[1])


def _decode_picture(tiff: TiffFile, data: bytes, max_pixels: int) -> Raster:
    series = _find_picture(tiff)
    axes, shape = series.axes, series.shape
    check_size(math.prod(shape), 1, 1, max_pixels)
    others = [
        axis for axis, length in zip(axes, shape, strict=True) if axis not in "YX" and length > 1
    ]
    if len(others) > 1 and "S" in others:
        several = (
            f"expected one, got {math.prod(shape) // math.prod(series.keyframe.shape)} (axes "
            f"{axes}, {shape})"
        )
        raise BadImage("several pictures", several, _SPLIT)
    if len(others) > 1 or "Y" not in axes or "X" not in axes:
        raise BadImage(
            "too many axes",
            f"expected height, width and at most one axis of channels, got {axes} {shape}",
        )
    page = _first_page(series)
    _check_page(page, data)
    _check_jpegs(page, data)
    order = sorted(range(len(axes)), key=lambda at: (axes[at] in "YX", "YX".find(axes[at])))
    height, width = shape[axes.index("Y")], shape[axes.index("X")]
    pixels = np.asarray(series.asarray()).transpose(order).reshape(-1, height, width)
    raster = read_colours(pixels, page, is_one=_is_one_picture(series))
    raster = raster if raster.has_alpha else _add_mask(raster, tiff, (height, width))
    return raster._replace(pixels=orient(raster.pixels, _orientation(page)))


def _first_page(series: TiffPageSeries) -> TiffPage:
    return series.keyframe


def _is_one_picture(series: TiffPageSeries) -> bool:
    """Whether the channels are samples of a pixel, and no pages."""
    return all(
        axis in "YXS" for axis, length in zip(series.axes, series.shape, strict=True) if length > 1
    )


def _orientation(page: TiffPage) -> int:
    if tag := page.tags.get(EXIF_ORIENTATION):
        found = tag.value[0] if isinstance(tag.value, tuple) else tag.value
        return found if found in range(1, 9) else 1
    xmp = page.tags.valueof(_XMP, default=b"")
    return find_orientation(b"", xmp if isinstance(xmp, bytes) else b"")


def _find_picture(tiff: TiffFile) -> TiffPageSeries:
    """The picture of full resolution.

    No thumbnail, no level of a pyramid, no mask.
    """
    if _DNG_VERSION in tiff.pages.first.tags:
        raise BadImage(
            "a DNG, raw data of a camera's sensor, which is not read",
            remedy="develop it to TIFF or PNG",
        )
    # tifffile takes any page of exactly 1/2, 1/3 or 1/4 of the size for a level of a pyramid,
    # whatever it shows.
    levels = [one for series in tiff.series for one in [series, *_levels_unsaid(series)]]
    found = [one for one in levels if not (one.keyframe.is_reduced or one.keyframe.is_mask)]
    if not found:
        raise BadImage(
            "a TIFF of a thumbnail or a mask alone, as cameras' raw files are",
            remedy="develop it to PNG",
        )
    if len(found) > 1 and found[0].kind in _ALBUMS:
        sizes = ", ".join(" x ".join(str(length) for length in one.shape) for one in found[:3])
        raise BadImage("several pictures", f"expected one, got {len(found)} of {sizes}", _SPLIT)
    return found[0]


def _levels_unsaid(series: TiffPageSeries) -> list[TiffPageSeries]:
    """The levels beneath a picture that are such by their size alone."""
    return [one for one in series.levels[1:] if not one.keyframe.is_subifd]


def _add_mask(raster: Raster, tiff: TiffFile, size: tuple[int, int]) -> Raster:
    """The picture with the mask that lies beside it as its alpha.

    1 where the picture shows.
    """
    masks = [
        one
        for one in tiff.series
        if one.keyframe.is_mask and not one.keyframe.is_reduced and one.shape == size
    ]
    if not masks or not raster.colour:
        return raster
    alpha = (np.asarray(masks[0].asarray()) > 0) * raster.pixels.dtype.type(top_of(raster))
    return raster._replace(pixels=np.concatenate([raster.pixels, alpha[None]]), has_alpha=True)


def _check_page(page: TiffPage, data: bytes) -> None:
    """Refuse what would be read in another sense than it was written in.

    Raises:
        BadImage: says why.
    """
    if page.compression == _OLD_JPEG:
        raise BadImage(
            "a TIFF with JPEG compression of the old style, which is not read",
            remedy="save it anew",
        )
    check_colours(page)
    # Without the tag a sample has one bit, which is what faxes and masks rely on.
    if _BITS_PER_SAMPLE not in page.tags and page.compression not in (
        _UNCOMPRESSED,
        *_FAXES,
        *_BYTES,
    ):
        raise BadImage(
            "damaged", "the TIFF does not say how many bits a sample has (BitsPerSample)"
        )
    if page.compression in (_UNCOMPRESSED, *_BYTES):
        _check_segments(page, data)


def _check_segments(page: TiffPage, data: bytes) -> None:
    """Compare the bytes of a page's strips or tiles, or of one where they are
    compressed, with what it says.

    Some may be empty, as GDAL leaves those of zeros.
    """
    filled = [at for at, count in enumerate(page.databytecounts) if count]
    if not filled:
        raise BadImage("damaged", "all strips or tiles of the TIFF are empty")
    if page.compression == _UNCOMPRESSED:
        found, expected = sum(page.databytecounts), sum(_num_bytes(page, at) for at in filled)
    else:
        expected = _num_bytes(page, filled[0])
        found = len(_decompress(page, data, filled[0], most=2 * expected))
    # Some writers pad the last strip, or count what follows it, or leave out what is empty in a
    # tile.
    if (found < expected and not page.is_tiled) or found >= 2 * expected:
        raise BadImage(
            "damaged",
            f"the TIFF says {page.imagelength} x {page.imagewidth} pixels of "
            f"{page.samplesperpixel} times "
            f"{_bits_of(page)}, {expected} bytes, and holds {found}",
        )


def _num_bytes(page: TiffPage, at: int) -> int:
    """Bytes of a strip or tile before it is compressed, by what the page
    says.
    """
    if page.is_tiled:
        width, rows = page.tilewidth, page.tilelength * page.tiledepth
    else:
        each = min(page.rowsperstrip, page.imagelength)
        width, rows = (
            page.imagewidth,
            min(each, page.imagelength - at % math.ceil(page.imagelength / each) * each),
        )
    return rows * math.ceil(width * _num_samples(page) * page.bitspersample / 8)


def _decompress(page: TiffPage, data: bytes, at: int, most: int) -> bytes:
    """A strip or tile, of which a bomb gives no more than `most` bytes.

    Raises:
        BadImage: it is damaged.
    """
    import imagecodecs
    import tifffile

    segment = data[page.dataoffsets[at] : page.dataoffsets[at] + page.databytecounts[at]]
    if page.fillorder == 2:
        segment = imagecodecs.bitorder_decode(segment)
    try:
        return tifffile.TIFF.DECOMPRESSORS[page.compression](segment, out=most)
    except (RuntimeError, ValueError) as error:
        detail = f"a strip or tile of the TIFF is not what it says, samples of {_bits_of(page)}"
        raise BadImage("damaged", detail, said=quote(error)) from error


def _bits_of(page: TiffPage) -> str:
    return (
        f"{page.bitspersample} bits"
        if _BITS_PER_SAMPLE in page.tags
        else "1 bit (it has no BitsPerSample)"
    )


def _check_jpegs(page: TiffPage, data: bytes) -> None:
    """Listen to libjpeg's warnings, which the decoder that tifffile calls
    keeps to itself.
    """
    if page.compression != _JPEG or page.bitspersample != 8:
        return
    tables = page.jpegtables or b""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        segment = data[offset : offset + count]
        try:
            if count:
                whole = tables[:-2] + segment[2:] if tables else segment
                decode_pixels(whole, {1: "GRAY", 4: "CMYK"}.get(_num_samples(page), "RGB"))
        except BadImage as error:
            said = error.reason.said
            raise BadImage(
                "damaged", "a JPEG in the TIFF cannot be read wholly", said=said
            ) from error


def _num_samples(page: TiffPage) -> int:
    return 1 if page.planarconfig == 2 else page.samplesperpixel


def describe_pages(num: int, height: int, width: int) -> str:
    """What is wrong with a TIFF whose pages seem to be the rows of one picture.

    Empty where they do not.

    tifffile writes an array (H, W, C) that it cannot tell to be colour as H pages of W x C pixels.
    """
    if num <= 4 or not 1 < width <= MOST_CHANNELS or 2 * width > min(num, height):
        return ""
    return (
        f"{num} pages of {height} x {width} pixels, which look like the rows of a picture of {num} "
        f"x {height} pixels "
        f"and {width} channels; save it with tifffile.imwrite(…, photometric='minisblack', "
        "planarconfig='contig')"
    )
