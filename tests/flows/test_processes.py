"""The command in a process of its own, with workers, ended by the signals that a terminal and
the kernel send.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from torchrelay.disk import is_locked
from torchrelay.engine.checkpoints import read_pointer
from torchrelay.runs import RunRecord, list_records
from torchrelay.settings import Home
from torchrelay.tasks.services import SERVER

from ..conftest import WriteRecipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMMAND = str(Path(sys.executable).with_name("torchrelay"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def environment(tmp_path: Path, home: Home) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_"))
    }
    return kept | {"HOME": str(tmp_path), "TORCHRELAY_HOME": str(home.root), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(
    tmp_path: Path, environment: dict[str, str]
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command at the head of a session, as a shell does, on a terminal where one is
    given.
    """
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, terminal: int = -1) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [COMMAND, *arguments],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL if terminal < 0 else terminal,
                stdout=log if terminal < 0 else terminal,
                stderr=log if terminal < 0 else terminal,
                start_new_session=True,
                preexec_fn=None if terminal < 0 else lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(what: str, is_so: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := is_so():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {seconds} s")


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that gather batches; torch gives them this name."""
    return [
        child
        for child in psutil.Process(process.pid).children()
        if child.name() == "pt_data_worker"
    ]


def server_of(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.ZombieProcess):
            if SERVER in child.cmdline():
                return child
    return None


def are_gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether they end within some time; one that nobody has buried yet is gone too."""

    def is_gone(process: psutil.Process) -> bool:
        try:
            return process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(map(is_gone, processes)):
            return True
        time.sleep(0.02)
    return False


def shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def training_with_workers(
    start: Callable[..., subprocess.Popen[bytes]], home: Home, recipe: Path, **options: int
) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    process = start(
        "train",
        str(recipe),
        "--set",
        "train.epochs=100000",
        "--set",
        "train.num_workers=2",
        **options,
    )
    wait_for("a checkpoint", lambda: list(home.runs.glob("*/checkpoints/last")))
    return process, wait_for(
        "two workers", lambda: len(found := workers_of(process)) == 2 and found
    )


def only_run(home: Home) -> RunRecord:
    [record] = list_records(home)
    return record


def mlflow_status(home: Home, record: RunRecord) -> str:
    client = MlflowClient(tracking_uri=f"sqlite:///{home.root / 'mlflow.db'}")
    return client.get_run(record.mlflow_run_id).info.status


def prefect_state(home: Home, record: RunRecord) -> str:
    with contextlib.closing(sqlite3.connect(home.root / "prefect" / "prefect.db")) as database:
        rows = database.execute("SELECT id, state_type FROM flow_run").fetchall()
    [state] = [
        state
        for one, state in rows
        if str(one).replace("-", "") == record.prefect_flow_run_id.replace("-", "")
    ]
    return state


@contextlib.contextmanager
def being_read(terminal: int) -> Iterator[None]:
    """Take what is written to a terminal, which has little room, while the block runs."""
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            if select.select([terminal], [], [], 0.05)[0]:
                os.read(terminal, 65536)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        done.set()
        reader.join()


def last_checkpoint_of(home: Home, record: RunRecord) -> int:
    """Its step."""
    checkpoints = home.runs / record.run_id / "checkpoints"
    return json.loads(
        (checkpoints / read_pointer(checkpoints, "last") / "manifest.json").read_text()
    )["step"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_commits_a_checkpoint_and_takes_the_workers_along(
    number_recipe: WriteRecipe,
    start: Any,
    home: Home,
    environment: dict[str, str],
    number: int,
    code: int,
) -> None:
    before = shared_memory()
    process, workers = training_with_workers(start, home, number_recipe())
    os.killpg(process.pid, number)
    wait_for(
        "its end", lambda: only_run(home).status == "KILLED", 30
    )  # what a supervisor grants before it kills
    assert process.wait(30) == code
    assert are_gone(workers, 1)
    assert shared_memory() <= before
    record = only_run(home)
    assert (record.status, mlflow_status(home, record)) == ("KILLED", "KILLED")
    assert last_checkpoint_of(home, record) == record.steps
    arguments = ["resume", record.run_id, "--set", f"train.epochs={record.epochs + 1}", "--json"]
    done = subprocess.run(
        [COMMAND, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["status"] == "FINISHED"


def test_a_terminal_that_is_gone_ends_a_run_as_sigterm_does(
    number_recipe: WriteRecipe, start: Any, home: Home
) -> None:
    ours, theirs = pty.openpty()
    with being_read(ours):
        process, workers = training_with_workers(start, home, number_recipe(), terminal=theirs)
    os.close(theirs)
    os.close(ours)
    time.sleep(0.003)
    process.send_signal(signal.SIGHUP)  # as the shell that it was started from passes it on
    wait_for("its end", lambda: only_run(home).status == "KILLED", 30)
    assert process.wait(30) == 143
    assert are_gone(workers, 1)
    record = only_run(home)
    assert (record.status, mlflow_status(home, record)) == ("KILLED", "KILLED")
    assert last_checkpoint_of(home, record) == record.steps > 0


def test_after_kill_9_nothing_of_it_lives_the_lock_is_free_and_the_doctor_tells_everybody(
    number_recipe: WriteRecipe, start: Any, home: Home, environment: dict[str, str]
) -> None:
    before = shared_memory()
    process, workers = training_with_workers(start, home, number_recipe())
    server = wait_for("its server", lambda: server_of(process))
    record = only_run(home)
    assert is_locked(home.runs / record.run_id / "lock")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert are_gone(workers, 1)
    assert not is_locked(home.runs / record.run_id / "lock")
    assert shared_memory() <= before
    assert are_gone([server], 30)
    record = only_run(home)
    assert (record.status, mlflow_status(home, record), prefect_state(home, record)) == (
        "RUNNING",
    ) * 3

    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [COMMAND, *arguments, "--json"], env=environment, capture_output=True, text=True
        )
        return done.returncode, json.loads(done.stdout)

    code, found = call("doctor")
    assert code == 1
    assert [one["part"] for one in found["findings"]] == ["runs", "MLflow", "Prefect"]
    code, found = call("doctor", "--fix")
    assert (code, found["findings"], len(found["mended"])) == (0, [], 3)
    record = only_run(home)
    assert (record.status, mlflow_status(home, record)) == ("KILLED", "KILLED")
    assert record.error == f"process ended without a word; last step {record.steps}"
    assert prefect_state(home, record) == "CRASHED"
    code, found = call("doctor")
    assert (code, found["findings"]) == (0, [])
    code, result = call("resume", record.run_id, "--set", f"train.epochs={record.epochs + 1}")
    assert (code, result["status"], result["mlflow_run_id"]) == (
        0,
        "FINISHED",
        record.mlflow_run_id,
    )
