"""Files: a kill or an exception leaves the old or the new, never a half; one writer holds a
lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay.disk.atomic import (
    commit_folder,
    make_folder,
    remove_folder,
    remove_leftovers,
    set_aside,
    write_atomic,
    write_json,
)
from torchrelay.disk.digest import digest, sha256_file
from torchrelay.disk.lock import is_locked, lock, share_lock
from torchrelay.disk.reading import open_file, read_json
from torchrelay.disk.space import require_space
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.errors import BusyError, LockError
from torchrelay.runs import Run
from torchrelay.schema import Schema
from torchrelay.tracking.shipping import Aside
from torchrelay.tracking.shipping import set_aside as note_aside


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# write_atomic


def test_writing_replaces_the_whole_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "a long first text")
    write_atomic(path, b"\x00short")
    assert path.read_bytes() == b"\x00short"
    assert names(path.parent) == ["a.txt"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_writer_that_is_killed_never_leaves_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    code = (
        "from pathlib import Path\nfrom torchrelay.disk.atomic import write_atomic\n"
        f"path = Path({str(path)!r})\nnumber = 0\n"
        "while True:\n    write_atomic(path, str(number % 10) * 200_000)\n    number += 1\n"
        "    print(flush=True) if number == 5 else None\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path)
    assert writer.stdout is not None
    writer.stdout.readline()
    for _ in range(200):
        text = path.read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    text = path.read_text()
    assert len(text) == 200_000
    assert len(set(text)) == 1


def fail_fsync_of(monkeypatch: pytest.MonkeyPatch, path: Path, error: int) -> None:
    """Let an fsync of one path fail."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            raise OSError(error, os.strerror(error))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_folder_that_cannot_be_made_durable_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_fsync_of(monkeypatch, tmp_path, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(tmp_path / "a.txt", "new")
    with (
        pytest.raises(OSError, match="Input/output error"),
        commit_folder(tmp_path / "final") as folder,
    ):
        (folder / "a").write_text("a")
    assert names(tmp_path) == ["a.txt", "final"]


def test_a_file_system_that_has_no_fsync_of_folders_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_fsync_of(monkeypatch, tmp_path, errno.EINVAL)
    write_atomic(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


# commit_folder


def test_a_commit_whose_fsync_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(OSError, match="Input/output error"),
        commit_folder(tmp_path / "final") as folder,
    ):
        (folder / "a").write_text("a")
        fail_fsync_of(monkeypatch, folder / "a", errno.EIO)
    assert names(tmp_path) == []


def test_a_committed_folder_appears_as_a_whole(tmp_path: Path) -> None:
    final = tmp_path / "parent" / "final"
    with commit_folder(final) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("a")
        assert not final.exists()
    assert (final / "inner" / "a").read_text() == "a"
    assert names(final.parent) == ["final"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_while_filling_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), commit_folder(tmp_path / "final") as folder:
        (folder / "a").write_text("a")
        raise error
    assert names(tmp_path) == []


def test_of_two_committers_the_first_stays_and_the_second_is_dropped(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with commit_folder(final) as slow:
        (slow / "a").write_text("slow")
        with commit_folder(final) as quick:
            (quick / "a").write_text("quick")
    assert (final / "a").read_text() == "quick"
    assert names(tmp_path) == ["final"]


def test_a_file_in_the_place_of_the_folder_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "final").write_text("a file")
    with (
        pytest.raises(OSError, match="Not a directory"),
        commit_folder(tmp_path / "final") as folder,
    ):
        (folder / "a").write_text("a")
    assert (tmp_path / "final").read_text() == "a file"
    assert names(tmp_path) == ["final"]


# Removing, setting aside, space


def test_a_folder_is_removed_and_a_bad_one_set_aside_beside_those_before_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    remove_folder(tmp_path / "a")
    assert names(tmp_path) == []
    for expected in ("bad-a", "bad-a-2", "bad-a-3"):
        (tmp_path / "a").write_text(expected)
        assert set_aside(tmp_path / "a") == tmp_path / expected
    assert (tmp_path / "bad-a-2").read_text() == "bad-a-2"


def test_leftovers_of_every_writer_here_are_removed(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom torchrelay.disk import atomic as files\n"
        "path = Path(sys.argv[1]) / 'a'\n"
        "files.os.fsync = lambda descriptor: os.kill(os.getpid(), 9)\n"
        "if sys.argv[2] == 'file': files.write_atomic(path, 'new')\n"
        "with files.commit_folder(path) as folder: (folder / 'b').touch()\n"
    )
    for kind in ("file", "folder"):
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path), kind], check=False)
        assert done.returncode == -signal.SIGKILL
    (tmp_path / "kept").touch()
    assert len(names(tmp_path)) == 3
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["kept"]


def test_too_little_space_is_said_with_both_numbers(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(
        OSError, match=r"about 1,000,000,000,000,000 bytes are needed and [\d,]+ are free"
    ) as caught:
        require_space(tmp_path / "not" / "there", 10**15)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))


# Hashing and JSON


def test_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # The example of FIPS 180-2, appendix B.1.
    assert (
        sha256_file(tmp_path / "a")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert (
        digest("a", {"b": 1, "a": [2]}) == hashlib.sha256(b'["a",{"a":[2],"b":1}]').hexdigest()[:32]
    )


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert (
        len(
            {
                digest("ab"),
                digest("a", "b"),
                digest(["a", "b"]),
                digest("b", "a"),
                digest(1),
                digest("1"),
            }
        )
        == 6
    )


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None], "ü": "é"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "ü" in (tmp_path / "a.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("kind", "message"),
    [("pipe", "pipe or a device"), ("device", "pipe or a device"), ("folder", "Is a directory")],
)
def test_what_may_give_bytes_for_ever_or_never_is_refused_at_once(
    tmp_path: Path, kind: str, message: str
) -> None:
    path = tmp_path / "file"
    make = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": Path.mkdir,
    }
    make[kind](path)
    signal.alarm(
        5
    )  # of the default action, which kills: a pipe that is waited for gives nothing to assert
    for read in (open_file, read_json, sha256_file):
        with pytest.raises(OSError, match=message):
            read(path)
    assert is_locked(path)
    signal.alarm(0)


# lock


def hold(path: Path, what: str) -> subprocess.Popen[str]:
    """Another process that holds the lock until its standard input closes; returns once it holds
    it.
    """
    code = (
        "import sys\nfrom pathlib import Path\nfrom torchrelay.disk.lock import lock\n"
        f"with lock(Path({str(path)!r}), {what!r}):\n    print('held', flush=True)\n    "
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=path.parent,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_pid_and_host_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        hold(path, "run a") as holder,
        pytest.raises(
            BusyError,
            match=rf"run a is being written by pid {holder.pid} on {socket.gethostname()}",
        ),
        lock(path, "run a"),
    ):
        pytest.fail("both held the lock")


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path, "run a") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock(path, "run a"):
        assert path.read_text() == f"pid {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize("hold", [lambda path: lock(path, "run a"), share_lock])
def test_a_lock_whose_file_cannot_be_opened_says_which_and_what_to_do(tmp_path: Path, hold) -> None:
    path = tmp_path / "lock"
    path.mkdir()
    with (
        pytest.raises(LockError, match=f"{path} cannot be written, .*Is a directory; look at"),
        hold(path),
    ):
        pytest.fail("nobody can hold it")


def test_a_lock_whose_file_cannot_be_written_says_which() -> None:
    path = Path("/dev/full")
    if not path.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(LockError, match=r"/dev/full cannot be written"), lock(path, "run a"):
        pytest.fail("nobody can hold it")


def test_a_lock_is_free_after_its_block_and_after_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    with pytest.raises(ValueError, match="inside"), lock(path, "run a"):
        raise ValueError("inside")
    with lock(path, "run a"):
        pass


@pytest.mark.parametrize("kind", ["lock", "share_lock"])
def test_a_lock_dies_with_its_process_though_a_forked_child_lives(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "lock"
    hold = "lock(path, 'run a')" if kind == "lock" else "share_lock(path)"
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom torchrelay.disk.lock import lock, "
        "share_lock\n"
        f"path = Path({str(path)!r})\nwith {hold}:\n    child = os.fork()\n"
        "    if not child: print(os.getpid(), flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(BusyError), lock(path, "run a"):
            pytest.fail("both held the lock")
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # it lives
        assert not is_locked(path)
        with lock(path, "run a"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_a_child_that_ends_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    with lock(tmp_path / "lock", "run a"):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert is_locked(tmp_path / "lock")


def test_a_lock_that_is_held_for_an_instant_as_by_who_only_looks_is_waited_for(
    tmp_path: Path,
) -> None:
    path, held = tmp_path / "lock", threading.Event()

    def look() -> None:
        with share_lock(path):
            held.set()
            time.sleep(0.05)

    looker = threading.Thread(target=look)
    looker.start()
    assert held.wait(10)
    with lock(path, "run a"):
        pass
    looker.join()


# Rights


def make_lock(home: Path) -> None:
    with lock(home / "runs" / "a" / "lock", "run a"):
        pass


def make_pack(home: Path) -> None:
    with commit_folder(home / "packs" / "p") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "x.npy").write_bytes(b"x")


def make_checkpoint(home: Path) -> None:
    store = CheckpointStore(home / "runs" / "a" / "checkpoints", keep=1, facts={}, fingerprint={})
    assert store.save({"recipe": "all of it"}, 1, is_best=True) is not None


def make_note(home: Path) -> None:
    make_folder(home)
    note_aside(Run(home), [Aside(1, "tags", (), "refused")])


def make_schema(home: Path) -> None:
    Schema(inputs=[], targets=[]).save(home / "schema.json")


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("make", [make_lock, make_pack, make_checkpoint, make_note, make_schema])
def test_a_home_is_its_owners_alone_whatever_makes_it_and_one_that_is_there_keeps_its_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], is_new: bool
) -> None:
    home = tmp_path / "open" / "home"
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    monkeypatch.setenv("TORCHRELAY_HOME", str(home))
    if not is_new:
        home.mkdir(0o755)
    make(home)
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in (home, *home.rglob("*"))}
    assert modes <= ({(True, 0o700), (False, 0o600)} if is_new else {(True, 0o755), (False, 0o644)})
