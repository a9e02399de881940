from __future__ import annotations

import json
import logging
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.engine.weights import load_weights, sha256_of
from torchrelay.errors import RecipeError, SourceError, TrainingError
from torchrelay.flows.evaluate import evaluate
from torchrelay.flows.ingest import ingest
from torchrelay.flows.train import train
from torchrelay.recipe import Recipe, Tracking, Train, load_recipe
from torchrelay.tracking.journal import Journal
from torchrelay.tracking.records import load_record

from ..conftest import WriteRecipe

pytestmark = pytest.mark.usefixtures("prefect_server")


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=settings.tracking_uri())


def artifacts_of(run_id: str, folder: str = "") -> set[str]:
    return {item.path for item in client().list_artifacts(run_id, folder)}


def test_a_table_of_pictures_becomes_a_trained_and_tracked_model(picture_recipe: WriteRecipe) -> None:
    result = train(recipe_file=str(picture_recipe()))
    run_dir = Path(result["run_dir"])
    assert result["status"] == "FINISHED"
    assert result["epochs"] == 4
    assert result["metrics"]["test/accuracy"] == 1.0
    assert {"test/accuracy/left", "test/accuracy/right", "valid/loss", "train/loss"} <= set(result["metrics"])
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
    assert {"recipe.yaml", "schema.json", "weights", "figures", "data"} <= artifacts_of(result["mlflow_run_id"])
    assert artifacts_of(result["mlflow_run_id"], "weights") == {
        f"weights/{name}.pt" for name in ("best", "last", "optimizer")
    }
    names = ("data", "curves", "confusion", "class_accuracy", "class_scores", "roc", "doubtful", "worst")
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


def test_the_same_recipe_gives_the_same_weights_and_another_seed_does_not(number_recipe: WriteRecipe) -> None:
    recipe = str(number_recipe())
    first, second = train(recipe_file=recipe), train(recipe_file=recipe)
    other = train(recipe_file=recipe, overrides={"train.seed": 1})
    assert first["weights_sha256"] == second["weights_sha256"] != other["weights_sha256"]
    assert first["run_id"] != second["run_id"]


def test_worker_processes_gather_the_same_batches_inside_a_flow(picture_recipe: WriteRecipe) -> None:
    recipe = str(picture_recipe())
    alone = train(recipe_file=recipe, overrides={"train.epochs": 2})
    helped = train(recipe_file=recipe, overrides={"train.epochs": 2, "train.num_workers": 2})
    assert helped["weights_sha256"] == alone["weights_sha256"]


def test_a_finished_run_goes_on_to_the_bits_of_one_that_was_longer_from_the_start(picture_recipe: WriteRecipe) -> None:
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


def test_a_loss_that_explodes_fails_the_run_and_names_step_and_rows(number_recipe: WriteRecipe) -> None:
    recipe = str(number_recipe())
    overrides = {"train.optimizer": {"name": "sgd", "args": {"lr": 1e30}}}
    with pytest.raises(
        TrainingError, match=r"the loss is (inf|nan) at step \d+ .* rows of the table .*: \d+, .* No weight"
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
    with caplog.at_level(logging.INFO), pytest.raises(RecipeError, match=r"model.name.*lenett.*lenet"):
        train(recipe_file=str(picture_recipe()), overrides={"model.name": "lenett"})
    assert [record for record in caplog.records if record.exc_info] == []
    assert not settings.home().runs.exists()


def test_fields_go_over_the_file_and_overrides_over_both(number_recipe: WriteRecipe) -> None:
    fields = Recipe(train=Train(epochs=3, batch_size=16), tracking=Tracking(experiment="mine"))
    result = train(fields, str(number_recipe()), {"train.epochs": 2})
    resolved = load_recipe(Path(result["run_dir"]) / "recipe.yaml")
    assert (resolved.train.epochs, resolved.train.batch_size, result["experiment"]) == (2, 16, "mine")


def test_the_second_ingest_reuses_the_pack_and_reports_where_things_lie(picture_recipe: WriteRecipe) -> None:
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


def test_another_table_is_scored_by_run_id_by_registered_model_and_by_weights_file(picture_recipe: WriteRecipe) -> None:
    trained = train(recipe_file=str(picture_recipe(tracking={"register": "halves"})))
    table = Path("other.csv")
    rows = Path("pictures.csv").read_text().splitlines()
    table.write_text("\n".join([rows[0], *rows[1:21]]) + "\n")
    for source in (trained["run_id"], trained["mlflow_run_id"], "models:/halves@champion", trained["weights"]):
        result = evaluate(source, str(table))
        assert (result["kind"], result["status"]) == ("evaluate", "FINISHED")
        assert result["metrics"]["test/accuracy"] == 1.0
        assert result["source"]
    run = client().get_run(result["mlflow_run_id"])
    assert run.data.tags["torchrelay.kind"] == "evaluate"
    assert run.data.tags["torchrelay.source"] == result["source"]


def test_a_registered_model_takes_raw_pixels(picture_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(RecipeError, match=r"data\.max_bad_rows: a run goes on with what it began with"):
        train(resume=result["run_id"], overrides={"data.max_bad_rows": 0.5})


def test_the_journal_has_every_step_even_where_mlflow_gets_few(number_recipe: WriteRecipe) -> None:
    result = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 3, "tracking.every_steps": 10})
    journal = Journal(Path(result["run_dir"]) / "journal.jsonl").points()
    steps = [point.step for point in journal if point.key == "train/loss"]
    assert steps == list(range(1, result["steps"] + 1))
    shipped = [point.step for point in client().get_metric_history(result["mlflow_run_id"], "train/loss")]
    assert shipped == [step for step in steps if step % 10 == 0 or step == result["steps"]]
