from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.evaluation import Evaluation
from torchrelay.engine.job import Job, Progress, restore_run
from torchrelay.engine.loop import train
from torchrelay.weights import sha256_of

from .conftest import MakeJob


def no_report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
    pass


def scores(*values: float) -> Callable[[Evaluation], dict[str, float]]:
    """A measure that gives one value after the other, whatever the model."""
    rest: Iterator[float] = iter(values)
    return lambda found: {"score": next(rest)}


def restored(job: Job, store: CheckpointStore) -> Progress:
    checkpoint = store.load_last()
    assert checkpoint is not None
    return restore_run(job, checkpoint.state)


def test_a_run_stops_after_as_many_epochs_without_a_better_metric(
    make_job: MakeJob, tmp_path: Path
) -> None:
    store, progress = CheckpointStore(tmp_path, 3, {}, {}), Progress()
    made = make_job(epochs=9, monitor="valid/score", every_epochs=9, early_stop_epochs=2)
    job = replace(made, measure=scores(0.1, 0.5, 0.4, 0.5, 0.6))
    reason = train(job, progress, store, no_report)
    assert reason == (
        "valid/score was best after epoch 2 (0.5) and no better in 2 epochs "
        "(train.early_stop_epochs: 2)"
    )
    assert progress.epoch == 4
    best = store.load_best()
    assert best is not None
    assert best.state["epoch"] == 2

    again = replace(job, measure=scores())
    progress = restored(again, store)
    assert (progress.epoch, train(again, progress, store, no_report)) == (4, reason)
    longer = replace(job, measure=scores(0.6, 0.5, 0.5, 0.5), early_stop_epochs=3)
    assert "best after epoch 5 (0.6)" in train(longer, restored(longer, store), store, no_report)


def test_a_run_that_is_out_of_time_stops_at_the_step_and_keeps_what_it_has(
    make_job: MakeJob, tmp_path: Path
) -> None:
    store, progress = CheckpointStore(tmp_path, 3, {}, {}), Progress()
    reason = train(make_job(max_seconds=1e-9), progress, store, no_report)
    assert "minutes of training are over (train.max_minutes:" in reason
    assert (progress.epoch, progress.step, progress.batch) == (0, 1, 1)
    best = store.load_best()
    assert best is not None
    assert best.state["best_metric"] == progress.best_metric


def test_time_is_counted_over_resumes_and_more_of_it_lets_the_run_go_on(
    make_job: MakeJob, tmp_path: Path
) -> None:
    whole = make_job()
    train(whole, Progress(), CheckpointStore(tmp_path / "whole", 3, {}, {}), no_report)
    store = CheckpointStore(tmp_path / "part", 3, {}, {})
    first = Progress()
    train(make_job(max_seconds=1e-9), first, store, no_report)

    torch.manual_seed(99)
    second = make_job(max_seconds=1e-9)
    progress = restored(second, store)
    assert progress.seconds >= 1e-9
    assert train(second, progress, store, no_report)
    assert progress.step == first.step
    third = make_job()
    assert train(third, restored(third, store), store, no_report) == ""
    assert sha256_of(third.scorer.model.state_dict()) == sha256_of(whole.scorer.model.state_dict())


def test_without_validation_rows_the_weights_of_a_run_out_of_time_are_the_best(
    make_job: MakeJob, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path, 3, {}, {})
    train(make_job(max_seconds=1e-9, validates=False), Progress(), store, no_report)
    best = store.load_best()
    assert best is not None
    assert best.state["step"] == 1


@pytest.mark.parametrize("epochs", [2, 4])
def test_a_run_that_ends_with_its_last_epoch_was_not_stopped(
    make_job: MakeJob, tmp_path: Path, epochs: int
) -> None:
    job = replace(
        make_job(epochs=epochs, monitor="valid/score", early_stop_epochs=1),
        measure=scores(2, 3, 4, 4),
    )
    assert train(job, Progress(), CheckpointStore(tmp_path, 3, {}, {}), no_report) == ""
