"""Shows what `docs/questions.md` answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchrelay.models.nets import DynamicNet, build_net
from torchrelay.weights import load_into

NUM_ROWS, NUM_INPUTS, NUM_HIDDEN, NUM_OUTPUTS = 64, 1000, 100, 10


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(NUM_ROWS, NUM_INPUTS, generator=generator),
        torch.randn(NUM_ROWS, NUM_OUTPUTS, generator=generator),
    )


def descend(zeroed: str, num_steps: int = 5) -> Tensor:
    """The weights after some steps of gradient descent, with the gradients zeroed somewhere or
    nowhere.
    """
    x, y = data()
    torch.manual_seed(1)
    model = build_net(NUM_INPUTS, NUM_OUTPUTS, NUM_HIDDEN, "module")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(num_steps):
        loss = (model(x) - y).square().sum()
        if zeroed == "before the backward pass":
            optimizer.zero_grad()
        loss.backward()
        if zeroed == "between the backward pass and the step":
            optimizer.zero_grad(set_to_none=False)
        optimizer.step()
        if zeroed == "after the step":
            optimizer.zero_grad()
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_gradients_may_be_zeroed_before_the_backward_pass_or_after_the_step_but_not_between() -> (
    None
):
    before, after = descend("before the backward pass"), descend("after the step")
    assert torch.equal(before, after)
    assert not torch.allclose(
        descend("never"), before
    )  # each step would follow the sum of all gradients so far
    start = descend("never", num_steps=0)
    assert torch.equal(descend("between the backward pass and the step"), start)
    assert not torch.equal(before, start)


def test_a_backward_pass_adds_to_the_gradients_that_are_there() -> None:
    weight = nn.Parameter(torch.tensor(2.0))
    for times in (1, 2, 3):
        (3 * weight).backward()
        assert weight.grad is not None
        assert weight.grad.item() == 3 * times


def losses_at_the_start() -> dict[str, float]:
    """The sum of squares before any step, with weights from the normal distribution and as
    nn.Linear draws them.
    """
    x, y = data()
    torch.manual_seed(1)
    w1, w2 = torch.randn(NUM_INPUTS, NUM_HIDDEN), torch.randn(NUM_HIDDEN, NUM_OUTPUTS)
    model = build_net(NUM_INPUTS, NUM_OUTPUTS, NUM_HIDDEN, "module")
    with torch.no_grad():
        by_hand = (x @ w1).clamp(min=0) @ w2
        found = {"normal": (by_hand - y).square().sum(), "linear": (model(x) - y).square().sum()}
        model.linear1.weight.copy_(w1.T)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        model.linear2.weight.copy_(w2.T)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        found["linear with normal weights"] = (model(x) - y).square().sum()
    return {name: value.item() for name, value in found.items()}


def test_the_loss_of_the_nn_form_is_smaller_because_its_weights_begin_smaller() -> None:
    found = losses_at_the_start()
    # By hand: an output is the sum of 100 products of a normal weight with a hidden unit, half of
    # whose variance of 1,000 is left by the ReLU: variance 50,000, and 640 outputs. Drawn from ±1 /
    # sqrt(inputs), weights have the variance 1 / (3 inputs): a hidden unit 1/3, an output 100 * 1/6
    # * 1/300 = 1/18, beside the target's own 1.
    assert found["normal"] == pytest.approx(640 * 50_000, rel=0.15)
    assert found["linear"] == pytest.approx(640 * (1 + 1 / 18), rel=0.15)
    assert found["normal"] > 10_000 * found["linear"]
    # The same weights give the same loss: it is not the layers that differ.
    assert found["linear with normal weights"] == pytest.approx(found["normal"], rel=1e-4)


def test_a_static_graph_is_an_exported_program_that_takes_any_number_of_rows() -> None:
    x, _ = data()
    model = build_net(NUM_INPUTS, NUM_OUTPUTS, NUM_HIDDEN, "module").eval()
    rows = torch.export.Dim("rows")
    program = torch.export.export(model, (x,), dynamic_shapes=((({0: rows},)),))
    operators = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert operators[-3:] == [
        torch.ops.aten.linear.default,
        torch.ops.aten.relu.default,
        torch.ops.aten.linear.default,
    ]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x[:5]), model(x[:5]))


def test_control_flow_in_python_is_gone_from_a_static_graph() -> None:
    torch.manual_seed(0)
    model, x = DynamicNet(4, 2, 6), torch.randn(3, 4)
    program = torch.export.export(model.eval(), (x,))
    operators = [node.target for node in program.graph.nodes if node.op == "call_function"]
    # The loop over the depths is written out: the first layer, the middle one three times, the
    # last.
    assert operators.count(torch.ops.aten.linear.default) == 5
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))


def test_data_parallel_keeps_the_net_under_its_name_module() -> None:
    model = nn.Linear(3, 2)
    parallel = nn.DataParallel(model)
    assert parallel.module is model
    assert list(parallel.state_dict()) == ["module.weight", "module.bias"]
    assert list(parallel.module.state_dict()) == list(model.state_dict()) == ["weight", "bias"]
    with pytest.raises(RuntimeError, match=r"module\.weight"):
        nn.Linear(3, 2).load_state_dict(parallel.state_dict())
    for state in (
        parallel.module.state_dict(),
        parallel.state_dict(),
    ):  # ours looks through the wrapper's name
        other = nn.Linear(3, 2)
        load_into(other, state, "weights of the net")
        np.testing.assert_array_equal(other.weight.detach().numpy(), model.weight.detach().numpy())
