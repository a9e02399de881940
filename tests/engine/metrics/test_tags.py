from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from torchrelay.engine.metrics.compute import (
    auto_monitor,
    compute_metrics,
    headline_interval,
    metric_names,
    monitor_mode,
)
from torchrelay.engine.metrics.tags import (
    describe_tags,
    join_tags,
    predicted_tags,
    tag_probabilities,
)
from torchrelay.schema import FeatureSchema, Schema

X = FeatureSchema(
    name="x", kind="number", columns=["x"], shape=[1], dtype="float64", mean=[0], std=[1]
)


def labels(*tags: str, name: str = "tags", separator: str = ",") -> FeatureSchema:
    return FeatureSchema(
        name=name,
        kind="labels",
        columns=[name],
        shape=[len(tags)],
        dtype="float32",
        classes=list(tags),
        separator=separator,
    )


SCHEMA = Schema(inputs=[X], targets=[labels("a", "b", "c", "never")])
TARGET = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
#                      right             b too much       none found       right
SCORES = torch.tensor([[3.0, 1, -2, -1], [2, 2, -3, -1], [-1, -1, -1, -1], [-2, -2, -4, -1]])


def test_metrics_of_tags_are_those_worked_out_by_hand() -> None:
    metrics = compute_metrics(SCHEMA, SCORES, TARGET, torch.ones(4))
    expected = {
        "loss": 1.0,
        "subset_accuracy": 2 / 4,
        "hamming_loss": 2 / 16,
        # a: 2 of 2 found and none else; b: 1 of 1 and one else; c: 0 of 1. Never is neither true
        # nor predicted.
        "f1_of/a": 1.0,
        "f1_of/b": 2 / 3,
        "f1_of/c": 0.0,
        "precision_of/a": 1.0,
        "precision_of/b": 1 / 2,
        "precision_of/c": 0.0,
        "recall_of/a": 1.0,
        "recall_of/b": 1.0,
        "recall_of/c": 0.0,
        "f1_macro": (1 + 2 / 3 + 0) / 3,
        "precision_macro": (1 + 1 / 2 + 0) / 3,
        "recall_macro": 2 / 3,
        # Together 3 hits, 4 true and 4 predicted tags.
        "f1_micro": 6 / 8,
        "precision_micro": 3 / 4,
        "recall_micro": 3 / 4,
        # a: both above both others; b: 1 below the 2 of the second row; c: above the -2, -3 and -4
        # of the others.
        "auroc_of/a": 1.0,
        "auroc_of/b": 2 / 3,
        "auroc_of/c": 1.0,
        "auroc_macro": (1 + 2 / 3 + 1) / 3,
        "average_precision_macro": (1 + 1 / 2 + 1) / 3,
    }
    assert metrics == pytest.approx(expected)
    defined = {name.removeprefix("valid/") for name in metric_names(SCHEMA)}
    assert defined >= set(expected)
    assert {name for name in defined if not name.endswith("never")} == set(expected)


def test_metrics_of_many_rows_agree_with_scikit_learn() -> None:
    from sklearn import metrics as sk

    schema = Schema(inputs=[X], targets=[labels(*"abcdef")])
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(300, 6, generator=generator) < torch.linspace(0.05, 0.6, 6)).float()
    scores = (torch.randn(300, 6, generator=generator) * 2 + 2 * target - 1).round(
        decimals=1
    )  # some are equal
    found = compute_metrics(schema, scores, target, torch.zeros(300))
    truth, said = target.int().numpy(), (scores > 0).int().numpy()
    expected = {
        "subset_accuracy": sk.accuracy_score(truth, said),
        "hamming_loss": sk.hamming_loss(truth, said),
        "auroc_macro": sk.roc_auc_score(truth, scores.numpy(), average="macro"),
        "average_precision_macro": sk.average_precision_score(
            truth, scores.numpy(), average="macro"
        ),
    }
    for average in ("micro", "macro"):
        precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, said, average=average)
        expected |= {
            f"precision_{average}": precision,
            f"recall_{average}": recall,
            f"f1_{average}": f1,
        }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    *_, f1_K, _ = sk.precision_recall_fscore_support(truth, said)
    assert [found[f"f1_of/{tag}"] for tag in "abcdef"] == pytest.approx(np.asarray(f1_K).tolist())


def test_the_headline_is_f1_over_all_tags_with_an_interval_of_its_ratio() -> None:
    assert auto_monitor(SCHEMA) == "valid/f1_micro"
    assert monitor_mode("valid/f1_micro", SCHEMA) == "max"
    assert monitor_mode("valid/hamming_loss", SCHEMA) == "min"
    many = 50
    outputs, target = SCORES.repeat(many, 1), TARGET.repeat(many, 1)
    bounds = headline_interval(SCHEMA, outputs, target)
    # A resample is many draws of the four rows, whose hits are 2, 1, 0, 0 and whose tags are 4, 3,
    # 1, 0.
    drawn = np.random.default_rng(1).multinomial(4 * many, [0.25] * 4, size=4000)
    ratios = 2 * (drawn @ [2, 1, 0, 0]) / (drawn @ [4, 3, 1, 0])
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert bounds["f1_micro_low"] == pytest.approx(low, abs=0.01)
    assert bounds["f1_micro_high"] == pytest.approx(high, abs=0.01)
    together = np.tile(np.arange(4 * many), 3)
    again = headline_interval(SCHEMA, outputs.repeat(3, 1), target.repeat(3, 1), groups=together)
    assert again == pytest.approx(bounds)
    assert headline_interval(SCHEMA, SCORES, TARGET, groups=np.zeros(4)) == {}  # one group
    assert headline_interval(SCHEMA, TARGET * 2 - 1, TARGET) == {}  # all right: no resample differs


def test_what_rows_without_tags_leave_undefined_is_left_out() -> None:
    metrics = compute_metrics(SCHEMA, SCORES, torch.zeros(4, 4), torch.zeros(4))
    assert set(metrics) == {"loss", "subset_accuracy", "hamming_loss", *(
        f"{name}_of/{tag}" for name in ("f1", "precision") for tag in "ab"
    )}  # fmt: skip
    everyone = compute_metrics(SCHEMA, SCORES, torch.ones(4, 4), torch.zeros(4))
    assert not any(name.startswith("auroc") for name in everyone)
    assert everyone["average_precision_macro"] == 1.0
    broken = compute_metrics(SCHEMA, SCORES / 0 * 0, TARGET, torch.zeros(4))
    assert math.isnan(broken["auroc_macro"])
    assert broken["f1_micro"] == 0


def test_several_targets_have_their_mean_as_headline() -> None:
    schema = Schema(
        inputs=[X], targets=[labels("a", "b", name="one"), labels("c", "d", name="two")]
    )
    metrics = compute_metrics(schema, SCORES, TARGET, torch.zeros(4))
    assert metrics["f1_micro"] == pytest.approx(
        (metrics["one/f1_micro"] + metrics["two/f1_micro"]) / 2
    )
    assert metrics["one/f1_micro"] == pytest.approx(6 / 7)
    assert set(headline_interval(schema, SCORES.repeat(9, 1), TARGET.repeat(9, 1))) == {
        "f1_micro_low",
        "f1_micro_high",
    }


def test_more_than_a_hundred_tags_have_no_metrics_of_their_own() -> None:
    schema = Schema(inputs=[X], targets=[labels(*(f"t{at}" for at in range(101)))])
    metrics = compute_metrics(schema, torch.randn(8, 101), torch.ones(8, 101), torch.zeros(8))
    assert not any("/" in name or "auroc" in name or "average" in name for name in metrics)
    assert {f"valid/{name}" for name in metrics} == set(metric_names(schema))


def test_the_table_of_tags_and_the_cells_of_rows() -> None:
    part = Schema(inputs=[X], targets=[labels("a", "b", "c", "never", separator="; ")]).parts(
        SCORES, TARGET
    )[0]
    table = {row["tag"]: row for row in describe_tags(part)}
    assert (table["b"]["rows"], table["b"]["predicted"], table["b"]["f1"]) == (
        1,
        2,
        pytest.approx(2 / 3),
    )
    assert table["never"] == {
        "tag": "never",
        "rows": 0,
        "predicted": 0,
        "f1": None,
        "precision": None,
        "recall": None,
        "auroc": None,
        "average_precision": None,
    }
    assert join_tags(predicted_tags(part), part).tolist() == ["a; b", "a; b", "", ""]
    assert tag_probabilities(part)[0, 0] == pytest.approx(1 / (1 + math.exp(-3)))
