"""Raw batches -> what a model sees.

On the device, augmented in training, standardised. Gathers nothing.

Every row draws for itself (see `datasets/augment/draws.py`). `datasets/augment/` also holds what
each change does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...recipe import Named
from ...schema import Batch, FeatureSchema, Schema
from ..augment import (
    Draw,
    Flip,
    Geometric,
    Step,
    check_augment,
    check_augment_fits,
    compose,
    drawer,
    mix_batch,
    move_points,
    plan_augmentations,
)

# Shapes: B rows in a batch, C channels, H height, W width, D columns, P points.


class BatchTransform:
    """Moves raw batches to the device, augments them and standardises them.

    Several small batches may come as one to `begin`, which then costs less than each alone;
    `finish` takes them one by one, while they are in the processor's cache.

    Args:
        schema: means and standard deviations.
        augment: names and arguments of augmentations, in the order in which they are done.
        seed: decides the draws, together with epoch and row.
        device: where the batches go.
        dtype: of the inputs; the target is float32, or float64 if this is.
        channels_last: memory format of the images.

    Raises:
        RecipeError: an augmentation or an argument does not exist, or does not fit the features.
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
        check_augment_fits(augment, schema.inputs, schema.targets)
        self._plan = plan_augmentations(augment)
        self._schema = schema
        self._seed = seed
        self._device = torch.device(device)
        self._channels_last = channels_last
        target_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self._inputs = [_Affine(feature, dtype, self._device) for feature in schema.inputs]
        self._target = _Affine(_side_by_side(schema.targets), target_dtype, self._device)

    def __call__(self, batch: Batch, epoch: int = 0, training: bool = False) -> Batch:
        """Prepare a batch.

        The same rows, on the device, augmented where it trains, standardised.
        """
        return self.finish(self.begin(batch, epoch), epoch) if training else self.standardise(batch)

    @property
    def mirrors_first(self) -> bool:
        """Whether pictures are mirrored before anything else is done to
        them, so that they may come mirrored.
        """
        steps = self._plan.copying
        return bool(steps) and isinstance(steps[0].change, Flip) and self._device.type == "cpu"

    def mirrored(self, rows: Tensor, repeats: Tensor, epoch: int) -> np.ndarray:
        """Which rows' pictures that first flip mirrors.

        Bool, shape (B,).
        """
        step = self._plan.copying[0]
        assert isinstance(step.change, Flip)
        return step.change.choose(_streams(drawer(self._seed, epoch, rows, repeats), step))

    def begin(self, batch: Batch, epoch: int, is_mirrored: bool = False) -> Batch:
        """Do the augmentations that come first and only copy pixels, on the
        device.

        Args:
            batch: raw, as the loader gives it; its pixels may be overwritten.
            epoch: counts from 0; another epoch draws anew.
            is_mirrored: the pictures come as `mirrored` says.

        Returns:
            The same rows, still raw values.
        """
        return self._augment(batch, epoch, self._plan.copying, num_done=int(is_mirrored))

    def finish(self, batch: Batch, epoch: int) -> Batch:
        """Do the other augmentations, standardise, and mix the rows.

        Args:
            batch: what `begin` gave, or the rows of it that make one step: rows are mixed with
                those beside them.
            epoch: counts from 0.

        Returns:
            The same rows, ready for the model.
        """
        batch = self.standardise(self._augment(batch, epoch, self._plan.computing))
        mixers = self._plan.mixers
        return mix_batch(batch, self._schema, mixers, self._seed, epoch) if mixers else batch

    def standardise(self, batch: Batch) -> Batch:
        """Move a batch to the device and standardise inputs and targets.

        Category ids stay as they are.
        """
        inputs = [
            self._apply(affine, one) for affine, one in zip(self._inputs, batch.inputs, strict=True)
        ]
        if self._channels_last:
            inputs = [
                one.contiguous(memory_format=torch.channels_last) if one.ndim == 4 else one
                for one in inputs
            ]
        return batch._replace(inputs=tuple(inputs), target=self._apply(self._target, batch.target))

    def _augment(self, batch: Batch, epoch: int, steps: Sequence[Step], num_done: int = 0) -> Batch:
        """Do steps, of which the first `num_done` are done to the pictures
        already.
        """
        if not steps or not self._schema.has_images:
            return batch
        draw = drawer(self._seed, epoch, batch.rows, batch.repeats)
        inputs = list(batch.inputs)
        for number, feature in enumerate(self._schema.inputs):
            if feature.facts.is_image:
                image = self._move(inputs[number])
                for step in steps[num_done:]:
                    # Several images of a row change alike: they may show one thing.
                    image = step.change(image, _streams(draw, step), feature)
                inputs[number] = image
        return self._move_points(batch._replace(inputs=tuple(inputs)), draw, steps)

    def _move_points(self, batch: Batch, draw: Draw, steps: Sequence[Step]) -> Batch:
        """Let points, as inputs and as columns of the target, follow the
        images that they lie on.
        """
        features = [*self._schema.inputs, *self._schema.targets]
        names = {feature.image for feature in features if feature.facts.lies_on_image}
        maps = {
            name: found for name in names if (found := self._maps(name, draw, steps)) is not None
        }
        if not maps:
            return batch
        inputs = [
            move_points(one, maps[feature.image], feature.swap)
            if feature.facts.lies_on_image
            else one
            for feature, one in zip(self._schema.inputs, batch.inputs, strict=True)
        ]
        target = batch.target
        if self._schema.target_facts.lies_on_image:
            shares = target.split([feature.num_outputs for feature in self._schema.targets], dim=1)
            moved = [
                move_points(share.unflatten(1, (-1, 2)), maps[feature.image], feature.swap).flatten(
                    1
                )
                for feature, share in zip(self._schema.targets, shares, strict=True)
            ]
            target = torch.cat(moved, dim=1)
        return batch._replace(inputs=tuple(inputs), target=target)

    def _maps(self, name: str, draw: Draw, steps: Sequence[Step]) -> np.ndarray | None:
        """Where the pixels of an image go in all steps together.

        None where nothing moves them.
        """
        image = next(feature for feature in self._schema.inputs if feature.name == name)
        maps = None
        for step in steps:
            if isinstance(step.change, Geometric):
                maps = compose(maps, step.change.maps(_streams(draw, step), *image.shape[1:]))
        return maps

    def _apply(self, affine: _Affine, raw: Tensor) -> Tensor:
        # Numbers are few, and need float64, which not every accelerator has: they are standardised
        # before they move.
        return self._move(affine(raw)) if affine.is_number else affine(self._move(raw))

    def _move(self, values: Tensor) -> Tensor:
        return values.to(self._device, non_blocking=True)


def _streams(draw: Draw, step: Step) -> Draw:
    return lambda part: draw(step.stream + part)


class Standardise(nn.Module):
    """Raw inputs -> standardised inputs, in float32, as a module that
    torch.export takes: to serve a model with.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(_Affine(feature, torch.float32) for feature in schema.inputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Standardise each input as `BatchTransform` does.

        Args:
            inputs: raw, in the order of the schema.
        """
        return tuple(affine(one) for affine, one in zip(self.inputs, inputs, strict=True))


class Unstandardise(nn.Module):
    """The way back for a model's outputs, all targets' side by side, as a
    module that torch.export takes.

    Numbers come in the table's units, points in pixels of the stored image; scores of categories
    and labels pass.
    """

    std: Tensor
    mean: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.is_number = schema.target_facts.is_number
        target = _side_by_side(schema.targets)
        self.register_buffer("std", torch.tensor(target.std, dtype=torch.float64), persistent=False)
        self.register_buffer(
            "mean", torch.tensor(target.mean, dtype=torch.float64), persistent=False
        )

    def forward(self, outputs: Tensor) -> Tensor:
        """Shape (B, D) to the same shape.

        Numbers and points as float64, so that large ones keep their digits.
        """
        return outputs.double() * self.std + self.mean if self.is_number else outputs


class _Affine(nn.Module):
    """Standardises one feature.

    Multiply, add; fills and flags missing numbers; ids, and tags, pass.
    """

    scale: Tensor
    shift: Tensor
    fill: Tensor

    def __init__(
        self, feature: FeatureSchema, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.is_image, self.is_number = feature.facts.is_image, feature.facts.is_number
        shape = (-1, 1, 1) if self.is_image else feature.shape if len(feature.shape) > 1 else (-1,)
        mean, std = (
            torch.tensor(numbers, dtype=torch.float64) for numbers in (feature.mean, feature.std)
        )
        scale = 1 / std
        if feature.dtype == "uint8":
            scale = _shorten(scale)
        shift = -mean * scale if self.is_image else -mean
        work = torch.float64 if self.is_number else torch.promote_types(dtype, torch.float32)
        self.dtype, self.work = dtype, work
        device = "cpu" if self.is_number else device
        self.register_buffer("scale", scale.to(device, work).reshape(shape), persistent=False)
        self.register_buffer("shift", shift.to(device, work).reshape(shape), persistent=False)
        self.flagged = feature.flagged
        self.register_buffer(
            "fill", torch.tensor(feature.fill, dtype=torch.float64), persistent=False
        )
        self.scale_row, self.shift_row = (
            torch.empty(0),
            torch.empty(0),
        )  # for one row of pixels, made when it is known

    def forward(self, raw: Tensor) -> Tensor:
        if not (self.is_image or self.is_number):
            return raw
        if self.is_image and raw.stride(1) == 1 < raw.shape[1]:
            return self._forward_channels_last(raw)
        value = raw.to(self.work, copy=True)
        if self.is_image:
            value = _multiply_add(value, self.scale, self.shift, raw.dtype)
        elif len(self.fill):
            value = self._fill_missing(value)
        else:  # large numbers with a small spread (years, times) keep their digits
            value = value.add_(self.shift).mul_(self.scale)
        return value.to(self.dtype)

    def _fill_missing(self, value: Tensor) -> Tensor:
        """Standardised numbers with NaN filled, and behind them 1 where a
        number of a flagged column is missing.
        """
        missing = value.isnan()
        filled = torch.where(missing, self.fill, value).add(self.shift).mul(self.scale)
        return (
            torch.cat([filled, missing[:, self.flagged].to(value.dtype)], dim=1)
            if self.flagged
            else filled
        )

    def _forward_channels_last(self, raw: Tensor) -> Tensor:
        """The same numbers, three times as fast.

        Whole rows of pixels, not channels of three, are what is scaled.
        """
        num, channels, height, width = raw.shape
        rows = (
            raw.permute(0, 2, 3, 1).reshape(num, height, width * channels).to(self.work, copy=True)
        )
        if len(self.scale_row) != width * channels:
            self.scale_row, self.shift_row = (
                self.scale.reshape(-1).tile(width),
                self.shift.reshape(-1).tile(width),
            )
        rows = _multiply_add(rows, self.scale_row, self.shift_row, raw.dtype)
        return rows.reshape(num, height, width, channels).permute(0, 3, 1, 2).to(self.dtype)


def _shorten(scale: Tensor) -> Tensor:
    """The nearest numbers of 16 significant bits.

    Times a pixel of 8 they fit into the 24 of float32.
    """
    fraction, exponent = torch.frexp(scale)
    return torch.ldexp((fraction * 2**16).round() / 2**16, exponent)


def _multiply_add(value: Tensor, scale: Tensor, shift: Tensor, raw: torch.dtype) -> Tensor:
    """In place, and the same bits on any processor, for any place in a batch.

    In one operation some processors round the product and others do not; that is no matter where it
    is exact.
    """
    return (
        torch.addcmul(shift, value, scale, out=value)
        if raw == torch.uint8
        else value.mul_(scale).add_(shift)
    )


def _side_by_side(targets: Sequence[FeatureSchema]) -> FeatureSchema:
    """All targets as one feature, of the columns of numbers or points that a
    batch's target has.
    """
    means = [number for target in targets for number in target.mean]
    stds = [number for target in targets for number in target.std]
    return targets[0].model_copy(update={"mean": means, "std": stds, "shape": [len(means)]})
