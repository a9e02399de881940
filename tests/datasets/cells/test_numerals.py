from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from torchrelay.datasets.cells.columns import read_numbers
from torchrelay.datasets.cells.numerals import (
    Notation,
    distinct_cells,
    find_notation,
    notation_of,
    parse_cell,
    parse_numbers,
)
from torchrelay.datasets.readers import texts_of
from torchrelay.datasets.table import open_table
from torchrelay.datasets.verdicts import Verdicts
from torchrelay.drafting.survey import survey_table
from torchrelay.errors import DataError
from torchrelay.recipe import Data

WriteTable = Callable[..., str]


@pytest.mark.parametrize(
    ("cells", "notation", "values"),
    [
        (["10,38", "5,2", "7"], Notation(","), [10.38, 5.2, 7]),
        (["3,462", "400", "1,038,600"], Notation(".", ","), [3462, 400, 1038600]),
        (["3,462", "400"], Notation(".", ","), [3462, 400]),
        (["1.234,56", "1.234", "0,5"], Notation(",", "."), [1234.56, 1234, 0.5]),
        (["1,234.56", "1,234"], Notation(".", ","), [1234.56, 1234]),
        (["798 600", "12"], Notation(".", " "), [798600, 12]),
        (["798\u00a0600", "1\u202f038\u202f600,5"], Notation(",", " "), [798600, 1038600.5]),
        (["1'038'600", "2’000"], Notation(".", "'"), [1038600, 2000]),
        (["1,23,45,678"], Notation(".", ","), [12345678]),
        (["$1,167,900", "-$5", "$-5", "($5)"], Notation(".", ",", ("$",)), [1167900, -5, -5, -5]),
        (["5 €", "1.234,5 €"], Notation(",", ".", ("€",)), [5, 1234.5]),
        (["27.4%", "3 %"], Notation(".", "", ("%",)), [27.4, 3]),
        (["USD 5", "7 USD"], Notation(".", "", ("USD",)), [5, 7]),
        (["−5", "3.5"], Notation(), [-5, 3.5]),
    ],
)
def test_numbers_are_found_to_be_written_so_and_read(
    cells: list[str], notation: Notation, values: list[float]
) -> None:
    finding = find_notation(cells)
    assert finding is not None
    assert finding.notation == notation
    assert parse_numbers(pd.Series(cells, dtype="str"), notation).tolist() == values


@pytest.mark.parametrize(
    "cells",
    [
        ["1,5", "1.5"],
        ["12-01-2020"],
        ["red", "blue"],
        ["1,3", "2,3,4"],
        ["1.2.3"],
        ["10:30"],
        ["5 kg"],
    ],
)
def test_what_is_no_number_or_contradicts_itself_has_no_notation(cells: list[str]) -> None:
    assert find_notation(cells) is None


@pytest.mark.parametrize(
    ("cell", "notation"),
    [
        ("16,63", Notation(".", ",")),
        ("1,2345", Notation(".", ",")),
        ("1.5", Notation(",")),
        ("12.34", Notation(",", ".")),
        ("5 €", Notation(".", "", ("$",))),
        ("$$5", Notation(".", "", ("$",))),
        ("1 2", Notation(".", " ")),
    ],
)
def test_a_number_that_is_written_otherwise_than_the_recipe_says_is_none(
    cell: str, notation: Notation
) -> None:
    assert np.isnan(parse_cell(cell, notation))


@pytest.mark.parametrize(
    ("cells", "remedy"),
    [
        (
            ["10,38", "5,2"],
            "'10,38', with a decimal comma; "
            """set data.decimal: "," ('10,38' is then 10.38 and '5,2' is""",
        ),
        (
            ["3,462", "999"],
            "'3,462', with thousands parted by ','; "
            """set data.thousands: "," ('3,462' is then 3462)""",
        ),
        (
            ["3,462"],
            """set data.thousands: "," ('3,462' is then 3462; """
            """with data.decimal: "," it would be a fraction)""",
        ),
        (["27.4%"], """'27.4%', with the unit '%'; set data.units: ["%"] ('27.4%' is then 27.4)"""),
        (["1,5", "1.5"], "'1,5', with a decimal comma, which others do not have; write them alike"),
    ],
)
def test_a_recipe_without_the_setting_gets_a_verdict_that_names_it(
    cells: list[str], remedy: str
) -> None:
    verdicts = Verdicts(len(cells))
    read_numbers(pd.DataFrame({"a": cells}, dtype=str), ["a"], verdicts)
    assert remedy in str(verdicts.reasons[0])


def test_cells_of_another_unit_are_bad_and_so_are_bare_numbers_among_percentages() -> None:
    cells = pd.DataFrame(
        {"a": ["$5", "€5", "3", "$2"], "b": ["50%", "0.5", "20%", "5%"]}, dtype=str
    )
    verdicts = Verdicts(4)
    values = read_numbers(cells, ["a"], verdicts, Notation(".", "", ("$", "€")))
    assert {row: str(reason) for row, reason in verdicts.reasons.items()} == {
        1: "another unit than '$' in 'a': '€5'"
    }
    assert values[[0, 2, 3], 0].tolist() == [5, 3, 2]
    verdicts = Verdicts(4)
    read_numbers(cells, ["b"], verdicts, Notation(".", "", ("%",)))
    assert {row: str(reason) for row, reason in verdicts.reasons.items()} == {
        1: "another unit than '%' in 'b': '0.5'"
    }


def write_prices(write_table: WriteTable, template: str, delimiter: str = ",") -> Path:
    draw = np.random.default_rng(0)
    lines = [["area", "share", "price"]]
    for _ in range(60):
        area = int(draw.integers(400, 4000))
        lines.append(
            [template.format(area), f"{draw.uniform(1, 99):.1f}%", template.format(area * 300)]
        )
    return Path(write_table([delimiter.join(f'"{cell}"' for cell in line) for line in lines]))


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{:,}", Notation(".", ",", ("%",))),
        ("${:,}", Notation(".", ",", ("$", "%"))),
        ("{:_}", None),
    ],
)
def test_init_finds_how_the_numbers_of_a_table_are_written(
    write_table: WriteTable, template: str, found: Notation | None
) -> None:
    survey = survey_table(write_prices(write_table, template))
    if found is None:
        assert survey.columns["price"].role == "name"
        return
    assert notation_of(survey.dialect) == found
    assert {column.role for column in survey.columns.values()} == {"number"}
    assert (
        "is 3893" in survey.dialect_whys["thousands"]
        or "is 3462" in survey.dialect_whys["thousands"]
    )


@pytest.mark.parametrize(
    ("cells", "role"),
    [
        (["{}%", "{}"], "comma"),
        (["${}", "€{}"], "comma"),
        (["${}", "{}"], "number"),
        (["${}"] * 199 + ["€{}"], "number"),
        (["({})", "{}"], "number"),
    ],
)
def test_init_leaves_a_column_out_whose_units_are_several(
    write_table: WriteTable, cells: list[str], role: str
) -> None:
    lines = [f"{cells[row % len(cells)].format(row / 7)},{'ab'[row % 2]}" for row in range(200)]
    survey = survey_table(Path(write_table(["price,y", *lines])))
    assert survey.columns["price"].role == role
    if role == "comma":
        assert survey.dialect.units == []
        assert "holds numbers, of which 100 have another unit than" in survey.columns["price"].why


@pytest.mark.parametrize("notation", [Notation(), Notation(".", ","), Notation(".", "", ("$",))])
def test_a_number_in_brackets_is_below_zero_by_any_notation(notation: Notation) -> None:
    assert parse_numbers(["(0.51)", " ( 2 ) ", "−3"], notation).tolist() == [-0.51, -2, -3]
    assert np.isnan(parse_numbers(["(-5)", "(5", "()", "((5))"], notation)).all()


def test_semicolons_and_decimal_commas_are_found_together(write_table: WriteTable) -> None:
    lines = [f"{row / 7:.2f};{row % 9 / 4:.2f};1.234,50".replace(".", ",", 2) for row in range(60)]
    survey = survey_table(Path(write_table(["a;b;c", *lines])))
    assert survey.dialect.delimiter == ";"
    assert notation_of(survey.dialect) == Notation(",", ".")
    assert survey.columns["a"].role == "number"


def test_a_comma_that_could_be_either_is_asked_about_and_never_guessed_in_silence(
    write_table: WriteTable,
) -> None:
    lines = [f"{1 + row % 9},{100 + row * 7 % 900:03d};{'ab'[row % 2]}" for row in range(60)]
    table = Path(write_table(["size;kind", *lines]))
    with pytest.raises(
        DataError,
        match=r"column 'size' holds numbers such as '1,100', .*--decimal , or --thousands ,",
    ):
        survey_table(table)
    assert survey_table(table, None, {"decimal": ","}).columns["size"].role == "number"
    assert survey_table(table, None, {"thousands": ","}).columns["size"].role == "number"


def test_cells_of_parquet_become_text_as_a_table_of_the_recipes_dialect_has_them(
    tmp_path: Path,
) -> None:
    columns = {
        "flag": pa.array([True, None]),
        "half": pa.array([0.5, 2.0], pa.float16()),
        "single": pa.array([0.1, 1e20], pa.float32()),
        "whole": pa.array([7, None]),
        "coded": pa.array(["a", "b"]).dictionary_encode(),
        "number": pa.array([1, 2]).dictionary_encode(),
    }
    texts = {
        name: texts_of(pa.chunked_array([column])).tolist() for name, column in columns.items()
    }
    assert texts == {
        "flag": ["true", ""],
        "half": ["0.5", "2"],
        "single": ["0.1", "1e+20"],
        "whole": ["7", ""],
        "coded": ["a", "b"],
        "number": ["1", "2"],
    }
    assert texts_of(pa.chunked_array([pa.array([0.5, 2.0])]), ",").tolist() == ["0,5", "2"]
    path = tmp_path / "t.parquet"
    pd.DataFrame({"x": [0.5, 1.5], "price": ["1.234,5", "2,5"]}).to_parquet(path)
    assert open_table(Data(table=str(path), decimal=",")).frame["x"].tolist() == ["0,5", "1,5"]


@pytest.mark.parametrize("cells", [[], ["b", "a", "b", ""], ["1", "x", " 1"]])
def test_distinct_cells_are_those_of_pandas_also_of_columns_in_parts(cells: list[str]) -> None:
    parts = pd.concat(
        [pd.Series(cells, dtype="str"), pd.Series(cells[::-1], dtype="str")], ignore_index=True
    )
    ids, values = distinct_cells(parts)
    expected, uniques = pd.factorize(parts)
    assert (ids.tolist(), values) == (expected.tolist(), list(uniques))
    np.testing.assert_array_equal(parse_numbers(parts), parse_numbers(parts.tolist()))
