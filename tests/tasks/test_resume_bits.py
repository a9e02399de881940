"""Each way to train, stopped within an epoch, ends with the bits of a run that was not stopped;
without any server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from torchrelay.datasets.batches import PackDataset
from torchrelay.datasets.pack import View, open_view
from torchrelay.engine import Job, Progress, restore_run, state_of_run, train
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.errors import CheckpointError
from torchrelay.recipe import Recipe, load_recipe
from torchrelay.tasks.assembly import build_job, why_not_identical
from torchrelay.tasks.ingest import ingest_table
from torchrelay.weights import sha256_of

from ..conftest import WriteRecipe

MIX = [{"name": "flip", "args": {}}, {"name": "mixup", "args": {}}, {"name": "cutmix", "args": {}}]
PLATEAU = {"name": "plateau", "args": {"patience": 0, "threshold": 1.0}}

# Recipe, changes of it, and the step at which the run is stopped: in an epoch, never at its end.
WAYS: dict[str, tuple[str, dict[str, Any], int]] = {
    "mixup, cutmix, bf16, accumulate, ema": (
        "pictures",
        {"train.augment": MIX, "train.precision": "bf16", "train.accumulate": 2, "train.ema": 0.9},
        3,
    ),
    "balanced draws, workers": (
        "pictures",
        {"train.sampling": "balanced", "train.num_workers": 2},
        4,
    ),
    "a net that draws its depth, plateau": (
        "numbers",
        {
            "model": {"name": "dynamic_net", "args": {"hidden": 8}},
            "train.schedule": PLATEAU,
            "train.epochs": 3,
        },
        13,
    ),
    "one cycle, dropout, early stop": (
        "numbers",
        {
            "model.args": {"hidden": [8], "dropout": 0.3},
            "train.schedule.name": "one_cycle",
            "train.epochs": 4,
            "train.early_stop_epochs": 1,
        },
        11,
    ),
    "frozen, then thawed": (
        "insects",
        {
            "warm_start.freeze": ["body.*"],
            "warm_start.thaw_after": 1,
            "train.epochs": 3,
            "train.accumulate": 2,
        },
        5,
    ),
    "triples with negatives": (
        "graph",
        {"model": {"name": "transe", "args": {"dim": 8, "negatives": 4}}, "train.epochs": 3},
        7,
    ),
}


class StoppedError(Exception):
    pass


@pytest.fixture
def recipe_of(
    picture_recipe: WriteRecipe,
    number_recipe: WriteRecipe,
    insect_recipe: WriteRecipe,
    graph_recipe: WriteRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(tmp_path))
    write = {
        "pictures": picture_recipe,
        "numbers": number_recipe,
        "insects": lambda: insect_recipe("insects", ["ant", "bee"], ["red", "blue"]),
        "graph": graph_recipe,
    }
    yield lambda name, changes: load_recipe(write[name](), None, changes)
    sys.modules.pop("nets_with_norm", None)


def build(recipe: Recipe, is_new: bool = True) -> tuple[Job, View]:
    data = ingest_table.fn(recipe).first
    view = open_view(data.pack_dir, data.split_dir)
    return build_job(recipe, view, recipe.train.epochs, is_new=is_new), view


def store_in(folder: Path) -> CheckpointStore:
    return CheckpointStore(folder, 3, {"run_id": "tiny"}, {})


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_stopped_within_an_epoch_ends_with_the_same_bits(
    recipe_of: Any, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, changes, stop_at = WAYS[way]
    recipe = recipe_of(name, {**changes, "checkpoint.every_steps": 1})
    reports: list[tuple[int, dict[str, float]]] = []

    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        reports.append(
            (progress.step, {key: x for key, x in values.items() if key != "rows_per_second"})
        )

    whole, _ = build(recipe)
    train(whole, Progress(), store_in(tmp_path / "whole"), report)
    expected, reports[:] = reports.copy(), []

    def stop(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if progress.step == stop_at + 1:
            raise StoppedError
        report(progress, values, epoch_ended)

    with pytest.raises(StoppedError):
        train(build(recipe)[0], Progress(), store_in(tmp_path / "part"), stop)
    torch.manual_seed(99)
    checkpoint = store_in(tmp_path / "part").load_last()
    assert checkpoint is not None
    rest, view = build(
        recipe.model_copy(update={"train": recipe.train.model_copy(update={"num_workers": 0})}),
        False,
    )
    progress = restore_run(rest, checkpoint.state)
    assert progress.step == stop_at
    assert progress.batch > 0

    fetched: list[int] = []
    gather = PackDataset.__getitems__

    def count(self: PackDataset, indices: Any) -> Any:
        if len(self) == len(PackDataset(view.pack, view.schema, view.rows["train"])):
            fetched.append(torch.as_tensor(indices).shape[-1])
        return gather(self, indices)

    epoch, batch = progress.epoch, progress.batch
    monkeypatch.setattr(PackDataset, "__getitems__", count)
    for _ in rest.train_batches(epoch, batch):
        pass
    num_rows = len(PackDataset(view.pack, view.schema, view.rows["train"]))
    assert (
        sum(fetched) == num_rows - batch * recipe.train.batch_size
    )  # what is done is not even looked at
    monkeypatch.undo()

    train(rest, progress, store_in(tmp_path / "part"), report)
    assert reports == expected
    assert sha256_of(rest.scorer.model.state_dict()) == sha256_of(whole.scorer.model.state_dict())
    assert sha256_of(rest.kept_model.state_dict()) == sha256_of(whole.kept_model.state_dict())


def test_a_checkpoint_of_other_data_is_refused(recipe_of: Any) -> None:

    job, _ = build(recipe_of("numbers", {}))
    ours = replace(job, facts={"data_fingerprint": "aa", "run_id": "one"})
    state = state_of_run(ours, Progress(step=3))
    assert state["facts"] == {"data_fingerprint": "aa", "run_id": "one"}
    assert restore_run(ours, state).step == 3
    with pytest.raises(
        CheckpointError, match="step 3 was trained on data with the fingerprint aa, the pack has bb"
    ):
        restore_run(replace(job, facts={"data_fingerprint": "bb"}), state)
    other, _ = build(recipe_of("numbers", {"model.args": {"hidden": [4]}}))
    with pytest.raises(CheckpointError, match="step 3 does not fit the model"):
        restore_run(other, state)


def test_a_changed_rate_and_decay_count_from_the_resume_on(recipe_of: Any) -> None:

    first, then = {"lr": 0.02, "weight_decay": 0.0}, {"lr": 0.01, "weight_decay": 0.1}
    job, _ = build(recipe_of("numbers", {"train.optimizer": {"name": "adam", "args": first}}))
    state = state_of_run(job, Progress(step=3))
    other, _ = build(recipe_of("numbers", {"train.optimizer": {"name": "adam", "args": then}}))
    restore_run(other, state)
    [group] = other.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)


@pytest.mark.parametrize(
    ("device", "is_deterministic", "why"),
    [
        ("cpu", False, ""),
        ("cuda", True, ""),
        (
            "cuda",
            False,
            "on cuda sums come in another order each time; runs with train.deterministic do not "
            "have that",
        ),
        ("mps", True, "on mps sums come in another order each time"),
    ],
)
def test_where_the_same_bits_are_not_promised_the_resumed_run_says_so(
    device: str, is_deterministic: bool, why: str
) -> None:
    here = {"device": device, "num_threads": "2"}
    assert why_not_identical(here, here, is_deterministic=is_deterministic) == why
    moved = why_not_identical({**here, "num_threads": "1"}, here, is_deterministic=is_deterministic)
    assert moved == "num_threads changed since the checkpoint"
