"""Tells whether a table holds the triples of a knowledge graph.

Head, relation, tail.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import pandas as pd

_RELATIONS = (
    "relation",
    "relationship",
    "rel",
    "predicate",
    "property",
    "verb",
    "edge",
    "edge_type",
    "type",
    "link",
)
# Names of head, relation and tail, in any case: those that say it, and those that columns of other
# tables have too, of which head and tail must share values.
_NAMES = (("head", _RELATIONS, "tail"), ("subject", _RELATIONS, "object"))
_COMMON_NAMES = (
    ("source", _RELATIONS, "target"),
    ("from", _RELATIONS, "to"),
    ("h", ("r",), "t"),
    ("s", ("p",), "o"),
)
# The part of the values of one of two columns that the other has too.
_MOST = 0.5


class TripleColumns(NamedTuple):
    """The columns that are the parts of triples.

    Attributes:
        num_entities: distinct heads and tails together.
        why: the reason, as the end of a sentence that begins with the three.
    """

    head: str
    relation: str
    tail: str
    num_entities: int
    why: str


def find_triple(
    frame: pd.DataFrame, names: Sequence[str], numbers: Collection[str]
) -> TripleColumns | None:
    """Find head, relation and tail.

    By their names, or as three columns of names, two of which share most values.

    Args:
        frame: text cells.
        names: columns that say something about a row: no split, no key.
        numbers: columns that hold numbers, which share values without being the same things.
    """
    by_name = {name.lower(): name for name in names}
    for head, relations, tail in (*_NAMES, *_COMMON_NAMES):
        relation = next((by_name[one] for one in relations if one in by_name), None)
        if head not in by_name or tail not in by_name or relation is None:
            continue
        parts = by_name[head], relation, by_name[tail]
        if (head, relations, tail) in _NAMES or _share_most(
            set(frame[parts[0]]), set(frame[parts[2]])
        ):
            return _describe(frame, *parts, "have the names of a triple's parts")
    if len(names) != 3 or set(names) & set(numbers):
        return None
    values = {name: set(frame[name]) for name in names}
    few = min(names, key=lambda name: len(values[name]))
    head, tail = (name for name in names if name != few)
    shared, smaller = len(values[head] & values[tail]), min(len(values[head]), len(values[tail]))
    is_apart = len(values[few]) < smaller and not values[few] & (values[head] | values[tail])
    if not is_apart or not _share_most(values[head], values[tail]):
        return None
    why = (
        f"look like triples: {shared:,} of the {smaller:,} values of {head!r} or {tail!r} stand in "
        "both"
    )
    return _describe(frame, head, few, tail, why)


def _share_most(one: set[str], other: set[str]) -> bool:
    return len(one & other) >= _MOST * min(len(one), len(other))


def _describe(frame: pd.DataFrame, head: str, relation: str, tail: str, why: str) -> TripleColumns:
    return TripleColumns(head, relation, tail, pd.concat([frame[head], frame[tail]]).nunique(), why)
