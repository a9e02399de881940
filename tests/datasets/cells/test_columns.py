from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from torchrelay.datasets.cells.columns import read_categories, read_numbers
from torchrelay.datasets.verdicts import Verdicts


def frame_of(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype=str)


def test_numbers_are_correctly_rounded() -> None:
    # 0.1 + 0.2 and 5e-324 have one nearest double each; Python's own parser is the reference.
    cells = [
        "0.1",
        "0.30000000000000004",
        "1e-300",
        "5e-324",
        "+3",
        ".5",
        "-0",
        "123456789012345678",
    ]
    verdicts = Verdicts(len(cells))
    values = read_numbers(frame_of(x=cells), ["x"], verdicts)
    assert values[:, 0].tolist() == [float(cell) for cell in cells]
    assert values.dtype == np.float64
    assert verdicts.good.all()


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("abc", "not a number in 'x': 'abc'"),
        (
            "1,5",
            "not a number in 'x': '1,5', with a decimal comma, which others do not have; write "
            "them alike",
        ),
        ("1_000", "not a number in 'x': '1_000'"),
        ("0x10", "not a number in 'x': '0x10'"),
        ("", "empty cell in 'x': ''"),
        ("NaN", "NaN in 'x': 'NaN'"),
        ("nan", "NaN in 'x': 'nan'"),
        ("-inf", "infinite number in 'x': '-inf'"),
        ("Infinity", "infinite number in 'x': 'Infinity'"),
        ("1e400", "number too large for float32 in 'x': '1e400'"),
        ("1e39", "number too large for float32 in 'x': '1e39'"),
    ],
)
def test_a_cell_that_is_no_finite_number_is_quarantined_and_the_others_stay(
    cell: str, reason: str
) -> None:
    verdicts = Verdicts(3)
    values = read_numbers(frame_of(x=["1.5", cell, " 2 "]), ["x"], verdicts)
    assert {row: str(why) for row, why in verdicts.reasons.items()} == {1: reason}
    assert values[[0, 2], 0].tolist() == [1.5, 2.0]


def test_the_first_bad_column_of_a_row_is_its_reason() -> None:
    verdicts = Verdicts(1)
    read_numbers(frame_of(x=["a"], y=["b"]), ["x", "y"], verdicts)
    assert str(verdicts.reasons[0]) == "not a number in 'x': 'a'"


def test_labels_that_look_like_numbers_or_missing_values_stay_themselves() -> None:
    verdicts = Verdicts(5)
    ids, vocabulary = read_categories(
        frame_of(label=["007", "NA", "7", "None", "007"]), ["label"], verdicts
    )
    assert vocabulary == ["007", "NA", "7", "None"]
    assert ids.tolist() == [[0], [1], [2], [3], [0]]
    assert ids.dtype == np.int32
    assert verdicts.good.all()


def test_columns_of_one_feature_share_their_vocabulary() -> None:
    ids, vocabulary = read_categories(frame_of(a=["x", "y"], b=["y", "z"]), ["a", "b"], Verdicts(2))
    assert [[vocabulary[number] for number in row] for row in ids.tolist()] == [
        ["x", "y"],
        ["y", "z"],
    ]
    assert sorted(vocabulary) == ["x", "y", "z"]


@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_category_is_quarantined(cell: str) -> None:
    verdicts = Verdicts(2)
    read_categories(frame_of(a=["x", "x"], b=["y", cell]), ["a", "b"], verdicts)
    assert {row: str(why) for row, why in verdicts.reasons.items()} == {1: "empty cell in 'b'"}
