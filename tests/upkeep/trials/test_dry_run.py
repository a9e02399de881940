from __future__ import annotations

from pathlib import Path

import pytest

from torchrelay.errors import RecipeError, TrainingError
from torchrelay.recipe import load_recipe
from torchrelay.settings import home
from torchrelay.tasks import ingest_table
from torchrelay.upkeep.trials.dry_run import dry_run

from ...conftest import WriteRecipe


def test_a_dry_run_trains_two_steps_and_leaves_the_pack_alone_behind(
    number_recipe: WriteRecipe,
) -> None:
    found = dry_run(load_recipe(number_recipe()))
    assert len(found["losses"]) == 2
    assert found["valid_loss"] > 0
    assert found["parameters"] == 2 * 16 + 16 + 16 + 1
    assert (found["device"], found["precision"]) == ("cpu", "fp32")
    assert sum(found["rows"].values()) == 120
    assert found["steps_per_epoch"] == -(-found["rows"]["train"] // 8)
    assert found["seconds"]["epoch"] > found["steps_per_epoch"] * found["seconds"]["step"] > 0
    assert {path.name for path in home().root.iterdir()} == {"packs", "cache", "data.lock"}
    assert list(home().cache.iterdir()) == []
    assert Path(found["pack_dir"]).is_dir()


def test_pictures_are_decoded_once_for_the_dry_run_and_the_run_after_it(
    picture_recipe: WriteRecipe,
) -> None:
    recipe = load_recipe(picture_recipe())
    first, second = dry_run(recipe), dry_run(recipe)
    assert (first["model"], first["parameters"], first["rows"]) == (
        "lenet",
        61_706 - 850 + 170,
        {"train": 24, "valid": 8, "test": 16},
    )
    assert first["losses"] == second["losses"]
    assert ingest_table.fn(recipe).first.num_decoded == 0


def test_one_batch_and_no_validation_rows_are_enough(number_recipe: WriteRecipe) -> None:
    recipe = load_recipe(
        number_recipe(),
        None,
        {"train.batch_size": 500, "data.split.valid": 0, "data.split.test": 0},
    )
    found = dry_run(recipe)
    assert (len(found["losses"]), found["steps_per_epoch"], found["valid_loss"]) == (2, 1, None)


def test_the_rows_of_each_split_column_are_counted(splits_recipe: WriteRecipe) -> None:
    found = dry_run(load_recipe(splits_recipe()))
    assert {column: rows["train"] for column, rows in found["splits"].items()} == {
        "split_0": 25,
        "split_1": 24,
        "split_2": 23,
    }
    assert found["tried_split"] == "split_0"


def test_all_warnings_that_are_said_are_found(
    number_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(load_recipe(number_recipe()))["warnings"] == []
    overrides = {
        "data.inputs.x.channels": "gray",
        "train.augment": [{"name": "flip"}],
        "warm_start.thaw_after": 1,
    }
    found = dry_run(load_recipe(Path("numbers.yaml"), None, overrides))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [f"warning: {one}" for one in found["warnings"]] == said
    assert len(said) == 3


def test_a_monitor_that_no_validation_row_defines_is_refused(number_recipe: WriteRecipe) -> None:
    path = number_recipe()
    rows = [
        f"{row},0,{7 if row % 3 == 0 else row},{'valid' if row % 3 == 0 else 'train'}"
        for row in range(30)
    ]
    Path("numbers.csv").write_text("\n".join(["a,b,y,split", *rows]) + "\n")
    overrides = {"data.split": {"column": "split"}, "checkpoint.monitor": "valid/r2"}
    with pytest.raises(
        TrainingError, match=r"valid/r2 is not defined .* values are all the same.* valid/rmse"
    ):
        dry_run(load_recipe(path, None, overrides))


def test_a_monitor_that_two_batches_leave_undefined_is_looked_for_in_all_of_them(
    number_recipe: WriteRecipe,
) -> None:
    path = number_recipe()
    rows = [
        f"{row},0,{row // 25},{'valid' if row >= 10 else 'train'}"
        for row in [*range(10), *range(10, 30)]
    ]
    rows[9] = "9,0,1,train"
    Path("numbers.csv").write_text("\n".join(["a,b,y,split", *rows]) + "\n")
    overrides = {
        "data.split": {"column": "split"},
        "data.target.y.kind": "category",
        "train.batch_size": 4,
        "checkpoint.monitor": "valid/auroc",
    }
    assert len(dry_run(load_recipe(path, None, overrides))["losses"]) == 2


def test_every_split_must_have_the_validation_rows_that_a_setting_needs(
    splits_recipe: WriteRecipe,
) -> None:
    path = splits_recipe()
    table = Path("folds.csv").read_text().splitlines()
    table = [
        table[0],
        *(
            line.removesuffix(",valid") + ",test" if line.endswith(",valid") else line
            for line in table[1:]
        ),
    ]
    Path("folds.csv").write_text("\n".join(table) + "\n")
    with pytest.raises(RecipeError, match="early_stop_epochs: 3 needs validation rows"):
        dry_run(load_recipe(path, None, {"train.early_stop_epochs": 3}))


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        (
            "train.optimizer",
            {"name": "sgd", "args": {"lr": 1e30}},
            TrainingError,
            r"the loss is .* rows of the table",
        ),
        ("train.optimizer.args.lrr", 1, RecipeError, "lrr"),
        (
            "checkpoint.monitor",
            "valid/accuracy",
            RecipeError,
            "'valid/accuracy' is not a validation metric",
        ),
    ],
)
def test_what_is_wrong_is_said_as_the_run_would_say_it(
    number_recipe: WriteRecipe, key: str, value: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dry_run(load_recipe(number_recipe(), None, {key: value}))
    assert not home().runs.exists()
