"""Counts classes and tags of a column that nobody described, and finds those
that are one but for their spelling.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from ...datasets.cells import find_look_alikes, read_labels, spell, strip_unseen
from ...recipe import Spelling


class Classes(NamedTuple):
    """The classes of one column.

    Attributes:
        counts: rows of each class, by its name as `rule` spells it.
        rule: what does not count in the spelling; nothing where no two look alike.
        look_alikes: of each group of texts that the rule makes one, the rows of each spelling.
    """

    counts: dict[str, int]
    rule: Spelling
    look_alikes: list[dict[str, int]]


def count_classes(cells: pd.Series, separator: str = "") -> Classes:
    """Count the values of text cells, or the tags in them where a separator
    parts these; empty ones are none.

    Single letters that differ in their case alone, as in a table of letters, are never one.
    """
    rows = _count(cells, separator)
    alike = find_look_alikes(list(rows), Spelling())
    rule = Spelling() if alike is None else alike.rule
    if alike and any(_are_letters(group) for group in alike.groups):
        rule = rule.model_copy(update={"fold_case": False})
    counts: dict[str, int] = {}
    texts_of: dict[str, dict[str, int]] = {}
    for text, num in rows.items():
        name = spell(text, rule)
        counts[name] = counts.get(name, 0) + num
        texts_of.setdefault(name, {})[text] = num
    return Classes(counts, rule, [texts for texts in texts_of.values() if len(texts) > 1])


def _count(cells: pd.Series, separator: str) -> dict[str, int]:
    """Rows of each text as the recipe's default spells it."""
    found: dict[str, int] = {}
    if separator:
        tags = read_labels(cells, separator)
        numbers = pd.Series(tags.ids[tags.ids >= 0]).value_counts().to_dict()
        return {tag: int(numbers.get(number, 0)) for number, tag in enumerate(tags.vocabulary)}
    for text, num in cells.value_counts(sort=False).items():
        if strip_unseen(str(text)):
            name = spell(str(text), Spelling())
            found[name] = found.get(name, 0) + int(num)
    return found


def _are_letters(group: list[str]) -> bool:
    bare = {strip_unseen(text) for text in group}
    return len(bare) > 1 and all(len(text) == 1 for text in bare)
