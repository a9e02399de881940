from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from torchrelay.models.label_axes import find_heads, find_label_axes, new_labels
from torchrelay.models.registry import build_model
from torchrelay.recipe import Named
from torchrelay.schema import AxisLabels, FeatureSchema, Schema

MORE = ["bee", "ant", "wasp"]
FEW = ["ant", "bee"]


def image() -> FeatureSchema:
    return FeatureSchema(
        name="image", kind="image", columns=["file"], shape=[3, 32, 32], dtype="uint8"
    )


def category(name: str, classes: list[str], num_columns: int = 0, **more: object) -> FeatureSchema:
    shape = [num_columns] if num_columns else []
    columns = [f"{name} {column}" for column in range(num_columns or 1)]
    values = {
        "name": name,
        "kind": "category",
        "columns": columns,
        "shape": shape,
        "dtype": "int64",
    }
    return FeatureSchema.model_validate(
        {**values, "classes": classes, "counts": [1] * len(classes), **more}
    )


def numbers(name: str, columns: str) -> FeatureSchema:
    return FeatureSchema(
        name=name, kind="number", columns=[*columns], shape=[len(columns)], dtype="float64"
    )


def head_of(*labels: str) -> list[object]:
    return [(0, ("category", label)) for label in labels]


def text(classes: list[str], **more: object) -> FeatureSchema:
    values = {
        "name": "t",
        "kind": "text",
        "columns": ["t"],
        "shape": [0],
        "dtype": "int64",
        "classes": classes,
    }
    return FeatureSchema.model_validate({**values, "counts": [1] * len(classes), **more})


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("cifar_net", ["fc3.weight", "fc3.bias"]),
        ("mlp", ["layers.weight", "layers.bias"]),
        ("torchvision:resnet18", ["fc.weight", "fc.bias"]),
        ("torchvision:squeezenet1_1", ["classifier.1.weight", "classifier.1.bias"]),
    ],
)
def test_the_head_is_found_in_nets_that_end_otherwise(model: str, keys: list[str]) -> None:
    args = {"hidden": []} if model == "mlp" else {}
    own, source = (
        Schema(inputs=[image()], targets=[category("label", names)]) for names in (MORE, FEW)
    )
    found = find_label_axes(Named(name=model, args=args), own, source)
    if model == "mlp":
        keys = list(build_model(Named(name=model, args=args), own).state_dict())
    axis = AxisLabels(head_of(*MORE), head_of(*FEW))
    assert found == {key: {0: axis} for key in keys}


def test_nothing_has_to_be_told_apart_where_the_labels_are_the_same() -> None:
    schema = Schema(inputs=[image()], targets=[category("label", MORE)])
    assert find_label_axes(Named(name="cifar_net"), schema, schema) == {}


def test_the_same_classes_in_another_order_are_another_order_of_rows() -> None:
    own, source = (
        Schema(inputs=[image()], targets=[category("label", names)])
        for names in (MORE, sorted(MORE))
    )
    assert set(find_label_axes(Named(name="cifar_net"), own, source)) == {"fc3.weight", "fc3.bias"}


def test_without_the_sources_schema_the_head_is_known_but_not_its_rows() -> None:
    schema = Schema(inputs=[image()], targets=[category("label", MORE)])
    assert find_label_axes(Named(name="cifar_net"), schema, None)["fc3.bias"] == {
        0: AxisLabels(head_of(*MORE), [])
    }


@pytest.mark.parametrize("model", ["mlp", "cifar_net"])
def test_tokens_that_joined_a_vocabulary_lengthen_no_embedding(model: str) -> None:
    old = text([*"abcd"])
    own = Schema(
        inputs=[image(), text([*"abcdefgh"], embedding=old.embedding_size)],
        targets=[numbers("y", "y")],
    )
    source = Schema(inputs=[image(), old], targets=[numbers("y", "y")])
    new_net, old_net = (
        build_model(Named(name=model), schema).state_dict() for schema in (own, source)
    )
    [key] = [key for key, value in new_net.items() if value.shape != old_net[key].shape]
    assert (new_net[key].shape, old_net[key].shape) == ((10, 2), (6, 2))
    special = [("special", 0), ("special", 1)]  # padding, unknown
    rows, theirs = (
        [*special, *((0, token) for token in tokens)] for tokens in ("abcdefgh", "abcd")
    )
    assert find_label_axes(Named(name=model), own, source) == {key: {0: AxisLabels(rows, theirs)}}


def test_embeddings_of_side_inputs_and_the_head_are_found_apart() -> None:
    """Embeddings have a row for what is unseen before those of the classes."""
    grown = category("c", ["z", "x", "y", "w", "v"], num_columns=2, embedding=2)
    own = Schema(inputs=[image(), grown], targets=[category("label", MORE)])
    source = Schema(
        inputs=[image(), category("c", ["x", "y", "z"], 2)], targets=[category("label", FEW)]
    )
    found = find_label_axes(Named(name="cifar_net"), own, source)
    rows = [("special", 0), *((0, label) for label in "zxywv")]
    assert found["encoders.0.columns.1.weight"] == {
        0: AxisLabels(rows, [("special", 0), (0, "x"), (0, "y"), (0, "z")])
    }
    assert found["head.weight"] == {0: AxisLabels(head_of(*MORE), head_of(*FEW))}
    assert set(found) == {
        "encoders.0.columns.0.weight",
        "encoders.0.columns.1.weight",
        "head.weight",
        "head.bias",
    }


def test_embeddings_of_an_input_that_the_source_lacks_are_not_taken_for_those_of_another() -> None:
    """Both stand first among the encoders, and have as many classes."""
    schemas = [
        Schema(inputs=[category(name, ["x", "y"], 1)], targets=[category("label", FEW)])
        for name in "cd"
    ]
    found = find_label_axes(Named(name="mlp"), *schemas)
    assert found == {"encoders.0.columns.0.weight": {0: AxisLabels([], [])}}


def test_heads_have_the_targets_labels_and_embeddings_of_inputs_are_none() -> None:
    schema = Schema(
        inputs=[image(), category("c", ["x", "y"], 1)], targets=[category("label", MORE)]
    )
    assert find_heads(Named(name="cifar_net"), schema) == {"head.weight", "head.bias"}
    parts = category("head", ["a", "b"], 1, vocabulary="v"), category("relation", ["r"], 1)
    triples = Schema(inputs=[*parts], targets=[category("tail", ["a", "b"], vocabulary="v")])
    assert find_heads(Named(name="distmult"), triples) == {"entities.weight"}


def test_of_several_targets_each_class_goes_with_its_target() -> None:
    def schema(colours: list[str]) -> Schema:
        return Schema(
            inputs=[numbers("x", "ab")],
            targets=[category("label", FEW), category("colour", colours)],
        )

    found = find_label_axes(Named(name="mlp"), schema(["ant", "red"]), schema(["red"]))
    (axis,) = {key: axes[0] for key, axes in found.items() if key.endswith("bias")}.values()
    assert (
        axis.own[:2]
        == axis.source[:2]
        == [(0, ("category", "label", "ant")), (0, ("category", "label", "bee"))]
    )
    assert axis.own[2:] == [(0, ("category", "colour", "ant")), (0, ("category", "colour", "red"))]


def test_columns_of_a_number_target_are_labels_too() -> None:
    own, source = (
        Schema(inputs=[numbers("x", "ab")], targets=[numbers("y", names)])
        for names in ("uvw", "wu")
    )
    found = find_label_axes(Named(name="mlp"), own, source)
    (axis,) = {key: axes[0] for key, axes in found.items() if key.endswith("bias")}.values()
    assert axis.own == [(0, ("number", name)) for name in "uvw"]
    assert axis.source == [(0, ("number", name)) for name in "wu"]


NETS = """
import torch
from torch import nn


class Triples(nn.Module):
    '''Entities are shared by head and tail; each relation has a row for each of two directions.'''

    def __init__(self, schema):
        super().__init__()
        entities, relations = len(schema.targets[0].classes), len(schema.inputs[1].classes)
        self.entities = nn.Embedding(entities + 1, 4)
        self.relations = nn.Embedding(2 * relations + 1, 4)
        self.bias = nn.Parameter(torch.zeros(entities))

    def forward(self, head, relation):
        query = self.entities(head[:, 0]) * self.relations(relation[:, 0])
        return query @ self.entities.weight[1:].T + self.bias


class OneHot(nn.Module):
    '''Two vocabularies stand beside each other in the columns of one weight.'''

    def __init__(self, schema, num_outputs, num_unseen):
        super().__init__()
        self.sizes = [len(feature.classes) + num_unseen for feature in schema.inputs]
        self.layer = nn.Linear(sum(self.sizes), num_outputs)

    def forward(self, *ids):
        one_hot = [nn.functional.one_hot(x[:, 0], size) for x, size in zip(ids, self.sizes)]
        return self.layer(torch.cat(one_hot, 1).float())


class Bag(nn.Module):
    '''A row for each token, behind padding and unknown ones, and a column for each class.'''

    def __init__(self, schema, num_outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(schema.inputs[0].classes) + 2, num_outputs))

    def forward(self, ids):
        return self.weight.sum(0).expand(len(ids), -1)


class Fixed(nn.Module):
    '''Of three outputs, whatever the table.'''

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.body(x))
"""


@pytest.fixture
def nets(tmp_path: Path) -> str:
    (tmp_path / "nets_with_labels.py").write_text(NETS)
    return "nets_with_labels"


def test_a_shared_vocabulary_is_one_and_relations_have_a_block_a_direction(nets: str) -> None:
    def schema(entities: str, relations: str) -> Schema:
        shared: dict[str, Any] = {"vocabulary": "entities"}
        inputs = [category("head", [*entities], 1, **shared), category("relation", [*relations], 1)]
        return Schema(inputs=inputs, targets=[category("tail", [*entities], **shared)])

    found = find_label_axes(Named(name=f"{nets}:Triples"), schema("abc", "rs"), schema("ca", "r"))
    assert found["bias"] == {0: AxisLabels([(0, "a"), (0, "b"), (0, "c")], [(0, "c"), (0, "a")])}
    assert found["entities.weight"][0].own == [("special", 0), (0, "a"), (0, "b"), (0, "c")]
    assert found["relations.weight"] == {
        0: AxisLabels(
            [("special", 0), (0, "r"), (0, "s"), (1, "r"), (1, "s")],
            [("special", 0), (0, "r"), (1, "r")],
        )
    }


def test_a_weight_may_have_tokens_for_rows_and_classes_for_columns(nets: str) -> None:
    def schema(tokens: str, labels: list[str]) -> Schema:
        text = {
            "name": "t",
            "kind": "text",
            "columns": ["t"],
            "shape": [0],
            "dtype": "int64",
            "classes": [*tokens],
        }
        return Schema(
            inputs=[FeatureSchema.model_validate(text)], targets=[category("label", labels)]
        )

    found = find_label_axes(Named(name=f"{nets}:Bag"), schema("xyz", MORE), schema("zx", FEW))
    special: list[object] = [("special", 0), ("special", 1)]
    assert found == {
        "weight": {
            0: AxisLabels([*special, (0, "x"), (0, "y"), (0, "z")], [*special, (0, "z"), (0, "x")]),
            1: AxisLabels(head_of(*MORE), head_of(*FEW)),
        }
    }


@pytest.mark.parametrize(
    ("num_unseen", "first", "second"),
    [
        (1, ("xy", "xy"), ("xyz", "xy")),
        (0, ("xy", "x"), ("xy", "x")),
    ],  # of the latter, each alone would explain the size
)
def test_vocabularies_that_share_a_dimension_cannot_be_told_apart(
    nets: str, num_unseen: int, first: tuple[str, str], second: tuple[str, str]
) -> None:
    def schema(at: int) -> Schema:
        inputs = [category("c", [*first[at]], 1), category("d", [*second[at]], 1)]
        return Schema(inputs=inputs, targets=[category("label", FEW)])

    model = Named(name=f"{nets}:OneHot", args={"num_unseen": num_unseen})
    assert find_label_axes(model, schema(0), schema(1)) == {"layer.weight": {1: AxisLabels([], [])}}


def test_of_a_net_of_one_size_the_last_module_of_that_many_rows_is_the_head(nets: str) -> None:
    own, source = (
        Schema(inputs=[numbers("x", "ab")], targets=[category("label", names)])
        for names in (MORE, sorted(MORE))
    )
    found = find_label_axes(Named(name=f"{nets}:Fixed"), own, source)
    assert set(found) == {"head.weight", "head.bias"}
    assert found["head.bias"] == {0: AxisLabels(head_of(*MORE), head_of(*sorted(MORE)))}


def test_the_random_state_stays_as_it_was() -> None:
    own, source = (
        Schema(inputs=[image()], targets=[category("label", names)]) for names in (MORE, FEW)
    )
    state = torch.get_rng_state()
    find_label_axes(Named(name="cifar_net"), own, source)
    assert torch.equal(torch.get_rng_state(), state)


def test_new_labels_are_those_that_no_target_of_the_source_has() -> None:
    own, source = (Schema(inputs=[], targets=[category("label", names)]) for names in (MORE, FEW))
    assert new_labels(own, source) == ["wasp"]
    assert new_labels(source, own) == []
