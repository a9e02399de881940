from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from torchrelay.engine.losses import cross_entropy
from torchrelay.engine.wide_softmax import FEWEST_CLASSES, is_wide, wide_cross_entropy


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_losses_and_gradients_equal_torchs(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = (4 * torch.randn(6, 50, generator=generator)).to(dtype)
    target = torch.randint(50, (6,), generator=generator)
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0, 1.0])
    found = []
    for loss in (wide_cross_entropy, lambda s, t: F.cross_entropy(s.float(), t, reduction="none")):
        leaf = scores.clone().requires_grad_()
        losses = loss(leaf, target)
        (losses * weights).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        found.append((losses.detach(), leaf.grad.float()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=tolerance, atol=tolerance * 0.1)


def test_gradcheck() -> None:
    scores = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 6, 3])
    assert torch.autograd.gradcheck(lambda one: wide_cross_entropy(one, target), (scores,))


def test_a_hopeless_target_has_a_finite_loss() -> None:
    scores = torch.tensor([[0.0, 3000.0], [-1e30, 0.0]])
    assert wide_cross_entropy(scores, torch.tensor([0, 0])).tolist() == [
        3000.0,
        pytest.approx(1e30),
    ]


def test_many_classes_take_this_way_and_agree_with_few() -> None:
    scores = torch.randn(4, FEWEST_CLASSES, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 1, 2, FEWEST_CLASSES - 1])
    assert is_wide(scores)
    assert not is_wide(scores[:, :-1])
    torch.testing.assert_close(
        cross_entropy(scores, target), F.cross_entropy(scores, target, reduction="none")
    )
