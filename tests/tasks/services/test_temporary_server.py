from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from torchrelay.settings import home

# A starter that waits for its child's word, says it, and dies.
STARTER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), flush=True)
"""
SERVER = """
import os, time, torchrelay.tasks.services.temporary_server
print(os.getpid(), os.getpgrp() == os.getpid(), flush=True)
time.sleep(60)
"""


def start_and_leave(prefect_home: Path) -> tuple[psutil.Process, bool]:
    environment = os.environ | {"PREFECT_HOME": str(prefect_home), "PREFECT__SERVER_EPHEMERAL": "1"}
    command = [sys.executable, "-c", STARTER, SERVER]
    said = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    return psutil.Process(int(said[0])), said[1] == "True"


def test_the_temporary_server_of_this_home_leaves_the_group_and_ends_with_its_starter() -> None:
    process, has_own_group = start_and_leave(home().root / "prefect")
    assert has_own_group
    assert (
        psutil.wait_procs([process], timeout=10)[1] == []
        or process.status() == psutil.STATUS_ZOMBIE
    )


def test_any_other_server_stays_as_it_is(tmp_path: Path) -> None:
    process, has_own_group = start_and_leave(tmp_path / "other")
    try:
        assert not has_own_group
        with pytest.raises(psutil.TimeoutExpired):
            process.wait(2)
    finally:
        process.kill()


def test_prefect_finds_it() -> None:
    [found] = [
        one
        for one in importlib.metadata.entry_points(group="prefect.collections")
        if one.name == "torchrelay"
    ]
    assert hasattr(found.load(), "belong_to_starter")
