from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.pack import open_view
from torchrelay.datasets.pack.pack import MANIFEST, Pack, fingerprint_table
from torchrelay.datasets.splits import write_manifest
from torchrelay.errors import DataError
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
WritePictures = Callable[..., None]
MakeData = Callable[..., Data]


@pytest.fixture
def pack(
    write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData, home: Home
) -> Pack:
    """Three rows; the second of the table is bad. A feature's name holds a slash."""
    write_pictures(["a.png", "b.png"])
    table = write_table(
        ["image,label,split,x0,x1", "a.png,007,train,1.5,2", "no.png,NA,train,0,0",
         "b.png,NA,train,-3,1e-3",
         "a.png,NA,train,0,0"]
    )  # fmt: skip
    inputs = {"image": {"kind": "image"}, "x/y": {"kind": "number", "columns": "x*"}}
    return Pack.open(
        prepare_data(image_data(table, inputs=inputs, max_bad_rows=0.5), home).pack_dir
    )


def test_a_pack_holds_the_raw_values_of_the_readable_rows(pack: Pack) -> None:
    assert pack.num_rows == 3
    assert pack.rows.tolist() == [0, 2, 3]
    assert pack.column("x/y").tolist() == [[1.5, 2.0], [-3.0, 0.001], [0.0, 0.0]]
    assert [pack.vocabulary("label")[number] for number in pack.column("label")[:, 0]] == [
        "007",
        "NA",
        "NA",
    ]
    assert len(pack.fingerprint) == 32
    assert {name: feature.kind for name, feature in pack.features.items()} == {
        "image": "image",
        "x/y": "number",
        "label": "category",
    }


def test_its_images_are_those_of_the_files(pack: Pack, tmp_path: Path) -> None:
    from PIL import Image

    image = pack.image("image")
    for row, name in enumerate(["a.png", "b.png", "a.png"]):
        expected = np.asarray(Image.open(tmp_path / "images" / name)).transpose(2, 0, 1)
        np.testing.assert_array_equal(image.shards[image.shard[row]][image.offset[row]], expected)


def test_it_travels_to_another_process_as_its_path(pack: Pack) -> None:
    data = pickle.dumps(pack)
    assert len(data) < 1_000
    assert pickle.loads(data).column("x/y").tolist() == pack.column("x/y").tolist()


def test_its_arrays_are_memory_mapped(pack: Pack) -> None:
    assert isinstance(pack.column("x/y"), np.memmap)
    assert isinstance(pack.image("image").shards[0], np.memmap)


def test_every_file_is_listed_with_its_sha256(pack: Pack) -> None:
    names = {path.name for path in pack.folder.iterdir() if path.is_file()} - {MANIFEST}
    assert names == set(pack.manifest.files)
    pack.verify()


def test_a_flipped_bit_is_found(pack: Pack) -> None:
    path = pack.folder / "x%2Fy.values.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x%2Fy\.values\.npy does not have the sha256"):
        Pack.open(pack.folder).verify()


def test_a_torn_file_is_found_at_once(pack: Pack) -> None:
    path = pack.folder / "row.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(
        DataError, match=r"row\.npy has 144 bytes, expected 152; run `torchrelay ingest` again"
    ):
        Pack.open(pack.folder)


@pytest.mark.parametrize("how", ["flip", "tear", "lose"])
@pytest.mark.parametrize("name", ["x%2Fy.values.npy", MANIFEST])
def test_the_next_ingest_writes_a_damaged_file_of_it_anew(
    name: str, how: str, write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    data = number_data(
        write_table(["x0,label", "1,a", "2,b"]), inputs={"x/y": {"kind": "number", "columns": "x*"}}
    )
    made = prepare_data(data, home)
    path = made.pack_dir / name
    content = path.read_bytes()
    if how == "lose":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if how == "tear" else content[:-1] + bytes([content[-1] ^ 1]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = prepare_data(data, home)
    assert (again.pack_dir, again.split_dir) == (made.pack_dir, made.split_dir)
    assert path.read_bytes() == content
    said = [f"{name} was damaged; written anew, the old one is bad-{name}"] if how != "lose" else []
    assert [str(one.message).partition(": ")[2] for one in caught] == said
    assert path.with_name(f"bad-{name}").exists() == (how != "lose")
    open_view(again.pack_dir, again.split_dir).pack.verify()


def test_a_manifest_that_says_something_else_is_refused(pack: Pack) -> None:
    path = pack.folder / MANIFEST
    path.write_text(path.read_text().replace('"007"', '"NA"', 1))
    with pytest.raises(DataError, match="does not have the digest that its folder is named by"):
        Pack.open(pack.folder)


def test_a_flipped_bit_of_its_pixels_is_found(pack: Pack, home: Home) -> None:
    [pixels] = home.store.rglob("pixels.npy")
    content = pixels.read_bytes()
    pixels.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        DataError, match=r"shard .* does not verify \(pixels.npy does not have the sha256"
    ):
        pack.verify()


def test_another_format_version_says_which_can_be_read(pack: Pack) -> None:
    path = pack.folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 3}))
    with pytest.raises(
        DataError, match="has format_version 3, this torchrelay reads format_version 2"
    ):
        Pack.open(pack.folder)


@pytest.mark.parametrize("content", ["", "[]", '{"format_version": 2}'])
def test_what_is_no_manifest_is_refused(pack: Pack, content: str) -> None:
    (pack.folder / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=r"is not a pack: .*run `torchrelay ingest` again"):
        Pack.open(pack.folder)


def test_a_lost_shard_is_named(pack: Pack, home: Home) -> None:
    for path in home.store.rglob("pixels.npy"):
        path.unlink()
    with pytest.raises(
        DataError, match=r"needs pixels from .* that cannot be read .*run `torchrelay ingest` again"
    ):
        pack.image("image")


def test_a_split_of_another_pack_is_refused(pack: Pack) -> None:
    split_dir = next((pack.folder / "splits").iterdir())
    np.save(split_dir / "split.npy", np.zeros(7, np.int8))
    write_manifest(split_dir)
    with pytest.raises(DataError, match=r"splits 7 rows, the pack .* has 3"):
        open_view(pack.folder, split_dir)


FRAME = pd.DataFrame({"a": ["x", "yz"], "b": ["1", "2"]}, dtype=str)
CONTENTS = [np.array([b"0" * 32, b"1" * 32])]


@pytest.mark.parametrize(
    "other",
    [
        pd.DataFrame(
            {"a": ["xy", "z"], "b": ["1", "2"]}, dtype=str
        ),  # the same characters, cut elsewhere
        pd.DataFrame({"a": ["yz", "x"], "b": ["2", "1"]}, dtype=str),  # another order
        pd.DataFrame({"b": ["x", "yz"], "a": ["1", "2"]}, dtype=str),  # other names
        pd.DataFrame({"a": ["x", "yz"], "b": ["1", "3"]}, dtype=str),  # another cell
    ],
)
def test_the_fingerprint_sees_every_cell(other: pd.DataFrame) -> None:
    assert fingerprint_table(FRAME, CONTENTS) != fingerprint_table(other, CONTENTS)


def test_the_fingerprint_sees_every_files_content() -> None:
    assert fingerprint_table(FRAME, CONTENTS) != fingerprint_table(FRAME, [CONTENTS[0][::-1]])


def test_the_fingerprint_does_not_depend_on_how_the_table_lies_in_memory() -> None:
    longer = pd.DataFrame({"a": ["w", "x", "yz"], "b": ["0", "1", "2"]}, dtype=str)
    assert fingerprint_table(longer.iloc[1:], CONTENTS) == fingerprint_table(FRAME, CONTENTS)
    assert len(fingerprint_table(FRAME, [])) == 32
