from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
import torch

from torchrelay import faults
from torchrelay.disk import unseal
from torchrelay.engine.checkpoints.generations import dump_manifest, read_pointer
from torchrelay.engine.checkpoints.store import CheckpointStore
from torchrelay.engine.job import Job, Progress
from torchrelay.engine.loop import train
from torchrelay.errors import CheckpointError

MakeJob = Callable[..., Job]


def make_store(
    folder: Path, keep: int = 3, on_error: Literal["stop", "warn"] = "stop"
) -> CheckpointStore:
    return CheckpointStore(folder, keep, {"run_id": "tiny"}, {"torch": "2"}, on_error)


def save(store: CheckpointStore, step: int, *, is_best: bool = False) -> Path:
    folder = store.save(state(step), step, is_best=is_best)
    assert folder is not None
    return folder


def damage(folder: Path) -> None:
    """Flip the lowest bit of the byte in the middle of a generation's state."""
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)


def generations(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def pointers(folder: Path) -> tuple[str, str]:
    return read_pointer(folder, "best"), read_pointer(folder, "last")


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """A file that may not grow further is to its writer what a full disk is."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)


def state(step: int) -> dict[str, object]:
    return {"step": step, "model_state_dict": {"weight": torch.full((3,), float(step))}}


def test_a_saved_state_comes_back_with_its_manifest(tmp_path: Path) -> None:
    folder = save(make_store(tmp_path), 5, is_best=True)
    found = make_store(tmp_path).load_last()
    assert found is not None
    assert torch.equal(found.state["model_state_dict"]["weight"], torch.full((3,), 5.0))
    assert found.fingerprint == {"torch": "2"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["run_id"] == "tiny"
    assert manifest["files"]["state.pt"]["bytes"] == (folder / "state.pt").stat().st_size
    assert read_pointer(tmp_path, "last") == read_pointer(tmp_path, "best") == "step-00000005"


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path, keep=2)
    for step in range(1, 6):
        save(store, step, is_best=step == 2)
    assert generations(tmp_path) == [2, 4, 5]
    best = store.load_best()
    assert best is not None
    assert best.state["step"] == 2


def test_each_generation_that_is_kept_has_its_best_beside_it(tmp_path: Path) -> None:
    store = make_store(tmp_path, keep=2)
    for step in range(1, 5):
        save(store, step, is_best=step in (1, 4))
    assert generations(tmp_path) == [1, 3, 4]
    damage(tmp_path / "step-00000004")
    with pytest.warns(UserWarning, match="step-00000004 does not verify"):
        found = (store := make_store(tmp_path, keep=2)).load_last()
    assert (found.state["step"], found.best, found.best_is_lost) == (3, "step-00000001", False)
    assert pointers(tmp_path) == ("step-00000001", "step-00000003")
    save(store, 5)
    save(store, 6)
    assert generations(tmp_path) == [1, 5, 6]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("flip", "state.pt does not have the sha256 of the manifest"),
        ("truncate", "state.pt has 1,541 bytes, expected 1,641"),
        ("no state", "state.pt is missing"),
        ("no manifest", "manifest.json is missing"),
        ("torn manifest", "manifest.json cannot be read"),
        ("other manifest", "manifest.json does not have the digest that it names"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(
    tmp_path: Path, how: str, reason: str
) -> None:
    store = make_store(tmp_path)
    save(store, 1)
    bad = save(store, 2)
    manifest = bad / "manifest.json"
    if how == "flip":
        damage(bad)
    elif how == "truncate":
        (bad / "state.pt").write_bytes((bad / "state.pt").read_bytes()[:-100])
    elif how == "no state":
        (bad / "state.pt").unlink()
    elif how == "no manifest":
        manifest.unlink()
    elif how == "torn manifest":
        manifest.write_bytes(manifest.read_bytes()[:-50])
    else:
        manifest.write_text(manifest.read_text().replace('"run_id": "tiny"', '"run_id": "tiMy"'))
    with pytest.warns(
        UserWarning,
        match=rf"step-00000002 does not verify \({reason}.*set aside as bad-step-00000002",
    ):
        found = make_store(tmp_path).load_last()
    assert found is not None
    assert found.state["step"] == 1
    assert (tmp_path / "bad-step-00000002").is_dir()
    assert read_pointer(tmp_path, "last") == "step-00000001"


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"best": "../../victim"}, "names '../../victim' as the best, which is no generation"),
        ({"best": "{victim}"}, "as the best, which is no generation"),
        ({"best": "step-" + "9" * 5000}, "as the best, which is no generation"),
        ({"best": None}, "names None as the best"),
        ({"files": []}, "does not say what state.pt is"),
        ({"fingerprint": "2"}, "does not say on what it was trained"),
    ],
)
def test_a_manifest_that_states_what_none_does_is_damaged_and_nothing_that_it_names_is_touched(
    tmp_path: Path, stated: dict[str, str], reason: str
) -> None:
    folder, victim = tmp_path / "run" / "checkpoints", tmp_path / "victim"
    victim.mkdir()
    save(make_store(folder), 1, is_best=True)
    path = save(make_store(folder), 2) / "manifest.json"
    values = {
        key: one.format(victim=victim) if isinstance(one, str) else one
        for key, one in stated.items()
    }
    path.write_text(dump_manifest({**(unseal(json.loads(path.read_text())) or {}), **values}))
    (folder / "best").unlink()  # so that the manifests alone say which it is
    with pytest.warns(UserWarning, match=f"step-00000002 does not verify .*{reason}"):
        found = make_store(folder).load_last()
    assert found is not None
    assert found.folder.name == "step-00000001"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "victim"]


@pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
@pytest.mark.parametrize(
    ("number", "is_bad"), [(errno.EMFILE, False), (errno.EACCES, False), (errno.EIO, True)]
)
def test_a_checkpoint_is_set_aside_only_where_the_error_of_reading_it_says_that_it_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, is_bad: bool
) -> None:
    store = make_store(tmp_path)
    save(store, 1)
    path = save(store, 2, is_best=True) / name
    open_here = os.open

    def refuse(name: str | Path, *arguments: int) -> int:
        if Path(name) == path:
            raise OSError(number, os.strerror(number), str(name))
        return open_here(name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        if is_bad:
            with pytest.warns(UserWarning, match=f"{name} cannot be read: {os.strerror(number)}"):
                found = make_store(tmp_path).load_last()
            assert found is not None
            assert found.folder.name == "step-00000001"
            return
        with pytest.raises(
            CheckpointError, match=rf"{path} cannot be read: {os.strerror(number)}; .*try again"
        ):
            make_store(tmp_path).load_last()
        beside = make_store(tmp_path, on_error="warn").save(state(2), 2, is_best=True)
        assert beside is not None
        assert beside.name == "step-00000002-2"
    assert generations_and_bad(tmp_path) == ["step-00000001", "step-00000002", "step-00000002-2"]


def generations_and_bad(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*step-*"))


def test_a_second_bad_one_of_a_step_is_set_aside_beside_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        damage(save(make_store(tmp_path), 1))
        with pytest.warns(UserWarning, match="set aside as bad-step-00000001"):
            assert make_store(tmp_path).load_last() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad-step-00000001",
        "bad-step-00000001-2",
    ]


def test_the_newest_takes_the_place_of_a_best_that_is_lost(tmp_path: Path) -> None:
    store = make_store(tmp_path, keep=2)
    for step in range(1, 5):
        save(store, step, is_best=step == 1)
    damage(tmp_path / "step-00000001")
    with pytest.warns(
        UserWarning,
        match="the best checkpoint step-00000001 is lost; step-00000004, the newest, takes",
    ):
        found = make_store(tmp_path).load_last()
    assert found.best_is_lost
    assert pointers(tmp_path) == ("step-00000004", "step-00000004")
    best = make_store(tmp_path).load_best()
    assert best.state["step"] == 4


def test_a_best_that_is_lost_at_the_end_is_replaced_as_well(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    save(store, 1, is_best=True)
    save(store, 2)
    damage(tmp_path / "step-00000001")
    with pytest.warns(UserWarning, match="takes its place"):
        assert store.load_best().state["step"] == 2
    assert pointers(tmp_path) == ("step-00000002", "step-00000002")


def test_pointers_to_nothing_go(tmp_path: Path) -> None:
    damage(save(make_store(tmp_path), 1, is_best=True))
    with pytest.warns(UserWarning, match="does not verify"):
        assert make_store(tmp_path).load_best() is None
    assert [path.name for path in tmp_path.iterdir()] == ["bad-step-00000001"]


@pytest.mark.parametrize("point", ["committed", "best_moved", "last_moved"])
def test_a_commit_that_was_cut_off_before_its_pointers_is_completed_by_the_next_load(
    tmp_path: Path, point: str
) -> None:
    store = make_store(tmp_path, keep=1)
    save(store, 1, is_best=True)
    faults.arm(f"checkpoint.{point}:raise")
    try:
        with pytest.raises(faults.FaultError):
            save(store, 2, is_best=True)
    finally:
        faults.arm("")
    found = make_store(tmp_path).load_last()
    assert (found.state["step"], found.best_is_lost) == (2, False)
    assert pointers(tmp_path) == ("step-00000002", "step-00000002")
    assert make_store(tmp_path).load_best().state["step"] == 2


def test_a_step_that_becomes_the_best_later_gets_a_second_generation(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert save(store, 1).name == "step-00000001"
    assert save(store, 1).name == "step-00000001"
    assert save(store, 1, is_best=True).name == "step-00000001-2"
    assert save(store, 1, is_best=True).name == "step-00000001-2"
    found = make_store(tmp_path).load_last()
    assert (found.folder.name, found.best) == ("step-00000001-2", "step-00000001-2")
    save(store, 10)
    assert make_store(tmp_path).load_last().folder.name == "step-00000010"


def test_what_a_dead_writer_left_goes_with_the_next_save(tmp_path: Path) -> None:
    save(make_store(tmp_path), 1)
    (tmp_path / ".step-00000002.0a1b2c3d.tmp").mkdir()
    (tmp_path / ".step-00000002.0a1b2c3d.tmp" / "state.pt").write_bytes(b"half")
    (tmp_path / ".last.0a1b2c3d.tmp").write_text("step-0000")
    save(make_store(tmp_path), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last",
        "step-00000001",
        "step-00000002",
    ]


def test_a_save_that_fails_leaves_the_one_before_it(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    save(store, 1, is_best=True)
    message = (
        "checkpoint step-00000002 cannot be written to .*File too large.* before it are intact"
    )
    with files_up_to(65_536), pytest.raises(CheckpointError, match=message):
        store.save(
            {"step": 2, "model_state_dict": {"weight": torch.zeros(100_000)}}, 2, is_best=True
        )
    assert store.load_last().state["step"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last", "step-00000001"]


def test_a_state_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    few = torch.zeros(1).expand(10**15)  # 10^15 numbers that share one place
    assert make_store(tmp_path).save({"weight": few}, 1, is_best=False) is not None
    with torch.device("meta"):
        many = torch.empty(10**15)
    with pytest.raises(
        CheckpointError,
        match=r"about 4,000,000,000,201,000 bytes are needed and [\d,]+ are free; free space",
    ):
        make_store(tmp_path).save({"weight": many}, 2, is_best=False)
    assert generations(tmp_path) == [1]


def test_warn_warns_once_for_each_kind_of_failure_and_tries_anew(tmp_path: Path) -> None:
    store = make_store(tmp_path, on_error="warn")
    big = {"model_state_dict": {"weight": torch.zeros(100_000)}}
    with files_up_to(65_536):
        with pytest.warns(UserWarning, match="training goes on, and the next save tries anew"):
            assert store.save(big, 1, is_best=True) is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert store.save(big, 2, is_best=True) is None
    assert store.failures == {"EFBIG": 2}
    assert list(tmp_path.iterdir()) == []
    assert store.save(big, 3, is_best=True) is not None
    assert pointers(tmp_path) == ("step-00000003", "step-00000003")


def test_under_warn_the_best_is_the_best_that_was_kept(tmp_path: Path, make_job: MakeJob) -> None:
    values = iter([0.9, 0.5, 0.7, 0.6])
    job = make_job(epochs=4, measure=lambda found: {"accuracy": next(values)})
    folder, progress = tmp_path / "checkpoints", Progress()
    folder.write_text("a file in the place of the folder: no save succeeds")

    def on_step(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if epoch_ended and progress.epoch == 2:
            assert (progress.best_epoch, progress.best_metric) == (
                2,
                0.5,
            )  # that of 0.9 could not be kept
            folder.unlink()

    store = make_store(folder, on_error="warn")
    with pytest.warns(UserWarning, match="step-00000005 cannot be written"):
        train(job, progress, store, on_step)
    assert (progress.best_epoch, progress.best_metric) == (3, 0.7)
    best, last = store.load_best(), store.load_last()
    assert (best.state["epoch"], best.state["best_metric"]) == (3, 0.7)
    assert (last.state["epoch"], last.state["best_metric"]) == (4, 0.7)


def test_under_stop_the_run_ends_with_the_checkpoint_before(
    tmp_path: Path, make_job: MakeJob
) -> None:
    def on_step(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if progress.step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        files_up_to(limits[0]),
        pytest.raises(CheckpointError, match="step-00000010 cannot be written"),
    ):
        train(make_job(), Progress(), make_store(tmp_path), on_step)
    assert make_store(tmp_path).load_last().state["step"] == 5


def test_an_fsync_that_failed_is_not_tried_again_on_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, synced = make_store(tmp_path), []
    save(store, 1)
    real = os.fsync

    def fail_at_third(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path, path.stat().st_ino))
        if len(synced) == 3:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_at_third)
    with pytest.raises(
        CheckpointError, match="Input/output error; look at the health of that disk"
    ):
        save(store, 2)
    assert len(synced) == 3
    failed = synced[2][0]
    save(store, 2)
    assert failed not in [path for path, _ in synced[3:]]
    assert len(synced) > 3


def test_another_format_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = save(make_store(tmp_path), 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["digest"]
    (folder / "manifest.json").write_text(dump_manifest({**manifest, "format_version": 3}))
    with pytest.raises(
        CheckpointError, match="format_version 3, this torchrelay reads format_version 2"
    ):
        make_store(tmp_path).load_last()
    assert folder.exists()


@pytest.mark.parametrize("pointer", ["last", "best"])
def test_a_flipped_bit_of_a_pointer_is_said_and_the_manifests_put_it_right(
    tmp_path: Path, pointer: str
) -> None:
    for step in (1, 2):
        save(make_store(tmp_path), step, is_best=step == 1)
    whole = (tmp_path / pointer).read_bytes()
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        (tmp_path / pointer).write_bytes(bytes(changed))
        with pytest.warns(
            UserWarning, match=rf"{pointer} is not as it was written; what the manifests say"
        ):
            found = make_store(tmp_path).load_last()
        assert found is not None
        assert (found.folder.name, found.best) == ("step-00000002", "step-00000001")
        assert (tmp_path / pointer).read_bytes() == whole


def test_the_best_is_found_where_its_pointer_is_damaged(tmp_path: Path) -> None:
    for step in (1, 2):
        save(make_store(tmp_path), step, is_best=step == 1)
    (tmp_path / "best").write_text("step-00000002 " + (tmp_path / "best").read_text()[-8:])
    with pytest.warns(UserWarning, match="best is not as it was written"):
        found = make_store(tmp_path).load_best()
    assert found is not None
    assert found.folder.name == "step-00000001"


def test_a_pointer_of_an_older_version_is_a_name_alone(tmp_path: Path) -> None:
    for step in (1, 2):
        save(make_store(tmp_path), step, is_best=step == 1)
    (tmp_path / "best").write_text("step-00000001")
    found = make_store(tmp_path).load_best()
    assert found is not None
    assert found.folder.name == "step-00000001"


def test_a_checkpoint_of_another_run_is_set_aside_and_not_loaded(tmp_path: Path) -> None:
    ours = CheckpointStore(tmp_path / "ours", 3, {"run_id": "ours"}, {})
    theirs = CheckpointStore(tmp_path / "theirs", 3, {"run_id": "theirs"}, {})
    own = ours.save({"step": 1}, 1, is_best=True)
    copied = theirs.save({"step": 2}, 2, is_best=True)
    assert own
    assert copied
    shutil.copytree(copied, own.with_name(copied.name))
    with pytest.warns(
        UserWarning, match="of run theirs, not of ours: a run goes on from its own alone"
    ):
        found = CheckpointStore(tmp_path / "ours", 3, {"run_id": "ours"}, {}).load_last()
    assert found is not None
    assert found.folder == own
    assert (tmp_path / "ours" / f"bad-{copied.name}").is_dir()
