from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from torchrelay.datasets.ingest.prepare import Prepared, prepare_data
from torchrelay.datasets.pack import open_view
from torchrelay.datasets.splits import number_repeats
from torchrelay.disk import read_json
from torchrelay.errors import DataError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
WritePictures = Callable[..., None]
MakeData = Callable[..., Data]

FEW = [
    "a,b,label",
    *(
        f"{'yes' if row % 2 else 'no'},{'yes' if row % 4 > 1 else 'no'},{row % 3}"
        for row in range(300)
    ),
]
YES_NO = {"a": {"kind": "category"}, "b": {"kind": "category"}}
FRACTIONS = {"valid": 0.1, "test": 0.2}


def said(prepared: Prepared) -> str:
    return "\n".join(prepared.warnings)


def test_pictures_that_carry_both_labels_are_counted_and_named(
    write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData, home: Home
) -> None:
    write_pictures(["0.png", "1.png", "2.png"])
    rows = [
        "0.png,cat,train",
        "1.png,dog,train",
        "2.png,cat,train",
        "0.png,dog,train",
        "1.png,cat,train",
    ]
    prepared = prepare_data(image_data(write_table(["image,label,split", *rows])), home)
    found = read_json(prepared.split_dir / "report.json")["contradictions"]
    assert found == {"rows": 4, "examples": [1, 4], "best_share": 3 / 5}
    assert (
        "4 of 5 rows have the same inputs as a row of another class, for example rows 1 and 4"
        in said(prepared)
    )
    assert "60.0%" in said(prepared)


def test_rows_that_repeat_with_their_class_are_no_contradiction(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    prepared = prepare_data(number_data(write_table(["x0,label", "1,a", "1.0,a", "2,b"])), home)
    assert read_json(prepared.split_dir / "report.json")["contradictions"] == {}


def test_a_split_by_few_keys_is_warned_of_and_apart_fills_every_side(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    data = number_data(write_table(FEW), inputs=YES_NO, split=FRACTIONS)
    prepared = prepare_data(data, home)
    assert "300 rows have 4 different keys" in said(prepared)
    assert "data.split.repeats: apart" in said(prepared)
    apart = prepare_data(
        number_data(data.table, inputs=YES_NO, split={**FRACTIONS, "repeats": "apart"}), home
    )
    assert "different keys" not in said(apart)
    assert 15 < apart.rows["valid"] < 50
    assert 35 < apart.rows["test"] < 85


def test_rows_apart_keep_their_sides_when_the_table_grows() -> None:
    keys = np.array([5, 7, 5, 5, 7], np.uint64)
    alone = number_repeats(keys)
    assert len(np.unique(alone)) == 5
    assert (
        number_repeats(np.append(keys, np.array([5, 9], np.uint64)))[:5].tolist() == alone.tolist()
    )


RARE = ["x0,label", *(f"{row},{'ab'[row % 2]}" for row in range(115)), "200,r", "201,s", "202,t"]


def rare(write_table: WriteTable, number_data: MakeData, how: str, **changes: object) -> Data:
    return number_data(
        write_table(RARE),
        split={"test": 0.5, "valid": 0.1},
        rare_classes=how,
        max_bad_rows=0,
        **changes,
    )


def test_rare_classes_stop_a_run_with_the_setting_that_lets_it_go_on(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    with pytest.raises(
        DataError, match=r"class without a training row.*data\.rare_classes: keep or drop"
    ):
        prepare_data(rare(write_table, number_data, "reject"), home)


def test_rare_classes_are_dropped_or_kept_where_the_recipe_says_so(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    dropped = prepare_data(rare(write_table, number_data, "drop"), home)
    assert 0 < dropped.num_quarantined <= 3
    kept = prepare_data(rare(write_table, number_data, "keep"), home)
    view = open_view(kept.pack_dir, kept.split_dir)
    assert (kept.num_quarantined, view.schema.targets[0].classes) == (0, ["a", "b", "r", "s", "t"])
    assert view.schema.targets[0].counts[2:] == [1, 1, 1]


def test_a_class_that_a_column_keeps_from_training_counts_as_wrong(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    rows = [f"{row},{'ab'[row % 2]},{'test' if row % 3 else 'train'}" for row in range(12)]
    table = write_table(["x0,label,split", *rows, "20,r,test"])
    prepared = prepare_data(
        number_data(table, split={"column": "split"}, rare_classes="keep"), home
    )
    target = open_view(prepared.pack_dir, prepared.split_dir).schema.targets[0]
    assert Counter(dict(zip(target.classes, target.counts, strict=True))) == {
        "a": 2,
        "b": 2,
        "r": 0,
    }
    assert "1 rows are of 1 classes without a training row, which cannot be learned (r)" in said(
        prepared
    )
