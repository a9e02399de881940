from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from format_files import (
    HEIGHT,
    WIDTH,
    encode,
    encode_tiff,
    known_picture,
    png_by_hand,
    tags_of,
    tiff_by_hand,
)
from PIL import Image

from torchrelay.datasets.images.decode import decode_image, decode_images
from torchrelay.datasets.images.formats import BadImage, Note
from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import Pack
from torchrelay.disk import read_json
from torchrelay.recipe import Data, Feature
from torchrelay.settings import Home

MANY = 10_000_000
WriteTable = Callable[..., str]
MakeData = Callable[..., Data]


def decode(data: bytes, **feature: Any) -> np.ndarray:
    return decode_image(data, Feature.model_validate({"kind": "image", **feature}), MANY).pixels


def half_seen() -> Image.Image:
    """The known picture, its left half transparent, a row half opaque."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    alpha[3] = 100
    picture = known_picture()
    picture.putalpha(Image.fromarray(alpha))
    return picture


def entropy_coded(data: bytes) -> int:
    """Where the pixels of a JPEG begin."""
    at = data.index(b"\xff\xda")
    return at + 2 + struct.unpack_from(">H", data, at + 2)[0]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_damaged_inside_is_bad_alone_and_among_many(
    progressive: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = known_picture().resize((96, 96))
    good = encode(picture, "jpeg", quality=85, progressive=progressive)
    start = entropy_coded(good)
    hole = good[: start + 300] + bytes(200) + good[start + 500 :]
    mended = good[: start + 400] + b"\xff\xd9"
    for damaged in (hole, mended):
        with pytest.raises(
            BadImage, match=r"^(damaged|truncated): the JPEG.*\((Corrupt|Premature)"
        ):
            decode(damaged)
        decoded = decode_images([good, damaged, good], Feature(kind="image"), MANY, (96, 96))
        assert [isinstance(one, BadImage) for one in decoded.found] == [False, True, False]
        np.testing.assert_array_equal(decoded.pixels[1], decode(good).transpose(1, 2, 0))
    assert capfd.readouterr().err == ""


def test_a_jpeg_damaged_inside_a_tiff_is_bad() -> None:
    pixels = np.asarray(known_picture().resize((192, 128)))
    good = encode_tiff(pixels, photometric="rgb", compression="jpeg", compressionargs={"level": 95})
    with tifffile.TiffFile(io.BytesIO(good)) as tiff:
        page = tiff.pages.first
        start, length = page.dataoffsets[0], page.databytecounts[0]
    assert decode(good).shape == (3, 128, 192)
    with pytest.raises(BadImage, match=r"damaged: a JPEG in the TIFF.*\(Corrupt"):
        decode(good[: start + length // 2] + bytes(300) + good[start + length // 2 + 300 :])


@pytest.mark.parametrize("format_", ["png", "tiff", "webp"])
@pytest.mark.parametrize("background", ["white", "black", "#20c040"])
def test_transparent_pixels_are_laid_onto_the_recipes_ground(format_: str, background: str) -> None:
    picture = half_seen()
    data = encode(
        picture, format_, **({"lossless": True, "exact": True} if format_ == "webp" else {})
    )
    ground = Image.new("RGBA", picture.size, background)
    expected = np.asarray(Image.alpha_composite(ground, picture).convert("RGB")).transpose(2, 0, 1)
    found = decode(data, background=background)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    gray = decode(data, background=background, channels="gray")
    assert (
        np.abs(
            gray[0].astype(int)
            - np.asarray(Image.fromarray(expected.transpose(1, 2, 0)).convert("L"))
        ).max()
        <= 1
    )
    np.testing.assert_array_equal(
        decode(data, background="keep"), np.asarray(picture)[..., :3].transpose(2, 0, 1)
    )
    np.testing.assert_array_equal(decode(data, channels=4), np.asarray(picture).transpose(2, 0, 1))


def test_gray_on_a_coloured_ground_becomes_coloured_and_palettes_have_transparent_entries() -> None:
    gray = known_picture().convert("L")
    gray.putalpha(Image.new("L", gray.size, 0))
    for data in (encode(gray, "png"), encode(gray, "tiff")):
        np.testing.assert_array_equal(decode(data, background="#ff0000")[:, 0, 0], [255, 0, 0])
        np.testing.assert_array_equal(
            decode(data, background="#ff0000", channels="gray")[:, 0, 0], [76]
        )
    indexed = known_picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    clear = np.asarray(indexed) == 3
    for format_ in ("png", "gif"):
        found = decode(encode(indexed, format_, transparency=3), background="#102030")
        np.testing.assert_array_equal(found[:, clear].T, np.tile([16, 32, 48], (clear.sum(), 1)))
        np.testing.assert_array_equal(
            found[:, ~clear].T, np.asarray(indexed.convert("RGB"))[~clear]
        )


def test_an_alpha_that_is_multiplied_in_gives_what_one_that_is_not_gives() -> None:
    straight = np.asarray(half_seen())
    alpha = straight[..., 3:].astype(float) / 255
    associated = np.dstack([np.rint(straight[..., :3] * alpha).astype(np.uint8), straight[..., 3]])
    one = encode_tiff(associated, photometric="rgb", extrasamples=["assocalpha"])
    other = encode_tiff(straight, photometric="rgb", extrasamples=["unassalpha"])
    assert np.abs(decode(one).astype(int) - decode(other).astype(int)).max() <= 2
    seen_by_pillow = np.asarray(Image.open(io.BytesIO(one)).convert("RGBA"))
    assert (
        np.abs(decode(one, channels=4).astype(int) - seen_by_pillow.transpose(2, 0, 1)).max() <= 1
    )


def test_a_mask_beside_the_picture_is_its_alpha() -> None:
    pixels, shown = np.asarray(known_picture()), np.asarray(half_seen())[..., 3] > 100
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(pixels, photometric="rgb")
        writer.write(shown, subfiletype=4, photometric="mask")
    expected = np.where(shown[..., None], pixels, 255)
    np.testing.assert_array_equal(decode(buffer.getvalue()), expected.transpose(2, 0, 1))


def test_inks_are_never_taken_for_red_green_blue_and_alpha() -> None:
    inks = known_picture().convert("CMYK")
    for data in (encode(inks, "tiff"), encode(inks, "jpeg")):
        with pytest.raises(BadImage, match=r"expected 4, got CMYK.*; say `channels: rgb`"):
            decode(data, channels=4)


def test_16_bits_have_one_rule_whatever_the_format() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    rows = [row.astype(">u2").tobytes() for row in deep]
    files = [
        png_by_hand(rows, 16, 2),
        encode_tiff(deep, photometric="rgb", compression="lzw"),
        b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + b"".join(rows),
    ]
    for data in files:
        found = decode_image(data, Feature(kind="image"), MANY)
        np.testing.assert_array_equal(found.pixels, (deep >> 8).transpose(2, 0, 1))
        assert found.notes == Note.DEEP
        np.testing.assert_array_equal(decode(data, dtype="uint16"), deep.transpose(2, 0, 1))
        np.testing.assert_array_equal(decode(data, dtype="float32"), deep.transpose(2, 0, 1))


def test_the_report_says_once_what_is_not_all_that_it_seems(
    home: Home, write_table: WriteTable, image_data: MakeData, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    picture, turned = known_picture(), [known_picture().rotate(90)]
    files = {
        "plain.png": encode(picture, "png"),
        "clear.png": encode(half_seen(), "png"),
        "moves.gif": encode(picture, "gif", save_all=True, append_images=turned),
        "moves.png": encode(picture, "png", save_all=True, append_images=turned),
        "deep.png": png_by_hand([bytes(WIDTH * 6)] * HEIGHT, 16, 2),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    rows = [f"{name},{'xy'[at % 2]},train" for at, name in enumerate(files)]
    table = write_table(["image,label,split", *rows])
    expected = [
        "'image': 1 picture (row 2 clear.png) have transparent pixels, which are laid onto white "
        "(data.inputs.image.background: white)",
        "'image': 2 pictures (row 3 moves.gif, row 4 moves.png) hold several frames, of which the "
        "first is read",
        "'image': of 16 bits dtype uint8 keeps the high 8; say `dtype: uint16` to keep all",
    ]
    first = prepare_data(image_data(table), home)
    assert [one for one in first.warnings if one.startswith("'image'")] == expected
    report = read_json(first.split_dir / "report.json")
    assert report["features"]["image"]["pictures"] == {
        "transparent": 1,
        "animated": 2,
        "cut_to_8_bits": 1,
    }
    again = prepare_data(image_data(table, split={"column": "split", "seed": 1}), home)
    assert (again.num_decoded, [one for one in again.warnings if one.startswith("'image'")]) == (
        0,
        expected,
    )


def test_pixels_of_one_ground_are_not_taken_for_those_of_another(
    home: Home, write_table: WriteTable, image_data: MakeData, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        clear = Image.new("RGBA", (4, 5), (ord(name), 0, 0, 0))
        clear.save(tmp_path / "images" / f"{name}.png")
    table = write_table(["image,label,split", "a.png,x,train", "b.png,y,train"])
    for background, level in (("white", 255), ("black", 0)):
        data = image_data(table, inputs={"image": {"kind": "image", "background": background}})
        pack = Pack.open(prepare_data(data, home).pack_dir)
        assert pack.image("image").shards[0].max() == level


def test_a_damaged_jpeg_is_quarantined_with_its_row(
    home: Home, write_table: WriteTable, image_data: MakeData, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(3)
    rows = []
    for at in range(6):
        noise = Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8))
        data = encode(noise, "jpeg", quality=85)
        if at == 2:
            start = entropy_coded(data)
            data = data[: start + 900] + bytes(200) + data[start + 1100 :]
        (tmp_path / "images" / f"{at}.jpg").write_bytes(data)
        rows.append(f"{at}.jpg,{'xy'[at % 2]},train")
    table = write_table(["image,label,split", *rows])
    found = prepare_data(image_data(table, max_bad_rows=0.5), home)
    quarantine = pd.read_csv(found.split_dir / "quarantine.csv")
    assert quarantine["row"].tolist() == [3]
    assert quarantine["reason"][0].startswith(
        "bad image, damaged: 2.jpg, the JPEG's pixels cannot all be read (Corrupt"
    )


def in_a_tiff(data: bytes) -> bytes:
    """A TIFF whose one strip is a JPEG."""
    tags = {**tags_of(6, 8, 3, 7), 530: (3, [2, 2])}
    return tiff_by_hand(tags, data)


@pytest.mark.parametrize("wrap", [bytes, in_a_tiff], ids=["jpeg", "tiff"])
@pytest.mark.parametrize(
    ("header", "progressive"), [("JFIF", False), ("JFIF", True), ("SOS", False)]
)
def test_a_header_that_libjpeg_does_not_know_changes_nothing_and_hides_nothing(
    wrap: Callable[[bytes], bytes], header: str, progressive: bool
) -> None:
    plain = encode(known_picture(), "jpeg", quality=90, progressive=progressive)
    odd = bytearray(plain)
    if header == "JFIF":
        odd[plain.index(b"JFIF\0") + 5] = 2
    else:
        odd[entropy_coded(plain) - 3 : entropy_coded(plain)] = b"\0\0\0"
    np.testing.assert_array_equal(decode(wrap(bytes(odd))), decode(wrap(plain)))
    at = entropy_coded(plain) + 150
    with pytest.raises(BadImage, match=r"^(damaged|truncated): "):
        decode(wrap(bytes(odd[:at] + b"\0\xff\xd8" + odd[at + 3 :])))
    if wrap is bytes:
        decoded = decode_images([bytes(odd)], Feature(kind="image"), MANY, (HEIGHT, WIDTH))
        np.testing.assert_array_equal(decoded.pixels[0], decode(plain).transpose(1, 2, 0))
