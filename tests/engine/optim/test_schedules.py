from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)

from torchrelay.engine.optim.optimizers import OPTIMIZERS, build_optimizer
from torchrelay.engine.optim.schedules import (
    after_epoch,
    after_step,
    build_schedule,
    check_schedule,
    restore_schedule,
)
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
    assert ours("cosine") == pytest.approx(
        run(CosineAnnealingLR(make_optimizer(), T_max=NUM_STEPS), NUM_STEPS)
    )


def test_one_cycle_climbs_in_torchs_line_and_falls_on_torchs_cosine() -> None:
    rates = ours("one_cycle")
    linear = run(
        OneCycleLR(make_optimizer(), LR, NUM_STEPS, anneal_strategy="linear", cycle_momentum=False),
        NUM_STEPS,
    )
    cosine = run(
        OneCycleLR(make_optimizer(), LR, NUM_STEPS, anneal_strategy="cos", cycle_momentum=False),
        NUM_STEPS,
    )
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


def test_step_falls_at_fractions_of_the_run_as_torchs_falls_at_steps() -> None:
    torchs = MultiStepLR(make_optimizer(), milestones=[10, 30], gamma=0.2)
    assert ours("step", milestones=[0.25, 0.75], gamma=0.2) == pytest.approx(run(torchs, NUM_STEPS))
    warmed = ours("step", warmup=0.25)
    assert warmed[:11] == pytest.approx([LR * (step + 1) / 10 for step in range(10)] + [LR])
    assert warmed[19:21] == pytest.approx([LR, LR / 10])
    assert warmed[-1] == pytest.approx(LR / 100)


def rates_of_epochs(scheduler: LRScheduler, metrics: list[float]) -> list[float]:
    rates = []
    for metric in metrics:
        scheduler.optimizer.step()
        after_step(scheduler)
        after_epoch(scheduler, metric)
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
    return rates


def test_plateau_falls_where_the_metric_does_not_get_better_and_goes_on_from_its_state() -> None:
    schedule = Named(name="plateau", args={"patience": 1, "factor": 0.5})
    metrics = [0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.7, 0.7]
    # Worse for more than one epoch after the fourth, and again after the seventh.
    expected = [LR, LR, LR, LR / 2, LR / 2, LR / 2, LR / 4, LR / 4]
    assert (
        rates_of_epochs(build_schedule(schedule, make_optimizer(), NUM_STEPS, "max"), metrics)
        == expected
    )
    first = build_schedule(schedule, make_optimizer(), NUM_STEPS, "max")
    rates_of_epochs(first, metrics[:3])
    again = build_schedule(schedule, make_optimizer(), NUM_STEPS, "max")
    again.optimizer.load_state_dict(first.optimizer.state_dict())
    restore_schedule(again, first.state_dict(), 3)
    assert rates_of_epochs(again, metrics[3:]) == expected[3:]


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        ("cosine", "constant", LR),
        ("plateau", "step", LR / 10),
        ("step", "plateau", LR),
        ("step", "cosine", LR / 2),
    ],
)
def test_a_run_goes_on_with_a_schedule_that_it_did_not_begin_with(
    before: str, after: str, rate: float
) -> None:
    old = build_schedule(Named(name=before), make_optimizer(), NUM_STEPS)
    rates_of_epochs(old, [1.0] * (NUM_STEPS // 2))
    new = build_schedule(Named(name=after), make_optimizer(), NUM_STEPS)
    new.optimizer.load_state_dict(old.optimizer.state_dict())
    restore_schedule(new, old.state_dict(), NUM_STEPS // 2)
    assert new.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize("name", ["constant", "cosine", "one_cycle", "step"])
def test_the_last_learning_rate_holds_beyond_the_end(name: str) -> None:
    rates = ours(name, num_steps=NUM_STEPS + 5)
    assert rates[:NUM_STEPS] == ours(name)
    assert rates[NUM_STEPS:] == [rates[NUM_STEPS - 1]] * 5


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_the_first_step_of_a_short_training_has_not_fallen_yet(num_steps: int) -> None:
    assert ours("step", num_steps=num_steps, total=num_steps)[0] == LR


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
    restore_schedule(again, state, 15)
    assert run(again, 25) == ours("one_cycle")[15:]


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"lbfgs", "sparseadam"}))
def test_a_schedule_changes_no_optimizer_and_may_move_before_its_first_step(name: str) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer(Named(name=name, args={"lr": 0.1}), [weight])
    before = copy.deepcopy(optimizer.state_dict()["state"])
    scheduler = build_schedule(Named(name="constant"), optimizer, NUM_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after_step(scheduler)
        after_step(scheduler)
    assert torch.equal(weight, torch.ones(2, 2))
    assert str(optimizer.state_dict()["state"]) == str(before)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        (
            "onecycle",
            {},
            r"train\.schedule\.name: 'onecycle' is no schedule; did you mean one_cycle",
        ),
        (
            "cosine",
            {"warm": 0.1},
            r"train\.schedule\.args\.warm \(value 0\.1\).*did you mean warmup",
        ),
        ("cosine", {"warmup": 1}, r"train\.schedule\.args\.warmup: got 1; .*less than 1"),
        (
            "cosine",
            {"warmup": -0.1},
            r"train\.schedule\.args\.warmup: got -0\.1; .*greater than or equal to 0",
        ),
        (
            "cosine",
            {"warmup": "long"},
            r"train\.schedule\.args\.warmup: got 'long'; .*valid number",
        ),
        (
            "step",
            {"milestones": [0.5, 30]},
            r"train\.schedule\.args\.milestones\.1: got .*less than 1",
        ),
        ("plateau", {"factor": 1}, r"train\.schedule\.args\.factor: got 1; .*less than 1"),
        ("plateau", {"warmup": 0.1}, r"train\.schedule\.args\.warmup \(value 0\.1\)"),
        ("plateau", {"mode": "max"}, r"train\.schedule\.args\.mode.*leave it out"),
        ("cosine", {"num_steps": 10}, r"train\.schedule\.args\.num_steps.*leave it out"),
    ],
)
def test_a_wrong_schedule_is_refused(name: str, args: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_schedule(Named(name=name, args=args))
