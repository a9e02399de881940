"""Lets a fitted schema keep what the schema of a source says.

Means, deviations, the order of classes, vocabularies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ...errors import DataError
from ...recipe import Data
from ...schema import FeatureSchema, Schema
from ..kinds import kind_of

# What must be the same of an input, for the source's statistics to mean anything; text and images
# have one column, which may be called anything.
_SAME = ("kind", "columns", "shape", "dtype", "tokens", "ngrams", "lowercase", "vocabulary")
_REMEDY = (
    "make the recipe's data.inputs those of the source, or say warm_start.statistics: data to fit "
    "all anew"
)


class InheritedSchema(NamedTuple):
    """What a model that is to be trained takes over from another.

    See `inherit`.

    Attributes:
        schema: of the other model.
        statistics: source or data.
    """

    schema: Schema
    statistics: Literal["source", "data"]


def check_inputs(data: Data, source: Schema) -> None:
    """Refuse a recipe whose inputs are not a source's, as far as it says so
    itself, before a file is read.

    Raises:
        DataError: names, kinds, or what cells and images are made into differ; names both.
    """
    ours = [f"{name} ({feature.kind})" for name, feature in data.inputs.items()]
    theirs = [f"{feature.name} ({feature.kind})" for feature in source.inputs]
    if ours != theirs:
        raise DataError(
            f"data.inputs has {', '.join(ours)}, the source of the warm start {', '.join(theirs)}; "
            f"{_REMEDY}"
        )
    for (name, asked), feature in zip(data.inputs.items(), source.inputs, strict=True):
        for field, value in kind_of(asked.kind).told_by(asked).items():
            _check_same(name, field, value, feature)


def inherit(fitted: Schema, source: Schema, statistics: Literal["source", "data"]) -> Schema:
    """Merge what was fitted on a table with what a model that is to begin from
    a source's weights knows already.

    Inputs keep the source's means and deviations. Their vocabularies keep all of its classes and
    tokens, in its order, and new ones come behind. A target keeps the source's order for those of
    its classes that the table has, new ones behind them; numbers and points of the same columns
    keep means and deviations; any other target is as it was fitted.

    Args:
        fitted: on the training rows.
        source: what the source was trained with.
        statistics: data leaves everything as it was fitted, except how many numbers a class is
            embedded into, without which no embedding could be kept.
    Raises:
        DataError: inputs of the two do not fit each other; names both.
    """
    if statistics == "data":
        theirs = {feature.name: feature for feature in source.inputs}
        inputs = [
            _keep_embedding(one, theirs[one.name]) if one.name in theirs else one
            for one in fitted.inputs
        ]
        return fitted.model_copy(update={"inputs": inputs})
    if len(fitted.inputs) != len(source.inputs):
        raise DataError(
            f"data.inputs has {len(fitted.inputs)} features, the source of the warm start "
            f"{len(source.inputs)}; "
            f"{_REMEDY}"
        )
    inputs = [
        _inherit_input(own, theirs)
        for own, theirs in zip(fitted.inputs, source.inputs, strict=True)
    ]
    targets = [_inherit_target(own, _counterpart(own, fitted, source)) for own in fitted.targets]
    return fitted.model_copy(update={"inputs": inputs, "targets": targets})


def _inherit_input(own: FeatureSchema, theirs: FeatureSchema) -> FeatureSchema:
    if own.facts.is_number and own.kind == theirs.kind and own.columns == theirs.columns:
        own = _keep_fill(own, theirs)
    is_of_one_column = kind_of(own.kind).is_of_one_column(is_target=False)
    for field in _SAME:
        if not (field == "columns" and is_of_one_column):
            _check_same(own.name, field, getattr(own, field), theirs)
    if own.facts.has_ids:
        return _keep_embedding(_with_classes(own, _merge(theirs.classes, own.classes)), theirs)
    return own.model_copy(update={"mean": theirs.mean, "std": theirs.std})


def _keep_fill(own: FeatureSchema, theirs: FeatureSchema) -> FeatureSchema:
    """The numbers with the source's fillings and flags, which its weights
    have a place for, and the range of both.
    """
    ranges = {"low": own.low, "high": own.high}
    if theirs.low:
        ranges = {
            "low": [*map(min, own.low, theirs.low)],
            "high": [*map(max, own.high, theirs.high)],
        }
    kept = {"shape": theirs.shape, "flagged": theirs.flagged, "fill": theirs.fill or own.fill}
    return own.model_copy(update={**kept, **ranges})


def _check_same(name: str, field: str, mine: object, theirs: FeatureSchema) -> None:
    other = getattr(theirs, field)
    if mine != other:
        raise DataError(
            f"data.inputs.{name}: its {field} {'are' if field in ('columns', 'ngrams') else 'is'} "
            f"{_text(mine)}, of "
            f"{theirs.name!r} in the source of the warm start {_text(other)}; {_REMEDY}"
        )


def _inherit_target(own: FeatureSchema, theirs: FeatureSchema | None) -> FeatureSchema:
    if theirs is None:
        return own
    if not own.facts.has_classes:
        return (
            own.model_copy(update={"mean": theirs.mean, "std": theirs.std})
            if own.columns == theirs.columns
            else own
        )
    # Entities that are ranked stay in the ranking, and are the same ones as those of the inputs.
    is_shared = own.vocabulary != "" and own.vocabulary == theirs.vocabulary
    present = set(own.classes)
    kept = theirs.classes if is_shared else [name for name in theirs.classes if name in present]
    return _with_classes(own, _merge(kept, own.classes))


def _counterpart(own: FeatureSchema, fitted: Schema, source: Schema) -> FeatureSchema | None:
    """The source's target of the same name and kind.

    Where both have but one, of the same kind alone.
    """
    alone = len(fitted.targets) == len(source.targets) == 1
    return next(
        (one for one in source.targets if one.kind == own.kind and (alone or one.name == own.name)),
        None,
    )


def _with_classes(own: FeatureSchema, classes: list[str]) -> FeatureSchema:
    """The same feature with its classes in another order, and more of them,
    which no training row has.
    """
    count_of = dict(zip(own.classes, own.counts, strict=True))
    return own.model_copy(
        update={"classes": classes, "counts": [count_of.get(name, 0) for name in classes]}
    )


def _merge(first: Sequence[str], second: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _keep_embedding(own: FeatureSchema, theirs: FeatureSchema) -> FeatureSchema:
    if own.kind != theirs.kind or not own.facts.has_ids:
        return own
    return own.model_copy(update={"embedding": theirs.embedding_size})


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else repr(value)
