"""The figure of a points target.

Which points are hard, and how many rows stay below an error.
"""

# Shapes: N rows, P points.

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    SKY,
    drawn,
    legend_below,
    named,
    number,
    percent,
    say,
    with_interval,
)

NUM_NAMED = 5
MAX_NAMES = 12
# Above this a row's error is called a failure, as the 300-W challenge does (Sagonas et al., 2016).
FAILURE = 0.1


@drawn
def points_error(
    errors_NP: np.ndarray,
    path: Path,
    mean_shape_P2: np.ndarray,
    *,
    unit: str = "",
    baseline: float | None = None,
    interval: tuple[float, float] | None = None,
) -> tuple[Figure, Path]:
    """Mean error of each point, drawn on the mean shape, and the share of rows
    below each error (CED).

    Args:
        errors_NP: error of each point of each row; a row's nme is their mean. Rows with one that is
            not finite are left out.
        path: PNG file to write.
        mean_shape_P2: x and y of each point, y downwards.
        unit: what the errors are counted in; empty where they are normalised.
        baseline: mean of a guess that looks at no picture, for example the mean shape; drawn as a
            line.
        interval: of the mean over the rows.
    """
    kept = np.isfinite(errors_NP).all(axis=1)
    errors = errors_NP[kept]
    figure = Figure(figsize=(10.4, 5.0))
    left, right = figure.subplots(1, 2)
    left.set_title("Mean error of each point")
    of_row = named("mean error of a row", unit) if unit else "normalised mean error (NME) of a row"
    right.set(title="Rows below an error", xlabel=of_row, ylabel="share of rows")
    if not errors.size:
        say(left, "no finite row")
        say(right, "no finite row")
        return figure, path
    _draw_shape(figure, left, errors.mean(axis=0), np.asarray(mean_shape_P2, float), unit)
    _draw_shares(right, np.sort(errors.mean(axis=1)), int((~kept).sum()), baseline, interval, unit)
    return figure, path


def _draw_shape(
    figure: Figure, axes: Axes, mean_P: np.ndarray, shape_P2: np.ndarray, unit: str
) -> None:
    """The points, which are numbered from 0, where the mean shape has them."""
    size = float(np.clip(4000 / len(mean_P), 24, 150))
    worst = np.argsort(-mean_P, kind="stable")[:NUM_NAMED]
    is_worst = np.isin(np.arange(len(mean_P)), worst) & (len(mean_P) > 2 * NUM_NAMED)
    dots = axes.scatter(
        shape_P2[:, 0],
        shape_P2[:, 1],
        c=mean_P,
        s=size,
        cmap="YlOrRd",
        edgecolors=np.where(is_worst, INK, "#9ca3af").tolist(),
        linewidths=np.where(is_worst, 1.8, 0.5).tolist(),
    )
    if len(mean_P) <= MAX_NAMES:
        for point in range(len(mean_P)):
            beside = (3 + math.sqrt(size) / 2, 0)
            axes.annotate(
                str(point),
                shape_P2[point],
                beside,
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.16)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    label = named("mean error", unit) if unit else "mean error / normalising distance"
    bar = figure.colorbar(dots, ax=axes, label=label, aspect=26, pad=0.02, shrink=0.9)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    largest = ", ".join(
        f"{point} ({number(float(mean_P[point])) if unit else f'{mean_P[point]:.3f}'})"
        for point in worst
    )
    axes.set_xlabel(f"largest: {largest}", color=GRAY, fontsize=8)


def _draw_shares(
    axes: Axes,
    nme_N: np.ndarray,
    num_left_out: int,
    baseline: float | None,
    interval: tuple[float, float] | None,
    unit: str,
) -> None:
    """The cumulative distribution of the rows' errors, which are sorted."""
    mean, median, failed = (
        float(nme_N.mean()),
        float(np.median(nme_N)),
        float((nme_N > FAILURE).mean()),
    )
    style = ".4g" if unit else ".4f"
    shares = np.arange(1, len(nme_N) + 1) / len(nme_N)
    # A few rows far out would press all others to the left.
    right = max(float(np.quantile(nme_N, 0.98)) * 1.15, mean * 1.5, 1.1 * (baseline or 0.0), 1e-6)
    axes.step([0, *nme_N, max(right, nme_N[-1])], [0, *shares, 1], where="post", color=BLUE)
    axes.fill_between(
        [0, *nme_N, max(right, nme_N[-1])],
        [0, *shares, 1],
        step="post",
        color=SKY,
        alpha=0.2,
        linewidth=0,
    )
    axes.axvline(
        mean,
        color=ORANGE,
        linewidth=1.4,
        label=with_interval(f"mean {mean:{style}}", interval, style),
    )
    axes.axvline(
        median, color=INK, linewidth=1.2, linestyle=(0, (1, 1.5)), label=f"median {median:{style}}"
    )
    if baseline is not None:
        axes.axvline(
            baseline,
            color=GRAY,
            linewidth=1.2,
            linestyle=(0, (4, 3)),
            label=f"mean shape {baseline:{style}}",
        )
    axes.set_xlim(0, right)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    rows = f"{len(nme_N):,} {'row' if len(nme_N) == 1 else 'rows'}"
    rows += "" if unit else f", {percent(failed)} above {FAILURE}"
    if num_left_out:
        rows += f", {num_left_out:,} not finite"
    axes.plot([], [], linestyle="", label=rows)
    legend_below(axes, ncols=1)
