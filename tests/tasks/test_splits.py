from __future__ import annotations

import math

import pytest

from torchrelay.tasks.splits import mean_and_deviation


def test_mean_and_sample_deviation_of_each_metric_over_the_splits() -> None:
    values = {"s0": {"test/rmse": 2.0}, "s1": {"test/rmse": 4.0}, "s2": {"test/rmse": 9.0}}
    # (9 + 1 + 16) / 2 = 13
    assert mean_and_deviation(values) == {
        "test/rmse": 5.0,
        "test/rmse_std": pytest.approx(math.sqrt(13)),
    }


def test_a_split_without_a_metric_has_no_part_in_its_mean_and_one_alone_has_no_deviation() -> None:
    values = {"s0": {"test/auroc": 0.5, "test/loss": 1.0}, "s1": {"test/loss": 3.0}}
    assert mean_and_deviation(values) == {
        "test/auroc": 0.5,
        "test/loss": 2.0,
        "test/loss_std": pytest.approx(math.sqrt(2)),
    }


def test_a_class_whose_name_ends_like_a_deviation_keeps_its_mean() -> None:
    values = {
        "s0": {"test/accuracy/a": 0.0, "test/accuracy/a_std": 0.25},
        "s1": {"test/accuracy/a": 1.0, "test/accuracy/a_std": 0.75},
    }
    assert mean_and_deviation(values)["test/accuracy/a_std"] == 0.5


def test_an_infinite_loss_has_a_mean_and_no_deviation() -> None:
    found = mean_and_deviation({"s0": {"test/loss": math.inf}, "s1": {"test/loss": 1.0}})
    assert found["test/loss"] == math.inf
    assert math.isnan(found["test/loss_std"])
