from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from torchrelay.datasets.batches import BatchTransform, PackDataset, Unstandardise
from torchrelay.datasets.ingest.prepare import prepare_data, prepare_for_schema
from torchrelay.datasets.pack import open_view
from torchrelay.datasets.table import check_table
from torchrelay.disk import read_json
from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]

COLOURS_AND_SHAPES = {"colour": {"kind": "category"}, "shape": {"kind": "category"}}
ROWS = [
    "0,red,disc,train",
    "1,blue,disc,train",
    "2,red,box,train",
    "3,blue,box,test",
    "4,red,ring,test",
]


def test_several_categories_come_side_by_side_each_with_its_own_classes(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,colour,shape,split", *ROWS[:4]])
    prepared = prepare_data(
        number_data(table, target=COLOURS_AND_SHAPES, split={"column": "split"}), home
    )
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert [target.classes for target in view.schema.targets] == [["blue", "red"], ["box", "disc"]]
    assert view.schema.num_outputs == 4
    batch = PackDataset(view.pack, view.schema, view.rows["train"]).__getitems__([2, 0, 1])
    assert (batch.target.dtype, batch.target.tolist()) == (torch.int64, [[1, 0], [1, 1], [0, 1]])
    assert (
        BatchTransform(view.schema, [], seed=0, device="cpu")(batch).target.tolist()
        == batch.target.tolist()
    )
    parts = view.schema.parts(torch.arange(12).reshape(3, 4), batch.target)
    assert [part.target.tolist() for part in parts] == [[1, 1, 0], [0, 1, 1]]
    assert parts[1].outputs.tolist() == [[2, 3], [6, 7], [10, 11]]


def test_a_row_is_rejected_for_a_class_that_training_lacks_in_any_target(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,colour,shape,split", *ROWS, "5,pink,disc,test"])
    data = number_data(
        table, target=COLOURS_AND_SHAPES, split={"column": "split"}, max_bad_rows=0.5
    )
    prepared = prepare_data(data, home)
    assert prepared.rows == {"train": 3, "valid": 0, "test": 1}
    quarantine = (prepared.split_dir / "quarantine.csv").read_text()
    assert (
        "5,class without a training row: 'ring' in 'shape'; data.rare_classes: keep or drop lets "
        "the run go on" in quarantine
    )
    assert (
        "6,class without a training row: 'pink' in 'colour'; data.rare_classes: keep or drop lets "
        "the run go on" in quarantine
    )
    assert prepared.warnings == [
        "1 of 2 classes of 'colour' have no test row: red",
        "1 of 2 classes of 'shape' have no test row: disc",
    ]
    assert (
        read_json(prepared.split_dir / "report.json")["features"]["shape"]["classes"]["box"]["test"]
        == 1
    )


def test_another_tables_rows_are_rejected_for_a_class_that_the_model_lacks_in_any_target(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    data = number_data(
        write_table(["x0,colour,shape,split", *ROWS[:4]]),
        target=COLOURS_AND_SHAPES,
        split={"column": "split"},
    )
    first = prepare_data(data, home)
    schema = open_view(first.pack_dir, first.split_dir).schema
    other = write_table(["x0,colour,shape", "1,red,box", "2,red,ring", "3,pink,box"], "other.csv")
    data = data.model_copy(update={"table": other, "max_bad_rows": 0.9})
    prepared = prepare_for_schema(data, schema, home)
    assert prepared.rows["test"] == 1
    quarantine = (prepared.split_dir / "quarantine.csv").read_text()
    assert "2,class that the model does not know: 'ring' in 'shape'" in quarantine
    assert "3,class that the model does not know: 'pink' in 'colour'" in quarantine


def test_a_target_of_one_class_is_refused_among_others(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,colour,shape", "0,red,disc", "1,blue,disc"])
    data = number_data(table, target=COLOURS_AND_SHAPES)
    with pytest.raises(
        DataError, match="target column 'shape' has the one class 'disc'; expected two"
    ):
        check_table(data)
    table = write_table(
        ["x0,colour,shape,split", "0,red,disc,train", "1,blue,disc,train", "2,red,box,test"]
    )
    data = number_data(
        table, target=COLOURS_AND_SHAPES, split={"column": "split"}, max_bad_rows=0.5
    )
    with pytest.raises(DataError, match="'shape' has the one class 'disc' among its training rows"):
        prepare_data(data, home)


def test_the_columns_of_several_number_targets_stand_side_by_side_and_come_back(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,a,b0,b1", "1,10,0,2000", "2,30,4,2002", "3,20,8,2004"])
    targets = {"a": {"kind": "number"}, "b": {"kind": "number", "columns": "b*"}}
    prepared = prepare_data(number_data(table, target=targets), home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    batch = PackDataset(view.pack, view.schema, view.rows["train"]).__getitems__([2, 0])
    assert batch.target.tolist() == [[20, 8, 2004], [10, 0, 2000]]
    out = BatchTransform(view.schema, [], seed=0, device="cpu")(batch)
    # By hand: the means are 20, 4 and 2002, the variances 200/3, 32/3 and 8/3.
    expected = [
        [0, 4 / (32 / 3) ** 0.5, 2 / (8 / 3) ** 0.5],
        [-10 / (200 / 3) ** 0.5, -(1.5**0.5), -(1.5**0.5)],
    ]
    torch.testing.assert_close(out.target, torch.tensor(expected))
    torch.testing.assert_close(
        Unstandardise(view.schema)(out.target), batch.target, rtol=0, atol=1e-3
    )
    shares = [part.target.shape[1] for part in view.schema.parts(torch.zeros(2, 3), out.target)]
    assert shares == [1, 2]


def test_targets_of_two_kinds_are_refused_by_name(
    write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,colour,y", "0,red,1", "1,blue,2"])
    data = number_data(table, target={"colour": {"kind": "category"}, "y": {"kind": "number"}})
    with pytest.raises(
        RecipeError,
        match=r"several targets must be of one kind, got colour \(category\), y \(number\)",
    ):
        check_table(data)
    data = number_data(
        table, target={"y": {"kind": "number"}, "z": {"kind": "number", "columns": "x0"}}
    )
    with pytest.raises(
        RecipeError, match=r"data\.inputs\.x\.columns holds 'x0', which is the target 'z'"
    ):
        check_table(data)
