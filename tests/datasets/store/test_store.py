from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchrelay.datasets.store import store as store_module
from torchrelay.datasets.store.shards import open_shard, read_shard, verify_shard
from torchrelay.datasets.store.store import Located, PixelStore
from torchrelay.errors import DataError
from torchrelay.recipe import Feature

from ..conftest import stat_files


def make_store(root: Path, max_pixels: int = 1_000_000, **feature: Any) -> PixelStore:
    return PixelStore(
        root / "store", Feature.model_validate({"kind": "image", **feature}), max_pixels
    )


def picture(seed: int, size: tuple[int, int] = (4, 6)) -> np.ndarray:
    """Colour pixels (H, W, 3) that depend on the seed alone."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    path.write_bytes(buffer.getvalue())
    return str(path)


def ingest(store: PixelStore, paths: Sequence[str], **options: Any) -> Located:
    return store.ingest(stat_files(paths), **options)


def pixels_of(store: PixelStore, located: Located, position: int) -> np.ndarray:
    return open_shard(store.folder, located.shards[located.shard[position]])[
        located.offset[position]
    ]


def shard_folders(store: PixelStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def test_pixels_are_where_the_store_says(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(700)]
    located = ingest(store, [*paths, paths[3]])
    assert (located.shape, located.dtype, located.num_decoded, located.reasons) == (
        (3, 4, 6),
        "uint8",
        700,
        {},
    )
    for position in (0, 3, 255, 256, 699, 700):
        expected = picture(position if position < 700 else 3).transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels_of(store, located, position), expected)
    assert located.offset[700] == located.offset[3]
    assert np.array_equal(np.unique(located.offset), np.arange(700))


def test_content_is_the_start_of_the_sha256(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", picture(0))
    sum_line = subprocess.run(
        ["sha256sum", path], capture_output=True, text=True, check=True
    ).stdout
    assert ingest(make_store(tmp_path), [path]).content[0].decode() == sum_line[:32]


def test_known_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SETTLED_SECONDS", 0)
    store = make_store(tmp_path)
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(5)]
    first = ingest(store, paths)
    found = stat_files(paths)
    for path in paths:
        Path(path).unlink()
    again = make_store(tmp_path).ingest(found)
    assert again.num_decoded == 0
    for name in ("content", "shard", "offset"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert (again.shards, again.shape, again.reasons) == (first.shards, first.shape, {})


def test_a_growing_table_decodes_only_what_is_new(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(6)]
    assert ingest(store, paths[:4]).num_decoded == 4
    grown = ingest(store, paths)
    assert (grown.num_decoded, len(grown.shards)) == (2, 2)
    for position in range(6):
        np.testing.assert_array_equal(
            pixels_of(store, grown, position), picture(position).transpose(2, 0, 1)
        )


def test_a_touched_file_is_read_once_and_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SETTLED_SECONDS", 0)
    store = make_store(tmp_path)
    path = write(tmp_path / "a.png", picture(0))
    first = ingest(store, [path])
    os.utime(path, ns=(1, 1))
    touched = ingest(store, [path])
    assert touched.num_decoded == 0
    assert (touched.shards, touched.offset[0]) == (first.shards, first.offset[0])
    folders = shard_folders(store)
    assert len(folders) == 2
    ingest(store, [path])
    assert shard_folders(store) == folders


def test_a_replaced_file_is_decoded_anew(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    path = write(tmp_path / "a.png", picture(0))
    ingest(store, [path])
    write(Path(path), picture(1))
    os.utime(path, ns=(1, 1))
    replaced = ingest(store, [path])
    assert replaced.num_decoded == 1
    np.testing.assert_array_equal(pixels_of(store, replaced, 0), picture(1).transpose(2, 0, 1))


@pytest.mark.parametrize("settled_seconds", [0, 60])
def test_a_file_replaced_with_the_same_size_and_time_is_decoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled_seconds: int
) -> None:
    monkeypatch.setattr(store_module, "SETTLED_SECONDS", settled_seconds)
    store = make_store(tmp_path)
    path, other = tmp_path / "a.bmp", tmp_path / "b.bmp"
    Image.fromarray(picture(0)).save(path)
    time.sleep(0.02)  # its file system counts time in steps
    ingest(store, [str(path)])
    before = path.stat()
    Image.fromarray(picture(1)).save(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    replaced = ingest(store, [str(path)])
    assert replaced.num_decoded == 1
    np.testing.assert_array_equal(pixels_of(store, replaced, 0), picture(1).transpose(2, 0, 1))
    path.write_bytes(path.read_bytes()[::-1])  # in place, the inode stays
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ingest(store, [str(path)]).reasons[0].kind == "not a readable image"


def test_a_file_that_has_just_changed_is_read_again_and_not_decoded(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    path = write(tmp_path / "a.png", picture(0))
    found = stat_files([path])
    assert store.ingest(found).num_decoded == 1
    folders = shard_folders(store)
    again = store.ingest(found)  # as if it had not changed
    assert (again.num_decoded, shard_folders(store)) == (0, folders)
    write(Path(path), picture(1))  # another picture under the stamp that was seen
    changed = store.ingest(found)
    assert changed.num_decoded == 1
    np.testing.assert_array_equal(pixels_of(store, changed, 0), picture(1).transpose(2, 0, 1))


def test_a_recheck_finds_what_no_stamp_shows_and_does_not_believe_that_stamp_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SETTLED_SECONDS", 0)
    monkeypatch.setattr(store_module, "stamp_of", lambda status: "always the same")
    store = make_store(tmp_path)
    path = write(tmp_path / "a.png", picture(0))
    time.sleep(0.02)

    def ingest_again(*, recheck: bool = False) -> Located:
        return store.ingest(
            stat_files([path])._replace(stamps=["always the same"]), recheck=recheck
        )

    ingest_again()
    write(Path(path), picture(1))
    time.sleep(0.02)
    assert ingest_again().num_decoded == 0  # which no stamp can find
    assert ingest_again(recheck=True).num_decoded == 1
    folders = shard_folders(store)
    for seed in (1, 0):
        write(Path(path), picture(seed))
        located = ingest_again()
        np.testing.assert_array_equal(
            pixels_of(store, located, 0), picture(seed).transpose(2, 0, 1)
        )
    assert ingest_again(recheck=True).num_decoded == 0
    assert len(shard_folders(store)) == len(folders)


def test_a_file_that_is_written_while_it_is_read_is_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.png", picture(0))
    read = os.read

    def read_and_write(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        if data.startswith(b"\x89PNG"):
            Path(path).write_bytes(data + b"more")
        return data

    monkeypatch.setattr(store_module.os, "read", read_and_write)
    reason = ingest(make_store(tmp_path, size=[4, 6]), [path]).reasons[0]
    assert str(reason) == "a file that changes while it is read; ingest again when it is written"


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    paths = [write(tmp_path / f"{number}.png", picture(number % 3)) for number in range(600)]
    located = ingest(store, paths)
    assert sum(len(open_shard(store.folder, shard)) for shard in located.shards) == 3
    np.testing.assert_array_equal(pixels_of(store, located, 598), picture(1).transpose(2, 0, 1))


def test_bad_images_have_reasons_and_are_remembered(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    good = write(tmp_path / "good.png", picture(0))
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    paths = [
        str(tmp_path / "text.jpg"),
        good,
        str(tmp_path / "empty.png"),
        str(tmp_path / "missing.png"),
    ]
    located = ingest(store, paths)
    assert list(located.shard) == [-1, 0, -1, -1]
    assert list(located.offset) == [-1, 0, -1, -1]
    assert located.content[3] == b""
    assert str(located.reasons[0]) == "a text file; save it as PNG, JPEG or TIFF"
    assert str(located.reasons[2]) == "zero bytes"
    assert str(located.reasons[3]) == "a file that cannot be read (No such file or directory)"
    assert located.num_decoded == 1
    folders = shard_folders(store)
    again = ingest(store, paths)
    assert (again.reasons, again.num_decoded, shard_folders(store)) == (located.reasons, 0, folders)


def test_the_verdict_on_a_bomb_changes_with_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", picture(0))
    assert ingest(make_store(tmp_path, max_pixels=71), [path]).reasons[0].kind == "an image bomb"
    assert ingest(make_store(tmp_path, max_pixels=72), [path]).reasons == {}


def test_the_first_image_sets_the_size(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    paths = [
        str(tmp_path / "text.png"),
        write(tmp_path / "a.png", picture(0)),
        write(tmp_path / "b.png", picture(1, (5, 5))),
        write(tmp_path / "c.png", picture(2)),
    ]
    for _ in range(2):
        located = ingest(store, paths)
        assert located.shape == (3, 4, 6)
        assert str(located.reasons[2]).startswith(
            "wrong size: 5x5 (height x width), the first image has 4x6"
        )
        assert sorted(located.reasons) == [0, 2]
    other = ingest(store, paths[:1:-1] + paths[2:3])  # c, b, b again: a table of its own size
    assert other.shape == (3, 4, 6)
    small = ingest(store, [paths[2], paths[1]])
    assert small.shape == (3, 5, 5)
    assert list(small.reasons) == [1]
    np.testing.assert_array_equal(pixels_of(store, small, 0), picture(1, (5, 5)).transpose(2, 0, 1))
    assert ingest(store, paths).shape == (3, 4, 6)
    assert ingest(store, [paths[2], paths[1]]).num_decoded == 0


def test_a_size_brings_all_images_to_it(tmp_path: Path) -> None:
    store = make_store(tmp_path, size=[8, 8])
    paths = [write(tmp_path / "a.png", picture(0)), write(tmp_path / "b.png", picture(1, (5, 5)))]
    located = ingest(store, paths)
    assert (located.shape, located.reasons) == ((3, 8, 8), {})


def test_specifications_do_not_share_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", picture(0))
    features: list[dict[str, Any]] = [
        {},
        {"channels": "gray"},
        {"size": [4, 6]},
        {"dtype": "uint16"},
        {"preprocess": [{"name": "util.invert"}]},
    ]
    folders = {make_store(tmp_path, **feature).folder for feature in features}
    assert len(folders) == 5
    assert make_store(tmp_path).folder == make_store(tmp_path, columns="other").folder
    wide = make_store(tmp_path, dtype="uint16")
    located = ingest(wide, [path])
    np.testing.assert_array_equal(
        pixels_of(wide, located, 0),
        picture(0).transpose(2, 0, 1).astype(np.uint16) * np.uint16(257),
    )


def test_shards_are_cut_and_all_pixels_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHARD_BYTES", 72 * 10)
    monkeypatch.setattr(store_module, "BATCH_FILES", 4)
    store = make_store(tmp_path)
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(50)]
    counts: list[tuple[int, int]] = []
    located = ingest(store, paths, on_progress=lambda done, total: counts.append((done, total)))
    assert len(located.shards) == 5
    for position in range(50):
        np.testing.assert_array_equal(
            pixels_of(store, located, position), picture(position).transpose(2, 0, 1)
        )
    assert counts[-1] == (50, 50)
    assert counts == sorted(counts)


def test_a_killed_ingest_goes_on_with_the_complete_shards(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(120)]
    script = """
import sys, time
from pathlib import Path
import numpy as np
from torchrelay.datasets.store import store
from torchrelay.datasets.files import find_files
from torchrelay.datasets.verdicts import Verdicts
from torchrelay.recipe import Feature
store.SHARD_BYTES, store.BATCH_FILES = 72 * 10, 4
names = [Path(path).name for path in sys.argv[2:]]
def report(done, total):
    print(done, flush=True)
    time.sleep(0.05)
store.PixelStore(Path(sys.argv[1]) / "store", Feature(kind="image"), 1000).ingest(
    find_files(names, Path(sys.argv[1]), Verdicts(len(names))), report)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), *paths], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 60:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    store = make_store(tmp_path)
    located = ingest(store, paths)
    assert 0 < located.num_decoded <= 120 - 40
    for position in range(120):
        np.testing.assert_array_equal(
            pixels_of(store, located, position), picture(position).transpose(2, 0, 1)
        )


def test_what_a_killed_ingest_left_is_removed_after_a_day(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    path = write(tmp_path / "a.png", picture(0))
    old, new = store.folder / ".old.npy.tmp", store.folder / ".new.npy.tmp"
    store.folder.mkdir(parents=True)
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    ingest(store, [path])
    assert (old.exists(), new.exists()) == (False, True)


def test_an_error_on_the_way_leaves_nothing_half_written(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(5)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(store, paths, on_progress=stop)
    assert list(store.folder.iterdir()) == []
    assert ingest(store, paths).num_decoded == 5


def test_two_ingests_at_once_do_not_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHARD_BYTES", 72 * 20)
    monkeypatch.setattr(store_module, "BATCH_FILES", 8)
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(100)]
    results: list[Located] = []
    threads = [
        threading.Thread(
            target=lambda part=part: results.append(ingest(make_store(tmp_path), part))
        )
        for part in (paths[:80], paths[20:], paths)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    store = make_store(tmp_path)
    located = ingest(store, paths)
    assert (located.num_decoded, located.reasons) == (0, {})
    for position in range(100):
        np.testing.assert_array_equal(
            pixels_of(store, located, position), picture(position).transpose(2, 0, 1)
        )


def test_a_shard_that_is_gone_is_decoded_again(tmp_path: Path) -> None:
    import shutil

    store = make_store(tmp_path)
    path = write(tmp_path / "a.png", picture(0))
    [shard] = ingest(store, [path]).shards
    os.utime(path, ns=(1, 1))
    ingest(store, [path])  # remembered in a second folder, which points to the first
    shutil.rmtree(store.folder / shard)
    located = ingest(store, [path])
    assert located.num_decoded == 1
    np.testing.assert_array_equal(pixels_of(store, located, 0), picture(0).transpose(2, 0, 1))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda shard: tear(shard / "pixels.npy"), "pixels.npy has 487 bytes, expected 488"),
        (lambda shard: tear(shard / "index.arrow"), r"index.arrow has [\d,]+ bytes, expected"),
        (lambda shard: flip(shard / "index.arrow", 300), "index.arrow does not have the sha256"),
        (lambda shard: (shard / "pixels.npy").unlink(), "No such file"),
        (lambda shard: (shard / "manifest.json").write_text("{"), "Expecting"),
    ],
    ids=["torn pixels", "torn index", "flipped index", "lost pixels", "torn manifest"],
)
def test_a_damaged_shard_is_set_aside_and_decoded_again(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    store = make_store(tmp_path)
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(5)]
    [shard] = ingest(store, paths).shards
    damage(store.folder / shard)
    with pytest.warns(UserWarning, match=rf"{reason}.*set aside as bad-{shard}"):
        located = ingest(make_store(tmp_path), paths)
    assert located.num_decoded == 5
    assert (store.folder / f"bad-{shard}").is_dir()
    np.testing.assert_array_equal(pixels_of(store, located, 4), picture(4).transpose(2, 0, 1))
    assert ingest(make_store(tmp_path), paths).num_decoded == 0


@pytest.mark.parametrize("at", [20, 130, -1])
def test_every_bit_of_the_pixels_is_verified(tmp_path: Path, at: int) -> None:
    store = make_store(tmp_path)
    [shard] = ingest(
        store, [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(5)]
    ).shards
    verify_shard(store.folder / shard)
    flip(store.folder / shard / "pixels.npy", at)
    with pytest.raises(
        DataError, match=rf"shard .*{shard} does not verify \(pixels.npy does not have the sha256"
    ):
        verify_shard(store.folder / shard)


def test_pixels_that_do_not_fit_are_refused_before_a_file_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", picture(0))
    store = make_store(tmp_path, size=[16_384, 16_384], channels="1024", dtype="float32")
    with pytest.raises(
        DataError, match=r"pixels cannot be written to .*about 1,099,512,627,776 bytes are needed"
    ):
        ingest(store, [path])
    assert not store.folder.exists()


def test_nothing_to_locate_is_legal(tmp_path: Path) -> None:
    located = ingest(make_store(tmp_path), [])
    assert (len(located.content), located.shards, located.shape) == (0, [], (3, 0, 0))


def test_a_shard_that_cannot_be_read_now_stays_where_it_is(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    ingest(store, [write(tmp_path / "0.png", picture(0))])
    [shard] = shard_folders(store)
    with (
        no_more_files(),
        pytest.raises(
            DataError, match=r"manifest.json cannot be read: Too many open files; .*stays"
        ),
    ):
        read_shard(store.folder / shard)
    with (
        no_more_files(),
        pytest.raises(
            DataError, match=r"manifest.json cannot be read: Too many open files; .*stays"
        ),
    ):
        verify_shard(store.folder / shard)
    assert shard_folders(store) == [shard]


@contextmanager
def no_more_files() -> Iterator[None]:
    """This process may open no file more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_flipped_bit_of_known_pixels_is_noticed_and_they_are_decoded_anew(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    paths = [write(tmp_path / f"{seed}.png", picture(seed)) for seed in range(6)]
    [shard] = ingest(store, paths).shards
    pixels = store.folder / shard / "pixels.npy"
    content = bytearray(pixels.read_bytes())
    content[-3] ^= 16
    pixels.write_bytes(content)
    with pytest.warns(
        UserWarning,
        match=rf"shard .*{shard} does not verify \(pixels.npy .*set aside as bad-{shard}",
    ):
        again = ingest(make_store(tmp_path), paths)
    assert again.num_decoded == 6
    for position in range(6):
        np.testing.assert_array_equal(
            pixels_of(store, again, position), picture(position).transpose(2, 0, 1)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ingest(make_store(tmp_path), paths).num_decoded == 0
