"""The words that a bag of words found.

The weights of its tokens for each class, before training and after.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ... import figures
from ...disk import write_atomic
from ...models.nets import BagOfWords
from ...recipe import Recipe
from ...runs import BEST, FIGURES, START, TABLES, Run
from ...schema import Schema
from ...weights import load_into, load_weights
from ..assembly import build_scorer

MAX_LINES = 200_000
NUM_DRAWN = 15


def write_words(run: Run, recipe: Recipe, schema: Schema) -> bool:
    """Write `tables/words.csv` and `figures/words.png` of a run whose model is
    a bag of words; of others nothing.

    The table has a line for each class and token, of each class the largest weight after training
    first: class, rank, token, count (in the training rows), weight_before, weight_after. Of more
    than `MAX_LINES` lines each class keeps its largest and its smallest. Of numbers the class is
    the column and weights are in standardised units.

    Args:
        run: has the best weights.
        recipe: of the run; its seed gives the weights that training began with.
        schema: of the run.
    Returns:
        Whether there was anything to write.
    Raises:
        SourceError: the weights do not fit the model that the recipe builds.
    """
    # In fp32, in which initial weights are drawn whatever they are trained in; the CPU has no fp16.
    plain = recipe.train.model_copy(update={"device": "cpu", "precision": "fp32"})
    model = build_scorer(recipe.model_copy(update={"train": plain}), schema).model
    if not isinstance(model, BagOfWords):
        return False
    start = run.folder / START  # of a warm start; a run without it drew its weights from the seed
    if start.is_file():
        load_into(model, load_weights(start), str(start))
    before_VK = model.token_weights().numpy()
    best = run.folder / BEST
    load_into(model, load_weights(best), str(best))
    after_VK = model.token_weights().numpy()
    [text] = schema.inputs
    names = name_outputs(schema)
    table = rank_words(names, text.classes, text.counts, before_VK, after_VK)
    write_atomic(run.folder / TABLES / "words.csv", table.to_csv(index=False, float_format="%.6g"))
    figures.words(
        names, text.classes, before_VK, after_VK, run.folder / FIGURES / "words.png", NUM_DRAWN
    )
    return True


def name_outputs(schema: Schema) -> list[str]:
    """What each output stands for.

    Classes, tags or columns; of several targets with the target's name before it.
    """
    several = len(schema.targets) > 1
    return [
        f"{target.name}/{name}" if several else name
        for target in schema.targets
        for name in (target.classes or target.columns)
    ]


def rank_words(
    names: list[str],
    tokens: list[str],
    counts: list[int],
    before_VK: np.ndarray,
    after_VK: np.ndarray,
    max_lines: int = MAX_LINES,
) -> pd.DataFrame:
    """One line a class and token, in the order of the classes and of the
    weights after training, largest first.

    Args:
        names: of the K outputs.
        tokens, counts: of the V tokens.
        before_VK, after_VK: weights.
        max_lines: where there would be more, each class keeps as many of its largest as of its
            smallest.
    """
    per_class = max(2, max_lines // len(names))
    parts = []
    for number, name in enumerate(names):
        order = np.argsort(-after_VK[:, number], kind="stable")
        ranks = np.arange(1, len(order) + 1)
        if len(order) > per_class:
            kept = np.r_[: per_class // 2, len(order) - per_class // 2 : len(order)]
            order, ranks = order[kept], ranks[kept]
        parts.append(
            pd.DataFrame(
                {
                    "class": name,
                    "rank": ranks,
                    "token": [tokens[at] for at in order],
                    "count": [counts[at] for at in order],
                    "weight_before": before_VK[order, number],
                    "weight_after": after_VK[order, number],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
