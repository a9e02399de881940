from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.gradients import NotFiniteError
from torchrelay.engine.hardware import FP16
from torchrelay.engine.job import Job, Progress
from torchrelay.engine.loop import train
from torchrelay.recipe import Named

from .conftest import NUM_ROWS, MakeJob

SGD = Named(name="sgd", args={"lr": 0.3})


def run(job: Job, folder: Path) -> tuple[Progress, list[float]]:
    """Train to the end; where the run stands, and the loss of each step."""
    losses: list[float] = []

    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        losses.extend([] if epoch_ended else [values["train/loss"]])

    progress = Progress()
    train(job, progress, CheckpointStore(folder, 3, {}, {}), report)
    return progress, losses


@pytest.mark.parametrize(
    "sizes", [[8] * 5, [8, 3, 8, 8, 8, 5]], ids=["a smaller last group", "batches of other sizes"]
)
@pytest.mark.parametrize("clip_norm", [0.0, 0.1])
def test_several_batches_make_the_step_of_one_that_has_their_rows(
    make_job: MakeJob, tmp_path: Path, sizes: list[int], clip_norm: float
) -> None:
    together = [sum(sizes[at : at + 2]) for at in range(0, len(sizes), 2)]
    args = {"optimizer": SGD, "dropout": 0.0, "clip_norm": clip_norm, "epochs": 3}
    parts = make_job(sizes=sizes, accumulate=2, **args)
    whole = make_job(sizes=together, **args)
    progress, losses = run(parts, tmp_path / "parts")
    expected, expected_losses = run(whole, tmp_path / "whole")
    assert progress.step == expected.step == 3 * len(together)
    assert losses == pytest.approx(expected_losses)
    torch.testing.assert_close(parts.scorer.model.state_dict(), whole.scorer.model.state_dict())


def test_the_step_of_a_sum_is_that_of_the_sum_over_all_rows_of_all_its_batches(
    make_job: MakeJob, tmp_path: Path
) -> None:
    args = {"optimizer": Named(name="sgd_by_hand", args={"lr": 0.01}), "dropout": 0.0, "epochs": 1}
    summed = make_job(sizes=[16, 3, 21], accumulate=3, reduction="sum", **args)
    before = [
        weight.detach().clone().requires_grad_() for weight in summed.scorer.model.parameters()
    ]
    job = make_job(sizes=[NUM_ROWS], **args)
    [batch] = job.train_batches(0, 0)
    loss = job.loss(job.scorer.model(*batch.inputs), batch.target).sum()
    gradients = torch.autograd.grad(loss, list(job.scorer.model.parameters()))
    progress, losses = run(summed, tmp_path)
    assert losses == pytest.approx([loss.item()])
    assert progress.loss == pytest.approx(loss.item())  # of an epoch too
    for old, gradient, new in zip(before, gradients, summed.scorer.model.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.01 * gradient)


def test_an_epochs_sum_goes_over_its_steps(make_job: MakeJob, tmp_path: Path) -> None:
    progress, losses = run(make_job(epochs=2, reduction="sum", accumulate=2, dropout=0.0), tmp_path)
    assert progress.loss == pytest.approx(sum(losses[3:]))


def test_an_optimizer_with_a_closure_sees_the_rows_of_all_its_batches(
    make_job: MakeJob, tmp_path: Path
) -> None:
    args = {"optimizer": Named(name="lbfgs", args={"lr": 0.1, "max_iter": 3}), "dropout": 0.0}
    parts, whole = make_job(accumulate=5, **args), make_job(sizes=[NUM_ROWS], **args)
    run(parts, tmp_path / "parts")
    run(whole, tmp_path / "whole")
    torch.testing.assert_close(
        parts.scorer.model.state_dict(), whole.scorer.model.state_dict(), rtol=1e-4, atol=1e-5
    )


def test_a_bad_row_in_any_of_the_batches_stops_before_the_weights_are_touched(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(accumulate=5, bad_row=11)
    before = {name: value.clone() for name, value in job.scorer.model.state_dict().items()}
    with pytest.raises(
        NotFiniteError,
        match=r"the loss is nan at step 1 \(epoch 1\), from these rows of the pack: 11\.",
    ):
        run(job, tmp_path)
    torch.testing.assert_close(job.scorer.model.state_dict(), before, rtol=0, atol=0)


def test_fp16_with_a_scaler_learns_what_fp32_learns(make_job: MakeJob, tmp_path: Path) -> None:
    half = make_job(epochs=4, precision=FP16, dropout=0.0, clip_norm=1.0)
    single = make_job(epochs=4, dropout=0.0, clip_norm=1.0)
    assert half.scaler.is_enabled()
    assert not single.scaler.is_enabled()
    _, losses = run(half, tmp_path / "half")
    _, expected = run(single, tmp_path / "single")
    assert losses == pytest.approx(expected, rel=0.01)


def test_a_step_whose_scaled_gradients_overflow_changes_no_weight_and_counts(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(epochs=1, precision=FP16, ema=0.9, scaler=GradScaler("cpu", init_scale=2.0**127))
    before = {name: value.clone() for name, value in job.scorer.model.state_dict().items()}
    scales: list[float] = []

    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        scales.append(job.scaler.get_scale())
        if progress.step <= 3 and not epoch_ended:
            torch.testing.assert_close(job.scorer.model.state_dict(), before, rtol=0, atol=0)

    progress = Progress()
    train(job, progress, CheckpointStore(tmp_path, 3, {}, {}), report)
    assert progress.step == job.steps_per_epoch
    assert scales[:3] == [2.0**126, 2.0**125, 2.0**124]
    assert job.average is not None
    assert job.average.state_dict()["num_updates"] == 0


def test_gradients_that_no_scale_makes_finite_stop_the_run(
    make_job: MakeJob, tmp_path: Path
) -> None:
    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        return (
            outputs.sum(dim=1).float() * 0 + (outputs.sum(dim=1) * 0).sqrt()
        )  # 0, with a slope of 0 / 0

    job = replace(make_job(precision=FP16, scaler=GradScaler("cpu", init_scale=4.0)), loss=loss)
    with pytest.raises(
        NotFiniteError, match=r"gradients are not finite at a loss scale of 1 at step 3 \(epoch 1\)"
    ):
        run(job, tmp_path)
