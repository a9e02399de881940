"""Named points at which a test makes a process die, to prove that the work goes
on from there. Off unless asked for.

`TORCHRELAY_FAULT=POINT:ACTION[:N[:SECONDS]]` arms one point: at the Nth time that it is reached (by
default the first) the process gets SIGKILL (`kill`), SIGTERM (`term`), or a `FaultError` (`raise`);
a signal comes so many seconds later, where it says how many. It happens once in a process.
`TORCHRELAY_FAULT_ONCE=FILE` makes it happen once in all processes that share the variable: the
first of them makes the file, which says that the point was reached, and a run that is resumed in
the same environment lives.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import threading
from pathlib import Path
from typing import Literal, NamedTuple, get_args

ENVIRONMENT_NAME = "TORCHRELAY_FAULT"
ONCE_NAME = "TORCHRELAY_FAULT_ONCE"

Action = Literal["kill", "term", "raise"]
ACTIONS: tuple[Action, ...] = get_args(Action)

# Every point, by the part of the work that it interrupts; the sweep of `make faults` takes each of
# them.
POINTS: dict[str, tuple[str, ...]] = {
    "ingest": ("begun", "rows_read", "shard_written", "index_written", "decoded"),
    "pack": ("begun", "arrays_written", "committed", "split_written", "split_committed"),
    "run": ("begun", "recorded", "recipe_written", "opened", "recipe_changed", "reopened", "ended"),
    "train": (
        "begun",
        "restored",
        "batch_ready",
        "stepped",
        "reported",
        "epoch_done",
        "validated",
        "loop_done",
        "last_written",
        "best_written",
        "optimizer_written",
        "done",
    ),
    "checkpoint": (
        "begun",
        "state_written",
        "manifest_written",
        "committed",
        "best_moved",
        "last_moved",
        "pruned",
    ),
    "evaluate": (
        "begun",
        "scored",
        "predictions_written",
        "tables_written",
        "figures_drawn",
        "done",
    ),
    "journal": ("opened", "buffered", "flushed"),
    "ship": ("begun", "run_created", "batch_sent", "artifact_sent", "cursor_moved", "status_sent"),
    "register": ("begun", "exported", "model_logged", "version_created", "alias_set"),
}


class FaultError(Exception):
    """What an armed point raises.

    No error of the user's.
    """


class _Armed(NamedTuple):
    point: str
    action: str
    number: int
    seconds: float


def all_points() -> list[str]:
    """The names of all points.

    `checkpoint.state_written`.
    """
    return [f"{part}.{point}" for part, points in POINTS.items() for point in points]


def reach(point: str) -> None:
    """Say that the work has come to a point.

    Nothing happens there unless it is armed.

    Args:
        point: of `all_points`.
    Raises:
        FaultError: the point is armed with `raise`.
    """
    if _armed is None or _armed.point != point:
        return
    with _lock:
        _reached[point] = number = _reached.get(point, 0) + 1
    if number != _armed.number or not _claim():
        return
    if _armed.action == "raise":
        raise FaultError(f"fault at {point}, time {number}")
    send = functools.partial(
        os.kill, os.getpid(), signal.SIGKILL if _armed.action == "kill" else signal.SIGTERM
    )
    if _armed.seconds == 0:
        send()
        return
    timer = threading.Timer(_armed.seconds, send)
    timer.daemon = True  # a process that ends before is not kept for it
    timer.start()


def arm(fault: str, once: str = "") -> None:
    """Arm a point in this process, as the environment variables do at its
    start.

    Empty disarms.

    Args:
        fault: POINT:ACTION[:N[:SECONDS]].
        once: file that the fault makes when it happens; where it exists, nothing happens.
    Raises:
        ValueError: the fault names no point or no action.
    """
    global _armed, _once
    _reached.clear()
    _armed, _once = _parse(fault) if fault else None, Path(once) if once else None


def _claim() -> bool:
    """Whether the fault may happen here.

    No other process had it.
    """
    if _once is None:
        return True
    try:
        _once.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _parse(fault: str) -> _Armed:
    if not (found := _FORM.fullmatch(fault)):
        raise ValueError(
            f"{ENVIRONMENT_NAME}: got {fault!r}, expected POINT:ACTION[:N[:SECONDS]], ACTION of "
            f"{', '.join(ACTIONS)}, "
            f"N from 1 on, SECONDS with a signal alone"
        )
    point, action, number, seconds = found.groups()
    if point not in all_points():
        raise ValueError(
            f"{ENVIRONMENT_NAME}: {point!r} is no point; expected one of {', '.join(all_points())}"
        )
    return _Armed(point, action, int(number or 1), float(seconds or 0))


_FORM = re.compile(r"([a-z_.]+):(kill|term|raise(?!:.*:))(?::([1-9]\d*)(?::(\d+(?:\.\d+)?))?)?")
_lock = threading.Lock()
_reached: dict[str, int] = {}
_armed: _Armed | None = None
_once: Path | None = None
arm(os.environ.get(ENVIRONMENT_NAME, ""), os.environ.get(ONCE_NAME, ""))
