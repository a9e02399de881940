from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchrelay.datasets.ingest.prepare import prepare_data
from torchrelay.disk import read_json
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
WritePictures = Callable[..., None]
MakeData = Callable[..., Data]


def test_the_report_counts_rows_classes_ranges_missing_values_and_reasons(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(
        ["x0,x1,label,site,split", "1,-5,a,s1,train", "2,5,b,s2,train", ",5,b,s1,train",
         "4,0,a,s1,test",
         "4,0,a,s2,test", "3,1,b,s1,valid", "9,9,z,s1,valid"]
    )  # fmt: skip
    data = number_data(
        table, split={"column": "split", "stratify": "site", "seed": 1}, max_bad_rows=0.5
    )
    prepared = prepare_data(data, home)
    report = read_json(prepared.split_dir / "report.json")
    assert report["rows"] == 7
    assert report["splits"] == prepared.rows == {"train": 2, "valid": 1, "test": 2}
    assert report["quarantined"] == {
        "rows": 2,
        "reasons": {"empty cell in 'x0'": 1, "class without a training row": 1},
        "remedies": {
            "class without a training row": "data.rare_classes: keep or drop lets the run go on"
        },
    }
    assert report["features"]["x"] == {
        "kind": "number",
        "columns": ["x0", "x1"],
        "missing": {"x0": 1, "x1": 0},
        "ranges": {
            "x0": {"min": 1.0, "max": 4.0, "mean": 2.8, "std": pytest.approx(1.36**0.5)},
            "x1": {"min": -5.0, "max": 5.0, "mean": 0.2, "std": pytest.approx(10.16**0.5)},
        },
        "ranges_by_split": {
            "train": {
                "x0": {"min": 1.0, "max": 2.0, "mean": 1.5, "std": 0.5},
                "x1": {"min": -5.0, "max": 5.0, "mean": 0.0, "std": 5.0},
            },
            "valid": {
                "x0": {"min": 3.0, "max": 3.0, "mean": 3.0, "std": 0.0},
                "x1": {"min": 1.0, "max": 1.0, "mean": 1.0, "std": 0.0},
            },
            "test": {
                "x0": {"min": 4.0, "max": 4.0, "mean": 4.0, "std": 0.0},
                "x1": {"min": 0.0, "max": 0.0, "mean": 0.0, "std": 0.0},
            },
        },
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
        "data.split.seed: without effect, because the column 'split' says which rows train",
        "1 of 2 classes of 'label' have no valid row: a",
        "1 of 2 classes of 'label' have no test row: b",
        "1 of 2 classes of 'site' have no valid row: s2",
    ]


def test_the_report_knows_the_images(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["a.png", "b.png"], size=(5, 6))
    table = write_table(["image,label,split", "a.png,x,train", "b.png,y,train", "a.png,x,train"])
    prepared = prepare_data(image_data(table), home)
    image = read_json(prepared.split_dir / "report.json")["features"]["image"]
    assert (image["shape"], image["dtype"], image["distinct_images"]) == ([3, 5, 6], "uint8", 2)
    assert image["sizes"]["most_frequent"] == [{"height": 5, "width": 6, "rows": 3}]
    assert prepared.warnings == ["no row tests: there will be no test metrics"]


@pytest.mark.parametrize(
    ("dtype", "bits", "warns"), [("uint8", 16, True), ("uint16", 16, False), ("uint8", 8, False)]
)
def test_16_bits_of_which_8_are_kept_warn(
    home: Home,
    tmp_path: Path,
    write_table: WriteTable,
    image_data: MakeData,
    dtype: str,
    bits: int,
    warns: bool,
) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        np.save(tmp_path / "images" / f"{name}.npy", np.full((4, 5, 3), ord(name), f"uint{bits}"))
    table = write_table(["image,label,split", "a.npy,x,train", "b.npy,y,train", "b.npy,y,train"])
    data = image_data(table, inputs={"image": {"kind": "image", "dtype": dtype}})
    warning = "'image': of 16 bits dtype uint8 keeps the high 8; say `dtype: uint16` to keep all"
    assert (warning in prepare_data(data, home).warnings) == warns


def test_the_same_row_in_two_splits_is_a_warning(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("x0,label,split\n1,a,train\n2,b,train\n1.0,a,test\n2,a,test\n3,b,test\n")
    prepared = prepare_data(number_data(table, split={"column": "split"}), home)
    assert prepared.warnings[:1] == [
        "2 rows of different splits hold the same row, for example rows 1, 3"
    ]
    assert "rows 2 and 4" in prepared.warnings[1]  # which have the same inputs and other classes


@pytest.mark.parametrize(("column", "num_warnings"), [("", 0), ("split", 1)])
def test_fractions_beside_a_column_warn(
    home: Home, write_table: WriteTable, number_data: MakeData, column: str, num_warnings: int
) -> None:
    rows = [
        f"{number},{'ab'[number % 2]},{('train', 'valid', 'test')[number // 2 % 3]}"
        for number in range(120)
    ]
    data = number_data(
        write_table(["x0,label,split", *rows]), split={"column": column, "valid": 0.3, "test": 0.3}
    )
    warnings = prepare_data(data, home).warnings
    assert len(warnings) == num_warnings
    assert not column or "data.split.valid, data.split.test: without effect" in warnings[0]


def test_the_report_measures_the_pictures_of_the_files_not_those_of_the_store(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["a.png", "b.png"], size=(10, 20))
    write_pictures(["c.png"], size=(30, 8))
    table = write_table(["image,label,split", "a.png,x,train", "b.png,y,train", "c.png,x,test"])
    data = image_data(table, inputs={"image": {"kind": "image", "size": [4, 4]}})
    sizes = read_json(prepare_data(data, home).split_dir / "report.json")["features"]["image"][
        "sizes"
    ]
    assert sizes["height"] == {
        "min": 10,
        "quarter": 10,
        "median": 10,
        "three_quarters": 20,
        "max": 30,
    }
    assert sizes["width"] == {
        "min": 8,
        "quarter": 14,
        "median": 20,
        "three_quarters": 20,
        "max": 20,
    }
    assert sizes["distinct"] == 2
    assert sizes["most_frequent"][0] == {"height": 10, "width": 20, "rows": 2}


def test_a_stratum_without_a_test_row_is_reported_once(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    # 60 rows of each site, and one of a third, which can test in one split of five only.
    rows = [
        f"{number},{'ab'[number % 2]},{'north' if number % 3 else 'south'}" for number in range(120)
    ]
    table = write_table(["x0,label,site", *rows, "999,a,rare"])
    split = {"valid": 0, "test": 0.2, "stratify": "site"}
    prepared = prepare_data(number_data(table, split=split), home)
    assert prepared.warnings == ["1 of 3 classes of 'site' have no test row: rare"]
    strata = read_json(prepared.split_dir / "report.json")["stratify"]
    assert strata["rare"] == {"train": 1, "valid": 0, "test": 0}
    assert sum(strata["north"].values()) == 80
    assert all(
        0.1 < counts["test"] / sum(counts.values()) < 0.3
        for counts in (strata["north"], strata["south"])
    )
    by_label = prepare_data(number_data(table, split=split | {"stratify": "label"}), home)
    assert by_label.warnings == []


def test_a_row_of_no_group_is_one_by_itself_and_is_counted(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    rows = [f"{number},{'ab'[number % 2]},{'p' if number < 20 else ' '}" for number in range(120)]
    table = write_table(["x0,label,patient", *rows])
    prepared = prepare_data(
        number_data(table, split={"valid": 0, "test": 0.5, "group": "patient"}), home
    )
    report = read_json(prepared.split_dir / "report.json")
    assert (report["group"]["largest"], report["group"]["rows_of_none"]) == (20, 100)
    assert sum(report["group"]["groups"].values()) == 1
    assert (
        min(report["splits"]["train"], report["splits"]["test"]) > 25
    )  # of 100, not all on one side
    assert prepared.warnings == [
        "100 rows have no 'patient'; the hash takes each for a group of its own"
    ]


def test_a_split_by_hash_without_validation_rows_warns(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,label,split", "1,a,train", "2,b,train", "3,a,test", "4,b,test"])
    kept = "no row validates: the last weights are kept"
    assert (
        kept in prepare_data(number_data(table, split={"valid": 0.001, "test": 0}), home).warnings
    )
    assert (
        kept not in prepare_data(number_data(table, split={"valid": 0, "test": 0}), home).warnings
    )
    assert kept not in prepare_data(number_data(table, split={"column": "split"}), home).warnings


def test_a_stratum_that_tests_with_another_part_of_its_rows_is_named(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    # One group of three rows of the rare site, which go to one side together.
    rows = [f"{number},{'ab'[number % 2]},north,g{number}" for number in range(120)]
    rare = [f"{number},a,rare,together" for number in range(900, 903)]
    table = write_table(["x0,label,site,group", *rows, *rare])
    split = {"valid": 0, "test": 0.3, "stratify": "site", "group": "group"}
    found = [
        prepare_data(number_data(table, split=split | {"seed": seed}), home) for seed in range(8)
    ]
    expected = (
        "1 of 2 values of 'site' test with another part of their rows than data.split.test, 30%: "
        "rare 100%; "
        "stratify moves no row, another data.split.seed does"
    )
    for prepared in found:
        tested = read_json(prepared.split_dir / "report.json")["stratify"]["rare"]["test"]
        assert (expected in prepared.warnings) == (tested == 3)
    assert any(expected in prepared.warnings for prepared in found)


def test_cells_that_say_they_are_missing_count_as_such_in_numbers_only(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    words = ["", "NA", "nan", "Null", " None ", "?", "n/a"]
    table = write_table(["x0,label", "1,a", "2,NA", "3,None", *(f"{word},a" for word in words)])
    features = read_json(
        prepare_data(number_data(table, max_bad_rows=0.9), home).split_dir / "report.json"
    )["features"]
    assert (features["x"]["missing"], features["label"]["missing"]) == ({"x0": 7}, {"label": 0})


def test_groups_are_counted_on_each_side_and_no_group_stands_on_two(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    rows = [f"{number},{'ab'[number % 2]},p{min(number // 3, 30)}" for number in range(120)]
    table = write_table(["x0,label,patient", *rows])
    prepared = prepare_data(
        number_data(table, split={"valid": 0.2, "test": 0.2, "group": "patient"}), home
    )
    group = read_json(prepared.split_dir / "report.json")["group"]
    assert sum(group["groups"].values()) == 31
    assert min(group["groups"].values()) > 0
    assert group["largest"] == 30


def test_the_csv_of_the_report_has_a_line_for_each_of_its_numbers(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["a.png", "b.png", "c.png"], size=(5, 6))
    table = write_table(
        ["image,age,x,y,label,split", "a.png,1,0,0,k,train", "b.png,3,5.5,2,m,train",
         "a.png,1,0,0,k,train",
         "c.png,,1,1,k,test", "c.png,2,5.6,2,k,test"]
    )  # fmt: skip
    inputs = {
        "image": {"kind": "image"},
        "age": {"kind": "number"},
        "eye": {"kind": "points", "columns": ["x", "y"]},
    }
    prepared = prepare_data(image_data(table, inputs=inputs, max_bad_rows=0.5), home)
    lines = pd.read_csv(prepared.split_dir / "data_report.csv", na_filter=False)
    assert list(lines.columns) == ["section", "name", "split", "value"]
    found = {
        (one.section, one.name, one.split): one.value
        for one in lines.itertuples(index=False, name="Line")
    }
    assert len(found) == len(lines)
    expected = {
        ("rows", "table", ""): 5,
        ("rows", "used", "train"): 3,
        ("rows", "used", "test"): 1,
        ("rows", "quarantined", ""): 1,
        ("quarantine", "empty cell in 'age'", ""): 1,
        ("missing", "age", ""): 1,
        ("missing", "label", ""): 0,
        ("duplicates", "rows", ""): 1,
        ("leakage", "image", ""): 0,
        ("classes", "label/k", "train"): 2,
        ("classes", "label/m", "test"): 0,
        ("images", "image/distinct sizes", ""): 1,
        ("images", "image/distinct images", ""): 3,
        ("images", "image/height/median", ""): 5,
        ("images", "image/width/max", ""): 6,
        ("numbers", "age/age/mean", "train"): pytest.approx(5 / 3),
        ("numbers", "age/age/max", ""): 3,
        ("points", "eye/points", ""): 1,
        (
            "points",
            "eye/points outside",
            "",
        ): 1,  # 5.5 is the edge of the last of 6 pixels, 5.6 is beyond
        ("points", "eye/rows with points outside", ""): 1,
    }
    assert {key: found[key] for key in expected} == expected
