from __future__ import annotations

import io
import logging
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import skimage.io
import tifffile
from PIL import Image, ImageOps

from torchrelay.datasets.images.decode import decode_image, decode_images
from torchrelay.datasets.images.formats import BadImage, TooLarge
from torchrelay.datasets.images.preprocess import check_preprocess
from torchrelay.errors import RecipeError
from torchrelay.recipe import Feature

MANY = 10_000_000


def encode(picture: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def encode_tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def encode_npy(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def decode(data: bytes, max_pixels: int = MANY, **feature: Any) -> np.ndarray:
    return decode_image(
        data, Feature.model_validate({"kind": "image", **feature}), max_pixels
    ).pixels


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A smooth colour picture, 30 high and 40 wide."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_a_png_is_read_as_pillow_and_scikit_image_read_it(picture: Image.Image, mode: str) -> None:
    data = encode(picture.convert(mode), "png")
    other = np.atleast_3d(skimage.io.imread(io.BytesIO(data))).transpose(2, 0, 1)
    other = other[:1].repeat(3, 0) if len(other) < 3 else other[:3]
    other = other * np.uint8(255) if other.dtype == bool else other
    np.testing.assert_array_equal(decode(data), other)
    np.testing.assert_array_equal(
        decode(data), np.asarray(picture.convert(mode).convert("RGB")).transpose(2, 0, 1)
    )


@pytest.mark.parametrize(
    "options", [{"quality": 90}, {"quality": 30, "progressive": True}, {"subsampling": 0}]
)
def test_a_jpeg_is_read_as_pillow_reads_it_within_two_levels(
    picture: Image.Image, options: dict[str, Any]
) -> None:
    data = encode(picture, "jpeg", **options)
    found, other = decode(data), np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
    assert found.shape == other.shape == (3, 30, 40)
    assert np.abs(found.astype(int) - other.astype(int)).max() <= 2


def test_many_files_give_what_each_gives_alone(picture: Image.Image) -> None:
    feature = Feature(kind="image")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    upright = [encode(picture.rotate(angle), "jpeg") for angle in (0, 90, 180)]
    large = picture.resize((400, 300))
    mixed = [
        *upright,
        encode(picture.convert("L"), "jpeg"),
        encode(picture, "png"),
        encode(picture.transpose(Image.Transpose.ROTATE_90), "jpeg", exif=exif),
        encode(picture, "jpeg", exif=exif),
        encode(large, "jpeg"),
    ]
    for files in (upright, mixed):
        alone = [decode_image(data, feature, MANY).pixels for data in files]
        decoded = decode_images(files, feature, MANY, (30, 40))
        assert [one.size for one in decoded.found if not isinstance(one, BadImage)] == [
            image.shape[1:] for image in alone
        ]
        kept = [image.transpose(1, 2, 0) for image in alone if image.shape[1:] == (30, 40)]
        np.testing.assert_array_equal(decoded.pixels, np.stack(kept))


@pytest.mark.parametrize("channels", ["rgb", "gray", "3"])
def test_many_files_are_brought_to_the_features_channels(
    picture: Image.Image, channels: str
) -> None:
    feature = Feature(kind="image", channels=channels)
    files = [encode(picture.rotate(angle), "jpeg") for angle in (0, 180)]
    decoded = decode_images(files, feature, MANY, (30, 40))
    alone = np.stack(
        [decode_image(data, feature, MANY).pixels.transpose(1, 2, 0) for data in files]
    )
    np.testing.assert_array_equal(decoded.pixels, alone)


def test_one_bad_file_among_many_costs_itself_alone(picture: Image.Image) -> None:
    good = encode(picture, "jpeg")
    damaged = good[: len(good) // 2]
    no_header = good[:4]
    files = [good, damaged, no_header, b"", good]
    decoded = decode_images(files, Feature(kind="image"), MANY, (30, 40))
    assert [isinstance(one, BadImage) for one in decoded.found] == [False, True, True, True, False]
    assert "truncated" in str(decoded.found[1])
    np.testing.assert_array_equal(decoded.pixels[0], decode(good).transpose(1, 2, 0))
    np.testing.assert_array_equal(decoded.pixels[1], decoded.pixels[0])


def test_a_bomb_among_many_is_refused_by_its_header(picture: Image.Image) -> None:
    good = encode(picture, "jpeg")
    decoded = decode_images([good, good], Feature(kind="image"), 30 * 40, (30, 40))
    assert all(isinstance(one, TooLarge) for one in decoded.found)


@pytest.mark.parametrize("format_", ["jpeg", "png"])
def test_gray_is_the_weighted_sum_that_pillow_takes(picture: Image.Image, format_: str) -> None:
    data = encode(picture, format_)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    gray = decode(data, channels="gray")
    assert gray.shape == (1, 30, 40)
    assert np.abs(gray[0].astype(int) - expected.astype(int)).max() <= (
        0 if format_ == "png" else 2
    )


def test_a_gray_image_is_repeated_for_rgb(picture: Image.Image) -> None:
    rgb = decode(encode(picture.convert("L"), "jpeg", quality=95))
    assert rgb.shape == (3, 30, 40)
    np.testing.assert_array_equal(rgb[0], rgb[2])


def test_a_number_of_channels_must_be_the_files_own(picture: Image.Image) -> None:
    assert decode(encode(picture.convert("RGBA"), "png"), channels=4).shape == (4, 30, 40)
    with pytest.raises(BadImage, match="wrong channels: expected 4, got 3"):
        decode(encode(picture, "png"), channels=4)


@pytest.mark.parametrize("format_", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(picture: Image.Image, format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture, format_, exif=exif, **({"lossless": True} if format_ == "webp" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(upright).transpose(2, 0, 1)
    found = decode(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2


@pytest.mark.parametrize("format_", ["gif", "bmp", "webp", "ppm", "tiff"])
def test_other_formats_are_read(picture: Image.Image, format_: str) -> None:
    plain = picture.convert("P") if format_ == "gif" else picture
    data = encode(plain, format_, **({"lossless": True} if format_ == "webp" else {}))
    np.testing.assert_array_equal(decode(data), np.asarray(plain.convert("RGB")).transpose(2, 0, 1))


def test_a_tiff_compressed_with_lzw_is_read(picture: Image.Image) -> None:
    data = encode(picture, "tiff", compression="tiff_lzw")
    np.testing.assert_array_equal(decode(data), np.asarray(picture).transpose(2, 0, 1))


def test_a_tiff_of_many_channels_is_read_in_either_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(
        decode(encode_tiff(pixels, photometric="minisblack"), channels=6), pixels
    )
    last = encode_tiff(pixels.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(decode(last, channels=6), pixels)
    with pytest.raises(BadImage, match=r"say `channels: 6`"):
        decode(last)


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_channels_of_tiff_and_npy_that_are_no_alpha_are_not_dropped(
    number: int, channels: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (number, 20, 30), dtype=np.uint8)
    for data in (
        encode_tiff(pixels, photometric="minisblack"),
        encode_npy(pixels.transpose(1, 2, 0)),
    ):
        with pytest.raises(
            BadImage,
            match=rf"^wrong channels: expected {channels}, got {number}; say `channels: {number}`",
        ):
            decode(data, channels=channels)
        np.testing.assert_array_equal(decode(data, channels=number), pixels)


@pytest.mark.parametrize("number", [2, 5])
def test_a_picture_whose_rows_became_pages_is_told_how_to_be_saved(number: int) -> None:
    pixels = np.zeros((40, 30, number), np.uint8)
    pages = encode_tiff(pixels, photometric="minisblack")
    said = (
        rf"expected rgb, got 40 pages of 30 x {number} pixels.* {number} channels; "
        r"save .*planarconfig='contig'\)"
    )
    with pytest.raises(BadImage, match=said):
        decode(pages)
    assert decode(pages, channels=40).shape == (40, 30, number)  # what the recipe names is so
    mended = encode_tiff(pixels, photometric="minisblack", planarconfig="contig")
    assert decode(mended, channels=number).shape == (number, 40, 30)
    with pytest.raises(BadImage, match=r"expected rgb, got 6; say `channels: 6` to keep them"):
        decode(encode_tiff(np.zeros((6, 40, 30), np.uint8), photometric="minisblack"))


def test_what_tifffile_says_is_in_the_verdict_and_nowhere_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = bytearray(encode_tiff(np.zeros((40, 30), np.uint8)))
    start = struct.unpack_from("<I", data, 4)[0] + 2
    entries = range(start, start + 12 * struct.unpack_from("<H", data, start - 2)[0], 12)
    at_of = {struct.unpack_from("<H", data, at)[0]: at for at in entries}
    struct.pack_into("<H", data, at_of[305] + 2, 77)  # the name of the software, of no known type
    assert decode(bytes(data), channels="gray").shape == (1, 40, 30)
    struct.pack_into("<H", data, at_of[273] + 2, 77)  # where the pixels are
    with pytest.raises(
        BadImage, match=r"missing data offset; .*TiffTag 273 @\d+> invalid data type 77"
    ):
        decode(bytes(data), channels="gray")
    assert caplog.messages == []
    logging.getLogger("tifffile").error("of another")
    assert caplog.messages == ["of another"]


@pytest.mark.parametrize("format_", ["png", "webp", "tiff"])
def test_an_alpha_that_is_opaque_changes_nothing(picture: Image.Image, format_: str) -> None:
    data = encode(
        picture.convert("RGBA"), format_, **({"lossless": True} if format_ == "webp" else {})
    )
    np.testing.assert_array_equal(decode(data), np.asarray(picture).transpose(2, 0, 1))


def test_16_bits_are_kept_cut_to_the_high_byte_or_kept_as_floats() -> None:
    pixels = np.array([[0, 255, 256, 65535]], np.uint16)
    for data in (encode_tiff(pixels), encode(Image.fromarray(pixels), "png")):
        assert decode(data, channels="gray", dtype="uint16").tolist() == [pixels.tolist()]
        assert decode(data, channels="gray").tolist() == [[[0, 0, 1, 255]]]
        assert decode(data, channels="gray", dtype="float32").tolist() == [
            [[0.0, 255.0, 256.0, 65535.0]]
        ]


def test_float_pixels_beyond_one_are_refused_unless_kept() -> None:
    pixels = np.array([[0.0, 0.5, 300.0]], np.float32)
    with pytest.raises(
        BadImage,
        match=r"float pixels outside 0 to 1, .*: they go from 0 to 300; say `dtype: float32`",
    ):
        decode(encode_tiff(pixels), channels="gray")
    assert decode(encode_tiff(pixels), channels="gray", dtype="float32").tolist() == [
        pixels.tolist()
    ]
    assert decode(encode_tiff(pixels / 300), channels="gray").tolist() == [[[0, 0, 255]]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_pixels_that_are_no_numbers_are_bad_in_every_dtype(bad: float) -> None:
    with pytest.raises(BadImage, match="not numbers"):
        decode(encode_npy(np.array([[0.5, bad]])), channels="gray", dtype="float32")
    with pytest.raises(BadImage, match=r"not numbers|float pixels"):
        decode(encode_npy(np.array([[0.5, bad]])), channels="gray", dtype="uint16")
    if not np.isfinite(bad):
        with pytest.raises(BadImage, match="not numbers"):
            decode(
                encode_tiff(np.array([[0.5, bad]], np.float32)), channels="gray", dtype="float32"
            )


def test_the_size_of_the_upright_file_is_told_beside_the_pixels(picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    steps = [{"name": "transform.resize", "args": {"output_shape": [9, 9]}}]
    feature = Feature.model_validate({"kind": "image", "size": [8, 8], "preprocess": steps})
    found = decode_image(encode(picture, "jpeg", exif=exif), feature, MANY)
    assert (found.pixels.shape, found.source) == ((3, 8, 8), (40, 30))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float32", "float64", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_is_read_as_height_width_and_channels(dtype: str, order: Any) -> None:
    pixels = np.arange(5 * 4 * 3).reshape(5, 4, 3).astype(dtype)
    data = encode_npy(np.asarray(pixels, order=order))
    found = decode(data, channels=3, dtype="float32")
    np.testing.assert_array_equal(found, pixels.transpose(2, 0, 1).astype(np.float32))
    gray = encode_npy(np.asarray(pixels[:, :, 0], order=order))
    np.testing.assert_array_equal(decode(gray, channels="gray", dtype="float32")[0], found[0])


def test_the_header_of_an_npy_is_judged_before_its_data() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (100_000, 100_000, 3)}
    )
    with pytest.raises(TooLarge, match="an image bomb: it declares 100000 x 100000 x 3 pixels"):
        decode(header.getvalue(), channels=3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode_npy(np.zeros((5, 4), np.uint16))[:-1], "truncated: the npy holds 39 of 40 bytes"),
        (encode_npy(np.zeros((5, 4)))[:-160], "truncated: the npy holds 0 of 160 bytes"),
        (encode_npy(np.zeros((5, 4)))[:30], "not a readable image"),
        (encode_npy(np.array([[print]], object)), "a pickled npy, which is not read"),
        (encode_npy(np.zeros((5, 4), [("r", "u1")])), "npy of no numbers"),
        (
            encode_npy(np.zeros((5, 4), complex)),
            "npy of no numbers: it holds complex128; save an array of numbers",
        ),
        (
            encode_npy(np.zeros(5)),
            r"an array of another shape: expected height, width and channels, got \(5,\)",
        ),
        (encode_npy(np.zeros((5, 0))), r"expected height, width and channels, got \(5, 0\)"),
        (b"\x93NUMPY\x09\x00rest", "npy of another version: 9.0"),
    ],
)
def test_an_npy_that_holds_no_picture_gets_a_verdict(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(data, channels="gray")


def test_a_progressive_jpeg_that_lost_its_last_scans_is_bad(picture: Image.Image) -> None:
    data = encode(picture, "jpeg", progressive=True)
    begins = [at.start() for at in re.finditer(rb"\xff\xda", data)]
    assert len(begins) > 3
    decode(data)
    for begin in begins[1:]:
        with pytest.raises(BadImage, match="the progressive JPEG ends before its last scan"):
            decode(data[:begin] + b"\xff\xd9")


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_truncated_jpeg_is_bad(
    picture: Image.Image, options: dict[str, Any], kept: float
) -> None:
    data = encode(picture, "jpeg", quality=90, **options)
    with pytest.raises(BadImage, match="truncated"):
        decode(data[: int(len(data) * kept)])


def test_a_jpeg_without_its_end_marker_is_bad(picture: Image.Image) -> None:
    with pytest.raises(BadImage, match="truncated"):
        decode(encode(picture, "jpeg")[:-2])


@pytest.mark.parametrize("cut", [1, 4, 12, 16, 20, 1000])
def test_a_truncated_png_is_bad(picture: Image.Image, cut: int) -> None:
    with pytest.raises(BadImage, match="truncated"):
        decode(encode(picture, "png")[:-cut])


def test_a_damaged_png_is_bad_and_does_not_end_the_process(picture: Image.Image) -> None:
    data = bytearray(encode(picture, "png"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BadImage, match="check sum of the PNG chunk IDAT"):
        decode(bytes(data))


@pytest.mark.parametrize(
    "idat", [b"no zlib stream", b"", zlib.compress(b"\x09" * 37), zlib.compress(b"\0" * 5)]
)
def test_a_png_with_a_bad_stream_behind_good_sums_is_bad(idat: bytes) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", 12, 12, 8, 2, 0, 0, 0)
    with pytest.raises(BadImage):
        decode(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", idat)
            + chunk(b"IEND", b"")
        )


def test_a_truncated_tiff_is_bad() -> None:
    data = encode_tiff(np.zeros((200, 200, 3), np.uint8), photometric="rgb")
    with pytest.raises(BadImage):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"hello, I am text " * 9, "a text file; save it as PNG"),
        (b"\xff\xd8\xff", "JPEG"),
    ],
)
def test_what_is_no_image_is_bad(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(data)


def test_damaged_bytes_give_pixels_or_a_verdict_and_nothing_else(picture: Image.Image) -> None:
    rng = np.random.default_rng(0)
    for format_ in ("jpeg", "png", "tiff", "gif", "bmp", "webp", "ppm", "jpeg2000", "avif"):
        good = encode(picture, format_)
        for _ in range(60):
            data = bytearray(good)
            for at in rng.integers(0, len(data), 3):
                data[at] = rng.integers(0, 256)
            try:
                assert decode(bytes(data)).dtype == np.uint8
            except BadImage:
                continue


def test_an_image_bomb_is_refused_before_it_is_decoded(picture: Image.Image) -> None:
    tiff = encode_tiff(
        np.zeros((20_000, 20_000), np.uint8), compression="zlib", photometric="minisblack"
    )
    assert len(tiff) < 500_000
    with pytest.raises(TooLarge, match="an image bomb: it declares 400000000 pixels, data"):
        decode(tiff, 50_000_000)
    png = encode(Image.new("L", (20_000, 20_000)), "png")
    with pytest.raises(TooLarge, match="an image bomb: it declares 20000 x 20000 x 1 pixels"):
        decode(png, 50_000_000)
    for format_ in ("jpeg", "bmp", "gif", "webp"):
        with pytest.raises(TooLarge, match="30 x 40 x"):
            decode(encode(picture, format_), 30 * 40 - 1)


def test_a_format_that_starts_programs_is_not_opened(picture: Image.Image) -> None:
    with pytest.raises(BadImage, match="PostScript; save it as PNG"):
        decode(encode(picture, "eps"))


def test_another_size_is_resized_as_torchvision_does(picture: Image.Image) -> None:
    import torch
    from torchvision.transforms.v2.functional import resize

    pixels = np.asarray(picture).transpose(2, 0, 1)
    expected = resize(torch.from_numpy(pixels.copy()), [16, 20], antialias=True).numpy()
    np.testing.assert_array_equal(decode(encode(picture, "png"), size=[16, 20]), expected)


def test_preprocess_runs_in_order_and_floats_count_from_0_to_1(picture: Image.Image) -> None:
    from skimage import exposure, transform

    steps = [
        {"name": "transform.resize", "args": {"output_shape": [32, 32]}},
        {"name": "exposure.adjust_gamma", "args": {"gamma": 2}},
    ]
    gray = np.asarray(picture.convert("L"))
    expected = np.rint(exposure.adjust_gamma(transform.resize(gray, (32, 32)), 2) * 255).astype(
        np.uint8
    )
    found = decode(encode(picture.convert("L"), "png"), channels="gray", preprocess=steps)
    np.testing.assert_array_equal(found, expected[None])


def test_preprocess_sees_colour_last_and_may_return_a_mask(picture: Image.Image) -> None:
    gray = decode(encode(picture, "png"), channels="gray", preprocess=[{"name": "filters.sobel"}])
    assert gray.shape == (1, 30, 40)
    mask = decode(
        encode(picture, "png"),
        channels="gray",
        preprocess=[{"name": "morphology.local_maxima"}, {"name": "morphology.dilation"}],
    )
    assert set(np.unique(mask)) == {0, 255}
    rgb = decode(encode(picture, "png"), preprocess=[{"name": "color.rgb2hsv"}])
    assert rgb.shape == (3, 30, 40)


def test_a_preprocess_step_that_fails_is_a_verdict(picture: Image.Image) -> None:
    with pytest.raises(BadImage, match=r"preprocess color.rgb2hsv failed \(ValueError"):
        decode(encode(picture, "png"), channels="gray", preprocess=[{"name": "color.rgb2hsv"}])


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("transform.resiz", {}, "did you mean transform.resize"),
        ("io.imread", {}, "io.imread is not a function"),
        ("transform._warps.resize", {}, "is not a function"),
        ("os.system", {}, "is not a function"),
        ("transform.AffineTransform", {}, "is not a function"),
        ("transform.resize", {"output_shap": [3, 3]}, "output_shap.*did you mean output_shape"),
        ("transform.resize", {}, "output_shape is missing"),
        (
            "transform.resize",
            {"image": 3, "output_shape": [3, 3]},
            r"args.image: 3 is not the recipe's to give",
        ),
    ],
)
def test_a_preprocess_step_that_does_not_exist_names_the_nearest(
    name: str, args: dict[str, Any], message: str
) -> None:
    feature = Feature.model_validate(
        {"kind": "image", "preprocess": [{"name": name, "args": args}]}
    )
    with pytest.raises(RecipeError, match=message):
        check_preprocess(feature)


def test_a_good_preprocess_chain_passes_the_check() -> None:
    steps = [
        {"name": "transform.resize", "args": {"output_shape": [8, 8]}},
        {"name": "exposure.equalize_adapthist"},
    ]
    check_preprocess(Feature.model_validate({"kind": "image", "preprocess": steps}))
