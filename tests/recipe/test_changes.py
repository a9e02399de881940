from __future__ import annotations

import re

import pytest

from torchrelay.errors import RecipeError
from torchrelay.recipe import Data, Named, Recipe, Tracking, Train, changes_between, refuse_fixed
from torchrelay.recipe.changes import (
    alters_curves,
    changeable_keys,
    marked_keys,
    marks_in,
    take_changeable,
)
from torchrelay.recipe.model import Part


def keys_of(part: type[Part], prefix: str = "") -> list[str]:
    """Dotted keys of all settings; what describes the data, and what has variants, is one."""
    keys = []
    for name, field in part.model_fields.items():
        key, inner = f"{prefix}{field.alias or name}", field.annotation
        if isinstance(inner, type) and issubclass(inner, Part) and inner not in (Named, Data):
            keys += keys_of(inner, f"{key}.")
        else:
            keys.append(key)
    return keys


def test_every_setting_says_whether_a_run_may_change_it() -> None:
    assert list(marked_keys()) == keys_of(Recipe)


def test_a_new_setting_that_does_not_say_it_is_refused() -> None:
    class WithNew(Train):
        new: int = 0

    class Whole(Part):
        train: WithNew = WithNew()

    with pytest.raises(TypeError, match=r"train\.new does not say whether a run may change it"):
        list(marks_in(Whole))


def test_a_run_may_change_these_settings_and_no_others() -> None:
    assert set(changeable_keys()) == {
        "train.epochs",
        "train.optimizer.args.lr",
        "train.optimizer.args.weight_decay",
        "train.schedule",
        "train.augment",
        "train.label_smoothing",
        "train.clip_norm",
        "train.early_stop_epochs",
        "train.max_minutes",
        "train.device",
        "train.precision",
        "train.deterministic",
        "train.num_workers",
        "train.threads",
        "warm_start.thaw_after",
        "checkpoint.every_epochs",
        "checkpoint.every_steps",
        "checkpoint.keep",
        "checkpoint.on_error",
        "tracking.register",
        "tracking.every_steps",
        "tracking.wait_seconds",
    }


@pytest.mark.parametrize("key", ["train.epochs", "train.threads", "checkpoint.keep"])
def test_what_leaves_each_step_as_it_was_does_not_alter_the_curves(key: str) -> None:
    assert not alters_curves(key)


@pytest.mark.parametrize("key", ["train.optimizer.args.lr", "train.schedule.name", "train.device"])
def test_what_a_step_depends_on_alters_the_curves(key: str) -> None:
    assert alters_curves(key)


def test_a_fixed_setting_is_refused_by_its_name() -> None:
    refuse_fixed(["train.epochs", "train.schedule.args.warmup", "train.augment"])
    with pytest.raises(RecipeError, match=r"^train\.seed, train\.optimizer\.args\.momentum: a run"):
        refuse_fixed(["train.seed", "train.epochs", "train.optimizer.args.momentum"])
    with pytest.raises(RecipeError, match=re.escape("it can change train.epochs, ")):
        refuse_fixed(["data.key"])


def test_what_is_taken_over_can_be_changed_and_leaves_defaults_out() -> None:
    recipe = Recipe(
        train=Train(epochs=3, optimizer=Named(name="sgd", args={"lr": 0.5, "momentum": 0.9})),
        tracking=Tracking(register="digits"),
    )
    taken = take_changeable(recipe)
    assert taken["train.epochs"] == 3
    assert taken["train.optimizer.args.lr"] == 0.5
    assert taken["tracking.register"] == "digits"
    assert "train.optimizer.args.weight_decay" not in taken
    assert "train.optimizer.args.momentum" not in taken


def test_recipes_differ_in_keys_whose_values_do() -> None:
    then = {"a": "1", "b": "2", "c": "{}"}
    assert changes_between(then, {"a": "1", "b": "3", "d": "4"}) == {
        "b": ["2", "3"],
        "d": [None, "4"],
    }
