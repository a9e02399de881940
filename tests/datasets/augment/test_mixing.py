from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from torchrelay.datasets.augment.draws import drawer
from torchrelay.datasets.augment.mixing import Cutmix, Mixer, Mixup, mix_batch, paste_boxes
from torchrelay.datasets.augment.pixels import inside_boxes
from torchrelay.datasets.batches import BatchTransform
from torchrelay.recipe import Named
from torchrelay.schema import Batch, FeatureSchema, Schema

IMAGE = FeatureSchema(
    name="image",
    kind="image",
    columns=["i"],
    shape=[2, 8, 10],
    dtype="uint8",
    mean=[100, 90],
    std=[50, 40],
)
NUMBERS = FeatureSchema(
    name="x", kind="number", columns=["x"], shape=[1], dtype="float64", mean=[0], std=[1]
)
CLASSES = FeatureSchema(
    name="c",
    kind="category",
    columns=["c"],
    shape=[],
    dtype="int64",
    classes=[str(number) for number in range(40)],
)


def schema_of(target: FeatureSchema = CLASSES) -> Schema:
    return Schema(inputs=[IMAGE, NUMBERS], targets=[target])


def batch_of(rows: list[int]) -> Batch:
    """Pictures in one colour, numbers and classes that are all the row's own number."""
    number = torch.tensor(rows)
    image = number.to(torch.uint8)[:, None, None, None].repeat(1, 2, 8, 10)
    return Batch(number, (image, number[:, None].double()), number)


def mixed(
    *mixers: Mixer, rows: list[int] | None = None, epoch: int = 0, target: FeatureSchema = CLASSES
) -> Batch:
    batch = batch_of(list(range(40)) if rows is None else rows)
    batch = batch._replace(inputs=tuple(one.float() for one in batch.inputs))
    if target is not CLASSES:
        batch = batch._replace(target=batch.target[:, None].float())
    return mix_batch(batch, schema_of(target), mixers, 0, epoch)


def test_mixup_is_the_weighted_mean_of_two_rows_and_names_both_classes() -> None:
    out = mixed(Mixup(1.0))
    assert out.mix is not None
    assert out.mixed_target is not None
    expected = out.mix * out.target + (1 - out.mix) * out.mixed_target
    torch.testing.assert_close(out.inputs[1][:, 0], expected)
    torch.testing.assert_close(out.inputs[0], expected[:, None, None, None].expand(-1, 2, 8, 10))
    assert out.target.tolist() == list(range(40))
    assert sorted(out.mixed_target.tolist()) == list(range(40))
    assert not (out.target == out.mixed_target).any()
    assert out.mix.unique().numel() == 40


def test_cutmix_pastes_a_rectangle_and_counts_its_pixels() -> None:
    out = mixed(Cutmix(1.0))
    assert out.mix is not None
    assert out.mixed_target is not None
    image = out.inputs[0]
    other = (image == out.mixed_target[:, None, None, None]).all(1)
    own = (image == out.target[:, None, None, None]).all(1)
    assert torch.equal(own, ~other)
    torch.testing.assert_close(out.mix, 1 - other.float().mean((1, 2)))
    torch.testing.assert_close(other.any(2).sum(1) * other.any(1).sum(1), other.sum((1, 2)))
    torch.testing.assert_close(
        out.inputs[1][:, 0], out.mix * out.target + (1 - out.mix) * out.mixed_target
    )
    assert (out.mix < 0.5).any()
    assert (out.mix > 0.9).any()


@pytest.mark.parametrize("mixer", [Mixup(1.0), Mixup(0.2)])
def test_shares_follow_the_beta_distribution(mixer: Mixup) -> None:
    from scipy import stats

    shares = mixer.shares(np.random.default_rng(0), 5000)
    assert stats.kstest(shares, stats.beta(mixer._alpha, mixer._alpha).cdf).pvalue > 0.01


def test_a_probability_leaves_the_other_rows_as_they_are() -> None:
    for mixer in (Mixup(1.0, p=0.5), Cutmix(1.0, p=0.5)):
        out = mixed(mixer)
        assert out.mix is not None
        whole = out.mix == 1
        assert 8 < whole.sum() < 32
        assert torch.equal(out.inputs[1][whole, 0], out.target[whole].float())


def test_number_targets_are_mixed_themselves() -> None:
    out = mixed(Mixup(1.0), target=NUMBERS.model_copy(update={"name": "y"}))
    assert (out.mix, out.mixed_target) == (None, None)
    torch.testing.assert_close(out.target, out.inputs[1])
    assert not torch.equal(out.target[:, 0], torch.arange(40.0))


def test_a_batch_is_mixed_alike_however_many_were_gathered_as_one() -> None:
    steps = [Named(name="flip"), Named(name="mixup", args={"alpha": 1.0}), Named(name="cutmix")]
    transform = BatchTransform(schema_of(), steps, seed=4, device="cpu", channels_last=True)
    group = transform.begin(batch_of(list(range(32))), 2)
    for start in (0, 8, 24):
        part = slice(start, start + 8)
        split = Batch(
            group.rows[part], tuple(one[part] for one in group.inputs), group.target[part]
        )
        one, other = (
            transform.finish(split, 2),
            transform(batch_of(list(range(start, start + 8))), 2, training=True),
        )
        assert one.mix is not None
        assert other.mix is not None
        assert torch.equal(one.mix, other.mix)
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert set(one.mixed_target.tolist()) == set(range(start, start + 8))  # type: ignore[union-attr]


def test_other_rows_another_epoch_and_another_seed_are_mixed_anew() -> None:
    rows = list(range(10))
    seen = {
        mix_batch(
            batch._replace(inputs=(batch.inputs[0].float(), batch.inputs[1])),
            schema_of(),
            [Mixup()],
            seed,
            epoch,
        )
        .mix.numpy()  # type: ignore[union-attr]
        .tobytes()
        for batch in (batch_of(rows), batch_of([*rows[:-1], 11]))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(seen) == 8


def test_of_two_mixers_each_batch_draws_one() -> None:
    kinds = set()
    for epoch in range(20):
        image = mixed(Mixup(1.0), Cutmix(1.0), epoch=epoch).inputs[0]
        kinds.add(bool((image == image.round()).all()))
    assert kinds == {True, False}


def test_a_batch_of_one_row_and_a_row_that_comes_twice_are_fine() -> None:
    for mixer in (Mixup(1.0), Cutmix(1.0)):
        out = mixed(mixer, rows=[7])
        torch.testing.assert_close(out.inputs[0], torch.full((1, 2, 8, 10), 7.0))
        assert mixed(mixer, rows=[3, 3, 5]).inputs[0].shape == (3, 2, 8, 10)


def test_without_training_nothing_is_mixed() -> None:
    out = BatchTransform(schema_of(), [Named(name="mixup")], seed=0, device="cpu")(
        batch_of([1, 2, 3])
    )
    assert (out.mix, out.mixed_target) == (None, None)


def test_pasting_is_the_same_on_accelerators() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(9, 2, 8, 10, generator=generator)
    partner = torch.randperm(9, generator=generator)
    boxes = np.sort(np.random.default_rng(0).integers(0, 9, (9, 2, 2)), axis=2).reshape(9, 4)
    there = torch.where(inside_boxes(image, boxes), image[partner], image)
    assert torch.equal(paste_boxes(image, partner, boxes), there)


@pytest.mark.parametrize("args", [{"alpha": 0.0}, {"alpha": -1.0}, {"p": 1.1}])
def test_arguments_out_of_range_are_refused(args: Any) -> None:
    for mixer in (Mixup, Cutmix):
        with pytest.raises(ValueError, match="expected a"):
            mixer(**args)


def test_a_row_that_the_epoch_draws_again_is_augmented_in_another_way() -> None:
    rows = torch.arange(100)
    first, again = (drawer(0, 0, rows, torch.full((100,), times))(0) for times in (0, 1))
    assert np.array_equal(first, drawer(0, 0, rows)(0))
    assert not (first == again).any()
