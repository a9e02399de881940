"""With how many threads a training is fastest.

Measured once for machine, model and batch size, then remembered.

Sums come in another order with another number of threads, so the number decides the bits of a run:
    two runs of one
recipe must find the same. Small nets are often fastest with one, which waits for nobody.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from ...disk import DIGEST, is_sealed, lock, make_folder, read_json, seal, unseal, write_json
from ...errors import BusyError, LockError
from .cpu_load import LoadMeter, usable_cores

# More threads must be faster by so much to be worth it: each keeps a core busy.
WORTH_A_THREAD = 1.05
WARM_UP_STEPS, STEPS_A_ROUND = 2, 5
BUDGET_SECONDS = 1.5
MOST_ROUNDS = 20
# Where others keep so many cores busy, a step that lasts longer than a time slice of the system is
# never alone.
DISTURBED, TIME_SLICE_SECONDS = 0.3, 0.003
USER_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class ThreadCount(NamedTuple):
    """How many threads, and why.

    Attributes:
        number: of threads.
        reason: in words for people and records.
    """

    number: int
    reason: str


def threads_by_user() -> ThreadCount | None:
    """What the environment says, or who called `torch.set_num_threads` before.

    None where nobody did.
    """
    number = torch.get_num_threads()
    if name := next((name for name in USER_SETTINGS if os.environ.get(name)), ""):
        return ThreadCount(number, f"as {name}={os.environ[name]} says")
    if number in (len(usable_cores()), os.cpu_count(), psutil.cpu_count(logical=False)):
        return None
    return ThreadCount(number, "as it was set before")


def find_thread_count(step: Callable[[], None], memory: Path, key: str) -> ThreadCount:
    """The remembered number of threads, or the one with which `step` is fastest
    now.

    Args:
        step: takes one training step; nothing of it may be needed afterwards.
        memory: JSON file that remembers.
        key: names machine, model and batch size.
    """
    if known := _remembered(memory, key):
        return known
    found = _measure(step, torch.get_num_threads())
    try:
        make_folder(memory.parent)
        with lock(memory.with_suffix(".lock"), "the number of threads"):
            if known := _remembered(
                memory, key
            ):  # another process was faster, and its number counts
                return known
            write_json(memory, seal({**_read(memory), key: found._asdict()}))
    except (
        OSError,
        BusyError,
        LockError,
    ):  # then the next run measures again; this one's record keeps its number
        return found
    return found


def candidates(most: int) -> list[int]:
    """The numbers of threads that are tried.

    Powers of two, and the most.
    """
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)})


def choose(seconds: dict[int, float]) -> int:
    """The smallest number of threads that is about as fast as the fastest.

    Args:
        seconds: of the fastest step, by number of threads.
    """
    return min(
        number
        for number, taken in seconds.items()
        if taken <= WORTH_A_THREAD * min(seconds.values())
    )


def _measure(step: Callable[[], None], most: int) -> ThreadCount:
    """Take turns with each number of threads.

    The fastest step of each is the one that was disturbed least.
    """
    numbers = candidates(most)
    fastest = dict.fromkeys(numbers, float("inf"))
    if len(numbers) == 1:
        return ThreadCount(most, "there is one core")
    meter = LoadMeter(usable_cores())
    started = time.perf_counter()
    try:
        for rounds in range(MOST_ROUNDS):
            for number in numbers:
                torch.set_num_threads(number)
                for _ in range(WARM_UP_STEPS if rounds == 0 else 1):
                    step()
                fastest[number] = min(fastest[number], *(_time(step) for _ in range(STEPS_A_ROUND)))
                if rounds == 0 and fastest[number] * STEPS_A_ROUND * len(numbers) > BUDGET_SECONDS:
                    return ThreadCount(most, "all cores, as a step is long")
            if time.perf_counter() - started > BUDGET_SECONDS:
                break
    finally:
        torch.set_num_threads(most)
    load = meter.look()
    if load is not None and load.others > DISTURBED and min(fastest.values()) > TIME_SLICE_SECONDS:
        return ThreadCount(most, "all cores, as other work ran while it was measured")
    shown = ", ".join(f"{number}: {1000 * taken:.3g} ms" for number, taken in fastest.items())
    return ThreadCount(choose(fastest), f"fastest of {shown} a step")


def _time(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _remembered(memory: Path, key: str) -> ThreadCount | None:
    try:
        known = ThreadCount(**_read(memory)[key])
    except (KeyError, TypeError):
        return None
    is_sound = type(known.number) is int and 1 <= known.number <= (os.cpu_count() or 1)
    return known if is_sound and isinstance(known.reason, str) else None


def _read(memory: Path) -> dict[str, Any]:
    try:
        values = read_json(memory)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(
            f"{memory} cannot be read, and numbers of threads are found anew: {error}", stacklevel=5
        )
        return {}
    values = values if isinstance(values, dict) else {}
    is_whole = unseal(values) is not None
    if not is_sealed(values):  # as those of before; nothing but numbers of threads stands in them
        is_whole = all(isinstance(one, dict) for one in values.values())
    if not is_whole:
        warnings.warn(
            f"{memory} is not as it was written, and numbers of threads are found anew",
            stacklevel=5,
        )
        return {}
    return {name: value for name, value in values.items() if name != DIGEST}
