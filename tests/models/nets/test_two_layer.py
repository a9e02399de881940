from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchrelay.engine import Evaluation, Job, Progress, Scorer, build_loss, reduction_of, train
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.hardware import FP64
from torchrelay.engine.optim import build_optimizer, build_schedule
from torchrelay.errors import ShapeError
from torchrelay.models.nets.two_layer import Form, HandWrittenNet, HandWrittenReLU, build_net
from torchrelay.models.registry import build_model
from torchrelay.recipe import Named
from torchrelay.schema import Batch, FeatureSchema, Schema

NUM_ROWS, NUM_INPUTS, NUM_HIDDEN, NUM_OUTPUTS, NUM_STEPS = 24, 12, 9, 3, 500
LEARNING_RATE = 1e-3
FORMS: tuple[Form, ...] = get_args(Form)


def numbers(name: str, num_columns: int) -> FeatureSchema:
    columns = [f"{name}{at}" for at in range(num_columns)]
    zeros, ones = [0.0] * num_columns, [1.0] * num_columns
    return FeatureSchema(
        name=name,
        kind="number",
        columns=columns,
        shape=[num_columns],
        dtype="float64",
        mean=zeros,
        std=ones,
    )


SCHEMA = Schema(inputs=[numbers("x", NUM_INPUTS)], targets=[numbers("y", NUM_OUTPUTS)])


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(NUM_ROWS, NUM_INPUTS)), generator.normal(
        size=(NUM_ROWS, NUM_OUTPUTS)
    )


def net(form: Form) -> nn.Module:
    torch.manual_seed(0)
    return build_model(
        Named(name="two_layer", args={"hidden": NUM_HIDDEN, "form": form}), SCHEMA
    ).double()


@pytest.fixture(scope="module")
def reference() -> tuple[list[float], np.ndarray, np.ndarray]:
    """500 steps in NumPy: the losses before each step, and the weights after the last."""
    x, y = data()
    start = net("module").state_dict()
    w1, w2 = (start[f"linear{at}.weight"].numpy().T.copy() for at in (1, 2))
    losses = []
    for _ in range(NUM_STEPS):
        hidden = x.dot(w1)
        active = np.maximum(hidden, 0)
        errors = active.dot(w2) - y
        losses.append(np.square(errors).sum())
        grad_w2 = active.T.dot(2 * errors)
        grad_hidden = (2 * errors).dot(w2.T)
        grad_hidden[hidden < 0] = 0
        w1 -= LEARNING_RATE * x.T.dot(grad_hidden)
        w2 -= LEARNING_RATE * grad_w2
    return losses, w1.T, w2.T


def train_in_one_batch(model: nn.Module, optimizer: str, folder: Path) -> list[float]:
    """The losses of 500 steps of the training loop over all rows at once."""
    x, y = (torch.from_numpy(one) for one in data())
    batch = Batch(torch.arange(NUM_ROWS), (x,), y)

    def batches(epoch: int, start_batch: int) -> Iterator[Batch]:
        yield from [batch] * NUM_STEPS

    def nothing(found: Evaluation) -> dict[str, float]:
        return {}

    stepped = build_optimizer(Named(name=optimizer, args={"lr": LEARNING_RATE}), model.parameters())
    loss = build_loss("mse_sum", SCHEMA)
    job = Job(
        scorer=Scorer(SCHEMA, model, loss, torch.device("cpu"), FP64),
        loss=loss,
        reduction=reduction_of("mse_sum"),
        optimizer=stepped,
        scheduler=build_schedule(Named(name="constant"), stepped, NUM_STEPS),
        train_batches=batches,
        valid_batches=list,
        measure=nothing,
        num_epochs=1,
        steps_per_epoch=NUM_STEPS,
    )
    losses: list[float] = []

    def note(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        losses.extend([] if epoch_ended else [values["train/loss"]])

    train(job, Progress(), CheckpointStore(folder, 1, {}, {}), note)
    return losses


@pytest.mark.parametrize("optimizer", ["sgd_by_hand", "sgd"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_learns_what_numpy_learns(
    form: Form,
    optimizer: str,
    reference: tuple[list[float], np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    model = net(form)
    losses, w1, w2 = reference
    np.testing.assert_allclose(
        train_in_one_batch(model, optimizer, tmp_path), losses, rtol=1e-9, atol=1e-9
    )
    assert losses[-1] < 0.5 * losses[0]
    for key, expected in {"linear1.weight": w1, "linear2.weight": w2}.items():
        np.testing.assert_allclose(model.state_dict()[key].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_all_forms_begin_with_the_same_weights_under_the_same_names_and_have_no_biases() -> None:
    first = net("module").state_dict()
    assert {key: tuple(value.shape) for key, value in first.items()} == {
        "linear1.weight": (NUM_HIDDEN, NUM_INPUTS),
        "linear2.weight": (NUM_OUTPUTS, NUM_HIDDEN),
    }
    for form in FORMS:
        other = net(form).state_dict()
        assert list(other) == list(first)
        assert all(torch.equal(first[key], other[key]) for key in first)


def test_the_backward_passes_by_hand_are_the_derivatives() -> None:
    generator = torch.Generator().manual_seed(2)
    x, w1, w2 = (
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((5, 4), (6, 4), (2, 6))
    )
    assert torch.autograd.gradcheck(HandWrittenNet.apply, (x, w1, w2))
    assert torch.autograd.gradcheck(HandWrittenNet.apply, (x.detach(), w1, w2))
    assert torch.autograd.gradcheck(HandWrittenReLU.apply, (x,))
    assert torch.autograd.gradgradcheck(HandWrittenReLU.apply, (x,))


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_of_a_net_computes_with_its_own_weights(form: Form) -> None:
    model = build_net(3, 2, 4, form)
    copied = copy.deepcopy(model)
    x = torch.randn(5, 3)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.zero_()
    assert copied(x).abs().sum() == 0
    assert model(x).abs().sum() > 0


@pytest.mark.parametrize("form", FORMS)
def test_forms_take_several_inputs_learn_in_bf16_and_can_be_exported(form: Form) -> None:
    torch.manual_seed(1)
    model = build_net(5, 2, 4, form)
    a, b = torch.randn(6, 2), torch.randn(6, 3)
    expected = model(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        outputs: Tensor = model(a, b)
    torch.testing.assert_close(outputs.float(), expected, rtol=0.05, atol=0.05)
    outputs.float().square().sum().backward()
    grads = [weight.grad for weight in model.parameters()]
    assert all(
        grad is not None and grad.dtype == torch.float32 and math.isfinite(grad.norm())
        for grad in grads
    )
    exported = torch.export.export(model.eval(), (a, b)).module()
    torch.testing.assert_close(exported(a, b), expected)


def test_inputs_that_are_no_numbers_are_refused() -> None:
    image = FeatureSchema(
        name="image", kind="image", columns=["file"], shape=[1, 4, 4], dtype="uint8"
    )
    schema = Schema(inputs=[image], targets=[numbers("y", 2)])
    for name in ("two_layer", "dynamic_net"):
        with pytest.raises(
            ShapeError, match=rf"{name} takes numbers; data.inputs has image \(image\); use mlp"
        ):
            build_model(Named(name=name), schema)
    with pytest.raises(ShapeError, match="expected rows of 12 numbers, got 4"):
        net("module")(torch.zeros(2, 4))
