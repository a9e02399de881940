"""Has back what the doctor found altered.

A file of a run from a copy, a pack or a split from its table.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from ...datasets.ingest import prepare_data, prepare_for_schema, prepare_inputs
from ...datasets.pack import Pack, hold_data
from ...disk import set_aside, write_atomic
from ...engine import kept_weights
from ...engine.checkpoints import list_generations, read_manifest, read_state
from ...errors import CheckpointError, DataError, SourceError
from ...runs import (
    BEST,
    CHECKPOINTS,
    LAST,
    RECIPE_FILE,
    SCHEMA_FILE,
    Run,
    RunRecord,
)
from ...settings import Home
from ...tasks.assembly import inherited_schema_of
from ...weights import dump_weights
from ..examination import artifacts_of


def put_back(home: Home, run: Run, name: str) -> str:
    """Put a file of a run back from a copy with the sha256 that the record has
    of it.

    Raises:
        SourceError: no copy was found.
    """
    with run.lock():
        wanted = run.record.files[name]
        for place, content in _copies(home, run, name):
            if hashlib.sha256(content).hexdigest() == wanted:
                aside = set_aside(run.folder / name).name if (run.folder / name).exists() else ""
                write_atomic(run.folder / name, content)
                said = f"; what was there is {aside}" if aside else ""
                return f"run {run.run_id}: {name} put back from {place}{said}"
    raise SourceError("no copy of it was found")


def _copies(home: Home, run: Run, name: str) -> Iterator[tuple[str, bytes]]:
    """Where a file may be had from, and its bytes there, right or wrong."""
    record = run.record
    path = artifacts_of(home, record) / name
    if record.mlflow_run_id and path.is_file():
        yield "MLflow's artifacts", path.read_bytes()
    split = Path(record.split_dir) / SCHEMA_FILE
    if name == SCHEMA_FILE and record.split_dir and split.is_file():
        yield "its split", split.read_bytes()
    if name not in (RECIPE_FILE, BEST, LAST):
        return
    for generation in reversed(list_generations(run.folder / CHECKPOINTS)):
        try:
            data = read_state(generation, read_manifest(generation, run.run_id))
        except CheckpointError:
            continue
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        place = f"checkpoint {generation.name}"
        yield (
            place,
            state["facts"]["recipe"].encode()
            if name == RECIPE_FILE
            else dump_weights(kept_weights(state)),
        )


def ingest_again(home: Home, record: RunRecord, folder: Path) -> str:
    """Read a run's table again, which finds what is damaged and makes it anew.

    Raises:
        DataError: the table makes other data now, or cannot be read.
    """
    run = Run(home.runs / record.run_id, record)
    recipe = run.recipe
    with hold_data(home), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is made anew is what was found
        if record.kind == "train":
            made = prepare_data(recipe.data, home, None, inherited_schema_of(recipe))
        else:
            prepare = prepare_for_schema if record.kind == "evaluate" else prepare_inputs
            made = prepare(recipe.data, run.schema, home)
    if folder not in (made.pack_dir, made.split_dir):
        raise DataError(f"{recipe.data.table} makes other data now than run {record.run_id} had")
    Pack.open(made.pack_dir).verify()
    return f"{folder.relative_to(home.root)}: made anew from {recipe.data.table}"
