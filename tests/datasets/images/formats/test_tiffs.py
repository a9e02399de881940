from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from format_files import encode, encode_tiff, known_picture
from PIL import Image

from torchrelay.datasets.images.decode import decode_image
from torchrelay.datasets.images.formats.raster import BadImage
from torchrelay.recipe import Feature

RGB = np.asarray(known_picture())
GRAY = RGB[..., 0]
BILEVEL = GRAY > 100


def decode(data: bytes, **feature: Any) -> np.ndarray:
    found = decode_image(data, Feature.model_validate({"kind": "image", **feature}), 10_000_000)
    return found.pixels.transpose(1, 2, 0)


def pages(*pictures: tuple[np.ndarray, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for pixels, options in pictures:
            writer.write(pixels, metadata=None, **{"photometric": "rgb", **options})
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"subfiletype": 2}, {"tile": (16, 16)}])
@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_second_picture_of_a_part_of_the_size_is_never_dropped_unsaid(
    step: int, options: dict[str, Any]
) -> None:
    other = np.ascontiguousarray(255 - RGB[: 24 // step, : 32 // step])
    with pytest.raises(
        BadImage, match=rf"several pictures: expected one, got 2 of 24 x 32 x 3, {24 // step} x"
    ):
        decode(pages((RGB, options), (other, options)))


@pytest.mark.parametrize("step", [2, 3, 4])
def test_what_says_that_it_is_a_smaller_copy_or_a_mask_is_no_second_picture(step: int) -> None:
    small = np.ascontiguousarray(RGB[: 24 // step, : 32 // step])
    for options in ({}, {"tile": (16, 16)}):
        np.testing.assert_array_equal(
            decode(pages((RGB, options), (small, {**options, "subfiletype": 1}))), RGB
        )
        inside = pages((RGB, {**options, "subifds": 1}), (small, options))
        np.testing.assert_array_equal(decode(inside), RGB)
    gray = {"photometric": "minisblack"}
    masked = pages(
        (BILEVEL, gray), (BILEVEL[: 24 // step, : 32 // step], {**gray, "subfiletype": 4})
    )
    np.testing.assert_array_equal(decode(masked, channels="gray")[..., 0], BILEVEL * 255)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("tile", [None, (16, 16), (32, 48)])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_a_mask_that_tifffile_writes_is_read_though_it_does_not_say_its_bits(
    compression: str | None, tile: tuple[int, int] | None, photometric: str
) -> None:
    pixels = BILEVEL if photometric == "minisblack" else ~BILEVEL
    data = encode_tiff(pixels, photometric=photometric, compression=compression, tile=tile)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        is_stated = 258 in tiff.pages.first.tags
    assert not is_stated
    np.testing.assert_array_equal(decode(data, channels="gray")[..., 0], BILEVEL * 255)


def without_bits(data: bytes) -> bytes:
    """The file, its tag BitsPerSample gone: nobody knows the code that it has now."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        at = tiff.pages.first.tags[258].offset
    return data[:at] + (260).to_bytes(2, "little") + data[at + 2 :]


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_tiff_that_lost_its_bits_is_not_read_as_a_mask(
    compression: str | None, tile: tuple[int, int] | None
) -> None:
    data = encode_tiff(GRAY, photometric="minisblack", compression=compression, tile=tile)
    np.testing.assert_array_equal(decode(data, channels="gray")[..., 0], GRAY)
    with pytest.raises(BadImage, match=r"^damaged: .* 1 bit \(it has no BitsPerSample\)"):
        decode(without_bits(data), channels="gray")


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_tiff_that_says_half_of_its_bits_is_damaged(tile: tuple[int, int] | None) -> None:
    data = encode_tiff(GRAY, photometric="minisblack", compression="zlib", tile=tile)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        at = tiff.pages.first.tags[258].valueoffset
    with pytest.raises(BadImage, match="damaged: the TIFF says 24 x 32 pixels of 1 times 4 bits"):
        decode(data[:at] + b"\4" + data[at + 1 :], channels="gray")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_bytes_whose_bits_run_backwards_are_read_as_pillow_reads_them(
    mode: str, compression: str
) -> None:
    picture = known_picture().convert(mode)
    data = encode(picture, "tiff", compression=compression, tiffinfo={266: 2})
    with Image.open(io.BytesIO(data)) as image:
        assert image.tag_v2[266] == 2  # pyright: ignore[reportAttributeAccessIssue]
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("options", [{"rowsperstrip": 16}, {"tile": (16, 16)}])
def test_empty_strips_and_tiles_are_zeros_unless_all_are_empty(
    compression: str | None, options: dict[str, Any]
) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[48:] = 200
    data = encode_tiff(pixels, photometric="minisblack", compression=compression, **options)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tag = tiff.pages.first.tags[279 if "rowsperstrip" in options else 325]
    size = {3: 2, 4: 4, 16: 8}[tag.dtype]
    num_empty = tag.count * 3 // 4
    sparse = (
        data[: tag.valueoffset]
        + bytes(num_empty * size)
        + data[tag.valueoffset + num_empty * size :]
    )
    np.testing.assert_array_equal(decode(sparse, channels="gray")[..., 0], pixels)
    empty = (
        data[: tag.valueoffset]
        + bytes(tag.count * size)
        + data[tag.valueoffset + tag.count * size :]
    )
    with pytest.raises(BadImage, match=r"^damaged: all strips or tiles of the TIFF are empty"):
        decode(empty, channels="gray")
