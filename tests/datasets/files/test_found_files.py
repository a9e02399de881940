"""Which files a table leads to, from recipe to pack: other spellings, links, and files replaced
in place.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchrelay.datasets.ingest import Prepared, prepare_data
from torchrelay.errors import DataError
from torchrelay.settings import Home

from ..conftest import MakeData, WritePictures, WriteTable


def test_one_file_in_two_spellings_and_two_splits_is_refused(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["cats/é.png", "cats/1.png"])
    decomposed = unicodedata.normalize("NFD", "cats/é.png")
    rows = ["cats/é.png,a,train", "cats/1.png,b,train", f"{decomposed},a,test"]
    with pytest.raises(
        DataError, match=r"1 file stands in two splits: .*/cats/é\.png \(row 1 train, row 3 test\)"
    ):
        prepare_data(image_data(write_table(["image,label,split", *rows])), home)
    rows = [r"cats\1.png,a,train", "cats/é.png,b,train", "cats/1.png,a,test"]
    with pytest.raises(DataError, match="1 file stands in two splits"):
        prepare_data(image_data(write_table(["image,label,split", *rows])), home)


def test_cells_in_another_spelling_are_a_warning_of_the_report(
    home: Home, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures(["cats/0.png", "cats/1.png"])
    table = write_table(["image,label,split", r"cats\0.png,a,train", "cats/1.png,b,train"])
    assert prepare_data(image_data(table), home).warnings[0] == (
        r"'image': 1 cell names its file in another spelling (\ for /), for example 'cats\\0.png'; "
        r"that file is taken"
    )


def test_links_out_of_the_folder_are_bad_rows_unless_the_recipe_names_where_they_lead(
    tmp_path: Path,
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
) -> None:
    write_pictures(["0.png", "1.png"])
    (tmp_path / "images").rename(tmp_path / "cache")
    (tmp_path / "images").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "images" / name).symlink_to(f"../cache/{name}")
    table = write_table(["image,label,split", "0.png,a,train", "1.png,b,train"])
    with pytest.raises(
        DataError, match=rf"a symlink that leaves data\.files.*`data\.links: \[{tmp_path}/cache\]`"
    ):
        prepare_data(image_data(table), home)
    prepared = prepare_data(image_data(table, links=[str(tmp_path / "cache")]), home)
    assert prepared.num_quarantined == 0


def test_pictures_replaced_with_the_same_size_and_time_are_another_table(
    tmp_path: Path, home: Home, write_table: WriteTable, image_data: MakeData
) -> None:
    (tmp_path / "images").mkdir()
    table = write_table(["image,label,split", "0.bmp,a,train", "1.bmp,b,train"])

    def prepare(place: Home) -> Prepared:
        return prepare_data(image_data(table), place)

    paths = [tmp_path / "images" / f"{number}.bmp" for number in range(2)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((16, 16), 90 * number, np.uint8)).save(path)
    first = prepare(home)
    for path in paths:
        before = path.stat()
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path.with_suffix(".new"), "BMP")
        path.with_suffix(".new").replace(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = prepare(home)
    assert second.num_decoded == 2
    assert second.fingerprint == prepare(Home(tmp_path / "fresh")).fingerprint != first.fingerprint
