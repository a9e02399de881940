from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cases import write_recipe

from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import View, open_view
from torchrelay.engine import OnStep, Progress, restore_run, train
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.recipe import Recipe, load_recipe
from torchrelay.settings import home
from torchrelay.tasks.assembly import build_job
from torchrelay.weights import sha256_of, state_of

NUM_STEPS = 40

Points = dict[tuple[str, int], float]


@pytest.fixture
def ingested(tmp_path: Path) -> tuple[Recipe, View]:
    """A net with dropout, averaged, its batches accumulated: 40 steps in four epochs."""
    path = write_recipe(
        tmp_path, "mlp-dropout", train={"epochs": 4, "ema": 0.9, "accumulate": 2, "batch_size": 4}
    )
    recipe = load_recipe(path)
    data = prepare_data(recipe.data, home())
    return recipe, open_view(data.pack_dir, data.split_dir)


def test_a_run_resumed_at_any_step_ends_with_the_same_weights_and_metrics(
    ingested: tuple[Recipe, View], tmp_path: Path
) -> None:
    recipe, view = ingested
    points: Points = {}
    job = replace(build_job(recipe, view, 4), every_steps=1)
    store = CheckpointStore(tmp_path / "checkpoints", NUM_STEPS, {}, {})
    progress = Progress()
    states = []

    def report_and_look(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        _recorder(points)(progress, values, epoch_ended=epoch_ended)
        if not epoch_ended and (found := store.load_last()) is not None:
            states.append(found.state)

    train(job, progress, store, report_and_look)
    assert progress.step == NUM_STEPS
    assert [state["step"] for state in states] == list(range(1, NUM_STEPS))
    expected = sha256_of(state_of(job.kept_model))
    for state in states:
        again = replace(build_job(recipe, view, 4, is_new=False), every_steps=0, every_epochs=100)
        resumed = dict(points)
        train(again, restore_run(again, state), store, _recorder(resumed))
        assert sha256_of(state_of(again.kept_model)) == expected, f"resumed at step {state['step']}"
        assert resumed == points, f"resumed at step {state['step']}"


def test_a_job_that_is_not_restored_ends_with_other_weights(
    ingested: tuple[Recipe, View], tmp_path: Path
) -> None:
    recipe, view = ingested
    digests = set()
    for seed in (0, 1):
        changed = recipe.model_copy(
            update={"train": recipe.train.model_copy(update={"seed": seed})}
        )
        job = build_job(changed, view, 4)
        train(job, Progress(), CheckpointStore(tmp_path / str(seed), 1, {}, {}), _recorder({}))
        digests.add(sha256_of(state_of(job.kept_model)))
    assert len(digests) == 2


def _recorder(points: Points) -> OnStep:
    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        points.update(
            {
                (key, progress.step): value
                for key, value in values.items()
                if key != "rows_per_second"
            }
        )

    return report
