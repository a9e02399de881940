import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torchrelay.engine.hardware import sharing
from torchrelay.engine.hardware.cpu_load import LoadMeter, usable_cores
from torchrelay.engine.hardware.openmp import WAITING_SETTINGS, libgomp
from torchrelay.engine.hardware.sharing import CoreSharing

needs_two_cores = pytest.mark.skipif(
    sys.platform != "linux" or len(usable_cores()) < 2 or libgomp() is None,
    reason="needs Linux, libgomp and two cores",
)
# CPU seconds of 60 times an operator of two threads and a short sleep; with the argument `team`
# beside a sleeping team.
SPIN = """
import sys, time, torch
from torchrelay.engine.hardware.openmp import SleepingTeam, libgomp
torch.set_num_threads(2)
numbers = torch.ones(1 << 17)
numbers.add_(1)
team = SleepingTeam(libgomp()) if sys.argv[1] == "team" else None
started = time.process_time()
for _ in range(60):
    numbers.add_(1)
    time.sleep(0.003)
print(time.process_time() - started)
if team is not None:
    team.end()
"""

# A training beside other work, in a process that gets no memory for another thread.
CROWDED = """
import json, os, resource
from torchrelay.engine.hardware import sharing
from torchrelay.engine.hardware.cpu_load import Load, usable_cores
cores, said = usable_cores(), []
class Meter:
    def look(self):
        return Load(1.0, dict.fromkeys(cores, 1.0), 0.0)
sharing.LOOK_SECONDS = 0.0
with sharing.CoreSharing(len(cores), said.append, Meter()) as shared:
    before = sorted(os.sched_getaffinity(0))
    used = 4096 * int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))
    for _ in range(3):
        shared.tick()
    print(json.dumps([said[0], before, sorted(os.sched_getaffinity(0))]))
"""


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in WAITING_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # turns of this test alone
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 0.0)


class Counters:
    """The text of /proc/stat on a machine of the cores that this process may use, as time goes
    by.
    """

    def __init__(self) -> None:
        self.busy = dict.fromkeys(usable_cores(), 0)

    def add(self, seconds_by_core: dict[int, float]) -> None:
        for core, seconds in seconds_by_core.items():
            self.busy[core] += int(seconds * os.sysconf("SC_CLK_TCK"))
        time.sleep(0.05)  # in which this process does nothing

    def read(self) -> str:
        return "".join(
            f"cpu{core} {ticks} 0 0 0 0 0 0 0 0 0\n" for core, ticks in self.busy.items()
        )


@needs_two_cores
def test_beside_other_work_the_threads_keep_to_the_free_cores_until_it_is_done() -> None:
    all_cores = sorted(usable_cores())
    counters, said = Counters(), []
    with CoreSharing(
        len(all_cores), said.append, LoadMeter(usable_cores(), counters.read)
    ) as cores:
        cores.tick()
        assert os.sched_getaffinity(0) == set(all_cores)
        counters.add(
            {all_cores[-1]: 60.0}
        )  # far more than the time that has gone by: one core is taken
        cores.tick()
        kept = os.sched_getaffinity(0)
        assert len(kept) == len(all_cores) - 1
        assert {
            frozenset(os.sched_getaffinity(int(one))) for one in os.listdir("/proc/self/task")
        } == {frozenset(kept)}
        with multiprocessing.get_context("fork").Pool(1) as workers:
            assert workers.apply(os.sched_getaffinity, (0,)) == set(all_cores)
        for _ in range(sharing.QUIET_LOOKS - 1):
            cores.tick()
        assert os.sched_getaffinity(0) == kept  # a short silence may be none
        cores.tick()
        assert os.sched_getaffinity(0) == set(all_cores)
    given_way, free_again = said
    num_cores = len(all_cores)
    assert re.fullmatch(
        rf"cores: others keep \d\.\d of {num_cores} busy; the training keeps to {num_cores - 1} "
        rf"until they are done",
        given_way,
    )
    assert free_again == f"cores: all {num_cores} are free again"


@needs_two_cores
def test_all_cores_are_back_when_the_training_ends_while_it_gives_way() -> None:
    counters = Counters()
    with (
        pytest.raises(KeyboardInterrupt),
        CoreSharing(2, lambda _: None, LoadMeter(usable_cores(), counters.read)) as cores,
    ):
        counters.add(dict.fromkeys(usable_cores(), 60.0))
        cores.tick()
        assert len(os.sched_getaffinity(0)) == 1  # never none
        raise KeyboardInterrupt
    assert os.sched_getaffinity(0) == usable_cores()


@needs_two_cores
@pytest.mark.parametrize("name", WAITING_SETTINGS)
def test_nothing_changes_where_the_user_said_how_to_wait(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "passive")
    counters = Counters()
    with CoreSharing(2, lambda _: None, LoadMeter(usable_cores(), counters.read)) as cores:
        counters.add(dict.fromkeys(usable_cores(), 60.0))
        cores.tick()
        assert os.sched_getaffinity(0) == usable_cores()
        assert cores.waiting == f"as {name}=passive says"


@needs_two_cores
def test_a_libgomp_of_another_package_is_no_hindrance() -> None:
    code = (
        "import torch, sklearn.metrics\n"
        "from torchrelay.engine.hardware.openmp import libgomp\n"
        "print(libgomp() is not None)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True).stdout
        == "True\n"
    )


def test_one_thread_needs_no_care() -> None:
    with CoreSharing(1) as cores:
        assert list(cores.around(range(3))) == [0, 1, 2]
        assert cores.waiting == "one thread waits for none"


@needs_two_cores
@pytest.mark.slow
def test_beside_a_sleeping_team_no_thread_spins_long() -> None:
    def cpu_seconds(how: str) -> float:
        environment = {
            name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"
        }
        command = [sys.executable, "-c", SPIN, how]
        return float(
            subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, check=True, text=True
            ).stdout
        )

    # The spinning takes 60 times up to three milliseconds, and less where the cores are busy: the
    # best of two counts.
    assert max(cpu_seconds("alone") for _ in range(2)) > 2 * min(
        cpu_seconds("team") for _ in range(2)
    )


@needs_two_cores
def test_where_the_system_has_no_room_for_the_threads_nothing_is_changed_and_it_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CROWDED], stdout=subprocess.PIPE, check=True, text=True
    )
    said, before, after = json.loads(done.stdout)
    assert "the training cannot give way: there is no room for" in said
    assert before == after
