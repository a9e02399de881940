"""A kind of one file, registered by one line, goes all the way that the kinds of the package go."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from torchrelay import settings
from torchrelay.datasets.kinds import register
from torchrelay.errors import RecipeError
from torchrelay.flows.finetune import finetune
from torchrelay.flows.predict import predict
from torchrelay.flows.train import train
from torchrelay.kinds import KINDS
from torchrelay.recipe import load_recipe
from torchrelay.schema import Schema

from .dates import Date

RECIPE = {
    "name": "winters",
    "data": {
        "table": "days.csv",
        "inputs": {"day": {"kind": "date"}, "x": {"kind": "number"}},
        "target": {"winter": {"kind": "category"}},
        "split": {"column": "split"},
        "max_bad_rows": 0.1,
    },
    "model": {"name": "mlp", "args": {"hidden": [8]}},
    "train": {"epochs": 12, "batch_size": 8, "optimizer": {"name": "adam", "args": {"lr": 0.05}}},
}


@pytest.fixture
def dates() -> Iterator[None]:
    register(Date())
    yield
    del KINDS["date"]


def write_table(name: str, years: range) -> None:
    lines = ["day,x,winter,split"]
    for year in years:
        for month in range(1, 13):
            rest = f"{month % 2},{'yes' if month in (12, 1, 2) else 'no'}"
            side = ("valid", "test")[year % 2]
            lines += [f"{year}-{month:02}-15,{rest},train", f"{year}-{month:02}-16,{rest},{side}"]
    Path(name).write_text("\n".join([*lines, f"{years[0]}-02-30,1,yes,train"]) + "\n")


@pytest.mark.usefixtures("dates", "prefect_server")
def test_a_kind_of_one_file_trains_is_reported_finetuned_and_predicted() -> None:
    write_table("days.csv", range(2000, 2004))
    Path("winters.yaml").write_text(yaml.safe_dump(RECIPE))
    first = train(recipe_file="winters.yaml")
    assert first["status"] == "FINISHED"
    assert first["metrics"]["test/accuracy"] > 0.9  # the season tells

    schema = Schema.load(Path(first["run_dir"]) / "schema.json")
    assert schema.inputs[0].kind == "date"
    assert schema.inputs[0].mean[0] == 2001.5
    assert schema.inputs[0].std[0] == pytest.approx(math.sqrt(1.25))
    [path] = settings.home().packs.glob("*/splits/*/report.json")
    report = json.loads(path.read_text("utf-8"))
    day = {"kind": "date", "columns": ["day"], "missing": {"day": 0}, "years": [2000, 2003]}
    assert report["features"]["day"] == day
    assert report["quarantined"]["reasons"] == {"'day' is no date": 1}

    write_table("days.csv", range(2010, 2014))
    tuned = finetune(source=first["run_id"], recipe_file="winters.yaml")
    assert tuned["status"] == "FINISHED"
    kept = Schema.load(Path(tuned["run_dir"]) / "schema.json").inputs[0]
    assert (kept.mean, kept.std) == (schema.inputs[0].mean, schema.inputs[0].std)
    assert (kept.low[0], kept.high[0]) == (2000, 2013)

    Path("new.csv").write_text("day,x\n2001-01-10,1\n2001-07-10,1\n2050-01-10,1\nsoon,1\n")
    predict(source=first["run_id"], table="new.csv", out="out.csv")
    found = pd.read_csv("out.csv", keep_default_na=False)
    assert found["prediction"].tolist()[:2] == ["yes", "no"]
    assert "no date" in found["verdict"][3]


def test_a_kind_is_legal_once_it_is_registered(request: pytest.FixtureRequest) -> None:
    Path("winters.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(RecipeError, match=r"inputs.day.kind: 'date' is not legal; did you mean"):
        load_recipe(Path("winters.yaml"))
    request.getfixturevalue("dates")
    assert load_recipe(Path("winters.yaml")).data.inputs["day"].facts.is_number
