import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from torchrelay.engine.hardware import turns
from torchrelay.engine.hardware.cpu_load import usable_cores
from torchrelay.engine.hardware.turns import Turns

CORES = frozenset({0, 1})
HOLDER = """
import sys, time
from pathlib import Path
from torchrelay.engine.hardware.turns import Turns
held = Turns(Path(sys.argv[1]), frozenset({0, 1}), 2)
held.take()
print("held", flush=True)
time.sleep(60)
"""


def _in_thread(turns: Turns) -> tuple[threading.Thread, list[float]]:
    times: list[float] = []

    def take() -> None:
        turns.take()
        times.append(time.monotonic())

    thread = threading.Thread(target=take)
    thread.start()
    return thread, times


def test_a_turn_is_handed_to_the_one_that_queues_and_comes_back(tmp_path: Path) -> None:
    first, second = Turns(tmp_path / "cores", CORES, 2), Turns(tmp_path / "cores", CORES, 2)
    first.take()
    thread, times = _in_thread(second)
    time.sleep(0.1)
    assert not times
    back = threading.Thread(target=first.pass_on)
    back.start()
    thread.join(5)
    assert len(times) == 1
    time.sleep(0.1)
    assert back.is_alive()  # now it is the first that waits
    second.give()
    back.join(5)
    assert not back.is_alive()
    first.close()
    second.close()


def test_a_turn_goes_on_at_once_where_nobody_queues(tmp_path: Path) -> None:
    alone = Turns(tmp_path / "cores", CORES, 2)
    alone.take()
    started = time.monotonic()
    for _ in range(100):
        alone.pass_on()
    assert time.monotonic() - started < 1.0
    alone.close()


def test_trainings_that_fit_side_by_side_do_not_wait_for_each_other(tmp_path: Path) -> None:
    first, second = Turns(tmp_path / "cores", CORES, 1), Turns(tmp_path / "cores", CORES, 1)
    first.take()
    thread, times = _in_thread(second)
    thread.join(5)
    assert times
    first.close()
    second.close()


def test_a_process_that_is_killed_gives_its_turn_back(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "cores")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = Turns(tmp_path / "cores", CORES, 2)
    thread, times = _in_thread(waiting)
    time.sleep(0.1)
    assert not times
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    thread.join(5)
    assert times
    waiting.close()


def test_who_waits_too_long_goes_on_without_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.05)
    stopped, other = Turns(tmp_path / "cores", CORES, 2), Turns(tmp_path / "cores", CORES, 2)
    stopped.take()
    started = time.monotonic()
    other.take()
    waited = time.monotonic() - started
    assert 0.05 <= waited < 2
    started = time.monotonic()
    other.take()
    assert time.monotonic() - started < 0.05  # it does not ask again so soon
    stopped.give()
    third = Turns(tmp_path / "cores", CORES, 2)
    third.take()  # and keeps nobody from the cores
    third.pass_on()
    for one in (stopped, other, third):
        one.close()


def test_a_forked_child_does_not_keep_the_turn_of_its_parent(tmp_path: Path) -> None:
    mine = Turns(tmp_path / "cores", CORES, 2)
    mine.take()
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
    try:
        mine.close()
        other = Turns(tmp_path / "cores", CORES, 2)
        started = time.monotonic()
        other.take()
        assert time.monotonic() - started < 2
        other.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_is_timed_has_all_cores_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    training = Turns(turns.lock_folder(), usable_cores(), 1)
    with turns.turn_alone():
        thread, times = _in_thread(training)
        time.sleep(0.1)
        assert not times
    thread.join(5)
    assert times
    training.close()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    with turns.turn_alone():
        pass


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(
        PermissionError, match="open is not a folder that this user alone can write"
    ):
        Turns(tmp_path / "open", CORES, 2)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        Turns(tmp_path / "link", CORES, 2)
