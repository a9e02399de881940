"""How long OpenMP's threads spin before they sleep, changed while they run.

GNU's libgomp, which torch brings on Linux.

libgomp lets a thread that waits spin for milliseconds, unless the process has more OpenMP threads
than the machine has cores: then it spins for some microseconds only (`GOMP_SPINCOUNT` in its
manual). It asks so at each wait, so a team of threads that sleep switches the long spinning off,
and their end switches it on again. Sums do not depend on it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from pathlib import Path

MAPS_FILE = Path("/proc/self/maps")
# What a user may have said of waiting and of places; then nothing is changed.
WAITING_SETTINGS = (
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "GOMP_CPU_AFFINITY",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
)


def waiting_by_user() -> str:
    """What the environment says of waiting or places, as `NAME=value`.

    Empty where it says nothing.
    """
    return next(
        (f"{name}={os.environ[name]}" for name in WAITING_SETTINGS if os.environ.get(name)), ""
    )


@functools.cache
def libgomp() -> ctypes.CDLL | None:
    """The libgomp that torch computes with.

    None where it has none. Other packages may bring their own.
    """
    import torch

    try:
        lines = MAPS_FILE.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    paths = {line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line}
    package = Path(torch.__file__).parent
    own = {path for path in paths if path.startswith((f"{package}/", f"{package}.libs/"))} or paths
    if len(own) != 1:
        return None
    try:
        library = ctypes.CDLL(own.pop())
        return library if library.GOMP_parallel and library.omp_get_num_threads else None
    except (OSError, AttributeError):
        return None


def can_start_threads(number: int) -> bool:
    """Whether the system lets this process have so many threads more, under its
    limits of threads and of memory.

    libgomp asks nobody: where it does not get a thread, it ends the process.
    """
    done = threading.Event()
    threads = [
        threading.Thread(target=done.wait, name="openmp-trial", daemon=True) for _ in range(number)
    ]
    try:
        for thread in threads:
            thread.start()
    except (RuntimeError, MemoryError):
        return False
    finally:
        done.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    return True


class SleepingTeam:
    """A team of OpenMP threads that does nothing.

    While it is there, no OpenMP thread of this process spins long.

    Raises:
        OSError: the system has no room for its threads.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        size = (os.cpu_count() or 1) + 1  # the thread that makes the team is counted by nobody
        if not can_start_threads(size):
            raise OSError(f"there is no room for {size} threads that sleep")
        begun, self._ended = threading.Event(), threading.Event()

        def run() -> None:
            nothing = ctypes.cast(library.omp_get_num_threads, ctypes.c_void_p)
            library.GOMP_parallel(nothing, None, ctypes.c_uint(size), ctypes.c_uint(0))
            begun.set()
            self._ended.wait()

        # A team lives as long as the thread that made it.
        self._thread = threading.Thread(target=run, name="openmp-sleepers", daemon=True)
        self._thread.start()
        begun.wait()

    def end(self) -> None:
        """Let its threads end."""
        self._ended.set()
        self._thread.join()
