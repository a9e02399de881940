"""Drafts a recipe for a table that nobody described: what to learn from what, with which model, how long.

What the columns are is found out in `datasets/survey.py`; how the recipe is written, comments and all, stands in
`draft_text.py`. Each choice carries its reason.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..datasets.pictures import Pictures
from ..datasets.survey import (
    MOST_INPUT_VALUES,
    MOST_INTEGER_CLASSES,
    MOST_MISSING,
    TARGET_NAMES,
    Column,
    Survey,
    common_pattern,
)
from ..errors import DataError, RecipeError
from ..recipe import nearest
from .draft_points import choose_mirror
from .draft_triples import choose_for_triples

KINDS = (
    "image (a column of paths), text, number, category, labels (several tags in a cell, as target), points (columns "
    "NAME_x, NAME_y on an image)"
)

# Passes over the rows are planned for minutes on two cores. Measured there, rows a second: LeNet on 32 x 32 pixels
# 13,000; ResNet-18 on 64 x 64 pixels 170, and for other sizes in proportion to the pixels.
LENET_ROWS = 500_000
RESNET_ROWS = 80_000
MLP_STEPS = 6_000
TEXT_STEPS = 2_000
FEWEST_STEPS = 1_000

# A split by groups keeps its fractions only where there are many of them.
FEWEST_GROUPS = 20
# A column of numbers that lacks no more cells than these is an input of a small table, too; all columns together may
# make this fraction of the rows bad.
FEW_MISSING = 3
MOST_BAD_ROWS = 0.1


class Choice(NamedTuple):
    """A value of the recipe, and why it is so."""

    value: Any
    why: str


class Draft(NamedTuple):
    """A recipe before it is text.

    Attributes:
        name: of the recipe.
        inputs, target: features by name, as the recipe writes them, with reasons.
        split: the recipe's `data.split`.
        key: column that names a row; empty where there is none.
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
        DataError: nothing or too much could be the target, or no column is left that a model could see; says which
            columns there are and what to do.
    """
    if survey.triple is not None and target in ("", survey.triple.tail):
        return _draft_triples(survey)
    goals, target_why = _choose_target(survey, target)
    kind = _kind_of(survey, goals)
    inputs, used = _choose_inputs(survey, goals, kind)
    if not inputs:
        raise DataError(_explain_no_input(survey, goals))
    if kind in ("category", "labels"):  # each column is a target of its own
        features = {name: _describe_target(survey, [name], kind, target_why) for name in goals}
    else:
        features = {_target_name(goals, kind, inputs): _describe_target(survey, goals, kind, target_why)}
    num_train = max(1, round(survey.num_rows * (survey.train_fraction or 0.7)))
    batch_size = _choose_batch_size(num_train, is_table=survey.pictures is None)
    is_text = [choice.value["kind"] for choice in inputs.values()] == ["text"]
    if is_text:
        model, size, epochs, optimizer, schedule = _choose_text_training(num_train, batch_size)
    else:
        model, size, epochs, optimizer, schedule = _choose_training(survey, kind, num_train, batch_size)
    if "image" in inputs:
        inputs = {**inputs, "image": _size_image(inputs["image"], survey, size)}
    spare = {name: column for name, column in survey.columns.items() if name not in {*used, *goals}}
    key = next((name for name, column in spare.items() if column.role == "key"), "")
    split = _choose_split(survey, goals, used, key)
    unused = {name: _why_unused(column) for name, column in spare.items() if column.role not in ("split", "key")}
    unused.pop(split.value.get("group", ""), None)
    return Draft(
        survey=survey,
        name=_name(survey),
        inputs=inputs,
        target=features,
        split=split,
        key=key,
        max_bad_rows=_choose_max_bad_rows(survey, goals, used, kind),
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        augment=_choose_augment(survey, kind, goals, size),
        unused=unused,
        hints=_hints(survey, goals, kind),
    )


def _draft_triples(survey: Survey) -> Draft:
    """Head and relation in, the tail to be ranked among all entities."""
    triple = survey.triple
    assert triple is not None
    parts = [triple.head, triple.relation, triple.tail]
    chosen = choose_for_triples(triple, max(1, round(survey.num_rows * (survey.train_fraction or 0.7))))
    spare = {name: column for name, column in survey.columns.items() if name not in parts}
    key = next((name for name, column in spare.items() if column.role == "key"), "")
    why = f"columns {', '.join(map(repr, parts))} {triple.why}"
    shared = f"entities, of which there are {triple.num_entities:,}: head and tail share the vocabulary"
    return Draft(
        survey=survey,
        name=_name(survey),
        inputs={
            triple.head: Choice(chosen.entity, f"{why}; {shared}"),
            triple.relation: Choice(chosen.relation, f"column {triple.relation!r}, asked forwards and backwards"),
        },
        target={triple.tail: Choice(chosen.entity, "ranked among all entities")},
        split=_choose_split(survey, parts, [], key, unit="fact"),
        key=key,
        max_bad_rows=_choose_max_bad_rows(survey, parts, [], "entity"),
        model=Choice(chosen.model, chosen.model_why),
        epochs=Choice(chosen.epochs, chosen.epochs_why),
        batch_size=chosen.batch_size,
        optimizer=Choice(chosen.optimizer, ""),
        schedule={"name": "constant"},
        augment=Choice([], ""),
        unused={name: _why_unused(column) for name, column in spare.items() if column.role not in ("split", "key")},
        hints=chosen.hints,
    )


def _name(survey: Survey) -> str:
    return re.sub(r"[^\w.-]+", "-", survey.table.stem).strip("-.") or "table"


def _kind_of(survey: Survey, goals: list[str]) -> str:
    """What all of the target's columns can be."""
    roles = {survey.columns[name].role for name in goals}
    return next((kind for kind in ("points", "number", "labels") if kind in roles), "category")


def _choose_target(survey: Survey, wanted: str) -> tuple[list[str], str]:
    """The columns to learn, and why they."""
    columns = survey.columns
    points = survey.of_role("points")
    if wanted:
        if wanted not in columns:
            raise RecipeError(f"--target {wanted}: {survey.table} has no such column; {nearest(wanted, columns)}")
        column = columns[wanted]
        if column.role == "points":
            return points, "one of them was named by --target"
        if column.role in ("image", "text", "unspaced", "name", "comma", "constant", "split") or (
            column.role in ("id", "key") and not column.is_number
        ):
            raise DataError(
                f"--target {wanted}: that column cannot be learned, as it {column.why}; {_candidates(survey)}"
            )
        if column.role in ("id", "key"):
            columns[wanted] = column._replace(role="number")
        if column.role == "parts":
            is_quantity = column.is_number and column.num_values > MOST_INTEGER_CLASSES
            columns[wanted] = column._replace(role="number" if is_quantity else "category")
        return [wanted], "named by --target"
    able = {name: column for name, column in columns.items() if column.role in ("category", "labels", "number")}
    named = [name for name in able if TARGET_NAMES.fullmatch(name)]
    series = len(named) > 1 and all(re.fullmatch(r"y_?\d+", name, re.IGNORECASE) for name in named)
    if series and all(able[name].is_number for name in named):
        return named, "their names say so"
    if len(named) == 1 and not points:
        return named, "its name says so"
    if points and not named:
        return points, "from x and y on a picture"
    names = [name for name, column in able.items() if not column.is_number]
    beside = "pictures" if survey.pictures else "texts" if survey.of_role("text", "unspaced") else ""
    if not named and len(able) == 1 and beside:
        return list(able), f"the only column beside the {beside} that can be learned"
    if not named and len(names) == 1:
        return names, "the only column of names that repeat"
    raise DataError(f"{survey.table}: which column is to be learned? {_candidates(survey, named)}")


def _candidates(survey: Survey, named: list[str] | None = None) -> str:
    able = [*(named or survey.of_role("category", "labels", "number")), *survey.of_role("points")]
    if not able:
        said = "; ".join(f"{column.name!r} {column.why}" for column in list(survey.columns.values())[:8])
        return f"no column can be: {said}"
    some = ", ".join(able[:8]) + (", …" if len(able) > 8 else "")
    points = survey.of_role("points")
    together = f" (the {_count(len(points) // 2, 'point')} of {points[0]} together)" if points else ""
    return f"it could be {some}{together}; say which: torchrelay init {survey.table.name} --target {able[-1]}"


def _choose_inputs(survey: Survey, goals: list[str], kind: str) -> tuple[dict[str, Choice], list[str]]:
    """The inputs by name, and the columns that they read."""
    inputs: dict[str, Choice] = {}
    used: list[str] = []
    images = survey.of_role("image")[:1]
    if images and survey.pictures is not None:
        [column] = images
        inputs["image"] = Choice(_image_feature(column, survey), f"column {column!r} {survey.columns[column].why}")
        used.append(column)
    numbers = _choose_numbers(survey, goals)
    if numbers:
        columns = _write_columns(numbers, survey)
        wanted = [columns.removesuffix("*").rstrip("_-.")] if isinstance(columns, str) else []
        name = _first_free([*filter(None, wanted), "numbers", "inputs", "features"], {*goals, *inputs, "points"})
        feature = {"kind": "number"} if columns == name else {"kind": "number", "columns": columns}
        inputs[name] = Choice(feature, f"{_count(numbers, 'column')} of numbers")
        used += numbers
    for name, column in survey.columns.items():
        if name not in goals and _is_category_input(column):
            free = _first_free([name], {*goals, *inputs, "points"})
            feature = {"kind": "category"} if free == name else {"kind": "category", "columns": name}
            inputs[free] = Choice(feature, f"column {name!r} {column.why}")
            used.append(name)
    texts = _choose_texts(survey, goals, {*goals, *inputs, "points"}, alone=not inputs)
    return {**inputs, **{name: choice for name, (choice, _) in texts.items()}}, [
        *used,
        *(column for _, column in texts.values()),
    ]


def _choose_texts(
    survey: Survey, goals: list[str], taken: Collection[str], *, alone: bool
) -> dict[str, tuple[Choice, str]]:
    """The columns of texts, by the names of their features; where there is no other input, one of names."""
    most_missing = max(FEW_MISSING, MOST_BAD_ROWS * survey.num_rows)
    able = [name for name in survey.of_role("text", "unspaced") if survey.columns[name].num_missing <= most_missing]
    if alone and not able:
        able = [name for name in survey.of_role("name") if survey.columns[name].num_missing <= most_missing][:1]
    found: dict[str, tuple[Choice, str]] = {}
    for column in able:
        if column in goals:
            continue
        name = _first_free([column], {*taken, *found})
        feature: dict[str, Any] = {"kind": "text"}
        if name != column:
            feature["columns"] = column
        what = "words are counted"
        if survey.columns[column].role != "text":
            feature |= {"tokens": "characters", "ngrams": [1, 3]}
            what = "runs of one to three characters are counted"
        found[name] = Choice(feature, f"column {column!r} {survey.columns[column].why}; its {what}"), column
    return found


def _choose_numbers(survey: Survey, goals: list[str]) -> list[str]:
    """The columns of numbers that lack few cells, the fullest first where all of them would cost too many rows."""
    able = [
        column
        for name, column in survey.columns.items()
        if name not in goals
        and (column.role in ("number", "points") or (column.role == "category" and column.is_number))
        and column.num_missing <= max(FEW_MISSING, MOST_MISSING * survey.num_rows)
    ]
    fullest = sorted(able, key=lambda column: column.num_missing)
    lost = itertools.accumulate(column.num_missing for column in fullest)
    kept = {
        column.name
        for column, num_lost in zip(fullest, lost, strict=True)
        if num_lost <= max(FEW_MISSING, MOST_BAD_ROWS * survey.num_rows)
    }
    return [column.name for column in able if column.name in kept]


def _is_category_input(column: Column) -> bool:
    is_name = column.role == "category" and not column.is_number
    return is_name and column.num_values <= MOST_INPUT_VALUES and not column.num_missing


def _first_free(options: Sequence[str], taken: Collection[str]) -> str:
    """The first name that is not taken; else the first one with a number."""
    numbered = (f"{options[0]}_{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain(options, numbered) if name not in taken)


def _write_columns(names: list[str], survey: Survey) -> str | list[str]:
    """One column's name, a pattern that fits these columns alone, or all their names."""
    if len(names) == 1:
        return names[0]
    return common_pattern(names, list(survey.columns)) or names


def _target_name(goals: list[str], kind: str, inputs: dict[str, Choice]) -> str:
    if kind == "points":
        return "points"
    if len(goals) == 1:
        return goals[0]
    return _first_free(("y", "target"), inputs)


def _describe_target(survey: Survey, goals: list[str], kind: str, why: str) -> Choice:
    column = survey.columns[goals[0]]
    feature: dict[str, Any] = {"kind": kind}
    if column.separator not in ("", ","):
        feature["separator"] = column.separator
    if len(goals) > 1:
        feature["columns"] = _write_columns(goals, survey)
    if kind != "points":
        what = f"{_count(goals, 'column')}" if len(goals) > 1 else f"column {goals[0]!r}"
        other = "; as a quantity it would be kind: number" if kind == "category" and column.is_number else ""
        article = "" if kind == "labels" else "a "
        return Choice(feature, f"{what}, {why}: {article}{kind}, as it {column.why}{other}")
    text = f"{_count(len(goals) // 2, 'point')}, {why}"
    mirror = choose_mirror(goals)
    return Choice({**feature, **mirror.settings}, f"{text}. {mirror.why}" if mirror.why else text)


def _image_feature(column: str, survey: Survey) -> dict[str, Any]:
    pictures = survey.pictures
    assert pictures is not None
    feature: dict[str, Any] = {"kind": "image"}
    if column != "image":
        feature["columns"] = column
    known = {1: "gray", 3: "rgb"} | ({4: "rgb"} if pictures.bits == 8 else {})
    feature["channels"] = known.get(pictures.channels, pictures.channels)
    if pictures.bits > 8:
        feature["dtype"] = "uint16" if pictures.bits == 16 else "float32"
    return feature


def _size_image(image: Choice, survey: Survey, size: tuple[int, int]) -> Choice:
    pictures = survey.pictures
    assert pictures is not None
    high, wide = pictures.smallest, pictures.largest
    sizes = f"all {high[0]} x {high[1]}" if pictures.same_size else f"{high[0]} x {high[1]} to {wide[0]} x {wide[1]}"
    seen = (
        f"{pictures.num_looked} of them were looked at: {_count(pictures.channels, 'channel')} of {pictures.bits} bits"
    )
    return Choice({**image.value, "size": list(size)}, f"{image.why}; {seen}, {sizes} pixels (height x width)")


def _choose_split(survey: Survey, goals: list[str], used: list[str], key: str, unit: str = "row's inputs") -> Choice:
    names = survey.of_role("split")
    rest = "" if survey.has_valid else "; no row validates, so the last weights are kept, not the best"
    if len(names) == 1:
        return Choice({"column": names[0]}, f"column {names[0]!r} {survey.columns[names[0]].why}{rest}")
    if names:
        pattern = common_pattern(names, list(survey.columns))
        if pattern:
            text = f"{len(names)} columns say train, valid or test: one run for each, and one that has their mean{rest}"
            return Choice({"column": pattern}, text)
        return Choice({"column": names[0]}, f"the first of the columns {', '.join(names)}{rest}")
    split: dict[str, Any] = {"valid": 0.1, "test": 0.2}
    what = f"row's {key!r}" if key else unit
    text = f"no column says train, valid or test: a hash of each {what} decides, so that no row changes side"
    groups = [
        name
        for name in survey.of_role("group")
        if name not in goals and survey.columns[name].num_values >= FEWEST_GROUPS
    ]
    # The hash of a picture alone is that of its pixels; beside other inputs, or under a key, its rows would part.
    pictures = [survey.columns[name] for name in survey.of_role("image")[:1] if key or used != [name]]
    groups += [one.name for one in pictures if one.num_values < survey.num_rows - one.num_missing]
    if groups:
        split["group"] = groups[0]
        text = f"no column says train, valid or test: a hash decides; rows of one {groups[0]!r} stay on one side"
    if survey.num_rows < 200:
        split["valid"] = 0.15
    return Choice(split, text)


def _choose_batch_size(num_train: int, *, is_table: bool) -> int:
    if is_table:
        return 32 if num_train < 10_000 else 256
    return 16 if num_train < 500 else 32 if num_train < 2_000 else 64


def _choose_training(
    survey: Survey, kind: str, num_train: int, batch_size: int
) -> tuple[Choice, tuple[int, int], Choice, Choice, dict[str, Any]]:
    """Model, size of the image, epochs, optimizer and schedule."""
    pictures = survey.pictures
    adamw = Choice({"name": "adamw", "args": {"lr": 0.003}}, "")
    if pictures is None:
        epochs = min(200, max(5, round(MLP_STEPS * batch_size / num_train)))
        model = Choice({"name": "mlp", "args": {"hidden": [128, 128]}}, "rows of numbers, categories and texts")
        why = f"about {MLP_STEPS:,} steps, at most 200 epochs"
        return model, (0, 0), Choice(epochs, why), adamw, {"name": "cosine"}
    side = max(pictures.height, pictures.width)
    few = Choice(min(30, max(5, round(LENET_ROWS / num_train))), f"{num_train:,} rows train; a minute or two on a CPU")
    is_plain = kind in ("category", "labels") and pictures.bits == 8
    if is_plain and pictures.channels == 1 and side <= 64:
        return Choice({"name": "lenet"}, "small gray pictures"), (32, 32), few, adamw, {"name": "one_cycle"}
    if is_plain and pictures.channels in (3, 4) and side <= 48:
        args = {"lr": 0.03, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}
        model = Choice({"name": "cifar_net"}, "small colour pictures")
        return model, (32, 32), few, Choice({"name": "sgd", "args": args}, ""), {"name": "one_cycle"}
    longest = max(30, min(300, round(FEWEST_STEPS * batch_size / num_train)))
    pixels = next((one for one in (128, 96) if RESNET_ROWS * (64 / one) ** 2 >= 20 * num_train), 64)
    epochs = min(longest, max(3, round(RESNET_ROWS * (64 / pixels) ** 2 / num_train)))
    size = _fit_size(pixels, pictures.height, pictures.width)
    model = Choice({"name": "torchvision:resnet18"}, _why_resnet(kind, pictures, size))
    text = f"{num_train:,} rows train; some minutes on a CPU, where larger pictures would take longer"
    optimizer = Choice({"name": "adamw", "args": {"lr": 0.001}}, "")
    return model, size, Choice(epochs, text), optimizer, {"name": "one_cycle"}


def _choose_text_training(
    num_train: int, batch_size: int
) -> tuple[Choice, tuple[int, int], Choice, Choice, dict[str, Any]]:
    """As `_choose_training`, where the one input is a text."""
    model = Choice({"name": "bag_of_words"}, "one text: logistic regression over how often each token stands in it")
    num_epochs = min(60, max(3, round(TEXT_STEPS * batch_size / num_train)))
    epochs = Choice(num_epochs, f"about {TEXT_STEPS:,} steps, 3 to 60 epochs")
    return model, (0, 0), epochs, Choice({"name": "adamw", "args": {"lr": 0.01}}, ""), {"name": "cosine"}


def _why_resnet(kind: str, pictures: Pictures, size: tuple[int, int]) -> str:
    """What the nets for small pictures were not chosen for, and what becomes of the pictures' size."""
    if pictures.bits != 8:
        what = f"pictures of {pictures.bits} bits"
    elif pictures.channels not in (1, 3, 4):
        what = f"pictures of {_count(pictures.channels, 'channel')}"
    elif kind not in ("category", "labels"):
        what = f"{'points' if kind == 'points' else 'numbers'} to be told from pictures"
    else:
        what = f"pictures of more than {64 if pictures.channels == 1 else 48} pixels"
    pixels, new = pictures.height * pictures.width, size[0] * size[1]
    if pictures.same_size and size == (pictures.height, pictures.width):
        return what
    how = "shrunk" if new < pixels else "enlarged" if new > pixels else "brought"
    return f"{what}, here {how} to {size[0]} x {size[1]}"


def _fit_size(pixels: int, height: int, width: int) -> tuple[int, int]:
    """About pixels² pixels in the pictures' own proportion, in steps of 16, and not more than they have."""
    scale = min(1.0, pixels / math.sqrt(height * width))
    ratio = height / width
    if 0.8 < ratio < 1.25:
        side = max(32, round(scale * math.sqrt(height * width) / 16) * 16)
        return side, side
    return max(32, round(scale * height / 16) * 16), max(32, round(scale * width / 16) * 16)


def _choose_augment(survey: Survey, kind: str, goals: list[str], size: tuple[int, int]) -> Choice:
    pictures = survey.pictures
    if pictures is None:
        return Choice([], "")
    crop = {"name": "crop", "args": {"padding": max(2, min(size) // 16)}}
    if kind == "points":
        if why := choose_mirror(goals).augment_why:
            return Choice([{"name": "flip"}, crop], why)
        return Choice([crop], "no flip: which points change places in a mirror is not known; say it in swap")
    if pictures.channels == 1:
        return Choice([], "no flip: mirrored letters, digits or scans may be others")
    if min(size) <= 32:
        return Choice([{"name": "flip"}], "a mirrored photograph is one as well; not so for text: then take flip out")
    return Choice([{"name": "flip"}, crop], "a mirrored photograph is one as well; not so for text: then take flip out")


def _choose_max_bad_rows(survey: Survey, goals: list[str], used: list[str], kind: str) -> Choice | None:
    read = {*(goals if kind != "labels" else ()), *used, *survey.of_role("split")}  # a row without tags is a good one
    missing = {name: survey.columns[name].num_missing for name in read}
    rare = {name: survey.num_rare[name] for name in goals if survey.num_rare.get(name)} if kind == "category" else {}
    num_bad = survey.num_bad_files + survey.num_unread + sum(missing.values()) + sum(rare.values())
    if num_bad <= 0.005 * survey.num_rows:
        return None
    reasons = [f"{_are(survey.num_bad_files, 'file')} not there"] if survey.num_bad_files else []
    reasons += [f"about {_are(survey.num_unread, 'file')} no readable picture"] if survey.num_unread else []
    for name, count in sorted(missing.items()):
        what = "empty or no number" if survey.columns[name].is_number else "empty"
        reasons += [f"{_are(count, 'cell', f' of {name!r}')} {what}"] if count else []
    reasons += [
        f"{_are(count, 'row', f' of {name!r}')} in classes of one or two rows, which may get no training row"
        for name, count in rare.items()
    ]
    value = min(1.0, math.ceil(125 * num_bad / survey.num_rows + 2) / 100)
    return Choice(value, f"{'; '.join(reasons)}: such rows are left out")


def _hints(survey: Survey, goals: list[str], kind: str) -> list[str]:
    hints = []
    even = survey.num_rows / max(1, survey.columns[goals[0]].num_values)
    smallest = survey.smallest_class.get(goals[0], even)
    if kind == "category" and 5 * smallest < even:
        hints.append(
            f"The rarest class has {_count(int(smallest), 'row')}, an even share would be {even:,.0f}. If rare classes "
            f"matter as much: class_weights: balanced"
        )
    return hints


def _why_unused(column: Column) -> str:
    if column.role == "name":
        return f"{column.why}; kind: text with tokens: characters would read its letters"
    if column.role == "image":
        return "a second column of pictures"
    if column.role == "group" and column.num_values < FEWEST_GROUPS:
        return f"{column.why}; split.group would keep rows of one together, in parts of uneven sizes"
    if column.role in ("group", "parts", "comma"):
        return column.why
    if column.role == "labels":
        return f"{column.why}, which can be learned, not seen"
    if column.num_missing:
        return f"{_are(column.num_missing, 'cell')} empty, and rows without it would be bad"
    if column.role == "category":
        return f"{column.why}, too many to be an input"
    return column.why


def _explain_no_input(survey: Survey, goals: list[str]) -> str:
    rest = [column for name, column in survey.columns.items() if name not in goals and column.role != "split"]
    what = "; ".join(f"column {column.name!r} {column.why}" for column in rest[:6]) or "there is no other column"
    return (
        f"{survey.table}: nothing is left that a model could see, beside the target {', '.join(goals[:3])}: {what}. "
        f"Features are {KINDS}"
    )


def _count(things: Any, noun: str) -> str:
    number = things if isinstance(things, int) else len(things)
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _are(number: int, noun: str, of: str = "") -> str:
    return f"{_count(number, noun)}{of} {'is' if number == 1 else 'are'}"


def default_path(table: Path) -> Path:
    """Where the recipe of a table goes: beside it, under its name."""
    return table.with_suffix(".yaml")
