from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.job import Job, Progress, restore_run
from torchrelay.engine.loop import train
from torchrelay.engine.optim.averaging import Average
from torchrelay.engine.optim.freezing import NORMS, Frozen, learning_rate_factors
from torchrelay.engine.optim.optimizers import OPTIMIZERS, build_optimizer
from torchrelay.engine.optim.schedules import after_step, build_schedule
from torchrelay.errors import RecipeError
from torchrelay.recipe import Named
from torchrelay.weights import sha256_of

from ..conftest import MakeJob

BODY = ["0.*", "1.*"]


def net_with_norm() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)
    )


def frozen_job(
    make_job: MakeJob, *, thaw_after: int = 0, epochs: int = 3, optimizer: str = "adamw"
) -> Job:
    """A job whose first layer and norm are frozen, with decay and momentum that would move them."""
    job = make_job(epochs=epochs)
    torch.manual_seed(1)
    model = net_with_norm()
    chosen = build_optimizer(
        Named(name=optimizer, args={"lr": 0.05, "weight_decay": 0.1}), model.parameters()
    )
    return replace(
        job,
        scorer=replace(job.scorer, model=model),
        optimizer=chosen,
        scheduler=build_schedule(Named(name="constant"), chosen, 1),
        average=Average(model, 0.9),
        frozen=Frozen(model, BODY, thaw_after),
    )


def run(job: Job, folder: Path, progress: Progress | None = None) -> CheckpointStore:
    store = CheckpointStore(folder, 3, {"run_id": "tiny"}, {})
    train(job, progress or Progress(), store, lambda progress, values, epoch_ended: None)
    return store


def weight_of(job: Job, part: str) -> torch.Tensor:
    return job.scorer.model.state_dict()[f"{part}.weight"]


def body_of(job: Job) -> dict[str, torch.Tensor]:
    return {
        key: value.clone() for key, value in job.scorer.model.state_dict().items() if key[0] in "01"
    }


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_is_frozen_keeps_its_bits_and_the_optimizer_nothing_for_it(
    make_job: MakeJob, tmp_path: Path, optimizer: str
) -> None:
    job = frozen_job(make_job, optimizer=optimizer)
    before, head = body_of(job), weight_of(job, "4").clone()
    run(job, tmp_path)
    after = body_of(job)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert after["1.num_batches_tracked"] == 0
    assert not torch.equal(weight_of(job, "4"), head)
    known = {id(parameter) for parameter in job.optimizer.state}
    assert known <= {
        id(parameter) for parameter in job.scorer.model.get_submodule("4").parameters()
    }
    assert all(torch.equal(job.kept_model.state_dict()[key], before[key]) for key in before)
    assert job.scorer.model.get_submodule("3").training  # dropout goes on


def test_it_thaws_exactly_at_its_epoch(make_job: MakeJob, tmp_path: Path) -> None:
    job = frozen_job(make_job, thaw_after=1)
    before = body_of(job)
    moved: dict[int, bool] = {}

    def watch(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if not epoch_ended:
            moved[progress.step] = not torch.equal(weight_of(job, "0"), before["0.weight"])

    train(job, Progress(), CheckpointStore(tmp_path, 3, {"run_id": "tiny"}, {}), watch)
    assert moved == {step: step > 5 for step in range(1, 16)}
    assert body_of(job)["1.num_batches_tracked"] == 10


def test_resumed_over_a_thaw_it_equals_an_uninterrupted_run(
    make_job: MakeJob, tmp_path: Path
) -> None:
    whole = frozen_job(make_job, thaw_after=2, epochs=4)
    run(whole, tmp_path / "whole")
    for epochs in (1, 2, 3):
        store = run(frozen_job(make_job, thaw_after=2, epochs=epochs), tmp_path / str(epochs))
        checkpoint = store.load_last()
        resumed = frozen_job(make_job, thaw_after=2, epochs=4)
        progress = restore_run(resumed, checkpoint.state)
        run(resumed, tmp_path / f"resumed {epochs}", progress)
        for model in ("scorer", "kept_model"):
            one, other = getattr(resumed, model), getattr(whole, model)
            states = [getattr(found, "model", found).state_dict() for found in (one, other)]
            assert sha256_of(states[0]) == sha256_of(states[1]), (epochs, model)


def test_a_norm_is_held_where_all_its_parameters_are_frozen_and_goes_on_where_one_is_not() -> None:
    model = nn.Sequential(
        nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False), nn.InstanceNorm1d(2), nn.Linear(2, 1)
    )
    held = {"0.weight": [False] * 3, "0.*": [True, False, False], "[01].*": [True, True, False]}
    for pattern, expected in held.items():
        model.train()
        Frozen(model, [pattern], 0).hold(0)
        assert [not part.training for part in list(model)[:3]] == expected, pattern


def test_to_freeze_everything_or_nothing_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"warm_start.freeze: \* leaves none of the model's 6 parameters to train"
    ):
        Frozen(net_with_norm(), ["*"], 3)
    with pytest.raises(RecipeError, match=r"warm_start.freeze: 'body.\*' fits no key"):
        Frozen(net_with_norm(), ["body.*"], 0)


def test_groups_have_their_multiple_of_the_rate_all_the_way_of_a_schedule() -> None:
    model = net_with_norm()
    factors = learning_rate_factors(model, {"0.bias": 0.0, "[01].*": 0.1, "4.*": 2})
    optimizer = build_optimizer(Named(name="adam", args={"lr": 0.5}), model.parameters(), factors)
    assert [[tuple(p.shape) for p in group["params"]] for group in optimizer.param_groups] == [
        [],
        [(8, 2), (8,), (8,)],
        [(8,)],
        [(2, 8), (2,)],
    ]
    schedule = build_schedule(Named(name="cosine"), optimizer, 4)
    # Half a cosine over 4 steps: (1 + cos(k pi / 4)) / 2.
    for factor in (1.0, 0.8535533906, 0.5, 0.1464466094):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.5 * factor, 0.05 * factor, 0.0, 1.0 * factor])
        model(torch.ones(2, 2)).sum().backward()
        optimizer.step()
        after_step(schedule)


def test_without_a_rate_in_the_recipe_groups_multiply_torchs_own() -> None:
    model = nn.Linear(2, 1)
    for name, kind in OPTIMIZERS.items():
        if name in ("lbfgs", "sparseadam", "muon"):
            continue
        plain = build_optimizer(Named(name=name), model.parameters()).param_groups[0]["lr"]
        grouped = build_optimizer(Named(name=name), model.parameters(), {model.bias: 0.5})
        assert [group["lr"] for group in grouped.param_groups] == [plain, 0.5 * plain], kind


def test_rates_that_fit_no_parameter_or_train_nothing_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"warm_start.lr_factors: '1.running_mean' fits no key"):
        learning_rate_factors(net_with_norm(), {"1.running_mean": 2.0})
    with pytest.raises(
        RecipeError, match=r"warm_start.lr_factors: \* give all of the model's 6 parameters a .* 0"
    ):
        learning_rate_factors(net_with_norm(), {"*": 0.0})
    assert set(learning_rate_factors(net_with_norm(), {"0.*": 0.0}).values()) == {0.0}


def test_every_norm_of_torch_that_keeps_statistics_is_one_of_the_norms() -> None:
    kinds = [kind for name, kind in vars(nn).items() if re.search("(Batch|Instance)Norm", name)]
    lasting = [kind for kind in kinds if "Lazy" not in kind.__name__]
    assert len(lasting) == 7
    assert all(issubclass(kind, NORMS) for kind in lasting)
    assert all(hasattr(kind(2), "track_running_stats") for kind in lasting)
