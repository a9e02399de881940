from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from torchrelay.errors import RecipeError, ShapeError
from torchrelay.models.registry import MODELS, build_model, check_model, describe_models
from torchrelay.recipe import Named
from torchrelay.schema import Schema

MakeSchema = Callable[..., Schema]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["", "lenett", "resnet18", "mlp:", "nonsense"])
def test_an_unknown_model_is_named_with_its_key_and_the_nearest(name: str) -> None:
    expected = {
        "": "cifar_net",
        "lenett": "lenet",
        "resnet18": "torchvision:resnet18",
        "mlp:": "mlp",
        "nonsense": "lenet",
    }
    with pytest.raises(RecipeError, match=r"model\.name") as caught:
        check_model(Named(name=name))
    assert expected[name] in str(caught.value).replace(f"{name!r}", "", 1)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"hiden": [3]}, r"model\.args\.hiden \(value \[3\]\).*did you mean hidden"),
        ({"hidden": [8, 0]}, r"model\.args\.hidden\.1: got \[8, 0\].*greater than 0"),
        ({"hidden": "64"}, r"model\.args\.hidden: got '64'"),
        ({"dropout": 1.5}, r"model\.args\.dropout: got 1\.5.*less than 1"),
        ({"schema": 1}, r"model\.args\.schema: 1 is not the recipe's to give"),
    ],
)
def test_a_wrong_argument_of_a_registered_model_is_refused_without_a_table(
    args: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_model(Named(name="mlp", args=args))


@pytest.mark.parametrize(("name", "channels"), [("lenet", 1), ("cifar_net", 3)])
def test_small_nets_score_images_and_gradients_reach_every_weight(
    name: str, channels: int, image_schema: MakeSchema
) -> None:
    model = build_model(Named(name=name), image_schema(channels, 32, 32, num_classes=10))
    # By hand: 6 (25 C + 1) + 16 (150 + 1) + 120 (400 + 1) + 84 (120 + 1) + 10 (84 + 1).
    assert count(model) == 6 * (25 * channels + 1) + 2416 + 48120 + 10164 + 850
    outputs = model(torch.randn(5, channels, 32, 32))
    assert outputs.shape == (5, 10)
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_an_image_of_another_shape_is_refused_with_the_remedy(
    shape: tuple[int, ...], image_schema: MakeSchema
) -> None:
    given = " x ".join(map(str, shape))
    with pytest.raises(
        ShapeError, match=rf"lenet takes one image of 1 x 32 x 32.*{given}.*size: \[32, 32\].*gray"
    ):
        build_model(Named(name="lenet"), image_schema(*shape))


def test_numbers_are_refused_by_an_image_net(number_schema: Schema) -> None:
    for name in ("cifar_net", "torchvision:resnet18"):
        with pytest.raises(ShapeError, match=r"takes one image.*x \(number\).*use mlp"):
            build_model(Named(name=name), number_schema)


def test_the_mlp_takes_numbers_categories_and_images_side_by_side(mixed_schema: Schema) -> None:
    model = build_model(Named(name="mlp", args={"hidden": [10], "dropout": 0.5}), mixed_schema)
    # By hand: 5 classes and "unseen" in 3 dimensions, twice; then 2 + 2 * 3 + 12 inputs.
    assert count(model) == 2 * 6 * 3 + (20 + 1) * 10 + (10 + 1) * 2
    outputs = model(
        torch.randn(4, 2), torch.tensor([[0, 5], [1, 2], [3, 3], [5, 0]]), torch.randn(4, 1, 4, 3)
    )
    assert outputs.shape == (4, 2)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_mlp_normalises_each_hidden_layer_before_its_relu(
    norm: str, number_schema: Schema
) -> None:
    torch.manual_seed(0)
    model = build_model(Named(name="mlp", args={"hidden": [8, 6], "norm": norm}), number_schema)
    # By hand: weight and bias of each hidden unit's norm beside the three affine layers.
    assert count(model) == (3 + 1) * 8 + (8 + 1) * 6 + (6 + 1) * 4 + 2 * (8 + 6)
    plain = build_model(Named(name="mlp", args={"hidden": [8, 6]}), number_schema)
    assert [type(layer).__name__ for layer in plain.get_submodule("layers").children()][:3] == [
        "Linear", "ReLU", "Dropout"
    ]  # fmt: skip
    hidden: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> None:
        hidden.append(outputs)

    model.get_submodule("layers.1").register_forward_hook(keep)
    model.train()(100 * torch.randn(50, 3))
    axis = 0 if norm == "batch" else 1
    torch.testing.assert_close(
        hidden[0].mean(dim=axis), torch.zeros(8 if norm == "batch" else 50), atol=1e-4, rtol=0
    )
    with pytest.raises(RecipeError, match=r"model\.args\.norm: got 'group'"):
        check_model(Named(name="mlp", args={"norm": "group"}))


def test_an_id_unseen_in_training_says_nothing_and_learns_nothing(mixed_schema: Schema) -> None:
    model = build_model(Named(name="mlp", args={"hidden": []}), mixed_schema)
    ids = torch.tensor([[0, 1]])
    model(torch.zeros(1, 2), ids, torch.zeros(1, 1, 4, 3)).sum().backward()
    unseen = next(table for table in model.modules() if isinstance(table, nn.Embedding))
    assert unseen.weight[0].abs().sum() == 0
    assert unseen.weight.grad is not None
    assert unseen.weight.grad.abs().sum() == 0


def test_the_mlp_refuses_inputs_of_another_shape(number_schema: Schema) -> None:
    model = build_model(Named(name="mlp"), number_schema)
    with pytest.raises(ShapeError, match=r"expected rows of shapes \[\(3,\)\].*got \[\(4,\)\]"):
        model(torch.zeros(2, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_compute_in_the_precision_asked_for(
    dtype: torch.dtype, mixed_schema: Schema
) -> None:
    model = build_model(Named(name="mlp"), mixed_schema)
    numbers, ids, image = (
        torch.randn(4, 2),
        torch.tensor([[0, 5], [1, 2], [3, 3], [5, 0]]),
        torch.randn(4, 1, 4, 3),
    )
    expected = model(numbers, ids, image)
    if dtype == torch.float64:
        got = model.double()(numbers.double(), ids, image.double())
    else:
        with torch.autocast("cpu", dtype):
            got = model(numbers, ids, image)
    assert got.dtype == dtype
    torch.testing.assert_close(
        got.float(), expected, rtol=0, atol=1e-5 if dtype == torch.float64 else 0.02
    )


@pytest.mark.parametrize("name", ["lenet", "torchvision:shufflenet_v2_x0_5"])
def test_the_seed_alone_decides_the_weights_and_the_proof_leaves_no_trace(
    name: str, image_schema: MakeSchema
) -> None:
    torch.manual_seed(5)
    first = build_model(Named(name=name), image_schema(1, 32, 32))
    after = torch.get_rng_state()
    torch.manual_seed(5)
    check_model(Named(name=name))
    second = build_model(Named(name=name), image_schema(1, 32, 32))
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert torch.equal(after, torch.get_rng_state())
    assert all(module.training for module in first.modules())


def test_checking_and_describing_draw_no_random_numbers() -> None:
    before = torch.get_rng_state()
    infos = {info.name: info for info in describe_models()}
    for name in (
        "torchvision:googlenet",
        "torchvision:vit_b_16",
        "torchvision:regnet_x_400mf",
        "torchvision:swin_t",
    ):
        check_model(Named(name=name))
    assert torch.equal(before, torch.get_rng_state())
    assert infos["lenet"].num_parameters == 61_706
    assert infos["cifar_net"].num_parameters == 62_006
    assert (
        infos["complex"].num_parameters == (10 + 2 * 4) * 2 * 64
    )  # entities, relations both ways, real and imaginary
    assert infos["mlp"].args == {"hidden": [64, 64], "dropout": 0.0, "norm": "none"}
    assert infos["two_layer"].num_parameters == 8 * 100 + 100 * 10
    assert infos["dynamic_net"].num_parameters == (8 + 1) * 100 + (100 + 1) * 100 + (100 + 1) * 10
    assert "resnet18" in infos["torchvision:<name>"].doc
    assert "package.module:Class" in infos


def test_lenet_with_spare_channels_equals_the_plain_net(image_schema: MakeSchema) -> None:
    torch.manual_seed(0)
    net = build_model(Named(name="cifar_net"), image_schema(3, 32, 32)).double()
    image = torch.randn(4, 3, 32, 32, dtype=torch.float64)

    def plain(x: torch.Tensor) -> torch.Tensor:
        parts = dict(net.named_children())
        for name in ("conv1", "conv2"):
            x = torch.nn.functional.max_pool2d(torch.relu(parts[name](x)), 2)
        x = x.flatten(1)
        for name in ("fc1", "fc2"):
            x = torch.relu(parts[name](x))
        return parts["fc3"](x)

    grads = []
    for forward in (net, plain):
        net.zero_grad()
        forward(image).square().sum().backward()
        grads.append([parameter.grad for parameter in net.parameters()])
    torch.testing.assert_close(net(image), plain(image), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-10)


def test_a_model_that_finds_no_room_in_memory_is_refused_before_it_is_made(
    number_schema: Schema, image_schema: MakeSchema
) -> None:
    with pytest.raises(
        RecipeError,
        match=r"model\.name: mlp: its weights take 372,529\.\d GiB, and [\d,.]+ GiB of mem",
    ):
        build_model(Named(name="mlp", args={"hidden": [10_000_000, 10_000_000]}), number_schema)
    wide = Named(name="torchvision:resnet50", args={"width_per_group": 10**7})
    with pytest.raises(RecipeError, match=r"its weights take [\d,.]+ GiB|larger than any memory"):
        build_model(wide, image_schema(3, 32, 32))


@pytest.mark.parametrize("name", ["mlp", "dynamic_net"])
def test_counting_a_model_before_it_is_made_draws_no_random_number(
    name: str, number_schema: Schema
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        build_model(Named(name=name), number_schema)
        after_both = torch.get_rng_state()
        torch.manual_seed(3)
        MODELS[name].build(number_schema)
        assert torch.get_rng_state().equal(after_both)
