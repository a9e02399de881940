from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torchrelay.datasets.cells import sort_classes
from torchrelay.datasets.ingest.prepare import prepare_data
from torchrelay.datasets.pack import open_view
from torchrelay.datasets.table import check_table
from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
WritePictures = Callable[..., None]
MakeData = Callable[..., Data]


def test_numbers_are_fitted_on_training_rows_alone(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    table = write_table(
        [
            "x0,x1,label,split",
            "1,5,b,train",
            "3,5,a,train",
            "1000,6,a,test",
            "5,5,b,train",
            "-1000,7,b,valid",
        ]
    )
    prepared = prepare_data(number_data(table, split={"column": "split"}), home)
    [feature] = open_view(prepared.pack_dir, prepared.split_dir).schema.inputs
    assert feature.mean == [3.0, 5.0]
    # By hand: the variance of 1, 3, 5 is 8/3; a constant column is not scaled.
    assert feature.std == [pytest.approx((8 / 3) ** 0.5), 1.0]
    assert (feature.shape, feature.dtype, feature.columns) == ([2], "float64", ["x0", "x1"])


def test_a_constant_column_is_recognised_in_spite_of_rounding(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    rows = [f"0.1,{number % 2}" for number in range(11)]
    prepared = prepare_data(number_data(write_table(["x0,label", *rows])), home)
    assert open_view(prepared.pack_dir, prepared.split_dir).schema.inputs[0].std == [1.0]


def test_classes_are_sorted_and_counted_on_training_rows(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    table = write_table(
        [
            "x0,label,split",
            *[f"1,{label},train" for label in ("b", "a", "b")],
            "1,a,test",
            "1,a,valid",
        ]
    )
    schema = open_view(
        *prepare_data(number_data(table, split={"column": "split"}), home)[:2]
    ).schema
    assert (schema.targets[0].classes, schema.targets[0].counts, schema.targets[0].shape) == (
        ["a", "b"],
        [1, 2],
        [],
    )
    assert schema.num_outputs == 2


def test_a_category_input_that_only_test_rows_have_stays_out_of_the_classes(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    data = number_data(
        write_table(["c,d,y,split", "x,y,1,train", "z,x,2,train", "new,x,3,test"]),
        inputs={"c": {"kind": "category", "columns": ["c", "d"]}},
        target={"y": {"kind": "number", "unit": "MPa"}},
        split={"column": "split"},
    )
    prepared = prepare_data(data, home)
    schema = open_view(prepared.pack_dir, prepared.split_dir).schema
    assert schema.targets[0].unit == "MPa"
    assert (schema.inputs[0].classes, schema.inputs[0].counts) == (["x", "y", "z"], [2, 1, 1])
    assert schema.inputs[0].shape == [2]
    assert prepared.rows == {"train": 2, "valid": 0, "test": 1}


@pytest.mark.parametrize(
    ("classes", "ordered"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["10", "9", "007"], ["007", "10", "9"]),
        (["10", "9", "NA"], ["10", "9", "NA"]),
        (["1.0", "10", "9"], ["1.0", "10", "9"]),
        (["٣", "10", "9"], ["10", "9", "٣"]),
        (["--1", "2"], ["--1", "2"]),
    ],
)
def test_classes_are_in_the_order_of_numbers_only_where_all_are_plain_integers(
    classes: list[str], ordered: list[str]
) -> None:
    assert sort_classes(classes) == ordered


def test_image_statistics_see_training_rows_alone(
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
    home: Home,
    tmp_path: Path,
) -> None:
    names = ["a.png", "b.png", "c.png", "d.png"]
    write_pictures(names)
    table = write_table(
        ["image,label,split", "a.png,x,train", "b.png,y,train", "c.png,x,test", "d.png,y,valid"]
    )
    prepared = prepare_data(image_data(table), home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    from PIL import Image

    pixels = np.stack(
        [np.asarray(Image.open(tmp_path / "images" / name)) for name in names[:2]]
    ).astype(np.float64)
    assert view.schema.inputs[0].mean == pytest.approx(pixels.mean((0, 1, 2)).tolist())
    assert view.schema.inputs[0].std == pytest.approx(pixels.std((0, 1, 2)).tolist())
    assert (view.schema.inputs[0].shape, view.schema.inputs[0].dtype) == ([3, 4, 4], "uint8")


@pytest.mark.parametrize(
    ("feature", "mean", "std"),
    [
        (
            ("imagenet", "uint8"),
            [123.675, 116.28, 103.53],
            [58.395, 57.12, 57.375],
        ),  # torchvision's, times 255
        (
            ("imagenet", "uint16"),
            [31_784.475, 29_883.96, 26_607.21],
            [15_007.515, 14_679.84, 14_745.375],
        ),
        (("none", "uint8"), [0, 0, 0], [255, 255, 255]),
        (("none", "uint16"), [0, 0, 0], [65_535, 65_535, 65_535]),
        (("none", "float32"), [0, 0, 0], [1, 1, 1]),
    ],
)
def test_pinned_statistics_do_not_look_at_the_data(
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
    home: Home,
    feature: tuple[str, str],
    mean: list[float],
    std: list[float],
) -> None:
    statistics, dtype = feature
    write_pictures(["a.png", "b.png"])
    table = write_table(["image,label,split", "a.png,x,train", "b.png,y,train"])
    data = image_data(
        table, inputs={"image": {"kind": "image", "statistics": statistics, "dtype": dtype}}
    )
    prepared = prepare_data(data, home)
    [fitted] = open_view(prepared.pack_dir, prepared.split_dir).schema.inputs
    assert (fitted.mean, fitted.std) == (pytest.approx(mean), pytest.approx(std))


def test_imagenets_statistics_are_refused_for_other_channels(
    write_table: WriteTable, image_data: MakeData
) -> None:
    table = write_table(["image,label,split", "a.png,x,train", "b.png,y,train"])
    data = image_data(
        table, inputs={"image": {"kind": "image", "statistics": "imagenet", "channels": "gray"}}
    )
    with pytest.raises(
        RecipeError, match=r"image\.statistics: ImageNet's are of 3 channels, channels is gray"
    ):
        check_table(data)


@pytest.mark.parametrize("brightest", [1.0, 255.0])
def test_imagenets_statistics_take_float_pixels_from_0_to_1_alone(
    write_table: WriteTable, image_data: MakeData, home: Home, tmp_path: Path, brightest: float
) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).random((4, 4, 3)) * brightest
        np.save(tmp_path / "images" / f"{name}.npy", pixels)
    table = write_table(["image,label,split", "a.npy,x,train", "b.npy,y,train"])
    data = image_data(
        table, inputs={"image": {"kind": "image", "statistics": "imagenet", "dtype": "float32"}}
    )
    if brightest > 1:
        with pytest.raises(
            DataError, match=r"pixels from 0 to 1, row 1 .*as float32; say dtype: uint8"
        ):
            prepare_data(data, home)
    else:
        prepared = prepare_data(data, home)
        [feature] = open_view(prepared.pack_dir, prepared.split_dir).schema.inputs
        assert (feature.mean, feature.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
