from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR

from torchrelay.engine.schedules import build_schedule, check_schedule
from torchrelay.errors import RecipeError
from torchrelay.recipe import Named

NUM_STEPS, LR = 40, 0.3


def make_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def run(scheduler: LRScheduler, num_steps: int) -> list[float]:
    """The learning rate of each step."""
    rates = []
    for _ in range(num_steps):
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def ours(name: str, num_steps: int = NUM_STEPS, total: int = NUM_STEPS, **args: Any) -> list[float]:
    return run(build_schedule(Named(name=name, args=args), make_optimizer(), total), num_steps)


def test_cosine_is_that_of_torch() -> None:
    assert ours("cosine") == pytest.approx(run(CosineAnnealingLR(make_optimizer(), T_max=NUM_STEPS), NUM_STEPS))


def test_one_cycle_climbs_in_torchs_line_and_falls_on_torchs_cosine() -> None:
    rates = ours("one_cycle")
    linear = run(OneCycleLR(make_optimizer(), LR, NUM_STEPS, anneal_strategy="linear", cycle_momentum=False), NUM_STEPS)
    cosine = run(OneCycleLR(make_optimizer(), LR, NUM_STEPS, anneal_strategy="cos", cycle_momentum=False), NUM_STEPS)
    peak = 11  # 0.3 of 40 steps, counted from 0
    assert rates[: peak + 1] == pytest.approx(linear[: peak + 1])
    assert rates[peak:] == pytest.approx(cosine[peak:])
    assert rates[0] == pytest.approx(0.04 * LR)
    assert max(rates) == rates[peak] == LR
    assert 0 < rates[-1] < 1e-5


def test_constant_is_constant_and_its_warm_up_is_torchs_line() -> None:
    assert ours("constant") == [LR] * NUM_STEPS
    torchs = LinearLR(make_optimizer(), start_factor=1 / 10, total_iters=9)
    assert ours("constant", warmup=0.25) == pytest.approx(run(torchs, NUM_STEPS))


def test_cosine_warms_up_first() -> None:
    rates = ours("cosine", warmup=0.25)
    assert rates[:11] == pytest.approx([LR * (step + 1) / 10 for step in range(10)] + [LR])
    assert rates[10:] == pytest.approx(run(CosineAnnealingLR(make_optimizer(), T_max=30), 30))


@pytest.mark.parametrize("name", ["constant", "cosine", "one_cycle"])
def test_the_last_learning_rate_holds_beyond_the_end(name: str) -> None:
    rates = ours(name, num_steps=NUM_STEPS + 5)
    assert rates[:NUM_STEPS] == ours(name)
    assert rates[NUM_STEPS:] == [rates[NUM_STEPS - 1]] * 5


@pytest.mark.parametrize("name", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
def test_short_trainings_have_legal_factors(name: str, warmup: float, num_steps: int) -> None:
    rates = ours(name, num_steps=num_steps + 1, total=num_steps, warmup=warmup)
    assert all(0 <= rate <= LR for rate in rates)
    assert max(rates) > 0.9 * LR


def test_a_restored_scheduler_goes_on_where_it_stopped() -> None:
    scheduler = build_schedule(Named(name="one_cycle"), make_optimizer(), NUM_STEPS)
    run(scheduler, 15)
    state, optimizer_state = scheduler.state_dict(), scheduler.optimizer.state_dict()
    again = build_schedule(Named(name="one_cycle"), make_optimizer(), NUM_STEPS)
    again.optimizer.load_state_dict(optimizer_state)
    again.load_state_dict(state)
    assert run(again, 25) == ours("one_cycle")[15:]


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("onecycle", {}, r"train\.schedule\.name: 'onecycle' is no schedule; did you mean one_cycle"),
        ("cosine", {"warm": 0.1}, r"train\.schedule\.args\.warm \(value 0\.1\).*did you mean warmup"),
        ("cosine", {"warmup": 1}, r"train\.schedule\.args\.warmup: got 1; .*less than 1"),
        ("cosine", {"warmup": -0.1}, r"train\.schedule\.args\.warmup: got -0\.1; .*greater than or equal to 0"),
        ("cosine", {"warmup": "long"}, r"train\.schedule\.args\.warmup: got 'long'; .*valid number"),
        ("cosine", {"num_steps": 10}, r"train\.schedule\.args\.num_steps.*leave it out"),
    ],
)
def test_a_wrong_schedule_is_refused(name: str, args: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_schedule(Named(name=name, args=args))
