"""Drafts a recipe for a table that nobody described.

What to learn from what, with which model, how long.

What the columns are is found out in `drafting/survey/table.py`; how the recipe is written, comments
and all, stands in `text.py`. Each choice carries its reason. Here stand the draft as a whole, its
split, and what it leaves out.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from ..kinds import KINDS
from .choice import Choice, say_are, say_count
from .features import (
    choose_inputs,
    choose_target,
    describe_target,
    kind_of,
    num_bad_cells,
    target_name,
)
from .survey import Column, Survey, common_pattern
from .training import choose_augment, choose_batch_size, choose_text_training, choose_training
from .triples import choose_for_triples
from .values import Telling, choose_rare_classes, choose_telling, hint_at_sentinels

KINDS_TEXT = (
    "image (a column of paths), text, number, category, labels (several tags in a cell, as "
    "target), points (columns "
    "NAME_x, NAME_y on an image)"
)
# A split by groups keeps its fractions only where there are many of them.
FEWEST_GROUPS = 20


class Draft(NamedTuple):
    """A recipe before it is text.

    Attributes:
        name: of the recipe.
        inputs, target: features by name, as the recipe writes them, with reasons.
        split: the recipe's `data.split`.
        key: column that names a row; empty where there is none.
        missing_values: the recipe's `data.missing_values`.
        key_why: why that column is named, where it is not by its own name.
        rare_classes: the recipe's `data.rare_classes`; None where the default does.
        max_bad_rows: fraction; None where the default does.
        model, epochs, batch_size, optimizer, schedule, augment: the recipe's values.
        unused: columns that nothing reads, with reasons.
        hints: what the recipe could say and does not.
    """

    survey: Survey
    name: str
    inputs: dict[str, Choice]
    target: dict[str, Choice]
    split: Choice
    key: str
    key_why: str
    missing_values: list[str]
    rare_classes: Choice | None
    max_bad_rows: Choice | None
    model: Choice
    epochs: Choice
    batch_size: int
    optimizer: Choice
    schedule: dict[str, Any]
    augment: Choice
    unused: dict[str, str]
    hints: list[str]


def draft_recipe(survey: Survey, target: str = "") -> Draft:
    """Choose what to learn from what, and how.

    Args:
        survey: of the table.
        target: column to learn; empty means that it is guessed.
    Raises:
        DataError: nothing or too much could be the target, or no column is left that a model could
            see; says which columns there are and what to do.
    """
    if survey.triple is not None and target in ("", survey.triple.tail):
        return _draft_triples(survey)
    goals, target_why = choose_target(survey, target)
    kind = kind_of(survey, goals)
    inputs, used = choose_inputs(survey, goals, kind)
    if not inputs:
        raise DataError(_explain_no_input(survey, goals))
    if KINDS[kind].has_classes:  # each column is a target of its own
        features = {name: describe_target(survey, [name], kind, target_why) for name in goals}
    else:
        features = {
            target_name(goals, kind, inputs): describe_target(survey, goals, kind, target_why)
        }
    num_train = max(1, round(survey.num_rows * (survey.train_fraction or 0.7)))
    batch_size = choose_batch_size(num_train, is_table=survey.pictures is None)
    is_text = [KINDS[one.value["kind"]].is_sequence for one in inputs.values()] == [True]
    if is_text:
        model, size, epochs, optimizer, schedule = choose_text_training(num_train, batch_size)
    else:
        model, size, epochs, optimizer, schedule = choose_training(
            survey, kind, num_train, batch_size
        )
    if "image" in inputs:
        inputs = {**inputs, "image": _size_image(inputs["image"], survey, size)}
    taken = {*used, *goals}
    spare = {name: column for name, column in survey.columns.items() if name not in taken}
    telling = choose_telling(survey, used, list(spare))
    split = _choose_split(survey, goals, used, telling)
    unused = {
        name: _why_unused(column)
        for name, column in spare.items()
        if column.role not in ("split", "key")
    }
    unused.pop(telling.key, None)
    unused.pop(split.value.get("group", ""), None)
    return Draft(
        survey=survey,
        name=_name(survey),
        inputs=inputs,
        target=features,
        split=split,
        key=telling.key,
        key_why=telling.why,
        missing_values=sorted({survey.columns[name].odd_word for name in [*used, *goals]} - {""}),
        rare_classes=choose_rare_classes(survey, goals, kind),
        max_bad_rows=_choose_max_bad_rows(survey, goals, used, kind),
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        augment=choose_augment(survey, kind, goals, size),
        unused=unused,
        hints=[*_hints(survey, goals, kind), *hint_at_sentinels(survey, used, goals)],
    )


def _draft_triples(survey: Survey) -> Draft:
    """Head and relation in, the tail to be ranked among all entities."""
    triple = survey.triple
    assert triple is not None
    parts = [triple.head, triple.relation, triple.tail]
    chosen = choose_for_triples(
        triple, max(1, round(survey.num_rows * (survey.train_fraction or 0.7)))
    )
    spare = {name: column for name, column in survey.columns.items() if name not in parts}
    key = next((name for name, column in spare.items() if column.role == "key"), "")
    why = f"columns {', '.join(map(repr, parts))} {triple.why}"
    shared = (
        f"entities, of which there are {triple.num_entities:,}: head and tail share the vocabulary"
    )
    return Draft(
        survey=survey,
        name=_name(survey),
        inputs={
            triple.head: Choice(chosen.entity, f"{why}; {shared}"),
            triple.relation: Choice(
                chosen.relation, f"column {triple.relation!r}, asked forwards and backwards"
            ),
        },
        target={triple.tail: Choice(chosen.entity, "ranked among all entities")},
        split=_choose_split(survey, parts, [], Telling(key, ""), unit="fact"),
        key=key,
        key_why="",
        missing_values=[],
        rare_classes=None,
        max_bad_rows=_choose_max_bad_rows(survey, parts, [], "category"),
        model=Choice(chosen.model, chosen.model_why),
        epochs=Choice(chosen.epochs, chosen.epochs_why),
        batch_size=chosen.batch_size,
        optimizer=Choice(chosen.optimizer, ""),
        schedule={"name": "constant"},
        augment=Choice([], ""),
        unused={
            name: _why_unused(column)
            for name, column in spare.items()
            if column.role not in ("split", "key")
        },
        hints=chosen.hints,
    )


def _name(survey: Survey) -> str:
    return re.sub(r"[^\w.-]+", "-", survey.table.stem).strip("-.") or "table"


def _size_image(image: Choice, survey: Survey, size: tuple[int, int]) -> Choice:
    pictures = survey.pictures
    assert pictures is not None
    high, wide = pictures.smallest, pictures.largest
    sizes = (
        f"all {high[0]} x {high[1]}"
        if pictures.same_size
        else f"{high[0]} x {high[1]} to {wide[0]} x {wide[1]}"
    )
    channels = say_count(pictures.channels, "channel")
    seen = f"{pictures.num_looked} of them were looked at: {channels} of {pictures.bits} bits"
    return Choice(
        {**image.value, "size": list(size)}, f"{image.why}; {seen}, {sizes} pixels (height x width)"
    )


def _choose_split(
    survey: Survey, goals: list[str], used: list[str], telling: Telling, unit: str = "row's inputs"
) -> Choice:
    names = survey.of_role("split")
    rest = (
        "" if survey.has_valid else "; no row validates, so the last weights are kept, not the best"
    )
    if len(names) == 1:
        return Choice(
            {"column": names[0]}, f"column {names[0]!r} {survey.columns[names[0]].why}{rest}"
        )
    if names:
        pattern = common_pattern(names, list(survey.columns))
        if pattern:
            text = (
                f"{len(names)} columns say train, valid or test: one run for each, and one that "
                f"has their mean{rest}"
            )
            return Choice({"column": pattern}, text)
        return Choice({"column": names[0]}, f"the first of the columns {', '.join(names)}{rest}")
    split: dict[str, Any] = {"valid": 0.1, "test": 0.2}
    key = telling.key
    what = f"row's {key!r}" if key else unit
    text = (
        f"no column says train, valid or test: a hash of each {what} decides, so that no row "
        "changes side"
    )
    groups = [
        name
        for name in survey.of_role("group")
        if name not in goals and survey.columns[name].num_values >= FEWEST_GROUPS
    ]
    # The hash of a picture alone is that of its pixels; beside other inputs, or under a key, its
    # rows would part.
    pictures = [
        survey.columns[name] for name in survey.of_role("image")[:1] if key or used != [name]
    ]
    groups += [one.name for one in pictures if one.num_values < survey.num_rows - one.num_missing]
    if groups:
        split["group"] = groups[0]
        text = (
            f"no column says train, valid or test: a hash decides; rows of one {groups[0]!r} stay "
            "on one side"
        )
    elif telling.why and not key:
        split["repeats"] = "apart"
        text = (
            f"no column says train, valid or test, and {telling.why}: rows of the same inputs go "
            "each by itself"
        )
    if survey.num_rows < 200:
        split["valid"] = 0.15
    return Choice(split, text)


def _choose_max_bad_rows(
    survey: Survey, goals: list[str], used: list[str], kind: str
) -> Choice | None:
    read = {
        *(() if KINDS[kind].has_tags else goals),
        *used,
        *survey.of_role("split"),
    }  # a row without tags is a good one
    missing = {name: survey.columns[name].num_missing for name in read}
    missing |= {name: num_bad_cells(survey.columns[name]) for name in used}
    num_bad = survey.num_bad_rows + survey.num_bad_files + survey.num_unread + sum(missing.values())
    if num_bad <= 0.005 * survey.num_rows:
        return None
    reasons = [f"{say_are(survey.num_bad_rows, 'row')} broken"] if survey.num_bad_rows else []
    reasons += (
        [f"{say_are(survey.num_bad_files, 'file')} not there"] if survey.num_bad_files else []
    )
    reasons += (
        [f"about {say_are(survey.num_unread, 'file')} no readable picture"]
        if survey.num_unread
        else []
    )
    for name, count in sorted(missing.items()):
        said = "no number" if name in used else "empty or no number"
        what = said if survey.columns[name].is_number else "empty"
        reasons += [f"{say_are(count, 'cell', f' of {name!r}')} {what}"] if count else []
    value = min(1.0, math.ceil(125 * num_bad / survey.num_rows + 2) / 100)
    return Choice(value, f"{'; '.join(reasons)}: such rows are left out")


def _hints(survey: Survey, goals: list[str], kind: str) -> list[str]:
    hints = []
    counts = (
        survey.classes[goals[0]].counts
        if KINDS[kind].is_one_class and goals[0] in survey.classes
        else {"": 0}
    )
    even, smallest = survey.num_rows / len(counts), min(counts.values())
    if len(counts) > 1 and 5 * smallest < even:
        hints.append(
            f"The rarest class has {say_count(int(smallest), 'row')}, an even share would be "
            f"{even:,.0f}. If rare "
            f"classes matter as much: class_weights: balanced"
        )
    return hints


def _why_unused(column: Column) -> str:
    if column.role == "name":
        return f"{column.why}; kind: text with tokens: characters would read its letters"
    if column.role == "image":
        return "a second column of pictures"
    if column.role == "group" and column.num_values < FEWEST_GROUPS:
        return (
            f"{column.why}; split.group would keep rows of one together, in parts of uneven sizes"
        )
    if column.role in ("group", "parts", "comma"):
        return column.why
    if column.role == "labels":
        return f"{column.why}, which can be learned, not seen"
    if column.num_missing:
        many = "more than half of all" if column.is_number else "and rows without it would be bad"
        return f"{say_are(column.num_missing, 'cell')} empty, {many}"
    if column.role == "category":
        return f"{column.why}, too many to be an input"
    return column.why


def _explain_no_input(survey: Survey, goals: list[str]) -> str:
    rest = [
        column
        for name, column in survey.columns.items()
        if name not in goals and column.role != "split"
    ]
    what = (
        "; ".join(f"column {column.name!r} {column.why}" for column in rest[:6])
        or "there is no other column"
    )
    return (
        f"{survey.table}: nothing is left that a model could see, beside the target "
        f"{', '.join(goals[:3])}: {what}. "
        f"Features are {KINDS_TEXT}"
    )


def default_path(table: Path) -> Path:
    """Where the recipe of a table goes.

    Beside it, under its name.
    """
    return table.with_suffix(".yaml")
