"""Classification nets of torchvision with a head and first layer for a table.

The registry checks that a net fits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import RecipeError, ShapeError, shown_value
from ...recipe import check_arguments, check_values, nearest
from ...schema import Schema
from ..inputs import add_side_inputs, find_image
from .pretrained import ARGUMENTS as WEIGHTS_ARGUMENTS
from .pretrained import check_weights

# The recipe may not give these. Auxiliary outputs would make a tuple of what must be one tensor.
_FILLED = ("progress", "num_classes", "aux_logits")


def list_torchvision() -> list[str]:
    """Names of torchvision's classification nets."""
    from torchvision import models  # imported here because it takes more than a second

    return models.list_models(module=models)


def check_torchvision(name: str, args: dict[str, Any]) -> None:
    """Refuse a net that torchvision lacks, or arguments that it does not take.

    Args:
        name: without its prefix, for example resnet18.
        args: the recipe's arguments.
    Raises:
        RecipeError: names the key, the value and the nearest legal ones, or torchvision's reason.
    """
    from torchvision import models

    names = list_torchvision()
    if name not in names:
        raise RecipeError(
            f"model.name: torchvision has no classification net {name!r}; {nearest(name, names)}"
        )
    check_weights(name, args)
    args = _without_weights(args)
    builder = models.get_model_builder(name)
    check_arguments("model", f"torchvision:{name}", args, builder, filled=_FILLED, typed=False)
    check_values("model", f"torchvision:{name}", args, lambda values: _refusal(name, values))


def build_torchvision(name: str, args: dict[str, Any], schema: Schema) -> nn.Module:
    """Build the net with random weights for a table with one image.

    Other inputs join before the head. `pretrained.py` loads pretrained weights into it.

    Raises:
        ShapeError: the inputs do not have exactly one image, or not of a size that the net can be
            built for.
    """
    image = find_image(f"torchvision:{name}", schema)
    channels, height, width = image.shape
    sized: dict[str, Any] = {}
    # These two families are built for one size of image.
    if name.startswith("vit_"):
        if height != width:
            raise ShapeError(
                f"model.name: torchvision:{name} takes square images, got {height} x {width}; "
                f"set data.inputs.{image.name}.size: [{height}, {height}]"
            )
        sized["image_size"] = height
    elif name.startswith("maxvit"):
        sized["input_size"] = (height, width)
    elif (
        name in ("googlenet", "inception_v3")
        and channels == 3
        and any(args.get(key) for key in WEIGHTS_ARGUMENTS)
    ):
        sized["transform_input"] = (
            True  # their weights are Google's: from -1 to 1, not ImageNet's mean and deviation
        )
    try:
        model = _build(name, sized | _without_weights(args), schema.num_outputs)
    except Exception as error:
        raise ShapeError(
            f"model.name: torchvision:{name} cannot be built for {channels} x {height} x {width} "
            "with model.args "
            f"{shown_value(args)}: {error}; change data.inputs.{image.name}.size, the arguments, "
            "or the net"
        ) from error
    if channels != 3:
        _fit_first_layer(model, channels)
    return add_side_inputs(f"torchvision:{name}", model, schema)


def _without_weights(args: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if name not in WEIGHTS_ARGUMENTS}


def _build(name: str, args: dict[str, Any], num_outputs: int) -> nn.Module:
    from torchvision import models

    extra: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        extra = {"aux_logits": False, "init_weights": True}
    return models.get_model(name, weights=None, num_classes=num_outputs, **(extra | args))


def _refusal(name: str, args: dict[str, Any]) -> str:
    """Torchvision's reason for not building the net, or nothing."""
    try:
        with torch.device("meta"):  # shapes alone: no memory, no random numbers
            _build(name, args, num_outputs=2)
    except NotImplementedError:
        return ""  # regnet computes with values while it is built, which shapes alone do not have
    except (
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        RuntimeError,
        AssertionError,
    ) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _fit_first_layer(model: nn.Module, in_channels: int) -> None:
    """Replace the first convolution by one for other channels.

    It has torch's default weights.
    """
    path, old = next(
        (path, part) for path, part in model.named_modules() if isinstance(part, nn.Conv2d)
    )
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        kernel_size=old.kernel_size,  # pyright: ignore[reportArgumentType] - torch types it as a tuple of any length
        stride=old.stride,  # pyright: ignore[reportArgumentType]
        padding=old.padding,  # pyright: ignore[reportArgumentType]
        bias=old.bias is not None,
    )
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
