"""The threads of a run: what decides their number, and that finding it leaves no trace in the
run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torchrelay import settings
from torchrelay.datasets.pack import View, open_view
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.hardware import USER_SETTINGS, WAITING_SETTINGS, random_states, usable_cores
from torchrelay.errors import RecipeError
from torchrelay.recipe import Recipe, load_recipe
from torchrelay.runs import Run, RunRecord, load_record, now, save_record
from torchrelay.tasks.assembly.threads import MEMORY_FILE, choose_threads, run_threads
from torchrelay.tasks.ingest import ingest_table

from ...conftest import WriteRecipe

needs_two_cores = pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")


@pytest.fixture(autouse=True)
def nobody_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*USER_SETTINGS, *WAITING_SETTINGS):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(len(usable_cores()))
    yield
    torch.set_num_threads(before)


def _prepare(path: Path, **overrides: Any) -> tuple[Recipe, View]:
    recipe = load_recipe(path, None, {"train.device": "cpu", **overrides})
    data = ingest_table.fn(recipe).first
    return recipe, open_view(data.pack_dir, data.split_dir)


@needs_two_cores
@pytest.mark.parametrize("kind", ["number_recipe", "graph_recipe"])
def test_the_number_is_found_once_and_the_trial_leaves_the_random_states_alone(
    kind: str, request: pytest.FixtureRequest
) -> None:
    recipe, view = _prepare(request.getfixturevalue(kind)())
    before = random_states()
    found = choose_threads(recipe, view)
    assert "ms a step" in found.reason or "other work" in found.reason
    assert str(random_states()) == str(before)
    memory = json.loads((settings.home().cache / MEMORY_FILE).read_text())
    [key] = memory.keys() - {"digest"}
    assert memory[key] == found._asdict()
    kept = {key: {"number": 2, "reason": "remembered"}}
    (settings.home().cache / MEMORY_FILE).write_text(json.dumps(kept))
    assert choose_threads(recipe, view) == (2, "remembered")
    larger = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_size": 32})})
    assert choose_threads(larger, view).reason != "remembered"


def test_recipe_and_user_are_asked_before_anything_is_measured(
    number_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, view = _prepare(number_recipe(), **{"train.threads": 3})
    assert choose_threads(recipe, view) == (3, "as train.threads says")
    recipe, view = _prepare(number_recipe())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    assert choose_threads(recipe, view) == (1, "as OMP_NUM_THREADS=1 says")
    assert not (settings.home().cache / MEMORY_FILE).exists()


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", 2000, "", True])
def test_a_number_of_threads_that_is_none_is_refused(
    number_recipe: WriteRecipe, value: object
) -> None:
    with pytest.raises(
        RecipeError,
        match=r"train\.threads: .*(expected auto, or a number of threads from 1 to 1024|.*str)",
    ):
        load_recipe(number_recipe(), None, {"train.threads": value})


def test_a_run_keeps_its_number_whatever_is_set_where_it_goes_on(
    number_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, view = _prepare(number_recipe())
    run_dir = tmp_path / "home" / "runs" / "numbers-1"
    record = RunRecord(
        run_id="numbers-1", name="numbers", experiment="numbers", created=now(), threads=3
    )
    save_record(settings.home(), record)
    Run(run_dir).write_recipe(recipe)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    with run_threads(Run(run_dir), view) as cores:
        assert torch.get_num_threads() == 3
        assert (load_record(run_dir).threads, load_record(run_dir).waiting) == (3, cores.waiting)
    assert torch.get_num_threads() == 1


def test_a_run_of_before_records_named_it_keeps_the_number_of_its_checkpoint(
    number_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe, view = _prepare(number_recipe())
    run_dir = tmp_path / "home" / "runs" / "numbers-1"
    record = RunRecord(run_id="numbers-1", name="numbers", experiment="numbers", created=now())
    save_record(settings.home(), record)
    Run(run_dir).write_recipe(recipe)
    CheckpointStore(run_dir / "checkpoints", 1, {}, {"num_threads": "5"}).save(
        {"step": 1}, 1, is_best=False
    )
    with run_threads(Run(run_dir), view):
        assert torch.get_num_threads() == 5
    assert load_record(run_dir).threads == 5


def test_a_model_that_cannot_take_a_step_is_left_for_the_training_to_tell(
    insect_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe, view = _prepare(insect_recipe("insects", ["a", "b"], ["red", "blue"]))
    (tmp_path / "broken_nets.py").write_text(
        "class Net:\n    def __init__(self, *a):\n        raise KeyError('no')\n"
    )
    broken = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"name": "broken_nets:Net"})}
    )
    assert choose_threads(broken, view) == (torch.get_num_threads(), "all cores")
