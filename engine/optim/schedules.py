"""Learning rates.

All but plateau are pure functions of the step. Each gives the factor of the optimizer's own
learning rate for a step from 0 to num_steps - 1; the loop says how many steps there are. The loop
steps plateau at an epoch's end, with the monitored metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ...errors import RecipeError
from ...recipe import Named, check_arguments, nearest
from .optimizers import needs_closure

Warmup = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]

# Factors at the first and after the last step, as torch's OneCycleLR has them (div_factor 25,
# final_div_factor 1e4).
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4


def constant(step: int, num_steps: int, warmup: Warmup = 0.0) -> float:
    """1 after a linear warm-up over the fraction `warmup` of the steps."""
    num_warm = round(warmup * num_steps)
    return min(1.0, (step + 1) / num_warm) if num_warm else 1.0


def cosine(step: int, num_steps: int, warmup: Warmup = 0.0) -> float:
    """A linear warm-up to 1, then half a cosine towards 0 (Loshchilov and
    Hutter 2017, without restarts).
    """
    num_warm = round(warmup * num_steps)
    if step < num_warm:
        return (step + 1) / num_warm
    return _anneal(1.0, 0.0, (step - num_warm) / max(1, num_steps - num_warm))


def one_cycle(step: int, num_steps: int, warmup: Warmup = 0.3) -> float:
    """From 0.04 up in a straight line to 1, then half a cosine down to about 0
    (Smith and Topin 2018).

    The way down is torch's OneCycleLR, the way up its `anneal_strategy="linear"`.
    """
    peak = max(0.0, warmup * num_steps - 1)
    if step < peak:
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * step / peak
    return _anneal(1.0, ONE_CYCLE_END, (step - peak) / max(1.0, num_steps - 1 - peak))


def multi_step(
    step: int,
    num_steps: int,
    milestones: list[Fraction] | tuple[Fraction, ...] = (0.5, 0.75),
    gamma: Fraction = 0.1,
    warmup: Warmup = 0.0,
) -> float:
    """1 after a linear warm-up, times `gamma` from each milestone on.

    Torch's MultiStepLR in fractions of the steps.
    """
    num_passed = sum(step >= max(1, round(milestone * num_steps)) for milestone in milestones)
    return constant(step, num_steps, warmup) * gamma**num_passed


def plateau(
    optimizer: Optimizer,
    mode: Literal["min", "max"],
    factor: Fraction = 0.1,
    patience: Annotated[int, Field(ge=0, le=2**31 - 1)] = 10,
    threshold: NotNegative = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0,
    min_lr: NotNegative = 0.0,
) -> ReduceLROnPlateau:
    """Torch's ReduceLROnPlateau.

    Times `factor` after more than `patience` epochs without a better metric.
    """
    return ReduceLROnPlateau(
        optimizer, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr
    )


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "step": multi_step,
}
PLATEAU = "plateau"


def check_schedule(schedule: Named) -> None:
    """Refuse a schedule that does not exist or arguments that it does not take.

    Raises:
        RecipeError: names the key, the value and the nearest legal ones.
    """
    name, args = schedule.name, schedule.args
    if name == PLATEAU:
        check_arguments("train.schedule", name, args, plateau, filled=("optimizer", "mode"))
    elif name in SCHEDULES:
        check_arguments("train.schedule", name, args, SCHEDULES[name], filled=("step", "num_steps"))
    else:
        raise RecipeError(
            f"train.schedule.name: {name!r} is no schedule; {nearest(name, [*SCHEDULES, PLATEAU])}"
        )


def build_schedule(
    schedule: Named, optimizer: Optimizer, num_steps: int, mode: str = "min"
) -> LRScheduler:
    """Build a scheduler.

    `after_step` and `after_epoch` move it along.

    Beyond `num_steps` the learning rate of the last step holds.

    Args:
        schedule: name and arguments.
        optimizer: its learning rates are what the factors multiply.
        num_steps: optimizer steps of the whole training.
        mode: min or max, what is better of the monitored metric.
    Raises:
        RecipeError: see `check_schedule`.
    """
    check_schedule(schedule)
    args = dict[str, Any](schedule.args)
    if schedule.name == PLATEAU:
        return plateau(optimizer, "max" if mode == "max" else "min", **args)
    function = SCHEDULES[schedule.name]
    made = LambdaLR(optimizer, lambda step: function(min(step, num_steps - 1), num_steps, **args))
    # Torch warns where the first optimizer step was left out, as fp16's scaler does while it looks
    # for a scale. A step without gradients counts, and changes nothing.
    if not needs_closure(optimizer):
        optimizer.zero_grad()
        optimizer.step()
    return made


def after_step(scheduler: LRScheduler) -> None:
    """Set the learning rate of the next optimizer step.

    Plateau leaves it.
    """
    if not isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step()


def after_epoch(scheduler: LRScheduler, metric: float) -> None:
    """Let plateau see the monitored metric of an epoch.

    The others look at steps alone.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(metric)


def restore_schedule(scheduler: LRScheduler, state: dict[str, Any], num_steps_done: int) -> None:
    """Let a schedule go on, also one that the run did not begin with.

    Restore the optimizer first.

    A function of the step needs nothing but the step. Plateau goes on counting from its state;
    where there is none, it begins with the recipe's learning rate.
    """
    groups = scheduler.optimizer.param_groups
    if isinstance(scheduler, LambdaLR):
        scheduler.last_epoch = num_steps_done
        rates = [
            base * factor(num_steps_done)
            for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
    elif "num_bad_epochs" in state:  # plateau's own
        for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            setattr(scheduler, name, state[name])
        rates = [group["lr"] for group in groups]
    else:
        rates = scheduler.get_last_lr()  # nothing has stepped it yet
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate


def _anneal(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
