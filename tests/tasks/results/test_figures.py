from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from torchrelay.datasets.pack import View, open_view
from torchrelay.engine import Evaluation
from torchrelay.recipe import load_recipe
from torchrelay.schema import FeatureSchema
from torchrelay.tasks.ingest import ingest_table
from torchrelay.tasks.results.figures import draw_evaluation, images_as_stored, to_uint8

from ...conftest import WriteRecipe

Pages = Callable[[str], Figure]
IMAGE = {"image": {"kind": "image", "size": [8, 8]}}


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    """The figure whose heading begins with a text."""
    saved: list[Figure] = []
    draw = Figure.draw

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        saved.append(self)
        draw(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "draw", keep)
    return lambda start: next(
        figure for figure in saved if any(text.startswith(start) for text in texts_of(figure))
    )


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def view_of(inputs: dict[str, Any], target: dict[str, Any]) -> View:
    """Six rows, flat pictures of 10 x 20 and 20 x 10 pixels among them; three of them test."""
    lines = ["image,a,b,c,d,ax,ay,bx,by,label,split"]
    for row in range(6):
        Image.new("RGB", (20, 10) if row % 2 else (10, 20), (40 * row, 0, 0)).save(f"{row}.png")
        split = "test" if row in (1, 4, 5) else "train"
        lines.append(
            f"{row}.png,{row},{row % 3},{row % 2},{-row},{row},2,{row + 3},6,"
            f"{'no' if row % 2 else 'yes'},{split}"
        )
    Path("table.csv").write_text("\n".join(lines) + "\n")
    data = {"table": "table.csv", "inputs": inputs, "target": target, "split": {"column": "split"}}
    Path("recipe.yaml").write_text(
        yaml.safe_dump({"name": "r", "data": data, "model": {"name": "mlp"}})
    )
    prepared = ingest_table.fn(load_recipe(Path("recipe.yaml"))).first
    return open_view(prepared.pack_dir, prepared.split_dir)


def found(
    view: View, outputs: list[list[float]], target: torch.Tensor, losses: list[float]
) -> Evaluation:
    return Evaluation(
        torch.from_numpy(view.rows["test"]), torch.tensor(outputs), target, torch.tensor(losses)
    )


def test_pixels_that_fill_a_corner_of_their_type_are_stretched_channel_by_channel() -> None:
    images = np.zeros((2, 2, 10, 10), np.uint16)
    images[0, 0, :5], images[1, 1, :5] = 4000, 40
    feature = FeatureSchema(
        name="x", kind="image", columns=["x"], shape=[2, 10, 10], dtype="uint16"
    )
    shown = to_uint8(images, feature)
    assert shown.dtype == np.uint8
    assert [np.unique(shown[:, channel]).tolist() for channel in range(2)] == [[0, 255], [0, 255]]
    images[:] = 0
    images[0, 0, 0, 0] = 900  # fewer than one pixel in 200
    assert np.unique(to_uint8(images, feature)).tolist() == [0, 255]


def test_pictures_keep_the_proportions_of_their_files_and_the_heading_counts_what_is_wrong(
    tmp_path: Path, pages: Pages
) -> None:
    view = view_of(IMAGE, {"label": {"kind": "category"}})
    assert view.schema.targets[0].classes == ["no", "yes"]
    outputs = [[0.0, 9.0], [0.0, 3.0], [40.0, 0.0]]  # of rows that are no, yes, no
    draw_evaluation(
        view, found(view, outputs, torch.tensor([0, 1, 0]), [9.0, 0.05, 0.0]), None, tmp_path
    )
    page = pages("Worst")
    assert "Worst predictions: 1 wrong of 3 (true as predicted)" in texts_of(page)
    assert [text for text in texts_of(page) if text.startswith("p ")] == [
        "p 1.00, loss 9",
        "p 0.95, loss 0.0486",
        "p 1.00, loss 0",
    ]
    boxes = [picture.get_window_extent() for picture in page.axes[0].images]
    assert [box.width / box.height for box in boxes] == pytest.approx([2.0, 0.5, 2.0])
    draw_evaluation(
        view, found(view, outputs, torch.tensor([0, 1, 0]), [9, 0.05, 0]), None, tmp_path, {"image"}
    )
    assert len(list(tmp_path.glob("worst*.png"))) == 1


def test_pictures_of_a_chain_of_our_users_are_shown_as_they_are_stored(
    picture_recipe: WriteRecipe,
) -> None:
    assert images_as_stored(load_recipe(picture_recipe())) == {"image"}


def test_points_without_a_unit_are_ranked_by_their_distance_and_said_in_pixels(
    tmp_path: Path, pages: Pages
) -> None:
    target = {"p": {"kind": "points", "columns": ["ax", "ay", "bx", "by"], "normalise_by": [0, 1]}}
    view = view_of(IMAGE, target)
    feature = view.schema.targets[0]
    mean, std = torch.tensor(feature.mean), torch.tensor(feature.std)
    # Both points of the middle row are at one place.
    true = torch.tensor([[0.0, 0, 3, 4], [2, 2, 2, 2], [0, 0, 3, 4]])
    outputs = true + torch.tensor([[1.0, 0, 1, 0], [2, 0, 2, 0], [3, 0, 3, 0]])
    scored = found(view, ((outputs - mean) / std).tolist(), (true - mean) / std, [0.0, 0.0, 0.0])
    draw_evaluation(view, scored, None, tmp_path)
    said = [
        text for text in texts_of(pages("Worst")) if text.startswith("nme") or text.endswith("px")
    ]
    assert said == ["nme 0.6000", "2 px", "nme 0.2000"]


def test_the_figure_of_one_point_alone_is_in_pixels(tmp_path: Path, pages: Pages) -> None:
    view = view_of(IMAGE, {"p": {"kind": "points", "columns": ["ax", "ay"]}})
    std = view.schema.targets[0].std
    outputs = [[5 / std[0], 0.0], [0.0, 0.0], [1 / std[0], 0.0]]
    draw_evaluation(view, found(view, outputs, torch.zeros(3, 2), [0.0] * 3), None, tmp_path)
    assert [text for text in texts_of(pages("Worst")) if text.endswith("px")] == [
        "5 px",
        "1 px",
        "0 px",
    ]
    assert "mean error of a row [px]" in texts_of(pages("Mean error of each point"))


def test_a_table_of_numbers_names_its_columns_and_says_the_losses_of_the_rows(
    tmp_path: Path, pages: Pages
) -> None:
    numbers = {"x": {"kind": "number", "columns": ["ax"]}}
    view = view_of(numbers, {"y": {"kind": "number", "columns": ["a", "b", "c", "d"]}})
    scored = found(view, [[0.0] * 4] * 3, torch.ones(3, 4), [0.5, 0.7, 0.6])
    draw_evaluation(view, scored, None, tmp_path)
    [table] = pages("Worst").axes[0].tables
    texts = [cell.get_text().get_text() for cell in table.get_celld().values()]
    assert {"true a, b, c, …", "predicted a, b, c, …"} <= set(texts)
    assert [text for text in texts if text.startswith("loss")] == [
        "loss 0.7",
        "loss 0.6",
        "loss 0.5",
    ]


def test_the_unit_of_a_number_stands_on_its_axes(tmp_path: Path, pages: Pages) -> None:
    view = view_of(
        {"x": {"kind": "number", "columns": ["b", "c"]}}, {"a": {"kind": "number", "unit": "MPa"}}
    )
    target = torch.tensor([[0.5], [1.0], [2.0]])
    draw_evaluation(
        view, found(view, [[0.4], [1.2], [1.0]], target, [0.1, 0.2, 0.3]), None, tmp_path
    )
    assert pages("Predicted and true").axes[0].get_xlabel() == "true a [MPa]"
