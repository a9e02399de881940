"""Random changes that move pixels, and the points that go with them.

A change of a row is one affine map of pixel coordinates (x, y), pixel centres at whole numbers.
Mirrors and moves by whole pixels copy them; a rotation or a change of size samples them anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import RecipeError
from ...schema import FeatureSchema
from .draws import Draw, below, uniform
from .pixels import (
    Augmentation,
    as_floats,
    channels_last,
    check_probability,
    mirror_rows,
    without_uint16,
)

# Shapes: B rows in a batch, C channels, H height, W width, P points.
Edge = Literal["zeros", "reflect"]
# As many as an image's side may have: farther out is nothing.
MOST_PADDING = 65_536
# And of one image, in multiples of its longer side: what is padded takes the square of it.
MOST_SIDES = 2


class Geometric(Augmentation, ABC):
    """A change that moves pixels."""

    @abstractmethod
    def maps(self, draw: Draw, height: int, width: int) -> np.ndarray:
        """Where pixels go.

        Float64 (B, 2, 3), new = [:, :, :2] @ old + [:, :, 2] of (x, y).
        """


class Flip(Geometric):
    """Mirrors an image left to right.

    Args:
        p: probability, per row.
    """

    copies = True

    def __init__(self, p: float = 0.5) -> None:
        check_probability(p)
        self._p = p

    def __call__(self, image: Tensor, draw: Draw, feature: FeatureSchema) -> Tensor:
        """Flip some rows of (B, C, H, W)."""
        chosen = self.choose(draw)
        if image.device.type == "cpu":
            return self._flip_rows(image, chosen)
        return self._flip_pixels(image, chosen)

    def maps(self, draw: Draw, height: int, width: int) -> np.ndarray:
        """A mirror.

        X becomes width - 1 - x.
        """
        chosen = self.choose(draw)
        maps = _unit_maps(len(chosen))
        maps[chosen, 0, 0], maps[chosen, 0, 2] = -1, width - 1
        return maps

    def choose(self, draw: Draw) -> np.ndarray:
        """Which rows are mirrored.

        Bool, shape (B,).
        """
        return uniform(draw(0)) < self._p

    def _flip_rows(self, image: Tensor, chosen: np.ndarray) -> Tensor:
        pixels = channels_last(image)
        mirror_rows(pixels, np.flatnonzero(chosen))
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _flip_pixels(self, image: Tensor, chosen: np.ndarray) -> Tensor:
        image = without_uint16(image)
        mask = torch.from_numpy(chosen).to(image.device, non_blocking=True)
        return torch.where(mask[:, None, None, None], image.flip(-1), image)


class Crop(Geometric):
    """Moves an image by up to `padding` pixels in both directions.

    Its size stays.

    Args:
        padding: the largest move; every move from -padding to +padding is equally likely.
        mode: what comes in at the edge: zeros (raw black), or reflect (the picture, mirrored at its
            edge pixel).
    """

    copies = True

    def __init__(self, padding: int = 4, mode: Edge = "zeros") -> None:
        if not 0 <= padding <= MOST_PADDING:
            raise ValueError(f"expected a number of pixels from 0 to {MOST_PADDING:,}")
        self._padding, self._mode = padding, mode

    def __call__(self, image: Tensor, draw: Draw, feature: FeatureSchema) -> Tensor:
        """Move each row of (B, C, H, W) by its own draw."""
        if self._mode == "reflect" and self._padding >= min(image.shape[2:]):
            raise RecipeError(
                f"train.augment crop: cannot reflect {self._padding} pixels of an image of "
                f"{tuple(image.shape[2:])}"
            )
        if self._padding > MOST_SIDES * max(image.shape[2:]):
            raise RecipeError(
                f"train.augment crop: padding {self._padding} moves an image of "
                f"{tuple(image.shape[2:])} out of sight; "
                f"give at most {MOST_SIDES * max(image.shape[2:])}"
            )
        top, left = self._window(draw)
        if image.device.type == "cpu":
            moved = self._move_rows(channels_last(image), top, left)
            return torch.from_numpy(moved).permute(0, 3, 1, 2)
        return self._move_pixels(image, top - self._padding, left - self._padding)

    def maps(self, draw: Draw, height: int, width: int) -> np.ndarray:
        """A move against that of the window."""
        top, left = self._window(draw)
        maps = _unit_maps(len(top))
        maps[:, 0, 2], maps[:, 1, 2] = self._padding - left, self._padding - top
        return maps

    def _window(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        number = 2 * self._padding + 1
        return below(draw(0), number), below(draw(1), number)

    def _move_rows(self, image: np.ndarray, top: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Cut each window out of the padded (B, H, W, C) by copying whole
        rows of pixels: one gather of B*H of them.
        """
        num, height, width, channels = image.shape
        padded = self._pad(image)
        tall, wide = padded.shape[1:3]
        # Every run of `width` pixels in the buffer, seen as one element.
        run = width * channels
        runs = np.ndarray(
            (padded.size - run + 1,),
            f"V{run * padded.itemsize}",
            padded.data,
            strides=(padded.itemsize,),
        )
        first = ((np.arange(num) * tall + top) * wide + left)[:, None] + np.arange(height) * wide
        return runs[first * channels].view(image.dtype).reshape(image.shape)

    def _pad(self, image: np.ndarray) -> np.ndarray:
        num, height, width, channels = image.shape
        pad = self._padding
        padded = np.zeros((num, height + 2 * pad, width + 2 * pad, channels), image.dtype)
        padded[:, pad : pad + height, pad : pad + width] = image
        if self._mode == "reflect" and pad:
            middle = padded[:, pad : pad + height]
            middle[:, :, :pad] = middle[:, :, 2 * pad : pad : -1]
            middle[:, :, -pad:] = middle[:, :, -pad - 2 : -2 * pad - 2 : -1]
            padded[:, :pad] = padded[:, 2 * pad : pad : -1]
            padded[:, -pad:] = padded[:, -pad - 2 : -2 * pad - 2 : -1]
        return padded

    def _move_pixels(self, image: Tensor, down: np.ndarray, right: np.ndarray) -> Tensor:
        """The same, pixel by pixel, as accelerators like it."""
        num, channels, height, width = image.shape
        moves = torch.from_numpy(np.stack([down, right])).to(image.device, non_blocking=True)
        y_BH = moves[0][:, None] + torch.arange(height, device=image.device)
        x_BW = moves[1][:, None] + torch.arange(width, device=image.device)
        inside = ((y_BH >= 0) & (y_BH < height))[:, :, None] & ((x_BW >= 0) & (x_BW < width))[
            :, None
        ]
        y_BH, x_BW = (
            (size - 1) - ((size - 1) - at.abs()).abs()
            for at, size in ((y_BH, height), (x_BW, width))
        )
        source = (
            (y_BH[:, :, None] * width + x_BW[:, None]).reshape(num, 1, -1).expand(-1, channels, -1)
        )
        moved = (
            without_uint16(image).reshape(num, channels, -1).gather(2, source).reshape(image.shape)
        )
        return moved if self._mode == "reflect" else moved.masked_fill(~inside[:, None], 0)


class Resample(Geometric):
    """A change about the centre of the picture that samples it anew.

    The result is float32.
    """

    def __init__(self, mode: Edge) -> None:
        self.mode: Edge = mode

    def __call__(self, image: Tensor, draw: Draw, feature: FeatureSchema) -> Tensor:
        """Change each row of (B, C, H, W) by its own draw."""
        return resample(image, self.maps(draw, *image.shape[2:]), self.mode)

    def maps(self, draw: Draw, height: int, width: int) -> np.ndarray:
        """`turns` about the centre."""
        turns = self.turns(draw)
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        return np.concatenate([turns, (centre - turns @ centre)[:, :, None]], axis=2)

    @abstractmethod
    def turns(self, draw: Draw) -> np.ndarray:
        """Linear maps of (x, y) as seen from the centre.

        Float64 (B, 2, 2).
        """


class Rotate(Resample):
    """Turns an image about its centre.

    Args:
        degrees: the largest angle; every one from -degrees to +degrees is equally likely.
        mode: what comes in at the edge: zeros (raw black), or reflect.
    """

    def __init__(self, degrees: float = 10.0, mode: Edge = "zeros") -> None:
        if not 0 <= degrees <= 180:
            raise ValueError("expected degrees from 0 to 180")
        super().__init__(mode)
        self._degrees = degrees

    def turns(self, draw: Draw) -> np.ndarray:
        """A rotation.

        Clockwise on the screen for positive angles, as y counts downwards.
        """
        angle = np.deg2rad(uniform(draw(0), -self._degrees, self._degrees))
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)


class Scale(Resample):
    """Enlarges or shrinks what is in an image, about its centre.

    The image's size stays.

    Args:
        factor: smallest and largest; above 1 enlarges. A factor is as likely as its inverse.
        mode: what comes in at the edge of a shrunk picture: zeros (raw black), or reflect.
    """

    def __init__(self, factor: tuple[float, float] = (0.9, 1.1), mode: Edge = "zeros") -> None:
        if not 0 < factor[0] <= factor[1]:
            raise ValueError("expected two factors above 0, the smaller one first")
        super().__init__(mode)
        self._low, self._high = np.log(factor)

    def turns(self, draw: Draw) -> np.ndarray:
        """The same factor both ways."""
        return np.exp(uniform(draw(0), self._low, self._high))[:, None, None] * np.eye(2)


class Chain(Resample):
    """Rotations and changes of size that stand beside each other, sampled
    once instead of again and again.
    """

    def __init__(self, parts: Sequence[Resample]) -> None:
        super().__init__(parts[0].mode)
        self.parts = list(parts)

    def turns(self, draw: Draw) -> np.ndarray:
        """One after the other.

        Each with the streams that it would have alone.
        """
        turns = np.eye(2)
        for number, part in enumerate(self.parts):
            turns = part.turns(lambda stream, number=number: draw(number * 16 + stream)) @ turns
        return turns


def resample(image: Tensor, maps: np.ndarray, mode: Edge) -> Tensor:
    """Move the pixels of each row by its map, by bilinear interpolation.

    Args:
        image: (B, C, H, W) of any dtype.
        maps: float64 (B, 2, 3), see `Geometric.maps`; each can be inverted.
        mode: what lies beyond the edge.

    Returns:
        float32, of the same shape.
    """
    height, width = image.shape[2:]
    back = np.linalg.inv(maps[:, :, :2])
    shift = -(back @ maps[:, :, 2:])
    # torch counts from -1, the centre of the first pixel, to 1, that of the last (align_corners).
    to_unit = 2 / np.maximum([[width - 1], [height - 1]], 1)
    numbers = np.concatenate([back * to_unit, shift * to_unit - 1], axis=2).astype(np.float32)
    by_x, by_y, shift = torch.from_numpy(numbers).to(image.device, non_blocking=True).unbind(2)
    x_W = torch.arange(width, dtype=torch.float32, device=image.device)
    y_H = torch.arange(height, dtype=torch.float32, device=image.device)
    grid = torch.empty((len(image), height, width, 2), device=image.device)
    # Products of B*W and B*H, and one sum of B*H*W: two matrices a pixel would take twice as long.
    for axis in (0, 1):
        along_BW, down_BH = (
            by_x[:, axis, None] * x_W,
            by_y[:, axis, None] * y_H + shift[:, axis, None],
        )
        torch.add(along_BW[:, None], down_BH[:, :, None], out=grid[..., axis])
    edge = "zeros" if mode == "zeros" else "reflection"
    return F.grid_sample(
        as_floats(image), grid, mode="bilinear", padding_mode=edge, align_corners=True
    )


def move_points(points: Tensor, maps: np.ndarray, swap: Sequence[Sequence[int]]) -> Tensor:
    """Move each row's points by its map.

    Where that mirrors, the pairs in `swap` change places.

    Args:
        points: (B, P, 2), x and y; they may leave the picture.
        maps: float64 (B, 2, 3), see `Geometric.maps`.
        swap: pairs of points, counted from 0.

    Returns:
        Points of the same shape and dtype, in memory of their own.
    """
    map_B23 = torch.from_numpy(maps).to(points.dtype)
    x, y = points[..., :1], points[..., 1:]
    by_x, by_y, shift = map_B23[:, None].unbind(-1)
    moved = by_x * x + by_y * y + shift
    if len(swap):
        order = torch.arange(points.shape[1])
        for one, other in swap:
            order[one], order[other] = other, one
        mirrored = torch.from_numpy(np.linalg.det(maps[:, :, :2]) < 0)
        moved = torch.where(mirrored[:, None, None], moved[:, order], moved)
    return moved


def compose(first: np.ndarray | None, then: np.ndarray) -> np.ndarray:
    """The map (B, 2, 3) of doing one after the other.

    None changes nothing.
    """
    if first is None:
        return then
    linear = then[:, :, :2] @ first
    linear[:, :, 2] += then[:, :, 2]
    return linear


def _unit_maps(num: int) -> np.ndarray:
    return np.tile(np.eye(2, 3), (num, 1, 1))
