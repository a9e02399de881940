"""Scoring and labelling other tables: what stands in the files that come out."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from PIL import Image

from torchrelay import faults, settings
from torchrelay.cli import commands
from torchrelay.disk import is_locked
from torchrelay.errors import DataError, SourceError
from torchrelay.faults import FaultError
from torchrelay.flows.evaluate import evaluate
from torchrelay.flows.predict import predict
from torchrelay.flows.train import train
from torchrelay.recipe import load_recipe
from torchrelay.runs import list_records
from torchrelay.weights import load_weights

from ..conftest import RunCommand

pytestmark = pytest.mark.usefixtures("prefect_server")


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def artifacts_of(run_id: str, folder: str = "") -> set[str]:
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    return {item.path for item in client.list_artifacts(run_id, folder)}


PICTURES = {
    "name": "pictures",
    "data": {
        "table": "pictures.csv",
        "key": "id",
        "inputs": {"image": {"kind": "image", "channels": "gray", "size": [32, 32]}},
        "target": {"label": {"kind": "category"}},
        "split": {"column": "split"},
    },
    "model": {"name": "lenet"},
    "train": {"epochs": 4, "batch_size": 8, "optimizer": {"name": "adam", "args": {"lr": 0.003}}},
}
NUMBERS = {
    "name": "numbers",
    "data": {
        "table": "numbers.csv",
        "inputs": {"x": {"kind": "number", "columns": ["a", "b"]}, "colour": {"kind": "category"}},
        "target": {"y": {"kind": "number"}},
    },
    "model": {"name": "mlp", "args": {"hidden": [16]}},
    "train": {"epochs": 20, "batch_size": 8, "optimizer": {"name": "adam", "args": {"lr": 0.02}}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A folder with two tables and a home with a run of each: left and right halves, and y = 3 a
    - 2 b + 10.
    """
    folder = tmp_path_factory.mktemp("trained")
    generator = np.random.default_rng(5)
    (folder / "images").mkdir()
    lines = ["image,label,split,id"]
    for number in range(48):
        pixels = generator.integers(0, 90, (8, 8), np.uint8)
        label = "left" if number % 2 else "right"
        pixels[:, slice(0, 4) if label == "left" else slice(4, 8)] += 150
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        lines.append(
            f"images/{number}.png,{label},"
            f"{('train', 'valid', 'test')[max(0, number // 2 % 6 - 3)]},p-{number}"
        )
    (folder / "pictures.csv").write_text("\n".join(lines) + "\n")
    a, b = generator.normal(0, 2, 120), generator.normal(5, 0.01, 120)
    lines = [
        f"{x},{z},{'red' if x > 0 else 'blue'},{3 * x - 2 * z + 10}"
        for x, z in zip(a, b, strict=True)
    ]
    (folder / "numbers.csv").write_text("\n".join(["a,b,colour,y", *lines]) + "\n")
    results = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHRELAY_HOME", str(folder / "home"))
        for name, recipe in (("pictures", PICTURES), ("numbers", NUMBERS)):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
            results[name] = train(recipe_file=str(folder / f"{name}.yaml"))
    return folder, results


@pytest.fixture(autouse=True)
def place(trained: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path) -> None:
    """Put a copy of that folder into the test's own."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)


@pytest.fixture
def pictures(trained: tuple[Path, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    return trained[1]["pictures"]


@pytest.fixture
def numbers(trained: tuple[Path, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    return trained[1]["numbers"]


def test_each_test_row_has_its_prediction_in_the_run_folder_and_in_mlflow(
    pictures: dict[str, Any],
) -> None:
    frame = pd.read_parquet(Path(pictures["run_dir"]) / "predictions.parquet")
    names = [
        "row",
        "key",
        "target",
        "prediction",
        "probability",
        "probability/left",
        "probability/right",
        "loss",
    ]
    assert list(frame.columns) == names
    truth = rows_of("pictures.csv")
    assert [truth[row - 1]["split"] for row in frame["row"]] == ["test"] * 8
    assert [truth[row - 1]["label"] for row in frame["row"]] == frame["target"].tolist()
    assert [truth[row - 1]["id"] for row in frame["row"]] == frame["key"].tolist()
    assert (frame["prediction"] == frame["target"]).mean() == pictures["metrics"]["test/accuracy"]
    assert np.allclose(
        frame["probability"], frame[["probability/left", "probability/right"]].max(axis=1)
    )
    probability = np.where(
        frame["target"] == "left", frame["probability/left"], frame["probability/right"]
    )
    assert np.allclose(frame["loss"], -np.log(probability), atol=1e-4)
    assert {"predictions.parquet", "tables"} <= artifacts_of(pictures["mlflow_run_id"])
    classes = rows_of(Path(pictures["run_dir"]) / "tables" / "classes.csv")
    assert [tuple(row.values())[:3] for row in classes] == [("left", "4", "1"), ("right", "4", "1")]
    assert (
        pictures["metrics"]["test/accuracy_low"] < 1.0 == pictures["metrics"]["test/accuracy_high"]
    )


def test_evaluating_a_table_with_bad_rows_gives_verdicts_and_the_metrics_of_the_others(
    pictures: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path("images")
    (images / "broken.png").write_bytes((images / "0.png").read_bytes()[:40])
    lines = [
        "image,label",
        "images/0.png,right",
        "images/none.png,left",
        "images/broken.png,left",
        "images/1.png,cow",
    ]
    Path("other.csv").write_text("\n".join(lines) + "\n")
    result = evaluate(source=pictures["run_id"], table="other.csv")
    assert result["metrics"]["test/accuracy"] == 1.0
    frame = pd.read_parquet(Path(result["run_dir"]) / "predictions.parquet")
    assert frame["row"].tolist() == [1]
    assert (result["rows"], result["rows_scored"]) == (4, 1)
    said = capsys.readouterr().err
    assert (
        "quarantined: 1 missing file, 1 bad image, truncated, 1 class that the model does not "
        "know; " in said
    )
    quarantine = rows_of(result["quarantine"])
    assert [row["row"] for row in quarantine] == ["2", "3", "4"]
    Path("other.csv").write_text("image,label\nimages/none.png,left\n")
    with pytest.raises(DataError, match=r"1 of 1 rows are bad \(1 missing file\)"):
        evaluate(source=pictures["run_id"], table="other.csv")


def test_predictions_stand_beside_all_rows_and_columns_of_a_table_without_a_target(
    pictures: dict[str, Any],
) -> None:
    (Path("images") / "broken.png").write_bytes(b"no picture")
    lines = [
        "note,image",
        '"a, ""quoted"" note",images/0.png',
        "007,images/none.png",
        ",images/1.png",
    ]
    Path("new.csv").write_text("\n".join([*lines, "NA,images/broken.png"]) + "\n")
    result = predict(source=pictures["run_id"], table="new.csv", out="out.csv")
    rows = rows_of("out.csv")
    assert [row["note"] for row in rows] == ['a, "quoted" note', "007", "", "NA"]
    assert [row["image"] for row in rows] == [line.rpartition(",")[2] for line in lines[1:]] + [
        "images/broken.png"
    ]
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
    assert run.data.metrics == {
        "predict/rows": 4,
        "predict/rows_predicted": 2,
        "predict/rows_with_verdict": 2,
    }
    assert "data/quarantine.csv" in artifacts_of(result["mlflow_run_id"], "data")


@pytest.mark.parametrize("flow", [evaluate, predict])
def test_a_run_that_dies_as_soon_as_it_is_open_is_failed_and_was_held(
    pictures: dict[str, Any], flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []

    class SeenError(FaultError):
        """Sees whether the run is held while it dies."""

        def __init__(self, text: str) -> None:
            super().__init__(text)
            newest = list_records(settings.home())[0].run_id
            held.append(is_locked(settings.home().runs / newest / "lock"))

    monkeypatch.setattr(faults, "FaultError", SeenError)
    faults.arm("run.opened:raise")
    try:
        with pytest.raises(SeenError):
            flow(
                source=pictures["run_id"],
                table="pictures.csv",
                **({"out": "out.csv"} if flow is predict else {}),
            )
    finally:
        faults.arm("")
    newest = list_records(settings.home())[0]
    assert (newest.kind, newest.status, held) == (flow.name, "FAILED", [True])


def test_predictions_of_a_row_are_those_of_its_evaluation(pictures: dict[str, Any]) -> None:
    scored = evaluate(source=pictures["run_id"], table="pictures.csv")
    expected = pd.read_parquet(Path(scored["run_dir"]) / "predictions.parquet")
    predict(source=pictures["run_id"], table="pictures.csv", out="out.parquet")
    frame = pd.read_parquet("out.parquet")
    assert frame["prediction"].tolist() == expected["prediction"].tolist()
    assert np.allclose(frame["probability/left"], expected["probability/left"], atol=1e-6)
    assert frame["label"].tolist() == [row["label"] for row in rows_of("pictures.csv")]


def test_numbers_are_predicted_in_their_own_units_and_parquet_keeps_its_types(
    numbers: dict[str, Any],
) -> None:
    metrics = numbers["metrics"]
    assert metrics["test/rmse_low"] < metrics["test/rmse"] < metrics["test/rmse_high"]
    scored = pd.read_parquet(Path(numbers["run_dir"]) / "predictions.parquet")
    assert list(scored.columns) == ["row", "target", "prediction", "residual", "loss"]
    truth = pd.read_csv("numbers.csv")["y"].to_numpy()[scored["row"] - 1]
    assert np.allclose(scored["target"], truth, atol=1e-5)
    assert np.allclose(scored["residual"], scored["prediction"] - scored["target"])
    assert np.sqrt((scored["residual"] ** 2).mean()) == pytest.approx(
        metrics["test/rmse"], rel=1e-4
    )
    assert (Path(numbers["run_dir"]) / "tables" / "errors_by_quantile.csv").is_file()

    frame = pd.DataFrame(
        {"a": [1.0, np.nan, -2.0], "b": [5, 5, 6], "colour": ["red", "red", "blue"]}
    )
    frame["when"] = pd.to_datetime(["2024-01-01"] * 3)
    frame["count"] = pd.array([1, None, 3], dtype="Int64")
    frame.to_parquet("new.parquet")
    predict(source=numbers["run_id"], table="new.parquet", out="out.parquet")
    out = pd.read_parquet("out.parquet")
    assert out["when"].dtype == frame["when"].dtype
    assert out["count"].dropna().tolist() == [1, 3]
    assert out["prediction"][0] == pytest.approx(3 * 1 - 2 * 5 + 10, abs=1)
    assert np.isnan(out["prediction"][1])
    assert out["verdict"].tolist()[::2] == ["", ""]
    assert "'a'" in out["verdict"][1]
    predict(source=numbers["run_id"], table="new.parquet", out="out.tsv")
    header, _, gap, _ = Path("out.tsv").read_text().splitlines()
    assert header.split("\t") == ["a", "b", "colour", "when", "count", "prediction", "verdict"]
    assert gap.split("\t")[4:6] == ["", ""]


def test_a_category_value_that_training_has_not_seen_is_predicted_all_the_same(
    numbers: dict[str, Any],
) -> None:
    Path("new.csv").write_text("a,b,colour\n1,2,green\n1,2,\n")
    predict(source=numbers["run_id"], table="new.csv", out="out.csv")
    first, second = rows_of("out.csv")
    assert float(first["prediction"])
    assert (second["prediction"], "'colour'" in second["verdict"]) == ("", True)


def test_a_table_without_a_row_that_can_be_read_is_written_with_its_verdicts(
    pictures: dict[str, Any],
) -> None:
    Path("new.csv").write_text("note,image\na,images/none.png\nb,\n")
    with pytest.raises(
        DataError, match=r"2 of 2 rows are bad .*out\.csv has these verdicts and no prediction"
    ):
        predict(source=pictures["run_id"], table="new.csv", out="out.csv", prefix="new_")
    first, second = rows_of("out.csv")
    assert (first["note"], first["new_prediction"], second["note"]) == ("a", "", "b")
    assert first["new_verdict"].startswith("missing file: ")
    assert second["new_verdict"]
    assert [record.kind for record in list_records(settings.home())] == ["train", "train"]


@pytest.mark.slow
def test_what_cannot_be_written_or_read_is_refused_before_a_run_begins(
    numbers: dict[str, Any],
) -> None:
    source = numbers["run_id"]
    Path("new.csv").write_text("a,b,colour,prediction\n1,2,red,3\n")
    for out, message in {
        "out.xlsx": r"out\.xlsx ends in \.xlsx; .* \.csv, \.tsv, \.parquet",
        "out": "has no suffix",
        "nowhere/out.csv": r"the folder .*nowhere is not there",
        "new.csv": "is the table that is read",
        "out.csv": r"columns of its own .*\('prediction'\); .*--prefix",
    }.items():
        with pytest.raises(DataError, match=message):
            predict(source=source, table="new.csv", out=out)
    with pytest.raises(
        DataError, match=r"feature 'x' reads column 'b', which the table does not have"
    ):
        Path("less.csv").write_text("a,colour\n1,red\n")
        predict(source=source, table="less.csv", out="out.csv")
    assert [record.kind for record in list_records(settings.home())] == ["train", "train"]
    assert not Path("out.csv").exists()
    predict(source=source, table="new.csv", out="out.csv", prefix="new_")
    assert list(rows_of("out.csv")[0]) == [
        "a",
        "b",
        "colour",
        "prediction",
        "new_prediction",
        "new_verdict",
    ]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda bias: bias * math.nan, "has 16 NaN of 16 values"),
        (lambda bias: bias + 1j, r"is complex \(complex64\), the model's is floating \(float32\)"),
    ],
)
def test_weights_that_no_model_can_have_end_each_command_with_their_key_and_file(
    numbers: dict[str, Any],
    run: RunCommand,
    spoil: Callable[[torch.Tensor], torch.Tensor],
    said: str,
) -> None:
    run_dir, sent = settings.home().runs / numbers["run_id"], Path("sent")
    sent.mkdir()
    for name in ("recipe.yaml", "schema.json"):
        shutil.copy(run_dir / name, sent)
    state = load_weights(run_dir / "weights" / "best.pt")
    torch.save({**state, "layers.0.bias": spoil(state["layers.0.bias"])}, sent / "bad.pt")
    for command in (
        ("evaluate", "sent/bad.pt", "--table", "numbers.csv"),
        ("predict", "sent/bad.pt", "--table", "numbers.csv", "--out", "out.csv"),
        ("finetune", "numbers.yaml", "--from", "sent/bad.pt"),
        ("weights", "export", "sent/bad.pt", "-o", "out.safetensors"),
        ("weights", "pack", "sent/bad.pt", "-o", "out.pt"),
    ):
        code, _, err = run(*command)
        assert (code, "row" in err.splitlines()[-1]) == (2, False), command
        assert re.search(rf"sent/bad\.pt cannot be used: layers\.0\.bias {said}; ", err), command
    assert [
        record.kind for record in list_records(settings.home()) if record.status != "FAILED"
    ] == ["train"] * 2
    assert not list(Path().glob("out.*"))


def test_an_output_that_is_not_finite_is_a_verdict(numbers: dict[str, Any]) -> None:
    Path("new.csv").write_text("a,b,colour\n1,2,red\n3e38,-3e38,red\n")
    predict(source=numbers["run_id"], table="new.csv", out="out.csv")
    good, bad = rows_of("out.csv")
    assert (good["verdict"], bad["prediction"]) == ("", "")
    assert bad["verdict"] == "the model's output is not a finite number"


def test_a_run_that_predicted_cannot_be_resumed_and_can_be_a_source(
    numbers: dict[str, Any],
) -> None:
    Path("new.csv").write_text("a,b,colour\n1,2,red\n")
    first = predict(source=numbers["run_id"], table="new.csv", out="one.csv")
    second = predict(source=first["run_id"], table="new.csv", out="two.csv")
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()
    assert (
        json.loads((Path(second["run_dir"]) / "run.json").read_text())["source"] == first["run_id"]
    )
    with pytest.raises(SourceError, match="is of kind predict; only training runs can go on"):
        train(resume=second["run_id"])
    assert load_recipe(Path(second["run_dir"]) / "recipe.yaml").data.table == str(
        Path("new.csv").absolute()
    )


def test_a_table_of_another_dialect_is_refused_with_the_options_that_read_it_and_read_by_them(
    numbers: dict[str, Any],
) -> None:
    plain = pd.read_csv("numbers.csv")
    lines = [
        f"{a};{b};{colour}".replace(".", ",")
        for a, b, colour in plain[["a", "b", "colour"]].to_numpy().tolist()
    ]
    Path("german.csv").write_text("Messung\n" + "\n".join(["a;b;colour", *lines]) + "\n")
    with pytest.raises(
        DataError, match=r"data\.skip_lines: 1.*Of this table say it with .*--skip-lines"
    ):
        predict(source=numbers["run_id"], table="german.csv", out="out.csv")
    options = ["--delimiter", ";", "--skip-lines", "1", "--decimal", ","]
    command = ["predict", numbers["run_id"], "--table", "german.csv", "--out", "out.csv", *options]
    CliRunner().invoke(commands, command, catch_exceptions=False)
    again = predict(source=numbers["run_id"], table="numbers.csv", out="plain.csv", prefix="new_")
    assert again["rows_predicted"] == 120
    german = [row["prediction"] for row in rows_of("out.csv")]
    assert german == [row["new_prediction"] for row in rows_of("plain.csv")]


def test_what_the_model_does_not_know_is_in_summary_and_json_and_another_limit_makes_it_a_verdict(
    numbers: dict[str, Any],
) -> None:
    known = pd.read_csv("numbers.csv").head(12)
    new = known.assign(colour=[*(["purple"] * 6), *known["colour"][6:]], a=[*known["a"][:11], 1e6])
    new.to_csv("new.csv", index=False)
    command = [numbers["run_id"], "--table", "new.csv", "--json"]
    found = CliRunner().invoke(commands, ["evaluate", *command], catch_exceptions=False)
    result = json.loads(found.stdout)
    assert (result["rows_scored"], {one["column"] for one in result["unfamiliar"]}) == (
        12,
        {"a", "colour"},
    )
    assert "unfamiliar 'colour': 6 cells (50.0%) are unknown to the model" in found.stderr
    assert "unfamiliar 'a': 1 cell (8.3%) is outside the training range" in found.stderr
    command += ["--out", "out.csv", "--max-unknown", "0.4"]
    found = CliRunner().invoke(commands, ["predict", *command], catch_exceptions=False)
    result = json.loads(found.stdout)
    assert (result["rows"], result["rows_predicted"]) == (12, 6)
    assert "unfamiliar 'colour': 6 cells (50.0%) are unknown to the model" in found.stderr
    verdicts = [row["verdict"] for row in rows_of("out.csv")]
    assert ["'colour' is unknown to the model" in verdict for verdict in verdicts] == [True] * 6 + [
        False
    ] * 6
    assert "raise data.max_unknown" in verdicts[0]
