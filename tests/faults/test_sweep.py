"""Every named point, each way to die there: the run goes on and ends as one that nothing
disturbed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from cases import write_recipe
from harness import KilledRun, difference

from torchrelay.faults import ACTIONS, all_points

# The time at which a point that is reached often is armed: in the middle of an epoch, with a
# checkpoint behind it.
NUMBERS = {
    **dict.fromkeys(("train.batch_ready", "train.stepped", "train.reported"), 9),
    **dict.fromkeys(
        ("train.epoch_done", "train.validated", "journal.buffered", "journal.flushed"), 2
    ),
    **{point: 2 for point in all_points() if point.startswith("checkpoint.")},
    "checkpoint.best_moved": 1,  # the first epoch is the best
}
# In the thread that sends the journal: no tracker's failure ends a run.
BESIDE = ("ship.", "register.model_logged", "register.version_created", "register.alias_set")
EXIT_CODES = {"kill": {-9}, "term": {143}, "raise": {1}}
QUICK = {("checkpoint.state_written", "kill")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], KilledRun]:
    """A run that nothing disturbs, one for each registered model's name."""
    folder = tmp_path_factory.mktemp("uninterrupted")

    @cache
    def train(register: str) -> KilledRun:
        killed_run = KilledRun(
            folder / f"uninterrupted-{register}", _recipe(folder / register, register)
        )
        assert killed_run.go_on().code == 0, killed_run.log
        return killed_run

    return train


def _recipe(folder: Path, register: str) -> Path:
    tracking = {"register": register} if register else {}
    return write_recipe(folder, "cnn", checkpoint={"every_steps": 4}, tracking=tracking)


def _sweep() -> list[object]:
    return [
        pytest.param(point, action, marks=[] if (point, action) in QUICK else pytest.mark.slow)
        for point in all_points()
        for action in ACTIONS
    ]


@pytest.mark.parametrize(("point", "action"), _sweep())
@pytest.mark.slow
def test_a_run_that_died_at_a_point_ends_as_if_it_had_not(
    point: str, action: str, uninterrupted: Callable[[str], KilledRun], tmp_path: Path
) -> None:
    register = "digits" if point.startswith("register.") else ""
    killed_run = KilledRun(tmp_path / "home", _recipe(tmp_path, register))
    if point in ("run.recipe_changed", "run.reopened"):  # a run that died before
        assert killed_run.go_on("train.stepped:kill:6").code == -9, killed_run.log
    died = killed_run.go_on(f"{point}:{action}:{NUMBERS.get(point, 1)}")
    assert died.was_reached, f"{point} was never reached\n{killed_run.log}"
    assert died.code in EXIT_CODES[action] | ({0} if point.startswith(BESIDE) else set()), (
        killed_run.log
    )
    ended = killed_run.go_on()
    assert ended.code == 0, killed_run.log
    assert difference(uninterrupted(register), killed_run) == ""
    assert killed_run.tracked().versions == ([("digits", 1, "champion")] if register else [])
    assert killed_run.record.status == "FINISHED"
