from __future__ import annotations

from collections.abc import Callable

import pytest

from torchrelay.datasets.build import prepare_data
from torchrelay.files import read_json
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
WritePictures = Callable[..., None]
MakeData = Callable[..., Data]


def test_the_report_counts_rows_classes_ranges_missing_values_and_reasons(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(
        ["x0,x1,label,site,split", "1,-5,a,s1,train", "2,5,b,s2,train", ",5,b,s1,train", "4,0,a,s1,test",
         "4,0,a,s2,test", "3,1,b,s1,valid", "9,9,z,s1,valid"]
    )  # fmt: skip
    data = number_data(table, split={"column": "split", "stratify": "site"}, max_bad_rows=0.5)
    prepared = prepare_data(data, home)
    report = read_json(prepared.split_dir / "report.json")
    assert report["rows"] == 7
    assert report["splits"] == prepared.rows == {"train": 2, "valid": 1, "test": 2}
    assert report["quarantined"] == {
        "rows": 2,
        "reasons": {"empty cell in 'x0'": 1, "class without a training row": 1},
    }
    assert report["features"]["x"] == {
        "kind": "number",
        "columns": ["x0", "x1"],
        "missing": {"x0": 1, "x1": 0},
        "ranges": {"x0": {"min": 1.0, "max": 4.0}, "x1": {"min": -5.0, "max": 5.0}},
    }
    assert report["features"]["label"]["classes"] == {
        "a": {"train": 1, "valid": 0, "test": 2},
        "b": {"train": 1, "valid": 1, "test": 0},
    }
    assert report["stratify"] == {
        "s1": {"train": 1, "valid": 1, "test": 1},
        "s2": {"train": 1, "valid": 0, "test": 1},
    }
    assert report["duplicate_rows"] == 1
    assert report["fingerprint"] == prepared.fingerprint
    assert report["warnings"] == prepared.warnings
    assert prepared.warnings == [
        "data.split.stratify: without effect, because the column 'split' says which rows train",
        "1 of 2 classes have no valid row: a",
        "1 of 2 classes have no test row: b",
    ]


def test_the_report_knows_the_images(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["a.png", "b.png"], size=(5, 6))
    table = write_table(["image,label,split", "a.png,x,train", "b.png,y,train", "a.png,x,train"])
    prepared = prepare_data(image_data(table), home)
    image = read_json(prepared.split_dir / "report.json")["features"]["image"]
    assert (image["shape"], image["dtype"], image["distinct_images"]) == ([3, 5, 6], "uint8", 2)
    assert prepared.warnings == ["no row tests: there will be no test metrics"]


def test_the_same_row_in_two_splits_is_a_warning(home: Home, write_table: WriteTable, number_data: MakeData) -> None:
    table = write_table("x0,label,split\n1,a,train\n2,b,train\n1.0,a,test\n2,a,test\n3,b,test\n")
    prepared = prepare_data(number_data(table, split={"column": "split"}), home)
    assert prepared.warnings == ["2 rows of different splits hold the same row, for example rows 1, 3"]


@pytest.mark.parametrize(("column", "num_warnings"), [("", 0), ("split", 1)])
def test_fractions_beside_a_column_warn(
    home: Home, write_table: WriteTable, number_data: MakeData, column: str, num_warnings: int
) -> None:
    rows = [f"{number},{'ab'[number % 2]},{('train', 'valid', 'test')[number // 2 % 3]}" for number in range(120)]
    data = number_data(write_table(["x0,label,split", *rows]), split={"column": column, "valid": 0.3, "test": 0.3})
    warnings = prepare_data(data, home).warnings
    assert len(warnings) == num_warnings
    assert not column or "data.split.valid, data.split.test: without effect" in warnings[0]
