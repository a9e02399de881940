"""The pictures of a run, as PNG files: this is their one door, the files beside it draw them.

Each function takes plain values and a path, and returns the path. How they all look stands in `drawing`; which rows
are worst, and what is measured, is decided elsewhere.
"""

from __future__ import annotations

from .figures_classes import class_accuracy, class_scores, confusion, roc, tag_scores
from .figures_curves import curves, splits
from .figures_data import data_report
from .figures_numbers import residuals
from .figures_points import points_error
from .figures_ranks import ranks
from .figures_rows import gallery, worst_rows
from .figures_words import words

__all__ = [
    "class_accuracy",
    "class_scores",
    "confusion",
    "curves",
    "data_report",
    "gallery",
    "points_error",
    "ranks",
    "residuals",
    "roc",
    "splits",
    "tag_scores",
    "words",
    "worst_rows",
]
