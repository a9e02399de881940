from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torchrelay.errors import RecipeError, ShapeError
from torchrelay.models.registry import build_model, check_model
from torchrelay.recipe import Named
from torchrelay.schema import Schema

MakeSchema = Callable[..., Schema]

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, num_classes, width=4):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3)
        self.norm = nn.BatchNorm2d(width).eval()
        self.head = nn.Linear(width, num_classes)

    def forward(self, image):
        return self.head(self.norm(self.conv(image)).mean((2, 3)))

class FromSchema(nn.Module):
    def __init__(self, schema, num_outputs):
        super().__init__()
        self.schema = schema
        self.layer = nn.LazyLinear(num_outputs)

    def forward(self, *inputs):
        return self.layer(torch.cat([x.flatten(1).float() for x in inputs], 1))

class Drops(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.layer = nn.Linear(1, num_outputs)

    def forward(self, x):
        torch.rand(3)
        return self.layer(x.flatten(1)[:, :1]).squeeze()[..., :1]

class Refuses(nn.Module):
    def __init__(self, size):
        raise ValueError(f"size {size} is odd")

class Stateful:
    pass
"""


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `lab` in the working directory, forgotten afterwards."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "nets.py").write_text(SOURCE)
    (folder / "broken.py").write_text("import torch\n\nvalue = 1 / 0\n")
    (folder / "needy.py").write_text("import a_library_that_is_not_there\n")
    (folder / "unfinished.py").write_text("x = 1\nclass Net(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]


def test_a_class_of_the_working_directory_gets_what_its_signature_asks_for(
    image_schema: MakeSchema,
) -> None:
    model = build_model(
        Named(name="lab.nets:Net", args={"width": 6}), image_schema(2, 8, 8, num_classes=5)
    )
    assert model(torch.zeros(3, 2, 8, 8)).shape == (3, 5)
    assert model.get_submodule("conv").weight.shape == (6, 2, 3, 3)


def test_the_modes_that_a_class_set_itself_stay(image_schema: MakeSchema) -> None:
    model = build_model(Named(name="lab.nets:Net"), image_schema(2, 8, 8))
    assert model.training
    assert not model.get_submodule("norm").training


def test_a_class_may_take_the_schema_and_lazy_layers_take_their_shape_from_the_proof(
    mixed_schema: Schema,
) -> None:
    model = build_model(Named(name="lab.nets:FromSchema"), mixed_schema)
    assert model.schema is mixed_schema
    assert model.get_submodule("layer").weight.shape == (2, 16)


def test_the_recipe_goes_before_the_schema(image_schema: MakeSchema) -> None:
    with pytest.raises(
        ShapeError,
        match=r"expected one tensor of shape \(2, 7\).*label has 7 classes; got \(2, 3\)",
    ):
        build_model(
            Named(name="lab.nets:Net", args={"num_classes": 3}),
            image_schema(2, 8, 8, num_classes=7),
        )


def test_outputs_of_another_shape_are_refused_and_the_random_state_is_as_before(
    number_schema: Schema,
) -> None:
    torch.manual_seed(0)
    torch.nn.Linear(1, 4)
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    with pytest.raises(ShapeError, match=r"lab\.nets:Drops.*\(2, 4\).*got \(2, 1\)"):
        build_model(Named(name="lab.nets:Drops"), number_schema)
    assert torch.equal(expected, torch.get_rng_state())


def test_a_forward_pass_that_fails_is_told_with_the_shapes(image_schema: MakeSchema) -> None:
    with pytest.raises(
        ShapeError, match=r"lab\.nets:Net fails on rows of image \[2, 8, 8\]: RuntimeError"
    ):
        build_model(Named(name="lab.nets:Net", args={"in_channels": 9}), image_schema(2, 8, 8))


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("nowhere.nets:Net", {}, r"model\.name: 'nowhere\.nets:Net': there is no module nowhere"),
        ("lab.nest:Net", {}, r"there is no module lab\.nest"),
        ("lab.nets:Nett", {}, r"lab/nets\.py: has no such class; did you mean Net\?"),
        ("lab.nets:Stateful", {}, r"Stateful is no subclass of torch\.nn\.Module"),
        (
            "lab.broken:Net",
            {},
            r"importing lab\.broken failed: ZeroDivisionError.*broken\.py, line 3",
        ),
        (
            "lab.needy:Net",
            {},
            r"importing lab\.needy failed: .*a_library_that_is_not_there.*needy\.py, line 1",
        ),
        (
            "lab.unfinished:Net",
            {},
            r"importing lab\.unfinished failed: SyntaxError.*unfinished\.py, line 2",
        ),
        ("lab.nets:Net", {"widht": 3}, r"model\.args\.widht \(value 3\).*did you mean width"),
        ("lab.nets:Refuses", {}, r"model\.args\.size is missing"),
    ],
)
def test_what_cannot_be_imported_or_called_is_told_without_a_table(
    name: str, args: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_model(Named(name=name, args=args))


def test_a_constructor_that_raises_is_told_with_its_place(number_schema: Schema) -> None:
    with pytest.raises(
        RecipeError, match=r"refuses \{'size': 3\}: ValueError: size 3 is odd .*nets\.py, line \d+"
    ):
        build_model(Named(name="lab.nets:Refuses", args={"size": 3}), number_schema)


def test_channels_are_asked_for_where_there_is_no_image(number_schema: Schema) -> None:
    with pytest.raises(ShapeError, match=r"asks for in_channels.*x \(number\)"):
        build_model(Named(name="lab.nets:Net"), number_schema)
