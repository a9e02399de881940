"""Finds which rows of a model's parameters belong to which label.

Labels are classes, tokens and columns of a target. No model says so itself. But a model that is
built for a table with a few more classes differs in exactly those dimensions, and their sizes tell
how the classes stand in them. This works for any net that is built from its schema.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

import torch

from ..errors import RecipeError, ShapeError
from ..recipe import Named
from ..schema import AxisLabels, FeatureSchema, Schema
from .registry import build_model

# Labels that a trial adds. A prime: what else depends on their number, a hidden layer of half as
# many units, will not grow by a multiple of it.
NUM_MORE = 7
# Positions before those of the labels: of ids that say "unseen" and "padding".
SPECIAL_POSITIONS = (0, 1, 2)

Shapes = dict[str, tuple[int, ...]]


class _Vocabulary(NamedTuple):
    """Labels that stand for positions in a model's parameters.

    Attributes:
        own, source: in the new schema and the source's; the latter empty where it has no such
            labels, None where it does not say.
        is_target: whether they are a model's outputs, before which nothing stands.
        owns: whether a feature, an input or else a target, has them.
    """

    own: list[Hashable]
    source: list[Hashable] | None
    is_target: bool
    owns: Callable[[FeatureSchema, bool], bool]


def find_label_axes(
    model: Named, schema: Schema, source: Schema | None
) -> dict[str, dict[int, AxisLabels]]:
    """Find the labels of dimensions that differ between a model and its source.

    Builds the model a few times; torch's random state stays as it was.

    Args:
        model: name and arguments.
        schema: the model's.
        source: of what it begins from; None where that is not known, and then all labels count as
            not the same.
    Returns:
        By key and dimension. A dimension that several vocabularies share, whose size they do not
        explain, or whose vocabulary the source does not have, has no labels of its own.
    Raises:
        ShapeError: the model does not fit the schema.
    """
    found: dict[str, dict[int, AxisLabels]] = {}
    vocabularies = [one for one in _vocabularies(schema, source) if one.own != one.source]
    if not vocabularies:
        return found
    with torch.random.fork_rng(devices=[]):
        shapes = _shapes_of(model, schema)
        for vocabulary in vocabularies:
            for key, dim, axis in _axes_of(model, schema, vocabulary, shapes):
                axes = found.setdefault(key, {})
                axes[dim] = axis if dim not in axes else AxisLabels([], [])
    return found


def find_heads(model: Named, schema: Schema) -> set[str]:
    """Keys of the parameters that have a position for each label of a target.

    Raises:
        ShapeError: the model does not fit the schema.
    """
    with torch.random.fork_rng(devices=[]):
        shapes = _shapes_of(model, schema)
        return {
            key
            for vocabulary in _vocabularies(schema, None)
            if any(vocabulary.owns(target, False) for target in schema.targets)
            for key, _, _ in _axes_of(model, schema, vocabulary, shapes)
        }


def new_labels(schema: Schema, source: Schema) -> list[str]:
    """The classes, tags or columns that a source's targets lack, in order."""
    known = set(_target_labels(source, _tagged(schema, source)))
    labels = _target_labels(schema, _tagged(schema, source))
    return [label[-1] for label in labels if isinstance(label, tuple) and label not in known]


def _axes_of(
    model: Named, schema: Schema, vocabulary: _Vocabulary, shapes: Shapes
) -> Iterator[tuple[str, int, AxisLabels]]:
    """The dimensions that grow with a vocabulary, each with its labels."""
    longer, num_more = _lengthen(schema, vocabulary)
    try:
        longer_shapes = _shapes_of(model, longer)
    except (
        ShapeError,
        RecipeError,
    ):  # a net of one size, by its arguments: no classes but those that it has
        yield from _guess_head(vocabulary, shapes)
        return
    for key, shape in shapes.items():
        other = longer_shapes.get(key, shape)
        for dim, (size, more) in enumerate(zip(shape, other, strict=False)):
            repeats, rest = divmod(more - size, num_more)
            if repeats > 0 and rest == 0:
                yield key, dim, _label_positions(vocabulary, size, repeats)


def _label_positions(vocabulary: _Vocabulary, size: int, repeats: int) -> AxisLabels:
    """The labels of a dimension.

    Special positions come first, then the vocabulary, repeated so many times.
    """
    num_special = size - repeats * len(vocabulary.own)
    if (
        num_special not in ((0,) if vocabulary.is_target else SPECIAL_POSITIONS)
        or vocabulary.source == []
    ):
        return AxisLabels([], [])

    def place(labels: list[Hashable]) -> list[Hashable]:
        special: list[Hashable] = [("special", position) for position in range(num_special)]
        return special + [(block, label) for block in range(repeats) for label in labels]

    return AxisLabels(place(vocabulary.own), place(vocabulary.source) if vocabulary.source else [])


def _guess_head(vocabulary: _Vocabulary, shapes: Shapes) -> Iterator[tuple[str, int, AxisLabels]]:
    """The last weight with a row for each label, and its module's vectors.

    These are the tensors of the module that have the same length.
    """
    if not vocabulary.is_target:
        return
    fitting = [key for key, shape in shapes.items() if shape and shape[0] == len(vocabulary.own)]
    module = fitting[-1].rpartition(".")[0] if fitting else ""
    for key in fitting:
        if key.rpartition(".")[0] == module:
            yield key, 0, _label_positions(vocabulary, len(vocabulary.own), 1)


def _vocabularies(schema: Schema, source: Schema | None) -> Iterator[_Vocabulary]:
    """The vocabularies of a schema.

    One of all targets' labels together, one of each category and text among the inputs, one of
    those that features share.
    """
    target = schema.targets[0]
    if not target.vocabulary:
        tagged = source is not None and _tagged(schema, source)
        labels = None if source is None else _target_labels(source, tagged)
        yield _Vocabulary(
            _target_labels(schema, tagged),
            labels,
            True,
            lambda feature, is_input: not is_input and feature == target,
        )
    seen: set[str] = set()
    for feature in [*schema.inputs, *schema.targets]:
        name = feature.vocabulary
        is_input = any(feature is one for one in schema.inputs)
        if (not name and not is_input) or name in seen or not feature.facts.has_ids:
            continue
        if name:
            seen.add(name)
            others = [] if source is None else [*source.inputs, *source.targets]
            theirs = next((one.classes for one in others if one.vocabulary == name), [])
        else:
            others = [] if source is None else source.inputs
            theirs = next(
                (
                    one.classes
                    for one in others
                    if (one.name, one.kind) == (feature.name, feature.kind)
                ),
                [],
            )
        known: list[Hashable] | None = None if source is None else [*theirs]
        yield _Vocabulary(
            [*feature.classes], known, False, _sharing(name) if name else _being(feature.name)
        )


def _sharing(vocabulary: str) -> Callable[[FeatureSchema, bool], bool]:
    return lambda feature, is_input: feature.vocabulary == vocabulary


def _being(name: str) -> Callable[[FeatureSchema, bool], bool]:
    return lambda feature, is_input: is_input and feature.name == name


def _tagged(schema: Schema, source: Schema) -> bool:
    """Whether labels carry the name of their target.

    A single target may have any name, so its labels do not.
    """
    return len(schema.targets) > 1 or len(source.targets) > 1


def _target_labels(schema: Schema, tagged: bool) -> list[Hashable]:
    """A label for each output of a model.

    It has the kind, the target's name if that counts, and the class or column.
    """
    return [
        (target.kind, *((target.name,) if tagged else ()), label)
        for target in schema.targets
        for label in (target.classes if target.facts.has_classes else target.columns)
    ]


def _lengthen(schema: Schema, vocabulary: _Vocabulary) -> tuple[Schema, int]:
    """The schema with more labels, and how many."""
    more = {
        "inputs": [
            _lengthen_feature(one) if vocabulary.owns(one, True) else one for one in schema.inputs
        ],
        "targets": [
            _lengthen_feature(one) if vocabulary.owns(one, False) else one for one in schema.targets
        ],
    }
    width = math.prod(schema.targets[0].shape[1:]) if vocabulary.is_target else 1
    return schema.model_copy(update=more), NUM_MORE * width


def _lengthen_feature(feature: FeatureSchema) -> FeatureSchema:
    """The feature with more classes or columns.

    Their embeddings are no longer than before.
    """
    names = [f"more {number}" for number in range(NUM_MORE)]
    if feature.facts.has_ids or feature.facts.has_classes:
        shape = feature.shape if feature.facts.has_ids else [feature.shape[0] + NUM_MORE]
        counts = [*feature.counts, *([1] * NUM_MORE)]
        more = {"classes": [*feature.classes, *names], "counts": counts, "shape": shape}
        return feature.model_copy(update={**more, "embedding": feature.embedding_size})
    width = math.prod(feature.shape[1:])
    columns = [*feature.columns, *(f"{name} {axis}" for name in names for axis in range(width))]
    mean, std = (
        [*feature.mean, *([0.0] * NUM_MORE * width)],
        [*feature.std, *([1.0] * NUM_MORE * width)],
    )
    shape = [feature.shape[0] + NUM_MORE, *feature.shape[1:]]
    return feature.model_copy(update={"columns": columns, "mean": mean, "std": std, "shape": shape})


def _shapes_of(model: Named, schema: Schema) -> Shapes:
    return {
        key: tuple(value.shape) for key, value in build_model(model, schema).state_dict().items()
    }
