from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.entities import Run as RunInMlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from torchrelay import faults, settings
from torchrelay.disk import lock
from torchrelay.errors import BusyError
from torchrelay.runs import (
    JOURNAL_FILE,
    Cursor,
    Journal,
    Run,
    RunRecord,
    load_record,
    save_record,
    update_record,
    waiting,
)
from torchrelay.settings import Home
from torchrelay.tracking.client import on_answer
from torchrelay.tracking.shipping.aside import Aside, describe_aside, load_aside, set_aside
from torchrelay.tracking.shipping.outbox import Outbox
from torchrelay.tracking.shipping.shipper import (
    settle,
    start_shipping,
    stop_shipping,
    sync_home,
    sync_run,
)

from ...faults.proxy import Mode, proxied
from ..conftest import mlflow_run_of, shipped_run

Make = Callable[..., RunRecord]
OpenRun = Callable[..., Path]
NUM_STEPS = 1200


@pytest.fixture
def run_dir(open_run: OpenRun, make_record: Make) -> Path:
    """A run that came to its end without a tracker: 1,200 steps, a file, and its status."""
    run_dir = open_run(make_record())
    (run_dir / "weights").mkdir()
    (run_dir / "weights" / "best.pt").write_bytes(b"weights")
    with Journal(run_dir / JOURNAL_FILE) as journal:
        for step in range(1, NUM_STEPS + 1):
            journal.append_metrics(step, 0, {"train/loss": 1 / step, "lr": 0.1})
        journal.append_artifact(run_dir / "weights", "weights")
        journal.append_status("FINISHED", 1_800_000_000_000)
    return run_dir


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    faults.arm("")


@contextlib.contextmanager
def shipping(run_dir: Path) -> Iterator[None]:
    """Send a run's journal while the block runs."""
    start_shipping(Run(run_dir))
    try:
        yield
    finally:
        stop_shipping(Run(run_dir))


def assert_complete(run_dir: Path) -> None:
    """MLflow has the one run, and each point once, with the value and the time that the journal
    says.
    """
    run = shipped_run(run_dir)
    client, record = run.client, load_record(run_dir)
    found = client.search_runs([run.experiment_id])
    assert [one.info.run_id for one in found] == [record.mlflow_run_id]
    assert (found[0].info.status, found[0].info.end_time) == ("FINISHED", 1_800_000_000_000)
    for key in ("train/loss", "lr"):
        expected = [
            point[1:] for point in Journal(run_dir / JOURNAL_FILE).points() if point.key == key
        ]
        history = client.get_metric_history(run.run_id, key)
        assert sorted((point.value, point.step, point.timestamp) for point in history) == sorted(
            expected
        )
    assert [item.path for item in client.list_artifacts(run.run_id, "weights")] == [
        "weights/best.pt"
    ]
    assert waiting(Run(run_dir)) == 0


def test_a_fork_waits_until_the_thread_has_said_what_it_says(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    begun, ended = threading.Event(), threading.Event()

    class SlowHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            begun.set()
            time.sleep(1.0)
            ended.set()

    logger, handler = logging.getLogger("torchrelay.tracking.shipping.shipper"), SlowHandler()
    logger.addHandler(handler)
    try:
        with shipping(run_dir):
            assert begun.wait(30)
            assert not ended.is_set()
            # It leaves at once, past what Prefect would have threads do at an exit.
            child = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
            child.start()
            assert ended.is_set()
            child.join(30)
            assert child.exitcode == 0
    finally:
        logger.removeHandler(handler)


def _sync_and_die(run_dir: Path, fault: str) -> None:
    faults.arm(fault)
    sync_run(Run(run_dir))


@pytest.mark.parametrize(
    "fault", [*(f"ship.{name}:kill" for name in faults.POINTS["ship"]), "ship.batch_sent:kill:4"]
)
def test_a_process_that_is_killed_while_it_sends_leaves_each_point_there_once(
    run_dir: Path, fault: str
):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_sync_and_die, args=(run_dir, fault))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    assert waiting(Run(run_dir)) > 0
    assert_complete(run_dir)


@pytest.mark.parametrize("point", ["begun", "run_created", "batch_sent", "artifact_sent"])
def test_an_error_while_it_sends_costs_neither_the_run_nor_a_point(
    run_dir: Path, disarmed: None, point: str, caplog: pytest.LogCaptureFixture
):
    faults.arm(f"ship.{point}:raise")
    with shipping(run_dir):
        assert settle(Run(run_dir), patience_seconds=5).num_waiting == 0
    assert f"fault at ship.{point}" in caplog.text
    assert_complete(run_dir)


@pytest.mark.parametrize("mode", ["refuse", "hang", "500", "late"])
def test_a_tracker_without_an_answer_costs_its_patience_and_loses_nothing(
    run_dir: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
):
    num_lines = waiting(Run(run_dir))
    with monkeypatch.context() as patch, proxied(mode=mode, late_seconds=5) as proxy:
        patch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        with shipping(run_dir):
            began = time.monotonic()
            done = settle(Run(run_dir), patience_seconds=0.3)
        assert time.monotonic() - began < 1.5
        assert proxy.num_requests > 0
        assert (done.num_sent, done.num_waiting, done.is_silent) == (0, num_lines, True)
        assert proxy.address in done.reason
    assert_complete(run_dir)


STUCK = """
import sys, time
from pathlib import Path
from torchrelay.runs import Run
from torchrelay.tracking.shipping import settle, start_shipping
run_dir = Path(sys.argv[1])
start_shipping(Run(run_dir))
print(settle(Run(run_dir), patience_seconds=0.3).num_waiting, flush=True)
"""


def test_a_call_that_hangs_does_not_keep_the_process_alive(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    with proxied(mode="hang") as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        process = subprocess.Popen(
            [sys.executable, "-c", STUCK, str(run_dir)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        assert process.wait(3) == 0


def test_lines_are_sent_while_the_run_goes_on(run_dir: Path):
    with shipping(run_dir):
        deadline = time.monotonic() + 60
        while waiting(Run(run_dir)) and time.monotonic() < deadline:
            time.sleep(0.05)
        with Journal(run_dir / JOURNAL_FILE) as journal:
            journal.append_metrics(NUM_STEPS + 1, 1, {"train/loss": 0.5, "lr": 0.1})
        assert settle(Run(run_dir), patience_seconds=5).num_waiting == 0
    assert_complete(run_dir)


def test_a_run_that_ends_while_its_thread_sends_what_another_left_is_sent_at_once(
    run_dir: Path, open_run: OpenRun, make_record: Make
):
    other = open_run(make_record())
    with Journal(other / JOURNAL_FILE) as journal:
        for step in range(1, 20_001):
            journal.append_metrics(step, 0, {"train/loss": 1 / step, "lr": 0.1})
    before = waiting(Run(other))
    with shipping(run_dir):
        deadline = time.monotonic() + 60
        while waiting(Run(other)) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        with Journal(run_dir / JOURNAL_FILE) as journal:
            journal.append_metrics(NUM_STEPS + 1, 1, {"train/loss": 0.5, "lr": 0.1})
        assert settle(Run(run_dir), patience_seconds=5).num_waiting == 0
    assert 0 < waiting(Run(other)) < before
    assert waiting(Run(run_dir)) == 0


def test_a_line_that_the_tracker_refuses_costs_a_warning_and_does_not_keep_what_lies_behind_it(
    run_dir: Path, caplog: pytest.LogCaptureFixture
):
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_params({"train.epochs": "another"})
        journal.append_tags({"after": "it"})
    with caplog.at_level(logging.WARNING):
        run = shipped_run(run_dir)
    assert "MLflow does not take a line of kind params, which stays in the journal" in caplog.text
    found = run.client.get_run(run.run_id).data
    assert (found.params["train.epochs"], found.tags["after"]) == ("10", "it")


def test_a_line_that_a_disk_has_spoilt_does_not_cost_those_beside_it(
    run_dir: Path, caplog: pytest.LogCaptureFixture
):
    with (run_dir / JOURNAL_FILE).open("a") as file:
        for step, value in ((1, 0.5), (2, "0.x"), (3, 0.25)):
            line = {
                "time": 1_700_000_000_000,
                "kind": "metrics",
                "step": step,
                "epoch": 0,
                "values": {"other": value},
            }
            file.write(json.dumps(line) + "\n")
    run = shipped_run(run_dir)
    assert [point.step for point in run.client.get_metric_history(run.run_id, "other")] == [1, 3]
    assert "MLflow does not take a line of kind metrics, which stays in the journal" in caplog.text


def test_what_no_kept_step_has_stays_in_the_journal(open_run: OpenRun, make_record: Make):
    run_dir = open_run(make_record())
    with Journal(run_dir / JOURNAL_FILE) as journal:
        for step in range(1, 101):
            journal.append_metrics(step, 0, {"train/loss": 1 / step}, is_kept=step % 10 == 0)
        journal.append_event("stopped")
    run = shipped_run(run_dir)
    assert [
        point.step for point in run.client.get_metric_history(run.run_id, "train/loss")
    ] == list(range(10, 101, 10))
    assert len(Journal(run_dir / JOURNAL_FILE).points()) == 100


def test_a_line_is_sent_when_it_is_whole_and_a_torn_one_never(run_dir: Path):
    path, outbox = run_dir / JOURNAL_FILE, Outbox(Run(run_dir))
    while outbox.send_batch():
        pass
    with path.open("ab", buffering=0) as file:
        file.write(b'{"time":1,"kind":"tags","values":{"a":"in ')
        assert not outbox.send_batch()
        file.write(b'two parts"}}\n{"time":1,"kind":"tags","values":{"b":"torn')
        assert outbox.send_batch()
        assert not outbox.send_batch()
    with Journal(path) as journal:
        journal.append_tags({"b": "whole"})
    run = shipped_run(run_dir)
    tags = run.client.get_run(run.run_id).data.tags
    assert (tags["a"], tags["b"]) == ("in two parts", "whole")


@pytest.mark.parametrize(
    "text",
    [
        '{"format_version": 1, "offset": "x"}',
        '{"format_versioo": 1, "offset": 9, "digest": "0"}',
        "{",
        "[]",
        "",
    ],
)
def test_a_cursor_that_a_disk_has_spoilt_has_all_sent_again_and_there_once(
    run_dir: Path, text: str
):
    assert sync_run(Run(run_dir)).num_waiting == 0
    (run_dir / "shipped.json").write_text(text)
    assert waiting(Run(run_dir)) > NUM_STEPS
    assert_complete(run_dir)


def test_a_run_whose_process_lives_is_left_to_it(run_dir: Path):
    with lock(run_dir / "lock", "it"), pytest.raises(BusyError, match="sends its journal itself"):
        sync_run(Run(run_dir))
    with lock(run_dir / "lock", "it"):
        assert [(done.num_sent, done.num_waiting > 0) for done in sync_home(settings.home())] == [
            (0, True)
        ]
    assert [done.num_waiting for done in sync_home(settings.home())] == [0]
    assert list(sync_home(settings.home())) == []


def test_one_process_at_a_time_sends_a_journal(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torchrelay.tracking.shipping.shipper.EMBEDDED_PATIENCE_SECONDS", 2.0)
    with lock(run_dir / "ship.lock", "it"):
        done = sync_run(Run(run_dir), patience_seconds=0.2)
    assert (done.num_sent, done.is_silent) == (0, False)
    assert "is being written by pid" in done.reason
    assert_complete(run_dir)


def test_the_next_run_sends_in_passing_what_another_left(
    run_dir: Path, open_run: OpenRun, make_record: Make
):
    later = open_run(make_record())
    with shipping(later):
        deadline = time.monotonic() + 60
        while waiting(Run(run_dir)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert settle(Run(later), patience_seconds=5).num_waiting == 0
    assert waiting(Run(run_dir)) == 0
    assert load_record(run_dir).mlflow_run_id


def test_what_was_meant_for_another_tracker_is_not_sent_in_passing(
    open_run: OpenRun, make_record: Make, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
        other = open_run(make_record(run_id="other", created="2026-01-01T00:00:00+00:00"))
    left, later = (
        open_run(make_record(run_id="left", created="2026-01-02T00:00:00+00:00")),
        open_run(make_record()),
    )
    with shipping(later):
        deadline = time.monotonic() + 60
        while waiting(Run(left)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert (waiting(Run(left)), waiting(Run(other))) == (0, 3)
    assert sync_run(Run(other)).num_waiting == 0


def test_a_run_that_a_late_answer_made_twice_is_there_once(run_dir: Path):
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    experiment = client.create_experiment("digits")
    for _ in range(2):
        client.create_run(experiment, tags={"torchrelay.run_id": run_dir.name})
    Cursor(is_uncertain=True).save(run_dir)
    assert_complete(run_dir)


def test_a_run_that_an_older_version_sent_itself_goes_on_where_it_is(
    home: Home, make_record: Make, open_run: OpenRun
):
    old = open_run(make_record())
    path, run = old / JOURNAL_FILE, shipped_run(old)
    head, *_ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        head + b'{"time":1,"kind":"metrics","step":1,"epoch":0,"values":{"loss":1.0}}\n'
    )
    (old / "shipped.json").unlink()
    assert waiting(Run(old)) == 0
    with Journal(path) as journal:
        journal.append(
            "open", experiment="digits", start_ms=1, parent="", tags={"torchrelay.run_id": old.name}
        )
        journal.append_metrics(2, 0, {"loss": 0.5})
    again = shipped_run(old)
    assert again.run_id == run.run_id
    assert [point.step for point in again.client.get_metric_history(run.run_id, "loss")] == [2]


@pytest.mark.parametrize(
    "stated",
    [
        "../../../private",
        "{victim}",
        "../../../private/key",
        "link",
        "linked",
        "../../mlflow.db",
        "a\0",
    ],
)
def test_what_a_journal_states_and_lies_outside_of_its_run_is_not_sent(
    open_run: OpenRun, make_record: Make, tmp_path: Path, stated: str
):
    victim = settings.home().root.parent / "private"
    victim.mkdir()
    (victim / "key").write_text("secret")
    run_dir = open_run(make_record())
    (run_dir / "link").symlink_to(victim / "key")
    (run_dir / "linked").mkdir()
    (run_dir / "linked" / "a").write_text("own")
    (run_dir / "linked" / "key").symlink_to(victim / "key")
    report = settings.home().packs / "p" / "splits" / "s" / "report.json"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append("artifact", path=stated.format(victim=victim), artifact_path="")
        journal.append_artifact(report, "data")
        journal.append_status("FINISHED", 1)
    assert sync_run(Run(run_dir)).num_waiting == 0
    run = mlflow_run_of(run_dir)
    assert [item.path for item in run.client.list_artifacts(run.run_id)] == ["data"]
    assert [one.kind for one in load_aside(Run(run_dir))] == ["artifact"]


def test_what_waits_is_not_sent_to_a_run_that_the_tracker_has_as_another(
    open_run: OpenRun, make_record: Make
):
    run, thief = shipped_run(open_run(make_record())), open_run(make_record())
    update_record(thief, mlflow_run_id=run.run_id)
    Cursor(
        offset=(thief / JOURNAL_FILE).stat().st_size, mlflow_run_id=run.run_id, experiment_id="1"
    ).save(thief)
    with Journal(thief / JOURNAL_FILE) as journal:
        journal.append_tags({"taken": "over"})
    done = sync_run(Run(thief))
    assert done.num_waiting == 1
    assert f", not {thief.name}; where that run was copied here" in done.reason
    assert "taken" not in run.client.get_run(run.run_id).data.tags
    (thief / "shipped.json").unlink()
    assert shipped_run(thief).run_id != run.run_id


def test_a_child_is_shown_below_its_parent_which_is_sent_first(
    home: Home, open_run: OpenRun, make_record: Make
):
    parent = open_run(make_record(run_id="parent", created="2026-01-01T00:00:00+00:00"))
    child = open_run(
        make_record(run_id="child", parent="parent", created="2026-01-01T00:00:01+00:00")
    )
    assert [done.run_id for done in sync_home(home)] == ["parent", "child"]
    run = shipped_run(child)
    tags = run.client.get_run(run.run_id).data.tags
    assert tags["mlflow.parentRunId"] == load_record(parent).mlflow_run_id


def test_a_long_journal_is_never_in_memory_as_a_whole(open_run: OpenRun, make_record: Make):
    run_dir = open_run(make_record())
    with Journal(run_dir / JOURNAL_FILE) as journal:
        for step in range(1, 30_001):
            journal.append_metrics(step, 0, {"train/loss": 1 / step}, is_kept=step % 10 == 0)
    outbox, longest = Outbox(Run(run_dir)), 0
    with (run_dir / JOURNAL_FILE).open("rb") as file:
        is_end = False
        while not is_end:
            lines, outbox.cursor.offset, is_end = outbox._next_lines(file)
            longest = max(longest, len(lines))
    assert 0 < longest <= 1000


def test_changes_of_a_record_by_several_threads_are_all_kept(home: Home, make_record: Make):
    run_dir = save_record(home, make_record())
    context = multiprocessing.get_context("fork")
    names = ("device", "precision", "stopped", "error", "recipe_file", "source")
    processes = [context.Process(target=_change_often, args=(run_dir, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    record = load_record(run_dir)
    assert [getattr(record, name) for name in names] == ["20"] * len(names)


def _change_often(run_dir: Path, name: str) -> None:
    for number in range(1, 21):
        update_record(run_dir, **{name: str(number)})


def test_metrics_that_a_server_fails_at_are_set_aside_and_hold_up_nothing(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr("torchrelay.tracking.shipping.outbox.PAUSES", (0.0,))
    with Journal(run_dir / JOURNAL_FILE) as journal:
        for step in (NUM_STEPS + 1, NUM_STEPS + 2):
            journal.append_metrics(
                step, 1, {"valid/accuracy": 0.5, "valid/accuracy/cold": 0.25, "valid/after": 1.0}
            )
        journal.append_tags({"after": "it"})
        journal.append_status("FINISHED", 1_800_000_000_000)
    done = sync_run(Run(run_dir))
    assert (done.num_waiting, done.reason) == (0, "")
    assert "metrics valid/accuracy/cold: MLflow at " in done.aside
    assert f"torchrelay sync {run_dir.name} tries them again" in done.aside
    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    found = client.get_run(load_record(run_dir).mlflow_run_id)
    assert (found.info.status, found.data.tags["after"]) == ("FINISHED", "it")
    assert {"valid/accuracy", "valid/after"} <= set(found.data.metrics)
    assert [one.path for one in client.list_artifacts(found.info.run_id, "weights")] == [
        "weights/best.pt"
    ]
    asides = load_aside(Run(run_dir))
    assert len((run_dir / "set_aside.jsonl").read_text().splitlines()) == 2
    assert [one.keys for one in asides] == [("valid/accuracy/cold",)] * 2

    again = sync_run(Run(run_dir), is_asked=True)
    assert (again.num_sent, again.aside) == (0, done.aside)  # not taken this time either
    assert load_aside(Run(run_dir)) == asides
    shutil.rmtree(tmp_path / "mlruns")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (run_dir / "shipped.json").unlink()
    assert (
        sync_run(Run(run_dir), is_asked=True).aside == ""
    )  # a tracker that takes them has them all
    run = shipped_run(run_dir)
    assert len(run.client.get_metric_history(run.run_id, "valid/accuracy/cold")) == 2
    assert not (run_dir / "set_aside.jsonl").exists()


class Picky:
    """MLflow's database, which does not take points of some names; counts what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, sleep: float = 0.0) -> None:
        self.num_batches = self.num_looks = 0
        self.is_picky = True
        log_batch, get_run = MlflowClient.log_batch, MlflowClient.get_run

        def pick(
            client: MlflowClient, run_id: str, metrics: Sequence[Metric] = (), **others: Any
        ) -> None:
            self.num_batches += 1
            time.sleep(sleep)
            if self.is_picky and any(point.key.startswith("bad") for point in metrics):
                raise MlflowException("not these", code)
            log_batch(client, run_id, metrics=metrics, **others)

        def look(client: MlflowClient, run_id: str) -> RunInMlflow:
            self.num_looks += 1
            return get_run(client, run_id)

        monkeypatch.setattr(MlflowClient, "log_batch", pick)
        monkeypatch.setattr(MlflowClient, "get_run", look)
        monkeypatch.setattr("torchrelay.tracking.shipping.outbox.PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("code", [INVALID_PARAMETER_VALUE, INTERNAL_ERROR])
def test_names_that_are_refused_again_and_again_cost_one_request_a_batch(
    open_run: OpenRun, make_record: Make, monkeypatch: pytest.MonkeyPatch, code: int
):
    run_dir = open_run(make_record())
    with Journal(run_dir / JOURNAL_FILE) as journal:
        for step in range(1, 1001):
            journal.append_metrics(step, 0, {"bad/a": 1.0, "good": 1 / step, "bad/b": 2.0})
        journal.append_status("FINISHED", 1_800_000_000_000)
    tracker = Picky(monkeypatch, code)
    done = sync_run(Run(run_dir))
    assert (done.num_waiting, done.aside[:26]) == (0, "metrics bad/a, bad/b: MLfl")
    assert tracker.num_batches < 120
    assert tracker.num_looks < 60
    aside = load_aside(Run(run_dir))
    assert len({(one.end, key) for one in aside for key in one.keys}) == 2000

    again = Outbox(Run(run_dir))  # of another process
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_metrics(1001, 0, {"bad/a": 1.0, "good": 0.5, "bad/b": 2.0})
    before = tracker.num_batches
    assert again.send_batch()
    assert tracker.num_batches <= before + 3
    assert "together with the one before" not in describe_aside(Run(run_dir))

    assert sync_run(Run(run_dir), is_asked=True).num_sent == 0
    assert {(one.end, key) for one in aside for key in one.keys} < {
        (one.end, key) for one in load_aside(Run(run_dir)) for key in one.keys
    }
    tracker.is_picky = False
    assert (sync_run(Run(run_dir), is_asked=True).num_sent, load_aside(Run(run_dir))) == (2002, [])
    run = shipped_run(run_dir)
    for key in ("bad/a", "good", "bad/b"):
        assert len(run.client.get_metric_history(run.run_id, key)) == 1001


def test_refusals_are_no_answer_worth_waiting_for_at_a_runs_end(
    open_run: OpenRun, make_record: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torchrelay.tracking.shipping.shipper.EMBEDDED_PATIENCE_SECONDS", 0.6)
    monkeypatch.setattr("torchrelay.tracking.shipping.shipper.EMBEDDED_START_SECONDS", 0.0)
    run_dir = open_run(make_record())
    sync_run(Run(run_dir))
    with Journal(run_dir / JOURNAL_FILE) as journal:
        for step in (1, 2, 3):
            journal.append_metrics(step, 0, {f"bad/{name}": 1.0 for name in range(100)})
    Picky(monkeypatch, INVALID_PARAMETER_VALUE, sleep=0.02)
    began = time.monotonic()
    assert settle(Run(run_dir), patience_seconds=0.6).num_waiting == 3
    assert time.monotonic() - began < 3


def test_a_torn_line_of_what_is_set_aside_costs_none_behind_it(run_dir: Path):
    (run_dir / "set_aside.jsonl").write_text('{"end":1,"kind":"me')
    one = Aside(9, "tags", (), "refused")
    set_aside(Run(run_dir), [one])
    set_aside(Run(run_dir), [one._replace(reason="again")])
    assert load_aside(Run(run_dir)) == [one]


def test_a_server_that_answers_and_brings_nothing_on_is_not_waited_for(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torchrelay.tracking.shipping.shipper.EMBEDDED_PATIENCE_SECONDS", 1.0)
    num_lines = waiting(Run(run_dir))
    shutil.rmtree(settings.home().artifacts, ignore_errors=True)

    def answer_and_fail(*_: object) -> None:
        settings_answered = on_answer.get()
        assert settings_answered is not None
        settings_answered()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchrelay.tracking.shipping.outbox.open_client", answer_and_fail)
    began = time.monotonic()
    done = settle(Run(run_dir), patience_seconds=0.3)
    assert time.monotonic() - began < 6
    assert done.num_waiting == num_lines
    assert "No space left on device" in done.reason
