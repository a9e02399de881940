"""Scores and penalties of the models of triples against their formulas, written out in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchrelay.errors import RecipeError, ShapeError
from torchrelay.models.nets.knowledge_graph import KnowledgeGraphModel
from torchrelay.models.registry import TRIPLE_MODELS, build_model
from torchrelay.recipe import Named
from torchrelay.schema import FeatureSchema, Schema

from ..conftest import MakeSchema

NUM_ENTITIES, NUM_RELATIONS = 9, 2
# Head ids, relation ids: entities 4 and 0, relation 1 forwards and relation 0 backwards.
HEADS, RELATIONS = torch.tensor([[5], [1]]), torch.tensor([[2], [3]])
TARGETS = torch.tensor([3, 8])


def category(name: str, shape: list[int], num_classes: int, vocabulary: str = "") -> FeatureSchema:
    return FeatureSchema(
        name=name,
        kind="category",
        columns=[name],
        shape=shape,
        dtype="int64",
        classes=[f"{name} {number}" for number in range(num_classes)],
        vocabulary=vocabulary,
    )


def schema_of(*, relation_first: bool = False) -> Schema:
    head = category("head", [1], NUM_ENTITIES, "entities")
    relation = category("relation", [1], NUM_RELATIONS)
    inputs = [relation, head] if relation_first else [head, relation]
    return Schema(inputs=inputs, targets=[category("tail", [], NUM_ENTITIES, "entities")])


def model_of(name: str, **args: Any) -> KnowledgeGraphModel:
    torch.manual_seed(3)
    model = build_model(
        Named(name=name, args={"dim": 4, "init_scale": 0.7, **args}), schema_of()
    ).double()
    assert isinstance(model, KnowledgeGraphModel)
    return model


def vectors_of(model: KnowledgeGraphModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of the two heads, of their relations, and of all entities."""
    entities, forwards, backwards = (
        table.weight.detach().numpy()
        for table in (model.entities, model.relations, model.reciprocals)
    )
    return entities[[4, 0]], np.stack([forwards[1], backwards[0]]), entities


def plain(scores: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(scores, target, reduction="none")


def test_distmult_scores_the_sum_of_products() -> None:
    model = model_of("distmult")
    heads, relations, entities = vectors_of(model)
    expected = np.einsum("bd,bd,kd->bk", heads, relations, entities)
    np.testing.assert_allclose(model(HEADS, RELATIONS).detach().numpy(), expected, rtol=1e-12)


def test_complex_scores_the_real_part_with_the_conjugate_tail() -> None:
    model = model_of("complex")
    heads, relations, entities = (part[:, :4] + 1j * part[:, 4:] for part in vectors_of(model))
    expected = np.einsum("bd,bd,kd->bk", heads, relations, entities.conj()).real
    np.testing.assert_allclose(model(HEADS, RELATIONS).detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("norm", [1, 2])
def test_transe_scores_minus_the_distance(norm: int) -> None:
    model = model_of("transe", norm=norm)
    heads, relations, entities = vectors_of(model)
    expected = -np.linalg.norm((heads + relations)[:, None] - entities, ord=norm, axis=2)
    np.testing.assert_allclose(model(HEADS, RELATIONS).detach().numpy(), expected, rtol=1e-9)


def test_inputs_may_stand_in_either_order() -> None:
    model = build_model(Named(name="complex", args={"dim": 4}), schema_of(relation_first=True))
    other = build_model(Named(name="complex", args={"dim": 4}), schema_of())
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(RELATIONS, HEADS), other(HEADS, RELATIONS))


@pytest.mark.parametrize("name", ["distmult", "complex"])
def test_n3_is_the_sum_of_the_cubed_absolute_values(name: str) -> None:
    heads, relations, entities = vectors_of(model_of(name))
    factors = (heads, relations, entities[TARGETS])
    if name == "complex":
        factors = tuple(part[:, :4] + 1j * part[:, 4:] for part in factors)
    penalty = sum((np.abs(part) ** 3).sum(axis=1) for part in factors)
    without, with_n3 = (
        model_of(name, n3=n3).training_losses((HEADS, RELATIONS), TARGETS, plain).detach().numpy()
        for n3 in (0.0, 0.3)
    )
    np.testing.assert_allclose(with_n3 - without, 0.3 * penalty, rtol=1e-9)


@pytest.mark.parametrize("name", TRIPLE_MODELS)
def test_training_against_all_entities_is_the_loss_of_the_scores(name: str) -> None:
    model = model_of(name).train()
    expected = plain(model(HEADS, RELATIONS), TARGETS)
    assert torch.equal(model.training_losses((HEADS, RELATIONS), TARGETS, plain), expected)


@pytest.mark.parametrize("name", TRIPLE_MODELS)
def test_sampled_negatives_are_scored_like_all_entities(name: str) -> None:
    model = model_of(name, negatives=5)
    candidates = model._draw_candidates(TARGETS)
    heads, relations = model._look_up((HEADS, RELATIONS))
    some = model.score_some(model.query(heads, relations), candidates)
    torch.testing.assert_close(some, model(HEADS, RELATIONS).gather(1, candidates))


def test_sampled_negatives_are_every_entity_but_the_true_one_equally_often() -> None:
    model = model_of("distmult", negatives=8000)
    torch.manual_seed(0)
    drawn = model._draw_candidates(TARGETS)
    assert drawn[:, 0].tolist() == TARGETS.tolist()
    for row, target in zip(drawn[:, 1:], TARGETS.tolist(), strict=True):
        counts = row.bincount(minlength=NUM_ENTITIES)
        assert counts[target] == 0
        others = counts[torch.arange(NUM_ENTITIES) != target]
        assert len(others) == 8
        assert (others - 1000).abs().max() < 120  # four standard deviations of 30


def test_sampled_negatives_depend_on_torchs_random_state_alone() -> None:
    model = model_of("complex", negatives=3)
    state = torch.get_rng_state()
    first = model.training_losses((HEADS, RELATIONS), TARGETS, plain)
    second = model.training_losses((HEADS, RELATIONS), TARGETS, plain)
    torch.set_rng_state(state)
    assert torch.equal(model.training_losses((HEADS, RELATIONS), TARGETS, plain), first)
    assert not torch.equal(first, second)


def test_the_margin_loss_is_bordes_mean_over_negatives_of_unit_entities() -> None:
    model = model_of("transe", negatives=4, margin=0.5)
    state = torch.get_rng_state()
    losses = model.training_losses((HEADS, RELATIONS), TARGETS, plain).detach().numpy()
    torch.set_rng_state(state)
    candidates = model._draw_candidates(TARGETS).numpy()
    heads, relations, entities = vectors_of(model)
    units, heads = (
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in (entities, heads)
    )
    distance = np.linalg.norm((heads + relations)[:, None] - units[candidates], axis=2)
    expected = np.maximum(0, 0.5 + distance[:, :1] - distance[:, 1:]).mean(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    np.testing.assert_allclose(
        model(HEADS, RELATIONS).detach().numpy()[0, candidates[0]], -distance[0], rtol=1e-9
    )


@pytest.mark.parametrize("name", TRIPLE_MODELS)
def test_an_unknown_id_is_a_vector_of_zeros(name: str) -> None:
    model = model_of(name)
    heads, relations = model._look_up((torch.tensor([[0], [1]]), torch.tensor([[1], [0]])))
    assert heads[0].abs().sum() == 0 != heads[1].abs().sum()
    assert relations[1].abs().sum() == 0 != relations[0].abs().sum()
    model(torch.tensor([[0]]), torch.tensor([[0]])).sum().backward()
    assert not model.entities.weight.grad.isnan().any()


def test_evaluation_scores_in_full_precision_under_autocast() -> None:
    model = model_of("complex").float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.train()(HEADS, RELATIONS).dtype == torch.bfloat16
        assert model.eval()(HEADS, RELATIONS).dtype == torch.float32


def test_a_table_without_triples_is_refused(
    number_schema: Schema, image_schema: MakeSchema
) -> None:
    with pytest.raises(
        ShapeError, match=r"distmult takes triples.*vocabulary: entities on both.*x \(number\)"
    ):
        build_model(Named(name="distmult"), number_schema)


def test_mlp_refuses_triples_and_a_margin_needs_negatives() -> None:
    with pytest.raises(ShapeError, match="mlp learns no relation backwards, and tail"):
        build_model(Named(name="mlp"), schema_of())
    with pytest.raises(RecipeError, match=r"model.args.margin: 1.0 .* model.args.negatives"):
        build_model(Named(name="transe", args={"margin": 1.0}), schema_of())
