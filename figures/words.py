"""The figure of a bag of words.

The tokens with the largest weights for each class, before and after training.
"""

# Shapes: V tokens, K classes.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import BLUE, ORANGE, drawn, in_full, short, subtitle

MAX_PANELS = 12
NUM_COLUMNS = 4


@drawn
def words(
    classes: Sequence[str],
    tokens: Sequence[str],
    before_VK: np.ndarray,
    after_VK: np.ndarray,
    path: Path,
    num: int,
) -> tuple[Figure, Path]:
    """Draw for each class, of the first twelve, its tokens of largest weight as
    bars, the largest on top.

    Args:
        classes: names of the K classes.
        tokens: the V tokens; a space is shown as an open box.
        before_VK: weights that training began with.
        after_VK: weights that it ended with.
        path: PNG file to write.
        num: tokens of each class.
    """
    shown = list(classes)[:MAX_PANELS]
    num_columns = min(NUM_COLUMNS, len(shown))
    num_rows = -(-len(shown) // num_columns)
    num_lines = min(num, len(tokens))
    figure = Figure(
        figsize=(max(4.4, 3.6 * num_columns), 1.1 + num_rows * (0.8 + 0.24 * num_lines))
    )
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for number, (axes, name) in enumerate(zip(grid, shown, strict=False)):
        order = np.argsort(-after_VK[:, number], kind="stable")[:num_lines]
        names = [short(tokens[int(at)].replace(" ", "␣"), 20) for at in order]
        _draw_class(axes, names, before_VK[order, number], after_VK[order, number])
        axes.set_title(short(name, 30))
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    hidden = len(classes) - len(shown)
    if hidden:
        subtitle(
            grid[0], f"and {hidden:,} more {'class' if hidden == 1 else 'classes'} in words.csv"
        )
    dot = Line2D(
        [], [], marker="o", linestyle="", color=ORANGE, markersize=5, label="before training"
    )
    figure.legend(
        handles=[Patch(color=BLUE, label="after"), dot], loc="outside upper right", ncols=2
    )
    figure.suptitle("Largest weights of each class", x=0.01, ha="left")
    return figure, path


def _draw_class(axes: Axes, names: Sequence[str], before: np.ndarray, after: np.ndarray) -> None:
    lines = np.arange(len(names))
    axes.barh(lines, after, color=BLUE, height=0.7)
    axes.plot(before, lines, "o", color=ORANGE, markersize=5)
    axes.set_yticks(lines, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(in_full)
    axes.set_xlabel("weight")
