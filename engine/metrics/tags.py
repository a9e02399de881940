"""What scores of a target of labels are worth, of which a row may have
several: F1, rankings, the table of its tags.
"""

# Shapes: N rows of a split, K tags.

from __future__ import annotations

from typing import Any

import numpy as np

from ...schema import TargetPart
from .classification import MAX_RANKED, auroc, average_precision


def tag_probabilities(part: TargetPart) -> np.ndarray:
    """The probability of each tag, whatever the others.

    Float64, shape (N, K).
    """
    return part.outputs.detach().cpu().double().sigmoid().numpy()


def predicted_tags(part: TargetPart) -> np.ndarray:
    """The tags whose probability is above one half.

    Bool, shape (N, K).
    """
    return (part.outputs.detach().cpu() > 0).numpy()


def true_tags(part: TargetPart) -> np.ndarray:
    """The tags that the rows have.

    Bool, shape (N, K).
    """
    return (part.target.detach().cpu() > 0.5).numpy()


def count_tags(part: TargetPart) -> dict[str, np.ndarray]:
    """Of each tag the rows that have it, those that were predicted to, and
    those among both: int64, shape (K,).
    """
    true_NK, predicted_NK = true_tags(part), predicted_tags(part)
    return {
        "rows": true_NK.sum(axis=0),
        "predicted": predicted_NK.sum(axis=0),
        "hits": (true_NK & predicted_NK).sum(axis=0),
    }


def measure_tags(part: TargetPart) -> dict[str, float]:
    """Metrics over all tags.

    `…_micro` counts all pairs of a row and a tag together; `…_macro` is the mean over the tags,
    those that are true or predicted somewhere (rankings: those that some rows have and, for auroc,
    some have not). What divides by nothing is 0, as in scikit-learn; where no row has any tag,
    nothing can be found, and the metrics of what was are left out.

    Returns:
        f1_micro, f1_macro, precision and recall likewise; subset_accuracy, the share of rows with
        all tags right and no other; hamming_loss, the share of pairs of a row and a tag that are
        wrong; to 100 tags auroc_macro and average_precision_macro.
    """
    wrong_NK = true_tags(part) != predicted_tags(part)
    metrics = {
        "subset_accuracy": float(1 - wrong_NK.any(axis=1).mean()),
        "hamming_loss": float(wrong_NK.mean()),
    }
    counts = count_tags(part)
    if not counts["rows"].any():
        return metrics
    seen_K = (counts["rows"] + counts["predicted"]) > 0
    for name, values_K in _scores(**counts).items():
        metrics[f"{name}_macro"] = float(values_K[seen_K].mean())
    together = _scores(**{name: values_K.sum(keepdims=True) for name, values_K in counts.items()})
    metrics |= {f"{name}_micro": float(value) for name, [value] in together.items()}
    some_K = counts["rows"] > 0
    defined = {"auroc": some_K & (counts["rows"] < len(wrong_NK)), "average_precision": some_K}
    for name, values_K in rank_tags(part).items():
        if defined[name].any():
            metrics[f"{name}_macro"] = float(values_K[defined[name]].mean())
    return metrics


def score_tags(part: TargetPart) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each tag, and, to 100 tags, auroc and average
    precision.

    Returns:
        By name: f1, precision, recall, auroc, average_precision; float64, shape (K,). NaN where the
            rows leave one
        undefined: all of them for a tag that no row has, but F1 and precision, which are 0 where it
            was predicted.
    """
    counts = count_tags(part)
    scores = _scores(**counts)
    has_none_K = counts["rows"] == 0
    never_K = has_none_K & (counts["predicted"] == 0)
    scores["recall"] = np.where(has_none_K, np.nan, scores["recall"])
    return {
        name: np.where(never_K, np.nan, values_K) for name, values_K in scores.items()
    } | rank_tags(part)


def rank_tags(part: TargetPart) -> dict[str, np.ndarray]:
    """auroc and average_precision of each tag, float64, shape (K,).

    Nothing where there are more than 100 tags.

    NaN where no row has the tag, and for auroc where all have it.
    """
    true_NK = true_tags(part)
    if true_NK.shape[1] > MAX_RANKED:
        return {}
    scores_NK = part.outputs.detach().cpu().double().numpy()
    columns = list(zip(scores_NK.T, true_NK.T, strict=True))
    return {
        "auroc": np.array([auroc(s, t) if t.any() and not t.all() else np.nan for s, t in columns]),
        "average_precision": np.array(
            [average_precision(s, t) if t.any() else np.nan for s, t in columns]
        ),
    }


def row_counts(part: TargetPart) -> tuple[np.ndarray, np.ndarray]:
    """What f1_micro is the ratio of, row by row.

    Twice the hits, and the true tags and the predicted ones together.

    Returns:
        float64, shape (N, 1) each.
    """
    true_NK, predicted_NK = true_tags(part), predicted_tags(part)
    hits_N = (true_NK & predicted_NK).sum(axis=1)
    both_N = true_NK.sum(axis=1) + predicted_NK.sum(axis=1)
    return 2.0 * hits_N[:, None], both_N[:, None].astype(np.float64)


def describe_tags(part: TargetPart) -> list[dict[str, Any]]:
    """One row a tag, for a table.

    Its rows, how often it was predicted, and its scores; empty where undefined.
    """
    counts, scores = count_tags(part), score_tags(part)
    return [
        {"tag": tag, "rows": int(counts["rows"][at]), "predicted": int(counts["predicted"][at])}
        | {
            name: None if np.isnan(values_K[at]) else float(values_K[at])
            for name, values_K in scores.items()
        }
        for at, tag in enumerate(part.feature.classes)
    ]


def join_tags(has_NK: np.ndarray, part: TargetPart) -> np.ndarray:
    """The tags of each row as a cell of the table says them, in the order of
    the schema: object, shape (N,).
    """
    tags = np.array(part.feature.classes, dtype=object)
    return np.array([part.feature.separator.join(tags[has_K]) for has_K in has_NK], dtype=object)


def _scores(rows: np.ndarray, predicted: np.ndarray, hits: np.ndarray) -> dict[str, np.ndarray]:
    """F1, precision and recall, 0 where one has nothing to be counted over."""
    return {
        "f1": 2 * hits / np.maximum(rows + predicted, 1),
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(rows, 1),
    }
