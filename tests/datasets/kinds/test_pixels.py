from __future__ import annotations

import numpy as np
import pytest

from torchrelay.datasets.kinds.pixels import measure_pixels
from torchrelay.datasets.pack import ImageColumn


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_are_measured_over_shards_and_repeated_rows(dtype: type) -> None:
    rng = np.random.default_rng(0)
    shards = [rng.integers(0, 256, (count, 3, 5, 7)).astype(dtype) for count in (40, 25)]
    shard = np.array([0, 1, 1, 0, 0, 1], dtype=np.int32)
    offset = np.array([39, 0, 24, 3, 3, 7], dtype=np.int64)
    rows = np.array([0, 2, 3, 4])  # row 3 and row 4 are one picture
    moments = measure_pixels(ImageColumn(shard, offset, shards), rows)
    pixels = np.stack([shards[0][39], shards[1][24], shards[0][3], shards[0][3]]).astype(np.float64)
    np.testing.assert_allclose(moments.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(moments.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_sums_of_bright_pictures_larger_than_uint32_are_exact() -> None:
    # 300 x 300 pixels of 255: the squares of one picture alone exceed 2**32. One pixel differs by
    # one.
    pixels = np.full((3, 1, 300, 300), 255, dtype=np.uint8)
    pixels[0, 0, 0, 0] = 254
    moments = measure_pixels(
        ImageColumn(np.zeros(3, np.int32), np.arange(3), [pixels]), np.arange(3)
    )
    count = 270_000
    assert moments.mean.tolist() == [255 - 1 / count]
    assert moments.std.tolist() == [pytest.approx((1 / count - 1 / count**2) ** 0.5, rel=1e-12)]


def test_white_16_bit_pictures_do_not_overflow_and_are_not_scaled() -> None:
    pixels = np.full((40, 1, 512, 512), 65_535, dtype=np.uint16)
    moments = measure_pixels(
        ImageColumn(np.zeros(40, np.int32), np.arange(40), [pixels]), np.arange(40)
    )
    assert (moments.mean.tolist(), moments.std.tolist()) == ([65_535.0], [1.0])
