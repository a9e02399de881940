from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from torchrelay.datasets.batches import PackDataset
from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import View, open_view
from torchrelay.drafting import init_recipe
from torchrelay.engine import Job, Progress, evaluate, restore_run, train
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.metrics import auto_monitor, headline_interval, metric_names, monitor_mode
from torchrelay.errors import RecipeError
from torchrelay.recipe import Recipe, load_recipe
from torchrelay.settings import Home
from torchrelay.tasks.assembly import build_job, check_names, choose_monitor
from torchrelay.tasks.results.ranks import describe_relations, tabulate_ranks, write_neighbours
from torchrelay.upkeep.trials import dry_run
from torchrelay.weights import sha256_of

from ...conftest import WriteRecipe


def view_of(recipe: Recipe, folder: Path) -> View:
    data = prepare_data(recipe.data, Home(folder / "home"))
    return open_view(data.pack_dir, data.split_dir)


def test_ranks_are_filtered_by_the_facts_of_all_splits(
    graph_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = load_recipe(graph_recipe())
    view = view_of(recipe, tmp_path)
    job = build_job(recipe, view, 1)
    found = evaluate(job.scorer, job.valid_batches())
    frame = tabulate_ranks(view, found, None)
    facts = pd.read_csv(tmp_path / "graph.csv", dtype=str)
    entities = view.schema.targets[0].classes
    assert len(entities) == 12 + 3 + 1
    scorer = job.scorer.model.eval()
    dataset = PackDataset(view.pack, view.schema, view.rows["valid"])
    with torch.inference_mode():
        scores = scorer(*dataset.__getitems__(range(len(dataset))).inputs).numpy()
    assert len(frame) == len(scores) == 12
    for row, score in zip(frame.to_dict("records"), scores, strict=True):
        fact = facts.iloc[row["row"] - 1]
        assert (row["head"], row["relation"], row["tail"]) == tuple(
            fact[["head", "relation", "tail"]]
        )
        asked = row["direction"]
        given = "head" if asked == "tail" else "tail"
        same = facts[(facts[given] == fact[given]) & (facts.relation == fact.relation)]
        rivals = [k for k, name in enumerate(entities) if name not in set(same[asked])]
        true = score[entities.index(fact[asked])]
        assert row["target"] == fact[asked]
        assert row["rank"] == 1 + (score[rivals] > true).sum() + (score[rivals] == true).sum() / 2
        best = max([*rivals, entities.index(fact[asked])], key=lambda k: score[k])
        assert row["prediction"] == entities[best]


def test_one_step_of_training_is_over_batches_of_questions(
    graph_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = load_recipe(graph_recipe())
    job = build_job(recipe, view_of(recipe, tmp_path), 1)
    batches = list(job.train_batches(0, 0))
    assert sum(len(batch.rows) for batch in batches) == 72  # 36 rows, both ways
    assert len(batches) == job.steps_per_epoch == 5


@pytest.mark.parametrize("args", [{"negatives": 4}, {"n3": 0.01}])
def test_a_run_that_stops_within_an_epoch_ends_with_the_same_bits(
    graph_recipe: WriteRecipe, tmp_path: Path, args: dict[str, Any]
) -> None:
    train_part = {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": {"name": "adagrad", "args": {"lr": 0.1}},
    }
    recipe = load_recipe(
        graph_recipe(model={"name": "complex", "args": {"dim": 4, **args}}, train=train_part)
    )
    view = view_of(recipe, tmp_path)

    def store_in(name: str) -> CheckpointStore:
        return CheckpointStore(tmp_path / name, 2, {"run_id": "graph"}, {})

    def run(job: Job, progress: Progress, name: str, stop_at: int = 0) -> str:
        def on_step(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
            if progress.step == stop_at and not epoch_ended:
                raise KeyboardInterrupt

        train(job, progress, store_in(name), on_step)
        return sha256_of(job.scorer.model.state_dict())

    def job() -> Job:
        return build_job(recipe.model_copy(update={"checkpoint": every_step}), view, 2)

    every_step = recipe.checkpoint.model_copy(update={"every_steps": 1})
    whole = run(job(), Progress(), "whole")
    with pytest.raises(KeyboardInterrupt):
        run(job(), Progress(), "part", stop_at=8)
    rest = job()
    torch.manual_seed(99)
    checkpoint = store_in("part").load_last()
    assert checkpoint is not None
    assert checkpoint.state["batch"] == 2
    assert run(rest, restore_run(rest, checkpoint.state), "part") == whole


def test_the_headline_is_the_mrr_and_its_interval_keeps_rows_together(
    graph_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = load_recipe(graph_recipe())
    schema = view_of(recipe, tmp_path).schema
    assert auto_monitor(schema) == choose_monitor(recipe, schema) == "valid/mrr"
    assert {"valid/loss", "valid/hits_at_10_of/head", "valid/mean_rank"} <= set(
        metric_names(schema)
    )
    assert not any("accuracy" in name for name in metric_names(schema))
    modes = [
        monitor_mode(f"valid/{name}", schema)
        for name in ("mrr", "hits_at_1_of/tail", "mean_rank", "loss")
    ]
    assert modes == ["max", "max", "min", "min"]
    # Rows whose two reciprocal ranks are always 1 and 0.5: no resample of rows moves their mean.
    ranks = torch.tensor([[1.0, 0, 0]] * 10 + [[2.0, 0, 1]] * 10, dtype=torch.float64)
    found = headline_interval(schema, ranks, torch.zeros(20, dtype=torch.int64))
    assert found == {"mrr_low": 0.75, "mrr_high": 0.75}
    # Nor any of two groups whose rows, in the order of the table, are of rank 1 and 2 by turns.
    ranks[:, 0] = torch.tensor([1.0, 2.0] * 10)
    groups = np.tile(np.repeat([0, 1], [4, 6]), 2)
    assert (
        headline_interval(schema, ranks, torch.zeros(20, dtype=torch.int64), groups=groups) == found
    )


@pytest.mark.parametrize(
    "model",
    [
        {"name": "distmult", "args": {"dim": 16, "negatives": 8}},
        {"name": "transe", "args": {"dim": 16}},
        {"name": "transe", "args": {"dim": 16, "negatives": 8, "margin": 1.0}},
    ],
)
def test_the_other_models_learn_the_graph_too(
    graph_recipe: WriteRecipe, tmp_path: Path, model: dict[str, Any]
) -> None:
    recipe = load_recipe(graph_recipe(model=model))
    job = build_job(recipe, view_of(recipe, tmp_path), 15)
    before = job.measure(evaluate(job.scorer, job.valid_batches()))["mrr"]
    reported: list[float] = []

    def on_step(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if epoch_ended:
            reported.append(values["valid/mrr"])

    train(job, Progress(), CheckpointStore(tmp_path / "run", 1, {"run_id": "graph"}, {}), on_step)
    # By chance the mean reciprocal rank among 16 entities is (1 + 1/2 + … + 1/16) / 16 = 0.21.
    assert before < 0.35 < 0.45 < max(reported)


def test_a_drafted_recipe_of_a_graph_trains_as_it_is(
    graph_recipe: WriteRecipe, tmp_path: Path
) -> None:
    graph_recipe().unlink()
    path, _ = init_recipe(tmp_path / "graph.csv", files=None, target="", force=False)
    result = dry_run(load_recipe(path))
    assert (result["model"], len(result["losses"])) == ("complex", 2)
    assert result["rows"] == {"train": 36, "valid": 6, "test": 7}


def test_neighbours_are_the_nearest_by_cosine_of_the_most_frequent(
    graph_recipe: WriteRecipe, tmp_path: Path
) -> None:
    schema = view_of(load_recipe(graph_recipe()), tmp_path).schema
    entities = schema.targets[0].classes
    vectors = np.random.default_rng(1).normal(size=(len(entities), 3))
    write_neighbours(schema, torch.from_numpy(vectors), tmp_path / "tables" / "neighbours.csv")
    frame = pd.read_csv(tmp_path / "tables" / "neighbours.csv")
    assert list(frame.columns) == ["entity", "training_count", "rank", "neighbour", "similarity"]
    counts = dict(zip(entities, schema.targets[0].counts, strict=True))
    assert counts["moon"] == 0
    assert frame["training_count"].is_monotonic_decreasing
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for name, rows in frame.groupby("entity"):
        similarity = dict(zip(entities, units @ units[entities.index(str(name))], strict=True))
        del similarity[str(name)]
        nearest = sorted(similarity, key=lambda one: -similarity[one])[:10]
        assert list(rows["neighbour"]) == nearest
        np.testing.assert_allclose(
            rows["similarity"], [similarity[one] for one in nearest], atol=1e-5
        )
    assert set(frame["entity"]) == set(entities)


def test_relations_are_described_in_each_direction() -> None:
    frame = pd.DataFrame(
        {
            "relation": ["a", "a", "b", "a"],
            "direction": ["tail", "tail", "tail", "head"],
            "rank": [1.0, 4.0, 20.0, 2.0],
        }
    )
    found = describe_relations(frame).to_dict("records")
    assert found == [
        {
            "relation": "a",
            "direction": "tail",
            "questions": 2,
            "mrr": 0.625,
            "hits_at_10": 1.0,
            "mean_rank": 2.5,
        },
        {
            "relation": "a",
            "direction": "head",
            "questions": 1,
            "mrr": 0.5,
            "hits_at_10": 1.0,
            "mean_rank": 2.0,
        },
        {
            "relation": "b",
            "direction": "tail",
            "questions": 1,
            "mrr": 0.05,
            "hits_at_10": 0.0,
            "mean_rank": 20.0,
        },
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"name": "mlp"}},
            "model.name: mlp does not rank entities.*transe, distmult, complex",
        ),
        (
            {"model": {"name": "torchvision:resnet18"}},
            "torchvision:resnet18 does not rank entities",
        ),
        (
            {
                "model": {"name": "complex", "args": {"negatives": 8}},
                "train": {"class_weights": "balanced"},
            },
            "train.class_weights: balanced .* model.args.negatives",
        ),
        ({"model": {"name": "transe", "args": {"norm": 3}}}, "model.args.norm"),
        ({"train": {"loss": "mse"}}, "mse does not fit a category target"),
    ],
)
def test_what_does_not_go_together_is_refused_before_ingest(
    graph_recipe: WriteRecipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check_names(load_recipe(graph_recipe(**changes)))


def test_models_of_triples_refuse_other_tables(number_recipe: WriteRecipe) -> None:
    with pytest.raises(RecipeError, match=r"transe takes triples.*vocabulary: entities on both"):
        check_names(load_recipe(number_recipe(model={"name": "transe"})))
