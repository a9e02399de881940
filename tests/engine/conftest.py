"""A tiny job for the loop: a real net on a real, separable table of numbers, without files or
trackers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

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


@pytest.fixture
def make_job() -> MakeJob:
    def make(
        epochs: int = 2,
        optimizer: Named | None = None,
        bad_row: int | None = None,
        validates: bool = True,
        schedule: Named | None = None,
        accumulate: int = 1,
        ema: float = 0.0,
        dropout: float = 0.2,
        precision: Precision = FP32,
        growth_interval: int = 2000,
        sizes: Sequence[int] = (BATCH_SIZE,) * 5,
        build: Callable[[], nn.Module] | None = None,
        **changes: object,
    ) -> Job:
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))
        model = plain if build is None else build()
        chosen = build_optimizer(
            optimizer or Named(name="sgd", args={"lr": 0.1, "momentum": 0.9}), model.parameters()
        )
        schema = Schema(
            inputs=[
                FeatureSchema(
                    name="x", kind="number", columns=["a", "b"], shape=[2], dtype="float32"
                )
            ],
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
        device = torch.device("cpu")
        scorer = Scorer(schema, model, build_loss("auto", schema), device, precision)
        table = Table(bad_row, sizes)
        steps_per_epoch = math.ceil(len(sizes) / accumulate)

        def measure(found: Evaluation) -> dict[str, float]:
            return compute_metrics(schema, found.outputs, found.target, found.losses)

        job = Job(
            scorer=scorer,
            loss=scorer.loss,
            optimizer=chosen,
            scheduler=build_schedule(
                schedule or Named(name="cosine"), chosen, epochs * steps_per_epoch, "max"
            ),
            train_batches=table,
            valid_batches=lambda: table(0, 0),
            measure=measure,
            num_epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            accumulate=accumulate,
            average=Average(model, ema) if ema else None,
            scaler=GradScaler(
                "cpu", enabled=precision.name == "fp16", growth_interval=growth_interval
            ),
            monitor="valid/accuracy" if validates else "",
        )
        return replace(job, **changes)  # pyright: ignore[reportArgumentType]

    return make
