from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchrelay.datasets.ingest.prepare import Prepared, prepare_data, prepare_for_schema
from torchrelay.datasets.pack import open_view
from torchrelay.disk import read_json
from torchrelay.errors import DataError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
WritePictures = Callable[..., None]
MakeData = Callable[..., Data]

HEADER = "image,label,split"
NAMES = [f"{number}.png" for number in range(6)]
ROWS = [
    f"{name},{'cat' if at % 2 else 'dog'},{'test' if at > 3 else 'train'}"
    for at, name in enumerate(NAMES)
]


def quarantine_of(prepared: Prepared) -> list[tuple[int, str]]:
    table = pd.read_csv(prepared.split_dir / "quarantine.csv", dtype=str, na_filter=False)
    return [(int(row), reason) for row, reason in zip(table["row"], table["reason"], strict=True)]


@pytest.fixture
def cats(write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData) -> Data:
    """Six pictures of cats and dogs, four of them to train on."""
    write_pictures(NAMES)
    return image_data(write_table([HEADER, *ROWS]))


def test_a_table_becomes_a_pack_a_split_and_a_schema(cats: Data, home: Home) -> None:
    calls: list[tuple[int, int]] = []
    prepared = prepare_data(cats, home, lambda done, total: calls.append((done, total)))
    assert prepared.rows == {"train": 4, "valid": 0, "test": 2}
    assert (prepared.num_quarantined, prepared.num_decoded, prepared.reused) == (0, 6, False)
    assert calls[-1] == (6, 6)
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert {name: rows.tolist() for name, rows in view.rows.items()} == {
        "train": [0, 1, 2, 3],
        "valid": [],
        "test": [4, 5],
    }
    assert view.schema.targets[0].classes == ["cat", "dog"]
    assert view.pack.fingerprint == prepared.fingerprint
    assert prepared.pack_dir.parent == home.packs


def test_a_second_call_writes_nothing_and_decodes_nothing(cats: Data, home: Home) -> None:
    first = prepare_data(cats, home)
    before = {path: path.stat().st_mtime_ns for path in home.root.rglob("*")}
    second = prepare_data(cats, home)
    assert second == first._replace(reused=True, num_decoded=0)
    assert {path: path.stat().st_mtime_ns for path in home.root.rglob("*")} == before


def test_an_order_of_shards_that_differs_between_calls_gives_the_same_pack(
    cats: Data, home: Home, write_table: WriteTable, write_pictures: WritePictures
) -> None:
    prepare_data(cats, home)
    for generation in range(4):  # each call adds a shard, under a random name
        names = [f"new{generation}-{at}.png" for at in range(2)]
        write_pictures(names)
        rows = [f"{name},cat,train" for name in names]
        with Path(cats.table).open("a") as table:
            table.write("\n".join(rows) + "\n")
        first = prepare_data(cats, home)
        assert first.num_decoded == 2
        assert prepare_data(cats, home) == first._replace(reused=True, num_decoded=0)


def test_a_replaced_file_is_noticed_and_is_other_data(
    cats: Data, home: Home, write_pictures: WritePictures, tmp_path: Path
) -> None:
    first = prepare_data(cats, home)
    write_pictures(["other.png"])
    (tmp_path / "images" / "other.png").replace(tmp_path / "images" / "0.png")
    second = prepare_data(cats, home)
    assert second.num_decoded == 1
    assert second.fingerprint != first.fingerprint
    assert second.pack_dir != first.pack_dir
    old, new = (open_view(prepared.pack_dir, prepared.split_dir) for prepared in (first, second))
    assert old.schema.inputs[0].mean != new.schema.inputs[0].mean


def test_a_touched_file_is_the_same_data(cats: Data, home: Home, tmp_path: Path) -> None:
    first = prepare_data(cats, home)
    os.utime(tmp_path / "images" / "0.png", ns=(1, 1))
    assert prepare_data(cats, home) == first._replace(reused=True, num_decoded=0)


def test_a_changed_label_is_other_data(cats: Data, home: Home, write_table: WriteTable) -> None:
    first = prepare_data(cats, home)
    write_table([HEADER, *ROWS[:-1], "5.png,dog,test"])
    second = prepare_data(cats, home)
    assert second.fingerprint != first.fingerprint
    assert second.num_decoded == 0


def test_one_pack_serves_all_splits(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table(["x0,label,s0,s1", "1,a,train,test", "2,b,train,train", "3,a,test,train"])
    first, second, third = (
        prepare_data(number_data(table, split=split), home)
        for split in ({"column": "s0"}, {"column": "s1"}, {"valid": 0, "test": 0})
    )
    assert first.pack_dir == second.pack_dir == third.pack_dir
    assert len({first.split_dir, second.split_dir, third.split_dir}) == 3
    assert not second.reused


def test_the_same_cells_in_parquet_have_the_same_fingerprint(
    home: Home, write_table: WriteTable, number_data: MakeData, tmp_path: Path
) -> None:
    table = write_table("x0,label\n1.5,007\n2.25,NA\n")
    pd.DataFrame({"x0": [1.5, 2.25], "label": ["007", "NA"]}).to_parquet(tmp_path / "table.parquet")
    first, second = (
        prepare_data(number_data(path), home) for path in (table, str(tmp_path / "table.parquet"))
    )
    assert first.fingerprint == second.fingerprint
    assert first.pack_dir == second.pack_dir


def test_labels_007_and_na_survive(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    prepared = prepare_data(number_data(write_table("x0,label\n1,007\n2,NA\n3,7\n4,None\n")), home)
    assert open_view(prepared.pack_dir, prepared.split_dir).schema.targets[0].classes == [
        "007",
        "7",
        "NA",
        "None",
    ]
    assert prepared.num_quarantined == 0


def test_no_row_changes_side_when_the_table_grows(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    rows = [f"{number},{'ab'[number % 2]}" for number in range(400)]
    data = number_data(write_table(["x0,label", *rows[:200]]), split={})
    sides = []
    for count in (200, 400):
        write_table(["x0,label", *reversed(rows[:count])])
        view = open_view(*prepare_data(data, home)[:2])
        side = {
            float(view.pack.column("x")[row, 0]): name
            for name, found in view.rows.items()
            for row in found
        }
        sides.append(side)
    assert len(sides[0]) == 200
    assert all(sides[1][x] == side for x, side in sides[0].items())
    assert set(sides[0].values()) == {"train", "valid", "test"}


def test_by_hash_a_picture_stays_on_its_side_under_another_name(
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
    tmp_path: Path,
) -> None:
    names = [f"{number}.png" for number in range(60)]
    write_pictures(names)
    for name in names:
        shutil.copyfile(tmp_path / "images" / name, tmp_path / "images" / f"copy-{name}")
    rows = [
        f"{prefix}{name},{'ab'[at % 2]},-"
        for prefix in ("", "copy-")
        for at, name in enumerate(names)
    ]
    prepared = prepare_data(image_data(write_table([HEADER, *rows]), split={"test": 0.4}), home)
    assert prepared.rows["test"] > 0
    split = np.load(prepared.split_dir / "split.npy")
    assert (split[:60] == split[60:]).all()
    report = read_json(prepared.split_dir / "report.json")
    assert (report["duplicate_rows"], report["rows_in_two_splits"]) == (60, {"rows": 0, "image": 0})


def test_a_group_stays_on_one_side(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    rows = [f"{number},{'ab'[number % 2]},p{number // 10}" for number in range(400)]
    prepared = prepare_data(
        number_data(write_table(["x0,label,patient", *rows]), split={"group": "patient"}), home
    )
    split = np.load(prepared.split_dir / "split.npy").reshape(40, 10)
    assert (split == split[:, :1]).all()
    assert set(split[:, 0].tolist()) == {0, 1, 2}


def test_a_view_knows_the_groups_of_its_rows_also_of_another_table(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    rows = ["0,a,p,train", "1,b,q,train", "2,a, ,train", "x,a,p,train", "3,b,p,test", "4,a, ,test"]
    table = write_table(["x0,label,patient,side", *rows])
    data = number_data(table, split={"column": "side", "group": "patient"}, max_bad_rows=0.5)
    view = open_view(*prepare_data(data, home)[:2])
    assert view.groups is not None
    p, q, alone, also_p, other_alone = view.groups.tolist()
    assert p == also_p
    assert len({p, q, alone, other_alone}) == 4
    other = open_view(*prepare_for_schema(data, view.schema, home)[:2]).groups
    assert other is not None
    assert other.tolist() == view.groups.tolist()
    without = evaluate_data(data, write_table("x0,label\n1,a\n", "without.csv"))
    assert open_view(*prepare_for_schema(without, view.schema, home)[:2]).groups is None


def test_a_split_of_an_older_version_has_no_groups_and_one_of_another_pack_is_refused(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("x0,label,patient\n1,a,p\n2,b,p\n")
    prepared = prepare_data(
        number_data(table, split={"valid": 0, "test": 0, "group": "patient"}), home
    )
    (prepared.split_dir / "manifest.json").unlink()
    groups = prepared.split_dir / "groups.npy"
    np.save(groups, np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r"splits 3 rows, the pack .* has 2"):
        open_view(prepared.pack_dir, prepared.split_dir)
    groups.unlink()
    assert open_view(prepared.pack_dir, prepared.split_dir).groups is None


def test_a_bad_row_ends_in_quarantine_with_its_reason_and_its_cells(
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
    tmp_path: Path,
) -> None:
    write_pictures([*NAMES, "big.png"])
    write_pictures(["big.png"], size=(9, 7))
    (tmp_path / "images" / "text.png").write_text("not a picture")
    (tmp_path / "images" / "torn.png").write_bytes(
        (tmp_path / "images" / "0.png").read_bytes()[:60]
    )
    (tmp_path / "images" / "zero.png").touch()
    bad = ["gone.png,cat,train", "text.png,cat,train", "torn.png,cat,test", "zero.png,cat,train",
           "big.png,cat,train", "../0.png,cat,train", "0.png,cat,train,7", "1.png,,train",
           "1.png,cat,spare"]  # fmt: skip
    prepared = prepare_data(image_data(write_table([HEADER, *ROWS, *bad]), max_bad_rows=0.7), home)
    assert prepared.num_quarantined == 9
    reasons = dict(quarantine_of(prepared))
    assert sorted(reasons) == list(range(7, 16))
    assert reasons[7] == "missing file: gone.png"
    assert reasons[8].startswith("bad image, ")
    assert "text.png" in reasons[8]
    assert reasons[9].startswith("bad image, ")
    assert reasons[10] == "file of zero bytes: zero.png"
    assert reasons[11].startswith("bad image, wrong size: big.png, 9x7")
    assert reasons[12] == "a path with .. that may leave data.files: ../0.png"
    assert reasons[13] == "extra field: 4 fields, the header names 3 columns"
    assert reasons[14] == "empty cell in 'label'"
    assert reasons[15] == "split column 'split' is not train, valid or test: 'spare'"
    cells = pd.read_csv(prepared.split_dir / "quarantine.csv", dtype=str, na_filter=False)
    assert cells.iloc[8].tolist()[2:] == ["1.png", "cat", "spare"]
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert view.pack.rows[np.concatenate(list(view.rows.values()))].tolist() == [0, 1, 2, 3, 4, 5]
    assert read_json(prepared.split_dir / "report.json")["quarantined"]["rows"] == 9


def test_a_bad_row_that_is_repaired_makes_a_new_pack(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(NAMES)
    data = image_data(write_table([HEADER, *ROWS, "late.png,cat,train"]), max_bad_rows=0.5)
    first = prepare_data(data, home)
    write_pictures(["late.png"])
    second = prepare_data(data, home)
    assert (first.num_quarantined, second.num_quarantined, second.num_decoded) == (1, 0, 1)
    assert second.rows["train"] == first.rows["train"] + 1


def test_another_reason_for_the_same_bad_row_is_written_anew(
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
    tmp_path: Path,
) -> None:
    write_pictures(NAMES)
    data = image_data(write_table([HEADER, *ROWS, "late.png,cat,train"]), max_bad_rows=0.5)
    first = prepare_data(data, home)
    (tmp_path / "images" / "late.png").touch()
    second = prepare_data(data, home)
    assert second.pack_dir == first.pack_dir
    assert quarantine_of(first) == [(7, "missing file: late.png")]
    assert quarantine_of(second) == [(7, "file of zero bytes: late.png")]


def test_of_rows_with_one_key_the_first_good_one_stays(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("id,x0,label\nk1,bad,a\nk1,1,a\nk2,2,b\nk1,3,a\nk2,4,b\n")
    prepared = prepare_data(number_data(table, key="id", max_bad_rows=0.9), home)
    assert quarantine_of(prepared) == [
        (1, "not a number in 'x0': 'bad'"),
        (4, "'id' stands in an earlier row: 'k1', row 2"),
        (5, "'id' stands in an earlier row: 'k2', row 3"),
    ]


def test_rows_that_repeat_without_a_key_are_counted_not_bad(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    prepared = prepare_data(number_data(write_table("x0,label\n1,a\n1.0,a\n1,b\n1,a\n")), home)
    assert prepared.num_quarantined == 0
    assert read_json(prepared.split_dir / "report.json")["duplicate_rows"] == 2


def test_a_class_that_only_test_rows_have_is_quarantined(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("x0,label,split\n1,a,train\n2,b,train\n3,new,test\n4,a,test\n5,new,valid\n")
    prepared = prepare_data(number_data(table, split={"column": "split"}, max_bad_rows=0.5), home)
    assert quarantine_of(prepared) == [
        (
            3,
            "class without a training row: 'new'; data.rare_classes: keep or drop lets the run go "
            "on",
        ),
        (
            5,
            "class without a training row: 'new'; data.rare_classes: keep or drop lets the run go "
            "on",
        ),
    ]
    assert open_view(prepared.pack_dir, prepared.split_dir).schema.targets[0].classes == ["a", "b"]


def test_a_class_whose_training_rows_are_all_bad_is_quarantined(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("x0,label,split\n1,a,train\n2,b,train\nx,c,train\n4,c,test\n")
    prepared = prepare_data(number_data(table, split={"column": "split"}, max_bad_rows=0.5), home)
    assert [row for row, _ in quarantine_of(prepared)] == [3, 4]


def evaluate_data(data: Data, table: str) -> Data:
    return data.model_copy(update={"table": table})


def test_every_row_of_another_table_is_a_test_row_for_a_schema(
    cats: Data, home: Home, write_table: WriteTable, write_pictures: WritePictures
) -> None:
    schema = open_view(*prepare_data(cats, home)[:2]).schema
    write_pictures(["new.png"])
    table = write_table(["image,label", "new.png,cat", "0.png,horse", "1.png,dog"], "other.csv")
    prepared = prepare_for_schema(
        cats.model_copy(update={"table": table, "max_bad_rows": 0.5}), schema, home
    )
    assert prepared.rows == {"train": 0, "valid": 0, "test": 2}
    assert prepared.num_decoded == 1
    assert quarantine_of(prepared) == [(2, "class that the model does not know: 'horse'")]
    view = open_view(prepared.pack_dir, prepared.split_dir)
    assert view.schema == schema
    again = prepare_for_schema(
        cats.model_copy(update={"table": table, "max_bad_rows": 0.5}), schema, home
    )
    assert again == prepared._replace(reused=True, num_decoded=0)


def test_a_table_of_one_class_can_be_evaluated(
    cats: Data, home: Home, write_table: WriteTable
) -> None:
    schema = open_view(*prepare_data(cats, home)[:2]).schema
    table = write_table(["image,label", "0.png,cat"], "other.csv")
    assert prepare_for_schema(evaluate_data(cats, table), schema, home).rows["test"] == 1


def test_a_schema_reads_its_own_columns_in_its_own_order(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    data = number_data(write_table("x0,x1,label\n1,10,a\n2,20,b\n"))
    schema = open_view(*prepare_data(data, home)[:2]).schema
    table = write_table("x1,x9,x0,label\n20,9,2,b\n", "other.csv")
    prepared = prepare_for_schema(evaluate_data(data, table), schema, home)
    assert open_view(prepared.pack_dir, prepared.split_dir).pack.column("x").tolist() == [
        [2.0, 20.0]
    ]


def test_a_table_without_a_column_of_the_schema_is_refused(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    data = number_data(write_table("x0,x1,label\n1,10,a\n2,20,b\n"))
    schema = open_view(*prepare_data(data, home)[:2]).schema
    table = write_table("x0,xx1,label\n1,10,a\n", "other.csv")
    with pytest.raises(
        DataError,
        match=r"other\.csv: the model's feature 'x' reads column 'x1', .*did you mean .*xx1",
    ):
        prepare_for_schema(evaluate_data(data, table), schema, home)


def test_images_of_another_size_than_the_schemas_are_refused(
    cats: Data, home: Home, write_table: WriteTable, write_pictures: WritePictures
) -> None:
    schema = open_view(*prepare_data(cats, home)[:2]).schema
    write_pictures(["wide.png"], size=(4, 8))
    table = write_table(["image,label", "wide.png,cat"], "other.csv")
    with pytest.raises(
        DataError,
        match=r"'image' are 3 x 4 x 8, the model was trained on 3 x 4 x 4; set .*size: \[4, 4\]",
    ):
        prepare_for_schema(evaluate_data(cats, table), schema, home)


def test_a_table_of_unknown_classes_alone_is_refused(
    cats: Data, home: Home, write_table: WriteTable
) -> None:
    schema = open_view(*prepare_data(cats, home)[:2]).schema
    table = write_table(["image,label", "0.png,horse"], "other.csv")
    data = cats.model_copy(update={"table": table, "max_bad_rows": 1.0})
    with pytest.raises(
        DataError,
        match=r"1 of 1 rows are bad \(1 class that the model does not know\).* no row is left",
    ):
        prepare_for_schema(data, schema, home)


PREPARE = """
import sys
from pathlib import Path
from torchrelay.datasets.ingest import prepare_data
from torchrelay.recipe import Data
from torchrelay.settings import Home

sys.stdin.readline()  # both begin at one signal, once everything is imported
prepared = prepare_data(Data.model_validate_json(Path(sys.argv[1]).read_text()), \
Home(Path(sys.argv[2])))
print(prepared.pack_dir, prepared.split_dir, sep="\\n")
"""


def test_two_ingests_at_once_do_not_collide(cats: Data, home: Home, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(cats.model_dump_json())
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "data.json"), str(home.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    for pack_dir, split_dir in outputs:
        view = open_view(Path(pack_dir), Path(split_dir))
        view.pack.verify()
        assert {name: len(rows) for name, rows in view.rows.items()} == {
            "train": 4,
            "valid": 0,
            "test": 2,
        }
    assert not list(home.root.rglob("*.tmp"))


KILLED = """
import os, signal, sys
from pathlib import Path
from torchrelay.datasets.ingest import prepare as build
from torchrelay.recipe import Data
from torchrelay.settings import Home

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(build, sys.argv[3], die)
build.prepare_data(Data.model_validate_json(Path(sys.argv[1]).read_text()), Home(Path(sys.argv[2])))
"""


@pytest.mark.parametrize(
    "moment",
    [
        "write_pack",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("fit_schema", "write_json")),
    ],
)
def test_a_killed_ingest_leaves_nothing_half_written_and_goes_on(
    cats: Data, home: Home, tmp_path: Path, moment: str
) -> None:
    (tmp_path / "data.json").write_text(cats.model_dump_json())
    command = [sys.executable, "-c", KILLED, str(tmp_path / "data.json"), str(home.root), moment]
    assert subprocess.run(command, check=False, cwd=tmp_path).returncode == -9
    committed = [path for path in home.packs.rglob("splits/*") if not path.name.startswith(".")]
    assert committed == []
    prepared = prepare_data(cats, home)
    assert (prepared.num_decoded, prepared.reused) == (0, False)
    assert prepare_data(cats, home).reused
    open_view(prepared.pack_dir, prepared.split_dir).pack.verify()
