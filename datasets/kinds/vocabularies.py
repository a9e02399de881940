"""Vocabularies that several category features share, and the triples that such
sharing makes: fitted, checked, judged.

A recipe whose target shares its vocabulary with an input asks for an entity: (head, relation) ->
tail. Then the vocabulary holds every entity of the table, as those that no training row has are
still among the answers; every other vocabulary holds what training rows have. How triples become
batches stands in `triples.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ...errors import RecipeError
from ...recipe import Data, Feature
from ...schema import Schema
from ..cells import sort_classes
from ..pack import Pack, PackColumn
from ..splits import TRAIN, UNUSED
from ..verdicts import Verdicts


class TripleNames(NamedTuple):
    """The features of a recipe that are the parts of a triple."""

    head: str
    relation: str
    tail: str


class Classes(NamedTuple):
    """A fitted vocabulary.

    Attributes:
        names: in the order of their ids.
        counts: training occurrences of each, over all columns of all features that share it.
    """

    names: list[str]
    counts: list[int]


def find_triple(data: Data) -> TripleNames | None:
    """The parts of the triple, where the target shares its vocabulary with an
    input; else None.

    Raises:
        RecipeError: it shares it, and the features are no triple.
    """
    shared = {
        target.vocabulary: name
        for name, target in data.target.items()
        if target.facts.is_one_class
        and target.vocabulary in {one.vocabulary for one in data.inputs.values()} - {""}
    }
    if not shared:
        return None
    [vocabulary, tail] = next(iter(shared.items()))
    heads = [
        name
        for name, one in data.inputs.items()
        if one.vocabulary == vocabulary and one.facts.is_one_class
    ]
    others = [
        name for name, one in data.inputs.items() if one.facts.is_one_class and name not in heads
    ]
    if len(data.target) > 1 or len(data.inputs) != 2 or len(heads) != 1 or len(others) != 1:
        inputs = ", ".join(f"{name} ({_describe(one)})" for name, one in data.inputs.items())
        raise RecipeError(
            f"data.target.{tail}.vocabulary: {vocabulary!r} is shared with an input, which makes "
            "the target an entity "
            "that is ranked: expected two inputs, one category of this vocabulary (the head) and "
            "one other category "
            f"(the relation), and this target alone; got inputs {inputs} and {len(data.target)} "
            "targets. Leave "
            f"vocabulary out where the target is an ordinary category"
        )
    return TripleNames(heads[0], others[0], tail)


def check_vocabularies(data: Data, columns: Mapping[str, list[str]]) -> None:
    """Refuse what cannot share, or what is no triple.

    Args:
        columns: of each feature.
    Raises:
        RecipeError: names the feature.
    """
    triple = find_triple(data)
    for name in triple or ():
        if len(columns[name]) != 1:
            raise RecipeError(
                f"feature {name!r} is part of a triple and reads {len(columns[name])} columns "
                f"({', '.join(columns[name][:5])}); expected one"
            )
    rules: dict[str, tuple[str, Feature]] = {}
    for name, feature in _categories(data):
        other, first = rules.setdefault(feature.vocabulary, (name, feature))
        if feature.vocabulary and feature.labels != first.labels:
            raise RecipeError(
                f"features {other!r} and {name!r} share the vocabulary {feature.vocabulary!r} and "
                "have other labels; "
                f"say the same labels of both"
            )


def fit_vocabularies(pack: Pack, data: Data, split: np.ndarray) -> dict[str, Classes]:
    """The vocabularies that features share, by name.

    Args:
        pack: raw values.
        data: the features.
        split: int8, shape (rows of the pack,): 0 marks the training rows, -1 those that nothing
            uses.
    """
    triple = find_triple(data)
    ranked = "" if triple is None else data.target[triple.tail].vocabulary
    found: dict[str, Classes] = {}
    for name in {feature.vocabulary for _, feature in _categories(data) if feature.vocabulary}:
        trained: dict[str, int] = {}
        present: dict[str, int] = {}
        for feature_name, feature in _categories(data):
            if feature.vocabulary == name:
                _count(pack, feature_name, split == TRAIN, trained)
                _count(
                    pack,
                    feature_name,
                    (split != UNUSED) if name == ranked else (split == TRAIN),
                    present,
                )
        names = sort_classes(list(present))
        found[name] = Classes(names, [trained.get(one, 0) for one in names])
    return found


def reject_unseen_relations(
    data: Data, columns: Mapping[str, PackColumn], side: np.ndarray, verdicts: Verdicts
) -> None:
    """Call rows bad that no model can be asked.

    Their relation stands in no training row.
    """
    triple = find_triple(data)
    trains = verdicts.good & (side == TRAIN)
    if triple is None or not trains.any():
        return
    column = columns[triple.relation]
    ids = column.arrays["values"][:, 0]
    trained = np.bincount(ids[trains], minlength=len(column.feature.vocabulary)) > 0
    for row in np.flatnonzero(verdicts.good & ~trained[ids]):
        verdicts.reject(
            int(row), "relation without a training row", repr(column.feature.vocabulary[ids[row]])
        )


def reject_unknown_parts(
    schema: Schema, columns: Mapping[str, PackColumn], verdicts: Verdicts
) -> None:
    """Call rows of another table bad whose head or relation the model does
    not know; nothing where it ranks nothing.
    """
    if schema.triple is None:
        return
    for at, what in zip(schema.triple, ("entity", "relation"), strict=True):
        feature = schema.inputs[at]
        column = columns[feature.name]
        ids = column.arrays["values"][:, 0]
        known = np.isin(column.feature.vocabulary, feature.classes)
        for row in np.flatnonzero(verdicts.good & ~known[ids]):
            label = repr(column.feature.vocabulary[ids[row]])
            verdicts.reject(
                int(row), f"{what} that the model does not know", f"{label} in {feature.name!r}"
            )


def _categories(data: Data) -> Iterator[tuple[str, Feature]]:
    for name, feature in {**data.inputs, **data.target}.items():
        if feature.facts.is_one_class:
            yield name, feature


def _count(pack: Pack, name: str, rows: np.ndarray, counts: dict[str, int]) -> None:
    """Add how often each value stands in these rows."""
    vocabulary = pack.vocabulary(name)
    found = np.bincount(np.asarray(pack.column(name))[rows].ravel(), minlength=len(vocabulary))
    for number in np.flatnonzero(found):
        counts[vocabulary[number]] = counts.get(vocabulary[number], 0) + int(found[number])


def _describe(feature: Feature) -> str:
    return (
        f"{feature.kind}, vocabulary {feature.vocabulary}" if feature.vocabulary else feature.kind
    )
