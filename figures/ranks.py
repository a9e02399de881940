"""The figure of ranks.

How often the true entity is first, among the first few, or far behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .style import BLUE, ORANGE, drawn, in_full, legend_below, percent, say, subtitle, with_interval

# Upper ends of the bars.
ENDS = (1, 3, 10, 100, 1000)
COLOURS = (BLUE, ORANGE)


@drawn
def ranks(
    ranks_of: Mapping[str, np.ndarray], path: Path, *, interval: tuple[float, float] | None = None
) -> tuple[Figure, Path]:
    """Bars of ranks in groups, and the share of ranks up to each k.

    Args:
        ranks_of: by what was asked for ("tail", "head"), ranks counted from 1, with halves where
            scores were equal.
        path: PNG file to write.
        interval: of the mean reciprocal rank over all.
    """
    figure = Figure(figsize=(10.5, 4.1))
    left, right = figure.subplots(1, 2)
    left.set(title="Ranks of the true entity", xlabel="rank", ylabel="share of the questions")
    right.set(title="Found among the first k", xlabel="k", ylabel="share of the questions")
    given = {name: values for name, values in ranks_of.items() if len(values)}
    if not given:
        for axes in (left, right):
            say(axes, "no questions")
        return figure, path
    everything = np.concatenate(list(given.values()))
    mrr = f"MRR {float((1 / everything).mean()):.4f}"
    subtitle(left, f"{with_interval(mrr, interval, '.4f')}, {len(everything):,} questions")
    _draw_groups(left, given)
    _draw_hits(right, given)
    return figure, path


def _draw_groups(axes: Axes, given: Mapping[str, np.ndarray]) -> None:
    width = 0.8 / len(given)
    starts = (0, *ENDS)
    labels = [
        "1",
        *(f"{low + 1:,}–{high:,}" for low, high in itertools.pairwise(ENDS)),
        f"> {ENDS[-1]:,}",
    ]
    for number, (name, values) in enumerate(given.items()):
        # A rank of 1.5 belongs to the group of 2.
        shares = np.histogram(np.ceil(values), bins=[*(start + 0.5 for start in starts), np.inf])[
            0
        ] / len(values)
        places = np.arange(len(shares)) + (number - (len(given) - 1) / 2) * width
        axes.bar(
            places,
            shares,
            width * 0.94,
            color=COLOURS[number % len(COLOURS)],
            label=f"{name} asked for",
        )
        for place, share in zip(places, shares, strict=True):
            text = f"{share:.0%}" if share >= 0.01 else percent(share) if share else ""
            axes.annotate(
                text, (place, share), (0, 2), textcoords="offset points", ha="center", fontsize=7
            )
    axes.set_xticks(range(len(labels)), labels)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.16)
    legend_below(axes)


def _draw_hits(axes: Axes, given: Mapping[str, np.ndarray]) -> None:
    for number, (name, values) in enumerate(given.items()):
        ordered = np.sort(values)
        shares = np.arange(1, len(ordered) + 1) / len(ordered)
        hits_at_10 = float((values <= 10).mean())
        axes.step(
            np.concatenate([[1.0], ordered, [max(ordered[-1], 10.0)]]),
            np.concatenate([[0.0], shares, [1.0]]),
            where="post",
            color=COLOURS[number % len(COLOURS)],
            label=f"{name}: {percent(hits_at_10)} among the first 10",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(in_full)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 1.02)
    axes.axvline(10, color="#9ca3af", linewidth=0.8, linestyle=(0, (4, 3)))
    legend_below(axes, ncols=1)
