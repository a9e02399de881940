"""Turns YAML text into plain values and back.

It reads the scalars of YAML 1.2, within bounds that hold before anything is built. A few hundred
bytes of aliases can stand for gigabytes, and a few thousand brackets are deeper than Python can
follow. So the parser's events are counted first, aliases at the size of what they stand for; only
then are values made of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import RecipeError, shown_value

# A recipe that lists 20,000 columns takes 440 kB; those of this package have 2 kB, 100 values and 6
# levels.
MOST_BYTES = 1_000_000
MOST_VALUES = 200_000
MOST_LEVELS = 50
MOST_DIGITS = 100

# libyaml's parser, which PyYAML's wheels have, is ten times as fast.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset(
    {
        None,
        "!",
        *(f"{_CORE}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")),
    }
)


class _Loader(_Parser):
    """A loader of YAML 1.2's scalars.

    `1e-3` is a number; `no`, `on` and `007` are strings. A repeated key is refused.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated key.

        YAML would silently keep the last one.
        """
        seen: set[str] = set()
        keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for key in keys:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _refusal(f"key {shown_value(key.value)} twice", key)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_scalar_of(self, node: Any) -> Any:
        """The value of a scalar that is null, a truth value or a number.

        Also if only a tag claims that it is one.
        """
        kind, text = node.tag.removeprefix(_CORE), self.construct_scalar(node)
        if not _PATTERNS[kind].fullmatch(text):
            raise _refusal(f"{shown_value(text)} is tagged !!{kind} and is none", node)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        digits = sum(map(str.isdigit, text))
        if digits > MOST_DIGITS:
            raise _refusal(f"a number of {digits:,} digits, more than {MOST_DIGITS}", node)
        if kind == "int":
            return int(text)
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if math.isinf(number) and "inf" not in text.lower():
            raise _refusal(f"{shown_value(text)} is beyond what a number of 64 bits can hold", node)
        return number


class Dumper(yaml.SafeDumper):
    """Quotes strings that `parse_yaml` would read as something else.

    For example the name `1e-3`.
    """


_PATTERNS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)"),
    "float": re.compile(
        r"[-+]?(?:(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
    ),
}
_FIRST = {"bool": "tTfF", "int": "-+0123456789", "float": "-+.0123456789"}
_REPLACED = tuple(f":{name}" for name in ("bool", "float", "int", "timestamp"))

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_REPLACED)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _first in _FIRST.items():
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(
            f"{_CORE}{_kind}", re.compile(f"^(?:{_PATTERNS[_kind].pattern})$"), list(_first)
        )
for _kind in _PATTERNS:
    _Loader.add_constructor(f"{_CORE}{_kind}", _Loader.construct_scalar_of)


def parse_yaml(text: str, place: str) -> Any:
    """Parse YAML with the scalars of version 1.2.

    Returns:
        Plain values; what two aliases stand for are two values.
    Raises:
        RecipeError: it is not YAML, or larger, deeper or of more values than a recipe can be; names
            the place and the line.
    """
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise RecipeError(f"{place} is larger than {MOST_BYTES:,} bytes, which is no recipe")
    try:
        _check_events(text, place)
        return _unshare(yaml.load(text, Loader=_Loader))  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise RecipeError(f"{place} is not YAML: {error}") from error
    except UnicodeEncodeError as error:
        raise RecipeError(f"{place} is not YAML: half of a surrogate pair stands in it") from error


def check_bounds(values: Any, place: str) -> None:
    """Refuse values that are more, or deeper, than a recipe can be.

    For values that did not come as YAML.

    Raises:
        RecipeError: names the place and the bound.
    """
    num_values, num_characters, level = 0, 0, [values]
    for depth in range(MOST_LEVELS + 2):
        num_values += len(level)
        num_characters += sum(len(one) for one in level if isinstance(one, str | bytes))
        if num_values > MOST_VALUES:
            raise RecipeError(f"{place} has more than {MOST_VALUES:,} values, which is no recipe")
        if num_characters > MOST_BYTES:
            raise RecipeError(f"{place} is larger than {MOST_BYTES:,} bytes, which is no recipe")
        below: list[Any] = []
        for one in level:
            below += (
                [*one, *one.values()]
                if isinstance(one, Mapping)
                else one
                if isinstance(one, list | tuple)
                else ()
            )
            if len(below) > MOST_VALUES:
                break
        if below and depth > MOST_LEVELS:
            raise RecipeError(
                f"{place} is nested deeper than {MOST_LEVELS} levels, which is no recipe"
            )
        level = below


@dataclass
class _Part:
    """A list or mapping that is being parsed.

    Has its anchor, its number of values, and the levels below it.
    """

    anchor: str
    num_values: int = 1
    num_levels: int = 0

    def add(self, num_values: int, num_levels: int) -> None:
        self.num_values += num_values
        self.num_levels = max(self.num_levels, num_levels)


def _check_events(text: str, place: str) -> None:
    """Refuse text that is too deep, stands for too much, or has odd tags.

    A tag is odd that is none of YAML's core.
    """
    known: dict[str, _Part] = {}
    around = [_Part("")]
    events: Iterator[Any] = yaml.parse(text, Loader=_Parser)
    for num_events, event in enumerate(events, 1):
        line = f"line {event.start_mark.line + 1}"
        if getattr(event, "tag", None) not in _TAGS:
            raise _refusal(
                f"the tag {shown_value(event.tag)}: could not determine a constructor for it", event
            )
        if isinstance(event, yaml.CollectionStartEvent):
            around.append(_Part(event.anchor or ""))
        elif isinstance(event, yaml.CollectionEndEvent):
            part = around.pop()
            around[-1].add(part.num_values, part.num_levels + 1)
            if part.anchor:
                known[part.anchor] = part
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in {part.anchor for part in around}:
                raise RecipeError(
                    f"{place}: *{event.anchor} in {line} stands inside of what it stands for"
                )
            part = known.get(event.anchor or "", _Part(""))
            around[-1].add(part.num_values, part.num_levels + 1)
        elif isinstance(event, yaml.ScalarEvent):
            around[-1].add(1, 0)
            if event.anchor:
                known[event.anchor] = _Part(event.anchor, num_levels=-1)
        if len(around) - 1 + around[-1].num_levels > MOST_LEVELS:
            raise RecipeError(
                f"{place} is nested deeper than {MOST_LEVELS} levels in {line}, which is no recipe"
            )
        if max(num_events, around[-1].num_values) > MOST_VALUES:
            raise RecipeError(
                f"{place} has more than {MOST_VALUES:,} values by {line}, each alias counted as "
                "what it stands for, "
                f"which is no recipe"
            )


def _unshare(value: Any) -> Any:
    """Copy a value so that no list or mapping stands in two places.

    A change in one must not show in another.
    """
    if isinstance(value, dict):
        return {key: _unshare(inner) for key, inner in value.items()}
    return [_unshare(inner) for inner in value] if isinstance(value, list) else value


def _refusal(problem: str, node: Any) -> yaml.YAMLError:
    return yaml.YAMLError(
        f"{problem}\n  in line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"
    )
