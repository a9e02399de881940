"""One image file's bytes -> the pixels of one row, or the reason why there are none. Reads no files.

JPEG takes torchvision's decoder, PNG of 8 bits Pillow's, .npy numpy's; the rest goes through scikit-image and tifffile.
torchvision's decoder for PNG is no faster, and ends the process (segmentation fault) on a damaged pixel stream.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import io
import logging
import math
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arguments import check_arguments
from ..errors import RecipeError
from ..recipe import Feature, nearest

if TYPE_CHECKING:
    from torch import Tensor

# skimage, torchvision, tifffile and PIL are imported where they are used: a run whose images are all stored needs none
# of them, and torchvision alone takes 1.6 s.

# Raise it when the same bytes would give other pixels or another verdict: every store is then decoded anew.
DECODER_VERSION = 3
PREPROCESS_MODULES = (
    "color",
    "exposure",
    "filters",
    "morphology",
    "restoration",
    "segmentation",
    "transform",
    "util",
)
# What Pillow may be asked to open; its other formats include ones that start programs (EPS) or are no pictures.
PILLOW_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TIFF")
# An axis as short as this, beside two that are longer, counts channels.
MOST_CHANNELS = 16
# Bytes that an image may have decoded to be decoded together with others: 147 x 147 pixels in colour.
SMALL_IMAGE = 1 << 16
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF_ORIENTATION = 0x0112


class BadImage(ValueError):  # noqa: N818  a verdict on a row, not a failure
    """The bytes are no image that fits the feature; the message is the reason, fit for a row's verdict."""


class TooLarge(BadImage):
    """The image declares more pixels than the recipe allows."""


class Picture(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: shape (C, H, W), of the feature's dtype.
        source: height and width of the file's upright picture, before `preprocess` and `size`.
    """

    pixels: np.ndarray
    source: tuple[int, int]


class _Header(NamedTuple):
    """What a file says of itself before it is decoded."""

    height: int
    width: int
    channels: int
    bits: int
    has_exif: bool


def num_channels(feature: Feature) -> int:
    """Channels of a decoded image."""
    return {"rgb": 3, "gray": 1}.get(feature.channels) or int(feature.channels)


def decode_image(data: bytes, feature: Feature, max_pixels: int, suffix: str) -> Picture:
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
        suffix: of the file's name, for messages; the format is told by the bytes.

    Raises:
        BadImage: with the reason, which does not name the file.
    """
    if not data:
        raise BadImage("zero bytes")
    try:
        if data.startswith(_JPEG):
            image = _decode_jpeg(data, feature.channels, max_pixels)
        elif data.startswith(_PNG):
            image = _decode_png(data, max_pixels)
        elif data.startswith(_NPY):
            image = _decode_npy(data, max_pixels)
        else:
            image = decode_by_skimage(data, max_pixels)
        if data.startswith(_TIFF) and str(len(image)) != feature.channels and (pages := describe_pages(*image.shape)):
            raise BadImage(f"wrong channels: expected {feature.channels}, got {pages}")
        if len(image) in (2, 4) and data.startswith((_NPY, *_TIFF)) and not _is_rgba(data):
            _check_kept(image, feature.channels)  # not colour and alpha: all of them hold measurements
        return _finish(image, feature)
    except BadImage:
        raise
    except Exception as error:  # a decoder met bytes or a function met pixels that it cannot work with
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadImage(f"not a readable image ({suffix or 'no suffix'}, {len(data)} bytes): {text}") from error


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


def decode_images(
    files: Sequence[bytes], paths: Sequence[str], feature: Feature, max_pixels: int, size: tuple[int, int]
) -> Decoded:
    """Decode several files, as `decode_image` does each, and keep the images of one size.

    Small JPEGs are decoded in one call, which lets go of the interpreter's lock once for all of them: taken and given
    back around each image, between threads that want it too, the lock costs as much time as the decoding.
    """
    small = _decode_small_jpegs(files, feature.channels, max_pixels)
    if len(small) == len(files) > 0 and (stacked := _stack(small, feature, size)) is not None:
        return Decoded(stacked, [Sizes(size, size)] * len(files))
    pixels = np.empty((len(files), *size, num_channels(feature)), feature.dtype)
    found: list[Sizes | BadImage] = []
    num_kept = 0
    for at, (data, path) in enumerate(zip(files, paths, strict=True)):
        try:
            if at in small:
                image = _finish(small[at].numpy(), feature)
            else:
                image = decode_image(data, feature, max_pixels, os.path.splitext(path)[1])
        except BadImage as error:
            found.append(error)
            continue
        sizes = Sizes((image.pixels.shape[1], image.pixels.shape[2]), image.source)
        found.append(sizes)
        if sizes.size == size:
            pixels[num_kept] = image.pixels.transpose(1, 2, 0)
            num_kept += 1
    return Decoded(pixels[:num_kept], found)


def _finish(image: np.ndarray, feature: Feature) -> Picture:
    """(C, H, W) as decoded -> channels, preprocess, size and dtype of the feature."""
    source = image.shape[1], image.shape[2]
    image = _to_channels(image, feature.channels)
    if feature.preprocess:
        image = _to_channels(_preprocess(image, feature), feature.channels)
    if feature.size and list(image.shape[1:]) != feature.size:
        image = _resize(image, feature.size)
    return Picture(_to_dtype(image, feature), source)


# --- decoders ---------------------------------------------------------------------------------------------------------


def _decode_jpeg(data: bytes, channels: str, max_pixels: int) -> np.ndarray:
    header = _jpeg_header(data)
    _check_size(header.height, header.width, header.channels, max_pixels)
    decode = _jpeg_decoder()
    if decode is None or header.bits != 8:
        return decode_by_skimage(data, max_pixels)
    try:
        return decode.one(_as_tensor(data), _jpeg_mode(header, channels)).numpy()
    except RuntimeError as error:
        text = str(error)
        if "truncated" in text:
            raise BadImage("truncated: the JPEG ends before its last row") from error
        raise BadImage(f"not a readable JPEG: {text.splitlines()[0].rsplit('.cpp:')[-1]}") from error


def _decode_small_jpegs(files: Sequence[bytes], channels: str, max_pixels: int) -> dict[int, Tensor]:
    """The pixels of those files that are small JPEGs, (C, H, W), by position; none where one of them is damaged."""
    decode = _jpeg_decoder()
    if decode is None:
        return {}
    jpegs: dict[int, list[int]] = {}  # by mode
    for at, data in enumerate(files):
        if not data.startswith(_JPEG):
            continue
        try:
            header = _jpeg_header(data)
        except (BadImage, LookupError, struct.error):
            continue
        if header.bits == 8 and header.height * header.width * header.channels <= min(SMALL_IMAGE, max_pixels):
            jpegs.setdefault(_jpeg_mode(header, channels), []).append(at)
    found: dict[int, Tensor] = {}
    for mode, places in jpegs.items():
        chosen = [files[at] for at in places]
        parts = list(_as_tensor(b"".join(chosen)).split([len(data) for data in chosen]))
        with contextlib.suppress(RuntimeError):
            found |= zip(places, decode.many(parts, mode), strict=True)
    return found


def _stack(images: Mapping[int, Tensor], feature: Feature, size: tuple[int, int]) -> np.ndarray | None:
    """(N, H, W, C) of images that are ready as they were decoded; None where one is not."""
    decode, shape = _jpeg_decoder(), (num_channels(feature), *size)
    if decode is None or feature.preprocess or feature.dtype != "uint8":
        return None
    if next(iter(images.values())).shape != shape:
        return None
    try:
        return decode.stack(list(images.values())).numpy()
    except RuntimeError:  # one of another shape is among them
        return None


def _jpeg_mode(header: _Header, channels: str) -> int:
    """What torchvision's decoder is asked for: 0 as in the file, 1 gray, 3 RGB.

    Colour becomes gray here later: the decoder's own gray, the Y of YCbCr, differs from the gray of the RGB pixels
    where those are clipped.
    """
    return 0 if channels.isdigit() else 1 if header.channels == 1 else 3


def _decode_png(data: bytes, max_pixels: int) -> np.ndarray:
    from PIL import Image

    header = _png_header(data)
    _check_size(header.height, header.width, header.channels, max_pixels)
    if header.bits != 8:
        return decode_by_skimage(data, max_pixels)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.mode == "P":
            image = image.convert("RGB")
        pixels = _channels_first(np.asarray(image))
        return _orient(pixels, image.getexif().get(_EXIF_ORIENTATION, 1)) if header.has_exif else pixels


def _decode_npy(data: bytes, max_pixels: int) -> np.ndarray:
    """An array that numpy saved, (H, W) or (H, W, C); its header is judged before its data, and no pickle is read."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise BadImage(f"npy of version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, in_fortran_order, dtype = read_header[version](file)
    if dtype.hasobject:
        raise BadImage("a pickled npy, which is not read because it could run a program; save an array of numbers")
    if dtype.kind not in "buif":
        raise BadImage(f"npy of {dtype}, expected numbers")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise BadImage(f"expected height, width and channels, got an array of shape {shape}")
    _check_size(shape[0], shape[1], shape[2] if len(shape) == 3 else 1, max_pixels)
    expected, found = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if found < expected:
        raise BadImage(f"truncated: the npy holds {found} of {expected} bytes")
    pixels = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    pixels = pixels.reshape(shape, order="F" if in_fortran_order else "C")
    return _channels_first(pixels.astype(dtype.newbyteorder("="), copy=False))


def decode_by_skimage(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode any format through scikit-image, or tifffile for TIFF; channels and values as in the file.

    Returns:
        Shape (C, H, W).

    Raises:
        BadImage: more pixels than allowed, several frames, or 16-bit colour that would be cut to 8 bits.
    """
    import skimage.io
    from PIL import Image

    if data.startswith(_TIFF):
        return _decode_tiff(data, max_pixels)
    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
        _check_size(image.height, image.width, len(image.getbands()), max_pixels)
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise BadImage(f"expected one picture, got {frames} frames")
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        if image.mode == "CMYK":
            return _orient(_channels_first(np.asarray(image.convert("RGB"))), orientation)
    pixels = np.asarray(skimage.io.imread(io.BytesIO(data)))
    pixels = pixels[0] if pixels.ndim == 4 else pixels  # a GIF of one frame
    if data.startswith(_PNG) and pixels.ndim == 3 and _png_header(data).bits == 16:
        raise BadImage("16-bit colour PNG, of which only 8 bits can be read; save it as TIFF")
    return _orient(_channels_first(pixels), orientation)


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


@contextlib.contextmanager
def hear_tifffile() -> Iterator[list[str]]:
    """Collect what tifffile says of a file in this thread, which else goes to standard error and names no file."""
    logging.getLogger("tifffile").addFilter(_LISTENER)  # once, however often
    _Listener.said.lines = lines = []
    try:
        yield lines
    finally:
        _Listener.said.lines = None


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


def _decode_tiff(data: bytes, max_pixels: int) -> np.ndarray:
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
        _check_size(int(np.prod(shape, dtype=object)), 1, 1, max_pixels)
        tag = tiff.pages.first.tags.get(_EXIF_ORIENTATION)
        orientation = int(tag.value) if tag else 1
        try:
            pixels = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:  # compressed in a way that libtiff reads
                return _orient(_channels_first(np.asarray(image)), orientation)
    others = [axis for axis, length in zip(axes, shape, strict=True) if axis not in "YX" and length > 1]
    if len(others) > 1 or "Y" not in axes or "X" not in axes:
        raise BadImage(f"expected height, width and at most one axis of channels, got {axes} {shape}")
    order = sorted(range(len(axes)), key=lambda at: (axes[at] in "YX", "YX".find(axes[at])))
    return _orient(pixels.transpose(order).reshape(-1, shape[axes.index("Y")], shape[axes.index("X")]), orientation)


def _is_rgba(data: bytes) -> bool:
    """Whether a TIFF says that its fourth channel is alpha."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return image.mode == "RGBA"
    except (OSError, Image.DecompressionBombError):  # no TIFF, or none that Pillow knows: four channels of floats
        return False


class _JpegDecoder(NamedTuple):
    """Torchvision's operator, whose Python wrapper warns on every call.

    Attributes:
        one: (file, mode) to (C, H, W).
        many: the same for lists.
        stack: images (C, H, W) of one shape to (N, H, W, C).
    """

    one: Callable[..., Any]
    many: Callable[..., Any]
    stack: Callable[..., Any]


@functools.cache
def _jpeg_decoder() -> _JpegDecoder | None:
    """The decoder, made once; None where this torchvision has the operator no more."""
    import torch
    import torchvision.io  # noqa: F401  registers the operator

    if not hasattr(torch.ops.image, "decode_jpeg"):
        return None
    # TorchScript as text: the compiler of Python functions is deprecated, this one reads no Python.
    unit = torch.jit.CompilationUnit(_JPEG_LOOP)
    return _JpegDecoder(unit.one, unit.many, unit.stack)


_JPEG_LOOP = """
def one(file: Tensor, mode: int) -> Tensor:
    return torch.ops.image.decode_jpeg(file, mode, True)

def many(files: List[Tensor], mode: int) -> List[Tensor]:
    images: List[Tensor] = []
    for file in files:
        images.append(torch.ops.image.decode_jpeg(file, mode, True))
    return images

def stack(images: List[Tensor]) -> Tensor:
    return torch.stack([image.permute(1, 2, 0) for image in images])
"""


def _as_tensor(data: bytes) -> Any:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)  # of bytes themselves it would warn


# --- headers ----------------------------------------------------------------------------------------------------------


def _check_size(height: int, width: int, channels: int, max_pixels: int) -> None:
    if height * width * channels > max_pixels:
        shape = f"{height} x {width} x {channels}" if width > 1 else f"{height}"
        raise TooLarge(f"an image bomb: it declares {shape} pixels, data.max_pixels allows {max_pixels}")


def _jpeg_header(data: bytes) -> _Header:
    """Walk the markers to the frame header (SOF)."""
    at, end = 2, len(data) - 10
    while at < end:
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            if not height or not width:
                break
            return _Header(height, width, channels, bits, has_exif=False)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no length
            at += 2
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    raise BadImage("truncated or damaged: a JPEG without a frame header")


def _png_header(data: bytes) -> _Header:
    """Walk all chunks and check their sums, so that a cut or damaged file is found whatever its decoder does."""
    at, names = len(_PNG), set()
    while b"IEND" not in names:
        length, name = struct.unpack_from(">I4s", data, at) if at + 12 <= len(data) else (0, b"")
        end = at + 12 + length
        if not name or end > len(data):
            raise BadImage("truncated: the PNG ends before its last chunk")
        body = memoryview(data)[at + 4 : end - 4]
        if zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadImage(f"damaged: the check sum of the PNG chunk {name.decode('latin-1')} does not fit")
        names.add(name)
        at = end
    if data[12:16] != b"IHDR":
        raise BadImage("damaged: the PNG has no header")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    return _Header(height, width, {0: 1, 4: 2, 6: 4}.get(colour, 3), bits, has_exif=b"eXIf" in names)


# --- pixels -----------------------------------------------------------------------------------------------------------


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) -> (C, H, W)."""
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise BadImage(f"expected height, width and channels, got an array of shape {pixels.shape}")
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """(C, H, W) upright, by EXIF's number from 1 to 8."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(0, 2, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, :, ::-1]
    return image[:, ::-1] if orientation in (3, 4, 7, 8) else image


def _check_kept(image: np.ndarray, channels: str) -> None:
    """Refuse an image that has channels to lose, unless the recipe names their number."""
    if not channels.isdigit():
        raise BadImage(
            f"wrong channels: expected {channels}, got {len(image)}; say `channels: {len(image)}` to keep them"
        )


def _to_channels(image: np.ndarray, channels: str) -> np.ndarray:
    found = len(image)
    if channels.isdigit():
        if found != int(channels):
            raise BadImage(f"wrong channels: expected {channels}, got {found}")
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
                f"float pixels from {image.min():g} to {image.max():g}, expected 0 to 1 for dtype {dtype}; "
                f"say `dtype: float32` to keep them"
            )
        return np.rint(np.clip(image, 0, 1) * float(top)).astype(dtype)
    if (image.dtype, dtype) == (np.uint16, np.uint8):
        return (image >> 8).astype(np.uint8)
    if (image.dtype, dtype) == (np.uint8, np.uint16):
        return image.astype(np.uint16) * np.uint16(257)
    if image.min() < 0 or image.max() > top:
        raise BadImage(
            f"{image.dtype} pixels from {image.min()} to {image.max()} do not fit dtype {dtype}; "
            f"say `dtype: float32` to keep them"
        )
    return image.astype(dtype)


# --- preprocess -------------------------------------------------------------------------------------------------------


def check_preprocess(feature: Feature) -> None:
    """Check names and arguments of the chain without running it.

    Raises:
        RecipeError: a name is no public function of the allowed modules, or its arguments do not fit.
    """
    for step in feature.preprocess:
        function = _preprocess_function(step.name)
        picture = next(iter(inspect.signature(function).parameters))
        check_arguments(f"preprocess.{step.name}", step.name, step.args, function, filled=(picture,))


def _preprocess(image: np.ndarray, feature: Feature) -> np.ndarray:
    """Run the chain on (H, W) or (H, W, C); (C, H, W) again."""
    pixels = np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    for step in feature.preprocess:
        try:
            pixels = np.asarray(_preprocess_function(step.name)(pixels, **step.args))
        except Exception as error:  # any of scikit-image's several hundred functions
            raise BadImage(f"preprocess {step.name} failed: {type(error).__name__}: {error}") from error
    return _channels_first(pixels)


@functools.cache
def _preprocess_function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(".")
    if module in PREPROCESS_MODULES and function in _public_functions(module):
        return getattr(importlib.import_module(f"skimage.{module}"), function)
    near = [f"{module}.{function}" for module in PREPROCESS_MODULES for function in _public_functions(module)]
    hint = nearest(name, difflib.get_close_matches(name, near, 3, 0.5) or [f"{one}.*" for one in PREPROCESS_MODULES])
    raise RecipeError(f"preprocess: {name} is not a function of scikit-image; {hint}")


def _public_functions(module: str) -> list[str]:
    namespace = importlib.import_module(f"skimage.{module}")
    return [
        name
        for name in namespace.__all__
        if not name.startswith("_") and callable(one := getattr(namespace, name)) and not inspect.isclass(one)
    ]
