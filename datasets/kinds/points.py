"""Points of a picture.

What a recipe may say of them, and their way from the file's pixels to the stored image's.

A coordinate counts pixels from the centre of the first, so that a picture of W pixels reaches from
-0.5 to W - 0.5. How points follow an augmentation is in `datasets/batches/transform.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...errors import RecipeError
from ...kinds import KINDS
from ...recipe import Data, Feature
from ...schema import FeatureSchema, Schema
from ..pack import Pack, PackColumn, PackFeature
from ..splits import hash_numbers
from .kind import Fitting, Gather, Kind, Packed, Packing, Reading, Reporting
from .number import count_missing_numbers, describe_numbers, read_cells

# What may run before the points are scaled: of skimage.transform, which moves pixels, only what
# scales by size; of the other modules all that leaves pixels where they are.
_SCALING = (
    "transform.resize",
    "transform.rescale",
    "transform.pyramid_reduce",
    "transform.pyramid_expand",
)
_MOVING = ("util.crop", "util.montage", "util.view_as_blocks", "util.view_as_windows")


class Points(Kind[np.ndarray]):
    """Points in pixels of the file's upright picture, x and y by turns."""

    facts = KINDS["points"]

    def check(self, data: Data, name: str) -> None:
        """See `find_image`."""
        find_image(data, name)

    def check_columns(self, data: Data, name: str, columns: Sequence[str]) -> None:
        """See `check_points`."""
        check_points(data, name, columns)

    def read(self, reading: Reading) -> np.ndarray:
        """Float64, shape (rows, 2P)."""
        return read_cells(reading)

    def pack(self, packing: Packing, entry: PackFeature, cells: np.ndarray) -> Packed:
        """The coordinates as they are."""
        return Packed(PackColumn(entry, {"values": cells}), hash_numbers(cells))

    def fit(self, fitting: Fitting) -> FeatureSchema:
        """The mean of each coordinate and one deviation of all.

        Both in pixels of the stored image.

        One deviation makes squared error proportional to squared distance, whatever the point and
        the direction.
        """
        pack, entry, asked, train = fitting.pack, fitting.entry, fitting.asked, fitting.train
        image = find_image(fitting.data, fitting.name)
        points = np.asarray(pack.column(fitting.name)[train]).reshape(len(train), -1, 2)
        stored = scale_to_stored(
            points, np.asarray(pack.source(image)[train]), pack.features[image].shape[1:]
        )
        mean = stored.mean(0)
        is_spread = np.ptp(stored, axis=0).any()
        std = float(np.sqrt(np.square(stored - mean).mean())) if is_spread else 1.0
        return FeatureSchema(
            name=entry.name,
            kind=entry.kind,
            columns=entry.columns,
            shape=[stored.shape[1], 2],
            dtype="float64",
            mean=mean.ravel().tolist(),
            std=[std] * mean.size,
            image=image,
            swap=[(pair[0], pair[1]) for pair in asked.swap],
            normalise_by=asked.normalise_by,
        )

    def gatherer(
        self, pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
    ) -> Gather:
        """Points (B, P, 2) in pixels of the stored images."""
        values = np.asarray(pack.column(feature.name))
        source, stored = picture_sizes(pack, schema, feature, rows)

        def gather(index: np.ndarray) -> Tensor:
            points = values[rows[index]].reshape(len(index), *feature.shape)
            return torch.from_numpy(scale_to_stored(points, source[index], stored))

        return gather

    def describe(self, reporting: Reporting) -> dict[str, Any]:
        """The range of x and y, and how many points lie outside."""
        used, columns = reporting.used, reporting.columns
        source = columns[find_image(reporting.data, reporting.name)].arrays["source"][used]
        points = reporting.column.arrays["values"][used].reshape(int(used.sum()), -1, 2)
        outside = count_outside(points, source)
        return {
            "points": points.shape[1],
            "ranges": describe_numbers(("x", "y"), points.reshape(-1, 2)),
            "points_outside": int(outside.sum()),
            "rows_with_points_outside": int((outside > 0).sum()),
        }

    def count_missing(self, column: PackColumn, frame: pd.DataFrame, data: Data) -> dict[str, int]:
        """See `count_missing_numbers`."""
        return count_missing_numbers(column, frame, data)


def find_image(data: Data, name: str) -> str:
    """The image input that a feature's points lie on.

    Raises:
        RecipeError: there is none, or several and the feature names none of them; or its
            `preprocess` moves pixels in a way that the points do not follow.
    """
    feature, key = {**data.inputs, **data.target}[name], _key(data, name)
    images = [other for other, one in data.inputs.items() if one.facts.is_image]
    if not images:
        raise RecipeError(
            f"{key}: points lie on an image, and data.inputs has none; add one, or read them as "
            "numbers"
        )
    if feature.image and feature.image not in images:
        raise RecipeError(
            f"{key}.image: {feature.image!r} is no image input; legal are {', '.join(images)}"
        )
    if not feature.image and len(images) > 1:
        raise RecipeError(
            f"{key}.image is missing: data.inputs has {len(images)} images; name one: "
            f"{', '.join(images)}"
        )
    image = feature.image or images[0]
    for step in data.inputs[image].preprocess:
        if step.name in _MOVING or (
            step.name.startswith("transform.") and step.name not in _SCALING
        ):
            raise RecipeError(
                f"data.inputs.{image}.preprocess: {step.name} moves pixels and would leave the "
                f"points of {name!r} "
                f"behind; leave it out, or take one that only scales: {', '.join(_SCALING)}"
            )
    return image


def check_points(data: Data, name: str, columns: Sequence[str]) -> None:
    """Check the columns of a feature of points, and the points that its
    settings name.

    Args:
        data: the recipe's part.
        name: of the feature.
        columns: x and y of each point, alternating.
    Raises:
        RecipeError: the columns are not pairs of x and y; or a setting names points that do not
            exist, or one twice.
    """
    feature, key = {**data.inputs, **data.target}[name], _key(data, name)
    if len(columns) % 2:
        raise RecipeError(
            f"{key}.columns: points are x and y by turns, expected an even number of columns, got "
            f"{len(columns)} "
            f"({', '.join(columns[:3])}{', …' * (len(columns) > 3)})"
        )
    _check_order(columns, key)
    _check_numbers(feature, key, len(columns) // 2)


def scale_to_stored(points: np.ndarray, source: np.ndarray, stored: Sequence[int]) -> np.ndarray:
    """Points in pixels of their files as points in pixels of the stored images.

    Args:
        points: float64, shape (B, P, 2), x and y.
        source: height and width of each row's upright picture, shape (B, 2).
        stored: height and width of the stored images.
    """
    return (points + 0.5) / file_scale(source, stored)[:, None] - 0.5


def file_scale(source: np.ndarray, stored: Sequence[int]) -> np.ndarray:
    """Pixels of the file in a pixel of the stored image, along x and y.

    Float64, shape (B, 2).

    Args:
        source: height and width of each row's upright picture, shape (B, 2).
        stored: height and width of the stored images.
    """
    return source[:, ::-1].astype(np.float64) / np.array([stored[1], stored[0]], np.float64)


def picture_sizes(
    pack: Pack, schema: Schema, points: FeatureSchema, rows: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Height and width of the rows' pictures in their files, and of the
    stored images, that points lie on.
    """
    [image] = [feature for feature in schema.inputs if feature.name == points.image]
    return np.asarray(pack.source(image.name))[rows], image.shape[1:]


def count_outside(points: np.ndarray, source: np.ndarray) -> np.ndarray:
    """How many points of each row lie outside its picture.

    Args:
        points: float64, shape (B, P, 2), in pixels of the file.
        source: height and width of each row's upright picture, shape (B, 2).
    """
    inside = (points >= -0.5) & (points <= source[:, None, ::-1] - 0.5)
    return (~inside.all(2)).sum(1)


def _check_order(columns: Sequence[str], key: str) -> None:
    """Refuse columns whose names say that all x come before all y.

    They would be read as other points in silence.
    """
    by_turns = ["x", "y"] * (len(columns) // 2)
    for letters in (
        [name[-1:].lower() for name in columns],
        [name[:1].lower() for name in columns],
    ):
        if sorted(letters) == sorted(by_turns) and letters != by_turns:
            first = f"{', '.join(columns[:4])}{', …' * (len(columns) > 4)}"
            raise RecipeError(
                f"{key}.columns: points are x and y by turns, got {first}; name the columns in "
                "that order"
            )


def _check_numbers(feature: Feature, key: str, num_points: int) -> None:
    said = f"{num_points} points, counted from 0"
    for pair in feature.swap:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise RecipeError(f"{key}.swap: expected pairs of two different points, got {pair}")
    mentioned = [point for pair in feature.swap for point in pair]
    twice = sorted(point for point, count in Counter(mentioned).items() if count > 1)
    if twice:
        raise RecipeError(
            f"{key}.swap: point {twice[0]} stands in two pairs; it can change places with one other"
        )
    if feature.normalise_by and len(set(feature.normalise_by)) != 2:
        raise RecipeError(
            f"{key}.normalise_by: expected two different points, got {feature.normalise_by}"
        )
    for setting, points in (("swap", mentioned), ("normalise_by", feature.normalise_by)):
        unknown = [point for point in points if not 0 <= point < num_points]
        if unknown:
            raise RecipeError(
                f"{key}.{setting}: there is no point {unknown[0]}; the columns hold {said}"
            )


def _key(data: Data, name: str) -> str:
    return f"data.{'target' if name in data.target else 'inputs'}.{name}"


KIND = Points()
