from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from format_files import HEIGHT, WIDTH, encode, known_picture, png_by_hand
from PIL import Image

from torchrelay.datasets.images.decode import decode_image
from torchrelay.datasets.images.formats import BadImage, Note
from torchrelay.recipe import Feature

RGB = np.asarray(known_picture())
GRAY = RGB[..., 0]
ROWS = [row.tobytes() for row in GRAY]


def decode(data: bytes, **feature: Any) -> np.ndarray:
    found = decode_image(data, Feature.model_validate({"kind": "image", **feature}), 10_000_000)
    return found.pixels.transpose(1, 2, 0)


def for_iphones() -> bytes:
    data = png_by_hand(ROWS, 8, 0, {b"CgBI": b"\x50\0\x20\2"})
    begin, header = data.index(b"CgBI") - 4, data[8:33]
    return data[:8] + data[begin : begin + 16] + header + data[begin + 16 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            png_by_hand(ROWS, 8, 3),
            r"^damaged: a PNG of palette indices without their palette \(PLTE\)",
        ),
        (for_iphones(), r"^a PNG for iPhones \(CgBI\), which is not read; save it anew"),
    ],
)
def test_an_odd_png_is_named_for_what_it_is(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(data)


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_a_signed_jpeg_2000_counts_from_its_least_number_as_pillow_has_it(bits: int) -> None:
    half = 1 << (bits - 1)
    ramp = np.linspace(-half, half - 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.int16)
    data = bytes(imagecodecs.jpeg2k_encode(ramp, level=0, reversible=True, bitspersample=bits))
    found = decode(data, channels="gray", dtype="float32")[..., 0]
    np.testing.assert_array_equal(found, ramp.astype(int) + half)
    if bits == 16:
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(found, np.asarray(image))


@pytest.mark.parametrize("top", [255, 1000])
@pytest.mark.parametrize("said", [b"# a note\n", b"0 # of all\n"])
def test_remarks_among_the_numbers_of_a_pgm_are_passed_over(top: int, said: bytes) -> None:
    numbers = GRAY.astype(int) * top // 255
    numbers[0, 0] = 0
    words = [b"%d" % one for one in numbers.ravel()]
    body = said + b" ".join(words[1:] if said.startswith(b"0") else words)
    found = decode(
        b"P2\n%d %d\n%d\n" % (WIDTH, HEIGHT, top) + body, channels="gray", dtype="uint16"
    )
    np.testing.assert_array_equal(found[..., 0], (numbers * 65535 * 2 + top) // (2 * top))


@pytest.mark.parametrize(
    ("num_others", "is_first", "notes"),
    [
        (1, True, Note.ANIMATED),
        (1, False, Note.ANIMATED),
        (2, False, Note.ANIMATED),
        (0, True, Note(0)),
    ],
)
def test_a_picture_ahead_of_an_animation_is_said_as_a_frame_of_it_is(
    num_others: int, is_first: bool, notes: Note
) -> None:
    others = [known_picture().rotate(90 * (1 + one)) for one in range(num_others)]
    data = encode(
        known_picture(), "png", save_all=True, default_image=not is_first, append_images=others
    )
    if num_others:
        assert struct.unpack_from(">I", data, data.index(b"acTL") + 4)[0] == num_others + is_first
    found = decode_image(data, Feature(kind="image"), 10_000_000)
    assert found.notes == notes
    np.testing.assert_array_equal(found.pixels.transpose(1, 2, 0), RGB)


def interlaced(pixels: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits, (H, W, C), in the seven passes of Adam7."""
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    parts = [pixels[y::down, x::across].astype(">u2") for x, y, across, down in passes]
    stream = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 1)
    half = len(packed := zlib.compress(stream)) // 2
    chunks = ((b"IHDR", header), (b"IDAT", packed[:half]), (b"IDAT", packed[half:]), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@pytest.mark.parametrize(("colour", "num"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (1, 1), (3, 5), (9, 2)])
def test_an_interlaced_png_of_16_bits_is_read_and_nothing_is_said(
    colour: int, num: int, size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (*size, num)).astype(np.uint16)
    found = decode(interlaced(pixels, colour), channels=str(num), dtype="uint16")
    np.testing.assert_array_equal(found, pixels)
    assert caplog.messages == []
