"""Reads, checks and writes the YAML file of a recipe, and its overrides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ..addresses import hide_in_values
from ..disk import open_file
from ..errors import RecipeError, check_format, shown_value
from .model import FORMAT_VERSION, WEIGHTS_SUFFIXES, Recipe, nearest
from .yaml import MOST_BYTES, MOST_LEVELS, Dumper, check_bounds, parse_yaml

# Runs of one command: combinations of the values of several --set.
MOST_RUNS = 1_000
# Mistakes that one message names.
MOST_MISTAKES = 20
# Characters of a key or a path in a message.
MOST_OF_A_KEY = 120


def load_recipe(
    file: str | Path = "", fields: Recipe | None = None, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe from its file, the fields that were set, and overrides.

    Each goes over what comes before it.

    Args:
        file: YAML file; its relative paths are made absolute against its own folder. Empty means
            none.
        fields: values that go over the file's; their relative paths start at the working directory.
        overrides: dotted keys, for example {"train.epochs": 3}.
    Raises:
        RecipeError: the file cannot be read or a key or value is not legal; names all of them at
            once.
    """
    values: dict[str, Any] = {}
    place = "recipe"
    if str(file):
        path = Path(file)
        place = shown_path(path)
        values = _read_file(path)
        _make_absolute(values, path.absolute().parent)
    if fields is not None:
        over = fields.model_dump(exclude_unset=True, by_alias=True)
        _make_absolute(over, Path.cwd())
        _merge(values, over)
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    check_bounds(values, place)
    _make_absolute(values, Path.cwd())
    return _validate(values, place)


def parse_overrides(items: list[str] | tuple[str, ...]) -> list[dict[str, Any]]:
    """Read `--set` items.

    Several values of an item, as in `train.seed=0,1,2`, give one dict for each combination.

    Raises:
        RecipeError: an item is not `key=value`, or they make more runs than anybody means.
    """
    keys: list[str] = []
    choices: list[list[Any]] = []
    for item in items:
        key, sign, text = item.partition("=")
        if not sign or not key.strip():
            raise RecipeError(
                f"--set {_cut(item)}: expected KEY=VALUE, for example --set train.epochs=3"
            )
        keys.append(key.strip())
        choices.append(
            [
                parse_yaml(part, f"--set {_cut(item)}") if part else ""
                for part in _split_values(text)
            ]
        )
    num_runs = math.prod(map(len, choices))
    if num_runs > MOST_RUNS:
        raise RecipeError(
            f"--set: these values make {num_runs:,} runs, more than {MOST_RUNS:,}; give fewer at a "
            "time"
        )
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*choices)]


def parse_renames(items: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Read `--rename` items, such as `backbone.*=*`, for `warm_start.rename`.

    Raises:
        RecipeError: an item is not `from=to`, or gives a pattern twice.
    """
    renames: dict[str, str] = {}
    for item in items:
        pattern, sign, replacement = item.partition("=")
        if not sign or not pattern:
            raise RecipeError(
                f"--rename {item}: expected FROM=TO, for example --rename 'backbone.*=*'"
            )
        if pattern in renames:
            raise RecipeError(
                f"--rename {item}: {pattern!r} was renamed to {renames[pattern]!r} before; give it "
                "once"
            )
        renames[pattern] = replacement
    return renames


def dump_recipe(recipe: Recipe) -> str:
    """Write the whole recipe, with its defaults, as YAML.

    `load_recipe` reads it.
    """
    return yaml.dump(
        recipe.model_dump(by_alias=True), Dumper=Dumper, sort_keys=False, allow_unicode=True
    )


def dump_hidden(recipe: Recipe) -> str:
    """Write the recipe without secrets, as YAML for journals.

    `parse_recipe` reads it.
    """
    values = hide_in_values(recipe.model_dump(by_alias=True))
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def parse_recipe(text: str) -> Recipe:
    """Read the recipe that `dump_recipe` wrote.

    Raises:
        RecipeError: it is not YAML, or a key or value is not legal here.
    """
    return _validate(parse_yaml(text, "recipe"), "recipe")


def dump_value(value: Any) -> str:
    """Write one value as YAML on one line, as it can stand behind a key.

    `load_recipe` reads the same value.
    """
    text = yaml.dump(
        value,
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=True,
        width=math.inf,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def flatten(recipe: Recipe) -> dict[str, str]:
    """The recipe as dotted keys and strings, as MLflow's params want it.

    For example {"train.epochs": "10"}.
    """

    def walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from walk(inner, f"{key}.{name}" if key else str(name))
        else:
            yield key, str(value)

    return dict(walk(recipe.model_dump(by_alias=True), ""))


def _split_values(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes."""
    parts, depth, quote, current = [], 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in ")}]":
            depth -= 1
        if char == "," and depth == 0 and not quote:
            parts.append(current)
            current = ""
        else:
            current += char
    return [*parts, current]


def _read_file(path: Path) -> dict[str, Any]:
    content = b""
    try:
        with open_file(path) as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        others = sorted(
            str(other) for pattern in ("*.yaml", "recipes/*.yaml") for other in Path().glob(pattern)
        )
        hint = (
            f"recipes here: {', '.join(others)}"
            if others
            else "torchrelay fetch digits writes one to start from"
        )
        raise RecipeError(f"recipe {shown_path(path)} does not exist; {hint}") from error
    except UnicodeDecodeError as error:
        if len(content) > MOST_BYTES:  # cut within a character, or no text at all
            raise RecipeError(
                f"recipe {shown_path(path)} is larger than {MOST_BYTES:,} bytes, which is no recipe"
            ) from error
        raise RecipeError(f"recipe {path} cannot be read as UTF-8 text: {error}") from error
    except (OSError, ValueError) as error:  # of a path with a NUL in it
        raise RecipeError(
            f"recipe {shown_path(path)} cannot be read as UTF-8 text: {error}"
        ) from error
    values = parse_yaml(text, f"recipe {path}")
    if not isinstance(values, dict):
        raise RecipeError(
            f"recipe {path}: expected keys such as name, data and model; got "
            f"{type(values).__name__}"
        )
    version = values.get("format_version", FORMAT_VERSION)
    check_format(
        f"recipe {path}",
        version,
        FORMAT_VERSION,
        f"write it as format_version: {FORMAT_VERSION}",
        RecipeError,
    )
    return values


def _make_absolute(values: dict[str, Any], root: Path) -> None:
    data = values.get("data")
    if isinstance(data, dict):
        for key in ("table", "files"):
            text = data.get(key)
            if isinstance(text, str) and text and "://" not in text:
                data[key] = str(Path(root, text).resolve())
        if isinstance(links := data.get("links"), list):
            data["links"] = [
                str(Path(root, one).resolve()) if isinstance(one, str) else one for one in links
            ]
    model = values.get("model")
    if isinstance(model, dict) and str(model.get("name")).startswith("torchvision:"):
        args = model.get("args")
        file = args.get("weights_file") if isinstance(args, dict) else None
        if isinstance(args, dict) and isinstance(file, str) and file:
            model["args"] = {**args, "weights_file": str(Path(root, file).resolve())}
    warm_start = values.get("warm_start")
    if isinstance(warm_start, dict) and _is_file_name(warm_start.get("source")):
        warm_start["source"] = str(Path(root, warm_start["source"]).resolve())


def _is_file_name(source: object) -> bool:
    """Whether a source is a weights file, not a run or a registered model."""
    if not isinstance(source, str) or source.startswith(("runs:/", "models:/")):
        return False
    return "/" in source or source.endswith(WEIGHTS_SUFFIXES)


def _merge(values: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if (
            isinstance(value, dict)
            and isinstance(values.get(key), dict)
            and key not in ("args", "inputs", "target")
        ):
            _merge(values[key], value)
        else:
            values[key] = value


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *folders, last = dotted.split(".")
    if len(folders) >= MOST_LEVELS:
        raise RecipeError(
            f"--set {_cut(dotted)}: {len(folders) + 1:,} parts, more than the {MOST_LEVELS} of any "
            "recipe"
        )
    inner: Any = values
    part: Any = Recipe
    for name in folders:
        # A part that the file leaves out starts from its defaults, so that train.optimizer.args.lr
        # alone is legal.
        field = _field(part, name)
        part = field.annotation if field else None
        if isinstance(inner, list):
            inner = inner[_index(inner, name, dotted)]
            if not isinstance(inner, dict | list):
                raise RecipeError(
                    f"--set {dotted}: position {name} is {shown_value(inner)}, which has no parts"
                )
            continue
        if inner.get(name) is None:
            has_default = field is not None and isinstance(field.default, BaseModel)
            inner[name] = field.default.model_dump(by_alias=True) if field and has_default else {}
        inner = inner[name]
        if not isinstance(inner, dict | list):
            raise RecipeError(f"--set {dotted}: {name} is {shown_value(inner)}, which has no parts")
    if isinstance(inner, list):
        inner[_index(inner, last, dotted)] = value
    else:
        inner[last] = value


def _index(items: list[Any], name: str, dotted: str) -> int:
    if not name.isdigit() or int(name) >= len(items):
        raise RecipeError(
            f"--set {dotted}: expected a position from 0 to {len(items) - 1}, got {name!r}"
        )
    return int(name)


def _field(part: Any, name: str) -> Any:
    if not (isinstance(part, type) and issubclass(part, BaseModel)):
        return None
    by_alias = {field.alias or key: field for key, field in part.model_fields.items()}
    return by_alias.get(name)


def _validate(values: dict[str, Any], place: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [_explain(problem) for problem in problems[:MOST_MISTAKES]]
        if len(problems) > MOST_MISTAKES:
            lines.append(f"and {len(problems) - MOST_MISTAKES:,} mistakes more")
        raise RecipeError(f"{place}: " + "\n".join(lines)) from error


def _explain(problem: Any) -> str:
    """Say in one line what pydantic found.

    Names the key, the value, and what is legal.
    """
    loc = [str(part) for part in problem["loc"]]
    key, value = _cut(".".join(loc)), shown_value(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key} (value {value}); {nearest(loc[-1], _legal_keys(loc[:-1]))}"
    if problem["type"] == "literal_error":
        legal = problem["ctx"].get("legal") or get_args(_annotation(loc))
        return f"{key}: {value} is not legal; {nearest(str(problem['input']), legal)}"
    if problem["type"] == "missing":
        owner = _cut(".".join(loc[:-1])) or "the recipe"
        return f"{key} is missing; legal keys of {owner} are {', '.join(_legal_keys(loc[:-1]))}"
    if problem["type"] == "model_type":
        return (
            f"{key}: got {value}; expected keys and values, legal keys are "
            f"{', '.join(_legal_keys(loc))}"
        )
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: got {value}; {message[0].lower()}{message[1:]}"


def _cut(text: str) -> str:
    """A key or an option for a message, printable and not too long."""
    short = text if len(text) <= MOST_OF_A_KEY else f"{text[:MOST_OF_A_KEY]}…"
    return short if short.isprintable() else repr(short)


def shown_path(path: Path) -> str:
    """The name of a file for a message, see `_cut`."""
    return _cut(str(path))


def _annotation(loc: list[str]) -> Any:
    part: Any = Recipe
    for name in loc:
        field = _field(part, name)
        if field is not None:
            part = field.annotation
        elif part is not None and get_args(part):  # an entry of a dict or of a list
            part = get_args(part)[-1]
        else:
            return None
    return part


def _legal_keys(loc: list[str]) -> list[str]:
    part = _annotation(loc)
    if not (isinstance(part, type) and issubclass(part, BaseModel)):
        return []
    return [field.alias or key for key, field in part.model_fields.items()]
