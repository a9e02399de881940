"""A graph from its table to ranks, neighbours and answers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.flows.evaluate import evaluate
from torchrelay.flows.predict import predict
from torchrelay.flows.train import train

from ..conftest import WriteRecipe

pytestmark = pytest.mark.usefixtures("prefect_server")


def artifacts_of(run_id: str, folder: str) -> set[str]:
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    return {Path(item.path).name for item in client.list_artifacts(run_id, folder)}


def test_a_graph_becomes_a_model_that_ranks_and_answers(
    graph_recipe: WriteRecipe, tmp_path: Path
) -> None:
    result = train(recipe_file=str(graph_recipe()))
    run_dir = Path(result["run_dir"])
    metrics = result["metrics"]
    assert result["status"] == "FINISHED"
    # Of 14 questions one asks for the moon and one from there, which no training row knows; the
    # others are regular.
    assert metrics["test/hits_at_3"] >= 0.75
    assert metrics["test/mrr_low"] <= metrics["test/mrr"] <= metrics["test/mrr_high"]
    assert metrics["test/mrr"] == pytest.approx(
        (metrics["test/mrr_of/head"] + metrics["test/mrr_of/tail"]) / 2
    )
    assert max(metrics["valid/mrr"], metrics["valid/hits_at_10"]) <= 1
    assert not any("accuracy" in name for name in metrics)
    assert artifacts_of(result["mlflow_run_id"], "tables") == {"neighbours.csv", "relations.csv"}
    assert {"curves.png", "ranks.png", "worst.png"} <= artifacts_of(
        result["mlflow_run_id"], "figures"
    )

    ranks = pd.read_parquet(run_dir / "predictions.parquet")
    assert list(ranks.columns) == [
        *("row", "direction", "head", "relation", "tail", "target", "prediction", "rank", "loss"),
    ]
    assert (1 / ranks["rank"]).mean() == pytest.approx(metrics["test/mrr"])
    moon = ranks[(ranks["tail"] == "moon") & (ranks["direction"] == "tail")].iloc[0]
    assert (moon["target"], moon["rank"] > 3) == ("moon", True)

    Path("ask.csv").write_text(
        "head,relation,note\np1,lives_in,a\nnobody,lives_in,b\np2,dreams_of,c\n"
    )
    predict(result["run_id"], "ask.csv", "answers.csv")
    answers = pd.read_csv("answers.csv", keep_default_na=False)
    assert answers["prediction"].tolist() == ["rome", "", ""]
    assert answers["verdict"].tolist() == [
        "",
        "entity that the model does not know: 'nobody' in 'head'",
        "relation that the model does not know: 'dreams_of' in 'relation'",
    ]
    assert 0 < float(answers["probability"][0]) <= 1

    # The test rows alone: the facts of the other rows are taken out all the same.
    facts = pd.read_csv("graph.csv")
    facts[facts["split"] == "test"].drop(columns="split").to_csv("test.csv", index=False)
    scored = evaluate(result["run_id"], "test.csv")
    assert scored["metrics"]["test/mrr"] == metrics["test/mrr"]
