"""A value that the draft of a recipe chose, with its reason, and how reasons
count things.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Choice(NamedTuple):
    """A value of the recipe, and why it is so."""

    value: Any
    why: str


def say_count(things: Any, noun: str) -> str:
    """A number, or that of some things, with its noun.

    1 column, 2 columns.
    """
    number = things if isinstance(things, int) else len(things)
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def say_are(number: int, noun: str, of: str = "") -> str:
    """The same as the beginning of a sentence.

    1 file is, 2 cells of 'x' are.
    """
    return f"{say_count(number, noun)}{of} {'is' if number == 1 else 'are'}"
