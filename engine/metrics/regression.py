"""What predicted numbers and points are worth, in the target's own units,
and the tables of their errors.
"""

# Shapes: N rows of a split, D columns of a number target, P points.

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ...schema import FeatureSchema, TargetPart

NUM_QUANTILES = 10
ROUNDING = 1e-6


def squared_errors(part: TargetPart) -> np.ndarray:
    """Of each row and column, in squares of the target's units.

    Float64, shape (N, D).
    """
    return _errors(part) ** 2


def measure_numbers(part: TargetPart) -> dict[str, np.ndarray]:
    """Errors of each column, in the target's own units.

    Returns:
        rmse, mae, median_ae (median absolute error), bias (mean of predicted minus true) and r2,
        float64, shape (D,); r2 is NaN where the column is constant, and every one where a
        prediction is.
    """
    errors_ND = _errors(part)
    truth_ND = _to_numpy(part.target) * np.asarray(
        part.feature.std
    )  # less a constant, which no measure here sees
    variance_D = np.where(np.ptp(truth_ND, axis=0) == 0, np.nan, truth_ND.var(axis=0))
    return {
        "rmse": np.sqrt((errors_ND**2).mean(axis=0)),
        "mae": np.abs(errors_ND).mean(axis=0),
        "median_ae": np.median(np.abs(errors_ND), axis=0),
        "bias": errors_ND.mean(axis=0),
        "r2": 1 - (errors_ND**2).mean(axis=0) / variance_D,
    }


def describe_quantiles(part: TargetPart) -> list[dict[str, Any]]:
    """Errors by the size of the true value, for a table.

    A row for each tenth of a column's rows, equal values joined.

    Returns:
        column, the least and the largest true value, rows, rmse, mae and bias; in the target's own
        units.
    """
    errors_ND, truth_ND = _errors(part), in_own_units(part.feature, part.target)
    table = []
    for column, errors_N, truth_N in zip(
        part.feature.columns, errors_ND.T, truth_ND.T, strict=True
    ):
        edges = np.unique(np.quantile(truth_N, np.linspace(0, 1, NUM_QUANTILES + 1)[1:-1]))
        bin_N = edges.searchsorted(truth_N, "left")
        for number in np.unique(bin_N):
            some, errors = truth_N[bin_N == number], errors_N[bin_N == number]
            table.append(
                {
                    "column": column,
                    "from": some.min(),
                    "to": some.max(),
                    "rows": len(some),
                    "rmse": np.sqrt((errors**2).mean()),
                    "mae": np.abs(errors).mean(),
                    "bias": errors.mean(),
                }
            )
    return table


def in_own_units(feature: FeatureSchema, values: Tensor) -> np.ndarray:
    """Standardised values of a target in its own units.

    The units of points are pixels of the stored image.

    Returns:
        float64, shape (N, D).
    """
    return _to_numpy(values) * np.asarray(feature.std) + np.asarray(feature.mean)


def in_file_pixels(stored_ND: np.ndarray, scale_N2: np.ndarray | None) -> np.ndarray:
    """Points of the stored image in pixels of the file's picture.

    A pixel's centre is a whole number in both.

    Args:
        stored_ND: x0, y0, x1, y1, …
        scale_N2: file pixels per stored pixel, x and y, of each row; None means 1.
    """
    if scale_N2 is None:
        return stored_ND
    return (stored_ND + 0.5) * np.tile(scale_N2, stored_ND.shape[1] // 2) - 0.5


class PointErrors(NamedTuple):
    """How far predicted points lie from the true ones, in pixels of the file's
    picture.

    Attributes:
        distance: predicted to true, shape (N, P).
        mean_shape: the training rows' mean point to the true one, shape (N, P).
        unit: what distances are counted in for `nme`, shape (N,); NaN where it has no length.
    """

    distance: np.ndarray
    mean_shape: np.ndarray
    unit: np.ndarray


def has_unit(feature: FeatureSchema) -> bool:
    """Whether the errors of a points target have a length to be counted in.

    One point alone has no box.
    """
    return bool(feature.normalise_by) or len(feature.columns) > 2


def point_errors(part: TargetPart, scale_N2: np.ndarray | None) -> PointErrors:
    """Measure each row's points.

    Args:
        part: standardised coordinates (N, 2P), x before y.
        scale_N2: file pixels per stored pixel, x and y, of each row; None means 1.
    """
    feature = part.feature
    scale_N12 = 1.0 if scale_N2 is None else np.asarray(scale_N2, np.float64)[:, None, :]
    mean_P2 = np.asarray(feature.mean).reshape(-1, 2)
    truth_NP2 = _to_numpy(part.target) * np.asarray(feature.std)  # about the mean shape
    shape_NP2 = truth_NP2.reshape(-1, *mean_P2.shape) * scale_N12
    offset_NP2 = _errors(part).reshape(shape_NP2.shape) * scale_N12
    points_NP2 = shape_NP2 + mean_P2 * scale_N12
    if feature.normalise_by:
        first, second = feature.normalise_by
        extent_N2 = points_NP2[:, first] - points_NP2[:, second]
    else:
        extent_N2 = np.ptp(points_NP2, axis=1)
    unit_N = np.linalg.norm(extent_N2, axis=1)
    # Two points at one place are, in float32, not quite at one place.
    rounding_N = ROUNDING * np.maximum(np.abs(points_NP2), np.abs(shape_NP2)).max(axis=(1, 2))
    return PointErrors(
        np.linalg.norm(offset_NP2, axis=2),
        np.linalg.norm(shape_NP2, axis=2),
        np.where(unit_N > rounding_N, unit_N, np.nan),
    )


def row_nme(errors: PointErrors) -> np.ndarray:
    """Mean distance of each row over its unit, float64, shape (N, 1).

    NaN where the unit has no length.
    """
    return (errors.distance.mean(axis=1) / errors.unit)[:, None]


def measure_points(part: TargetPart, scale_N2: np.ndarray | None) -> dict[str, float]:
    """Metrics of a points target.

    Returns:
        nme; mean_shape_nme, what predicting the training rows' mean shape for every row gives;
        rmse, the root of the mean squared distance in pixels of the file. The first two are means
        over the rows whose unit has a length, and are left out where no row's has, as of one point
        alone.
    """
    errors = point_errors(part, scale_N2)
    metrics = {"rmse": float(np.sqrt((errors.distance**2).mean()))}
    defined_N = ~np.isnan(errors.unit)
    if defined_N.any():
        baseline_N = errors.mean_shape.mean(axis=1) / errors.unit
        metrics |= {
            "nme": float(row_nme(errors)[defined_N].mean()),
            "mean_shape_nme": float(baseline_N[defined_N].mean()),
        }
    return metrics


def describe_points(part: TargetPart, scale_N2: np.ndarray | None) -> list[dict[str, Any]]:
    """One row a point, for a table.

    Its columns, mean, median and largest distance in pixels, and its nme if it has.
    """
    errors = point_errors(part, scale_N2)
    columns = part.feature.columns
    nme_P = (
        np.nanmean(errors.distance / errors.unit[:, None], axis=0)
        if not np.isnan(errors.unit).all()
        else ()
    )
    return [
        {
            "point": number,
            "x": columns[2 * number],
            "y": columns[2 * number + 1],
            "mean_distance": distance_N.mean(),
            "median_distance": np.median(distance_N),
            "largest_distance": distance_N.max(),
        }
        | ({"nme": nme_P[number] if len(nme_P) else None} if has_unit(part.feature) else {})
        for number, distance_N in enumerate(errors.distance.T)
    ]


def _errors(part: TargetPart) -> np.ndarray:
    """Predicted minus true, float64, shape (N, D).

    Large numbers with a small spread keep their digits.
    """
    return (_to_numpy(part.outputs) - _to_numpy(part.target)) * np.asarray(part.feature.std)


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
