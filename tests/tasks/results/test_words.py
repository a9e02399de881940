from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from torchrelay.recipe import Named, Recipe
from torchrelay.runs import START, Run
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.tasks.assembly import build_scorer
from torchrelay.tasks.results.words import rank_words, write_words
from torchrelay.weights import save_weights, state_of

TOKENS = ["the", "dog", "el", "perro"]
SCHEMA = Schema(
    inputs=[
        FeatureSchema(
            name="text",
            kind="text",
            columns=["text"],
            shape=[0],
            dtype="int64",
            classes=TOKENS,
            counts=[4, 3, 2, 1],
        )
    ],
    targets=[
        FeatureSchema(
            name="y", kind="category", columns=["y"], shape=[], dtype="int64", classes=["en", "es"]
        )
    ],
)
RECIPE = Recipe.model_validate(
    {"name": "words", "model": {"name": "bag_of_words"}, "train": {"seed": 3}}
)


def train_by_hand(run_dir: Path) -> np.ndarray:
    """Write best weights of which the first class has 0, 1, 2, 3 more than at the start; gives
    those of the start.
    """
    model = build_scorer(RECIPE, SCHEMA).model
    state = state_of(model)
    before = state["bag.weight"][2:].clone()
    state["bag.weight"][2:, 0] += torch.arange(4)
    save_weights(state, run_dir / "weights" / "best.pt")
    return before.numpy()


def test_words_stand_in_the_order_of_their_weights_beside_those_that_training_began_with(
    tmp_path: Path,
) -> None:
    before = train_by_hand(tmp_path)
    torch.manual_seed(
        99
    )  # the run's own seed gives the weights at its start, whatever came in between
    assert write_words(Run(tmp_path), RECIPE, SCHEMA)
    table = pd.read_csv(tmp_path / "tables" / "words.csv")
    assert list(table.columns) == [
        "class",
        "rank",
        "token",
        "count",
        "weight_before",
        "weight_after",
    ]
    english = table[table["class"] == "en"].reset_index(drop=True)
    assert english["token"].tolist() == ["perro", "el", "dog", "the"]
    assert english["rank"].tolist() == [1, 2, 3, 4]
    assert english["count"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(english["weight_before"], before[::-1, 0], rtol=1e-5)
    np.testing.assert_allclose(
        english["weight_after"] - english["weight_before"], [3, 2, 1, 0], atol=1e-5
    )
    spanish = table[table["class"] == "es"]
    np.testing.assert_allclose(spanish["weight_after"], np.sort(before[:, 1])[::-1], rtol=1e-5)
    assert (tmp_path / "figures" / "words.png").stat().st_size > 10_000


def test_a_run_that_began_with_the_weights_of_another_says_those(tmp_path: Path) -> None:
    train_by_hand(tmp_path)
    start = state_of(build_scorer(RECIPE, SCHEMA).model)
    start["bag.weight"].fill_(0.25)
    save_weights(start, tmp_path / START)
    write_words(Run(tmp_path), RECIPE, SCHEMA)
    assert set(pd.read_csv(tmp_path / "tables" / "words.csv")["weight_before"]) == {0.25}


def test_words_of_a_run_in_a_precision_that_only_cuda_has_are_written_without_it(
    tmp_path: Path,
) -> None:
    before = train_by_hand(tmp_path)
    in_fp16 = RECIPE.train.model_copy(update={"device": "cuda", "precision": "fp16"})
    assert write_words(Run(tmp_path), RECIPE.model_copy(update={"train": in_fp16}), SCHEMA)
    table = pd.read_csv(tmp_path / "tables" / "words.csv")
    np.testing.assert_allclose(table["weight_before"][:4], before[::-1, 0], rtol=1e-5)


def test_a_model_that_is_no_bag_of_words_has_none(tmp_path: Path) -> None:
    perceptron = RECIPE.model_copy(update={"model": Named(name="mlp")})
    assert not write_words(Run(tmp_path), perceptron, SCHEMA)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("max_lines", "kept"), [(8, [1, 2, 3, 4]), (4, [1, 4])])
def test_of_very_many_words_each_class_keeps_its_largest_and_its_smallest(
    max_lines: int, kept: list[int]
) -> None:
    weights = np.array([[0.1, 4], [0.4, 3], [0.3, 2], [0.2, 1]])
    table = rank_words(["en", "es"], TOKENS, [1, 1, 1, 1], np.zeros((4, 2)), weights, max_lines)
    assert table["rank"].tolist() == kept * 2
    assert table["token"].iloc[[0, len(kept) - 1]].tolist() == ["dog", "the"]
