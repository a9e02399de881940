"""Kill trainings at random moments, let them go on, and hold each against one that nothing
disturbed (docs/faults.md).

    python tests/faults/random_kills.py --kills 500 --flows 20 --seed 1

A failure names the seed and the run that replay it: `--seed 1 --run 17`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cases import CASES, write_recipe
from harness import PATIENCE_SECONDS, KilledRun, difference, whole_runs

from torchrelay.runs import load_record
from torchrelay.settings import Home, set_environment

MOST_KILLS = 4  # of one run
COMMAND_LINE = Path(sys.executable).parent / "torchrelay"
SERVER_SECONDS = 120


class NotIdenticalError(Exception):
    """A run that was killed did not come to what one came to that was not."""


@dataclass
class Case:
    """One recipe, and the run of it that nothing disturbs."""

    name: str
    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def recipe(self) -> Path:
        return write_recipe(self.folder / self.name, self.name)

    @cached_property
    def uninterrupted(self) -> tuple[KilledRun, float]:
        """That run, and the seconds that it took; the second time, as the first warms caches up."""
        self._train("warm")
        return self._train("uninterrupted")

    def _train(self, name: str) -> tuple[KilledRun, float]:
        killed_run = KilledRun(self.folder / f"{self.name}-{name}", self.recipe)
        started = time.monotonic()
        if killed_run.go_on(whole=False).code != 0:
            raise NotIdenticalError(f"{self.name} did not end undisturbed:\n{killed_run.log}")
        return killed_run, time.monotonic() - started


def kill_one(case: Case, root: Path, random_: random.Random) -> list[float]:
    """Kill a run some times, let it end, and compare; the seconds after which it was killed.

    Raises:
        NotIdenticalError: says where it differs, or how it ended in a wrong way.
    """
    with case.lock:
        uninterrupted, seconds = case.uninterrupted
    killed_run = KilledRun(root, case.recipe)
    kills: list[float] = []
    while len(kills) < MOST_KILLS:
        lives = random_.uniform(0, seconds)
        code = killed_run.go_on(seconds=lives, whole=False).code
        if code == 0:
            break
        if code != -signal.SIGKILL:
            raise NotIdenticalError(
                f"after kills at {kills} s it ended with code {code}:\n{killed_run.log}"
            )
        kills.append(round(lives, 3))
    if len(kills) == MOST_KILLS and killed_run.go_on(whole=False).code != 0:
        raise NotIdenticalError(f"after kills at {kills} s it did not end well:\n{killed_run.log}")
    if where := difference(uninterrupted, killed_run):
        raise NotIdenticalError(f"after kills at {kills} s: {where}")
    return kills


def kill_flow(case: Case, root: Path, random_: random.Random) -> list[float]:
    """The same with the real command line: train, a SIGKILL, resume."""
    uninterrupted = root / "uninterrupted"
    started = time.monotonic()
    _command(uninterrupted, case.recipe, None)
    seconds = time.monotonic() - started
    lives = random_.uniform(0, seconds)
    was_killed = _command(root / "killed", case.recipe, lives)
    _command(root / "killed", case.recipe, None)
    if where := difference(
        KilledRun(uninterrupted, case.recipe), KilledRun(root / "killed", case.recipe)
    ):
        raise NotIdenticalError(f"after a kill at {lives:.3f} s: {where}")
    return [round(lives, 3)] * was_killed


def _command(root: Path, recipe: Path, lives: float | None) -> bool:
    """Train, resume what is not finished, or send what a finished run could not any more;
    whether it was killed.
    """
    runs = whole_runs(Home(root))
    root.mkdir(parents=True, exist_ok=True)
    if not runs:
        command = [COMMAND_LINE, "train", recipe]
    elif load_record(runs[0]).status != "FINISHED":
        command = [COMMAND_LINE, "resume", runs[0].name]
    else:
        command = [COMMAND_LINE, "sync"]
    with (root / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "TORCHRELAY_HOME": str(root)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(PATIENCE_SECONDS if lives is None else lives)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code != 0 and (lives is None or code != -signal.SIGKILL):
        said = (root / "log.txt").read_text("utf-8", "replace")[-3000:]
        raise NotIdenticalError(f"{' '.join(map(str, command))} ended with code {code}:\n{said}")
    return code != 0


def kill_until(kills: int, folder: Path, seed: int, only: int | None, *, flows: bool) -> bool:
    """Kill until so many kills came in time; whether all runs were identical."""
    cases = [Case(name, folder / "cases") for name in CASES]
    label = "flow" if flows else "run"
    started, done, runs, good = time.monotonic(), 0, 0, True

    def work(number: int) -> tuple[int, list[float], str]:
        root = folder / f"{label}-{number}"
        try:
            kill = kill_flow if flows else kill_one
            count = kill(
                cases[number % len(cases)], root, random.Random(f"{seed}-{label}-{number}")
            )
        except NotIdenticalError as error:
            return number, [], str(error)
        shutil.rmtree(root)
        return number, count, ""

    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        number = 0 if only is None else only
        while done < kills and good:
            batch = range(number, number + min(8, kills - done)) if only is None else (only,)
            for which, count, error in pool.map(work, batch):
                runs, done = runs + 1, done + len(count)
                if error:
                    good = False
                    name = cases[which % len(cases)].name
                    print(
                        f"FAILED {label} {which} ({name}): {error}\nagain: --seed {seed} --{label} "
                        f"{which}"
                    )
            number += len(batch)
            spent = time.monotonic() - started
            print(
                f"{label}s: {done} kills of {runs} runs in {spent:.0f} s, "
                f"{'all' if good else 'not all'} identical"
            )
            if only is not None:
                break
    return good


@contextlib.contextmanager
def prefect_server() -> Iterator[None]:
    """A Prefect server for all flows, so that each need not start its own."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=SERVER_SECONDS):
        os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
        yield


def main() -> None:
    """Read how many, kill, and end with 1 where a run differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=500, help="of the training task, from a fork server"
    )
    parser.add_argument("--flows", type=int, default=20, help="of the whole command line")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--run", type=int, help="replay this run alone")
    parser.add_argument("--flow", type=int, help="replay this flow alone")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    folder = Path(tempfile.mkdtemp(prefix="torchrelay-faults-"))
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCHRELAY_HOME": str(folder / "home")}
    set_environment()
    good = True
    if chosen.flow is None:
        good = kill_until(chosen.kills, folder, chosen.seed, chosen.run, flows=False)
    if chosen.run is None and good:
        with prefect_server():
            good = kill_until(chosen.flows, folder, chosen.seed, chosen.flow, flows=True)
    if good:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
