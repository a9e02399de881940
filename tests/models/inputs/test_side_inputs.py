from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from torchrelay.errors import ShapeError
from torchrelay.models.nets import LeNet
from torchrelay.models.registry import build_model
from torchrelay.recipe import Named
from torchrelay.schema import FeatureSchema, Schema

MakeSchema = Callable[..., Schema]

POINTS = FeatureSchema(
    name="eyes",
    kind="points",
    columns=["x0", "y0", "x1", "y1"],
    shape=[2, 2],
    dtype="float64",
    image="image",
)
NUMBERS = FeatureSchema(
    name="age", kind="number", columns=["a", "b", "c"], shape=[3], dtype="float64"
)
SITE = FeatureSchema(
    name="site", kind="category", columns=["s"], shape=[1], dtype="int64", classes=list("abcde")
)
NETS = [
    "lenet",
    "cifar_net",
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x0_5",
]


def mixed(schema: Schema) -> Schema:
    """Numbers first, so that the image is not the first argument; then a category and points."""
    return schema.model_copy(update={"inputs": [NUMBERS, *schema.inputs, SITE, POINTS]})


@pytest.mark.parametrize("name", NETS)
def test_image_and_other_inputs_both_matter_and_gradients_reach_both(
    name: str, image_schema: MakeSchema
) -> None:
    channels = 1 if name == "lenet" else 3
    model = build_model(Named(name=name), mixed(image_schema(channels, 32, 32)))
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(6, 3, generator=generator, requires_grad=True)
    image = torch.randn(6, channels, 32, 32, generator=generator, requires_grad=True)
    points = torch.randn(6, 2, 2, generator=generator, requires_grad=True)
    site = torch.tensor([[1], [2], [3], [4], [5], [1]])
    outputs = model(numbers, image, site, points)
    assert outputs.shape == (6, 7)
    outputs.square().sum().backward()
    for given in (numbers, image, points):
        assert given.grad is not None
        assert (given.grad.flatten(1).abs().sum(1) > 0).all()
    [table] = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    assert table.weight.grad is not None
    assert (table.weight.grad[1:].abs().sum(1) > 0).all()
    first = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    assert first.weight.grad is not None
    assert first.weight.grad.abs().sum() > 0


def test_the_other_inputs_widen_the_head_and_nothing_else(image_schema: MakeSchema) -> None:
    schema = image_schema(1, 32, 32)
    sizes = [
        sum(p.numel() for p in build_model(Named(name="lenet"), one).parameters())
        for one in (schema, mixed(schema))
    ]
    # By hand: 3 numbers, 4 coordinates, and 3 units of the embedding of 5 classes and "unseen"; 7
    # outputs each.
    assert sizes[1] - sizes[0] == 7 * (3 + 4 + 3) + 6 * 3


def test_a_net_of_one_image_alone_has_the_weights_that_the_seed_gave_it_before(
    image_schema: MakeSchema,
) -> None:
    torch.manual_seed(9)
    expected = LeNet(1, 7).state_dict()
    torch.manual_seed(9)
    got = build_model(Named(name="lenet"), image_schema(1, 32, 32)).state_dict()
    assert list(got) == list(expected)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_net_without_an_affine_head_takes_its_image_alone(image_schema: MakeSchema) -> None:
    with pytest.raises(
        ShapeError, match=r"squeezenet1_1 does not end in an affine layer.*age, image, site, eyes"
    ):
        build_model(Named(name="torchvision:squeezenet1_1"), mixed(image_schema(3, 64, 64)))


def test_two_images_are_refused_by_a_net_of_one(image_schema: MakeSchema) -> None:
    schema = image_schema(1, 32, 32)
    second = schema.inputs[0].model_copy(update={"name": "other"})
    with pytest.raises(
        ShapeError,
        match=r"lenet takes one image of 1 x 32 x 32; .*image \(image\), other \(image\)",
    ):
        build_model(
            Named(name="lenet"), schema.model_copy(update={"inputs": [*schema.inputs, second]})
        )


def test_a_model_gives_the_outputs_of_all_targets_side_by_side(image_schema: MakeSchema) -> None:
    schema = image_schema(1, 32, 32, num_classes=3)
    second = schema.targets[0].model_copy(update={"name": "colour", "classes": list("rgbk")})
    schema = schema.model_copy(update={"targets": [*schema.targets, second]})
    assert build_model(Named(name="lenet"), schema)(torch.zeros(5, 1, 32, 32)).shape == (5, 7)


def test_the_mlp_takes_points(image_schema: MakeSchema) -> None:
    schema = image_schema(1, 8, 8).model_copy(update={"inputs": [POINTS]})
    assert build_model(Named(name="mlp"), schema)(torch.zeros(5, 2, 2)).shape == (5, 7)
