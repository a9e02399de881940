"""What was predicted for each row, as columns of a table.

In the target's own units, classes by their names.
"""

# Shapes: N rows, K classes, D columns of a number target or coordinates of points.

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from ...engine import Evaluation
from ...engine.metrics import (
    best_probabilities,
    in_file_pixels,
    in_own_units,
    join_tags,
    log_probabilities,
    predicted_ids,
    predicted_tags,
    scaled_parts,
    tag_probabilities,
    true_tags,
)
from ...schema import FeatureSchema, Schema, TargetPart
from .ranks import describe_answers

# More classes than these get no probability of their own.
MAX_CLASSES = 20
# What there is of an entity that was chosen among all.
RANKED_COLUMNS = ("prediction", "probability")
# Nor more tags: nothing else says how sure a prediction of theirs is.
MAX_TAGS = 100
# The column that says why a row has no prediction.
VERDICT = "verdict"

Columns = dict[str, np.ndarray]


def name_columns(schema: Schema) -> list[str]:
    """The names of what `describe_predictions` gives."""
    if schema.triple is not None:
        return [*RANKED_COLUMNS]
    return [
        f"{prefix}{name}"
        for prefix, feature in zip(prefixes(schema), schema.targets, strict=True)
        for name in _names(feature)
    ]


def describe_predictions(schema: Schema, found: Evaluation, scale: np.ndarray | None) -> Columns:
    """Predictions of rows whose truth may not be known.

    Args:
        schema: of the targets.
        found: outputs of N rows.
        scale: points: see `compute_metrics`.
    Returns:
        Shape (N,) each. Of an entity that was chosen among all prediction and probability. Of a
        category prediction, probability, and probability/<class> (to 20 classes); of labels
        prediction, the tags as a cell says them, and probability/<tag> (to 100 tags); of numbers
        and points prediction, or prediction/<column> of several columns, points in pixels of the
        file. Of several targets all that below <target>/.
    """
    if schema.triple is not None:
        return dict(zip(RANKED_COLUMNS, describe_answers(schema, found), strict=True))
    parts = zip(
        prefixes(schema), scaled_parts(schema, found.outputs, found.target, scale), strict=True
    )
    return {
        f"{prefix}{name}": values
        for prefix, (part, share) in parts
        for name, values in _describe(part, share).items()
    }


def tabulate(
    schema: Schema,
    found: Evaluation,
    scale: np.ndarray | None,
    table_rows: np.ndarray,
    keys: np.ndarray | None,
) -> pd.DataFrame:
    """Predictions beside the truth, one row each.

    Args:
        schema, found, scale: see `describe_predictions`.
        table_rows: int64, shape (N,), each row's number in the table; the first after the header is
            1.
        keys: text of `data.key` for each row; None where there is none.
    Returns:
        row, key; of each target target, its predictions, and, of numbers and points, residual
        (predicted minus true); loss.
    """
    columns: Columns = {"row": table_rows}
    if keys is not None:
        columns["key"] = keys
    parts = scaled_parts(schema, found.outputs, found.target, scale)
    for prefix, (part, share) in zip(prefixes(schema), parts, strict=True):
        truth, predicted = _truth(part, share), _describe(part, share)
        residuals = {}
        if not part.feature.facts.has_classes:
            residuals = {
                f"residual{name.removeprefix('target')}": predicted[
                    f"prediction{name.removeprefix('target')}"
                ]
                - values
                for name, values in truth.items()
            }
        columns |= {
            f"{prefix}{name}": values
            for name, values in {**truth, **predicted, **residuals}.items()
        }
    columns["loss"] = found.losses.float().numpy()
    return pd.DataFrame(columns)


def prefixes(schema: Schema) -> list[str]:
    """What stands before the names of each target's columns.

    Nothing where there is one target.
    """
    return [""] if len(schema.targets) == 1 else [f"{feature.name}/" for feature in schema.targets]


def _names(feature: FeatureSchema) -> list[str]:
    if feature.facts.has_tags:
        return ["prediction", *(f"probability/{tag}" for tag in _probable_tags(feature))]
    if not feature.facts.is_one_class:
        return [f"prediction{end}" for end in _endings(feature)]
    classes = feature.classes if len(feature.classes) <= MAX_CLASSES else []
    return ["prediction", "probability", *(f"probability/{name}" for name in classes)]


def _probable_tags(feature: FeatureSchema) -> list[str]:
    """The tags that get a probability.

    All or none.
    """
    return feature.classes if len(feature.classes) <= MAX_TAGS else []


def _endings(feature: FeatureSchema) -> list[str]:
    """What tells the columns of numbers or points apart."""
    return [""] if len(feature.columns) == 1 else [f"/{name}" for name in feature.columns]


def _describe(part: TargetPart, scale: np.ndarray | None) -> Columns:
    feature = part.feature
    if feature.facts.has_tags:
        each = tag_probabilities(part).astype(np.float32).T[: len(_probable_tags(feature))]
        return dict(
            zip(_names(feature), [join_tags(predicted_tags(part), part), *each], strict=True)
        )
    if not feature.facts.is_one_class:
        return dict(zip(_names(feature), _values(part, part.outputs, scale).T, strict=True))
    labels = np.array(feature.classes, dtype=object)[predicted_ids(part)]
    highest_N = best_probabilities(part, 1)[:, 0].astype(np.float32)
    each = (
        np.exp(log_probabilities(part)).astype(np.float32).T
        if len(feature.classes) <= MAX_CLASSES
        else ()
    )
    return dict(zip(_names(feature), [labels, highest_N, *each], strict=True))


def _truth(part: TargetPart, scale: np.ndarray | None) -> Columns:
    feature = part.feature
    if feature.facts.is_one_class:
        return {"target": np.array(feature.classes, dtype=object)[part.target.numpy()]}
    if feature.facts.has_tags:
        return {"target": join_tags(true_tags(part), part)}
    names = [f"target{end}" for end in _endings(feature)]
    return dict(zip(names, _values(part, part.target, scale).T, strict=True))


def _values(part: TargetPart, values: torch.Tensor, scale: np.ndarray | None) -> np.ndarray:
    """In the table's units, rounded to what a standardised float32 can hold.

    Float64, shape (N, D).
    """
    feature = part.feature
    own_ND = in_own_units(feature, values)
    if feature.facts.lies_on_image:
        own_ND = in_file_pixels(own_ND, scale)
    if values.dtype == torch.float64:
        return own_ND
    decimals_D = [7 - math.floor(math.log10(std)) for std in feature.std]
    return np.stack(
        [np.round(own_N, decimals) for own_N, decimals in zip(own_ND.T, decimals_D, strict=True)],
        axis=1,
    )
