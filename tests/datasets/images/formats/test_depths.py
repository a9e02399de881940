from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from format_files import HEIGHT, WIDTH, encode, encode_tiff, known_picture
from PIL import Image

from torchrelay.datasets.images.decode import decode_image
from torchrelay.datasets.images.formats.raster import BadImage
from torchrelay.recipe import Feature

RGB = np.asarray(known_picture())
SEEN = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
TWELVE = (RGB.astype(np.uint16) * 257) >> 4
LEVELS = np.where(RGB[..., :1] > 100, 1, 0)


def decode(data: bytes, **feature: Any) -> np.ndarray:
    found = decode_image(data, Feature.model_validate({"kind": "image", **feature}), 10_000_000)
    return found.pixels.transpose(1, 2, 0)


def with_mask(pixels: np.ndarray, shown: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(pixels, metadata=None, **options)
        writer.write(shown, subfiletype=4, photometric="mask", metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float16", "float32", "float64"])
@pytest.mark.parametrize("background", ["white", "#20c040"])
def test_an_alpha_that_is_multiplied_in_is_divided_out_in_every_type(
    dtype: str, background: str
) -> None:
    top = 1 if dtype.startswith("float") else np.iinfo(dtype).max
    multiplied = np.dstack([RGB / 255 * SEEN[..., None], SEEN]) * top
    data = encode_tiff(multiplied.astype(dtype), photometric="rgb", extrasamples=["assocalpha"])
    ground = np.array([255, 255, 255] if background == "white" else [0x20, 0xC0, 0x40])
    expected = RGB * SEEN[..., None] + ground * (1 - SEEN[..., None])
    if dtype == "uint32":
        found = decode(data, background=background, dtype="float32") / top * 255
    else:
        found = decode(data, background=background)
    assert np.abs(found - expected).max() <= 3


def test_an_alpha_of_floats_counts_from_0_to_1() -> None:
    data = encode_tiff(
        np.dstack([RGB, RGB[..., :1]]).astype(np.float32),
        photometric="rgb",
        extrasamples=["unassalpha"],
    )
    with pytest.raises(
        BadImage,
        match=r"an alpha of floats outside 0 to 1: it goes from .* to 255; say `background: keep`",
    ):
        decode(data, dtype="float32")
    np.testing.assert_array_equal(decode(data, dtype="float32", background="keep"), RGB)


@pytest.mark.parametrize("kind", ["bool", "uint8", "uint16", "float32", "float64"])
def test_a_mask_beside_a_picture_of_any_type_is_its_alpha(kind: str) -> None:
    shown = SEEN > 0.3
    gray = RGB[..., 0]
    if kind == "bool":
        pixels, expected = gray > 100, (gray > 100) * 255
    else:
        top = 1 if kind.startswith("float") else np.iinfo(kind).max
        pixels, expected = (gray / 255 * top).astype(kind), gray.astype(int)
        if kind.startswith("float"):
            pixels = np.where(shown, pixels, np.nan).astype(kind)
    data = with_mask(pixels, shown, photometric="minisblack")
    found = decode(data, background="#808080", channels="gray")[..., 0]
    assert np.abs(found.astype(int) - np.where(shown, expected, 128)).max() <= 1


def test_a_picture_of_one_bit_for_each_colour_is_weighed_as_one_of_eight() -> None:
    data = encode_tiff(
        np.array([[[1, 0, 0]] * 8] * 8, np.uint8), photometric="rgb", bitspersample=1
    )
    assert decode(data, channels="gray")[0, 0, 0] == 76  # ITU-R 601


def test_white_is_zero_turns_the_levels_around_and_not_the_alpha() -> None:
    data = encode_tiff(
        np.array([[[1, 0], [0, 1], [1, 1]]], np.uint8),
        photometric="miniswhite",
        bitspersample=1,
        extrasamples=["unassalpha"],
        planarconfig="contig",
    )
    assert decode(data, background="#808080", channels="gray").ravel().tolist() == [128, 255, 0]


def pgm_of_12_bits() -> bytes:
    return b"P6 %d %d 4095\n" % (WIDTH, HEIGHT) + TWELVE.astype(">u2").tobytes()


def few_bits() -> dict[str, bytes]:
    jpeg_2000 = imagecodecs.jpeg2k_encode(TWELVE, level=0, reversible=True, bitspersample=12)
    return {
        "tiff": encode_tiff(TWELVE, photometric="rgb", bitspersample=12),
        "pages": encode_tiff(
            np.ascontiguousarray(TWELVE.transpose(2, 0, 1)),
            photometric="minisblack",
            bitspersample=12,
        ),
        "jpeg2000": bytes(jpeg_2000),
        "ppm": pgm_of_12_bits(),
    }


@pytest.mark.parametrize("name", ["tiff", "pages", "jpeg2000", "ppm"])
def test_white_of_12_bits_is_white_in_every_dtype_and_function(name: str) -> None:
    data, own = few_bits()[name], {"channels": "3"} if name == "pages" else {}
    full = np.rint(TWELVE * (65535 / 4095)).astype(np.uint16)
    np.testing.assert_array_equal(decode(data, dtype="uint16", **own), full)
    np.testing.assert_array_equal(decode(data, **own), TWELVE >> 4)
    if name != "ppm":  # whose largest number is its own to choose
        np.testing.assert_array_equal(decode(data, dtype="float32", **own), TWELVE)
    chain = [{"name": "util.img_as_float32"}]
    found = decode(data, dtype="float32", preprocess=chain, **own)
    np.testing.assert_allclose(found, TWELVE / np.float32(4095), atol=1e-5)


@pytest.mark.parametrize("bits", [9, 10, 14, 15])
def test_the_high_byte_of_few_bits_is_that_of_all(bits: int) -> None:
    every = np.arange(1 << bits, dtype=np.uint16).reshape(8, -1)
    data = encode_tiff(every, photometric="minisblack", bitspersample=bits)
    np.testing.assert_array_equal(decode(data, channels="gray")[..., 0], every >> (bits - 8))


@pytest.mark.parametrize(("dtype", "white"), [("uint8", 255), ("uint16", 65535), ("float32", 255)])
@pytest.mark.parametrize("format_", ["png", "tiff", "bmp", "ppm", "tiff-2-bits", "tiff-3-pages"])
def test_white_of_one_bit_is_white_as_that_of_two_is(format_: str, dtype: str, white: int) -> None:
    levels, own = LEVELS[..., 0] > 0, {}
    if format_ == "tiff-2-bits":
        data = encode_tiff((levels * 3).astype(np.uint8), photometric="minisblack", bitspersample=2)
    elif format_ == "tiff-3-pages":
        data, own = encode_tiff(np.stack([levels] * 3), photometric="minisblack"), {"channels": "3"}
    else:
        data = encode(Image.fromarray(levels), format_)
    found = decode(data, dtype=dtype, **own)
    np.testing.assert_array_equal(found, np.repeat(LEVELS * white, 3, 2))


def test_functions_get_a_picture_of_one_bit_as_a_mask() -> None:
    chain = [
        {"name": "transform.resize", "args": {"output_shape": [9, 13]}}
    ]  # of a mask it makes no grays
    for format_ in ("png", "tiff"):
        data = encode(Image.fromarray(LEVELS[..., 0] > 0), format_)
        found = decode(data, channels="gray", preprocess=chain)
        assert set(np.unique(found)) == {0, 255}
