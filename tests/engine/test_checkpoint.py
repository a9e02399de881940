from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest
import torch

from torchrelay.engine.checkpoint import CheckpointStore
from torchrelay.errors import CheckpointError


def make_store(folder: Path, keep: int = 3) -> CheckpointStore:
    return CheckpointStore(folder, keep, {"run_id": "tiny"}, {"torch": "2"})


def state(step: int) -> dict[str, object]:
    return {"step": step, "model_state_dict": {"weight": torch.full((3,), float(step))}}


def test_a_saved_state_comes_back_with_its_manifest(tmp_path: Path) -> None:
    folder = make_store(tmp_path).save(state(5), 5, is_best=True)
    found = make_store(tmp_path).load_last()
    assert found is not None
    assert torch.equal(found.state["model_state_dict"]["weight"], torch.full((3,), 5.0))
    assert found.fingerprint == {"torch": "2"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["run_id"] == "tiny"
    assert manifest["files"]["state.pt"]["bytes"] == (folder / "state.pt").stat().st_size
    assert (tmp_path / "last").read_text() == (tmp_path / "best").read_text() == "step-00000005"


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path, keep=2)
    for step in range(1, 6):
        store.save(state(step), step, is_best=step == 2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-{step:08d}" for step in (2, 4, 5)]
    best = store.load_best()
    assert best is not None
    assert best.state["step"] == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "no manifest"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(tmp_path: Path, damage: str) -> None:
    store = make_store(tmp_path)
    store.save(state(1), 1, is_best=False)
    bad = store.save(state(2), 2, is_best=False)
    data = bytearray((bad / "state.pt").read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        (bad / "state.pt").write_bytes(data)
    elif damage == "truncate":
        (bad / "state.pt").write_bytes(data[:-100])
    else:
        (bad / "manifest.json").unlink()
    with pytest.warns(UserWarning, match=r"step-00000002 does not verify; set aside as bad-step-00000002"):
        found = make_store(tmp_path).load_last()
    assert found is not None
    assert found.state["step"] == 1
    assert (tmp_path / "bad-step-00000002" / "state.pt").exists()


def test_a_save_that_fails_leaves_the_one_before_it(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.save(state(1), 1, is_best=True)

    # A file that may not grow beyond 64 KiB is to its writer what a full disk is.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"step-00000002 cannot be written .* before it are intact"):
            store.save({"step": 2, "model_state_dict": {"weight": torch.zeros(100_000)}}, 2, is_best=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    found = store.load_last()
    assert found is not None
    assert found.state["step"] == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_another_format_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = make_store(tmp_path).save(state(1), 1, is_best=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 2}))
    with pytest.raises(CheckpointError, match="format_version 2, this torchrelay reads format_version 1"):
        make_store(tmp_path).load_last()
    assert folder.exists()
