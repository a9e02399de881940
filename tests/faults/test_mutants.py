"""The harness tests itself: with a part of what resuming needs taken out, it finds a difference."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import write_recipe
from harness import KilledRun, difference

CASES = {
    "random states are not restored": "mlp-dropout",
    "a batch is taken again": "words",
    "points are journaled again": "words",
    "the average is not kept": "cnn-bf16-ema-workers",
}


@pytest.mark.slow
@pytest.mark.parametrize(("mutant", "case"), CASES.items())
def test_the_harness_notices(mutant: str, case: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, case)
    uninterrupted, sound, broken = (
        KilledRun(tmp_path / name, recipe, what) for name, what in _killed_runs(mutant)
    )
    assert uninterrupted.go_on(whole=False).code == 0, uninterrupted.log
    for killed_run in (sound, broken):
        assert killed_run.go_on("train.reported:kill:17", whole=False).code == -9, killed_run.log
        assert killed_run.go_on(whole=False).code == 0, killed_run.log
    assert difference(uninterrupted, sound) == ""
    assert difference(uninterrupted, broken) != ""


def _killed_runs(mutant: str) -> list[tuple[str, str]]:
    return [("uninterrupted", ""), ("sound", ""), ("broken", mutant)]
