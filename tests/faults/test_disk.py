"""A disk that is full for real: a file system of two megabytes in memory."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from torchrelay.cli import exit_code_of, explain, main
from torchrelay.datasets.pack import Pack, PackColumn, PackFeature, write_pack
from torchrelay.datasets.store import PixelStore, verify_shard
from torchrelay.datasets.store import store as store_module
from torchrelay.disk import space as disk
from torchrelay.engine import loop as loop_file
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.errors import CheckpointError, DataError, HomeError, TorchrelayError
from torchrelay.recipe import Feature
from torchrelay.tasks.services import require_room

from ..conftest import WriteRecipe
from ..datasets.conftest import stat_files

NUM_BYTES = 2_000_000
Fill = Callable[[int], None]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """The root of the small file system."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={NUM_BYTES}", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    # Lazily: a run has its pack mapped into memory, and its tracker's thread its lock open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill(small: Path) -> Fill:
    """Leave so many bytes free."""

    def fill(num_free: int) -> None:
        (small / "ballast").unlink(missing_ok=True)
        room = os.statvfs(small)
        (small / "ballast").write_bytes(bytes(max(room.f_bavail * room.f_frsize - num_free, 0)))

    return fill


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up only after its free space was looked at."""
    room = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room._replace(free=room.total))


def state(step: int) -> dict[str, object]:
    """About 400 KB."""
    return {"step": step, "weight": torch.full((100_000,), float(step))}


def store_in(folder: Path, on_error: Literal["stop", "warn"] = "stop") -> CheckpointStore:
    return CheckpointStore(folder, 1, {}, {}, on_error)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("free", [0, 100_000, 350_000])
@pytest.mark.usefixtures("unforeseen")
def test_a_disk_that_fills_up_during_a_save_leaves_the_checkpoint_before(
    small: Path, fill: Fill, free: int
) -> None:
    store = store_in(small / "checkpoints")
    store.save(state(1), 1, is_best=True)
    fill(free)
    with pytest.raises(CheckpointError, match="No space left on device; free space there"):
        store.save(state(2), 2, is_best=True)
    assert names(small / "checkpoints") == ["best", "last", "step-00000001"]
    found = store_in(small / "checkpoints").load_last()
    assert found is not None
    assert found.state["step"] == 1
    fill(NUM_BYTES)
    store.save(state(3), 3, is_best=True)
    assert names(small / "checkpoints") == ["best", "last", "step-00000003"]


def test_too_little_space_is_seen_before_a_save_writes(small: Path, fill: Fill) -> None:
    store = store_in(small / "checkpoints")
    store.save(state(1), 1, is_best=True)
    fill(350_000)
    with pytest.raises(
        CheckpointError,
        match=r"about 601,000 bytes are needed and 3\d\d,\d\d\d are free; free space",
    ):
        store.save(state(2), 2, is_best=True)
    assert names(small / "checkpoints") == ["best", "last", "step-00000001"]


@pytest.mark.parametrize("foreseen", [True, False])
def test_under_warn_saves_fail_until_there_is_room(
    small: Path, fill: Fill, foreseen: bool, request: pytest.FixtureRequest
) -> None:
    store = store_in(small / "checkpoints", "warn")
    store.save(state(1), 1, is_best=True)
    fill(100_000)
    if not foreseen:
        request.getfixturevalue("unforeseen")
    with pytest.warns(UserWarning, match="training goes on") as caught:
        assert [store.save(state(step), step, is_best=False) for step in (2, 3, 4)] == [None] * 3
    assert len(caught) == 1
    assert store.failures == {"ENOSPC": 3}
    fill(NUM_BYTES)
    assert store.save(state(5), 5, is_best=False) is not None
    assert names(small / "checkpoints") == ["best", "last", "step-00000001", "step-00000005"]


def column(num_rows: int) -> PackColumn:
    values = np.arange(float(num_rows)).reshape(num_rows, 1)
    return PackColumn(
        PackFeature(name="x", kind="number", columns=["x"], file="x"), {"values": values}
    )


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_pack_that_does_not_fit_is_an_error_and_nothing_of_it_stays(
    small: Path, fill: Fill, foreseen: bool, request: pytest.FixtureRequest
) -> None:
    fill(300_000)
    if not foreseen:
        request.getfixturevalue("unforeseen")
    said = "bytes are needed" if foreseen else "No space left on device"
    with pytest.raises(
        DataError, match=f"pack .* cannot be written to {small}.*{said}.*free space there"
    ):
        write_pack(small / "packs", [column(50_000)], np.arange(50_000), "0" * 32)
    assert not (small / "packs").exists() or names(small / "packs") == []
    (small / "ballast").unlink()
    made, found = write_pack(small / "packs", [column(50_000)], np.arange(50_000), "0" * 32)
    assert not found
    Pack.open(made).verify()


@pytest.mark.usefixtures("unforeseen")
def test_an_ingest_keeps_its_complete_shards_and_goes_on_from_them(
    small: Path, fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(store_module, "BATCH_FILES", 8)
    paths = [tmp_path / f"{seed}.png" for seed in range(100)]
    for seed, path in enumerate(paths):
        Image.fromarray(
            np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        ).save(path)
    files_there = stat_files([str(path) for path in paths])

    def ingest() -> int:
        store = PixelStore(small / "store", Feature(kind="image"), 10_000)
        return store.ingest(files_there).num_decoded

    fill(300_000)
    with pytest.raises(DataError, match=r"pixels cannot be written to .*No space left on device"):
        ingest()
    [store] = (small / "store").iterdir()
    shards = list(store.iterdir())
    assert len(shards) == 2
    for shard in shards:
        verify_shard(shard)
    (small / "ballast").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 < ingest() < 60
    assert ingest() == 0


def test_pixels_that_cannot_fit_are_refused_before_any_is_decoded(
    small: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path)
    store = PixelStore(
        small / "store", Feature.model_validate({"kind": "image", "size": [700, 700]}), 10_000
    )
    needed = f"{3 * 700 * 700 + disk.MARGIN_BYTES:,}"
    with pytest.raises(DataError, match=f"about {needed} bytes are needed"):
        store.ingest(stat_files([str(path)]))
    assert names(small) == []


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_on_a_full_disk_fails_or_warns_as_the_recipe_says(
    small: Path, fill: Fill, number_recipe: WriteRecipe
) -> None:
    from torchrelay.flows import train
    from torchrelay.runs import load_record

    recipe = number_recipe(train={"epochs": 2, "batch_size": 8})
    run_dir = Path(train(recipe_file=str(recipe))["run_dir"])
    shutil.move(run_dir / "checkpoints", small / "checkpoints")
    (run_dir / "checkpoints").symlink_to(small / "checkpoints")
    before = names(small / "checkpoints")
    fill(0)
    with pytest.raises(CheckpointError, match="bytes are needed and 0 are free"):
        train(resume=run_dir.name, overrides={"train.epochs": 4})
    assert (load_record(run_dir).status, names(small / "checkpoints")) == ("FAILED", before)
    with pytest.warns(UserWarning, match="training goes on"):
        result = train(
            resume=run_dir.name, overrides={"train.epochs": 4, "checkpoint.on_error": "warn"}
        )
    assert (result["status"], result["epochs"], names(small / "checkpoints")) == (
        "FINISHED",
        4,
        before,
    )


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("point", "status"),
    [
        ("train.reported", "FAILED"),
        pytest.param("train.reported with a signal", "KILLED", marks=pytest.mark.slow),
        ("train.loop_done", "FAILED"),
        pytest.param("train.last_written", "FAILED", marks=pytest.mark.slow),
        ("run.ended", "FINISHED"),
    ],
)
@pytest.mark.slow
def test_a_home_that_fills_up_ends_a_run_with_one_error_and_its_true_status(
    small: Path,
    fill: Fill,
    number_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    point: str,
    status: str,
) -> None:
    from torchrelay.flows import train
    from torchrelay.runs import load_record
    from torchrelay.tasks import ending as ending_file
    from torchrelay.tasks import runs as runs_file
    from torchrelay.tasks import train as train_file

    monkeypatch.setenv("TORCHRELAY_HOME", str(small / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(
        "torchrelay.runs.journal.BUFFER_SECONDS", 600
    )  # no line before the one that ends the run
    name, _, signalled = point.partition(" ")
    has_come: list[str] = []

    def fill_at(reached: str) -> None:
        if reached == name and not has_come:
            has_come.append(reached)
            fill(0)
            if signalled:
                os.kill(os.getpid(), signal.SIGINT)

    for module in (loop_file, train_file, runs_file, ending_file):
        monkeypatch.setattr(module, "reach", fill_at)
    recipe = number_recipe(
        train={"epochs": 30, "batch_size": 8},
        checkpoint={"on_error": "warn"},
        tracking={"wait_seconds": 0},
    )
    if status == "FINISHED":
        assert train(recipe_file=str(recipe))["status"] == status
    elif signalled:
        with pytest.raises(KeyboardInterrupt):
            train(recipe_file=str(recipe))
    else:
        with pytest.raises(
            TorchrelayError,
            match=rf"({small}/home\S+ cannot be written|cannot be written to {small}/home\S+): "
            r"No space .*; free space",
        ):
            train(recipe_file=str(recipe))
    assert has_come
    assert "cannot be written: run" not in capsys.readouterr().err
    [run_dir] = [path for path in (small / "home" / "runs").iterdir() if path.is_dir()]
    assert (load_record(run_dir).status, (run_dir / "room").exists()) == (status, False)
    fill(NUM_BYTES)
    if status != "FINISHED":
        assert train(resume=run_dir.name)["status"] == "FINISHED"


def test_a_disk_without_room_for_the_databases_is_refused_before_a_flow_begins(
    small: Path,
    number_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCHRELAY_HOME", str(small / "home"))
    monkeypatch.setattr(sys, "argv", ["torchrelay", "train", str(number_recipe())])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    for name in ("PREFECT_HOME", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n"), names(small / "home")) == (2, 1, [])
    assert (
        f"the disk of the home {small}/home is too full: about 16,000,000 bytes are needed and "
        in said
    )
    assert "torchrelay prune, or set TORCHRELAY_HOME to a folder on a larger disk" in said
    assert "8,000,000 for Prefect's database" in said


def test_databases_on_other_disks_need_no_room_in_the_home(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "home").mkdir()
    monkeypatch.setenv("TORCHRELAY_HOME", str(small / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with pytest.raises(
        HomeError,
        match=r"about 4,000,000 bytes are needed and .*4,000,000 for the records of a run\)",
    ):
        require_room()
    monkeypatch.setenv("TORCHRELAY_HOME", str(tmp_path))
    require_room()


def test_a_home_on_a_disk_that_is_read_only_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "home").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    monkeypatch.setenv("TORCHRELAY_HOME", str(small / "home"))
    with pytest.raises(
        HomeError,
        match=f"the home {small}/home cannot be used: Read-only file system; set TORCHRELAY",
    ):
        require_room()


@pytest.mark.slow
def test_prefects_server_that_has_no_room_is_given_up_with_what_it_said(
    small: Path, fill: Fill
) -> None:
    script = "import torchrelay.flows; from prefect import flow; flow(lambda: 1, name='x')()"
    (small / "home" / "prefect").mkdir(parents=True)
    fill(300_000)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    environment |= {"TORCHRELAY_HOME": str(small / "home")}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    said = ended.stderr.strip().splitlines()[-1]
    assert "Prefect's temporary server does not start (exit code 3)" in said
    assert f"disk is full, in {small}/home; free space there" in said
    assert "aiosqlite" not in ended.stderr


def test_an_error_of_prefect_after_a_full_disk_names_the_disk() -> None:
    class PrefectError(Exception): ...

    PrefectError.__module__ = "prefect.exceptions"
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/data/x")
        except OSError:
            raise PrefectError("500 Internal Server Error")  # noqa: B904 - as Prefect's client does it
    except PrefectError as error:
        said, code = explain(error), exit_code_of(error)
    assert code == 1
    assert said == (
        "/data/x: No space left on device; free space there, for example with torchrelay prune "
        "(Prefect's server could not be told of it)"
    )
