"""What may not be loaded into a model, whatever loads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchrelay.errors import SourceError
from torchrelay.models import build_model
from torchrelay.recipe import Data, Feature, Named, Recipe, WarmStart, dump_recipe
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.tasks.assembly import export_source, pack_sources
from torchrelay.weights.state import load_into
from torchrelay.weights.transfer import plan_transfer
from torchrelay.weights.values import check_finite, check_state


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def changed(key: str, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in net().state_dict().items()}
    return {**state, key: change(state[key])}


def at_first(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return change


BAD = [
    ("0.weight", at_first(math.nan), r"0\.weight has 1 NaN of 6 values"),
    ("0.weight", at_first(-math.inf), r"0\.weight has 1 infinite of 6 values"),
    ("0.bias", lambda x: torch.full_like(x, math.nan), r"0\.bias has 3 NaN of 3 values"),
    (
        "0.weight",
        lambda x: x.long(),
        r"0\.weight is integer \(int64\), the model's is floating \(float32\)",
    ),
    (
        "0.weight",
        lambda x: x.to(torch.complex64),
        r"0\.weight is complex \(complex64\), the model's is floating",
    ),
    ("0.weight", lambda x: x > 0, r"0\.weight is boolean \(bool\), the model's is floating"),
    (
        "0.weight",
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        r"0\.weight is quantised \(qint8\)",
    ),
    (
        "0.weight",
        lambda x: x.to(torch.float8_e4m3fn),
        r"0\.weight is scaled floating \(float8_e4m3fn\)",
    ),
    (
        "0.weight",
        lambda x: x.double() + 1e300,
        r"0\.weight has 6 infinite of 6 values once it is float32",
    ),
    (
        "1.num_batches_tracked",
        lambda x: x.float(),
        r"1\.num_batches_tracked is floating .* the model's is integer",
    ),
    ("1.running_mean", at_first(math.inf), r"1\.running_mean has 1 infinite"),
    (
        "1.running_var",
        at_first(-0.5),
        r"1\.running_var has 1 negative values of 3, and is a variance",
    ),
]


@pytest.mark.parametrize(("key", "change", "words"), BAD)
def test_values_that_cannot_be_a_models_are_refused_by_key_and_file(
    key: str, change: Callable[[Tensor], Tensor], words: str
) -> None:
    model, state = net(), changed(key, change)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SourceError, match=rf"theirs\.pt cannot be used: {words}"):
        load_into(model, state, "theirs.pt")
    with pytest.raises(SourceError, match=r"theirs\.pt cannot be used"):
        load_into(model, {f"module.{name}": value for name, value in state.items()}, "theirs.pt")
    assert all(
        torch.equal(value, before[name]) for name, value in model.state_dict().items()
    )  # as it was
    with pytest.raises(SourceError, match=rf"source cannot be used: {words}.*warm_start\.exclude"):
        plan_transfer(net().state_dict(), state, WarmStart(), {}, "source")
    kept = plan_transfer(net().state_dict(), state, WarmStart(exclude=[key]), {}, "source")
    assert torch.isfinite(kept.state[key].float()).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_another_width_are_cast(dtype: torch.dtype) -> None:
    model = net()
    load_into(model, changed("0.weight", lambda x: torch.ones_like(x).to(dtype)), "theirs.pt")
    weight = model.state_dict()["0.weight"]
    assert weight.dtype == torch.float32
    assert bool((weight == 1).all())


def test_a_mask_may_be_infinite_where_the_model_has_it_so() -> None:
    own = {"mask": torch.full((3, 3), -math.inf).triu(1), "large": torch.full((4,), 3e38)}
    check_state(own, {"mask": own["mask"].double(), "large": own["large"]}, "theirs.pt")
    with pytest.raises(SourceError, match="mask has 1 NaN of 9 values"):
        check_state(own, {"mask": at_first(math.nan)(own["mask"].clone())}, "theirs.pt")
    check_finite({"mask": own["mask"], "large": own["large"]}, "theirs.pt")
    with pytest.raises(SourceError, match="bias has 1 infinite of 2 values"):
        check_finite({"bias": torch.tensor([0.0, -math.inf])}, "theirs.pt")
    with pytest.raises(SourceError, match="w has 1 NaN of 2 values"):
        check_finite({"w": torch.tensor([1 + 1j, math.nan + 0j])}, "theirs.pt")


def test_many_bad_keys_are_counted() -> None:
    own = {str(number): torch.zeros(1) for number in range(9)}
    with pytest.raises(SourceError, match=r"4 has 1 NaN of 1 values; … \(9 keys\)"):
        check_state(own, {key: value / 0 for key, value in own.items()}, "theirs.pt")


@pytest.mark.parametrize("shape", [(1, 2), (1, 3), (4, 2), (2,)])
def test_what_is_not_finite_is_not_handed_on_whatever_its_shape(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    x = FeatureSchema(
        name="x",
        kind="number",
        columns=["a", "b"],
        shape=[2],
        dtype="float64",
        mean=[0, 0],
        std=[1, 1],
    )
    y = FeatureSchema(
        name="y", kind="number", columns=["y"], shape=[1], dtype="float64", mean=[0.0], std=[1.0]
    )
    recipe = Recipe(
        name="numbers",
        data=Data(
            table="t.csv",
            inputs={"x": Feature(kind="number")},
            target={"y": Feature(kind="number")},
        ),
        model=Named(name="mlp", args={"hidden": []}),
    )
    Schema(inputs=[x], targets=[y]).save(tmp_path / "schema.json")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    state = build_model(recipe.model, Schema.load(tmp_path / "schema.json")).state_dict()
    key = next(key for key, value in state.items() if tuple(value.shape) == (1, 2))
    torch.save({**state, key: torch.full(shape, torch.nan)}, tmp_path / "in.pt")
    for hand_on in (
        lambda: export_source(str(tmp_path / "in.pt"), tmp_path / "out.pt", with_optimizer=False),
        lambda: pack_sources([str(tmp_path / "in.pt")], {}, tmp_path / "out.pt"),
    ):
        with pytest.raises(SourceError, match=rf"{key} has {torch.Size(shape).numel()} NaN"):
            hand_on()
