"""Prove that runs of a recipe survive.

One short run without a stop, one with kills, and the same bits in the end.

Each run lives in a home of its own beside the real one and is trained by child processes that get a
real SIGKILL. They come from a fork server, which has the libraries imported, so that a kill costs
little. No server is needed.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...console import say
from ...datasets import SCHEMA_FILE
from ...datasets.ingest import Prepared
from ...datasets.splits import UNUSED, write_manifest
from ...disk import lock, open_to_write
from ...engine.checkpoints import parse_name, read_pointer
from ...engine.hardware import pick_device, pick_precision
from ...errors import RecipeError, TrainingError
from ...faults import arm
from ...recipe import Recipe
from ...runs import BEST, CHECKPOINTS, LAST, Run, RunRecord, list_records
from ...schema import SPLITS, Schema
from ...settings import home, make_home
from ...tasks import (
    Ingested,
    evaluate_model,
    finish_run,
    hold_run,
    ingest_table,
    keep_status,
    name_run,
    reopen_run,
    start_run,
    train_model,
)
from ...tasks.assembly import check_recipe, find_source, has_images
from ...tracking import make_database
from ...weights import load_weights, sha256_of
from ..examination import VERIFY_PREFIX

# Of the folders in the home that hold the runs.
NUM_EPOCHS = 2
NUM_CHECKPOINTS = 10
# A kill comes up to two steps after the one that was drawn, and what goes on from there needs
# another to die in.
STEPS_PER_KILL = 3
# What a clock measures is another number each time.
CLOCKED = frozenset({"rows_per_second"})
LOG_FILE = "log.txt"
DATABASE_FILE = "mlflow.db"
# How long a process that is not to be killed may take before it is taken for hung: as long as the
# run without a stop took, so many times, and so many seconds more; that one itself has a day.
PATIENCE = 10
PATIENCE_SECONDS = 600.0
UNINTERRUPTED_TIMEOUT = 86_400.0


class Outcome(NamedTuple):
    """What a run came to, as far as it must not depend on how often it was
    stopped.

    Attributes:
        last, best: digests of its weights, over the tensors' names, shapes, dtypes and bytes.
        points: values of its metrics by name and step, without those that a clock measures.
        doubled: names and steps that its journal has more than once.
    """

    last: str
    best: str
    points: dict[tuple[str, int], float]
    doubled: list[tuple[str, int]]


def read_outcome(run: Run) -> Outcome:
    """Read what a run came to from its folder."""
    points: dict[tuple[str, int], float] = {}
    doubled = []
    for point in run.journal.points():
        if point.key in CLOCKED:
            continue
        if (point.key, point.step) in points:
            doubled.append((point.key, point.step))
        points[point.key, point.step] = point.value
    digests = (sha256_of(load_weights(run.folder / name)) for name in (LAST, BEST))
    return Outcome(next(digests), next(digests), points, doubled)


def first_difference(expected: Outcome, found: Outcome) -> str:
    """Where two runs that should be identical differ first.

    Empty where they do not.
    """
    if found.doubled:
        key, step = found.doubled[0]
        return f"{key} at step {step:,} stands in the journal more than once"
    for key, step in sorted(
        expected.points.keys() | found.points.keys(), key=lambda at: (at[1], at[0])
    ):
        one, other = expected.points.get((key, step)), found.points.get((key, step))
        if one is None or other is None:
            return f"{key} at step {step:,} is {'missing' if other is None else 'one too many'}"
        if one != other and not (math.isnan(one) and math.isnan(other)):
            return f"{key} at step {step:,} is {other!r} instead of {one!r}"
    for name in ("last", "best"):
        one, other = getattr(expected, name), getattr(found, name)
        if one != other:
            return f"the {name} weights are {other[:12]} instead of {one[:12]}"
    return ""


def verify_resume(recipe: Recipe, kills: int, steps: int, seed: int) -> dict[str, Any]:
    """Train a shortened run without a stop, then again with kills at random
    moments, and compare all that they gave.

    Pack and decoded images stay in the home, where the real run finds them; all else is removed,
    unless the runs differ or fail. Of several splits the first is tried.

    Args:
        recipe: as the real run would have it.
        kills: SIGKILLs of the second run, which goes on after each.
        steps: optimizer steps, about; the rows are thinned out where fewer epochs would be needed.
        seed: of the moments of the kills.
    Returns:
        What was done and found, as JSON; `identical` says how it ended.
    Raises:
        TorchrelayError: whatever the real run would raise.
        RecipeError: there are more kills than the run has room for.
        TrainingError: a run that was not killed did not come to its end.
    """
    check_recipe(recipe)
    ingested = ingest_table.fn(recipe)
    make_home()
    folder = Path(tempfile.mkdtemp(prefix=VERIFY_PREFIX, dir=home().root))
    with lock(folder / "lock", f"the comparison in {folder}"):
        try:
            return _compare(recipe, ingested, kills, steps, seed, folder)
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _compare(
    recipe: Recipe, ingested: Ingested, kills: int, steps: int, seed: int, folder: Path
) -> dict[str, Any]:
    """The comparison, in a folder that is removed where the runs are
    identical.
    """
    short, data = shorten_training(_with_weights(recipe), ingested.first, steps, folder / "pack")
    short_data = Ingested({"": data}, False, ingested.seconds)
    device = pick_device(recipe.train.device)
    precision = pick_precision(recipe.train.precision, device, has_images(recipe)).name
    rows = f"{data.rows['train']:,} of {_count(ingested.first.rows['train'], 'row')}"
    epochs, workers = _count(short.train.epochs, "epoch"), _count(short.train.num_workers, "worker")
    say(
        f"recipe    {recipe.name}: {recipe.model.name} on {device} in {precision}, {rows}, "
        f"{epochs}, {workers}"
    )
    say(f"saves     a checkpoint every {_count(short.checkpoint.every_steps, 'step')}")
    say(f"promise   {_promise(device.type, recipe.train.deterministic)}")

    in_child(folder, PATIENCE_SECONDS, "", make_database)
    uninterrupted = _KilledRun(folder / "calm", short, short_data)
    uninterrupted.end(UNINTERRUPTED_TIMEOUT)
    seconds, expected, num_steps = (
        uninterrupted.seconds,
        read_outcome(uninterrupted.run),
        uninterrupted.record.steps,
    )
    say(f"calm run  {_count(num_steps, 'step')} in {seconds:.1f} s, weights {expected.last[:12]}")

    if STEPS_PER_KILL * kills >= num_steps:
        shutil.rmtree(folder)
        raise RecipeError(
            f"{_count(kills, 'kill')} are too many for a run of {_count(num_steps, 'step')}: at "
            "most "
            f"{(num_steps - 1) // STEPS_PER_KILL}; a larger --steps, or a recipe of more epochs, "
            "has room for more"
        )
    killed_run = _KilledRun(folder / "killed", short, short_data)
    done = []
    for drawn, delay in draw_moments(
        kills, num_steps, uninterrupted.step_seconds, random.Random(seed)
    ):
        step = max(
            drawn, killed_run.checkpoint_step + 1
        )  # it does not come by again where it was saved
        fault = f"train.batch_ready:kill:{step - killed_run.checkpoint_step}:{delay:.6f}"
        if not killed_run.die(fault):
            say(
                f"kill {len(done) + 1:<4} too late: the run had come to its end before step "
                f"{step:,}"
            )
            break
        done.append(
            {
                "fault": fault,
                "step": step,
                "delay_ms": 1000 * delay,
                "goes_on_from": killed_run.checkpoint_step,
            }
        )
        say(
            f"kill {len(done):<4} SIGKILL {1000 * delay:.1f} ms after step {step:,} of "
            f"{num_steps:,} began; "
            f"goes on from {_checkpoint(killed_run.checkpoint_step)}"
        )
    else:
        killed_run.end(PATIENCE * seconds + PATIENCE_SECONDS)
    say(f"last run  to step {killed_run.record.steps:,}, its end, in {killed_run.seconds:.1f} s")
    found = read_outcome(killed_run.run)
    difference = first_difference(expected, found)
    if not difference:
        shutil.rmtree(folder)
    return {
        "identical": not difference,
        "first_difference": difference,
        "kills": done,
        "seed": seed,
        "steps": num_steps,
        "points": len(expected.points),
        "weights_sha256": [expected.last, found.last],
        "device": str(device),
        "precision": precision,
        "folder": str(folder) if difference else "",
    }


def draw_moments(
    kills: int, num_steps: int, step_seconds: float, random_: random.Random
) -> list[tuple[int, float]]:
    """Random moments of a training, in their order.

    A step, and seconds after its beginning, up to two steps' time.

    Each lies so far before the end that it comes in time, and those behind it too.
    """
    steps = sorted(random_.randrange(num_steps) + 1 for _ in range(kills))
    latest = (num_steps - STEPS_PER_KILL * number for number in range(kills, 0, -1))
    return [
        (min(pair), random_.uniform(0, 2 * step_seconds))
        for pair in zip(steps, latest, strict=True)
    ]


class _KilledRun:
    """A run in a home of its own, which child processes take on its way.

    Args:
        root: of the home, which is made; store, packs and cache are those of the real home.

    Attributes:
        seconds: that its newest process lived.
    """

    def __init__(self, root: Path, recipe: Recipe, data: Ingested) -> None:
        self._root = root
        root.mkdir(parents=True)
        for name in ("store", "packs", "cache"):
            (real := home().root / name).mkdir(exist_ok=True)
            (root / name).symlink_to(real)
        shutil.copyfile(root.parent / DATABASE_FILE, root / DATABASE_FILE)
        self.seconds = 0.0
        self._is_fresh = True
        self._check(in_child(root, PATIENCE_SECONDS, "", _open, recipe, data), 0)

    @property
    def run(self) -> Run:
        """The run, as it is now."""
        return Run(next((self._root / "runs").iterdir()))

    @property
    def record(self) -> RunRecord:
        """The run's record."""
        return self.run.record

    @property
    def checkpoint_step(self) -> int:
        """The step of the last checkpoint.

        0 where there is none.
        """
        found = parse_name(read_pointer(self.run.folder / CHECKPOINTS, "last"))
        return found[0] if found else 0

    @property
    def step_seconds(self) -> float:
        """The median time of a step, over up to ten of them, as the
        journal's times are whole milliseconds.
        """
        points = self.run.journal.points()
        times = np.array([point.timestamp for point in points if point.key == "train/loss"])
        stride = max(1, min(10, len(times) // 2))
        return (
            float(np.median(times[stride:] - times[:-stride])) / stride / 1000
            if len(times) > 1
            else 0.0
        )

    def end(self, patience: float) -> None:
        """Let the run go on to its end.

        Raises:
            TrainingError: it did not come there, not even within so many seconds.
        """
        self._check(self._go_on(patience, ""), 0)

    def die(self, fault: str) -> bool:
        """Let the run go on until a fault kills it.

        Whether it did, before the run came to its end.

        Raises:
            TrainingError: it ended in another way.
        """
        code = self._go_on(UNINTERRUPTED_TIMEOUT, fault)
        self._check(code, -signal.SIGKILL, 0)
        return code != 0

    def _go_on(self, patience: float, fault: str) -> int | None:
        started = time.monotonic()
        code = in_child(self._root, patience, fault, _train, self._is_fresh)
        self.seconds = time.monotonic() - started
        self._is_fresh = False
        return code

    def _check(self, code: int | None, *expected: int) -> None:
        if code not in expected:
            log = (self._root / LOG_FILE).read_text("utf-8", "replace").strip().splitlines()
            raise TrainingError(
                f"a process of {self._root} ended with code {code} instead of {expected[0]} "
                f"after {self.seconds:.0f} s: {log[-1] if log else 'it said nothing'}; "
                f"all that it said is in {self._root / LOG_FILE}"
            )


def _open(recipe: Recipe, data: Ingested) -> None:
    """Open the run.

    In a child process.
    """
    folder = name_run(recipe)
    with hold_run(folder):
        start_run.fn(folder, recipe, data, "")


def _train(is_fresh: bool) -> None:
    """Take the run to its end, as the train flow does.

    In a child process.
    """
    folder = home().runs / list_records(home())[0].run_id
    with hold_run(folder), keep_status(folder):
        if not is_fresh:
            reopen_run.fn(folder, {})
        train_model.fn(folder)
        evaluate_model.fn(folder)
        finish_run.fn(folder)


# What the fork server imports before it forks: this module with all that it takes, and what its
# libraries import late.
PRELOAD = (
    __name__,
    "torch._dynamo",
    "mlflow.store.tracking.sqlalchemy_store",
    "matplotlib.backends.backend_agg",
)
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([*PRELOAD])
# Who starts a child looks how the others are, of other threads too; two that read at once how one
# ended lose it (255).
_asking = threading.Lock()
END_SECONDS = 5.0


def in_child(
    root: Path, patience: float, fault: str, work: Callable[..., object], *arguments: Any
) -> int | None:
    """Do work in a child process in the home `root`, with a fault armed, and
    give its exit code.

    Args:
        patience: seconds after which it is taken for hung and killed.
    """
    method = multiprocessing.get_start_method()
    child = _forks.Process(target=_do, args=(root, method, fault, work, arguments))
    with _asking:
        child.start()
    try:
        has_ended = connection.wait([child.sentinel], patience)
    except BaseException:
        child.kill()
        connection.wait(
            [child.sentinel], END_SECONDS
        )  # it writes where the caller may want to clean up
        raise
    if not has_ended:
        child.kill()
        connection.wait([child.sentinel])
    with _asking:
        child.join()
        return child.exitcode


def _do(
    root: Path, method: str, fault: str, work: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    with open_to_write(root / LOG_FILE, "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    # Its loader's workers begin as in any run, and not by a fork server of their own, which would
    # outlive a kill.
    multiprocessing.set_start_method(method, force=True)
    os.environ["TORCHRELAY_HOME"] = str(root)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    arm(fault)
    work(*arguments)


def shorten_training(
    recipe: Recipe, data: Prepared, num_steps: int, folder: Path
) -> tuple[Recipe, Prepared]:
    """The recipe and the data of a run that takes about so many steps, over two
    epochs or more where it has them.

    The split is copied to a folder, with rows left out of it evenly; what clocks, registers or
    forgives goes.
    """
    train, checkpoint = recipe.train, recipe.checkpoint
    asked = (
        1 if Schema.load(data.split_dir / SCHEMA_FILE).triple is None else 2
    )  # in both directions
    rows_per_step = train.batch_size * train.accumulate
    num_rows = max(1, rows_per_step * math.ceil(num_steps / min(NUM_EPOCHS, train.epochs)) // asked)
    side = np.load(data.split_dir / "split.npy")
    for at in range(len(SPLITS)):
        rows = np.flatnonzero(side == at)
        if len(rows) > num_rows:
            side[rows] = UNUSED
            side[rows[np.linspace(0, len(rows) - 1, num_rows).astype(np.int64)]] = at
    split_dir = (
        folder / "splits" / data.split_dir.name
    )  # whose report is drawn two folders above it
    shutil.copytree(data.split_dir, split_dir)
    np.save(split_dir / "split.npy", side)
    write_manifest(split_dir)
    counts = {name: int((side == at).sum()) for at, name in enumerate(SPLITS)}
    steps_per_epoch = math.ceil(counts["train"] * asked / rows_per_step)
    num_epochs = min(train.epochs, max(NUM_EPOCHS, math.ceil(num_steps / steps_per_epoch)))
    every_steps = max(1, num_epochs * steps_per_epoch // NUM_CHECKPOINTS)
    changes: Mapping[str, Any] = {
        "train": train.model_copy(update={"epochs": num_epochs, "max_minutes": 0.0}),
        "checkpoint": checkpoint.model_copy(
            update={"every_steps": every_steps, "on_error": "stop"}
        ),
        "tracking": recipe.tracking.model_copy(update={"register_as": ""}),
    }
    return recipe.model_copy(update=changes), data._replace(
        split_dir=split_dir, rows={**data.rows, **counts}
    )


def _with_weights(recipe: Recipe) -> Recipe:
    """The recipe with the file of its source's weights in place of a name
    that another home does not know.
    """
    if not recipe.warm_start.source:
        return recipe
    weights = find_source(recipe.warm_start.source).weights
    return recipe.model_copy(
        update={"warm_start": recipe.warm_start.model_copy(update={"source": str(weights)})}
    )


def _promise(device: str, is_deterministic: bool) -> str:
    if device == "cpu":
        return "the same bits, on this CPU with these versions and threads"
    if device == "cuda" and is_deterministic:
        return "the same bits, on this GPU with these versions, as train.deterministic is on"
    if device == "cuda":
        return (
            "none: on cuda without train.deterministic sums come in any order (--set "
            "train.deterministic=true)"
        )
    return f"none: {device} does not promise the same bits twice"


def _checkpoint(step: int) -> str:
    return f"the checkpoint of step {step:,}" if step else "the beginning"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
