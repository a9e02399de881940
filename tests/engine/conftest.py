"""A tiny job for the loop: a real net on a real, separable table of numbers, without files or
trackers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from torchrelay.engine.evaluation import Evaluation, Scorer
from torchrelay.engine.hardware import FP32, Precision
from torchrelay.engine.job import Job
from torchrelay.engine.losses import build_loss
from torchrelay.engine.metrics import compute_metrics
from torchrelay.engine.optim import Average, build_optimizer, build_schedule
from torchrelay.recipe import Named
from torchrelay.schema import Batch, FeatureSchema, Schema

NUM_ROWS, BATCH_SIZE = 40, 8
MakeJob = Callable[..., Job]


def rows_of_table() -> tuple[torch.Tensor, torch.Tensor]:
    """40 points of the plane; the class says on which side of a line they lie."""
    generator = torch.Generator().manual_seed(7)
    points = torch.randn(NUM_ROWS, 2, generator=generator)
    return points, (points @ torch.tensor([1.0, -2.0]) > 0).long()


class Table:
    """Batches of the table whose order depends on the epoch alone; a row can be spoiled."""

    def __init__(
        self, bad_row: int | None = None, sizes: Sequence[int] = (BATCH_SIZE,) * 5
    ) -> None:
        self.points, self.labels = rows_of_table()
        self.sizes = list(sizes)
        if bad_row is not None:
            self.points[bad_row, 0] = torch.nan

    def __call__(self, epoch: int, start_batch: int) -> Iterable[Batch]:
        order = torch.randperm(NUM_ROWS, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(self.sizes)[start_batch:]:
            yield Batch(rows, (self.points[rows],), self.labels[rows])


class Wishes(NamedTuple):
    """What of a job is not a field of `Job`."""

    epochs: int = 2
    optimizer: Named = Named(name="sgd", args={"lr": 0.1, "momentum": 0.9})
    bad_row: int | None = None
    validates: bool = True
    schedule: Named = Named(name="cosine")
    accumulate: int = 1
    ema: float = 0.0
    dropout: float = 0.2
    precision: Precision = FP32
    growth_interval: int = 2000
    sizes: Sequence[int] = (BATCH_SIZE,) * 5
    build: Callable[[], nn.Module] | None = None


SCHEMA = Schema(
    inputs=[FeatureSchema(name="x", kind="number", columns=["a", "b"], shape=[2], dtype="float32")],
    targets=[
        FeatureSchema(
            name="side",
            kind="category",
            columns=["side"],
            shape=[],
            dtype="int64",
            classes=["left", "right"],
        )
    ],
)


@pytest.fixture
def make_job() -> MakeJob:
    def make(**options: Any) -> Job:
        """A job of wishes; all other options are fields of the job."""
        wishes = Wishes(**{name: options.pop(name) for name in Wishes._fields if name in options})
        return replace(build_job(wishes), **options)

    return make


def build_job(wishes: Wishes) -> Job:
    torch.manual_seed(0)
    dropout = nn.Dropout(wishes.dropout)
    plain = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), dropout, nn.Linear(8, 2))
    model = plain if wishes.build is None else wishes.build()
    optimizer = build_optimizer(wishes.optimizer, model.parameters())
    scorer = Scorer(
        SCHEMA, model, build_loss("auto", SCHEMA), torch.device("cpu"), wishes.precision
    )
    table = Table(wishes.bad_row, wishes.sizes)
    steps_per_epoch = math.ceil(len(wishes.sizes) / wishes.accumulate)
    num_steps = wishes.epochs * steps_per_epoch

    def measure(found: Evaluation) -> dict[str, float]:
        return compute_metrics(SCHEMA, found.outputs, found.target, found.losses)

    return Job(
        scorer=scorer,
        loss=scorer.loss,
        optimizer=optimizer,
        scheduler=build_schedule(wishes.schedule, optimizer, num_steps, "max"),
        train_batches=table,
        valid_batches=lambda: table(0, 0),
        measure=measure,
        num_epochs=wishes.epochs,
        steps_per_epoch=steps_per_epoch,
        accumulate=wishes.accumulate,
        average=Average(model, wishes.ema) if wishes.ema else None,
        scaler=GradScaler(
            "cpu",
            enabled=wishes.precision.name == "fp16",
            growth_interval=wishes.growth_interval,
        ),
        monitor="valid/accuracy" if wishes.validates else "",
    )
