"""Random changes of pixels where they are.

A part erased, brightness, contrast, noise.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...schema import FeatureSchema
from .draws import Draw, below, uniform

# Shapes: B rows in a batch, C channels, H height, W width.

# Of each dtype the largest value, which is its range: changes that compute stay within. Floats
# count from 0 to 1 as scikit-image's do, but are not held to it.
RANGES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
# Numbers of noise that are made once; rows take windows of them.
NOISE_NUMBERS = 2**20


class Augmentation(ABC):
    """A random change of a batch's images, each row by its own draws.

    Attributes:
        copies: it moves and sets pixels and keeps their dtype, so that a call costs more than its
            pixels and many rows may come at once. The others give float32, still in raw units.
    """

    copies: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, image: Tensor, draw: Draw, feature: FeatureSchema) -> Tensor:
        """Change an image.

        Args:
            image: raw (B, C, H, W), of the feature's dtype or float32, on the device; may be
                overwritten.
            draw: gives the rows' random numbers, streams 0 to 15.
            feature: the image's schema.
        """


class Erase(Augmentation):
    """Fills a rectangle.

    Random erasing (Zhong et al. 2020). One that is too long is cut, where the paper draws
    again.

    Args:
        p: probability, per row.
        area: smallest and largest part of the picture.
        ratio: smallest and largest height over width; a ratio is as likely as its inverse.
        fill: mean of the training rows, per channel, or zeros (raw black).
    """

    copies = True

    def __init__(
        self,
        p: float = 0.5,
        area: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: Literal["mean", "zeros"] = "mean",
    ) -> None:
        check_probability(p)
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(
                "expected two parts of the picture, above 0 and up to 1, the smaller one first"
            )
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError("expected two ratios above 0, the smaller one first")
        self._p, self._area, self._log_ratio, self._fill = p, area, np.log(ratio), fill

    def __call__(self, image: Tensor, draw: Draw, feature: FeatureSchema) -> Tensor:
        """Fill a rectangle of some rows of (B, C, H, W)."""
        boxes = self._boxes(draw, *image.shape[2:])
        fill = np.asarray(feature.mean if self._fill == "mean" else np.zeros(image.shape[1]))
        if not image.dtype.is_floating_point:
            fill = np.rint(fill)
        if image.device.type == "cpu":
            return self._erase_rows(image, boxes, fill)
        return self._erase_pixels(image, boxes, fill)

    def _boxes(self, draw: Draw, height: int, width: int) -> np.ndarray:
        """Top, bottom, left, right of each row's rectangle.

        Int64 (B, 4), the ends excluded; zeros for none.
        """
        pixels = uniform(draw(1), *self._area) * (height * width)
        ratio = np.exp(uniform(draw(2), *self._log_ratio))
        tall = np.clip(np.rint(np.sqrt(pixels * ratio)), 1, height).astype(np.int64)
        wide = np.clip(np.rint(np.sqrt(pixels / ratio)), 1, width).astype(np.int64)
        top, left = below(draw(3), height - tall + 1), below(draw(4), width - wide + 1)
        chosen = uniform(draw(0)) < self._p
        return np.stack([top, top + tall, left, left + wide], 1) * chosen[:, None]

    def _erase_rows(self, image: Tensor, boxes: np.ndarray, fill: np.ndarray) -> Tensor:
        """One rectangle after the other.

        Of all pixels these alone are touched.
        """
        pixels = channels_last(image)
        for row in np.flatnonzero(boxes[:, 1]).tolist():
            top, bottom, left, right = boxes[row].tolist()
            pixels[row, top:bottom, left:right] = fill
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _erase_pixels(self, image: Tensor, boxes: np.ndarray, fill: np.ndarray) -> Tensor:
        image = without_uint16(image)
        fill_C = torch.from_numpy(fill).to(image.dtype).to(image.device, non_blocking=True)
        return torch.where(inside_boxes(image, boxes), fill_C[:, None, None], image)


class Brightness(Augmentation):
    """Multiplies a picture's pixels by one factor.

    Args:
        factor: smallest and largest.
    """

    def __init__(self, factor: tuple[float, float] = (0.8, 1.2)) -> None:
        _check_factor(factor)
        self._factor = factor

    def __call__(self, image: Tensor, draw: Draw, feature: FeatureSchema) -> Tensor:
        """Change each row of (B, C, H, W)."""
        factor = _per_row(uniform(draw(0), *self._factor), image)
        return _within_range(as_floats(image, copy=True).mul_(factor), feature)


class Contrast(Augmentation):
    """Moves a picture's pixels from, or towards, their mean in each channel.

    Args:
        factor: smallest and largest; above 1 moves from the mean.
    """

    def __init__(self, factor: tuple[float, float] = (0.8, 1.2)) -> None:
        _check_factor(factor)
        self._factor = factor

    def __call__(self, image: Tensor, draw: Draw, feature: FeatureSchema) -> Tensor:
        """Change each row of (B, C, H, W)."""
        factor = _per_row(uniform(draw(0), *self._factor), image)
        pixels = as_floats(image, copy=True)
        shift = pixels.mean(dim=(2, 3), keepdim=True) * (1 - factor)
        num, channels, height, width = pixels.shape
        if pixels.stride(1) == 1 < channels:  # channels last: whole rows of pixels, as in `_Affine`
            pixels.permute(0, 2, 3, 1).view(num, height, -1).mul_(factor[..., 0]).add_(
                shift.reshape(num, 1, channels).tile(width)
            )
        else:
            pixels.mul_(factor).add_(shift)
        return _within_range(pixels, feature)


class Noise(Augmentation):
    """Adds Gaussian noise.

    Args:
        std: its standard deviation, as a part of the dtype's range: 255, 65,535, or 1 for floats.
    """

    def __init__(self, std: float = 0.02) -> None:
        if not 0 <= std <= 1:
            raise ValueError("expected a part of the dtype's range, from 0 to 1")
        self._std = std

    def __call__(self, image: Tensor, draw: Draw, feature: FeatureSchema) -> Tensor:
        """Change each row of (B, C, H, W)."""
        num, size = len(image), image[0].numel()
        # A window of ready numbers at a random place, of random sign: 65 times as fast as new ones,
        # and the same on every device.
        table = _noise_numbers(max(NOISE_NUMBERS, 4 * size), str(image.device))
        windows = table.as_strided((len(table) - size + 1, size), (1, 1))
        place = torch.from_numpy(below(draw(0), len(windows))).to(image.device, non_blocking=True)
        noise = (
            windows.index_select(0, place)
            .reshape(num, *image.shape[2:], image.shape[1])
            .permute(0, 3, 1, 2)
        )
        sign = _per_row(1.0 - 2.0 * below(draw(1), 2), image)
        level = self._std * RANGES[feature.dtype]
        return _within_range(noise.mul_(sign * level).add_(as_floats(image)), feature)


def check_probability(p: float) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: it is not from 0 to 1.
    """
    if not 0 <= p <= 1:
        raise ValueError("expected a probability from 0 to 1")


def channels_last(image: Tensor) -> np.ndarray:
    """(B, C, H, W) on the CPU as (B, H, W, C), contiguous.

    The pack's batches already lie so and are not copied.
    """
    return image.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()


def as_elements(rows: np.ndarray) -> np.ndarray:
    """Contiguous rows as one element each, (B,), which numpy copies by memcpy,
    15 times as fast as torch's index_copy_.

    Args:
        rows: of one or more, any shape.
    """
    flat = rows.reshape(len(rows), -1)
    return flat.view(np.dtype((np.void, flat.shape[1] * flat.itemsize)))[:, 0]


def mirror_rows(pixels: np.ndarray, index: np.ndarray) -> None:
    """Mirror some rows of (B, H, W, C), contiguous, left to right, in place."""
    if not len(index):
        return
    bits = pixels.view(np.int16) if pixels.dtype == np.uint16 else pixels  # torch mirrors no uint16
    # Torch mirrors pixels of three bytes five times as fast as numpy; a picture is put back as one
    # element.
    picked = torch.from_numpy(bits).index_select(0, torch.from_numpy(index))
    mirrored = picked.permute(0, 3, 1, 2).flip(-1).permute(0, 2, 3, 1).contiguous()
    as_elements(bits)[index] = as_elements(mirrored.numpy())


def as_floats(image: Tensor, copy: bool = False) -> Tensor:
    """Pixels as float32, in the same units.

    In memory of their own where `copy` is true.
    """
    return image.to(torch.float32, copy=copy)


def without_uint16(image: Tensor) -> Tensor:
    """Pixels as they are, but uint16, which has few operators on
    accelerators, as float32, which holds its values.
    """
    return as_floats(image) if image.dtype == torch.uint16 else image


def inside_boxes(image: Tensor, boxes: np.ndarray) -> Tensor:
    """Which pixels lie in each row's box.

    Args:
        image: (B, C, H, W).
        boxes: top, bottom, left and right of each row, ends excluded.
    Returns:
        Bool, shape (B, 1, H, W), on the device of the image.
    """
    top, bottom, left, right = (
        torch.from_numpy(boxes).to(image.device, non_blocking=True)[:, :, None].unbind(1)
    )
    y_H, x_W = (torch.arange(size, device=image.device) for size in image.shape[2:])
    return ((y_H >= top) & (y_H < bottom))[:, None, :, None] & ((x_W >= left) & (x_W < right))[
        :, None, None
    ]


def _check_factor(factor: tuple[float, float]) -> None:
    if not 0 <= factor[0] <= factor[1]:
        raise ValueError("expected two factors, 0 or more, the smaller one first")


def _per_row(numbers: np.ndarray, image: Tensor) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32)).to(image.device, non_blocking=True)[
        :, None, None, None
    ]


def _within_range(pixels: Tensor, feature: FeatureSchema) -> Tensor:
    return pixels if feature.dtype == "float32" else pixels.clamp_(0, RANGES[feature.dtype])


@functools.cache
def _noise_numbers(number: int, device: str) -> Tensor:
    table = np.random.Generator(np.random.PCG64(0)).standard_normal(number, np.float32)
    return torch.from_numpy(table).to(device)
