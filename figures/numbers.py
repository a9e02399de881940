"""The figure of a number target.

Predicted and true, how the differences are spread, and where they are large.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from .style import (
    BLUE,
    GRAY,
    ORANGE,
    SKY,
    drawn,
    in_full,
    named,
    note,
    number,
    say,
    subtitle,
    with_interval,
)

MAX_DOTS = 4000
MAX_BOXES = 10
ROWS_A_BOX = 5


@drawn
def residuals(
    target_N: np.ndarray,
    prediction_N: np.ndarray,
    column: str,
    path: Path,
    unit: str = "",
    *,
    interval: tuple[float, float] | None = None,
) -> tuple[Figure, Path]:
    """Predicted over true values, the differences as a histogram, and as boxes
    along the true values.

    Args:
        target_N: true values, in the table's units.
        prediction_N: predicted values, the same; rows where either is not finite are counted and
            left out.
        column: name of the target's column.
        path: PNG file to write.
        unit: of the column, for the axes; empty where it is not known.
        interval: of the rmse.
    """
    finite = np.isfinite(target_N) & np.isfinite(prediction_N)
    target, prediction = (
        target_N[finite].astype(np.float64),
        prediction_N[finite].astype(np.float64),
    )
    name = named(column, unit, 24)
    figure = Figure(figsize=(13.0, 4.1))
    left, middle, right = figure.subplots(1, 3)
    left.set(title="Predicted and true", xlabel=f"true {name}", ylabel=f"predicted {name}")
    middle.set(title="Differences", xlabel=f"predicted − true {name}", ylabel="rows")
    right.set(
        title="Differences along the true values",
        xlabel=f"true {name}",
        ylabel=f"predicted − true {name}",
    )
    if not len(target):
        for axes in (left, middle, right):
            say(axes, "no finite row")
        return figure, path
    _draw_pairs(figure, left, target, prediction)
    _draw_differences(middle, target, prediction, int((~finite).sum()), interval)
    _draw_boxes(right, target, prediction - target)
    for axes in (left, middle, right):
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(
                MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=axis is middle.yaxis)
            )
            axis.set_major_formatter(in_full)
    return figure, path


def _draw_pairs(figure: Figure, axes: Axes, target: np.ndarray, prediction: np.ndarray) -> None:
    """One dot a row.

    Of many rows their density.
    """
    both = np.concatenate([target, prediction])
    low, high = _widen(*_keep_most(both))
    beyond = int(
        ((target < low) | (target > high) | (prediction < low) | (prediction > high)).sum()
    )
    if len(target) > MAX_DOTS:
        bins = axes.hexbin(
            target,
            prediction,
            gridsize=50,
            cmap="viridis_r",
            norm=LogNorm(),
            mincnt=1,
            linewidths=0.1,
            extent=(low, high, low, high),
        )
        bar = figure.colorbar(bins, ax=axes, label="rows", pad=0.02, aspect=30, format=in_full)
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    else:
        size, alpha = (
            (24, 0.8) if len(target) < 60 else (14, 0.5) if len(target) < 600 else (6, 0.4)
        )
        axes.scatter(target, prediction, s=size, alpha=alpha, color=BLUE, linewidths=0)
    axes.plot([low, high], [low, high], color=ORANGE, linewidth=1.4)
    axes.set_aspect("equal")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    subtitle(axes, "line: predicted = true" + (f"; {beyond:,} lie further out" if beyond else ""))


def _draw_differences(
    axes: Axes,
    target: np.ndarray,
    prediction: np.ndarray,
    num_left_out: int,
    interval: tuple[float, float] | None,
) -> None:
    """A histogram of all but the furthest 1 %, where those would press the
    others into a few bars.
    """
    error = prediction - target
    low, high = _widen(*_keep_most(error))
    num_bins = min(61, max(11, round(math.sqrt(len(error)))))
    axes.hist(error, bins=num_bins, range=(low, high), color=BLUE, edgecolor="white", linewidth=0.5)
    axes.axvline(0, color=ORANGE, linewidth=1.4)
    beyond = int(((error < low) | (error > high)).sum())
    square, mean = float(np.mean(error**2)), float(error.mean())
    found = [
        with_interval(f"RMSE {number(math.sqrt(square))}", interval, ",.4g"),
        f"MAE {number(np.abs(error).mean())}",
        f"mean {'+' if mean > 0 else '−' if mean < 0 else ''}{number(abs(mean), 3)}",
    ]
    if np.ptp(target) > 0:
        found.insert(2, f"R² {1 - square / float(target.var()):.4f}")
    # Above the bars, which reach three quarters up.
    axes.set_ylim(top=axes.get_ylim()[1] * 1.32)
    note(axes, "\n".join(found[:2]), "left")
    note(axes, "\n".join(found[2:]), "right")
    said = f"{len(error):,} {'row' if len(error) == 1 else 'rows'}"
    said += f"; {beyond:,} lie further out" if beyond else ""
    subtitle(axes, said + (f"; {num_left_out:,} not finite" if num_left_out else ""))


def _draw_boxes(axes: Axes, target: np.ndarray, error: np.ndarray) -> None:
    """Rows in groups of equal size by their true value.

    The middle half as a box, 5 to 95 % as a line, the median.
    """
    num_boxes = int(np.clip(len(target) // ROWS_A_BOX, 1, MAX_BOXES))
    edges = np.unique(np.quantile(target, np.linspace(0, 1, num_boxes + 1)))
    if len(edges) < 2:
        edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
    group = np.clip(np.searchsorted(edges, target, side="right") - 1, 0, len(edges) - 2)
    for box in range(len(edges) - 1):
        inside = error[group == box]
        if not len(inside):
            continue
        least, low, median, high, most = np.quantile(inside, [0.05, 0.25, 0.5, 0.75, 0.95])
        start, width = edges[box], edges[box + 1] - edges[box]
        centre = start + width / 2
        axes.vlines(centre, least, most, color=GRAY, linewidth=1.2)
        axes.bar(
            start + 0.04 * width,
            high - low,
            0.92 * width,
            low,
            align="edge",
            color=SKY,
            alpha=0.6,
            linewidth=0,
        )
        axes.hlines(median, start + 0.04 * width, start + 0.96 * width, color=BLUE, linewidth=2)
    axes.axhline(0, color=ORANGE, linewidth=1.4, zorder=1.5)
    axes.use_sticky_edges = False
    axes.plot([], [], color=BLUE, linewidth=2, label="median")
    axes.bar([edges[0]], [0], 0, color=SKY, alpha=0.6, label="middle half")
    axes.plot([], [], color=GRAY, linewidth=1.2, label="5 to 95 %")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.16 * (high - low))
    axes.legend(loc="upper left", ncols=3, columnspacing=1.2, handlelength=1.4)
    subtitle(axes, "rows in groups of equal size" if len(edges) > 2 else "all rows in one group")


def _keep_most(values: np.ndarray) -> tuple[float, float]:
    """Lower and upper end of what is shown.

    All, or where few values lie far out, the inner 99 % and some more.
    """
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(end) for end in np.quantile(values, [0.005, 0.995]))
    margin = inner_high - inner_low
    if len(values) >= 100 and high - low > 2 * margin:
        return max(low, inner_low - 0.2 * margin), min(high, inner_high + 0.2 * margin)
    return low, high


def _widen(low: float, high: float) -> tuple[float, float]:
    """Some room on both sides, also where there is one value alone."""
    size = max(abs(low), abs(high))
    room = 0.06 * (high - low) if high - low > 1e-9 * size else 0.05 * size or 0.5
    return low - room, high + room
