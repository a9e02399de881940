from __future__ import annotations

import pytest

from torchrelay import faults
from torchrelay.faults import FaultError
from torchrelay.settings import home
from torchrelay.tasks.scoring import start_evaluation
from torchrelay.tracking.records import list_records

from ..conftest import WriteRecipe
from .conftest import MakeRun


def test_an_evaluation_that_dies_while_it_opens_its_run_says_so(
    make_run: MakeRun, number_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    make_run(number_recipe(tracking={"wait_seconds": 0}), "trained")
    faults.arm("run.opened:raise")
    try:
        with pytest.raises(FaultError):
            start_evaluation.fn("trained", "numbers.csv", "", "cpu")
    finally:
        faults.arm("")
    [record] = [one for one in list_records(home()) if one.kind == "evaluate"]
    assert (record.status, record.error) == ("FAILED", "FaultError: fault at run.opened, time 1")
