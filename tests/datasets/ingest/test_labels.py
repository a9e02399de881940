from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from torchrelay.datasets.augment import Mixup, mix_batch
from torchrelay.datasets.batches import BatchTransform, PackDataset, check_sampling
from torchrelay.datasets.cells import read_labels
from torchrelay.datasets.ingest.prepare import prepare_data, prepare_for_schema, prepare_inputs
from torchrelay.datasets.pack import open_view
from torchrelay.datasets.splits import hash_tags
from torchrelay.datasets.table import check_table
from torchrelay.disk import read_json
from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Feature
from torchrelay.settings import Home

from ..conftest import MakeData, WriteTable

TAGS = {"tags": {"kind": "labels", "separator": ";"}}
ROWS = [
    "0,red;big,train",
    "1, big ; red;,train",
    "2,,train",
    "3,10;9;red,train",
    "4,blue; red,test",
    "5,blue,test",
]


def test_cells_become_ids_of_their_tags_each_once() -> None:
    labels = read_labels(pd.Series(["b, a", "", " a ,a", "a,,c", "b, a"]), ",")
    assert labels.vocabulary == ["b", "a", "c"]
    assert labels.ids.tolist() == [[0, 1], [-1, -1], [1, -1], [1, 2], [0, 1]]
    assert read_labels(pd.Series(["", " "]), ",").ids.tolist() == [[-1], [-1]]


def test_rows_with_the_same_tags_are_the_same_whatever_their_order() -> None:
    one, two = (
        read_labels(pd.Series(["b,a", "a", "", "c"]), ","),
        read_labels(pd.Series(["a, b", "b", "", "c"]), ","),
    )
    first, second = hash_tags(*one), hash_tags(*two)
    assert (first == second).tolist() == [True, False, True, True]
    assert len(set(first.tolist())) == 4


def test_tags_become_ones_in_columns_and_those_that_training_lacks_are_dropped_with_a_warning(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,tags,split", *ROWS])
    prepared = prepare_data(number_data(table, target=TAGS, split={"column": "split"}), home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    [target] = view.schema.targets
    assert (target.classes, target.counts, target.shape) == (
        ["10", "9", "big", "red"],
        [1, 1, 2, 3],
        [4],
    )
    assert (target.dtype, target.separator, view.schema.num_outputs) == ("float32", ";", 4)
    assert (prepared.rows, prepared.num_quarantined) == ({"train": 4, "valid": 0, "test": 2}, 0)
    dataset = PackDataset(view.pack, view.schema, np.arange(6))
    batch = dataset.__getitems__(np.array([3, 0, 1, 2, 4, 5]))
    assert batch.target.dtype == torch.float32
    assert batch.target.tolist() == [
        [1, 1, 0, 1],
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 1],  # and blue, which no training row has
        [0, 0, 0, 0],
    ]
    assert torch.equal(
        BatchTransform(view.schema, [], seed=0, device="cpu")(batch).target, batch.target
    )
    assert prepared.warnings == [
        "'tags': 2 rows have tags that no training row has, which do not count (1: blue)",
        "3 of 5 classes have no test row: 10, 9, big",
    ]
    report = read_json(prepared.split_dir / "report.json")["features"]["tags"]
    assert report["classes"]["red"] == {"train": 3, "valid": 0, "test": 1}
    assert report["missing"] == {"tags": 1}


def test_several_targets_of_labels_stand_side_by_side(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    target = {"a": {"kind": "labels"}, "b": {"kind": "labels"}}
    prepared = prepare_data(
        number_data(write_table(["x0,a,b", '0,"p,q",r', "1,q,", "2,,s"]), target=target), home
    )
    view = open_view(prepared.pack_dir, prepared.split_dir)
    batch = PackDataset(view.pack, view.schema, view.rows["train"]).__getitems__([0, 1, 2])
    assert batch.target.tolist() == [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    parts = view.schema.parts(batch.target, batch.target)
    assert [part.target.shape[1] for part in parts] == [2, 2]


def test_labels_have_tags_of_their_own_whatever_vocabulary_they_name(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    target = {"tags": {**TAGS["tags"], "vocabulary": "entities"}}
    data = number_data(
        write_table(["x0,tags,split", *ROWS]), target=target, split={"column": "split"}
    )
    prepared = prepare_data(data, home)
    assert open_view(prepared.pack_dir, prepared.split_dir).schema.targets[0].classes == [
        "10",
        "9",
        "big",
        "red",
    ]
    assert any("vocabulary without effect" in warning for warning in prepared.warnings)


def test_another_tables_tags_are_those_of_the_model(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    data = number_data(write_table(["x0,tags", "0,a;b", "1,b"]), target=TAGS)
    first = prepare_data(data, home)
    schema = open_view(first.pack_dir, first.split_dir).schema
    other = data.model_copy(update={"table": write_table(["x0,tags", "5,c;b", "6,"], "other.csv")})
    prepared = prepare_for_schema(other, schema, home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert PackDataset(view.pack, view.schema, view.rows["test"]).__getitems__(
        [0, 1]
    ).target.tolist() == [
        [0, 1],
        [0, 0],
    ]
    assert (
        "'tags': 1 rows have tags that no training row has, which do not count (1: c)"
        in prepared.warnings
    )
    unlabelled = data.model_copy(update={"table": write_table(["x0", "5"], "unlabelled.csv")})
    prepared = prepare_inputs(unlabelled, schema, home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    target = PackDataset(view.pack, view.schema, view.rows["test"]).__getitems__([0]).target
    assert (target.dtype, target.tolist()) == (torch.float32, [[0, 0]])


def test_tags_are_mixed_in_proportion(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    prepared = prepare_data(number_data(write_table(["x0,tags", "0,a", "1,b"]), target=TAGS), home)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    raw = PackDataset(view.pack, view.schema, view.rows["train"]).__getitems__([0, 1])
    batch = BatchTransform(view.schema, [], seed=0, device="cpu")(raw)
    mixed = mix_batch(batch, view.schema, [Mixup(alpha=1.0)], seed=0, epoch=0)
    share = mixed.target[0, 0].item()
    assert 0 < share < 1
    assert mixed.target[0].tolist() == pytest.approx([share, 1 - share])
    torch.testing.assert_close(
        mixed.inputs[0][0], share * batch.inputs[0][0] + (1 - share) * batch.inputs[0][1]
    )
    assert mixed.mix is None


@pytest.mark.parametrize(
    ("changes", "rows", "words"),
    [
        (
            {"target": TAGS},
            ["0,", "1, ; "],
            r"target column 'tags' has no tag; expected one or more",
        ),
        (
            {"inputs": {"tags": {"kind": "labels"}}, "target": {"x0": {"kind": "number"}}},
            ["0,a"],
            r"data\.inputs\.tags\.kind: 'labels' cannot be an input; read the column as text",
        ),
        (
            {
                "inputs": {"z": {"kind": "number"}},
                "target": {"t": {"kind": "labels", "columns": ["x0", "tags"]}},
            },
            ["0,a"],
            r"feature 't' is labels and a target and reads 2 columns",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(
    changes: dict[str, object],
    rows: list[str],
    words: str,
    write_table: WriteTable,
    number_data: MakeData,
) -> None:
    table = write_table(["x0,tags,z", *(f"{row},1" for row in rows)])
    with pytest.raises((DataError, RecipeError), match=words):
        check_table(number_data(table, **changes))


def test_a_table_whose_training_rows_have_no_tag_is_refused(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,tags,split", "0,,train", "1,a,test"])
    with pytest.raises(
        DataError, match="target column 'tags' has no tag among its training rows; expected one"
    ):
        prepare_data(number_data(table, target=TAGS, split={"column": "split"}), home)


def test_balanced_draws_are_refused_for_rows_of_several_tags() -> None:
    with pytest.raises(
        RecipeError, match="a row of a labels target has no one class; leave it at shuffle"
    ):
        check_sampling("balanced", [Feature(kind="labels")])
