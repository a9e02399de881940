"""Figures of a category target.

Confusion, accuracy and scores of each class, and the curves of two classes.
"""

# Shapes: K classes, N rows.

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    PALE,
    SKY,
    drawn,
    legend_below,
    percent,
    say,
    short,
    subtitle,
    widest,
    with_interval,
)

MAX_BARS = 100
MAX_CELLS = 30
MAX_LABELS = 120


@drawn
def confusion(
    matrix_KK: np.ndarray,
    classes: Sequence[str],
    path: Path,
    *,
    interval: tuple[float, float] | None = None,
) -> tuple[Figure, Path]:
    """Confusion matrix.

    The colour is the share of the true class's rows, the numbers are rows and, their shares.

    Args:
        matrix_KK: counts, rows true, columns predicted.
        classes: the K labels.
        path: PNG file to write.
        interval: of the accuracy, for the title.
    """
    num_classes = len(classes)
    totals = matrix_KK.sum(axis=1, keepdims=True)
    shares = np.divide(matrix_KK, totals, out=np.zeros(matrix_KK.shape), where=totals > 0)
    side = float(np.clip(2.2 + 0.3 * num_classes, 2.6, 13.0))
    cell = side / num_classes
    # The cells have a size in inches, whatever room the labels need: saving grows the page about
    # them.
    figure = Figure(figsize=(side, side))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    # Of many classes the rare confusions are what one looks for.
    norm = PowerNorm(1.0 if num_classes <= MAX_CELLS else 0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm, aspect="equal")
    axes.grid(visible=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("Confusion")
    rows = int(matrix_KK.sum())
    if rows:
        accuracy = with_interval(f"accuracy {percent(np.trace(matrix_KK) / rows)}", interval, ".1%")
        subtitle(axes, f"{accuracy}, {rows:,} {'row' if rows == 1 else 'rows'}")
    ticks = np.arange(0, num_classes, math.ceil(num_classes / MAX_LABELS))
    labels = [short(classes[int(number)]) for number in ticks]
    size = float(np.clip(cell * 72 * 0.62, 5.0, 9.0))
    is_flat = widest(labels) * size * 0.62 < cell * 72 * 0.92
    turn: dict[str, Any] = {"rotation": 0} if is_flat else {"rotation": 90}
    if not is_flat and num_classes <= 15:
        turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(ticks, labels, fontsize=size, **turn)
    axes.set_yticks(ticks, labels, fontsize=size)
    axes.tick_params(length=0 if num_classes <= MAX_CELLS else 2)
    if num_classes <= MAX_CELLS:
        edges = np.arange(num_classes + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.2 if num_classes <= 12 else 0.6)
        axes.tick_params(which="minor", length=0)
        _write_cells(axes, matrix_KK, shares, cell)
    axes.spines[:].set_visible(num_classes > MAX_CELLS)
    length = min(1.0, 5.0 / side)
    bar = figure.colorbar(
        image,
        cax=figure.add_axes((1 + 0.18 / side, 1 - length, 0.16 / side, length)),
        format=PercentFormatter(1),
    )
    bar.set_label("share of the true class's rows")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure, path


@drawn
def class_accuracy(
    hits_K: np.ndarray,
    rows_K: np.ndarray,
    classes: Sequence[str],
    path: Path,
    *,
    interval: tuple[float, float] | None = None,
) -> tuple[Figure, Path]:
    """Accuracy of each class as bars, the worst on top.

    Of more than 100 classes the 100 worst.

    Args:
        hits_K, rows_K: rows that were predicted as the class that they are of, and all of it; one
            without rows has no bar.
        classes: the K labels.
        path: PNG file to write.
        interval: of the accuracy of all rows, drawn as a band.
    """
    present = np.flatnonzero(rows_K)
    accuracy = hits_K[present] / rows_K[present]
    order = np.argsort(accuracy, kind="stable")[:MAX_BARS]
    names = [f"{short(classes[int(number)])}  ({rows_K[number]:,})" for number in present[order]]
    figure = Figure(figsize=(6.6, _height_of(len(order))))
    axes = figure.subplots()
    hidden = len(present) - len(order)
    axes.set_title(
        "Accuracy of each class "
        f"(rows){f', the {len(order)} worst of {len(present):,}' if hidden else ''}"
    )
    if not len(order):
        say(axes, "no rows")
        return figure, path
    size = _list_names(axes, names)
    axes.barh(range(len(order)), accuracy[order], color=BLUE, height=0.7)
    for row, value in enumerate(accuracy[order]):
        beside = axes.get_yaxis_transform()
        axes.text(
            1.02,
            row,
            percent(value),
            transform=beside,
            va="center",
            fontsize=size - 0.5,
            clip_on=False,
        )
    overall = hits_K.sum() / rows_K.sum()
    if interval is not None:
        axes.axvspan(*interval, color=ORANGE, alpha=0.18, linewidth=0)
    text = with_interval(f"all rows {percent(overall)}", interval, ".1%")
    axes.axvline(overall, color=ORANGE, linewidth=1.4, label=text)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("accuracy: share of the class's rows that are predicted as it")
    figure.legend(loc="outside lower right")
    return figure, path


@drawn
def class_scores(
    hits_K: np.ndarray,
    rows_K: np.ndarray,
    predicted_K: np.ndarray,
    classes: Sequence[str],
    path: Path,
) -> tuple[Figure, Path]:
    """Precision, recall and F1 of each class, the lowest F1 on top.

    Of more than 100 classes the 100 lowest.

    Args:
        hits_K, rows_K, predicted_K: rows that are of the class and were predicted to be, that are,
            that were predicted to be; a class without rows is left out.
        classes: the K labels.
        path: PNG file to write.
    """
    return _draw_scores(hits_K, rows_K, predicted_K, classes, "class"), path


@drawn
def tag_scores(
    hits_K: np.ndarray, rows_K: np.ndarray, predicted_K: np.ndarray, tags: Sequence[str], path: Path
) -> tuple[Figure, Path]:
    """Precision, recall and F1 of each tag, the lowest F1 on top.

    Of more than 100 tags the 100 lowest.

    Args:
        hits_K, rows_K, predicted_K: rows that have the tag and were predicted to, that have it,
            that were predicted to; a tag without rows is left out.
        tags: the K labels.
        path: PNG file to write.
    """
    return _draw_scores(hits_K, rows_K, predicted_K, tags, "tag"), path


def _draw_scores(
    hits: np.ndarray, rows: np.ndarray, predicted: np.ndarray, classes: Sequence[str], what: str
) -> Figure:
    present = np.flatnonzero(rows)
    recall = hits[present] / rows[present]
    precision = np.divide(
        hits[present],
        predicted[present],
        out=np.full(len(present), np.nan),
        where=predicted[present] > 0,
    )
    f1 = 2 * hits[present] / (rows[present] + predicted[present])
    order = np.argsort(f1, kind="stable")[:MAX_BARS]
    names = [f"{short(classes[int(number)])}  ({rows[number]:,})" for number in present[order]]
    figure = Figure(figsize=(6.6, _height_of(len(order))))
    axes = figure.subplots()
    hidden = len(present) - len(order)
    axes.set_title(
        f"Scores of each {what} "
        f"(rows){f', the {len(order)} lowest of {len(present):,}' if hidden else ''}"
    )
    if not len(order):
        say(axes, "no rows")
        return figure
    size = _list_names(axes, names)
    lines = np.arange(len(order))
    dot = 6 if len(order) <= 30 else 4
    low, high = np.fmin(recall, precision)[order], np.fmax(recall, precision)[order]
    axes.hlines(lines, low, high, color=PALE, linewidth=3 if len(order) <= 30 else 2)
    # A class that is never predicted has no precision.
    axes.plot(precision[order], lines, "o", color=BLUE, markersize=dot, label="precision")
    axes.plot(recall[order], lines, "o", color=ORANGE, markersize=dot, label="recall")
    axes.plot(f1[order], lines, "|", color=INK, markersize=dot + 3, markeredgewidth=1.5, label="F1")
    for row, value in enumerate(f1[order]):
        beside = axes.get_yaxis_transform()
        axes.text(
            1.02,
            row,
            f"{value:.3f}",
            transform=beside,
            va="center",
            fontsize=size - 0.5,
            clip_on=False,
        )
    # Dots need no zero: the axis begins where they do.
    least = math.floor(10 * float(low.min()) - 0.2) / 10
    axes.set_xlim(least if least > 0 else -0.02, 1.0 + 0.02 * (1 - max(least, 0)))
    axes.set_xlabel("score (number: F1)")
    figure.legend(loc="outside lower right", ncols=3)
    return figure


@drawn
def roc(
    scores_N: np.ndarray,
    target_N: np.ndarray,
    positive: str,
    path: Path,
) -> tuple[Figure, Path]:
    """Receiver operating characteristic and precision over recall, for two
    classes.

    Args:
        scores_N: the larger, the more likely is the positive class; rows that are not finite are
            left out.
        target_N: 1 or True for rows of the positive class.
        positive: its name.
        path: PNG file to write.
    """
    finite = np.isfinite(scores_N)
    scores, is_positive = (
        np.asarray(scores_N, float)[finite],
        np.asarray(target_N)[finite].astype(bool),
    )
    num_positive = int(is_positive.sum())
    num_negative = len(is_positive) - num_positive
    figure = Figure(figsize=(8.8, 4.2))
    left, right = figure.subplots(1, 2)
    left.set(
        title="Receiver operating characteristic",
        xlabel="false positive rate",
        ylabel="true positive rate",
    )
    right.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    who = short(positive, 30)
    if not num_positive or not num_negative:
        missing = f"no row of {who!r}" if not num_positive else f"all rows are {who!r}"
        say(left, missing)
        say(right, missing)
        return figure, path
    # One point for each distinct score: rows of equal score are told apart by no threshold.
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(is_positive[order])[last]
    taken = last + 1
    recall, false_rate = hits / num_positive, (taken - hits) / num_negative
    precision = hits / taken
    area = float(np.trapezoid(np.append(0, recall), np.append(0, false_rate)))
    average = float(np.sum(np.diff(recall, prepend=0) * precision))
    left.plot(
        [0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=(0, (4, 3)), label="by chance, 0.500"
    )
    left.fill_between(
        np.append(0, false_rate), np.append(0, recall), color=SKY, alpha=0.2, linewidth=0
    )
    left.plot(np.append(0, false_rate), np.append(0, recall), color=BLUE, label=f"AUROC {area:.3f}")
    prevalence = num_positive / len(is_positive)
    right.axhline(
        prevalence,
        color=GRAY,
        linewidth=1,
        linestyle=(0, (4, 3)),
        label=f"by chance, {prevalence:.3f}",
    )
    right.step(
        np.append(0, recall),
        np.append(precision[0], precision),
        color=ORANGE,
        where="pre",
        label=f"average precision {average:.3f}",
    )
    for axes in (left, right):
        axes.set_aspect("equal")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
    for axes in (left, right):
        legend_below(axes)
        subtitle(axes, f"{num_positive:,} of {len(is_positive):,} rows are {who!r}")
    return figure, path


def _write_cells(axes: Axes, matrix_KK: np.ndarray, shares: np.ndarray, cell: float) -> None:
    """Write the rows, and below them their share where a cell (in inches)
    has room for both.
    """
    points = cell * 72
    digits = len(f"{int(matrix_KK.max()):,}")
    size = float(np.clip(points * 0.88 / (0.64 * max(digits, 2)), 4.5, 10.0))
    has_shares = points >= 32 and size >= 7
    for row, column in zip(*np.nonzero(matrix_KK), strict=True):
        colour = "white" if shares[row, column] > 0.55 else INK
        _write(
            axes,
            row,
            column,
            f"{int(matrix_KK[row, column]):,}",
            0.6 * size if has_shares else 0,
            size,
            colour,
        )
        if has_shares:
            text = percent(float(shares[row, column]))
            fits = float(np.clip(points * 0.88 / (0.64 * len(text)), 5.0, 7.5))
            _write(axes, row, column, text, -0.7 * size, fits, colour)


def _write(
    axes: Axes, row: int, column: int, text: str, up: float, size: float, colour: str
) -> None:
    """Write into a cell, so many points above its middle."""
    axes.annotate(
        text,
        (column, row),
        (0, up),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        color=colour,
    )


def _height_of(num_lines: int) -> float:
    """Height in inches of a figure with one line a class."""
    return 1.5 + max(num_lines, 1) * (0.15 if num_lines > 30 else 0.27)


def _list_names(axes: Axes, names: Sequence[str]) -> float:
    """Put one name a line, from the top.

    Gives the size of the text.
    """
    size = 6.5 if len(names) > 30 else 9.0
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return size
