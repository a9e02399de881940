from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.engine.checkpoints import read_pointer
from torchrelay.engine.metrics import resampled_interval
from torchrelay.errors import RecipeError, SourceError, TrainingError
from torchrelay.flows.evaluate import evaluate
from torchrelay.flows.ingest import ingest
from torchrelay.flows.train import train
from torchrelay.recipe import Recipe, Tracking, Train, load_recipe
from torchrelay.runs import Journal, load_record, update_record
from torchrelay.weights import load_weights, sha256_of

from ..conftest import WriteRecipe

pytestmark = pytest.mark.usefixtures("prefect_server")


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=settings.tracking_uri())


def artifacts_of(run_id: str, folder: str = "") -> set[str]:
    return {item.path for item in client().list_artifacts(run_id, folder)}


def test_a_table_of_pictures_becomes_a_trained_and_tracked_model(
    picture_recipe: WriteRecipe,
) -> None:
    result = train(recipe_file=str(picture_recipe()))
    run_dir = Path(result["run_dir"])
    assert result["status"] == "FINISHED"
    assert result["epochs"] == 4
    assert result["metrics"]["test/accuracy"] == 1.0
    assert {"test/accuracy_of/left", "test/accuracy_of/right", "valid/loss", "train/loss"} <= set(
        result["metrics"]
    )
    assert set(result["seconds"]) == {"ingest", "train", "evaluate", "total"}
    assert result["seconds"]["total"] >= result["seconds"]["train"]
    assert result["weights_sha256"] == sha256_of(load_weights(run_dir / "weights" / "last.pt"))

    run = client().get_run(result["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.optimizer.args.lr"] == "0.003"
    assert run.data.tags["torchrelay.run_id"] == result["run_id"]
    assert run.data.tags["prefect.flow_run_id"] == result["prefect_flow_run_id"] != ""
    assert run.inputs.dataset_inputs[0].dataset.digest == result["fingerprint"]
    assert run.data.metrics["test/accuracy"] == 1.0
    history = client().get_metric_history(result["mlflow_run_id"], "train/loss")
    assert [point.step for point in history] == list(range(1, result["steps"] + 1))
    assert {"recipe.yaml", "schema.json", "weights", "figures", "data"} <= artifacts_of(
        result["mlflow_run_id"]
    )
    assert artifacts_of(result["mlflow_run_id"], "weights") == {
        f"weights/{name}.pt" for name in ("best", "last", "optimizer")
    }
    names = (
        "data",
        "curves",
        "confusion",
        "class_accuracy",
        "class_scores",
        "roc",
        "doubtful",
        "worst",
    )
    figures = {f"figures/{name}.png" for name in names}
    assert artifacts_of(result["mlflow_run_id"], "figures") == figures
    assert artifacts_of(result["mlflow_run_id"], "data") == {
        "data/report.json",
        "data/data_report.csv",
        "data/quarantine.csv",
    }


def test_a_table_of_numbers_is_learned_in_its_own_units(number_recipe: WriteRecipe) -> None:
    result = train(recipe_file=str(number_recipe()))
    assert result["metrics"]["test/rmse"] < 0.6
    assert result["metrics"]["test/r2"] > 0.98
    assert {path.name for path in (Path(result["run_dir"]) / "figures").iterdir()} == {
        "data.png",
        "curves.png",
        "residuals.png",
        "worst.png",
    }


def test_the_interval_of_a_test_metric_draws_the_groups_of_the_recipe(
    number_recipe: WriteRecipe,
) -> None:
    path = number_recipe()
    recipe = load_recipe(path)
    table = pd.read_csv(recipe.data.table)
    table["patient"] = table.index // 4
    table.to_csv(recipe.data.table, index=False)
    result = train(
        recipe_file=str(path), overrides={"train.epochs": 1, "data.split.group": "patient"}
    )
    frame = pd.read_parquet(Path(result["run_dir"]) / "predictions.parquet")
    patients = table["patient"].to_numpy()[frame["row"] - 1]
    assert len(patients) > len(set(patients)) > 2
    found = resampled_interval(frame[["residual"]].to_numpy() ** 2, np.ones(1), patients, root=True)
    assert found == pytest.approx(
        (result["metrics"]["test/rmse_low"], result["metrics"]["test/rmse_high"]), rel=1e-4
    )


def test_the_same_recipe_gives_the_same_weights_and_another_seed_does_not(
    number_recipe: WriteRecipe,
) -> None:
    recipe = str(number_recipe())
    first, second = train(recipe_file=recipe), train(recipe_file=recipe)
    other = train(recipe_file=recipe, overrides={"train.seed": 1})
    assert first["weights_sha256"] == second["weights_sha256"] != other["weights_sha256"]
    assert first["run_id"] != second["run_id"]


@pytest.mark.slow
def test_worker_processes_gather_the_same_batches_inside_a_flow(
    picture_recipe: WriteRecipe,
) -> None:
    recipe = str(picture_recipe())
    alone = train(recipe_file=recipe, overrides={"train.epochs": 2})
    helped = train(recipe_file=recipe, overrides={"train.epochs": 2, "train.num_workers": 2})
    assert helped["weights_sha256"] == alone["weights_sha256"]


def test_a_finished_run_goes_on_to_the_bits_of_one_that_was_longer_from_the_start(
    picture_recipe: WriteRecipe,
) -> None:
    recipe = str(picture_recipe())
    whole = train(recipe_file=recipe, overrides={"train.epochs": 4})
    short = train(recipe_file=recipe, overrides={"train.epochs": 2})
    longer = train(resume=short["run_id"], overrides={"train.epochs": 4})
    assert (longer["run_id"], longer["mlflow_run_id"]) == (short["run_id"], short["mlflow_run_id"])
    assert longer["weights_sha256"] == whole["weights_sha256"] != short["weights_sha256"]
    history = client().get_metric_history(longer["mlflow_run_id"], "train/loss")
    assert [point.step for point in history] == list(range(1, longer["steps"] + 1))
    assert [p.value for p in history] == [
        p.value for p in client().get_metric_history(whole["mlflow_run_id"], "train/loss")
    ]

    run = client().get_run(longer["mlflow_run_id"])
    assert run.info.status == longer["status"] == "FINISHED"
    assert json.loads(run.data.tags["torchrelay.drift"]) == {"train.epochs": ["2", "4"]}
    assert (
        run.data.metrics["test/loss"]
        == longer["metrics"]["test/loss"]
        == whole["metrics"]["test/loss"]
    )
    tested = client().get_metric_history(longer["mlflow_run_id"], "test/loss")
    assert [(point.step, point.value) for point in tested] == [
        (one["steps"], one["metrics"]["test/loss"]) for one in (short, longer)
    ]
    lines = list(Journal(Path(longer["run_dir"]) / "journal.jsonl").lines())
    assert [line["name"] for line in lines if line["kind"] == "event"] == [
        "recipe",
        "resumed",
        "drift",
    ]
    epochs = [
        line["epoch"]
        for line in lines
        if line["kind"] == "metrics" and "valid/loss" in line["values"]
    ]
    assert epochs == [1, 2, 3, 4]
    more = {
        part: longer["seconds"][part] - short["seconds"][part]
        for part in ("train", "evaluate", "total")
    }
    assert more["train"] > 0
    assert more["evaluate"] > 0
    assert more["total"] > more["train"] + more["evaluate"] - 0.01
    assert longer["seconds"]["ingest"] == short["seconds"]["ingest"]


@pytest.mark.slow
def test_a_run_whose_best_checkpoint_is_damaged_goes_on_and_finds_a_best_anew(
    picture_recipe: WriteRecipe,
) -> None:
    first = train(recipe_file=str(picture_recipe()))
    folder = Path(first["run_dir"]) / "checkpoints"
    best, last = read_pointer(folder, "best"), read_pointer(folder, "last")
    assert best != last
    state = folder / best / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.warns(
        UserWarning,
        match=f"the best checkpoint {best} is lost; {last}, the newest, takes its place",
    ):
        longer = train(resume=first["run_id"], overrides={"train.epochs": 5})
    assert longer["status"] == "FINISHED"
    assert read_pointer(folder, "best") == read_pointer(folder, "last") != last


@pytest.mark.slow
def test_a_run_whose_process_was_lost_counts_its_time_to_the_last_line_of_its_journal(
    number_recipe: WriteRecipe,
) -> None:
    lost = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    run_dir = Path(lost["run_dir"])
    update_record(run_dir, status="RUNNING", ended="", seconds={"ingest": 100.0})
    resumed = train(resume=lost["run_id"], overrides={"train.epochs": 2})
    began = datetime.fromisoformat(lost["created"]).timestamp()
    lines = list(Journal(run_dir / "journal.jsonl").lines())
    times = [line["time"] / 1000 for line in lines]
    last = [line.get("name") for line in lines].index("recipe") - 1
    reopened = [line.get("status") for line in lines].index("RUNNING", last)
    ended = datetime.fromisoformat(resumed["ended"]).timestamp()
    expected = 100 + (times[last] - began) + (ended - times[reopened])
    assert resumed["seconds"]["total"] == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_a_schedule_that_ended_keeps_its_last_rate_with_a_warning_and_is_spread_again_on_request(
    number_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    def rates(run: dict[str, Any]) -> list[float]:
        journal = Journal(Path(run["run_dir"]) / "journal.jsonl")
        return [point.value for point in journal.points() if point.key == "lr"]

    changes = {"train.epochs": 1, "train.schedule": {"name": "cosine"}}
    run = train(recipe_file=str(number_recipe()), overrides=changes)
    num_steps = run["steps"]
    capsys.readouterr()
    run = train(resume=run["run_id"], overrides={"train.epochs": 2})
    assert "the schedule cosine ends with epoch 1" in capsys.readouterr().err
    assert set(rates(run)[num_steps:]) == {rates(run)[num_steps - 1]}
    run = train(
        resume=run["run_id"], overrides={"train.epochs": 4, "train.schedule.name": "cosine"}
    )
    assert "the schedule cosine ends" not in capsys.readouterr().err
    assert rates(run)[2 * num_steps + 1] == pytest.approx(0.02 / 2, rel=0.1)
    assert run["schedule_epochs"] == 4


@pytest.mark.slow
def test_a_run_that_gets_no_better_stops_says_so_and_goes_on_when_it_may(
    number_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = {
        "train.ema": 0.9,
        "train.accumulate": 2,
        "train.early_stop_epochs": 1,
        "train.schedule": {"name": "plateau", "args": {"patience": 0}},
        "train.optimizer": {"name": "sgd", "args": {"lr": 1e-30}},
    }
    result = train(recipe_file=str(number_recipe()), overrides=overrides)
    run_dir = Path(result["run_dir"])
    assert (result["status"], result["epochs"]) == ("FINISHED", 2)
    assert result["stopped"].endswith("(train.early_stop_epochs: 1)")
    assert f"stopped: {result['stopped']}" in capsys.readouterr().err
    events = [
        line for line in Journal(run_dir / "journal.jsonl").lines() if line["kind"] == "event"
    ]
    assert [(line["name"], line["fields"]["reason"]) for line in events] == [
        ("stopped", result["stopped"])
    ]
    assert result["steps"] % 2 == 0
    assert result["weights_sha256"] == sha256_of(load_weights(run_dir / "weights" / "last.pt"))

    with pytest.raises(
        SourceError, match=r"is finished: valid/rmse was best after epoch 1 .*; --set that to 0"
    ):
        train(resume=result["run_id"])
    longer = train(
        resume=result["run_id"], overrides={"train.early_stop_epochs": 0, "train.epochs": 3}
    )
    assert (longer["epochs"], longer["stopped"]) == (3, "")


@pytest.mark.slow
def test_a_run_begins_with_pretrained_weights_and_needs_their_file_no_more(
    picture_recipe: WriteRecipe,
) -> None:
    torch.manual_seed(0)
    Path("weights").mkdir()
    state = torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()
    torch.save(state, "weights/net.pth")
    model = {"name": "torchvision:shufflenet_v2_x0_5", "args": {"weights_file": "weights/net.pth"}}
    changes = {
        "optimizer": {"name": "sgd", "args": {"lr": 1e-30}},
        "epochs": 1,
        "precision": "fp32",
    }
    result = train(
        recipe_file=str(picture_recipe(model=model)),
        overrides={f"train.{k}": v for k, v in changes.items()},
    )
    trained = load_weights(Path(result["weights"]))
    torch.testing.assert_close(trained["conv5.0.weight"], state["conv5.0.weight"])
    torch.testing.assert_close(
        trained["conv1.0.weight"], state["conv1.0.weight"].sum(dim=1, keepdim=True)
    )
    Path("weights/net.pth").unlink()
    assert train(resume=result["run_id"], overrides={"train.epochs": 2})["epochs"] == 2


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_accelerator_gives_the_same_bits_where_it_is_asked_to(
    picture_recipe: WriteRecipe, precision: str
) -> None:
    asked = {
        "train.deterministic": True,
        "train.precision": precision,
        "train.device": "cuda",
        "train.ema": 0.9,
    }
    recipe = str(picture_recipe())
    whole = train(recipe_file=recipe, overrides=asked)
    short = train(recipe_file=recipe, overrides={**asked, "train.epochs": 2})
    longer = train(resume=short["run_id"], overrides={"train.epochs": 4})
    assert longer["weights_sha256"] == whole["weights_sha256"]
    assert whole["metrics"]["test/accuracy"] == 1.0


def test_a_loss_that_explodes_fails_the_run_and_names_step_and_rows(
    number_recipe: WriteRecipe,
) -> None:
    recipe = str(number_recipe())
    overrides = {"train.optimizer": {"name": "sgd", "args": {"lr": 1e30}}}
    with pytest.raises(
        TrainingError,
        match=r"the loss is (inf|nan) at step \d+ .* rows of the table .*: \d+, .* No weight",
    ):
        train(recipe_file=recipe, overrides=overrides)
    run_dir = next(settings.home().runs.iterdir())
    record = load_record(run_dir)
    assert record.status == "FAILED"
    assert "the loss is" in record.error
    assert client().get_run(record.mlflow_run_id).info.status == "FAILED"


def test_a_users_mistake_is_one_line_without_a_traceback(
    picture_recipe: WriteRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(RecipeError, match=r"model.name.*lenett.*lenet"),
    ):
        train(recipe_file=str(picture_recipe()), overrides={"model.name": "lenett"})
    assert [record for record in caplog.records if record.exc_info] == []
    assert not settings.home().runs.exists()


def test_fields_go_over_the_file_and_overrides_over_both(number_recipe: WriteRecipe) -> None:
    fields = Recipe(train=Train(epochs=3, batch_size=16), tracking=Tracking(experiment="mine"))
    result = train(fields, str(number_recipe()), {"train.epochs": 2})
    resolved = load_recipe(Path(result["run_dir"]) / "recipe.yaml")
    assert (resolved.train.epochs, resolved.train.batch_size, result["experiment"]) == (
        2,
        16,
        "mine",
    )


def test_the_second_ingest_reuses_the_pack_and_reports_where_things_lie(
    picture_recipe: WriteRecipe,
) -> None:
    recipe = str(picture_recipe())
    first, second = ingest(recipe_file=recipe), ingest(recipe_file=recipe)
    assert (first["num_decoded"], first["reused"]) == (48, False)
    assert (second["num_decoded"], second["reused"]) == (0, True)
    assert first["pack_dir"] == second["pack_dir"]
    assert first["rows"] == {"train": 24, "valid": 8, "test": 16}
    assert json.loads(Path(second["report"]).read_text())
    assert Path(second["quarantine"]).read_text().startswith("row,reason")
    assert first["figure"] == second["figure"]
    assert Path(second["figure"]).read_bytes().startswith(b"\x89PNG")


def test_another_table_is_scored_by_run_id_by_registered_model_and_by_weights_file(
    picture_recipe: WriteRecipe,
) -> None:
    trained = train(recipe_file=str(picture_recipe(tracking={"register": "halves"})))
    table = Path("other.csv")
    rows = Path("pictures.csv").read_text().splitlines()
    table.write_text("\n".join([rows[0], *rows[1:21]]) + "\n")
    for source in (
        trained["run_id"],
        trained["mlflow_run_id"],
        "models:/halves@champion",
        trained["weights"],
    ):
        result = evaluate(source, str(table))
        assert (result["kind"], result["status"]) == ("evaluate", "FINISHED")
        assert result["metrics"]["test/accuracy"] == 1.0
        assert result["source"]
    run = client().get_run(result["mlflow_run_id"])
    assert run.data.tags["torchrelay.kind"] == "evaluate"
    assert run.data.tags["torchrelay.source"] == result["source"]


def test_a_registered_model_takes_raw_pixels(
    picture_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(recipe_file=str(picture_recipe(tracking={"register": "raw"})))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri())
    model = mlflow.pytorch.load_model("models:/raw@champion")
    pixels = torch.zeros(3, 1, 32, 32, dtype=torch.uint8)
    pixels[:, :, :, :16] = 200
    assert model(pixels).argmax(1).tolist() == [0, 0, 0]
    assert trained["metrics"]["test/accuracy"] == 1.0


def test_a_run_that_does_not_exist_is_named_with_the_nearest(number_recipe: WriteRecipe) -> None:
    result = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    with pytest.raises(SourceError, match=f"did you mean {result['run_id']}"):
        train(resume=result["run_id"] + "x")


def test_a_run_goes_on_with_its_own_data_only(number_recipe: WriteRecipe) -> None:
    result = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    with pytest.raises(
        RecipeError, match=r"data\.max_bad_rows: a run goes on with what it began with"
    ):
        train(resume=result["run_id"], overrides={"data.max_bad_rows": 0.5})


def test_the_journal_has_every_step_even_where_mlflow_gets_few(number_recipe: WriteRecipe) -> None:
    result = train(
        recipe_file=str(number_recipe()), overrides={"train.epochs": 3, "tracking.every_steps": 10}
    )
    journal = Journal(Path(result["run_dir"]) / "journal.jsonl").points()
    steps = [point.step for point in journal if point.key == "train/loss"]
    assert steps == list(range(1, result["steps"] + 1))
    shipped = [
        point.step for point in client().get_metric_history(result["mlflow_run_id"], "train/loss")
    ]
    assert shipped == [step for step in steps if step % 10 == 0 or step == result["steps"]]
