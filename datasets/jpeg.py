"""JPEG bytes -> pixels as in the file by torchvision's operator, one file or many small ones in a call.

What the operator cannot read goes through `decoders.py`.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .decoders import BadImage, Header, check_size, decode_by_skimage
from .verdicts import quote

if TYPE_CHECKING:
    from torch import Tensor

JPEG = b"\xff\xd8\xff"

# Bytes that an image may have decoded to be decoded together with others: 147 x 147 pixels in colour.
SMALL_IMAGE = 1 << 16


def decode_jpeg(data: bytes, channels: str, max_pixels: int) -> np.ndarray:
    """Decode a JPEG for a feature's `channels`: (C, H, W), where a gray file may have one channel and others three.

    Raises:
        BadImage: it is cut or damaged, or has more pixels than allowed.
    """
    header = _jpeg_header(data)
    check_size(header.height, header.width, header.channels, max_pixels)
    decode = jpeg_decoder()
    if decode is None or header.bits != 8:
        return decode_by_skimage(data, max_pixels)
    try:
        return decode.one(_as_tensor(data), _jpeg_mode(header, channels)).numpy()
    except RuntimeError as error:
        if "truncated" in str(error):
            raise BadImage("truncated", "the JPEG ends before its last row") from error
        raise BadImage("not a readable JPEG", said=quote(error).rsplit(".cpp:")[-1]) from error


def decode_small_jpegs(files: Sequence[bytes], channels: str, max_pixels: int) -> dict[int, Tensor]:
    """The pixels of those files that are small JPEGs, (C, H, W), by position; none where one of them is damaged."""
    decode = jpeg_decoder()
    if decode is None:
        return {}
    jpegs: dict[int, list[int]] = {}  # by mode
    for at, data in enumerate(files):
        if not data.startswith(JPEG):
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


def _jpeg_mode(header: Header, channels: str) -> int:
    """What torchvision's decoder is asked for: 0 as in the file, 1 gray, 3 RGB.

    Colour becomes gray here later: the decoder's own gray, the Y of YCbCr, differs from the gray of the RGB pixels
    where those are clipped.
    """
    return 0 if channels.isdigit() else 1 if header.channels == 1 else 3


def _jpeg_header(data: bytes) -> Header:
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
            return Header(height, width, channels, bits, has_exif=False)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no length
            at += 2
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    raise BadImage("truncated or damaged", "a JPEG without a frame header")


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
def jpeg_decoder() -> _JpegDecoder | None:
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
