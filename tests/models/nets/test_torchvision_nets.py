from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from torchrelay.errors import RecipeError, ShapeError
from torchrelay.models.registry import build_model, check_model
from torchrelay.recipe import Named
from torchrelay.schema import Schema

MakeSchema = Callable[..., Schema]

# Nets whose first layer stands in a place of its own.
NETS = [
    "convnext_tiny",
    "efficientnet_b0",
    "mnasnet0_5",
    "densenet121",
    "googlenet",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
]


@pytest.mark.parametrize("net", NETS)
def test_head_and_first_layer_fit_the_table(net: str, image_schema: MakeSchema) -> None:
    model = build_model(Named(name=f"torchvision:{net}"), image_schema(5, 40, 40, num_classes=7))
    first = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    assert first.in_channels == 5
    outputs = model.train()(torch.randn(2, 5, 40, 40))
    assert outputs.shape == (2, 7)


def test_rgb_images_keep_the_first_layer_of_torchvision(image_schema: MakeSchema) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(3)
    expected = resnet18(num_classes=7).state_dict()
    torch.manual_seed(3)
    got = build_model(Named(name="torchvision:resnet18"), image_schema(3, 32, 32)).state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_vision_transformer_is_built_for_the_images_size(image_schema: MakeSchema) -> None:
    args = {"patch_size": 16}
    with pytest.raises(RecipeError, match=r"model\.args\.patch_size: got 16"):
        check_model(Named(name="torchvision:vit_b_32", args=args))  # the net sets it itself
    model = build_model(Named(name="torchvision:vit_b_32"), image_schema(1, 64, 64))
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    with pytest.raises(
        ShapeError, match=r"square images, got 64 x 32.*data\.inputs\.image\.size: \[64, 64\]"
    ):
        build_model(Named(name="torchvision:vit_b_32"), image_schema(1, 64, 32))


def test_arguments_are_passed_on(image_schema: MakeSchema) -> None:
    name = Named(name="torchvision:mobilenet_v2", args={"width_mult": 0.25, "dropout": 0.4})
    model = build_model(name, image_schema(3, 32, 32))
    assert next(part for part in model.modules() if isinstance(part, nn.Conv2d)).out_channels == 8
    assert next(part for part in model.modules() if isinstance(part, nn.Dropout)).p == 0.4


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("resnet19", {}, r"model\.name: .*'resnet19'.*resnet1[08]"),
        (
            "resnet18",
            {"width": 3},
            r"model\.args\.width: got 3.*unexpected keyword argument 'width'",
        ),
        (
            "resnet18",
            {"groups": 2, "zero_init_residual": True},
            r"model\.args\.groups: got 2.*groups=1",
        ),
        (
            "resnet18",
            {"weights": "IMAGENET_V1"},
            r"model\.args\.weights: .*'IMAGENET_V1' of resnet18.*IMAGENET1K_V1",
        ),
        (
            "resnet18",
            {"weights": "DEFAULT", "weights_file": "a.pth"},
            r"model\.args: weights and weights_file",
        ),
        ("googlenet", {"aux_logits": True}, r"model\.args\.aux_logits.*leave it out"),
        ("resnet18", {"num_classes": 3}, r"model\.args\.num_classes.*leave it out"),
    ],
)
def test_wrong_names_and_arguments_are_refused_without_a_table(
    name: str, args: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_model(Named(name=f"torchvision:{name}", args=args))


@pytest.mark.parametrize("net", ["alexnet", "maxvit_t"])
def test_an_image_too_small_for_the_net_is_refused_with_the_remedy(
    net: str, image_schema: MakeSchema
) -> None:
    with pytest.raises(ShapeError, match=rf"model\.name: torchvision:{net}.*32(.|\n)*data\.inputs"):
        build_model(Named(name=f"torchvision:{net}"), image_schema(3, 32, 32))
