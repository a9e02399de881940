"""One image file's bytes -> the pixels of one row, or the reason why there are
none. Reads no files.

Each format has its decoder in `formats/`. This file chooses among them, and brings their pixels to
those that the feature asks for; `formats/colour.py` does the part of colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...recipe import Feature
from ..files import HEAD_BYTES, SAVE_PICTURE, is_camera_raw, name_contents
from ..verdicts import quote
from .formats import (
    JPEG,
    NPY,
    PNG,
    TIFF,
    BadImage,
    Note,
    Raster,
    decode_by_pillow,
    decode_into,
    decode_jpeg,
    decode_npy,
    decode_png,
    decode_tiff,
    describe_pages,
    fill_range,
    is_transparent,
    plain_raster,
    to_channels,
)
from .preprocess import run_preprocess

# torch, torchvision, tifffile, PIL and the like are imported where they are used: a run whose
# images are all stored needs none of them, and torchvision alone takes 1.6 s.

# Raise it when the same bytes would give other pixels or another verdict: every store is then
# decoded anew.
DECODER_VERSION = 9


class Picture(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: shape (C, H, W), of the feature's dtype.
        source: height and width of the file's upright picture, before `preprocess` and `size`.
        notes: what the data report says of it.
    """

    pixels: np.ndarray
    source: tuple[int, int]
    notes: Note


def num_channels(feature: Feature) -> int:
    """Channels of a decoded image."""
    return {"rgb": 3, "gray": 1}.get(feature.channels) or int(feature.channels)


def decode_image(data: bytes, feature: Feature, max_pixels: int) -> Picture:
    """Decode a file's bytes, orient them as EXIF says, run the `preprocess`
    chain and bring them to size and dtype.

    Channels: rgb repeats the channel of a gray image; gray weighs the channels of a colour image by
    ITU-R 601, as Pillow does; both lay what has alpha onto the feature's ground. npy has no alpha,
    and a TIFF where it says so. A number must be the file's own. Values: whole numbers keep theirs
    where they fit `dtype`, except that samples of fewer bits fill 8 or 16, uint16 becomes uint8 by
    its high byte, and uint8 becomes uint16 times 257; floats, as many functions of scikit-image
    give them, count from 0 to 1: uint8 is round(255 x), clipped. float32 keeps all of 8 bits and
    more.

    Args:
        data: the whole file.
        feature: the image specification.
        max_pixels: largest height x width x channels that the file may declare; checked before it
            is decoded.

    Raises:
        BadImage: with the reason, which does not name the file. The format is told by the bytes
            alone.
    """
    if not data:
        raise BadImage("zero bytes")
    try:
        raster = _decode(data, max_pixels)
        num = len(raster.pixels)
        if (
            data.startswith(TIFF)
            and str(num) != feature.channels
            and (pages := describe_pages(*raster.pixels.shape))
        ):
            raise BadImage("wrong channels", f"expected {feature.channels}, got {pages}")
        return _finish(raster, feature)
    except BadImage:
        raise
    except (
        Exception
    ) as error:  # a decoder met bytes or a function met pixels that it cannot work with
        raise _name_reason(data, error) from error


def _name_reason(data: bytes, error: Exception) -> BadImage:
    """What a file is that no decoder reads, else what a decoder said of it."""
    from PIL import UnidentifiedImageError

    if not isinstance(error, UnidentifiedImageError):
        return BadImage("not a readable image", said=quote(error))
    contents = name_contents(data[:HEAD_BYTES])
    if contents is None or contents.is_picture:
        return BadImage(
            "not a readable image", "it begins as no format that is known", SAVE_PICTURE
        )
    return BadImage(contents.what, remedy=contents.remedy or SAVE_PICTURE)


def _decode(data: bytes, max_pixels: int) -> Raster:
    if data.startswith(JPEG):
        return decode_jpeg(data, max_pixels)
    if data.startswith(PNG):
        return decode_png(data, max_pixels)
    if data.startswith(NPY):
        return decode_npy(data, max_pixels)
    if data.startswith(TIFF):
        if is_camera_raw(data):
            raise BadImage("a raw picture of a camera", remedy=SAVE_PICTURE)
        return decode_tiff(data, max_pixels)
    return decode_by_pillow(data, max_pixels)


class Sizes(NamedTuple):
    """Heights and widths of an image.

    Of its pixels, and of the file's upright picture; and what is said of it.
    """

    size: tuple[int, int]
    source: tuple[int, int]
    notes: Note


class Decoded(NamedTuple):
    """Several files decoded.

    Attributes:
        pixels: (M, H, W, C), of the M images that have the wanted size, in the order of the files.
        found: the sizes of each file's image, or why it is none.
    """

    pixels: np.ndarray
    found: list[Sizes | BadImage]


def decode_images(
    files: Sequence[bytes], feature: Feature, max_pixels: int, size: tuple[int, int]
) -> Decoded:
    """Decode several files, as `decode_image` does each, and keep the images of
    one size.

    A JPEG to whose pixels nothing is to be done is decoded to where they will be written from.
    """
    pixels = np.empty((len(files), *size, num_channels(feature)), feature.dtype)
    is_plain = (
        feature.dtype == "uint8" and not feature.preprocess and feature.channels in ("rgb", "gray")
    )
    found: list[Sizes | BadImage] = []
    num_kept = 0
    for data in files:
        try:
            if (
                is_plain
                and data.startswith(JPEG)
                and decode_into(pixels[num_kept], data, max_pixels)
            ):
                found.append(Sizes(size, size, Note(0)))
                num_kept += 1
                continue
            image = decode_image(data, feature, max_pixels)
        except BadImage as error:
            found.append(error)
            continue
        sizes = Sizes((image.pixels.shape[1], image.pixels.shape[2]), image.source, image.notes)
        found.append(sizes)
        if sizes.size == size:
            pixels[num_kept] = image.pixels.transpose(1, 2, 0)
            num_kept += 1
    return Decoded(pixels[:num_kept], found)


def _finish(raster: Raster, feature: Feature) -> Picture:
    """A file's picture as decoded -> channels, preprocess, size and dtype of
    the feature.
    """
    image = to_channels(_fill_range(raster, feature), feature.channels, feature.background)
    if feature.preprocess:
        image = _to_channels(run_preprocess(image, feature), feature)
    if feature.size and list(image.shape[1:]) != feature.size:
        image = _resize(image, feature.size)
    pixels = _to_dtype(image, feature)
    return Picture(
        pixels, (raster.pixels.shape[1], raster.pixels.shape[2]), _note(raster, image, feature)
    )


def _fill_range(raster: Raster, feature: Feature) -> Raster:
    """Bring samples to all bits of 8 or 16.

    Float32 keeps numbers of 9 to 15 bits, and functions get masks as such.
    """
    if feature.preprocess:
        keeps = raster.bits == 1 and raster.colour != "rgb" and not raster.has_alpha
    else:
        keeps = raster.bits > 8 and feature.dtype == "float32"
    return raster if keeps else fill_range(raster)


def _to_channels(image: np.ndarray, feature: Feature) -> np.ndarray:
    """What a function returned, whose second or fourth channel is no alpha
    that could be laid onto a ground.
    """
    if not feature.channels.isdigit() and len(image) in (2, 4):
        image = image[:-1]
    return to_channels(plain_raster(image), feature.channels, feature.background)


def _note(raster: Raster, image: np.ndarray, feature: Feature) -> Note:
    notes = Note.ANIMATED if raster.num_frames > 1 else Note(0)
    if not feature.channels.isdigit() and is_transparent(raster):
        notes |= Note.TRANSPARENT
    if (image.dtype, feature.dtype) == (np.uint16, "uint8") and not feature.preprocess:
        notes |= Note.DEEP
    return notes


def _resize(image: np.ndarray, size: list[int]) -> np.ndarray:
    """Torchvision's antialiased bilinear resize.

    Uint8 stays uint8, others go through float32.
    """
    import torch
    from torchvision.transforms.v2.functional import resize

    if image.dtype == np.uint8:
        return resize(torch.from_numpy(_writable(image)), size, antialias=True).numpy()
    if image.dtype == bool:
        image = image.astype(np.uint8) * np.uint8(255)
    resized = resize(torch.from_numpy(image.astype(np.float32)), size, antialias=True).numpy()
    return resized if image.dtype.kind == "f" else np.rint(resized).astype(image.dtype)


def _writable(image: np.ndarray) -> np.ndarray:
    """What torch.from_numpy takes without a warning.

    No negative strides, not read-only.
    """
    return image if image.flags.writeable and min(image.strides) >= 0 else image.copy()


def _to_dtype(image: np.ndarray, feature: Feature) -> np.ndarray:
    dtype = np.dtype(feature.dtype)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            image = image.astype(dtype, copy=False)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise BadImage("pixels that are not numbers (NaN or infinite)")
    if image.dtype == dtype:
        return image
    top = np.iinfo(dtype).max
    if image.dtype == bool:
        return image.astype(dtype) * dtype.type(top)
    if image.dtype.kind == "f":
        if not feature.preprocess and (image.min() < 0 or image.max() > 1):
            raise BadImage(
                f"float pixels outside 0 to 1, the range for dtype {dtype}",
                f"they go from {image.min():g} to {image.max():g}",
                "say `dtype: float32` to keep them",
            )
        return np.rint(np.clip(image, 0, 1) * float(top)).astype(dtype)
    if (image.dtype, dtype) == (np.uint16, np.uint8):
        return (image >> 8).astype(np.uint8)
    if (image.dtype, dtype) == (np.uint8, np.uint16):
        return image.astype(np.uint16) * np.uint16(257)
    if image.min() < 0 or image.max() > top:
        raise BadImage(
            f"{image.dtype} pixels that do not fit dtype {dtype}",
            f"they go from {image.min()} to {image.max()}",
            "say `dtype: float32` to keep them",
        )
    return image.astype(dtype)
