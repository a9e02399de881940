"""What a model's outputs over one split are worth, as plain numbers.

Gathering the outputs is left to the loop.

Here each measure gets its name. What is measured stands in `classification.py`, `regression.py` and
`ranking.py`.
"""

# Shapes: N rows of a split, K classes, D columns of a number target, P points.

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...schema import FeatureSchema, Schema, TargetPart
from ..losses import Reduction, reduce_sum
from .bootstrap import resampled_interval, resampled_ratio_interval
from .classification import MAX_RANKED, class_accuracies, hits, measure_classes
from .names import base_of, former_names, legal_parts, name_part, parts_of
from .ranking import DIRECTIONS, METRICS, measure_ranks, ranking_names, reciprocal_ranks
from .regression import (
    has_unit,
    measure_numbers,
    measure_points,
    point_errors,
    row_nme,
    squared_errors,
)
from .tags import measure_tags, row_counts, score_tags

# The one metric that says how good a model is; see `headline` for the exception.
HEADLINES: dict[str, str] = {
    "category": "accuracy",
    "labels": "f1_micro",
    "number": "rmse",
    "points": "nme",
}
RANKED_HEADLINE = "mrr"
LOWER_IS_BETTER = frozenset(
    {"loss", "rmse", "mae", "median_ae", "nme", "mean_rank", "hamming_loss"}
)
# Of labels each tag has these, as f1_of/<tag>.
TAG_METRICS = ("f1", "precision", "recall", "auroc")
# Of a target of classes or tags: what each has alone.
PART_METRICS: dict[str, tuple[str, ...]] = {"category": ("accuracy",), "labels": TAG_METRICS}
# Counted in the target's own unit.
IN_UNITS = frozenset({"rmse", "mae", "median_ae", "bias"})
NUMBER_METRICS = ("rmse", "mae", "median_ae", "bias", "r2")
# Bounds of the headline metric; see `headline_interval`.
INTERVAL_NAMES = frozenset(
    f"{name}_{end}" for name in (*HEADLINES.values(), RANKED_HEADLINE) for end in ("low", "high")
)
# Metrics that no checkpoint can be best by: nothing is better the larger or the smaller they are.
NOT_MONITORED = frozenset({"bias", "mean_shape_nme"})


def compute_metrics(
    schema: Schema,
    outputs: Tensor,
    target: Tensor,
    losses: Tensor,
    scale: np.ndarray | None = None,
    reduction: Reduction = "mean",
) -> dict[str, float]:
    """Compute all metrics of a split, on the CPU, in double precision.

    What a split leaves undefined is left out: the accuracy of a class without rows, r2 where a
    column is constant, auroc where a class has no rows.

    Args:
        schema: says what the targets are.
        outputs: scores or standardised values, shape (N, num_outputs); any device and floating
            type. Where entities are ranked, what a `Ranker` gave, shape (N, 3).
        target: class ids or standardised values, see `Batch`.
        losses: of each row, shape (N,).
        scale: points: pixels of the file per pixel of the stored image, x and y of each of T
            targets side by side, shape (N, 2T); None means 1.
        reduction: of the rows' losses to the split's.
    Returns:
        By name: loss, and what `measure_classes`, `measure_tags`, `measure_numbers`,
        `measure_points` or `measure_ranks` give. For categories accuracy_of/<class> too, for labels
        f1_of/<tag>, precision, recall and auroc likewise; for several columns of numbers the means
        over the columns, and each again as rmse_of/<column>. Of several targets all that stands
        below <target>/, and the headline (see `headline`) is their mean.
    """
    losses = losses.detach().cpu().double()
    metrics = {"loss": reduce_sum(float(losses.sum()), len(losses), reduction)}
    if schema.triple is not None:
        return metrics | measure_ranks(outputs.numpy())
    each = {
        prefix: _measure(part, share)
        for prefix, (part, share) in zip(
            target_prefixes(schema), scaled_parts(schema, outputs, target, scale), strict=True
        )
    }
    name = headline(schema)
    if len(each) > 1 and all(name in found for found in each.values()):
        metrics[name] = float(np.mean([found[name] for found in each.values()]))
    return metrics | {
        f"{prefix}{name}": value for prefix, found in each.items() for name, value in found.items()
    }


def headline(schema: Schema) -> str:
    """The metric that says how good a model is.

    Accuracy, f1_micro, rmse, nme, mrr; rmse where points have no unit.
    """
    if schema.triple is not None:
        return RANKED_HEADLINE
    if schema.target_facts.learned_as == "points" and not all(
        has_unit(feature) for feature in schema.targets
    ):
        return "rmse"
    return HEADLINES[schema.target_facts.learned_as]


def headline_interval(
    schema: Schema,
    outputs: Tensor,
    target: Tensor,
    scale: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, float]:
    """Bounds between which the headline metric would lie in 95 % of other
    samples of rows like these.

    Args:
        schema, outputs, target, scale: see `compute_metrics`.
        groups: integers, shape (N,), equal ones for rows that belong together and are drawn
            together; None where each row is drawn alone.
    Returns:
        <headline>_low and <headline>_high; nothing where fewer than two groups define it, or an
        output is not finite.
    """
    name = headline(schema)
    if schema.triple is not None:
        values_ND, groups_N = reciprocal_ranks(outputs.numpy(), groups)
        weights_D = np.full(values_ND.shape[1], 1 / values_ND.shape[1])
        return _name_bounds(name, resampled_interval(values_ND, weights_D, groups_N, root=False))
    parts = scaled_parts(schema, outputs, target, scale)
    if schema.target_facts.learned_as == "labels":
        return _ratio_interval(name, parts, groups)
    if schema.target_facts.learned_as == "category":
        values = [hits(part) for part, _ in parts]
    elif schema.target_facts.learned_as == "number":
        values = [squared_errors(part) for part, _ in parts]
    elif name == "nme":
        values = [row_nme(point_errors(part, share)) for part, share in parts]
    else:
        values = [
            (point_errors(part, share).distance ** 2).mean(axis=1, keepdims=True)
            for part, share in parts
        ]
    if not bool(outputs.isfinite().all()):
        return {}
    root = name == "rmse"
    # The mean over targets of the mean over columns, as the metric itself is.
    weights_D = np.concatenate(
        [np.full(one.shape[1], 1 / one.shape[1] / len(values)) for one in values]
    )
    return _name_bounds(
        name, resampled_interval(np.concatenate(values, axis=1), weights_D, groups, root=root)
    )


def _name_bounds(name: str, found: tuple[float, float] | None) -> dict[str, float]:
    return {} if found is None else {f"{name}_low": found[0], f"{name}_high": found[1]}


def _ratio_interval(
    name: str, parts: list[tuple[TargetPart, np.ndarray | None]], groups: np.ndarray | None
) -> dict[str, float]:
    """Bounds of f1_micro, the mean over the targets."""
    above, below = zip(*(row_counts(part) for part, _ in parts), strict=True)
    weights_D = np.full(len(parts), 1 / len(parts))
    found = resampled_ratio_interval(
        np.concatenate(above, axis=1), np.concatenate(below, axis=1), weights_D, groups
    )
    return _name_bounds(name, found)


def scaled_parts(
    schema: Schema, outputs: Tensor, target: Tensor, scale: np.ndarray | None
) -> list[tuple[TargetPart, np.ndarray | None]]:
    """Each target's share, with its share of the scale.

    Shape (N, 2), or None where there is none.

    Args:
        schema, outputs, target, scale: see `compute_metrics`.
    """
    parts = schema.parts(outputs, target)
    return [
        (part, None if scale is None else scale[:, 2 * at : 2 * at + 2])
        for at, part in enumerate(parts)
    ]


def metric_names(schema: Schema) -> list[str]:
    """The names that `checkpoint.monitor` may give.

    What a split with rows of every class has, and can be better in.
    """
    names = ["loss"]
    if schema.triple is not None:
        return [f"valid/{name}" for name in (*names, *ranking_names())]
    if len(schema.targets) > 1:
        names.append(headline(schema))
    for prefix, feature in zip(target_prefixes(schema), schema.targets, strict=True):
        names += [f"{prefix}{name}" for name in _names(feature)]
    return [f"valid/{name}" for name in names]


def monitor_mode(name: str, schema: Schema) -> str:
    """Whether more of a metric is better.

    Args:
        name: with its split, for example "valid/accuracy_of/cat".
        schema: whose targets' names may stand before the metric's.
    Returns:
        "max" or "min".
    """
    rest = name.partition("/")[2]
    prefix = max(
        (prefix for prefix in target_prefixes(schema) if rest.startswith(prefix)),
        key=len,
        default="",
    )
    return "min" if base_of(rest.removeprefix(prefix)) in LOWER_IS_BETTER else "max"


def unit_of(name: str, schema: Schema) -> str:
    """What a metric is counted in.

    The unit of the number target that it measures, px for points, else nothing.

    Args:
        name: with its split, for example "test/rmse".
        schema: whose targets' names may stand before the metric's.
    """
    rest = name.partition("/")[2]
    units = [
        "px" if feature.facts.learned_as == "points" else feature.unit
        for prefix, feature in zip(target_prefixes(schema), schema.targets, strict=True)
        if rest.startswith(prefix) and base_of(rest.removeprefix(prefix)) in IN_UNITS
    ]
    return units[0] if units else ""


def auto_monitor(schema: Schema) -> str:
    """The metric that decides which checkpoint is best where the recipe does
    not say.
    """
    return f"valid/{headline(schema)}"


def target_prefixes(schema: Schema) -> list[str]:
    """What stands before the names of each target's metrics.

    Nothing where there is one target.
    """
    if len(schema.targets) == 1:
        return [""]
    plain = [
        "loss",
        headline(schema),
        *(f"{headline(schema)}_{end}" for end in ("low", "high")),
    ]  # beside them
    parts = legal_parts([feature.name for feature in schema.targets], reserved=plain)
    return [f"{part}/" for part in parts]


def former_metric_names(schema: Schema) -> dict[str, str]:
    """What runs of older versions call metrics of a class, column, tag or
    direction; see `former_names`.
    """
    if schema.triple is not None:
        return former_names(METRICS, "", DIRECTIONS)
    names: dict[str, str] = {}
    for prefix, feature in zip(target_prefixes(schema), schema.targets, strict=True):
        if feature.facts.learned_as == "number" and len(feature.columns) > 1:
            names |= former_names(NUMBER_METRICS, prefix, feature.columns)
        elif feature.facts.learned_as in PART_METRICS:
            names |= former_names(PART_METRICS[feature.facts.learned_as], prefix, feature.classes)
    return names


def _measure(part: TargetPart, scale: np.ndarray | None) -> dict[str, float]:
    """All metrics of one target, without its prefix."""
    if part.feature.facts.learned_as == "points":
        return measure_points(part, scale)
    if part.feature.facts.learned_as == "number":
        return _name_columns(part.feature, measure_numbers(part))
    if part.feature.facts.learned_as == "labels":
        return measure_tags(part) | _name_tags(part)
    each = zip(parts_of(part.feature.classes), class_accuracies(part), strict=False)
    return measure_classes(part) | {
        name_part("accuracy", name): value for name, value in each if value is not None
    }


def _name_tags(part: TargetPart) -> dict[str, float]:
    """The scores of each tag, those that the rows define."""
    scores, tags = score_tags(part), parts_of(part.feature.classes)
    return {
        name_part(name, tag): float(scores[name][at])
        for name in TAG_METRICS
        if name in scores
        for at, tag in enumerate(tags)
        if not np.isnan(scores[name][at])
    }


def _name_columns(feature: FeatureSchema, values: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over the columns, and, of several, each column's own.

    Without the r2 of a constant column.
    """
    is_constant_D = np.isnan(values["r2"]) & ~np.isnan(values["rmse"])
    metrics = {
        name: float(values_D.mean())
        for name, values_D in values.items()
        if name != "r2" or not is_constant_D.any()
    }
    if len(feature.columns) > 1:
        for number, part in enumerate(parts_of(feature.columns)):
            defined = [name for name in values if name != "r2" or not is_constant_D[number]]
            metrics |= {name_part(name, part): float(values[name][number]) for name in defined}
    return metrics


def _names(feature: FeatureSchema) -> list[str]:
    """The metrics of a target that can be better."""
    if feature.facts.learned_as == "points":
        return ["nme", "rmse"] if has_unit(feature) else ["rmse"]
    if feature.facts.learned_as == "number":
        names = [name for name in NUMBER_METRICS if name not in NOT_MONITORED]
        columns = parts_of(feature.columns) if len(feature.columns) > 1 else []
        return [*names, *(name_part(name, column) for column in columns for name in names)]
    if feature.facts.learned_as == "labels":
        names = [
            "f1_micro",
            "f1_macro",
            "precision_micro",
            "precision_macro",
            "recall_micro",
            "recall_macro",
        ]
        names += ["subset_accuracy", "hamming_loss"]
        ranked = feature.num_outputs <= MAX_RANKED
        names += ["auroc_macro", "average_precision_macro"] if ranked else []
        each = TAG_METRICS if ranked else TAG_METRICS[:3]
        return [
            *names,
            *(name_part(name, tag) for name in each for tag in parts_of(feature.classes)),
        ]
    names = ["accuracy", "precision_macro", "recall_macro", "f1_macro"]
    if feature.num_outputs == 2:
        names += ["precision", "recall", "f1", "auroc", "average_precision"]
    elif feature.num_outputs <= MAX_RANKED:
        names.append("auroc_macro")
    return [*names, *(name_part("accuracy", name) for name in parts_of(feature.classes))]
