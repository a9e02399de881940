from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from torchrelay.datasets.batches import BatchTransform, PackDataset, Unstandardise
from torchrelay.datasets.ingest import prepare_data, prepare_for_schema
from torchrelay.datasets.kinds.points import count_outside, scale_to_stored
from torchrelay.datasets.pack import View, open_view
from torchrelay.datasets.table import check_table
from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]

HEADER = "image,part_0_x,part_0_y,part_1_x,part_1_y,split"
FACE = {"kind": "points", "columns": "part_*"}


@pytest.fixture
def faces(tmp_path: Path, write_table: WriteTable) -> Callable[..., Data]:
    """Two pictures to train on, 20 x 10 and 8 x 40 (height x width), and a third, turned by its
    EXIF, to test on.
    """
    (tmp_path / "images").mkdir()
    for name, size in (("a", (20, 10)), ("b", (8, 40)), ("c", (10, 20))):
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "c" else 1
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(
            tmp_path / "images" / f"{name}.jpg", exif=exif
        )

    def make(
        rows: list[str] | None = None, target: dict[str, Any] | None = None, **changes: Any
    ) -> Data:
        rows = rows or ["a.jpg,0,0,9,19,train", "b.jpg,3,1,7.5,2,train", "c.jpg,0,0,9,19,test"]
        values: dict[str, Any] = {
            "table": write_table([HEADER, *rows]),
            "files": str(tmp_path / "images"),
            "inputs": {"image": {"kind": "image", "size": [4, 5]}},
            "target": {"face": FACE | (target or {})},
            "split": {"column": "split"},
        }
        return Data.model_validate(values | changes)

    return make


def view_of(data: Data, home: Home) -> View:
    prepared = prepare_data(data, home)
    return open_view(prepared.pack_dir, prepared.split_dir)


def test_points_come_in_pixels_of_the_stored_image(faces: Callable[..., Data], home: Home) -> None:
    view = view_of(faces(), home)
    rows = PackDataset(view.pack, view.schema, np.arange(3))
    target = rows.__getitems__([1, 0, 2]).target
    assert target.dtype == torch.float64
    # By hand: half of 10 columns, a fifth of 20 rows; an eighth of 40 columns, half of 8 rows.
    # Corners are at -0.5.
    expected = [
        [3.5 / 8 - 0.5, 1.5 / 2 - 0.5, 8 / 8 - 0.5, 2.5 / 2 - 0.5],
        [0.5 / 2 - 0.5, 0.5 / 5 - 0.5, 9.5 / 2 - 0.5, 19.5 / 5 - 0.5],
        [0.5 / 2 - 0.5, 0.5 / 5 - 0.5, 9.5 / 2 - 0.5, 19.5 / 5 - 0.5],  # upright it is 20 x 10 too
    ]
    torch.testing.assert_close(target, torch.tensor(expected, dtype=torch.float64))
    assert view.pack.column("face")[1].tolist() == [3, 1, 7.5, 2]
    assert rows.scale(view.schema.targets[0]).tolist() == [[2, 5], [8, 2], [2, 5]]


def test_points_of_a_picture_of_the_stored_size_stay() -> None:
    points = np.random.default_rng(0).uniform(-5, 60, (7, 3, 2))
    np.testing.assert_allclose(scale_to_stored(points, np.tile([16, 24], (7, 1)), [16, 24]), points)


def test_a_point_of_the_picture_that_is_resized_lies_on_the_same_thing(
    tmp_path: Path, faces: Callable[..., Data], home: Home
) -> None:
    pixels = np.zeros((30, 60), np.uint8)
    pixels[6:12, 40:48] = 255  # its middle is at x 43.5, y 8.5
    Image.fromarray(pixels).save(tmp_path / "images" / "spot.png")
    data = faces(["spot.png,43.5,8.5,0,0,train", "a.jpg,1,2,3,4,train"])
    data = data.model_copy(
        update={"inputs": {"image": data.inputs["image"].model_copy(update={"size": [10, 15]})}}
    )
    view = view_of(data, home)
    batch = PackDataset(view.pack, view.schema, np.arange(1)).__getitems__([0])
    image = batch.inputs[0][0, 0].double()
    centre = [
        float((image.sum(axis) * torch.arange(image.shape[1 - axis])).sum() / image.sum())
        for axis in (0, 1)
    ]
    assert centre == pytest.approx(batch.target[0, :2].tolist(), abs=0.01)


def test_one_deviation_is_fitted_for_all_coordinates_of_the_training_rows(
    faces: Callable[..., Data], home: Home
) -> None:
    view = view_of(faces(None, {"swap": [[0, 1]], "normalise_by": [0, 1]}), home)
    [target] = view.schema.targets
    points = (
        PackDataset(view.pack, view.schema, view.rows["train"]).__getitems__([0, 1]).target.numpy()
    )
    assert target.mean == pytest.approx(points.mean(0).tolist())
    assert target.std == [pytest.approx(np.sqrt(points.var(0).mean()))] * 4
    assert (target.shape, target.dtype, target.image) == ([2, 2], "float64", "image")
    assert (target.swap, target.normalise_by, view.schema.num_outputs) == ([(0, 1)], [0, 1], 4)


def test_points_are_standardised_and_come_back_as_target_and_as_input(
    faces: Callable[..., Data], home: Home
) -> None:
    data = faces(
        inputs={"image": {"kind": "image", "size": [4, 5]}, "hint": FACE},
        target={"columns": ["part_0_*"]},
    )
    data = data.model_copy(
        update={
            "inputs": data.inputs
            | {"hint": data.inputs["hint"].model_copy(update={"columns": ["part_1_*"]})}
        }
    )
    view = view_of(data, home)
    batch = PackDataset(view.pack, view.schema, view.rows["train"]).__getitems__([0, 1])
    assert (batch.inputs[1].shape, batch.target.shape) == ((2, 1, 2), (2, 2))
    out = BatchTransform(view.schema, [], seed=0, device="cpu")(batch)
    [_, hint], [target] = view.schema.inputs, view.schema.targets
    for raw, found, feature in (
        (batch.inputs[1], out.inputs[1], hint),
        (batch.target, out.target, target),
    ):
        expected = (raw.flatten(1) - torch.tensor(feature.mean)) / feature.std[0]
        torch.testing.assert_close(found.flatten(1), expected.float())
    torch.testing.assert_close(
        Unstandardise(view.schema)(out.target), batch.target, rtol=0, atol=1e-6
    )


def test_a_point_without_a_coordinate_rejects_the_row_and_one_outside_does_not(
    faces: Callable[..., Data], home: Home
) -> None:
    rows = [
        "a.jpg,0,0,9,19,train",
        "b.jpg,-7,1,99,2,train",
        "a.jpg,1,,9,19,train",
        "c.jpg,0,nan,9,19,test",
    ]
    prepared = prepare_data(faces(rows, max_bad_rows=0.5), home)
    assert prepared.rows == {"train": 2, "valid": 0, "test": 0}
    reasons = (prepared.split_dir / "quarantine.csv").read_text()
    assert "3,empty cell in 'part_0_y'" in reasons
    assert "4,NaN in 'part_0_y'" in reasons
    report = (prepared.split_dir / "data_report.csv").read_text()
    assert "points,face/points outside,,2\npoints,face/rows with points outside,,1\n" in report


def test_a_picture_reaches_half_a_pixel_around_the_centres_of_its_outermost_pixels() -> None:
    points = np.array([[[-0.5, -0.5], [9.5, 19.5], [9.6, 0], [0, 19.6], [-0.6, 0], [10, 20]]])
    assert count_outside(points, np.array([[20, 10]])).tolist() == [4]


@pytest.mark.parametrize(
    ("changes", "target", "message"),
    [
        ({}, {"columns": ["part_0_*", "part_1_x"]},
         r"data\.target\.face\.columns: .* even number of columns, got 3"),
        ({}, {"columns": ["part_*_x", "part_*_y"]},
         r"by turns, got part_0_x, part_1_x, part_0_y, part_1_y; name"),
        ({"inputs": {"x": {"kind": "number", "columns": "part_0_x"}}}, {},
         "points lie on an image, and .* has none"),
        ({}, {"image": "imag"},
         r"data\.target\.face\.image: 'imag' is no image input; legal are image"),
        ({"inputs": {"l": {"kind": "image", "columns": "image"},
                     "r": {"kind": "image", "columns": "image"}}}, {},
         r"data\.target\.face\.image is missing: data\.inputs has 2 images; name one: l, r"),
        ({}, {"swap": [[0, 2]]},
         r"face\.swap: there is no point 2; the columns hold 2 points, counted from 0"),
        ({}, {"swap": [[0]]}, r"face\.swap: expected pairs of two different points, got \[0\]"),
        ({}, {"swap": [[1, 1]]},
         r"face\.swap: expected pairs of two different points, got \[1, 1\]"),
        ({}, {"swap": [[0, 1], [1, 0]]}, r"face\.swap: point 0 stands in two pairs"),
        ({}, {"normalise_by": [0]},
         r"face\.normalise_by: expected two different points, got \[0\]"),
        ({}, {"normalise_by": [0, 9]}, r"face\.normalise_by: there is no point 9"),
        ({"inputs": {"image": {"kind": "image", "preprocess": [
            {"name": "transform.rotate", "args": {"angle": 9}}]}}},
         {}, r"transform\.rotate moves pixels and would leave the points of 'face' behind"),
        ({"inputs": {"image": {"kind": "image", "preprocess": [
            {"name": "util.crop", "args": {"crop_width": 1}}]}}},
         {}, r"util\.crop moves pixels"),
    ],
)  # fmt: skip
def test_what_cannot_be_points_is_refused_before_ingest(
    faces: Callable[..., Data], changes: dict[str, Any], target: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check_table(faces(None, target, **changes))


def test_preprocess_that_scales_or_leaves_pixels_in_place_goes_with_points(
    faces: Callable[..., Data], home: Home
) -> None:
    steps = [
        {"name": "transform.rescale", "args": {"scale": 0.5, "channel_axis": 2}},
        {"name": "exposure.adjust_log"},
    ]
    data = faces(inputs={"image": {"kind": "image", "size": [4, 5], "preprocess": steps}})
    view = view_of(data, home)
    plain = view_of(faces(), home)
    for one in (view, plain):
        assert one.pack.source("image").tolist() == [[20, 10], [8, 40], [20, 10]]
    batches = [
        PackDataset(one.pack, one.schema, np.arange(3)).__getitems__([0, 1, 2])
        for one in (view, plain)
    ]
    assert torch.equal(batches[0].target, batches[1].target)


def test_another_table_is_read_by_the_schema_of_the_first(
    faces: Callable[..., Data], home: Home, write_table: WriteTable
) -> None:
    data = faces()
    schema = view_of(data, home).schema
    table = write_table([HEADER, "b.jpg,1,2,3,4,"], "other.csv")
    prepared = prepare_for_schema(data.model_copy(update={"table": table}), schema, home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert view.schema == schema
    assert PackDataset(view.pack, schema, view.rows["test"])[0].target.tolist() == [
        1.5 / 8 - 0.5, 2.5 / 2 - 0.5, 3.5 / 8 - 0.5, 4.5 / 2 - 0.5
    ]  # fmt: skip


def test_the_source_of_a_known_picture_survives_a_new_name_and_a_second_ingest(
    tmp_path: Path, faces: Callable[..., Data], home: Home
) -> None:
    data = faces()
    view_of(data, home)
    (tmp_path / "images" / "copy.jpg").write_bytes((tmp_path / "images" / "b.jpg").read_bytes())
    again = prepare_data(faces(["copy.jpg,1,1,1,1,train", "a.jpg,1,2,3,4,train"]), home)
    assert again.num_decoded == 0
    assert open_view(again.pack_dir, again.split_dir).pack.source("image").tolist() == [
        [8, 40],
        [20, 10],
    ]


def test_a_target_of_another_kind_beside_points_is_refused(faces: Callable[..., Data]) -> None:
    data = faces(target={"columns": "part_0_*"})
    other = data.model_copy(
        update={
            "target": data.target | {"x": data.target["face"].model_copy(update={"kind": "number"})}
        }
    )
    with pytest.raises(
        RecipeError, match=r"must be of one kind, got face \(points\), x \(number\)"
    ):
        check_table(other)


def test_points_of_a_missing_pattern_name_the_nearest_column(faces: Callable[..., Data]) -> None:
    with pytest.raises(
        DataError, match=r"pattern 'parts_\*', which the table does not have; did you mean part_"
    ):
        check_table(faces(target={"columns": "parts_*"}))
