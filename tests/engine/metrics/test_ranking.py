from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from torchrelay.engine.metrics.ranking import (
    KnownAnswers,
    Ranker,
    best_answers,
    measure_ranks,
    rank_targets,
    reciprocal_ranks,
)
from torchrelay.schema import Batch, Triple


def ranks_of(
    scores: list[list[float]], targets: list[int], known: Sequence[tuple[int, int]] = ()
) -> list[float]:
    questions, answers = (
        torch.tensor([pair[at] for pair in known], dtype=torch.int64) for at in (0, 1)
    )
    return rank_targets(torch.tensor(scores), torch.tensor(targets), questions, answers)[0].tolist()


def test_a_rank_counts_the_entities_with_larger_scores() -> None:
    scores = [[0.1, 0.9, 0.5, 0.7], [4.0, 3.0, 2.0, 1.0]]
    assert ranks_of(scores, [2, 0]) == [3.0, 1.0]


def test_other_true_answers_are_taken_out_and_the_target_is_not() -> None:
    scores = [[0.1, 0.9, 0.5, 0.7]] * 2
    known = [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]
    assert ranks_of(scores, [2, 2], known) == [2.0, 1.0]
    best = rank_targets(torch.tensor(scores), torch.tensor([2, 2]), *torch.tensor(known).T)[1]
    assert best.tolist() == [3, 2]


def test_equal_scores_share_the_mean_of_the_ranks_that_their_order_could_give() -> None:
    # Two above, then three equal ones: ranks 3, 4 and 5.
    assert ranks_of([[5.0, 6.0, 2.0, 2.0, 2.0, 1.0]], [3]) == [4.0]
    assert ranks_of([[0.0] * 7], [6]) == [4.0]
    # One of the equal ones is another true answer.
    assert ranks_of([[0.0] * 7], [6], [(0, 1)]) == [3.5]


def test_a_question_whose_scores_are_not_all_numbers_has_no_rank() -> None:
    nan, inf = float("nan"), float("inf")
    scores = [
        [nan, 1.0, 2.0, 3.0],
        [0.0, 1.0, 2.0, 3.0],
        [0.0, 1.0, inf, 3.0],
        [0.0, -inf, 2.0, 3.0],
    ]
    ranks = ranks_of(
        scores, [1, 1, 1, 3], [(2, 2)]
    )  # the infinite one, too, that is another true answer
    assert [rank if rank == rank else None for rank in ranks] == [None, 3.0, None, None]
    batch = Batch(torch.arange(4), (), torch.zeros(4, dtype=torch.int64))
    assert best_answers(torch.tensor(scores), batch)[:, 1].isnan().tolist() == [
        True,
        False,
        True,
        True,
    ]
    huge = torch.full((1, 4), 3e38)  # whose sum overflows
    assert rank_targets(huge, torch.tensor([0]), *torch.zeros(2, 0, dtype=torch.int64))[
        0
    ].tolist() == [2.5]


def test_ranks_equal_those_of_a_loop_over_sorted_scores() -> None:
    generator = np.random.default_rng(2)
    scores = generator.integers(0, 6, (40, 25)).astype(np.float32)
    targets = generator.integers(0, 25, 40)
    known = {
        (int(question), int(answer))
        for question, answer in generator.integers(0, (40, 25), (200, 2))
    }
    expected = []
    for number, target in enumerate(targets):
        rivals = [scores[number, k] for k in range(25) if k != target and (number, k) not in known]
        above = sum(rival > scores[number, target] for rival in rivals)
        equal = sum(rival == scores[number, target] for rival in rivals)
        expected.append((above + 1 + above + 1 + equal) / 2)
    assert ranks_of(scores.tolist(), targets.tolist(), sorted(known)) == expected


def test_known_answers_are_those_of_the_same_question() -> None:
    # (head, relation, answer), out of order; (1, 2) has two answers, twice the same fact.
    facts = np.array([[3, 1, 7], [1, 2, 5], [2, 2, 6], [1, 2, 4], [1, 2, 5]]).T
    question, answer = KnownAnswers(*facts).of(np.array([1, 9, 3, 1]), np.array([2, 1, 1, 5]))
    assert list(zip(question.tolist(), answer.tolist(), strict=True)) == [
        (0, 4),
        (0, 5),
        (0, 5),
        (2, 7),
    ]


def test_a_ranker_keeps_rank_best_and_direction() -> None:
    facts = np.array(
        [[1, 1, 1], [1, 1, 2], [2, 2, 0]]
    ).T  # entity 0 to 1 and to 2; backwards 1 to 0
    ranker = Ranker(Triple(0, 1), 1, KnownAnswers(*facts))
    inputs = (torch.tensor([[1], [2]]), torch.tensor([[1], [2]]))
    batch = Batch(torch.tensor([0, 0]), inputs, torch.tensor([1, 0]))
    found = ranker(torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]), batch)
    assert found.dtype == torch.float64
    assert found.tolist() == [[1.0, 1.0, 0.0], [3.0, 2.0, 1.0]]


def test_metrics_of_ranks_by_hand() -> None:
    found = np.array([[1, 0, 0], [2, 0, 0], [4, 0, 1], [3.5, 0, 1]])
    metrics = measure_ranks(found)
    assert metrics["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 3.5) / 4)
    assert metrics["mrr_of/tail"] == 0.75
    assert metrics["mrr_of/head"] == pytest.approx((1 / 4 + 1 / 3.5) / 2)
    assert [metrics[f"hits_at_{k}"] for k in (1, 3, 10)] == [0.25, 0.5, 1.0]
    assert metrics["hits_at_3_of/head"] == 0.0  # 3.5 is not among the first three
    assert metrics["mean_rank"] == 2.625
    pairs, groups = reciprocal_ranks(found, np.array([7, 8, 7, 8]))
    assert pairs.tolist() == [[1.0, 0.25], [0.5, 1 / 3.5]]
    assert groups is not None
    assert groups.tolist() == [7, 8]
    alone, groups = reciprocal_ranks(found[:3], np.array([7, 8, 7]))
    assert alone.shape == (3, 1)
    assert groups is not None
    assert groups.tolist() == [7, 8, 7]


def test_best_answers_have_their_softmax_probability() -> None:
    scores = torch.tensor([[0.0, np.log(3.0), 0.0]])
    batch = Batch(torch.tensor([0]), (), torch.tensor([0]))
    assert best_answers(scores, batch).tolist() == [[1.0, pytest.approx(0.6)]]
