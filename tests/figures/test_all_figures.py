from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from torchrelay import figures
from torchrelay.figures.style import (
    AMBER,
    GREEN,
    PINK,
    SKY,
    in_full,
    number,
    percent,
    short,
    text_width,
)
from torchrelay.runs import Point

NAMES = [
    "$1_{$",
    "\u4e2d\u6587\u7c7b\u522b",
    "x" * 200,
    "two\nlines\t",
    "",
    "\u0645\u0631\u062d\u0628\u0627",
]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """No figure warns, whatever it is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Figure]:
    """The figure that was saved last."""
    saved: list[Figure] = []
    draw = Figure.draw

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        saved.append(self)
        draw(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "draw", keep)
    return lambda: saved[-1]


def size_of(path: Path) -> tuple[int, int]:
    """Width and height; fails where the file is no picture, is blank, or is of a size that
    nobody looks at.
    """
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 1
        assert min(picture.size) > 100
        assert max(picture.size) < 2400
        return picture.size


def texts_of(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


# Words and numbers


def test_a_long_label_keeps_both_ends_and_its_width():
    text = short("a very long name of class 12", 12)
    assert (text[:3], text[-2:]) == ("a v", "12")
    assert 10 <= text_width(text) <= 12
    assert short("two\n lines\t\x00", 12) == "two lines"
    assert text_width(short("\u4e2d\u6587" * 20, 12)) <= 12


def test_numbers_keep_their_digits_and_shares_do_not_round_to_all_or_nothing():
    assert [number(value) for value in (0.904, 12.0, 118481.6, 1e-7, 0)] == [
        "0.9040",
        "12.00",
        "118,482",
        "1e-07",
        "0",
    ]
    assert [percent(share) for share in (0, 1e-5, 0.5, 0.99999, 1)] == [
        "0.0%",
        "<0.1%",
        "50.0%",
        ">99.9%",
        "100.0%",
    ]
    assert [in_full(value) for value in (-1_500_000, 0.1 + 0.2, 1e-9)] == [
        "−1,500,000",
        "0.3",
        "1e−09",
    ]


# Curves


def journal(num_epochs: int, valid: bool = True, metric: str = "valid/accuracy") -> list[Point]:
    points = []
    for step in range(1, num_epochs * 4 + 1):
        points += [Point("train/loss", 1 / step, step, step), Point("lr", 0.1, step, step)]
        if step % 4 == 0:
            points.append(Point("train/epoch_loss", 1 / step, step, step))
            if valid:
                points += [
                    Point("valid/loss", 2 / step, step, step),
                    Point(metric, 1 - 1 / step, step, step),
                ]
    return points


@pytest.mark.parametrize(
    ("points", "num_panels"),
    [
        (journal(5), 3),
        (journal(1), 3),
        (journal(300), 3),
        (journal(3, valid=False), 2),
        (journal(2)[:3], 2),
        ([Point("train/loss", math.nan, 1, 1), Point("valid/accuracy", math.nan, 1, 1)], 3),
        ([Point("train/loss", math.inf, 1, 1), Point("lr", 0.0, 1, 1)], 2),
        ([], 2),
    ],
)
def test_curves_are_drawn_with_and_without_validation(tmp_path, points, num_panels):
    width, height = size_of(figures.curves(points, tmp_path / "figures" / "curves.png"))
    assert width / height == pytest.approx(1.07 * num_panels, rel=0.12)


def test_the_best_epoch_is_marked_in_every_panel_and_said_once(tmp_path, page):
    values = [9.0, math.nan, 4.5, 6.0]
    points = [point for point in journal(4) if point.key != "valid/accuracy"]
    points += [
        Point("valid/rmse", value, 4 * epoch, 0) for epoch, value in enumerate(values, start=1)
    ]
    figures.curves(points, tmp_path / "a.png", headline=figures.Headline(unit="MPa"))
    marked = [
        line.get_xdata() for axes in page().axes for line in axes.lines if line.get_color() == PINK
    ]
    assert sum(list(x) == [3.0, 3.0] for x in marked) == 3
    assert texts_of(page()).count("best 4.500, epoch 3") == 1
    assert page().axes[1].get_ylabel() == "RMSE [MPa]"


@pytest.mark.parametrize(
    ("metric", "higher_is_better", "best"),
    [("valid/f1_macro", True, 3), ("valid/median_ae", False, 1), ("valid/mae/accuracy", True, 3)],
)
def test_the_named_metric_decides_which_epoch_is_best(
    tmp_path, page, metric, higher_is_better, best
):
    points = [*journal(3), *(Point(metric, float(epoch), 4 * epoch, 0) for epoch in (1, 2, 3))]
    figures.curves(points, tmp_path / "a.png", headline=figures.Headline(metric, higher_is_better))
    assert f"best {best}.000, epoch {best}" in texts_of(page())


def test_where_the_loss_decides_its_panel_names_the_best_epoch_and_the_first_metric_is_beside_it(
    tmp_path, page
):
    figures.curves(
        journal(3),
        tmp_path / "a.png",
        headline=figures.Headline("valid/loss", higher_is_better=False),
        loss_unit="nats",
        train_label="t",
    )
    loss, middle, _ = page().axes
    assert (loss.get_ylabel(), middle.get_ylabel()) == ("loss [nats]", "accuracy")
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "train, each step",
        "t",
        "valid",
        "best 0.1667, epoch 3",
    ]
    assert [line.get_marker() for line in loss.lines if line.get_color() == PINK] == ["None", "o"]


def test_resumes_and_an_early_stop_are_marked_where_they_were(tmp_path, page):
    events = [
        {"kind": "event", "name": "resumed", "fields": {"step": 6}},
        {"kind": "event", "name": "resumed", "fields": {"step": 8}},
        {"kind": "event", "name": "stopped", "fields": {"step": 16}},
        {"kind": "event", "name": "checkpoint", "fields": {}},
        {"kind": "metrics", "step": 1, "values": {}},
    ]
    figures.curves(journal(4), tmp_path / "a.png", events=events)
    lines = {line.get_label(): np.asarray(line.get_xdata())[0] for line in page().axes[0].lines}
    assert (lines["resumed"], lines["stopped early"]) == (1.5, 4.0)
    assert texts_of(page()).count("resumed") == 1


def test_steps_after_the_last_whole_epoch_lie_beyond_it(tmp_path, page):
    figures.curves([*journal(2), Point("train/loss", 0.1, 10, 0)], tmp_path / "a.png")
    (steps,) = (line for line in page().axes[0].lines if line.get_label() == "train, each step")
    assert np.asarray(steps.get_xdata())[-1] == 2.5


def test_a_loss_over_decades_has_a_logarithmic_axis_with_plain_numbers(tmp_path, page):
    figures.curves(journal(40), tmp_path / "a.png")
    assert page().axes[0].get_yscale() == "log"
    assert "mathdefault" not in texts_of(page())
    figures.curves(journal(3), tmp_path / "a.png")
    assert page().axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: figures.curves(
            journal(2), path, headline=figures.Headline("valid/loss", False)
        ),
        lambda path: figures.curves(journal(12), path),
        lambda path: figures.roc(
            np.array([0.1, 0.9, 0.2]), np.array([True, False, False]), "cat", path
        ),
        lambda path: figures.ranks(
            {"tail": np.array([1.0, 900.0]), "head": np.array([900.0])}, path
        ),
        lambda path: figures.points_error(
            np.ones((3, 2)), path, np.array([[0.0, 1.0], [2.0, 3.0]])
        ),
    ],
)
def test_no_legend_lies_over_a_curve_or_leaves_the_page(tmp_path, page, draw):
    draw(tmp_path / "a.png")
    page().draw_without_rendering()
    legends = [(axes, axes.get_legend()) for axes in page().axes if axes.get_legend() is not None]
    assert legends
    for axes, legend in legends:
        label = axes.xaxis.label.get_window_extent()
        assert legend.get_window_extent().y1 <= label.y0
        assert legend.get_window_extent().y0 >= 0


# Several splits


def test_splits_show_their_mean_and_deviation_and_name_what_is_not_finite(tmp_path, page):
    values = {"split_0": 1.0, "split_1": 3.0, "split_2": math.nan, "split_3": 2.0}
    size_of(figures.splits(values, tmp_path / "a.png", "test/rmse", unit="MPa"))
    (axes,) = page().axes
    assert axes.get_title(loc="left") == "test/rmse: 2.000 ± 1.0 (3 splits)"
    assert [label.get_text() for label in axes.get_yticklabels()][2] == "split_2 (not finite)"


@pytest.mark.parametrize(
    "values", [{}, {"only": 1.0}, {"only": math.inf}, {f"s{i}": 0.5 for i in range(40)}]
)
def test_any_number_of_splits_is_drawn(tmp_path, values):
    size_of(figures.splits(values, tmp_path / "a.png", "test/accuracy"))


# Classes


def draw_accuracy(matrix, classes, path, **settings):
    return figures.class_accuracy(matrix.diagonal(), matrix.sum(1), classes, path, **settings)


def draw_scores(matrix, classes, path):
    return figures.class_scores(matrix.diagonal(), matrix.sum(1), matrix.sum(0), classes, path)


@pytest.mark.parametrize("num_classes", [1, 2, 10, pytest.param(100, marks=pytest.mark.slow)])
def test_class_pictures_grow_with_the_classes_and_stay_a_picture(tmp_path, num_classes):
    matrix = np.eye(num_classes, dtype=int) * 90 + 1
    classes = [f"class number {number}" for number in range(num_classes)]
    width, height = size_of(figures.confusion(matrix, classes, tmp_path / "confusion.png"))
    assert 0.8 < width / height < 1.6
    if num_classes >= 100:  # a label needs about 10 pixels
        assert min(width, height) > 1500
    for draw in (draw_accuracy, draw_scores):
        _, height = size_of(draw(matrix, classes, tmp_path / "classes.png"))
        assert min(num_classes, 100) * 18 < height


@pytest.mark.parametrize(
    ("num_classes", "has_counts", "has_shares"), [(2, 1, 1), (10, 1, 1), (30, 1, 0), (100, 0, 0)]
)
def test_cells_hold_rows_and_shares_where_they_fit(
    tmp_path, page, num_classes, has_counts, has_shares
):
    matrix = np.full((num_classes, num_classes), 50)
    np.fill_diagonal(matrix, 200)
    figures.confusion(matrix, [str(number) for number in range(num_classes)], tmp_path / "a.png")
    cells = [text.get_text() for text in page().axes[0].texts]
    assert cells.count("200") == has_counts * num_classes
    assert cells.count(percent(200 / (150 + 50 * num_classes))) == has_shares * num_classes


@pytest.mark.slow
def test_every_class_has_a_label_up_to_a_hundred_and_a_subset_beyond(tmp_path, page):
    for num_classes, num_labels in ((100, 100), (300, 100)):
        names = [str(number) for number in range(num_classes)]
        figures.confusion(np.eye(num_classes, dtype=int), names, tmp_path / "a.png")
        assert len(page().axes[0].get_xticklabels()) == num_labels


def test_the_interval_of_the_accuracy_stands_beside_it(tmp_path, page):
    matrix = np.array([[8, 2], [0, 10]])
    figures.confusion(matrix, ["a", "b"], tmp_path / "a.png", interval=(0.8, 0.95))
    assert "accuracy 90.0% (80.0% to 95.0%), 20 rows" in texts_of(page())
    draw_accuracy(matrix, ["a", "b"], tmp_path / "a.png", interval=(0.8, 0.95))
    assert "all rows 90.0% (80.0% to 95.0%)" in texts_of(page())


def test_classes_without_rows_and_strange_names_are_drawn(tmp_path):
    matrix = np.eye(6, dtype=int) * 3
    matrix[1] = 0
    for draw in (figures.confusion, draw_accuracy, draw_scores):
        size_of(draw(matrix, NAMES, tmp_path / "a.png"))
        size_of(draw(np.zeros((3, 3), int), ["a", "b", "c"], tmp_path / "b.png"))


def test_scores_are_sorted_by_f1_with_the_lowest_on_top(tmp_path, page):
    # Of b 4 of 8 are found and 4 of 6 predictions are right: precision 2/3, recall 1/2, F1 8/14.
    draw_scores(np.array([[8, 2], [4, 4]]), ["a", "b"], tmp_path / "a.png")
    (axes,) = page().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b  (8)", "a  (10)"]
    found = {line.get_label(): np.asarray(line.get_xdata())[0] for line in axes.lines}
    assert found == pytest.approx({"precision": 2 / 3, "recall": 1 / 2, "F1": 8 / 14})


def test_scores_of_tags_are_drawn_from_their_counts(tmp_path, page):
    # Of a 3 of 4 are found and none else; of b 1 of 2, beside 3 others; nobody has c.
    counts = {"hits_K": [3, 1, 0], "rows_K": [4, 2, 0], "predicted_K": [3, 4, 1]}
    arrays = {name: np.array(values) for name, values in counts.items()}
    figures.tag_scores(**arrays, tags=["a", "b", "c"], path=tmp_path / "a.png")
    (axes,) = page().axes
    assert axes.get_title(loc="left") == "Scores of each tag (rows)"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b  (2)", "a  (4)"]
    found = {line.get_label(): np.asarray(line.get_xdata()).tolist() for line in axes.lines}
    assert found["precision"] == [0.25, 1.0]
    assert found["recall"] == [0.5, 0.75]
    assert found["F1"] == pytest.approx([2 / 6, 6 / 7])
    none = {name: values * 0 for name, values in arrays.items()}
    size_of(figures.tag_scores(**none, tags=["a", "b", "c"], path=tmp_path / "b.png"))


def test_areas_of_the_two_class_curves_agree_with_scikit_learn(tmp_path, page):
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    target = rng.random(400) < 0.2
    scores = np.round(rng.normal(size=400) + target, 1)  # many scores are equal
    size_of(figures.roc(scores, target, "defect", tmp_path / "a.png"))
    texts = texts_of(page())
    assert f"AUROC {roc_auc_score(target, scores):.3f}" in texts
    assert f"average precision {average_precision_score(target, scores):.3f}" in texts
    assert f"{target.sum()} of 400 rows are 'defect'" in texts


@pytest.mark.parametrize(
    ("target", "said"), [([0, 0], "no row of 'yes'"), ([1, 1], "all rows are 'yes'")]
)
def test_curves_that_need_two_classes_say_when_one_is_missing(tmp_path, page, target, said):
    size_of(figures.roc(np.array([0.1, 0.9]), np.array(target), "yes", tmp_path / "a.png"))
    assert said in texts_of(page())


def test_scores_that_are_not_finite_are_left_out(tmp_path, page):
    scores = np.array([0.9, math.nan, 0.1, math.inf])
    size_of(figures.roc(scores, np.array([1, 1, 0, 0]), "yes", tmp_path / "a.png"))
    assert "1 of 2 rows" in texts_of(page())


# Numbers


@pytest.mark.parametrize("num_rows", [0, 1, 2, 300, 20_000])
def test_residuals_are_drawn_for_any_number_of_rows(tmp_path, num_rows):
    target = np.random.default_rng(0).normal(30, 10, num_rows).astype(np.float32)
    size_of(
        figures.residuals(target, target + 1, "strength", tmp_path / "residuals.png", unit="MPa")
    )


@pytest.mark.parametrize("scale", [0, 1e-12, 1e12])
def test_residuals_are_drawn_for_constant_tiny_and_huge_values(tmp_path, scale):
    rng = np.random.default_rng(0)
    target = np.full(50, 3.0) if scale == 0 else rng.normal(size=50) * scale
    size_of(figures.residuals(target, target, "y", tmp_path / "a.png"))
    size_of(
        figures.residuals(
            target, target + rng.normal(size=50) * (scale or 1), "y", tmp_path / "a.png"
        )
    )


def test_residuals_leave_out_and_count_what_is_not_finite(tmp_path, page):
    target, prediction = np.array([1.0, np.nan, 3.0]), np.array([np.inf, 2.0, 4.0])
    size_of(figures.residuals(target, prediction, "y", tmp_path / "residuals.png"))
    assert "1 row; 2 not finite" in texts_of(page())
    size_of(figures.residuals(target[:2], prediction[:2], "y", tmp_path / "residuals.png"))
    assert "no finite row" in texts_of(page())


def test_heavy_tails_do_not_hide_the_other_rows_and_are_counted(tmp_path, page):
    target = np.linspace(0, 1, 1000)
    prediction = target + np.where(np.arange(1000) < 3, 1e6, 0.01)
    figures.residuals(target, prediction, "y", tmp_path / "a.png")
    assert page().axes[0].get_xlim()[1] < 10
    assert "1,000 rows; 3 lie further out" in texts_of(page())


def test_the_boxes_hold_equally_many_rows_each_and_show_their_median(tmp_path, page):
    target = np.arange(100.0)
    figures.residuals(target, target + np.where(target < 50, 1.0, -2.0), "y", tmp_path / "a.png")
    medians = [
        float(segment[0][1])
        for lines in page().axes[2].collections
        if to_hex(lines.get_edgecolor()[0]) == "#0072b2"
        for segment in lines.get_segments()
    ]
    assert medians == [1.0] * 5 + [-2.0] * 5


def test_axes_carry_the_unit(tmp_path, page):
    figures.residuals(
        np.arange(9.0),
        np.arange(9.0),
        "strength",
        tmp_path / "a.png",
        unit="MPa",
        interval=(0.1, 0.2),
    )
    assert [axes.get_xlabel() for axes in page().axes] == [
        "true strength [MPa]",
        "predicted − true strength [MPa]",
        "true strength [MPa]",
    ]
    assert "RMSE 0 (0.1 to 0.2)" in texts_of(page())


# Galleries and tables of rows


@pytest.mark.parametrize(
    "shape",
    [
        (25, 3, 32, 32),
        (7, 1, 8, 8),
        (1, 3, 50, 200),
        (2, 2, 16, 16),
        (3, 5, 16, 16),
        (1, 3, 1, 1),
        (25, 3, 300, 300),
        (6, 3, 300, 40),
        (6, 1, 20, 300),
    ],
)
def test_pictures_of_any_number_size_and_channels_are_shown(tmp_path, page, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    size_of(
        figures.gallery(
            images,
            ["cat as dog\np 0.98, loss 4.1"] * shape[0],
            tmp_path / "a.png",
            "Worst predictions",
        )
    )
    shown = page().axes[0].images
    assert len(shown) == shape[0]
    box = shown[0].get_window_extent()
    assert box.width / box.height == pytest.approx(shape[3] / shape[2], rel=0.01)


def test_two_channels_are_magenta_and_green(tmp_path, page):
    images = np.zeros((1, 2, 4, 4), np.uint8)
    images[0, 0], images[0, 1] = 200, 50
    figures.gallery(images, ["x"], tmp_path / "a.png", "Worst predictions")
    assert page().axes[0].images[0].get_array()[0, 0].tolist() == [200, 50, 200]


def test_points_are_drawn_where_they_are_and_leave_the_picture_its_place(tmp_path, page):
    images = np.zeros((2, 3, 20, 30), np.uint8)
    true = np.array([[[0, 0], [29, 19]], [[3, 4], [5, 6]]], float)
    predicted = true + np.array([[[1, 0], [500, 500]], [[np.nan, 0], [0, 0]]])
    size_of(
        figures.gallery(
            images, ["nme 0.1", "nme 0.2"], tmp_path / "a.png", "Worst predictions", true, predicted
        )
    )
    (axes,) = page().axes
    for at, picture in enumerate(axes.images):
        left, right, bottom, top = picture.get_extent()
        corner, pixel = np.array([left, top]), np.array([(right - left) / 30, (bottom - top) / 20])
        lines = axes.lines[2 * at : 2 * at + 2]
        assert [line.get_color() for line in lines] == [SKY, AMBER]
        for line, points in zip(lines, (true[at], predicted[at]), strict=True):
            np.testing.assert_allclose(
                (line.get_xydata() - corner) / pixel - 0.5, points, atol=1e-9
            )
            np.testing.assert_allclose(
                line.get_clip_box().extents, picture.get_window_extent().extents
            )
    # A line joins each pair, except where one of the two is not finite.
    assert [len(joined.get_segments()) for joined in axes.collections] == [2, 1]
    assert [text.get_text() for text in page().legends[0].get_texts()] == ["true", "predicted"]


def test_each_picture_is_shown_in_the_proportions_that_it_is_given(tmp_path, page):
    images = np.zeros((3, 3, 32, 32), np.uint8)
    ratios = np.array([0.5, 1.0, 2.0])
    figures.gallery(images, ["x"] * 3, tmp_path / "a.png", "Worst predictions", ratios=ratios)
    boxes = [picture.get_window_extent() for picture in page().axes[0].images]
    assert [box.width / box.height for box in boxes] == pytest.approx(ratios.tolist())


def test_sixty_eight_points_and_the_true_ones_alone_are_drawn(tmp_path, page):
    points = np.random.default_rng(0).random((3, 68, 2)) * 95
    images = np.zeros((3, 1, 96, 96), np.uint8)
    size_of(figures.gallery(images, ["x"] * 3, tmp_path / "a.png", "Worst predictions", points))
    assert [text.get_text() for text in page().legends[0].get_texts()] == ["true"]


def test_a_table_has_a_line_for_each_row_and_its_heading(tmp_path, page):
    header = ["row", "true", "predicted", "loss"]
    _, small = size_of(
        figures.worst_rows(
            header, [["1", "a", "b", "2.5"]] * 5, tmp_path / "five.png", "Most doubtful"
        )
    )
    assert "Most doubtful" in texts_of(page())
    _, large = size_of(
        figures.worst_rows(header, [["1", "a", "b", "2.5"]] * 25, tmp_path / "all.png")
    )
    assert large - small == pytest.approx(20 * 0.25 * 130, rel=0.05)
    size_of(figures.worst_rows(header, [], tmp_path / "none.png"))
    size_of(figures.worst_rows(header, [NAMES[:4]] * 2, tmp_path / "strange.png"))


# Points


def test_each_point_is_drawn_on_the_mean_shape_with_its_mean_error(tmp_path, page):
    errors = np.array([[0.1, 0.3], [0.3, 0.5], [np.nan, 0.1]])
    shape = np.array([[0.0, 0.0], [4.0, 2.0]])
    size_of(
        figures.points_error(errors, tmp_path / "a.png", shape, baseline=0.6, interval=(0.2, 0.4))
    )
    dots = page().axes[0].collections[0]
    np.testing.assert_allclose(dots.get_array(), [0.2, 0.4])
    np.testing.assert_allclose(dots.get_offsets(), shape)
    assert page().axes[0].yaxis_inverted()
    texts = texts_of(page())
    assert "largest: 1 (0.400), 0 (0.200)" in texts
    assert "mean 0.3000 (0.2000 to 0.4000)" in texts
    assert "2 rows, 100.0% above 0.1, 1 not finite" in texts


def test_the_curve_says_how_many_rows_stay_below_an_error(tmp_path, page):
    figures.points_error(
        np.array([[0.01], [0.02], [0.03], [0.2]]), tmp_path / "a.png", np.zeros((1, 2))
    )
    x, y = page().axes[1].lines[0].get_data()
    assert dict(zip(np.asarray(x).tolist(), np.asarray(y).tolist(), strict=True))[0.03] == 0.75
    assert "25.0% above 0.1" in texts_of(page())


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 68), (2, 200)])
def test_any_number_of_points_and_rows_is_drawn(tmp_path, shape):
    errors = np.random.default_rng(0).random(shape)
    size_of(
        figures.points_error(
            errors, tmp_path / "b.png", np.random.default_rng(0).random((shape[1], 2))
        )
    )


def test_errors_in_pixels_have_their_unit_and_no_rate_of_failure(tmp_path, page):
    figures.points_error(
        np.array([[3.0], [5.0]]),
        tmp_path / "a.png",
        np.array([[4.0, 2.0]]),
        unit="px",
        baseline=9.0,
    )
    texts = texts_of(page())
    for said in (
        "mean error of a row [px]",
        "mean error [px]",
        "largest: 0 (4.000)",
        "mean 4\n",
        "mean shape 9\n",
    ):
        assert said in texts
    assert "above" not in texts


# The data report


def report(num_classes: int = 0, **more: Any) -> dict[str, Any]:
    quantiles = {"min": 8, "quarter": 30.5, "median": 64, "three_quarters": 100, "max": 600}
    features: dict[str, Any] = {
        "image": {
            "kind": "image",
            "columns": ["image"],
            "missing": {"image": 3},
            "shape": [3, 32, 32],
            "dtype": "uint8",
            "sizes": {"width": quantiles, "height": quantiles, "distinct": 7},
        },
        "x": {
            "kind": "number",
            "columns": ["x0", "x1"],
            "missing": {"x0": 0, "x1": 0},
            "ranges": {
                "x0": {"min": 0.0, "max": 1e6},
                "x1": {"min": -2.5, "max": 2.5, "mean": 0.1, "std": 1.0},
            },
        },
    }
    if num_classes:
        counts = {
            f"class {number}": {"train": 9, "valid": number % 3, "test": 4}
            for number in range(num_classes)
        }
        features["label"] = {
            "kind": "category",
            "columns": ["label"],
            "missing": {"label": 0},
            "classes": counts,
        }
    return {
        "table": "/data/table.csv",
        "rows": 1000,
        "splits": {"train": 700, "valid": 100, "test": 150},
        "quarantined": {"rows": 30, "reasons": {"no such file": 20, "not an image": 10}},
        "features": features,
        "duplicate_rows": 5,
        "rows_in_two_splits": {"rows": 0, "image": 2},
        "warnings": ["no row tests: there will be no test metrics"],
    } | more


@pytest.mark.parametrize("num_classes", [0, 2, 30, 31, 5000])
def test_the_data_report_is_one_page_for_any_number_of_classes(tmp_path, page, num_classes):
    size_of(figures.data_report(report(num_classes), tmp_path / "a.png"))
    labels = {label.get_text() for axes in page().axes for label in axes.get_yticklabels()}
    assert {
        "train",
        "valid",
        "test",
        "quarantined",
        "in no split",
        "no such file",
        "image",
        "width",
    } <= labels
    assert ("class 0" in labels) == (1 <= num_classes <= 30)


def test_the_data_report_says_what_is_odd_and_what_is_not(tmp_path, page):
    figures.data_report(report(2), tmp_path / "a.png")
    texts = texts_of(page())
    for said in (
        "5 rows equal an earlier one.",
        "image: 2 rows in two splits.",
        "no row tests",
        "700  70.0%",
    ):
        assert said in texts
    clean = report(
        2,
        quarantined={"rows": 0, "reasons": {}},
        duplicate_rows=0,
        rows_in_two_splits={"rows": 0},
        warnings=[],
    )
    clean["features"]["image"]["missing"] = {"image": 0}
    figures.data_report(clean, tmp_path / "a.png")
    texts = texts_of(page())
    for said in (
        "No row is quarantined.",
        "None, in 4 columns.",
        "No duplicate rows.",
        "No row stands in two splits.",
    ):
        assert said in texts


def test_classes_are_stacked_by_split_in_the_colours_of_the_splits(tmp_path, page):
    figures.data_report(report(2), tmp_path / "a.png")
    (axes,) = (axes for axes in page().axes if axes.get_yticklabels()[0].get_text() == "class 0")
    widths = {to_hex(bars[1].get_facecolor()): bars[1].get_width() for bars in axes.containers}
    assert widths == {"#0072b2": 9, AMBER: 1, GREEN: 4}


def many_features(number: int) -> dict[str, Any]:
    return {
        f"f{at}": {"kind": "number", "columns": ["c"], "missing": {f"c{at}": 1}}
        for at in range(number)
    }


def strange_classes() -> dict[str, Any]:
    classes = {name: {"train": 1} for name in NAMES}
    return {"label": {"kind": "category", "columns": ["l"], "missing": {}, "classes": classes}}


def points_outside() -> dict[str, Any]:
    outside = {
        "points": 1,
        "points_outside": 2,
        "rows_with_points_outside": 1,
        "ranges": {"x": {"min": 0, "max": 1}},
    }
    return {"p": {"kind": "points", "columns": ["x", "y"], "missing": {}, **outside}}


@pytest.mark.parametrize(
    "odd",
    [
        {"warnings": ["a long warning " * 40] * 30},
        {
            "quarantined": {
                "rows": 90,
                "reasons": {f"reason {'x' * number}": number for number in range(1, 90)},
            }
        },
        {"features": many_features(60)},
        {"features": strange_classes()},
        {"features": points_outside()},
        {"group": {"groups": {"train": 5, "valid": 1, "test": 2}, "largest": 40}},
    ],
)
def test_odd_tables_get_a_page_as_well(tmp_path, odd):
    size_of(figures.data_report(report(3, **odd), tmp_path / "a.png"))


def test_an_empty_report_is_drawn(tmp_path):
    size_of(figures.data_report({}, tmp_path / "a.png"))


# All of them


def test_an_interrupted_save_leaves_the_old_picture(tmp_path, monkeypatch):
    path = figures.curves(journal(2), tmp_path / "a.png")
    before = path.read_bytes()

    def fail(self: Image.Image, file: Any, **kwargs: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        figures.curves(journal(3), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_background_is_white(tmp_path):
    with Image.open(figures.curves(journal(2), tmp_path / "a.png")) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_drawing_leaves_matplotlibs_global_state_alone(tmp_path):
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams); "
        "from torchrelay import figures; from pathlib import Path; figures.curves([], "
        "Path(sys.argv[1])); "
        "print('matplotlib.pyplot' in sys.modules, before == dict(matplotlib.rcParams))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.png")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "True"]


def test_the_words_of_each_class_stand_in_the_order_of_their_weights_with_spaces_to_be_seen(
    tmp_path, page
):
    tokens = ["a b", "que", "the", "rest"]
    weights = np.zeros((len(tokens), 2))
    weights[:3] = [[0.5, -1], [-2, 3], [1, -1]]
    path = figures.words(["en", "es"], tokens, weights / 10, weights, tmp_path / "words.png", 3)
    size_of(path)
    english, spanish = page().axes
    assert [label.get_text() for label in english.get_yticklabels()][:2] == ["the", "a␣b"]
    assert [bar.get_width() for bar in english.patches] == [1, 0.5, 0]
    assert english.lines[0].get_xdata().tolist() == [0.1, 0.05, 0]
    assert (english.get_title(loc="left"), spanish.get_title(loc="left")) == ("en", "es")
    assert "before training" in texts_of(page())


def test_words_of_many_classes_are_drawn_for_the_first_and_the_others_counted(tmp_path, page):
    classes = [f"class {number}" for number in range(26)]
    weights = np.random.default_rng(0).normal(size=(9, len(classes)))
    size_of(
        figures.words(classes, list("abcdefghi"), weights * 0, weights, tmp_path / "many.png", 15)
    )
    assert "and 14 more classes in words.csv" in texts_of(page())
    size_of(figures.words(["y"], ["a"], weights[:1, :1], weights[:1, :1], tmp_path / "one.png", 15))
    size_of(figures.words(NAMES, NAMES, weights[:6, :6], weights[:6, :6], tmp_path / "odd.png", 15))


def test_the_last_column_of_a_table_of_rows_may_be_wide(tmp_path, page):
    rows = [("1", "y" * 200, "x" * 200)]

    def widths(**settings):
        size_of(
            figures.worst_rows(("row", "true", "text"), rows, tmp_path / "rows.png", **settings)
        )
        cells = page().axes[0].tables[0].get_celld()
        return [text_width(cells[1, column].get_text().get_text()) for column in range(3)]

    assert widths() == [1, 28, 28]
    assert widths(widest_last=90) == [1, 28, 90]
