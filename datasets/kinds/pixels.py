"""Means and deviations of pixels, measured or known before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ...recipe import Feature
from ..pack import ImageColumn, PackFeature

# Squares of 8-bit pixels are summed in uint32: 255² times this many stays below 2³².
_SQUARES_IN_UINT32 = 1 << 16
_CHUNK_BYTES = 1 << 20
# Red, green and blue of ImageNet's training pictures, from 0 to 1, as torchvision's pretrained nets
# were fed them.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ROWS_TO_LOOK_AT = 64
_WHITE = {"uint8": 255.0, "uint16": 65_535.0, "float32": 1.0}


class Moments(NamedTuple):
    """Mean and standard deviation of each channel, float64."""

    mean: np.ndarray
    std: np.ndarray


def pin_pixels(feature: PackFeature, asked: Feature) -> Moments:
    """What pixels are standardised by where the data is not asked.

    ImageNet's moments, or 0 to 1 as it is.
    """
    num_channels = feature.shape[0]
    white = _WHITE[feature.dtype]
    if asked.statistics == "imagenet":
        return Moments(np.array(_IMAGENET_MEAN) * white, np.array(_IMAGENET_STD) * white)
    return Moments(np.zeros(num_channels), np.full(num_channels, white))


def check_range(name: str, image: ImageColumn, train: np.ndarray) -> None:
    """Refuse float pixels that cannot count from 0 to 1, as ImageNet's
    statistics do; a look at some rows tells.
    """
    for row in train[:_ROWS_TO_LOOK_AT]:
        pixels = image.shards[image.shard[row]][image.offset[row]]
        if pixels.min() < 0 or pixels.max() > 1:
            raise DataError(
                f"data.inputs.{name}.statistics: ImageNet's are of pixels from 0 to 1, row "
                f"{row + 1} of the pack has "
                f"{pixels.min():g} to {pixels.max():g} as float32; say dtype: uint8, or "
                "statistics: data"
            )


def measure_pixels(image: ImageColumn, rows: np.ndarray) -> Moments:
    """Mean and (population) standard deviation of each channel, in raw pixel
    units, in bounded memory.

    Integer pixels are summed exactly, so the result depends neither on the chunks nor on the order
    of the rows.

    Args:
        image: the pixels.
        rows: positions in the pack; a row that stands twice counts twice.
    Returns:
        Shape (C,) each; a standard deviation of 0 becomes 1.
    """
    num_channels = image.shards[0].shape[1]
    count, sums, squares = (
        0,
        np.zeros(num_channels, dtype=object),
        np.zeros(num_channels, dtype=object),
    )
    for number, pixels in enumerate(image.shards):
        offsets = np.sort(image.offset[rows[image.shard[rows] == number]])
        height, width = pixels.shape[2:]
        count += len(offsets) * height * width
        per_chunk = max(1, _CHUNK_BYTES // (num_channels * height * width * pixels.itemsize))
        in_memory = pixels.transpose(0, 2, 3, 1)  # the channels of a pixel lie side by side
        for start in range(0, len(offsets), per_chunk):
            total, total_of_squares = _sum_chunk(in_memory[offsets[start : start + per_chunk]])
            sums += total
            squares += total_of_squares
    if np.issubdtype(image.shards[0].dtype, np.integer):
        variance = (
            np.array([count * int(q) - int(s) ** 2 for s, q in zip(sums, squares, strict=True)])
            / count**2
        )
    else:
        variance = np.maximum(0.0, (squares / count - (sums / count) ** 2).astype(np.float64))
    std = np.sqrt(variance.astype(np.float64))
    return Moments((sums / count).astype(np.float64), np.where(std > 0, std, 1.0))


def find_farthest(image: ImageColumn, rows: np.ndarray) -> tuple[int, float]:
    """The row, of these, with the pixel farthest from 0, and that pixel.

    Reads all of their pixels.
    """
    farthest = []
    for row in rows:
        pixels = image.shards[image.shard[row]][image.offset[row]]
        farthest.append(pixels.flat[np.abs(pixels).argmax()])
    at = int(np.abs(farthest).argmax())
    return int(rows[at]), float(farthest[at])


def _sum_chunk(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares of each channel of (images, H, W, C).

    Python integers, or floats.
    """
    num_channels = chunk.shape[3]
    if chunk.dtype != np.uint8:
        wide = chunk.astype(np.uint64 if chunk.dtype == np.uint16 else np.float64)
        return wide.sum((0, 1, 2)).astype(object), (wide * wide).sum((0, 1, 2)).astype(object)
    lines = chunk.reshape(-1, chunk.shape[2] * num_channels)
    sums, squares = np.zeros(num_channels, dtype=object), np.zeros(num_channels, dtype=object)
    at_once = max(1, min(_SQUARES_IN_UINT32, _CHUNK_BYTES // lines.shape[1]))
    for start in range(0, len(lines), at_once):
        part = lines[start : start + at_once]
        sums += _sum_columns(part, num_channels)
        squares += _sum_columns(np.multiply(part, part, dtype=np.uint16), num_channels)
    return sums, squares


def _sum_columns(lines: np.ndarray, num_channels: int) -> np.ndarray:
    """Sum of each channel over lines of pixels, shape (lines, W * C), of
    which there are few enough for uint32.
    """
    columns = np.add.reduce(lines, axis=0, dtype=np.uint32)
    return columns.reshape(-1, num_channels).sum(0, dtype=np.uint64).astype(object)
