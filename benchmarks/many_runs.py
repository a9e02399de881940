"""How long `runs`, `show`, `prune` and `doctor` take in a home of many runs.

    python benchmarks/many_runs.py [--runs 10000] [--folder DIR]

Makes the home, whose runs have a record, a recipe's worth of metrics, a journal that MLflow has and
a lock, then times each command as a user starts it; on a busy machine look at the CPU. The database
of MLflow knows none of the runs, as on a server that is not asked.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from torchrelay.runs import JOURNAL_FILE, Cursor, Journal, RunRecord, save_record
from torchrelay.settings import Home

COMMANDS = (
    ("runs",),
    ("runs", "--json"),
    ("show", "run-00042"),
    ("prune", "--keep-runs", "100000", "--dry-run"),
    ("prune", "--keep-runs", "5000", "--dry-run"),
    ("doctor",),
)


def make_home(root: Path, number: int) -> None:
    """Write the folders of so many runs."""
    home = Home(root)
    for at in range(number):
        day = f"2026-01-{1 + at * 28 // number:02}T00:00:00.{at % 1000:03}+00:00"
        metrics = {f"valid/metric_{name}": name / 7 for name in range(20)}
        record = RunRecord(
            run_id=f"run-{at:05}",
            name="run",
            experiment="run",
            created=day,
            ended=day,
            status="FINISHED",
            steps=1,
            metrics=metrics,
        )
        run_dir = save_record(home, record)
        with Journal(run_dir / JOURNAL_FILE) as journal:
            for step in range(1, 11):
                journal.append_metrics(step, 1, metrics)
            journal.append_status("FINISHED", 1)
        Cursor(offset=(run_dir / JOURNAL_FILE).stat().st_size).save(run_dir)
        (run_dir / "lock").write_text(f"pid 1 on {os.uname().nodename}")


def cpu_seconds() -> float:
    """What the processes that ended have used, in user and system mode."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Make the home and time the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument(
        "--folder", type=Path, help="Keep the home here; made anew only where it is not there."
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (given.folder or Path(temporary)) / "home"
        if not root.exists():
            make_home(root, given.runs)
        environment = {**os.environ, "TORCHRELAY_HOME": str(root)}
        for command in COMMANDS:
            began, used = time.perf_counter(), cpu_seconds()
            main_of = (
                "import sys; from torchrelay.cli import main; sys.argv[0] = 'torchrelay'; main()"
            )
            done = subprocess.run(
                [sys.executable, "-c", main_of, *command],
                env=environment,
                capture_output=True,
                check=False,
            )
            seconds, cpu = time.perf_counter() - began, cpu_seconds() - used
            print(
                f"{' '.join(command):<46}{seconds:6.2f} s, {cpu:5.2f} s of CPU  exit code "
                f"{done.returncode}"
            )


if __name__ == "__main__":
    main()
