"""npy, and by Pillow all formats without a file of their own.

A file's bytes -> its picture, or why there is none.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .colour import inks_to_rgb
from .listening import hear_decoders
from .orientation import orient, orientation_of_pillow
from .raster import CMYK, BadImage, Raster, channels_first, check_size, plain_raster, wrong_shape

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# Pillow reads the EXIF of AVIF and JPEG where it opens them, and names no file in what it says of
# it.
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)

NPY = b"\x93NUMPY"
SAVE_ARRAY = "save an array of numbers"

# What Pillow may be asked to open here; its other formats include ones that start programs (EPS) or
# are no pictures.
PILLOW_FORMATS = ("GIF", "BMP", "WEBP", "PPM", "AVIF", "JPEG2000")
# The modes that are read as they are, and what others become. LAB and HSV are not among them:
# Pillow's own conversion would take their numbers for colours.
_CONVERTED = {"P": "RGB", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "YCbCr": "RGB"}
_AS_THEY_ARE = ("1", "L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "F")
_PNM = re.compile(
    rb"P([2356])((?:\s|#[^\n]*\n)+)(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s"
)
_COMMENT = re.compile(rb"#[^\n]*")
_JPEG_2000 = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")


class Shape(NamedTuple):
    """What a picture is, as far as a file says it before its pixels are
    decoded.

    Attributes:
        height, width: of the upright picture.
        channels: as a feature sees them: 1 gray, 3 colours, alpha aside; others count measurements.
        bits: of a sample: 8, 16, or 32 for all that needs floats.
    """

    height: int
    width: int
    channels: int
    bits: int


def decode_npy(data: bytes, max_pixels: int) -> Raster:
    """An array that numpy saved, (H, W) or (H, W, C).

    Its header is judged before its data, and no pickle is read.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read_header:
        raise BadImage(
            "npy of another version", f"{version[0]}.{version[1]}, expected 1.0 or 2.0", SAVE_ARRAY
        )
    shape, in_fortran_order, dtype = read_header[version](file)
    if dtype.hasobject:
        raise BadImage(
            "a pickled npy, which is not read because it could run a program", remedy=SAVE_ARRAY
        )
    if dtype.kind not in "buif":
        raise BadImage("npy of no numbers", f"it holds {dtype}", SAVE_ARRAY)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise BadImage(*wrong_shape(shape))
    check_size(shape[0], shape[1], shape[2] if len(shape) == 3 else 1, max_pixels)
    expected, found = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if found < expected:
        raise BadImage("truncated", f"the npy holds {found:,} of {expected:,} bytes")
    pixels = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    pixels = pixels.reshape(shape, order="F" if in_fortran_order else "C")
    return plain_raster(channels_first(pixels.astype(dtype.newbyteorder("="), copy=False)))


def decode_by_pillow(data: bytes, max_pixels: int) -> Raster:
    """Decode any of `PILLOW_FORMATS`, upright, of 16 bits where the file has
    them.

    Of an animation the first frame.

    Raises:
        BadImage: more pixels than allowed, or colours that are no red, green and blue.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
        check_size(image.height, image.width, len(image.getbands()), max_pixels)
        num_frames = getattr(image, "n_frames", 1)
        raster = _decode_deep(data, num_bits(image, data)) or of_pillow(image)
        pixels = orient(raster.pixels, orientation_of_pillow(image))
        return raster._replace(pixels=pixels, num_frames=num_frames)


def of_pillow(image: PillowImage) -> Raster:
    """The picture that Pillow has opened, as stored.

    Not turned upright.

    Raises:
        BadImage: it has colours that are no red, green and blue.
    """
    if image.mode == "CMYK":
        return Raster(inks_to_rgb(channels_first(np.asarray(image)), 255), "rgb", what=CMYK)
    if image.has_transparency_data and image.mode in ("1", "L", "P", "RGB"):
        image = image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    elif image.mode in _CONVERTED:
        image = image.convert(_CONVERTED[image.mode])
    if image.mode not in _AS_THEY_ARE:
        raise BadImage(
            f"colours of the kind {image.mode}, which are not read", remedy="save it as RGB"
        )
    pixels = channels_first(np.asarray(image))
    if image.mode == "RGBA" and image.format == "BMP" and not pixels[3].any():
        return plain_raster(pixels[:3])  # a fourth byte that nobody filled
    raster = plain_raster(
        pixels.astype(pixels.dtype.newbyteorder("="), copy=False), "A" in image.mode
    )
    return raster._replace(bits=int(image.mode == "1"))


def shape_of_pillow(image: PillowImage, data: bytes) -> Shape:
    """What a file that Pillow has opened will be decoded to.

    Args:
        image: any format of Pillow.
        data: the file's first bytes.
    """
    height, width = image.height, image.width
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # texts that say it may stand behind the pixels
    if orientation_of_pillow(image) >= 5:  # stored on its side
        height, width = width, height
    is_gray = image.mode.startswith(("1", "L", "I", "F")) and image.mode != "LAB"
    bits = num_bits(image, data)
    if image.mode == "F" or (image.mode == "I" and bits == 8):
        bits = 32
    return Shape(height, width, 1 if is_gray else 3, bits if bits in (8, 32) else 16)


def num_bits(image: PillowImage, data: bytes) -> int:
    """Bits of a sample in a file of which Pillow, but for gray, reads 8.

    8 to 16.
    """
    if image.format == "PPM" and (header := _PNM.match(data)):
        return 16 if int(header[5]) > 255 else 8
    if image.format == "AVIF" and (at := data.find(b"av1C")) >= 0:
        is_high, is_twelve = data[at + 6] & 0x40, data[at + 6] & 0x20
        return 8 if not is_high else 12 if is_twelve else 10
    if image.format == "JPEG2000" and (at := data.find(_JPEG_2000[0])) >= 0:
        return max(8, (data[at + 42] & 0x7F) + 1)
    return 16 if image.format == "PNG" and data[24] == 16 else 8


def _decode_deep(data: bytes, bits: int) -> Raster | None:
    """A picture of 9 to 16 bits in a format of which Pillow reads 8.

    None where it has 8.
    """
    if bits == 8:
        return None
    if header := _PNM.match(data):
        return plain_raster(_decode_pnm(data, header))
    import imagecodecs

    is_jpeg_2000 = data.startswith(_JPEG_2000)
    with hear_decoders():
        pixels = (
            imagecodecs.jpeg2k_decode(data)
            if is_jpeg_2000
            else imagecodecs.avif_decode(data, index=0)
        )
    pixels = channels_first(np.asarray(pixels))
    if pixels.dtype == np.int16:  # signed, of which Pillow, too, takes the least for 0
        pixels = (pixels.astype(np.int32) + (1 << (bits - 1))).astype(np.uint16)
    if pixels.dtype != np.uint16:
        raise BadImage("damaged", f"a picture of {bits} bits that decodes to {pixels.dtype}")
    return plain_raster(pixels, len(pixels) in (2, 4))._replace(bits=bits % 16)


def _decode_pnm(data: bytes, header: re.Match[bytes]) -> np.ndarray:
    """The samples of a PGM or PPM of more than 8 bits, brought from 0 to its
    maximum to 0 to 65,535.
    """
    kind, width, height, top = (int(header[at]) for at in (1, 3, 4, 5))
    shape = (height, width, 1 if kind in (2, 5) else 3)
    if kind in (5, 6):
        samples = np.frombuffer(
            data, ">u2", min(math.prod(shape), (len(data) - header.end()) // 2), header.end()
        )
    else:
        samples = np.array(
            _COMMENT.sub(b"", data[header.end() :]).split()[: math.prod(shape)], np.int64
        )
    if samples.size < math.prod(shape):
        raise BadImage("truncated", f"the file holds {samples.size} of {math.prod(shape)} samples")
    if samples.max(initial=0) > top or not 0 < top < 65536:
        raise BadImage(
            "damaged",
            f"a sample of {samples.max(initial=0)}, where the file says {top} is the largest",
        )
    scaled = (samples.astype(np.uint64) * 65535 * 2 + top) // (2 * top)
    return channels_first(scaled.astype(np.uint16).reshape(shape))
