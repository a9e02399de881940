from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.cli import gc
from mlflow.entities import ViewType
from PIL import Image

from torchrelay import settings, tracking
from torchrelay.datasets.pack import Pack, hold_data
from torchrelay.disk import lock, read_json
from torchrelay.errors import RecipeError
from torchrelay.flows import evaluate, train
from torchrelay.runs import JOURNAL_FILE, Journal, Run, list_records, update_record
from torchrelay.settings import Home
from torchrelay.tracking.shipping import sync_run
from torchrelay.upkeep.prune import Pruned, parse_age
from torchrelay.upkeep.prune import prune as prune_home

from ..conftest import RunCommand

DAY = 24 * 3600.0


@pytest.fixture(scope="module")
def template(
    prefect_server: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A home with three runs, the oldest registered: two of numbers, which share a pack, and one
    of pictures.
    """
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TORCHRELAY_HOME", str(folder / "home"))
        numbers, pictures = _write_numbers(folder), _write_pictures(folder)
        runs = [
            train(recipe_file=str(numbers), overrides={"tracking.register": "numbers"}),
            train(recipe_file=str(numbers), overrides={"train.seed": 1}),
            train(recipe_file=str(pictures)),
        ]
    shutil.copytree(folder / "home", folder / "copy")
    return folder, [run["run_id"] for run in runs]


@pytest.fixture
def home(template: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> Home:
    """The same home anew, at the path that its database and records name; its packs are a day
    old.
    """
    folder = template[0]
    for entry in (folder / "home").iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    # The database keeps its inode, which MLflow's connections hold open.
    shutil.copytree(
        folder / "copy", folder / "home", copy_function=shutil.copyfile, dirs_exist_ok=True
    )
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCHRELAY_HOME", str(folder / "home"))
    found = settings.home()
    for pack in found.packs.iterdir():
        _make_old(pack)
    return found


@pytest.fixture
def runs(template: tuple[Path, list[str]]) -> list[str]:
    return template[1]


def _write_numbers(folder: Path) -> Path:
    generator = np.random.default_rng(3)
    rows = [f"{a:.4f},{b:.4f},{a - b:.4f}" for a, b in generator.normal(0, 1, (60, 2))]
    (folder / "numbers.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")
    inputs = {"x": {"kind": "number", "columns": ["a", "b"]}}
    return _write_recipe(folder, "numbers", inputs, {"y": {"kind": "number"}})


def _write_pictures(folder: Path) -> Path:
    lines = ["image,label"]
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{number % 2}")
    (folder / "pictures.csv").write_text("\n".join(lines) + "\n")
    inputs = {"image": {"kind": "image", "channels": "gray"}}
    return _write_recipe(folder, "pictures", inputs, {"label": {"kind": "category"}})


def _write_recipe(folder: Path, name: str, inputs: dict[str, Any], target: dict[str, Any]) -> Path:
    data = {
        "table": f"{name}.csv",
        "inputs": inputs,
        "target": target,
        "split": {"valid": 0.2, "test": 0.3},
    }
    train = {"epochs": 1, "batch_size": 16}
    recipe = {
        "name": name,
        "data": data,
        "model": {"name": "mlp", "args": {"hidden": [4]}},
        "train": train,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def _make_old(path: Path, seconds: float = 2 * DAY) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def prune(
    home: Home, keep_runs: int | None = None, older_than: float | None = None, **options: bool
) -> Pruned:
    return prune_home(home, keep_runs=keep_runs, older_than=older_than, **options)


def names(done: Pruned, kind: str) -> list[str]:
    return [item.name for item in done.gone if item.kind == kind]


def in_mlflow() -> set[str]:
    """Our ids of all runs that MLflow has, deleted ones included."""
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, run_view_type=ViewType.ALL)
    return {run.data.tags["torchrelay.run_id"] for run in found}


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=settings.tracking_uri())


def files_of(home: Home) -> set[str]:
    return {
        str(path.relative_to(home.root))
        for path in home.root.rglob("*")
        if "mlflow" not in path.name
    }


def test_a_rule_is_needed(home: Home) -> None:
    with pytest.raises(RecipeError, match=r"--keep-runs N .*--older-than D"):
        prune(home)


def test_a_dry_run_says_what_would_go_and_removes_nothing(home: Home, runs: list[str]) -> None:
    client().delete_registered_model_alias("numbers", "champion")
    before = files_of(home)
    would = prune(home, keep_runs=0, versions=True, dry_run=True)
    assert files_of(home) - before <= {"data.lock"}
    assert before <= files_of(home)
    assert in_mlflow() == set(runs)
    done = prune(home, keep_runs=0, versions=True)
    assert [(item.kind, item.name) for item in would.gone] == [
        (item.kind, item.name) for item in done.gone
    ]
    assert would.num_bytes == pytest.approx(done.num_bytes, rel=0.01)
    assert would.num_bytes > 10_000


def test_the_champion_stays_with_its_pack_and_everything_else_goes(
    home: Home, runs: list[str]
) -> None:
    done = prune(home, keep_runs=0)
    assert names(done, "run") == runs[1:]
    assert done.kept == {runs[0]: "models:/numbers/1 is @champion"}
    assert [record.run_id for record in list_records(home)] == [runs[0]]
    assert in_mlflow() == {runs[0]}
    assert len(list(home.artifacts.glob("*/artifacts"))) == 1
    assert len(names(done, "pack")) == 1
    assert [Pack.open(pack).num_rows for pack in home.packs.iterdir()] == [60]
    assert list(home.store.iterdir()) == []
    assert evaluate("models:/numbers@champion", "numbers.csv")["status"] == "FINISHED"
    assert train(resume=runs[0], overrides={"train.epochs": 2})["epochs"] == 2


def test_the_newest_stay_and_what_they_need_with_them(home: Home, runs: list[str]) -> None:
    done = prune(home, keep_runs=1)
    assert names(done, "run") == [runs[1]]
    assert names(done, "pack") == names(done, "pixels") == []
    longer = train(resume=runs[2], overrides={"train.epochs": 2})
    assert (longer["epochs"], longer["status"]) == (2, "FINISHED")
    assert prune(home, keep_runs=1).gone == []


def test_data_sets_go_with_the_last_run_that_read_them(home: Home, runs: list[str]) -> None:
    assert num_rows_of_data_sets(home) == {
        "datasets": 2,
        "inputs": 4,
        "input_tags": 3,
    }  # an input is also a model
    prune(home, keep_runs=0)
    assert num_rows_of_data_sets(home) == {"datasets": 1, "inputs": 2, "input_tags": 1}
    found = client().get_run(mlflow_id(home, runs[0])).inputs.dataset_inputs
    assert [(one.dataset.name, [tag.value for tag in one.tags]) for one in found] == [
        ("numbers", ["training"])
    ]


def test_data_sets_of_runs_in_the_trash_of_mlflow_stay_and_what_an_earlier_delete_left_goes(
    home: Home, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client().delete_run(mlflow_id(home, runs[2]))
    prune(home, keep_runs=3)
    assert num_rows_of_data_sets(home) == {"datasets": 2, "inputs": 4, "input_tags": 3}
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri())
        arguments = ["--run-ids", mlflow_id(home, runs[2])]
        arguments += ["--backend-store-uri", settings.tracking_uri()]
        assert CliRunner().invoke(gc, arguments).exit_code == 0
    prune(home, keep_runs=3, dry_run=True)
    assert num_rows_of_data_sets(home) == {"datasets": 2, "inputs": 4, "input_tags": 3}
    prune(home, keep_runs=3)
    assert num_rows_of_data_sets(home) == {"datasets": 1, "inputs": 3, "input_tags": 2}


def mlflow_id(home: Home, run: str) -> str:
    return read_json(home.runs / run / "run.json")["mlflow_run_id"]


def num_rows_of_data_sets(home: Home) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(home.root / "mlflow.db")) as database:
        return {
            table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("datasets", "inputs", "input_tags")
        }


def test_a_version_without_an_alias_keeps_its_run_unless_versions_go_too(
    home: Home, runs: list[str]
) -> None:
    client().delete_registered_model_alias("numbers", "champion")
    done = prune(home, keep_runs=2)
    assert done.gone == []
    assert "models:/numbers/1 was made from it; --versions" in done.kept[runs[0]]
    assert names(prune(home, keep_runs=2, versions=True), "run") == [runs[0]]
    assert client().search_model_versions("name = 'numbers'") == []
    assert list(home.artifacts.glob("models/*")) == []
    assert in_mlflow() == set(runs[1:])


def test_with_both_options_a_run_goes_where_both_say_so(home: Home, runs: list[str]) -> None:
    assert prune(home, keep_runs=0, older_than=DAY).gone == []
    for run in runs[1:]:
        _end_earlier(home, run)
    assert prune(home, keep_runs=2, older_than=DAY, dry_run=True).gone == []
    assert names(prune(home, keep_runs=1, older_than=DAY), "run") == [runs[1]]


def _end_earlier(home: Home, run: str) -> None:
    update_record(home.runs / run, ended="2020-01-01T00:00:00.000+00:00")


def test_a_run_that_is_being_written_stays(home: Home, runs: list[str]) -> None:
    hold = "import sys; from pathlib import Path; from torchrelay.disk import lock\n"
    hold += "with lock(Path(sys.argv[1]), 'it'): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(home.runs / runs[2] / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        done = prune(home, keep_runs=0)
        other.communicate("")
    assert names(done, "run") == [runs[1]]
    assert done.kept[runs[2]] == "it is being written"
    assert len(list(home.packs.iterdir())) == 2


def test_packs_and_pixels_stay_while_an_ingest_is_at_work_and_go_the_next_time(
    home: Home, runs: list[str]
) -> None:
    with hold_data(home):
        done = prune(home, keep_runs=0)
    assert names(done, "run") == runs[1:]
    assert names(done, "pack") == names(done, "pixels") == []
    assert "an ingest is at work" in done.notes[0]
    again = prune(home, keep_runs=0)
    assert (len(names(again, "pack")), len(names(again, "pixels"))) == (1, 1)


def test_a_pack_that_an_ingest_found_just_now_stays(home: Home) -> None:
    for pack in home.packs.iterdir():
        os.utime(pack)
    done = prune(home, keep_runs=0)
    assert names(done, "pack") == []
    assert done.notes == ["1 pack was used just now and stays; prune again in a minute"]


def test_the_bad_rows_of_a_refused_table_go_after_a_day(home: Home) -> None:
    old, new = (home.packs / "rejected" / name / "quarantine.csv" for name in ("old", "new"))
    for file in (old, new):
        file.parent.mkdir(parents=True)
        file.write_text("row,reason\n")
    _make_old(old)
    assert names(prune(home, older_than=DAY), "leftover") == ["packs/rejected/old"]
    assert [folder.name for folder in new.parents[1].iterdir()] == ["new"]


def test_a_prune_that_was_killed_is_finished_by_the_next(
    home: Home, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*arguments: object) -> None:
        raise Killed

    # The file itself, not the command of that name.
    prune_file = importlib.import_module("torchrelay.upkeep.prune")
    for place, function in ((tracking, "remove_run"), (prune_file, "remove_tree")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(place, function, lambda *arguments, **options: kill())
            prune(home, keep_runs=0)
    assert train(resume=runs[0], overrides={"train.epochs": 2})["epochs"] == 2
    prune(home, keep_runs=0)
    assert in_mlflow() == {runs[0]}
    assert [entry.name for entry in home.runs.iterdir()] == [runs[0]]
    assert len([entry for entry in home.packs.iterdir() if entry.name[0] != "."]) == 1


def test_a_parent_and_its_children_go_together_or_stay(home: Home, runs: list[str]) -> None:
    update_record(home.runs / runs[1], parent=runs[2])
    assert names(prune(home, keep_runs=1, dry_run=True), "run") == []
    assert set(names(prune(home, keep_runs=0, dry_run=True), "run")) == {runs[1], runs[2]}
    with lock(home.runs / runs[2] / "lock", "it"):
        kept = prune(home, keep_runs=0, dry_run=True).kept
    assert kept[runs[1]] == f"it belongs to {runs[2]}, which stays"


def test_a_run_that_this_tracker_does_not_know_stays(
    home: Home, runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_record(home.runs / runs[1], mlflow_run_id="0" * 32)
    done = prune(home, keep_runs=0)
    assert "this tracker does not have it" in done.kept[runs[1]]
    assert names(done, "run") == [runs[2]]


def test_a_run_whose_journal_waits_for_the_tracker_stays(home: Home, runs: list[str]) -> None:
    with Journal(home.runs / runs[1] / JOURNAL_FILE) as journal:
        journal.append_tags({"only": "here"})
    done = prune(home, keep_runs=0)
    assert done.kept[runs[1]] == "its journal waits for MLflow; torchrelay sync sends it"
    assert names(done, "run") == [runs[2]]
    sync_run(Run(home.runs / runs[1]))
    assert names(prune(home, keep_runs=0), "run") == [runs[1]]


def test_what_dead_writers_and_downloads_left_goes(home: Home) -> None:
    stale = home.store / "spec" / ".shard.npy.tmp"
    fresh = home.packs / ".pack.0123.tmp"
    source = home.cache / "sources" / "abc" / "unfinished"
    for folder in (stale.parent, fresh, source):
        folder.mkdir(parents=True)
    stale.write_bytes(b"x" * 10)
    _make_old(stale)
    _make_old(source.parent)
    done = prune(home, older_than=DAY)
    assert names(done, "leftover") == ["store/spec/.shard.npy.tmp"]
    assert names(done, "cache") == ["cache/sources/abc"]
    assert fresh.exists()
    assert not stale.exists()


def test_a_pack_that_cannot_say_what_it_needs_keeps_all_pixels(home: Home) -> None:
    (home.packs / "odd").mkdir()
    (home.packs / "odd" / "manifest.json").write_text('{"format_version": 9}')
    done = prune(home, keep_runs=0)
    assert names(done, "pixels") == []
    assert "odd does not say which shards it needs" in done.notes[-1]


def test_the_command_says_what_goes_and_the_next_run_lists_what_is_left(
    run: RunCommand, home: Home, runs: list[str]
) -> None:
    assert run("prune")[0] == 2
    assert "--older-than x: expected a number" in run("prune", "--older-than", "x")[2]
    code, out, err = run("prune", "--keep-runs", "0", "--dry-run")
    assert code == 0
    assert out.splitlines()[-1].startswith("would free ")
    assert f"kept      {runs[0]}: models:/numbers/1 is @champion" in err
    result = json.loads(run("prune", "--keep-runs", "0", "--json")[1])
    assert [item["name"] for item in result["gone"] if item["kind"] == "run"] == runs[1:]
    assert result["bytes"] == sum(
        item["bytes" if "bytes" in item else "num_bytes"] for item in result["gone"]
    )
    assert [one["run_id"] for one in json.loads(run("runs", "--json")[1])["runs"]] == [runs[0]]


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * DAY), ("12h", DAY / 2), ("1.5h", 5400), ("2w", 14 * DAY)]
)
def test_ages_have_units(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1y", ""])
def test_an_age_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=f"--older-than {text}"):
        parse_age(text)
