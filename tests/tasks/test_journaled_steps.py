from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from torchrelay import faults
from torchrelay.addresses import hide_in_values
from torchrelay.engine import StopRequested
from torchrelay.faults import FaultError
from torchrelay.recipe import (
    Recipe,
    changes_between,
    dump_recipe,
    flatten,
    load_recipe,
    parse_recipe,
)
from torchrelay.runs import (
    JOURNAL_FILE,
    Journal,
    Run,
    RunRecord,
    load_record,
    now,
    update_record,
    waiting,
)
from torchrelay.schema import Schema
from torchrelay.tasks import ending
from torchrelay.tasks.ending import keep_status
from torchrelay.tasks.ingest import ingest_table
from torchrelay.tasks.reopen import (
    find_unfinished_change,
    journal_resumption,
    reopen_run,
    write_changed_recipe,
)
from torchrelay.tasks.runs import hold_run, name_run, open_run, start_run
from torchrelay.tasks.train import note_resumption, train_model
from torchrelay.tracking.shipping import stop_shipping

from ..conftest import WriteRecipe


@pytest.fixture
def run_dir(number_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run that is open and has not trained; no tracker hears of it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    recipe = load_recipe(number_recipe(checkpoint={"every_steps": 7}), None, {"train.epochs": 2})
    run_dir = name_run(recipe)
    start_run.fn(run_dir, recipe, ingest_table.fn(recipe), "")
    yield run_dir
    stop_shipping(Run(run_dir))


def train_and_die(run_dir: Path, fault: str) -> None:
    """Train in a process of its own that is killed at a point."""
    code = (
        "import sys; from pathlib import Path; from torchrelay import faults; "
        "from torchrelay.tasks.train import train_model; faults.arm(sys.argv[2]); "
        "train_model.fn(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_dir), fault], check=False, timeout=120
    )
    assert done.returncode == -9


def steps_of(run_dir: Path, key: str = "train/loss") -> list[int]:
    return [point.step for point in Journal(run_dir / JOURNAL_FILE).points() if point.key == key]


def test_the_journal_is_on_disk_before_the_checkpoint_from_which_a_killed_run_goes_on(
    run_dir: Path,
) -> None:
    train_and_die(run_dir, "checkpoint.begun:kill")
    assert steps_of(run_dir) == list(range(1, 8))


def test_a_killed_run_that_goes_on_has_each_step_once_in_its_journal(run_dir: Path) -> None:
    train_and_die(run_dir, "train.reported:kill:12")
    train_model.fn(run_dir)
    num_steps = load_record(run_dir).steps
    assert num_steps > 12
    for key in ("train/loss", "lr"):
        assert steps_of(run_dir, key) == list(range(1, num_steps + 1))


def events_of(run_dir: Path, name: str) -> list[dict[str, Any]]:
    lines = list(Journal(run_dir / JOURNAL_FILE).lines())
    return [line["fields"] for line in lines if line["kind"] == "event" and line["name"] == name]


@pytest.mark.parametrize(
    ("fault", "step", "journaled"),
    [
        pytest.param("checkpoint.begun:kill", 0, 7, marks=pytest.mark.slow),
        ("checkpoint.begun:kill:3", 9, 14),
    ],
)
def test_the_journal_says_from_which_step_another_recipe_went_on_and_which_points_are_old(
    run_dir: Path, capsys: pytest.CaptureFixture[str], fault: str, step: int, journaled: int
) -> None:
    train_and_die(run_dir, fault)
    assert steps_of(run_dir)[-1] == journaled
    warning = (
        f"warning: steps {step + 1} to {journaled} of the curves are those of before the change of "
        "train.optimizer"
    )
    reopen_run.fn(run_dir, {"train.optimizer.args.lr": 0.005, "tracking.wait_seconds": 1})
    faults.arm("train.restored:raise")
    with pytest.raises(FaultError):
        train_model.fn(run_dir)
    faults.arm("")
    assert warning in capsys.readouterr().err
    reopen_run.fn(run_dir, {})
    train_model.fn(run_dir)
    assert warning not in capsys.readouterr().err
    assert events_of(run_dir, "resumed") == [{"step": step}] * 2
    changes = {
        "train.optimizer.args.lr": ["0.02", "0.005"],
        "tracking.wait_seconds": ["3.0", "1.0"],
    }
    assert events_of(run_dir, "drift") == [{"changes": changes, "from_step": step}]


def test_a_reopening_that_dies_once_the_recipe_is_changed_is_made_good_by_the_next(
    run_dir: Path,
) -> None:
    train_model.fn(run_dir)
    record = update_record(run_dir, status="FINISHED")
    faults.arm("run.recipe_changed:raise")
    with pytest.raises(FaultError):
        reopen_run.fn(
            run_dir,
            {"tracking.register": "late", "train.epochs": 3, "train.schedule.name": "cosine"},
        )
    faults.arm("")
    assert load_record(run_dir) == record
    reopen_run.fn(run_dir, {})
    assert load_record(run_dir).schedule_epochs == 3
    train_model.fn(run_dir)
    assert load_record(run_dir).epochs == 3
    [drift] = events_of(run_dir, "drift")
    assert drift["changes"]["tracking.register"] == ["", "late"]
    reopen_run.fn(run_dir, {"train.schedule.name": "constant", "train.epochs": 4})
    reopen_run.fn(run_dir, {})
    assert load_record(run_dir).schedule_epochs == 4


def test_a_training_that_a_signal_stops_is_not_done_where_the_signal_ends_nothing(
    run_dir: Path,
) -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    faults.arm("train.reported:term:5")
    try:
        with pytest.raises(StopRequested), keep_status(run_dir):
            train_model.fn(run_dir)
    finally:
        faults.arm("")
        signal.signal(signal.SIGTERM, before)
    record = load_record(run_dir)
    assert (record.status, record.error, record.steps, record.done) == (
        "KILLED",
        "stopped by a signal",
        5,
        [],
    )


def test_a_run_that_died_before_its_beginning_was_journaled_gets_it_when_it_goes_on(
    run_dir: Path,
) -> None:
    begun = [
        line
        for line in Journal(run_dir / JOURNAL_FILE).lines()
        if line["kind"] in ("open", "params", "dataset")
    ]
    files = [
        line["path"]
        for line in Journal(run_dir / JOURNAL_FILE).lines()
        if line["kind"] == "artifact"
    ]
    (run_dir / JOURNAL_FILE).unlink()
    reopen_run.fn(run_dir, {})
    lines = list(Journal(run_dir / JOURNAL_FILE).lines())
    assert [
        line | {"time": 0} for line in lines if line["kind"] in ("open", "params", "dataset")
    ] == [line | {"time": 0} for line in begun]
    assert [line["path"] for line in lines if line["kind"] == "artifact"] == files
    assert waiting(Run(run_dir)) > len(begun)


def test_a_run_that_cannot_be_opened_leaves_nothing(run_dir: Path) -> None:
    record = load_record(run_dir).model_copy(update={"run_id": "another", "split_dir": "/nowhere"})
    recipe = load_recipe(run_dir / "recipe.yaml")
    another = run_dir.parent / "another"
    with pytest.raises(FileNotFoundError), hold_run(another), keep_status(another):
        open_run(record, recipe, Schema.load(run_dir / "schema.json"), {})
    assert not another.exists()


@pytest.mark.parametrize("comes", ["while its end is written", "while it waits"])
def test_a_second_signal_ends_the_wait_for_a_silent_tracker(
    run_dir: Path, comes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "SECONDS_AFTER_A_FAILURE", 60.0)
    reopen_run.fn(run_dir, {"tracking.wait_seconds": 60})
    send = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    end, settle = ending.end_record, ending.settle_run

    def end_meanwhile(*arguments: Any) -> None:
        if comes == "while its end is written":
            os.kill(os.getpid(), signal.SIGINT)
        end(*arguments)

    def settle_meanwhile(*arguments: Any) -> None:
        if comes == "while it waits":
            send.start()
        settle(*arguments)

    monkeypatch.setattr(ending, "end_record", end_meanwhile)
    monkeypatch.setattr(ending, "settle_run", settle_meanwhile)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), keep_status(run_dir):
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30
    assert load_record(run_dir).status == "KILLED"
    assert list(Journal(run_dir / JOURNAL_FILE).lines())[-1]["status"] == "KILLED"


def test_a_run_goes_on_with_a_journal_of_any_length_in_the_same_memory(tmp_path: Path) -> None:
    recipe = Recipe(name="long")
    record = RunRecord(run_id="long", name="long", experiment="long", created=now())
    with Journal(tmp_path / JOURNAL_FILE) as journal:
        journal.append_params(flatten(recipe))
        journal.append_status("RUNNING")
        for step in range(1, 10_001):
            journal.append_metrics(step, 0, {"train/loss": 1 / step, "lr": 0.1})
        journal.flush()
        find_unfinished_change(journal, recipe)  # what is imported at its first call is no journal
        tracemalloc.start()
        try:
            assert find_unfinished_change(journal, recipe)[0] is None
            note_resumption(journal, record, recipe, None, 10_000)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 5_000_000  # as a list they take 9 MB; other threads of this process may live


def test_a_run_that_goes_on_puts_no_secret_of_its_recipe_into_its_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def recipe_of(token: str, epochs: int) -> Recipe:
        args = {"token": token, "mirror": f"http://user:{token}@host/x"}
        return Recipe.model_validate(
            {"name": "n", "model": {"name": "m", "args": args}, "train": {"epochs": epochs}}
        )

    before, recipe = recipe_of("s3cr3tpw", 1), recipe_of("s3cr3tpw2", 2)
    record = RunRecord(run_id="n-1", kind="train", name="n", experiment="n", created=now())
    run = Run(tmp_path, record)
    with run.journal as journal:
        journal.append_status("RUNNING")
        journal.append_params(hide_in_values(flatten(before)))
        journal.append_metrics(9, 0, {"train/loss": 1.0})
        note_resumption(journal, record, before, None, 0)
        assert [line["name"] for line in journal.lines() if line["kind"] == "event"] == ["resumed"]
        journal_resumption(journal, 0, changes_between(flatten(before), flatten(recipe)))
        write_changed_recipe(run, before, recipe, 2)
        begun, _ = find_unfinished_change(journal, recipe)
    assert "change" not in capsys.readouterr().err
    assert "s3cr3tpw" not in (tmp_path / JOURNAL_FILE).read_text()
    assert begun is not None
    assert flatten(parse_recipe(begun["before"])) == hide_in_values(flatten(before))
    assert (tmp_path / "recipe.yaml").read_text() == dump_recipe(recipe)
