from __future__ import annotations

import os
import time
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay.datasets.files.paths import Files, common_folders, find_files, stamp_of
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


def test_good_paths_are_found_with_size_and_stamp(find: Find, folder: Path) -> None:
    files, reasons = find("good.png", "sub/good.png", "./sub//good.png")
    assert reasons == ["", "", ""]
    root = os.path.realpath(folder)
    assert files.paths == [f"{root}/good.png", f"{root}/sub/good.png", f"{root}/sub/good.png"]
    assert files.sizes.tolist() == [13, 17, 17]
    assert files.stamps == [stamp_of(Path(path).stat()) for path in files.paths]
    assert files.notes == []


def test_a_stamp_changes_with_time_size_and_inode(folder: Path) -> None:
    path, other = folder / "good.png", folder / "other.png"
    stamps = [stamp_of(path.stat())]
    time.sleep(0.02)  # the clock of a file system has steps
    os.utime(path, ns=(1, path.stat().st_mtime_ns))  # the time of change alone
    stamps.append(stamp_of(path.stat()))
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(1, path.stat().st_mtime_ns))
    other.replace(path)
    stamps.append(stamp_of(path.stat()))
    assert len(set(stamps)) == 3


@pytest.mark.parametrize(
    "cell",
    [
        "../secret.png",
        "sub/../../secret.png",
        "sub/../good.png",
        "..",
        "sub/..",
        "../root-secret/a.png",
    ],
)
def test_a_path_with_two_dots_is_quarantined(find: Find, cell: str) -> None:
    files, reasons = find(cell)
    assert reasons == [f"a path with .. that may leave data.files: {cell}"]
    assert files.paths == [""]


def test_an_absolute_path_is_quarantined_even_inside_the_root(find: Find, folder: Path) -> None:
    cells = [str(folder / "good.png"), "/etc/passwd", "/good.png"]
    assert find(*cells)[1] == [
        f"an absolute path, expected one relative to data.files: {cell}" for cell in cells
    ]


@pytest.mark.parametrize(
    "cell", ["http://example.org/a.png", "file:///etc/passwd", "s3://bucket/key/a.png"]
)
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
    cells = [
        "out.png",
        "twice.png",
        "out/secret.png",
        "near/a.png",
        "deep/etc/passwd",
        "sub/../out.png",
    ]
    reasons = find(*cells)[1]
    assert [reason.partition(",")[0] for reason in reasons[:5]] == [
        f"a symlink that leaves data.files: {cell}" for cell in cells[:5]
    ]
    assert reasons[0].endswith(
        f"it leads to {folder.parent}/secret.png; name the folder that it leads to: `data.links: "
        f"[{folder.parent}]`"
    )
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
    assert (
        find_files(["sub/good.png"], tmp_path / "link", verdicts)
        .paths[0]
        .endswith("/root/sub/good.png")
    )
    assert verdicts.good.all()


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("absent.png", "missing file: absent.png"),
        ("absent/good.png", "missing file: absent/good.png"),
        ("Good.png/", "missing file: Good.png/, nearest there is 'good.png'"),
        ("sub", "not a file: sub"),
        ("sub/", "not a file: sub/"),
        (".", "not a file: ."),
        ("empty.png", "file of zero bytes: empty.png"),
        ("", "empty path"),
        ("  ", "empty path:   "),
        ("a\0b.png", r"a path that cannot be opened: a\x00b.png (embedded null byte)"),
        ("a\0b/c.png", r"a path that cannot be opened: a\x00b/c.png (embedded null byte)"),
        (
            "x" * 300 + ".png",
            f"a path that cannot be opened: {'x' * 140}…{'x' * 55}.png (File name too long)",
        ),
    ],
)
def test_what_cannot_be_a_file_is_quarantined(
    find: Find, folder: Path, cell: str, reason: str
) -> None:
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


NFC, NFD = (unicodedata.normalize(form, "Käfer é") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("there", "cell"), [(NFC, NFD), (NFD, NFC)])
def test_a_name_in_another_unicode_form_is_found_and_said(
    find: Find, folder: Path, there: str, cell: str
) -> None:
    (folder / there).mkdir()
    (folder / there / f"{there}.png").write_bytes(b"x")
    files, reasons = find(f"{cell}/{cell}.png", f"{there}/{there}.png", f"{there}/{cell}.png")
    assert reasons == ["", "", ""]
    assert set(files.paths) == {f"{os.path.realpath(folder)}/{there}/{there}.png"}
    [note] = files.notes
    assert note.startswith(
        "2 cells name their files in another spelling (another Unicode form), for example"
    )


def test_a_name_that_is_there_in_both_unicode_forms_is_not_guessed(
    find: Find, folder: Path
) -> None:
    mixed = "é" + unicodedata.normalize("NFD", "é")
    for form in ("NFC", "NFD"):
        (folder / unicodedata.normalize(form, mixed)).write_bytes(b"x")
    files, reasons = find(mixed, unicodedata.normalize("NFC", mixed))
    assert reasons[0].startswith(f"missing file: {mixed}, nearest there is ")
    assert reasons[1] == ""
    assert files.notes == []


@pytest.mark.parametrize(
    ("cell", "how"),
    [
        ("sub\\good.png", r"\ for /"),
        (".\\sub\\good.png", r"\ for /"),
        ("sub/good.png  ", "spaces or quotes around it"),
        ("'sub/good.png'", "spaces or quotes around it"),
        ("“sub\\good.png” ", r"spaces or quotes around it, \ for /"),
        ("sub/go%6Fd.png", "%20 and the like"),
        ("file://sub/good.png", "file:// before it"),
    ],
)
def test_a_cell_in_another_spelling_is_read_and_said_once(find: Find, cell: str, how: str) -> None:
    files, reasons = find(cell, "sub/good.png", cell)
    assert reasons == ["", "", ""]
    assert len(set(files.paths)) == 1
    said = "2 cells name their files in another spelling"
    assert files.notes == [f"{said} ({how}), for example {cell!r}; that file is taken"]


def test_a_name_with_a_backslash_or_a_space_that_is_there_is_taken_as_it_is(
    find: Find, folder: Path
) -> None:
    for name in ("sub\\good.png", " a%20b.png"):
        (folder / name).write_bytes(b"x")
    files, reasons = find("sub\\good.png", " a%20b.png")
    assert (reasons, files.notes) == (["", ""], [])
    assert files.paths[0] == os.path.realpath(folder) + "/sub\\good.png"


@pytest.mark.parametrize(
    "cell", ["C:\\data\\a.png", "c:/data/a.png", "\\\\server\\share\\a.png", '"D:\\a.png"']
)
def test_an_absolute_path_of_windows_is_called_so(find: Find, cell: str) -> None:
    assert find(cell)[1] == [
        f"an absolute path of Windows, expected one relative to data.files: {cell}"
    ]


@pytest.mark.parametrize(
    ("cell", "near"),
    [
        ("GOOD.PNG", "'good.png'"),
        ("Sub/good.png", "'sub'"),
        ("SUB\\good.png", "'sub'"),
        ("good.jpeg", "'good.png'"),
        ("sub/goood.png", "'sub/good.png'"),
        ("Both.png", "'BOTH.png', 'both.png'"),
    ],
)
def test_a_name_of_another_case_is_not_taken_and_the_nearest_is_said(
    find: Find, folder: Path, cell: str, near: str
) -> None:
    for name in ("both.png", "BOTH.png"):
        (folder / name).write_bytes(b"x")
    assert find(cell)[1] == [f"missing file: {cell}, nearest there is {near}"]


@pytest.mark.parametrize(
    "cell",
    ["..\\secret.png", "%2e%2e/secret.png", "sub%2F..%2F..%2Fsecret.png", "' ../secret.png'"],
)
def test_no_other_spelling_leaves_the_root(find: Find, cell: str) -> None:
    files, reasons = find(cell)
    assert files.paths == [""]
    assert reasons == [f"a path with .. that may leave data.files: {cell}"]


def test_a_broken_link_names_what_is_missing_and_the_command_that_brings_it(
    find: Find, folder: Path
) -> None:
    (folder / "annex.png").symlink_to("../.git/annex/objects/a/b")
    (folder / "gone.png").symlink_to("nothing.png")
    reasons = find("annex.png", "gone.png")[1]
    assert reasons[0].startswith("a broken link: annex.png, nothing is at ")
    assert reasons[0].endswith("; git annex get")
    assert "a broken link: gone.png" in reasons[1]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [(".a.png.icloud", "iCloud"), ("a.png.dvc", "dvc pull"), ("a.png.crdownload", "finish")],
)
def test_what_lies_in_the_place_of_a_file_is_named(
    find: Find, folder: Path, name: str, remedy: str
) -> None:
    (folder / name).write_bytes(b"x")
    [reason] = find("a.png")[1]
    assert reason.startswith(f"missing file: a.png, in its place is {name!r}; ")
    assert remedy in reason


def test_links_into_a_folder_that_is_named_are_followed_and_no_others(
    folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    (cache / "deep").mkdir(parents=True)
    (cache / "deep" / "blob").write_bytes(b"x")
    (cache / "zero").symlink_to("/dev/zero")
    (folder / "a.png").symlink_to("../cache/deep/blob")
    (folder / "b.png").symlink_to(folder / "a.png")
    (folder / "c").symlink_to(cache / "deep", target_is_directory=True)
    (folder / "d.png").symlink_to("../cache/zero")
    (folder / "e.png").symlink_to("../secret.png")
    (folder / "hard.png").hardlink_to(cache / "deep" / "blob")
    verdicts = Verdicts(6)
    cells = ["a.png", "b.png", "c/blob", "hard.png", "d.png", "e.png"]
    files = find_files(cells, folder, verdicts, [str(cache)])
    assert files.paths[:4] == [f"{cache}/deep/blob"] * 3 + [f"{folder}/hard.png"]
    assert [reason.kind for reason in verdicts.reasons.values()] == [
        "a symlink that leaves data.files"
    ] * 2
    assert files.links == ["/dev", str(tmp_path)]


def test_a_folder_for_links_is_proposed_unless_it_is_half_the_disk() -> None:
    assert common_folders(["/srv/cache/files/md5/ab", "/srv/cache/files/md5/cd"]) == [
        "/srv/cache/files/md5"
    ]
    assert (
        common_folders(["/srv/a", "/mnt/b"])
        == common_folders([str(Path.home())])
        == common_folders([])
        == []
    )
