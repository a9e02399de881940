from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from torchrelay.datasets.batches import Order, PackDataset, make_loader
from torchrelay.datasets.ingest import prepare_data, prepare_for_schema, prepare_inputs
from torchrelay.datasets.pack import View, open_view
from torchrelay.datasets.table import check_table
from torchrelay.datasets.verdicts import read_verdicts
from torchrelay.disk import read_json
from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]

FACTS = [
    "head,relation,tail,split",
    "cat,is_a,mammal,train",
    "dog,is_a,mammal,train",
    "dog,chases,cat,train",
    "cat,chases,mouse,train",
    "mammal,is_a,animal,train",
    "mouse,is_a,mammal,valid",
    "owl,chases,mouse,test",
]
ENTITIES = ["animal", "cat", "dog", "mammal", "mouse", "owl"]
ENTITY, PLAIN = {"kind": "category", "vocabulary": "entities"}, {"kind": "category"}


def data_of(table: str, **changes: Any) -> Data:
    values: dict[str, Any] = {
        "table": table,
        "inputs": {"head": ENTITY, "relation": PLAIN},
        "target": {"tail": ENTITY},
        "split": {"column": "split"},
        "max_bad_rows": 0.5,
    }
    return Data.model_validate(values | changes)


def view_of(data: Data, home: Home) -> View:
    prepared = prepare_data(data, home)
    return open_view(prepared.pack_dir, prepared.split_dir)


def test_head_and_tail_share_all_entities_of_the_table(write_table: WriteTable, home: Home) -> None:
    schema = view_of(data_of(write_table(FACTS)), home).schema
    [head, relation], [tail] = schema.inputs, schema.targets
    assert head.classes == tail.classes == ENTITIES  # owl, which only a test row has, too
    assert (
        head.counts == tail.counts == [1, 3, 2, 3, 1, 0]
    )  # occurrences as head or tail of training rows
    assert (relation.classes, relation.vocabulary) == (["chases", "is_a"], "")
    assert schema.triple == (0, 1)
    assert (head.shape, tail.shape) == ([1], [])


def test_each_row_is_asked_forwards_and_then_backwards(write_table: WriteTable, home: Home) -> None:
    view = view_of(data_of(write_table(FACTS)), home)
    rows = PackDataset(view.pack, view.schema, view.rows["train"])
    assert len(rows) == 10
    batch = rows.__getitems__(range(10))
    # Input ids: entity i of ENTITIES is i + 1; chases 1, is_a 2, and backwards 3 and 4.
    assert batch.inputs[0][:, 0].tolist() == [2, 3, 3, 2, 4, 4, 4, 2, 5, 1]
    assert batch.inputs[1][:, 0].tolist() == [2, 2, 1, 1, 2, 4, 4, 3, 3, 4]
    assert batch.target.tolist() == [3, 3, 1, 4, 0, 1, 2, 2, 1, 3]
    assert batch.rows.tolist() == [0, 1, 2, 3, 4] * 2
    assert all(one.shape == (10, 1) and one.dtype == torch.int64 for one in batch.inputs)


def test_inputs_keep_the_recipes_order(write_table: WriteTable, home: Home) -> None:
    data = data_of(write_table(FACTS), inputs={"relation": PLAIN, "head": ENTITY})
    view = view_of(data, home)
    assert view.schema.triple == (1, 0)
    batch = PackDataset(view.pack, view.schema, view.rows["valid"]).__getitems__([0, 1])
    assert [one[:, 0].tolist() for one in batch.inputs] == [[2, 4], [5, 4]]


def test_an_epoch_asks_every_question_once_from_any_batch_on(
    write_table: WriteTable, home: Home
) -> None:
    view = view_of(data_of(write_table(FACTS)), home)
    rows = PackDataset(view.pack, view.schema, view.rows["train"])

    def batches(start: int) -> list[tuple[int, int, int]]:
        loader = make_loader(rows, 3, Order(seed=1, epoch=2, start_batch=start))
        return [
            question
            for batch in loader
            for question in zip(
                *(one[:, 0].tolist() for one in batch.inputs), batch.target.tolist(), strict=True
            )
        ]

    whole = batches(0)
    asked = [column.tolist() for column in rows.questions()[1:]]
    assert sorted(whole) == sorted(zip(*asked, strict=True))
    assert batches(2) == whole[6:]


def test_a_relation_without_a_training_row_cannot_be_asked(
    write_table: WriteTable, home: Home
) -> None:
    data = data_of(write_table([*FACTS, "owl,fears,cat,test"]))
    prepared = prepare_data(data, home)
    assert read_verdicts(prepared.split_dir) == {7: "relation without a training row: 'fears'"}
    report = read_json(prepared.split_dir / "report.json")
    assert report["entities"] == {"distinct": 6, "without_training_rows": 1}
    assert report["features"]["tail"]["distinct"] == {"train": 4, "valid": 1, "test": 1}
    assert "classes" not in report["features"]["head"]


def test_another_tables_unknown_entities_and_relations_get_verdicts(
    write_table: WriteTable, home: Home
) -> None:
    schema = view_of(data_of(write_table(FACTS)), home).schema
    lines = [
        "head,relation,tail",
        "owl,is_a,animal",
        "cow,is_a,animal",
        "owl,fears,cat",
        "owl,is_a,bird",
    ]
    data = data_of(write_table(lines, "more.csv"))
    scored = prepare_for_schema(data, schema, home)
    assert read_verdicts(scored.split_dir) == {
        1: "entity that the model does not know: 'cow' in 'head'",
        2: "relation that the model does not know: 'fears' in 'relation'",
        3: "class that the model does not know: 'bird'",
    }
    asked = prepare_inputs(data, schema, home)
    assert set(read_verdicts(asked.split_dir)) == {1, 2}
    view = open_view(asked.pack_dir, asked.split_dir)
    batch = PackDataset(view.pack, schema, view.rows["test"]).__getitems__([0, 1])
    assert batch.inputs[0][:, 0].tolist() == [6, 6]  # forwards alone, as no tail is known
    assert batch.inputs[1][:, 0].tolist() == [2, 2]
    with pytest.raises(IndexError):
        PackDataset(view.pack, schema, view.rows["test"]).__getitems__([2])


def test_facts_are_split_by_all_three_parts(write_table: WriteTable, home: Home) -> None:
    lines = ["head,relation,tail", *(f"hub,r,e{number}" for number in range(200)), *["a,r,b"] * 3]
    view = view_of(data_of(write_table(lines), split={"valid": 0.2, "test": 0.2}), home)
    sizes = [len(view.rows[name]) for name in ("train", "valid", "test")]
    assert min(sizes) > 20
    copies = [np.isin([200, 201, 202], view.pack.rows[view.rows[name]]).sum() for name in view.rows]
    assert sorted(copies) == [0, 0, 3]


def test_inputs_that_share_a_vocabulary_have_the_training_rows_classes(
    write_table: WriteTable, home: Home
) -> None:
    lines = ["start,end,hours,split", "oslo,rome,3,train", "rome,bern,1,train", "kiev,oslo,2,valid"]
    city = {"kind": "category", "vocabulary": "cities"}
    data = data_of(
        write_table(lines),
        inputs={"start": city, "end": city},
        target={"hours": {"kind": "number"}},
    )
    view = view_of(data, home)
    start, end = view.schema.inputs
    assert start.classes == end.classes == ["bern", "oslo", "rome"]
    assert start.counts == end.counts == [1, 1, 2]
    assert view.schema.triple is None
    batch = PackDataset(view.pack, view.schema, view.rows["valid"]).__getitems__([0])
    assert [one.tolist() for one in batch.inputs] == [[[0]], [[2]]]  # kiev is unseen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inputs": {"head": ENTITY, "relation": PLAIN, "split": PLAIN}},
            r"expected two inputs.*inputs head \(cat",
        ),
        ({"inputs": {"head": ENTITY, "relation": ENTITY}}, "one other category"),
        ({"inputs": {"head": ENTITY, "relation": {"kind": "number"}}}, r"relation \(number\)"),
        (
            {
                "inputs": {
                    "head": ENTITY,
                    "relation": {"kind": "category", "columns": ["relation", "split"]},
                }
            },
            "2 columns",
        ),
        ({"target": {"tail": ENTITY, "split": PLAIN}}, "and 2 targets"),
    ],
)
def test_features_that_are_no_triple_are_refused(
    write_table: WriteTable, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check_table(data_of(write_table(FACTS), **changes))


def test_a_graph_of_one_entity_has_nothing_to_rank(write_table: WriteTable) -> None:
    lines = ["head,relation,tail,split", "a,r,a,train", "a,r,a,test"]
    with pytest.raises(DataError, match="the one class 'a'"):
        check_table(data_of(write_table(lines)))
