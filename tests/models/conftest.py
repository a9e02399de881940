"""Schemas of tables that models are built for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from torchrelay.schema import FeatureSchema, Schema

MakeSchema = Callable[..., Schema]


def image(*shape: int) -> FeatureSchema:
    return FeatureSchema(
        name="image", kind="image", columns=["file"], shape=list(shape), dtype="uint8"
    )


def numbers(num_columns: int) -> FeatureSchema:
    columns = [f"x{index}" for index in range(num_columns)]
    return FeatureSchema(
        name="x", kind="number", columns=columns, shape=[num_columns], dtype="float32"
    )


def categories(num_columns: int, classes: str) -> FeatureSchema:
    columns = [f"c{index}" for index in range(num_columns)]
    return FeatureSchema(
        name="c",
        kind="category",
        columns=columns,
        shape=[num_columns],
        dtype="int64",
        classes=list(classes),
    )


@pytest.fixture
def image_schema() -> MakeSchema:
    def make(*shape: int, num_classes: int = 7) -> Schema:
        return Schema(inputs=[image(*shape)], targets=[_labels(num_classes)])

    return make


@pytest.fixture
def mixed_schema() -> Schema:
    """Two number columns, two category columns of 5 classes, a gray image of 4 x 3; 2 number
    columns as target.
    """
    target = FeatureSchema(
        name="y",
        kind="number",
        columns=["y0", "y1"],
        shape=[2],
        dtype="float32",
        mean=[0, 0],
        std=[1, 1],
    )
    return Schema(inputs=[numbers(2), categories(2, "abcde"), image(1, 4, 3)], targets=[target])


@pytest.fixture
def number_schema() -> Schema:
    return Schema(inputs=[numbers(3)], targets=[_labels(4)])


def _labels(num_classes: int) -> FeatureSchema:
    classes = [f"class {index}" for index in range(num_classes)]
    return FeatureSchema(
        name="label", kind="category", columns=["label"], shape=[], dtype="int64", classes=classes
    )
