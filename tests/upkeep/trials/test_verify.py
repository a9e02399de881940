from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import open_view
from torchrelay.recipe import load_recipe
from torchrelay.settings import home
from torchrelay.upkeep.trials.verify import (
    Outcome,
    draw_moments,
    first_difference,
    in_child,
    shorten_training,
)

WriteRecipe = Callable[..., Path]

POINTS = {("train/loss", 1): 0.5, ("train/loss", 2): 0.25, ("valid/auroc", 2): math.nan}

# A net whose noise nobody can restore.
RESTLESS_NET = """
import os
from torch import nn


class Restless(nn.Module):
    def __init__(self, schema, num_outputs):
        super().__init__()
        self.layer = nn.Linear(2, num_outputs)

    def forward(self, x):
        return self.layer(x) + os.urandom(1)[0] / 255
"""


def outcome(**changes: object) -> Outcome:
    return Outcome("aaa", "bbb", dict(POINTS), [])._replace(**changes)


def test_the_same_outcome_has_no_difference_although_nan_is_not_nan() -> None:
    assert first_difference(outcome(), outcome()) == ""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (outcome(last="ccc"), "the last weights are ccc instead of aaa"),
        (outcome(best="ccc"), "the best weights are ccc instead of bbb"),
        (
            outcome(points={**POINTS, ("train/loss", 2): 0.2500001}),
            "at step 2 is 0.2500001 instead of 0.25",
        ),
        (
            outcome(points={at: value for at, value in POINTS.items() if at[1] == 2}),
            "step 1 is missing",
        ),
        (outcome(points={**POINTS, ("train/loss", 3): 0.1}), "step 3 is one too many"),
        (outcome(doubled=[("train/loss", 2)]), "step 2 stands in the journal more than once"),
    ],
)
def test_the_first_difference_is_named(found: Outcome, said: str) -> None:
    assert said in first_difference(outcome(), found)


def test_a_long_run_is_shortened_by_leaving_out_rows_evenly(
    number_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = load_recipe(
        number_recipe(num_rows=400, tracking={"register": "numbers"}),
        None,
        {"train.max_minutes": 5},
    )
    data = prepare_data(recipe.data, home())
    short, shorter = shorten_training(recipe, data, 20, tmp_path / "short")
    assert (short.train.epochs, short.checkpoint.every_steps) == (2, 2)
    assert (short.train.max_minutes, short.tracking.register_as) == (0, "")
    whole = open_view(data.pack_dir, data.split_dir).rows["train"]
    rows = open_view(shorter.pack_dir, shorter.split_dir).rows
    assert shorter.rows["train"] == len(rows["train"]) == 20 // 2 * recipe.train.batch_size
    assert np.isin(rows["train"], whole).all()
    assert (rows["train"][0], rows["train"][-1]) == (whole[0], whole[-1])


def test_a_short_run_is_taken_with_all_its_rows(number_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = load_recipe(number_recipe(num_rows=100))
    data = prepare_data(recipe.data, home())
    short, shorter = shorten_training(recipe, data, 60, tmp_path / "short")
    assert shorter.rows == data.rows
    assert short.train.epochs == math.ceil(60 / math.ceil(data.rows["train"] / 8))


def test_kills_come_in_their_order_and_leave_each_a_step_to_die_in() -> None:
    for seed in range(200):
        moments = draw_moments(4, 14, 0.5, random.Random(seed))
        steps = [step for step, _ in moments]
        assert steps == sorted(steps)
        assert all(1 <= step <= latest for step, latest in zip(steps, (2, 5, 8, 11), strict=True))
        assert all(0 <= delay <= 1 for _, delay in moments)


@pytest.mark.slow
def test_more_kills_than_a_run_has_room_for_are_refused(number_recipe: WriteRecipe) -> None:
    done = _verify_resume(number_recipe(num_rows=20), "--kills", "9", "--set", "train.epochs=3")
    assert done.returncode == 2
    assert "9 kills are too many for a run of " in done.stderr
    assert not list(home().root.glob("verify-*"))


@pytest.mark.slow
def test_killed_runs_are_found_identical_and_leave_nothing_behind(
    number_recipe: WriteRecipe,
) -> None:
    done = _verify_resume(number_recipe(), "--kills", "2", "--steps", "40", "--seed", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"]
    assert len(found["kills"]) == 2
    assert all(
        kill["goes_on_from"] <= kill["step"] + 2 <= found["steps"] for kill in found["kills"]
    )
    assert found["kills"][0]["step"] <= found["kills"][1]["step"]
    assert found["weights_sha256"][0] == found["weights_sha256"][1]
    assert "identical after 2 kills" in done.stderr
    assert not list(home().root.glob("verify-*"))
    assert not home().runs.exists()


@pytest.mark.slow
def test_a_run_that_cannot_be_repeated_is_found_out(
    number_recipe: WriteRecipe, tmp_path: Path
) -> None:
    (tmp_path / "restless.py").write_text(RESTLESS_NET)
    recipe = number_recipe(model={"name": "restless:Restless"})
    done = _verify_resume(recipe, "--kills", "1", "--steps", "30", "--seed", "1")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert not found["identical"]
    assert found["first_difference"].startswith("train/loss at step 1 is ")
    assert Path(found["folder"], "killed", "runs").is_dir()


def _verify_resume(recipe: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        Path(sys.executable).parent / "torchrelay",
        "verify-resume",
        recipe,
        *options,
        "--json",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)


@pytest.mark.slow
def test_children_that_several_threads_kill_say_so(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as threads:
        codes = list(threads.map(lambda _: in_child(tmp_path, 0.05, "", time.sleep, 60), range(60)))
    assert codes == [-signal.SIGKILL] * 60
