"""A home whose MLflow database is migrated already, and the record, recipe and schema of a small
run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchrelay import settings
from torchrelay.recipe import Data, Feature, Named, Recipe, dump_recipe
from torchrelay.runs import (
    JOURNAL_FILE,
    Journal,
    Run,
    RunRecord,
    journal_opening,
    load_record,
    new_run_id,
    now,
    save_record,
)
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.settings import Home
from torchrelay.tracking.client import open_client
from torchrelay.tracking.mlflow_run import MlflowRun, check_run
from torchrelay.tracking.shipping import sync_run


class RawNet(nn.Module):
    """Takes raw 3 x 8 x 8 pixels, one tensor an input feature, as a served model does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, *inputs: Tensor) -> Tensor:
        x_NCHW = (inputs[0].float() - 127.5) / 64
        return self.head(torch.relu(self.norm(self.conv(x_NCHW))).mean((2, 3)))


def mlflow_run_of(run_dir: Path) -> MlflowRun:
    """The MLflow run of a run folder."""
    client, run_id = open_client(), load_record(run_dir).mlflow_run_id
    return MlflowRun(client, run_id, check_run(client, run_id).info.experiment_id)


def shipped_run(run_dir: Path) -> MlflowRun:
    """Send all that a run's journal has; the run as it then stands in MLflow."""
    done = sync_run(Run(run_dir))
    assert (done.num_waiting, done.reason) == (0, "")
    return mlflow_run_of(run_dir)


@pytest.fixture
def home(own_folders: None, migrated_database: Path) -> Home:
    home = settings.home()
    home.root.mkdir(parents=True)
    shutil.copyfile(migrated_database, home.root / "mlflow.db")
    return home


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        name="digits",
        data=Data(
            table="/data/digits.csv",
            inputs={"image": Feature(kind="image")},
            target={"label": Feature(kind="category")},
        ),
        model=Named(name="lenet"),
    )


@pytest.fixture
def schema() -> Schema:
    image = FeatureSchema(
        name="image", kind="image", columns=["path"], shape=[3, 8, 8], dtype="uint8"
    )
    label = FeatureSchema(
        name="label",
        kind="category",
        columns=["label"],
        shape=[],
        dtype="int64",
        classes=["a", "b"],
    )
    return Schema(inputs=[image], targets=[label])


@pytest.fixture
def make_record() -> Callable[..., RunRecord]:
    def make(**fields: object) -> RunRecord:
        values = {
            "run_id": new_run_id("digits"),
            "name": "digits",
            "experiment": "digits",
            "created": now(),
            "fingerprint": "0123456789abcdef" * 2,
        }
        return RunRecord.model_validate(values | fields)

    return make


@pytest.fixture
def open_run(home: Home, recipe: Recipe, schema: Schema) -> Callable[..., Path]:
    """A run that has begun: its folder, with a journal that says so."""

    def make(record: RunRecord, own_recipe: Recipe = recipe) -> Path:
        run_dir = save_record(home, record)
        with Journal(run_dir / JOURNAL_FILE) as journal:
            journal_opening(
                journal, record, own_recipe, schema, {"train": 8, "valid": 1, "test": 2}
            )
        return run_dir

    return make


@pytest.fixture
def make_run(
    home: Home, recipe: Recipe, schema: Schema, make_record: Callable[..., RunRecord]
) -> Callable[..., tuple[Path, MlflowRun, RawNet]]:
    """A finished run: its folder with recipe, schema and best weights, the same in MLflow, and
    its network.
    """

    def make(**fields: object) -> tuple[Path, MlflowRun, RawNet]:
        record = make_record(**fields)
        run_dir = save_record(home, record)
        (run_dir / "recipe.yaml").write_text(dump_recipe(recipe))
        schema.save(run_dir / "schema.json")
        net = RawNet().eval()
        (run_dir / "weights").mkdir()
        torch.save(net.state_dict(), run_dir / "weights" / "best.pt")
        with Journal(run_dir / JOURNAL_FILE) as journal:
            journal_opening(journal, record, recipe, schema, {"train": 8, "test": 2})
            for name in ("recipe.yaml", "schema.json"):
                journal.append_artifact(run_dir / name)
            journal.append_artifact(run_dir / "weights", "weights")
        return run_dir, shipped_run(run_dir), net

    return make
