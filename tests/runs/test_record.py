from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from torchrelay.errors import SourceError
from torchrelay.runs.record import (
    RunRecord,
    find_run,
    git_commit,
    list_records,
    load_record,
    new_run_id,
    save_record,
    update_record,
)
from torchrelay.settings import Home

Make = Callable[..., RunRecord]


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("digits", "digits"),
        ("a/../b c", "a-..-b-c"),
        ("größe", "gr-e"),
        ("..", "run"),
        ("", "run"),
        ("x" * 300, "x" * 60),
    ],
)
def test_a_run_id_is_safe_as_a_file_name(name, start):
    assert re.fullmatch(re.escape(start) + r"-\d{8}-\d{6}-[0-9a-f]{4}", new_run_id(name))


def test_a_record_reads_back_as_it_was_even_with_a_metric_that_is_not_a_number(
    home: Home, make_record: Make
):
    record = make_record(
        metrics={"train/loss": math.inf, "test/accuracy": 0.5}, seconds={"total": 1.5}
    )
    assert load_record(save_record(home, record)) == record
    run_dir = save_record(home, make_record(metrics={"r2": math.nan}))
    assert math.isnan(load_record(run_dir).metrics["r2"])


def test_an_update_changes_its_fields_alone(home: Home, make_record: Make):
    record = make_record()
    run_dir = save_record(home, record)
    update_record(run_dir, status="FINISHED", epochs=3)
    assert load_record(run_dir) == record.model_copy(update={"status": "FINISHED", "epochs": 3})


@pytest.mark.parametrize("change", [{"status": "DONE"}, {"unknown": 1}])
def test_an_update_that_does_not_fit_is_refused_and_changes_nothing(
    home: Home, make_record: Make, change
):
    record = make_record()
    run_dir = save_record(home, record)
    with pytest.raises(SourceError, match=next(iter(change))):
        update_record(run_dir, **change)
    assert load_record(run_dir) == record


def test_runs_are_listed_newest_first_and_an_unreadable_one_is_skipped_with_a_warning(
    home, make_record: Make, caplog
):
    for second in (2, 1, 3):
        save_record(
            home,
            make_record(run_id=f"run-{second}", created=f"2026-01-01T00:00:0{second}.000+00:00"),
        )
    (home.runs / "torn").mkdir()
    (home.runs / "torn" / "run.json").write_text('{"format_version": 1, "run_')
    (home.runs / "empty").mkdir()
    (home.runs / "circle").symlink_to("circle")
    (home.runs / "pipe").mkdir()
    os.mkfifo(home.runs / "pipe" / "run.json")
    assert [record.run_id for record in list_records(home)] == ["run-3", "run-2", "run-1"]
    assert all(name in caplog.text for name in ("torn", "circle", "pipe"))
    assert "empty" not in caplog.text  # a run that has not begun


def test_a_home_without_runs_lists_none(home: Home):
    assert list_records(home) == []


def test_a_record_of_another_format_version_says_which_can_be_read(home: Home, make_record: Make):
    run_dir = save_record(home, make_record())
    values = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(values | {"format_version": 7}))
    with pytest.raises(
        SourceError, match="format_version 7, this torchrelay reads format_version 1"
    ):
        load_record(run_dir)


def test_a_run_is_found_by_id_by_a_prefix_and_by_mlflows_id(home: Home, make_record: Make):
    for name in ("digits-20260101-000000-aaaa", "digits-20260101-000000-abbb"):
        save_record(home, make_record(run_id=name, mlflow_run_id=name[-4:] * 8))
    expected = home.runs / "digits-20260101-000000-abbb"
    for identifier in ("digits-20260101-000000-abbb", "digits-20260101-000000-ab", "abbb" * 8):
        assert find_run(home, identifier) == expected


def test_a_prefix_of_several_runs_is_refused_with_their_names(home: Home, make_record: Make):
    for name in ("digits-1", "digits-2"):
        save_record(home, make_record(run_id=name))
    with pytest.raises(SourceError, match=r"beginning of 2 runs \(digits-[12], digits-[12]\)"):
        find_run(home, "digits")


def test_an_unknown_run_names_the_nearest(home: Home, make_record: Make):
    with pytest.raises(SourceError, match=r"'x' does not exist: .* has no runs"):
        find_run(home, "x")
    save_record(home, make_record(run_id="digits-1"))
    with pytest.raises(SourceError, match=r"'digitz-1' does not exist .* did you mean digits-1"):
        find_run(home, "digitz-1")
    with pytest.raises(SourceError, match=r"'' does not exist .* the newest are digits-1"):
        find_run(home, "")


def test_the_commit_of_a_folder_outside_of_git_is_empty(tmp_path):
    assert git_commit(tmp_path / "nowhere") == ""


def test_reading_runs_imports_neither_torch_nor_mlflow_nor_prefect():
    code = (
        "import sys, torchrelay.runs.record, torchrelay.runs.journal; "
        "print([name for name in ('torch', 'mlflow', 'prefect', 'matplotlib', 'pandas') if name in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_lies_in_the_home_is_written_down_relative_to_it(
    home: Home, make_record: Callable[..., RunRecord]
) -> None:
    pack, split = str(home.packs / "a"), str(home.packs / "a" / "splits" / "b")
    record = make_record(
        pack_dir=pack, split_dir="", weights="/elsewhere/best.pt", splits={"one": split}
    )
    run_dir = save_record(home, record)
    written = json.loads((run_dir / "run.json").read_text())
    assert (written["pack_dir"], written["split_dir"]) == ("packs/a", "")
    assert (written["weights"], written["splits"]) == (
        "/elsewhere/best.pt",
        {"one": "packs/a/splits/b"},
    )
    assert load_record(run_dir) == record
    assert update_record(run_dir, epochs=1) == record.model_copy(update={"epochs": 1})
