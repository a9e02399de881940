"""How the draft of a recipe trains.

Model, size of the pictures, batches, epochs, optimizer, augmentation.
"""

from __future__ import annotations

import math
from typing import Any

from ..datasets.images import Pictures
from ..kinds import KINDS
from .choice import Choice, say_count
from .points import choose_mirror
from .survey import Survey

# Passes over the rows are planned for minutes on two cores. Measured there, rows a second: LeNet on
# 32 x 32 pixels 13,000; ResNet-18 on 64 x 64 pixels 170, and for other sizes in proportion to the
# pixels.
LENET_ROWS = 500_000
RESNET_ROWS = 80_000
MLP_STEPS = 6_000
TEXT_STEPS = 2_000
FEWEST_STEPS = 1_000


def choose_batch_size(num_train: int, *, is_table: bool) -> int:
    """Rows in a batch.

    Fewer of pictures, and of few rows.
    """
    if is_table:
        return 32 if num_train < 10_000 else 256
    return 16 if num_train < 500 else 32 if num_train < 2_000 else 64


def choose_training(
    survey: Survey, kind: str, num_train: int, batch_size: int
) -> tuple[Choice, tuple[int, int], Choice, Choice, dict[str, Any]]:
    """Model, size of the image, epochs, optimizer and schedule."""
    pictures = survey.pictures
    adamw = Choice({"name": "adamw", "args": {"lr": 0.003}}, "")
    if pictures is None:
        epochs = min(200, max(5, round(MLP_STEPS * batch_size / num_train)))
        model = Choice(
            {"name": "mlp", "args": {"hidden": [128, 128]}}, "rows of numbers, categories and texts"
        )
        why = f"about {MLP_STEPS:,} steps, at most 200 epochs"
        return model, (0, 0), Choice(epochs, why), adamw, {"name": "cosine"}
    side = max(pictures.height, pictures.width)
    few = Choice(
        min(30, max(5, round(LENET_ROWS / num_train))),
        f"{num_train:,} rows train; a minute or two on a CPU",
    )
    is_plain = KINDS[kind].has_classes and pictures.bits == 8
    if is_plain and pictures.channels == 1 and side <= 64:
        return (
            Choice({"name": "lenet"}, "small gray pictures"),
            (32, 32),
            few,
            adamw,
            {"name": "one_cycle"},
        )
    if is_plain and pictures.channels in (3, 4) and side <= 48:
        args = {"lr": 0.03, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}
        model = Choice({"name": "cifar_net"}, "small colour pictures")
        return (
            model,
            (32, 32),
            few,
            Choice({"name": "sgd", "args": args}, ""),
            {"name": "one_cycle"},
        )
    longest = max(30, min(300, round(FEWEST_STEPS * batch_size / num_train)))
    pixels = next((one for one in (128, 96) if RESNET_ROWS * (64 / one) ** 2 >= 20 * num_train), 64)
    epochs = min(longest, max(3, round(RESNET_ROWS * (64 / pixels) ** 2 / num_train)))
    size = _fit_size(pixels, pictures.height, pictures.width)
    model = Choice({"name": "torchvision:resnet18"}, _why_resnet(kind, pictures, size))
    text = (
        f"{num_train:,} rows train; some minutes on a CPU, where larger pictures would take longer"
    )
    optimizer = Choice({"name": "adamw", "args": {"lr": 0.001}}, "")
    return model, size, Choice(epochs, text), optimizer, {"name": "one_cycle"}


def choose_text_training(
    num_train: int, batch_size: int
) -> tuple[Choice, tuple[int, int], Choice, Choice, dict[str, Any]]:
    """As `choose_training`, where the one input is a text."""
    model = Choice(
        {"name": "bag_of_words"},
        "one text: logistic regression over how often each token stands in it",
    )
    num_epochs = min(60, max(3, round(TEXT_STEPS * batch_size / num_train)))
    epochs = Choice(num_epochs, f"about {TEXT_STEPS:,} steps, 3 to 60 epochs")
    return (
        model,
        (0, 0),
        epochs,
        Choice({"name": "adamw", "args": {"lr": 0.01}}, ""),
        {"name": "cosine"},
    )


def _why_resnet(kind: str, pictures: Pictures, size: tuple[int, int]) -> str:
    """What the nets for small pictures were not chosen for, and what becomes
    of the pictures' size.
    """
    if pictures.bits != 8:
        what = f"pictures of {pictures.bits} bits"
    elif pictures.channels not in (1, 3, 4):
        what = f"pictures of {say_count(pictures.channels, 'channel')}"
    elif not KINDS[kind].has_classes:
        what = f"{'points' if KINDS[kind].lies_on_image else 'numbers'} to be told from pictures"
    else:
        what = f"pictures of more than {64 if pictures.channels == 1 else 48} pixels"
    pixels, new = pictures.height * pictures.width, size[0] * size[1]
    if pictures.same_size and size == (pictures.height, pictures.width):
        return what
    how = "shrunk" if new < pixels else "enlarged" if new > pixels else "brought"
    return f"{what}, here {how} to {size[0]} x {size[1]}"


def _fit_size(pixels: int, height: int, width: int) -> tuple[int, int]:
    """About pixels² pixels in the pictures' own proportion, in steps of 16,
    and not more than they have.
    """
    scale = min(1.0, pixels / math.sqrt(height * width))
    ratio = height / width
    if 0.8 < ratio < 1.25:
        side = max(32, round(scale * math.sqrt(height * width) / 16) * 16)
        return side, side
    return max(32, round(scale * height / 16) * 16), max(32, round(scale * width / 16) * 16)


def choose_augment(survey: Survey, kind: str, goals: list[str], size: tuple[int, int]) -> Choice:
    """The augmentations of pictures, and whether they may be mirrored.

    None where there are no pictures.
    """
    pictures = survey.pictures
    if pictures is None:
        return Choice([], "")
    crop = {"name": "crop", "args": {"padding": max(2, min(size) // 16)}}
    if KINDS[kind].lies_on_image:
        if why := choose_mirror(goals).augment_why:
            return Choice([{"name": "flip"}, crop], why)
        return Choice(
            [crop], "no flip: which points change places in a mirror is not known; say it in swap"
        )
    if pictures.channels == 1:
        return Choice([], "no flip: mirrored letters, digits or scans may be others")
    if min(size) <= 32:
        return Choice(
            [{"name": "flip"}],
            "a mirrored photograph is one as well; not so for text: then take flip out",
        )
    return Choice(
        [{"name": "flip"}, crop],
        "a mirrored photograph is one as well; not so for text: then take flip out",
    )
