from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from torchrelay.datasets.augment.draws import Draw, drawer
from torchrelay.datasets.augment.geometry import (
    Chain,
    Crop,
    Flip,
    Resample,
    Rotate,
    Scale,
    move_points,
    resample,
)
from torchrelay.datasets.batches import BatchTransform
from torchrelay.recipe import Named
from torchrelay.schema import Batch, FeatureSchema, Schema

HEIGHT, WIDTH = 40, 50
SWAP = [(0, 2)]
IMAGE = FeatureSchema(
    name="face",
    kind="image",
    columns=["face"],
    shape=[1, HEIGHT, WIDTH],
    dtype="uint8",
    mean=[0],
    std=[1],
)
DTYPES = [torch.uint8, torch.uint16, torch.float32]


def points_feature(name: str, swap: list[tuple[int, int]], num: int = 3) -> FeatureSchema:
    return FeatureSchema(
        name=name,
        kind="points",
        columns=[name],
        shape=[num, 2],
        dtype="float64",
        mean=[0.0] * (2 * num),
        std=[1.0] * (2 * num),
        image="face",
        swap=swap,
    )


def named(name: str, **args: Any) -> Named:
    return Named(name=name, args=args)


def draw_for(num: int, seed: int = 0) -> Draw:
    return drawer(seed, 0, torch.arange(num))


def pictures_of_points(points: np.ndarray) -> Tensor:
    """A bright spot at each row's point (B, 2): uint8 (B, 1, H, W)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    square = (x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2
    return torch.from_numpy(np.rint(250 * np.exp(-square / 8)).astype(np.uint8))[:, None]


def brightest(images: Tensor) -> np.ndarray:
    """Where the spot is: float64 (B, 2) of x, y."""
    weight = images[:, 0].double().numpy()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    total = weight.sum((1, 2))
    return np.stack([(weight * x).sum((1, 2)) / total, (weight * y).sum((1, 2)) / total], 1)


CHANGES = {
    "flip": [named("flip")],
    "crop": [named("crop", padding=5)],
    "rotate": [named("rotate", degrees=40)],
    "scale": [named("scale", factor=[0.7, 1.4])],
    "all": [
        named("rotate", degrees=25),
        named("scale", factor=[0.8, 1.25]),
        named("flip"),
        named("crop", padding=3, mode="reflect"),
        named("rotate", degrees=10, mode="reflect"),
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_points_go_where_the_picture_goes(change: str) -> None:
    num = 60
    points = np.random.default_rng(1).uniform([17, 15], [32, 25], (num, 2))
    schema = Schema(inputs=[IMAGE], targets=[points_feature("eyes", [], 2)])
    both = torch.from_numpy(np.concatenate([points, points], 1))
    transform = BatchTransform(schema, CHANGES[change], seed=3, device="cpu")
    out = transform(Batch(torch.arange(num), (pictures_of_points(points),), both), 1, training=True)
    np.testing.assert_allclose(out.target[:, :2].numpy(), brightest(out.inputs[0]), atol=0.15)
    assert torch.equal(out.target[:, :2], out.target[:, 2:])
    assert np.abs(out.target[:, :2].numpy() - points).max() > 2  # they did move


def test_one_bright_pixel_stays_on_its_point() -> None:
    image = torch.zeros(1, 1, HEIGHT, WIDTH)
    image[0, 0, 12, 30] = 1
    for seed in range(20):
        for change in (Rotate(30), Scale((0.8, 1.3)), Flip(), Crop(4)):
            draw = draw_for(1, seed)
            x, y = move_points(
                torch.tensor([[[30.0, 12.0]]]), change.maps(draw, HEIGHT, WIDTH), []
            )[0, 0].tolist()
            place = int(change(image.clone(), draw, IMAGE)[0, 0].argmax())
            assert abs(place % WIDTH - x) < 0.8
            assert abs(place // WIDTH - y) < 0.8


def test_a_mirror_makes_the_pairs_change_places() -> None:
    points = torch.tensor([[[3.0, 4.0], [20.0, 5.0], [45.0, 6.0]]], dtype=torch.float64)
    schema = Schema(inputs=[IMAGE, points_feature("in", SWAP)], targets=[points_feature("out", [])])
    batch = Batch(torch.tensor([0]), (torch.zeros(1, 1, HEIGHT, WIDTH), points), points.flatten(1))
    found = BatchTransform(schema, [named("flip", p=1)], seed=0, device="cpu").begin(batch, 0)
    assert found.inputs[1].tolist() == [[[4.0, 6.0], [29.0, 5.0], [46.0, 4.0]]]
    assert found.target.tolist() == [[46.0, 4.0, 29.0, 5.0, 4.0, 6.0]]
    twice = BatchTransform(schema, [named("flip", p=1)] * 2, seed=0, device="cpu").begin(batch, 0)
    assert torch.equal(twice.inputs[1], points)
    turn = Rotate(180).maps(
        draw_for(1), HEIGHT, WIDTH
    )  # a turn is no mirror: the left eye stays the left eye
    assert torch.equal(move_points(points, turn, SWAP), move_points(points, turn, []))


def test_points_may_leave_the_picture() -> None:
    schema = Schema(inputs=[IMAGE], targets=[points_feature("out", [], 1)])
    batch = Batch(
        torch.arange(50),
        (torch.zeros(50, 1, HEIGHT, WIDTH),),
        torch.zeros(50, 2, dtype=torch.float64),
    )
    out = (
        BatchTransform(schema, [named("crop", padding=8)], seed=0, device="cpu")
        .begin(batch, 0)
        .target
    )
    assert out.min() == -8
    assert out.max() == 8


def test_points_of_two_images_follow_their_own() -> None:
    small = IMAGE.model_copy(update={"name": "small", "shape": [1, 10, 20]})
    follows = points_feature("there", [], 1).model_copy(update={"image": "small"})
    schema = Schema(inputs=[IMAGE, small], targets=[points_feature("here", [], 1), follows])
    images = (torch.zeros(1, 1, HEIGHT, WIDTH), torch.zeros(1, 1, 10, 20))
    batch = Batch(torch.tensor([4]), images, torch.zeros(1, 4, dtype=torch.float64))
    out = BatchTransform(schema, [named("flip", p=1)], seed=0, device="cpu").begin(batch, 0)
    assert out.target.tolist() == [[WIDTH - 1.0, 0.0, 19.0, 0.0]]


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_resampling_is_that_of_scipy(mode: Any, dtype: torch.dtype) -> None:
    image = torch.randint(0, 200, (6, 2, 12, 17), generator=torch.Generator().manual_seed(0)).to(
        dtype
    )
    rotate, scale = Rotate(70, mode), Scale((0.5, 1.5), mode)
    for change in (rotate, scale, Chain([rotate, scale])):
        maps = change.maps(draw_for(6), 12, 17)
        found = change(image, draw_for(6), IMAGE)
        assert found.dtype == torch.float32
        # reflect: scipy's "mirror" is about the middle of the edge pixel; zeros: a frame of black
        # lies around.
        for row in range(6):
            back = np.linalg.inv(np.vstack([maps[row], [0, 0, 1]]))
            y, x = np.mgrid[:12, :17].reshape(2, -1)
            old_x, old_y, _ = back @ np.stack([x, y, np.ones_like(x)])
            frame = 0 if mode == "reflect" else 40
            for channel in range(2):
                pixels = np.pad(image[row, channel].double().numpy(), frame)
                expected = ndimage.map_coordinates(
                    pixels, [old_y + frame, old_x + frame], order=1, mode="mirror"
                )
                np.testing.assert_allclose(found[row, channel].numpy().ravel(), expected, atol=5e-3)


def test_turns_beside_each_other_are_sampled_once_with_the_draws_of_each() -> None:
    rotate, scale = Rotate(30), Scale((0.8, 1.2))
    draw = draw_for(5)
    alone = scale.turns(lambda part: draw(part + 16)) @ rotate.turns(draw)
    np.testing.assert_allclose(Chain([rotate, scale]).turns(draw), alone)
    schema = Schema(inputs=[IMAGE], targets=[points_feature("out", [], 1)])
    target = torch.tensor([[10.0, 10.0]], dtype=torch.float64).repeat(5, 1)
    spots = pictures_of_points(target.numpy())
    steps = [named("rotate", degrees=30), named("scale", factor=[0.8, 1.2])]
    out = BatchTransform(schema, steps, seed=0, device="cpu")(
        Batch(torch.arange(5), (spots,), target), 0, True
    )
    np.testing.assert_allclose(
        out.inputs[0].numpy(), Chain([rotate, scale])(spots, draw, IMAGE).numpy(), atol=1e-4
    )


def test_no_turn_and_no_change_of_size_keep_the_picture() -> None:
    image = torch.randint(0, 256, (4, 3, 9, 1), dtype=torch.uint8)
    for change in (Rotate(0), Scale((1, 1)), Rotate(0, "reflect")):
        torch.testing.assert_close(
            change(image, draw_for(4), IMAGE), image.float(), atol=1e-2, rtol=0
        )


def test_the_middle_of_the_picture_stays() -> None:
    middle = torch.tensor([[[(WIDTH - 1) / 2, (HEIGHT - 1) / 2]]], dtype=torch.float64).expand(
        9, 1, 2
    )
    for change in (Rotate(180), Scale((0.2, 3))):
        torch.testing.assert_close(
            move_points(middle, change.maps(draw_for(9), HEIGHT, WIDTH), []), middle
        )


def test_angles_and_factors_are_spread_over_their_range() -> None:
    num = 4000
    turns = Rotate(30).turns(draw_for(num))
    angle = np.rad2deg(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert -30 <= angle.min() < -29.5
    assert 29.5 < angle.max() <= 30
    assert abs(angle.mean()) < 1
    factor = Scale((0.5, 2)).turns(draw_for(num))[:, 0, 0]
    assert 0.5 <= factor.min() < 0.51
    assert 1.97 < factor.max() <= 2
    assert 0.48 < (factor > 1).mean() < 0.52


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_moves_are_the_same_on_accelerators(dtype: torch.dtype, mode: Any) -> None:
    image = torch.randint(0, 256, (40, 5, 6, 7), generator=torch.Generator().manual_seed(1)).to(
        dtype
    )
    crop, flip, draw = Crop(3, mode), Flip(), draw_for(40)
    top, left = crop._window(draw)
    pixels = crop._move_pixels(image.clone(), top - 3, left - 3)
    np.testing.assert_array_equal(
        pixels.float().numpy(), crop(image.clone(), draw, IMAGE).float().numpy()
    )
    pixels = flip._flip_pixels(image.clone(), flip.choose(draw))
    np.testing.assert_array_equal(
        pixels.float().numpy(), flip(image.clone(), draw, IMAGE).float().numpy()
    )


def test_a_row_is_resampled_alike_in_every_batch() -> None:
    image = torch.randint(0, 256, (8, 3, 13, 11), dtype=torch.uint8)
    maps = Rotate(50).maps(draw_for(8), 13, 11)
    whole = resample(image, maps, "zeros")
    assert torch.equal(resample(image[5:6], maps[5:6], "zeros"), whole[5:6])
    assert isinstance(Rotate(1), Resample)
