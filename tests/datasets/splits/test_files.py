from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torchrelay.datasets.ingest import Prepared, prepare_data
from torchrelay.datasets.pack import open_view
from torchrelay.datasets.splits.files import MANIFEST, find_split
from torchrelay.errors import DataError
from torchrelay.recipe import Data
from torchrelay.settings import Home
from torchrelay.upkeep import Examination, find_bad_packs
from torchrelay.upkeep.altered import find_bad_splits

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]
FILES = (
    *(
        "data_report.csv",
        "groups.npy",
        "keys.parquet",
        "quarantine.csv",
        "report.json",
        "schema.json",
        "split.npy",
    ),
    MANIFEST,
)


@pytest.fixture
def data(write_table: WriteTable, number_data: MakeData) -> Data:
    """Forty rows of two classes, some of which test, with keys and groups; one row is bad."""
    rows = [
        f"{at},{'ab'[at % 2]},k{at},g{at // 2},{('train', 'test')[at // 4 % 2]}" for at in range(40)
    ]
    table = write_table(["x0,label,key,group,split", *rows, "1,a,k0,g0,train"])
    return number_data(
        table, key="key", split={"column": "split", "group": "group"}, max_bad_rows=0.5
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def turn_test_rows_into_training_rows(split_dir: Path) -> None:
    side = np.load(split_dir / "split.npy")
    side[np.flatnonzero(side == 2)[:5]] = 0
    np.save(split_dir / "split.npy", side)


def exchange_two_classes(split_dir: Path) -> None:
    schema = json.loads((split_dir / "schema.json").read_text())
    schema["targets"][0]["classes"].reverse()
    (split_dir / "schema.json").write_text(json.dumps(schema, indent=2))


def flip(name: str) -> Callable[[Path], None]:
    def change(split_dir: Path) -> None:
        content = bytearray((split_dir / name).read_bytes())
        content[len(content) // 2] ^= 4
        (split_dir / name).write_bytes(content)

    return change


def lose(split_dir: Path) -> None:
    (split_dir / "keys.parquet").unlink()


@pytest.mark.parametrize(
    "change",
    [
        turn_test_rows_into_training_rows,
        exchange_two_classes,
        lose,
        *(flip(name) for name in FILES),
    ],
    ids=["rows", "classes", "lost", *FILES],
)
def test_a_damaged_split_is_refused_and_the_next_ingest_makes_it_anew(
    change: Callable[[Path], None], data: Data, home: Home
) -> None:
    made = prepare_data(data, home)
    whole = contents(made.split_dir)
    assert set(whole) == set(FILES)
    change(made.split_dir)
    with pytest.raises(
        DataError,
        match=f"split {made.split_dir}: .*; run `torchrelay ingest` again, which makes it anew",
    ):
        open_view(made.pack_dir, made.split_dir)
    with pytest.warns(UserWarning, match=f"made anew, the old one is bad-{made.split_dir.name}"):
        again = prepare_data(data, home)
    assert again._replace(reused=True, warnings=made.warnings) == made._replace(reused=True)
    assert contents(made.split_dir) == whole
    assert made.split_dir.with_name(f"bad-{made.split_dir.name}").is_dir()
    open_view(made.pack_dir, made.split_dir)


def test_a_split_that_lost_its_manifest_is_made_anew(data: Data, home: Home) -> None:
    made = prepare_data(data, home)
    (made.split_dir / MANIFEST).unlink()
    with pytest.warns(UserWarning, match=r"manifest\.json is missing; made anew"):
        prepare_data(data, home)
    assert (made.split_dir / MANIFEST).exists()


def test_a_split_of_an_older_version_opens_without_a_word(data: Data, home: Home) -> None:
    made: Prepared = prepare_data(data, home)
    older = made.split_dir.with_name("older")
    shutil.copytree(made.split_dir, older)
    (older / MANIFEST).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view = open_view(made.pack_dir, older)
    assert len(view.rows["test"]) == made.rows["test"]


def test_a_path_with_a_semicolon_is_named_whole(tmp_path: Path) -> None:
    split_dir = tmp_path / "a; b" / "split"
    split_dir.mkdir(parents=True)
    with pytest.warns(
        UserWarning,
        match=r"a; b/split: manifest\.json is missing; made anew, the old one is bad-split",
    ):
        assert not find_split(split_dir)


def test_doctor_names_packs_and_splits_below_a_path_with_a_semicolon_whole(tmp_path: Path) -> None:
    home = Home(tmp_path / "a; b")
    split_dir = home.packs / ("0" * 32) / "splits" / "s"
    split_dir.mkdir(parents=True)
    (split_dir / "manifest.json").write_text("{}")
    (home.packs / ("0" * 32) / "manifest.json").write_text("{}")
    exam = Examination.of(home)
    found = [*find_bad_packs(exam), *find_bad_splits(exam)]
    assert [str(tmp_path / "a; b") in one.what for one in found] == [True, True], found
    assert all("torchrelay ingest` again" in one.remedy for one in found)
