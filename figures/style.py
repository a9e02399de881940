"""How every figure looks and is saved.

Fonts, colours, labels, empty panels. What is drawn is left to the figure files.

Plain matplotlib figures, without pyplot and its global state.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from PIL import Image, ImageOps

from ..disk import write_atomic

P = ParamSpec("P")

DPI = 130
MARGIN_INCHES = 0.14
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart
# (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, SKY, AMBER, PINK = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#56b4e9",
    "#e69f00",
    "#cc79a7",
)
INK, GRAY, PALE = "#1f2937", "#6b7280", "#e5e7eb"
# Of scripts that matplotlib's own font lacks; those that are installed are used.
FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
)
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $1
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9ca3af",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": "#9ca3af",
    "ytick.color": "#9ca3af",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.facecolor": "white",
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "figure.max_open_warning": 0,
}
MAX_LABEL = 24
# Points from an axis down to where its ticks' labels and its name end.
BELOW_AXIS = 34


def drawn(draw: Callable[P, tuple[Figure, Path]]) -> Callable[P, Path]:
    """Run a drawing function in our style, and save what it returns.

    A reader never sees half a file.
    """

    @functools.wraps(draw)
    def save(*args: P.args, **kwargs: P.kwargs) -> Path:
        logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)
        with mpl.rc_context({**STYLE, "font.family": _fonts()}), warnings.catch_warnings():
            # A script that the fonts lack shows as boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure, path = draw(*args, **kwargs)
            picture = _render(figure)
        write_atomic(path, picture)
        return path

    return save


def _render(figure: Figure) -> bytes:
    """Draw a figure and cut it to what is on it and a margin, as a PNG.

    Matplotlib's own `bbox_inches="tight"` lays a figure out, and then draws it in a second pass
    that takes as long. One pass is enough where nothing lies outside the figure.
    """
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    left, bottom, right, top = figure.get_tightbbox().extents * DPI
    pixels = np.asarray(canvas.buffer_rgba())
    height, width = pixels.shape[:2]
    picture = io.BytesIO()
    if left < 0 or bottom < 0 or right > width or top > height:
        figure.savefig(
            picture, format="png", dpi=DPI, bbox_inches="tight", pad_inches=MARGIN_INCHES
        )
        return picture.getvalue()
    rows = slice(height - math.ceil(top), height - math.floor(bottom))
    cut = Image.fromarray(pixels[rows, math.floor(left) : math.ceil(right), :3])
    framed = ImageOps.expand(cut, round(MARGIN_INCHES * DPI), "white")
    framed.save(picture, format="png", compress_level=3, dpi=(DPI, DPI))
    return picture.getvalue()


def short(text: str, length: int = MAX_LABEL) -> str:
    """A label of one line that is no wider than `length` Latin letters.

    What is left out stands in its middle: labels often differ at their ends.
    """
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    if text_width(line) <= length:
        return line
    tail = (length - 1) * 2 // 5
    return _cut(line, length - 1 - tail).rstrip() + "…" + _cut(line[::-1], tail)[::-1].lstrip()


def text_width(text: str) -> int:
    """Width of a line in Latin letters.

    East Asian signs take two.
    """
    return sum(_width(sign) for sign in text)


def widest(lines: Iterable[str]) -> int:
    """Width of the widest of some lines, at least 1."""
    return max((text_width(line) for line in lines), default=1) or 1


def named(column: str, unit: str, length: int = 40) -> str:
    """A column's name with its unit, for an axis."""
    return f"{short(column, length)} [{short(unit, 12)}]" if unit else short(column, length)


def percent(share: float) -> str:
    """A share with a decimal, without rounding what is not all or nothing to
    all or nothing.
    """
    text = f"{share:.1%}"
    return (
        "<0.1%"
        if text == "0.0%" and share > 0
        else ">99.9%"
        if text == "100.0%" and share < 1
        else text
    )


def number(value: float, digits: int = 4) -> str:
    """A number with so many digits, zeros at its end included, so that a
    column of them lines up.
    """
    if value == 0 or not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits}g}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".rstrip(".")


def in_full(value: float, _: object = None) -> str:
    """The label of a tick, written out.

    No power of ten beside the axis, no mathematical notation, which is off.
    """
    text = f"{value:,.7g}" if value == 0 or 1e-4 <= abs(value) < 1e7 else f"{value:.3g}"
    return text.replace("-", "−")


def with_interval(text: str, interval: tuple[float, float] | None, style: str) -> str:
    """Put a value's interval behind it.

    `style` is a format of numbers.
    """
    return text if interval is None else f"{text} ({interval[0]:{style}} to {interval[1]:{style}})"


def subtitle(axes: Axes, text: str) -> None:
    """Put a line of plain text between a panel and its title."""
    axes.set_title(axes.get_title(loc="left"), pad=19)
    axes.annotate(
        text,
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        color=GRAY,
        annotation_clip=False,
    )


def legend_below(axes: Axes, ncols: int = 2) -> None:
    """Put the legend under the name of the x axis, where no curve can lie.

    The layout makes room for it.
    """
    below = axes.transAxes + ScaledTranslation(0, -BELOW_AXIS / 72, axes.figure.dpi_scale_trans)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=below,
        borderaxespad=0,
        borderpad=0,
        ncols=ncols,
    )


def say(axes: Axes, text: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GRAY)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)


def note(axes: Axes, text: str, side: str) -> None:
    """Write a few lines into the upper corner of a panel, on its left or
    right side.
    """
    axes.text(
        0.97 if side == "right" else 0.03,
        0.97,
        text,
        transform=axes.transAxes,
        ha=side,
        va="top",
        fontsize=8.5,
        linespacing=1.35,
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2},
    )


def _cut(text: str, length: int) -> str:
    """As many signs from the left as fit."""
    width = 0
    for at, sign in enumerate(text):
        width += _width(sign)
        if width > length:
            return text[:at]
    return text


def _width(sign: str) -> int:
    return (
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
    )


@functools.cache
def _fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
