"""Says what a run that goes on may change of its recipe.

The recipe's fields are marked with it. Any other change would break the state of the optimizer, the
order of rows, or the meaning of a setting.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import RecipeError
from .model import Part, Recipe
from .types import Fixed, MayChange


@functools.cache
def marked_keys() -> dict[str, Fixed | MayChange]:
    """The mark of each setting by its dotted key, in the recipe's order."""
    return dict(marks_in(Recipe))


def marks_in(part: type[Part], prefix: str = "") -> Iterator[tuple[str, Fixed | MayChange]]:
    """Dotted keys and marks of the settings of a part.

    Raises:
        TypeError: one has no mark.
    """
    for name, field in part.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        marks = [one for one in field.metadata if isinstance(one, Fixed | MayChange)]
        if marks:
            yield key, marks[-1]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Part):
            yield from marks_in(field.annotation, f"{key}.")
        else:
            raise TypeError(f"{key} does not say whether a run may change it; see recipe/types.py")


def changeable_keys() -> tuple[str, ...]:
    """Dotted keys that a run may change.

    A key includes all keys below it.
    """
    found = []
    for key, mark in marked_keys().items():
        if isinstance(mark, MayChange):
            found += [f"{key}.args.{name}" for name in mark.args] or [key]
    return tuple(found)


def alters_curves(key: str) -> bool:
    """Whether a changed setting changes the metrics that a step gives."""
    return not any(
        isinstance(mark, MayChange) and mark.beside_curves and _is_below(key, one)
        for one, mark in marked_keys().items()
    )


def changes_between(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, list[str | None]]:
    """The differences between two flattened recipes.

    Dotted key -> [then, now], None where one lacks it.
    """
    before, after = (
        {key: value for key, value in one.items() if value != "{}"} for one in (then, now)
    )
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return {key: [before.get(key), after.get(key)] for key in keys}


def refuse_fixed(changed: Iterable[str]) -> None:
    """Refuse changes that only a new run can have.

    Args:
        changed: dotted keys.
    Raises:
        RecipeError: names those that a run cannot change on its way.
    """
    keys = changeable_keys()
    fixed = [key for key in changed if not any(_is_below(key, one) for one in keys)]
    if fixed:
        raise RecipeError(
            f"{', '.join(fixed)}: a run goes on with what it began with; train a new run to change "
            f"that (it can change {', '.join(keys)})"
        )


def take_changeable(recipe: Recipe) -> dict[str, Any]:
    """The values of all settings that a run may change, as overrides.

    By dotted key, for another recipe. An argument that the recipe leaves to its default is left
    out.
    """
    taken: dict[str, Any] = {}
    values = recipe.model_dump(by_alias=True)
    for key in changeable_keys():
        value: Any = values
        with contextlib.suppress(KeyError):
            for name in key.split("."):
                value = value[name]
            taken[key] = value
    return taken


def _is_below(key: str, above: str) -> bool:
    return key == above or key.startswith(f"{above}.")
