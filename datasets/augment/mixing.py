"""Mixes each row of a prepared batch with another row of it.

Mixup and cutmix.

Works on standardised values, where images are floats whatever their dtype was, and where a mean of
two rows is the same as that of their raw values. Who is mixed with whom, and how much, is a
function of seed, epoch and the batch's rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...schema import Batch, Schema
from .draws import drawer
from .pixels import check_probability, inside_boxes

# Shapes: B rows in a batch, C channels, H height, W width.


class Mixer(ABC):
    """A way to mix rows.

    Args:
        alpha: of the distribution Beta(alpha, alpha) that a row's own share is drawn from; 1 is
            even, less is milder.
        p: probability, per row.
    """

    def __init__(self, alpha: float, p: float) -> None:
        if not alpha > 0:
            raise ValueError("expected a number above 0")
        check_probability(p)
        self._alpha, self._p = alpha, p

    def shares(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Each row's own share, float64 (B,).

        1 leaves it as it is.
        """
        return np.where(rng.random(num) < self._p, rng.beta(self._alpha, self._alpha, num), 1.0)

    @abstractmethod
    def mix_images(
        self, images: Sequence[Tensor], partner: Tensor, share: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[Tensor], np.ndarray]:
        """Mix images.

        Args:
            images: standardised, each (B, C, H, W), on the device.
            partner: int64 (B,), on the device.
            share: see `shares`.
            rng: for more draws.

        Returns:
            Mixed images, and the shares that they really have.
        """


class Mixup(Mixer):
    """A weighted mean of two rows (Zhang et al. 2018).

    Args:
        alpha: as the paper's: a row's own share is drawn from Beta(alpha, alpha), for each row
            anew.
        p: probability, per row.
    """

    def __init__(self, alpha: float = 0.2, p: float = 1.0) -> None:
        super().__init__(alpha, p)

    def mix_images(
        self, images: Sequence[Tensor], partner: Tensor, share: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[Tensor], np.ndarray]:
        """The weighted mean of pixels."""
        return [lerp_rows(image, partner, share) for image in images], share


class Cutmix(Mixer):
    """A rectangle of another row's image, at the same place (Yun et al. 2019).

    Args:
        alpha: as the paper's: the share of the own picture is drawn from Beta(alpha, alpha), for
            each row anew.
        p: probability, per row.
    """

    def __init__(self, alpha: float = 1.0, p: float = 1.0) -> None:
        super().__init__(alpha, p)

    def mix_images(
        self, images: Sequence[Tensor], partner: Tensor, share: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[Tensor], np.ndarray]:
        """Copy a rectangle, about a centre anywhere in the picture and cut
        at its edge; the first image counts.
        """
        side = np.sqrt(1 - share)
        centre = rng.random((2, len(share)))
        ends = np.stack(
            [
                centre[0] - side / 2,
                centre[0] + side / 2,
                centre[1] - side / 2,
                centre[1] + side / 2,
            ],
            1,
        )
        mixed, true_share = [], share
        for number, image in enumerate(images):
            height, width = image.shape[2:]
            boxes = np.rint(ends.clip(0, 1) * [height, height, width, width]).astype(np.int64)
            mixed.append(paste_boxes(image, partner, boxes))
            if number == 0:
                true_share = 1 - (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (
                    height * width
                )
        return mixed, true_share


def mix_batch(
    batch: Batch, schema: Schema, mixers: Sequence[Mixer], seed: int, epoch: int
) -> Batch:
    """Mix each row with another of its batch.

    Of several mixers each batch draws one.

    Images are mixed as the mixer does, numbers, points and tags in proportion. Of a category target
    both classes stay, see `Batch.mix`.

    Args:
        batch: standardised, on the device, as one step sees it.
    """
    num = len(batch.rows)
    # A sum, so that a row that comes twice does not cancel itself out.
    key = int(drawer(seed, epoch, batch.rows, batch.repeats)(0).sum())
    rng = np.random.Generator(np.random.PCG64([key, 1]))
    mixer = mixers[int(rng.integers(len(mixers)))]
    circle = rng.permutation(num)
    partner_of = np.empty(num, np.int64)
    partner_of[circle] = np.roll(
        circle, 1
    )  # everyone's neighbour in a circle: nobody's partner is himself
    device = batch.target.device
    partner, share = (
        torch.from_numpy(partner_of).to(device, non_blocking=True),
        mixer.shares(rng, num),
    )
    is_image = [feature.facts.is_image for feature in schema.inputs]
    images = [one for one, yes in zip(batch.inputs, is_image, strict=True) if yes]
    mixed, share = mixer.mix_images(images, partner, share, rng)
    mixed_images = iter(mixed)
    inputs = tuple(
        next(mixed_images) if yes else lerp_rows(one, partner, share)
        for one, yes in zip(batch.inputs, is_image, strict=True)
    )
    if not schema.target_facts.is_one_class:
        return batch._replace(inputs=inputs, target=lerp_rows(batch.target, partner, share))
    return batch._replace(
        inputs=inputs,
        mixed_target=batch.target[partner],
        mix=torch.from_numpy(share.astype(np.float32)).to(device, non_blocking=True),
    )


def lerp_rows(values: Tensor, partner: Tensor, share: np.ndarray) -> Tensor:
    """share * own + (1 - share) * partner's, for (B, ...) of floats."""
    weight = torch.from_numpy(share).to(values.dtype).to(values.device, non_blocking=True)
    return torch.lerp(values[partner], values, weight.reshape(-1, *[1] * (values.ndim - 1)))


def paste_boxes(image: Tensor, partner: Tensor, boxes: np.ndarray) -> Tensor:
    """Each row with its partner's pixels in its box.

    Args:
        image: (B, C, H, W).
        partner: another row for each, int64 (B,).
        boxes: see `inside_boxes`.
    """
    if image.device.type != "cpu":
        return torch.where(inside_boxes(image, boxes), image[partner], image)
    pasted = image.clone(memory_format=torch.preserve_format)
    # Views of the same memory: numpy copies a rectangle in a tenth of torch's time; bfloat16 it
    # does not know.
    source, into = (
        one if image.dtype == torch.bfloat16 else one.numpy() for one in (image, pasted)
    )
    for row, (other, (top, bottom, left, right)) in enumerate(
        zip(partner.tolist(), boxes.tolist(), strict=True)
    ):
        into[row, :, top:bottom, left:right] = source[other, :, top:bottom, left:right]  # pyright: ignore[reportArgumentType]
    return pasted
