from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from torchrelay.tracking import figures
from torchrelay.tracking.journal import Point


def size_of(path) -> tuple[int, int]:
    """Width and height; fails where the file is no picture, or is blank."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 1
        return picture.size


def journal(num_epochs: int, valid: bool = True) -> list[Point]:
    points = []
    for step in range(1, num_epochs * 4 + 1):
        points += [Point("train/loss", 1 / step, step, step), Point("lr", 0.1, step, step)]
        if step % 4 == 0:
            points.append(Point("train/epoch_loss", 1 / step, step, step))
            if valid:
                points += [Point("valid/loss", 2 / step, step, step), Point("valid/accuracy", 1 - 1 / step, step, step)]
    return points


@pytest.mark.parametrize(
    ("points", "num_panels"),
    [
        (journal(5), 3),
        (journal(1), 3),
        (journal(3, valid=False), 2),
        (journal(2)[:3], 2),
        ([Point("train/loss", math.nan, 1, 1), Point("valid/accuracy", math.nan, 1, 1)], 3),
        ([], 2),
    ],
)
def test_curves_are_drawn_with_and_without_validation(tmp_path, points, num_panels):
    width, height = size_of(figures.curves(points, tmp_path / "figures" / "curves.png"))
    assert width / height == pytest.approx(1.2 * num_panels, rel=0.12)


@pytest.mark.parametrize("num_classes", [1, 2, 10, 100])
def test_class_pictures_grow_with_the_classes_and_stay_a_picture(tmp_path, num_classes):
    matrix = np.eye(num_classes, dtype=int) * 90 + 1
    classes = [f"class number {number}" for number in range(num_classes)]
    width, height = size_of(figures.confusion(matrix, classes, tmp_path / "confusion.png"))
    assert max(width, height) < 2400
    if num_classes == 100:  # a label needs about 10 pixels
        assert min(width, height) > 1500
    _, height = size_of(figures.class_accuracy(matrix, classes, tmp_path / "accuracy.png"))
    assert num_classes * 18 < height < 2400


def test_classes_without_rows_and_strange_names_are_drawn_without_warnings(tmp_path):
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 5]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        size_of(figures.confusion(matrix, ["$1_{$", "\u4e2d\u6587", "x" * 200], tmp_path / "a.png"))
        size_of(figures.class_accuracy(matrix, ["$1_{$", "\u4e2d\u6587", "x" * 200], tmp_path / "b.png"))
        size_of(figures.class_accuracy(np.zeros((3, 3), int), ["a", "b", "c"], tmp_path / "c.png"))


@pytest.mark.parametrize("num_rows", [0, 1, 2, 300, 20_000])
def test_residuals_are_drawn_for_any_number_of_rows(tmp_path, num_rows):
    target = np.random.default_rng(0).normal(30, 10, num_rows).astype(np.float32)
    size_of(figures.residuals(target, target + 1, "strength", tmp_path / "residuals.png", unit="MPa"))


def test_residuals_leave_out_what_is_not_finite(tmp_path):
    size_of(figures.residuals(np.array([1.0, np.nan]), np.array([np.inf, 2.0]), "y", tmp_path / "residuals.png"))


@pytest.mark.parametrize("shape", [(25, 3, 32, 32), (7, 1, 8, 8), (1, 3, 50, 200), (2, 2, 16, 16), (3, 5, 16, 16)])
def test_pictures_of_any_number_and_channels_are_shown(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    size_of(figures.gallery(images, ["cat as dog\np 0.98, loss 4.1"] * shape[0], tmp_path / "worst.png", "Worst"))


def test_a_table_has_a_line_for_each_row(tmp_path):
    header = ["row", "true", "predicted", "loss"]
    _, small = size_of(figures.worst_rows(header, [["1", "a", "b", "2.5"]] * 5, tmp_path / "five.png"))
    _, large = size_of(figures.worst_rows(header, [["1", "a", "b", "2.5"]] * 25, tmp_path / "all.png"))
    assert large - small == pytest.approx(20 * 0.24 * 130, rel=0.05)
    size_of(figures.worst_rows(header, [], tmp_path / "none.png"))


def test_drawing_leaves_matplotlibs_global_state_alone(tmp_path):
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams); "
        "from torchrelay.tracking import figures; from pathlib import Path; figures.curves([], Path(sys.argv[1])); "
        "print('matplotlib.pyplot' in sys.modules, before == dict(matplotlib.rcParams))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.png")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
