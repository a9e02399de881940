from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from torchrelay.datasets.batches import BatchTransform, PackDataset
from torchrelay.datasets.ingest.inherit import inherit
from torchrelay.datasets.ingest.prepare import prepare_data, prepare_inputs
from torchrelay.datasets.pack import View, open_view
from torchrelay.datasets.table import unused_feature_settings
from torchrelay.disk import read_json
from torchrelay.errors import DataError, RecipeError
from torchrelay.models.nets import MLP
from torchrelay.recipe import Data
from torchrelay.settings import Home
from torchrelay.tasks.assembly import Servable

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]

# Of the training rows v is 1, 2, 6 and twice missing: mean 3, median 2, deviation of the three the
# root of 14 / 3.
CELLS = ["1", "", "2", "6", "#N/A"]
TABLE = ["u,v,label", *(f"{row},{cell},{'ab'[row % 2]}" for row, cell in enumerate(CELLS))]


def filling(
    write_table: WriteTable,
    number_data: MakeData,
    missing: object,
    table: list[str] = TABLE,
    **changes: object,
) -> Data:
    inputs = {"x": {"kind": "number", "columns": ["u", "v"], "missing": missing}}
    return number_data(write_table(table), inputs=inputs, **changes)


def view_of(data: Data, home: Home) -> View:
    prepared = prepare_data(data, home)
    return open_view(prepared.pack_dir, prepared.split_dir)


def standardised(view: View, split: str = "train") -> torch.Tensor:
    batch = PackDataset(view.pack, view.schema, view.rows[split]).__getitems__(
        range(len(view.rows[split]))
    )
    return BatchTransform(view.schema, [], seed=0, device="cpu").standardise(batch).inputs[0]


@pytest.mark.parametrize(("missing", "filled"), [("mean", 3.0), ("median", 2.0), (-7, -7.0)])
def test_a_missing_number_is_filled_from_the_training_rows_and_flagged(
    write_table: WriteTable, number_data: MakeData, home: Home, missing: object, filled: float
) -> None:
    view = view_of(filling(write_table, number_data, missing), home)
    feature = view.schema.inputs[0]
    assert (feature.shape, feature.flagged, feature.fill[1]) == ([3], [1], filled)
    values = np.array([1, filled, 2, 6, filled])
    found = standardised(view).double().numpy()
    assert found[:, 1] == pytest.approx((values - 3) / np.sqrt(14 / 3), abs=1e-6)
    assert found[:, 2].tolist() == [0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    "cell", ["", "#N/A", "NaN", "?", ".", "-", " na ", "NULL", "<NA>", "-nan", "\u2014"]
)
def test_every_way_to_say_that_a_number_is_missing_is_filled(
    write_table: WriteTable, number_data: MakeData, home: Home, cell: str
) -> None:
    table = ["u,v,label", f"1,{cell},a", "2,5,b", "3,7,a"]
    view = view_of(filling(write_table, number_data, "mean", table), home)
    assert np.isnan(view.pack.column("x")[0, 1])
    assert view.schema.inputs[0].fill == [2, 6]


@pytest.mark.parametrize(
    ("named", "cells"),
    [([-999], ["-999", "-999.0", "-9.99e2"]), (["gone", "inf"], ["gone", "GONE ", "Infinity"])],
)
def test_numbers_and_words_that_the_recipe_names_are_missing_and_others_are_not(
    write_table: WriteTable,
    number_data: MakeData,
    home: Home,
    named: list[object],
    cells: list[str],
) -> None:
    table = [
        "u,v,label",
        *(f"{row},{cell},{'ab'[row % 2]}" for row, cell in enumerate([*cells, "5", "-99"])),
    ]
    prepared = prepare_data(
        filling(write_table, number_data, "median", table, missing_values=named), home
    )
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert np.isnan(view.pack.column("x")[:, 1]).tolist() == [True, True, True, False, False]
    assert read_json(prepared.split_dir / "report.json")["features"]["x"]["missing"] == {
        "u": 0,
        "v": 3,
    }


def test_a_number_that_is_named_missing_rejects_its_row_where_nothing_fills_it(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    table = ["u,v,label", "1,-999,a", "2,5,b", "3,7,a"]
    data = filling(write_table, number_data, "reject", table, missing_values=-999, max_bad_rows=0.5)
    prepared = prepare_data(data, home)
    assert "missing value in 'v': '-999'" in (
        prepared.split_dir / "quarantine.csv"
    ).read_text().replace('"', "")


def test_a_cell_that_says_something_else_still_rejects_its_row(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    table = ["u,v,label", "1,abc,a", "2,5,b", "3,inf,a", "3,7,a"]
    prepared = prepare_data(
        filling(write_table, number_data, "mean", table, max_bad_rows=0.5), home
    )
    assert prepared.num_quarantined == 2


def test_another_table_is_filled_with_what_the_model_was_trained_with(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    data = filling(write_table, number_data, "median")
    schema = view_of(data, home).schema
    new = write_table(["u,v", "?,100", "1,", "2,200"], "new.csv")
    prepared = prepare_inputs(data.model_copy(update={"table": new}), schema, home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert (prepared.rows["test"], prepared.num_quarantined) == (3, 0)
    found = standardised(view, "test")
    # u was never missing in training: it is filled with its median, 2, which is its mean, and has
    # no flag.
    assert found[0, 0].item() == 0
    assert found[:, 2].tolist() == [0, 1, 0]
    assert found[1, 1].item() == pytest.approx((2 - 3) / np.sqrt(14 / 3))


def test_a_registered_model_takes_nan(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    schema = view_of(filling(write_table, number_data, "median"), home).schema
    model = Servable(schema, MLP(schema.inputs, 2, [4], 0.0)).eval()
    raw = torch.tensor([[1.0, float("nan")], [1.0, 2.0]], dtype=torch.float64)
    exported = torch.export.export(model, (raw,)).module()
    assert torch.equal(exported(raw), model(raw))
    assert model(raw).isfinite().all()
    assert not torch.equal(model(raw)[0], model(raw)[1])  # the median itself, but not flagged


def test_a_warm_start_keeps_the_sources_fillings_and_flags(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    source = view_of(filling(write_table, number_data, "median"), home).schema
    other = ["u,v,label", ",10,a", "2,20,b", "3,60,a"]
    fitted = view_of(filling(write_table, number_data, "mean", other), home).schema
    assert fitted.inputs[0].flagged == [0]
    merged = inherit(fitted, source, "source").inputs[0]
    assert (merged.flagged, merged.fill, merged.shape, merged.mean) == (
        [1],
        [2, 2],
        [3],
        source.inputs[0].mean,
    )
    assert (merged.low, merged.high) == ([0, 1], [4, 60])


def test_a_column_without_a_number_among_its_training_rows_is_refused(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    with pytest.raises(DataError, match="column 'v' of 'x' has no number in the training rows"):
        prepare_data(
            filling(write_table, number_data, "mean", ["u,v,label", "1,,a", "2,NA,b"]), home
        )


def test_a_target_cannot_be_filled_and_a_category_has_no_such_setting(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    target = {"v": {"kind": "number", "missing": "mean"}}
    with pytest.raises(RecipeError, match=r"data\.target\.v\.missing: mean"):
        prepare_data(
            number_data(write_table(TABLE), inputs={"u": {"kind": "number"}}, target=target), home
        )
    inputs = {"u": {"kind": "category", "missing": "mean"}}
    assert unused_feature_settings(number_data(write_table(TABLE), inputs=inputs)) == [
        "feature 'u': missing without effect, because its kind is category"
    ]


def test_numbers_without_a_gap_are_fitted_as_they_were(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    table = ["u,v,label", "1,10,a", "2,20,b", "4,60,a"]
    plain, filled = (
        view_of(filling(write_table, number_data, how, table), home) for how in ("reject", "mean")
    )
    assert (plain.schema.inputs[0].fill, plain.schema.inputs[0].flagged) == ([], [])
    assert filled.schema.inputs[0].shape == plain.schema.inputs[0].shape == [2]
    assert torch.equal(standardised(plain), standardised(filled))
