from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay.datasets.paths import Files, find_files
from torchrelay.datasets.verdicts import Verdicts

Find = Callable[..., tuple[Files, list[str]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """root/ with good.png and sub/good.png, and a secret beside it."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "root-secret").mkdir()
    for place in ("root/good.png", "root/sub/good.png", "secret.png", "root-secret/a.png"):
        (tmp_path / place).write_bytes(place.encode())
    return root


@pytest.fixture
def find(folder: Path) -> Find:
    def find(*cells: str) -> tuple[Files, list[str]]:
        verdicts = Verdicts(len(cells))
        files = find_files(cells, folder, verdicts)
        return files, [str(verdicts.reasons.get(row, "")) for row in range(len(cells))]

    return find


def test_good_paths_are_found_with_size_and_mtime(find: Find, folder: Path) -> None:
    os.utime(folder / "good.png", ns=(1_000_000_007, 1_700_000_000_123_456_789))
    files, reasons = find("good.png", "sub/good.png", "./sub//good.png")
    assert reasons == ["", "", ""]
    root = os.path.realpath(folder)
    assert files.paths == [f"{root}/good.png", f"{root}/sub/good.png", f"{root}/sub/good.png"]
    assert files.sizes.tolist() == [13, 17, 17]
    assert files.mtimes_ns[0] == 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    "cell", ["../secret.png", "sub/../../secret.png", "sub/../good.png", "..", "sub/..", "../root-secret/a.png"]
)
def test_a_path_with_two_dots_is_quarantined(find: Find, cell: str) -> None:
    files, reasons = find(cell)
    assert reasons == [f"a path with .. that may leave data.files: {cell}"]
    assert files.paths == [""]


def test_an_absolute_path_is_quarantined_even_inside_the_root(find: Find, folder: Path) -> None:
    cells = [str(folder / "good.png"), "/etc/passwd", "/good.png"]
    assert find(*cells)[1] == [f"an absolute path, expected one relative to data.files: {cell}" for cell in cells]


@pytest.mark.parametrize("cell", ["http://example.org/a.png", "file:///etc/passwd", "s3://bucket/key/a.png"])
def test_a_url_is_quarantined(find: Find, cell: str) -> None:
    assert find(cell)[1] == [f"a URL: {cell}; name a file by its path relative to data.files"]


def test_a_path_inside_an_archive_is_quarantined(find: Find, folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("sub/a.png", b"x")
    cells = ["a.zip/sub/a.png", "a.zip/a.png", "good.png/x"]
    reason = "a path inside an archive or another file"
    assert find(*cells)[1] == [f"{reason}: {cell}; unpack it first" for cell in cells]


def test_a_symlink_that_ends_outside_the_root_is_quarantined(find: Find, folder: Path) -> None:
    (folder / "out.png").symlink_to("../secret.png")
    (folder / "twice.png").symlink_to("out.png")
    (folder / "out").symlink_to("..")
    (folder / "near").symlink_to("../root-secret")  # its path starts like the root's
    (folder / "deep").symlink_to("/")
    cells = ["out.png", "twice.png", "out/secret.png", "near/a.png", "deep/etc/passwd", "sub/../out.png"]
    reasons = find(*cells)[1]
    assert reasons[:5] == [f"a symlink that leaves data.files: {cell}" for cell in cells[:5]]
    assert reasons[5] != ""


def test_a_symlink_that_stays_inside_is_followed(find: Find, folder: Path) -> None:
    (folder / "in.png").symlink_to("sub/good.png")
    (folder / "again").symlink_to("sub")
    files, reasons = find("in.png", "again/good.png")
    assert reasons == ["", ""]
    assert files.paths == [f"{os.path.realpath(folder)}/sub/good.png"] * 2
    assert files.sizes.tolist() == [17, 17]


def test_a_root_that_is_a_symlink_is_no_way_out(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "link").symlink_to("root")
    verdicts = Verdicts(1)
    assert find_files(["sub/good.png"], tmp_path / "link", verdicts).paths[0].endswith("/root/sub/good.png")
    assert verdicts.good.all()


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("absent.png", "missing file: absent.png"),
        ("absent/good.png", "missing file: absent/good.png"),
        ("Good.png/", "missing file: Good.png/"),
        ("sub", "not a file: sub"),
        ("sub/", "not a file: sub/"),
        (".", "not a file: ."),
        ("empty.png", "file of zero bytes: empty.png"),
        ("", "empty path"),
        ("  ", "empty path:   "),
        ("a\0b.png", r"a path that cannot be opened: a\x00b.png (embedded null byte)"),
        ("a\0b/c.png", r"a path that cannot be opened: a\x00b/c.png (embedded null byte)"),
        ("x" * 300 + ".png", f"a path that cannot be opened: {'x' * 140}…{'x' * 55}.png (File name too long)"),
    ],
)
def test_what_cannot_be_a_file_is_quarantined(find: Find, folder: Path, cell: str, reason: str) -> None:
    (folder / "empty.png").touch()
    assert find(cell)[1] == [reason]


def test_a_symlink_to_itself_is_quarantined(find: Find, folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "loop").symlink_to("loop")
    reasons = find("loop.png", "loop/a.png")[1]
    assert all(reasons)


def test_a_path_of_a_thousand_folders_is_quarantined(find: Find) -> None:
    assert find("a/" * 5_000 + "b.png")[1][0].startswith("missing file: a/a/")


def test_a_pipe_is_not_opened(find: Find, folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert find("pipe.png")[1] == ["not a file: pipe.png"]
