"""What a training is worth on a busy machine: rows/s of cifar_net alone, two at once, and beside a
busy process.

Each training is a process of its own and the same job, from the same pack, in the real loop without
validation. All of a scene warm up, and are measured over the same seconds. `shared` is how
torchrelay trains; `plain` is the same with OpenMP's own ways, as any loop of PyTorch: two of those
at once wait for each other. What sharing costs on a quiet machine is less than two processes differ
by; so one training does it and does without in turns of half a second, and each half second with it
is held against the two around. Let nothing else run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tables import add_table_arguments, files_of, find_table, scratch_home

from torchrelay import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchrelay.engine import Progress
    from torchrelay.schema import Batch

START_SECONDS = 18.0
WINDOW_SECONDS = 0.5
BURN = "import sys, time\nwhile time.time() < float(sys.argv[1]): pass"


class Scene(NamedTuple):
    """What runs at once.

    Attributes:
        trainings: how each trains, shared or plain.
        burners: processes that keep one core busy each.
    """

    trainings: tuple[str, ...]
    burners: int = 0


SCENES = {
    "alone, plain": Scene(("plain",)),
    "alone": Scene(("shared",)),
    "two at once": Scene(("shared", "shared")),
    "two at once, plain": Scene(("plain", "plain")),
    "beside a busy process": Scene(("shared",), burners=1),
    "beside a busy process, plain": Scene(("plain",), burners=1),
}


def main() -> None:
    """Measure, print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_table_arguments(parser)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="over which each scene is measured"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument(
        "--train", nargs=3, metavar=("TABLE", "HOW", "BEGIN"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.train:
        table, how, begin = arguments.train
        print(_train(Path(table), how, float(begin), arguments.seconds))
        return
    found: dict[str, list[float]] = {name: [] for name in SCENES}
    costs: list[float] = []
    with scratch_home() as scratch:
        table = find_table(arguments.data, scratch, arguments.rows)
        _play(table, Scene(("shared",)), 1.0)  # makes the pack, and finds the number of threads
        for turn in range(arguments.turns):
            for name, scene in SCENES.items():
                rates = _play(table, scene, arguments.seconds)
                found[name].append(sum(rates))
                print(
                    f"turn {turn + 1}: {name}: {' + '.join(f'{rate:,.0f}' for rate in rates)}",
                    file=sys.stderr,
                )
            costs += _play(table, Scene(("in turns",)), 3 * arguments.seconds)
    _print(found)
    each = f"{statistics.median(costs):>10.3f}{min(costs):>10.3f}{max(costs):>10.3f}"
    print(f"{'sharing / not, alone (floor 0.98)':<44}{each}")
    found["sharing / not, alone"] = costs
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def _print(found: dict[str, list[float]]) -> None:
    print(f"\n{'rows/s':<44}{'median':>10}{'min':>10}{'max':>10}")
    for name, rates in found.items():
        print(
            f"{name:<44}{statistics.median(rates):>10,.0f}{min(rates):>10,.0f}{max(rates):>10,.0f}"
        )
    ratios = {
        "alone / alone, plain": ("alone", "alone, plain"),
        "two at once, their sum / alone (floor 0.8)": ("two at once", "alone"),
        "beside a busy process / alone (floor 0.4)": ("beside a busy process", "alone"),
    }
    for name, (above, below) in ratios.items():
        each = [one / other for one, other in zip(found[above], found[below], strict=True)]
        print(f"{name:<44}{statistics.median(each):>10.3f}{min(each):>10.3f}{max(each):>10.3f}")


def _play(table: Path, scene: Scene, seconds: float) -> list[float]:
    """Rows/s of each training of a scene; of one that trains in turns, the ratio."""
    begin = time.time() + START_SECONDS
    burners = [
        subprocess.Popen(
            [sys.executable, "-c", BURN, str(begin + seconds + 1)], start_new_session=True
        )
        for _ in range(scene.burners)
    ]
    try:
        trainings = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    "--train",
                    str(table),
                    how,
                    str(begin),
                    "--seconds",
                    str(seconds),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for how in scene.trainings
        ]
        outputs = [training.communicate(timeout=300)[0] for training in trainings]
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    return [float(output.splitlines()[-1]) for output in outputs]


def _train(table: Path, how: str, begin: float, seconds: float) -> float:
    """Rows/s from `begin` on, seconds since 1970, over so many seconds; trains before and a little
    longer.

    A training in turns shares its cores in every second window, and gives the ratio of its rates
    with and without.
    """
    import torch

    from torchrelay.datasets.ingest import prepare_data
    from torchrelay.datasets.pack import open_view
    from torchrelay.engine import Progress, train
    from torchrelay.engine.checkpoints import CheckpointStore
    from torchrelay.engine.hardware import keep_freed_memory
    from torchrelay.recipe import load_recipe
    from torchrelay.tasks.assembly import build_job, choose_threads, share_batches, share_cores

    overrides = {
        "data.table": str(table),
        "data.files": str(files_of(table)),
        "train.device": "cpu",
    }
    recipe = load_recipe("recipes/cifar10.yaml", None, {**overrides, "train.epochs": 10_000})
    data = prepare_data(recipe.data, settings.home())
    view = open_view(data.pack_dir, data.split_dir)
    keep_freed_memory()  # as the train task does it
    job = build_job(recipe, view, recipe.train.epochs)
    job = replace(job, monitor="", every_epochs=recipe.train.epochs, max_seconds=1.0)
    stamps: list[float] = []

    def on_step(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if not epoch_ended:
            now = time.time()
            if begin <= now < begin + seconds:
                stamps.append(now)
            if now < begin + seconds + 0.5:
                progress.seconds = 0.0  # the budget of a second begins when the measuring is over

    store = CheckpointStore(settings.home().root / f"busy-{time.time_ns()}", 1, {}, {})
    if how == "plain":
        train(job, Progress(), store, on_step)
    else:
        number = choose_threads(recipe, view).number
        with share_cores(recipe, number) as cores:
            if how == "shared":
                job = share_batches(job, cores)
            else:
                plain = job.train_batches

                def in_turns(epoch: int, start_batch: int) -> Iterator[Batch]:
                    for batch in plain(epoch, start_batch):
                        if int((time.time() - begin) // WINDOW_SECONDS) % 2:
                            cores.tick()
                        yield batch

                job = replace(job, train_batches=in_turns)
            train(job, Progress(), store, on_step)
    print(f"{how}: {torch.get_num_threads()} threads", file=sys.stderr)
    if how == "in turns":
        steps = Counter(int((stamp - begin) // WINDOW_SECONDS) for stamp in stamps)
        last = int(seconds / WINDOW_SECONDS) - 1
        return statistics.median(
            2 * steps[at] / (steps[at - 1] + steps[at + 1]) for at in range(1, last, 2)
        )
    return len(stamps) * recipe.train.batch_size / seconds


if __name__ == "__main__":
    main()
