"""Pretrained weights of torchvision's nets.

`model.args.weights` names an entry of torchvision's registry, which is downloaded once;
`model.args.weights_file` names a file of weights of the same net, which the caller reads. Weights
are loaded where head or channels differ, too. Only a new run loads them: a run that goes on has its
weights from its checkpoint.
"""

from __future__ import annotations

import copy
import os
import socket
import sys
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import RecipeError, SourceError
from ...recipe import Named, nearest
from ...weights import check_state

ReadWeights = Callable[[Path], dict[str, Tensor]]

ARGUMENTS = ("weights", "weights_file")
DOWNLOAD_TIMEOUT_SECONDS = 20
# Auxiliary heads of googlenet and inception_v3, which help to train them from scratch and are not
# built here.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def check_weights(name: str, args: Mapping[str, Any]) -> None:
    """Refuse weights that torchvision does not have.

    Args:
        name: of the net, for example resnet18.
        args: the recipe's arguments.
    Raises:
        RecipeError: names the nearest legal ones.
    """
    given = [key for key in ARGUMENTS if args.get(key)]
    for key in given:
        if not isinstance(args[key], str):
            raise RecipeError(f"model.args.{key}: expected text, got {args[key]!r}")
    if len(given) == 2:
        raise RecipeError(
            "model.args: weights and weights_file are two ways to the same; give one of them"
        )
    if "weights" in given:
        _find_entry(name, args["weights"])


def fetch_pretrained(model: Named, cache: Path, read: ReadWeights) -> list[str]:
    """Check that a model's pretrained weights are there and can be read.

    Downloads those that torchvision names.

    Args:
        model: the recipe's; nothing is done where it asks for no weights.
        cache: where `torch/hub/checkpoints` is made, unless TORCH_HOME says where it is.
        read: gives the state_dict in a file, or raises a SourceError.
    Returns:
        What was done, a line each.
    Raises:
        SourceError: they cannot be downloaded, or read; says which file to put where.
    """
    if not asks_for_weights(model):
        return []
    name, args = _name_of_net(model), model.args
    said = []
    if args.get("weights") and not (path := _locate(name, args, cache)).exists():
        _download(name, args["weights"], path)
        said.append(f"weights: {path.name} downloaded to {path.parent}")
    _read(_locate(name, args, cache), read)
    return said


def load_pretrained(built: nn.Module, model: Named, cache: Path, read: ReadWeights) -> list[str]:
    """Load a model's pretrained weights into the net of a table.

    A head with another number of outputs is left as it is. A first layer for other channels gets
    the sum over red, green and blue for one channel, and for more of them the three in turn, scaled
    so that the sum stays (as timm does). A vision transformer's positions are interpolated to
    another size of image.

    Args:
        built: by the registry, from the same recipe, on any device; changed in place.
        model: the recipe's; nothing is done where it asks for no weights.
        cache, read: see `fetch_pretrained`.
    Returns:
        What was loaded and what was not, a line each.
    Raises:
        SourceError: the weights cannot be read, are of another net, or are not finite.
    """
    if not asks_for_weights(model):
        return []
    name = _name_of_net(model)
    path = _locate(name, model.args, cache)
    state = _read(path, read)
    net = _find_net(built)
    head = f"{_path_of_head(net)}."
    check_state(net.state_dict(), state, f"weights {path}")  # to fit an integer makes a float of it
    said = [
        *_fit_first_layer(net, state),
        *_fit_positions(net, state),
        *_leave_out(net, state, head),
    ]
    own = net.state_dict()
    odd = [
        f"{key} {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if _differs(state, own, key)
    ]
    if not odd:
        check_state(own, state, f"weights {path}")
        missing, surplus = net.load_state_dict(state, strict=False)
        odd += [f"{key} is missing" for key in missing if not key.startswith(head)]
        odd += [f"{key} is no part of it" for key in surplus if not key.startswith(_AUXILIARY)]
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise SourceError(
            f"weights {path} are not those of torchvision:{name}: {'; '.join(odd[:5])}{more}"
        )
    return [f"weights: {path}", *said]


def asks_for_weights(model: Named) -> bool:
    """Whether a recipe asks for pretrained weights of a torchvision net."""
    return model.name.startswith("torchvision:") and any(model.args.get(key) for key in ARGUMENTS)


def _name_of_net(model: Named) -> str:
    return model.name.removeprefix("torchvision:")


def _find_net(built: nn.Module) -> nn.Module:
    """Torchvision's net in a model.

    With other inputs beside the image, its head is an identity and stands outside.
    """
    return inner if isinstance(inner := getattr(built, "net", None), nn.Module) else built


def _find_entry(name: str, weights: str) -> Any:
    """The entry of torchvision's registry.

    `ResNet18_Weights.DEFAULT` means `DEFAULT` too.
    """
    from torchvision import models

    entries = models.get_model_weights(name).__members__
    wanted = weights.rpartition(".")[2]
    if wanted not in entries:
        raise RecipeError(
            f"model.args.weights: torchvision has no {weights!r} of {name}; "
            f"{nearest(wanted, entries)}"
        )
    return entries[wanted]


def _locate(name: str, args: Mapping[str, Any], cache: Path) -> Path:
    if args.get("weights_file"):
        return Path(args["weights_file"])
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()
    return (
        torch_home
        / "hub"
        / "checkpoints"
        / _find_entry(name, args["weights"]).url.rpartition("/")[2]
    )


def _download(name: str, weights: str, path: Path) -> None:
    """Download an entry's file whole or not at all.

    Its name carries the digest that it must have.
    """
    url = _find_entry(name, weights).url
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(
            url, str(path), hash_prefix=digest, progress=sys.stderr.isatty()
        )
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise SourceError(
            f"model.args.weights: {weights} of {name} cannot be downloaded from {url} ({error}); "
            f"put {path.name} into "
            f"{path.parent}, or say where it is with model.args.weights_file"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _read(path: Path, read: ReadWeights) -> dict[str, Tensor]:
    """Read a state_dict that may be changed.

    Keeps the versions of its modules, which some nets use.
    """
    if not path.exists():
        raise SourceError(f"model.args.weights_file: {path} does not exist")
    return copy.copy(read(path))


def _differs(state: Mapping[str, Tensor], own: Mapping[str, Tensor], key: str) -> bool:
    return key in state and state[key].shape != own[key].shape


def _leave_out(net: nn.Module, state: dict[str, Tensor], head: str) -> list[str]:
    """Drop the head's weights if the net's head has other shapes, or none."""
    own = net.state_dict()
    left_out = [
        key
        for key in state
        if key.startswith(head) and (key not in own or _differs(state, own, key))
    ]
    for key in left_out:
        del state[key]
    return [f"weights: new head, {', '.join(left_out)} left out"] if left_out else []


def _path_of_head(net: nn.Module) -> str:
    return [
        path
        for path, part in net.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Identity)
    ][-1]


def _fit_first_layer(net: nn.Module, state: dict[str, Tensor]) -> list[str]:
    path, layer = next(
        (path, part) for path, part in net.named_modules() if isinstance(part, nn.Conv2d)
    )
    key = f"{path}.weight"
    rgb_OCHW, channels = state.get(key), layer.in_channels
    if rgb_OCHW is None or rgb_OCHW.ndim != 4 or rgb_OCHW.shape[1] != 3 or channels == 3:
        return []
    turns = -(-channels // 3)
    state[key] = rgb_OCHW.repeat(1, turns, 1, 1)[:, :channels] * (3 / channels)
    if channels == 1:
        state[key] = rgb_OCHW.sum(dim=1, keepdim=True)
    return [f"weights: first layer {key} fitted from 3 to {channels} channels"]


def _fit_positions(net: nn.Module, state: dict[str, Tensor]) -> list[str]:
    from torchvision.models import VisionTransformer
    from torchvision.models.vision_transformer import interpolate_embeddings

    key = "encoder.pos_embedding"
    if (
        not isinstance(net, VisionTransformer)
        or key not in state
        or not _differs(state, net.state_dict(), key)
    ):
        return []
    try:
        state[key] = interpolate_embeddings(net.image_size, net.patch_size, {key: state[key]})[key]  # pyright: ignore[reportArgumentType]
    except (ValueError, RuntimeError):  # no positions of a square picture; refused for their shape
        return []
    return [f"weights: positions interpolated to {net.image_size} pixels"]
