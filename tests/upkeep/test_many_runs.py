"""What a command costs in a home of many runs: what it imports, and how often it opens the files
of a run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay import settings
from torchrelay.runs import JOURNAL_FILE, RECORD_FILE, Cursor, Journal, RunRecord, save_record
from torchrelay.settings import Home
from torchrelay.upkeep.doctor import doctor

DAY = "2026-01-02T00:00:00.000+00:00"
HEAVY = ("torch", "torchvision", "mlflow", "prefect", "pandas", "matplotlib", "sqlalchemy")
# Runs in one process: what it imports, and how often it opens each file of a run.
TOLD = f"""
import collections, os, sys
runs = os.environ["TORCHRELAY_HOME"] + "/runs/"
opened = collections.Counter()
def note(event, values):  # Python's own open says a mode, and then has the system open the path, \
in one way or another
    of_runs = event == "open" and str(values[0]).startswith(runs)
    if of_runs and (values[1] or not values[0] == note.last):
        opened[str(values[0]).rpartition("/")[2]] += 1
    note.last = values[0] if event == "open" and values[1] else None \
if event == "open" else note.last
note.last = None
sys.addaudithook(note)
from torchrelay.cli import main
sys.argv[0] = "torchrelay"
try:
    main()
finally:
    print("imported", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
    print("opened", *[f"{{name}}={{number}}" for name, number in sorted(opened.items())], \
file=sys.stderr)
"""


def make_runs(number: int) -> Home:
    home = settings.home()
    for at in range(number):
        record = RunRecord(
            run_id=f"run-{at}",
            name="x",
            experiment="x",
            created=DAY,
            ended=DAY,
            status="FINISHED",
            steps=2,
        )
        run_dir = save_record(home, record)
        with Journal(run_dir / JOURNAL_FILE) as journal:
            journal.append("open", tracker="", experiment="x", start_ms=0, parent="", tags={})
            for step in (1, 2):
                journal.append_metrics(step, 1, {"train/loss": 0.5})
            journal.append_status("FINISHED", 1)
        Cursor(offset=(run_dir / JOURNAL_FILE).stat().st_size).save(run_dir)
        (run_dir / "lock").write_text(f"pid 1 on {os.uname().nodename}")
    return home


def tell(home: Home, *command: str) -> tuple[str, dict[str, int]]:
    """What a command imports of the heavy packages, and how often it opens each file of the
    runs.
    """
    environment = {**os.environ, "TORCHRELAY_HOME": str(home.root)}
    done = subprocess.run(
        [sys.executable, "-c", TOLD, *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *_, imported, opened = done.stderr.splitlines()
    counted = (pair.partition("=") for pair in opened.split()[1:])
    return imported.removeprefix("imported").strip(), {
        name: int(number) for name, _, number in counted
    }


@pytest.mark.parametrize(
    ("command", "most"),
    [
        (("runs",), {RECORD_FILE: 1, "shipped.json": 1}),
        (("show", "run-3"), {}),
        (("prune", "--keep-runs", "100", "--dry-run"), {RECORD_FILE: 2}),
        (
            ("prune", "--keep-runs", "0", "--dry-run"),
            {RECORD_FILE: 1, "shipped.json": 1, "lock": 1},
        ),
        (("doctor",), {RECORD_FILE: 1, JOURNAL_FILE: 1, "shipped.json": 1, "lock": 2}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_imports_nothing_heavy_and_opens_few_files_of_each_run(
    command: tuple[str, ...], most: dict[str, int]
) -> None:
    number = 20
    imported, opened = tell(make_runs(number), *command)
    if not Path("/dev/nvidiactl").exists():
        assert imported == ""
    if not most:  # one run, however many there are
        assert max(opened.values()) <= 2
        return
    assert opened == {name: times * number for name, times in most.items()}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: b"\0" * len(data), "no line that a journal begins with"),
        (
            lambda data: data.replace(b"0.5", b"0.7", 1),
            "1 lines that are garbled, the first of them line 3",
        ),
        (lambda data: b"".join(data.splitlines(keepends=True)[:-1]), "its end is missing"),
        (
            lambda data: b"".join(data.splitlines(keepends=True)[1:]),
            "no line that a journal begins with",
        ),
        (lambda data: b"", "is empty"),
    ],
    ids=["zeroed", "a value changed", "end missing", "head missing", "empty"],
)
def test_of_many_journals_the_damaged_one_is_found(
    spoil: Callable[[bytes], bytes], said: str
) -> None:
    home = make_runs(5)
    path = home.runs / "run-3" / JOURNAL_FILE
    assert doctor(home).left == []
    path.write_bytes(spoil(path.read_bytes()))
    found = [
        one for one in doctor(home).left if "the journal of run-3" in one.what and said in one.what
    ]
    assert len(found) == 1


def test_lines_of_before_that_have_no_crc_are_read_one_by_one() -> None:
    home = make_runs(2)
    path = home.runs / "run-1" / JOURNAL_FILE
    plain = [line.partition(b',"crc":')[0] + b"}\n" for line in path.read_bytes().splitlines()]
    path.write_bytes(b"".join(plain))
    Cursor(offset=path.stat().st_size).save(path.parent)
    assert doctor(home).left == []
    path.write_bytes(b"".join([*plain[:2], b"#" * 40 + b"\n", *plain[3:]]))
    assert Counter(one.part for one in doctor(home).left)["runs"] == 1
