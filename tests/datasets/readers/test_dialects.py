from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.readers import csv as csv_table
from torchrelay.datasets.readers.csv import read_csv
from torchrelay.datasets.readers.dialects import advise, find_dialect
from torchrelay.datasets.table import find_torn, open_table, read_table, resolve_features
from torchrelay.drafting import choose_target, draft_recipe
from torchrelay.drafting.survey import open_undescribed, survey_table
from torchrelay.errors import DataError
from torchrelay.recipe import Data, Dialect, Spelling
from torchrelay.settings import Home

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]

ROWS = "".join(f"{row / 7:.3f},{row % 3 * 1.5},{'ab'[row % 2]}\n" for row in range(40))


def dialect_of(table: str, **given: Any) -> dict[str, Any]:
    """The settings that init would write."""
    dialect = survey_table(Path(table), None, given).dialect
    return {
        key: value
        for key, value in dialect.model_dump().items()
        if value != type(dialect)().model_dump()[key]
    }


def read_as_found(table: str) -> pd.DataFrame:
    return read_table(Data(table=table, **dialect_of(table)))


@pytest.mark.parametrize(
    ("above", "sign", "found"),
    [
        ("", ",", {}),
        ("", ";", {"delimiter": ";"}),
        ("", "\t", {"delimiter": "\t"}),
        ("", "|", {"delimiter": "|"}),
        ("", " ", {"delimiter": " ", "skip_spaces": True}),
        ("Sales of 2024\n", ",", {"skip_lines": 1}),
        ("Sales of 2024,,\n,,\n", ",", {"skip_lines": 2}),
        ("Sales of 2024\n\nby region, in EUR\n", ";", {"delimiter": ";", "skip_lines": 3}),
        ("# made by a script\n# 3, 4, 5\n", ",", {"skip_lines": 2}),
        ("sep=;\n", ";", {}),
        ("\ufeffsep=;\n", ";", {}),
    ],
)
def test_delimiter_and_lines_above_the_header_are_found_and_read(
    write_table: WriteTable, above: str, sign: str, found: dict[str, Any]
) -> None:
    table = write_table(above + "size,weight,kind\n".replace(",", sign) + ROWS.replace(",", sign))
    assert dialect_of(table) == found
    frame = read_as_found(table)
    assert list(frame.columns) == ["size", "weight", "kind"]
    assert frame.iloc[1].tolist() == ["0.143", "1.5", "b"]
    assert len(frame) == 40


PICTURES = [f"{row}.png,{('cat', 'dog')[row % 2]}" for row in range(40)]
SHOPS = [f"shop{row},{'ab'[row % 2]},x{row},y{row},z{row}" for row in range(40)]


@pytest.mark.parametrize(
    ("above", "header", "rows"),
    [
        ([], "#image,label", PICTURES),
        (["# made by me"], "#image,label", PICTURES),
        (["# made by me, and others"], "image,label", PICTURES),
        ([], "#a,b", [f"{row / 7:.2f},{row}" for row in range(40)]),
        ([], "#image,label,size", ["a.png,cat,", *(f"{row},7" for row in PICTURES)]),
        ([], "name,label,,,", SHOPS),
        (["Shops,of 2024,,,"], "name,label,a,b,c", SHOPS),
        (["Shops,,,,"], "name,label,a,b,c", SHOPS),
        (
            ["Shops,of 2024,,,"],
            "name,label,a,b,c",
            [f"shop{row},{'ab'[row % 2]},1,2,3" for row in range(40)],
        ),
        (["Shops"], "name,label,a,b,c", SHOPS),
    ],
)
def test_titles_and_comments_are_told_from_a_header_that_looks_like_one(
    write_table: WriteTable, above: list[str], header: str, rows: list[str]
) -> None:
    found = find_dialect(Path(write_table([*above, header, *rows])), Dialect())
    assert found == Dialect(skip_lines=len(above))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"skip_lines": 0}, "Sales,\nx,label\n1,a\n2,b\n"),
        ({"skip_spaces": False}, "x, label\n1, a\n2, b\n"),
        ({"escape": ""}, 'x,label\n1,"a \\"b\\" c"\n2,"d \\"e\\" f"\n'),
        ({"delimiter": ","}, "x;label\n1;a\n2;b\n"),
    ],
)
def test_a_setting_that_is_named_is_kept_where_the_table_looks_otherwise(
    write_table: WriteTable, given: dict[str, Any], text: str
) -> None:
    opened = open_undescribed(Path(write_table(text)), given)
    assert opened.dialect.model_dump() == {**opened.dialect.model_dump(), **given}
    assert opened.whys == dict.fromkeys(given, "as it was named")


@pytest.mark.parametrize(
    ("delimiter", "text", "said"),
    [
        (",", "Sales\nx,label\n1,a\n2,b\n", ["skip_lines: 1"]),
        ("", "Sales\nx;label\n1;a\n2;b\n", ["delimiter: ;", "skip_lines: 1"]),
        (";", "x,label\n1,a\n2,b\n", ["delimiter: ,"]),
        (",", "sep=;\nx;label\n1;a\n2;b\n", ["delimiter: ;"]),
        (",", "x\tlabel\n1\ta\n2\tb\n", ["delimiter: \t"]),
        ("", 'x,label\n1,"a \\"b\\" c"\n2,"d \\"e\\" f"\n', ["escape: \\"]),
    ],
)
def test_advice_is_yaml_that_reads_the_table(
    write_table: WriteTable, delimiter: str, text: str, said: list[str]
) -> None:
    found = advise(Path(write_table(text)), Dialect(delimiter=delimiter))
    settings = [yaml.safe_load(one) for one in found.split(" and ")]
    assert [
        f"{key.removeprefix('data.')}: {value}" for one in settings for key, value in one.items()
    ] == said
    Dialect.model_validate(
        {key.removeprefix("data."): value for one in settings for key, value in one.items()}
    )


def test_a_hand_written_recipe_is_told_what_reads_the_table_better(
    write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("Sales of 2024\nx0,x1,label\n" + ROWS)
    with pytest.raises(
        DataError,
        match=r"the header is one column, 'Sales of 2024'; "
        r"it reads better with data\.skip_lines: 1",
    ):
        read_table(Data(table=table))
    table = write_table("Sales of 2024,,\nx0,x1,label\n" + ROWS)
    frame = read_table(Data(table=table))
    with pytest.raises(DataError, match=r"the table reads better with data\.skip_lines: 1"):
        resolve_features(number_data(table), list(frame.columns))


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_space_after_the_comma_is_found_and_no_part_of_names_and_cells(
    write_table: WriteTable, quote: str
) -> None:
    works = ["Private", "State gov", "Self, own" if quote else "Self own"]
    lines = [
        f"{row / 7:.2f}, {quote}{works[row % 3]}{quote}, "
        f"{quote}{'<=50K' if row % 2 else '>50K'}{quote}"
        for row in range(60)
    ]
    table = write_table(["age, work, income", *lines])
    assert dialect_of(table) == {"skip_spaces": True}
    frame = read_as_found(table)
    assert list(frame.columns) == ["age", "work", "income"]
    assert set(frame["work"]) == set(works)
    assert set(frame["income"]) == {"<=50K", ">50K"}
    assert open_table(Data(table=table, skip_spaces=True)).bad == {}
    data = Data.model_validate(
        {
            "table": table,
            "inputs": {"age": {"kind": "number"}},
            "target": {"income": {"kind": "category"}},
        }
    )
    with pytest.raises(
        DataError,
        match=r"did you mean ' income'\?; the table reads better with data.skip_spaces: true",
    ):
        resolve_features(data, list(read_table(data).columns))


def test_names_with_spaces_are_advised_so_that_the_command_can_be_pasted(
    write_table: WriteTable,
) -> None:
    survey = survey_table(
        Path(
            write_table(
                "big size,my kind\n" + "".join(f"{row / 7},{'ab'[row % 2]}\n" for row in range(40))
            )
        )
    )
    with pytest.raises(
        DataError, match=r"say which: torchrelay init table.csv --target 'big size'"
    ):
        choose_target(survey._replace(columns={"big size": survey.columns["big size"]}), "")


def test_empty_rows_at_the_end_and_empty_columns_at_the_right_do_not_count(
    write_table: WriteTable,
) -> None:
    table = open_table(Data(table=write_table("a,b,,\n1,2,,\n,,,\n3,4,,\n" + ",,,\n" * 5)))
    assert table.frame.to_numpy().tolist() == [["1", "2"], ["", ""], ["3", "4"]]
    assert list(table.frame.columns) == ["a", "b"]
    assert table.notes == ["5 empty rows at the end of the table are left out"]


@pytest.mark.parametrize(
    ("cell", "found"), [('"say ""hi"", now"', {}), (r'"say \"hi\", now"', {"escape": "\\"})]
)
def test_quotes_within_cells_are_doubled_or_escaped(
    write_table: WriteTable, cell: str, found: dict[str, Any]
) -> None:
    table = write_table(
        "x,text,y\n" + "".join(f"{row / 7},{cell},{'ab'[row % 2]}\n" for row in range(40))
    )
    assert dialect_of(table) == found
    assert read_as_found(table)["text"][0] == 'say "hi", now'


def test_a_long_cell_is_read_beside_an_uneven_row_and_the_limit_of_the_process_stays(
    write_table: WriteTable,
) -> None:
    rows = [f'"good film {row}",pos\n' for row in range(200)]
    rows[50] = '"' + "word " * 30_000 + '",pos\n'
    rows[70] = "dull,unquoted,comma,text,neg\n"
    before = csv.field_size_limit()
    table = open_table(Data(table=write_table("text,y\n" + "".join(rows))))
    assert csv.field_size_limit() == before
    assert len(table.frame["text"][50]) == 150_000
    assert {row: str(reason) for row, reason in table.bad.items()} == {
        70: "extra field: 5 fields, the header names 2 columns"
    }


@pytest.mark.parametrize("sign", [",", ";", "\t", "|", " "])
def test_a_cell_of_140_000_characters_hides_no_delimiter(
    write_table: WriteTable, sign: str
) -> None:
    cells = [
        ("x", "text", "y"),
        *(
            (f"{row}.5", "long" * 35_000 if row == 3 else "word", "ab"[row % 2])
            for row in range(40)
        ),
    ]
    table = write_table("".join(sign.join(one) + "\n" for one in cells))
    assert dialect_of(table).get("delimiter", ",") == sign
    assert len(read_as_found(table)["text"][3]) == 140_000
    if sign != ",":
        with pytest.raises(DataError, match=r"reads better with data\.delimiter"):
            open_table(Data(table=table))


def test_a_header_that_is_repeated_is_a_bad_row_and_one_in_another_order_refuses_the_table(
    write_table: WriteTable,
) -> None:
    table = open_table(Data(table=write_table("a,b\n1,x\n\ufeffa,b\n2,y\n")))
    assert {row: str(reason) for row, reason in table.bad.items()} == {1: "the header again: a, b"}
    with pytest.raises(
        DataError, match=r"row 2 is a header whose columns stand in another order \(b, a\)"
    ):
        open_table(Data(table=write_table("a,b\n1,x\nb,a\ny,2\n")))


@pytest.mark.parametrize(
    "rows", [["left,right", "right,left"], ["left,left", "right,left", "none,left", "none,none"]]
)
def test_cells_that_say_the_names_of_columns_are_data(
    write_table: WriteTable, rows: list[str]
) -> None:
    table = open_table(Data(table=write_table(["left,right", *(rows * 5)])))
    assert (len(table.frame), table.bad) == (len(rows) * 5, {})


def test_a_header_that_is_a_row_of_data_is_warned_of(write_table: WriteTable) -> None:
    lines = [f"{row / 7:.2f},{row % 9 / 2},{('setosa', 'virginica')[row % 2]}" for row in range(40)]
    [warning] = survey_table(Path(write_table(["5.1,3.5,setosa", *lines]))).warnings
    assert warning.startswith(
        "the first line looks like data, not like names of columns (5.1, 3.5, setosa)"
    )
    assert survey_table(Path(write_table(["a,b,kind", *lines]))).warnings == []
    assert (
        survey_table(Path(write_table(["400,410,kind", *lines]))).warnings == []
    )  # wavelengths, say


@pytest.mark.parametrize(("last", "bad"), [("lea", True), ("stay", False)])
def test_a_class_that_stands_in_a_torn_last_line_alone_is_left_out(
    write_table: WriteTable, home: Home, number_data: MakeData, last: str, bad: bool
) -> None:
    lines = [f"{row / 7:.3f},{('stay', 'leave')[row % 2]}\n" for row in range(200)]
    prepared = prepare_data(
        number_data(write_table("x0,label\n" + "".join(lines) + f"0.5,{last}")), home
    )
    assert prepared.num_quarantined == int(bad)
    assert (
        "torn line: 'lea', the file ends within it"
        in (prepared.split_dir / "quarantine.csv").read_text()
    ) == bad
    whole = prepare_data(
        number_data(write_table("x0,label\n" + "".join(lines) + f"0.5,{last}\n", "whole.csv")), home
    )
    assert whole.num_quarantined == 0


@pytest.mark.parametrize(
    ("cells", "rule", "torn"),
    [
        (["leaf", "stay", "lea"], {}, "lea"),
        (["leaf", "stay", "LEAF"], {}, "LEAF"),
        (["leaf", "stay", "LEAF"], {"fold_case": True}, ""),
        (["1", "2", "1.0"], {"numbers": True}, ""),
        (["\u00e9", "b", "e\u0301"], {}, ""),
        (["a|b", "b|c", "c|A"], {"fold_case": True}, ""),
        (["a|bcd", "bcd|c", "c|bc"], {"fold_case": True}, "bc"),
    ],
)
def test_a_last_cell_is_torn_where_no_other_row_has_it_by_the_rule_of_spelling(
    cells: list[str], rule: dict[str, bool], torn: str
) -> None:
    assert find_torn(pd.Series(cells), Spelling(**rule), "|" if "|" in cells[0] else "") == torn


def test_init_counts_no_class_that_a_torn_last_line_alone_has(write_table: WriteTable) -> None:
    lines = [f"{row / 7:.3f},{('stay', 'leaf')[row % 2]}\n" for row in range(60)]
    survey = survey_table(Path(write_table("x0,label\n" + "".join(lines) + "0.5,lea")))
    assert survey.classes["label"].counts == {"stay": 30, "leaf": 30}
    survey = survey_table(Path(write_table("x0,label\n" + "".join(lines) + "0.5,leaf")))
    assert survey.classes["label"].counts == {"stay": 30, "leaf": 31}


def test_a_last_line_without_its_fields_or_its_quote_is_torn(write_table: WriteTable) -> None:
    short = open_table(Data(table=write_table("a,b,c\n1,2,3\n4,5,6\n7,8")))
    assert str(short.bad[2]) == "torn line: the file ends after 2 of 3 fields, without a line's end"
    quote = open_table(Data(table=write_table('a,b\n1,"x"\n2,"y"\n3,"z')))
    assert str(quote.bad[2]) == "torn line: a quote is opened in it, and the file ends"
    assert quote.frame.iloc[2].tolist() == ["3", "z"]
    assert open_table(Data(table=write_table("a,b\n1,2\n3,4"))).bad == {}


def test_a_table_that_changes_while_it_is_read_is_said(
    write_table: WriteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(write_table("a,b\n1,2\n3,4\n"))
    read = csv_table.pd.read_csv

    def read_and_append(*arguments: Any, **options: Any) -> Any:
        frame = read(*arguments, **options)
        path.write_text(path.read_text() + added if added else "a,b\n9,9\n7,7\n")
        os.utime(path, ns=(1, 1))
        return frame

    monkeypatch.setattr(csv_table.pd, "read_csv", read_and_append)
    added = "5,6\n"
    assert open_table(Data(table=str(path))).notes == [
        "table.csv grew by 4 bytes while it was read; they wait for the next run"
    ]
    added = ""
    with pytest.raises(DataError, match="was written anew while it was read"):
        open_table(Data(table=str(path)))


@pytest.mark.parametrize("delimiter", ["a", "7"])
def test_a_delimiter_that_can_be_none_is_refused(write_table: WriteTable, delimiter: str) -> None:
    with pytest.raises(DataError, match=r"data\.delimiter is .*, expected one character"):
        read_table(Data(table=write_table("a,b\n1,2\n"), delimiter=delimiter))


def write_indexed(path: Path, index: Any = None) -> Path:
    draw = np.random.default_rng(74)
    frame = pd.DataFrame(
        {
            "width": draw.normal(size=300),
            "height": draw.normal(size=300),
            "species": np.repeat(["a", "b", "c"], 100),
        },
        index=index,
    )
    frame[frame.width > -2.5].sample(frac=1, random_state=1).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (None, ["__index_level_0__"]),
        (pd.Index(np.arange(300) * 3, name="sample"), ["sample"]),
        (
            pd.MultiIndex.from_arrays([np.arange(300) // 2, np.arange(300) % 2], names=["i", "j"]),
            ["i", "j"],
        ),
    ],
)
def test_the_index_that_pandas_wrote_is_no_input(
    tmp_path: Path, index: Any, names: list[str]
) -> None:
    path = write_indexed(tmp_path / "table.parquet", index)
    survey = survey_table(path)
    draft = draft_recipe(survey)
    assert draft.inputs["numbers"].value["columns"] == ["width", "height"]
    assert all(draft.unused[name] == "is the index of the rows that pandas wrote" for name in names)
    data = Data.model_validate(
        {
            "table": str(path),
            "inputs": {"x": {"kind": "number", "columns": "[!s]*"}},
            "target": {"species": {"kind": "category"}},
        }
    )
    table = open_table(data)
    found = resolve_features(data, list(table.frame.columns), table.index_columns)
    assert found["x"] == ["width", "height"]


def test_an_index_that_is_named_as_the_target_is_what_its_cells_say(
    tmp_path: Path, home: Home
) -> None:
    frame = pd.DataFrame(
        {"width": np.arange(60) % 7 / 7, "species": np.repeat(["a", "b", "c"], 20)}
    )
    frame.set_index("species").to_parquet(tmp_path / "t.parquet")
    survey = survey_table(tmp_path / "t.parquet")
    draft = draft_recipe(survey, "species")
    assert draft.target["species"].value == {"kind": "category"}
    assert survey.classes["species"].counts == {"a": 20, "b": 20, "c": 20}
    inputs = {"x": {"kind": "number", "columns": ["width"]}}
    data = {
        "table": str(tmp_path / "t.parquet"),
        "inputs": inputs,
        "target": {"species": {"kind": "category"}},
    }
    assert not [
        text for text in prepare_data(Data.model_validate(data), home).warnings if "index" in text
    ]


def test_an_index_that_a_recipe_names_is_read_and_warned_of(tmp_path: Path, home: Home) -> None:
    path = write_indexed(tmp_path / "table.parquet")
    inputs = {"x": {"kind": "number", "columns": ["width", "__index_level_0__"]}}
    data = Data.model_validate(
        {"table": str(path), "inputs": inputs, "target": {"species": {"kind": "category"}}}
    )
    [warning] = [text for text in prepare_data(data, home).warnings if "index" in text]
    assert warning.startswith("'x' reads '__index_level_0__', the index")


def test_shuffled_numbers_of_rows_are_no_input(write_table: WriteTable) -> None:
    draw = np.random.default_rng(0)
    numbers, sizes = draw.permutation(60), draw.integers(0, 900, 60)
    lines = [f"{numbers[row]},{numbers[row] + 1},{sizes[row]},{row // 30}" for row in range(60)]
    columns = survey_table(Path(write_table([",order,size,label", *lines]))).columns
    assert [columns[name].role for name in ("Unnamed: 0", "order", "size")] == [
        "id",
        "id",
        "number",
    ]


def test_a_wide_table_takes_as_many_looks_at_each_column_as_a_narrow_one(
    write_table: WriteTable, number_data: MakeData, tmp_path: Path
) -> None:
    """Columns are counted by what reads their names: twice the columns, at most a little more
    than twice the work.
    """

    class Name(str):
        num_compared = 0

        def __eq__(self, other: object) -> bool:
            Name.num_compared += 1
            return str.__eq__(self, other)  # type: ignore[arg-type]

        __hash__ = str.__hash__

    def count(width: int) -> int:
        names = [Name(f"x{at}") for at in range(width)]
        Name.num_compared = 0
        csv_table.name_columns(Path("t.csv"), list(names))
        data = number_data(
            "t.csv", inputs={"x": {"kind": "number", "columns": [f"x{at}" for at in range(width)]}}
        )
        resolve_features(data, [*names, "label"])
        return Name.num_compared

    assert count(2000) <= 2.5 * count(1000)
    assert count(2000) < 40_000


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("text", "good film {}"),
        ("full name", "Anna Smith{}"),
        ("when", "2024-01-{} 10:00"),
        ("x", "{}.5 "),
    ],
)
def test_spaces_within_one_column_part_no_fields(
    write_table: WriteTable, header: str, line: str
) -> None:
    path = Path(write_table([header, *(line.format(row) for row in range(10, 30))]))
    assert find_dialect(path, Dialect()) == Dialect()
    assert read_csv(path, Dialect()).frame.shape == (20, 1)
