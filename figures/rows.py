"""Figures of single rows.

A gallery of pictures with their points, and a table where the inputs are no pictures.
"""

# Shapes: N images, C channels, H and W pixels, P points.

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox, TransformedBbox

from .style import AMBER, DPI, GRAY, INK, SKY, drawn, short, widest

TRUE, PREDICTED = SKY, AMBER
LETTER = 0.066  # inches of a letter at 8 points


@drawn
def gallery(
    images_NCHW: np.ndarray,
    titles: Sequence[str],
    path: Path,
    heading: str,
    true_points: np.ndarray | None = None,
    predicted_points: np.ndarray | None = None,
    ratios: np.ndarray | None = None,
) -> tuple[Figure, Path]:
    """A grid of pictures, each with what was said of it and, for points, where
    they are and were predicted.

    Args:
        images_NCHW: uint8; one channel is gray, two are magenta and green, of more the first three
            red, green and blue.
        titles: for each picture, of one or more lines, the first in front.
        path: PNG file to write.
        heading: over them all.
        true_points: x and y in pixels of these images, pixel centres at whole numbers, shape (N, P,
            2).
        predicted_points: the same.
        ratios: width over height that each picture is shown with, shape (N,); None means as many as
            it has pixels.
    """
    num_images, _, height, width = images_NCHW.shape
    has_points = true_points is not None or predicted_points is not None
    ratios = np.full(num_images, width / height) if ratios is None else ratios
    ratio = float(np.median(ratios)) if num_images else 1.0
    columns, cell = _plan(num_images, ratio, has_points)
    rows = math.ceil(num_images / columns)
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    # All in inches: pictures keep their proportions, and a page of few or flat ones is no larger
    # than it must be.
    picture_width, picture_height = _fit(cell, ratio)
    cell_width, gap, line = max(picture_width, min(cell, 1.5)), 0.14, 0.152
    cell_height = picture_height + lines * line + 0.16
    head = 0.34 + (0.22 if has_points else 0.0)
    page_width = max(
        columns * (cell_width + gap) + gap,
        LETTER * 1.4 * len(heading) + 0.3,
        3.4 if has_points else 0.0,
    )
    page_height = rows * cell_height + head
    figure = Figure(figsize=(page_width, page_height))
    figure.set_layout_engine("none")
    figure.text(
        gap / page_width,
        1 - 0.06 / page_height,
        short(heading, 90),
        va="top",
        fontsize=11,
        fontweight="bold",
    )
    if has_points:
        _explain(figure, gap / page_width, 1 - 0.31 / page_height, true_points, predicted_points)
    letters = max(10, int(cell_width / LETTER))
    page = _page(figure, page_width, page_height)
    for number in range(num_images):
        row, column = divmod(number, columns)
        left = gap + column * (cell_width + gap)
        top = page_height - head - row * cell_height
        for at, text in enumerate(titles[number].split("\n")):
            figure.text(
                left / page_width,
                (top - at * line) / page_height,
                short(text, letters),
                va="top",
                fontsize=8 if at == 0 else 7.5,
                color=INK if at == 0 else GRAY,
            )
        shown_width = min(picture_width, picture_height * float(ratios[number]))
        shown_height = shown_width / float(ratios[number])
        bottom = top - lines * line - 0.03 - shown_height
        place = Bbox.from_bounds(left, bottom, shown_width, shown_height)
        _show(page, images_NCHW[number], place)
        _show_points(
            page,
            None if true_points is None else _on_page(true_points[number], width, height, place),
            None
            if predicted_points is None
            else _on_page(predicted_points[number], width, height, place),
            place,
        )
    return figure, path


@drawn
def worst_rows(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    path: Path,
    heading: str = "Worst predictions",
    *,
    widest_last: int = 28,
) -> tuple[Figure, Path]:
    """A table of rows, for inputs that are no pictures.

    Args:
        header: names of the columns.
        rows: cells as text, the worst row first.
        path: PNG file to write.
        heading: over the table.
        widest_last: letters that are shown of a cell of the last column; of the others 28.
    """
    names = [short(name, 28) for name in header]
    cells = [[*(short(cell, 28) for cell in row[:-1]), short(row[-1], widest_last)] for row in rows]
    widths = [widest(column) + 3 for column in zip(names, *cells, strict=True)]
    page_width = max(0.078 * sum(widths) + 0.3, LETTER * 1.4 * len(heading) + 0.3)
    page_height = 0.25 * (max(len(cells), 1) + 1) + 0.5
    figure = Figure(figsize=(page_width, page_height))
    figure.set_layout_engine("none")
    figure.text(
        0.14 / page_width,
        1 - 0.06 / page_height,
        short(heading, 90),
        va="top",
        fontsize=11,
        fontweight="bold",
    )
    axes = figure.add_axes(
        (0.14 / page_width, 0.02, 1 - 0.28 / page_width, 1 - 0.42 / page_height - 0.02)
    )
    axes.axis("off")
    is_number = [
        all(_is_number(cell) for cell in column) for column in zip(*cells, strict=True)
    ] or [False] * len(names)
    table = axes.table(
        cells or [["no rows", *[""] * (len(names) - 1)]],
        colLabels=names,
        colWidths=[width / sum(widths) for width in widths],
        bbox=Bbox.from_bounds(0, 0, 1, 1),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8.5)
    for (row, column), cell in table.get_celld().items():
        cell.set_linewidth(0)
        cell.set_facecolor("#374151" if row == 0 else "#f3f4f6" if row % 2 == 0 else "white")
        cell.set_text_props(
            color="white" if row == 0 else INK, ha="right" if is_number[column] else "left"
        )
        cell.PAD = 0.8 / widths[column]
    return figure, path


def _plan(num_images: int, ratio: float, has_points: bool) -> tuple[int, float]:
    """How many columns, and how wide a cell is in inches.

    Few pictures are shown larger, flat ones in fewer columns.
    """
    if ratio < 0.5:
        return min(max(num_images, 1), 6), 2.0
    most = 5 if ratio < 1.8 else 4 if ratio < 3 else 2
    columns = min(
        most,
        1
        if num_images <= 1
        else 2
        if num_images <= 4
        else 3
        if num_images <= 6
        else 4
        if num_images <= 8
        else 5,
    )
    columns = min(columns, max(num_images, 1))
    width = {1: 3.6, 2: 3.0, 3: 2.6, 4: 2.3, 5: 2.0}[columns]
    if has_points:
        width *= 1.25
    return columns, width * (1.0 if ratio < 1.8 else 1.3 if ratio < 3 else 2.0)


def _fit(cell: float, ratio: float) -> tuple[float, float]:
    """Width and height of a picture in inches.

    As wide as a cell, but no higher than half more.
    """
    height = cell / ratio
    limit = 1.5 * cell
    return (cell, height) if height <= limit else (limit * ratio, limit)


def _page(figure: Figure, width: float, height: float) -> Axes:
    """Axes over a whole page, in inches.

    Twenty of a picture each take longer than all else that is drawn.
    """
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
    return axes


def _on_page(points_P2: np.ndarray, width: int, height: int, place: Bbox) -> np.ndarray:
    """Points of a picture in inches of the page.

    A picture's pixel centres lie at whole numbers, its y points down.
    """
    shares_P2 = (points_P2 + 0.5) / (width, height)
    return np.stack(
        [place.x0 + shares_P2[:, 0] * place.width, place.y1 - shares_P2[:, 1] * place.height],
        axis=1,
    )


def _show(page: Axes, image_CHW: np.ndarray, place: Bbox) -> None:
    channels, height, width = image_CHW.shape
    if channels == 1:
        picture = image_CHW[0]
    elif channels == 2:
        picture = np.stack([image_CHW[0], image_CHW[1], image_CHW[0]], axis=-1)
    else:
        picture = image_CHW[:3].transpose(1, 2, 0)
    # Small pictures are shown as the pixels that they are.
    look = (
        "nearest"
        if max(height, width) < 64
        else "bicubic"
        if place.width * DPI > width
        else "antialiased"
    )
    extent = (place.x0, place.x1, place.y0, place.y1)
    page.imshow(
        picture, cmap="gray", vmin=0, vmax=255, interpolation=look, aspect="auto", extent=extent
    )


def _show_points(
    page: Axes, true_P2: np.ndarray | None, predicted_P2: np.ndarray | None, place: Bbox
) -> None:
    """Dots with a dark rim, which shows on light and dark pictures, and a
    line for each point's error.
    """
    num_points = max(
        len(points) for points in (true_P2, predicted_P2, np.empty((0, 2))) if points is not None
    )
    size = float(np.clip(place.width * 9 / math.sqrt(max(num_points, 1)), 1.6, 6.0))
    within = TransformedBbox(place, page.transData)
    if true_P2 is not None and predicted_P2 is not None:
        pairs = np.stack([true_P2, predicted_P2], axis=1)
        lines = LineCollection(
            pairs[np.isfinite(pairs).all(axis=(1, 2))].tolist(), colors="white", linewidths=size / 4
        )
        lines.set_path_effects([patheffects.withStroke(linewidth=size / 4 + 0.5, foreground=INK)])
        page.add_collection(lines, autolim=False)
        lines.set_clip_path(None)
        lines.set_clip_box(within)
    for points, colour in ((true_P2, TRUE), (predicted_P2, PREDICTED)):
        if points is not None:
            (dots,) = page.plot(
                points[:, 0],
                points[:, 1],
                "o",
                color=colour,
                markersize=size,
                markeredgecolor=INK,
                markeredgewidth=size / 9,
            )
            dots.set_clip_path(None)
            dots.set_clip_box(within)


def _explain(
    figure: Figure,
    x: float,
    y: float,
    true_points: np.ndarray | None,
    predicted_points: np.ndarray | None,
) -> None:
    marks = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            color=colour,
            markeredgecolor=INK,
            markeredgewidth=0.6,
            markersize=6,
            label=label,
        )
        for points, colour, label in (
            (true_points, TRUE, "true"),
            (predicted_points, PREDICTED, "predicted"),
        )
        if points is not None
    ]
    figure.legend(
        handles=marks,
        loc="upper left",
        bbox_to_anchor=(x, y),
        ncols=2,
        borderaxespad=0,
        borderpad=0,
        handletextpad=0.1,
        columnspacing=1.0,
    )


def _is_number(text: str) -> bool:
    return (
        bool(text)
        and text.replace(",", "")
        .replace(".", "")
        .replace("-", "")
        .replace("e", "")
        .replace("+", "")
        .isdigit()
    )
