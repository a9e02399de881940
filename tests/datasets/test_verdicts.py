"""The reasons of bad rows: sentences made of their parts, counted by kind, the same in every
run.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, UnidentifiedImageError

from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.verdicts import (
    MISSING_FILE,
    MOST_KINDS,
    NoRowsError,
    Reason,
    Verdicts,
    quote,
    read_verdicts,
    say_counts,
    say_verdicts,
)
from torchrelay.disk import read_json
from torchrelay.settings import Home

from .conftest import MakeData, WritePictures, WriteTable

SPLITS = ("train", "train", "valid", "test")


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (Reason("zero bytes"), "zero bytes"),
        (Reason("missing file", "a: b.png"), "missing file: a: b.png"),
        (
            Reason("wrong channels", "", "expected rgb, got 2"),
            "wrong channels: expected rgb, got 2",
        ),
        (
            Reason("kind", "a.png", "what came", "say `dtype: float32`", "Oops: 5"),
            "kind: a.png, what came (Oops: 5); say `dtype: float32`",
        ),
        (
            Reason("not a number", "\x1b[2J" + "x" * 300),
            f"not a number: \\x1b[2J{'x' * 136}…{'x' * 59}",
        ),
    ],
)
def test_a_reason_is_one_sentence_of_its_parts(reason: Reason, sentence: str) -> None:
    assert str(reason) == sentence
    assert Reason.load(reason.dump()) == reason


def test_what_a_library_says_has_no_address_and_one_line() -> None:
    with pytest.raises(UnidentifiedImageError, match="0x") as caught:
        Image.open(io.BytesIO(b"no picture"))
    assert quote(caught.value) == "cannot identify image file <_io.BytesIO object>"
    assert quote(ValueError("first\nsecond")) == "first"
    assert quote(KeyError()) == "KeyError"
    assert (
        quote(FileNotFoundError(2, "No such file or directory", "/a/b"))
        == "No such file or directory"
    )


def test_the_words_of_a_library_name_nothing() -> None:
    first, second, third = Verdicts(2), Verdicts(2), Verdicts(2)
    first.reject(0, "not a readable image", "a.png", said="codec error -2")
    second.reject(0, "not a readable image", "a.png", said="broken data stream")
    third.reject(0, "not a readable image", "b.png", said="codec error -2")
    assert first.digest() == second.digest() != third.digest()


def test_a_message_counts_a_bounded_number_of_kinds() -> None:
    said = say_counts({f"empty cell in 'x{number}'": 2 for number in range(10_000)})
    assert said.endswith(
        f"2 empty cell in 'x{MOST_KINDS - 1}', {2 * (10_000 - MOST_KINDS):,} for 9,992 other "
        "reasons"
    )


def test_bad_files_of_one_kind_are_one_count_with_the_remedy(
    tmp_path: Path,
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
) -> None:
    write_pictures([f"{number}.png" for number in range(8)])
    for number in range(40):  # each of another length
        (tmp_path / "images" / f"bad{number}.jpg").write_bytes(b"\x81x" * (number + 60))
    Image.fromarray(np.full((4, 4), 30_000, np.int32)).save(tmp_path / "images" / "gray: deep.tif")
    names = (
        [f"{number}.png" for number in range(8)]
        + [f"bad{number}.jpg" for number in range(40)]
        + ["gray: deep.tif"]
    )
    rows = [f"{name},{'ab'[at % 2]},{SPLITS[at % 4]}" for at, name in enumerate(names)]
    table = write_table(["image,label,split", *rows])
    prepared = prepare_data(image_data(table, max_bad_rows=0.9), home)
    counts = read_json(prepared.split_dir / "report.json")["quarantined"]["reasons"]
    assert counts == {
        "bad image, not a readable image": 40,
        "bad image, int32 pixels that do not fit dtype uint8": 1,
    }
    assert say_verdicts(prepared.split_dir) == (
        "40 bad image, not a readable image (save it as PNG, JPEG or TIFF), "
        "1 bad image, int32 pixels that do not fit dtype uint8 (say `dtype: float32` to keep them)"
    )
    sentence = (
        "bad image, int32 pixels that do not fit dtype uint8: gray: deep.tif, they go from 30000 "
        "to 30000; "
        "say `dtype: float32` to keep them"
    )
    assert read_verdicts(prepared.split_dir)[48] == sentence
    cells = pd.read_csv(prepared.split_dir / "quarantine.csv", dtype=str)
    assert cells["reason"].tolist()[-1] == sentence
    assert not cells["reason"].str.contains("0x").any()


def test_two_homes_give_one_table_with_bad_files_the_same_split(
    tmp_path: Path, write_table: WriteTable, write_pictures: WritePictures, image_data: MakeData
) -> None:
    write_pictures([f"{number}.png" for number in range(8)])
    (tmp_path / "images" / "bad.jpg").write_bytes(b"no picture")
    rows = [f"{number}.png,{'ab'[number % 2]},{SPLITS[number % 4]}" for number in range(8)]
    table = write_table(["image,label,split", *rows, "bad.jpg,a,train"])
    found = [
        prepare_data(image_data(table, max_bad_rows=0.5), Home(tmp_path / name))
        for name in ("one", "two")
    ]
    assert found[0].split_dir.name == found[1].split_dir.name
    assert read_verdicts(found[0].split_dir) == read_verdicts(found[1].split_dir)


def test_what_to_do_is_said_once_and_of_files_only_where_files_are_looked_for(
    tmp_path: Path,
) -> None:
    frame = pd.DataFrame({"a": ["1,5", "2,5", "3,5"]}, dtype=str)
    verdicts = Verdicts(3)
    for row, cell in enumerate(frame["a"]):
        verdicts.reject(row, "not a number in 'a'", repr(cell), remedy='set data.decimal: ","')
    with pytest.raises(NoRowsError) as caught:
        verdicts.check_limit(0.0, "t.csv", frame, tmp_path / "quarantine.csv")
    said = str(caught.value)
    assert said.count("set data.decimal") == 1
    assert "row 2: not a number in 'a': '2,5'; row 3: not a number in 'a': '3,5'. All" in said
    assert "no row is left, correct the table. Rows" in said
    verdicts = Verdicts(1)
    verdicts.reject(0, MISSING_FILE, "a.png")
    with pytest.raises(
        NoRowsError, match="correct the table, or the folder that its files are looked for in"
    ):
        verdicts.check_limit(0.0, "t.csv", frame, tmp_path / "quarantine.csv")
