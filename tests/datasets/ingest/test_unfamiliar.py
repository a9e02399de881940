from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from torchrelay.datasets.ingest.prepare import Prepared, prepare_data, prepare_inputs
from torchrelay.datasets.pack import open_view
from torchrelay.datasets.verdicts import MOST_KINDS, NoRowsError
from torchrelay.disk import read_json
from torchrelay.recipe import Data, Split
from torchrelay.schema import Schema
from torchrelay.settings import Home

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]
Trained = tuple[Data, Schema]

RNG = np.random.default_rng(6)
STORES = RNG.integers(0, 4, 100)
FRAME = pd.DataFrame(
    {
        "store": STORES,
        "open": STORES > 1,
        "x": RNG.normal(size=100),
        "same": 7,
        "y": np.where(STORES % 2, "odd", "even"),
    }
)


@pytest.fixture
def trained(write_table: WriteTable, number_data: MakeData, home: Home) -> Trained:
    """A model's schema: two categories and two numbers, one of them the same in all rows."""
    inputs = {
        "store": {"kind": "category"},
        "open": {"kind": "category"},
        "x": {"kind": "number", "columns": ["x", "same"]},
    }
    data = number_data(
        write_table(FRAME.to_csv(index=False)), inputs=inputs, target={"y": {"kind": "category"}}
    )
    prepared = prepare_data(data, home)
    return data, open_view(prepared.pack_dir, prepared.split_dir).schema


def predict(
    trained: Trained, home: Home, write_table: WriteTable, frame: pd.DataFrame, suffix: str = ".csv"
) -> Prepared:
    data, schema = trained
    path = write_table("", f"new{suffix}")
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    return prepare_inputs(data.model_copy(update={"table": path}), schema, home)


def unfamiliar(prepared: Prepared) -> dict[str, dict[str, object]]:
    found = read_json(prepared.split_dir / "report.json")["unfamiliar"]
    return {one.pop("column"): one for one in found}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_codes_that_one_empty_cell_made_floats_are_known(
    trained: Trained, home: Home, write_table: WriteTable, suffix: str
) -> None:
    new = FRAME.head(40).astype({"store": float})
    new.loc[5, "store"] = np.nan
    prepared = predict(trained, home, write_table, new, suffix)
    assert (prepared.rows["test"], prepared.num_quarantined, unfamiliar(prepared)) == (39, 1, {})
    view = open_view(prepared.pack_dir, prepared.split_dir)
    known = [view.pack.vocabulary("store")[at] for at in view.pack.column("store")[:, 0]]
    assert known == [str(store) for at, store in enumerate(STORES[:40]) if at != 5]


def test_dictionaries_and_decimals_of_parquet_are_known(
    trained: Trained, home: Home, write_table: WriteTable
) -> None:
    new = FRAME.head(40).astype({"store": "category", "open": "int64"})
    assert unfamiliar(predict(trained, home, write_table, new, ".parquet")) == {}
    new["store"] = pd.Series([Decimal(f"{store}.00") for store in STORES[:40]])
    assert pa.Table.from_pandas(new).schema.field("store").type == pa.decimal128(3, 2)
    assert unfamiliar(predict(trained, home, write_table, new, ".parquet")) == {}


def test_categories_that_the_model_never_saw_are_counted_and_past_the_limit_a_verdict(
    trained: Trained, home: Home, write_table: WriteTable
) -> None:
    new = FRAME.head(40).copy()
    new["store"] = new["store"].astype(str)
    new.loc[:9, "store"] = "S9"
    prepared = predict(trained, home, write_table, new)
    assert (prepared.rows["test"], prepared.num_quarantined) == (40, 0)
    assert unfamiliar(prepared)["store"] == {
        "kind": "unknown",
        "what": "unknown to the model",
        "cells": 10,
        "unknown": 10,
        "share": 0.25,
    }
    assert any(
        "'store': 10 cells (25.0%) are unknown to the model" in warning
        for warning in prepared.warnings
    )
    new.loc[:29, "store"] = "S9"
    assert predict(trained, home, write_table, new).num_quarantined == 30
    new["store"] = "S9"
    with pytest.raises(
        NoRowsError,
        match=r"'store' is unknown to the model.*'S9', as 100% of its cells are; "
        r"known are '0', '1', '2', … \(4",
    ):
        predict(trained, home, write_table, new)


def test_inputs_in_another_unit_are_a_verdict(
    trained: Trained, home: Home, write_table: WriteTable
) -> None:
    new = FRAME.head(40).copy()
    new.loc[:29, "x"] *= 1000
    data, schema = trained
    prepared = predict(
        (data.model_copy(update={"max_unknown": 1.0}), schema), home, write_table, new
    )
    assert prepared.num_quarantined == 0
    assert any(
        "'x'" in warning and "outside the training range" in warning
        for warning in prepared.warnings
    )
    assert predict(trained, home, write_table, new).num_quarantined > 25


def test_a_column_that_was_constant_in_training_and_is_not_now_is_named(
    trained: Trained, home: Home, write_table: WriteTable
) -> None:
    new = FRAME.head(40).copy()
    new.loc[:9, "same"] = 8
    prepared = predict(trained, home, write_table, new)
    assert any(
        "'same': 10 cells (25.0%) are not 7, which all were in training" in one
        for one in prepared.warnings
    )


def test_rows_like_those_of_training_are_not_strange(
    trained: Trained, home: Home, write_table: WriteTable
) -> None:
    prepared = predict(trained, home, write_table, FRAME.head(40))
    assert (unfamiliar(prepared), prepared.warnings) == ({}, [])


def test_one_row_of_a_new_category_is_predicted(
    trained: Trained, home: Home, write_table: WriteTable
) -> None:
    assert predict(trained, home, write_table, FRAME.head(1).assign(store=9)).rows["test"] == 1


def test_texts_of_unknown_tokens_are_a_verdict(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    rows = [f"{'good fine' if row % 2 else 'bad poor'},{row % 2}" for row in range(20)]
    data = number_data(write_table(["t,label", *rows]), inputs={"t": {"kind": "text"}})
    prepared = prepare_data(data, home)
    schema = open_view(prepared.pack_dir, prepared.split_dir).schema
    new = data.model_copy(
        update={"table": write_table(["t,n", *["gut schoen,1"] * 8, "good,2", "bad,3"], "new.csv")}
    )
    assert prepare_inputs(new, schema, home).num_quarantined == 8


def test_a_schema_without_ranges_takes_six_deviations(
    trained: Trained, home: Home, write_table: WriteTable
) -> None:
    data, schema = trained
    old = [one.model_copy(update={"low": [], "high": []}) for one in schema.inputs]
    schema = schema.model_copy(update={"inputs": old})
    new = FRAME.head(40).copy()
    assert "x" not in unfamiliar(predict((data, schema), home, write_table, new))
    new["x"] += 1e6
    with pytest.raises(NoRowsError, match="'x' is outside the training range"):
        predict((data, schema), home, write_table, new)


@pytest.mark.parametrize("num_shifted", [0, 30])
def test_noise_of_few_rows_is_not_strange_and_numbers_of_another_range_are(
    write_table: WriteTable, number_data: MakeData, home: Home, num_shifted: int
) -> None:
    values = np.random.default_rng(0).normal(size=(40, 500))
    values[12:, :num_shifted] += 20
    frame = pd.DataFrame(values, columns=[f"x{at}" for at in range(500)]).assign(
        y=["ab"[row % 2] for row in range(40)], split=["train"] * 12 + ["test"] * 28
    )
    inputs = {"x": {"kind": "number", "columns": "x*"}}
    data = number_data(
        write_table(frame.to_csv(index=False)), inputs=inputs, target={"y": {"kind": "category"}}
    )
    prepared = prepare_data(data.model_copy(update={"split": Split(column="split")}), home)
    outside = [one for one in prepared.warnings if "outside the training range" in one]
    assert len(outside) == min(num_shifted, MOST_KINDS)
    assert any("22 more columns" in one for one in prepared.warnings) == (num_shifted == 30)
