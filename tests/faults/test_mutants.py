"""The harness tests itself: with a part of what resuming needs taken out, it finds a difference."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import write_recipe
from harness import Victim, difference

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
    calm, sound, broken = (Victim(tmp_path / name, recipe, what) for name, what in _victims(mutant))
    assert calm.go_on(whole=False).code == 0, calm.log
    for victim in (sound, broken):
        assert victim.go_on("train.reported:kill:17", whole=False).code == -9, victim.log
        assert victim.go_on(whole=False).code == 0, victim.log
    assert difference(calm, sound) == ""
    assert difference(calm, broken) != ""


def _victims(mutant: str) -> list[tuple[str, str]]:
    return [("calm", ""), ("sound", ""), ("broken", mutant)]
