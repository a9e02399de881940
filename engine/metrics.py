"""What a model's outputs over one split are worth, as plain numbers; gathering the outputs is left to the loop."""

# Shapes: N rows of a split, K classes, D columns of a number target.

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..schema import Schema

# More classes or columns than these get no metric of their own.
MAX_PARTS = 100
# MLflow takes names of 250; this leaves room for "valid/accuracy/" before and a "_std" behind.
MAX_PART_LENGTH = 200

HIGHER_IS_BETTER = frozenset({"accuracy", "f1_macro", "auroc", "r2"})


def compute_metrics(schema: Schema, outputs: Tensor, target: Tensor, losses: Tensor) -> dict[str, float]:
    """Compute all metrics of a split, on the CPU, in double precision.

    What a split leaves undefined is left out: the accuracy of a class without rows, r2 where a column is constant,
    auroc where one class has no rows.

    Args:
        schema: says what the target is.
        outputs: scores, shape (N, K), or standardised values, shape (N, D); any device and floating type.
        target: class ids, shape (N,), or standardised values, shape (N, D).
        losses: of each row, shape (N,).
    Returns:
        By name: loss; for categories accuracy, accuracy/<class>, f1_macro and, with two classes, auroc; for
        numbers rmse, mae and r2 (means over the columns, in the target's own units) and, with several columns,
        each again as rmse/<column>.
    """
    metrics = {"loss": float(_to_numpy(losses).mean())}
    if schema.target.kind == "category":
        return metrics | _category_metrics(schema, outputs, target)
    return metrics | _number_metrics(schema, outputs, target)


def confusion_matrix(schema: Schema, outputs: Tensor, target: Tensor) -> np.ndarray:
    """Count rows by true and predicted class.

    Args:
        schema: its target is a category of K classes.
        outputs: scores, shape (N, K).
        target: class ids, shape (N,).
    Returns:
        int64, shape (K, K): rows are true classes, columns predicted ones.
    """
    num_classes = schema.num_outputs
    predicted_N = outputs.detach().cpu().argmax(dim=1).numpy()
    pairs_N = target.detach().cpu().numpy() * num_classes + predicted_N
    return np.bincount(pairs_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def metric_names(schema: Schema) -> list[str]:
    """The names that `checkpoint.monitor` may give: all that a split with rows of every class has."""
    names = ["loss"]
    if schema.target.kind == "category":
        names += ["accuracy", "f1_macro", *(["auroc"] if schema.num_outputs == 2 else [])]
        names += [f"accuracy/{part}" for part in _parts(schema.target.classes)]
    else:
        names += ["rmse", "mae", "r2"]
        if schema.num_outputs > 1:
            names += [f"{name}/{part}" for name in ("rmse", "mae", "r2") for part in _parts(schema.target.columns)]
    return [f"valid/{name}" for name in names]


def monitor_mode(name: str) -> str:
    """Whether more of a metric is better.

    Args:
        name: with its split, for example "valid/accuracy/cat".
    Returns:
        "max" or "min".
    """
    return "max" if name.split("/")[1] in HIGHER_IS_BETTER else "min"


def auto_monitor(schema: Schema) -> str:
    """The metric that decides which checkpoint is best where the recipe does not say."""
    return "valid/accuracy" if schema.target.kind == "category" else "valid/rmse"


def legal_parts(names: Sequence[str]) -> list[str]:
    """Turn labels into parts of metric names that MLflow takes, different ones for different labels.

    A label that is legal keeps its name. In others, what is no letter, digit or one of `_-. :/` becomes `_`, as do
    dots that stand alone and the slashes beside empty path parts; where that is taken, a number follows.
    """
    wanted = [_legal(name) for name in names]
    taken = {name for name, part in zip(names, wanted, strict=True) if name == part}
    parts = []
    for name, part in zip(names, wanted, strict=True):
        unique, number = part, 1
        while name != part and unique in taken:
            number += 1
            suffix = f"_{number}"
            unique = part[: MAX_PART_LENGTH - len(suffix)] + suffix
        taken.add(unique)
        parts.append(unique)
    return parts


def _category_metrics(schema: Schema, outputs: Tensor, target: Tensor) -> dict[str, float]:
    counts_KK = confusion_matrix(schema, outputs, target)
    hits_K, rows_K, predicted_K = counts_KK.diagonal(), counts_KK.sum(axis=1), counts_KK.sum(axis=0)
    seen_K = rows_K + predicted_K > 0
    f1_K = 2 * hits_K[seen_K] / (rows_K + predicted_K)[seen_K]
    metrics = {"accuracy": float(hits_K.sum() / rows_K.sum()), "f1_macro": float(f1_K.mean())}
    if schema.num_outputs == 2 and rows_K.all():
        metrics["auroc"] = _auroc(outputs, target)
    for index, part in enumerate(_parts(schema.target.classes)):
        if rows_K[index]:
            metrics[f"accuracy/{part}"] = float(hits_K[index] / rows_K[index])
    return metrics


def _auroc(scores_N2: Tensor, target_N: Tensor) -> float:
    # Imported here because scikit-learn takes about a second to import.
    from sklearn.metrics import roc_auc_score

    scores = _to_numpy(scores_N2)
    margin_N = scores[:, 1] - scores[:, 0]
    if not np.isfinite(margin_N).all():
        return float("nan")
    return float(roc_auc_score(target_N.detach().cpu().numpy(), margin_N))


def _number_metrics(schema: Schema, outputs: Tensor, target: Tensor) -> dict[str, float]:
    std_D = np.asarray(schema.target.std)
    target_ND = _to_numpy(target) * std_D
    errors_ND = _to_numpy(outputs) * std_D - target_ND
    constant_D = np.ptp(target_ND, axis=0) == 0
    variance_D = np.where(constant_D, np.nan, target_ND.var(axis=0))
    columns = {
        "rmse": np.sqrt((errors_ND**2).mean(axis=0)),
        "mae": np.abs(errors_ND).mean(axis=0),
        "r2": 1 - (errors_ND**2).mean(axis=0) / variance_D,
    }
    metrics = {
        name: float(values_D.mean()) for name, values_D in columns.items() if name != "r2" or not constant_D.any()
    }
    if schema.num_outputs > 1:
        for index, part in enumerate(_parts(schema.target.columns)):
            defined = [name for name in columns if name != "r2" or not constant_D[index]]
            metrics |= {f"{name}/{part}": float(columns[name][index]) for name in defined}
    return metrics


def _parts(names: Sequence[str]) -> list[str]:
    return legal_parts(names) if len(names) <= MAX_PARTS else []


def _legal(name: str) -> str:
    clean = re.sub(r"[^\w\-. :/]", "_", name)[:MAX_PART_LENGTH]
    illegal = ("", ".", "..")
    if any(part in illegal for part in clean.split("/")):
        clean = clean.replace("/", "_")
    return "_" * max(1, len(clean)) if clean in illegal else clean


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
