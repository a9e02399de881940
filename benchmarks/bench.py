"""What `make bench` prints: rows/s of training inside the flow, and images/s of ingest, over the
usual ways.

All figures are of one run of this file: the contenders take turns, each figure is a median with its
    range. The rows
are CIFAR-10's where `data/cifar10` is there, else JPEGs of noise of the same size. Lightning and
fastai contend where
they are installed: `make bench-peers`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tables import add_table_arguments, files_of, find_table, scratch_home

from torchrelay import settings

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from torchrelay.engine.hardware import Precision

BATCH_SIZE = 64
TURNS = 5
# What a contender is fed, and the steps before its clock starts.
NUM_ROWS = 10_000
WARM_UP_STEPS = 20
# Contenders that need a package which is no dependency of ours.
PEERS = {"Lightning + ImageFolder + MLFlowLogger, rows/s": "lightning", "fastai, rows/s": "fastai"}


def main() -> None:
    """Measure, print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_table_arguments(parser)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument(
        "--turns", type=int, default=TURNS, help=f"how often each contender runs ({TURNS})"
    )
    parser.add_argument("--limit-only", action="store_true", help="the flow and its limit alone")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        print(*globals()[arguments.contend](arguments.table))
        return
    with scratch_home() as scratch:
        table = find_table(arguments.data, scratch, arguments.rows)
        figures = {} if arguments.limit_only else _measure_ingest(table, scratch, arguments.turns)
        figures |= _measure_training(table, arguments.turns, arguments.limit_only)
    print(f"\n{'':<50}{'median':>10}{'min':>10}{'max':>10}")
    for name, values in figures.items():
        print(
            f"{name:<50}{statistics.median(values):>10,.0f}{min(values):>10,.0f}{max(values):>10,.0f}"
        )
    wanted = {
        "flow / synthetic batch, same process (floor 0.95)": (
            "flow",
            "synthetic batch, the flow's",
        ),
        "flow / synthetic batch": ("flow", "synthetic batch, rows"),
        "flow / synthetic batch, our allocator": ("flow", "synthetic batch, our"),
        "flow / pandas + skimage Dataset (floor 5)": ("flow", "pandas + skimage Dataset"),
        "flow / ImageFolder + DataLoader (floor 4)": ("flow", "ImageFolder + DataLoader"),
        "flow / Lightning (floor 5)": ("flow", "Lightning"),
        "flow / fastai": ("flow", "fastai"),
        "ingest per core / skimage alone (floor 5)": (
            "ingest, per core",
            "skimage alone, per core",
        ),
    }
    ratios = {
        name: _ratio(figures, ours, theirs)
        for name, (ours, theirs) in wanted.items()
        if all(any(key.startswith(name) for key in figures) for name in (ours, theirs))
    }
    print()
    for name, ratio in ratios.items():
        print(f"{name:<50}{ratio:>10.3f}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"figures": figures, "ratios": ratios}, indent=2) + "\n"
        )


def _ratio(figures: dict[str, list[float]], ours: str, theirs: str) -> float:
    """Median of the ratios of the turns, so that a drift of the machine's speed cancels out."""
    return statistics.median(
        a / b
        for a, b in zip(figures[_key(figures, ours)], figures[_key(figures, theirs)], strict=True)
    )


def _key(figures: dict[str, list[float]], name: str) -> str:
    return next(key for key in figures if key.startswith(name))


def _measure_ingest(table: Path, scratch: Path, turns: int) -> dict[str, list[float]]:
    """Images in a second of a core's time: a whole ingest into an empty home, and skimage
    reading files in a loop.
    """
    from skimage.io import imread

    from torchrelay.datasets.ingest import prepare_data
    from torchrelay.recipe import load_recipe

    overrides = {"data.table": str(table), "data.files": str(files_of(table))}
    data = load_recipe("recipes/cifar10.yaml", None, overrides).data
    paths = [
        str(files_of(table) / line.split(",")[0]) for line in table.read_text().splitlines()[1:3001]
    ]
    num_rows = len(table.read_text().splitlines()) - 1
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(turns + 1):  # the first turn warms the file cache
        seconds = _time(
            lambda turn=turn: prepare_data(data, settings.Home(scratch / f"ingest-{turn}"))
        )
        skimage_seconds = _time(lambda: [imread(path) for path in paths])
        if turn:
            ours.append(num_rows / seconds)
            theirs.append(len(paths) / skimage_seconds)
    return {"ingest, per core, images/s": ours, "skimage alone, per core, images/s": theirs}


def _measure_training(table: Path, turns: int, limit_only: bool) -> dict[str, list[float]]:
    """Rows/s of one net, loss and optimizer, each contender in a process of its own: inside the
    flow, bare, and fed.
    """
    contenders = {
        "Lightning + ImageFolder + MLFlowLogger, rows/s": "_train_lightning",
        "flow, rows/s|synthetic batch, the flow's process, rows/s": "_train_in_flow",
        "synthetic batch, rows/s": "_train_synthetic",
        "synthetic batch, our allocator, rows/s": "_train_synthetic_tuned",
        "pandas + skimage Dataset, rows/s": "_train_tutorial",
        "ImageFolder + DataLoader, rows/s": "_train_image_folder",
        "fastai, rows/s": "_train_fastai",
    }
    for name, package in PEERS.items():
        if importlib.util.find_spec(package) is None:
            del contenders[name]
            print(
                f"skipped: {name.removesuffix(', rows/s')}, as {package} is not installed (make "
                "bench-peers)"
            )
    if limit_only:
        contenders = {
            name: one for name, one in contenders.items() if name.startswith(("flow", "synthetic"))
        }
    figures: dict[str, list[float]] = {
        name: [] for names in contenders for name in names.split("|")
    }
    for turn in range(turns):
        for names, function in contenders.items():
            command = [sys.executable, __file__, "--contend", function, "--table", str(table)]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, timeout=600
            )
            each = names.split("|")
            for name, rate in zip(each, done.stdout.split()[-len(each) :], strict=True):
                figures[name].append(float(rate))
                print(f"turn {turn + 1}: {name} {float(rate):,.0f}", file=sys.stderr)
    return figures


def _train_in_flow(table: Path) -> tuple[float, float]:
    """Median over the epochs of one run of the train flow, tracked and checkpointed as always; and
    the limit.

    The limit is measured before and after in the same process, as the machine's speed drifts within
    seconds.
    """
    logging.disable(logging.WARNING)
    from torchrelay.flows import train
    from torchrelay.runs import Journal

    overrides = {"data.table": str(table), "data.files": str(files_of(table)), "train.epochs": 4}
    (before,) = _train_synthetic_tuned(table)
    result = train(recipe_file="recipes/cifar10.yaml", overrides=overrides)
    (after,) = _train_synthetic_tuned(table)
    points = Journal(Path(result["run_dir"]) / "journal.jsonl").points()
    rate = statistics.median(point.value for point in points if point.key == "rows_per_second")
    return rate, (before + after) / 2


def _train_synthetic(table: Path) -> tuple[float]:
    """The limit: the bare steps on one batch that is ready on the device; plain PyTorch."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH_SIZE, 3, 32, 32, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH_SIZE,), generator=generator)
    return _train_on([(images, labels)] * 3000)


def _train_synthetic_tuned(table: Path) -> tuple[float]:
    """The same, with freed memory kept in the process, as the train task does it."""
    from torchrelay.engine.hardware import keep_freed_memory

    keep_freed_memory()
    return _train_synthetic(table)


def _train_tutorial(table: Path) -> tuple[float]:
    return _train_on(_tutorial_loader(table))


def _train_image_folder(table: Path) -> tuple[float]:
    return _train_on(_first_rows(_image_folder_loader(table)))


class _Net(NamedTuple):
    """The recipe's net, ready to train, and what all contenders train it with."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: Precision


def _build_net() -> _Net:
    import torch

    from torchrelay.engine.hardware import pick_device, pick_precision
    from torchrelay.models import build_model
    from torchrelay.recipe import Named
    from torchrelay.schema import FeatureSchema, Schema

    device = pick_device("auto")
    image = FeatureSchema(
        name="image", kind="image", columns=["image"], shape=[3, 32, 32], dtype="uint8"
    )
    classes = [str(number) for number in range(10)]
    label = FeatureSchema(
        name="label", kind="category", columns=["label"], shape=[], dtype="int64", classes=classes
    )
    model = build_model(Named(name="cifar_net"), Schema(inputs=[image], targets=[label]))
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    return _Net(model, optimizer, device, pick_precision("auto", device, has_images=True))


def _train_on(batches: Iterable[tuple]) -> tuple[float]:
    """Rows/s of the recipe's net and optimizer over batches of (images, labels); a few steps
    warm up first.
    """
    import torch
    from torch.nn.functional import cross_entropy

    model, optimizer, device, precision = _build_net()
    num_rows, started, loss = 0, time.perf_counter(), torch.zeros(())
    for number, (images, labels) in enumerate(batches):
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            device.type, precision.autocast, enabled=precision.autocast is not None
        ):
            scores = model(images)
        loss = cross_entropy(scores.float(), labels.to(device))
        loss.backward()
        optimizer.step()
        if number == WARM_UP_STEPS:
            num_rows, started = 0, time.perf_counter()
        num_rows += len(labels)
    loss.item()
    return (num_rows / (time.perf_counter() - started),)


class _Clock:
    """Rows/s of a loop that is not ours, told of each of its batches."""

    def __init__(self) -> None:
        self.num_batches = 0
        self.num_rows = 0
        self.started = self.now = time.perf_counter()

    def tick(self, num_rows: int) -> None:
        """Note that a step over so many rows is done."""
        self.now = time.perf_counter()
        self.num_rows += num_rows
        if self.num_batches == WARM_UP_STEPS:
            self.num_rows, self.started = 0, self.now
        self.num_batches += 1

    @property
    def rows_per_second(self) -> float:
        return self.num_rows / (self.now - self.started)


def _train_lightning(table: Path) -> tuple[float]:
    """Lightning's Trainer over ImageFolder, its MLFlowLogger on a database of its own,
    checkpoints as by default.
    """
    import lightning  # pyright: ignore[reportMissingImports]
    import torch
    from lightning.pytorch.loggers import MLFlowLogger  # pyright: ignore[reportMissingImports]
    from torch.nn.functional import cross_entropy

    net, clock = _build_net(), _Clock()
    scratch = Path(tempfile.mkdtemp(dir=Path(os.environ["TORCHRELAY_HOME"]).parent))

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net.model

        def training_step(
            self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int
        ) -> torch.Tensor:
            images, labels = batch
            loss = cross_entropy(
                self.net(images.contiguous(memory_format=torch.channels_last)), labels
            )
            self.log("train_loss", loss)
            return loss

        def on_train_batch_end(
            self, outputs: Any, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int
        ) -> None:
            clock.tick(len(batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return net.optimizer

    trainer = lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(net.device.type, net.device.type),
        devices=1,
        precision="bf16-mixed" if net.precision.autocast == torch.bfloat16 else "32-true",
        max_epochs=1,
        limit_train_batches=min(NUM_ROWS // BATCH_SIZE, len(_image_folder_loader(table))),
        logger=MLFlowLogger(
            "bench", tracking_uri=f"sqlite:///{scratch}/mlflow.db", artifact_location=str(scratch)
        ),
        default_root_dir=scratch,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), _image_folder_loader(table))
    return (clock.rows_per_second,)


def _train_fastai(table: Path) -> tuple[float]:
    """fastai's Learner over its ImageDataLoaders; mixed precision in bf16 where ours chose it."""
    import torch
    from fastai.vision import all as fastai  # pyright: ignore[reportMissingImports]

    net, clock = _build_net(), _Clock()

    class Ticks(fastai.Callback):
        def after_batch(self) -> None:
            if self.training:
                clock.tick(len(self.yb[0]))
                if clock.num_batches * BATCH_SIZE >= NUM_ROWS:
                    raise fastai.CancelFitException

    loaders = fastai.ImageDataLoaders.from_folder(
        files_of(table),
        train="train",
        valid="test",
        bs=BATCH_SIZE,
        num_workers=2,
        device=net.device,
        batch_tfms=[fastai.Flip(), fastai.Normalize.from_stats([0.5] * 3, [0.25] * 3)],
    )

    def optimizer(parameters: Any, **options: Any) -> Any:
        return fastai.OptimWrapper(
            parameters, torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
        )

    callbacks = [Ticks()]
    if net.precision.autocast == torch.bfloat16:
        callbacks.append(_fastai_bf16(net.device))
    learner = fastai.Learner(
        loaders,
        net.model,
        loss_func=fastai.CrossEntropyLossFlat(),
        opt_func=optimizer,
        cbs=callbacks,
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit(1, lr=0.01)
    return (clock.rows_per_second,)


def _fastai_bf16(device: torch.device) -> Any:
    """What fastai's own MixedPrecision does on CUDA, for any device."""
    import torch
    from fastai.vision import all as fastai  # pyright: ignore[reportMissingImports]

    class Autocast(fastai.Callback):
        order = 10

        def before_batch(self) -> None:
            self.mixed = torch.autocast(device.type, torch.bfloat16)
            self.mixed.__enter__()

        def after_pred(self) -> None:
            self.learn.pred = self.learn.pred.float()

        def after_loss(self) -> None:
            self.mixed.__exit__(None, None, None)

    return Autocast()


def _tutorial_loader(table: Path) -> Iterable[tuple]:
    """The Dataset of PyTorch's data-loading tutorial: a pandas row and skimage's imread for each
    item.
    """
    import pandas as pd
    import torch
    from skimage.io import imread
    from torch.utils.data import DataLoader, Dataset

    class Images(Dataset):
        def __init__(self) -> None:
            frame = pd.read_csv(table)
            self.frame = frame[frame["split"] == "train"]
            self.classes = sorted(self.frame["label"].unique())

        def __len__(self) -> int:
            return len(self.frame)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = imread(files_of(table) / str(self.frame.iloc[index, 0]))
            label = self.classes.index(self.frame.iloc[index, 1])
            return torch.from_numpy(image.transpose(2, 0, 1).astype("float32") / 127.5 - 1), label

    return _first_rows(DataLoader(Images(), batch_size=BATCH_SIZE, shuffle=True, num_workers=2))


def _image_folder_loader(table: Path) -> DataLoader:
    """torchvision's ImageFolder with its transforms, two workers."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.25] * 3),
    ]
    images = ImageFolder(str(files_of(table) / "train"), transforms.Compose(steps))
    return DataLoader(images, batch_size=BATCH_SIZE, shuffle=True, num_workers=2)


def _first_rows(loader: Iterable[tuple]) -> Iterable[tuple]:
    for number, batch in enumerate(loader):
        if number * BATCH_SIZE >= NUM_ROWS:
            return
        yield batch


def _time(work: Callable[[], object]) -> float:
    """Seconds of all cores together, child processes included."""

    def spent() -> float:
        each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in each)

    before = spent()
    work()
    return spent() - before


if __name__ == "__main__":
    main()
