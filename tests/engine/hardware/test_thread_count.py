import json
import os
import time
from pathlib import Path

import pytest
import torch

from torchrelay.engine.hardware import thread_count
from torchrelay.engine.hardware.cpu_load import usable_cores
from torchrelay.engine.hardware.thread_count import (
    USER_SETTINGS,
    ThreadCount,
    candidates,
    choose,
    find_thread_count,
    threads_by_user,
)

needs_two_cores = pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> object:
    for name in USER_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_powers_of_two_and_the_most_are_tried() -> None:
    assert candidates(1) == [1]
    assert candidates(2) == [1, 2]
    assert candidates(6) == [1, 2, 4, 6]
    assert candidates(8) == [1, 2, 4, 8]


def test_the_smallest_number_that_is_about_as_fast_is_chosen() -> None:
    assert choose({1: 10.0, 2: 6.0, 4: 3.5, 8: 3.4}) == 4
    assert choose({1: 1.0, 2: 0.98}) == 1
    assert choose({1: 1.0, 2: 0.7}) == 2


@needs_two_cores
@pytest.mark.parametrize(("slow", "expected"), [(1, 2), (2, 1)])
def test_the_number_is_measured_once_and_remembered(
    tmp_path: Path, slow: int, expected: int
) -> None:
    steps: list[int] = []

    def step() -> None:
        steps.append(torch.get_num_threads())
        time.sleep(0.002 if steps[-1] == slow else 0.001)

    memory = tmp_path / "cache" / "threads.json"
    found = find_thread_count(step, memory, "key")
    assert found.number == expected
    assert "ms a step" in found.reason
    assert set(steps) == {1, 2}
    assert torch.get_num_threads() == 2
    steps.clear()
    assert find_thread_count(step, memory, "key") == found
    assert not steps
    assert find_thread_count(step, memory, "another machine, model or batch size") is not None
    assert find_thread_count(step, memory, "key") == found
    memory.write_text(memory.read_text().replace('"number": ', '"number":  '))
    assert find_thread_count(step, memory, "key") == found
    memory.write_text(
        memory.read_text().replace(f'"number":  {found.number}', f'"number":  {3 - found.number}')
    )
    with pytest.warns(
        UserWarning, match="is not as it was written, and numbers of threads are found anew"
    ):
        find_thread_count(step, memory, "key")
    assert steps
    memory.write_text(memory.read_text().replace('"digest"', '"digesu"'))
    with pytest.warns(UserWarning, match="is not as it was written"):
        find_thread_count(step, memory, "key")


def test_a_long_step_is_not_tried_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_count, "BUDGET_SECONDS", 0.05)
    taken = []

    def step() -> None:
        taken.append(torch.get_num_threads())
        time.sleep(0.02)

    assert find_thread_count(step, tmp_path / "threads.json", "key") == ThreadCount(
        2, "all cores, as a step is long"
    )
    assert len(taken) < 10


@needs_two_cores
@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"key": 3}', '{"key": {"number": 10000, "reason": ""}}']
)
@pytest.mark.filterwarnings("ignore:.*numbers of threads are found anew")
def test_a_memory_that_cannot_be_read_is_made_anew(tmp_path: Path, text: str) -> None:
    memory = tmp_path / "threads.json"
    memory.write_text(text)
    found = find_thread_count(lambda: time.sleep(0.0001), memory, "key")
    assert json.loads(memory.read_text())["key"] == found._asdict()


def test_what_the_user_set_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(len(usable_cores()))
    assert threads_by_user() is None
    torch.set_num_threads((os.cpu_count() or 1) + 3)
    assert threads_by_user() == ThreadCount((os.cpu_count() or 1) + 3, "as it was set before")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    assert threads_by_user() == ThreadCount(1, "as OMP_NUM_THREADS=1 says")
