"""Flips random bits of every file of a home, and holds what torchrelay then gives against what it gave before.

    python tests/faults/flips.py --flips 1000

A home with a training, an evaluation and a prediction is made once; each flip is made in a copy of it, on which these
are tried: `show`, `doctor`, predict, evaluate, resume, and training again from the pack. A flip is

    noticed    each of them whose result would differ says so, or `doctor` names the file
    repaired   noticed, and all results are as before all the same
    harmless   nothing says a word, all results are as before, and HARMLESS says why
    silent     a result differs without a word, or nothing notices a file of which HARMLESS says nothing

It ends with exit code 1 where one is silent. Databases and what the libraries of the home keep are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from torchrelay.datasets.build import open_view
from torchrelay.errors import TorchrelayError
from torchrelay.recipe_file import load_recipe
from torchrelay.settings import home
from torchrelay.tasks.altered import find_altered_files, find_bad_pointers, find_bad_splits
from torchrelay.tasks.bad_runs import find_bad_records
from torchrelay.tasks.damage import find_bad_checkpoints, find_bad_packs
from torchrelay.tasks.evaluate import evaluate_model, score_rows
from torchrelay.tasks.examination import Examination
from torchrelay.tasks.ingest import ingest_table
from torchrelay.tasks.predict import predict_rows
from torchrelay.tasks.reopen import reopen_run
from torchrelay.tasks.runs import hold_run, name_run, start_run
from torchrelay.tasks.scoring import OtherTable, name_scoring, start_evaluation, start_prediction
from torchrelay.tasks.train import train_model
from torchrelay.tracking.cursor import waiting
from torchrelay.tracking.journal import JOURNAL_FILE, Journal
from torchrelay.tracking.records import describe_run, load_record
from torchrelay.tracking.run_files import read_recipe

# Why a file that nobody looks at may be damaged, by the end of its path.
HARMLESS = {
    "lock": "empty or says who wrote last: for people, and for the doctor of another host",
    ".png": "a picture for people, which nothing reads; PNG has checks of its own",
    "error.txt": "a text for people, which nothing reads",
    "run.json": "space between its values",
    "manifest.json": "space between its values",
    "shipped.json": "space between its values",
    "best": "",
    "last": "",
}
# What of the doctor looks into files.
PARTS = (
    *(find_bad_records, find_bad_checkpoints, find_bad_pointers, find_bad_packs, find_bad_splits),
    find_altered_files,
)
# Files that are read past Python, so that nobody can tell by whom.
READ_PAST_PYTHON = (".parquet", ".arrow", ".pt", ".npy")
# Metrics that a clock decides.
CLOCKED = ("rows_per_second",)
# What is said because there is no tracker.
WAITS = "waits in its journal for the tracker"


class Flip(NamedTuple):
    """A bit of a file.

    Attributes:
        file: its path in the home.
        bit: counted from the file's first.
    """

    file: str
    bit: int


class Tried(NamedTuple):
    """What came of something that was tried.

    Attributes:
        result: digest of what it gave; empty where it raised an error of ours.
        said: warnings and errors.
    """

    result: str
    said: list[str]


class Case(NamedTuple):
    """A home, and where what is tried on it finds its table and recipe."""

    root: Path
    recipe: Path
    table: Path
    run_id: str


def make_case(folder: Path) -> Case:
    """A table of 40 pictures, one of which is bad, and a home with a training, an evaluation and a prediction of it."""
    generator = np.random.default_rng(7)
    (folder / "images").mkdir(parents=True)
    lines = ["image,label,key,patient,split"]
    for number in range(40):
        pixels = generator.integers(0, 90, (8, 8), np.uint8)
        pixels[:, slice(0, 4) if number % 2 else slice(4, 8)] += 150
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        side = ("train", "train", "train", "valid", "test")[number // 2 % 5]
        lines.append(f"images/{number}.png,{'left' if number % 2 else 'right'},k{number},p{number // 2},{side}")
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
        "train": {"epochs": 2, "batch_size": 8, "optimizer": {"name": "adam", "args": {"lr": 0.003}}},
    }
    path = folder / "pictures.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    with at_home(folder / "home"):
        run_dir = _train(path)
        with hold_run(run_dir):
            evaluate_model.fn(run_dir)
            _finish(run_dir)
        case = Case(folder / "home", path, table, run_dir.name)
        for kind in (_evaluate, _predict):
            kind(case, whole=True)
    return case


@contextlib.contextmanager
def at_home(root: Path) -> Iterator[None]:
    """Work in a home, without a tracker."""
    before = {name: os.environ.get(name) for name in ("TORCHRELAY_HOME", "MLFLOW_TRACKING_URI")}
    os.environ |= {"TORCHRELAY_HOME": str(root), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


def _train(recipe_file: Path) -> Path:
    recipe = load_recipe(recipe_file)
    run_dir = name_run(recipe)
    with hold_run(run_dir):
        start_run.fn(run_dir, recipe, ingest_table.fn(recipe), str(recipe_file))
        train_model.fn(run_dir)
    return run_dir


def _finish(run_dir: Path) -> None:
    from torchrelay.tracking.records import now, update_record

    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_status("FINISHED", 0)
    update_record(run_dir, status="FINISHED", ended=now())


def _show(case: Case) -> Any:
    run_dir = home().runs / case.run_id
    record = describe_run(home(), load_record(run_dir))
    points = Journal(run_dir / JOURNAL_FILE).points()
    waiting(run_dir)
    places = ("run_dir", "pack_dir", "split_dir", "weights")
    return {name: value for name, value in record.items() if name not in places}, points


def _doctor(case: Case) -> None:
    exam = Examination.of(home())
    for part in PARTS:
        for finding in part(exam):
            warnings.warn(f"doctor: {finding.what}", stacklevel=2)


def _predict(case: Case, *, whole: bool = False) -> Any:
    run_dir = name_scoring("predict", case.run_id)
    out = case.root / "predicted.csv"
    with hold_run(run_dir):
        prediction = start_prediction.fn(run_dir, case.run_id, OtherTable(str(case.table), "", {}), str(out), "cpu", "")
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
            _finish(run_dir)
        record = load_record(run_dir)
        view = open_view(Path(record.pack_dir), Path(record.split_dir))
        found, _ = score_rows(run_dir, read_recipe(run_dir), view)
    return found.outputs.tolist(), found.target.tolist(), view.schema.model_dump()


def _resume(case: Case) -> Any:
    run_dir = home().runs / case.run_id
    with hold_run(run_dir):
        reopen_run.fn(run_dir, {"train.epochs": 3})
        train_model.fn(run_dir)
    record = load_record(run_dir)
    points = {(one.key, one.step): one.value for one in Journal(run_dir / JOURNAL_FILE).points()}
    return record.weights_sha256, record.epochs, sorted(one for one in points.items() if one[0][0] not in CLOCKED)


def _train_again(case: Case) -> Any:
    record = load_record(_train(case.recipe))
    return record.weights_sha256, {name: value for name, value in record.metrics.items() if name not in CLOCKED}


PROBES: dict[str, Callable[[Case], Any]] = {
    "show": _show,
    "doctor": _doctor,
    "predict": _predict,
    "evaluate": _evaluate,
    "resume": _resume,
    "train": _train_again,
}


def attempt(case: Case, probe: str) -> Tried:
    """Try something in a home."""
    heard = _Heard()
    logging.getLogger("torchrelay").addHandler(heard)
    try:
        with warnings.catch_warnings(record=True) as caught, at_home(case.root), _quiet() as said:
            warnings.simplefilter("always")
            try:
                given = json.dumps(PROBES[probe](case), sort_keys=True, default=str)
                result = hashlib.sha256(given.encode()).hexdigest()
            except TorchrelayError as error:
                return Tried("", [str(error)])
            except Exception as error:  # noqa: BLE001 - not in silence, though not as it should be said
                return Tried("", [f"{type(error).__name__}: {error}"])
    finally:
        logging.getLogger("torchrelay").removeHandler(heard)
    ours = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    said = [*ours, *heard.said, *(line for line in said if line.startswith("warning:"))]
    return Tried(result, [one for one in said if WAITS not in one])


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


class Flipper:
    """Flips bits in copies of a home and tries everything that reads the file.

    Args:
        case: whole.
        folder: for the copies.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self._folder = case, folder
        self._read_by: dict[str, set[str]] = {}
        self.calm: dict[str, Tried] = {}
        for probe in PROBES:
            self.calm[probe] = self._watch(probe)

    @property
    def files(self) -> list[str]:
        """All files of the home."""
        paths = (path.relative_to(self.case.root) for path in sorted(self.case.root.rglob("*")) if path.is_file())
        return [str(path) for path in paths if path.parts[0] in ("runs", "packs", "store")]

    def try_flip(self, flip: Flip) -> tuple[str, str]:
        """What becomes of a flip, and the first that was said of it or what went wrong."""
        said: list[str] = []
        is_same = True
        for probe in PROBES:
            name = Path(flip.file).name
            if flip.file not in self._read_by[probe] and not name.endswith(READ_PAST_PYTHON) and probe != "doctor":
                continue
            tried = self._in_copy(probe, flip)
            news = [one for one in tried.said if one not in self.calm[probe].said]
            if tried.result != self.calm[probe].result:
                is_same = False
                if not news:
                    return "silent", f"{probe} gives something else"
            said += [f"{probe}: {one}" for one in news]
        if said:
            return ("repaired" if is_same else "noticed"), said[0]
        why = next((why for end, why in HARMLESS.items() if flip.file.endswith(end)), "")
        return ("harmless", why) if why else ("silent", "nothing notices it")

    def _in_copy(self, probe: str, flip: Flip | None) -> Tried:
        root = self._folder / "home"
        shutil.copytree(self.case.root, root)
        try:
            if flip is not None:
                content = bytearray((root / flip.file).read_bytes())
                content[flip.bit // 8] ^= 1 << flip.bit % 8
                (root / flip.file).write_bytes(content)
            tried = attempt(self.case._replace(root=root), probe)
        finally:
            shutil.rmtree(root)
        return tried._replace(said=[one.replace(str(root), "HOME") for one in tried.said])

    def _watch(self, probe: str) -> Tried:
        """Try something on a whole copy, and keep which files it opens."""
        opened: set[str] = set()
        _watched.append(opened)
        try:
            tried = self._in_copy(probe, None)
        finally:
            _watched.pop()
        prefix = f"{self._folder / 'home'}/"
        self._read_by[probe] = {path.removeprefix(prefix) for path in opened if path.startswith(prefix)}
        return tried


_watched: list[set[str]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched and event == "open" and isinstance(arguments[0], str | os.PathLike):
        _watched[-1].add(os.fspath(arguments[0]))


sys.addaudithook(_hear)


def draw_flips(case: Case, files: Sequence[str], number: int, seed: int) -> list[Flip]:
    """Random bits, each file as likely as the other; empty ones have none."""
    generator = random.Random(seed)
    sizes = {file: (case.root / file).stat().st_size for file in files}
    full = [file for file in files if sizes[file]]
    drawn = (generator.choice(full) for _ in range(number))
    return [Flip(file, generator.randrange(8 * sizes[file])) for file in drawn]


def kind_of(file: str) -> str:
    """What a file is, with names that differ from home to home taken out."""
    parts = Path(file).parts
    if parts[0] == "runs":
        named = ("checkpoints", "weights", "tables", "figures")
        return "/".join(["run", *(part for part in parts[2:-1] if part in named), parts[-1]])
    if "splits" in parts:
        return f"split/{parts[-1]}"
    return f"{'shard' if parts[0] == 'store' else 'pack'}/{parts[-1] if 'reports' not in parts else 'reports/*.png'}"


def print_table(counts: dict[str, Counter[str]], reasons: dict[str, str]) -> None:
    """A row for each kind of file."""
    columns = ("noticed", "repaired", "harmless", "silent")
    print(f"{'file':<38}{'flips':>6}" + "".join(f"{name:>10}" for name in columns))
    total: Counter[str] = Counter()
    for kind in sorted(counts):
        total += counts[kind]
        numbers = "".join(f"{counts[kind][name]:>10}" for name in columns)
        print(f"{kind:<38}{counts[kind].total():>6}{numbers}  {reasons.get(kind, '')}".rstrip())
    print(f"{'all':<38}{total.total():>6}" + "".join(f"{total[name]:>10}" for name in columns))


def main() -> int:
    """Flip, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = make_case(Path(folder) / "case")
        flipper = Flipper(case, Path(folder) / "copy")
        counts: dict[str, Counter[str]] = {}
        reasons: dict[str, str] = {}
        silent: list[str] = []
        for flip in draw_flips(case, flipper.files, chosen.flips, chosen.seed):
            outcome, why = flipper.try_flip(flip)
            counts.setdefault(kind_of(flip.file), Counter())[outcome] += 1
            if outcome == "harmless":
                reasons[kind_of(flip.file)] = why
            if outcome == "silent":
                silent.append(f"{flip.file}, bit {flip.bit}: {why}")
                print("silent:", silent[-1], file=sys.stderr, flush=True)
        print_table(counts, reasons)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
