"""One image file's bytes -> the pixels of one row, or the reason why there are none. Reads no files.

JPEG takes torchvision's decoder, PNG of 8 bits Pillow's, .npy numpy's; the rest goes through scikit-image and tifffile.
torchvision's decoder for PNG is no faster, and ends the process (segmentation fault) on a damaged pixel stream. Each
has its file; here stand the choice among them and the way from their pixels to the feature's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..recipe import Feature
from .decoders import NPY, PNG, BadImage, decode_by_skimage, decode_npy, decode_png
from .jpeg import JPEG, decode_jpeg, decode_small_jpegs, jpeg_decoder
from .preprocess import run_preprocess
from .tiff import TIFF, decode_tiff, describe_pages, is_rgba
from .verdicts import quote

if TYPE_CHECKING:
    from torch import Tensor

# skimage, torchvision, tifffile and PIL are imported where they are used: a run whose images are all stored needs none
# of them, and torchvision alone takes 1.6 s.

# Raise it when the same bytes would give other pixels or another verdict: every store is then decoded anew.
DECODER_VERSION = 4


class Picture(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: shape (C, H, W), of the feature's dtype.
        source: height and width of the file's upright picture, before `preprocess` and `size`.
    """

    pixels: np.ndarray
    source: tuple[int, int]


def num_channels(feature: Feature) -> int:
    """Channels of a decoded image."""
    return {"rgb": 3, "gray": 1}.get(feature.channels) or int(feature.channels)


def decode_image(data: bytes, feature: Feature, max_pixels: int) -> Picture:
    """Decode a file's bytes, orient them as EXIF says, run the `preprocess` chain and bring them to size and dtype.

    Channels: rgb repeats the channel of a gray image; gray weighs the channels of a colour image by ITU-R 601, as
    Pillow does; both drop an alpha channel, which npy never has and TIFF where it says RGBA; a number must be the
    file's own. Values: whole numbers keep theirs where they fit `dtype`, except that uint16 becomes uint8 by its high
    byte, and uint8 becomes uint16 times 257; floats, as many functions of scikit-image give them, count from 0 to 1:
    uint8 is round(255 x), clipped. float32 keeps all.

    Args:
        data: the whole file.
        feature: the image specification.
        max_pixels: largest height x width x channels that the file may declare; checked before it is decoded.

    Raises:
        BadImage: with the reason, which does not name the file. The format is told by the bytes alone.
    """
    if not data:
        raise BadImage("zero bytes")
    try:
        if data.startswith(JPEG):
            image = decode_jpeg(data, feature.channels, max_pixels)
        elif data.startswith(PNG):
            image = decode_png(data, max_pixels)
        elif data.startswith(NPY):
            image = decode_npy(data, max_pixels)
        elif data.startswith(TIFF):
            image = decode_tiff(data, max_pixels)
        else:
            image = decode_by_skimage(data, max_pixels)
        if data.startswith(TIFF) and str(len(image)) != feature.channels and (pages := describe_pages(*image.shape)):
            raise BadImage("wrong channels", f"expected {feature.channels}, got {pages}")
        if len(image) in (2, 4) and data.startswith((NPY, *TIFF)) and not is_rgba(data):
            _check_kept(image, feature.channels)  # not colour and alpha: all of them hold measurements
        return _finish(image, feature)
    except BadImage:
        raise
    except Exception as error:  # a decoder met bytes or a function met pixels that it cannot work with
        raise BadImage("not a readable image", said=quote(error)) from error


class Sizes(NamedTuple):
    """Heights and widths of an image: of its pixels, and of the file's upright picture."""

    size: tuple[int, int]
    source: tuple[int, int]


class Decoded(NamedTuple):
    """Several files decoded.

    Attributes:
        pixels: (M, H, W, C), of the M images that have the wanted size, in the order of the files.
        found: the sizes of each file's image, or why it is none.
    """

    pixels: np.ndarray
    found: list[Sizes | BadImage]


def decode_images(files: Sequence[bytes], feature: Feature, max_pixels: int, size: tuple[int, int]) -> Decoded:
    """Decode several files, as `decode_image` does each, and keep the images of one size.

    Small JPEGs are decoded in one call, which lets go of the interpreter's lock once for all of them: taken and given
    back around each image, between threads that want it too, the lock costs as much time as the decoding.
    """
    small = decode_small_jpegs(files, feature.channels, max_pixels)
    if len(small) == len(files) > 0 and (stacked := _stack(small, feature, size)) is not None:
        return Decoded(stacked, [Sizes(size, size)] * len(files))
    pixels = np.empty((len(files), *size, num_channels(feature)), feature.dtype)
    found: list[Sizes | BadImage] = []
    num_kept = 0
    for at, data in enumerate(files):
        try:
            image = _finish(small[at].numpy(), feature) if at in small else decode_image(data, feature, max_pixels)
        except BadImage as error:
            found.append(error)
            continue
        sizes = Sizes((image.pixels.shape[1], image.pixels.shape[2]), image.source)
        found.append(sizes)
        if sizes.size == size:
            pixels[num_kept] = image.pixels.transpose(1, 2, 0)
            num_kept += 1
    return Decoded(pixels[:num_kept], found)


def _stack(images: Mapping[int, Tensor], feature: Feature, size: tuple[int, int]) -> np.ndarray | None:
    """(N, H, W, C) of images that are ready as they were decoded; None where one is not."""
    decode, shape = jpeg_decoder(), (num_channels(feature), *size)
    if decode is None or feature.preprocess or feature.dtype != "uint8":
        return None
    if next(iter(images.values())).shape != shape:
        return None
    try:
        return decode.stack(list(images.values())).numpy()
    except RuntimeError:  # one of another shape is among them
        return None


def _finish(image: np.ndarray, feature: Feature) -> Picture:
    """(C, H, W) as decoded -> channels, preprocess, size and dtype of the feature."""
    source = image.shape[1], image.shape[2]
    image = _to_channels(image, feature.channels)
    if feature.preprocess:
        image = _to_channels(run_preprocess(image, feature), feature.channels)
    if feature.size and list(image.shape[1:]) != feature.size:
        image = _resize(image, feature.size)
    return Picture(_to_dtype(image, feature), source)


def _check_kept(image: np.ndarray, channels: str) -> None:
    """Refuse an image that has channels to lose, unless the recipe names their number."""
    if not channels.isdigit():
        raise BadImage(
            "wrong channels",
            f"expected {channels}, got {len(image)}",
            f"say `channels: {len(image)}` to keep them",
        )


def _to_channels(image: np.ndarray, channels: str) -> np.ndarray:
    found = len(image)
    if channels.isdigit():
        if found != int(channels):
            raise BadImage("wrong channels", f"expected {channels}, got {found}")
        return image
    if found > 4:
        _check_kept(image, channels)
    if found <= 2:
        return np.broadcast_to(image[:1], (3, *image.shape[1:])) if channels == "rgb" else image[:1]
    if channels == "rgb":
        return image[:3]
    if image.dtype.kind == "f":
        return np.tensordot(np.array([0.299, 0.587, 0.114], image.dtype), image[:3], 1)[None]
    red, green, blue = image[:3].astype(np.uint64 if image.dtype.itemsize > 2 else np.uint32)
    return (((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(image.dtype))[None]


def _resize(image: np.ndarray, size: list[int]) -> np.ndarray:
    """Torchvision's antialiased bilinear resize; uint8 stays uint8, others go through float32."""
    import torch
    from torchvision.transforms.v2.functional import resize

    if image.dtype == np.uint8:
        return resize(torch.from_numpy(_writable(image)), size, antialias=True).numpy()
    if image.dtype == bool:
        image = image.astype(np.uint8) * np.uint8(255)
    resized = resize(torch.from_numpy(image.astype(np.float32)), size, antialias=True).numpy()
    return resized if image.dtype.kind == "f" else np.rint(resized).astype(image.dtype)


def _writable(image: np.ndarray) -> np.ndarray:
    """What torch.from_numpy takes without a warning: no negative strides, not read-only."""
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
