from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from torchrelay.datasets.table.table import (
    check_table,
    open_table,
    read_table,
    resolve_columns,
    resolve_features,
    split_columns,
    unused_feature_settings,
)
from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Data, Feature

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]

COLUMNS = ["image", "x10", "x2", "x[1]", "label"]


def test_cells_stay_as_they_are_written(write_table: WriteTable) -> None:
    table = write_table('id,label,n\n007,NA,1e3\n 8 ,None,\n"a,b","nan",1.50\n')
    frame = read_table(Data(table=table))
    assert frame.to_dict("list") == {
        "id": ["007", " 8 ", "a,b"],
        "label": ["NA", "None", "nan"],
        "n": ["1e3", "", "1.50"],
    }
    assert all(dtype == "str" for dtype in frame.dtypes)


def test_rows_are_counted_from_zero_without_header_and_blank_lines(write_table: WriteTable) -> None:
    frame = read_table(Data(table=write_table("a,b\n1,2\n\n3,4\n")))
    assert list(frame.index) == [0, 1]
    assert list(frame["a"]) == ["1", "3"]


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(
    write_table: WriteTable, encoding: str
) -> None:
    frame = read_table(
        Data(table=write_table(b"\xef\xbb\xbfimage,label\na.png,caf\xc3\xa9\n"), encoding=encoding)
    )
    assert list(frame.columns) == ["image", "label"]
    assert frame["label"][0] == "café"


def test_latin_1_is_refused_with_byte_line_and_remedy_and_then_read(
    write_table: WriteTable,
) -> None:
    table = write_table("a,b\n1,x\n2,café\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"table\.csv is not utf-8: byte 0xe9 at position 13, line 3; .*latin-1"
    ):
        read_table(Data(table=table))
    assert list(read_table(Data(table=table, encoding="latin-1"))["b"]) == ["x", "café"]


def test_a_bad_byte_far_into_the_file_is_found_at_its_line(write_table: WriteTable) -> None:
    table = write_table(b"a,b\n" + b"1,xyz\n" * 400_000 + b"2,\xe9\n")
    with pytest.raises(DataError, match="byte 0xe9 at position 2,400,006, line 400,002"):
        read_table(Data(table=table))


def test_utf_16_is_recognised(write_table: WriteTable) -> None:
    table = write_table("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"is UTF-16, not utf-8; set data\.encoding: utf-16"):
        read_table(Data(table=table))
    assert list(read_table(Data(table=table, encoding="utf-16")).columns) == ["a", "b"]


@pytest.mark.parametrize(
    ("encoding", "near"), [("latin-11", "latin-1"), ("uft-8", "utf-8"), ("base64", "legal are|did")]
)
def test_an_unknown_encoding_names_the_nearest(
    write_table: WriteTable, encoding: str, near: str
) -> None:
    with pytest.raises(
        DataError, match=rf"data.encoding '{encoding}' is not a text encoding; .*({near})"
    ):
        read_table(Data(table=write_table("a,b\n1,2\n"), encoding=encoding))


def test_an_extra_field_in_every_row_is_refused_instead_of_shifting_the_labels(
    write_table: WriteTable,
) -> None:
    with pytest.raises(
        DataError,
        match=r"every row has an extra field: 3 fields where the header names 2 .*\(a, b\)",
    ):
        read_table(Data(table=write_table("a,b\n1,2,3\n4,5,6\n")))


def test_two_extra_fields_in_every_row_are_refused(write_table: WriteTable) -> None:
    with pytest.raises(DataError, match="every row has an extra field: 4 fields"):
        read_table(Data(table=write_table("a,b\n1,2,3,4\n4,5,6,7\n")))


@pytest.mark.parametrize(("row", "num_fields"), [("4,5,6", 3), ("4,5,6,7,8", 5)])
def test_an_extra_field_in_one_row_marks_that_row_alone(
    write_table: WriteTable, row: str, num_fields: int
) -> None:
    table = open_table(Data(table=write_table(f"a,b\n1,2\n{row}\n7\n")))
    assert {at: str(reason) for at, reason in table.bad.items()} == {
        1: f"extra field: {num_fields} fields, the header names 2 columns"
    }
    assert table.frame.to_numpy().tolist() == [["1", "2"], ["4", "5"], ["7", ""]]


def test_a_delimiter_at_the_end_of_every_row_shifts_nothing(write_table: WriteTable) -> None:
    table = open_table(Data(table=write_table("a,b\n1,2,\n3,4,\n")))
    assert table.bad == {}
    assert table.frame.to_numpy().tolist() == [["1", "2"], ["3", "4"]]


def test_a_column_without_a_name_gets_pandas_name(write_table: WriteTable) -> None:
    assert list(read_table(Data(table=write_table(",a\n0,x\n"))).columns) == ["Unnamed: 0", "a"]


def test_a_column_name_that_stands_twice_is_refused(write_table: WriteTable) -> None:
    with pytest.raises(DataError, match="names a column twice: label"):
        read_table(Data(table=write_table("label,x,label\n1,2,3\n")))


def test_a_quote_that_is_never_closed_is_refused(write_table: WriteTable) -> None:
    with pytest.raises(
        DataError, match=r"table\.csv is not CSV .* in row 2 a quote is opened and never closed"
    ):
        read_table(Data(table=write_table('a,b\n0,0\n"1,2\n3,4\n')))


@pytest.mark.parametrize("content", ["", "\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(write_table: WriteTable, content: str | bytes) -> None:
    with pytest.raises(
        DataError, match=r"table\.csv is empty; expected a line that names the columns"
    ):
        read_table(Data(table=write_table(content)))


def test_a_header_without_rows_is_refused(write_table: WriteTable) -> None:
    with pytest.raises(DataError, match=r"table\.csv has a header and no rows"):
        read_table(Data(table=write_table("a,b\n")))


@pytest.mark.parametrize(("sign", "written"), [(";", '";"'), ("\t", r'"\\t"'), ("|", r'"\|"')])
def test_another_delimiter_is_guessed_for_the_user_and_then_read(
    write_table: WriteTable, sign: str, written: str
) -> None:
    table = write_table(f"a{sign}b\n1{sign}2\n")
    with pytest.raises(DataError, match=rf"the header is one column, .*data\.delimiter: {written}"):
        read_table(Data(table=table))
    assert list(read_table(Data(table=table, delimiter=sign)).columns) == ["a", "b"]


def test_a_delimiter_is_one_character(write_table: WriteTable) -> None:
    with pytest.raises(DataError, match=r"data.delimiter is '\\\\t', expected one character"):
        read_table(Data(table=write_table("a\tb\n1\t2\n"), delimiter="\\t"))


def test_tsv_is_separated_by_tabs(write_table: WriteTable) -> None:
    assert list(read_table(Data(table=write_table("a\tb,c\n1\t2\n", "table.TSV"))).columns) == [
        "a",
        "b,c",
    ]


def test_parquet_becomes_text_and_null_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame(
        {
            "label": ["007", None],
            "n": pd.array([7, None], dtype="Int64"),
            "x": [0.1, 540.0],
            "day": [datetime.date(2024, 2, 29)] * 2,
            "kind": pd.Categorical(["NA", "b"]),
        }
    ).to_parquet(path)
    frame = read_table(Data(table=str(path)))
    assert frame.to_numpy().tolist() == [
        ["007", "7", "0.1", "2024-02-29", "NA"],
        ["", "", "540", "2024-02-29", "b"],
    ]
    assert all(dtype == "str" for dtype in frame.dtypes)


def test_a_parquet_column_of_lists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"box": [[1, 2], [3, 4]]}).to_parquet(path)
    with pytest.raises(
        DataError, match=r"column 'box' holds list<.*int64>, expected text, numbers or dates"
    ):
        read_table(Data(table=str(path)))


def test_a_parquet_column_of_lists_is_left_out_unless_the_recipe_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"x0": ["1", "2"], "box": [[1, 2], [3, 4]], "label": ["a", "b"]}).to_parquet(path)
    assert list(read_table(Data(table=str(path))).columns) == ["x0", "label"]
    for reads in (
        {"inputs": {"x": {"kind": "number", "columns": "*o*"}}},
        {"key": "box"},
        {"split": {"group": "box"}},
    ):
        with pytest.raises(DataError, match=r"column 'box' holds list"):
            read_table(Data.model_validate({"table": str(path), **reads}))


def test_text_named_parquet_is_refused(write_table: WriteTable) -> None:
    with pytest.raises(
        DataError, match=r"table\.parquet is named \.parquet, but it is a text file"
    ):
        read_table(Data(table=write_table("a,b\n1,2\n", "table.parquet")))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("t.csv.gz", "cannot read .gz, .*unpack it"),
        ("t.xlsx", "cannot read .xlsx, .*save it as CSV"),
    ],
)
def test_other_formats_are_refused_with_the_remedy(
    write_table: WriteTable, name: str, remedy: str
) -> None:
    with pytest.raises(DataError, match=remedy):
        read_table(Data(table=write_table("a,b\n1,2\n", name)))


def test_a_url_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"data.table is a URL, https://example.org/t.csv; download it"
    ):
        read_table(Data(table="https://example.org/t.csv"))


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv is not there; correct data\.table"):
        read_table(Data(table=str(tmp_path / "nowhere.csv")))


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_a_missing_table_of_a_known_data_set_says_how_to_fetch_it(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        DataError, match=rf"{name}\.csv is not there; `torchrelay fetch {name}` writes it"
    ):
        read_table(Data(table=str(tmp_path / "data" / name / f"{name}.csv")))


def test_a_recipe_without_a_table_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.table is missing"):
        read_table(Data())


def test_columns_come_by_name_list_and_pattern_in_the_tables_order() -> None:
    assert resolve_columns("image", Feature(kind="image"), COLUMNS) == ["image"]
    assert resolve_columns("f", Feature(kind="number", columns=["x2", "x10"]), COLUMNS) == [
        "x2",
        "x10",
    ]
    assert resolve_columns("f", Feature(kind="number", columns=["x*"]), COLUMNS) == [
        "x10",
        "x2",
        "x[1]",
    ]
    assert resolve_columns("f", Feature(kind="number", columns=["x2", "x*"]), COLUMNS) == [
        "x2",
        "x10",
        "x[1]",
    ]


def test_a_name_with_brackets_is_a_name_before_it_is_a_pattern() -> None:
    assert resolve_columns("f", Feature(kind="number", columns=["x[1]"]), COLUMNS) == ["x[1]"]


def test_a_missing_column_names_the_nearest(write_table: WriteTable) -> None:
    with pytest.raises(
        DataError, match=r"feature 'lable' reads column 'lable', .*did you mean label?"
    ):
        resolve_columns("lable", Feature(kind="category"), COLUMNS)
    with pytest.raises(DataError, match=r"reads pattern 'y\*', .*legal are image"):
        resolve_columns("f", Feature(kind="number", columns=["y*"]), COLUMNS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"split": {"column": "splitt"}},
            "data.split.column names column 'splitt', .*did you mean split?",
        ),
        ({"split": {"group": "patient"}}, "data.split.group names column 'patient'"),
        (
            {"split": {"stratify": "lab"}},
            "data.split.stratify names column 'lab', .*did you mean label?",
        ),
        ({"key": "id"}, "data.key names column 'id'"),
    ],
)
def test_a_missing_column_of_the_split_is_named_with_its_key(
    write_table: WriteTable, number_data: MakeData, changes: dict[str, Any], message: str
) -> None:
    data = number_data(write_table("x0,label,split\n1,a,train\n"), **changes)
    with pytest.raises(DataError, match=rf"table\.csv: {message}"):
        resolve_features(data, ["x0", "label", "split"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {}}, r"data\.inputs is missing"),
        ({"target": {}}, r"data\.target is missing"),
        (
            {"target": {"a": {"kind": "number"}, "b": {"kind": "category"}}},
            r"data\.target: several targets must be of one kind, got a \(number\), b \(category\)",
        ),
        ({"target": {"x": {"kind": "number"}}}, r"data\.target\.x: an input has this name too"),
        (
            {"target": {"label": {"kind": "image"}}},
            r"'image' cannot be a target; legal are category, labels, number",
        ),
        (
            {"inputs": {"x": {"kind": "image", "columns": "x*"}}},
            r"'x' is image and reads 2 columns \(x0, x1\)",
        ),
        (
            {"target": {"y": {"kind": "category", "columns": ["x0", "x1"]}}},
            "'y' is category and a target and reads 2",
        ),
        (
            {"target": {"y": {"kind": "number", "columns": "x1"}}},
            "data.inputs.x.columns holds 'x1', .* the target 'y'",
        ),
    ],
)
def test_an_incomplete_or_contradictory_recipe_is_refused(
    write_table: WriteTable, number_data: MakeData, changes: dict[str, Any], message: str
) -> None:
    data = number_data(write_table("x0,x1,label\n1,2,a\n1,2,b\n"), **changes)
    with pytest.raises(RecipeError, match=message):
        check_table(data)


def test_one_class_only_is_refused_before_anything_is_decoded(
    write_table: WriteTable, number_data: MakeData
) -> None:
    with pytest.raises(
        DataError, match="target column 'label' has the one class 'a'; expected two or more"
    ):
        check_table(number_data(write_table("x0,label\n1,a\n2,a\n")))


def test_a_missing_folder_of_files_is_refused(
    write_table: WriteTable, image_data: MakeData
) -> None:
    data = image_data(write_table("image,label,split\na.png,a,train\nb.png,b,train\n"))
    with pytest.raises(
        DataError, match=r"data\.files: the folder .*images is not there; correct data\.files"
    ):
        check_table(data)


def test_a_missing_folder_of_a_known_data_set_says_how_to_fetch_it(
    write_table: WriteTable, image_data: MakeData, tmp_path: Path
) -> None:
    table = write_table(
        "image,label,split\na.png,a,train\nb.png,b,train\n", "data/cifar10/cifar10.csv"
    )
    data = image_data(table, files=str(Path(table).parent / "images"))
    with pytest.raises(
        DataError, match="images is not there; `torchrelay fetch cifar10` writes it"
    ):
        check_table(data)


def test_a_good_table_passes(write_table: WriteTable, number_data: MakeData) -> None:
    check_table(number_data(write_table("x0,x1,label\n1,2,007\n1,2,NA\n")))


@pytest.mark.parametrize(
    ("column", "found"),
    [("", []), ("split_1", ["split_1"]), ("split_*", ["split_2", "split_1"]), ("s[x]", ["s[x]"])],
)
def test_a_pattern_of_split_columns_gives_them_in_the_tables_order(
    write_table: WriteTable, column: str, found: list[str]
) -> None:
    table = write_table("x,split_2,label,split_1,s[x]\n1,train,a,test,train\n")
    assert (
        split_columns(Data.model_validate({"table": table, "split": {"column": column}})) == found
    )


def test_a_pattern_that_no_column_fits_is_refused_with_the_nearest(write_table: WriteTable) -> None:
    table = write_table("x,split_1\n1,train\n")
    data = Data.model_validate({"table": table, "split": {"column": "splits_*"}})
    with pytest.raises(
        DataError, match=r"the pattern 'splits_\*', which no column fits; did you mean split_1\?"
    ):
        split_columns(data)


def test_settings_that_a_features_kind_does_not_have_warn(number_data: MakeData) -> None:
    inputs = {
        "x": {"kind": "number", "swap": [[0, 1]], "size": [2, 3]},
        "image": {"kind": "image", "size": [2, 3], "statistics": "none"},
        "face": {"kind": "points", "normalise_by": [0, 1], "channels": "gray"},
    }
    assert unused_feature_settings(number_data("table.csv", inputs=inputs)) == [
        "feature 'x': size, swap without effect, because its kind is number",
        "feature 'face': channels without effect, because its kind is points",
    ]
