from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_files import encode, encode_tiff, known_picture, png_by_hand
from PIL import Image, ImageOps

from torchrelay.datasets.images.decode import decode_image, decode_images
from torchrelay.datasets.images.formats.orientation import find_orientation
from torchrelay.datasets.images.headers import look_at_pictures
from torchrelay.recipe import Feature

MANY = 10_000_000
FEATURE = Feature(kind="image")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def raw_profile(orientation: int) -> bytes:
    """EXIF as ImageMagick writes it into a PNG's text."""
    exif = exif_of(orientation)
    return b"\nexif\n%8d\n" % len(exif) + exif.hex().encode() + b"\n"


def png_of(chunks: dict[bytes, bytes], bits: int = 8) -> bytes:
    rgb = np.asarray(known_picture())
    kept = (rgb.astype(np.uint16) * 257).astype(">u2") if bits == 16 else rgb
    return png_by_hand([row.tobytes() for row in kept], bits, 2, chunks)


def behind_the_pixels(name: bytes, body: bytes) -> bytes:
    data = png_of({name: body})
    begin, end = data.index(name) - 4, data.index(b"IDAT") - 4
    return data[:begin] + data[end:-12] + data[begin:end] + data[-12:]


_TEXT = b"Raw profile type exif\0"
TURNED: dict[str, bytes] = {
    "png-eXIf": png_of({b"eXIf": exif_of(6)[6:]}),
    "png-zTXt": png_of({b"zTXt": _TEXT + b"\0" + zlib.compress(raw_profile(6))}),
    "png-tEXt": png_of({b"tEXt": _TEXT + raw_profile(6)}),
    "png-zTXt-16-bits": png_of({b"zTXt": _TEXT + b"\0" + zlib.compress(raw_profile(6))}, bits=16),
    "png-zTXt-last": behind_the_pixels(b"zTXt", _TEXT + b"\0" + zlib.compress(raw_profile(6))),
    "png-xmp": png_of({b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + XMP}),
    "png-xmp-last": behind_the_pixels(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "png-both": png_of({b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, b"eXIf": exif_of(3)[6:]}),
    "jpeg-exif": encode(known_picture(), "jpeg", exif=exif_of(6)),
    "jpeg-xmp": encode(known_picture(), "jpeg", xmp=XMP),
    "jpeg-both": encode(known_picture(), "jpeg", xmp=XMP, exif=exif_of(3)),
    "webp-xmp": encode(known_picture(), "webp", lossless=True, xmp=XMP),
    "avif-xmp": encode(known_picture(), "avif", xmp=XMP),
    "tiff-xmp": encode_tiff(
        np.asarray(known_picture()), photometric="rgb", extratags=[(700, 1, len(XMP), XMP, True)]
    ),
}


@pytest.mark.parametrize("name", TURNED)
def test_a_picture_is_turned_as_pillow_turns_it(name: str, tmp_path: Path) -> None:
    data = TURNED[name]
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    expected = np.asarray(upright).transpose(2, 0, 1)
    found = decode_image(data, FEATURE, MANY)
    assert (found.pixels.shape, found.source) == (expected.shape, expected.shape[1:])
    assert np.abs(found.pixels.astype(int) - expected.astype(int)).max() <= 2
    assert not np.array_equal(found.pixels, np.asarray(known_picture()).transpose(2, 0, 1))
    height, width = expected.shape[1:]
    decoded = decode_images([data], FEATURE, MANY, (height, width))
    np.testing.assert_array_equal(decoded.pixels[0].transpose(2, 0, 1), found.pixels)
    (tmp_path / "picture").write_bytes(data)
    looked = look_at_pictures([tmp_path / "picture"])
    assert looked is not None
    assert (looked.height, looked.width) == (height, width)


def entry(order: str, kind: int, count: int, value: bytes, num: int = 1) -> bytes:
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return head + struct.pack(f"{order}IHHHI", 8, num, 0x0112, kind, count) + value


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (entry("<", 3, 1, b"\6\0\0\0"), 6),
        (b"Exif\0\0" + entry(">", 3, 1, b"\0\6\0\0"), 6),
        (entry("<", 4, 1, b"\6\0\0\0"), 6),
        (entry("<", 3, 2, b"\6\0\1\0"), 6),
        (entry("<", 3, 3, struct.pack("<I", 22) + b"\6\0\1\0\1\0"), 6),
        (entry("<", 3, 1, b"\6\0\0\0", num=9), 6),  # says more tags than it has
        (entry("<", 3, 1, b"\0\0\0\0"), 1),
        (entry("<", 3, 1, b"\x09\0\0\0"), 1),
        (entry("<", 2, 1, b"6\0\0\0"), 1),
        (entry("<", 3, 1, b"\6\0\0\0")[:15], 1),
        (b"II*\0\xff\xff\xff\xff", 1),
        (b"no EXIF at all", 1),
    ],
)
def test_exif_says_a_number_from_1_to_8_or_nothing(exif: bytes, expected: int) -> None:
    assert find_orientation(exif) == expected


@pytest.mark.parametrize("format_", ["jpeg", "png", "webp"])
def test_exif_that_cannot_be_read_turns_nothing_and_says_nothing(format_: str) -> None:
    options: dict[str, Any] = {"lossless": True} if format_ == "webp" else {}
    data = encode(
        known_picture(),
        format_,
        exif=b"Exif\0\0" + entry("<", 3, 1, b"\0\0\0\0", num=40),
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode_image(data, FEATURE, MANY)
    plain = decode_image(encode(known_picture(), format_, **options), FEATURE, MANY)
    np.testing.assert_array_equal(found.pixels, plain.pixels)


def test_what_pillow_says_of_exif_that_cannot_be_read_is_not_on_standard_error() -> None:
    program = (
        "from torchrelay.datasets.images.formats.decoders import decode_by_pillow; import sys;"
        "print(decode_by_pillow(sys.stdin.buffer.read(), 10_000).pixels.shape)"
    )
    exif = b"Exif\0\0" + entry("<", 3, 1, b"\6\0\0\0", num=40).replace(
        b"\x12\x01", b"\x0f\x01"
    )  # Make, no Orientation
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        data = encode(known_picture(), "avif", exif=exif)
    done = subprocess.run(
        [sys.executable, "-c", program], input=data, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"(3, 24, 32)\n", b"")


def test_a_tiff_of_two_orientations_is_turned_by_the_first() -> None:
    pixels = np.asarray(known_picture())
    data = encode_tiff(pixels, photometric="rgb", extratags=[(0x0112, 3, 2, (6, 1), True)])
    found = decode_image(data, FEATURE, MANY).pixels
    np.testing.assert_array_equal(found, np.rot90(pixels, -1).transpose(2, 0, 1))
