"""PNG bytes -> pixels as in the file.

8 bits and fewer by Pillow, 16 by libpng in imagecodecs.

Values are those that the file stores; what it says of gamma and colour spaces (gAMA, cHRM, sRGB,
iCCP) changes none. torchvision's decoder is no faster, and ends the process (segmentation fault) on
a damaged pixel stream.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np

from .decoders import of_pillow
from .listening import hear_decoders
from .orientation import EXIF_TEXT, XMP_TEXT, orient, orientation_of_pillow
from .raster import BadImage, Raster, channels_first, check_size, plain_raster

PNG = b"\x89PNG\r\n\x1a\n"
# Chunks, and names of texts, that may say which way up the picture is.
_TURNING = {b"eXIf", EXIF_TEXT.encode(), XMP_TEXT.encode()}
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6


class PngHeader(NamedTuple):
    """What a PNG says of itself.

    `chunks` holds the first of each name that is looked at, texts by their own names.

    Of fcTL, a frame's own header, only one ahead of IDAT is held: then the picture is the
    animation's first.
    """

    height: int
    width: int
    bits: int
    colour: int
    chunks: dict[bytes, bytes]

    @property
    def channels(self) -> int:
        """Of the decoded picture, alpha included."""
        own = {_GRAY: 1, _GRAY_ALPHA: 2, _RGB_ALPHA: 4}.get(self.colour, 3)
        return own + (b"tRNS" in self.chunks and self.colour in (_GRAY, _RGB, _PALETTE))

    @property
    def num_frames(self) -> int:
        """Pictures of an animation, and the one ahead of it that is none of
        its frames; 1 where there is none.
        """
        if b"acTL" not in self.chunks:
            return 1
        return int.from_bytes(self.chunks[b"acTL"][:4], "big") + (b"fcTL" not in self.chunks)


def decode_png(data: bytes, max_pixels: int) -> Raster:
    """Decode a PNG, upright.

    A palette becomes colours, transparent colours become an alpha channel.

    Raises:
        BadImage: it is cut or damaged, or has more pixels than allowed.
    """
    from PIL import Image

    header = read_png_header(data)
    check_size(header.height, header.width, header.channels, max_pixels)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        # Pillow cuts 16 bits to 8, but where there is one channel.
        is_deep = header.bits == 16 and header.channels > 1
        if "transparency" in image.info and header.colour == _GRAY and header.bits in (2, 4):
            # Stated as stored; Pillow compares it with what it made of the samples, which fill 8
            # bits.
            image.info["transparency"] *= 255 // ((1 << header.bits) - 1)
        raster = _decode_deep(data, header) if is_deep else of_pillow(image)
        if header.chunks.keys() & _TURNING:
            image.load()  # to the end of the file
            raster = raster._replace(pixels=orient(raster.pixels, orientation_of_pillow(image)))
    return raster._replace(num_frames=header.num_frames)


def _decode_deep(data: bytes, header: PngHeader) -> Raster:
    import imagecodecs

    with hear_decoders():  # libpng would be asked for interlaced pixels in another way
        pixels = channels_first(imagecodecs.png_decode(data))
    if pixels.dtype != np.uint16:
        raise BadImage("damaged", f"a PNG of 16 bits that decodes to {pixels.dtype}")
    if b"tRNS" in header.chunks and header.colour in (_GRAY, _RGB) and len(pixels) in (1, 3):
        transparent = np.frombuffer(header.chunks[b"tRNS"], ">u2", len(pixels))
        alpha = (pixels != transparent[:, None, None]).any(0)
        pixels = np.concatenate([pixels, alpha[None] * np.uint16(65535)])
    return plain_raster(pixels, has_alpha=len(pixels) in (2, 4))


def read_png_header(data: bytes) -> PngHeader:
    """Walk all chunks and check their sums, so that a cut or damaged file is
    found whatever its decoder does.

    Raises:
        BadImage: it is cut or damaged.
    """
    at, kept, name = len(PNG), dict[bytes, bytes](), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at) if at + 12 <= len(data) else (0, b"")
        end = at + 12 + length
        if not name or end > len(data):
            raise BadImage("truncated", "the PNG ends before its last chunk")
        body = memoryview(data)[at + 4 : end - 4]
        if zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadImage(
                "damaged", f"the check sum of the PNG chunk {name.decode('latin-1')} does not fit"
            )
        if name in (b"eXIf", b"tRNS", b"acTL", b"PLTE", b"IDAT") or (
            name == b"fcTL" and b"IDAT" not in kept
        ):
            kept.setdefault(name, bytes(body[4:]) if name != b"IDAT" else b"")
        elif name in _TEXTS and (text := bytes(body[4:84]).partition(b"\0")[0]) in _TURNING:
            kept.setdefault(text, b"")
        at = end
    if data[12:16] == b"CgBI":
        raise BadImage(
            "a PNG for iPhones (CgBI), which is not read", remedy="save it anew as a plain PNG"
        )
    if data[12:16] != b"IHDR":
        raise BadImage("damaged", "the PNG has no header")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if colour == _PALETTE and b"PLTE" not in kept:
        raise BadImage("damaged", "a PNG of palette indices without their palette (PLTE)")
    return PngHeader(height, width, bits, colour, kept)
