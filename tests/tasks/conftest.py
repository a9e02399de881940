"""A run that was trained, without training it: its folder, with weights from the recipe's seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay.disk import write_atomic
from torchrelay.recipe import dump_recipe, load_recipe
from torchrelay.runs import JOURNAL_FILE, Journal, RunRecord, now, save_record
from torchrelay.schema import Schema
from torchrelay.settings import home
from torchrelay.tasks.assembly import build_scorer
from torchrelay.tasks.ingest import ingest_table
from torchrelay.weights import save_weights, state_of

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run() -> MakeRun:
    def make(recipe_file: Path, run_id: str, seed: int = 5) -> Path:
        recipe = load_recipe(recipe_file, None, {"train.seed": seed})
        schema = Schema.load(ingest_table.fn(recipe).first.split_dir / "schema.json")
        record = RunRecord(
            run_id=run_id,
            name=recipe.name,
            experiment=recipe.name,
            created=now(),
            status="FINISHED",
        )
        run_dir = save_record(home(), record)
        with Journal(run_dir / JOURNAL_FILE) as journal:
            journal.append_event("made")
        write_atomic(run_dir / "recipe.yaml", dump_recipe(recipe))
        schema.save(run_dir / "schema.json")
        save_weights(state_of(build_scorer(recipe, schema).model), run_dir / "weights" / "best.pt")
        return run_dir

    return make
