from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.evaluation import Evaluation
from torchrelay.engine.job import Progress, kept_weights
from torchrelay.engine.loop import train
from torchrelay.engine.optim.averaging import Average
from torchrelay.weights import sha256_of

from ..conftest import MakeJob


def no_report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
    pass


def test_an_average_warms_up_to_its_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
        average = Average(model, decay=0.15)
        seen = []
        for value in (1.0, 2.0, 4.0):
            model.weight.fill_(value)
            average.update()
            seen.append(average.model.state_dict()["weight"].item())
    # By hand, with the decays 1/10, min(0.15, 2/11) and min(0.15, 3/12).
    expected = [0.9, 0.15 * 0.9 + 0.85 * 2]
    assert seen == pytest.approx([*expected, 0.15 * expected[1] + 0.85 * 4])


def test_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(1, momentum=1.0)
    average = Average(model, decay=0.5)
    model.train()(torch.tensor([[2.0], [4.0]]))
    average.update()
    averaged = dict(average.model.named_buffers())
    assert averaged["running_mean"].item() == pytest.approx(0.9 * 3)
    assert averaged["num_batches_tracked"].item() == 1


def test_averaging_leaves_the_training_as_it_is(make_job: MakeJob, tmp_path: Path) -> None:
    digests = []
    for decay in (0.0, 0.9):
        job = make_job(ema=decay)
        train(job, Progress(), CheckpointStore(tmp_path / str(decay), 3, {}, {}), no_report)
        digests.append(sha256_of(job.scorer.model.state_dict()))
    assert digests[0] == digests[1]


def test_what_is_validated_and_kept_is_the_average(make_job: MakeJob, tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def measure(found: Evaluation) -> dict[str, float]:
        seen.append(found.outputs)
        return {"score": float(len(seen))}

    job = make_job(ema=0.9, measure=measure, monitor="valid/score")
    store = CheckpointStore(tmp_path, 3, {}, {})
    train(job, Progress(), store, no_report)
    assert job.average is not None
    best = store.load_best()
    assert best is not None
    with torch.inference_mode():
        expected = torch.cat([job.average.model(*batch.inputs) for batch in job.valid_batches()])
    torch.testing.assert_close(seen[-1], expected)
    assert sha256_of(kept_weights(best.state)) == sha256_of(job.kept_model.state_dict())
    assert sha256_of(kept_weights(best.state)) != sha256_of(best.state["model_state_dict"])
