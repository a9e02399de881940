"""Runs over several split columns.

A parent, below it one run a column, and over them mean and deviation.

A child is a run like any other, of the recipe with its own column. What the parent itself has is
its folder, its record and its MLflow run; the runs' lives are in `runs.py`.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from prefect import task

from .. import figures
from ..console import say
from ..datasets.pack import open_view
from ..datasets.table import with_split_column
from ..disk import write_atomic
from ..engine.metrics import INTERVAL_NAMES, SPLITS, auto_monitor, former_metric_names, unit_of
from ..errors import TorchrelayError, TrainingError
from ..recipe import Recipe, take_changeable
from ..runs import (
    FIGURES,
    SPLITS_FILE,
    STEP_METRICS,
    Recorder,
    Run,
    RunRecord,
    list_children,
    new_run_id,
    rewriting,
    thin,
)
from ..schema import Schema
from ..settings import home
from .assembly import plan_start
from .ending import finish_run, keep_status
from .options import UNCACHED
from .reopen import reopen_run
from .runs import describe_source, hold_run, new_record, open_run


def is_over_splits(folder: Path) -> bool:
    """Whether a run is the parent of one for each of several split columns."""
    return Run.open(folder).record.kind == "splits"


@task(**UNCACHED)
def list_unfinished(folder: Path) -> list[str]:
    """A parent's columns without a run, or with one that has not come to the
    end that the parent's recipe asks for.
    """
    run = Run.open(folder)
    parent, wanted = run.record, run.recipe.train

    def is_done(child: RunRecord) -> bool:
        """One that stopped before its last epoch is done too, unless the
        parent's recipe now says otherwise.
        """
        trained = Run(_folder(child), child).recipe.train
        return child.status == "FINISHED" and (child.epochs >= wanted.epochs or trained == wanted)

    done = {child.split_column for child in list_children(home(), parent) if is_done(child)}
    return [column for column in parent.splits if column not in done]


@contextlib.contextmanager
def open_split(parent_folder: Path, column: str) -> Iterator[Path]:
    """A column's run while it is worked on.

    New, or taken up where it stopped; held, and closed with its true status.

    Raises:
        BusyError: another process works on it.
    """
    run = Run.open(parent_folder)
    parent, recipe = run.record, _recipe_of(run.recipe, column)
    known = [child for child in list_children(home(), parent) if child.split_column == column]
    folder = _folder(known[0]) if known else home().runs / new_run_id(f"{recipe.name}-{column}")
    with run.journal as journal:
        journal.append_event("split", column=column, run_id=folder.name)
    with hold_run(folder), keep_status(folder):
        if known:
            reopen_run(folder, take_changeable(recipe))
            Run(folder).update(schedule_epochs=parent.schedule_epochs)
        else:
            _start_split(folder, parent, recipe)
        yield folder
        finish_run(folder)


@contextlib.contextmanager
def note_failure(column: str, failures: dict[str, str]) -> Iterator[None]:
    """Note why a column's run failed, instead of raising it.

    A signal or a cancel is no failure and goes on up.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the other columns do not have it
        failures[column] = (
            str(error) if isinstance(error, TorchrelayError) else f"{type(error).__name__}: {error}"
        )
        say(f"{column} failed: {failures[column]}")


@task(**UNCACHED)
def summarise_splits(folder: Path, failures: Mapping[str, str]) -> None:
    """Mean and deviation over a parent's runs, as its metrics, `splits.csv` and
    a figure, and all into MLflow.

    Raises:
        TrainingError: runs failed; names them and says why. Then there is no mean.
    """
    run = Run.open(folder)
    parent = run.record
    children = list_children(home(), parent)
    seconds = {
        part: round(sum(one.seconds.get(part, 0.0) for one in children), 3)
        for part in ("train", "evaluate")
    }
    parent = run.update(
        epochs=min((child.epochs for child in children), default=0),
        steps=sum(child.steps for child in children),
        rows_per_second=round(float(np.mean([one.rows_per_second for one in children])), 1)
        if children
        else 0.0,
        seconds={**parent.seconds, **seconds},
    )
    if failures:
        raise TrainingError(
            f"{len(failures)} of {len(parent.splits)} splits failed: {_say_failures(failures)}. "
            f"torchrelay resume {parent.run_id} trains what is missing"
        )
    schema = run.schema
    # A child that an older version trained has other names than one that was trained now.
    today = {
        f"{split}/{old}": f"{split}/{new}"
        for new, old in former_metric_names(schema).items()
        for split in SPLITS
    }
    values = {
        child.split_column: {
            today.get(name, name): value for name, value in _comparable(child.metrics).items()
        }
        for child in children
    }
    metrics = mean_and_deviation(values)
    with rewriting(run, SPLITS_FILE):
        write_atomic(folder / SPLITS_FILE, _to_csv(values))
    headline = _headline(schema, metrics)
    if headline:
        shown = {
            column: metrics[headline] for column, metrics in values.items() if headline in metrics
        }
        picture = folder / FIGURES / "splits.png"
        figures.splits(shown, picture, headline.replace("/", " "), unit=unit_of(headline, schema))
    with run.journal as journal:
        recorder = Recorder(journal, thin(0, 1))
        recorder.log_epoch(parent.steps, parent.epochs, metrics)
        recorder.log_artifacts(folder / SPLITS_FILE, "")
        recorder.log_artifacts(folder / FIGURES, FIGURES)
    run.update(metrics=metrics)


def mean_and_deviation(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each metric's mean over the splits under its own name, its sample
    standard deviation under `<name>_std`.

    Args:
        values: by split, then by metric. A split in which a metric is not defined has no part in
            its mean, and one split alone has no deviation.
    """
    names = sorted({name for metrics in values.values() for name in metrics})
    columns = {
        name: np.array([metrics[name] for metrics in values.values() if name in metrics])
        for name in names
    }
    with np.errstate(invalid="ignore"):  # an infinite loss has a mean and no deviation
        deviations = {
            f"{name}_std": float(np.std(x, ddof=1)) for name, x in columns.items() if len(x) > 1
        }
        return {**deviations, **{name: float(np.mean(x)) for name, x in columns.items()}}


def _start_split(folder: Path, parent: RunRecord, recipe: Recipe) -> None:
    column = recipe.data.split.column
    pack_dir, split_dir = Path(parent.pack_dir), Path(parent.splits[column])
    view = open_view(pack_dir, split_dir)
    start = plan_start(recipe, view.schema)
    record = new_record(
        recipe,
        folder.name,
        parent=parent.run_id,
        split_column=column,
        schedule_epochs=parent.schedule_epochs,
        recipe_file=parent.recipe_file,
        pack_dir=str(pack_dir),
        split_dir=str(split_dir),
        fingerprint=parent.fingerprint,
        **describe_source(start),
    )
    open_run(
        record, recipe, view.schema, {name: len(rows) for name, rows in view.rows.items()}, start
    )


def _recipe_of(recipe: Recipe, column: str) -> Recipe:
    """A child's recipe.

    Its own column, and nothing registered; what its model is for is the comparison.
    """
    tracking = recipe.tracking.model_copy(update={"register_as": ""})
    return recipe.model_copy(
        update={"data": with_split_column(recipe.data, column), "tracking": tracking}
    )


def _comparable(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an epoch or of the end that have a mean.

    No loss of one step, no speed, no end of an interval.
    """
    return {
        name: value
        for name, value in metrics.items()
        if "/" in name and name not in STEP_METRICS and name.partition("/")[2] not in INTERVAL_NAMES
    }


def _headline(schema: Schema, metrics: Mapping[str, float]) -> str:
    """The metric that one looks at first, on the rows that test or else
    validate.

    Empty where there are neither.
    """
    valid = auto_monitor(schema)
    test = valid.replace("valid/", "test/", 1)
    return next((name for name in (test, valid) if name in metrics), "")


def _say_failures(failures: Mapping[str, str]) -> str:
    """Each reason once, after the columns that have it."""
    columns: dict[str, list[str]] = {}
    for column, reason in failures.items():
        columns.setdefault(reason, []).append(column)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in columns.items())


def _to_csv(values: Mapping[str, Mapping[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("split", "metric", "value"))
    for column, metrics in values.items():
        writer.writerows((column, name, value) for name, value in sorted(metrics.items()))
    return text.getvalue()


def _folder(record: RunRecord) -> Path:
    return home().runs / record.run_id
