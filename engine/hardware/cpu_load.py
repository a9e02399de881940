"""How busy each core is, and how much of that is not this process.

Two looks at Linux's counters and what lies between.

Whether a training gives way to others is decided in `sharing.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

STAT_FILE = Path("/proc/stat")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Columns of a line `cpu0 …` in which the core computes: user, nice, system, irq, softirq. Time that
# a hypervisor took (steal) cannot be had by giving way, and guests are counted as user already.
BUSY_COLUMNS = (0, 1, 2, 5, 6)


class Load(NamedTuple):
    """What the cores did between two looks.

    Attributes:
        seconds: between them.
        busy: by core, the share of the time that it computed for anybody, 0 to 1.
        own: cores that this process kept busy by itself, 0 to the number of cores.
    """

    seconds: float
    busy: dict[int, float]
    own: float

    @property
    def others(self) -> float:
        """Cores that other processes kept busy."""
        return max(0.0, sum(self.busy.values()) - self.own)


def usable_cores() -> frozenset[int]:
    """The cores that this process may compute on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


class LoadMeter:
    """Measures the load of some cores between one call of `look` and the
    next.
    """

    def __init__(
        self, cores: frozenset[int], read: Callable[[], str] = STAT_FILE.read_text
    ) -> None:
        self._cores = cores
        self._read = read
        self._last = self._count()

    def look(self) -> Load | None:
        """The load since the last look.

        None where the system does not say, as on macOS.
        """
        before, self._last = self._last, self._count()
        if before is None or self._last is None:
            return None
        seconds = max(self._last.time - before.time, 1e-9)
        busy = {
            core: min(1.0, (ticks - before.ticks.get(core, ticks)) / TICKS_PER_SECOND / seconds)
            for core, ticks in self._last.ticks.items()
        }
        return Load(seconds, busy, (self._last.own - before.own) / seconds)

    def _count(self) -> _Counted | None:
        try:
            lines = self._read().splitlines()
        except OSError:
            return None
        ticks: dict[int, int] = {}
        for line in lines:
            name, *columns = line.split()
            if not name.startswith("cpu"):
                break
            if (core := name.removeprefix("cpu")).isdigit() and int(core) in self._cores:
                ticks[int(core)] = sum(int(columns[column]) for column in BUSY_COLUMNS)
        return _Counted(time.perf_counter(), ticks, time.process_time()) if ticks else None


class _Counted(NamedTuple):
    """The counters at one look.

    The clock, busy ticks by core, and CPU seconds of this process.
    """

    time: float
    ticks: dict[int, int]
    own: float
