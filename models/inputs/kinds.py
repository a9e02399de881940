"""Says which kinds of inputs a model takes, from a recipe alone.

Sizes and counts are checked when the model is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ...errors import ShapeError
from ...kinds import Facts

TORCHVISION = "torchvision:"
# Channels, height and width of the one image that a net takes; torchvision's are fitted to any.
IMAGES = {"lenet": (1, 32, 32), "cifar_net": (3, 32, 32)}
_OF_NUMBERS = ("two_layer", "dynamic_net")
_OF_A_TEXT = ("bag_of_words",)


class _HasFacts(Protocol):
    """A feature, of a recipe or of a schema."""

    @property
    def facts(self) -> Facts: ...


def check_inputs(name: str, inputs: Mapping[str, _HasFacts]) -> None:
    """Refuse kinds of inputs that a model does not take.

    A model that is not known here takes any.

    Args:
        name: of the model.
        inputs: of a recipe or a schema, by name.
    Raises:
        ShapeError: names the inputs that there are.
    """
    if name in IMAGES or name.startswith(TORCHVISION):
        check_one_image(name, inputs)
    elif name in _OF_NUMBERS:
        check_numbers(name, inputs)
    elif name in _OF_A_TEXT:
        check_text_alone(name, inputs)


def check_one_image(name: str, inputs: Mapping[str, _HasFacts], wanted: str = "one image") -> None:
    """Refuse no image and several images.

    Other inputs may stand beside the image.

    Args:
        name, inputs: see `check_inputs`.
        wanted: what the model takes, for the message.
    Raises:
        ShapeError: see `check_inputs`.
    """
    if sum(feature.facts.is_image for feature in inputs.values()) != 1:
        _refuse(name, wanted, inputs)


def check_image_shape(name: str, key: str, shape: Sequence[int | None]) -> None:
    """Refuse an image of another shape than a net takes.

    The error says what to write into the recipe.

    Args:
        name: of the model; one that takes any shape passes.
        key: of the input.
        shape: channels, height and width; None where only the files will say.
    Raises:
        ShapeError: names both shapes.
    """
    wanted = IMAGES.get(name, tuple(shape))
    if all(one in (None, other) for one, other in zip(shape, wanted, strict=True)):
        return
    channels, height, width = wanted
    takes, gives = (
        " x ".join("?" if one is None else str(one) for one in each) for each in (wanted, shape)
    )
    if shape[0] in (None, 1, 3):
        remedy = (
            f"set its size: [{height}, {width}] and channels: {'gray' if channels == 1 else 'rgb'}"
        )
    else:
        remedy = f"{TORCHVISION}resnet18 is fitted to any channels"
    raise ShapeError(
        f"model.name: {name} takes one image of {takes}; data.inputs.{key} gives {gives}; {remedy}"
    )


def check_numbers(name: str, inputs: Mapping[str, _HasFacts]) -> None:
    """Refuse all inputs but numbers and points.

    Arguments and errors as of `check_inputs`.
    """
    others = {key: feature for key, feature in inputs.items() if not feature.facts.is_number}
    if others:
        _refuse(name, "numbers", others)


def check_text_alone(name: str, inputs: Mapping[str, _HasFacts]) -> None:
    """Refuse all inputs but a single text.

    Arguments and errors as of `check_inputs`.
    """
    if [one.facts.has_ids and one.facts.is_sequence for one in inputs.values()] != [True]:
        _refuse(name, "one text alone", inputs)


def _refuse(name: str, wanted: str, inputs: Mapping[str, _HasFacts]) -> None:
    kinds = ", ".join(f"{key} ({feature.facts.name})" for key, feature in inputs.items())
    raise ShapeError(
        f"model.name: {name} takes {wanted}; data.inputs has {kinds}; use mlp for these"
    )
