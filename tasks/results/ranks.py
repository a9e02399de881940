"""The predictions and tables of triples, whose tails are ranked among all
entities.
"""

# Shapes: N questions, K entities, D numbers an embedding.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ... import figures
from ...datasets.pack import View
from ...disk import write_atomic
from ...engine import Evaluation
from ...engine.metrics import BACKWARDS, BEST, DIRECTIONS, RANK
from ...runs import FIGURES, TABLES, Run
from ...schema import FeatureSchema, Schema

# Of so many entities, the most frequent ones, the nearest neighbours are written down, this many of
# each.
NUM_ENTITIES = 1000
NUM_NEIGHBOURS = 10
NUM_WORST = 25


def describe_answers(schema: Schema, found: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Of rows whose tails are not known.

    The names of the best entities, and their probabilities, shape (N,) each.
    """
    best_N, probability_N = found.outputs.numpy().T
    return _labels(schema.targets[0], best_N), probability_N.astype(np.float32)


def tabulate_ranks(view: View, found: Evaluation, keys: np.ndarray | None) -> pd.DataFrame:
    """Each question with the answer to it and the best entity that is no other
    true answer.

    Args:
        view: whose rows were scored.
        found: of a `Ranker`.
        keys: text of `data.key` for each row of the pack; None where there is none.
    Returns:
        row, key; direction (which part was asked for), head, relation, tail, target (the part),
        prediction, rank, loss.
    """
    schema, rows = view.schema, found.rows.numpy()
    columns: dict[str, Sequence[object] | np.ndarray] = {"row": view.pack.rows[rows] + 1}
    if keys is not None:
        columns["key"] = keys[rows]
    assert schema.triple is not None
    columns["direction"] = np.array(DIRECTIONS, dtype=object)[
        found.outputs[:, BACKWARDS].numpy().astype(np.int64)
    ]
    target = schema.targets[0]
    names = [*(schema.inputs[at].name for at in schema.triple), target.name]
    for part, name in zip(("head", "relation", "tail"), names, strict=True):
        texts = np.array(view.pack.vocabulary(name), dtype=object)
        columns[part] = texts[np.asarray(view.pack.column(name))[rows, 0]]
    columns["target"] = _labels(target, found.target.numpy())
    columns["prediction"] = _labels(target, found.outputs[:, BEST].numpy())
    columns["rank"] = found.outputs[:, RANK].numpy()
    columns["loss"] = found.losses.float().numpy()
    return pd.DataFrame(columns)


def write_ranked(frame: pd.DataFrame, run: Run, interval: tuple[float, float] | None) -> None:
    """Write the table of relations, and draw how the ranks are spread and the
    worst questions.

    Args:
        frame: of `tabulate_ranks`.
        run: gets `tables/relations.csv`, `figures/ranks.png` and `figures/worst.png`.
        interval: of the mrr.
    """
    _write(describe_relations(frame), run.folder / TABLES / "relations.csv")
    ranks = {
        direction: frame["rank"][frame["direction"] == direction].to_numpy()
        for direction in DIRECTIONS
    }
    figures.ranks(ranks, run.folder / FIGURES / "ranks.png", interval=interval)
    worst = (
        frame[frame["rank"] > 1].sort_values("rank", ascending=False, kind="stable").head(NUM_WORST)
    )
    shown = ("row", "direction", "head", "relation", "tail", "prediction", "rank")
    header = ("row of the table", "asked for", *shown[2:5], "predicted", "rank")
    rows = worst[[*shown]].to_numpy()
    cells = [
        [cell if isinstance(cell, str) else f"{cell:,}".removesuffix(".0") for cell in row]
        for row in rows
    ]
    figures.worst_rows(header, cells, run.folder / FIGURES / "worst.png", "Worst ranks")


def describe_relations(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a relation and direction.

    Questions, mrr, hits_at_10, mean_rank; the most frequent first.
    """
    parts = frame.assign(mrr=1 / frame["rank"], hits_at_10=(frame["rank"] <= 10).astype(np.float64))
    found = parts.groupby(["relation", "direction"], sort=True).agg(
        questions=("rank", "size"),
        mrr=("mrr", "mean"),
        hits_at_10=("hits_at_10", "mean"),
        mean_rank=("rank", "mean"),
    )
    return found.reset_index().sort_values("questions", ascending=False, kind="stable")


def write_neighbours(schema: Schema, vectors_KD: Tensor, path: Path) -> None:
    """Write the nearest entities, by the cosine of their vectors, of those that
    training saw most.

    Columns: entity, training_count, rank (from 1), neighbour, similarity.

    Args:
        schema: of triples.
        vectors_KD: of all entities, in the order of the classes.
        path: CSV file.
    """
    entities, count = (
        np.array(schema.targets[0].classes, dtype=object),
        np.array(schema.targets[0].counts),
    )
    chosen = np.argsort(-count, kind="stable")[:NUM_ENTITIES]
    units_KD = F.normalize(vectors_KD.detach().float(), dim=1)
    similarity = units_KD[torch.from_numpy(chosen)] @ units_KD.T
    similarity[torch.arange(len(chosen)), torch.from_numpy(chosen)] = -torch.inf  # itself
    values, nearest = similarity.topk(min(NUM_NEIGHBOURS, len(entities) - 1), dim=1)
    each = values.shape[1]
    table = {
        "entity": np.repeat(entities[chosen], each),
        "training_count": np.repeat(count[chosen], each),
        "rank": np.tile(np.arange(1, each + 1), len(chosen)),
        "neighbour": entities[nearest.numpy().ravel()],
        "similarity": values.numpy().ravel(),
    }
    _write(pd.DataFrame(table), path)


def _labels(feature: FeatureSchema, ids_N: np.ndarray) -> np.ndarray:
    return np.array(feature.classes, dtype=object)[ids_N.astype(np.int64)]


def _write(table: pd.DataFrame, path: Path) -> None:
    write_atomic(path, table.to_csv(index=False, float_format="%.6g"))
