"""Scoring and labelling other tables: what stands in the files that come out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.errors import DataError
from torchrelay.flows.evaluate import evaluate
from torchrelay.flows.predict import predict
from torchrelay.flows.train import train
from torchrelay.recipe import load_recipe
from torchrelay.tracking.records import list_records

from ..conftest import WriteRecipe

pytestmark = pytest.mark.usefixtures("prefect_server")


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def artifacts_of(run_id: str, folder: str = "") -> set[str]:
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    return {item.path for item in client.list_artifacts(run_id, folder)}


@pytest.fixture
def pictures(picture_recipe: WriteRecipe) -> dict[str, Any]:
    """A trained run over pictures whose rows have a key."""
    recipe = picture_recipe()
    table = Path("pictures.csv")
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([f"{lines[0]},id", *(f"{line},p-{number}" for number, line in enumerate(lines[1:]))]) + "\n"
    )
    return train(recipe_file=str(recipe), overrides={"data.key": "id"})


def test_each_test_row_has_its_prediction_in_the_run_folder_and_in_mlflow(pictures: dict[str, Any]) -> None:
    frame = pd.read_parquet(Path(pictures["run_dir"]) / "predictions.parquet")
    names = ["row", "key", "target", "prediction", "probability", "probability/left", "probability/right", "loss"]
    assert list(frame.columns) == names
    truth = rows_of("pictures.csv")
    assert [truth[row - 1]["split"] for row in frame["row"]] == ["test"] * 16
    assert [truth[row - 1]["label"] for row in frame["row"]] == frame["target"].tolist()
    assert [truth[row - 1]["id"] for row in frame["row"]] == frame["key"].tolist()
    assert (frame["prediction"] == frame["target"]).mean() == pictures["metrics"]["test/accuracy"]
    assert np.allclose(frame["probability"], frame[["probability/left", "probability/right"]].max(axis=1))
    probability = np.where(frame["target"] == "left", frame["probability/left"], frame["probability/right"])
    assert np.allclose(frame["loss"], -np.log(probability), atol=1e-4)
    assert {"predictions.parquet", "tables"} <= artifacts_of(pictures["mlflow_run_id"])
    classes = rows_of(Path(pictures["run_dir"]) / "tables" / "classes.csv")
    assert [(row["class"], row["rows"], row["accuracy"]) for row in classes] == [
        ("left", "8", "1"),
        ("right", "8", "1"),
    ]
    assert pictures["metrics"]["test/accuracy_low"] < 1.0 == pictures["metrics"]["test/accuracy_high"]


def test_evaluating_a_table_with_bad_rows_gives_verdicts_and_the_metrics_of_the_others(
    pictures: dict[str, Any],
) -> None:
    images = Path("images")
    (images / "broken.png").write_bytes((images / "0.png").read_bytes()[:40])
    lines = ["image,label", "images/0.png,right", "images/none.png,left", "images/broken.png,left", "images/1.png,cow"]
    Path("other.csv").write_text("\n".join(lines) + "\n")
    result = evaluate(source=pictures["run_id"], table="other.csv")
    assert result["metrics"]["test/accuracy"] == 1.0
    frame = pd.read_parquet(Path(result["run_dir"]) / "predictions.parquet")
    assert frame["row"].tolist() == [1]
    quarantine = rows_of(Path(result["split_dir"]) / "quarantine.csv")
    assert [row["row"] for row in quarantine] == ["2", "3", "4"]
    Path("other.csv").write_text("image,label\nimages/none.png,left\n")
    with pytest.raises(DataError, match=r"1 of 1 rows are bad \(1 missing file\)"):
        evaluate(source=pictures["run_id"], table="other.csv")


def test_predictions_stand_beside_all_rows_and_columns_of_a_table_without_a_target(pictures: dict[str, Any]) -> None:
    (Path("images") / "broken.png").write_bytes(b"no picture")
    lines = ["note,image", '"a, ""quoted"" note",images/0.png', "007,images/none.png", ",images/1.png"]
    Path("new.csv").write_text("\n".join([*lines, "NA,images/broken.png"]) + "\n")
    result = predict(source=pictures["run_id"], table="new.csv", out="out.csv")
    rows = rows_of("out.csv")
    assert [row["note"] for row in rows] == ['a, "quoted" note', "007", "", "NA"]
    assert [row["image"] for row in rows] == [line.rpartition(",")[2] for line in lines[1:]] + ["images/broken.png"]
    assert [row["prediction"] for row in rows] == ["right", "", "left", ""]
    assert float(rows[0]["probability"]) == float(rows[0]["probability/right"]) > 0.5
    assert rows[1]["probability"] == rows[1]["probability/left"] == ""
    assert [row["verdict"].partition(":")[0] for row in rows[::2]] == ["", ""]
    assert "missing file" in rows[1]["verdict"]
    assert "bad image" in rows[3]["verdict"]
    assert (result["rows"], result["rows_predicted"], result["kind"]) == (4, 2, "predict")
    assert result["source"] == pictures["run_id"]
    run = MlflowClient(tracking_uri=settings.tracking_uri()).get_run(result["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["torchrelay.source"] == pictures["run_id"]
    assert run.data.metrics == {"predict/rows": 4, "predict/rows_predicted": 2, "predict/rows_with_verdict": 2}
    assert "data/quarantine.csv" in artifacts_of(result["mlflow_run_id"], "data")


def test_predictions_of_a_row_are_those_of_its_evaluation(pictures: dict[str, Any]) -> None:
    scored = evaluate(source=pictures["run_id"], table="pictures.csv")
    expected = pd.read_parquet(Path(scored["run_dir"]) / "predictions.parquet")
    predict(source=pictures["run_id"], table="pictures.csv", out="out.parquet")
    frame = pd.read_parquet("out.parquet")
    assert frame["prediction"].tolist() == expected["prediction"].tolist()
    assert np.allclose(frame["probability/left"], expected["probability/left"], atol=1e-6)
    assert frame["label"].tolist() == [row["label"] for row in rows_of("pictures.csv")]


def test_numbers_are_predicted_in_their_own_units_and_parquet_keeps_its_types(number_recipe: WriteRecipe) -> None:
    trained = train(recipe_file=str(number_recipe()))
    metrics = trained["metrics"]
    assert metrics["test/rmse_low"] < metrics["test/rmse"] < metrics["test/rmse_high"]
    scored = pd.read_parquet(Path(trained["run_dir"]) / "predictions.parquet")
    assert list(scored.columns) == ["row", "target", "prediction", "residual", "loss"]
    truth = pd.read_csv("numbers.csv")["y"].to_numpy()[scored["row"] - 1]
    assert np.allclose(scored["target"], truth, atol=1e-5)
    assert np.allclose(scored["residual"], scored["prediction"] - scored["target"])
    assert np.sqrt((scored["residual"] ** 2).mean()) == pytest.approx(metrics["test/rmse"], rel=1e-4)
    assert (Path(trained["run_dir"]) / "tables" / "errors_by_quantile.csv").is_file()

    Path("new.parquet").unlink(missing_ok=True)
    frame = pd.DataFrame({"a": [1.0, np.nan, -2.0], "b": [5, 5, 6], "when": pd.to_datetime(["2024-01-01"] * 3)})
    frame["count"] = pd.array([1, None, 3], dtype="Int64")
    frame.to_parquet("new.parquet")
    predict(source=trained["run_id"], table="new.parquet", out="out.parquet")
    out = pd.read_parquet("out.parquet")
    assert out["when"].dtype == frame["when"].dtype
    assert out["count"].dropna().tolist() == [1, 3]
    assert out["prediction"][0] == pytest.approx(3 * 1 - 2 * 5 + 10, abs=1)
    assert np.isnan(out["prediction"][1])
    assert out["verdict"].tolist()[::2] == ["", ""]
    assert "'a'" in out["verdict"][1]
    predict(source=trained["run_id"], table="new.parquet", out="out.tsv")
    header, _, gap, _ = Path("out.tsv").read_text().splitlines()
    assert header.split("\t") == ["a", "b", "when", "count", "prediction", "verdict"]
    assert gap.split("\t")[3:5] == ["", ""]


def test_a_category_value_that_training_has_not_seen_is_predicted_all_the_same(
    number_recipe: WriteRecipe,
) -> None:
    recipe = number_recipe()
    lines = Path("numbers.csv").read_text().splitlines()
    colours = [f"{line},{'red' if number % 2 else 'blue'}" for number, line in enumerate(lines[1:])]
    Path("numbers.csv").write_text("\n".join([lines[0] + ",colour", *colours]) + "\n")
    overrides = {"data.inputs.colour": {"kind": "category"}, "train.epochs": 1}
    trained = train(recipe_file=str(recipe), overrides=overrides)
    Path("new.csv").write_text("a,b,colour\n1,2,green\n1,2,\n")
    predict(source=trained["run_id"], table="new.csv", out="out.csv")
    first, second = rows_of("out.csv")
    assert float(first["prediction"])
    assert (second["prediction"], "'colour'" in second["verdict"]) == ("", True)


def test_what_cannot_be_written_or_read_is_refused_before_a_run_begins(number_recipe: WriteRecipe) -> None:
    trained = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    source = trained["run_id"]
    Path("new.csv").write_text("a,b,prediction\n1,2,3\n")
    for out, message in {
        "out.xlsx": r"out\.xlsx ends in \.xlsx; .* \.csv, \.tsv, \.parquet",
        "out": "has no suffix",
        "nowhere/out.csv": r"the folder .*nowhere is not there",
        "new.csv": "is the table that is read",
        "out.csv": r"columns of its own .*\('prediction'\); .*--prefix",
    }.items():
        with pytest.raises(DataError, match=message):
            predict(source=source, table="new.csv", out=out)
    with pytest.raises(DataError, match=r"feature 'x' reads column 'b', which the table does not have"):
        Path("less.csv").write_text("a\n1\n")
        predict(source=source, table="less.csv", out="out.csv")
    assert [record.kind for record in list_records(settings.home())] == ["train"]
    assert not Path("out.csv").exists()
    predict(source=source, table="new.csv", out="out.csv", prefix="new_")
    assert list(rows_of("out.csv")[0]) == ["a", "b", "prediction", "new_prediction", "new_verdict"]


def test_an_output_that_is_not_finite_is_a_verdict(number_recipe: WriteRecipe) -> None:
    trained = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    Path("new.csv").write_text("a,b\n1,2\n3e38,-3e38\n")
    predict(source=trained["run_id"], table="new.csv", out="out.csv")
    good, bad = rows_of("out.csv")
    assert (good["verdict"], bad["prediction"]) == ("", "")
    assert bad["verdict"] == "the model's output is not a finite number"


def test_a_run_that_predicted_cannot_be_resumed_and_can_be_a_source(number_recipe: WriteRecipe) -> None:
    trained = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    Path("new.csv").write_text("a,b\n1,2\n")
    first = predict(source=trained["run_id"], table="new.csv", out="one.csv")
    second = predict(source=first["run_id"], table="new.csv", out="two.csv")
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()
    assert json.loads((Path(second["run_dir"]) / "run.json").read_text())["source"] == first["run_id"]
    assert load_recipe(Path(second["run_dir"]) / "recipe.yaml").data.table == str(Path("new.csv").absolute())
