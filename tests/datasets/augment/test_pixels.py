from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchrelay.datasets.augment.draws import Draw, drawer
from torchrelay.datasets.augment.pixels import (
    Augmentation,
    Brightness,
    Contrast,
    Erase,
    Noise,
    inside_boxes,
)
from torchrelay.schema import FeatureSchema

DTYPES = [torch.uint8, torch.uint16, torch.float32]


def feature_of(dtype: torch.dtype, mean: float = 77.4, channels: int = 2) -> FeatureSchema:
    name = str(dtype).removeprefix("torch.")
    return FeatureSchema(
        name="image",
        kind="image",
        columns=["i"],
        shape=[channels, 16, 20],
        dtype=name,
        mean=[mean] * channels,
    )


def images_of(num: int, dtype: torch.dtype, last: bool = True, channels: int = 2) -> Tensor:
    pixels = torch.randint(
        1, 256, (num, 16, 20, channels), generator=torch.Generator().manual_seed(2)
    ).to(dtype)
    image = pixels.permute(0, 3, 1, 2)
    return image.clone(memory_format=torch.preserve_format if last else torch.contiguous_format)


def draw_for(num: int, epoch: int = 0) -> Draw:
    return drawer(0, epoch, torch.arange(num))


def box_of(changed: np.ndarray) -> tuple[int, int, int, int]:
    """Of what changed (H, W): top, bottom, left, right; it must be a rectangle."""
    y, x = np.nonzero(changed)
    box = y.min(), y.max() + 1, x.min(), x.max() + 1
    assert changed[box[0] : box[1], box[2] : box[3]].all()
    return box


@pytest.mark.parametrize("dtype", DTYPES)
def test_erase_fills_a_rectangle_of_the_area_and_ratio_with_the_mean(dtype: torch.dtype) -> None:
    image = images_of(400, torch.uint8)
    image[image == 77] = 78
    image = image.to(dtype)
    found = Erase(0.5, (0.1, 0.3), (0.5, 2.0))(image.clone(), draw_for(400), feature_of(dtype))
    assert found.dtype == dtype
    filled = (found != image).any(1).numpy()
    erased = np.flatnonzero(filled.any((1, 2)))
    assert 150 < len(erased) < 250
    boxes = np.array([box_of(filled[row]) for row in erased])
    tall, wide = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    area, ratio = tall * wide / 320, tall / wide
    assert area.min() > 0.07
    assert area.max() < 0.34
    assert ratio.min() > 0.4
    assert ratio.max() < 2.5
    assert 0.4 < (ratio > 1).mean() < 0.6
    assert (boxes.min(0)[[0, 2]] == 0).all()
    assert (boxes.max(0)[[1, 3]] == [16, 20]).all()
    expected = 77.4 if dtype == torch.float32 else 77.0
    values = found.float().numpy().transpose(0, 2, 3, 1)[filled]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_erase_of_everything_and_of_nothing() -> None:
    image = images_of(20, torch.uint8)
    everything = Erase(1, (1, 1), (0.8, 0.8), "zeros")(
        image.clone(), draw_for(20), feature_of(torch.uint8)
    )
    assert not everything.any()
    assert torch.equal(Erase(0)(image.clone(), draw_for(20), feature_of(torch.uint8)), image)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", ["mean", "zeros"])
def test_erase_is_the_same_on_accelerators(dtype: torch.dtype, fill: Any) -> None:
    image, erase, feature = images_of(50, dtype), Erase(0.7, fill=fill), feature_of(dtype)
    boxes = erase._boxes(draw_for(50), 16, 20)
    level = (77.4 if dtype == torch.float32 else 77.0) if fill == "mean" else 0.0
    pixels = erase._erase_pixels(image.clone(), boxes, np.array([level, level]))
    rows = erase(image.clone(), draw_for(50), feature)
    np.testing.assert_array_equal(pixels.float().numpy(), rows.float().numpy())
    assert torch.equal(
        inside_boxes(image, boxes)[:, 0].any(2).any(1), torch.from_numpy(boxes[:, 1] > 0)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_brightness_multiplies_a_picture_by_one_factor_and_stays_in_range(
    dtype: torch.dtype,
) -> None:
    image = images_of(200, dtype)
    top = {torch.uint8: 255, torch.uint16: 65535, torch.float32: np.inf}[dtype]
    found = Brightness((0.5, 1.5))(image.clone(), draw_for(200), feature_of(dtype))
    assert found.dtype == torch.float32
    factor = np.array(
        [
            np.median(one)
            for one in found.numpy().reshape(200, -1) / image.float().numpy().reshape(200, -1)
        ]
    )
    expected = np.minimum(image.float().numpy() * factor[:, None, None, None], top)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    assert 0.5 <= factor.min() < 0.55
    assert 1.45 < factor.max() < 1.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_contrast_keeps_each_channels_mean(dtype: torch.dtype) -> None:
    image = (images_of(200, dtype).float() / 4 + 90).to(dtype)  # far from both ends of the range
    found = Contrast((0.5, 1.5))(image.clone(), draw_for(200), feature_of(dtype)).double()
    raw = image.double()
    torch.testing.assert_close(found.mean((2, 3)), raw.mean((2, 3)), rtol=1e-5, atol=0)
    factor = found.flatten(2).std(2) / raw.flatten(2).std(2)
    torch.testing.assert_close(factor[:, 0], factor[:, 1], rtol=1e-4, atol=0)
    assert 0.5 <= factor.min() < 0.52
    assert 1.48 < factor.max() < 1.5


def test_contrast_stays_in_range() -> None:
    found = Contrast((5, 5))(images_of(3, torch.uint8), draw_for(3), feature_of(torch.uint8))
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize(("dtype", "unit"), zip(DTYPES, [255, 65535, 1], strict=True))
def test_noise_is_gaussian_and_of_the_parts_of_the_range(dtype: torch.dtype, unit: float) -> None:
    gray = torch.full((300, 2, 16, 20), 0.5 * unit).to(dtype)
    noise = (
        Noise(0.05)(gray.clone(), draw_for(300), feature_of(dtype)) - gray.float()
    ).numpy() / unit
    assert abs(noise.mean()) < 1e-3
    np.testing.assert_allclose(noise.std(), 0.05, rtol=0.02)
    np.testing.assert_allclose(np.mean(np.abs(noise) < 0.05), 0.6827, atol=0.01)
    between_rows = np.corrcoef(noise.reshape(300, -1)) - np.eye(300)
    assert abs(between_rows).max() < 0.25
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.02


def test_noise_stays_in_range_and_is_another_in_each_epoch() -> None:
    image, feature = images_of(10, torch.uint8), feature_of(torch.uint8)
    one, other = (Noise(0.5)(image.clone(), draw_for(10, epoch), feature) for epoch in (0, 1))
    assert (one.min(), one.max()) == (0, 255)
    assert not (one == other).all((1, 2, 3)).any()


CHANGES: list[Callable[[], Augmentation]] = [Erase, Brightness, Contrast, Noise]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("channels", [1, 5])
def test_a_row_is_changed_alike_in_every_batch_and_memory_format(
    change: Callable[[], Augmentation], channels: int
) -> None:
    rows = torch.arange(12)
    feature = feature_of(torch.uint8, channels=channels)
    whole = change()(images_of(12, torch.uint8, True, channels), drawer(7, 3, rows), feature)
    part = images_of(12, torch.uint8, False, channels)[7:9]
    some = change()(part, drawer(7, 3, rows[7:9]), feature)
    torch.testing.assert_close(some.float(), whole[7:9].float(), rtol=1e-6, atol=1e-4)
