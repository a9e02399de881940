"""Raw batches -> what a model sees: on the device, augmented in training, standardised. Gathers nothing.

Every row draws for itself, from a hash of (seed, epoch, its position in the pack), so that its picture does not depend
on the other rows of the batch, on the number of workers or on where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import check_arguments, check_values
from ..errors import RecipeError
from ..recipe import Named, nearest
from ..schema import Batch, FeatureSchema, Schema

# Shapes: B rows in a batch, C channels, H height, W width, D columns.

# A row's random numbers: call it with a stream number, get uint64 of shape (B,).
Draw = Callable[[int], np.ndarray]
# Kinds that are float64 when raw.
_NUMBERS = ("number", "points")


class BatchTransform:
    """Moves raw batches to the device, augments them and standardises them.

    Args:
        schema: means and standard deviations.
        augment: names and arguments of augmentations, in the order in which they are done.
        seed: decides the draws, together with epoch and row.
        device: where the batches go.
        dtype: of the inputs; the target is float32, or float64 if this is.
        channels_last: memory format of the images.

    Raises:
        RecipeError: an augmentation or an argument does not exist.
    """

    def __init__(
        self,
        schema: Schema,
        augment: Sequence[Named],
        *,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        check_augment(augment)
        self._augment = [AUGMENTATIONS[step.name](**step.args) for step in augment]
        self._kinds = [feature.kind for feature in schema.inputs]
        self._seed = seed
        self._device = torch.device(device)
        self._channels_last = channels_last
        target_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self._inputs = [_Affine(feature, dtype, self._device) for feature in schema.inputs]
        self._target = _Affine(_side_by_side(schema.targets), target_dtype, self._device)

    def __call__(self, batch: Batch, epoch: int = 0, training: bool = False) -> Batch:
        """Prepare a batch: the same rows, on the device, augmented where it trains, standardised."""
        return self.standardise(self.augment(batch, epoch) if training else batch)

    def augment(self, batch: Batch, epoch: int) -> Batch:
        """Move a raw batch to the device and change its images at random.

        Args:
            batch: raw, as the loader gives it; its pixels may be overwritten.
            epoch: counts from 0; another epoch draws anew.

        Returns:
            The same rows, still raw values.
        """
        if not self._augment or "image" not in self._kinds:
            return batch
        inputs = list(batch.inputs)
        draw = _drawer(self._seed, epoch, batch.rows)
        for stream, change in enumerate(self._augment):
            # Several images of a row change alike: they may show one thing.
            inputs = [
                change(self._move(one), lambda part, stream=stream: draw(stream * 16 + part))
                if kind == "image"
                else one
                for kind, one in zip(self._kinds, inputs, strict=True)
            ]
        return batch._replace(inputs=tuple(inputs))

    def standardise(self, batch: Batch) -> Batch:
        """Move a batch to the device and standardise inputs and targets; category ids stay as they are."""
        inputs = [self._apply(affine, one) for affine, one in zip(self._inputs, batch.inputs, strict=True)]
        if self._channels_last:
            inputs = [one.contiguous(memory_format=torch.channels_last) if one.ndim == 4 else one for one in inputs]
        return Batch(batch.rows, tuple(inputs), self._apply(self._target, batch.target))

    def _apply(self, affine: _Affine, raw: Tensor) -> Tensor:
        # Numbers are few, and need float64, which not every accelerator has: they are standardised before they move.
        return self._move(affine(raw)) if affine.kind in _NUMBERS else affine(self._move(raw))

    def _move(self, values: Tensor) -> Tensor:
        return values.to(self._device, non_blocking=True)


class Standardise(nn.Module):
    """Raw inputs -> standardised inputs, in float32, as a module that torch.export takes: to serve a model with."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(_Affine(feature, torch.float32) for feature in schema.inputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Standardise each input as `BatchTransform` does.

        Args:
            inputs: raw, in the order of the schema.
        """
        return tuple(affine(one) for affine, one in zip(self.inputs, inputs, strict=True))


def unstandardise_target(schema: Schema, values: Tensor) -> Tensor:
    """Outputs (B, D) for numbers or points in their raw units, all targets' side by side; those for categories pass.

    Points are then in pixels of the stored image: `points.py` brings them to the file's.
    """
    if schema.target_kind not in _NUMBERS:
        return values
    target = _side_by_side(schema.targets)
    return values * values.new_tensor(target.std) + values.new_tensor(target.mean)


def check_augment(augment: Sequence[Named]) -> None:
    """Check names and arguments.

    Raises:
        RecipeError: names the nearest legal ones.
    """
    for step in augment:
        if step.name not in AUGMENTATIONS:
            raise RecipeError(f"train.augment: {step.name!r} does not exist; {nearest(step.name, AUGMENTATIONS)}")
        key, augmentation = f"train.augment.{step.name}", AUGMENTATIONS[step.name]
        check_arguments(key, step.name, step.args, augmentation)
        check_values(key, step.name, step.args, lambda args, augmentation=augmentation: _refusal(augmentation, args))


def _refusal(augmentation: Callable[..., object], args: dict[str, Any]) -> str:
    try:
        augmentation(**args)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


class Flip:
    """Mirrors an image left to right.

    Args:
        p: probability, per row.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError("expected a probability from 0 to 1")
        self._p = p

    def __call__(self, image: Tensor, draw: Draw) -> Tensor:
        """Flip some rows of (B, C, H, W)."""
        chosen = (draw(0) >> np.uint64(11)) * 2.0**-53 < self._p
        if image.device.type != "cpu":
            mask = torch.from_numpy(chosen).to(image.device, non_blocking=True)
            return torch.where(mask[:, None, None, None], image.flip(-1), image)
        pixels, index = _channels_last(image), np.flatnonzero(chosen)
        height, width, channels = pixels.shape[1:]
        mirror = np.arange(width * channels).reshape(width, channels)[::-1].reshape(-1)
        rows = pixels.reshape(len(pixels), height, -1)
        rows[index] = np.take(rows[index], mirror, axis=2)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class Crop:
    """Moves an image by up to `padding` pixels in both directions; its size stays.

    Args:
        padding: the largest move; every move from -padding to +padding is equally likely.
        mode: what comes in at the edge: zeros (raw black), or reflect (the picture, mirrored at its edge pixel).
    """

    def __init__(self, padding: int = 4, mode: Literal["zeros", "reflect"] = "zeros") -> None:
        if padding < 0:
            raise ValueError("expected a number of pixels, 0 or more")
        self._padding, self._mode = padding, mode

    def __call__(self, image: Tensor, draw: Draw) -> Tensor:
        """Move each row of (B, C, H, W) by its own draw."""
        if self._mode == "reflect" and self._padding >= min(image.shape[2:]):
            raise RecipeError(
                f"train.augment crop: cannot reflect {self._padding} pixels of an image of {tuple(image.shape[2:])}"
            )
        number = np.uint64(2 * self._padding + 1)
        top, left = ((draw(part) % number).astype(np.int64) for part in (0, 1))
        if image.device.type == "cpu":
            moved = self._move_rows(_channels_last(image), top, left)
            return torch.from_numpy(moved).permute(0, 3, 1, 2)
        return self._move_pixels(image, top - self._padding, left - self._padding)

    def _move_rows(self, image: np.ndarray, top: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Cut each window out of the padded (B, H, W, C) by copying whole rows of pixels: one gather of B*H of them."""
        num, height, width, channels = image.shape
        padded = self._pad(image)
        tall, wide = padded.shape[1:3]
        # Every run of `width` pixels in the buffer, seen as one element.
        run = width * channels
        runs = np.ndarray(
            (padded.size - run + 1,), f"V{run * padded.itemsize}", padded.data, strides=(padded.itemsize,)
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
        inside = ((y_BH >= 0) & (y_BH < height))[:, :, None] & ((x_BW >= 0) & (x_BW < width))[:, None]
        y_BH, x_BW = ((size - 1) - ((size - 1) - at.abs()).abs() for at, size in ((y_BH, height), (x_BW, width)))
        source = (y_BH[:, :, None] * width + x_BW[:, None]).reshape(num, 1, -1).expand(-1, channels, -1)
        wide = image.to(torch.float32) if image.dtype == torch.uint16 else image  # uint16 has few operators
        moved = wide.reshape(num, channels, -1).gather(2, source).reshape(image.shape)
        return moved if self._mode == "reflect" else moved.masked_fill(~inside[:, None], 0)


AUGMENTATIONS: dict[str, Callable[..., Callable[[Tensor, Draw], Tensor]]] = {"flip": Flip, "crop": Crop}


class _Affine(nn.Module):
    """Standardises one feature: multiply, add; category ids pass."""

    scale: Tensor
    shift: Tensor

    def __init__(self, feature: FeatureSchema, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.kind = feature.kind
        shape = (-1, 1, 1) if feature.kind == "image" else feature.shape if feature.kind == "points" else (-1,)
        mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in (feature.mean, feature.std))
        shift = -mean / std if feature.kind == "image" else -mean
        is_number = feature.kind in _NUMBERS
        work = torch.float64 if is_number else torch.promote_types(dtype, torch.float32)
        self.dtype, self.work = dtype, work
        device = "cpu" if is_number else device
        self.register_buffer("scale", (1 / std).to(device, work).reshape(shape), persistent=False)
        self.register_buffer("shift", shift.to(device, work).reshape(shape), persistent=False)
        self.scale_row, self.shift_row = torch.empty(0), torch.empty(0)  # for one row of pixels, made when it is known

    def forward(self, raw: Tensor) -> Tensor:
        if self.kind == "category":
            return raw
        if self.kind == "image" and raw.stride(1) == 1 < raw.shape[1]:
            return self._forward_channels_last(raw)
        value = raw.to(self.work, copy=True)
        if self.kind == "image":
            value = value.mul_(self.scale).add_(self.shift)
        else:  # large numbers with a small spread (years, times) keep their digits
            value = value.add_(self.shift).mul_(self.scale)
        return value.to(self.dtype)

    def _forward_channels_last(self, raw: Tensor) -> Tensor:
        """The same numbers, three times as fast: whole rows of pixels, not channels of three, are what is scaled."""
        num, channels, height, width = raw.shape
        rows = raw.permute(0, 2, 3, 1).reshape(num, height, width * channels).to(self.work, copy=True)
        if len(self.scale_row) != width * channels:
            self.scale_row, self.shift_row = self.scale.reshape(-1).tile(width), self.shift.reshape(-1).tile(width)
        rows = rows.mul_(self.scale_row).add_(self.shift_row)
        return rows.reshape(num, height, width, channels).permute(0, 3, 1, 2).to(self.dtype)


def _side_by_side(targets: Sequence[FeatureSchema]) -> FeatureSchema:
    """All targets as one feature, of the columns of numbers or points that a batch's target has."""
    means = [number for target in targets for number in target.mean]
    stds = [number for target in targets for number in target.std]
    return targets[0].model_copy(update={"mean": means, "std": stds, "shape": [len(means)]})


def _channels_last(image: Tensor) -> np.ndarray:
    """(B, C, H, W) on the CPU as (B, H, W, C), contiguous; the pack's batches already lie so and are not copied."""
    return image.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()


def _drawer(seed: int, epoch: int, rows: Tensor) -> Draw:
    """Random numbers of each row: splitmix64 (Steele, Lea and Flood 2014) of seed, epoch, row and stream."""
    key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(epoch))
    base = _mix(rows.numpy().astype(np.uint64) + key)

    def draw(stream: int) -> np.ndarray:
        return _mix(base + np.array([stream + 1], np.uint64) * _GOLDEN)  # an array wraps without a warning

    return draw


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(state: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, on uint64, which wraps."""
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
