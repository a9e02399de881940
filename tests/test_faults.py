from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchrelay import faults


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.arm("")


def test_an_unarmed_point_is_passed() -> None:
    faults.reach("checkpoint.committed")


def test_an_armed_point_raises_at_its_nth_time_alone() -> None:
    faults.arm("train.stepped:raise:3")
    for _ in range(2):
        faults.reach("train.stepped")
        faults.reach("train.reported")
    with pytest.raises(faults.FaultError, match=r"train\.stepped, time 3"):
        faults.reach("train.stepped")
    faults.reach("train.stepped")


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ("checkpoint.lost:kill", "'checkpoint.lost' is no point"),
        ("checkpoint.committed", "expected POINT:ACTION"),
        ("checkpoint.committed:explode", "of kill, term, raise"),
        ("checkpoint.committed:kill:0", "kill:0"),
        ("checkpoint.committed:kill:-1", "kill:-1"),
        ("checkpoint.committed:kill:one", "kill:one"),
        ("checkpoint.committed:kill:1:-2", "kill:1:-2"),
        ("checkpoint.committed:kill:1:2:3", "kill:1:2:3"),
        ("checkpoint.committed:raise:1:2", "SECONDS with a signal alone"),
    ],
)
def test_what_names_no_point_action_or_number_is_refused(fault: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        faults.arm(fault)


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("term", signal.SIGTERM)])
def test_the_environment_makes_one_of_two_processes_die(
    tmp_path: Path, action: str, number: int
) -> None:
    once = tmp_path / "happened"
    environment = {"TORCHRELAY_FAULT": f"run.begun:{action}", "TORCHRELAY_FAULT_ONCE": str(once)}
    command = [sys.executable, "-c", "from torchrelay.faults import reach; reach('run.begun')"]
    codes = [subprocess.run(command, env=environment, check=False).returncode for _ in range(2)]
    assert codes == [-number, 0]
    assert once.exists()


def test_a_signal_comes_as_late_as_was_asked_for() -> None:
    code = (
        "import time; from torchrelay.faults import reach; reach('run.begun'); time.sleep(0.1); "
        "print(1); time.sleep(9)"
    )
    environment = {"TORCHRELAY_FAULT": "run.begun:kill:1:0.3", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, capture_output=True, timeout=8
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"1\n")
