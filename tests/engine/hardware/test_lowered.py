"""Lent weights give the losses, gradients and weights that autocast's own copies give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.gradients import NotFiniteError
from torchrelay.engine.hardware import lowered
from torchrelay.engine.hardware.devices import BF16
from torchrelay.engine.hardware.lowered import Lowered
from torchrelay.engine.job import Job, Progress
from torchrelay.engine.loop import train
from torchrelay.models.nets import MLP, DynamicNet, LeNet, TwoLayerNet
from torchrelay.schema import FeatureSchema

from ..conftest import MakeJob


class Tied(nn.Module):
    """An embedding whose weights a linear layer shares; of this file's package, which torchrelay
    does not know.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(5, 4), nn.Linear(3, 4), nn.Linear(4, 5)
        self.last.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + self.table(x[:, 0].long().clamp(0, 4)))


class Twice(nn.Sequential):
    """A layer that is used twice, and one that shares its weights."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
        self[2].weight = self[0].weight
        self.append(self[0])


NUMBERS = FeatureSchema(
    name="x", kind="number", columns=["a", "b", "c"], shape=[3], dtype="float32"
)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (lambda: LeNet(1, 10), (1, 32, 32)),
    "mlp": (lambda: MLP([NUMBERS], 2, [8, 8], 0.2, "layer"), (3,)),
    "dynamic net": (lambda: DynamicNet(3, 2, 8), (3,)),
    "by hand": (lambda: TwoLayerNet(3, 2, 8, "tensors"), (3,)),
    "by autograd": (lambda: TwoLayerNet(3, 2, 8, "autograd"), (3,)),
    "own function": (lambda: TwoLayerNet(3, 2, 8, "function"), (3,)),
    "shared weights": (Twice, (3,)),
    "tied embedding": (Tied, (3,)),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=4), (3, 64, 64)),
}


@pytest.fixture
def every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowered, "PACKAGES", (*lowered.PACKAGES, __name__.partition(".")[0]))


def trained(
    name: str, *, lowers: bool, accumulate: int = 1, freeze_at: int = -1
) -> dict[str, Tensor]:
    """Weights and last gradients after some steps in bf16."""
    build, shape = NETS[name]
    torch.manual_seed(0)
    model = build().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    lowered_weights = Lowered(model, torch.bfloat16 if lowers else None)
    first = next(model.parameters())
    for step in range(4):
        first.requires_grad_(step != freeze_at)
        optimizer.zero_grad()
        for _ in range(accumulate):
            x = torch.randn(4, *shape)
            with lowered_weights.with_low_precision_weights():
                with torch.autocast("cpu", torch.bfloat16):
                    outputs = model(x)
                outputs.float().square().mean().backward()
        optimizer.step()
    gradients = {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }
    return {
        **model.state_dict(),
        **{f"{name}.grad": gradient for name, gradient in gradients.items()},
    }


@pytest.mark.usefixtures("every_package")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("accumulate", "freeze_at"), [(1, -1), (2, -1), (1, 1), (2, 3)])
def test_training_gives_the_same_bits(name: str, accumulate: int, freeze_at: int) -> None:
    plain = trained(name, lowers=False, accumulate=accumulate, freeze_at=freeze_at)
    low_precision = trained(name, lowers=True, accumulate=accumulate, freeze_at=freeze_at)
    assert plain.keys() == low_precision.keys()
    assert [key for key, value in plain.items() if not torch.equal(value, low_precision[key])] == []


@pytest.mark.usefixtures("every_package")
def test_a_weight_that_another_kind_of_layer_has_too_is_not_lent() -> None:
    model = Tied()
    with Lowered(model, torch.bfloat16).with_low_precision_weights():
        assert model.first.weight.dtype == torch.bfloat16
        assert model.last.weight is model.table.weight
        assert model.table.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "model",
    [Tied(), nn.Linear(3, 3).double(), nn.Sequential(nn.Linear(3000, 3000))],
    ids=["of an unknown package", "in double", "large"],
)
def test_other_nets_are_left_to_autocast(model: nn.Module) -> None:
    before = dict(model.named_parameters())
    with Lowered(model, torch.bfloat16).with_low_precision_weights():
        assert all(before[name] is weight for name, weight in model.named_parameters())


def test_an_error_within_gives_the_weights_back() -> None:
    model = nn.Linear(3, 3)
    weight = model.weight
    with pytest.raises(KeyError), Lowered(model, torch.bfloat16).with_low_precision_weights():
        assert model.weight is not weight
        raise KeyError
    assert model.weight is weight
    assert weight.grad is None


def run(job: Job, folder: Path) -> dict[str, Any]:
    train(job, Progress(), CheckpointStore(folder, 3, {}, {}), lambda *args, **options: None)
    return job.scorer.model.state_dict()


def test_the_loop_lends_and_gives_the_same_bits(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    job = make_job(precision=BF16)
    job.scorer.model[0].register_forward_pre_hook(lambda layer, _: seen.append(layer.weight.dtype))  # pyright: ignore[reportIndexIssue]
    low_precision = run(job, tmp_path / "low_precision")
    assert torch.bfloat16 in seen
    monkeypatch.setattr(lowered, "MOST_WEIGHTS", 0)
    plain = run(make_job(precision=BF16), tmp_path / "plain")
    assert all(torch.equal(low_precision[name], plain[name]) for name in plain)


def test_a_bad_row_is_named_and_the_weights_are_the_nets_own(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(precision=BF16, bad_row=3)
    with pytest.raises(NotFiniteError, match="3"):
        run(job, tmp_path)
    assert {weight.dtype for weight in job.scorer.model.parameters()} == {torch.float32}
