"""The data report as one page.

What is in a table, who trains on what, and what is odd about it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .style import AMBER, BLUE, GRAY, GREEN, ORANGE, PALE, drawn, percent, short, widest

SIDES = {"train": BLUE, "valid": AMBER, "test": GREEN}
NUM_COLUMNS = 3
COLUMN_WIDTH, GAP = 3.95, 0.4  # inches
LETTER = 0.066  # inches of a letter at 8 points
LINE = 0.165  # inches of a line of text at 8 points
MAX_CLASSES = 30
MAX_CLASS_PANELS = 4
MAX_LINES = 12
QUANTILES = ("min", "quarter", "median", "three_quarters", "max")


class Panel(NamedTuple):
    """A part of the page.

    Attributes:
        title: above it.
        height: of the drawing, in inches.
        labels: names along its left side; their width is kept free.
        draw: draws it.
        below: inches kept free for the axis below.
    """

    title: str
    height: float
    labels: Sequence[str]
    draw: Callable[[Axes], None]
    below: float = 0.0


@drawn
def data_report(report: Mapping[str, Any], path: Path) -> tuple[Figure, Path]:
    """Draw rows and classes by split, missing values, quarantine, image sizes,
    ranges, and warnings on one page.

    Args:
        report: what `report.json` holds. A part that it lacks is left out.
        path: PNG file to write.
    """
    panels = _panels(report)
    columns: list[list[Panel]] = [[] for _ in range(min(NUM_COLUMNS, len(panels)))]
    heights = [0.0] * len(columns)
    for panel in panels:  # each goes where the page is shortest so far
        shortest = heights.index(min(heights))
        columns[shortest].append(panel)
        heights[shortest] += _height_of(panel)
    head = 0.74
    width, height = len(columns) * (COLUMN_WIDTH + GAP) + 0.1, head + max(heights)
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    name = Path(str(report.get("table", "table"))).name
    figure.text(
        0.1 / width, 1 - 0.08 / height, short(name, 80), va="top", fontsize=13, fontweight="bold"
    )
    figure.text(
        0.1 / width, 1 - 0.36 / height, _summarise(report), va="top", fontsize=8.5, color=GRAY
    )
    squares = [Patch(color=colour, label=side) for side, colour in SIDES.items()]
    figure.legend(
        handles=squares,
        loc="upper right",
        bbox_to_anchor=(1 - 0.3 / width, 1 - 0.06 / height),
        ncols=3,
        borderaxespad=0,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.2,
    )
    for number, column in enumerate(columns):
        x, top = 0.1 + number * (COLUMN_WIDTH + GAP), height - head
        for panel in column:
            figure.text(
                x / width, top / height, panel.title, va="top", fontsize=10, fontweight="bold"
            )
            labels = LETTER * widest(panel.labels) + 0.1 if panel.labels else 0.0
            box = (x + labels, top - 0.28 - panel.height, COLUMN_WIDTH - labels, panel.height)
            axes = figure.add_axes(
                (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
            )
            axes.tick_params(labelsize=8, length=0)
            panel.draw(axes)
            top -= _height_of(panel)
    return figure, path


def _height_of(panel: Panel) -> float:
    return 0.28 + panel.height + panel.below + 0.36


def _panels(report: Mapping[str, Any]) -> list[Panel]:
    """The parts that the report has something for, in the order in which one
    reads them.
    """
    features: Mapping[str, Mapping[str, Any]] = report.get("features", {})
    panels = [_rows_panel(report)]
    classes = {
        name: feature["classes"] for name, feature in features.items() if feature.get("classes")
    }
    panels += [
        _classes_panel(name, counts) for name, counts in list(classes.items())[-MAX_CLASS_PANELS:]
    ]
    ranges = {
        f"{name} {column}" if "points" in feature else column: found
        for name, feature in features.items()
        for column, found in feature.get("ranges", {}).items()
    }
    if ranges:
        panels.append(_ranges_panel(ranges))
    panels += [
        _sizes_panel(name, feature) for name, feature in features.items() if feature.get("sizes")
    ]
    return [*panels, _quarantine_panel(report), _missing_panel(features), _findings_panel(report)]


def _summarise(report: Mapping[str, Any]) -> str:
    features: Mapping[str, Mapping[str, Any]] = report.get("features", {})
    kinds = [
        f"{short(name, 20)} ({_describe(feature)})" for name, feature in list(features.items())[:6]
    ]
    more = f" and {len(features) - 6} more" if len(features) > 6 else ""
    return f"{_count(report.get('rows', 0), 'row')}{': ' if kinds else ''}{', '.join(kinds)}{more}"


def _describe(feature: Mapping[str, Any]) -> str:
    kind, num_columns = str(feature.get("kind", "")), len(feature.get("columns", []))
    if "shape" in feature:
        return (
            " × ".join(str(number) for number in feature.get("shape", []))
            + f" {feature.get('dtype', '')}"
        )
    if "vocabulary" in feature:
        return f"text, {_count(feature.get('vocabulary', 0), 'token')} known"
    if feature.get("classes") is not None:
        return f"{kind}, {_count(len(feature['classes']), 'class', 'classes')}"
    return f"{kind}, {_count(num_columns, 'column')}"


def _rows_panel(report: Mapping[str, Any]) -> Panel:
    counts = {side: int(report.get("splits", {}).get(side, 0)) for side in SIDES}
    bad = int(report.get("quarantined", {}).get("rows", 0))
    total = max(int(report.get("rows", 0)), 1)
    unused = total - sum(counts.values()) - bad
    colours = dict(SIDES)
    if bad:
        counts["quarantined"], colours["quarantined"] = bad, ORANGE
    if unused > 0 and report.get("rows"):
        counts["in no split"], colours["in no split"] = unused, GRAY
    labels = list(counts)
    texts = [f"{count:,}  {percent(count / total)}" for count in counts.values()]
    return Panel(
        "Rows by split",
        0.24 * len(counts),
        labels,
        lambda axes: _draw_bars(
            axes, labels, list(counts.values()), texts, [colours[label] for label in labels]
        ),
    )


def _quarantine_panel(report: Mapping[str, Any]) -> Panel:
    reasons = dict(report.get("quarantined", {}).get("reasons", {}))
    if not reasons:
        return _text_panel("Quarantine", ["No row is quarantined."])
    return _bars_panel("Quarantined rows by reason", _most(reasons), ORANGE)


def _missing_panel(features: Mapping[str, Mapping[str, Any]]) -> Panel:
    missing = {
        column: count
        for feature in features.values()
        for column, count in feature.get("missing", {}).items()
    }
    found = {column: count for column, count in missing.items() if count}
    if not found:
        return _text_panel("Missing values", [f"None, in {_count(len(missing), 'column')}."])
    return _bars_panel("Missing values by column", _most(found), GRAY)


def _classes_panel(name: str, classes: Mapping[str, Mapping[str, int]]) -> Panel:
    title = f"Rows by class of {short(name, 20)}"
    if len(classes) > MAX_CLASSES:
        return _ranked_panel(title, classes)
    labels = [short(label, 22) for label in classes]

    def draw(axes: Axes) -> None:
        lines = np.arange(len(labels))
        left = np.zeros(len(labels))
        for side, colour in SIDES.items():
            counts = np.array([found.get(side, 0) for found in classes.values()], float)
            axes.barh(lines, counts, left=left, color=colour, height=0.72, label=side)
            left += counts
        for line, total in enumerate(left):
            axes.annotate(
                f"{int(total):,}",
                (total, line),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        _list(
            axes, labels, max(left.max(initial=0), 1), max(len(f"{int(total):,}") for total in left)
        )

    return Panel(
        title, max(0.5, (0.24 if len(labels) <= 12 else 0.165) * len(labels)), labels, draw
    )


def _ranked_panel(title: str, classes: Mapping[str, Mapping[str, int]]) -> Panel:
    """Of many classes their sizes in order, and the names of the largest and
    the smallest.
    """
    totals = {label: sum(found.get(side, 0) for side in SIDES) for label, found in classes.items()}
    ranked = sorted(totals, key=lambda label: (-totals[label], label))

    def draw(axes: Axes) -> None:
        places, left = np.arange(1, len(ranked) + 1), np.zeros(len(ranked))
        for side, colour in SIDES.items():
            counts = np.array([classes[label].get(side, 0) for label in ranked], float)
            axes.fill_between(places, left, left + counts, step="mid", color=colour, linewidth=0)
            left += counts
        axes.set_xlim(0.5, len(ranked) + 0.5)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("class, by size", fontsize=8)
        axes.yaxis.set_major_formatter(_compact)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        smallest = ", ".join(f"{short(label, 14)} ({totals[label]:,})" for label in ranked[-2:])
        largest = ", ".join(f"{short(label, 14)} ({totals[label]:,})" for label in ranked[:2])
        lines = [f"largest: {largest}", f"smallest: {smallest}"]
        axes.text(
            0, -0.36, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=8, color=GRAY
        )

    return Panel(f"{title} ({len(classes):,})", 1.3, ["10,000"], draw, below=0.85)


def _sizes_panel(name: str, feature: Mapping[str, Any]) -> Panel:
    """The spread of the files' widths and heights."""
    sizes = {side: feature["sizes"][side] for side in ("width", "height")}
    labels = [short(side, 16) for side in sizes]

    def draw(axes: Axes) -> None:
        most = 1.0
        for line, found in enumerate(sizes.values()):
            low, quarter, middle, three_quarters, high = (float(found[key]) for key in QUANTILES)
            axes.plot([low, high], [line, line], color=PALE, linewidth=6, solid_capstyle="butt")
            axes.plot(
                [quarter, three_quarters],
                [line, line],
                color=BLUE,
                linewidth=6,
                solid_capstyle="butt",
            )
            axes.plot([middle], [line], "|", color=ORANGE, markersize=11, markeredgewidth=2.2)
            text = (
                f"all {low:,.0f}"
                if low == high
                else f"{low:,.0f} to {high:,.0f}, median {middle:,.0f}"
            )
            axes.annotate(
                text,
                (0, line),
                (0, -10),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=GRAY,
            )
            most = max(most, high)
        _list(axes, labels, most, 0)
        axes.set_ylim(len(sizes) - 0.3, -0.5)

    return Panel(f"Sizes of the files of {short(name, 16)}, pixels", 0.4 * len(sizes), labels, draw)


def _ranges_panel(ranges: Mapping[str, Mapping[str, float]]) -> Panel:
    shown = list(ranges.items())[:MAX_LINES]
    keys = [key for key in ("min", "mean", "std", "max") if any(key in found for _, found in shown)]
    more = len(ranges) - len(shown)

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        num_lines = len(shown) + 1 + bool(more)
        axes.set(xlim=(0, 1), ylim=(num_lines, 0))
        places = np.linspace(1, 0.44, len(keys))[::-1] if len(keys) > 1 else [1.0]
        for place, key in zip(places, keys, strict=True):
            axes.text(place, 0.5, key, ha="right", va="center", fontsize=8, color=GRAY)
        for line, (column, found) in enumerate(shown, start=1):
            axes.axhline(line, color=PALE, linewidth=0.8)
            axes.text(0, line + 0.5, short(column, 18), va="center", fontsize=8)
            for place, key in zip(places, keys, strict=True):
                if key in found:
                    axes.text(
                        place, line + 0.5, f"{found[key]:.5g}", ha="right", va="center", fontsize=8
                    )
        if more:
            axes.text(
                0,
                num_lines - 0.5,
                f"and {_count(more, 'more column')}",
                va="center",
                fontsize=8,
                color=GRAY,
            )

    return Panel("Numbers", 0.2 * (len(shown) + 1 + bool(more)), [], draw)


def _findings_panel(report: Mapping[str, Any]) -> Panel:
    found = []
    if "duplicate_rows" in report:
        count = int(report["duplicate_rows"])
        found.append(
            f"{_count(count, 'row')} equal{'s' if count == 1 else ''} an earlier one."
            if count
            else "No duplicate rows."
        )
    leaked = {name: int(count) for name, count in report.get("rows_in_two_splits", {}).items()}
    if leaked and not any(leaked.values()):
        found.append("No row stands in two splits.")
    if not any(
        "different splits" in str(warning) for warning in report.get("warnings", [])
    ):  # which says it better
        found += [
            f"{name}: {_count(count, 'row')} in two splits."
            for name, count in leaked.items()
            if count
        ]
    for name, feature in report.get("features", {}).items():
        if rows := feature.get("rows_with_points_outside"):
            outside = _count(feature.get("points_outside", 0), "point")
            found.append(f"{name}: {outside} of {_count(rows, 'row')} outside their pictures.")
        for split, texts in feature.get("texts", {}).items():
            if tokens := texts.get("tokens"):
                unknown, empty = (
                    texts.get("unknown_tokens", 0),
                    texts.get("texts_without_tokens", 0),
                )
                found.append(
                    f"{name}, {split}: {_count(tokens, 'token')}, {percent(unknown / tokens)} of "
                    "them unknown; at most "
                    f"{texts.get('longest', 0):,} in a text; {_count(empty, 'text')} without any."
                )
    if group := report.get("group"):
        counts = ", ".join(f"{count:,} {side}" for side, count in group["groups"].items())
        found.append(f"Groups: {counts}; the largest has {_count(group['largest'], 'row')}.")
    if entities := report.get("entities"):
        unseen = entities["without_training_rows"]
        found.append(
            f"Entities: {entities['distinct']:,}, of which {unseen:,} stand in no training row."
        )
    warnings = [str(warning) for warning in report.get("warnings", [])]
    hidden = len(warnings) - 8
    found += [f"! {warning}" for warning in warnings[:8]]
    if hidden > 0:
        found.append(f"… and {_count(hidden, 'more warning')} in report.json")
    return _text_panel("Duplicates, leaks, warnings", found or ["Nothing was looked for."])


def _bars_panel(title: str, counts: Mapping[str, int], colour: str) -> Panel:
    labels = [short(label, 30) for label in counts]
    texts = [f"{count:,}" for count in counts.values()]
    colours = [colour] * len(counts)
    return Panel(
        title,
        0.24 * len(counts),
        labels,
        lambda axes: _draw_bars(axes, labels, list(counts.values()), texts, colours),
    )


def _text_panel(title: str, paragraphs: Sequence[str]) -> Panel:
    lines: list[str] = []
    for paragraph in paragraphs:
        wrapped = textwrap.wrap(" ".join(paragraph.split()), int(COLUMN_WIDTH / LETTER)) or [""]
        lines += wrapped[:4] if len(wrapped) <= 4 else [*wrapped[:3], wrapped[3] + " …"]

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.text(
            0, 1, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=8, linespacing=1.4
        )

    return Panel(title, LINE * max(1, len(lines)), [], draw)


def _draw_bars(
    axes: Axes,
    labels: Sequence[str],
    counts: Sequence[int],
    texts: Sequence[str],
    colours: Sequence[str],
) -> None:
    axes.barh(range(len(counts)), counts, color=colours, height=0.7)
    for line, (count, text) in enumerate(zip(counts, texts, strict=True)):
        axes.annotate(
            text, (count, line), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    _list(axes, labels, max(*counts, 1), widest(texts))


def _list(axes: Axes, labels: Sequence[str], most: float, letters: int) -> None:
    """Names at the left, from the top, no axis below, and room for the
    numbers at the bars' ends.
    """
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    figure = axes.get_figure(root=True)
    assert figure is not None
    width = axes.get_position().width * figure.get_figwidth()
    axes.set_xlim(0, most / max(0.3, 1 - (letters * LETTER + 0.1) / width))
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest, in order, and the sum of the others."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(ranked[:MAX_LINES])
    if len(ranked) > MAX_LINES:
        kept[f"{len(ranked) - MAX_LINES} others"] = sum(count for _, count in ranked[MAX_LINES:])
    return kept


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _compact(value: float, _: object) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f}k"
