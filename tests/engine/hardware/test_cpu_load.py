import time

import pytest

from torchrelay.engine.hardware.cpu_load import Load, LoadMeter

STAT = """cpu  0 0 0 0 0 0 0 0 0 0
cpu0 {0} 5 10 1000 50 1 2 700 0 0
cpu1 {1} 5 10 1000 50 1 2 700 0 0
cpu2 {2} 5 10 1000 50 1 2 700 0 0
intr 1 2 3
"""


def test_the_load_is_what_the_cores_did_between_two_looks() -> None:
    texts = iter([STAT.format(100, 200, 300), STAT.format(110, 200, 320)])
    meter = LoadMeter(frozenset({0, 1}), lambda: next(texts))
    started = time.perf_counter()
    time.sleep(
        0.25
    )  # 10 hundredths of a second of it core 0 was busy, core 1 was not, core 2 is not asked for
    load = meter.look()
    assert load is not None
    assert load.seconds == pytest.approx(time.perf_counter() - started, abs=0.05)
    assert load.busy == {0: pytest.approx(0.1 / load.seconds), 1: 0.0}


def test_own_work_is_no_load_of_others() -> None:
    assert Load(1.0, {0: 1.0, 1: 0.75}, own=1.5).others == pytest.approx(0.25)
    assert Load(1.0, {0: 0.2, 1: 0.1}, own=0.5).others == 0.0
    end = time.perf_counter() + 0.3
    meter = LoadMeter(frozenset({0}), lambda: STAT.format(0, 0, 0))
    while time.perf_counter() < end:
        pass
    load = meter.look()
    assert load is not None
    assert load.own > 0.1


@pytest.mark.parametrize("text", ["", "no counters here\n"])
def test_a_system_that_does_not_say_has_no_load(text: str) -> None:
    def missing() -> str:
        raise FileNotFoundError

    assert LoadMeter(frozenset({0}), lambda: text).look() is None
    assert LoadMeter(frozenset({0}), missing).look() is None
