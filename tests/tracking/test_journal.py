from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from torchrelay.errors import TrackingError
from torchrelay.tracking.journal import Journal, thin


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


def test_metrics_and_events_read_back_in_order_with_their_times(path):
    before = time.time_ns() // 1_000_000
    with Journal(path) as journal:
        journal.append_metrics(1, 0, {"train/loss": 2.5, "lr": 0.1})
        journal.append_event("checkpoint", step=1)
        lines = journal.read()
    after = time.time_ns() // 1_000_000
    assert all(before <= line.pop("time") <= after for line in lines)
    assert lines == [
        {"kind": "metrics", "step": 1, "epoch": 0, "values": {"train/loss": 2.5, "lr": 0.1}},
        {"kind": "event", "name": "checkpoint", "fields": {"step": 1}},
    ]


def test_values_that_are_not_finite_are_kept(path):
    with Journal(path) as journal:
        journal.append_metrics(1, 0, {"nan": math.nan, "inf": math.inf, "minus": -math.inf})
    values = {point.key: point.value for point in Journal(path).points()}
    assert math.isnan(values.pop("nan"))
    assert values == {"inf": math.inf, "minus": -math.inf}


def test_a_torn_last_line_is_dropped_and_the_next_line_stands_on_its_own(path):
    with Journal(path) as journal:
        journal.append_metrics(1, 0, {"loss": 1.0})
        journal.append_metrics(2, 0, {"loss": 2.0})
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert [point.step for point in Journal(path).points()] == [1]
    with Journal(path) as journal:
        assert [point.step for point in journal.append_metrics(2, 0, {"loss": 3.0})] == [2]
    assert [(point.step, point.value) for point in Journal(path).points()] == [(1, 1.0), (2, 3.0)]
    assert path.read_bytes().startswith(whole[:-9])  # appended, never cut


def test_a_journal_torn_in_its_first_line_gets_another(path):
    Journal(path).append_event("x")
    path.write_bytes(path.read_bytes()[:10])
    with Journal(path) as journal:
        journal.append_metrics(1, 0, {"loss": 1.0})
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()[1:]] == ["journal", "metrics"]
    assert [point.step for point in Journal(path).points()] == [1]


def test_a_reopened_journal_takes_only_what_it_does_not_have(path):
    with Journal(path) as journal:
        journal.append_metrics(10, 1, {"train/loss": 1.0})
        journal.append_metrics(11, 1, {"train/loss": 0.9})
    before = path.read_bytes()
    with Journal(path) as journal:
        assert journal.append_metrics(11, 1, {"train/loss": 0.8}) == []
        assert path.read_bytes() == before
        new = journal.append_metrics(11, 1, {"train/loss": 0.8, "valid/loss": 0.7})
        assert [(point.key, point.value) for point in new] == [("valid/loss", 0.7)]
    assert [(p.key, p.step, p.value) for p in Journal(path).points()] == [
        ("train/loss", 10, 1.0),
        ("train/loss", 11, 0.9),
        ("valid/loss", 11, 0.7),
    ]


def test_what_was_appended_before_a_kill_is_there_after_it(path):
    code = (
        "import sys, pathlib; from torchrelay.tracking.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for step in range(1, 101): journal.append_metrics(step, 0, {'loss': step / 7})\n"
        "print('appended', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"appended\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [(point.step, point.value) for point in Journal(path).points()] == [(n, n / 7) for n in range(1, 101)]


def test_reading_makes_no_file(path):
    assert Journal(path).read() == []
    assert not path.exists()


def test_a_journal_of_another_format_version_is_refused(path):
    path.parent.mkdir()
    path.write_text('{"time": 1, "kind": "journal", "format_version": 2}\n')
    with pytest.raises(TrackingError, match="format_version 2, this torchrelay reads format_version 1"):
        Journal(path).read()
    with pytest.raises(TrackingError, match="format_version 2"):
        Journal(path).append_event("x")


@pytest.mark.parametrize("num_steps", [1, 7, 1999, 2000, 2001, 3999, 4001, 7820, 1_000_003])
def test_auto_thinning_keeps_at_most_2000_steps_and_the_last(num_steps):
    keeps = thin(0, num_steps)
    kept = [step for step in range(1, num_steps + 1) if keeps(step)]
    assert 0 < len(kept) <= 2000
    assert kept[-1] == num_steps
    assert num_steps > 2000 or len(kept) == num_steps


def test_a_given_distance_is_kept():
    keeps = thin(50, 120)
    assert [step for step in range(1, 121) if keeps(step)] == [50, 100, 120]
