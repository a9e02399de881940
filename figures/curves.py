"""Figures of how training went.

Curves over the epochs, and the same metric over several splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from ..runs import Point
from .style import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    PINK,
    SKY,
    drawn,
    in_full,
    legend_below,
    named,
    number,
    say,
    short,
)

# The metric in the middle of the curves where the caller names none or the loss, the first that was
# measured; and whether more of it is better.
HEADLINES = {
    "valid/accuracy": True,
    "valid/f1_micro": True,
    "valid/rmse": False,
    "valid/nme": False,
    "valid/mrr": True,
}
NAMES = {
    "rmse": "RMSE",
    "mae": "MAE",
    "median_ae": "Median absolute error",
    "r2": "R²",
    "nme": "NME",
    "mrr": "MRR",
    "auroc": "AUROC",
    "f1_macro": "F1, mean of the classes",
    "f1_micro": "F1 over all tags",
    "recall_macro": "Recall, mean of the classes",
}
EPOCH_KEY = "train/epoch_loss"
# What the journal's events are called in the legend, and how they are drawn.
MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "resumed": ("resumed", {"color": GRAY, "linestyle": (0, (5, 3)), "linewidth": 1.0}),
    "stopped": ("stopped early", {"color": INK, "linestyle": (0, (1, 1)), "linewidth": 1.4}),
}
MAX_DOTS = 30
MAX_STEPS = 2000
LOG_SPAN = 50


class Headline(NamedTuple):
    """The metric that decides which epoch is best.

    Attributes:
        name: for example "valid/f1_macro"; empty takes the first of accuracy, rmse, nme and mrr
            that was measured.
        higher_is_better: whether more of it is better, where it is given.
        unit: of the metric in the middle, which is another where the loss decides.
    """

    name: str = ""
    higher_is_better: bool = True
    unit: str = ""


DEFAULT = Headline()


class _Course(NamedTuple):
    """How a training went.

    Attributes:
        series: steps and values of each metric.
        ends: steps at the ends of epochs.
        headline: the metric that decides which epoch is best.
        best: that epoch and its value; None where there is none.
    """

    series: dict[str, tuple[list[int], list[float]]]
    ends: list[int]
    headline: str
    best: tuple[float, float] | None


@drawn
def curves(
    points: Iterable[Point],
    path: Path,
    *,
    events: Sequence[Mapping[str, Any]] = (),
    headline: Headline = DEFAULT,
    loss_unit: str = "",
    train_label: str = "train",
) -> tuple[Figure, Path]:
    """Loss, headline metric and learning rate over the epochs.

    The best epoch is marked in all of them.

    Args:
        points: of the journal: `train/loss` and `lr` at steps; at the ends of epochs
            `train/epoch_loss`, `valid/loss`, the headline metric.
        path: PNG file to write.
        events: lines of the journal; those named "resumed" and "stopped" with a step among their
            fields are marked.
        headline: the metric that decides which epoch is best.
        loss_unit: of the loss.
        train_label: what the line of the training loss is called.
    """
    series: dict[str, tuple[list[int], list[float]]] = {}
    for point in points:
        steps, values = series.setdefault(point.key, ([], []))
        steps.append(point.step)
        values.append(point.value)
    ends = sorted(set(series.get(EPOCH_KEY, series.get("valid/loss", ([], [])))[0]))
    first = next((key for key in HEADLINES if key in series), "")
    decides, is_higher = headline.name, headline.higher_is_better
    if decides not in series:
        decides, is_higher = first or "valid/loss", HEADLINES.get(first, False)
    middle = first if decides == "valid/loss" else decides
    panels = ["loss", *([middle] if middle else []), "lr"]
    course = _Course(series, ends, decides, _find_best(series, decides, ends, is_higher))
    figure = Figure(figsize=(4.2 * len(panels), 3.9))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if panel == "loss":
            axes.set_title("Loss")
            axes.set_ylabel(named("loss", loss_unit))
            _draw_loss(axes, series, ends, train_label)
        elif panel == "lr":
            axes.set_title("Learning rate")
            axes.set_ylabel("learning rate")
            _plot(axes, series, ends, "lr", "", color=GRAY)
            axes.yaxis.set_major_formatter(in_full)
            axes.set_ylim(bottom=0)
        else:
            name = panel.partition("/")[2]
            axes.set_title(short(NAMES.get(name, name.replace("_", " ").capitalize()), 40))
            axes.set_ylabel(named(NAMES.get(name, name.replace("_", " ")), headline.unit))
            _plot(axes, series, ends, panel, "valid", color=ORANGE, dots=True)
        _finish_panel(axes, panel, course, events)
    return figure, path


def _finish_panel(
    axes: Axes, panel: str, course: _Course, events: Sequence[Mapping[str, Any]]
) -> None:
    """Mark the events and the best epoch, or say that there is nothing to see."""
    if not axes.lines:
        say(axes, "no finite value" if panel in course.series or panel == "loss" else "no value")
    else:
        _mark(axes, events, course.ends)
        if course.best is not None:
            epoch, value = course.best
            is_main = panel == ("loss" if course.headline == "valid/loss" else course.headline)
            text = f"best {number(value)}, epoch {epoch:.0f}" if is_main else None
            axes.axvline(
                epoch, color=PINK, linewidth=1.4, linestyle=(0, (3, 2)), label=text, zorder=1.5
            )
            if is_main:
                axes.plot([epoch], [value], "o", color=PINK, markersize=6, zorder=5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_xlim(left=0)
        if axes.get_legend_handles_labels()[1]:
            legend_below(axes)
    axes.set_xlabel("epoch" if course.ends else "step")


@drawn
def splits(
    metrics: Mapping[str, float], path: Path, label: str, *, unit: str = ""
) -> tuple[Figure, Path]:
    """One metric over the runs of several splits.

    A dot each, their mean, and one standard deviation about it.

    Args:
        metrics: by name of the split; what is not finite is named and left out.
        path: PNG file to write.
        label: the metric's name.
        unit: of the metric.
    """
    names = list(metrics)
    values = np.array([metrics[name] for name in names], float)
    finite = np.isfinite(values)
    figure = Figure(figsize=(6.4, 1.35 + 0.3 * max(1, len(names))))
    axes = figure.subplots()
    axes.set_title(short(label, 60))
    if not finite.any():
        say(axes, "no finite value")
        return figure, path
    mean, num_splits = float(values[finite].mean()), int(finite.sum())
    said = f"{num_splits} {'split' if num_splits == 1 else 'splits'}"
    if num_splits > 1:
        std = float(values[finite].std(ddof=1))
        axes.axvspan(mean - std, mean + std, color=SKY, alpha=0.25, linewidth=0)
        axes.axvline(mean, color=BLUE, linewidth=1.4)
        axes.set_title(f"{short(label, 40)}: {number(mean)} ± {number(std, 2)} ({said})")
    else:
        axes.set_title(f"{short(label, 40)}: {number(mean)} ({said})")
    rows = np.arange(len(names))
    axes.plot(values[finite], rows[finite], "o", color=ORANGE, markersize=6.5)
    beside = axes.get_yaxis_transform()
    for row in rows[finite]:
        axes.text(
            1.02,
            row,
            number(float(values[row])),
            transform=beside,
            va="center",
            fontsize=8,
            clip_on=False,
        )
    labels = [
        short(name) if ok else f"{short(name)} (not finite)"
        for name, ok in zip(names, finite, strict=True)
    ]
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(named(label, unit))
    return figure, path


def _plot(
    axes: Axes,
    series: Mapping[str, tuple[list[int], list[float]]],
    ends: Sequence[int],
    key: str,
    label: str,
    *,
    dots: bool = False,
    **look: Any,
) -> None:
    steps, values = series.get(key, ([], []))
    x, y = _to_epochs(steps, ends), np.asarray(values, float)
    if not np.isfinite(y).any():
        return
    if len(y) > MAX_STEPS:  # a line of more points than pixels is slow to draw and shows less
        starts = np.linspace(0, len(y), MAX_STEPS, endpoint=False).astype(int)
        lengths = np.diff([*starts, len(y)])
        x, y = np.add.reduceat(x, starts) / lengths, np.add.reduceat(y, starts) / lengths
    num_finite = int(np.isfinite(y).sum())
    marker = "o" if dots and (len(ends) <= MAX_DOTS or num_finite == 1) else ""
    axes.plot(x, y, label=label or None, marker=marker, markersize=4, **look)


def _draw_loss(
    axes: Axes,
    series: Mapping[str, tuple[list[int], list[float]]],
    ends: Sequence[int],
    train_label: str,
) -> None:
    _plot(
        axes,
        series,
        ends,
        "train/loss",
        "train, each step" if ends else "train",
        color=SKY,
        linewidth=0.8,
        alpha=0.7,
    )
    _plot(axes, series, ends, EPOCH_KEY, train_label, color=BLUE, dots=True)
    _plot(axes, series, ends, "valid/loss", "valid", color=ORANGE, dots=True)
    shown = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate(shown) if shown else np.empty(0)
    values = values[np.isfinite(values)]
    whole = [value for key in (EPOCH_KEY, "valid/loss") for value in series.get(key, ([], []))[1]]
    whole = [value for value in whole if np.isfinite(value)]
    if len(whole) > 1 and min(whole) > 0 and max(whole) > LOG_SPAN * min(whole):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(in_full)
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif len(values) >= 20:
        # Leave out of sight what a few first steps have above all others.
        low, high = (
            float(values.min()),
            max(float(np.quantile(values, 0.99)), max(whole, default=-np.inf)),
        )
        if high > low:
            bottom = min(low, 0.0) if 0 <= low < 0.3 * high else low - 0.05 * (high - low)
            axes.set_ylim(bottom, high + 0.1 * (high - low))


def _find_best(
    series: Mapping[str, tuple[list[int], list[float]]],
    key: str,
    ends: Sequence[int],
    higher_is_better: bool,
) -> tuple[float, float] | None:
    steps, values = series.get(key, ([], []))
    y = np.asarray(values, float)
    if not np.isfinite(y).any():
        return None
    y = np.where(np.isfinite(y), y, np.nan)
    best = int(np.nanargmax(y) if higher_is_better else np.nanargmin(y))
    return float(_to_epochs([steps[best]], ends)[0]), float(y[best])


def _mark(axes: Axes, events: Sequence[Mapping[str, Any]], ends: Sequence[int]) -> None:
    """Draw the journal's events.

    Of each kind one stands in the legend, and in that of the loss alone.
    """
    said: set[str] = set()
    for event in events:
        step = event.get("fields", {}).get("step")
        if event.get("name") not in MARKS or not isinstance(step, int):
            continue
        text, look = MARKS[event["name"]]
        label = text if text not in said and axes.get_title(loc="left") == "Loss" else None
        axes.axvline(float(_to_epochs([step], ends)[0]), label=label, zorder=1.2, **look)
        said.add(text)


def _to_epochs(steps: Sequence[int], ends: Sequence[int]) -> np.ndarray:
    """Steps as epochs.

    Between the ends of two epochs in proportion, past the last one as long as that was.

    Without any end the axis counts steps.
    """
    if not ends:
        return np.asarray(steps, float)
    last = ends[-1] - (ends[-2] if len(ends) > 1 else 0)
    return np.interp(steps, [0, *ends, ends[-1] + max(last, 1)], np.arange(len(ends) + 2))
