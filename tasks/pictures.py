"""The figures and the tables of an evaluation, chosen by its targets; `tracking/figures.py` draws them."""

# Shapes: N rows, P points.

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..datasets.build import View
from ..datasets.loader import PackDataset
from ..engine.classification import confusion_matrix, describe_classes, log_probabilities
from ..engine.evaluation import Evaluation
from ..engine.metrics import headline, headline_interval, scaled_parts
from ..engine.regression import describe_points, describe_quantiles, in_own_units, measure_points, point_errors, row_nme
from ..files import write_atomic
from ..schema import FeatureSchema, Schema, TargetPart
from ..tracking import figures

NUM_SHOWN = 25


def draw_evaluation(view: View, found: Evaluation, scale: np.ndarray | None, folder: Path) -> None:
    """Draw the figures that fit each target, and rows to look at: the worst, the most doubtful, landmarks on pictures.

    Args:
        view: where the rows' inputs are.
        found: outputs for rows of it.
        scale: points: see `compute_metrics`.
        folder: gets PNG files; of several targets each file's name ends in -<target>.
    """
    for end, part, share in _targets(view.schema, found, scale):
        feature, interval = part.feature, _interval(view.schema, part, share)
        if feature.kind == "category":
            matrix = confusion_matrix(part)
            figures.confusion(matrix, feature.classes, folder / f"confusion{end}.png", interval=interval)
            figures.class_accuracy(matrix, feature.classes, folder / f"class_accuracy{end}.png", interval=interval)
            figures.class_scores(matrix, feature.classes, folder / f"class_scores{end}.png")
            if len(feature.classes) == 2:
                scores_N = log_probabilities(part)[:, 1]
                figures.roc(scores_N, part.target.numpy() == 1, feature.classes[1], folder / f"roc{end}.png")
            _draw_rows(
                view, found, part, share, _doubtful(part), "Most doubtful predictions", folder / f"doubtful{end}.png"
            )
        elif feature.kind == "number":
            target, predicted = in_own_units(feature, part.target), in_own_units(feature, part.outputs)
            for number, column in enumerate(feature.columns):
                name = f"residuals{end}{f'-{number}' if number else ''}.png"
                of_one = interval if len(feature.columns) == 1 else None
                figures.residuals(target[:, number], predicted[:, number], column, folder / name, interval=of_one)
        else:
            errors = point_errors(part, share)
            figures.points_error(
                errors.distance / errors.unit[:, None],
                folder / f"points_error{end}.png",
                np.asarray(feature.mean).reshape(-1, 2),
                baseline=measure_points(part, share).get("mean_shape_nme"),
                interval=interval,
            )
        worst = np.argsort(-_losses(part, share), kind="stable")
        _draw_rows(view, found, part, share, worst[:NUM_SHOWN], "Worst predictions", folder / f"worst{end}.png")
        if feature.kind == "points":
            spread = worst[np.linspace(len(worst) - 1, 0, min(len(worst), NUM_SHOWN)).round().astype(np.int64)]
            _draw_rows(view, found, part, share, spread, "From the best to the worst", folder / f"points{end}.png")


def write_tables(schema: Schema, found: Evaluation, scale: np.ndarray | None, folder: Path) -> None:
    """Write the CSV tables that fit each target: of classes, of errors by quantile, or of points.

    Args:
        schema: of the targets.
        found, scale, folder: see `draw_evaluation`.
    """
    for end, part, share in _targets(schema, found, scale):
        if part.feature.kind == "category":
            name, rows = "classes", describe_classes(part)
        elif part.feature.kind == "number":
            name, rows = "errors_by_quantile", describe_quantiles(part)
        else:
            name, rows = "points", describe_points(part, share)
        write_atomic(folder / f"{name}{end}.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


def _targets(
    schema: Schema, found: Evaluation, scale: np.ndarray | None
) -> Iterator[tuple[str, TargetPart, np.ndarray | None]]:
    """What each target's files' names end in, the target, and its share of the scale."""
    for part, share in scaled_parts(schema, found.outputs, found.target, scale):
        end = "" if len(schema.targets) == 1 else f"-{urllib.parse.quote(part.feature.name, safe=' ')}"
        yield end, part, share


def _interval(schema: Schema, part: TargetPart, share: np.ndarray | None) -> tuple[float, float] | None:
    """Of the headline metric of one target."""
    alone = schema.model_copy(update={"targets": [part.feature]})
    found = headline_interval(alone, part.outputs, part.target, share)
    name = headline(alone)
    return (found[f"{name}_low"], found[f"{name}_high"]) if found else None


def _losses(part: TargetPart, share: np.ndarray | None) -> np.ndarray:
    """How wrong each row is about this target: nats, mean squared standardised error, or nme; float64, shape (N,)."""
    if part.feature.kind == "points":
        return np.nan_to_num(row_nme(point_errors(part, share))[:, 0])
    if part.feature.kind == "category":
        return -np.take_along_axis(log_probabilities(part), part.target.numpy()[:, None], axis=1)[:, 0]
    return (part.outputs.double() - part.target.double()).square().mean(dim=1).numpy()


def _doubtful(part: TargetPart) -> np.ndarray:
    """The rows whose two most probable classes are nearest to each other."""
    two_N2 = part.outputs.double().softmax(dim=1).topk(2, dim=1).values
    return np.argsort((two_N2[:, 0] - two_N2[:, 1]).numpy(), kind="stable")[:NUM_SHOWN]


def _draw_rows(
    view: View,
    found: Evaluation,
    part: TargetPart,
    scale: np.ndarray | None,
    chosen: np.ndarray,
    heading: str,
    path: Path,
) -> None:
    """Pictures of some rows, with their points where the target is points; numbers where no input is a picture."""
    positions = found.rows.numpy()[chosen]
    some = TargetPart(part.feature, part.outputs[chosen], part.target[chosen])
    said = _describe(some, None if scale is None else scale[chosen])
    number = _picture(view.schema, part.feature)
    if number is None:
        header = ("row of the table", "true", "predicted", "")
        rows = [f"{int(row) + 1:,}" for row in view.pack.rows[positions]]
        cells = [(row, true, predicted, rest) for row, (true, predicted, rest) in zip(rows, said, strict=True)]
        figures.worst_rows(header, cells, path, heading)
        return
    batch = PackDataset(view.pack, view.schema, positions).__getitems__(range(len(positions)))
    pictures = _to_uint8(batch.inputs[number].numpy(), view.schema.inputs[number])
    if part.feature.kind == "points":
        true, predicted = (
            in_own_units(part.feature, one).reshape(len(chosen), -1, 2) for one in (some.target, some.outputs)
        )
        figures.gallery(pictures, [rest for _, _, rest in said], path, heading, true, predicted)
    else:
        titles = [f"{true} as {predicted}\n{rest}" for true, predicted, rest in said]
        figures.gallery(pictures, titles, path, f"{heading} (true as predicted)")


def _picture(schema: Schema, target: FeatureSchema) -> int | None:
    """Which input shows what a row is: the image of the points, else the first image; None where there is none."""
    images = [number for number, feature in enumerate(schema.inputs) if feature.kind == "image"]
    named = [number for number in images if schema.inputs[number].name == target.image]
    return next(iter(named or images), None)


def _describe(part: TargetPart, scale: np.ndarray | None) -> list[tuple[str, str, str]]:
    """For each row: what is true, what was predicted, how sure and how wrong."""
    losses = _losses(part, scale)
    if part.feature.kind == "category":
        classes = part.feature.classes
        return [
            (classes[int(true)], classes[int(row.argmax())], f"p {row.max():.2f}, loss {loss:.2f}")
            for true, row, loss in zip(part.target, part.outputs.softmax(dim=1), losses, strict=True)
        ]
    if part.feature.kind == "points":
        return [("", "", f"nme {value:.4f}") for value in losses]
    true, predicted = in_own_units(part.feature, part.target), in_own_units(part.feature, part.outputs)
    return [
        (_numbers(one), _numbers(other), f"loss {loss:.3g}")
        for one, other, loss in zip(true, predicted, losses, strict=True)
    ]


def _numbers(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in values.tolist()[:3])


def _to_uint8(images_NCHW: np.ndarray, feature: FeatureSchema) -> np.ndarray:
    """Pixels as they can be shown: the range of the feature's type becomes 0 to 255."""
    if feature.dtype == "uint8":
        return images_NCHW
    top = 65535.0 if feature.dtype == "uint16" else max(float(images_NCHW.max()), 1e-9)
    return np.clip(images_NCHW / top * 255, 0, 255).astype(np.uint8)
