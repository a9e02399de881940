"""The pictures of a run, as PNG files: curves, confusion, accuracy of each class, residuals, the worst predictions.

Plain matplotlib figures, without pyplot and its global state. Which rows are worst is decided elsewhere.
"""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from .journal import Point

P = ParamSpec("P")

DPI = 130
BLUE, ORANGE, GRAY, RED = "#2b6cb0", "#dd6b20", "#718096", "#c53030"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called $1
    "figure.constrained_layout.use": True,
}
MAX_BARS = 100
MAX_CELLS = 30
MAX_DOTS = 4000
MAX_LABEL = 24
# The metric in the middle of the curves, and whether more of it is better.
HEADLINES = {"valid/accuracy": True, "valid/nme": False, "valid/rmse": False}
EPOCH_KEY = "train/epoch_loss"


def _drawn(draw: Callable[P, tuple[Figure, Path]]) -> Callable[P, Path]:
    """Run a drawing function in our style, and save what it returns."""

    @functools.wraps(draw)
    def save(*args: P.args, **kwargs: P.kwargs) -> Path:
        logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)
        with mpl.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script that the font lacks shows as boxes
            figure, path = draw(*args, **kwargs)
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.12)
        return path

    return save


@_drawn
def curves(points: Sequence[Point], path: Path) -> tuple[Figure, Path]:
    """Loss, headline metric and learning rate over the epochs; the best epoch is marked.

    Args:
        points: of the journal: `train/loss` and `lr` at steps; `train/epoch_loss`, `valid/loss`, `valid/accuracy` or
            `valid/rmse` at the ends of epochs.
        path: PNG file to write.
    """
    series: dict[str, tuple[list[int], list[float]]] = {}
    for point in points:
        steps, values = series.setdefault(point.key, ([], []))
        steps.append(point.step)
        values.append(point.value)
    ends = sorted(set(series.get(EPOCH_KEY, series.get("valid/loss", ([], [])))[0]))
    headline = next((key for key in HEADLINES if key in series), "")

    def plot(axes: Axes, key: str, label: str, **look: Any) -> None:
        if key in series:
            steps, values = series[key]
            # Steps before the end of an epoch lie between its ends; without any end the axis counts steps.
            x = np.interp(steps, [0, *ends], range(len(ends) + 1)) if ends else steps
            axes.plot(x, values, label=label, **look)

    panels = ["loss", *([headline] if headline else []), "lr"]
    figure = Figure(figsize=(4.2 * len(panels), 3.5))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        marker = "o" if len(ends) <= 30 else ""
        if panel == "loss":
            axes.set_title("Loss")
            alpha = 0.25 if len(series.get("train/loss", ([], []))[0]) > 200 else 0.6
            plot(axes, "train/loss", "train, each step", color=BLUE, alpha=alpha, linewidth=0.8)
            plot(axes, EPOCH_KEY, "train", color=BLUE, marker=marker, markersize=4)
            plot(axes, "valid/loss", "valid", color=ORANGE, marker=marker, markersize=4)
            _limit_to_most(
                axes, [value for key in ("train/loss", "valid/loss") for value in series.get(key, ([], []))[1]]
            )
        elif panel == "lr":
            axes.set_title("Learning rate")
            plot(axes, "lr", "", color=GRAY)
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis="y", scilimits=(-3, 3))
        else:
            axes.set_title(panel.replace("/", " ").capitalize())
            plot(axes, panel, "valid", color=ORANGE, marker=marker, markersize=4)
            _mark_best(axes, series[panel], ends, HEADLINES[panel])
        axes.set_xlabel("epoch" if ends else "step")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if panel == "loss" and axes.get_legend_handles_labels()[1]:
            axes.legend()
    return figure, path


@_drawn
def splits(values: Mapping[str, float], path: Path, label: str) -> tuple[Figure, Path]:
    """A metric of each split, and their mean.

    Args:
        values: by split.
        path: PNG file to write.
        label: the metric.
    """
    figure = Figure(figsize=(5.0, 1.2 + 0.28 * len(values)))
    axes = figure.subplots()
    axes.barh([_short(name) for name in values], list(values.values()), color=BLUE)
    axes.axvline(float(np.mean(list(values.values()))), color=RED, linestyle=":", linewidth=1, label="mean")
    axes.invert_yaxis()
    axes.set(title="Splits", xlabel=label)
    axes.legend()
    return figure, path


@_drawn
def confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> tuple[Figure, Path]:
    """Confusion matrix; the colour is the fraction of the true class's rows, the numbers are rows.

    Args:
        matrix: counts, shape (K, K), rows true, columns predicted.
        classes: the K labels.
        path: PNG file to write.
    """
    num_classes = len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    fractions = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    side = float(np.clip(2.2 + 0.42 * num_classes, 4.2, 15.0))
    figure = Figure(figsize=(side + 1.0, side))
    axes = figure.subplots()
    # Of many classes the rare confusions are what one looks for.
    norm = PowerNorm(1.0 if num_classes <= MAX_CELLS else 0.5, vmin=0, vmax=1)
    image = axes.imshow(fractions, cmap="Blues", norm=norm, aspect="equal")
    axes.grid(visible=False)
    axes.set(title="Confusion", xlabel="predicted", ylabel="true")
    stride = math.ceil(num_classes / 120)
    ticks = np.arange(0, num_classes, stride)
    labels = [_short(classes[int(number)]) for number in ticks]
    size = 9 if num_classes <= MAX_CELLS else 5.5
    is_upright = max(map(len, labels)) * num_classes > 40
    axes.set_xticks(ticks, labels, rotation=90 if is_upright else 0, fontsize=size)
    axes.set_yticks(ticks, labels, fontsize=size)
    if num_classes <= MAX_CELLS:
        digits = len(str(int(matrix.max()))) if matrix.size else 1
        size = 9 if num_classes <= 12 and digits <= 4 else 6.5
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if fractions[row, column] > 0.55 else "#1a202c"
            axes.text(column, row, f"{int(matrix[row, column])}", ha="center", va="center", color=colour, fontsize=size)
    figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02, format=PercentFormatter(1), label="of the true class")
    return figure, path


@_drawn
def class_accuracy(matrix: np.ndarray, classes: Sequence[str], path: Path) -> tuple[Figure, Path]:
    """Accuracy of each class as bars, the worst on top; of more than 100 classes the 100 worst.

    Args:
        matrix: counts, shape (K, K), rows true, columns predicted; a class without rows has no bar.
        classes: the K labels.
        path: PNG file to write.
    """
    totals = matrix.sum(axis=1)
    present = np.flatnonzero(totals)
    accuracy = matrix[present, present] / totals[present]
    order = np.argsort(accuracy, kind="stable")[:MAX_BARS]
    names = [f"{_short(classes[int(number)])}  ({totals[number]:,})" for number in present[order]]
    is_dense = len(order) > 30
    figure = Figure(figsize=(6.4, 1.3 + len(order) * (0.15 if is_dense else 0.27)))
    axes = figure.subplots()
    axes.barh(names, accuracy[order], color=BLUE, height=0.7)
    for row, value in enumerate(accuracy[order]):
        axes.text(1.11, row, f"{value:.1%}", ha="right", va="center", fontsize=6.5 if is_dense else 8)
    overall = np.trace(matrix) / max(totals.sum(), 1)
    axes.axvline(overall, color=ORANGE, linewidth=1.2, label=f"all rows {overall:.1%}")
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(axis="y", length=0, labelsize=6.5 if is_dense else 9)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    hidden = len(present) - len(order)
    axes.set_title(f"Accuracy of each class (rows){f', the {len(order)} worst' if hidden else ''}", loc="left")
    figure.legend(loc="outside lower right")
    return figure, path


@_drawn
def residuals(
    target: np.ndarray, prediction: np.ndarray, column: str, path: Path, unit: str = ""
) -> tuple[Figure, Path]:
    """Predicted over true values, and how the differences are spread.

    Args:
        target: true values, shape (B,), in the table's units.
        prediction: predicted values, the same.
        column: name of the target's column.
        path: PNG file to write.
        unit: of the column, for the axes; empty where it is not known.
    """
    is_finite = np.isfinite(target) & np.isfinite(prediction)
    target, prediction = target[is_finite].astype(np.float64), prediction[is_finite].astype(np.float64)
    error = prediction - target
    name = f"{_short(column, 40)} [{unit}]" if unit else _short(column, 40)
    figure = Figure(figsize=(8.6, 4.0))
    left, right = figure.subplots(1, 2)
    shown = np.linspace(0, len(target) - 1, min(len(target), MAX_DOTS)).astype(int)  # a file of dots has a limit
    left.scatter(target[shown], prediction[shown], s=14 if len(shown) < 500 else 5, alpha=0.5, color=BLUE, linewidths=0)
    if len(target):
        ends = [min(target.min(), prediction.min()), max(target.max(), prediction.max())]
        left.plot(ends, ends, color=ORANGE, linewidth=1.2, label="predicted = true")
        left.legend(loc="upper left")
    left.set(title="Predicted and true", xlabel=f"true {name}", ylabel=f"predicted {name}")
    right.hist(error, bins=min(60, max(10, round(math.sqrt(len(error))))), color=BLUE, edgecolor="white", linewidth=0.5)
    right.axvline(0, color=ORANGE, linewidth=1.2)
    right.set(title="Differences", xlabel=f"predicted − true {name}", ylabel="rows")
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    if len(error):
        rmse, mean = float(np.sqrt(np.mean(error**2))), float(error.mean())
        note = f"{len(error):,} rows\nrmse {rmse:.4g}\nmean {mean:+.3g}"
        right.text(0.97, 0.97, note, transform=right.transAxes, ha="right", va="top")
    return figure, path


@_drawn
def gallery(
    images_NCHW: np.ndarray,
    titles: Sequence[str],
    path: Path,
    heading: str,
    true_points: np.ndarray | None = None,
    predicted_points: np.ndarray | None = None,
) -> tuple[Figure, Path]:
    """A grid of pictures with what was predicted of each.

    Args:
        images_NCHW: uint8; of other numbers of channels than 1 and 3 the first, or the first three, are shown.
        titles: for each picture, of one or more lines.
        path: PNG file to write.
        heading: above all.
        true_points, predicted_points: in pixels of these images, shape (N, P, 2).
    """
    num_images, channels, height, width = images_NCHW.shape
    columns = min(5, max(1, num_images))
    rows = max(1, math.ceil(num_images / columns))
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    cell = 1.9
    figure = Figure(
        figsize=(columns * cell + 0.2, rows * (cell * min(2.0, max(0.4, height / width)) + 0.17 * lines) + 0.5)
    )
    figure.suptitle(heading, fontsize=10, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, axes in enumerate(grid):
        axes.axis("off")
        if number >= num_images:
            continue
        picture = images_NCHW[number].transpose(1, 2, 0)
        picture = picture[:, :, :3] if channels >= 3 else picture[:, :, 0]
        look = "nearest" if max(height, width) < 100 else "antialiased"
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation=look)
        for points, color in ((true_points, ORANGE), (predicted_points, BLUE)):
            if points is not None:
                axes.plot(points[number, :, 0], points[number, :, 1], ".", color=color, markersize=2)
        text = "\n".join(_short(line, 28) for line in titles[number].split("\n"))
        axes.set_title(text, fontsize=7.5, fontweight="normal", pad=3)
    return figure, path


@_drawn
def worst_rows(
    header: Sequence[str], rows: Sequence[Sequence[str]], path: Path, heading: str = "Worst predictions"
) -> tuple[Figure, Path]:
    """A table of rows, for inputs that are no pictures.

    Args:
        header: names of the columns.
        rows: cells as text, the worst row first.
        path: PNG file to write.
        heading: above the table.
    """
    names = [_short(name, 16) for name in header]
    cells = [[_short(cell, 20) for cell in row] for row in rows]
    widths = [max(len(text) for text in column) + 2 for column in zip(names, *cells, strict=True)]
    figure = Figure(figsize=(max(3.6, 0.082 * sum(widths) + 0.3), 0.24 * (len(cells) + 1) + 0.55))
    figure.set_layout_engine("none")
    figure.suptitle(heading, fontsize=10, fontweight="bold", y=1 - 0.12 / figure.get_figheight(), va="top")
    axes = figure.add_axes((0.02, 0.02, 0.96, 1 - 0.42 / figure.get_figheight() - 0.02))
    axes.axis("off")
    shares = [width / sum(widths) for width in widths]
    table = axes.table(
        cells or [[""] * len(names)],
        colLabels=names,
        colWidths=shares,
        bbox=Bbox.from_bounds(0, 0, 1, 1),
        cellLoc="right",
        colLoc="right",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8.5)
    for (row, _), cell in table.get_celld().items():
        cell.set_linewidth(0)
        cell.set_facecolor("#2d3748" if row == 0 else "#edf2f7" if row % 2 == 0 else "white")
        cell.get_text().set_color("white" if row == 0 else "#1a202c")
    return figure, path


def _limit_to_most(axes: Axes, values: Sequence[float]) -> None:
    """Leave out of sight what a few first steps have above all others."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) >= 20:
        low, high = float(finite.min()), float(np.quantile(finite, 0.99))
        if high > low:
            axes.set_ylim(min(low, 0) if low < 0.3 * high else low - 0.05 * (high - low), high + 0.1 * (high - low))


def _mark_best(axes: Axes, series: tuple[list[int], list[float]], ends: Sequence[int], more_is_better: bool) -> None:
    steps, values = np.array(series[0]), np.array(series[1])
    if not np.isfinite(values).any():
        return
    best = int(np.nanargmax(values) if more_is_better else np.nanargmin(values))
    epoch = float(np.interp(steps[best], [0, *ends], range(len(ends) + 1)))
    axes.axvline(epoch, color=RED, linestyle=":", linewidth=1)
    axes.plot(
        [epoch], [values[best]], "o", color=RED, markersize=6, label=f"best {values[best]:.4g}, epoch {epoch:.0f}"
    )
    axes.legend()


def _short(text: str, length: int = MAX_LABEL) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
