from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from torchrelay.errors import RecipeError, SourceError
from torchrelay.models.nets.pretrained import fetch_pretrained, load_pretrained
from torchrelay.models.registry import build_model, check_model
from torchrelay.recipe import Named
from torchrelay.schema import Schema
from torchrelay.weights import load_weights

MakeSchema = Callable[..., Schema]
NET = "shufflenet_v2_x0_5"
FILE = "shufflenetv2_x0.5-f707e7126e.pth"  # what torchvision downloads for it


@pytest.fixture(autouse=True)
def _no_torch_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_HOME", raising=False)


def weights_of(net: str, path: Path, num_classes: int = 1000, **args: Any) -> dict[str, Tensor]:
    """A file as torchvision offers it, with random weights."""
    torch.manual_seed(5)
    state = models.get_model(net, weights=None, num_classes=num_classes, **args).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return state


def load(net: str, schema: Schema, cache: Path, **args: Any) -> tuple[nn.Module, list[str]]:
    named = Named(name=f"torchvision:{net}", args=args)
    check_model(named)
    fetch_pretrained(named, cache, load_weights)
    model = build_model(named, schema)
    return model, load_pretrained(model, named, cache, load_weights)


@pytest.mark.parametrize(
    ("net", "head"),
    [
        (NET, "fc"),
        ("squeezenet1_1", "classifier.1"),
        ("mobilenet_v3_small", "classifier.3"),
        ("mnasnet0_5", "classifier.1"),
        ("resnet18", "fc"),
    ],
)
def test_all_but_the_head_is_loaded_from_a_file(
    net: str, head: str, image_schema: MakeSchema, tmp_path: Path
) -> None:
    expected = weights_of(net, tmp_path / "net.pth")
    model, said = load(
        net,
        image_schema(3, 32, 32, num_classes=7),
        tmp_path,
        weights_file=str(tmp_path / "net.pth"),
    )
    got = model.state_dict()
    assert {name for name in expected if not torch.equal(expected[name], got[name])} == {
        f"{head}.weight",
        f"{head}.bias",
    }
    assert said == [
        f"weights: {tmp_path}/net.pth",
        f"weights: new head, {head}.weight, {head}.bias left out",
    ]


def test_a_net_whose_head_stands_outside_of_it_is_loaded_without_it(tmp_path: Path) -> None:
    class WithMore(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = models.get_model(NET, weights=None)
            self.net.set_submodule("fc", nn.Identity())
            self.head = nn.Linear(1024 + 2, 7)

    expected = weights_of(NET, tmp_path / "net.pth")
    built = WithMore()
    named = Named(name=f"torchvision:{NET}", args={"weights_file": str(tmp_path / "net.pth")})
    assert (
        load_pretrained(built, named, tmp_path, load_weights)[1]
        == "weights: new head, fc.weight, fc.bias left out"
    )
    assert torch.equal(built.state_dict()["net.conv5.0.weight"], expected["conv5.0.weight"])


def test_a_head_of_as_many_outputs_is_loaded_too(image_schema: MakeSchema, tmp_path: Path) -> None:
    expected = weights_of(NET, tmp_path / "net.pth", num_classes=7)
    model, said = load(
        NET,
        image_schema(3, 32, 32, num_classes=7),
        tmp_path,
        weights_file=str(tmp_path / "net.pth"),
    )
    assert torch.equal(model.state_dict()["fc.weight"], expected["fc.weight"])
    assert len(said) == 1


@pytest.mark.parametrize(
    ("channels", "weights"),
    [
        (1, [3.0 + 5 + 7]),
        (2, [3 * 1.5, 5 * 1.5]),
        (5, [3 * 0.6, 5 * 0.6, 7 * 0.6, 3 * 0.6, 5 * 0.6]),
    ],
)
def test_the_first_layer_is_fitted_to_other_channels(
    channels: int, weights: list[float], image_schema: MakeSchema, tmp_path: Path
) -> None:
    state = weights_of(NET, tmp_path / "net.pth")
    state["conv1.0.weight"] = (
        torch.tensor([3.0, 5, 7]).reshape(1, 3, 1, 1).expand_as(state["conv1.0.weight"])
    )
    torch.save(state, tmp_path / "net.pth")
    schema = image_schema(channels, 32, 32)
    model, said = load(NET, schema, tmp_path, weights_file=str(tmp_path / "net.pth"))
    torch.testing.assert_close(
        model.state_dict()["conv1.0.weight"][0, :, 0, 0], torch.tensor(weights)
    )
    assert f"weights: first layer conv1.0.weight fitted from 3 to {channels} channels" in said


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_a_first_layer_of_another_class_of_number_is_refused_and_not_fitted(
    channels: int, dtype: torch.dtype, image_schema: MakeSchema, tmp_path: Path
) -> None:
    state = weights_of(NET, tmp_path / "net.pth")
    torch.save(state | {"conv1.0.weight": state["conv1.0.weight"].to(dtype)}, tmp_path / "net.pth")
    with pytest.raises(
        SourceError, match=r"conv1\.0\.weight is \w+ \(\w+\), the model's is floating"
    ):
        load(NET, image_schema(channels, 32, 32), tmp_path, weights_file=str(tmp_path / "net.pth"))


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (
            torch.zeros(1, 17, 8, dtype=torch.int64),
            r"encoder\.pos_embedding is integer \(int64\), the model's is floating",
        ),
        (torch.full((1, 17, 8), torch.nan), r"encoder\.pos_embedding has 520 NaN"),
        (torch.zeros(1, 16, 8), r"encoder\.pos_embedding \(1, 16, 8\), not \(1, 65, 8\)"),
        (torch.zeros(17, 8), r"encoder\.pos_embedding \(17, 8\), not"),
    ],
)
def test_positions_that_cannot_be_a_transformers_are_refused(
    positions: Tensor, words: str, tmp_path: Path
) -> None:
    args: Any = {
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "mlp_dim": 8,
        "patch_size": 8,
        "num_classes": 3,
    }
    state = models.VisionTransformer(image_size=32, **args).state_dict() | {
        "encoder.pos_embedding": positions
    }
    torch.save(state, tmp_path / "net.pth")
    named = Named(name="torchvision:vit_b_16", args={"weights_file": str(tmp_path / "net.pth")})
    with pytest.raises(SourceError, match=words):
        load_pretrained(
            models.VisionTransformer(image_size=64, **args), named, tmp_path, load_weights
        )


def test_the_positions_of_a_transformer_fit_another_size_of_image(
    image_schema: MakeSchema, tmp_path: Path
) -> None:
    args: Any = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8, "patch_size": 8}
    torch.manual_seed(5)
    torch.save(
        models.VisionTransformer(image_size=32, num_classes=3, **args).state_dict(),
        tmp_path / "net.pth",
    )
    built = models.VisionTransformer(image_size=64, num_classes=7, **args)
    named = Named(name="torchvision:vit_b_16", args={"weights_file": str(tmp_path / "net.pth")})
    said = load_pretrained(built, named, tmp_path, load_weights)
    assert "weights: positions interpolated to 64 pixels" in said
    assert built(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(
    "name", ["IMAGENET1K_V1", "DEFAULT", "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"]
)
def test_weights_by_name_are_those_of_the_cache(
    name: str, image_schema: MakeSchema, tmp_path: Path
) -> None:
    expected = weights_of(NET, tmp_path / "torch" / "hub" / "checkpoints" / FILE)
    model, _ = load(NET, image_schema(3, 32, 32), tmp_path, weights=name)
    assert torch.equal(model.state_dict()["conv5.0.weight"], expected["conv5.0.weight"])


def test_torchs_own_home_is_honoured(
    image_schema: MakeSchema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "mine"))
    weights_of(NET, tmp_path / "mine" / "hub" / "checkpoints" / FILE)
    assert load(NET, image_schema(3, 32, 32), tmp_path / "cache", weights="DEFAULT")[1]
    assert not (tmp_path / "cache").exists()


def test_weights_that_cannot_be_downloaded_say_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    named = Named(name=f"torchvision:{NET}", args={"weights": "DEFAULT"})
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    with pytest.raises(
        SourceError,
        match=rf"DEFAULT of {NET} cannot be downloaded from https://.*; "
        rf"put {FILE} into {folder}, or .*_file",
    ):
        fetch_pretrained(named, tmp_path, load_weights)
    assert list(folder.iterdir()) == []


def test_weights_of_another_net_are_refused_with_what_does_not_fit(
    image_schema: MakeSchema, tmp_path: Path
) -> None:
    weights_of("shufflenet_v2_x1_0", tmp_path / "wider.pth")
    with pytest.raises(
        SourceError,
        match=rf"not those of torchvision:{NET}: .* \(\d+, .*, not \(\d+, .* and \d+ more",
    ):
        load(NET, image_schema(3, 32, 32), tmp_path, weights_file=str(tmp_path / "wider.pth"))
    weights_of("resnet18", tmp_path / "other.pth")
    with pytest.raises(SourceError, match=r"is missing"):
        load(NET, image_schema(3, 32, 32), tmp_path, weights_file=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3}, r"expected a state_dict.*got keys 'epoch'"),
        (b"no weights", "text that begins with 'no weights'"),
        (None, r"model\.args\.weights_file: .*net\.pth does not exist"),
    ],
)
def test_a_file_that_is_no_state_dict_is_refused_before_there_is_a_table(
    content: object, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(SourceError, match=words):
        fetch_pretrained(
            Named(name=f"torchvision:{NET}", args={"weights_file": str(path)}),
            tmp_path,
            load_weights,
        )


def test_a_model_without_pretrained_weights_needs_none(tmp_path: Path) -> None:
    named = Named(name=f"torchvision:{NET}")
    assert (
        fetch_pretrained(named, tmp_path, load_weights)
        == load_pretrained(nn.Identity(), named, tmp_path, load_weights)
        == []
    )


def test_weights_are_text() -> None:
    with pytest.raises(RecipeError, match=r"model\.args\.weights: expected text, got 3"):
        check_model(Named(name=f"torchvision:{NET}", args={"weights": 3}))
