from __future__ import annotations

import json
import math
import resource
import signal
import subprocess
import sys
import time
import warnings

import pytest

from torchrelay.errors import TrackingError
from torchrelay.runs.journal import Journal, thin


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


def test_metrics_and_events_read_back_in_order_with_their_times(path):
    before = time.time_ns() // 1_000_000
    with Journal(path) as journal:
        journal.append_metrics(1, 0, {"train/loss": 2.5, "lr": 0.1})
        journal.append_event("checkpoint", step=1)
        lines = list(journal.lines())
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
        journal.append_metrics(2, 0, {"loss": 3.0})
    assert [(point.step, point.value) for point in Journal(path).points()] == [(1, 1.0), (2, 3.0)]
    assert path.read_bytes().startswith(whole[:-9])  # appended, never cut


def test_a_journal_torn_in_its_first_line_gets_another(path):
    Journal(path).append_event("x")
    path.write_bytes(path.read_bytes()[:10])
    with Journal(path) as journal:
        journal.append_metrics(1, 0, {"loss": 1.0})
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()[1:]] == [
        "journal",
        "metrics",
    ]
    assert [point.step for point in Journal(path).points()] == [1]


def test_a_reopened_journal_takes_only_what_it_does_not_have(path):
    with Journal(path) as journal:
        journal.append_metrics(10, 1, {"train/loss": 1.0})
        journal.append_metrics(11, 1, {"train/loss": 0.9})
    before = path.read_bytes()
    with Journal(path) as journal:
        journal.append_metrics(10, 1, {"train/loss": 0.8})
        journal.append_metrics(11, 1, {"train/loss": 0.8})
        journal.flush()
        assert path.read_bytes() == before
        journal.append_metrics(11, 1, {"train/loss": 0.8, "valid/loss": 0.7})
    assert [(p.key, p.step, p.value) for p in Journal(path).points()] == [
        ("train/loss", 10, 1.0),
        ("train/loss", 11, 0.9),
        ("valid/loss", 11, 0.7),
    ]


KILLED_AFTER = """
import os, pathlib, signal, sys
from torchrelay.runs import Journal
journal = Journal(pathlib.Path(sys.argv[1]))
for step in range(1, 101):
    journal.append_metrics(step, 0, {"loss": step / 7})
getattr(journal, sys.argv[2])(*sys.argv[3:])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "written_by", [["flush"], ["sync"], ["close"], ["append_event", "x"], ["points"]]
)
def test_what_was_written_before_a_kill_is_there_after_it(path, written_by):
    subprocess.run([sys.executable, "-c", KILLED_AFTER, str(path), *written_by], check=False)
    assert [(point.step, point.value) for point in Journal(path).points()] == [
        (n, n / 7) for n in range(1, 101)
    ]


def test_steps_wait_in_memory_for_half_a_second_at_most_while_they_follow_each_other(path):
    with Journal(path) as journal:
        for step in range(1, 300):
            journal.append_metrics(step, 0, {"loss": 1.0})
            time.sleep(0.004)
            behind = step - (path.read_bytes().count(b'"metrics"') if path.exists() else 0)
            assert behind * 0.004 < 0.7
    assert path.read_bytes().count(b'"metrics"') == 299


def test_a_journal_that_cannot_be_written_says_so_and_goes_on_once_it_can(path):
    with Journal(path) as journal:
        journal.append_event("begun")
        whole = path.stat().st_size
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (whole + 20, hard)
        )  # as a disk that is full after 20 bytes
        try:
            journal.append_metrics(1, 0, {"loss": 1.0})
            with pytest.raises(
                TrackingError, match=r"journal .* cannot be written: .*; then resume the run"
            ):
                journal.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.stat().st_size == whole + 20
        journal.append_status("FAILED", 5)
    assert [(line["kind"], line.get("status")) for line in Journal(path).lines()] == [
        ("event", None),
        ("status", "FAILED"),
    ]


def test_lines_that_belong_together_are_written_by_one_call(path):
    with Journal(path) as journal, journal.together():
        journal.append_params({"a": "1"})
        journal.append_tags({"b": "2"})
        assert not path.exists() or path.stat().st_size == 0
    assert [line["kind"] for line in Journal(path).lines()] == ["params", "tags"]


def test_a_file_of_the_home_is_named_from_the_runs_folder_and_another_in_full(tmp_path):
    path = tmp_path / "home" / "runs" / "one" / "journal.jsonl"
    with Journal(path) as journal:
        journal.append_artifact(path.parent / "weights", "weights")
        journal.append_artifact(tmp_path / "home" / "packs" / "report.json", "data")
        journal.append_artifact(tmp_path / "elsewhere.txt", "data")
        lines = list(journal.lines())
    assert [(line["path"], line["artifact_path"]) for line in lines] == [
        ("weights", "weights"),
        ("../../packs/report.json", "data"),
        (str(tmp_path / "elsewhere.txt"), "data"),
    ]


def test_reading_makes_no_file(path):
    assert list(Journal(path).lines()) == []
    assert not path.exists()


def test_a_journal_of_another_format_version_is_refused(path):
    path.parent.mkdir()
    path.write_text('{"time": 1, "kind": "journal", "format_version": 2}\n')
    with pytest.raises(
        TrackingError, match="format_version 2, this torchrelay reads format_version 1"
    ):
        list(Journal(path).lines())
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


def test_a_flipped_bit_of_a_line_is_said_and_the_line_left_out(path):
    with Journal(path) as journal:
        journal.append_metrics(1, 0, {"train/loss": 2.5})
        journal.append_metrics(2, 0, {"train/loss": 1.25})
        journal.append_status("FINISHED", 7)
    whole, lines = path.read_bytes(), list(Journal(path).lines())
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = list(Journal(path).lines())
        assert all(line in lines for line in found)
        assert caught or found == lines
    path.write_bytes(whole)


def test_a_line_of_an_older_version_has_no_crc_and_a_torn_one_is_dropped_without_a_word(path):
    path.parent.mkdir()
    head = '{"time":1,"kind":"journal","format_version":1}'
    path.write_text(f'{head}\n{{"time":2,"kind":"event","name":"x","fields":{{}}}}\n')
    with Journal(path) as journal:
        journal.append_event("y")
    whole = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [line["name"] for line in Journal(path).lines()] == ["x", "y"]
        for end in range(whole.rindex(b'{"time"') + 1, len(whole) - 1):
            path.write_bytes(whole[:end])
            assert [line["name"] for line in Journal(path).lines()] == ["x"]
