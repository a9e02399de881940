"""What logging costs, and what a checkpoint costs: steps/s of the train flow against the same loop
that logs nothing.

Each turn is a process of its own: the bare loop, the flow, the bare loop again, so that a drift of
    the machine's speed
cancels out. The flow journals every step, ships to the embedded MLflow and keeps checkpoints, as
always; the bare loop has the same job from the same pack. The rows are CIFAR-10's where
`data/cifar10` is there, else JPEGs of noise.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tables import add_table_arguments, files_of, find_table, scratch_home

from torchrelay import settings

if TYPE_CHECKING:
    from torchrelay.engine import Job, Progress

NUM_EPOCHS = 4
NUM_SAVES = 5


class Turn(NamedTuple):
    """What one process measured.

    Attributes:
        logged, silent: steps per second of the median epoch, validation and checkpoints left out.
        save_seconds: of the median checkpoint.
        epoch_seconds: of the silent loop.
    """

    logged: float
    silent: float
    save_seconds: float
    epoch_seconds: float


def main() -> None:
    """Measure, print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_table_arguments(parser)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--turn", type=Path, metavar="TABLE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        print(json.dumps(_measure(arguments.turn)._asdict()))
        return
    with scratch_home() as scratch:
        table = find_table(arguments.data, scratch, arguments.rows)
        turns = [_take_turn(table, number + 1) for number in range(arguments.turns)]
    figures = {
        "logged, steps/s": [turn.logged for turn in turns],
        "silent, steps/s": [turn.silent for turn in turns],
        "logged / silent (floor 0.98)": [turn.logged / turn.silent for turn in turns],
        "checkpoint, ms": [1000 * turn.save_seconds for turn in turns],
        "checkpoint, % of an epoch (ceiling 1)": [
            100 * turn.save_seconds / turn.epoch_seconds for turn in turns
        ],
    }
    print(f"\n{'':<40}{'median':>10}{'min':>10}{'max':>10}")
    for name, values in figures.items():
        print(
            f"{name:<40}{statistics.median(values):>10,.3f}{min(values):>10,.3f}{max(values):>10,.3f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _take_turn(table: Path, number: int) -> Turn:
    command = [sys.executable, __file__, "--turn", str(table)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    turn = Turn(**json.loads(done.stdout.splitlines()[-1]))
    print(
        f"turn {number}: logged {turn.logged:,.1f}, silent {turn.silent:,.1f} steps/s",
        file=sys.stderr,
    )
    return turn


def _measure(table: Path) -> Turn:
    logging.disable(logging.WARNING)
    from torchrelay.datasets.ingest import prepare_data
    from torchrelay.datasets.pack import open_view
    from torchrelay.engine.hardware import keep_freed_memory
    from torchrelay.flows import train
    from torchrelay.recipe import load_recipe
    from torchrelay.runs import Journal
    from torchrelay.tasks.assembly import build_job

    overrides = {
        "data.table": str(table),
        "data.files": str(files_of(table)),
        "train.epochs": NUM_EPOCHS,
    }
    recipe = load_recipe("recipes/cifar10.yaml", None, overrides)
    data = prepare_data(recipe.data, settings.home())
    view = open_view(data.pack_dir, data.split_dir)
    keep_freed_memory()  # as the train task does it

    def train_silently() -> tuple[Job, float]:
        job = build_job(recipe, view, NUM_EPOCHS)
        return job, _train_silently(job, settings.home().root / "silent")

    _, before = train_silently()
    result = train(recipe_file="recipes/cifar10.yaml", overrides=overrides)
    job, after = train_silently()
    points = Journal(Path(result["run_dir"]) / "journal.jsonl").points()
    logged = statistics.median(point.value for point in points if point.key == "rows_per_second")
    rows_per_step = len(view.rows["train"]) / job.steps_per_epoch
    silent = (before + after) / 2
    saved = _time_saves(job, settings.home().root / "saves")
    return Turn(
        logged / rows_per_step, silent / rows_per_step, saved, len(view.rows["train"]) / silent
    )


def _train_silently(job: Job, folder: Path) -> float:
    """Rows/s of the loop's median epoch; it validates nothing, and nobody takes what it reports
    at a step.
    """
    from torchrelay.engine import Progress, train
    from torchrelay.engine.checkpoints import CheckpointStore

    rates: list[float] = []

    def on_step(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if epoch_ended:
            rates.append(values["rows_per_second"])

    silent = replace(job, monitor="", every_epochs=NUM_EPOCHS, every_steps=0)
    train(silent, Progress(), CheckpointStore(folder, 1, {}, {}), on_step)
    return statistics.median(rates)


def _time_saves(job: Job, folder: Path) -> float:
    """Seconds of the median checkpoint of a job, with all its fsyncs."""
    from torchrelay.engine import Progress, state_of_run
    from torchrelay.engine.checkpoints import CheckpointStore

    store, spent = CheckpointStore(folder, 3, {}, {}), []
    for number in range(NUM_SAVES):
        state: dict[str, Any] = state_of_run(job, Progress(epoch=number, step=number))
        started = time.perf_counter()
        store.save(state, number, is_best=True)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


if __name__ == "__main__":
    main()
