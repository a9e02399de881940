from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from torchrelay import faults
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.evaluation import Evaluation, evaluate, finite_rows
from torchrelay.engine.gradients import NotFiniteError
from torchrelay.engine.hardware import FP16, random_states
from torchrelay.engine.job import Job, Progress, restore_run
from torchrelay.engine.loop import check_monitor, train
from torchrelay.errors import TrainingError
from torchrelay.faults import FaultError
from torchrelay.models.nets import DynamicNet
from torchrelay.recipe import Named
from torchrelay.schema import Batch
from torchrelay.weights import sha256_of

from .conftest import BATCH_SIZE, NUM_ROWS, MakeJob

STEPS_PER_EPOCH = NUM_ROWS // BATCH_SIZE


def store_in(folder: Path, keep: int = 3) -> CheckpointStore:
    return CheckpointStore(folder, keep, {"run_id": "tiny"}, {})


def no_report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
    pass


def weights_of(job: Job) -> str:
    return sha256_of(job.scorer.model.state_dict())


def test_training_lowers_the_loss_and_reports_each_step_and_epoch(
    make_job: MakeJob, tmp_path: Path
) -> None:
    steps: list[float] = []
    epochs: list[dict[str, float]] = []

    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        epochs.append(values) if epoch_ended else steps.append(values["train/loss"])

    progress = Progress()
    train(make_job(epochs=8), progress, store_in(tmp_path), report)
    assert len(steps) == 8 * STEPS_PER_EPOCH == progress.step
    assert epochs[-1]["train/epoch_loss"] < 0.6 * epochs[0]["train/epoch_loss"]
    assert epochs[0]["train/epoch_loss"] == pytest.approx(
        sum(steps[:STEPS_PER_EPOCH]) / STEPS_PER_EPOCH
    )
    assert epochs[-1]["valid/accuracy"] >= 0.9
    assert progress.best_metric == max(values["valid/accuracy"] for values in epochs)


@pytest.mark.parametrize("has_own_loss", [False, True])
def test_the_loss_of_a_mixed_row_is_that_of_both_classes_in_proportion(
    make_job: MakeJob, tmp_path: Path, has_own_loss: bool
) -> None:
    def first_loss(share: float | None, of_other_class: bool = False) -> float:
        losses: list[float] = []
        job = make_job(epochs=1, dropout=0.0)
        model: Any = job.scorer.model
        if has_own_loss:  # see `TrainsItself` in models/registry.py
            model.training_losses = lambda inputs, target, loss: 3 * loss(model(*inputs), target)

        def batches(epoch: int, start_batch: int) -> Iterable[Batch]:
            for batch in job.train_batches(epoch, start_batch):
                other = 1 - batch.target
                if share is not None:
                    yield batch._replace(mixed_target=other, mix=torch.full((len(other),), share))
                else:
                    yield batch._replace(target=other) if of_other_class else batch

        folder = tmp_path / f"{share}-{of_other_class}"
        torch.manual_seed(1)
        train(
            replace(job, train_batches=batches),
            Progress(),
            store_in(folder),
            lambda progress, values, epoch_ended: losses.append(values.get("train/loss", 0.0)),
        )
        return losses[0]

    own, other = first_loss(None), first_loss(None, of_other_class=True)
    assert own != pytest.approx(other)
    assert first_loss(1.0) == own
    assert first_loss(0.25) == pytest.approx(0.25 * own + 0.75 * other)


@pytest.mark.parametrize("stop_at", range(1, 2 * STEPS_PER_EPOCH))
def test_a_run_that_stops_at_any_step_ends_with_the_same_bits(
    make_job: MakeJob, tmp_path: Path, stop_at: int
) -> None:
    whole = make_job()
    train(whole, Progress(), store_in(tmp_path / "whole"), no_report)

    def stop(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if progress.step == stop_at and not epoch_ended:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_job(every_steps=1), Progress(), store_in(tmp_path / "part"), stop)
    torch.manual_seed(99)
    rest = make_job(every_steps=1)
    checkpoint = store_in(tmp_path / "part").load_last()
    progress = restore_run(rest, checkpoint.state) if checkpoint else Progress()
    assert progress.step == stop_at - 1
    train(rest, progress, store_in(tmp_path / "part"), no_report)
    assert weights_of(rest) == weights_of(whole)


@pytest.mark.parametrize("stop_at", [2, 3, 7])  # in the first epoch, at its end, in the third
@pytest.mark.parametrize(
    "options",
    [
        {
            "ema": 0.9,
            "accumulate": 2,
            "schedule": Named(name="plateau", args={"patience": 0, "threshold": 1.0}),
        },
        {
            "precision": FP16,
            "growth_interval": 4,
            "accumulate": 2,
            "clip_norm": 0.5,
            "schedule": Named(name="step"),
        },
    ],
    ids=["ema, accumulate, plateau", "fp16, accumulate, clip, step"],
)
def test_each_feature_goes_on_with_the_same_bits(
    make_job: MakeJob, tmp_path: Path, stop_at: int, options: dict[str, Any]
) -> None:
    whole = make_job(epochs=4, **options)
    rates: list[float] = []

    def note(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        rates.extend([] if epoch_ended else [values["lr"]])

    train(whole, Progress(), store_in(tmp_path / "whole"), note)

    def stop(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if progress.step == stop_at + 1 and not epoch_ended:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            make_job(epochs=4, every_steps=1, **options),
            Progress(),
            store_in(tmp_path / "part"),
            stop,
        )
    torch.manual_seed(99)
    rest = make_job(epochs=4, **options)
    checkpoint = store_in(tmp_path / "part").load_last()
    assert checkpoint is not None
    progress = restore_run(rest, checkpoint.state)
    assert progress.step == stop_at
    expected, rates = rates, []
    train(rest, progress, store_in(tmp_path / "part"), note)
    assert weights_of(rest) == weights_of(whole)
    assert sha256_of(rest.kept_model.state_dict()) == sha256_of(whole.kept_model.state_dict())
    assert rates == expected[stop_at:]
    assert rest.scaler.state_dict() == whole.scaler.state_dict()
    assert len(set(expected)) > 1


def test_sigterm_commits_a_checkpoint_at_the_step_and_then_means_what_it_meant(
    make_job: MakeJob, tmp_path: Path
) -> None:
    heard: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

    def kill(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        progress = Progress()
        train(make_job(), progress, store_in(tmp_path), kill)
    finally:
        signal.signal(signal.SIGTERM, previous)
    checkpoint = store_in(tmp_path).load_last()
    assert heard == [signal.SIGTERM]
    assert checkpoint is not None
    assert (checkpoint.state["step"], checkpoint.state["batch"], progress.step) == (3, 3, 3)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(bad_row=11)
    seen: list[str] = []

    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        seen.append(weights_of(job))

    before = weights_of(job)
    with pytest.raises(
        NotFiniteError,
        match=r"the loss is nan at step \d+ \(epoch 1\), from these rows of the pack: 11\.",
    ) as caught:
        train(job, Progress(), store_in(tmp_path), report)
    assert caught.value.rows == [11]
    assert weights_of(job) == (seen[-1] if seen else before)


def test_gradients_are_clipped_to_the_norm(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(epochs=1, optimizer=Named(name="sgd", args={"lr": 1.0}), clip_norm=1e-3)
    before = [parameter.detach().clone() for parameter in job.scorer.model.parameters()]
    train(job, Progress(), store_in(tmp_path), no_report)
    moved = torch.cat(
        [(a - b).flatten() for a, b in zip(before, job.scorer.model.parameters(), strict=True)]
    )
    assert moved.norm() <= STEPS_PER_EPOCH * 1e-3


def test_an_optimizer_with_a_closure_trains(make_job: MakeJob, tmp_path: Path) -> None:
    # Without dropout: with it each of its calls has another net, and where they lead depends on the
    # processor.
    job = make_job(epochs=3, dropout=0.0, optimizer=Named(name="lbfgs", args={"lr": 0.1}))
    progress = Progress()
    train(job, progress, store_in(tmp_path), no_report)
    assert progress.loss < 0.69


def test_evaluation_leaves_modes_and_random_states_as_it_found_them(make_job: MakeJob) -> None:
    job = make_job()
    job.scorer.model.train()
    job.scorer.model[1].eval()  # pyright: ignore[reportIndexIssue]
    modes = [module.training for module in job.scorer.model.modules()]
    before = random_states()
    found = evaluate(job.scorer, job.valid_batches())
    after = random_states()
    assert [module.training for module in job.scorer.model.modules()] == modes
    assert before["python"] == after["python"]
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"]["key"], after["numpy"]["key"])
    assert before["numpy"]["pos"] == after["numpy"]["pos"]
    assert found.outputs.shape == (NUM_ROWS, 2)
    assert torch.equal(found.outputs, evaluate(job.scorer, job.valid_batches()).outputs)


def test_without_validation_the_best_checkpoint_is_the_last(
    make_job: MakeJob, tmp_path: Path
) -> None:
    train(make_job(epochs=3, validates=False), Progress(), store_in(tmp_path), no_report)
    best, last = store_in(tmp_path).load_best(), store_in(tmp_path).load_last()
    assert best is not None
    assert last is not None
    assert best.folder == last.folder


def test_a_monitor_that_the_validation_rows_leave_undefined_is_refused(
    make_job: MakeJob, tmp_path: Path
) -> None:
    with pytest.raises(
        TrainingError,
        match=r"valid/r2 is not defined .*\(a class .*\); monitor another of valid/loss, valid",
    ):
        train(make_job(monitor="valid/r2"), Progress(), store_in(tmp_path), no_report)


def test_what_is_offered_in_place_of_an_undefined_monitor_may_be_monitored(
    make_job: MakeJob,
) -> None:
    values = {
        "valid/accuracy": 1.0,
        "valid/bias": 0.0,
        "valid/mean_shape_nme": 0.5,
        "rows_per_second": 9.0,
    }
    with pytest.raises(TrainingError, match=r"monitor another of valid/accuracy$"):
        check_monitor(make_job(monitor="valid/auroc"), values)


def test_a_job_may_measure_with_what_it_knows_of_the_rows(
    make_job: MakeJob, tmp_path: Path
) -> None:
    def measure(found: Evaluation) -> dict[str, float]:
        return {"largest_row": float(found.rows.max())}

    progress = Progress()
    train(
        make_job(measure=measure, monitor="valid/largest_row"),
        progress,
        store_in(tmp_path),
        no_report,
    )
    assert progress.best_metric == NUM_ROWS - 1


def test_the_best_checkpoint_outlives_the_newest_ones(make_job: MakeJob, tmp_path: Path) -> None:
    accuracies: list[float] = []

    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if epoch_ended:
            accuracies.append(values["valid/accuracy"])

    train(make_job(epochs=12), Progress(), store_in(tmp_path, keep=1), report)
    best = store_in(tmp_path).load_best()
    assert best is not None
    assert best.state["epoch"] == accuracies.index(max(accuracies)) + 1
    assert best.state["best_metric"] == max(accuracies)
    assert len(list(tmp_path.glob("step-*"))) == 2


def test_an_epoch_of_which_nothing_was_left_to_train_has_no_speed(
    make_job: MakeJob, tmp_path: Path
) -> None:
    reports: list[dict[str, float]] = []

    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        reports.extend([values] if epoch_ended else [])

    with pytest.raises(FaultError):
        faults.arm("train.epoch_done:raise")
        train(make_job(epochs=2, every_steps=1), Progress(), store_in(tmp_path), no_report)
    faults.arm("")
    job, checkpoint = make_job(epochs=2, every_steps=1), store_in(tmp_path).load_last()
    assert checkpoint is not None
    train(job, restore_run(job, checkpoint.state), store_in(tmp_path), report)
    assert ["rows_per_second" in values for values in reports] == [False, True]
    assert "train/epoch_loss" in reports[0]


@pytest.mark.parametrize("stop_at", [2, 5, 8])  # in the first epoch, at its end, in the second
def test_a_net_that_draws_its_depth_goes_on_with_the_same_draws(
    make_job: MakeJob, tmp_path: Path, stop_at: int
) -> None:
    options: dict[str, Any] = {"build": lambda: DynamicNet(2, 2, 8), "ema": 0.9}
    whole = make_job(**options)
    train(whole, Progress(), store_in(tmp_path / "whole"), no_report)

    def stop(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if progress.step == stop_at + 1 and not epoch_ended:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_job(every_steps=1, **options), Progress(), store_in(tmp_path / "part"), stop)
    rest = make_job(**options)
    rest.scorer.model(
        *next(iter(rest.train_batches(0, 0))).inputs
    )  # draws once too often, were it not for the state
    checkpoint = store_in(tmp_path / "part").load_last()
    assert checkpoint is not None
    train(rest, restore_run(rest, checkpoint.state), store_in(tmp_path / "part"), no_report)
    assert weights_of(rest) == weights_of(whole)
    assert sha256_of(rest.kept_model.state_dict()) == sha256_of(whole.kept_model.state_dict())


def test_evaluation_leaves_the_generator_of_a_net_as_it_found_it(make_job: MakeJob) -> None:
    job = make_job(build=lambda: DynamicNet(2, 2, 8))
    before = weights_of(job)  # the generator's state among them
    first = evaluate(job.scorer, job.valid_batches())
    assert torch.equal(first.outputs, evaluate(job.scorer, job.valid_batches()).outputs)
    assert weights_of(job) == before
    assert job.scorer.model.training


def test_outputs_that_are_not_finite_are_an_error_and_no_class(make_job: MakeJob) -> None:
    job = make_job()
    assert evaluate(job.scorer, job.valid_batches()).outputs.isfinite().all()

    def spoilt(value: float) -> Iterator[Batch]:
        for batch in job.valid_batches():
            inputs = batch.inputs[0].clone()
            inputs[batch.rows == 11] = value
            yield batch._replace(inputs=(inputs,))

    for value in (math.nan, math.inf):
        words = r"not finite for 1 of 40 rows, in these rows of the pack: 11\. .*inputs far outside"
        with pytest.raises(TrainingError, match=words):
            evaluate(job.scorer, spoilt(value))
    found = evaluate(job.scorer, spoilt(math.nan), must_be_finite=False)
    assert found.rows[~finite_rows(found.outputs)].tolist() == [11]
    narrow = replace(job.scorer, precision=job.scorer.precision._replace(name="bf16"))
    with torch.no_grad():
        next(narrow.model.parameters()).fill_(math.nan)
    words = (
        r"for all 40 rows.*0, 1, .*weights that have grown without bound, "
        r"or .* bf16, which overflows .*fp32\)"
    )
    with pytest.raises(TrainingError, match=words):
        evaluate(narrow, job.valid_batches())
