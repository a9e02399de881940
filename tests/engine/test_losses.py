from __future__ import annotations

import math

import pytest
import torch

from torchrelay.engine.losses import build_loss, check_loss
from torchrelay.errors import RecipeError
from torchrelay.schema import FeatureSchema, Schema

X = FeatureSchema(name="x", kind="number", columns=["x"], shape=[1], dtype="float32")
CLASSES = Schema(
    inputs=[X],
    targets=[FeatureSchema(name="y", kind="category", columns=["y"], shape=[], dtype="int64", classes=["a", "b", "c"])],
)
NUMBERS = Schema(
    inputs=[X],
    targets=[
        FeatureSchema(name="y", kind="number", columns=["u", "v"], shape=[2], dtype="float32", mean=[0, 0], std=[1, 1])
    ],
)


def test_cross_entropy_of_each_row_is_minus_the_log_of_its_softmax() -> None:
    loss = build_loss("auto", CLASSES)
    scores = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    # By hand: 1/3, then 2 / (2 + 1 + 1).
    torch.testing.assert_close(loss(scores, torch.tensor([1, 0])), torch.tensor([math.log(3), math.log(2)]))


def test_mse_of_each_row_is_the_mean_over_the_targets_columns() -> None:
    loss = build_loss("auto", NUMBERS)
    outputs, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    assert loss(outputs, target).tolist() == [2.5, 5.0]


@pytest.mark.parametrize("schema", [CLASSES, NUMBERS], ids=["cross_entropy", "mse"])
def test_half_precision_outputs_give_single_precision_losses_with_gradients(schema: Schema) -> None:
    outputs = torch.randn(4, schema.num_outputs, dtype=torch.bfloat16, requires_grad=True)
    target = torch.tensor([0, 1, 2, 0]) if schema is CLASSES else torch.randn(4, 2)
    losses = build_loss("auto", schema)(outputs, target)
    torch.testing.assert_close(losses, build_loss("auto", schema)(outputs.float(), target), rtol=0, atol=0)
    assert losses.dtype == torch.float32
    assert losses.shape == (4,)
    losses.mean().backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().sum() > 0


def test_double_precision_stays_double() -> None:
    losses = build_loss("mse", NUMBERS)(torch.zeros(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64))
    assert losses.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("cross_entrop", "category", "train.loss: 'cross_entrop' is no loss; did you mean cross_entropy"),
        ("mse", "category", "mse does not fit a category target; those that do are auto, cross_entropy"),
        ("cross_entropy", "number", "cross_entropy does not fit a number target; those that do are auto, mse"),
    ],
)
def test_a_loss_that_is_unknown_or_does_not_fit_is_refused(name: str, kind: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_loss(name, kind)
