"""What a model refuses in training alone is found before a run is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Recipe
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.tasks.assembly.trial import check_memory, smallest_batch, try_early, try_training

X = FeatureSchema(name="x", kind="number", columns=["a", "b"], shape=[2], dtype="float32")
Y = FeatureSchema(
    name="y", kind="category", columns=["y"], shape=[], dtype="int64", classes=["no", "yes"]
)
SCHEMA = Schema(inputs=[X], targets=[Y])


def image(side: int) -> Schema:
    feature = FeatureSchema(
        name="image", kind="image", columns=["i"], shape=[3, side, side], dtype="uint8"
    )
    return Schema(inputs=[feature], targets=[Y])


def recipe(name: str, args: dict[str, Any] | None = None, size: int = 1, **parts: Any) -> Recipe:
    train = {"batch_size": size, "device": "cpu", "precision": "fp32", **parts.pop("train", {})}
    return Recipe.model_validate(
        {"name": "r", "model": {"name": name, "args": args or {}}, "train": train, **parts}
    )


@pytest.mark.parametrize(
    ("rows", "size", "smallest"),
    [(5, 1, 1), (65, 64, 64), (66, 64, 2), (1, 64, 1), (3, 64, 3), (64, 64, 64)],
)
def test_a_last_batch_of_one_row_is_no_batch(rows: int, size: int, smallest: int) -> None:
    assert smallest_batch(rows, size) == smallest


def test_batch_norm_over_one_row_is_refused_before_the_table_is_read() -> None:
    words = (
        r"train\.batch_size: 1: model mlp has a batch norm.*"
        r"layers\.1 \(BatchNorm1d\) finds one value alone; set "
    )
    before = torch.get_rng_state()
    with pytest.raises(
        RecipeError, match=words + r"train\.batch_size to 2 or more, or model\.args\.norm to layer"
    ):
        try_early(recipe("mlp", {"norm": "batch"}))
    with pytest.raises(
        RecipeError, match=r"train\.accumulate makes the steps larger, not the batches"
    ):
        try_early(recipe("mlp", {"norm": "batch"}, train={"accumulate": 8}))
    try_early(recipe("mlp", {"norm": "layer"}))
    try_early(recipe("mlp", {"norm": "batch"}, size=2))
    assert torch.equal(before, torch.get_rng_state())


def test_batch_norm_over_one_training_row_is_refused() -> None:
    words = r"train\.batch_size: 64: .*the table has 1 training row, and two or more are needed"
    with pytest.raises(RecipeError, match=words):
        try_training(recipe("mlp", {"norm": "batch"}, size=64), SCHEMA, num_rows=1)
    try_training(recipe("mlp", {"norm": "batch"}, size=64), SCHEMA, num_rows=65)


def test_batch_norm_over_one_picture_is_refused_where_one_pixel_is_left_alone() -> None:
    net = recipe("torchvision:resnet18", {})
    with pytest.raises(RecipeError, match=r"layer4\.0\.bn1 \(BatchNorm2d\) finds one value alone"):
        try_training(net, image(32), num_rows=10)
    try_training(net, image(64), num_rows=10)
    inputs = {"image": {"kind": "image", "channels": "rgb", "size": [32, 32]}}
    data = {"inputs": inputs, "target": {"y": {"kind": "category"}}}
    with pytest.raises(RecipeError, match=r"layer4\.0\.bn1"):
        try_early(recipe("torchvision:resnet18", {}, data=data))


def test_a_norm_that_stays_frozen_takes_no_mean() -> None:
    frozen = {"freeze": ["layers.0.*", "layers.1.*"]}
    args = {"norm": "batch", "hidden": [4]}
    try_training(recipe("mlp", args, warm_start=frozen), SCHEMA, 9)
    with pytest.raises(RecipeError, match="finds one value alone"):
        try_training(
            recipe("mlp", args, warm_start={**frozen, "thaw_after": 1}, train={"epochs": 3}),
            SCHEMA,
            9,
        )


OWN = """
import torch
import torch.nn.functional as F
from torch import nn

class Functional(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.a = nn.Linear(2, num_outputs)
        self.register_buffer("mean", torch.zeros(num_outputs))
        self.register_buffer("var", torch.ones(num_outputs))
    def forward(self, x):
        return F.batch_norm(self.a(x), self.mean, self.var, training=self.training)

class Instance(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.norm, self.a = nn.InstanceNorm1d(2), nn.Linear(2, num_outputs)
    def forward(self, x):
        y = x[:, :, None]
        return self.a((self.norm(y) if self.training else y)[:, :, 0])

class Synchronous(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(2, num_outputs), nn.SyncBatchNorm(num_outputs))
    def forward(self, x):
        return self.a(x)

class Broken(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.a = nn.Linear(2, num_outputs)
    def forward(self, x):
        return self.a(x[:, :1] if self.training else x)
"""


def test_norms_of_own_classes_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_norms.py").write_text(OWN)
    with pytest.raises(
        RecipeError, match=r"own_norms:Functional has a batch norm, .*it finds one value alone"
    ):
        try_training(recipe("own_norms:Functional"), SCHEMA, 9)
    try_training(recipe("own_norms:Functional", size=2), SCHEMA, 9)
    words = (
        r"has an instance norm, .*norm \(InstanceNorm1d\) finds one alone, "
        r"whatever train\.batch_size is"
    )
    with pytest.raises(RecipeError, match=words):
        try_training(recipe("own_norms:Instance", size=8), SCHEMA, 9)
    with pytest.raises(RecipeError, match=r"a\.1 \(SyncBatchNorm\) finds one value alone"):
        try_training(recipe("own_norms:Synchronous"), SCHEMA, 9)
    words = (
        r"works in evaluation and fails in training, "
        r"where its layer a \(Linear\) raises RuntimeError: .*mat1"
    )
    with pytest.raises(RecipeError, match=words):
        try_training(recipe("own_norms:Broken"), SCHEMA, 9)


def test_scores_that_memory_cannot_hold_are_refused_before_a_run_is_opened() -> None:
    many = Y.model_copy(update={"classes": [str(number) for number in range(100_000)]})
    check_memory(Schema(inputs=[X], targets=[many]), 10, "t.csv")
    with pytest.raises(
        DataError,
        match=r"^t\.csv: to measure 100,000,000 rows of 100,000 classes, 37,252\.9 GiB of ",
    ):
        check_memory(Schema(inputs=[X], targets=[many]), 100_000_000, "t.csv")
