"""What the draft of a recipe chooses for triples of a knowledge graph."""

from __future__ import annotations

from typing import Any, NamedTuple

from .survey import TripleColumns

# Scores that two cores compute and learn from in some minutes. One core takes 83 ms for a step of
# 512 questions and 41,105 entities in bf16, which is 250 million scores a second; fp32 takes about
# twice as long.
SCORES = 100_000_000_000
MOST_EPOCHS, FEWEST_EPOCHS = 200, 5
MANY_ENTITIES = 10_000
VOCABULARY = "entities"


class TripleChoices(NamedTuple):
    """Values of the recipe, as it writes them.

    Attributes:
        relation_why, model_why, epochs_why: reasons.
        hints: what the recipe could say and does not.
    """

    entity: dict[str, Any]
    relation: dict[str, Any]
    model: dict[str, Any]
    model_why: str
    epochs: int
    epochs_why: str
    batch_size: int
    optimizer: dict[str, Any]
    hints: list[str]


def choose_for_triples(triple: TripleColumns, num_train: int) -> TripleChoices:
    """Choose model, epochs and optimizer by the numbers of entities and of
    training rows.
    """
    many = triple.num_entities >= MANY_ENTITIES
    epochs = round(SCORES / (2 * num_train * triple.num_entities))
    hints = []
    if many:
        hints.append("precision: bf16 makes a step faster where the processor has it")
    return TripleChoices(
        entity={"kind": "category", "vocabulary": VOCABULARY},
        relation={"kind": "category"},
        model={
            "name": "complex",
            "args": {"dim": 64 if triple.num_entities >= 1000 else 32, "n3": 0.05},
        },
        model_why="embeddings of entities and relations; transe and distmult are others",
        epochs=max(FEWEST_EPOCHS, min(MOST_EPOCHS, epochs)),
        epochs_why=(
            f"each of {num_train:,} training rows is asked in both directions, against "
            f"{triple.num_entities:,} "
            f"entities; some minutes on a CPU"
        ),
        batch_size=512 if num_train >= 10_000 else 128 if num_train >= 1000 else 32,
        optimizer={"name": "adagrad", "args": {"lr": 0.1}},
        hints=hints,
    )
