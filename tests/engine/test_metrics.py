from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from torchrelay.engine.metrics import (
    auto_monitor,
    compute_metrics,
    confusion_matrix,
    legal_parts,
    metric_names,
    monitor_mode,
)
from torchrelay.schema import FeatureSchema, Schema

X = FeatureSchema(name="x", kind="number", columns=["x"], shape=[1], dtype="float32")


def categories(*classes: str) -> Schema:
    target = FeatureSchema(name="y", kind="category", columns=["y"], shape=[], dtype="int64", classes=list(classes))
    return Schema(inputs=[X], targets=[target])


def numbers(**columns: tuple[float, float]) -> Schema:
    """Target columns with their mean and standard deviation."""
    mean, std = [list(values) for values in zip(*columns.values(), strict=True)]
    target = FeatureSchema(
        name="y", kind="number", columns=list(columns), shape=[len(columns)], dtype="float32", mean=mean, std=std
    )
    return Schema(inputs=[X], targets=[target])


def scores_of(predicted: list[int], num_classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float()


def test_accuracies_and_f1_are_those_worked_out_by_hand() -> None:
    schema = categories("cat", "dog", "owl", "yak")
    target, predicted = torch.tensor([0, 0, 0, 1, 1, 2]), [0, 0, 1, 1, 2, 1]
    outputs = scores_of(predicted, 4)
    metrics = compute_metrics(schema, outputs, target, torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]))
    assert metrics == pytest.approx(
        {
            "loss": 1.0,
            "accuracy": 3 / 6,
            # 2 hits / (3 true + 2 predicted), 1 / (2 + 3), 0 / (1 + 1); no yak was there or predicted.
            "f1_macro": (4 / 5 + 2 / 5 + 0) / 3,
            "accuracy/cat": 2 / 3,
            "accuracy/dog": 1 / 2,
            "accuracy/owl": 0.0,
        }
    )
    assert confusion_matrix(schema, outputs, target).tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0] * 4]


def test_metrics_of_categories_are_those_of_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (200,), generator=generator)
    outputs = torch.randint(-4, 5, (200, 2), generator=generator).float()  # with ties
    outputs[:, 1] += target
    metrics = compute_metrics(categories("no", "yes"), outputs, target, torch.zeros(200))
    predicted = outputs.argmax(1)
    assert metrics["f1_macro"] == pytest.approx(sklearn_metrics.f1_score(target, predicted, average="macro"))
    assert metrics["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(target, outputs.softmax(1)[:, 1].double()))
    matrix = confusion_matrix(categories("no", "yes"), outputs, target)
    assert matrix.tolist() == sklearn_metrics.confusion_matrix(target, predicted).tolist()


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    outputs = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0], [0.0, 4.0]])
    metrics = compute_metrics(categories("no", "yes"), outputs, torch.tensor([0, 0, 1, 1]), torch.zeros(4))
    assert metrics["auroc"] == 3 / 4  # only (3, 2) is in the wrong order


def test_auroc_is_left_out_where_a_class_has_no_rows_and_not_a_number_where_a_score_is() -> None:
    schema, outputs = categories("no", "yes"), torch.zeros(2, 2)
    assert "auroc" not in compute_metrics(schema, outputs, torch.tensor([1, 1]), torch.zeros(2))
    assert math.isnan(compute_metrics(schema, outputs / 0, torch.tensor([0, 1]), torch.zeros(2))["auroc"])


def test_errors_of_numbers_are_in_the_targets_own_units() -> None:
    schema = numbers(y=(10.0, 2.0))
    # In its own units: targets 8, 12, 16; outputs 8, 14, 12.
    target, outputs = torch.tensor([[-1.0], [1.0], [3.0]]), torch.tensor([[-1.0], [2.0], [1.0]])
    metrics = compute_metrics(schema, outputs, target, torch.tensor([0.0, 1.0, 4.0]))
    expected = {"loss": 5 / 3, "rmse": math.sqrt(20 / 3), "mae": 2.0, "r2": 1 - 20 / 32}
    assert metrics == pytest.approx(expected)


def test_several_columns_give_their_mean_and_each_its_own() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    schema = numbers(width=(5.0, 3.0), height=(-2.0, 0.5))
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(50, 2, generator=generator)
    outputs = target + torch.randn(50, 2, generator=generator) / 3
    metrics = compute_metrics(schema, outputs, target, torch.zeros(50))
    mean, std = np.array(schema.target.mean), np.array(schema.target.std)
    truth, guess = target.double().numpy() * std + mean, outputs.double().numpy() * std + mean
    functions = {
        "rmse": sklearn_metrics.root_mean_squared_error,
        "mae": sklearn_metrics.mean_absolute_error,
        "r2": sklearn_metrics.r2_score,
    }
    for name, function in functions.items():
        each = function(truth, guess, multioutput="raw_values")
        assert [metrics[f"{name}/width"], metrics[f"{name}/height"]] == pytest.approx(list(each))
        assert metrics[name] == pytest.approx(each.mean())


def test_r2_is_left_out_where_the_target_is_constant() -> None:
    schema = numbers(a=(0.0, 1.0), b=(0.1, 0.3))
    target = torch.tensor([[0.7, 1.0], [0.7, 2.0]])
    metrics = compute_metrics(schema, target + 1, target, torch.zeros(2))
    assert "r2" not in metrics
    assert "r2/a" not in metrics
    assert metrics["r2/b"] == pytest.approx(1 - 2 / 0.5)
    assert metrics["rmse"] == pytest.approx((1 + 0.3) / 2)


def test_half_precision_outputs_are_measured_in_double() -> None:
    target = torch.full((3, 1), 3.0, dtype=torch.bfloat16)
    losses = torch.tensor([2.0**24, 1.0, 1.0])  # single precision would lose the ones
    metrics = compute_metrics(numbers(y=(0.0, 1.0)), target + 1, target, losses)
    assert metrics["mae"] == 1.0
    assert metrics["loss"] == (2**24 + 2) / 3


LABELS = [
    "cat", "a/b", "a b", "a_b", "a?b", "a@b", "a_b_2", "", ".", "..", "/", "a//b", "../x", "/x", "x/", "été", "a\nb",
    "k" * 300, "k" * 300 + "!", "007", "NA", "a:b", "/" * 300, "x/" * 200,
]  # fmt: skip


def test_labels_become_names_that_mlflow_takes_without_collisions() -> None:
    validation = pytest.importorskip("mlflow.utils.validation")
    parts = legal_parts(LABELS)
    for part in parts:
        validation._validate_metric_name(f"valid/accuracy/{part}_std")
        validation._validate_length_limit("name", validation.MAX_ENTITY_KEY_LENGTH, f"valid/accuracy/{part}_std")
        assert not {".", "..", ""} & set(part.split("/"))
    assert len(set(parts)) == len(LABELS)


def test_a_legal_label_keeps_its_name_whatever_stands_before_it() -> None:
    assert legal_parts(["a?b", "a!b", "a_b", "a_b_2"]) == ["a_b_3", "a_b_4", "a_b", "a_b_2"]
    assert legal_parts(["a/b", "007", "NA", "a: b-c.d"]) == ["a/b", "007", "NA", "a: b-c.d"]


def test_more_than_a_hundred_classes_have_no_accuracies_of_their_own() -> None:
    for num_classes, expected in ((100, 2), (101, 0)):
        schema = categories(*map(str, range(num_classes)))
        metrics = compute_metrics(schema, scores_of([0, 1], num_classes), torch.tensor([0, 1]), torch.zeros(2))
        assert sum(name.startswith("accuracy/") for name in metrics) == expected


@pytest.mark.parametrize(
    "schema", [categories("a", "b"), categories("a", "b", "c?"), numbers(y=(0, 1)), numbers(u=(0, 1), v=(0, 1))]
)
def test_all_metrics_of_a_full_split_may_be_monitored(schema: Schema) -> None:
    num_outputs = schema.num_outputs
    is_category = schema.target.kind == "category"
    target = torch.arange(num_outputs) if is_category else torch.randn(5, num_outputs)
    outputs = torch.randn(len(target), num_outputs)
    metrics = compute_metrics(schema, outputs, target, torch.zeros(len(target)))
    assert {f"valid/{name}" for name in metrics} == set(metric_names(schema))
    assert auto_monitor(schema) == ("valid/accuracy" if is_category else "valid/rmse")


def test_more_is_better_for_accuracies_and_less_for_errors() -> None:
    best = {
        name: monitor_mode(name) for name in (*metric_names(categories("loss", "b")), *metric_names(numbers(y=(0, 1))))
    }
    assert best == {
        "valid/loss": "min",
        "valid/accuracy": "max",
        "valid/f1_macro": "max",
        "valid/auroc": "max",
        "valid/accuracy/loss": "max",
        "valid/accuracy/b": "max",
        "valid/rmse": "min",
        "valid/mae": "min",
        "valid/r2": "max",
    }
