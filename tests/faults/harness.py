"""A run that dies and goes on, in processes forked for it, and what it came to, to be held against
a run that did not.

The train flow runs as it is written, but without Prefect's decorators, which want a server: a
process costs a second.
`random_kills.py` takes some runs through the command line as it is.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prefect import Task

from torchrelay.engine import job, loop
from torchrelay.faults import arm
from torchrelay.runs import Run, RunRecord, journal, list_records, load_record
from torchrelay.settings import Home, home
from torchrelay.tasks.assembly import resuming
from torchrelay.tracking import make_database
from torchrelay.tracking.shipping import sync_home
from torchrelay.upkeep.trials import (
    CLOCKED,
    DATABASE_FILE,
    LOG_FILE,
    PRELOAD,
    Outcome,
    first_difference,
    in_child,
    read_outcome,
)

PATIENCE_SECONDS = 120.0
# Of metrics, before they are written. A run of these is over in less than the usual half second:
# that a kill finds some steps behind the last checkpoint written, and some not, takes a few
# milliseconds.
BUFFER_SECONDS = 0.003
multiprocessing.set_forkserver_preload(
    [*PRELOAD, "torchrelay.flows.train", "torchvision", "skimage.transform"]
)

# The file itself, not the flow of that name.
flow_file = importlib.import_module("torchrelay.flows.train")


class Ended(NamedTuple):
    """How a process ended: its exit code, a signal's number negative; and whether its fault
    happened.
    """

    code: int | None
    was_reached: bool


class KilledRun:
    """A run of one recipe in a home of its own, which one process after another takes on its way.

    Args:
        root: of the home; it may exist.
        recipe_file: what is trained.
        mutant: what is broken in each of its processes, to see that the harness notices; of
            `MUTANTS`.
    """

    def __init__(self, root: Path, recipe_file: Path, mutant: str = "") -> None:
        self.root, self._recipe_file, self._mutant = root, recipe_file, mutant
        root.mkdir(parents=True, exist_ok=True)
        if not (root / DATABASE_FILE).exists():
            shutil.copyfile(migrated_database(root.parent), root / DATABASE_FILE)

    def go_on(
        self, fault: str = "", seconds: float = PATIENCE_SECONDS, *, whole: bool = True
    ) -> Ended:
        """Begin the run or let it go on: to its end, to a fault, or for so many seconds, after
        which it is killed.

        Args:
            whole: false ends with the training, without the evaluation.
        """
        happened = self.root / "happened"
        happened.unlink(missing_ok=True)
        work = (str(self._recipe_file), fault, str(happened), self._mutant, whole)
        return Ended(in_child(self.root, seconds, "", take_flow, *work), happened.exists())

    @property
    def run_dir(self) -> Path:
        """The folder of the run that is whole."""
        [found] = whole_runs(Home(self.root))
        return found

    @property
    def record(self) -> RunRecord:
        """Its record."""
        return load_record(self.run_dir)

    @property
    def log(self) -> str:
        """The end of what its processes said."""
        return (self.root / LOG_FILE).read_text("utf-8", "replace")[-3000:]

    def outcome(self) -> Outcome:
        """What it came to."""
        return read_outcome(Run(self.run_dir))

    def tracked(self) -> Tracked:
        """What the tracker has of it."""
        return read_tracked(self.root / DATABASE_FILE, self.record.mlflow_run_id)


class Tracked(NamedTuple):
    """A run in MLflow.

    Attributes:
        points: its metrics by name and step, those left out that a clock measures.
        doubled: names and steps that it has more than once.
        versions: of registered models that were made from it, by name and number, with their alias.
    """

    status: str
    points: dict[tuple[str, int], float]
    doubled: list[tuple[str, int]]
    versions: list[tuple[str, int, str]]


VERSIONS = """
select name, version, alias from model_versions \
left join registered_model_aliases using (name, version)
where run_id = ? order by name, version
"""


def read_tracked(database: Path, run_id: str) -> Tracked:
    """What MLflow's database says of a run."""
    with sqlite3.connect(database) as connection:
        [(status,)] = connection.execute(
            "select status from runs where run_uuid = ?", (run_id,)
        ).fetchall()
        rows = connection.execute(
            "select key, step, case when is_nan then null else value end from metrics where "
            "run_uuid = ?",
            (run_id,),
        ).fetchall()
        versions = connection.execute(VERSIONS, (run_id,)).fetchall()
    points: dict[tuple[str, int], float] = {}
    doubled = []
    for key, step, value in rows:
        if key in CLOCKED:
            continue
        if (key, step) in points:
            doubled.append((key, step))
        points[key, step] = math.nan if value is None else value
    return Tracked(status, points, doubled, versions)


def difference(expected: KilledRun, found: KilledRun) -> str:
    """Where two victims that are done differ: in weights, in their journals, or in the tracker;
    empty if nowhere.
    """
    if where := first_difference(expected.outcome(), found.outcome()):
        return where
    one, other = expected.tracked(), found.tracked()
    if other.doubled:
        return f"MLflow has {other.doubled[0]} more than once"
    if one.status != other.status:
        return f"MLflow says {other.status} instead of {one.status}"
    if one.versions != other.versions:
        return f"MLflow has the model versions {other.versions} instead of {one.versions}"
    wrong = {
        at
        for at in one.points.keys() | other.points.keys()
        if _differ(one.points.get(at), other.points.get(at))
    }
    return f"MLflow differs at {min(wrong, key=lambda at: at[1])}" if wrong else ""


def _differ(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return True
    return one != other and not (math.isnan(one) and math.isnan(other))


def whole_runs(where: Home) -> list[Path]:
    """Folders of runs that were opened to the end; those before it died while they were made."""
    folders = [where.runs / record.run_id for record in list_records(where)]
    return [folder for folder in folders if (folder / "schema.json").exists()]


def migrated_database(folder: Path) -> Path:
    """A database of MLflow's, made once a folder."""
    path = folder / "migrated" / DATABASE_FILE
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        in_child(path.parent, PATIENCE_SECONDS, "", make_database)
    return path


def take_flow(recipe_file: str, fault: str, once: str, mutant: str, whole: bool) -> None:
    """What a forked process does: the train flow, on the run that is there or on a new one."""
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
    )  # as the command line has it
    patch = pytest.MonkeyPatch()
    for name, task in list(vars(flow_file).items()):
        if isinstance(task, Task):
            patch.setattr(flow_file, name, task.fn)
    if not whole:
        patch.setattr(flow_file, "train_one", flow_file.train_model)
    patch.setattr(journal, "BUFFER_SECONDS", BUFFER_SECONDS)
    if mutant:
        MUTANTS[mutant](patch)
    arm(fault, once)
    found = whole_runs(home())
    if not found:
        flow_file.train.fn(recipe_file=recipe_file)
    elif load_record(found[0]).status != "FINISHED":
        overrides = (
            {"tracking.wait_seconds": 4.0} if fault.startswith("run.recipe_changed:") else {}
        )
        flow_file.train.fn(resume=found[0].name, overrides=overrides)
    else:  # as `torchrelay sync`: what a finished run's process could not send any more
        assert not any(done.num_waiting for done in sync_home(home()))


def _forget_random_states(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(job, "set_random_states", lambda states: None)


def _repeat_a_batch(patch: pytest.MonkeyPatch) -> None:
    restore = resuming.restore_run

    def restore_before(one: job.Job, state: dict[str, Any], place: str) -> job.Progress:
        return restore(one, {**state, "batch": max(0, state["batch"] - 1)}, place)

    patch.setattr(resuming, "restore_run", restore_before)


def _journal_again(patch: pytest.MonkeyPatch) -> None:
    append = journal.Journal.append_metrics

    def append_again(self: journal.Journal, *args: Any, **options: Any) -> None:
        self._open()
        self._last_step = {}
        append(self, *args, **options)

    patch.setattr(journal, "BUFFER_SECONDS", 0.0)
    patch.setattr(journal.Journal, "append_metrics", append_again)


def _drop_the_average(patch: pytest.MonkeyPatch) -> None:
    saved = loop.state_of_run

    def forgetful(a_job: job.Job, progress: job.Progress) -> dict[str, Any]:
        state = saved(a_job, progress)
        average = {**state["average_state_dict"], "model_state_dict": state["model_state_dict"]}
        return {**state, "average_state_dict": average}

    patch.setattr(loop, "state_of_run", forgetful)


# What may be broken to see that the harness would notice.
MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "random states are not restored": _forget_random_states,
    "a batch is taken again": _repeat_a_batch,
    "points are journaled again": _journal_again,
    "the average is not kept": _drop_the_average,
}
