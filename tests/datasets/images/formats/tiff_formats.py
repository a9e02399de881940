"""TIFFs of every kind, most of which hold one known picture."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from format_files import (
    DEFLATE,
    HEIGHT,
    WIDTH,
    Sample,
    encode,
    encode_tiff,
    known_picture,
    pack_bits,
    seen_by_pillow,
    tags_of,
    tiff_by_hand,
)
from PIL import Image


def tiffs() -> list[Sample]:
    """Every kind of TIFF."""
    return [*_tiffs_of_colours(), *_tiffs_of_layouts(), *_tiffs_by_hand(), *_tiffs_refused()]


def _tiffs_of_colours() -> Iterator[Sample]:
    picture = known_picture()
    rgb, gray = np.asarray(picture), np.asarray(picture.convert("L"))
    bilevel, indexed = (
        np.asarray(picture.convert("1")),
        picture.convert("P", palette=Image.Palette.ADAPTIVE),
    )
    inks, seen = picture.convert("CMYK"), np.asarray(picture.convert("YCbCr").convert("RGB"))
    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        how = f"TIFF, {{}}, {name.removeprefix('tiff_').removeprefix('adobe_')}"
        yield Sample(
            how.format("palette"),
            encode(indexed, "tiff", compression=name),
            np.asarray(indexed.convert("RGB")),
        )
        yield Sample(
            how.format("CMYK"),
            encode(inks, "tiff", compression=name),
            np.asarray(inks.convert("RGB")),
        )
        yield Sample(
            how.format("YCbCr"),
            encode(picture.convert("YCbCr"), "tiff", compression=name),
            seen,
            tolerance=2,
        )
        yield Sample(
            how.format("gray and alpha"),
            encode(picture.convert("LA"), "tiff", compression=name),
            gray,
        )
    for name in ("group3", "group4", "tiff_ccitt", "tiff_lzw"):
        yield Sample(
            f"TIFF, 1 bit, {name}",
            encode(picture.convert("1"), "tiff", compression=name),
            bilevel * np.uint8(255),
        )
    for mode in ("RGB", "YCbCr", "L", "CMYK"):
        data = encode(picture.convert(mode), "tiff", compression="jpeg", quality=95)
        yield seen_by_pillow(f"TIFF, {mode}, jpeg", data)
    for name in ("webp", "jpeg2000", "lerc", "png"):
        level = {"level": 100} if name == "webp" else {}
        data = encode_tiff(rgb, photometric="rgb", compression=name, compressionargs=level)
        yield Sample(f"TIFF, RGB, {name}", data, rgb)
    yield from _tiffs_of_masks(bilevel)
    seen = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH, 1)
    known = np.rint(rgb * seen + 255 * (1 - seen)).astype(np.uint8)
    for name, colours in (("assocalpha", rgb / 255 * seen), ("unassalpha", rgb / 255)):
        data = encode_tiff(
            np.dstack([colours, seen]).astype(np.float32), photometric="rgb", extrasamples=[name]
        )
        yield Sample(f"TIFF, float32, {name}", data, known, tolerance=1)
    yield Sample("TIFF, white is zero", encode_tiff(255 - gray, photometric="miniswhite"), gray)
    deep = (255 - gray).astype(np.uint16) * 257
    yield Sample("TIFF, white is zero, 16 bits", encode_tiff(deep, photometric="miniswhite"), gray)
    palette = np.random.default_rng(1).integers(0, 65536, (3, 65536)).astype(np.uint16)
    index = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    known = (palette >> 8)[:, index].transpose(1, 2, 0).astype(np.uint8)
    yield Sample(
        "TIFF, palette, 16 bits", encode_tiff(index, photometric="palette", colormap=palette), known
    )
    deep = np.asarray(inks).astype(np.uint16) * 257
    known = np.asarray(inks.convert("RGB"))
    yield Sample(
        "TIFF, CMYK, 16 bits", encode_tiff(deep, photometric="separated"), known, tolerance=1
    )
    planar = np.asarray(inks).transpose(2, 0, 1)
    data = encode_tiff(planar, photometric="separated", planarconfig="separate")
    yield Sample("TIFF, CMYK, planar", data, known)


def _tiffs_of_masks(bilevel: np.ndarray) -> Iterator[Sample]:
    for compression in ("lzw", "zlib", "packbits", "zstd"):
        for tile, name in ((None, "strips"), ((16, 16), "tiles")):
            data = encode_tiff(
                bilevel, photometric="minisblack", compression=compression, tile=tile
            )
            yield Sample(
                f"TIFF, bool of tifffile, {compression}, {name}", data, bilevel * np.uint8(255)
            )


def _tiffs_of_layouts() -> Iterator[Sample]:
    picture = known_picture()
    rgb, gray = np.asarray(picture), np.asarray(picture.convert("L"))
    deep = rgb.astype(np.uint16) * 257
    tile: dict[str, Any] = {"tile": (16, 16), "photometric": "rgb"}
    yield Sample("TIFF, tiled", encode_tiff(rgb, **tile), rgb)
    yield Sample(
        "TIFF, strips, LZW",
        encode_tiff(rgb, photometric="rgb", rowsperstrip=5, compression="lzw"),
        rgb,
    )
    data = encode_tiff(rgb.transpose(2, 0, 1), planarconfig="separate", compression="lzw", **tile)
    yield Sample("TIFF, planar, tiled, LZW", data, rgb)
    yield Sample("BigTIFF", encode_tiff(rgb, photometric="rgb", bigtiff=True), rgb)
    yield Sample(
        "TIFF, 16 bits, big endian", encode_tiff(deep, photometric="rgb", byteorder=">"), rgb
    )
    for compression in ("lzw", "zlib"):
        options: dict[str, Any] = {
            "photometric": "rgb",
            "compression": compression,
            "predictor": True,
        }
        yield Sample(
            f"TIFF, 16 bits, {compression}, predictor 2", encode_tiff(deep, **options), rgb
        )
        floats = (rgb / 255).astype(np.float32)
        yield Sample(
            f"TIFF, float32, {compression}, predictor 3", encode_tiff(floats, **options), rgb
        )
    for kind in (np.float16, np.float64):
        yield Sample(
            f"TIFF, {kind.__name__}",
            encode_tiff((gray / 255).astype(kind), photometric="minisblack"),
            gray,
        )
    for bits in (2, 4, 12):
        kept = deep >> 4 if bits == 12 else rgb >> (8 - bits)
        known = rgb if bits == 12 else kept * np.uint8(255 // (2**bits - 1))
        yield Sample(
            f"TIFF, RGB, {bits} bits",
            encode_tiff(kept, photometric="rgb", bitspersample=bits),
            known,
        )
        data = encode_tiff(kept[..., 0], photometric="minisblack", bitspersample=bits)
        yield Sample(f"TIFF, gray, {bits} bits", data, known[..., 0])
    for orientation in range(2, 9):
        known = np.asarray(picture.transpose(_UPRIGHT[orientation]))
        yield Sample(
            f"TIFF, orientation {orientation}",
            encode_tiff(rgb, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]),
            known,
        )
    small: dict[str, Any] = {"photometric": "rgb", "subfiletype": 1, "metadata": None}
    for first, name in ((True, "thumbnail first"), (False, "thumbnail last")):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            for is_small in (first, not first):
                one = rgb[::2, ::2] if is_small else rgb
                writer.write(
                    one, **(small if is_small else {"photometric": "rgb", "metadata": None})
                )
        yield Sample(f"TIFF, {name}", buffer.getvalue(), rgb)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(rgb, subifds=1, **tile)
        writer.write(rgb[::2, ::2], **small)
    yield Sample("TIFF, pyramid in SubIFDs", buffer.getvalue(), rgb)
    data = encode(picture, "tiff", compression="tiff_lzw", tiffinfo={266: 2})
    yield Sample("TIFF, RGB, lzw, FillOrder 2", data, rgb)
    yield Sample("TIFF, ImageJ", encode_tiff(rgb, imagej=True), rgb)
    yield Sample("TIFF, OME", encode_tiff(rgb, photometric="rgb", ome=True), rgb)


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _tiffs_by_hand() -> Iterator[Sample]:
    picture = known_picture()
    rgb, gray = np.asarray(picture), np.asarray(picture.convert("L"))
    rng = np.random.default_rng(3)
    for bits in (1, 2, 4, 8):
        palette = rng.integers(0, 256, (3, 2**bits))
        index = rng.integers(0, 2**bits, (HEIGHT, WIDTH))
        known = palette[:, index].transpose(1, 2, 0).astype(np.uint8)
        for order, times, name in (
            ("<", 257, ""),
            (">", 256, ", big endian"),
            ("<", 1, ", colours of 8 bits"),
        ):
            tags = {**tags_of(3, bits), 320: (3, (palette * times).ravel().tolist())}
            yield Sample(
                f"TIFF, palette, {bits} bits{name}",
                tiff_by_hand(tags, pack_bits(index, bits), order),
                known,
            )
    bilevel = gray > 128
    backwards = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    strip = pack_bits(bilevel, 1).translate(backwards)
    yield Sample(
        "TIFF, 1 bit, FillOrder 2",
        tiff_by_hand({**tags_of(1, 1), 266: (3, [2])}, strip),
        bilevel * np.uint8(255),
    )
    yield Sample(
        "TIFF, 1 bit, white is zero",
        tiff_by_hand(tags_of(0, 1), pack_bits(~bilevel, 1)),
        bilevel * np.uint8(255),
    )
    tags = tags_of(1, 1)
    del tags[258]
    yield Sample(
        "TIFF, 1 bit, not said", tiff_by_hand(tags, pack_bits(bilevel, 1)), bilevel * np.uint8(255)
    )
    ycc = np.asarray(picture.convert("YCbCr")).astype(np.float64)
    studio = np.rint(
        [16, 128, 128] + (ycc - [0, 128, 128]) * [219 / 255, 112 / 127, 112 / 127]
    ).astype(np.uint8)
    reference = [(16, 1), (235, 1), (128, 1), (240, 1), (128, 1), (240, 1)]
    tags = {**tags_of(6, 8, 3), 530: (3, [1, 1]), 532: (5, reference)}
    yield Sample("TIFF, YCbCr, 16 to 235", tiff_by_hand(tags, studio.tobytes()), rgb, tolerance=4)
    weights = np.array([0.2126, 0.7152, 0.0722])
    luma = rgb @ weights
    blue, red = (
        (rgb[..., 2] - luma) / (2 - 2 * weights[2]),
        (rgb[..., 0] - luma) / (2 - 2 * weights[0]),
    )
    full = np.rint(np.stack([luma, blue + 128, red + 128], 2)).clip(0, 255).astype(np.uint8)
    coefficients = [(2126, 10_000), (7152, 10_000), (722, 10_000)]
    tags = {**tags_of(6, 8, 3), 530: (3, [1, 1]), 529: (5, coefficients)}
    yield Sample("TIFF, YCbCr by BT.709", tiff_by_hand(tags, full.tobytes()), rgb, tolerance=3)


def _tiffs_refused() -> Iterator[Sample]:
    picture = known_picture()
    rgb, gray = np.asarray(picture), np.asarray(picture.convert("L"))
    for kind, said in (
        (8, r"CIE L\*a\*b\*"),
        (9, r"ICC L\*a\*b\*"),
        (32845, "LogLuv"),
        (34892, "raw data of a camera"),
    ):
        yield Sample(
            f"TIFF, photometric {kind}",
            tiff_by_hand(tags_of(kind, 8, 3), rgb.tobytes()),
            verdict=f"a TIFF of .*{said}",
        )
    yield Sample(
        "TIFF, CFA", tiff_by_hand(tags_of(32803, 8), gray.tobytes()), verdict="camera's sensor"
    )
    yield Sample(
        "DNG",
        tiff_by_hand({**tags_of(2, 8, 3), 50706: (1, [1, 4, 0, 0])}, rgb.tobytes()),
        verdict="a raw picture of a camera",
    )
    inks = np.asarray(picture.convert("CMYK")).tobytes()
    yield Sample(
        "TIFF, other inks",
        tiff_by_hand({**tags_of(5, 8, 4), 332: (3, [2])}, inks),
        verdict="a TIFF of inks that",
    )
    tags = {**tags_of(6, 8, 3), 530: (3, [2, 2])}
    yield Sample(
        "TIFF, YCbCr, subsampled, raw",
        tiff_by_hand(tags, bytes(WIDTH * HEIGHT * 3 // 2)),
        verdict="fewer colours than pixels",
    )
    yield Sample(
        "TIFF, JPEG of the old style",
        tiff_by_hand(tags_of(6, 8, 3, 6), bytes(99)),
        verdict="old style",
    )
    yield Sample("TIFF, complex", encode_tiff(gray.astype(np.complex64)), verdict="complex numbers")
    yield Sample(
        "TIFF, white is zero, floats",
        encode_tiff(gray / 255, photometric="miniswhite"),
        verdict="no top",
    )
    others = [picture.convert("L")] * 2
    stack = encode(picture.convert("L"), "tiff", save_all=True, append_images=others)
    yield Sample(
        "TIFF, three gray pages",
        stack,
        verdict="expected rgb, got 3; say `channels: 3` to keep them: they are pages",
    )
    pages = encode(picture, "tiff", save_all=True, append_images=[picture])
    yield Sample("TIFF, two colour pages", pages, verdict="several pictures: expected one, got 2")
    pages = encode(
        picture, "tiff", save_all=True, append_images=[picture.resize((WIDTH // 2, HEIGHT // 2))]
    )
    yield Sample(
        "TIFF, a second page of half the size",
        pages,
        verdict="several pictures: expected one, got 2",
    )
    pages = encode(picture, "tiff", save_all=True, append_images=[picture.resize((9, 7))])
    yield Sample("TIFF, pages of two sizes", pages, verdict="several pictures: expected one, got 2")
    planes = rgb.transpose(2, 0, 1)
    for name in ("ome", "imagej"):
        data = encode_tiff(
            planes, metadata={"axes": "CYX"}, photometric="minisblack", **{name: True}
        )
        yield Sample(
            f"TIFF, three channels, {name}", data, verdict="expected rgb, got 3; say `channels: 3`"
        )
    tags = tags_of(1, 8)
    tags[258] = (77, [8])
    yield Sample(
        "TIFF, bits that cannot be read",
        tiff_by_hand(tags, gray.tobytes()),
        verdict="damaged: the TIFF says",
    )
    tags = tags_of(1, 8, 1, DEFLATE)
    tags[258] = (77, [8])
    yield Sample(
        "TIFF, the same, deflate",
        tiff_by_hand(tags, zlib.compress(gray.tobytes())),
        verdict="BitsPerSample",
    )
    for bits in (1, 4, 16):
        for compression, strip in ((1, gray.tobytes()), (DEFLATE, zlib.compress(gray.tobytes()))):
            data = tiff_by_hand(tags_of(1, bits, 1, compression), strip)
            yield Sample(
                f"TIFF, {bits} bits said of 8, {compression}", data, verdict="^damaged: .*TIFF"
            )
