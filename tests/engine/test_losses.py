from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from torchrelay.engine.losses import (
    Loss,
    build_loss,
    build_training_loss,
    check_log_probabilities,
    check_loss,
    reduction_of,
)
from torchrelay.errors import RecipeError
from torchrelay.schema import FeatureSchema, Schema

X = FeatureSchema(name="x", kind="number", columns=["x"], shape=[1], dtype="float32")
CLASSES = Schema(
    inputs=[X],
    targets=[
        FeatureSchema(
            name="y",
            kind="category",
            columns=["y"],
            shape=[],
            dtype="int64",
            classes=["a", "b", "c"],
        )
    ],
)
NUMBERS = Schema(
    inputs=[X],
    targets=[
        FeatureSchema(
            name="y",
            kind="number",
            columns=["u", "v"],
            shape=[2],
            dtype="float32",
            mean=[0, 0],
            std=[1, 1],
        )
    ],
)


def test_cross_entropy_of_each_row_is_minus_the_log_of_its_softmax() -> None:
    loss = build_loss("auto", CLASSES)
    scores = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    # By hand: 1/3, then 2 / (2 + 1 + 1).
    torch.testing.assert_close(
        loss(scores, torch.tensor([1, 0])), torch.tensor([math.log(3), math.log(2)])
    )


def test_mse_of_each_row_is_the_mean_over_the_targets_columns() -> None:
    loss = build_loss("auto", NUMBERS)
    outputs, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    assert loss(outputs, target).tolist() == [2.5, 5.0]


def test_the_sum_of_squares_adds_up_columns_targets_and_rows() -> None:
    outputs, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    losses = build_loss("mse_sum", NUMBERS)(outputs, target)
    assert losses.tolist() == [5.0, 10.0]
    assert losses.sum().item() == F.mse_loss(outputs, target, reduction="sum").item()
    two = Schema(
        inputs=[X], targets=[NUMBERS.targets[0].model_copy(update={"name": name}) for name in "yz"]
    )
    both = build_loss("mse_sum", two)(
        torch.cat([outputs, outputs], 1), torch.cat([target, target], 1)
    )
    assert both.tolist() == [10.0, 20.0]
    assert [reduction_of(name) for name in ("mse_sum", "mse", "auto", "l1")] == [
        "sum",
        "mean",
        "mean",
        "mean",
    ]


def test_nll_of_log_probabilities_is_the_cross_entropy_of_their_scores() -> None:
    schema = categories([1, 2, 1])
    scores, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    log_probabilities = scores.log_softmax(dim=1)
    expected = F.nll_loss(log_probabilities, target, reduction="none")
    losses = build_loss("nll", schema)(log_probabilities, target)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(losses, build_loss("cross_entropy", schema)(scores, target))
    smoothed = build_training_loss(
        "nll", schema, label_smoothing=0.2, balanced=False, device=torch.device("cpu")
    )
    torch.testing.assert_close(
        smoothed(log_probabilities, target),
        F.cross_entropy(scores, target, reduction="none", label_smoothing=0.2),
    )


def test_nll_is_refused_for_outputs_that_are_no_log_probabilities() -> None:
    one, two = categories([1, 1, 1]), categories([1, 1, 1], [1, 1])
    check_log_probabilities(one, torch.randn(2, 3).log_softmax(dim=1))
    check_log_probabilities(
        two, torch.cat([torch.randn(2, 3).log_softmax(1), torch.randn(2, 2).log_softmax(1)], 1)
    )
    with pytest.raises(
        RecipeError, match=r"nll takes log-probabilities.* add up to 3; use cross_entropy"
    ):
        check_log_probabilities(one, torch.zeros(2, 3))
    with pytest.raises(
        RecipeError, match="use cross_entropy"
    ):  # over all classes together they are no distribution
        check_log_probabilities(two, torch.randn(2, 5).log_softmax(dim=1))


def test_bce_is_the_mean_over_the_tags_of_the_logarithm_of_what_was_wrong() -> None:
    tags = FeatureSchema(
        name="y", kind="labels", columns=["y"], shape=[2], dtype="float32", classes=["a", "b"]
    )
    scores, target = (
        torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]]),
        torch.tensor([[1.0, 1.0], [0.0, 0.0]]),
    )
    # By hand: sigmoids are 1/2 and 3/4, so that the first row loses ln 2 and ln 4/3, the second ln
    # 4 and ln 2.
    expected = torch.tensor([(math.log(2) + math.log(4 / 3)) / 2, (math.log(4) + math.log(2)) / 2])
    torch.testing.assert_close(
        build_loss("auto", Schema(inputs=[X], targets=[tags]))(scores, target), expected
    )
    other = tags.model_copy(update={"name": "z", "classes": ["c"], "shape": [1]})
    both = build_loss("bce", Schema(inputs=[X], targets=[tags, other]))
    losses = both(
        torch.cat([scores, torch.zeros(2, 1)], 1), torch.cat([target, torch.ones(2, 1)], 1)
    )
    torch.testing.assert_close(
        losses, (expected + math.log(2)) / 2
    )  # targets count alike, whatever their tags


@pytest.mark.parametrize(("name", "expected"), [("l1", [1.5, 2.0]), ("smooth_l1", [1.0, 1.5])])
def test_absolute_errors_count_less_than_squares(name: str, expected: list[float]) -> None:
    outputs, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    # By hand: (0.5 + 1.5) / 2 and (2.5 + 0.5) / 2 where the absolute errors are 1, 2 and 3, 1.
    assert build_loss(name, NUMBERS)(outputs, target).tolist() == expected


def categories(*counts: list[int]) -> Schema:
    targets = [
        FeatureSchema(
            name=f"y{number}",
            kind="category",
            columns=[f"y{number}"],
            shape=[],
            dtype="int64",
            classes=list("abcde")[: len(one)],
            counts=one,
        )
        for number, one in enumerate(counts)
    ]
    return Schema(inputs=[X], targets=targets)


def training_loss(schema: Schema, smoothing: float = 0.0, balanced: bool = False) -> Loss:
    return build_training_loss(
        "auto", schema, label_smoothing=smoothing, balanced=balanced, device=torch.device("cpu")
    )


def test_the_loss_of_several_targets_is_the_mean_of_theirs() -> None:
    schema = categories([1, 1, 1], [3, 1])
    outputs, target = torch.randn(4, 5), torch.tensor([[0, 1], [1, 0], [2, 1], [0, 0]])
    by_hand = (
        F.cross_entropy(outputs[:, :3], target[:, 0], reduction="none")
        + F.cross_entropy(outputs[:, 3:], target[:, 1], reduction="none")
    ) / 2
    torch.testing.assert_close(build_loss("auto", schema)(outputs, target), by_hand)
    # Balanced: 3 rows of 4 and 1 of 4 weigh 4 / (2 * 3) and 4 / (2 * 1), each target on its own.
    weighted = (
        F.cross_entropy(outputs[:, :3], target[:, 0], reduction="none")
        + F.cross_entropy(outputs[:, 3:], target[:, 1], reduction="none")
        * torch.tensor([2, 2 / 3, 2, 2 / 3])
    ) / 2
    torch.testing.assert_close(training_loss(schema, balanced=True)(outputs, target), weighted)


def test_points_have_the_loss_of_numbers_and_several_targets_count_alike() -> None:
    points = [
        FeatureSchema(
            name=name,
            kind="points",
            columns=list(columns),
            shape=[len(columns) // 2, 2],
            dtype="float64",
        )
        for name, columns in {"eyes": "abcd", "nose": "ef"}.items()
    ]
    outputs, target = torch.tensor([[1.0, 1, 1, 1, 3, 3]]), torch.zeros(1, 6)
    assert build_loss("auto", Schema(inputs=[X], targets=points))(outputs, target).tolist() == [
        5.0
    ]  # (1 + 9) / 2


def test_balanced_weights_make_every_class_count_alike_over_the_training_rows() -> None:
    schema = categories([6, 2])
    target = torch.tensor([0] * 6 + [1] * 2)
    losses = training_loss(schema, balanced=True)(torch.zeros(8, 2), target)
    assert losses.mean().item() == pytest.approx(math.log(2))  # the weights' mean is 1
    assert losses[target == 0].sum().item() == pytest.approx(losses[target == 1].sum().item())


def test_smoothing_is_torchs_and_leaves_the_loss_of_evaluations_alone() -> None:
    outputs, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = F.cross_entropy(outputs, target, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(
        training_loss(categories([1, 1, 1]), smoothing=0.2)(outputs, target), expected
    )
    plain = F.cross_entropy(outputs, target, reduction="none")
    torch.testing.assert_close(build_loss("auto", categories([1, 1, 1]))(outputs, target), plain)


@pytest.mark.parametrize("schema", [CLASSES, NUMBERS], ids=["cross_entropy", "mse"])
def test_half_precision_outputs_give_single_precision_losses_with_gradients(schema: Schema) -> None:
    outputs = torch.randn(4, schema.num_outputs, dtype=torch.bfloat16, requires_grad=True)
    target = torch.tensor([0, 1, 2, 0]) if schema is CLASSES else torch.randn(4, 2)
    losses = build_loss("auto", schema)(outputs, target)
    torch.testing.assert_close(
        losses, build_loss("auto", schema)(outputs.float(), target), rtol=0, atol=0
    )
    assert losses.dtype == torch.float32
    assert losses.shape == (4,)
    losses.mean().backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().sum() > 0


def test_double_precision_stays_double() -> None:
    losses = build_loss("mse", NUMBERS)(
        torch.zeros(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    )
    assert losses.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        (
            "cross_entrop",
            "category",
            "train.loss: 'cross_entrop' is no loss; did you mean cross_entropy",
        ),
        (
            "mse",
            "category",
            "mse does not fit a category target; those that do are auto, cross_entropy, nll$",
        ),
        (
            "cross_entropy",
            "number",
            "cross_entropy does not fit a number target; those that do are auto, mse, mse_sum, "
            "smooth_l1, l1$",
        ),
        (
            "cross_entropy",
            "labels",
            "cross_entropy does not fit a labels target; those that do are auto, bce$",
        ),
        (
            "bce",
            "category",
            "bce does not fit a category target; those that do are auto, cross_entropy, nll$",
        ),
        ("nll", "number", "nll does not fit a number target; those that do are auto, mse, mse_sum"),
        (
            "cross_entropy",
            "points",
            "cross_entropy does not fit a points target; those that do are auto, mse",
        ),
    ],
)
def test_a_loss_that_is_unknown_or_does_not_fit_is_refused(
    name: str, kind: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_loss(name, kind)


def test_nll_is_minus_the_log_probability_of_the_true_class() -> None:
    probabilities = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    target = FeatureSchema(
        name="y", kind="category", columns=["y"], shape=[], dtype="int64", classes=["a", "b"]
    )
    losses = build_loss("nll", Schema(inputs=[], targets=[target]))(
        probabilities.log(), torch.tensor([0, 1])
    )
    torch.testing.assert_close(losses, torch.tensor([1.3862944, 0.6931472]))  # 2 log 2 and log 2
