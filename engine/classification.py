"""What scores of a category are worth: accuracies, precision, recall, F1, rankings, and the table of its classes."""

# Shapes: N rows of a split, K classes.

from __future__ import annotations

from typing import Any

import numpy as np

from ..schema import TargetPart

# Ranking every class against all others takes one sort of the rows a class.
MAX_RANKED = 100


def confusion_matrix(part: TargetPart) -> np.ndarray:
    """Count rows by true and predicted class.

    Args:
        part: scores (N, K) and class ids (N,) of a category of K classes.
    Returns:
        int64, shape (K, K): rows are true classes, columns predicted ones.
    """
    num_classes = part.feature.num_outputs
    pairs_N = _ids(part) * num_classes + predicted_ids(part)
    return np.bincount(pairs_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def predicted_ids(part: TargetPart) -> np.ndarray:
    """The class of the largest score of each row, int64, shape (N,); the first of equal ones."""
    return part.outputs.detach().cpu().argmax(dim=1).numpy()


def hits(part: TargetPart) -> np.ndarray:
    """1 for each row whose class was predicted, else 0: float64, shape (N, 1)."""
    return (predicted_ids(part) == _ids(part)).astype(np.float64)[:, None]


def log_probabilities(part: TargetPart) -> np.ndarray:
    """Of each class, in nats: float64, shape (N, K)."""
    return part.outputs.detach().cpu().double().log_softmax(dim=1).numpy()


def measure_classes(part: TargetPart) -> dict[str, float]:
    """Metrics over all classes.

    Means over classes (`…_macro`) are, as in scikit-learn, over those that are true or predicted somewhere; a class
    that is never predicted has precision 0. Two classes are a question with the answer yes or no: the second, in the
    schema's order, is the positive one.

    Returns:
        accuracy, precision_macro, recall_macro, f1_macro; with two classes precision, recall and f1 of the second,
        auroc and average_precision; with more auroc_macro, each class against all others. A ranking is left out
        where a class has no rows.
    """
    counts_KK = confusion_matrix(part)
    rows_K, seen_K = counts_KK.sum(axis=1), (counts_KK.sum(axis=0) + counts_KK.sum(axis=1)) > 0
    scores = {name: values_K for name, values_K in _class_scores(counts_KK).items() if name != "accuracy"}
    metrics = {"accuracy": float(counts_KK.trace() / rows_K.sum())}
    metrics |= {f"{name}_macro": float(values_K[seen_K].mean()) for name, values_K in scores.items()}
    if len(rows_K) == 2:
        metrics |= {name: float(values_K[1]) for name, values_K in scores.items() if seen_K[1]}
        if not rows_K[1]:
            metrics.pop("recall", None)
    if rows_K.all() and len(rows_K) <= MAX_RANKED:
        metrics |= _rankings(part)
    return metrics


def class_accuracies(part: TargetPart) -> list[float | None]:
    """The share of each class's rows that was predicted so; None for a class without rows."""
    counts_KK = confusion_matrix(part)
    return [float(row[at] / row.sum()) if row.any() else None for at, row in enumerate(counts_KK)]


def describe_classes(part: TargetPart) -> list[dict[str, Any]]:
    """One row a class, for a table: its rows, accuracy (that is, its recall), precision, F1, what it is taken for."""
    counts_KK = confusion_matrix(part)
    rows_K, scores = counts_KK.sum(axis=1), _class_scores(counts_KK)
    wrong_KK = counts_KK * (1 - np.eye(len(rows_K), dtype=np.int64))
    classes = part.feature.classes
    table = []
    for at, name in enumerate(classes):
        taken_for = int(wrong_KK[at].argmax())
        num_taken = int(wrong_KK[at, taken_for])
        table.append(
            {
                "class": name,
                "rows": int(rows_K[at]),
                "accuracy": scores["recall"][at] if rows_K[at] else None,
                "precision": scores["precision"][at] if counts_KK[:, at].any() else None,
                "f1": scores["f1"][at] if rows_K[at] else None,
                "most_confused_with": classes[taken_for] if num_taken else "",
                "rows_so_confused": num_taken,
            }
        )
    return table


def auroc(scores_N: np.ndarray, is_positive_N: np.ndarray) -> float:
    """The share of pairs of a positive and a negative row in which the positive one has the larger score; ties half."""
    if np.isnan(scores_N).any():
        return float("nan")
    negatives = np.sort(scores_N[~is_positive_N])
    positives = scores_N[is_positive_N]
    below = negatives.searchsorted(positives, "left") + negatives.searchsorted(positives, "right")
    return float(below.sum() / (2 * len(negatives) * len(positives)))


def average_precision(scores_N: np.ndarray, is_positive_N: np.ndarray) -> float:
    """Precision at each distinct score as a threshold, weighted by what it adds to the recall."""
    if np.isnan(scores_N).any():
        return float("nan")
    order = np.argsort(-scores_N, kind="stable")
    ordered = scores_N[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits_at = np.cumsum(is_positive_N[order])[ends]
    gained = np.diff(hits_at, prepend=0) / is_positive_N.sum()
    return float((gained * hits_at / (ends + 1)).sum())


def _class_scores(counts_KK: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, 0 where one has nothing to be counted over."""
    hits_K, rows_K, predicted_K = counts_KK.diagonal(), counts_KK.sum(axis=1), counts_KK.sum(axis=0)
    return {
        "precision": hits_K / np.maximum(predicted_K, 1),
        "recall": hits_K / np.maximum(rows_K, 1),
        "f1": 2 * hits_K / np.maximum(rows_K + predicted_K, 1),
    }


def _rankings(part: TargetPart) -> dict[str, float]:
    ids_N = _ids(part)
    if part.feature.num_outputs == 2:
        scores_N2 = part.outputs.detach().cpu().double().numpy()
        margin_N = scores_N2[:, 1] - scores_N2[:, 0]
        return {"auroc": auroc(margin_N, ids_N == 1), "average_precision": average_precision(margin_N, ids_N == 1)}
    scores_NK = log_probabilities(part)
    each = [auroc(scores_NK[:, number], ids_N == number) for number in range(scores_NK.shape[1])]
    return {"auroc_macro": float(np.mean(each))}


def _ids(part: TargetPart) -> np.ndarray:
    return part.target.detach().cpu().numpy()
