"""What a user reads when the data cannot be trained on; decoding's own reasons are tested with
the decoder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from torchrelay.datasets.ingest.prepare import prepare_data
from torchrelay.errors import DataError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
WritePictures = Callable[..., None]
MakeData = Callable[..., Data]

HEADER = "image,label,split"


def test_more_bad_rows_than_allowed_stop_with_counts_rows_and_the_quarantine(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("x0,label\n1,a\nNaN,b\n3,b\nabc,a\n-inf,a\nNaN,a\n")
    with pytest.raises(DataError) as caught:
        prepare_data(number_data(table, max_bad_rows=0.5), home)
    message = str(caught.value)
    assert f"{table}: 4 of 6 rows are bad, data.max_bad_rows = 0.5 allows 3" in message
    assert "(2 NaN in 'x0', 1 not a number in 'x0', 1 infinite number in 'x0')" in message
    assert (
        "First: row 2: NaN in 'x0': 'NaN'; row 4: not a number in 'x0': 'abc'; row 5: infinite"
        in message
    )
    assert "raise data.max_bad_rows above 0.67" in message
    [quarantine] = home.packs.rglob("quarantine.csv")
    assert str(quarantine) in message
    cells = pd.read_csv(quarantine, dtype=str, na_filter=False)
    assert cells["row"].tolist() == ["2", "4", "5", "6"]
    assert cells["x0"].tolist() == ["NaN", "abc", "-inf", "NaN"]


def test_as_many_bad_rows_as_allowed_are_quarantined(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("x0,label\n1,a\nNaN,b\n3,b\nabc,a\n")
    assert prepare_data(number_data(table, max_bad_rows=0.5), home).num_quarantined == 2


def test_one_bad_row_in_fifty_stops_by_default(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    rows = [f"{number},{'ab'[number % 2]}" for number in range(49)]
    with pytest.raises(DataError, match=r"1 of 50 rows are bad, data.max_bad_rows = 0.01 allows 0"):
        prepare_data(number_data(write_table(["x0,label", *rows, "x,a"])), home)


def test_too_many_missing_files_stop_before_anything_is_decoded(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["a.png"])
    table = write_table([HEADER, "a.png,x,train", "b.png,y,train"])
    with pytest.raises(DataError, match="1 missing file"):
        prepare_data(image_data(table), home)
    assert not home.store.exists()


def test_rows_that_are_all_bad_leave_nothing_to_train_on(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    with pytest.raises(DataError, match=r"2 of 2 rows are bad.* no row is left, correct the table"):
        prepare_data(number_data(write_table("x0,label\na,b\nc,d\n"), max_bad_rows=1), home)


def test_a_target_that_is_nan_is_quarantined(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    data = number_data(
        write_table("x0,y\n1,NaN\n2,2\n3,3\n"), target={"y": {"kind": "number"}}, max_bad_rows=0
    )
    with pytest.raises(DataError, match="row 1: NaN in 'y': 'NaN'"):
        prepare_data(data, home)


def test_the_same_file_in_train_and_test_is_refused(
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
    tmp_path: Path,
) -> None:
    write_pictures([f"{number}.png" for number in range(5)])
    (tmp_path / "images" / "link.png").symlink_to("4.png")
    sides = ["train", "test"]
    rows = [f"{number}.png,x,{side}" for side in sides for number in range(4)]
    table = write_table([HEADER, *rows, "4.png,y,train", "link.png,y,valid", "./4.png,y,train"])
    with pytest.raises(DataError) as caught:
        prepare_data(image_data(table), home)
    message = str(caught.value)
    assert "5 files stand in two splits" in message
    assert "0.png (row 1 train, row 5 test)" in message
    assert "2.png (row 3 train, row 7 test)" in message
    assert "3.png" not in message
    assert not home.store.exists()


def test_a_file_in_two_splits_by_hash_of_a_key_is_refused(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["a.png", "b.png"])
    rows = [f"k{number},{'ab'[number % 2]}.png,{'xy'[number % 2]}" for number in range(40)]
    data = image_data(write_table(["id,image,label", *rows]), key="id", split={})
    with pytest.raises(
        DataError, match=r"2 files stand in two splits: .*a\.png \(row \d+ train, row \d+ "
    ):
        prepare_data(data, home)


def test_a_bad_row_is_no_leak(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["a.png", "b.png"])
    table = write_table([HEADER, "a.png,x,train", "b.png,y,train", "a.png,,test"])
    assert prepare_data(image_data(table, max_bad_rows=0.5), home).rows["test"] == 0


def test_the_same_content_in_train_and_test_is_a_warning(
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
    tmp_path: Path,
) -> None:
    write_pictures(["a.png", "b.png"])
    shutil.copyfile(tmp_path / "images" / "a.png", tmp_path / "images" / "copy.png")
    table = write_table([HEADER, "a.png,x,train", "b.png,y,train", "copy.png,y,test"])
    prepared = prepare_data(image_data(table), home)
    assert prepared.rows == {"train": 2, "valid": 0, "test": 1}
    assert prepared.warnings[0] == (
        "2 rows of different splits hold the same picture in 'image' under different names, for "
        "example rows 1, 3"
    )


def test_one_class_among_the_training_rows_is_refused(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    table = write_table("x0,label,split\n1,a,train\n2,a,train\n3,b,test\n")
    data = number_data(table, split={"column": "split"}, max_bad_rows=0.5)
    with pytest.raises(
        DataError,
        match="target column 'label' has the one class 'a' among its training rows; expected",
    ):
        prepare_data(data, home)


def test_a_table_without_training_rows_is_refused(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    data = number_data(
        write_table("x0,label,split\n1,a,valid\n3,b,test\n"), split={"column": "split"}
    )
    with pytest.raises(
        DataError,
        match=r"no row trains \(0 train, 1 valid, 1 test\); column 'split' must say train",
    ):
        prepare_data(data, home)


def test_an_image_bomb_ends_in_quarantine(
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
    tmp_path: Path,
) -> None:
    write_pictures(["a.png", "b.png"])
    tifffile.imwrite(
        tmp_path / "images" / "bomb.tif", np.zeros((20_000, 20_000), np.uint8), compression="zlib"
    )
    assert (tmp_path / "images" / "bomb.tif").stat().st_size < 500_000
    table = write_table([HEADER, "a.png,x,train", "b.png,y,train", "bomb.tif,x,train"])
    with pytest.raises(DataError, match=r"bad image.*bomb\.tif"):
        prepare_data(image_data(table), home)


def test_float_pixels_that_are_no_numbers_are_quarantined_by_file_and_wild_ones_are_warned_of(
    home: Home, write_table: WriteTable, image_data: MakeData, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).random((8, 4, 4), np.float32)
    pixels[2, 0, 1], pixels[3, 1, 1], pixels[5, 2, 3] = np.nan, -np.inf, -1e20
    for number, one in enumerate(pixels):
        if number % 2:
            tifffile.imwrite(folder / f"{number}.tif", one)
        else:
            np.save(folder / f"{number}.npy", one)
    rows = [
        f"{number}.{'tif' if number % 2 else 'npy'},{'xy'[number // 4]},train"
        for number in range(8)
    ]
    inputs = {"image": {"kind": "image", "channels": "gray", "dtype": "float32"}}
    prepared = prepare_data(
        image_data(write_table([HEADER, *rows]), inputs=inputs, max_bad_rows=0.5), home
    )
    cells = pd.read_csv(prepared.split_dir / "quarantine.csv", dtype=str)
    assert cells["row"].tolist() == ["3", "4"]
    reasons = cells["reason"].tolist()
    assert reasons == [
        f"bad image, pixels that are not numbers (NaN or infinite): {one}"
        for one in ("2.npy", "3.tif")
    ]
    [said] = [line for line in prepared.warnings if "usual range" in line]
    # Of 6 x 16 pixels one is -1e20: mean -1e20 / 96, deviation 1e20 sqrt(95) / 96.
    assert "'image': pixels with mean -1.04e+18 and standard deviation 1.02e+19 are far" in said
    assert "the farthest, -1e+20, is in row 6 (5.tif)" in said
    again = prepare_data(
        image_data(write_table([HEADER, *rows[:2], *rows[6:]]), inputs=inputs), home
    )
    assert not [line for line in again.warnings if "usual range" in line]


def test_a_missing_column_is_named_with_the_table(
    home: Home, write_table: WriteTable, image_data: MakeData
) -> None:
    with pytest.raises(
        DataError, match=r"table\.csv: feature 'image' reads column 'image', .*did you mean images?"
    ):
        prepare_data(image_data(write_table("images,label,split\na.png,x,train\n")), home)


def test_messages_show_the_place_of_the_quarantine_of_this_table_alone(
    home: Home, write_table: WriteTable, number_data: MakeData
) -> None:
    for name in ("one.csv", "sub/one.csv"):
        table = write_table("x0,label\nx,a\n1,b\n", name)
        with pytest.raises(DataError, match="rows are bad"):
            prepare_data(number_data(table), home)
        with pytest.raises(DataError, match="rows are bad"):
            prepare_data(number_data(table), home)
    assert len(list(home.packs.rglob("quarantine.csv"))) == 2
