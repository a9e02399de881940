"""What scores of a category are worth.

Accuracies, precision, recall, F1, rankings, and the table of its classes.
"""

# Shapes: N rows of a split, K classes.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ...schema import TargetPart

# Ranking every class against all others takes one sort of the rows a class.
MAX_RANKED = 100
# Scores are turned into float64 so many at a time.
NUMBERS_AT_ONCE = 2**22


class ClassCounts(NamedTuple):
    """Rows of a split by class, in memory that grows with rows and classes and
    not with pairs of classes.

    Attributes:
        hits: rows of each class that were predicted so, int64, shape (K,).
        rows: rows of each class.
        predicted: rows that were predicted to be of each class.
        taken_for: which other class most rows of each class were taken for; 0 where none was.
        num_taken: how many.
    """

    hits: np.ndarray
    rows: np.ndarray
    predicted: np.ndarray
    taken_for: np.ndarray
    num_taken: np.ndarray


def count_classes(part: TargetPart) -> ClassCounts:
    """Count rows by true and predicted class.

    Args:
        part: scores (N, K) and class ids (N,) of a category of K classes.
    """
    num_classes, true_N, predicted_N = part.feature.num_outputs, _ids(part), predicted_ids(part)
    is_hit_N = true_N == predicted_N
    pairs, counts = np.unique((true_N * num_classes + predicted_N)[~is_hit_N], return_counts=True)
    true, other = np.divmod(pairs, num_classes)
    order = np.lexsort(
        (-other, counts)
    )  # the last one written stands: the largest, of equal ones the first class
    taken_for_K, num_taken_K = np.zeros((2, num_classes), dtype=np.int64)
    taken_for_K[true[order]], num_taken_K[true[order]] = other[order], counts[order]
    hits_K = np.bincount(true_N[is_hit_N], minlength=num_classes)
    rows_K, predicted_K = (np.bincount(ids, minlength=num_classes) for ids in (true_N, predicted_N))
    return ClassCounts(hits_K, rows_K, predicted_K, taken_for_K, num_taken_K)


def confusion_matrix(part: TargetPart) -> np.ndarray:
    """Count rows by true and predicted class.

    Args:
        part: scores (N, K) and class ids (N,) of a category of K classes, few enough for a number
            for each pair.
    Returns:
        int64, shape (K, K): rows are true classes, columns predicted ones.
    """
    num_classes = part.feature.num_outputs
    pairs_N = _ids(part) * num_classes + predicted_ids(part)
    return np.bincount(pairs_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def predicted_ids(part: TargetPart) -> np.ndarray:
    """The class of the largest score of each row, int64, shape (N,).

    The first of equal ones.
    """
    return part.outputs.detach().cpu().argmax(dim=1).numpy()


def hits(part: TargetPart) -> np.ndarray:
    """1 for each row whose class was predicted, else 0.

    Float64, shape (N, 1).
    """
    return (predicted_ids(part) == _ids(part)).astype(np.float64)[:, None]


def log_probabilities(part: TargetPart) -> np.ndarray:
    """Of each class, in nats.

    Float64, shape (N, K).
    """
    return part.outputs.detach().cpu().double().log_softmax(dim=1).numpy()


def row_losses(part: TargetPart) -> np.ndarray:
    """Minus the logarithm of the true class's probability, in nats, float64,
    shape (N,).
    """
    each = zip(
        _split_rows(part.outputs), part.target.split(_rows_at_once(part.outputs)), strict=True
    )
    return -np.concatenate(
        [one.log_softmax(dim=1).gather(1, true[:, None].cpu())[:, 0].numpy() for one, true in each]
    )


def best_probabilities(part: TargetPart, number: int) -> np.ndarray:
    """The largest probabilities of each row, the largest first, float64,
    shape (N, number).
    """
    each = [
        one.softmax(dim=1).topk(number, dim=1).values.numpy() for one in _split_rows(part.outputs)
    ]
    return np.concatenate(each)


def _rows_at_once(scores_NK: Tensor) -> int:
    return max(1, NUMBERS_AT_ONCE // max(1, scores_NK.shape[1]))


def _split_rows(scores_NK: Tensor) -> Iterator[Tensor]:
    """The rows in parts that are float64 and on the CPU."""
    return (one.detach().cpu().double() for one in scores_NK.split(_rows_at_once(scores_NK)))


def measure_classes(part: TargetPart) -> dict[str, float]:
    """Metrics over all classes.

    Means over classes (`…_macro`) are, as in scikit-learn, over those that are true or predicted
    somewhere; a class that is never predicted has precision 0. Two classes are a question with the
    answer yes or no: the second, in the schema's order, is the positive one.

    Returns:
        accuracy, precision_macro, recall_macro, f1_macro; with two classes precision, recall and f1
        of the second, auroc and average_precision; with more auroc_macro, each class against all
        others. A ranking is left out where a class has no rows.
    """
    counts = count_classes(part)
    rows_K, seen_K = counts.rows, (counts.predicted + counts.rows) > 0
    scores = _class_scores(counts)
    metrics = {"accuracy": float(counts.hits.sum() / rows_K.sum())}
    metrics |= {
        f"{name}_macro": float(values_K[seen_K].mean()) for name, values_K in scores.items()
    }
    if len(rows_K) == 2:
        metrics |= {name: float(values_K[1]) for name, values_K in scores.items() if seen_K[1]}
        if not rows_K[1]:
            metrics.pop("recall", None)
    if rows_K.all() and len(rows_K) <= MAX_RANKED:
        metrics |= _rankings(part)
    return metrics


def class_accuracies(part: TargetPart) -> list[float | None]:
    """The share of each class's rows that was predicted so.

    None for a class without rows.
    """
    counts = count_classes(part)
    return [
        float(hits / rows) if rows else None
        for hits, rows in zip(counts.hits, counts.rows, strict=True)
    ]


def describe_classes(part: TargetPart) -> list[dict[str, Any]]:
    """One row a class, for a table.

    Its rows, accuracy (that is, its recall), precision, F1, what it is taken for.
    """
    counts = count_classes(part)
    rows_K, scores = counts.rows, _class_scores(counts)
    classes = part.feature.classes
    table = []
    for at, name in enumerate(classes):
        num_taken = int(counts.num_taken[at])
        table.append(
            {
                "class": name,
                "rows": int(rows_K[at]),
                "accuracy": scores["recall"][at] if rows_K[at] else None,
                "precision": scores["precision"][at] if counts.predicted[at] else None,
                "f1": scores["f1"][at] if rows_K[at] else None,
                "most_confused_with": classes[counts.taken_for[at]] if num_taken else "",
                "rows_so_confused": num_taken,
            }
        )
    return table


def auroc(scores_N: np.ndarray, is_positive_N: np.ndarray) -> float:
    """The share of pairs of a positive and a negative row in which the
    positive one has the larger score; ties half.
    """
    if np.isnan(scores_N).any():
        return float("nan")
    negatives = np.sort(scores_N[~is_positive_N])
    positives = scores_N[is_positive_N]
    below = negatives.searchsorted(positives, "left") + negatives.searchsorted(positives, "right")
    return float(below.sum() / (2 * len(negatives) * len(positives)))


def average_precision(scores_N: np.ndarray, is_positive_N: np.ndarray) -> float:
    """Precision at each distinct score as a threshold, weighted by what it
    adds to the recall.
    """
    if np.isnan(scores_N).any():
        return float("nan")
    order = np.argsort(-scores_N, kind="stable")
    ordered = scores_N[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits_at = np.cumsum(is_positive_N[order])[ends]
    gained = np.diff(hits_at, prepend=0) / is_positive_N.sum()
    return float((gained * hits_at / (ends + 1)).sum())


def _class_scores(counts: ClassCounts) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, 0 where one has nothing to be
    counted over.
    """
    hits_K, rows_K, predicted_K, *_ = counts
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
        return {
            "auroc": auroc(margin_N, ids_N == 1),
            "average_precision": average_precision(margin_N, ids_N == 1),
        }
    scores_NK = log_probabilities(part)
    each = [auroc(scores_NK[:, number], ids_N == number) for number in range(scores_NK.shape[1])]
    return {"auroc_macro": float(np.mean(each))}


def _ids(part: TargetPart) -> np.ndarray:
    return part.target.detach().cpu().numpy()
