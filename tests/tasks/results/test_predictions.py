from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from torchrelay.engine import Evaluation
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.tasks.results.figures import write_tables
from torchrelay.tasks.results.predictions import describe_predictions, name_columns, tabulate

X = FeatureSchema(name="x", kind="number", columns=["x"], shape=[1], dtype="float64")


def category(name: str, *classes: str) -> FeatureSchema:
    return FeatureSchema(
        name=name, kind="category", columns=[name], shape=[], dtype="int64", classes=list(classes)
    )


def numbers(name: str, **columns: tuple[float, float]) -> FeatureSchema:
    """Columns with their mean and standard deviation."""
    mean, std = [list(values) for values in zip(*columns.values(), strict=True)]
    return FeatureSchema(
        name=name,
        kind="number",
        columns=list(columns),
        shape=[len(mean)],
        dtype="float64",
        mean=mean,
        std=std,
    )


def found(outputs: list[list[float]], target: torch.Tensor) -> Evaluation:
    return Evaluation(
        torch.arange(len(outputs)), torch.tensor(outputs), target, torch.ones(len(outputs))
    )


def test_columns_of_several_targets_carry_their_names() -> None:
    schema = Schema(
        inputs=[X], targets=[category("sex", "f", "m"), category("age", "old", "young")]
    )
    scored = found([[2.0, 1, 0, 0.5], [0, 3, 1, 0]], torch.tensor([[0, 1], [0, 0]]))
    frame = tabulate(schema, scored, None, np.array([3, 9]), np.array(["k3", "k9"], dtype=object))
    assert frame["row"].tolist() == [3, 9]
    assert frame["key"].tolist() == ["k3", "k9"]
    assert frame["sex/target"].tolist() == ["f", "f"]
    assert frame["sex/prediction"].tolist() == ["f", "m"]
    assert frame["age/prediction"].tolist() == ["young", "old"]
    assert frame["sex/probability/f"][0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert (
        frame["age/probability"].tolist()
        == frame[["age/probability/old", "age/probability/young"]].max(axis=1).tolist()
    )
    assert [name for name in frame.columns if name in name_columns(schema)] == name_columns(schema)


def test_tags_are_predicted_as_a_cell_says_them_with_a_probability_each() -> None:
    tags = FeatureSchema(
        name="t",
        kind="labels",
        columns=["t"],
        shape=[2],
        dtype="float32",
        classes=["a", "b"],
        separator=";",
    )
    schema = Schema(inputs=[X], targets=[tags])
    scored = found([[1.0, 2.0], [-1.0, -3.0]], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    first, second = tabulate(schema, scored, None, np.array([1, 2]), None).to_dict("records")
    assert (first["target"], first["prediction"], second["target"], second["prediction"]) == (
        "a",
        "a;b",
        "",
        "",
    )
    assert first["probability/b"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert list(first) == ["row", "target", *name_columns(schema), "loss"]
    many = tags.model_copy(update={"classes": [f"t{at}" for at in range(101)], "shape": [101]})
    assert name_columns(Schema(inputs=[X], targets=[many])) == ["prediction"]
    described = describe_predictions(
        Schema(inputs=[X], targets=[many]), found([[0.0] * 101], torch.zeros(1, 101)), None
    )
    assert list(described) == ["prediction"]


def test_numbers_of_several_columns_are_told_apart_by_them() -> None:
    schema = Schema(inputs=[X], targets=[numbers("size", width=(10.0, 2.0), height=(0.0, 0.5))])
    scored = found([[1.0, -1.0]], torch.tensor([[0.0, 1.0]]))
    [row] = tabulate(schema, scored, None, np.array([1]), None).to_dict("records")
    assert row == {
        "row": 1,
        "target/width": 10.0,
        "target/height": 0.5,
        "prediction/width": 12.0,
        "prediction/height": -0.5,
        "residual/width": 2.0,
        "residual/height": -1.0,
        "loss": 1.0,
    }


def test_points_are_predicted_in_pixels_of_the_file() -> None:
    points = numbers("nose", nose_x=(4.0, 2.0), nose_y=(8.0, 2.0)).model_copy(
        update={"kind": "points", "shape": [1, 2]}
    )
    schema = Schema(inputs=[X], targets=[points])
    scored = found(
        [[1.0, 0.0]], torch.tensor([[0.0, 0.0]])
    )  # at (6, 8) of the stored image, in truth at (4, 8)
    scale = np.array([[2.0, 3.0]])
    predicted = describe_predictions(schema, scored, scale)
    assert {name: values.tolist() for name, values in predicted.items()} == {
        "prediction/nose_x": [6.5 * 2 - 0.5],
        "prediction/nose_y": [8.5 * 3 - 0.5],
    }
    frame = tabulate(schema, scored, scale, np.array([1]), None)
    assert frame["residual/nose_x"].tolist() == [4.0]
    assert frame["residual/nose_y"].tolist() == [0.0]


def test_more_than_twenty_classes_have_one_probability() -> None:
    for num_classes, num_columns in ((20, 22), (21, 2)):
        schema = Schema(inputs=[X], targets=[category("y", *map(str, range(num_classes)))])
        predicted = describe_predictions(
            schema, found([[0.0] * num_classes], torch.tensor([0])), None
        )
        assert list(predicted) == name_columns(schema)
        assert len(predicted) == num_columns
        assert predicted["probability"][0] == pytest.approx(1 / num_classes)


def test_numbers_far_from_zero_keep_the_digits_that_they_have() -> None:
    schema = Schema(inputs=[X], targets=[numbers("when", when=(1.6e9, 10.0))])
    predicted = describe_predictions(schema, found([[0.1]], torch.tensor([[0.0]])), None)
    assert predicted["prediction"].tolist() == [1600000001.0]


def test_tables_of_several_targets_are_files_of_their_own(tmp_path: Path) -> None:
    schema = Schema(
        inputs=[X], targets=[category("a/b", "f", "m"), category("age", "old", "young")]
    )
    write_tables(schema, found([[2.0, 1, 0, 0.5]], torch.tensor([[0, 1]])), None, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"classes-a%2Fb.csv", "classes-age.csv"}
    assert pd.read_csv(tmp_path / "classes-age.csv")["accuracy"].tolist()[1] == 1.0
