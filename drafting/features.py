"""What the draft of a recipe learns from what.

The target's columns, and those that a model sees.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from ..errors import DataError, RecipeError
from ..kinds import KINDS
from ..recipe import nearest, quote_name
from .choice import Choice, say_are, say_count
from .points import choose_mirror
from .survey import (
    MOST_FILLED,
    MOST_INPUT_VALUES,
    MOST_INTEGER_CLASSES,
    MOST_MISSING,
    TARGET_NAMES,
    Column,
    Survey,
    common_pattern,
)
from .values import choose_spelling

# A column of numbers with no more odd cells than these is an input of a small table, too; all
# columns together may make this fraction of the rows bad.
FEW_MISSING = 3
MOST_BAD_ROWS = 0.1


def kind_of(survey: Survey, goals: list[str]) -> str:
    """What all of the target's columns can be."""
    roles = {survey.columns[name].role for name in goals}
    return next((kind for kind in ("points", "number", "labels") if kind in roles), "category")


def choose_target(survey: Survey, wanted: str) -> tuple[list[str], str]:
    """The columns to learn, and why they."""
    columns = survey.columns
    points = survey.of_role("points")
    if wanted:
        if wanted not in columns:
            raise RecipeError(
                f"--target {shlex.quote(wanted)}: {survey.table} has no such column; "
                f"{nearest(wanted, columns)}"
            )
        column = columns[wanted] = columns[wanted].by_cells or columns[wanted]
        if column.role == "points":
            return points, "one of them was named by --target"
        if column.role in ("image", "text", "unspaced", "name", "comma", "constant", "split") or (
            column.role in ("id", "key") and not column.is_number
        ):
            raise DataError(
                f"{shlex.join(['--target', wanted])}: that column cannot be learned, as it "
                f"{column.why}; "
                f"{_candidates(survey)}"
            )
        if column.role in ("id", "key"):
            columns[wanted] = column._replace(role="number")
        if column.role == "parts":
            is_quantity = column.is_number and column.num_values > MOST_INTEGER_CLASSES
            columns[wanted] = column._replace(role="number" if is_quantity else "category")
        return [wanted], "named by --target"
    able = {
        name: column
        for name, column in columns.items()
        if column.role in ("category", "labels", "number")
    }
    named = [name for name in able if TARGET_NAMES.fullmatch(name)]
    series = len(named) > 1 and all(re.fullmatch(r"y_?\d+", name, re.IGNORECASE) for name in named)
    if series and all(able[name].is_number for name in named):
        return named, "their names say so"
    if len(named) == 1 and not points:
        return named, "its name says so"
    if points and not named:
        return points, "from x and y on a picture"
    names = [name for name, column in able.items() if not column.is_number]
    beside = (
        "pictures" if survey.pictures else "texts" if survey.of_role("text", "unspaced") else ""
    )
    if not named and len(able) == 1 and beside:
        return list(able), f"the only column beside the {beside} that can be learned"
    if not named and len(names) == 1:
        return names, "the only column of names that repeat"
    raise DataError(f"{survey.table}: which column is to be learned? {_candidates(survey, named)}")


def _candidates(survey: Survey, named: list[str] | None = None) -> str:
    able = [*(named or survey.of_role("category", "labels", "number")), *survey.of_role("points")]
    if not able:
        said = "; ".join(
            f"{column.name!r} {column.why}" for column in list(survey.columns.values())[:8]
        )
        return f"no column can be: {said}"
    some = ", ".join(map(quote_name, able[:8])) + (", …" if len(able) > 8 else "")
    points = survey.of_role("points")
    together = (
        f" (the {say_count(len(points) // 2, 'point')} of {points[0]} together)" if points else ""
    )
    command = shlex.join(["torchrelay", "init", survey.table.name, "--target", able[-1]])
    return f"it could be {some}{together}; say which: {command}"


def choose_inputs(
    survey: Survey, goals: list[str], kind: str
) -> tuple[dict[str, Choice], list[str]]:
    """The inputs by name, and the columns that they read."""
    inputs: dict[str, Choice] = {}
    used: list[str] = []
    known_goals = set(goals)
    images = survey.of_role("image")[:1]
    if images and survey.pictures is not None:
        [column] = images
        inputs["image"] = Choice(
            _image_feature(column, survey), f"column {column!r} {survey.columns[column].why}"
        )
        used.append(column)
    numbers = _choose_numbers(survey, goals)
    if numbers:
        columns = _write_columns(numbers, survey)
        wanted = [columns.removesuffix("*").rstrip("_-.")] if isinstance(columns, str) else []
        name = _first_free(
            [*filter(None, wanted), "numbers", "inputs", "features"], {*goals, *inputs, "points"}
        )
        feature = {"kind": "number"} if columns == name else {"kind": "number", "columns": columns}
        inputs[name] = _describe_numbers(survey, numbers, feature)
        used += numbers
    taken = {*goals, *inputs, "points"}
    for name, column in survey.columns.items():
        if name not in known_goals and _is_category_input(column):
            free = _first_free([name], taken)
            feature = (
                {"kind": "category"} if free == name else {"kind": "category", "columns": name}
            )
            inputs[free] = _spell(Choice(feature, f"column {name!r} {column.why}"), survey, name)
            taken.add(free)
            used.append(name)
    texts = _choose_texts(survey, goals, {*goals, *inputs, "points"}, alone=not inputs)
    return {**inputs, **{name: choice for name, (choice, _) in texts.items()}}, [
        *used,
        *(column for _, column in texts.values()),
    ]


def _choose_texts(
    survey: Survey, goals: list[str], taken: Collection[str], *, alone: bool
) -> dict[str, tuple[Choice, str]]:
    """The columns of texts, by the names of their features.

    Where there is no other input, one of names.
    """
    most_missing = max(FEW_MISSING, MOST_BAD_ROWS * survey.num_rows)
    able = [
        name
        for name in survey.of_role("text", "unspaced")
        if survey.columns[name].num_missing <= most_missing
    ]
    if alone and not able:
        able = [
            name
            for name in survey.of_role("name")
            if survey.columns[name].num_missing <= most_missing
        ][:1]
    found: dict[str, tuple[Choice, str]] = {}
    names = set(taken)
    for column in able:
        if column in goals:
            continue
        name = _first_free([column], names)
        names.add(name)
        feature: dict[str, Any] = {"kind": "text"}
        if name != column:
            feature["columns"] = column
        what = "words are counted"
        if survey.columns[column].role != "text":
            feature |= {"tokens": "characters", "ngrams": [1, 3]}
            what = "runs of one to three characters are counted"
        found[name] = (
            Choice(feature, f"column {column!r} {survey.columns[column].why}; its {what}"),
            column,
        )
    return found


def _choose_numbers(survey: Survey, goals: list[str]) -> list[str]:
    """The columns of numbers that have half of their cells, those with the
    fewest odd ones first where all of them would cost too many rows.
    """
    taken = set(goals)
    able = [
        column
        for name, column in survey.columns.items()
        if name not in taken
        and (
            column.role in ("number", "points") or (column.role == "category" and column.is_number)
        )
        and num_bad_cells(column) <= max(FEW_MISSING, MOST_MISSING * survey.num_rows)
        and column.num_missing <= MOST_FILLED * survey.num_rows
    ]
    fullest = sorted(able, key=num_bad_cells)
    lost = itertools.accumulate(map(num_bad_cells, fullest))
    kept = {
        column.name
        for column, num_lost in zip(fullest, lost, strict=True)
        if num_lost <= max(FEW_MISSING, MOST_BAD_ROWS * survey.num_rows)
    }
    return [column.name for column in able if column.name in kept]


def num_bad_cells(column: Column) -> int:
    """Cells of an input that nothing fills, so that their rows are bad."""
    return (0 if column.odd_word else column.num_odd) if column.is_number else column.num_missing


def _describe_numbers(survey: Survey, numbers: list[str], feature: dict[str, Any]) -> Choice:
    """Columns of numbers as one feature, and what becomes of the cells that
    lack one.
    """
    columns = [survey.columns[name] for name in numbers]
    why = f"{say_count(numbers, 'column')} of numbers"
    num_missing = sum(column.num_missing - num_bad_cells(column) for column in columns)
    if num_missing:
        some = [column.name for column in columns if column.num_missing > num_bad_cells(column)]
        shown = ", ".join(some[:4]) + (", …" if len(some) > 4 else "")
        why += (
            f"; {say_are(num_missing, 'cell')} missing ({shown}): "
            "the median of the training rows stands there, and "
        )
        why += "an input more says where"
        feature = {**feature, "missing": "median"}
    return Choice(feature, why)


def _spell(choice: Choice, survey: Survey, column: str) -> Choice:
    """A feature of classes or tags with the spellings that are one."""
    labels = choose_spelling(survey, column)
    return (
        Choice({**choice.value, **labels.value}, f"{choice.why}. {labels.why}")
        if labels.value
        else choice
    )


def _is_category_input(column: Column) -> bool:
    is_name = column.role == "category" and not column.is_number
    return is_name and column.num_values <= MOST_INPUT_VALUES and not column.num_missing


def _first_free(options: Sequence[str], taken: Collection[str]) -> str:
    """The first name that is not taken.

    Else the first one with a number.
    """
    numbered = (f"{options[0]}_{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain(options, numbered) if name not in taken)


def _write_columns(names: list[str], survey: Survey) -> str | list[str]:
    """One column's name, a pattern that fits these columns alone, or all
    their names.
    """
    if len(names) == 1:
        return names[0]
    return common_pattern(names, list(survey.columns)) or names


def target_name(goals: list[str], kind: str, inputs: dict[str, Choice]) -> str:
    """The name of the one feature that all of the target's columns are."""
    if KINDS[kind].lies_on_image:
        return kind
    if len(goals) == 1:
        return goals[0]
    return _first_free(("y", "target"), inputs)


def describe_target(survey: Survey, goals: list[str], kind: str, why: str) -> Choice:
    """The target as the recipe writes it, and why it is these columns."""
    column = survey.columns[goals[0]]
    feature: dict[str, Any] = {"kind": kind}
    if column.separator not in ("", ","):
        feature["separator"] = column.separator
    if len(goals) > 1:
        feature["columns"] = _write_columns(goals, survey)
    facts = KINDS[kind]
    if not facts.lies_on_image:
        what = f"{say_count(goals, 'column')}" if len(goals) > 1 else f"column {goals[0]!r}"
        other = (
            "; as a quantity it would be kind: number"
            if facts.is_one_class and column.is_number
            else ""
        )
        article = "" if facts.has_tags else "a "
        found = Choice(feature, f"{what}, {why}: {article}{kind}, as it {column.why}{other}")
        return _spell(found, survey, goals[0]) if facts.has_classes else found
    text = f"{say_count(len(goals) // 2, 'point')}, {why}"
    mirror = choose_mirror(goals)
    return Choice({**feature, **mirror.settings}, f"{text}. {mirror.why}" if mirror.why else text)


def _image_feature(column: str, survey: Survey) -> dict[str, Any]:
    pictures = survey.pictures
    assert pictures is not None
    feature: dict[str, Any] = {"kind": "image"}
    if column != "image":
        feature["columns"] = column
    feature["channels"] = {1: "gray", 3: "rgb"}.get(pictures.channels, pictures.channels)
    if pictures.bits > 8:
        feature["dtype"] = "uint16" if pictures.bits == 16 else "float32"
    return feature
