"""Ranks of the true entities among all, and what they are worth.

Mean reciprocal rank, hits, mean rank.

The other true answers to a question are taken out before its own is ranked, whichever split they
are in (the filtered setting of Bordes et al. 2013, "Translating Embeddings for Modeling
Multi-relational Data"). Entities of equal scores get the mean of the best and the worst rank that
their order could give, which is the rank to expect of a random order: a model that scores all alike
gains nothing by it (Sun et al. 2020, https://arxiv.org/abs/1911.03903).
"""

# Shapes: B rows in a batch, N questions of a split, F facts, K entities, P pairs of a question and
# an answer.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...schema import Batch, Triple
from ..evaluation import finite_rows
from .names import name_part

# Columns of what a `Ranker` keeps of a question, float64, shape (N, 3): the rank of the true
# entity, counted from 1; the id of the best that is no other true answer; 1 where the question is
# asked backwards, for the head.
RANK, BEST, BACKWARDS = range(3)
# What is measured of ranks, overall and by direction.
METRICS = ("mrr", "hits_at_1", "hits_at_3", "hits_at_10", "mean_rank")
DIRECTIONS = ("tail", "head")
_HITS = (1, 3, 10)


class KnownAnswers:
    """All true answers to each question, sorted by question.

    Args:
        head, relation: input ids of what is given, int64, shape (F,).
        answer: class ids, int64, shape (F,).
    """

    def __init__(self, head: np.ndarray, relation: np.ndarray, answer: np.ndarray) -> None:
        self._num_relations = int(relation.max(initial=0)) + 1
        keys = self._key(head, relation)
        order = np.lexsort((answer, keys))
        self._keys, self._answers = keys[order], answer[order]

    def of(self, head: np.ndarray, relation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All pairs of a question of these and one of its answers.

        Number of the question and class id, shape (P,).
        """
        keys = np.where(relation < self._num_relations, self._key(head, relation), -1)
        first, end = (np.searchsorted(self._keys, keys, side) for side in ("left", "right"))
        counts = end - first
        question = np.repeat(np.arange(len(keys)), counts)
        within = np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)
        return question, self._answers[np.repeat(first, counts) + within]

    def _key(self, head: np.ndarray, relation: np.ndarray) -> np.ndarray:
        return head * self._num_relations + relation


@dataclass(frozen=True)
class Ranker:
    """Turns the scores of a batch into what is kept of them.

    Attributes:
        triple: where head and relation stand among the inputs.
        num_relations: R; a relation id above it asks backwards.
        known: the facts of all splits, in both directions.
    """

    triple: Triple
    num_relations: int
    known: KnownAnswers

    def __call__(self, scores_BK: Tensor, batch: Batch) -> Tensor:
        """Rank each question's true entity.

        Args:
            scores_BK: the larger, the likelier.
            batch: what was asked, and the true entities.
        Returns:
            Shape (B, 3), float64, see `RANK`, `BEST` and `BACKWARDS`.
        """
        head_B, relation_B = (batch.inputs[at][:, 0].cpu().numpy() for at in self.triple)
        question_P, answer_P = self.known.of(head_B, relation_B)
        rank_B, best_B = rank_targets(
            scores_BK, batch.target, torch.from_numpy(question_P), torch.from_numpy(answer_P)
        )
        backwards_B = torch.from_numpy(relation_B > self.num_relations)
        return torch.stack([one.double() for one in (rank_B, best_B, backwards_B)], dim=1)


def rank_targets(
    scores_BK: Tensor, target_B: Tensor, question_P: Tensor, answer_P: Tensor
) -> tuple[Tensor, Tensor]:
    """Rank the true entity of each question among all but its other true
    answers.

    Args:
        scores_BK: the larger, the likelier.
        target_B: int64 class ids.
        question_P, answer_P: true answers: the number of a question and a class id; the target may
            be among them.
    Returns:
        Ranks counted from 1, float64, halves among equal scores, NaN where a score is not finite;
        and the id of the best of those entities, int64. Shape (B,) each, on the CPU.
    """
    is_finite_B = finite_rows(scores_BK).cpu()
    is_half = scores_BK.dtype in (torch.bfloat16, torch.float16)
    scores_BK = scores_BK.float() if is_half else scores_BK.clone()
    target_B1 = target_B[:, None]
    true_B1 = scores_BK.gather(1, target_B1)
    scores_BK[
        question_P.to(scores_BK.device), answer_P.to(scores_BK.device)
    ] = -torch.inf  # below all that is left
    scores_BK.scatter_(1, target_B1, true_B1)
    above_B = (scores_BK > true_B1).sum(dim=1)
    equal_B = (scores_BK == true_B1).sum(dim=1)  # itself among them
    # On the CPU, as MPS has no float64.
    rank_B = above_B.cpu().double() + (equal_B.cpu().double() + 1) / 2
    return rank_B.masked_fill(~is_finite_B, torch.nan), scores_BK.argmax(dim=1).cpu()


def best_answers(scores_BK: Tensor, batch: Batch) -> Tensor:
    """Of each question whose answer is not known.

    The best entity's id and its probability, float64, shape (B, 2).

    The probability is NaN where a score is not finite.
    """
    del batch
    probability_B, best_B = scores_BK.cpu().double().softmax(dim=1).max(dim=1)
    probability_B = probability_B.masked_fill(~finite_rows(scores_BK).cpu(), torch.nan)
    return torch.stack([best_B.double(), probability_B], dim=1)


def measure_ranks(found_N3: np.ndarray) -> dict[str, float]:
    """Means over all questions, and over those of each direction under
    <name>_of/tail and <name>_of/head.

    Args:
        found_N3: what a `Ranker` gave.
    Returns:
        mrr, hits_at_1, hits_at_3, hits_at_10 (the share of ranks up to k) and mean_rank.
    """
    metrics = _mean_of(found_N3[:, RANK])
    for number, direction in enumerate(DIRECTIONS):
        ranks = found_N3[found_N3[:, BACKWARDS] == number, RANK]
        if len(ranks):
            metrics |= {
                name_part(name, direction): value for name, value in _mean_of(ranks).items()
            }
    return metrics


def reciprocal_ranks(
    found_N3: np.ndarray, groups_N: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """1 / rank.

    Of each row's two questions side by side, shape (N / 2, 2), so that they are resampled
    together; where questions of one direction are missing, shape (N, 1). With the group of
    each.

    Args:
        found_N3: what a `Ranker` gave, the directions each in the order of the rows.
        groups_N: of the questions' rows; None where each row is alone.
    """
    values_N = 1 / found_N3[:, RANK]
    asked = [found_N3[:, BACKWARDS] == number for number in range(len(DIRECTIONS))]
    if asked[0].sum() != asked[1].sum():
        return values_N[:, None], groups_N
    return np.stack(
        [values_N[one] for one in asked], axis=1
    ), None if groups_N is None else groups_N[asked[0]]


def ranking_names() -> list[str]:
    """The names that `measure_ranks` gives."""
    return [*METRICS, *(name_part(name, direction) for direction in DIRECTIONS for name in METRICS)]


def _mean_of(ranks: np.ndarray) -> dict[str, float]:
    hits = {f"hits_at_{k}": float((ranks <= k).mean()) for k in _HITS}
    return {"mrr": float((1 / ranks).mean()), **hits, "mean_rank": float(ranks.mean())}
