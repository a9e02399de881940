"""Learning rates as pure functions of the step; how many steps there are is the loop's to say.

Each function gives the factor on the optimizer's own learning rate for a step from 0 to num_steps - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..arguments import check_arguments
from ..errors import RecipeError
from ..recipe import Named, nearest

Warmup = Annotated[float, Field(ge=0, lt=1)]

# Factors at the first and after the last step, as torch's OneCycleLR has them (div_factor 25, final_div_factor 1e4).
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4


def constant(step: int, num_steps: int, warmup: Warmup = 0.0) -> float:
    """1 after a linear warm-up over the fraction `warmup` of the steps."""
    num_warm = round(warmup * num_steps)
    return min(1.0, (step + 1) / num_warm) if num_warm else 1.0


def cosine(step: int, num_steps: int, warmup: Warmup = 0.0) -> float:
    """A linear warm-up to 1, then half a cosine towards 0 (Loshchilov and Hutter 2017, without restarts)."""
    num_warm = round(warmup * num_steps)
    if step < num_warm:
        return (step + 1) / num_warm
    return _anneal(1.0, 0.0, (step - num_warm) / max(1, num_steps - num_warm))


def one_cycle(step: int, num_steps: int, warmup: Warmup = 0.3) -> float:
    """From 0.04 up in a straight line to 1, then half a cosine down to about 0 (Smith and Topin 2018).

    The way down is torch's OneCycleLR, the way up its `anneal_strategy="linear"`.
    """
    peak = max(0.0, warmup * num_steps - 1)
    if step < peak:
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * step / peak
    return _anneal(1.0, ONE_CYCLE_END, (step - peak) / max(1.0, num_steps - 1 - peak))


SCHEDULES: dict[str, Callable[..., float]] = {"constant": constant, "cosine": cosine, "one_cycle": one_cycle}


def check_schedule(schedule: Named) -> None:
    """Refuse a schedule that does not exist or arguments that it does not take.

    Raises:
        RecipeError: names the key, the value and the nearest legal ones.
    """
    if schedule.name not in SCHEDULES:
        raise RecipeError(f"train.schedule.name: {schedule.name!r} is no schedule; {nearest(schedule.name, SCHEDULES)}")
    function = SCHEDULES[schedule.name]
    check_arguments("train.schedule", schedule.name, schedule.args, function, filled=("step", "num_steps"))


def build_schedule(schedule: Named, optimizer: Optimizer, num_steps: int) -> LambdaLR:
    """Build a scheduler that is stepped once after each optimizer step.

    Beyond `num_steps` the learning rate of the last step holds.

    Args:
        schedule: name and arguments.
        optimizer: its learning rates are what the factors multiply.
        num_steps: optimizer steps of the whole training.
    Raises:
        RecipeError: see `check_schedule`.
    """
    check_schedule(schedule)
    function, args = SCHEDULES[schedule.name], dict[str, Any](schedule.args)
    return LambdaLR(optimizer, lambda step: function(min(step, num_steps - 1), num_steps, **args))


def _anneal(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
