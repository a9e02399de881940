"""Pictures that come mirrored from the loader are those that the recipe's flip would mirror."""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from torchrelay.datasets.batches import dataset as dataset_module
from torchrelay.datasets.batches.dataset import PackDataset
from torchrelay.datasets.batches.loader import Order, make_loader
from torchrelay.datasets.batches.transform import BatchTransform
from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import View, open_view
from torchrelay.recipe import Data, Named
from torchrelay.schema import Batch
from torchrelay.settings import Home

NUM_ROWS = 40


@pytest.fixture(params=["uint8", "uint16", "float32"])
def view(request: pytest.FixtureRequest, tmp_path: Path, write_table: Callable[..., str]) -> View:
    """40 rows of a picture of 6 x 4 pixels, two points on it that are a pair, and a label."""
    generator, rows, is_short = np.random.default_rng(0), [], request.param == "uint8"
    (tmp_path / "images").mkdir()
    for row in range(NUM_ROWS):
        pixels = generator.integers(0, 250, (6, 4, 3)).astype(request.param)
        name = f"{row}.png" if is_short else f"{row}.npy"
        if is_short:
            Image.fromarray(pixels).save(tmp_path / "images" / name)
        else:
            np.save(tmp_path / "images" / name, pixels)
        rows.append(f"{name},{row % 4},1,2,{row % 6},{'odd' if row % 3 else 'even'},train")
    values: dict[str, Any] = {
        "table": write_table(["image,l_x,l_y,r_x,r_y,label,split", *rows]),
        "files": str(tmp_path / "images"),
        "inputs": {
            "image": {
                "kind": "image",
                **({} if is_short else {"channels": 3, "dtype": request.param}),
            },
            "eyes": {"kind": "points", "columns": ["l_*", "r_*"], "swap": [[0, 1]]},
        },
        "target": {"label": {"kind": "category"}},
        "split": {"column": "split"},
    }
    prepared = prepare_data(Data.model_validate(values), Home(tmp_path / "home"))
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert view.schema.inputs[0].dtype == request.param
    return view


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(
        (one.rows, *one.inputs, one.target), (other.rows, *other.inputs, other.target), strict=True
    )
    return all(torch.equal(left, right) for left, right in pairs)


@pytest.mark.parametrize(("balanced", "num_workers"), [(False, 0), (True, 0), (False, 2)])
@pytest.mark.parametrize("copies", [0, 1, 2])
def test_pictures_come_mirrored_as_the_flip_would_mirror_them(
    copies: int, balanced: bool, num_workers: int, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = BatchTransform(
        view.schema, [Named(name="flip"), Named(name="crop")], seed=4, device="cpu"
    )
    order = Order(seed=4, epoch=2, start_batch=1, balanced=balanced)
    load = functools.partial(make_loader, batch_size=8, num_workers=num_workers, batches_at_once=2)
    plain = PackDataset(view.pack, view.schema, view.rows["train"])
    expected = [prepare.begin(batch, 2) for batch in load(plain, order=order)]
    num_bytes = NUM_ROWS * 6 * 4 * 3 * np.dtype(view.schema.inputs[0].dtype).itemsize
    monkeypatch.setattr(dataset_module, "MOST_IN_MEMORY", copies * num_bytes)
    monkeypatch.setattr(sys.modules[dataset_module.Pictures.__module__], "ROWS_AT_ONCE", 7)
    kept = PackDataset(
        view.pack, view.schema, view.rows["train"], in_memory=True, with_mirrors=True
    )
    assert prepare.mirrors_first
    for mirrored in (
        functools.partial(prepare.mirrored, epoch=2),
        lambda rows, repeats: np.zeros(len(rows), bool),
    ):
        found = [
            prepare.begin(batch, 2, is_mirrored=True)
            for batch in load(kept, order=order._replace(mirrored=mirrored))
        ]
        is_ours = isinstance(mirrored, functools.partial)
        assert len(found) == len(expected) > 1
        assert (
            all(same(left, right) for left, right in zip(found, expected, strict=True)) == is_ours
        )


def test_a_worker_that_is_no_fork_gathers_the_same_without_a_copy_of_its_own(view: View) -> None:
    kept = PackDataset(
        view.pack, view.schema, view.rows["train"], in_memory=True, with_mirrors=True
    )
    sent = pickle.dumps(kept)
    index = np.array([[3, 9, 3, 30], [0, 0, 1, 0], [1, 0, 0, 1]])
    assert same(pickle.loads(sent).__getitems__(index), kept.__getitems__(index))


def test_pictures_are_copied_one_input_after_another_while_there_is_room(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = view.schema.inputs[0]
    schema = view.schema.model_copy(update={"inputs": [image] * 3})
    num_bytes = NUM_ROWS * 6 * 4 * 3 * np.dtype(image.dtype).itemsize
    monkeypatch.setattr(dataset_module, "MOST_IN_MEMORY", 3 * num_bytes)
    dataset = PackDataset(view.pack, schema, view.rows["train"], in_memory=True, with_mirrors=True)
    pictures = [one for one in dataset._inputs if isinstance(one, dataset_module.Pictures)]
    assert [one._copied is not None for one in pictures] == [True, True, False]
    assert [one._has_mirrors for one in pictures] == [True, False, False]


@pytest.mark.parametrize(
    ("names", "comes_first"), [(["flip", "crop"], True), (["crop", "flip"], False), ([], False)]
)
def test_a_flip_behind_another_change_stays_where_it_is(
    names: list[str], comes_first: bool, view: View
) -> None:
    augment = [Named(name=name) for name in names]
    assert BatchTransform(view.schema, augment, seed=0, device="cpu").mirrors_first == comes_first
    assert not BatchTransform(view.schema, augment, seed=0, device="meta").mirrors_first


def test_a_container_allows_no_more_memory_than_its_group_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "CGROUP", tmp_path)
    free = dataset_module.free_memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert dataset_module.free_memory() == pytest.approx(free, rel=0.2)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 250\ninactive_file 150\n")
    assert dataset_module.free_memory() == 750
