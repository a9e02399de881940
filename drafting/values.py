"""What the draft of a recipe says about the values of a table.

Spellings that are one, classes that are rare, keys that are few, and numbers that may mean that
there is none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..datasets.cells import distinct_cells, notation_of, parse_numbers
from ..datasets.ingest import find_sentinel, find_wild
from ..datasets.splits import are_few
from ..kinds import KINDS
from .choice import Choice, say_are, say_count
from .survey import Survey

PREVIEW = 3
# Of classes with fewer rows than these one may get no training row: .3 to the ninth is 2 in
# 100,000.
FEWEST_ROWS = 10


class Telling(NamedTuple):
    """What tells rows apart where their inputs do not.

    Attributes:
        key: a column that names each row; empty where there is none.
        why: how few different inputs there are; empty where they are not few.
    """

    key: str
    why: str


def choose_spelling(survey: Survey, name: str) -> Choice:
    """The `labels` of a feature that reads a column of classes or tags.

    Empty where no two look alike.
    """
    classes = survey.classes.get(name)
    if classes is None or not classes.look_alikes:
        return Choice({}, "")
    groups = classes.look_alikes
    shown = "; ".join(
        " and ".join(f"{text!r} ({rows:,})" for text, rows in [*group.items()][:4])
        for group in groups[:PREVIEW]
    ) + ("; …" if len(groups) > PREVIEW else "")
    rule = {key: True for key, value in classes.rule.model_dump().items() if value}
    num_texts = sum(map(len, groups))
    why = (
        f"{num_texts:,} spellings are taken for {len(groups):,}, with their rows: {shown}; labels "
        "says what does not "
    )
    return Choice({"labels": rule}, why + "count, without it each is one of its own")


def choose_rare_classes(survey: Survey, goals: list[str], kind: str) -> Choice | None:
    """What becomes of classes that may have no training row.

    None where there are none so rare.
    """
    reasons = []
    for name in goals if KINDS[kind].is_one_class else ():
        counts = survey.classes[name].counts if name in survey.classes else {}
        rare = {text: num for text, num in counts.items() if num < FEWEST_ROWS}
        if rare:
            some = ", ".join(f"{text!r} ({num})" for text, num in [*rare.items()][:PREVIEW])
            more = ", …" if len(rare) > PREVIEW else ""
            reasons.append(
                f"column {name!r} has classes of fewer than {FEWEST_ROWS} rows: {some}{more}"
            )
    if not reasons:
        return None
    then = "count as wrong where they test" if survey.of_role("split") else "all train then"
    return Choice(
        "keep", f"{'; '.join(reasons)}. One of them may have no row that trains; its rows {then}"
    )


def choose_telling(survey: Survey, used: list[str], spare: list[str]) -> Telling:
    """Whether the inputs of a table of no pictures are too few to decide its
    split, and which column names its rows.
    """
    key = next((name for name in spare if survey.columns[name].role == "key"), "")
    if key or survey.pictures is not None or survey.of_role("split"):
        return Telling(key, "")
    counts = _count_inputs(survey.frame, used)
    if not are_few(counts):
        return Telling("", "")
    why = f"{survey.num_rows:,} rows have {len(counts):,} different inputs, too few to decide by"
    ids = [name for name in spare if survey.columns[name].role == "id"]
    ids = [name for name in ids if survey.columns[name].num_values == survey.num_rows]
    return Telling(next(iter(ids), ""), why)


def _count_inputs(frame: pd.DataFrame, used: list[str]) -> np.ndarray:
    """Rows of each of the different inputs, shape (inputs,).

    No more columns are looked at once they are not few.
    """
    ids = np.zeros(len(frame), dtype=np.int64)
    for name in used:
        codes, values = distinct_cells(frame[name])
        ids = np.unique(ids * len(values) + codes, return_inverse=True)[1]
        if 2 * (ids.max() + 1) > len(ids):
            break
    return np.bincount(ids)


def hint_at_sentinels(survey: Survey, used: list[str], goals: list[str]) -> list[str]:
    """Name columns of numbers in which some stand so far off that they may
    mean that there is no number.
    """
    notation = notation_of(survey.dialect)
    found = []
    for name in [*used, *goals]:
        if not survey.columns[name].is_number or survey.columns[name].role == "points":
            continue
        codes, texts = distinct_cells(survey.frame[name])
        numbers = parse_numbers([text.strip() for text in texts], notation)
        values = np.where(np.isfinite(numbers), numbers, np.nan)[codes]
        if wild := find_wild(values):
            cells = list(dict.fromkeys(survey.frame[name].iloc[wild.rows].str.strip()))[:PREVIEW]
            said = (
                f"{say_are(len(wild.rows), 'cell')} {wild.times_text} times as far from the median "
                "as any other: "
            )
            said += ", ".join(cells)
        elif sentinel := find_sentinel(values):
            cells = [f"{sentinel.value:.15g}"]
            said = (
                f"{say_count(sentinel.num, 'cell')} say {cells[0]}, all others {sentinel.low:g} to "
                f"{sentinel.high:g}"
            )
        else:
            continue
        fill = ", and missing: median at the input" if name in used else ""
        found.append(
            f"Column {name!r}: {said}. If that means that the number is missing, say "
            "missing_values: "
            f"[{', '.join(cells)}]{fill}; nothing was assumed"
        )
    return found
