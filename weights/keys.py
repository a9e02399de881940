"""The keys of a state_dict.

Which of them a pattern fits, and what a key of one model is called in another.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..errors import RecipeError
from .module_prefix import WRAPPERS

MOST_NAMED = 5


class Matches(NamedTuple):
    """Which key of a source goes where.

    Attributes:
        source_of: key of the source by key of the model.
        renamed: keys of the model that a pattern found a source for.
        surplus: keys of the source that go nowhere.
    """

    source_of: dict[str, str]
    renamed: set[str]
    surplus: list[str]


def fits(key: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns fits.

    `*` is any text, dots included, `?` any one letter, `[ab]` one of these.
    """
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def check_patterns(place: str, patterns: Iterable[str], keys: Collection[str]) -> None:
    """Refuse a pattern that fits none of the keys.

    Args:
        place: key of the recipe that the patterns stand under.
        patterns: see `fits`.
        keys: of the model.
    Raises:
        RecipeError: names the pattern and the nearest keys.
    """
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in keys):
            raise RecipeError(
                f"{place}: {pattern!r} fits no key of the model; {nearest_keys(pattern, keys)}"
            )


def check_rename(rename: Mapping[str, str], source: Collection[str]) -> None:
    """Refuse a pattern that fits no key of the source.

    Raises:
        RecipeError: names the pattern and the nearest keys.
    """
    for pattern in rename:
        if not any(
            _rename(form, pattern, "") is not None for key in source for form in _forms(key)
        ):
            raise RecipeError(
                f"warm_start.rename: {pattern!r} fits no key of the source; "
                f"{nearest_keys(pattern, source)}"
            )


def match_keys(own: Collection[str], source: Collection[str], rename: Mapping[str, str]) -> Matches:
    """Say which key of a source goes to which key of a model.

    The first pattern of `rename` that fits a key counts, and goes before a key of the same name.
    Names that a wrapper put before the keys (`module.`) are looked through on both sides, with and
    without patterns.

    Args:
        own: keys of the model.
        source: keys of the source.
        rename: from the source's keys to the model's; a `*` stands for any text, as little as will
            do, and the nth `*` of the replacement for what the nth of the pattern stood for.
    Raises:
        RecipeError: a pattern fits no key of the source, or leads to none of the model, or two keys
            would go to one.
    """
    check_rename(rename, source)
    own, reached = dict.fromkeys(own), set[str]()
    source_of: dict[str, str] = {}
    astray: dict[str, str] = {}
    left: list[str] = []
    for key in source:
        pattern, name = _first_rename(key, rename)
        if not pattern:
            left.append(key)
        elif name not in own:
            astray.setdefault(pattern, name)
        elif name in source_of:
            raise RecipeError(
                f"warm_start.rename: {source_of[name]!r} and {key!r} of the source would both "
                f"become {name!r}; "
                f"leave one out, or make the pattern {pattern!r} longer"
            )
        else:
            source_of[name] = key
            reached.add(pattern)
    for pattern, name in astray.items():
        if pattern not in reached:
            raise RecipeError(
                f"warm_start.rename: {pattern!r} leads to {name!r}, which is no key of the model; "
                f"{nearest_keys(name, own)}"
            )
    renamed = set(source_of)
    for key in sorted(
        left, key=lambda key: key not in own
    ):  # a key of the very name goes before one behind a wrapper
        name = next((form for form in _forms(key) if form in own and form not in source_of), None)
        name = name or next((f"{word}{key}" for word in WRAPPERS if f"{word}{key}" in own), None)
        if name is not None and name not in source_of:
            source_of[name] = key
    used = set(source_of.values())
    return Matches(source_of, renamed, [key for key in source if key not in used])


def nearest_keys(word: str, keys: Iterable[str]) -> str:
    """The ending of a message.

    The keys, or modules as patterns, that are nearest to a word, else the first keys.
    """
    keys = list(keys)
    modules = {f"{key[: dot.start()]}.*" for key in keys for dot in re.finditer(r"\.", key)}
    near = difflib.get_close_matches(word, [*sorted(modules), *keys], n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {first_keys(keys)}"


def first_keys(keys: Collection[str]) -> str:
    """The first few keys, and how many there are where there are more."""
    shown = ", ".join(list(keys)[:MOST_NAMED])
    return shown if len(keys) <= MOST_NAMED else f"{shown}, … ({len(keys)} keys)"


def _forms(key: str) -> list[str]:
    """A key, then what it is behind each wrapper."""
    forms = [key]
    while (word := next((word for word in WRAPPERS if forms[-1].startswith(word)), "")) and forms[
        -1
    ] != word:
        forms.append(forms[-1].removeprefix(word))
    return forms


def _first_rename(key: str, rename: Mapping[str, str]) -> tuple[str, str]:
    """The first pattern that fits a key and what it makes of it.

    Empty where none does.
    """
    for pattern, replacement in rename.items():
        for form in _forms(key):
            if (name := _rename(form, pattern, replacement)) is not None:
                return pattern, name
    return "", ""


def _rename(key: str, pattern: str, replacement: str) -> str | None:
    found = re.fullmatch("(.*?)".join(re.escape(part) for part in pattern.split("*")), key)
    if found is None:
        return None
    first, *rest = replacement.split("*")
    return first + "".join(text + part for text, part in zip(found.groups(), rest, strict=False))
