from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from torchrelay.models.nets.dynamic_net import DynamicNet
from torchrelay.weights import load_into, load_weights, save_weights, sha256_of, state_of

NUM_INPUTS, NUM_OUTPUTS, NUM_HIDDEN = 4, 2, 6


def net(seed: int = 0) -> DynamicNet:
    torch.manual_seed(seed)
    return DynamicNet(NUM_INPUTS, NUM_OUTPUTS, NUM_HIDDEN)


def rows() -> Tensor:
    return torch.randn(5, NUM_INPUTS, generator=torch.Generator().manual_seed(1))


def at_each_depth(model: DynamicNet, x: Tensor) -> list[Tensor]:
    """The outputs with the middle layer used 0, 1, 2 and 3 times, written out."""
    w = dict(model.named_parameters())
    hidden = torch.clamp(x @ w["input_linear.weight"].T + w["input_linear.bias"], min=0)
    outputs = []
    for _ in range(4):
        outputs.append(hidden @ w["output_linear.weight"].T + w["output_linear.bias"])
        hidden = torch.clamp(hidden @ w["middle_linear.weight"].T + w["middle_linear.bias"], min=0)
    return outputs


def draw_depths(model: DynamicNet, num_passes: int) -> list[int]:
    x = rows()
    expected = at_each_depth(model, x)
    depths = []
    for _ in range(num_passes):
        outputs = model.train()(x)
        depths += [
            depth for depth, one in enumerate(expected) if torch.allclose(outputs, one, atol=1e-6)
        ]
    assert len(depths) == num_passes  # each pass is one of the four
    return depths


def test_a_training_pass_uses_the_shared_layer_0_to_3_times_alike_often() -> None:
    model = net()
    # By hand: 4 inputs, 6 hidden units in one middle layer whatever the depth, 2 outputs; each with
    # biases.
    assert (
        sum(weight.numel() for weight in model.parameters())
        == (4 + 1) * 6 + (6 + 1) * 6 + (6 + 1) * 2
    )
    depths = draw_depths(model, 400)
    assert all(70 < depths.count(depth) < 130 for depth in range(4))
    assert draw_depths(net(), 20) == depths[:20]
    assert draw_depths(net(seed=1), 20) != depths[:20]


def test_gradients_of_a_shared_layer_add_up_over_its_uses() -> None:
    model = net().double().train()
    x = rows().double()
    while not torch.allclose(outputs := model(x), at_each_depth(model, x)[3]):
        pass
    outputs.sum().backward()
    expected = torch.autograd.grad(at_each_depth(model, x)[3].sum(), [model.middle_linear.weight])
    assert model.middle_linear.weight.grad is not None
    torch.testing.assert_close(model.middle_linear.weight.grad, expected[0])


def test_evaluation_is_the_mean_over_the_depths_and_draws_nothing() -> None:
    model, x = net().eval(), rows()
    before, random = model.get_extra_state(), torch.get_rng_state()
    first = model(x)
    torch.testing.assert_close(first, torch.stack(at_each_depth(model, x)).mean(dim=0))
    assert torch.equal(model(x), first)
    assert torch.equal(model.get_extra_state(), before)
    model.train()(x)
    assert not torch.equal(model.get_extra_state(), before)
    assert torch.equal(torch.get_rng_state(), random)  # a generator of its own


def test_weights_keep_what_will_be_drawn(tmp_path: Path) -> None:
    model = net()
    draw_depths(model, 7)
    save_weights(state_of(model), tmp_path / "net.pt")
    assert sha256_of(load_weights(tmp_path / "net.pt")) == sha256_of(state_of(model))
    other = net(seed=5)
    load_into(other, load_weights(tmp_path / "net.pt"), "net.pt")
    copied = copy.deepcopy(model)
    assert draw_depths(model, 30) == draw_depths(other, 30) == draw_depths(copied, 30)
