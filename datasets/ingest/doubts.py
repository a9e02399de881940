"""What is odd about the values of a table, counted for the data report and said
as warnings: wild numbers and pixels, numbers that are more exact than they are read, rows that are
the same but for their class, what a split did that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...recipe import Data, Split
from ...schema import SPLITS, Schema
from ..images import warn_of_notes
from ..kinds import find_farthest, find_triple
from ..pack import Pack, PackColumn
from ..splits import TEST, TRAIN, UNUSED, VALID, combine
from ..table import features_of
from ..verdicts import PREVIEW, shorten_warnings
from .judge import Judged
from .outliers import Wild, find_wild, may_be_wild

# Above it float64 lacks whole numbers.
EXACT = 2.0**53
# Float pixels whose mean or deviation is larger are warned of: one wild pixel then hides what all
# others say.
FAR_PIXELS = 1e6


def warn_of_wild_numbers(
    data: Data, frame: pd.DataFrame, columns: Mapping[str, PackColumn], side: np.ndarray
) -> list[str]:
    """Name the columns of numbers in which a few are so far off that all others
    look alike, and what to do.

    Args:
        data: the features.
        frame: text cells.
        columns: the features by name, arrays of all rows of the table.
        side: int8, shape (rows,); -1 for rows that are not used.
    """
    found = []
    used = np.flatnonzero(side != UNUSED)
    for name, column in columns.items():
        if not column.feature.facts.is_quantity:
            continue
        values = column.arrays["values"][used]
        for at in np.flatnonzero(may_be_wild(values) | (np.abs(values) >= EXACT).any(axis=0)):
            of = column.feature.columns[at]
            if wild := find_wild(values[:, at]):
                found.append(
                    _say_wild(of, wild, frame[of], used, name if name in data.inputs else "")
                )
            if text := _say_inexact(values[:, at], frame[of].iloc[used]):
                found.append(f"{of!r}: {text}")
    return shorten_warnings(found, "columns have numbers that are as odd")


def warn_of_pictures(judged: Judged) -> list[str]:
    """Say what is odd about the pictures of rows that are used."""
    found = []
    for name, notes in judged.rows.notes.items():
        cells = judged.frame[judged.rows.columns[name].feature.columns[0]]
        used = np.where(judged.side == UNUSED, 0, notes)
        found += warn_of_notes(name, features_of(judged.data)[name], used, cells)
    return found


def warn_of_far_pixels(judged: Judged, pack: Pack, schema: Schema) -> list[str]:
    """Name the features of float pixels that are far out of a usual range.

    What was fitted tells them, and only then the farthest pixel is looked for.

    Args:
        judged: the table.
        pack: its raw values.
        schema: fitted on the training rows.
    """
    frame, in_pack = judged.frame, judged.in_pack
    trains = np.flatnonzero(judged.side[in_pack] == TRAIN)
    found = []
    for feature in schema.inputs:
        largest = {
            "mean": max(feature.mean, key=abs, default=0),
            "standard deviation": max(feature.std, default=0),
        }
        if not feature.facts.is_image or max(map(abs, largest.values())) <= FAR_PIXELS:
            continue
        at, pixel = find_farthest(pack.image(feature.name), trains)
        row = int(in_pack[at])
        said = " and ".join(f"{name} {value:.3g}" for name, value in largest.items())
        found.append(
            f"{feature.name!r}: pixels with {said} are far out of a usual range; the farthest, "
            f"{pixel:.3g}, is in row "
            f"{row + 1} ({frame[feature.columns[0]].iloc[row]}): if it is a mistake, mend that "
            "file or leave the row "
            f"out, as beside it all others look alike"
        )
    return found


def _say_wild(column: str, wild: Wild, cells: pd.Series, used: np.ndarray, feature: str) -> str:
    rows = used[wild.rows]
    texts = list(dict.fromkeys(str(cells.iloc[row]).strip() for row in rows))
    where = ", ".join(str(row + 1) for row in rows[:PREVIEW]) + (
        ", …" if len(rows) > PREVIEW else ""
    )
    named = ", ".join(texts[:PREVIEW])
    fill = f" with data.inputs.{feature}.missing: median" if feature else ""
    return (
        f"{column!r}: {len(rows):,} of {len(used):,} numbers {'is' if len(rows) == 1 else 'are'} "
        "at least "
        f"{wild.times_text} times as far from the median ({wild.median:g}) as any other: {named} "
        "in row "
        f"{where}; beside it all others look alike. If it means that the number is missing, say "
        f"data.missing_values: [{named}]{fill}; if it is a mistake, correct or drop the row"
    )


def count_contradictions(
    data: Data, keys: Mapping[str, np.ndarray], side: np.ndarray
) -> dict[str, Any]:
    """Rows with the same inputs and another class.

    How many, some of them, and what share of all can be right at most.

    Args:
        data: the features.
        keys: uint64 for each feature, shape (rows,), equal where its values are.
        side: int8, shape (rows,); -1 for rows that are not used.
    Returns:
        rows, examples (two rows, counted from 1) and best_share; empty where there are none, or no
        classes.
    """
    have_classes = all(feature.facts.has_classes for feature in data.target.values())
    if not data.target or not have_classes or find_triple(data) is not None:
        return {}
    used = np.flatnonzero(side != UNUSED)
    inputs, targets = (
        combine([keys[name][used] for name in part]) for part in (data.inputs, data.target)
    )
    _, group = np.unique(inputs, return_inverse=True)
    pairs, pair_of, counts = np.unique(
        combine([inputs, targets]), return_inverse=True, return_counts=True
    )
    group_of_pair = np.zeros(len(pairs), dtype=np.int64)
    group_of_pair[pair_of] = group
    num_classes = np.bincount(group_of_pair, minlength=group.max(initial=-1) + 1)
    is_mixed = num_classes[group] > 1
    if not is_mixed.any():
        return {}
    most = np.zeros(len(num_classes), dtype=np.int64)
    np.maximum.at(most, group_of_pair, counts)
    mixed = np.flatnonzero(is_mixed)
    first = mixed[0]
    other = mixed[(group[mixed] == group[first]) & (pair_of[mixed] != pair_of[first])][0]
    return {
        "rows": int(is_mixed.sum()),
        "examples": [int(used[first]) + 1, int(used[other]) + 1],
        "best_share": float(most.sum() / len(used)),
    }


def warn_of_contradictions(found: Mapping[str, Any], num_rows: int) -> list[str]:
    """Say what `count_contradictions` counted."""
    if not found:
        return []
    first, other = found["examples"]
    return [
        f"{found['rows']:,} of {num_rows:,} rows have the same inputs as a row of another class, "
        "for example rows "
        f"{first} and {other}: no model can be right in more than {found['best_share']:.1%} of all "
        "rows; correct them, "
        f"or give it an input that tells them apart"
    ]


def warn_of_leaks(leaked: Mapping[str, np.ndarray], *, are_apart: bool) -> list[str]:
    """Name the rows that stand on two sides, unless the recipe wants rows of
    the same inputs apart.
    """
    found = []
    for name, rows in leaked.items():
        if rows.any() and not (name == "rows" and are_apart):
            what = (
                "hold the same row"
                if name == "rows"
                else f"hold the same picture in {name!r} under different names"
            )
            first = ", ".join(str(row + 1) for row in np.flatnonzero(rows)[:PREVIEW])
            found.append(
                f"{int(rows.sum()):,} rows of different splits {what}, for example rows {first}"
            )
    return found


def warn_of_split(split: Split, report: Mapping[str, Any]) -> list[str]:
    """What a split by fractions did that nobody asked for.

    Nothing where a column says the sides or no row trains.
    """
    if split.column or not report["splits"][SPLITS[TRAIN]]:
        return []
    found = []
    if num_rows := report.get("group", {}).get("rows_of_none", 0):
        found.append(
            f"{num_rows:,} rows have no {split.group!r}; the hash takes each for a group of its own"
        )
    parts = {
        value: counts[SPLITS[TEST]] / sum(counts.values())
        for value, counts in report.get("stratify", {}).items()
        if counts[SPLITS[TEST]]  # one without is warned of as a class is
    }
    off = {value: part for value, part in parts.items() if abs(part - split.test) > split.test / 2}
    if off:
        first = ", ".join(f"{value} {part:.0%}" for value, part in list(off.items())[:5])
        found.append(
            f"{len(off)} of {len(report['stratify'])} values of {split.stratify!r} test with "
            "another part of their "
            f"rows than data.split.test, {split.test:.0%}: {first}; stratify moves no row, another "
            "data.split.seed does"
        )
    if split.valid > 0 and not report["splits"][SPLITS[VALID]]:
        found.append("no row validates: the last weights are kept")
    return found


def warn_of_classes(
    classes: Mapping[str, Mapping[str, Mapping[str, int]]], side: np.ndarray
) -> list[str]:
    """Name the classes that have no row where the others have some.

    Args:
        classes: rows of each class on each side, for each feature or column.
        side: int8, shape (rows,).
    """
    found = []
    for feature, counts_of in classes.items():
        of = "" if len(classes) == 1 else f" of {feature!r}"
        for name in (SPLITS[VALID], SPLITS[TEST]):
            absent = [label for label, counts in counts_of.items() if counts[name] == 0]
            if absent and (side == SPLITS.index(name)).any():
                first = ", ".join(absent[:5])
                found.append(
                    f"{len(absent)} of {len(counts_of)} classes{of} have no {name} row: {first}"
                )
    if not (side == TEST).any():
        found.append("no row tests: there will be no test metrics")
    return found


def _say_inexact(values: np.ndarray, cells: pd.Series) -> str:
    """What to say of whole numbers that are one in float64 and several in
    the table; nothing where there are none.
    """
    far = np.abs(values) >= EXACT
    if not far.any():
        return ""
    texts, numbers = cells[far].str.strip(), values[far]
    num_lost = texts.nunique() - len(np.unique(numbers))
    if num_lost <= 0:
        return ""
    same = pd.Series(numbers, index=texts.index)
    pair = texts[same.duplicated(keep=False) & ~texts.duplicated()]
    return (
        f"numbers beyond 2**53 lose digits, so that {num_lost:,} become others, such as "
        f"{pair.iloc[0]}; if they are "
        f"names, read the column as category, or leave it out"
    )
