"""How the threads of a training share the cores with whatever else runs on the
machine; no sum depends on it.

OpenMP's threads meet at the end of each operator and spin until the last has come. On a quiet
machine that is the fastest way. Where another process holds one of their cores the others spin for
as long as it does, and a training drops to a tenth. So:

- trainings take turns (`turns.py`): each computes alone, with all its threads, for a slice of time;
- beside any other load the threads keep to the cores that are free, and sleep instead of spinning
    (`openmp.py`). Two threads on one core do what one could do, less the changes between them; two
    threads that lose one core to another process wait for each other.

`tick` looks at the load now and then and follows it. Where the user said how to wait, or the system
is not Linux with libgomp, nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from .cpu_load import Load, LoadMeter, usable_cores
from .openmp import SleepingTeam, libgomp, waiting_by_user
from .turns import Turns, lock_folder

T = TypeVar("T")

# A turn: long beside the change of turns, which costs some milliseconds.
SLICE_SECONDS = 0.2
# Between two looks at the load; the system counts in hundredths of a second.
LOOK_SECONDS = 0.5
# A core counts as taken where others keep this share of one busy: below, spinning on all cores is
# still faster.
TAKEN = 0.4
# So many looks in a row must find the cores free before all are used again.
QUIET_LOOKS = 3
# A core must be less busy by so much to be worth a move, and then only half of the trainings move:
# two that see the same would meet again.
WORTH_A_MOVE = 0.3


class CoreSharing:
    """Shares the cores while it is entered.

    Args:
        num_threads: that the training computes with.
        say: takes a sentence for people when the training begins to give way, or stops.
        meter: of the load; None means this machine's.
    """

    def __init__(
        self,
        num_threads: int,
        say: Callable[[str], None] = lambda _: None,
        meter: LoadMeter | None = None,
    ) -> None:
        self._num_threads = num_threads
        self._say = say
        self._cores = usable_cores()
        self._library = None if waiting_by_user() else libgomp()
        self._turns: Turns | None = None
        self._given_meter = meter
        self._meter: LoadMeter | None = None
        self._sleepers: SleepingTeam | None = None
        self._kept_to: frozenset[int] = self._cores
        self._quiet_looks = 0
        self._next_slice = self._next_look = 0.0
        self._random = random.Random(os.getpid())  # a training's own draws stay as they are

    @property
    def waiting(self) -> str:
        """How its threads wait for each other, in words for people and
        records.
        """
        if self._num_threads == 1:
            return "one thread waits for none"
        if by_user := waiting_by_user():
            return f"as {by_user} says"
        return "follows the load" if self._library is not None else "as OpenMP does by itself"

    def __enter__(self) -> CoreSharing:
        if self._library is not None and self._num_threads > 1 and len(self._cores) > 1:
            with contextlib.suppress(
                OSError
            ):  # no folder for locks: then trainings are load to each other
                self._turns = Turns(lock_folder(), self._cores, self._num_threads)
            self._meter = self._given_meter or LoadMeter(self._cores)
            self._next_look = time.perf_counter() + LOOK_SECONDS
        return self

    def __exit__(self, *_: Any) -> None:
        if self._turns is not None:
            self._turns.close()
        self._use_all_cores()
        self._turns = self._meter = None

    def around(self, items: Iterable[T]) -> Iterator[T]:
        """The same items, with a `tick` before each.

        None is kept while the next one is made.
        """
        for item in items:
            self.tick()
            yield item
            del item

    def tick(self) -> None:
        """Follow the load.

        Call it between steps. It may wait for a turn.
        """
        now = time.perf_counter()
        if now >= self._next_look and self._meter is not None:
            if load := self._meter.look():
                self._follow(load)
            self._next_look = now + LOOK_SECONDS
        if now >= self._next_slice and self._turns is not None:
            self._turns.pass_on()
            after = time.perf_counter()
            self._next_slice = after + SLICE_SECONDS
            if after - now > SLICE_SECONDS / 2 and self._meter is not None:
                # What others did in their turn is no load beside ours.
                self._meter.look()
                self._next_look = after + SLICE_SECONDS

    def _follow(self, load: Load) -> None:
        taken = int(load.others + 1 - TAKEN)
        num_free = max(1, len(self._cores) - taken)
        if num_free >= min(self._num_threads, len(self._cores)):
            self._quiet_looks += 1
            if self._sleepers is not None and self._quiet_looks >= QUIET_LOOKS:
                self._say(f"cores: all {len(self._cores)} are free again")
                self._use_all_cores()
            return
        self._quiet_looks = 0
        if self._sleepers is None:
            assert self._library is not None
            busy = f"cores: others keep {load.others:.1f} of {len(self._cores)} busy"
            try:
                self._sleepers = SleepingTeam(self._library)
            except OSError as error:  # two threads that spin on one core are the slowest of all
                self._meter = None
                self._say(f"{busy}; the training cannot give way: {error}")
                return
            self._say(f"{busy}; the training keeps to {num_free} until they are done")
        self._keep_to(self._choose(load, num_free))

    def _choose(self, load: Load, num_free: int) -> frozenset[int]:
        """The cores that others use least.

        Those that it is on already, unless a move is worth it.
        """
        own = load.own / len(self._kept_to)
        others = {
            core: load.busy.get(core, 0.0) - (own if core in self._kept_to else 0.0)
            for core in self._cores
        }
        if (
            self._kept_to == self._cores
        ):  # who was where cannot be told; interrupts come to the first core
            return frozenset(sorted(self._cores)[-num_free:])
        best = sorted(self._cores, key=lambda core: (others[core], -core))[:num_free]
        now = self._kept_to
        if len(now) == num_free:
            gain = sum(others[core] for core in now) - sum(others[core] for core in best)
            if gain < WORTH_A_MOVE or self._random.random() < 0.5:
                return now
        return frozenset(best)

    def _use_all_cores(self) -> None:
        if self._sleepers is not None:
            self._sleepers.end()
            self._sleepers = None
        self._keep_to(self._cores)

    def _keep_to(self, cores: frozenset[int]) -> None:
        """Let all threads of this process compute on these cores alone."""
        if cores == self._kept_to:
            return
        self._kept_to = cores
        _narrowed.discard(self) if cores == self._cores else _narrowed.add(self)
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(int(thread), cores)


# A forked child, as a worker of a loader is, may use all cores again: nobody would tell it when
# they are free.
_narrowed: weakref.WeakSet[CoreSharing] = weakref.WeakSet()


def _widen() -> None:
    for sharing in list(_narrowed):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, sharing._cores)


os.register_at_fork(after_in_child=_widen)
