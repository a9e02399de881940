"""Flipped bits and torn files of a checkpoint: every one is noticed, and the generation before
it is loaded.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from torchrelay.engine.checkpoints import MANIFEST_FILE, STATE_FILE, CheckpointStore
from torchrelay.engine.checkpoints import store as checkpoint_module


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointStore:
    """Steps 1 and 2; what is set aside goes, because a thousand damaged copies of step 2 are set
    aside.
    """
    store = CheckpointStore(tmp_path / "checkpoints", 2, {"run_id": "tiny"}, {"torch": "2"})
    for step in (1, 2):
        store.save(
            {"step": step, "weight": torch.full((20,), float(step))}, step, is_best=step == 1
        )
    monkeypatch.setattr(checkpoint_module, "set_aside", lambda path: shutil.rmtree(path) or path)
    return store


def flips(data: bytes, number: int) -> Iterator[bytes]:
    """The data with one random bit flipped."""
    generator = random.Random(number)
    for _ in range(number):
        place = generator.randrange(8 * len(data))
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


def truncations(data: bytes, number: int) -> Iterator[bytes]:
    """The data cut off at a random place."""
    generator = random.Random(number)
    for _ in range(number):
        yield data[: generator.randrange(len(data))]


def count_noticed(store: CheckpointStore, name: str, damaged: Iterator[bytes]) -> tuple[int, int]:
    """Damage a file of step 2, again and again; how often step 1 was loaded, and how often the
    load said why.
    """
    folder = store.folder / "step-00000002"
    state, manifest = (folder / STATE_FILE).read_bytes(), (folder / MANIFEST_FILE).read_bytes()
    fell_back = said = 0
    for content in damaged:
        folder.mkdir(exist_ok=True)
        (folder / STATE_FILE).write_bytes(state)
        (folder / MANIFEST_FILE).write_bytes(manifest)
        (folder / name).write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = store.load_last()
        fell_back += (
            found is not None
            and found.state["step"] == 1
            and float(found.state["weight"].sum()) == 20
        )
        said += any("step-00000002 does not verify" in str(one.message) for one in caught)
    return fell_back, said


@pytest.mark.parametrize("number", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [STATE_FILE, MANIFEST_FILE])
def test_every_flipped_bit_is_noticed_and_the_generation_before_it_is_loaded(
    store: CheckpointStore, name: str, number: int
) -> None:
    data = (store.folder / "step-00000002" / name).read_bytes()
    assert count_noticed(store, name, flips(data, number)) == (number, number)


@pytest.mark.parametrize(("name", "number"), [(STATE_FILE, 100), (MANIFEST_FILE, 100)])
def test_every_truncation_is_noticed_and_the_generation_before_it_is_loaded(
    store: CheckpointStore, name: str, number: int
) -> None:
    data = (store.folder / "step-00000002" / name).read_bytes()
    assert count_noticed(store, name, truncations(data, number)) == (number, number)


def test_without_the_sha256_flipped_bits_go_unnoticed(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        checkpoint_module, "read_state", lambda folder, manifest: (folder / STATE_FILE).read_bytes()
    )
    data = (store.folder / "step-00000002" / STATE_FILE).read_bytes()
    begin, _, end = data.partition(numbers := np.full(20, 2.0, np.float32).tobytes())
    damaged = (begin + changed + end for changed in flips(numbers, 100))
    assert count_noticed(store, STATE_FILE, damaged) == (0, 0)
