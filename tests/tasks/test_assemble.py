from __future__ import annotations

from typing import Any

import pytest

from torchrelay.recipe import Recipe
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.tasks.assemble import choose_monitor

X = FeatureSchema(name="x", kind="number", columns=["x"], shape=[1], dtype="float64", mean=[0], std=[1])
RARE = FeatureSchema(
    name="rare", kind="category", columns=["rare"], shape=[], dtype="int64", classes=["no", "yes"], counts=[98, 2]
)


@pytest.mark.parametrize(
    ("train", "monitor"),
    [
        ({}, "valid/accuracy"),
        ({"class_weights": "balanced"}, "valid/recall_macro"),
        ({"sampling": "balanced"}, "valid/recall_macro"),
    ],
)
def test_what_auto_monitors_does_not_reward_a_model_that_never_names_a_rare_class(
    train: dict[str, Any], monitor: str
) -> None:
    schema = Schema(inputs=[X], targets=[RARE])
    assert choose_monitor(Recipe.model_validate({"train": train}), schema) == monitor
    explicit = Recipe.model_validate({"train": train, "checkpoint": {"monitor": "valid/loss"}})
    assert choose_monitor(explicit, schema) == "valid/loss"
