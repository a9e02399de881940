"""Texts through the flows: trained, drawn, registered, scored and labelled, with words that
training has not seen.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.flows.evaluate import evaluate
from torchrelay.flows.predict import predict
from torchrelay.flows.train import train

pytestmark = pytest.mark.usefixtures("prefect_server")

ENGLISH = "the dog sees", "a cat eats", "my mouse likes", "this horse finds"
SPANISH = "el perro ve", "un gato come", "mi ratón quiere", "este caballo halla"
THINGS = {
    "english": ("the house", "a fish", "my bread", "it"),
    "spanish": ("la casa", "un pez", "mi pan", "él"),
}
RECIPE = {
    "name": "tongues",
    "data": {
        "table": "tongues.csv",
        "inputs": {"text": {"kind": "text", "min_count": 2}},
        "target": {"language": {"kind": "category"}},
        "split": {"column": "split"},
    },
    "model": {"name": "bag_of_words"},
    "train": {
        "epochs": 8,
        "batch_size": 4,
        "loss": "nll",
        "optimizer": {"name": "sgd", "args": {"lr": 0.5}},
    },
    "tracking": {"register": "tongues"},
}


def write_tables() -> None:
    lines = ["text,language,split"]
    for name, starts in (("english", ENGLISH), ("spanish", SPANISH)):
        for number, (start, end) in enumerate(itertools.product(starts, THINGS[name])):
            lines.append(f"{start} {end},{name},{('train', 'train', 'test', 'valid')[number % 4]}")
    Path("tongues.csv").write_text("\n".join(lines) + "\n")
    Path("tongues.yaml").write_text(yaml.safe_dump(RECIPE))
    Path("new.csv").write_text('text\nThe horse likes bread.\nEl perro quiere pan\nzzz qqq\n""\n')
    Path("other.csv").write_text(
        "text,language\nthe cat!,english\nel gato!,spanish\nel zorro,spanish\n"
    )


def test_texts_are_learned_drawn_and_told_apart_in_new_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tables()
    result = train(recipe_file="tongues.yaml")
    said = capsys.readouterr().err
    assert "weights only: 'text' is text" in said
    assert "torchrelay predict models:/NAME@ALIAS" in said
    run_dir = Path(result["run_dir"])
    assert result["metrics"]["test/accuracy"] == 1.0
    words = pd.read_csv(run_dir / "tables" / "words.csv")
    best = words[words["rank"] <= 4].groupby("class")["token"].apply(set)
    assert "the" in best["english"]
    assert not best["english"] & best["spanish"]
    before = words["weight_before"].abs().max()
    assert 0 < before < words["weight_after"].abs().max()
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    for folder, names in {"tables": {"words.csv"}, "figures": {"words.png", "worst.png"}}.items():
        logged = client.list_artifacts(result["mlflow_run_id"], folder)
        assert {f"{folder}/{name}" for name in names} <= {item.path for item in logged}

    labelled = predict(source="models:/tongues@champion", table="new.csv", out="out.csv")
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction"] for row in rows[:2]] == ["english", "spanish"]
    assert float(rows[0]["probability"]) > 0.6
    assert rows[2]["prediction"] in (
        "english",
        "spanish",
    )  # of words that it has not seen it guesses
    assert (rows[3]["prediction"], rows[3]["verdict"]) == ("", "empty cell in 'text'")
    assert labelled["rows_predicted"] == 3

    scored = evaluate(source=result["run_id"], table="other.csv")
    assert scored["metrics"]["test/accuracy"] == 1.0
    assert not (Path(scored["run_dir"]) / "tables" / "words.csv").exists()
