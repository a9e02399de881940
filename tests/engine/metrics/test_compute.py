from __future__ import annotations

import math
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric

from torchrelay.engine.metrics.classification import confusion_matrix, describe_classes
from torchrelay.engine.metrics.compute import (
    auto_monitor,
    compute_metrics,
    former_metric_names,
    headline_interval,
    metric_names,
    monitor_mode,
    unit_of,
)
from torchrelay.engine.metrics.names import former_names, legal_parts, names_kept
from torchrelay.engine.metrics.regression import describe_points, describe_quantiles, in_file_pixels
from torchrelay.schema import FeatureSchema, Schema, TargetPart

X = FeatureSchema(name="x", kind="number", columns=["x"], shape=[1], dtype="float32")


def categories(*classes: str) -> Schema:
    target = FeatureSchema(
        name="y", kind="category", columns=["y"], shape=[], dtype="int64", classes=list(classes)
    )
    return Schema(inputs=[X], targets=[target])


def numbers(**columns: tuple[float, float]) -> Schema:
    """Target columns with their mean and standard deviation."""
    mean, std = [list(values) for values in zip(*columns.values(), strict=True)]
    target = FeatureSchema(
        name="y",
        kind="number",
        columns=list(columns),
        shape=[len(columns)],
        dtype="float32",
        mean=mean,
        std=std,
    )
    return Schema(inputs=[X], targets=[target])


def points(*mean: float, std: float = 1.0, normalise_by: tuple[int, ...] = ()) -> Schema:
    """A points target whose mean shape is x0, y0, x1, y1, …"""
    target = FeatureSchema(
        name="y",
        kind="points",
        columns=[f"{axis}{number}" for number in range(len(mean) // 2) for axis in "xy"],
        shape=[len(mean) // 2, 2],
        dtype="float64",
        mean=list(mean),
        std=[std] * len(mean),
        image="x",
        normalise_by=list(normalise_by),
    )
    return Schema(inputs=[X], targets=[target])


def both(first: Schema, second: Schema) -> Schema:
    """The targets of two schemas, called u and v."""
    targets = [
        first.targets[0].model_copy(update={"name": "u"}),
        second.targets[0].model_copy(update={"name": "v"}),
    ]
    return Schema(inputs=[X], targets=targets)


def part_of(schema: Schema, outputs: torch.Tensor, target: torch.Tensor) -> TargetPart:
    return schema.parts(outputs, target)[0]


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
            # No yak was there or predicted.
            "precision_macro": (2 / 2 + 1 / 3 + 0 / 1) / 3,
            "recall_macro": (2 / 3 + 1 / 2 + 0 / 1) / 3,
            # 2 hits / (3 true + 2 predicted), 1 / (2 + 3), 0 / (1 + 1).
            "f1_macro": (4 / 5 + 2 / 5 + 0) / 3,
            "accuracy_of/cat": 2 / 3,
            "accuracy_of/dog": 1 / 2,
            "accuracy_of/owl": 0.0,
        }
    )
    matrix = confusion_matrix(part_of(schema, outputs, target))
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0] * 4]


def test_metrics_of_categories_are_those_of_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (200,), generator=generator)
    outputs = torch.randint(-4, 5, (200, 2), generator=generator).float()  # with ties
    outputs[:, 1] += target
    metrics = compute_metrics(categories("no", "yes"), outputs, target, torch.zeros(200))
    predicted = outputs.argmax(1)
    assert metrics["f1_macro"] == pytest.approx(
        sklearn_metrics.f1_score(target, predicted, average="macro")
    )
    assert metrics["auroc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(target, outputs.softmax(1)[:, 1].double())
    )
    probability = outputs.softmax(1)[:, 1].double()
    assert metrics["average_precision"] == pytest.approx(
        sklearn_metrics.average_precision_score(target, probability)
    )
    for name in ("precision", "recall", "f1"):
        function = getattr(sklearn_metrics, f"{name}_score")
        assert metrics[name] == pytest.approx(function(target, predicted))  # of the second class
        assert metrics[f"{name}_macro"] == pytest.approx(
            function(target, predicted, average="macro")
        )
    matrix = confusion_matrix(part_of(categories("no", "yes"), outputs, target))
    assert matrix.tolist() == sklearn_metrics.confusion_matrix(target, predicted).tolist()


def test_a_hundred_thousand_classes_are_measured_without_a_number_for_each_pair() -> None:
    num_classes = 100_000
    target = torch.arange(0, num_classes, num_classes // 20)
    outputs = torch.zeros(len(target), num_classes)
    predicted = target.clone()
    predicted[:3] = torch.tensor([7, 7, 99_999])
    outputs[torch.arange(len(target)), predicted] = 5.0
    schema = categories(*(f"c{number}" for number in range(num_classes)))
    tracemalloc.start()
    metrics = compute_metrics(schema, outputs, target, torch.zeros(len(target)))
    table = describe_classes(part_of(schema, outputs, target))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e9 < num_classes**2  # a table of all pairs would have 80 GB
    assert (metrics["accuracy"], metrics["recall_macro"]) == (17 / 20, pytest.approx(17 / 22))
    assert (
        table[0]["most_confused_with"],
        table[0]["rows_so_confused"],
        table[99_999]["rows"],
    ) == ("c7", 1, 0)
    assert {name for name in metrics if name.startswith("accuracy_of/")} <= {
        f"accuracy_of/c{at}" for at in range(100)
    }


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    outputs = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0], [0.0, 4.0]])
    metrics = compute_metrics(
        categories("no", "yes"), outputs, torch.tensor([0, 0, 1, 1]), torch.zeros(4)
    )
    assert metrics["auroc"] == 3 / 4  # only (3, 2) is in the wrong order


def test_auroc_is_left_out_where_a_class_has_no_rows_and_not_a_number_where_a_score_is() -> None:
    schema, outputs = categories("no", "yes"), torch.zeros(2, 2)
    assert "auroc" not in compute_metrics(schema, outputs, torch.tensor([1, 1]), torch.zeros(2))
    assert math.isnan(
        compute_metrics(schema, outputs / 0, torch.tensor([0, 1]), torch.zeros(2))["auroc"]
    )


def test_errors_of_numbers_are_in_the_targets_own_units() -> None:
    schema = numbers(y=(10.0, 2.0))
    # In its own units: targets 8, 12, 16; outputs 8, 14, 12.
    target, outputs = torch.tensor([[-1.0], [1.0], [3.0]]), torch.tensor([[-1.0], [2.0], [1.0]])
    metrics = compute_metrics(schema, outputs, target, torch.tensor([0.0, 1.0, 4.0]))
    # The differences are 0, 2 and -4.
    expected = {
        "loss": 5 / 3,
        "rmse": math.sqrt(20 / 3),
        "mae": 2.0,
        "median_ae": 2.0,
        "bias": -2 / 3,
        "r2": 1 - 20 / 32,
    }
    assert metrics == pytest.approx(expected)


def test_several_columns_give_their_mean_and_each_its_own() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    schema = numbers(width=(5.0, 3.0), height=(-2.0, 0.5))
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(50, 2, generator=generator)
    outputs = target + torch.randn(50, 2, generator=generator) / 3
    metrics = compute_metrics(schema, outputs, target, torch.zeros(50))
    mean, std = np.array(schema.targets[0].mean), np.array(schema.targets[0].std)
    truth, guess = target.double().numpy() * std + mean, outputs.double().numpy() * std + mean
    functions = {
        "rmse": sklearn_metrics.root_mean_squared_error,
        "mae": sklearn_metrics.mean_absolute_error,
        "median_ae": sklearn_metrics.median_absolute_error,
        "r2": sklearn_metrics.r2_score,
    }
    for name, function in functions.items():
        each = function(truth, guess, multioutput="raw_values")
        assert [metrics[f"{name}_of/width"], metrics[f"{name}_of/height"]] == pytest.approx(
            list(each)
        )
        assert metrics[name] == pytest.approx(each.mean())


def test_r2_is_left_out_where_the_target_is_constant() -> None:
    schema = numbers(a=(0.0, 1.0), b=(0.1, 0.3))
    target = torch.tensor([[0.7, 1.0], [0.7, 2.0]])
    metrics = compute_metrics(schema, target + 1, target, torch.zeros(2))
    assert "r2" not in metrics
    assert "r2_of/a" not in metrics
    assert metrics["r2_of/b"] == pytest.approx(1 - 2 / 0.5)
    assert metrics["rmse"] == pytest.approx((1 + 0.3) / 2)


def test_half_precision_outputs_are_measured_in_double() -> None:
    target = torch.full((3, 1), 3.0, dtype=torch.bfloat16)
    losses = torch.tensor([2.0**24, 1.0, 1.0])  # single precision would lose the ones
    metrics = compute_metrics(numbers(y=(0.0, 1.0)), target + 1, target, losses)
    assert metrics["mae"] == 1.0
    assert metrics["loss"] == (2**24 + 2) / 3
    summed = compute_metrics(numbers(y=(0.0, 1.0)), target + 1, target, losses, reduction="sum")
    assert summed == {**metrics, "loss": 2**24 + 2}


LABELS = [
    "cat", "a/b", "a b", "a_b", "a?b", "a@b", "a_b_2", "", ".", "..", "/", "a//b", "../x",
    "/x", "x/", "été", "a\nb",
    "k" * 300, "k" * 300 + "!", "007", "NA", "a:b", "/" * 300, "x/" * 200,
]  # fmt: skip


def test_labels_become_names_that_mlflow_takes_without_collisions(
    migrated_database: Path, tmp_path: Path
) -> None:
    database = shutil.copyfile(migrated_database, tmp_path / "mlflow.db")
    client, parts = MlflowClient(f"sqlite:///{database}"), legal_parts(LABELS)
    run_id = client.create_run("0").info.run_id
    names = [f"valid/accuracy_of/{part}_std" for part in parts]
    client.log_batch(run_id, [Metric(name, 1.0, 0, 0) for name in names])
    assert client.get_run(run_id).data.metrics.keys() == set(names)
    assert len(set(parts)) == len(LABELS)
    for part in parts:
        assert not {".", "..", ""} & set(part.split("/"))


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        (["C+", "C++", "C#", "C"], ["C_", "C__", "C__2", "C"]),
        (["Cat", "cat", "CAT"], ["Cat", "cat_2", "CAT_3"]),
        (["cafe", "café", "cafe\u0301"], ["cafe", "café_2", "café_3"]),
        (["a", "a/b", "a_b"], ["a", "a_b_2", "a_b"]),
        (["a", "a_std"], ["a", "a_std_2"]),
        ([".", "..", "", " a", "a.", "a:b"], ["_", "__", "__2", "_a", "a_", "a_b"]),
        (["\N{PILE OF POO}", "\N{GRINNING FACE}"], ["_", "__2"]),
        (["é" * 300, "é" * 299], ["é" * 100, "é" * 96 + "_2"]),
    ],
)
def test_no_two_labels_share_a_file_or_a_key_in_any_store(
    labels: list[str], parts: list[str]
) -> None:
    assert legal_parts(labels) == parts
    assert all(len(f"{part}_std".encode()) <= 255 for part in parts)


def test_no_metric_of_a_part_lies_below_the_name_of_another_metric() -> None:
    first = numbers(y=(0, 1), z=(0, 1)).targets[0].model_copy(update={"name": "rmse"})
    two = Schema(inputs=[X], targets=[first, first.model_copy(update={"name": "loss"})])
    for schema in (categories("a", "b"), numbers(a=(0.0, 1.0), b=(0.0, 1.0)), two):
        names = {*metric_names(schema), *(f"valid/{name}" for name in former_metric_names(schema))}
        assert not [name for name in names for other in names if other.startswith(f"{name}/")]


def test_a_run_of_an_older_version_keeps_its_names_and_a_new_one_has_the_new() -> None:
    former = former_names(("accuracy",), "", ["a:b", "C+"])
    assert former == {"accuracy_of/a_b": "accuracy/a:b", "accuracy_of/C_": "accuracy/C_"}
    assert (
        names_kept(former, {"valid/accuracy", "valid/accuracy/C_"})["test/accuracy_of/a_b"]
        == "test/accuracy/a:b"
    )
    assert names_kept(former, {"valid/accuracy", "valid/accuracy_of/C_"}) == {}
    assert monitor_mode("valid/rmse/a", numbers(a=(0, 1), b=(0, 1))) == "min"


def test_a_legal_label_keeps_its_name_whatever_stands_before_it() -> None:
    assert legal_parts(["a?b", "a!b", "a_b", "a_b_2"]) == ["a_b_3", "a_b_4", "a_b", "a_b_2"]
    assert legal_parts(["007", "NA", "a b-c.d"]) == ["007", "NA", "a b-c.d"]


def test_more_than_a_hundred_classes_have_no_accuracies_of_their_own() -> None:
    for num_classes, expected in ((100, 2), (101, 0)):
        schema = categories(*map(str, range(num_classes)))
        metrics = compute_metrics(
            schema, scores_of([0, 1], num_classes), torch.tensor([0, 1]), torch.zeros(2)
        )
        assert sum(name.startswith("accuracy_of/") for name in metrics) == expected


@pytest.mark.parametrize(
    "schema",
    [
        categories("a", "b"),
        categories("a", "b", "c?"),
        numbers(y=(0, 1)),
        numbers(u=(0, 1), v=(0, 1)),
        points(0, 0, 9, 9),
        points(0, 0),
        both(points(0, 0, 9, 9), points(0, 0)),
        both(categories("a", "b"), categories("a", "b", "c")),
        both(numbers(y=(0, 1)), numbers(y=(0, 1), z=(0, 1))),
    ],
)
def test_metrics_of_a_full_split_may_be_monitored_but_for_those_without_a_better_side(
    schema: Schema,
) -> None:
    generator = torch.Generator().manual_seed(0)
    if schema.target_kind == "category":
        target = (
            torch.arange(6) % 2 if len(schema.targets) > 1 else torch.arange(6) % schema.num_outputs
        )
        target = (
            torch.stack([target, torch.arange(6) % 3], dim=1) if len(schema.targets) > 1 else target
        )
    else:
        target = torch.randn(6, schema.num_outputs, generator=generator)
    metrics = compute_metrics(schema, torch.randn(6, schema.num_outputs), target, torch.zeros(6))
    without_side = {name for name in metrics if "bias" in name or "mean_shape" in name}
    assert {f"valid/{name}" for name in metrics.keys() - without_side} == set(metric_names(schema))
    headline = {"category": "valid/accuracy", "number": "valid/rmse", "points": "valid/nme"}
    has_one_point = any(target.shape == [1, 2] for target in schema.targets)
    assert auto_monitor(schema) == ("valid/rmse" if has_one_point else headline[schema.target_kind])


@pytest.mark.parametrize(
    "schema", [categories("loss", "b"), both(categories("loss", "b"), categories("a", "b", "c"))]
)
def test_more_is_better_for_all_of_categories_but_the_loss(schema: Schema) -> None:
    less = {name for name in metric_names(schema) if monitor_mode(name, schema) == "min"}
    assert less == {"valid/loss"}


def test_less_is_better_for_errors_and_more_for_r2_whatever_the_target_is_called() -> None:
    named = numbers(y=(0, 1)).targets[0].model_copy(update={"name": "r2"})
    schema = Schema(inputs=[X], targets=[named, named.model_copy(update={"name": "loss"})])
    more = {name for name in metric_names(schema) if monitor_mode(name, schema) == "max"}
    assert more == {"valid/r2/r2", "valid/loss_2/r2"}
    assert {monitor_mode(name, points(0, 0)) for name in metric_names(points(0, 0))} == {"min"}


def test_errors_are_counted_in_the_unit_of_their_target_and_shares_in_none() -> None:
    strength = numbers(y=(0, 1)).targets[0].model_copy(update={"unit": "MPa"})
    schema = Schema(inputs=[X], targets=[strength])
    assert {name: unit_of(f"test/{name}", schema) for name in ("rmse", "mae", "r2", "loss")} == {
        "rmse": "MPa",
        "mae": "MPa",
        "r2": "",
        "loss": "",
    }
    two = Schema(
        inputs=[X], targets=[strength, strength.model_copy(update={"name": "z", "unit": "s"})]
    )
    assert [
        unit_of(f"valid/{name}", two) for name in ("y/rmse", "z/rmse", "z/mae_of/y", "rmse")
    ] == [
        "MPa",
        "s",
        "s",
        "",
    ]
    assert unit_of("test/rmse", points(0, 0)) == "px"
    assert unit_of("test/accuracy", categories("a", "b")) == ""


def test_several_targets_have_their_name_before_their_metrics_and_their_mean_as_headline() -> None:
    schema = both(categories("a", "b"), categories("x", "y", "z"))
    target = torch.tensor([[0, 0], [1, 1], [1, 2], [0, 2]])
    outputs = torch.cat([scores_of([0, 1, 1, 1], 2), scores_of([0, 1, 0, 0], 3)], dim=1)
    metrics = compute_metrics(schema, outputs, target, torch.ones(4))
    assert metrics["u/accuracy"] == 3 / 4
    assert metrics["v/accuracy"] == 2 / 4
    assert metrics["accuracy"] == 5 / 8
    assert metrics["u/accuracy_of/b"] == metrics["u/recall"] == 1.0
    assert metrics["v/accuracy_of/z"] == 0.0
    assert "f1_macro" not in metrics


def test_several_targets_of_numbers_share_the_outputs_side_by_side() -> None:
    schema = both(numbers(y=(0, 1)), numbers(a=(0, 2), b=(0, 1)))
    target = torch.zeros(2, 3)
    metrics = compute_metrics(
        schema, torch.tensor([[1.0, 2, 3], [1.0, 2, 3]]), target, torch.zeros(2)
    )
    assert [metrics[name] for name in ("u/rmse", "v/rmse_of/a", "v/rmse_of/b", "v/rmse")] == [
        1,
        4,
        3,
        3.5,
    ]
    assert metrics["rmse"] == (1 + 3.5) / 2


def test_rankings_of_many_classes_are_those_of_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(4, (300,), generator=generator)
    outputs = torch.randn(300, 4, generator=generator).double()
    outputs[torch.arange(300), target] += 1
    metrics = compute_metrics(categories("a", "b", "c", "d"), outputs, target, torch.zeros(300))
    expected = sklearn_metrics.roc_auc_score(
        target, outputs.softmax(1), multi_class="ovr", average="macro"
    )
    assert metrics["auroc_macro"] == pytest.approx(expected)
    assert "auroc" not in metrics
    fewer = compute_metrics(
        categories("a", "b", "c", "d", "e"), torch.randn(300, 5), target, torch.zeros(300)
    )
    assert "auroc_macro" not in fewer  # class e has no row


def test_a_positive_class_never_predicted_has_precision_0_and_one_without_rows_no_recall() -> None:
    schema = categories("no", "yes")
    never = compute_metrics(schema, scores_of([0, 0], 2), torch.tensor([0, 1]), torch.zeros(2))
    assert (never["precision"], never["recall"], never["f1"]) == (0, 0, 0)
    no_rows = compute_metrics(schema, scores_of([0, 1], 2), torch.tensor([0, 0]), torch.zeros(2))
    assert "recall" not in no_rows
    assert no_rows["precision"] == 0


def test_the_table_of_classes_says_what_each_is_taken_for() -> None:
    target, predicted = torch.tensor([0, 0, 0, 0, 1, 1]), [0, 1, 2, 2, 1, 1]
    table = describe_classes(
        part_of(categories("cat", "dog", "owl"), scores_of(predicted, 3), target)
    )
    assert table == [
        {"class": "cat", "rows": 4, "accuracy": 1 / 4, "precision": 1.0, "f1": 2 / 5}
        | {"most_confused_with": "owl", "rows_so_confused": 2},
        {"class": "dog", "rows": 2, "accuracy": 1.0, "precision": 2 / 3, "f1": 4 / 5}
        | {"most_confused_with": "", "rows_so_confused": 0},
        {"class": "owl", "rows": 0, "accuracy": None, "precision": 0.0, "f1": None}
        | {"most_confused_with": "", "rows_so_confused": 0},
    ]


def test_the_table_of_quantiles_has_a_tenth_of_the_rows_in_each_and_equal_values_in_one() -> None:
    schema = numbers(y=(100.0, 10.0))
    target = torch.arange(100.0)[:, None]  # in its own units 100, 110, … 1090
    outputs = (
        target + (torch.arange(100)[:, None] >= 90).double()
    )  # the largest tenth is predicted 10 too large
    table = describe_quantiles(part_of(schema, outputs, target))
    assert [row["rows"] for row in table] == [10] * 10
    assert [table[-1][key] for key in ("column", "from", "to", "rmse", "mae", "bias")] == [
        "y",
        1000,
        1090,
        10,
        10,
        10,
    ]
    assert table[0]["rmse"] == 0
    constant = describe_quantiles(part_of(schema, torch.ones(7, 1), torch.zeros(7, 1)))
    assert [(row["rows"], row["bias"]) for row in constant] == [(7, 10)]


def test_points_are_measured_in_pixels_of_the_file_over_the_diagonal_of_their_box() -> None:
    schema = points(0, 0, 3, 4, std=2.0)
    # In stored pixels: true (0, 0), (3, 4) and (2, 2), (5, 6); the first row is predicted 1 too far
    # right.
    target = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    outputs = torch.tensor([[0.5, 0, 0.5, 0], [1, 1, 1, 1]])
    metrics = compute_metrics(schema, outputs, target, torch.zeros(2))
    assert metrics["nme"] == pytest.approx((1 / 5 + 0) / 2)
    assert metrics["rmse"] == pytest.approx(math.sqrt(1 / 2))
    assert metrics["mean_shape_nme"] == pytest.approx((0 + math.sqrt(8) / 5) / 2)
    # A file twice as wide and three times as high: the error is 2, the box 6 x 12.
    scaled = compute_metrics(
        schema, outputs, target, torch.zeros(2), np.array([[2.0, 3.0], [2.0, 3.0]])
    )
    assert scaled["nme"] == pytest.approx(2 / math.hypot(6, 12) / 2)
    assert scaled["rmse"] == pytest.approx(math.sqrt(4 / 2))


def test_points_are_measured_over_the_distance_of_two_and_rows_where_it_is_0_are_left_out() -> None:
    schema = points(0, 0, 10, 0, 5, 5, normalise_by=(0, 1))
    target = torch.tensor(
        [[0.0] * 6, [10.0, 0, 0, 0, 0, 0]]
    )  # in the second row both eyes are at (10, 0)
    outputs = target + torch.tensor([0.0, 3, 0, 0, 0, 0])
    metrics = compute_metrics(schema, outputs, target, torch.zeros(2))
    assert metrics["nme"] == pytest.approx(1 / 10)
    table = describe_points(part_of(schema, outputs, target), None)
    assert [(row["point"], row["x"], row["y"], row["mean_distance"]) for row in table] == [
        (0, "x0", "y0", 3),
        (1, "x1", "y1", 0),
        (2, "x2", "y2", 0),
    ]
    assert table[0]["nme"] == pytest.approx(3 / 10)
    assert "nme" not in compute_metrics(schema, outputs[1:], target[1:], torch.zeros(1))


def test_two_points_that_rounding_keeps_apart_are_no_unit() -> None:
    schema = points(10.3, 4.1, 3.7, 8.9, std=1.7, normalise_by=(0, 1))
    target = (
        (torch.full((1, 4), 2.2, dtype=torch.float64) - torch.tensor(schema.targets[0].mean)) / 1.7
    ).float()
    assert set(compute_metrics(schema, target + 1, target, torch.zeros(1))) == {"loss", "rmse"}


def test_one_point_alone_is_measured_in_pixels() -> None:
    schema, target, outputs = (
        points(5, 5, std=2.0),
        torch.zeros(2, 2),
        torch.tensor([[0.5, 0.0], [0.0, 3.5]]),
    )
    assert compute_metrics(schema, outputs, target, torch.zeros(2)) == {
        "loss": 0.0,
        "rmse": 5.0,
    }  # of 1 and 7
    assert [sorted(row) for row in describe_points(part_of(schema, outputs, target), None)] == [
        ["largest_distance", "mean_distance", "median_distance", "point", "x", "y"]
    ]


def test_pixel_centres_are_whole_numbers_in_the_file_as_in_the_stored_image() -> None:
    # The left half of a stored pixel is one pixel of a file that is twice as wide.
    stored = np.array([[0.0, 0.0, 1.0, 2.0]])
    assert in_file_pixels(stored, np.array([[2.0, 1.0]])).tolist() == [[0.5, 0.0, 2.5, 2.0]]


def test_the_interval_of_an_accuracy_is_that_of_its_binomial_distribution() -> None:
    stats = pytest.importorskip("scipy.stats")
    schema, target = categories("a", "b"), torch.zeros(400, dtype=torch.int64)
    outputs = scores_of([int(number % 10 == 0) for number in range(400)], 2)
    found = headline_interval(schema, outputs, target)
    low, high = stats.binom(400, 0.9).interval(0.95)
    assert found["accuracy_low"] == pytest.approx(low / 400, abs=0.006)
    assert found["accuracy_high"] == pytest.approx(high / 400, abs=0.006)
    assert found == headline_interval(schema, outputs, target)


def test_where_every_prediction_is_right_the_interval_is_the_exact_one() -> None:
    stats = pytest.importorskip("scipy.stats")
    found = headline_interval(
        categories("a", "b"), scores_of([0] * 16, 2), torch.zeros(16, dtype=torch.int64)
    )
    exact = stats.binomtest(16, 16).proportion_ci(0.95)
    assert found == pytest.approx({"accuracy_low": exact.low, "accuracy_high": 1.0})


def test_the_interval_of_an_rmse_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(5)
    target = torch.zeros(300, 1)
    outputs = torch.randn(300, 1, generator=generator)
    found = headline_interval(numbers(y=(0.0, 4.0)), outputs, target)
    expected = stats.bootstrap(
        (outputs.numpy()[:, 0] * 4,),
        lambda x, axis: np.sqrt((x**2).mean(axis)),
        method="percentile",
        rng=1,
    ).confidence_interval
    assert found["rmse_low"] == pytest.approx(expected.low, abs=0.08)
    assert found["rmse_high"] == pytest.approx(expected.high, abs=0.08)


def test_the_interval_of_many_rows_has_the_width_of_the_normal_distribution() -> None:
    target = torch.zeros(60_000, dtype=torch.int64)
    outputs = scores_of([int(number % 5 == 0) for number in range(60_000)], 2)
    found = headline_interval(categories("a", "b"), outputs, target)
    spread = 1.96 * math.sqrt(0.8 * 0.2 / 60_000)
    assert found["accuracy_high"] - found["accuracy_low"] == pytest.approx(2 * spread, rel=0.1)
    assert found["accuracy_low"] < 0.8 < found["accuracy_high"]


@pytest.mark.parametrize("num_groups", [60, 30_000])
def test_rows_that_repeat_others_of_their_group_do_not_make_the_interval_narrower(
    num_groups: int,
) -> None:
    schema, target = categories("a", "b"), torch.zeros(num_groups, dtype=torch.int64)
    outputs, groups = (
        scores_of([int(number % 5 == 0) for number in range(num_groups)], 2),
        np.arange(num_groups) * 3,
    )
    once = headline_interval(schema, outputs, target)
    copies = outputs.repeat(4, 1), target.repeat(4)
    assert headline_interval(schema, *copies, groups=np.tile(groups, 4)) == pytest.approx(once)
    narrower = headline_interval(schema, *copies)
    assert narrower["accuracy_high"] - narrower["accuracy_low"] < 0.7 * (
        once["accuracy_high"] - once["accuracy_low"]
    )


def test_the_interval_of_groups_of_different_sizes_is_that_of_their_means_drawn_by_hand() -> None:
    sizes, rights = np.array([1, 2, 3, 4] * 10), np.array([0, 2, 1, 4] * 10)
    groups = np.repeat(np.arange(40), sizes)
    said = [
        int(at >= right) for size, right in zip(sizes, rights, strict=True) for at in range(size)
    ]
    target = torch.zeros(100, dtype=torch.int64)
    order = np.random.default_rng(2).permutation(100)
    outputs = scores_of([said[row] for row in order], 2)
    found = headline_interval(categories("a", "b"), outputs, target, groups=groups[order])
    drawn = np.random.default_rng(1).multinomial(40, [1 / 40] * 40, size=4000)
    low, high = np.quantile((drawn @ rights) / (drawn @ sizes), [0.025, 0.975])
    assert found == pytest.approx({"accuracy_low": low, "accuracy_high": high}, abs=0.02)


def test_where_every_prediction_is_right_groups_count_as_rows_and_one_group_says_nothing() -> None:
    schema, outputs, target = (
        categories("a", "b"),
        scores_of([0] * 48, 2),
        torch.zeros(48, dtype=torch.int64),
    )
    found = headline_interval(schema, outputs, target, groups=np.arange(48) // 3)
    assert found == headline_interval(schema, outputs[:16], target[:16])
    assert headline_interval(schema, outputs, target, groups=np.zeros(48, np.int64)) == {}


def test_the_headline_lies_in_its_interval_for_every_kind_of_target() -> None:
    generator = torch.Generator().manual_seed(3)
    for schema in (
        points(0, 0, 9, 9),
        points(0, 0),
        both(points(0, 0, 9, 9), points(0, 0)),
        both(numbers(y=(0, 1)), numbers(y=(0, 1), z=(0, 5))),
    ):
        target = torch.randn(50, schema.num_outputs, generator=generator)
        outputs = target + torch.randn(50, schema.num_outputs, generator=generator)
        name = auto_monitor(schema).removeprefix("valid/")
        found = headline_interval(schema, outputs, target)
        value = compute_metrics(schema, outputs, target, torch.zeros(50))[name]
        assert found[f"{name}_low"] < value < found[f"{name}_high"]
        assert headline_interval(schema, outputs[:1], target[:1]) == {}
        assert headline_interval(schema, outputs / 0, target) == {}


def test_points_of_several_targets_have_scales_of_their_own() -> None:
    schema = both(points(0, 0, 3, 4), points(0, 0, 3, 4))
    target = torch.zeros(1, 8)
    outputs = torch.ones(1, 8)
    metrics = compute_metrics(schema, outputs, target, torch.zeros(1), np.array([[1.0, 1, 1, 5]]))
    assert metrics["u/rmse"] == pytest.approx(math.sqrt(2))
    assert metrics["v/rmse"] == pytest.approx(math.sqrt(1 + 25))
    assert metrics["nme"] == pytest.approx(
        (math.sqrt(2) / 5 + math.sqrt(26) / math.hypot(3, 20)) / 2
    )
