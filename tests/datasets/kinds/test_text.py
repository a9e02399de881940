from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from torchrelay.datasets.batches import (
    BatchTransform,
    Order,
    PackDataset,
    make_loader,
    split_batches,
)
from torchrelay.datasets.ingest import prepare_data, prepare_inputs
from torchrelay.datasets.pack import View, open_view
from torchrelay.datasets.table import check_table, unused_feature_settings
from torchrelay.disk import read_json
from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]

ROWS = [
    "text,label,split",
    "the cat and the dog,en,train",
    "The dog!,en,train",
    "el gato y el perro,es,train",
    "***,es,train",
    "el gato lindo,es,test",
    "the mouse,en,test",
]


def data_of(table: str, **settings: Any) -> Data:
    return Data.model_validate(
        {
            "table": table,
            "inputs": {"text": {"kind": "text", **settings}},
            "target": {"label": {"kind": "category"}},
            "split": {"column": "split"},
        }
    )


def view_of(data: Data, home: Home) -> View:
    return open_view(*prepare_data(data, home)[:2])


def test_a_vocabulary_is_the_training_rows_tokens_the_most_frequent_first(
    write_table: WriteTable, home: Home
) -> None:
    view = view_of(data_of(write_table(ROWS)), home)
    [text] = view.schema.inputs
    assert text.classes == ["the", "dog", "el", "and", "cat", "gato", "perro", "y"]
    assert text.counts == [3, 2, 2, 1, 1, 1, 1, 1]
    assert (text.shape, text.dtype, text.tokens, text.ngrams, text.lowercase) == (
        [0],
        "int64",
        "words",
        [1, 1],
        True,
    )


def test_rare_tokens_and_those_beyond_the_largest_vocabulary_stay_out(
    write_table: WriteTable, home: Home
) -> None:
    table = write_table(ROWS)
    assert view_of(data_of(table, min_count=2), home).schema.inputs[0].classes == [
        "the",
        "dog",
        "el",
    ]
    assert view_of(data_of(table, max_vocabulary=4), home).schema.inputs[0].classes == [
        "the",
        "dog",
        "el",
        "and",
    ]
    with pytest.raises(
        DataError, match=r"data.inputs.text.min_count: 4, .* more than 3 times; lower it"
    ):
        prepare_data(data_of(table, min_count=4), home)
    with pytest.raises(
        DataError, match="the training rows have no token at all; look at tokens and ngrams"
    ):
        prepare_data(data_of(table, ngrams=[9, 9]), home)


def test_batches_are_token_ids_padded_to_the_longest_row_and_a_test_rows_own_tokens_are_unknown(
    write_table: WriteTable, home: Home
) -> None:
    view = view_of(data_of(write_table(ROWS)), home)
    rows = PackDataset(view.pack, view.schema, np.arange(6))
    batch = rows.__getitems__([5, 1, 4, 3])
    # the 2, dog 3, el 4, and 5, cat 6, gato 7; mouse and lindo stand in test rows alone.
    assert batch.inputs[0].tolist() == [[2, 1, 0], [2, 3, 0], [4, 7, 1], [0, 0, 0]]
    assert batch.inputs[0].dtype.is_floating_point is False
    assert rows.__getitems__([3]).inputs[0].tolist() == [[0]]
    assert rows[1].inputs[0].tolist() == [2, 3]
    prepared = BatchTransform(view.schema, [], seed=0, device="cpu")(batch, training=True)
    assert prepared.inputs[0].tolist() == batch.inputs[0].tolist()


def test_batches_that_are_gathered_together_and_by_workers_hold_the_same_tokens(
    write_table: WriteTable, home: Home
) -> None:
    lines = [
        f"{'a ' * (number % 5)}w{number},{'en' if number % 2 else 'es'},train"
        for number in range(11)
    ]
    view = view_of(data_of(write_table(["text,label,split", *lines])), home)
    rows = PackDataset(view.pack, view.schema, view.rows["train"])

    def texts(num_workers: int, at_once: int) -> list[list[int]]:
        groups = make_loader(
            rows, 4, Order(seed=1), num_workers=num_workers, batches_at_once=at_once
        )
        batches = [batch for group in groups for batch in split_batches(group, 4)]
        assert [len(batch.rows) for batch in batches] == [4, 4, 3]
        return [
            [one for one in text if one] for batch in batches for text in batch.inputs[0].tolist()
        ]

    assert texts(0, 1) == texts(0, 3) == texts(1, 1)
    assert sum(len(text) for text in texts(0, 1)) == sum(number % 5 + 1 for number in range(11))


def test_a_pack_keeps_tokens_and_cells_of_the_good_rows(
    write_table: WriteTable, home: Home
) -> None:
    lines = [*ROWS[:3], '" ",en,train', *ROWS[3:], '"ÁÉ, ""quoted""",es,test']
    data = data_of(write_table(lines)).model_copy(update={"max_bad_rows": 0.5})
    prepared = prepare_data(data, home)
    assert prepared.num_quarantined == 1
    assert "empty cell in 'text'" in (prepared.split_dir / "quarantine.csv").read_text()
    pack = open_view(prepared.pack_dir, prepared.split_dir).pack
    assert pack.texts("text", np.array([6, 0, 2])) == [
        'ÁÉ, "quoted"',
        "the cat and the dog",
        "el gato y el perro",
    ]
    tokens, vocabulary = pack.tokens("text"), pack.vocabulary("text")
    assert tokens.values.dtype == np.int32
    words = [[vocabulary[at] for at in tokens.take(np.array([row])).values] for row in range(7)]
    assert words == [
        [one.lower() for one in re.findall(r"\w+", text)]
        for text in pack.texts("text", np.arange(7))
    ]


def test_a_table_of_texts_without_any_word_is_packed(write_table: WriteTable, home: Home) -> None:
    view = view_of(data_of(write_table(ROWS)), home)
    new = data_of(write_table(["text", "***", "!"], "new.csv"))
    found = open_view(*prepare_inputs(new, view.schema, home)[:2])
    rows = PackDataset(found.pack, found.schema, found.rows["test"])
    assert rows.__getitems__([0, 1]).inputs[0].tolist() == [[0], [0]]


def test_another_cutting_of_the_same_table_is_another_pack(
    write_table: WriteTable, home: Home
) -> None:
    table = write_table(ROWS)
    words, pairs = (
        prepare_data(data_of(table), home),
        prepare_data(data_of(table, ngrams=[1, 2]), home),
    )
    assert words.pack_dir != pairs.pack_dir
    assert words.fingerprint == pairs.fingerprint
    assert prepare_data(data_of(table), home).reused


def test_the_hash_that_splits_a_table_knows_a_text_by_its_cell(
    write_table: WriteTable, home: Home
) -> None:
    lines = [f"sentence {number},{number % 2}" for number in range(40)]

    def sides(rows: list[str], **settings: Any) -> dict[str, int]:
        data = data_of(write_table(["text,label", *rows]), **settings)
        data = data.model_copy(update={"split": data.split.model_copy(update={"column": ""})})
        prepared = prepare_data(data, home)
        view = open_view(prepared.pack_dir, prepared.split_dir)
        side = np.load(prepared.split_dir / "split.npy").tolist()
        return dict(zip(view.pack.texts("text", np.arange(len(rows))), side, strict=True))

    few = sides(lines)
    assert set(few.values()) == {0, 1, 2}
    grown = sides(["one more,0", *lines[::-1]], tokens="characters")
    assert {text: grown[text] for text in few} == few


def test_the_report_counts_tokens_unknown_ones_and_empty_texts_and_warns_of_many(
    write_table: WriteTable, home: Home
) -> None:
    prepared = prepare_data(data_of(write_table(ROWS)), home)
    found = read_json(prepared.split_dir / "report.json")["features"]["text"]
    assert found == {
        "kind": "text",
        "columns": ["text"],
        "missing": {"text": 0},
        "vocabulary": 8,
        "texts": {
            "train": {
                "tokens": 12,
                "unknown_tokens": 0,
                "texts_without_tokens": 1,
                "longest": 5,
                "median": 3.5,
            },
            "test": {
                "tokens": 5,
                "unknown_tokens": 2,
                "texts_without_tokens": 0,
                "longest": 3,
                "median": 2.5,
            },
        },
    }
    assert (
        "texts,text/unknown tokens,test,2\n" in (prepared.split_dir / "data_report.csv").read_text()
    )
    assert not any("unknown" in warning for warning in prepared.warnings)
    many = prepare_data(data_of(write_table([*ROWS, "un ratón chico,es,test"], "many.csv")), home)
    assert any(
        "'text': 62% of the tokens of test rows are unknown" in warning for warning in many.warnings
    )


def test_a_text_is_an_input_of_one_column_and_its_settings_are_its_own(
    write_table: WriteTable,
) -> None:
    data = data_of(write_table(ROWS))
    text = data.inputs["text"]
    with pytest.raises(
        RecipeError, match=r"data.target.text.kind: 'text' cannot be a target; legal are category, "
    ):
        check_table(data.model_copy(update={"inputs": data.target, "target": {"text": text}}))
    two = text.model_copy(update={"columns": ["text", "split"]})
    with pytest.raises(RecipeError, match="feature 'text' is text and reads 2 columns"):
        check_table(data.model_copy(update={"inputs": {"text": two}}))
    label = data.target["label"].model_copy(update={"ngrams": [1, 2]})
    [warning] = unused_feature_settings(data.model_copy(update={"target": {"label": label}}))
    assert warning == "feature 'label': ngrams without effect, because its kind is category"
