from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from torchrelay.datasets.cells.columns import Categories
from torchrelay.datasets.cells.spelling import find_look_alikes, match_known, spell
from torchrelay.datasets.ingest import Prepared, match_classes, prepare_data, prepare_for_schema
from torchrelay.datasets.pack import open_view
from torchrelay.disk import read_json
from torchrelay.recipe import Data, Spelling
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.settings import Home

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]

NUMBERS = Spelling(numbers=True)


def schema_of(prepared: Prepared) -> Schema:
    return open_view(prepared.pack_dir, prepared.split_dir).schema


def warnings_of(prepared: Prepared) -> str:
    return "\n".join(prepared.warnings)


@pytest.mark.parametrize(
    ("text", "rule", "spelt"),
    [
        ("e\u0301", Spelling(), "\u00e9"),
        (" Cat\u00a0", Spelling(), " Cat\u00a0"),
        (" Cat\u00a0", Spelling(strip=True), "Cat"),
        ("\ufeffbig \u00a0 cat\u200b", Spelling(strip=True), "big cat"),
        ("Stra\u00dfe", Spelling(fold_case=True), "strasse"),
        ("\uff23\uff41\uff54", Spelling(fold_case=True), "cat"),
        ("1.0", NUMBERS, "1"),
        ("01", NUMBERS, "1"),
        ("1e0", NUMBERS, "1"),
        (" 1", NUMBERS, "1"),
        ("-0.0", NUMBERS, "0"),
        ("+12.50", NUMBERS, "12.5"),
        ("0.00120", NUMBERS, "0.0012"),
        ("120e3", NUMBERS, "120000"),
        # These two are one number in float64, and are two.
        ("9007199254740993", NUMBERS, "9007199254740993"),
        ("9007199254740992.0", NUMBERS, "9007199254740992"),
        ("1e999", NUMBERS, "1e999"),
        ("TRUE", NUMBERS, "true"),
        ("1_000", NUMBERS, "1_000"),
        ("nan", NUMBERS, "nan"),
        ("\u0661", NUMBERS, "\u0661"),
    ],
)
def test_what_a_rule_does_not_count_is_one_spelling(text: str, rule: Spelling, spelt: str) -> None:
    assert spell(text, rule) == spelt


@pytest.mark.parametrize(
    ("texts", "groups", "rule"),
    [
        (["1", "0", "1.0", "2"], [["1", "1.0"]], NUMBERS),
        (["true", "True", "no"], [["true", "True"]], NUMBERS),
        (["cat", "Cat", "dog"], [["cat", "Cat"]], Spelling(fold_case=True)),
        (
            ["cat", "cat\u00a0", "\u200bcat"],
            [["cat", "cat\u00a0", "\u200bcat"]],
            Spelling(strip=True),
        ),
        (
            ["a ", "a", "B", "b", "1", "01"],
            [["a ", "a"], ["B", "b"], ["1", "01"]],
            Spelling.model_validate(dict.fromkeys(("strip", "fold_case", "numbers"), True)),
        ),
    ],
)
def test_texts_that_look_alike_are_found_with_the_setting_that_makes_them_one(
    texts: list[str], groups: list[list[str]], rule: Spelling
) -> None:
    found = find_look_alikes(texts, Spelling())
    assert found is not None
    assert (found.groups, found.rule) == (groups, rule)
    assert find_look_alikes(list({spell(text, rule) for text in texts}), rule) is None


def test_texts_that_differ_look_like_nothing() -> None:
    assert find_look_alikes(["1", "2", "10", "cat", "cats", "1.5"], Spelling()) is None


@pytest.mark.parametrize(
    ("texts", "known", "matched"),
    [
        (["0.0", "1.0"], ["0", "1"], ["0", "1"]),
        (["7"], ["007", "008"], ["007"]),
        (["True"], ["true", "false"], ["true"]),
        (["true", "false"], ["0", "1"], ["1", "0"]),
        (["1.0", "0"], ["True", "False"], ["True", "False"]),
        (["cat ", "cat\u00a0"], ["cat", "dog"], ["cat", "cat"]),
        (["caf\u00e9"], ["cafe\u0301"], ["cafe\u0301"]),
        # Of two that it could be it is neither; capitals are the recipe's to say.
        (["1.00"], ["1", "1.0"], ["1.00"]),
        (["Cat"], ["cat"], ["Cat"]),
        (["true"], ["0", "1", "2"], ["true"]),
        # Numbers that begin with 0 are codes where the same number stands beside them.
        (["7", "007", "8"], ["7", "8"], ["7", "007", "8"]),
        (["07", "007"], ["7"], ["07", "007"]),
        (["007.0", "7"], ["7"], ["007.0", "7"]),
        (["2.0", "2", "true"], ["2", "true"], ["2", "2", "true"]),
        (["cat", "cat "], ["cat", "dog"], ["cat", "cat"]),
    ],
)
def test_a_model_knows_its_classes_as_other_kinds_of_files_write_them(
    texts: list[str], known: list[str], matched: list[str]
) -> None:
    assert match_known(texts, known, Spelling()) == matched


def test_cells_that_are_taken_for_a_models_class_are_said_with_counts() -> None:
    data = Data.model_validate(
        {"table": "t.csv", "inputs": {"a": {"kind": "category"}}, "target": {}}
    )
    known = FeatureSchema(
        name="a",
        kind="category",
        columns=["a"],
        shape=[1],
        dtype="int64",
        classes=["7", "8"],
        counts=[1, 1],
    )
    cells = Categories(np.array([[0], [1], [0]], dtype=np.int32), ["007", "8"])
    notes: list[str] = []
    found = match_classes(data, {"a": cells}, Schema(inputs=[known], targets=[]), notes)["a"]
    assert isinstance(found, Categories)
    assert found.vocabulary == ["7", "8"]
    assert notes == ["'a': cells are taken for what the model knows: 2 cells '007' for '7'"]


def mixed(write_table: WriteTable, number_data: MakeData, **labels: bool) -> Data:
    rows = [f"{row},{row % 2}{'.0' if row > 29 else ''}" for row in range(40)]
    data = number_data(write_table(["x0,label", *rows]))
    return data.model_copy(
        update={
            "target": {
                "label": data.target["label"].model_copy(update={"labels": Spelling(**labels)})
            }
        }
    )


def test_classes_that_are_equal_as_numbers_are_warned_of_with_counts_and_the_setting(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    prepared = prepare_data(mixed(write_table, number_data), home)
    assert schema_of(prepared).targets[0].classes == ["0", "0.0", "1", "1.0"]
    assert (
        "'label': 4 classes look like 2: '0' (15) and '0.0' (5); '1' (15) and '1.0' (5); if they "
        "are the same, say "
        "data.target.label.labels: {numbers: true}" in warnings_of(prepared)
    )
    assert read_json(prepared.split_dir / "report.json")["look_alikes"]["label"]["labels"] == {
        "numbers": True
    }


def test_classes_that_the_recipe_says_are_equal_as_numbers_are_one(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    prepared = prepare_data(mixed(write_table, number_data, numbers=True), home)
    assert (schema_of(prepared).targets[0].classes, schema_of(prepared).targets[0].counts) == (
        ["0", "1"],
        [20, 20],
    )
    assert "look" not in warnings_of(prepared)


def test_a_letter_in_two_unicode_forms_is_one_class_one_group_one_key_and_one_side(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    two = ["caf\u00e9", "cafe\u0301"]
    rows = [
        f"{row},{two[row % 2] if row % 3 else 'tea'},{two[row % 2]}{row // 2},\u200bTRAIN"
        for row in range(12)
    ]
    split = {"column": "side", "group": "who"}
    prepared = prepare_data(
        number_data(write_table(["x0,label,who,side", *rows]), split=split), home
    )
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert view.schema.targets[0].classes == ["caf\u00e9", "tea"]
    assert view.groups is not None
    assert len(np.unique(view.groups)) == 6
    with_key = number_data(
        write_table(["x0,label,who", *(row.rpartition(",")[0] for row in rows)]), key="who"
    )
    repeated = prepare_data(with_key.model_copy(update={"max_bad_rows": 0.5}), home)
    assert repeated.num_quarantined == 6


def test_tags_in_two_spellings_are_one_where_the_recipe_says_so(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    rows = ['1,"Red,red ,big"', "2,RED", "3,big", "4,"]
    labels = {"strip": True, "fold_case": True}
    data = number_data(
        write_table(["x0,tags", *rows]), target={"tags": {"kind": "labels", "labels": labels}}
    )
    target = schema_of(prepare_data(data, home)).targets[0]
    assert (target.classes, target.counts) == (["big", "red"], [2, 2])


def test_a_table_saved_with_other_numbers_fits_the_models_classes_and_categories(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    inputs = {"store": {"kind": "category"}}
    data = number_data(
        write_table(["store,label", *(f"{row % 3},{row % 2}" for row in range(12))]), inputs=inputs
    )
    schema = schema_of(prepare_data(data, home))
    new = write_table(["store,label", "0.0,0.0", "1.0,true", "2.0,1.0", ",0", "2,7"], "new.csv")
    prepared = prepare_for_schema(data.model_copy(update={"table": new}), schema, home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert [view.pack.vocabulary("store")[at] for at in view.pack.column("store")[:, 0]] == [
        "0",
        "1",
        "2",
        "2",
    ]
    assert [view.pack.vocabulary("label")[at] for at in view.pack.column("label")[:3, 0]] == [
        "0",
        "1",
        "1",
    ]
    reasons = (prepared.split_dir / "quarantine.csv").read_text()
    assert prepared.num_quarantined == 2
    assert "class that the model does not know: '7'" in reasons
