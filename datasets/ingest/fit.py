"""Fits the schema on the training rows of a pack.

Classes, means and standard deviations; looks at no other row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ...recipe import Data, Feature
from ...schema import FeatureSchema, Schema
from ..cells import sort_classes
from ..kinds import Classes, find_image, fit_text, fit_vocabularies, scale_to_stored
from ..pack import ImageColumn, Pack, PackFeature
from ..splits import TRAIN, UNUSED
from ..table import features_of

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


def fit_schema(pack: Pack, data: Data, split: np.ndarray) -> Schema:
    """Fit what a model needs to know about the columns.

    Args:
        pack: raw values.
        data: which features are inputs and which are targets, in their order.
        split: int8, shape (rows of the pack,): 0 marks the training rows.
    """
    shared = fit_vocabularies(pack, data, split)
    return Schema(
        inputs=[
            _fit_feature(pack, data, name, split, shared, is_target=False) for name in data.inputs
        ],
        targets=[
            _fit_feature(pack, data, name, split, shared, is_target=True) for name in data.target
        ],
    )


def _fit_feature(
    pack: Pack,
    data: Data,
    name: str,
    split: np.ndarray,
    shared: Mapping[str, Classes],
    *,
    is_target: bool,
) -> FeatureSchema:
    train = np.flatnonzero(split == TRAIN)
    feature = pack.features[name]
    if feature.kind == "image":
        return _fit_image(feature, data.inputs[name], pack.image(name), train)
    if feature.kind == "points":
        return _fit_points(pack, data, name, train)
    if feature.kind == "number":
        return _fit_numbers(feature, features_of(data)[name], pack.column(name), train)
    if feature.kind == "text":
        return fit_text(pack, data.inputs[name], name, train)
    if feature.kind == "labels":
        return _fit_labels(feature, data.target[name], pack.column(name), train)
    if vocabulary := features_of(data)[name].vocabulary:
        return _share_classes(feature, vocabulary, shared[vocabulary], is_target=is_target)
    kept = np.flatnonzero(split != UNUSED) if is_target and data.rare_classes == "keep" else train
    return _fit_categories(feature, pack.column(name), train, kept, is_target=is_target)


def _fit_image(
    feature: PackFeature, asked: Feature, image: ImageColumn, train: np.ndarray
) -> FeatureSchema:
    if asked.statistics == "imagenet" and feature.dtype == "float32":
        _check_range(feature.name, image, train)
    moments = (
        measure_pixels(image, train) if asked.statistics == "data" else _pin_pixels(feature, asked)
    )
    return FeatureSchema(
        name=feature.name,
        kind=feature.kind,
        columns=feature.columns,
        shape=feature.shape,
        dtype=feature.dtype,
        mean=moments.mean.tolist(),
        std=moments.std.tolist(),
    )


def _pin_pixels(feature: PackFeature, asked: Feature) -> Moments:
    """What pixels are standardised by where the data is not asked.

    ImageNet's moments, or 0 to 1 as it is.
    """
    num_channels = feature.shape[0]
    white = _WHITE[feature.dtype]
    if asked.statistics == "imagenet":
        return Moments(np.array(_IMAGENET_MEAN) * white, np.array(_IMAGENET_STD) * white)
    return Moments(np.zeros(num_channels), np.full(num_channels, white))


def _check_range(name: str, image: ImageColumn, train: np.ndarray) -> None:
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


def _fit_points(pack: Pack, data: Data, name: str, train: np.ndarray) -> FeatureSchema:
    """The mean of each coordinate and one deviation of all, in pixels of the
    stored image.

    One deviation makes squared error proportional to squared distance, whatever the point and the
    direction.
    """
    feature, asked, image = pack.features[name], features_of(data)[name], find_image(data, name)
    points = np.asarray(pack.column(name)[train]).reshape(len(train), -1, 2)
    stored = scale_to_stored(
        points, np.asarray(pack.source(image)[train]), pack.features[image].shape[1:]
    )
    mean = stored.mean(0)
    std = float(np.sqrt(np.square(stored - mean).mean())) if np.ptp(stored, axis=0).any() else 1.0
    return FeatureSchema(
        name=feature.name,
        kind=feature.kind,
        columns=feature.columns,
        shape=[stored.shape[1], 2],
        dtype="float64",
        mean=mean.ravel().tolist(),
        std=[std] * mean.size,
        image=image,
        swap=[(pair[0], pair[1]) for pair in asked.swap],
        normalise_by=asked.normalise_by,
    )


def _fit_numbers(
    feature: PackFeature, asked: Feature, values: np.ndarray, train: np.ndarray
) -> FeatureSchema:
    each = np.ascontiguousarray(
        np.asarray(values[train]).T
    )  # so that a column is summed as if it stood alone
    has_gaps = np.isnan(each).any(axis=1)
    moments = _measure_lines(each)
    fill = [] if asked.missing == "reject" else _fill_lines(each, asked.missing)
    for at in np.flatnonzero(has_gaps):
        present = each[at][~np.isnan(each[at])]
        if not len(present):
            raise DataError(
                f"column {feature.columns[at]!r} of {feature.name!r} has no number in the training "
                "rows; take it out "
                f"of its columns"
            )
        moments[:, at] = _measure_lines(present[None])[:, 0]
        if asked.missing != "reject":
            fill[at] = _fill_lines(present[None], asked.missing)[0]
    flagged = np.flatnonzero(has_gaps).tolist()
    mean, std, low, high = moments.tolist()
    return FeatureSchema(
        name=feature.name,
        kind=feature.kind,
        columns=feature.columns,
        shape=[len(mean) + len(flagged)],
        dtype="float64",
        mean=mean,
        std=std,
        fill=fill,
        flagged=flagged,
        low=low,
        high=high,
        unit=asked.unit,
    )


def _measure_lines(lines: np.ndarray) -> np.ndarray:
    """Mean, deviation, minimum and maximum of each line.

    Shape (4, lines); NaN for a line with NaN.
    """
    with np.errstate(invalid="ignore"):
        mean, std, low, high = lines.mean(1), lines.std(1), lines.min(1), lines.max(1)
    # A constant column is recognised by its range: rounding gives it a tiny deviation, not 0.
    return np.stack([mean, np.where(high > low, std, 1.0), low, high])


def _fill_lines(lines: np.ndarray, how: str | float) -> list[float]:
    """What stands for a missing number of each line."""
    if isinstance(how, float):
        return [how] * len(lines)
    with np.errstate(invalid="ignore"):
        return (np.median(lines, axis=1) if how == "median" else lines.mean(1)).tolist()


def _fit_categories(
    feature: PackFeature, ids: np.ndarray, train: np.ndarray, kept: np.ndarray, *, is_target: bool
) -> FeatureSchema:
    """Classes of the rows `kept`, counted over those that train."""
    classes, _ = _count_classes(feature.vocabulary, ids[kept])
    count_of = dict(zip(*_count_classes(feature.vocabulary, ids[train]), strict=True))
    counts = [count_of.get(name, 0) for name in classes]
    return FeatureSchema(
        name=feature.name,
        kind=feature.kind,
        columns=feature.columns,
        shape=[] if is_target else [ids.shape[1]],
        dtype="int64",
        classes=classes,
        counts=counts,
    )


def _share_classes(
    feature: PackFeature, vocabulary: str, classes: Classes, *, is_target: bool
) -> FeatureSchema:
    return FeatureSchema(
        name=feature.name,
        kind=feature.kind,
        columns=feature.columns,
        shape=[] if is_target else [len(feature.columns)],
        dtype="int64",
        classes=classes.names,
        counts=classes.counts,
        vocabulary=vocabulary,
    )


def _fit_labels(
    feature: PackFeature, asked: Feature, ids: np.ndarray, train: np.ndarray
) -> FeatureSchema:
    some = np.asarray(ids[train])
    classes, counts = _count_classes(feature.vocabulary, some[some >= 0])
    return FeatureSchema(
        name=feature.name,
        kind=feature.kind,
        columns=feature.columns,
        shape=[len(classes)],
        dtype="float32",
        classes=classes,
        counts=counts,
        separator=asked.separator,
    )


def _count_classes(vocabulary: list[str], ids: np.ndarray) -> tuple[list[str], list[int]]:
    """The labels of these ids, in order, and how often each stands there."""
    counts = np.bincount(ids.ravel(), minlength=len(vocabulary))
    count_of = {vocabulary[number]: int(counts[number]) for number in np.flatnonzero(counts)}
    classes = sort_classes(list(count_of))
    return classes, [count_of[name] for name in classes]


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
