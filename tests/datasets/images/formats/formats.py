"""Files of every kind that hold one known picture, and what readers make of them.

`python tests/datasets/images/formats/formats.py` prints the table of docs/formats.md: Pillow,
tifffile and torchrelay side by side.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
import tifffile
from format_files import (
    HEIGHT,
    WIDTH,
    Sample,
    encode,
    known_picture,
    pack_bits,
    png_by_hand,
    seen_by_pillow,
)
from PIL import Image
from tiff_formats import tiffs

from torchrelay.datasets.images.decode import decode_image
from torchrelay.datasets.images.formats.raster import BadImage
from torchrelay.recipe import Feature


def samples() -> list[Sample]:
    """Every kind of file."""
    return [*tiffs(), *_pngs(), *_others()]


def _pngs() -> Iterator[Sample]:
    picture = known_picture()
    rgb, gray = np.asarray(picture), np.asarray(picture.convert("L"))
    deep = rgb.astype(np.uint16) * 257
    for bits in (1, 2, 4):
        few = gray >> (8 - bits)
        full = few * np.uint8(255 // (2**bits - 1))
        rows = [pack_bits(row[None], bits) for row in few]
        yield Sample(f"PNG, gray, {bits} bits", png_by_hand(rows, bits, 0), full)
        clear = int(bits > 1)  # neither black nor white, where there are more
        data = png_by_hand(rows, bits, 0, {b"tRNS": struct.pack(">H", clear)})
        yield Sample(
            f"PNG, gray, {bits} bits, a transparent level",
            data,
            np.where(few == clear, 255, full).astype(np.uint8),
        )
        indexed = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=2**bits)
        yield Sample(
            f"PNG, palette, {bits} bits",
            encode(indexed, "png", bits=bits),
            np.asarray(indexed.convert("RGB")),
        )
    for shape, name in (
        (deep, "RGB"),
        (deep[..., 0], "gray"),
        (np.dstack([deep, deep[..., :1] * 0 + 65535]), "RGBA"),
    ):
        known = rgb[..., 0] if name == "gray" else rgb
        yield Sample(
            f"PNG, {name}, 16 bits",
            bytes(imagecodecs.png_encode(np.ascontiguousarray(shape))),
            known,
        )
    rows = [row.astype(">u2").tobytes() for row in deep]
    hidden = (deep == deep[0, 0]).all(2)[..., None]
    data = png_by_hand(rows, 16, 2, {b"tRNS": deep[0, 0].astype(">u2").tobytes()})
    yield Sample(
        "PNG, RGB, 16 bits, a transparent colour", data, np.where(hidden, 255, rgb).astype(np.uint8)
    )
    data = png_by_hand(
        [row.tobytes() for row in rgb], 8, 2, {b"tRNS": rgb[0, 0].astype(">u2").tobytes()}
    )
    yield Sample(
        "PNG, RGB, a transparent colour", data, np.where(hidden, 255, rgb).astype(np.uint8)
    )
    chunks = {b"gAMA": struct.pack(">I", 100_000), b"sRGB": b"\0"}
    for name, body in chunks.items():
        data = png_by_hand([row.tobytes() for row in rgb], 8, 2, {name: body})
        yield Sample(f"PNG with {name.decode()}", data, rgb)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = b"\nexif\n%8d\n" % len(exif.tobytes()) + exif.tobytes().hex().encode() + b"\n"
    text = b"Raw profile type exif\0\0" + zlib.compress(profile)
    data = png_by_hand([row.tobytes() for row in rgb], 8, 2, {b"zTXt": text})
    yield Sample("PNG, turned by ImageMagick's text", data, np.ascontiguousarray(np.rot90(rgb, -1)))
    yield Sample(
        "PNG, animated",
        encode(picture, "png", save_all=True, append_images=[picture.rotate(90)]),
        rgb,
    )


def _others() -> Iterator[Sample]:
    picture = known_picture()
    rgb, gray = np.asarray(picture), np.asarray(picture.convert("L"))
    inks, indexed = picture.convert("CMYK"), picture.convert("P", palette=Image.Palette.ADAPTIVE)
    deep = rgb.astype(np.uint16) * 257
    turned = [picture.rotate(90)]
    for name, options in (
        ("baseline", {}),
        ("progressive", {"progressive": True}),
        ("RGB inside", {"keep_rgb": True}),
    ):
        yield seen_by_pillow(f"JPEG, {name}", encode(picture, "jpeg", quality=95, **options))
    data = encode(picture, "jpeg", quality=95)
    yield seen_by_pillow("JPEG, JFIF 2.01", data.replace(b"JFIF\0\1", b"JFIF\0\2"))
    yield seen_by_pillow("JPEG, gray", encode(picture.convert("L"), "jpeg", quality=95))
    yield seen_by_pillow("JPEG, CMYK", encode(inks, "jpeg", quality=98))
    mpo = encode(picture, "mpo", save_all=True, append_images=turned, quality=95)
    yield seen_by_pillow("JPEG, MPO of two pictures", mpo)
    data = bytes(imagecodecs.jpeg8_encode(deep >> 4, bitspersample=12))
    yield Sample("JPEG, 12 bits", data, verdict="a JPEG of 12 bits")
    yield Sample("JPEG, lossless", bytes(imagecodecs.ljpeg_encode(gray)), verdict="a lossless JPEG")
    yield Sample("JPEG-LS", bytes(imagecodecs.jpegls_encode(gray)), verdict="a JPEG-LS")
    for mode in ("1", "L", "P", "RGB"):
        yield Sample(
            f"BMP, {mode}",
            encode(picture.convert(mode), "bmp"),
            np.asarray(picture.convert(mode).convert("RGB")),
        )
    yield Sample("GIF", encode(indexed, "gif"), np.asarray(indexed.convert("RGB")))
    data = encode(indexed, "gif", save_all=True, append_images=[indexed.rotate(90)])
    yield Sample("GIF, animated", data, np.asarray(indexed.convert("RGB")))
    for name, options in (
        ("webp", {"lossless": True}),
        ("avif", {"quality": 90}),
        ("jpeg2000", {}),
    ):
        for mode in ("RGB", "RGBA", "L"):
            yield seen_by_pillow(f"{name}, {mode}", encode(picture.convert(mode), name, **options))
    for name in ("webp", "avif"):
        animated = encode(picture, name, save_all=True, append_images=turned, quality=90)
        yield seen_by_pillow(f"{name}, animated", animated)
    yield Sample(
        "avif, 10 bits",
        bytes(imagecodecs.avif_encode(deep >> 6, level=100, bitspersample=10)),
        rgb,
        tolerance=1,
    )
    yield Sample(
        "jpeg2000, 16 bits", bytes(imagecodecs.jpeg2k_encode(deep, level=0, reversible=True)), rgb
    )
    data = bytes(imagecodecs.jpeg2k_encode(deep >> 4, level=0, reversible=True, bitspersample=12))
    yield Sample("jpeg2000, 12 bits", data, rgb)
    yield Sample(
        "PGM, 16 bits",
        b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + deep[..., 0].astype(">u2").tobytes(),
        rgb[..., 0],
    )
    yield Sample(
        "PPM, 16 bits",
        b"P6\n# by hand\n%d %d\n65535\n" % (WIDTH, HEIGHT) + deep.astype(">u2").tobytes(),
        rgb,
    )
    plain = " ".join(map(str, deep.ravel())).encode()
    yield Sample("PPM, 16 bits, in words", b"P3 %d %d 65535\n" % (WIDTH, HEIGHT) + plain, rgb)


def difference(pixels: np.ndarray, sample: Sample) -> int:
    """The largest difference in levels of (3, H, W) from the picture; 255 where it has another
    shape.
    """
    assert sample.picture is not None
    known = np.stack([sample.picture] * 3, 2) if sample.picture.ndim == 2 else sample.picture
    found = pixels.transpose(1, 2, 0)
    return (
        int(np.abs(found.astype(int) - known.astype(int)).max())
        if found.shape == known.shape
        else 255
    )


def _say(pixels: np.ndarray, sample: Sample) -> str:
    stored = "x".join(map(str, pixels.shape)) + f" {pixels.dtype}"
    if sample.picture is None:
        return f"pixels, {stored}"
    pixels = np.stack([pixels] * 3, 2) if pixels.ndim == 2 else pixels
    pixels = pixels * np.uint8(255) if pixels.dtype == bool else pixels
    if pixels.ndim == 3 and difference(pixels.transpose(2, 0, 1), sample) <= sample.tolerance:
        return "right"
    return f"other, {stored}"


def _by_pillow(sample: Sample) -> str:
    with Image.open(io.BytesIO(sample.data)) as image:
        return _say(np.asarray(image.convert("RGB")), sample)


def _by_tifffile(sample: Sample) -> str:
    if not sample.data.startswith((b"II", b"MM")):
        return ""
    return _say(tifffile.imread(io.BytesIO(sample.data)), sample)


def _by_torchrelay(sample: Sample) -> str:
    return _say(
        decode_image(sample.data, Feature(kind="image"), 10**7).pixels.transpose(1, 2, 0), sample
    )


def print_table() -> None:
    """A line for each sample: what three readers make of it."""
    print("| file | Pillow, as RGB | tifffile, as stored | torchrelay |\n|---|---|---|---|")
    for sample in samples():
        cells = []
        for read in (_by_pillow, _by_tifffile, _by_torchrelay):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    cells.append(read(sample))
            except BadImage as error:
                cells.append(f"verdict: {error.reason.kind}")
            except Exception:  # noqa: BLE001  any reader's own
                cells.append("refuses")
        print(f"| {sample.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    print_table()
