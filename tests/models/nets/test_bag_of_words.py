from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from torchrelay.errors import ShapeError
from torchrelay.models.nets.bag_of_words import BagOfWords
from torchrelay.models.registry import build_model
from torchrelay.recipe import Named
from torchrelay.schema import FeatureSchema, Schema

TEXT = FeatureSchema(
    name="text", kind="text", columns=["text"], shape=[0], dtype="int64", classes=list("abcde")
)
NUMBERS = FeatureSchema(
    name="x", kind="number", columns=["x"], shape=[1], dtype="float64", mean=[0.0], std=[1.0]
)


def category(*classes: str) -> FeatureSchema:
    return FeatureSchema(
        name="y", kind="category", columns=["y"], shape=[], dtype="int64", classes=list(classes)
    )


# a twice and e; unknown, b; nothing.
IDS = torch.tensor([[2, 6, 2], [1, 3, 0], [0, 0, 0]])
COUNTS = torch.tensor([[0.0, 2, 0, 0, 0, 1], [1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])


def test_it_is_a_linear_layer_over_counts_and_log_softmax() -> None:
    torch.manual_seed(0)
    model = build_model(
        Named(name="bag_of_words"), Schema(inputs=[TEXT], targets=[category("en", "es", "de")])
    )
    assert isinstance(model, BagOfWords)
    with torch.no_grad():
        model.bag.weight[1] = torch.tensor([0.3, -0.2, 0.1])
    linear = torch.nn.Linear(6, 3)
    with torch.no_grad():
        linear.weight.copy_(model.bag.weight[1:].T)
        linear.bias.copy_(model.bias)
    expected = F.log_softmax(linear(COUNTS), dim=1)
    torch.testing.assert_close(model(IDS), expected)
    F.nll_loss(model(IDS), torch.tensor([0, 1, 2])).backward()
    F.nll_loss(expected, torch.tensor([0, 1, 2])).backward()
    assert model.bag.weight.grad is not None
    assert linear.weight.grad is not None
    torch.testing.assert_close(model.bag.weight.grad[1:], linear.weight.grad.T)
    assert model.bag.weight.grad[0].abs().max() == 0


def test_it_begins_as_a_linear_layer_does_and_knows_nothing_of_unknown_tokens() -> None:
    torch.manual_seed(0)
    many = TEXT.model_copy(update={"classes": [f"w{number}" for number in range(400)]})
    model = build_model(
        Named(name="bag_of_words"), Schema(inputs=[many], targets=[category("en", "es")])
    )
    assert isinstance(model, BagOfWords)
    weights = model.token_weights()
    assert weights.shape == (400, 2)
    assert 0.045 < weights.abs().max() <= 400**-0.5 == 0.05
    assert model.bag.weight[:2].abs().max() == 0
    with torch.no_grad():
        model.bag.weight.zero_()
    assert weights.abs().max() > 0


@pytest.mark.parametrize(
    ("args", "counts"),
    [
        ({"binary": True}, [[1, 1], [1, 1], [0, 0]]),
        ({"scale": "mean"}, [[2 / 3, 1 / 3], [1 / 2, 1 / 2], [0, 0]]),
        ({"scale": "sqrt"}, [[2 / 3**0.5, 1 / 3**0.5], [1 / 2**0.5, 1 / 2**0.5], [0, 0]]),
        (
            {"binary": True, "scale": "sqrt"},
            [[1 / 2**0.5, 1 / 2**0.5], [1 / 2**0.5, 1 / 2**0.5], [0, 0]],
        ),
    ],
)
def test_counts_can_be_presence_and_be_divided_by_the_texts_length(
    args: dict[str, object], counts: list[list[float]]
) -> None:
    model = build_model(
        Named(name="bag_of_words", args=args), Schema(inputs=[TEXT], targets=[NUMBERS])
    )
    assert isinstance(model, BagOfWords)
    with torch.no_grad():
        model.bag.weight.copy_(torch.tensor([[0.0], [3], [10], [4], [0], [0], [1]]))
        model.bias.zero_()
    weights = torch.tensor(
        [[10.0, 1], [3, 4], [0, 0]]
    )  # of the first row's a and e, the second's unknown and b
    torch.testing.assert_close(model(IDS)[:, 0], (weights * torch.tensor(counts)).sum(1))
    torch.testing.assert_close(model(F.pad(IDS, (0, 3))), model(IDS))


def test_each_category_has_its_own_probabilities_and_numbers_are_plain() -> None:
    two = [category("en", "es"), category("a", "b", "c")]
    outputs = build_model(Named(name="bag_of_words"), Schema(inputs=[TEXT], targets=two))(IDS)
    torch.testing.assert_close(outputs[:, :2].exp().sum(1), torch.ones(3))
    torch.testing.assert_close(outputs[:, 2:].exp().sum(1), torch.ones(3))
    model = build_model(Named(name="bag_of_words"), Schema(inputs=[TEXT], targets=[NUMBERS]))
    assert isinstance(model, BagOfWords)
    torch.testing.assert_close(model(IDS)[2], model.bias)


@pytest.mark.parametrize("inputs", [[NUMBERS], [TEXT, NUMBERS]])
def test_other_inputs_are_refused_by_name(inputs: list[FeatureSchema]) -> None:
    with pytest.raises(
        ShapeError, match=r"bag_of_words takes one text alone; data.inputs has .*x \(number\)"
    ):
        build_model(
            Named(name="bag_of_words"), Schema(inputs=inputs, targets=[category("en", "es")])
        )


def test_a_text_joins_a_net_of_pictures_before_its_head() -> None:
    image = FeatureSchema(
        name="image", kind="image", columns=["image"], shape=[1, 32, 32], dtype="uint8"
    )
    schema = Schema(inputs=[TEXT, image], targets=[category("en", "es")])
    model = build_model(Named(name="lenet"), schema).eval()
    picture = torch.zeros(3, 1, 32, 32)
    outputs = model(IDS, picture)
    assert outputs.shape == (3, 2)
    assert not torch.equal(outputs[0], outputs[2])
    torch.testing.assert_close(model(F.pad(IDS, (0, 4)), picture), outputs)


def test_texts_join_numbers_in_a_perceptron_as_the_mean_of_their_embeddings() -> None:
    torch.manual_seed(0)
    schema = Schema(inputs=[TEXT, NUMBERS], targets=[category("en", "es")])
    model = build_model(Named(name="mlp", args={"hidden": []}), schema).eval()
    numbers = torch.tensor([[1.0], [2.0], [3.0]])
    table = model.get_parameter("encoders.0.bag.weight")
    assert table.shape == (7, 3)
    assert table[:2].abs().max() == 0
    with torch.no_grad():
        table[1] = torch.tensor([0.5, 0.0, -0.5])
    means = torch.stack([(2 * table[2] + table[6]) / 3, (table[1] + table[3]) / 2, torch.zeros(3)])
    expected = model.get_submodule("layers")(torch.cat([means, numbers], dim=1))
    torch.testing.assert_close(model(IDS, numbers), expected)
    torch.testing.assert_close(model(F.pad(IDS, (0, 4)), numbers), expected)
    with pytest.raises(ShapeError, match="expected rows of shapes"):
        model(numbers, IDS)
