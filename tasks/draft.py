"""Drafts a recipe for a table that nobody described: what to learn from what, with which model, how long.

What the columns are is found out in `datasets/survey.py`; how the recipe is written, comments and all, stands in
`draft_text.py`. Each choice carries its reason.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..datasets.survey import (
    MOST_INPUT_VALUES,
    MOST_MISSING,
    TARGET_NAMES,
    Column,
    Survey,
    common_pattern,
    find_triple,
)
from ..errors import DataError, RecipeError
from ..recipe import nearest

KINDS = "image (a column of paths), number, category, points (columns NAME_x, NAME_y on an image)"

# Passes over the rows are planned for minutes on two cores. Measured there, rows a second: LeNet on 32 x 32 pixels
# 13,000; ResNet-18 on 64 x 64 pixels 170, and for other sizes in proportion to the pixels.
LENET_ROWS = 500_000
RESNET_ROWS = 80_000
MLP_STEPS = 6_000
FEWEST_STEPS = 1_000

# The 68 points of iBUG 300-W (Sagonas et al. 2013, "300 Faces in-the-Wild Challenge", figure 1), counted from 0: jaw 0
# to 16, brows 17 to 26, nose 27 to 35, eyes 36 to 47, mouth 48 to 67. Pairs that change places in a mirror; the
# points on the middle line are in none.
FACE_POINTS = 68
FACE_SWAP = [
    *([left, 16 - left] for left in range(8)),
    *([left, 43 - left] for left in range(17, 22)),
    [31, 35], [32, 34],
    [36, 45], [37, 44], [38, 43], [39, 42], [40, 47], [41, 46],
    [48, 54], [49, 53], [50, 52], [55, 59], [56, 58],
    [60, 64], [61, 63], [65, 67],
]  # fmt: skip
# The outer corners of the eyes, whose distance is the unit of the challenge's error.
FACE_NORMALISE_BY = [36, 45]


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
    goals, target_why = _choose_target(survey, target)
    kind = "points" if survey.columns[goals[0]].role == "points" else _kind_of(survey.columns[goals[0]])
    inputs, used = _choose_inputs(survey, goals, kind)
    if not inputs:
        raise DataError(_explain_no_input(survey, goals))
    features = {_target_name(survey, goals, kind, inputs): _describe_target(survey, goals, kind, target_why, inputs)}
    num_train = max(1, round(survey.num_rows * (survey.train_fraction or 0.7)))
    batch_size = _choose_batch_size(num_train, is_table=survey.pictures is None)
    model, size, epochs, optimizer, schedule = _choose_training(survey, kind, num_train, batch_size)
    if "image" in inputs:
        inputs = {**inputs, "image": _size_image(inputs["image"], survey, size)}
    spare = {name: column for name, column in survey.columns.items() if name not in {*used, *goals}}
    return Draft(
        survey=survey,
        name=re.sub(r"[^\w.-]+", "-", survey.table.stem).strip("-.") or "table",
        inputs=inputs,
        target=features,
        split=_choose_split(survey, goals),
        key=next((name for name, column in spare.items() if column.role == "key"), ""),
        max_bad_rows=_choose_max_bad_rows(survey, goals, used),
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        augment=_choose_augment(survey, kind, features, size),
        unused={
            name: _why_unused(column) for name, column in spare.items() if column.role not in ("split", "key", "group")
        },
        hints=_hints(survey, goals, kind),
    )


def _kind_of(column: Column) -> str:
    return "number" if column.role == "number" else "category"


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
        if column.role in ("image", "text", "constant", "split") or (
            column.role in ("id", "key") and not column.is_number
        ):
            raise DataError(
                f"--target {wanted}: that column cannot be learned, as it {column.why}; {_candidates(survey)}"
            )
        if column.role in ("id", "key"):
            columns[wanted] = column._replace(role="number")
        return [wanted], "named by --target"
    able = {name: column for name, column in columns.items() if column.role in ("category", "number")}
    named = [name for name in able if TARGET_NAMES.fullmatch(name)]
    series = len(named) > 1 and all(re.fullmatch(r"y_?\d+", name, re.IGNORECASE) for name in named)
    if series and all(able[name].is_number for name in named):
        return named, "their names say so"
    if len(named) == 1 and not points:
        return named, "its name says so"
    if points and not named:
        return points, "pairs of x and y on a picture"
    names = [name for name, column in able.items() if not column.is_number]
    if not named and len(able) == 1 and survey.pictures:
        return list(able), "the only column beside the pictures that can be learned"
    if not named and len(names) == 1:
        return names, "the only column of names that repeat"
    raise DataError(f"{survey.table}: which column is to be learned? {_candidates(survey, named)}")


def _candidates(survey: Survey, named: list[str] | None = None) -> str:
    able = named or [name for name, column in survey.columns.items() if column.role in ("category", "number", "points")]
    if not able:
        said = "; ".join(f"{column.name!r} {column.why}" for column in list(survey.columns.values())[:8])
        return f"no column can be: {said}"
    some = ", ".join(able[:8]) + (", …" if len(able) > 8 else "")
    return f"it could be {some}; say which: torchrelay init {survey.table.name} --target {able[-1]}"


def _choose_inputs(survey: Survey, goals: list[str], kind: str) -> tuple[dict[str, Choice], list[str]]:
    """The inputs by name, and the columns that they read."""
    inputs: dict[str, Choice] = {}
    used: list[str] = []
    images = survey.of_role("image")[:1]
    if images and survey.pictures is not None:
        [column] = images
        inputs["image"] = Choice(_image_feature(column, survey), f"column {column!r} {survey.columns[column].why}")
        used.append(column)
    numbers = [
        name for name, column in survey.columns.items() if _is_number_input(column, survey) and name not in goals
    ]
    if numbers:
        columns = _write_columns(numbers, survey)
        name = _free_name(columns.removesuffix("*").rstrip("_-.") if isinstance(columns, str) else "", goals, inputs)
        feature = {"kind": "number"} if columns == name else {"kind": "number", "columns": columns}
        inputs[name] = Choice(feature, f"{_count(numbers, 'column')} of numbers")
        used += numbers
    for name, column in survey.columns.items():
        if name not in goals and _is_category_input(column):
            inputs[_free_name(name, goals, inputs)] = Choice({"kind": "category"}, f"column {name!r} {column.why}")
            used.append(name)
    return inputs, used


def _is_number_input(column: Column, survey: Survey) -> bool:
    is_number = column.role in ("number", "points") or (column.role == "category" and column.is_number)
    return is_number and column.num_missing <= MOST_MISSING * survey.num_rows


def _is_category_input(column: Column) -> bool:
    is_name = column.role == "category" and not column.is_number
    return is_name and column.num_values <= MOST_INPUT_VALUES and not column.num_missing


def _free_name(wanted: str, goals: list[str], inputs: dict[str, Choice]) -> str:
    taken = {*goals, *inputs, "points"}
    options = (wanted, "numbers", "inputs", "features") if wanted else ("numbers", "inputs", "features")
    return next(name for name in options if name not in taken)


def _write_columns(names: list[str], survey: Survey) -> str | list[str]:
    """One column's name, a pattern that fits these columns alone, or all their names."""
    if len(names) == 1:
        return names[0]
    return common_pattern(names, list(survey.columns)) or names


def _target_name(survey: Survey, goals: list[str], kind: str, inputs: dict[str, Choice]) -> str:
    if kind == "points":
        return "points"
    if len(goals) == 1:
        return goals[0]
    return "y" if "y" not in inputs else "target"


def _describe_target(survey: Survey, goals: list[str], kind: str, why: str, inputs: dict[str, Choice]) -> Choice:
    column = survey.columns[goals[0]]
    feature: dict[str, Any] = {"kind": kind}
    if len(goals) > 1:
        feature["columns"] = _write_columns(goals, survey)
    if kind != "points":
        what = f"{_count(goals, 'column')}" if len(goals) > 1 else f"column {goals[0]!r}"
        other = "; as a quantity it would be kind: number" if kind == "category" and column.is_number else ""
        return Choice(feature, f"{what}, {why}: a {kind}, as it {column.why}{other}")
    text = f"{len(goals) // 2} points, {why}"
    if len(goals) == 2 * FACE_POINTS:
        feature |= {"swap": FACE_SWAP, "normalise_by": FACE_NORMALISE_BY}
        text += (
            ". 68 are taken for the face of iBUG 300-W (Sagonas et al. 2013): swap are its pairs of left and right, "
            "normalise_by the outer corners of the eyes"
        )
    return Choice(feature, text)


def _image_feature(column: str, survey: Survey) -> dict[str, Any]:
    pictures = survey.pictures
    assert pictures is not None
    feature: dict[str, Any] = {"kind": "image"}
    if column != "image":
        feature["columns"] = column
    known = {1: "gray", 3: "rgb", 4: "rgb"}
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


def _choose_split(survey: Survey, goals: list[str]) -> Choice:
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
    text = "no column says train, valid or test: a hash of each row's inputs decides, so that no row changes side"
    groups = [name for name in survey.of_role("group") if name not in goals]
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
        model = Choice({"name": "mlp", "args": {"hidden": [128, 128]}}, "rows of numbers and categories")
        why = f"about {MLP_STEPS:,} steps, at most 200 epochs"
        return model, (0, 0), Choice(epochs, why), adamw, {"name": "cosine"}
    side = max(pictures.height, pictures.width)
    few = Choice(min(30, max(5, round(LENET_ROWS / num_train))), f"{num_train:,} rows train; a minute or two on a CPU")
    is_plain = kind == "category" and pictures.bits == 8
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
    model = Choice(
        {"name": "torchvision:resnet18"}, f"pictures of more than 48 pixels, here shrunk to {size[0]} x {size[1]}"
    )
    text = f"{num_train:,} rows train; some minutes on a CPU, where larger pictures would take longer"
    optimizer = Choice({"name": "adamw", "args": {"lr": 0.001}}, "")
    return model, size, Choice(epochs, text), optimizer, {"name": "one_cycle"}


def _fit_size(pixels: int, height: int, width: int) -> tuple[int, int]:
    """About pixels² pixels in the pictures' own proportion, in steps of 16, and not more than they have."""
    scale = min(1.0, pixels / math.sqrt(height * width))
    ratio = height / width
    if 0.8 < ratio < 1.25:
        side = max(32, round(scale * math.sqrt(height * width) / 16) * 16)
        return side, side
    return max(32, round(scale * height / 16) * 16), max(32, round(scale * width / 16) * 16)


def _choose_augment(survey: Survey, kind: str, target: dict[str, Choice], size: tuple[int, int]) -> Choice:
    pictures = survey.pictures
    if pictures is None:
        return Choice([], "")
    crop = {"name": "crop", "args": {"padding": max(2, min(size) // 16)}}
    if kind == "points":
        [feature] = target.values()
        if "swap" in feature.value:
            return Choice([{"name": "flip"}, crop], "mirrored faces are faces: the points in swap change places")
        return Choice([crop], "no flip: which points change places in a mirror is not known; say it in swap")
    if pictures.channels == 1:
        return Choice([], "no flip: mirrored letters, digits or scans may be others")
    if min(size) <= 32:
        return Choice([{"name": "flip"}], "a mirrored photograph is one as well; not so for text: then take flip out")
    return Choice([{"name": "flip"}, crop], "a mirrored photograph is one as well; not so for text: then take flip out")


def _choose_max_bad_rows(survey: Survey, goals: list[str], used: list[str]) -> Choice | None:
    missing = {name: survey.columns[name].num_missing for name in {*goals, *used}}
    rare = [name for name in goals if 0 < survey.smallest_class.get(name, 9) < 3]
    num_bad = survey.num_bad_files + sum(missing.values())
    if num_bad + len(rare) <= 0.005 * survey.num_rows:
        return None
    reasons = [f"{survey.num_bad_files:,} files are not there"] if survey.num_bad_files else []
    reasons += [f"{count:,} cells of {name!r} are empty" for name, count in sorted(missing.items()) if count]
    reasons += [f"{name!r} has classes of one or two rows, which may get no training row" for name in rare]
    value = min(1.0, math.ceil(125 * num_bad / survey.num_rows + 2) / 100)
    return Choice(value, f"{'; '.join(reasons)}: such rows are left out")


def _hints(survey: Survey, goals: list[str], kind: str) -> list[str]:
    smallest = survey.smallest_class.get(goals[0], 0)
    even = survey.num_rows / max(1, survey.columns[goals[0]].num_values)
    if kind == "category" and 5 * smallest < even:
        return [
            f"The rarest class has {smallest:,} rows, an even share would be {even:,.0f}. If rare classes matter as "
            f"much: class_weights: balanced"
        ]
    return []


def _why_unused(column: Column) -> str:
    if column.role == "text":
        return f"{column.why}; text is not a feature yet"
    if column.role == "image":
        return "a second column of pictures"
    if column.num_missing:
        return f"{column.num_missing:,} cells are empty, and rows without it would be bad"
    if column.role == "category":
        return f"{column.why}, too many to be an input"
    return column.why


def _explain_no_input(survey: Survey, goals: list[str]) -> str:
    rest = [column for name, column in survey.columns.items() if name not in goals and column.role != "split"]
    triple = find_triple(list(survey.columns))
    if triple:
        what = f"{', '.join(triple)} look like triples (head, relation, tail), which are not features yet"
    else:
        said = "; ".join(f"column {column.name!r} {column.why}" for column in rest[:6]) or "there is no other column"
        what = f"{said}. Texts are not features yet" if any(one.role == "text" for one in rest) else said
    return (
        f"{survey.table}: nothing is left that a model could see, beside the target {', '.join(goals[:3])}: {what}. "
        f"Features are {KINDS}"
    )


def _count(things: Any, noun: str) -> str:
    number = things if isinstance(things, int) else len(things)
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def default_path(table: Path) -> Path:
    """Where the recipe of a table goes: beside it, under its name."""
    return table.with_suffix(".yaml")
