"""Models of every kind that begin from one with fewer labels say what it said of the labels that
both have.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from torchrelay.datasets.ingest import inherit
from torchrelay.models import build_model, find_label_axes
from torchrelay.recipe import Named, WarmStart
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.weights import plan_transfer

Statistics = Literal["source", "data"]


def feature(name: str, kind: str, labels: str, shape: list[int], **more: Any) -> FeatureSchema:
    values = {"name": name, "kind": kind, "columns": [name], "shape": shape, "dtype": "int64"}
    return FeatureSchema.model_validate(
        {**values, "classes": [*labels], "counts": [1] * len(labels), **more}
    )


def begin(
    model: Named, fitted: Schema, source: Schema, statistics: Statistics
) -> tuple[nn.Module, nn.Module, Schema]:
    """The source's net, the net that begins from it, and the latter's schema."""
    schema = inherit(fitted, source, statistics)
    old, new = build_model(model, source), build_model(model, schema)
    labels = find_label_axes(model, schema, source)
    transfer = plan_transfer(new.state_dict(), old.state_dict(), WarmStart(), labels, "source")
    assert {entry.what for entry in transfer.entries} <= {"loaded", "grown"}
    new.load_state_dict(transfer.state)
    return old.eval(), new.eval(), schema


def positions(labels: str, among: list[str]) -> Tensor:
    return torch.tensor([among.index(label) for label in labels])


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("statistics", ["source", "data"])
@pytest.mark.parametrize("name", ["transe", "distmult", "complex"])
def test_a_graph_with_more_entities_and_relations_scores_the_old_facts_alike_in_both_directions(
    name: str, statistics: Statistics
) -> None:
    def graph(entities: str, relations: str) -> Schema:
        head, tail = (
            feature(one, "category", entities, shape, vocabulary="v")
            for one, shape in (("h", [1]), ("t", []))
        )
        return Schema(inputs=[head, feature("r", "category", relations, [1])], targets=[tail])

    source = graph("gbed", "om")
    model = Named(name=name, args={"dim": 4, "init_scale": 1.0})
    old, new, schema = begin(model, graph("abcdefg", "lmno"), source, statistics)

    def ask(net: nn.Module, its: Schema) -> Tensor:
        """Scores of old entities, for every old head and relation, forwards and backwards."""
        entities, relations = its.inputs[0].classes, its.inputs[1].classes
        heads, forwards = positions("bdeg", entities), positions("mo", relations)
        both_ways = torch.cat([forwards, len(relations) + forwards])
        asked = torch.cartesian_prod(heads, both_ways) + 1  # id 0 is what is unseen
        return net(asked[:, :1], asked[:, 1:])[:, positions("bdeg", its.targets[0].classes)]

    assert_same(ask(new, schema), ask(old, source))


@pytest.mark.parametrize("statistics", ["source", "data"])
def test_a_bag_of_words_with_more_words_and_classes_weighs_the_old_ones_alike(
    statistics: Statistics,
) -> None:
    def corpus(tokens: str, labels: str) -> Schema:
        text = feature("text", "text", tokens, [0], tokens="words", ngrams=[1, 1])
        return Schema(inputs=[text], targets=[feature("label", "category", labels, [])])

    source = corpus("fbd", "ZY")
    old, new, schema = begin(
        Named(name="bag_of_words"), corpus("abcdef", "XYZ"), source, statistics
    )

    def odds(net: nn.Module, its: Schema) -> Tensor:
        ids = positions("bdf", its.inputs[0].classes)[:, None] + 2  # behind padding and unknown
        log_probabilities = net(ids)[:, positions("YZ", its.targets[0].classes)]
        return log_probabilities[:, 0] - log_probabilities[:, 1]

    assert_same(odds(new, schema), odds(old, source))


def test_a_perceptron_with_more_words_colours_and_tags_scores_the_old_ones_alike() -> None:
    def table(tokens: str, colours: str, tags: str) -> Schema:
        text = feature("text", "text", tokens, [0], tokens="words", ngrams=[1, 1])
        inputs = [text, feature("colour", "category", colours, [2], columns=["c0", "c1"])]
        return Schema(
            inputs=inputs, targets=[feature("tags", "labels", tags, [len(tags)], dtype="float32")]
        )

    source = table("dfb", "sq", "zy")
    old, new, schema = begin(Named(name="mlp"), table("abcdef", "pqrs", "xyz"), source, "data")

    def score(net: nn.Module, its: Schema) -> Tensor:
        words = positions("bdf", its.inputs[0].classes)[:, None] + 2
        colours = positions("qsq", its.inputs[1].classes)[:, None] + 1
        return net(words, torch.cat([colours, colours.flip(0)], dim=1))[
            :, positions("yz", its.targets[0].classes)
        ]

    assert_same(score(new, schema), score(old, source))
