from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchrelay.datasets.augment import AUGMENTATIONS, Crop
from torchrelay.datasets.batches.transform import BatchTransform, Standardise, Unstandardise
from torchrelay.errors import RecipeError
from torchrelay.recipe import Named
from torchrelay.schema import Batch, FeatureSchema, Schema

FLIP = Named(name="flip")
CROP = Named(name="crop")


def make_schema(target: str = "category", dtype: str = "uint8") -> Schema:
    image = FeatureSchema(
        name="image",
        kind="image",
        columns=["image"],
        shape=[2, 6, 5],
        dtype=dtype,
        mean=[100, 50],
        std=[50, 25],
    )
    numbers = FeatureSchema(
        name="x", kind="number", columns=["a"], shape=[1], dtype="float32", mean=[2000], std=[4]
    )
    category = FeatureSchema(
        name="c", kind="category", columns=["c"], shape=[1], dtype="int64", classes=["a", "b"]
    )
    label = category.model_copy(update={"shape": []})
    y = FeatureSchema(
        name="y",
        kind="number",
        columns=["y"],
        shape=[2],
        dtype="float32",
        mean=[10, 20],
        std=[2, 5],
    )
    return Schema(inputs=[image, numbers, category], targets=[label if target == "category" else y])


def make_batch(rows: list[int], dtype: torch.dtype = torch.uint8) -> Batch:
    pixels = [
        np.random.default_rng(row).integers(1, 256, (2, 6, 5), dtype=np.uint8) for row in rows
    ]
    image = torch.from_numpy(np.stack(pixels)).to(dtype)
    numbers = torch.tensor([[2000.0 + row] for row in rows])
    return Batch(
        torch.tensor(rows),
        (image, numbers, torch.ones(len(rows), 1, dtype=torch.int64)),
        torch.tensor(rows) % 2,
    )


def make_transform(*augment: Named, **options: Any) -> BatchTransform:
    return BatchTransform(make_schema(), augment, **{"seed": 0, "device": "cpu", **options})


def raw(image: Tensor) -> np.ndarray:
    """Undo the standardising of (B, 2, 6, 5)."""
    scale, shift = np.array([50, 25]).reshape(2, 1, 1), np.array([100, 50]).reshape(2, 1, 1)
    return np.rint(image.numpy() * scale + shift).astype(np.uint8)


def test_inputs_are_standardised_and_category_ids_pass() -> None:
    batch = Batch(
        torch.tensor([3]),
        (
            torch.tensor([0, 100, 200], dtype=torch.uint8).reshape(1, 1, 1, 3).repeat(1, 2, 1, 1),
            torch.tensor([[2006.0]]),
            torch.tensor([[2]]),
        ),
        torch.tensor([1]),
    )
    out = make_transform()(batch)
    torch.testing.assert_close(out.inputs[0], torch.tensor([[[[-2.0, 0, 2]], [[-2.0, 2, 6]]]]))
    assert out.inputs[1].tolist() == [[1.5]]
    assert (out.inputs[2].tolist(), out.target.tolist(), out.rows.tolist()) == ([[2]], [1], [3])


def test_number_targets_are_standardised_and_come_back() -> None:
    schema = make_schema("number")
    batch = make_batch([0, 1])._replace(target=torch.tensor([[12.0, 20.0], [10.0, 10.0]]))
    out = BatchTransform(schema, [], seed=0, device="cpu")(batch)
    assert out.target.tolist() == [[1.0, 0.0], [0.0, -2.0]]
    assert Unstandardise(schema)(out.target).tolist() == batch.target.tolist()
    scores = torch.tensor([[0.1, 0.9]])
    assert Unstandardise(make_schema())(scores) is scores


def test_without_training_nothing_is_augmented_and_the_raw_batch_stays() -> None:
    batch = make_batch(list(range(8)))
    before = batch.inputs[0].clone()
    out = make_transform(FLIP, CROP)(batch, epoch=3)
    assert torch.equal(out.inputs[0], make_transform()(batch).inputs[0])
    make_transform(FLIP, CROP)(batch, epoch=3, training=True)
    assert torch.equal(batch.inputs[0], before)


def test_flip_gives_each_picture_or_its_mirror_about_half_the_time() -> None:
    rows = list(range(400))
    batch = make_batch(rows)
    out = raw(make_transform(FLIP)(batch, training=True).inputs[0])
    flipped = 0
    for picture, found in zip(batch.inputs[0].numpy(), out, strict=True):
        is_same, is_mirror = (
            np.array_equal(found, picture),
            np.array_equal(found, picture[:, :, ::-1]),
        )
        assert is_same != is_mirror
        flipped += is_mirror
    assert 150 < flipped < 250


@pytest.mark.parametrize(("p", "mirrored"), [(0, False), (1, True)])
def test_the_probability_of_a_flip_is_kept_at_its_ends(p: float, mirrored: bool) -> None:
    batch = make_batch(list(range(50)))
    out = raw(make_transform(Named(name="flip", args={"p": p}))(batch, training=True).inputs[0])
    expected = batch.inputs[0].numpy()
    np.testing.assert_array_equal(out, expected[..., ::-1] if mirrored else expected)


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zeros", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_gives_a_window_of_the_padded_picture(
    mode: str, numpy_mode: str, dtype: torch.dtype
) -> None:
    batch = make_batch(list(range(300)), dtype)
    args = {"padding": 2, "mode": mode}
    out = raw(make_transform(Named(name="crop", args=args))(batch, training=True).inputs[0])
    moves = set()
    for picture, found in zip(batch.inputs[0].numpy().astype(np.uint8), out, strict=True):
        padded = np.pad(picture, ((0, 0), (2, 2), (2, 2)), mode=numpy_mode)  # type: ignore[call-overload]
        windows = {
            (top, left): padded[:, top : top + 6, left : left + 5]
            for top in range(5)
            for left in range(5)
        }
        [move] = [move for move, window in windows.items() if np.array_equal(window, found)]
        moves.add(move)
    assert len(moves) == 25


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_crop_is_the_same_on_accelerators(mode: Any) -> None:
    image = make_batch(list(range(40))).inputs[0]
    crop = Crop(3, mode)
    top, left = (np.random.default_rng(part).integers(0, 7, 40) for part in (0, 1))
    rows = crop._move_rows(np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy()), top, left)
    np.testing.assert_array_equal(
        crop._move_pixels(image, top - 3, left - 3).numpy(), rows.transpose(0, 3, 1, 2)
    )


def test_a_crop_of_no_padding_changes_nothing() -> None:
    batch = make_batch([1, 2])
    for mode in ("zeros", "reflect"):
        crop = Named(name="crop", args={"padding": 0, "mode": mode})
        np.testing.assert_array_equal(
            raw(make_transform(crop)(batch, training=True).inputs[0]), batch.inputs[0].numpy()
        )


def test_a_row_is_augmented_alike_in_every_batch() -> None:
    transform = make_transform(FLIP, CROP, seed=5)
    whole = transform(make_batch(list(range(32))), epoch=2, training=True).inputs[0]
    some = transform(make_batch([31, 4, 4, 17]), epoch=2, training=True).inputs[0]
    assert torch.equal(some, whole[[31, 4, 4, 17]])
    assert torch.equal(
        make_transform(FLIP, CROP, seed=5)(make_batch([9]), 2, True).inputs[0][0], whole[9]
    )


def test_many_small_batches_as_one_and_each_alone_give_the_same_bits() -> None:
    names = ("crop", "erase", "rotate", "scale", "flip", "brightness", "contrast", "noise")
    transform = make_transform(*(Named(name=name) for name in names), seed=9)
    group = transform.begin(make_batch(list(range(24))), 3)
    rows = slice(8, 16)
    part = Batch(group.rows[rows], tuple(one[rows] for one in group.inputs), group.target[rows])
    alone = transform(make_batch(list(range(8, 16))), 3, training=True)
    assert torch.equal(transform.finish(part, 3).inputs[0], alone.inputs[0])


def test_another_epoch_or_seed_draws_anew() -> None:
    batch = make_batch(list(range(64)))
    seen = {
        make_transform(FLIP, CROP, seed=seed)(batch, epoch, True).inputs[0].numpy().tobytes()
        for seed in (-1, 0, 1)
        for epoch in (0, 1)
    }
    assert len(seen) == 6


def test_flips_of_neighbouring_rows_and_epochs_are_independent() -> None:
    plain = make_transform()(make_batch(list(range(500)))).inputs[0]
    flips = np.stack(
        [
            (make_transform(FLIP)(make_batch(list(range(500))), epoch, True).inputs[0] != plain)
            .flatten(1)
            .any(1)
            for epoch in range(4)
        ]
    ).astype(float)
    assert abs(np.corrcoef(flips) - np.eye(4)).max() < 0.15
    assert abs(np.corrcoef(flips[0, :-1], flips[0, 1:])[0, 1]) < 0.15


def test_channels_last_and_dtype_are_as_asked() -> None:
    batch = make_batch(list(range(4)))
    image, numbers, ids = make_transform(FLIP, dtype=torch.bfloat16, channels_last=True)(
        batch, 0, True
    ).inputs
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert (image.dtype, numbers.dtype, ids.dtype) == (torch.bfloat16, torch.bfloat16, torch.int64)
    double = BatchTransform(make_schema("number"), [], seed=0, device="cpu", dtype=torch.float64)
    out = double(batch._replace(target=torch.zeros(4, 2)))
    assert (out.inputs[0].dtype, out.target.dtype) == (torch.float64, torch.float64)


def test_the_module_gives_the_same_bits_and_can_be_exported() -> None:
    batch = make_batch(list(range(3)))
    module = Standardise(make_schema()).eval()
    prepared = make_transform()(batch).inputs
    rows = torch.export.Dim("rows", min=1)
    dynamic = ({0: rows}, {0: rows}, {0: rows})
    exported = torch.export.export(
        module, batch.inputs, dynamic_shapes={"inputs": dynamic}
    ).module()
    for found in (module(*batch.inputs), exported(*batch.inputs)):
        assert all(torch.equal(one, other) for one, other in zip(found, prepared, strict=True))
    assert exported(*make_batch([7, 8]).inputs)[0].shape == (2, 2, 6, 5)


def test_reflecting_more_than_the_picture_holds_is_refused() -> None:
    transform = make_transform(Named(name="crop", args={"padding": 5, "mode": "reflect"}))
    with pytest.raises(RecipeError, match=r"cannot reflect 5 pixels of an image of \(6, 5\)"):
        transform(make_batch([0]), training=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_accelerator_gives_the_same_pictures(name: str, dtype: str) -> None:
    schema, batch = make_schema(dtype=dtype), make_batch(list(range(64)), getattr(torch, dtype))
    schema = schema.model_copy(update={"inputs": schema.inputs[:2]})  # ids cannot be mixed
    batch = batch._replace(inputs=batch.inputs[:2])
    steps = [FLIP, CROP, Named(name=name)]
    device = torch.accelerator.current_accelerator() or "cpu"
    here, there = (
        BatchTransform(schema, steps, seed=0, device=where)(batch, 1, True).inputs[0]
        for where in ("cpu", device)
    )
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_pixel_has_the_same_bits_wherever_in_a_batch_it_stands(
    memory_format: torch.memory_format,
) -> None:
    schema = make_schema()
    schema.inputs[0] = schema.inputs[0].model_copy(
        update={"shape": [3, 37, 41], "mean": [101.3] * 3, "std": [61.7] * 3}
    )
    prepare = Standardise(Schema(inputs=schema.inputs[:1], targets=schema.targets))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (23, 3, 37, 41), np.uint8))
    [together] = prepare(pixels.contiguous(memory_format=memory_format))
    scale, shift = (getattr(prepare.inputs[0], name) for name in ("scale", "shift"))
    assert torch.equal(
        together, (pixels * scale) + shift
    )  # whether the processor rounds in between or not
    assert len(together[pixels == 77].unique()) == 1
    torch.testing.assert_close(
        together.double(), (pixels.double() - 101.3) / 61.7, rtol=0, atol=1e-4
    )
