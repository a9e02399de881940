"""A commit is killed at each of its system calls, and each of them fails: what was committed stays,
nothing is torn.

The checks themselves are checked: with rename or fsync taken out, they fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from torchrelay.datasets.pack import Pack, write_pack
from torchrelay.disk import remove_leftovers
from torchrelay.engine.checkpoints import list_generations, read_manifest, read_pointer, read_state
from torchrelay.errors import TorchrelayError

from .saver import TYPED, column, state, store_in

WORKS = ("checkpoint", "file", "pack")
# Of a commit's calls, those that can fail of a disk.
FALLIBLE = {
    "fsync": "EIO",
    "write": "ENOSPC",
    "rename": "EIO",
    "mkdir": "ENOSPC",
    "openat": "EIO",
    "close": "EIO",
}


class Outcome(NamedTuple):
    """How a traced child ended: its exit code, and its system calls, one a line."""

    code: int
    calls: list[str]


class Saver:
    """The preloaded process of `saver.py`, and a tracer for each child of it."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("saver.py"))]
        self._trace = folder / "trace"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, what: str, folder: Path, inject: str = "", broken: str = "") -> Outcome:
        """Let a child work in a folder.

        Args:
            inject: what strace does at which call, for example "fsync:error=EIO:when=2".
            broken: what is taken out of the commit.
        """
        print(
            json.dumps({"what": what, "folder": str(folder), "broken": broken}),
            file=self._process.stdin,
            flush=True,
        )
        pid = int(self._process.stdout.readline())
        command = [
            "strace",
            "-f",
            "-y",
            "-s",
            "0",
            "-e",
            "trace=%file,%desc",
            "-o",
            str(self._trace),
        ]
        command += [*(["-e", f"inject={inject}"] if inject else []), "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            said = tracer.stderr.readline()
            os.kill(pid, signal.SIGCONT)
            code = int(self._process.stdout.readline())
            assert "attached" in said, said
        return Outcome(code, self._trace.read_text().splitlines())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def can_trace() -> bool:
    """Whether a tracer may attach to a process here."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", "9"]) as sleeper:
        command = ["strace", "-o", "/dev/null", "-p", str(sleeper.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            said = tracer.stderr.readline()
            sleeper.kill()
    return "attached" in said


@pytest.fixture(scope="module")
def saver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saver]:
    if not can_trace():
        pytest.skip("needs strace, and the right to attach it")
    server = Saver(tmp_path_factory.mktemp("saver"))
    yield server
    server.close()


# What was there before, and what must hold after. Each check raises AssertionError.


def prepare(what: str, folder: Path) -> None:
    """Of checkpoints the steps 1, which is the best, and 2, which a save of step 3 removes in
    the end.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if what == "checkpoint":
        for step in (1, 2):
            store_in(folder).save(state(step), step, is_best=step == 1)
    elif what == "file":
        (folder / "file").write_text("old" * 1000)


def check(what: str, folder: Path) -> None:
    """Nothing is torn and nothing that was committed is lost, now and after the next commit,
    which also tidies up.
    """
    {"checkpoint": check_checkpoints, "file": check_file, "pack": check_pack}[what](folder)


def check_checkpoints(folder: Path) -> None:
    steps = []
    for generation in list_generations(folder):
        manifest = read_manifest(generation)
        read_state(generation, manifest)
        steps.append(manifest["step"])
    assert steps in ([1, 2], [1, 2, 3], [1, 3])
    assert read_pointer(folder, "best") == "step-00000001"
    assert read_pointer(folder, "last") in {f"step-{step:08d}" for step in steps}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = store_in(folder)
        found, best = store.load_last(), store.load_best()
    assert found is not None
    assert best is not None
    assert best.state["step"] == 1
    assert found.state["step"] == max(steps)
    assert float(found.state["weight"][-1]) == found.state["step"]
    store.save(state(4), 4, is_best=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "best",
        "last",
        "step-00000001",
        "step-00000004",
    ]


def check_file(folder: Path) -> None:
    assert (folder / "file").read_text() in ("old" * 1000, "new" * 1000)
    remove_leftovers(folder)
    assert [path.name for path in folder.iterdir()] == ["file"]


def check_pack(folder: Path) -> None:
    for pack in folder.glob("[!.]*"):
        Pack.open(pack).verify()
    made, _ = write_pack(folder, [column()], np.arange(50), "0" * 32)
    Pack.open(made).verify()


def check_order(calls: list[str]) -> None:
    """Before a rename all that is renamed is durable, and after it its name, before the next
    rename and the end.
    """
    written: dict[str, bool] = {}  # path -> whether an fsync came after the last write
    renamed_in = ""
    for call in calls:
        if (
            match := re.search(
                r"\b(?:write|pwrite64|writev|openat\(.*O_CREAT.* =) ?\(?\d+<(/[^>]*)>", call
            )
        ) or (match := re.search(r"\bmkdir\(\"([^\"]*)\"", call)):
            written[match[1]] = False
        elif match := re.search(r"\bfsync\(\d+<(/[^>]*)>", call):
            written[match[1]] = True
            renamed_in = "" if match[1] == renamed_in else renamed_in
        elif match := re.search(r"\brename\(\"([^\"]*)\", \"([^\"]*)\"\) = 0", call):
            source, target = match[1], match[2]
            if Path(target).name.startswith("."):  # something old, on its way out
                continue
            moved = [path for path in written if path == source or path.startswith(f"{source}/")]
            assert moved, f"nothing was written before {call}"
            assert all(written[path] for path in moved), f"not durable before {call}"
            assert not renamed_in, f"{renamed_in} was not made durable before {call}"
            renamed_in = str(Path(target).parent)
    assert not renamed_in, f"{renamed_in} was not made durable"


# Killed at each call


def sweep(
    saver: Saver, what: str, folder: Path, broken: str = "", begin: int = 0, step: int = 1
) -> int:
    """Kill a commit at its calls from one on, every `step`th, and check after each; the number
    of kills.
    """
    prepare(what, folder)
    names = [
        match[1]
        for line in saver(what, folder, broken=broken).calls
        if (match := re.match(r"\d+ +(\w+)\(", line))
    ]
    kills = range(begin, len(names), step)
    for at in kills:
        prepare(what, folder)
        nth = names[: at + 1].count(names[at])  # strace counts each kind of call by itself
        outcome = saver(what, folder, f"{names[at]}:signal=SIGKILL:when={nth}", broken)
        assert outcome.code == -signal.SIGKILL
        check(what, folder)
    return len(kills)


@pytest.mark.parametrize("what", WORKS)
def test_a_kill_at_some_calls_of_a_commit_tears_and_loses_nothing(
    saver: Saver, what: str, tmp_path: Path
) -> None:
    assert sweep(saver, what, tmp_path / what, step=20) >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("what", "at_least"), [("checkpoint", 100), ("file", 12), ("pack", 40)])
def test_a_kill_at_every_call_of_a_commit_tears_and_loses_nothing(
    saver: Saver, what: str, at_least: int, tmp_path: Path
) -> None:
    assert sweep(saver, what, tmp_path / what) >= at_least


# Durable before it is visible


@pytest.mark.parametrize("what", WORKS)
def test_a_commit_is_durable_before_it_is_visible(saver: Saver, what: str, tmp_path: Path) -> None:
    prepare(what, tmp_path / what)
    outcome = saver(what, tmp_path / what)
    assert outcome.code == 0
    check_order(outcome.calls)


# Each call fails


def fail_each(saver: Saver, what: str, folder: Path, call: str, error: str) -> int:
    """Let each occurrence of a call fail, one commit each, and check; the number of failures."""
    number = 1
    while True:
        prepare(what, folder)
        outcome = saver(what, folder, f"{call}:error={error}:when={number}")
        if not any("INJECTED" in line for line in outcome.calls):
            return number - 1
        assert outcome.code in (0, TYPED), outcome.calls[-20:]
        if outcome.code == TYPED:
            assert list(folder.rglob(".*.tmp")) == []
        check(what, folder)
        number += 1


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_checkpoint_whose_fsync_or_rename_fails_is_a_typed_error_and_leaves_nothing(
    saver: Saver, call: str, tmp_path: Path
) -> None:
    assert fail_each(saver, "checkpoint", tmp_path / "checkpoint", call, FALLIBLE[call]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("call", sorted(FALLIBLE))
@pytest.mark.parametrize("what", WORKS)
def test_each_call_of_a_commit_that_fails_is_a_typed_error_and_leaves_nothing(
    saver: Saver, what: str, call: str, tmp_path: Path
) -> None:
    failures = fail_each(saver, what, tmp_path / what, call, FALLIBLE[call])
    assert failures >= (0 if (what, call) == ("file", "mkdir") else 1)


# The checks notice what is broken


@pytest.mark.parametrize(("what", "begin"), [("checkpoint", 50), ("file", 10), ("pack", 20)])
def test_the_checks_notice_that_a_commit_copies_in_place(
    saver: Saver, what: str, begin: int, tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, TorchrelayError)):
        sweep(saver, what, tmp_path / what, broken="rename", begin=begin)


@pytest.mark.parametrize("what", WORKS)
def test_the_checks_notice_that_nothing_is_synced(saver: Saver, what: str, tmp_path: Path) -> None:
    prepare(what, tmp_path / what)
    outcome = saver(what, tmp_path / what, broken="fsync")
    assert outcome.code == 0
    with pytest.raises(AssertionError, match=r"not durable before|was not made durable"):
        check_order(outcome.calls)
