"""No path, and no id, that a file states leads prune, doctor or sync to anything that is not
theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from torchrelay import settings
from torchrelay.cli import commands
from torchrelay.datasets.splits import list_split, verify_split
from torchrelay.disk import seal
from torchrelay.errors import SourceError, TorchrelayError
from torchrelay.runs import RUN_ID_TAG, Run, find_run, list_records, load_record, read_version_files
from torchrelay.settings import Home
from torchrelay.tracking import open_client
from torchrelay.tracking.registry import staged_folder
from torchrelay.upkeep.doctor import doctor
from torchrelay.upkeep.prune import prune

LONG_AGO = "2020-01-01T00:00:00.000+00:00"


@pytest.fixture
def home(migrated_database: Path) -> Home:
    found = settings.home()
    found.runs.mkdir(parents=True)
    shutil.copyfile(migrated_database, found.root / "mlflow.db")
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's, which looks as much like a run, a pack and a shard as it can."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("precious.txt", "manifest.json", "index.arrow", "pixels.npy", "lock"):
        (folder / name).write_text("x")
    (folder / "run.json").write_text("{}")
    (folder / ("a" * 32)).mkdir()
    return folder


def write_run(home: Home, name: str, **fields: Any) -> Path:
    folder = home.runs / name
    folder.mkdir(exist_ok=True)
    values = {
        "format_version": 1,
        "run_id": name,
        "name": "x",
        "experiment": "x",
        "status": "FINISHED",
    }
    (folder / "run.json").write_text(
        json.dumps({**values, "created": LONG_AGO, "ended": LONG_AGO, **fields})
    )
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {
        str(one.relative_to(folder)): one.read_text() if one.is_file() else ""
        for one in folder.rglob("*")
    }


def prune_all(home: Home) -> list[str]:
    """What a prune of everything old names as gone, on files that are all old."""
    for path in home.root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1e9, 1e9))
    return [item.name for item in prune(home, keep_runs=None, older_than=60.0, versions=True).gone]


@pytest.mark.parametrize(
    "stated",
    ["../../outside", "{outside}", ".", "..", "", "good/../../../outside", "good", "bad-1/"],
)
def test_a_record_of_another_id_is_no_run_and_nothing_that_it_names_goes(
    home: Home, outside: Path, stated: str
) -> None:
    bad = write_run(home, "bad-1", run_id=stated.format(outside=outside))
    good = write_run(home, "good", ended="")
    (good / "lock").write_text("")
    before = tree(outside)
    os.utime(bad, (1e9, 1e9))
    assert [record.run_id for record in list_records(home)] == ["good"]
    [finding] = [one for one in doctor(home, fix=True).left if "bad-1" in one.what]
    assert "which is not the name of its folder" in finding.what
    assert prune_all(home) == ["good"]
    assert tree(outside) == before
    assert (bad / "run.json").exists()
    with pytest.raises(SourceError, match="which is not the name of its folder"):
        find_run(home, "bad-1")


@pytest.mark.parametrize("stated", ["../../outside", "{outside}", "..", "a/b", "a\n"])
def test_an_mlflow_id_that_is_a_path_makes_a_record_none_and_the_doctor_follows_it_nowhere(
    home: Home, outside: Path, stated: str
) -> None:
    run_dir = write_run(
        home, "bad", mlflow_run_id=stated.format(outside=outside), files={"recipe.yaml": "0" * 64}
    )
    (run_dir / "recipe.yaml").write_text("x")
    (outside / "artifacts").mkdir()
    (outside / "artifacts" / "recipe.yaml").write_text("precious")
    before = tree(outside)
    with pytest.raises(SourceError, match=r"mlflow_run_id: Value error, .* is no id of MLflow's"):
        load_record(run_dir)
    doctor(home, fix=True)
    assert tree(outside) == before


@pytest.mark.parametrize("name", ["../precious.txt", "/etc/hostname", "a/../../x", "", "a\0"])
def test_lists_of_files_that_name_one_outside_their_folder_are_followed_nowhere(
    tmp_path: Path, name: str
) -> None:
    values = {"format_version": 1, "files": {name: {"sha256": "0" * 64, "size": 1}}}
    for file in ("manifest.json", "files.json"):
        (tmp_path / file).write_text(json.dumps(seal(values)))
    for read in (list_split, verify_split, read_version_files):
        with pytest.raises(TorchrelayError, match="which is no file of its folder"):
            read(tmp_path)


def test_the_command_leaves_the_folder_that_a_record_names(home: Home, outside: Path) -> None:
    write_run(home, "bad-1", run_id=str(outside))
    before = tree(outside)
    done = CliRunner().invoke(commands, ["prune", "--older-than", "30d", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["gone"]) == (0, [])
    assert tree(outside) == before


def test_what_lies_behind_links_stays(home: Home, outside: Path) -> None:
    before = tree(outside)
    write_run(home, "link").rename(outside.parent / "moved")
    (home.runs / "link").symlink_to(outside.parent / "moved")
    (home.runs / ".half.trash").symlink_to(outside)
    (home.runs / "begun").symlink_to(outside)
    (home.packs / ("c" * 32)).mkdir(parents=True)
    (home.packs / ("b" * 32)).symlink_to(outside)
    (home.store / ("c" * 32)).mkdir(parents=True)
    (home.store / ("c" * 32) / ("d" * 32)).symlink_to(outside)
    (home.store / ("b" * 32)).symlink_to(outside)
    (home.cache / "sources").mkdir(parents=True)
    (home.cache / "sources" / "x").symlink_to(outside)
    (home.cache / ".link.tmp").symlink_to(outside)
    doctor(home, fix=True)
    prune_all(home)
    assert tree(outside) == before
    assert (outside.parent / "moved" / "run.json").exists()
    assert (home.runs / "link").is_symlink()


def test_folders_that_are_none_of_ours_stay_where_runs_packs_and_store_are_links_to_them(
    home: Home, outside: Path
) -> None:
    (outside / "sub").mkdir()
    (outside / "sub" / "manifest.json").write_text('{"features": []}')
    before = tree(outside)
    home.runs.rmdir()
    for folder in (home.runs, home.packs, home.store):
        folder.symlink_to(outside)
    os.utime(outside / "sub", (1e9, 1e9))
    doctor(home, fix=True)
    prune(home, keep_runs=0, older_than=None)
    assert tree(outside) == before


def test_a_trash_whose_record_names_another_run_stays_and_is_said(
    home: Home, outside: Path
) -> None:
    trash = write_run(home, "gone", run_id="../../outside")
    trash = trash.rename(home.runs / ".gone.trash")
    done = prune(home, keep_runs=0, older_than=None)
    assert any(".gone.trash stays" in note for note in done.notes)
    assert trash.exists()
    assert not (outside / "gone").exists()


def test_a_run_that_states_the_mlflow_id_of_another_takes_nothing_of_it(home: Home) -> None:
    client = open_client()
    experiment = client.create_experiment("x", artifact_location=home.artifacts.as_uri())
    other = client.create_run(experiment, tags={RUN_ID_TAG: "other"}).info
    (home.artifacts / other.run_id / "artifacts").mkdir(parents=True)
    write_run(home, "thief", mlflow_run_id=other.run_id)
    done = prune(home, keep_runs=0, older_than=None)
    assert "this tracker does not have it" in done.kept["thief"]
    assert client.get_run(other.run_id).info.lifecycle_stage == "active"
    assert (home.artifacts / other.run_id).is_dir()


@pytest.mark.parametrize(
    "place", ["../outside/artifacts", "models/artifacts", "linked/{id}/artifacts"]
)
def test_a_place_that_mlflows_database_states_is_removed_only_where_it_is_the_runs_own(
    home: Home, outside: Path, place: str
) -> None:
    client = open_client()
    home.artifacts.mkdir()
    (home.artifacts / "models").mkdir()
    (home.artifacts / "models" / "another").mkdir()
    (home.artifacts / "linked").symlink_to(outside)
    experiment = client.create_experiment("x", artifact_location=home.artifacts.as_uri())
    run = client.create_run(experiment, tags={RUN_ID_TAG: "run"}).info
    (outside / run.run_id).mkdir()
    stated = f"{home.artifacts.as_uri()}/{place.format(id=run.run_id)}"
    with contextlib.closing(sqlite3.connect(home.root / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET artifact_uri = ?", (stated,))
    write_run(home, "run", mlflow_run_id=run.run_id)
    before = tree(outside)
    assert prune_all(home) == ["run"]
    assert tree(outside) == before
    assert (home.artifacts / "models" / "another").is_dir()


def test_a_run_whose_record_was_lost_is_named_and_never_taken_for_a_leftover(home: Home) -> None:
    run_dir = write_run(home, "lost")
    (run_dir / "lock").write_text("")
    (run_dir / "checkpoints").mkdir()
    (run_dir / "run.json").unlink()
    begun = home.runs / "begun"
    begun.mkdir()
    (begun / "lock").write_text("")
    mine = home.runs / "my notes"
    mine.mkdir()
    os.utime(mine, (time.time() - 7200, time.time() - 7200))
    examined = doctor(home, fix=True)
    assert [one.what for one in examined.left] == ["lost has no run.json, so it is no run"]
    assert examined.mended == ["runs/begun: removed"]
    assert (run_dir.is_dir(), begun.exists(), mine.is_dir()) == (True, False, True)


def test_a_record_says_where_its_folder_is_by_its_name_alone(home: Home) -> None:
    run_dir = write_run(home, "a")
    assert load_record(run_dir).run_id == "a"
    with pytest.raises(
        SourceError, match="says that it is of run 'a', which is not the name of its folder"
    ):
        load_record(run_dir.rename(home.runs / "b"))


@pytest.mark.parametrize(
    "folder", ["../../outside", "/etc", "register", "register/..", "register/0123456789abcdee"]
)
def test_a_version_waits_in_the_folder_of_its_digest_and_no_line_names_another(
    tmp_path: Path, folder: str
) -> None:
    line = {"weights_sha256": "0123456789abcdef" * 4, "folder": folder}
    with pytest.raises(ValueError, match="is none in which a version waits"):
        staged_folder(Run(tmp_path), line)
    own = "register/0123456789abcdef"
    assert staged_folder(Run(tmp_path), {**line, "folder": own}) == tmp_path / own
    (tmp_path / "register").symlink_to("/etc")
    with pytest.raises(ValueError, match="is none"):
        staged_folder(Run(tmp_path), {**line, "folder": own})
