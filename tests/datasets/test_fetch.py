from __future__ import annotations

import csv
import hashlib
import io
import os
import pickle
import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import torchrelay
from torchrelay.datasets.fetch import check_names, fetch, find_key, place
from torchrelay.datasets.files import fold
from torchrelay.errors import DataError
from torchrelay.recipe import load_recipe


def read(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def make_zip(path: Path, entries: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_digits_are_the_bundled_scans_stratified(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    done: list[tuple[int, int]] = []
    fetched = fetch("digits", tmp_path, lambda now, total: done.append((now, total)))
    rows = read(fetched.table)
    assert (fetched.table, fetched.rows, len(rows)) == (
        tmp_path / "digits" / "digits.csv",
        1797,
        1797,
    )
    assert done[-1] == (1797, 1797)
    images, labels = load_digits(return_X_y=True)
    for number in (0, 1000, 1796):
        pixels = np.asarray(Image.open(fetched.files / rows[number]["image"]))
        np.testing.assert_array_equal(
            pixels, np.rint(images[number].reshape(8, 8) * 255 / 16).astype(np.uint8)
        )
        assert rows[number]["label"] == str(labels[number])
    counts = Counter((row["label"], row["split"]) for row in rows)
    for label in map(str, range(10)):
        total = sum(counts[label, split] for split in ("train", "valid", "test"))
        assert abs(counts[label, "test"] - 0.2 * total) <= 0.5
        assert abs(counts[label, "valid"] - 0.1 * total) <= 0.5


def test_a_complete_data_set_is_left_as_it_is(tmp_path: Path) -> None:
    fetch("digits", tmp_path)
    before = stamps(tmp_path)
    assert fetch("digits", tmp_path).rows == 1797
    assert stamps(tmp_path) == before


def test_a_half_written_data_set_is_finished(tmp_path: Path) -> None:
    table = fetch("digits", tmp_path).table
    before, text = stamps(tmp_path), table.read_text()
    table.unlink()
    fetch("digits", tmp_path)
    assert table.read_text() == text
    del before[str(table)]
    assert stamps(tmp_path) | before == stamps(tmp_path)
    assert not list(tmp_path.rglob(".*"))


def test_images_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "digits" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="holds other images"):
        fetch("digits", tmp_path)


def test_an_unknown_data_set_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set 'digit' to fetch; did you mean digits"):
        fetch("digit", tmp_path)


def test_faces_are_placed_and_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"faces cannot be fetched.*`torchrelay fetch faces --from DIR` places it"
    ):
        fetch("faces", tmp_path)
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "face_landmarks.csv").write_text(
        "image_name,part_0_x,part_0_y\n1.jpg,1,2\n"
    )
    assert fetch("faces", tmp_path).rows == 1


@pytest.fixture
def tiny_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """An archive in torchvision's format of six training and two test rows, and its pixels (8,
    32, 32, 3).
    """
    from torchvision.datasets import CIFAR10

    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    flat = pixels.transpose(0, 3, 1, 2).reshape(8, -1)
    parts = {
        "data_batch_1": {"data": flat[:6], "labels": [0, 1, 1, 0, 1, 2]},
        "test_batch": {"data": flat[6:], "labels": [1, 2]},
        "batches.meta": {"label_names": ["airplane", "cat", "ship"]},
    }
    packed = {name: pickle.dumps(part) for name, part in parts.items()}
    md5 = {name: hashlib.md5(part).hexdigest() for name, part in packed.items()}
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, part in packed.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(part)
            tar.addfile(info, io.BytesIO(part))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(
        CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz"
    )  # nobody listens there
    return archive, pixels


def test_cifar10_is_written_from_torchvisions_archive(
    tmp_path: Path, tiny_cifar: tuple[Path, np.ndarray]
) -> None:
    archive, pixels = tiny_cifar
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    archive.rename(tmp_path / "data" / "cifar10" / archive.name)
    fetched = fetch("cifar10", tmp_path / "data")
    rows = read(fetched.table)
    assert [(row["image"], row["label"], row["split"]) for row in rows[:3] + rows[-2:]] == [
        ("train/airplane/0000.png", "airplane", "train"),
        ("train/cat/0000.png", "cat", "train"),
        ("train/cat/0001.png", "cat", "train"),
        ("test/cat/0000.png", "cat", "test"),
        ("test/ship/0000.png", "ship", "test"),
    ]
    for row, expected in zip(rows, pixels, strict=True):
        np.testing.assert_array_equal(
            np.asarray(Image.open(fetched.files / row["image"])), expected
        )
    assert sorted(path.name for path in fetched.table.parent.iterdir()) == [
        archive.name,
        "cifar10.csv",
        "images",
    ]


def test_without_a_network_it_says_how_to_place_the_archive(
    tmp_path: Path, tiny_cifar: tuple[Path, np.ndarray]
) -> None:
    from torchvision.datasets import CIFAR10

    with pytest.raises(DataError) as caught:
        fetch("cifar10", tmp_path / "data")
    message = str(caught.value)
    for part in (
        "cifar-10-python.tar.gz",
        CIFAR10.tgz_md5,
        str(tmp_path / "data" / "cifar10"),
        "fetch again",
    ):
        assert part in message


def test_place_takes_tables_and_archives(tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_zip(source / "faces" / "images.zip", {"a.png": b"a", "deep/b.png": b"b"})
    (source / "faces" / "faces.csv").write_text("image,y\na.png,1\ndeep/b.png,2\n")
    (source / "uci").mkdir()
    (source / "uci" / "one.csv").write_text("x,y\n1,2\n")
    (source / "uci" / "two.csv").write_text("x,y\n1,2\n3,4\n5,6\n")
    (source / "empty").mkdir()
    target = tmp_path / "data"
    fetched = place(source, target)
    assert [(one.table.relative_to(target).as_posix(), one.rows) for one in fetched] == [
        ("faces/faces.csv", 2),
        ("uci/one.csv", 1),
        ("uci/two.csv", 3),
    ]
    assert (target / "faces" / "images" / "deep" / "b.png").read_bytes() == b"b"
    before = stamps(target)
    place(source, target)
    assert stamps(target) == before
    assert [one.table.name for one in place(source, tmp_path / "some", ["faces"])] == ["faces.csv"]


def test_place_names_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        place(tmp_path / "none", tmp_path / "data")
    with pytest.raises(DataError, match="no sub-folder of"):
        place(tmp_path, tmp_path / "data")
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "faces.csv").write_text("a\n")
    with pytest.raises(DataError, match="no data set 'face'; did you mean faces"):
        place(tmp_path, tmp_path / "data", ["face"])


@pytest.mark.parametrize(
    "name", ["../out.png", "/out.png", "a/../../out.png", "C:/out.png", "..\\out.png"]
)
def test_an_archive_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    make_zip(tmp_path / "source" / "bad" / "images.zip", {"good.png": b"1", name: b"2"})
    (tmp_path / "source" / "bad" / "bad.csv").write_text("image\n")
    with pytest.raises(DataError, match="leaves the folder"):
        place(tmp_path / "source", tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.png"))


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "source" / "bad" / "images.zip"
    make_zip(path, {})
    info = zipfile.ZipInfo("link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    (tmp_path / "source" / "bad" / "bad.csv").write_text("image\n")
    with pytest.raises(DataError, match=r"the entry 'link.png' is a link"):
        place(tmp_path / "source", tmp_path / "data")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    make_zip(tmp_path / "source" / "bad" / "images.zip", {"zeros.bmp": bytes(10_000_000)})
    (tmp_path / "source" / "bad" / "bad.csv").write_text("image\n")
    with pytest.raises(DataError, match="would unpack to 10,000,000 bytes"):
        place(tmp_path / "source", tmp_path / "data")


def test_a_damaged_archive_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "source" / "bad" / "images.zip"
    make_zip(path, {"a.bin": np.random.default_rng(0).bytes(5000)})
    data = bytearray(path.read_bytes())
    data[2000] ^= 0xFF
    path.write_bytes(data)
    (tmp_path / "source" / "bad" / "bad.csv").write_text("image\n")
    with pytest.raises(DataError, match="cannot be unpacked"):
        place(tmp_path / "source", tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.bin"))


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_the_shipped_recipe_reads_what_fetch_writes(name: str) -> None:
    root = Path(torchrelay.__file__).parent
    recipe = load_recipe(root / "recipes" / f"{name}.yaml")
    assert recipe.name == name
    assert recipe.data.table == str(root / "data" / name / f"{name}.csv")
    assert recipe.data.files == str(root / "data" / name / "images")
    assert list(recipe.data.inputs) == ["image"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "a/b.png"], "'a' as a file and as a folder"),
        (["a/" + "x" * 300 + ".png"], "too long a name"),
        (["/".join(["y" * 100] * 60)], "too long a name"),
        (["."], "names no file"),
        (["a/./b.png"], "names no file"),
        (["a//b.png"], "names no file"),
        (["a.png", "a.png"], "'a.png' twice with other bytes"),
        (["aNUL.png"], r"'a\x00.pngXX' has a NUL in its name"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_whose_names_collide_or_name_no_file_is_refused(
    tmp_path: Path, names: list[str], said: str
) -> None:
    folder = tmp_path / "source" / "bad"
    folder.mkdir(parents=True)
    (folder / "bad.csv").write_text("image\n")
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(zipfile.ZipInfo(name), bytes([number]))
    content = (folder / "images.zip").read_bytes()
    (folder / "images.zip").write_bytes(content.replace(b"aNUL.png", b"a\0.pngXX"))
    with pytest.raises(DataError, match=re.escape(said)):
        place(tmp_path / "source", tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.png"))
    assert not (tmp_path / "data" / "bad" / "images").exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a/b.png", "A"], "'a' as a file and as a folder"),
        (["a.png", "A.png"], "'A.png' beside 'a.png', which this disk takes for one name"),
        (["é.png", "e\u0301.png"], "which this disk takes for one name"),
        (
            ["Cats/a.png", "cats/b.png"],
            "the folders 'Cats' and 'cats', which this disk takes for one",
        ),
    ],
)
def test_names_that_a_disk_takes_for_one_are_refused_there_and_taken_elsewhere(
    tmp_path: Path, names: list[str], said: str
) -> None:
    entries = [zipfile.ZipInfo(name) for name in names]
    for number, entry in enumerate(entries):
        entry.CRC = number
    with pytest.raises(DataError, match=re.escape(said)):
        check_names(tmp_path / "images.zip", entries, fold)
    check_names(tmp_path / "images.zip", entries, str)
    (tmp_path / "é").touch()
    assert [(tmp_path / other).exists() for other in ("É", "e\u0301")] == [
        find_key(tmp_path)("É") == "é"
    ] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["é"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_with_the_same_bytes_is_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "twice"
    folder.mkdir(parents=True)
    (folder / "twice.csv").write_text("image\n")
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for _ in range(2):
            archive.writestr("a.png", b"same")
    place(tmp_path / "source", tmp_path / "data")
    assert (tmp_path / "data" / "twice" / "images" / "a.png").read_bytes() == b"same"


@pytest.mark.parametrize("name", ["table.csv", "images.zip"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "source" / "odd"
    folder.mkdir(parents=True)
    (folder / "good.csv").write_text("image\n")
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "device":
        (folder / name).symlink_to("/dev/zero")
    else:
        (folder / name).mkdir()
    with pytest.raises(
        DataError, match=rf"{name} is .*no regular file.*, expected a file that ends"
    ):
        place(tmp_path / "source", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_target_that_is_no_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "good"
    folder.mkdir(parents=True)
    (folder / "good.csv").write_text("image\n")
    (tmp_path / "data").symlink_to("/dev/null")
    with pytest.raises(DataError, match=r"data sets cannot be placed in .*/data"):
        place(tmp_path / "source", tmp_path / "data")


def test_rows_are_counted_past_a_cell_of_140_000_characters(tmp_path: Path) -> None:
    (tmp_path / "from" / "films").mkdir(parents=True)
    (tmp_path / "from" / "films" / "films.csv").write_text(
        "text,y\n" + "long" * 35_000 + ",pos\nshort,neg\n"
    )
    assert [one.rows for one in place(tmp_path / "from", tmp_path / "to")] == [2]


@pytest.mark.parametrize(
    "kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize("is_name", [True, False])
def test_a_damaged_archive_of_any_compression_is_refused(
    tmp_path: Path, kind: int, is_name: bool
) -> None:
    folder = tmp_path / "from" / "set"
    folder.mkdir(parents=True)
    (folder / "set.csv").write_text("image,y\nü.png,1\n")
    with zipfile.ZipFile(folder / "images.zip", "w", kind) as archive:
        archive.writestr("ü.png", bytes(number * number % 251 for number in range(3_000)))
    content = bytearray((folder / "images.zip").read_bytes())
    at = content.rindex("ü".encode()) if is_name else content.rindex(b"PK\1\2") // 2
    content[at] ^= 0xFF
    (folder / "images.zip").write_bytes(content)
    with pytest.raises(
        DataError, match=r"images\.zip cannot be unpacked: (?!None)[^;]+; get it anew"
    ):
        place(tmp_path / "from", tmp_path / "to")
    assert not (tmp_path / "to" / "set" / "images").exists()
