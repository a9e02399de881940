"""Files that are not as they were written, of runs, their journals and splits: found, and had back where that goes.

A file of a run is put back from a copy with the sha256 that the run's record has of it; a split is made anew from its
table. What is in the way is set aside, never deleted.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..datasets.build import prepare_data, prepare_for_schema, prepare_inputs
from ..datasets.pack import Pack
from ..datasets.space import hold_data, list_folders, list_packs
from ..datasets.split_files import DamagedSplitError, verify_split
from ..engine.generations import DamagedError, list_generations, read_manifest, read_state, verify_pointer
from ..engine.job import kept_weights
from ..engine.weights import dump_weights
from ..errors import CheckpointError, DataError, SourceError
from ..files import lock, set_aside, write_atomic
from ..seals import seal_name
from ..tracking.records import RunRecord, load_record
from ..tracking.run_files import CHECKPOINTS, RECIPE_FILE, SCHEMA_FILE, read_recipe, read_schema, why_changed
from .examination import Examination, Finding, is_elsewhere, may_be_alive
from .sources import heritage_of


def find_altered_files(exam: Examination) -> Iterator[Finding]:
    """Files of runs that do not have the sha256 that the record has of them."""
    for record, run_dir in _resting(exam):
        for name in record.files:
            try:
                reason = why_changed(run_dir, record, name)
            except SourceError as error:
                yield Finding("runs", str(error), "mend that, then look again")
                continue
            if reason:
                yield Finding(
                    "runs",
                    f"{record.run_id}: {reason}",
                    f"{exam.fix} puts it back where it finds a copy; else put one back, or train the run again",
                    lambda run_dir=run_dir, name=name: _put_back(exam, run_dir, name),
                )


def find_bad_pointers(exam: Examination) -> Iterator[Finding]:
    """Pointers to checkpoints that are not as they were written."""
    for record, run_dir in _resting(exam):
        for pointer in ("best", "last"):
            try:
                verify_pointer(run_dir / CHECKPOINTS, pointer)
            except (DamagedError, OSError) as error:
                yield Finding(
                    "checkpoints",
                    f"{record.run_id}/{CHECKPOINTS}: {error}",
                    f"{exam.fix} writes it anew, as the newest manifest says",
                    lambda run_dir=run_dir, pointer=pointer: _point_anew(run_dir, pointer),
                )


def _resting(exam: Examination) -> Iterator[tuple[RunRecord, Path]]:
    """Runs that nobody writes, here or perhaps elsewhere."""
    for record in exam.runs().records:
        run_dir = exam.home.runs / record.run_id
        if not may_be_alive(run_dir) and not is_elsewhere(exam, run_dir):
            yield record, run_dir


def _point_anew(run_dir: Path, pointer: str) -> str:
    with lock(run_dir / "lock", f"run {run_dir.name}"):
        folder = run_dir / CHECKPOINTS
        for generation in reversed(list_generations(folder)):
            try:
                best = read_manifest(generation, run_dir.name)["best"]
            except DamagedError:
                continue
            name = best if pointer == "best" else generation.name
            if name:
                write_atomic(folder / pointer, seal_name(name))
                return f"{run_dir.name}/{CHECKPOINTS}/{pointer}: names {name} again"
        return f"{run_dir.name}/{CHECKPOINTS}/{pointer}: set aside as {set_aside(folder / pointer).name}"


def _put_back(exam: Examination, run_dir: Path, name: str) -> str:
    with lock(run_dir / "lock", f"run {run_dir.name}"):
        record = load_record(run_dir)
        wanted = record.files[name]
        for place, content in _copies(exam, run_dir, record, name):
            if hashlib.sha256(content).hexdigest() == wanted:
                aside = set_aside(run_dir / name).name if (run_dir / name).exists() else ""
                write_atomic(run_dir / name, content)
                said = f"; what was there is {aside}" if aside else ""
                return f"run {run_dir.name}: {name} put back from {place}{said}"
    raise SourceError("no copy of it was found")


def _copies(exam: Examination, run_dir: Path, record: RunRecord, name: str) -> Iterator[tuple[str, bytes]]:
    """Where a file may be had from, and its bytes there, right or wrong."""
    for path in exam.home.artifacts.glob(f"*/{record.mlflow_run_id}/artifacts/{name}") if record.mlflow_run_id else ():
        yield "MLflow's artifacts", path.read_bytes()
    split = Path(record.split_dir) / SCHEMA_FILE
    if name == SCHEMA_FILE and record.split_dir and split.is_file():
        yield "its split", split.read_bytes()
    if name not in (RECIPE_FILE, "weights/best.pt", "weights/last.pt"):
        return
    for generation in reversed(list_generations(run_dir / CHECKPOINTS)):
        try:
            data = read_state(generation, read_manifest(generation, run_dir.name))
        except CheckpointError:
            continue
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        place = f"checkpoint {generation.name}"
        yield place, state["facts"]["recipe"].encode() if name == RECIPE_FILE else dump_weights(kept_weights(state))


def find_bad_splits(exam: Examination) -> Iterator[Finding]:
    """Splits of packs that do not verify."""
    for pack_dir in list_packs(exam.home):
        for split_dir in list_folders(pack_dir / "splits"):
            if split_dir.name.startswith("bad-"):
                continue
            try:
                verify_split(split_dir)
            except DamagedSplitError as error:
                what, _, remedy = str(error).partition("; ")
                mend = mend_by_ingest(exam, split_dir)
                yield Finding("packs", what, f"{exam.fix} makes it anew from its table" if mend else remedy, mend)
            except DataError as error:
                yield Finding("packs", str(error), "mend that, then look again")


def mend_by_ingest(exam: Examination, folder: Path) -> Callable[[], str] | None:
    """What makes a pack or a split anew: the ingest of a run that refers to it; None where no run does."""
    found = (one for one in exam.runs().records if folder in (Path(one.split_dir), Path(one.pack_dir)))
    record = next((one for one in found if one.kind != "splits"), None)
    return None if record is None else lambda: _ingest_again(exam, record, folder)


def _ingest_again(exam: Examination, record: RunRecord, folder: Path) -> str:
    """Read a run's table again, which finds what is damaged and makes it anew.

    Raises:
        DataError: the table makes other data now, or cannot be read.
    """
    run_dir = exam.home.runs / record.run_id
    recipe = read_recipe(run_dir)
    with hold_data(exam.home), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is made anew is what was found
        if record.kind == "train":
            made = prepare_data(recipe.data, exam.home, None, heritage_of(recipe))
        else:
            prepare = prepare_for_schema if record.kind == "evaluate" else prepare_inputs
            made = prepare(recipe.data, read_schema(run_dir), exam.home)
    if folder not in (made.pack_dir, made.split_dir):
        raise DataError(f"{recipe.data.table} makes other data now than run {record.run_id} had")
    Pack.open(made.pack_dir).verify()
    return f"{folder.relative_to(exam.home.root)}: made anew from {recipe.data.table}"
