from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from torchrelay.datasets.batches import dataset as dataset_module
from torchrelay.datasets.batches.dataset import PackDataset
from torchrelay.datasets.batches.loader import (
    Order,
    balanced_order,
    check_sampling,
    epoch_order,
    is_lost_worker,
    make_loader,
    num_batches,
    prefetch,
    split_batches,
)
from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import Pack, View, open_view
from torchrelay.errors import DataError, RecipeError
from torchrelay.recipe import Data, Feature
from torchrelay.schema import Batch
from torchrelay.settings import Home

COLOURS = ["red", "green", "blue"]


def view_of(
    tmp_path: Path, write_table: Callable[..., str], write_pictures: Callable[..., None]
) -> View:
    """41 rows of an image, two numbers, two category columns and a label; the last test row has
    an unseen colour.
    """
    names = [f"{number}.png" for number in range(41)]
    write_pictures(names)
    rows = [
        f"{name},{number},{number / 7},{'violet' if number == 40 else COLOURS[number % 3]},"
        f"{COLOURS[number % 2]},"
        f"{'odd' if number % 2 else 'even'},{'test' if number >= 37 else 'train'}"
        for number, name in enumerate(names)
    ]
    table = write_table(["image,x0,x1,front,back,label,split", *rows])
    data = Data.model_validate(
        {
            "table": table,
            "files": str(tmp_path / "images"),
            "inputs": {
                "image": {"kind": "image"},
                "x": {"kind": "number", "columns": "x*"},
                "colour": {"kind": "category", "columns": ["front", "back"]},
            },
            "target": {"label": {"kind": "category"}},
            "split": {"column": "split"},
        }
    )
    prepared = prepare_data(data, Home(tmp_path / "home"))
    return open_view(prepared.pack_dir, prepared.split_dir)


@pytest.fixture
def view(
    tmp_path: Path, write_table: Callable[..., str], write_pictures: Callable[..., None]
) -> View:
    return view_of(tmp_path, write_table, write_pictures)


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(
        (one.rows, *one.inputs, one.target), (other.rows, *other.inputs, other.target), strict=True
    )
    return all(torch.equal(left, right) for left, right in pairs)


def rows_of(view: View, split: str) -> PackDataset:
    return PackDataset(view.pack, view.schema, view.rows[split])


def test_a_batch_is_the_tables_values(view: View) -> None:
    batch = rows_of(view, "train").__getitems__([5, 0, 30])
    image, numbers, colours = batch.inputs
    assert batch.rows.tolist() == [5, 0, 30]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 3, 4, 4))
    from PIL import Image

    for place, row in enumerate([5, 0, 30]):
        path = view.pack.folder.parents[1].parent / "images" / f"{row}.png"
        np.testing.assert_array_equal(
            image[place].numpy(), np.asarray(Image.open(path)).transpose(2, 0, 1)
        )
    assert (
        numbers.dtype == torch.float64
    )  # years and times keep their digits until the mean is subtracted
    np.testing.assert_array_equal(numbers.numpy(), np.array([[5, 5 / 7], [0, 0], [30, 30 / 7]]))
    # classes in order: blue, green, red; 0 is unseen
    assert colours.tolist() == [[1, 2], [3, 3], [3, 3]]
    assert batch.target.tolist() == [1, 0, 0]  # even, odd
    assert batch.target.dtype == torch.int64


def test_an_input_category_that_training_has_not_seen_is_0(view: View) -> None:
    assert rows_of(view, "test")[3].inputs[2].tolist() == [0, 3]


def test_one_row_is_a_batch_without_its_first_dimension(view: View) -> None:
    data = rows_of(view, "train")
    one, batch = data[7], data.__getitems__(np.array([7]))
    assert same(
        Batch(one.rows[None], tuple(part[None] for part in one.inputs), one.target[None]), batch
    )


def test_a_batch_has_memory_of_its_own(view: View) -> None:
    data = rows_of(view, "train")
    batch = data.__getitems__([1, 2])
    before = data.__getitems__([1, 2])
    for part in (batch.rows, *batch.inputs, batch.target):
        part.zero_()
    assert same(data.__getitems__([1, 2]), before)


def test_pictures_in_memory_are_those_of_the_shards(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[dataset_module.Pictures.__module__], "ROWS_AT_ONCE", 5)
    index = [3, 36, 0, 12, 12]
    from_shards, rows = rows_of(view, "train"), view.rows["train"]
    in_memory = PackDataset(view.pack, view.schema, rows, in_memory=True)
    monkeypatch.setattr(dataset_module, "MOST_IN_MEMORY", 10)
    too_many = PackDataset(view.pack, view.schema, rows, in_memory=True)
    assert same(in_memory.__getitems__(index), from_shards.__getitems__(index))
    assert same(too_many.__getitems__(index), from_shards.__getitems__(index))
    in_memory.__getitems__(index).inputs[0].zero_()
    assert same(in_memory.__getitems__(index), from_shards.__getitems__(index))


def test_a_target_that_the_schema_does_not_know_is_refused(view: View) -> None:
    target = view.schema.targets[0].model_copy(update={"classes": ["odd"]})
    schema = view.schema.model_copy(update={"targets": [target]})
    with pytest.raises(DataError, match=r"19 rows have a class .* row 1 with 'even'"):
        PackDataset(view.pack, schema, view.rows["train"])


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "sizes"),
    [
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),
        (8, 4, [4, 4]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (5, 8, [5]),
        (0, 4, []),
    ],
)
def test_a_last_batch_of_one_row_joins_the_one_before(
    view: View, num_rows: int, batch_size: int, sizes: list[int]
) -> None:
    data = PackDataset(view.pack, view.schema, view.rows["train"][:num_rows])
    loader = make_loader(data, batch_size, Order())
    assert [len(batch.rows) for batch in loader] == sizes
    assert len(loader) == num_batches(num_rows, batch_size) == len(sizes)


def test_the_order_is_a_permutation_of_seed_and_epoch(view: View) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(
            [
                batch.rows
                for batch in make_loader(rows_of(view, "train"), 8, Order(seed=seed, epoch=epoch))
            ]
        ).tolist()

    assert sorted(order(0, 0)) == list(range(37))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (-1, 0, 1) for epoch in (0, 1)}) == 6
    assert epoch_order(5, 0, 0).dtype == np.int64


def test_the_order_leaves_the_global_random_states_alone(view: View) -> None:
    torch_state, numpy_state = (
        torch.get_rng_state(),
        np.random.get_state(legacy=False)["state"]["key"],
    )
    list(make_loader(rows_of(view, "train"), 8, Order()))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)


@pytest.mark.parametrize("start", [0, 1, 4])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_starting_late_gives_the_same_remaining_batches(
    view: View, start: int, num_workers: int
) -> None:
    data = rows_of(view, "train")
    whole = list(make_loader(data, 8, Order(seed=3, epoch=2)))
    late = make_loader(data, 8, Order(seed=3, epoch=2, start_batch=start), num_workers=num_workers)
    rest = list(late)
    assert len(late) == len(rest) == 5 - start
    assert all(same(one, other) for one, other in zip(whole[start:], rest, strict=True))


def test_the_shuffled_order_is_that_of_numpys_generator(view: View) -> None:
    batches = make_loader(rows_of(view, "train"), 8, Order(seed=3, epoch=2))
    expected = np.random.Generator(np.random.PCG64([3, 2])).permutation(37)
    assert torch.cat([batch.rows for batch in batches]).tolist() == expected.tolist()
    assert all(batch.repeats is None for batch in batches)


def test_balanced_draws_give_every_class_the_same_chance() -> None:
    classes = np.repeat([0, 2, 5], [20, 300, 9680])
    counts, rows, rare = np.zeros(3), set(), np.zeros(20)
    for epoch in range(3):
        order, before = balanced_order(classes, 0, epoch)
        assert order.shape == (10_000,)
        counts += np.unique(classes[order], return_counts=True)[1]
        rows |= set(order.tolist())
        rare = np.bincount(order, minlength=20)[:20]
        for row in (0, 1, 19, 20):  # how often it came before: 0, 1, 2, …
            assert before[order == row].tolist() == list(range((order == row).sum()))
    np.testing.assert_allclose(counts / 30_000, 1 / 3, atol=0.01)
    assert rows.issuperset(range(320))
    assert 120 < rare.min() < rare.max() < 220  # 3,333 draws of 20 rows


def test_balanced_draws_are_of_seed_and_epoch_and_start_late_alike(view: View) -> None:
    data = rows_of(view, "train")

    def batches(seed: int, epoch: int, start: int = 0, at_once: int = 1) -> list[Batch]:
        loader = make_loader(
            data,
            8,
            Order(seed=seed, epoch=epoch, start_batch=start, balanced=True),
            batches_at_once=at_once,
        )
        return [batch for group in loader for batch in split_batches(group, 8)]

    def rows(some: list[Batch]) -> list[int]:
        return torch.cat([batch.rows for batch in some]).tolist()

    whole = batches(3, 2)
    assert len(rows(whole)) == len(data)
    assert len({tuple(rows(batches(seed, epoch))) for seed in (-1, 0, 1) for epoch in (0, 1)}) == 6
    for start in (1, 3):
        for at_once in (1, 3):
            late = batches(3, 2, start, at_once)
            assert len(late) == len(whole) - start
            for one, other in zip(whole[start:], late, strict=True):
                assert same(one, other)
                assert one.repeats is not None
                assert other.repeats is not None
                assert torch.equal(one.repeats, other.repeats)


def test_without_classes_nothing_can_be_balanced(view: View) -> None:
    number = Feature(kind="number")
    with pytest.raises(
        RecipeError, match=r"train.sampling: balanced .* a row of a number target has no one class"
    ):
        check_sampling("balanced", [number])
    check_sampling("shuffle", [number])
    target = view.schema.inputs[1]
    data = PackDataset(
        view.pack, view.schema.model_copy(update={"targets": [target]}), view.rows["train"]
    )
    with pytest.raises(RecipeError, match=r"train.sampling: balanced"):
        make_loader(data, 8, Order(balanced=True))


def test_without_shuffling_rows_come_in_the_tables_order(view: View) -> None:
    loader = make_loader(rows_of(view, "test"), 2, Order(shuffle=False))
    assert [batch.rows.tolist() for batch in loader] == [[37, 38], [39, 40]]


def test_prefetching_changes_nothing_and_stops_early(view: View) -> None:
    data = rows_of(view, "train")
    plain = list(make_loader(data, 8, Order()))
    fetched = list(prefetch(make_loader(data, 8, Order())))
    assert all(same(one, other) for one, other in zip(plain, fetched, strict=True))
    batches = prefetch(make_loader(data, 2, Order()))
    next(iter(batches))
    batches.close()  # type: ignore[attr-defined]


def test_prefetching_raises_the_loaders_error() -> None:
    def broken() -> object:
        yield Batch(torch.zeros(1), (), torch.zeros(1))
        raise OSError("disk gone")

    batches = prefetch(broken())  # type: ignore[arg-type]
    next(batches)
    with pytest.raises(OSError, match="disk gone"):
        next(batches)


def test_a_pack_travels_to_workers_as_its_path(view: View) -> None:
    import pickle

    data = rows_of(view, "train")
    copy = pickle.loads(pickle.dumps(data))
    assert isinstance(copy._pack, Pack)
    assert same(copy.__getitems__([1, 2]), data.__getitems__([1, 2]))


def test_a_killed_worker_is_told_from_other_errors(view: View) -> None:
    batches = iter(make_loader(rows_of(view, "train"), 1, Order(), num_workers=1))
    next(batches)
    [worker] = multiprocessing.active_children()
    os.kill(cast(int, worker.pid), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="DataLoader worker") as caught:
        for _ in range(100):
            worker.join(0.1)
            next(batches)
    assert is_lost_worker(caught.value)
    assert not is_lost_worker(RuntimeError("CUDA error: DataLoader worker"))


# Keeps what an error leaves of an epoch, as its traceback does where a flow has failed.
LEFT_IN_THE_MIDDLE = """
import sys
from pathlib import Path
from torchrelay.datasets.pack import open_view
from torchrelay.datasets.batches import Order, make_loader
from torchrelay.datasets.batches import Order, PackDataset
view = open_view(Path(sys.argv[1]), Path(sys.argv[2]))
batches = iter(make_loader(PackDataset(view.pack, view.schema, view.rows["train"]), 1, \
Order(), num_workers=2))
next(batches)
sys.batches = batches
sys.exit("the loss is nan")
"""


def test_a_process_that_dies_of_an_error_in_the_middle_of_an_epoch_ends_with_its_workers(
    view: View,
) -> None:
    [split_dir] = (view.pack.folder / "splits").iterdir()
    command = [sys.executable, "-c", LEFT_IN_THE_MIDDLE, str(view.pack.folder), str(split_dir)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "the loss is nan\n")
