"""A small home that is made once, and what can be tried on a copy of it: each probe gives a result,
and what was said.

`flips.py` flips bits between the two.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image

from torchrelay.datasets.pack import View, open_view, read_keys
from torchrelay.engine import reduction_of
from torchrelay.engine.hardware import USER_SETTINGS, usable_cores
from torchrelay.engine.metrics import compute_metrics, headline_interval
from torchrelay.errors import TorchrelayError
from torchrelay.recipe import load_recipe
from torchrelay.runs import (
    JOURNAL_FILE,
    Journal,
    Run,
    describe_run,
    load_record,
    waiting,
)
from torchrelay.runs import record as records
from torchrelay.settings import home
from torchrelay.tasks import (
    OtherTable,
    evaluate_model,
    finish_run,
    hold_run,
    ingest_table,
    name_run,
    name_scoring,
    predict_rows,
    register_model,
    reopen_run,
    score_rows,
    start_evaluation,
    start_prediction,
    start_run,
    train_model,
)
from torchrelay.tasks.assembly import choose_threads, view_of
from torchrelay.tracking.registry import resolve_source
from torchrelay.upkeep import (
    Examination,
    find_bad_checkpoints,
    find_bad_journals,
    find_bad_packs,
    find_bad_records,
    find_waiting,
)
from torchrelay.upkeep.altered import (
    find_altered_artifacts,
    find_altered_files,
    find_altered_versions,
    find_bad_pointers,
    find_bad_splits,
)
from torchrelay.weights import load_weights, sha256_of

# Where nobody answers, so that nothing waits for an answer.
NO_TRACKER = "http://127.0.0.1:9"
# What of the doctor looks into files.
PARTS = (
    *(find_bad_records, find_bad_checkpoints, find_bad_pointers, find_bad_packs, find_bad_splits),
    *(
        find_altered_files,
        find_bad_journals,
        find_altered_artifacts,
        find_altered_versions,
        find_waiting,
    ),
)
# When its runs ended: the doctor is patient with those that have only just.
LONG_AGO = "2026-01-01T00:00:00+00:00"
# Metrics that a clock decides.
CLOCKED = ("rows_per_second",)
# What is said because there is no tracker.
WAITS = "waits in its journal for the tracker"
MODEL = "pictures"
# The end of a run's id.
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


class Tried(NamedTuple):
    """What came of something that was tried.

    Attributes:
        result: digest of what it gave; empty where it raised.
        said: warnings and errors.
        crash: the name of an error that is none of ours; else empty.
    """

    result: str
    said: list[str]
    crash: str = ""


class Case(NamedTuple):
    """A home, and where what is tried on it finds its table and recipe."""

    root: Path
    recipe: Path
    table: Path
    run_id: str


def make_case(folder: Path, *, is_whole: bool = True) -> Case:
    """A table of 40 pictures, one of which is bad, and a home with a training and a prediction of
    it.

    Args:
        folder: for table, recipe and home.
        is_whole: the home has all that a home can have: the training's figures and test metrics, an
            evaluation, a registered version, MLflow's artifacts, what was downloaded of them, and
            the remembered number of threads.
    """
    recipe, table = _make_table(folder, MODEL if is_whole else "")
    with at_home(folder / "home", "" if is_whole else NO_TRACKER):
        run_dir = _train(recipe, goes_on=is_whole)
        case = Case(folder / "home", recipe, table, run_dir.name)
        _predict(case, whole=True)
        if is_whole:
            _evaluate(case, whole=True)
            _choose_threads(case)
            _resolve_downloaded(case)
        for run_dir in home().runs.iterdir():
            records.update_record(run_dir, ended=LONG_AGO)
    return case


def _make_table(folder: Path, model: str) -> tuple[Path, Path]:
    generator = np.random.default_rng(7)
    (folder / "images").mkdir(parents=True)
    lines = ["image,label,key,patient,split"]
    for number in range(40):
        pixels = generator.integers(0, 90, (8, 8), np.uint8)
        pixels[:, slice(0, 4) if number % 2 else slice(4, 8)] += 150
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        side = ("train", "train", "train", "valid", "test")[number // 2 % 5]
        lines.append(
            f"images/{number}.png,{'left' if number % 2 else 'right'},"
            f"k{number},p{number // 2},{side}"
        )
    table = folder / "pictures.csv"
    table.write_text("\n".join([*lines, "images/none.png,left,k99,p99,train"]) + "\n")
    image = {
        "kind": "image",
        "channels": "gray",
        "preprocess": [{"name": "transform.resize", "args": {"output_shape": [32, 32]}}],
    }
    recipe = {
        "name": "pictures",
        "data": {
            "table": "pictures.csv",
            "inputs": {"image": image},
            "target": {"label": {"kind": "category"}},
            "split": {"column": "split", "group": "patient"},
            "key": "key",
            "max_bad_rows": 0.1,
        },
        "model": {"name": "lenet"},
        "train": {
            "epochs": 2,
            "batch_size": 8,
            "optimizer": {"name": "adam", "args": {"lr": 0.003}},
        },
        "tracking": {"register": model},
    }
    path = folder / "pictures.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path, table


@contextlib.contextmanager
def at_home(root: Path, tracker: str = NO_TRACKER) -> Iterator[None]:
    """Work in a home, with a tracker: an address, or an empty one for that in the home."""
    names = ("TORCHRELAY_HOME", "MLFLOW_TRACKING_URI")
    with _environment(
        names,
        {"TORCHRELAY_HOME": str(root), **({"MLFLOW_TRACKING_URI": tracker} if tracker else {})},
    ):
        yield


@contextlib.contextmanager
def _environment(names: tuple[str, ...], values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


def _train(recipe_file: Path, *, goes_on: bool = False) -> Path:
    recipe = load_recipe(recipe_file)
    run_dir = name_run(recipe)
    with hold_run(run_dir):
        start_run.fn(run_dir, recipe, ingest_table.fn(recipe), str(recipe_file))
        train_model.fn(run_dir)
        if goes_on:
            evaluate_model.fn(run_dir)
            register_model.fn(run_dir)
            finish_run.fn(run_dir)
        else:
            _finish(run_dir)
    return run_dir


def _finish(run_dir: Path) -> None:
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_status("FINISHED", 0)
    records.update_record(run_dir, status="FINISHED", ended=records.now())


def _show(case: Case) -> Any:
    run_dir = home().runs / case.run_id
    record = describe_run(home(), load_record(run_dir))
    points = Journal(run_dir / JOURNAL_FILE).points()
    places = ("run_dir", "pack_dir", "split_dir", "weights")
    return (
        {name: value for name, value in record.items() if name not in places},
        points,
        waiting(Run(run_dir)),
    )


def _doctor(case: Case) -> None:
    exam = Examination.of(home())
    for part in PARTS:
        for finding in part(exam):
            warnings.warn(f"doctor: {finding.what}", stacklevel=2)


def _predict(case: Case, *, whole: bool = False) -> Any:
    run_dir = name_scoring("predict", case.run_id)
    out = case.root.parent / "predicted.csv"
    with hold_run(run_dir):
        prediction = start_prediction.fn(
            run_dir, case.run_id, OtherTable(str(case.table), "", {}), str(out), "cpu", ""
        )
        predict_rows.fn(run_dir, prediction)
        if whole:
            _finish(run_dir)
    text = out.read_text()
    out.unlink()
    return text


def _evaluate(case: Case, *, whole: bool = False) -> Any:
    run_dir = name_scoring("evaluate", case.run_id)
    with hold_run(run_dir):
        start_evaluation.fn(run_dir, case.run_id, OtherTable(str(case.table), "", {}), "cpu")
        if whole:
            evaluate_model.fn(run_dir)
            finish_run.fn(run_dir)
            return None
        return _measure(run_dir)


def _measure(run_dir: Path) -> Any:
    """What an evaluation of a run makes, before it is drawn: outputs, metrics, keys and schema."""
    run = Run.open(run_dir)
    record, recipe, view = run.record, run.recipe, view_of(run)
    found, _ = score_rows(run)
    rows, reduction = found.rows.numpy(), reduction_of(recipe.train.loss)
    metrics = compute_metrics(
        view.schema, found.outputs, found.target, found.losses, None, reduction
    )
    groups = None if view.groups is None else view.groups[rows]
    metrics |= headline_interval(view.schema, found.outputs, found.target, None, groups)
    keys = read_keys(Path(record.split_dir))
    named = None if keys is None else keys[rows].tolist()
    return (
        found.outputs.tolist(),
        found.target.tolist(),
        metrics,
        named,
        _rows_of(view),
        view.schema.model_dump(),
    )


def _rows_of(view: View) -> dict[str, list[int]]:
    return {name: view.pack.rows[rows].tolist() for name, rows in view.rows.items()}


def _resume(case: Case) -> Any:
    run_dir = home().runs / case.run_id
    with hold_run(run_dir):
        reopen_run.fn(run_dir, {"train.epochs": 3})
        train_model.fn(run_dir)
        measured = _measure(run_dir)
    record = load_record(run_dir)
    points = {(one.key, one.step): one.value for one in Journal(run_dir / JOURNAL_FILE).points()}
    kept = sorted(one for one in points.items() if one[0][0] not in CLOCKED)
    return record.weights_sha256, record.epochs, kept, measured


def _train_again(case: Case) -> Any:
    run_dir = _train(case.recipe)
    record = load_record(run_dir)
    metrics = {name: value for name, value in record.metrics.items() if name not in CLOCKED}
    return record.weights_sha256, metrics, _measure(run_dir)


def _resolve(case: Case) -> Any:
    """What a registered version is, with its run."""
    with at_home(case.root, ""):
        source = resolve_source(f"models:/{MODEL}@champion", home())
    texts = [(source.folder / name).read_text("utf-8") for name in ("recipe.yaml", "schema.json")]
    return texts, sha256_of(load_weights(source.weights))


def _resolve_downloaded(case: Case, *, is_cached: bool = True) -> Any:
    """The same without its run, from what was downloaded or from MLflow's artifacts."""
    run_dir, aside = home().runs / case.run_id, case.root / "gone"
    run_dir.rename(aside)
    if not is_cached:
        shutil.rmtree(home().cache / "sources")
    try:
        return _resolve(case)
    finally:
        aside.rename(run_dir)


def _resolve_run_in_mlflow(case: Case) -> Any:
    """A run that MLflow alone has."""
    run_dir = home().runs / case.run_id
    mlflow_run_id = load_record(run_dir).mlflow_run_id
    shutil.rmtree(run_dir)
    with at_home(case.root, ""):
        source = resolve_source(f"runs:/{mlflow_run_id}", home())
    texts = [(source.folder / name).read_text("utf-8") for name in ("recipe.yaml", "schema.json")]
    return texts, sha256_of(load_weights(source.weights))


def _choose_threads(case: Case) -> int:
    record = load_record(home().runs / case.run_id)
    view = open_view(Path(record.pack_dir), Path(record.split_dir))
    before = torch.get_num_threads()
    torch.set_num_threads(len(usable_cores()))
    try:
        with _environment(USER_SETTINGS, {}):
            return choose_threads(load_recipe(case.recipe), view).number
    finally:
        torch.set_num_threads(before)


PROBES: dict[str, Callable[[Case], Any]] = {
    "show": _show,
    "doctor": _doctor,
    "predict": _predict,
    "evaluate": _evaluate,
    "resume": _resume,
    "train": _train_again,
}
# These need a whole home.
MORE_PROBES: dict[str, Callable[[Case], Any]] = {
    "version": _resolve,
    "version, downloaded": _resolve_downloaded,
    "version, in MLflow": lambda case: _resolve_downloaded(case, is_cached=False),
    "run, in MLflow": _resolve_run_in_mlflow,
    "threads": _choose_threads,
}


def attempt(case: Case, probe: str) -> Tried:
    """Try something in a home, as a process would that begins with it."""
    heard = _Heard()
    records.warned_of.clear()
    logging.getLogger("torchrelay").addHandler(heard)
    crash, result, errors = "", "", []
    try:
        with warnings.catch_warnings(record=True) as caught, at_home(case.root), _quiet() as lines:
            warnings.simplefilter("always")
            try:
                given = json.dumps((PROBES | MORE_PROBES)[probe](case), sort_keys=True, default=str)
                result = hashlib.sha256(given.encode()).hexdigest()
            except TorchrelayError as error:
                errors = [str(error)]
            except Exception as error:  # noqa: BLE001 - not in silence, though not as it should be said
                crash, errors = type(error).__name__, [f"{type(error).__name__}: {error}"]
    finally:
        logging.getLogger("torchrelay").removeHandler(heard)
    ours = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    said = [*errors, *ours, *heard.said, *(line for line in lines if line.startswith("warning:"))]
    said = [_ID.sub("ID", one.replace(str(case.root), "HOME")) for one in said if WAITS not in one]
    return Tried(result, said, crash)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep what is said on standard error."""
    lines: list[str] = []

    class Lines:
        def write(self, text: str) -> None:
            lines.extend(text.splitlines())

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return False

    with contextlib.redirect_stderr(Lines()):  # pyright: ignore[reportArgumentType]
        yield lines
