"""The figures and the tables of an evaluation, chosen by its targets.

`figures/` draws them.
"""

# Shapes: N rows, P points.

from __future__ import annotations

import urllib.parse
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ... import figures
from ...datasets.batches import PackDataset
from ...datasets.pack import View
from ...disk import write_atomic
from ...engine import Evaluation, bce
from ...engine.metrics import (
    PointErrors,
    best_probabilities,
    confusion_matrix,
    count_classes,
    count_tags,
    describe_classes,
    describe_points,
    describe_quantiles,
    describe_tags,
    has_unit,
    headline,
    headline_interval,
    in_own_units,
    join_tags,
    log_probabilities,
    point_errors,
    predicted_tags,
    row_losses,
    row_nme,
    scaled_parts,
    true_tags,
)
from ...recipe import Recipe
from ...schema import FeatureSchema, Schema, TargetPart

NUM_SHOWN = 25
MAX_COLUMNS = 3
# Of more classes no page shows which is taken for which; classes.csv says what each is most often
# taken for.
MAX_CONFUSED = 1000
# Of a text beside its prediction.
MAX_LETTERS = 90
# What is shown of a row of labels that has none.
NO_TAG = "none"
# Between these percentiles of a channel lies what its pixels are shown by, where they are no bytes.
DARKEST, BRIGHTEST = 1.0, 99.5


def draw_evaluation(
    view: View,
    found: Evaluation,
    scale: np.ndarray | None,
    folder: Path,
    as_stored: Collection[str] = (),
) -> None:
    """Draw the figures that fit each target, and rows to look at.

    The worst, the most doubtful, landmarks on pictures.

    Args:
        view: where the rows' inputs are.
        found: outputs for rows of it.
        scale: points: see `compute_metrics`.
        folder: gets PNG files; of several targets each file's name ends in -<target>.
        as_stored: image inputs that are shown in the proportions of the stored images, not of their
            files.
    """
    groups = None if view.groups is None else view.groups[found.rows.numpy()]
    for end, part, share in _targets(view.schema, found, scale):
        feature, interval = part.feature, _interval(view.schema, part, share, groups)
        losses_N = _losses(part, share, found)
        rows = _Rows(view, found, part, share, losses_N, as_stored)
        heading = "Worst predictions"
        if feature.facts.is_one_class:
            hits_K, rows_K, predicted_K, *_ = count_classes(part)
            if len(feature.classes) <= MAX_CONFUSED:
                matrix = confusion_matrix(part)
                figures.confusion(
                    matrix, feature.classes, folder / f"confusion{end}.png", interval=interval
                )
            path = folder / f"class_accuracy{end}.png"
            figures.class_accuracy(hits_K, rows_K, feature.classes, path, interval=interval)
            figures.class_scores(
                hits_K, rows_K, predicted_K, feature.classes, folder / f"class_scores{end}.png"
            )
            if len(feature.classes) == 2:
                scores_N = log_probabilities(part)[:, 1]
                figures.roc(
                    scores_N, part.target.numpy() == 1, feature.classes[1], folder / f"roc{end}.png"
                )
            _draw_rows(
                rows, _doubtful(part), "Most doubtful predictions", folder / f"doubtful{end}.png"
            )
            heading += f": {rows_K.sum() - hits_K.sum():,} wrong of {rows_K.sum():,}"
        elif feature.facts.has_tags:
            counts = count_tags(part)
            figures.tag_scores(
                counts["hits"],
                counts["rows"],
                counts["predicted"],
                feature.classes,
                folder / f"tag_scores{end}.png",
            )
            wrong_N = (true_tags(part) != predicted_tags(part)).any(axis=1)
            heading += f": {wrong_N.sum():,} of {len(wrong_N):,} rows not all right"
        elif not feature.facts.lies_on_image:
            target, predicted = (
                in_own_units(feature, part.target),
                in_own_units(feature, part.outputs),
            )
            for number, column in enumerate(feature.columns):
                name = f"residuals{end}{f'-{number}' if number else ''}.png"
                of_one = interval if len(feature.columns) == 1 else None
                pair = target[:, number], predicted[:, number]
                figures.residuals(*pair, column, folder / name, feature.unit, interval=of_one)
        else:
            _draw_points_error(
                feature, point_errors(part, share), interval, folder / f"points_error{end}.png"
            )
        worst = np.argsort(-losses_N, kind="stable")
        _draw_rows(rows, worst[:NUM_SHOWN], heading, folder / f"worst{end}.png")
        if feature.facts.lies_on_image:
            spread = worst[
                np.linspace(len(worst) - 1, 0, min(len(worst), NUM_SHOWN)).round().astype(np.int64)
            ]
            _draw_rows(rows, spread, "From the best to the worst", folder / f"points{end}.png")


def images_as_stored(recipe: Recipe) -> frozenset[str]:
    """The images that a `preprocess` chain may have cut.

    What their files' proportions say of them is not known.
    """
    return frozenset(name for name, feature in recipe.data.inputs.items() if feature.preprocess)


def write_tables(schema: Schema, found: Evaluation, scale: np.ndarray | None, folder: Path) -> None:
    """Write the CSV tables that fit each target.

    Of classes, of tags, of errors by quantile, or of points.

    Args:
        schema: of the targets.
        found, scale, folder: see `draw_evaluation`.
    """
    for end, part, share in _targets(schema, found, scale):
        if part.feature.facts.is_one_class:
            name, rows = "classes", describe_classes(part)
        elif part.feature.facts.has_tags:
            name, rows = "tags", describe_tags(part)
        elif not part.feature.facts.lies_on_image:
            name, rows = "errors_by_quantile", describe_quantiles(part)
        else:
            name, rows = "points", describe_points(part, share)
        write_atomic(
            folder / f"{name}{end}.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
        )


def _targets(
    schema: Schema, found: Evaluation, scale: np.ndarray | None
) -> Iterator[tuple[str, TargetPart, np.ndarray | None]]:
    """What each target's files' names end in, the target, and its share of
    the scale.
    """
    for part, share in scaled_parts(schema, found.outputs, found.target, scale):
        end = (
            ""
            if len(schema.targets) == 1
            else f"-{urllib.parse.quote(part.feature.name, safe=' ')}"
        )
        yield end, part, share


def _interval(
    schema: Schema, part: TargetPart, share: np.ndarray | None, groups: np.ndarray | None
) -> tuple[float, float] | None:
    """Of the headline metric of one target."""
    alone = schema.model_copy(update={"targets": [part.feature]})
    found = headline_interval(alone, part.outputs, part.target, share, groups)
    name = headline(alone)
    return (found[f"{name}_low"], found[f"{name}_high"]) if found else None


def _draw_points_error(
    feature: FeatureSchema, errors: PointErrors, interval: tuple[float, float] | None, path: Path
) -> None:
    """Normalised, or in pixels where there is nothing to normalise by.

    The interval is that of the nme alone.
    """
    normalised = has_unit(feature)
    unit_N = errors.unit if normalised else np.ones_like(errors.unit)
    baseline_N = errors.mean_shape.mean(axis=1) / unit_N
    figures.points_error(
        errors.distance / unit_N[:, None],
        path,
        np.asarray(feature.mean).reshape(-1, 2),
        unit="" if normalised else "px",
        baseline=None if np.isnan(baseline_N).all() else float(np.nanmean(baseline_N)),
        interval=interval if normalised else None,
    )


def _losses(part: TargetPart, share: np.ndarray | None, found: Evaluation) -> np.ndarray:
    """How wrong each row is about this target, float64, shape (N,).

    Of a category in nats, of labels in nats a tag; of points the nme, for which a row without a
    unit borrows that of the middle row, or the mean distance in pixels where no row has one; of
    numbers the row's loss, or of several targets the mean squared standardised error.
    """
    if part.feature.facts.lies_on_image:
        errors = point_errors(part, share)
        defined_N = ~np.isnan(errors.unit)
        middle = np.median(errors.unit[defined_N]) if defined_N.any() else 1.0
        return errors.distance.mean(axis=1) / np.where(defined_N, errors.unit, middle)
    if part.feature.facts.is_one_class:
        return np.maximum(row_losses(part), 0.0)
    if part.feature.facts.has_tags:
        return bce(part.outputs.double(), part.target).numpy()
    if part.outputs.shape == found.outputs.shape:
        return found.losses.double().numpy()
    return (part.outputs.double() - part.target.double()).square().mean(dim=1).numpy()


def _doubtful(part: TargetPart) -> np.ndarray:
    """The rows whose two most probable classes are nearest to each other."""
    two_N2 = best_probabilities(part, 2)
    return np.argsort(two_N2[:, 0] - two_N2[:, 1], kind="stable")[:NUM_SHOWN]


class _Rows(NamedTuple):
    """What there is to say and to show of the rows of one target.

    Attributes:
        scale: the target's share of it.
        losses: see `_losses`.
    """

    view: View
    found: Evaluation
    part: TargetPart
    scale: np.ndarray | None
    losses: np.ndarray
    as_stored: Collection[str]


def _draw_rows(all_rows: _Rows, chosen: np.ndarray, heading: str, path: Path) -> None:
    """Pictures of some rows, with their points where the target is points.

    Numbers where no input is a picture.
    """
    view, found, part, scale, losses, as_stored = all_rows
    positions = found.rows.numpy()[chosen]
    some = TargetPart(part.feature, part.outputs[chosen], part.target[chosen])
    name = "loss" if len(view.schema.targets) == 1 else "mse"
    said = _describe(some, None if scale is None else scale[chosen], losses[chosen], name)
    number = _picture(view.schema, part.feature)
    columns = (
        _cut(part.feature.columns)
        if part.feature.facts.is_quantity and len(part.feature.columns) > 1
        else ""
    )
    if number is None:
        header = (
            "row of the table",
            *(f"{what} {columns}".strip() for what in ("true", "predicted")),
            "",
        )
        rows = [f"{int(row) + 1:,}" for row in view.pack.rows[positions]]
        cells = [
            (row, true, predicted, rest)
            for row, (true, predicted, rest) in zip(rows, said, strict=True)
        ]
        for feature in [feature for feature in view.schema.inputs if feature.facts.is_sequence][:1]:
            header = (*header, feature.name)
            texts = view.pack.texts(feature.name, positions)
            cells = [(*one, text) for one, text in zip(cells, texts, strict=True)]
        figures.worst_rows(
            header, cells, path, heading, widest_last=28 if header[-1] == "" else MAX_LETTERS
        )
        return
    batch = PackDataset(view.pack, view.schema, positions).__getitems__(range(len(positions)))
    image = view.schema.inputs[number]
    pictures = to_uint8(batch.inputs[number].numpy(), image)
    ratios = None
    if image.name not in as_stored:
        height_N, width_N = np.asarray(view.pack.source(image.name))[positions].T
        ratios = width_N / height_N
    if part.feature.facts.lies_on_image:
        true, predicted = (
            in_own_units(part.feature, one).reshape(len(chosen), -1, 2)
            for one in (some.target, some.outputs)
        )
        figures.gallery(
            pictures, [rest for _, _, rest in said], path, heading, true, predicted, ratios
        )
    else:
        titles = [f"{true} as {predicted}\n{rest}" for true, predicted, rest in said]
        meant = f"{columns}: true as predicted" if columns else "true as predicted"
        figures.gallery(pictures, titles, path, f"{heading} ({meant})", ratios=ratios)


def _picture(schema: Schema, target: FeatureSchema) -> int | None:
    """Which input shows what a row is.

    The image of the points, else the first image; None where there is none.
    """
    images = [number for number, feature in enumerate(schema.inputs) if feature.facts.is_image]
    named = [number for number in images if schema.inputs[number].name == target.image]
    return next(iter(named or images), None)


def _describe(
    part: TargetPart, scale: np.ndarray | None, losses: np.ndarray, name: str
) -> list[tuple[str, str, str]]:
    """For each row.

    What is true, what was predicted, how sure and how wrong.

    Args:
        losses: of these rows.
        name: of the loss of numbers.
    """
    if part.feature.facts.is_one_class:
        classes = part.feature.classes
        return [
            (classes[int(true)], classes[int(row.argmax())], f"p {row.max():.2f}, loss {loss:.3g}")
            for true, row, loss in zip(
                part.target, part.outputs.softmax(dim=1), losses, strict=True
            )
        ]
    if part.feature.facts.has_tags:
        true_N, predicted_N = (
            join_tags(true_tags(part), part),
            join_tags(predicted_tags(part), part),
        )
        return [
            (true or NO_TAG, predicted or NO_TAG, f"loss {loss:.3g}")
            for true, predicted, loss in zip(true_N, predicted_N, losses, strict=True)
        ]
    if part.feature.facts.lies_on_image:
        errors = point_errors(part, scale)
        return [
            ("", "", f"{distance:.4g} px" if np.isnan(nme) else f"nme {nme:.4f}")
            for distance, nme in zip(
                errors.distance.mean(axis=1), row_nme(errors)[:, 0], strict=True
            )
        ]
    true, predicted = (
        in_own_units(part.feature, part.target),
        in_own_units(part.feature, part.outputs),
    )
    return [
        (
            _cut([f"{value:.4g}" for value in one]),
            _cut([f"{value:.4g}" for value in other]),
            f"{name} {loss:.3g}",
        )
        for one, other, loss in zip(true, predicted, losses, strict=True)
    ]


def _cut(texts: Sequence[str]) -> str:
    """The first few, and a sign where there are more."""
    return ", ".join(texts[:MAX_COLUMNS]) + (", …" if len(texts) > MAX_COLUMNS else "")


def to_uint8(images_NCHW: np.ndarray, feature: FeatureSchema) -> np.ndarray:
    """Pixels as they can be shown.

    What is no byte is stretched, each channel by what it holds in all these images.

    Few files of 16 bits or floats fill the range of their type: a camera may give 12 bits.
    """
    if feature.dtype == "uint8":
        return images_NCHW
    images = images_NCHW.astype(np.float64)
    low_C, high_C = np.percentile(images, [DARKEST, BRIGHTEST], axis=(0, 2, 3))
    flat_C = low_C == high_C  # a few bright pixels in a dark channel
    low_C = np.where(flat_C, images.min(axis=(0, 2, 3)), low_C)
    high_C = np.where(flat_C, images.max(axis=(0, 2, 3)), high_C)
    low, span = low_C[:, None, None], np.maximum(high_C - low_C, 1e-9)[:, None, None]
    return np.clip((images - low) / span * 255, 0, 255).astype(np.uint8)
