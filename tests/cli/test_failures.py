"""Paths, homes and disks that cannot be used end a command with one line and exit code 2, and
hide nothing else.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from torchrelay import settings
from torchrelay.cli import exit_code_of, explain
from torchrelay.datasets.table import locate_output, locate_table, write_output
from torchrelay.errors import DataError, SourceError, TrackingError
from torchrelay.recipe import Data
from torchrelay.runs import RunRecord, load_record, now, save_record
from torchrelay.schema import Schema
from torchrelay.settings import Home

from ..conftest import RunCommand

DEEP = "[" * 100_000


@pytest.fixture
def good() -> Path:
    """A home with one good run."""
    record = RunRecord(
        run_id="good", name="x", experiment="x", created=now(), status="FINISHED", ended=now()
    )
    return save_record(settings.home(), record)


def write_bad(name: str, text: str) -> Path:
    run_dir = settings.home().runs / name
    run_dir.mkdir(parents=True)
    (run_dir / "run.json").write_text(text)
    return run_dir


def changed(**fields: Any) -> str:
    values = RunRecord(run_id="bad", name="x", experiment="x", created=now()).model_dump()
    return json.dumps({**values, **fields})


BAD_RECORDS = {
    "deep": DEEP,
    "deep objects": '{"a":' * 100_000,
    "list": "[]",
    "null": "null",
    "number": "1e400",
    "empty": "",
    "zeros": "\0" * 400,
    "yesterday": changed(created="yesterday"),
    "no zone": changed(created="2026-01-01T00:00:00"),
    "ended": changed(status="FINISHED", ended="soon"),
    "digits": changed(epochs=0).replace('"epochs": 0', '"epochs": ' + "9" * 5000),
    "types": changed(metrics=[1], done="train", splits={"a": 1}, steps="many"),
    "nul": changed(pack_dir="a\0b"),
    "id of another type": changed(run_id=["bad"]),
    "version": changed(format_version=True),
}


@pytest.mark.parametrize("text", BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_one_record_that_cannot_be_read_is_named_and_hides_no_good_run(
    run: RunCommand, good: Path, text: str
) -> None:
    bad = write_bad("bad", text)
    code, out, err = run("runs")
    assert (code, "good" in out, "bad" in out) == (0, True, False)
    assert str(bad / "run.json") in err
    listed = json.loads(run("runs", "--json")[1])
    assert ([one["run_id"] for one in listed["runs"]], list(listed["problems"])) == (
        ["good"],
        ["bad"],
    )
    assert run("show", "good")[0] == 0
    code, _, err = run("show", "bad")
    assert (code, err.count("\n")) == (2, 1)
    assert len(err) < 1000


@pytest.mark.parametrize("name", ["rows_per_second", "steps", "experiment"])
@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e999", "-7", str(10**400), '"\\u001b[31m"', '"\\ud800"']
)
def test_numbers_and_texts_of_any_kind_in_a_record_end_no_command(
    run: RunCommand, name: str, value: str
) -> None:
    record = RunRecord(run_id="odd", name="x", experiment="x", created=now()).model_dump()
    write_bad("odd", json.dumps({**record, name: "HERE"}).replace('"HERE"', value))
    code, out, err = run("runs")
    assert code == 0
    assert "odd" in out + err
    assert "\x1b" not in out + err
    assert json.loads(run("runs", "--json")[1])
    assert run("show", "odd")[0] in (0, 2)


def test_runs_that_are_each_others_parents_are_listed(run: RunCommand) -> None:
    for name, parent in (("a", "b"), ("b", "a"), ("c", "c")):
        record = RunRecord(
            run_id=name, name="x", experiment="x", created=now(), parent=parent, kind="splits"
        )
        save_record(settings.home(), record.model_copy(update={"splits": {"s": "x"}}))
    code, out, _ = run("runs")
    assert (code, sorted(line.split()[0] for line in out.splitlines()[1:])) == (0, ["a", "b", "c"])
    assert run("show", "a")[0] == 0


def test_a_journal_that_is_a_folder_is_named_and_hides_no_good_run(
    run: RunCommand, good: Path
) -> None:
    other = save_record(
        settings.home(), RunRecord(run_id="other", name="x", experiment="x", created=now())
    )
    (other / "journal.jsonl").mkdir()
    for command in (("runs",), ("show", "other")):
        code, out, err = run(*command)
        assert (code, "other" in out) == (0, True)
        assert f"journal {other / 'journal.jsonl'} cannot be read: Is a directory" in err
    assert "good" in run("runs")[1]
    code, _, err = run("sync")
    assert (code, "other" in err, "Is a directory" in err) == (1, True, True)


@pytest.mark.parametrize(
    "text", ['{"offset": -5, "format_version": 1}', DEEP, "null", '{"offset": 1e99}', ""]
)
def test_a_cursor_that_says_nothing_sensible_counts_as_none(
    run: RunCommand, good: Path, text: str
) -> None:
    (good / "journal.jsonl").write_text(
        '{"time":1,"kind":"open"}\n{"time":2,"kind":["x"]}\n' + DEEP + "\n"
    )
    (good / "shipped.json").write_text(text)
    listed = json.loads(run("runs", "--json")[1])
    is_named = "format_version None" in listed["problems"].get("good", "")
    assert (listed["runs"][0]["waiting"], is_named) in ((1, False), (0, True))


@pytest.mark.parametrize(
    "command", [("runs",), ("show", "x"), ("checkpoints", "x"), ("doctor",), ("sync",)]
)
@pytest.mark.parametrize("kind", ["file", "device", "long", "loop"])
def test_a_home_that_is_none_is_said_and_is_not_taken_for_an_empty_one(
    run: RunCommand,
    command: tuple[str, ...],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    homes = {"file": tmp_path / "file", "device": "/dev/null/x", "long": tmp_path / ("h" * 300)}
    monkeypatch.setenv("TORCHRELAY_HOME", str(homes.get(kind, tmp_path / "loop")))
    code, out, err = run(*command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: the home ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "relative/home", "with\nline break"])
def test_a_home_of_any_name_is_used(
    run: RunCommand, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHRELAY_HOME", name)
    save_record(settings.home(), RunRecord(run_id="a", name="x", experiment="x", created=now()))
    assert settings.home().root == tmp_path / (name or ".torchrelay")
    assert run("runs")[0] == 0
    assert run("show", "a")[0] == 0


@pytest.mark.parametrize("source", ["s" * 10_000, "a\0b", "x/" * 3000, "../" * 20, ""])
def test_a_source_that_is_no_name_is_refused_in_one_short_line(
    run: RunCommand, good: Path, source: str
) -> None:
    Path("t.csv").write_text("a\n1\n")
    for command in (
        ("evaluate", source, "--table", "t.csv"),
        ("weights", "show", source),
        ("show", source),
    ):
        code, _, err = run(*command)
        assert (code, err.count("\n")) == (2, 1), err
        assert len(err) < 1000


@pytest.mark.parametrize("table", ["loop.csv", "n" * 300 + ".csv", "a\0b.csv", "half\ud800.csv"])
def test_a_table_that_can_be_no_path_is_refused_with_the_reason(table: str) -> None:
    Path("loop.csv").symlink_to("loop.csv")
    with pytest.raises(
        DataError, match=r"^data.table: .* is no path: .*(NUL|too long|symbolic links)"
    ):
        locate_table(Data(table=table))


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("a\0b.csv", "null"),
        ("n" * 300 + ".csv", "File name too long"),
        ("/proc/x.csv", "No such file"),
        ("loop.csv", "symbolic links|Symlink"),
        ("pipe.csv", "is no file"),
        ("device.csv", "is no file"),
        ("folder.csv", "is a folder"),
        ("table.csv", "is the table that is read"),
        ("nowhere/x.csv", "is not there"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_begins(
    out: str, reason: str
) -> None:
    Path("table.csv").write_text("a\n1\n")
    Path("loop.csv").symlink_to("loop.csv")
    os.mkfifo("pipe.csv")
    Path("device.csv").symlink_to("/dev/full")
    Path("folder.csv").mkdir()
    before = sorted(path.name for path in Path().iterdir())
    with pytest.raises(DataError, match=reason):
        locate_output(out, "table.csv")
    assert sorted(path.name for path in Path().iterdir()) == before
    assert Path("/dev/full").is_char_device()


def test_a_full_disk_leaves_the_old_output_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("table.csv").write_text("a\n1\n")
    out = tmp_path / "out.csv"
    out.write_text("old")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(
        DataError, match=r"out.csv cannot be written: No space left on device; free space there"
    ):
        write_output(Data(table=str(tmp_path / "table.csv")), {}, out)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "table.csv"]


def write_safetensors_by_hand(path: Path, key: str) -> None:
    head = json.dumps({key: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))


def test_weights_are_exported_to_files_alone_and_a_full_disk_leaves_the_old_one(
    run: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_safetensors_by_hand(Path("w.safetensors"), "a")
    Path("device.pt").symlink_to("/dev/full")
    Path("folder.pt").mkdir()
    for out, reason in (
        ("device.pt", "no file"),
        ("folder.pt", "folder"),
        ("n" * 300 + ".pt", "too long"),
    ):
        code, _, err = run("weights", "export", "w.safetensors", "-o", out)
        assert (code, reason in err, err.count("\n")) == (2, True, 1), err
    Path("out.pt").write_text("old")
    before = sorted(path.name for path in Path().iterdir())

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        code, _, err = run("weights", "export", "w.safetensors", "-o", "out.pt")
    assert (code, err) == (
        2,
        "error: out.pt: No space left on device; free space there, for example with torchrelay "
        "prune\n",
    )
    assert (Path("out.pt").read_text(), sorted(path.name for path in Path().iterdir())) == (
        "old",
        before,
    )


@pytest.mark.parametrize("key", ["a\ud800", "b\x1b[31m", "c\n"])
def test_keys_that_no_terminal_can_show_are_shown_as_escapes(run: RunCommand, key: str) -> None:
    write_safetensors_by_hand(Path("w.safetensors"), key)
    code, out, err = run("weights", "show", "w.safetensors")
    if code == 0:
        assert repr(key)[1:-1] in out
        assert key in [
            row["key"]
            for row in json.loads(run("weights", "show", "w.safetensors", "--json")[1])["models"][
                ""
            ]["tensors"]
        ]
    else:
        assert (code, err.count("\n")) == (2, 1)
        assert (
            r"weights w.safetensors are refused: the key 'a\ud800' has half of a surrogate pair"
            in err
        )
    assert "\x1b" not in out + err


def test_a_schema_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(DEEP)
    with pytest.raises(SourceError, match="nested too deep"):
        Schema.load(tmp_path / "schema.json")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), "give it a shorter name"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "ulimit -n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a"),
            "/a: Permission denied; look at",
        ),
        (ValueError("embedded null byte"), "no path: embedded null byte"),
        (RuntimeError("Symlink loop from '/a'"), "no path: Symlink loop from '/a'"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deep"),
        (MemoryError(), "memory is too small"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            "memory is too small",
        ),
        (
            UnicodeEncodeError("utf-8", "a\ud800", 1, 2, "surrogates not allowed"),
            "no form in the encoding",
        ),
        (OverflowError("int too large to convert to float"), "out of its range"),
    ],
)
def test_what_the_system_says_becomes_one_short_line_with_its_place(
    error: Exception, said: str
) -> None:
    line = explain(error)
    assert line is not None
    assert said in line
    assert ("\n" not in line, len(line) < 400) == (True, True)
    assert exit_code_of(error) == 2


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), KeyError("x"), TypeError("x")]
)
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    assert explain(error) is None


def test_an_error_names_the_function_of_ours_that_it_came_up_in(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        load_record(tmp_path)
    assert explain(MemoryError().with_traceback(caught.tb)).startswith(
        "runs/record.py, load_record: "
    )


COMMAND = [sys.executable, "-c", "from torchrelay.cli import main; main()"]


def many_runs(number: int) -> Home:
    for at in range(number):
        save_record(
            settings.home(),
            RunRecord(run_id=f"run-{at}", name="x", experiment="größe" * 9, created=now()),
        )
    return settings.home()


def test_a_reader_that_goes_or_a_disk_that_is_full_ends_no_listing_with_a_traceback() -> None:
    many_runs(200)
    piped = subprocess.run(
        f'"{sys.executable}" -c "{COMMAND[2]}" runs | head -1',
        shell=True,
        capture_output=True,
        text=True,
    )
    assert (
        piped.stdout.count("\n"),
        "Traceback" in piped.stderr,
        "Exception ignored" in piped.stderr,
    ) == (
        1,
        False,
        False,
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "runs"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "No space left on device" in done.stderr


def test_a_terminal_without_our_letters_is_written_to_and_json_stays_json() -> None:
    many_runs(1)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    listed, as_json = (
        subprocess.run([*COMMAND, "runs", *more], env=environment, capture_output=True)
        for more in ((), ("--json",))
    )
    assert (listed.returncode, b"run-0" in listed.stdout) == (0, True)
    assert json.loads(as_json.stdout)["runs"][0]["experiment"] == "größe" * 9


def test_a_prefect_server_that_fails_does_not_hide_what_ended_the_run() -> None:
    gone = httpx.ConnectError("All connection attempts failed")
    assert explain(gone) == (
        "Prefect's server fails or is gone: All connection attempts failed; "
        "torchrelay runs shows what is done, torchrelay doctor what is not"
    )
    assert "Failed to reach API at http://x" in str(
        explain(RuntimeError("Failed to reach API at http://x"))
    )
    with pytest.raises(httpx.ConnectError) as caught:
        try:
            raise TrackingError("the journal cannot be written")
        except TrackingError:
            raise gone  # noqa: B904 - as a flow's engine does
    assert (
        explain(caught.value)
        == "the journal cannot be written (Prefect's server could not be told of it)"
    )
