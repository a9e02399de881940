"""Whatever is on disk says its format version, and another one is refused by one sentence with a
remedy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torchrelay.datasets.pack import Pack
from torchrelay.disk import digest
from torchrelay.engine.checkpoints import CheckpointStore, dump_manifest
from torchrelay.errors import (
    CheckpointError,
    DataError,
    RecipeError,
    SourceError,
    TorchrelayError,
    TrackingError,
)
from torchrelay.recipe import load_recipe
from torchrelay.runs import Cursor, Journal, RunRecord, load_record, now, save_record
from torchrelay.schema import FORMAT_VERSION as SCHEMA
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.settings import Home

Reader = Callable[[], object]


def make_recipe(folder: Path) -> tuple[Path, Reader]:
    path = folder / "recipe.yaml"
    path.write_text('{"format_version": 1, "name": "x"}')
    return path, lambda: load_recipe(path)


def make_pack(folder: Path) -> tuple[Path, Reader]:
    manifest = {
        "format_version": 2,
        "fingerprint": "0" * 32,
        "num_rows": 0,
        "features": [],
        "files": {},
    }
    path = folder / digest(manifest) / "manifest.json"
    path.parent.mkdir()
    path.write_text(json.dumps(manifest))
    return path, lambda: Pack.open(path.parent)


def make_schema(folder: Path) -> tuple[Path, Reader]:
    feature = FeatureSchema(
        name="x", kind="number", columns=["x"], shape=[1], dtype="float64", mean=[0], std=[1]
    )
    path = folder / "schema.json"
    Schema(inputs=[feature], targets=[feature.model_copy(update={"name": "y"})]).save(path)
    return path, lambda: Schema.load(path)


def make_checkpoint(folder: Path) -> tuple[Path, Reader]:
    store = CheckpointStore(folder / "checkpoints", 1, {"run_id": "x"}, {})
    saved = store.save({"weight": torch.zeros(1)}, 1, is_best=True)
    assert saved is not None
    return saved / "manifest.json", store.load_last


def make_record(folder: Path) -> tuple[Path, Reader]:
    run_dir = save_record(
        Home(folder), RunRecord(run_id="x", name="x", experiment="x", created=now())
    )
    return run_dir / "run.json", lambda: load_record(run_dir)


def make_journal(folder: Path) -> tuple[Path, Reader]:
    path = folder / "journal.jsonl"
    with Journal(path) as journal:
        journal.append_event("begun")
    return path, lambda: list(Journal(path).lines())


def make_cursor(folder: Path) -> tuple[Path, Reader]:
    Cursor(offset=5).save(folder)
    return folder / "shipped.json", lambda: Cursor.load(folder)


KINDS = [
    (make_recipe, 1, RecipeError, "write it as format_version: 1"),
    (make_pack, 2, DataError, "run `torchrelay ingest` again"),
    (make_schema, SCHEMA, SourceError, "train the run again"),
    (make_checkpoint, 2, CheckpointError, "resume the run with the torchrelay that wrote it"),
    (make_record, 1, SourceError, "train the run again"),
    (make_cursor, 1, TrackingError, "remove it: all is sent again, once"),
    (make_journal, 1, TrackingError, "train the run again"),
]


@pytest.mark.parametrize(
    ("make", "reads", "kind", "again"), KINDS, ids=[make.__name__ for make, *_ in KINDS]
)
def test_another_format_version_says_which_is_read_and_what_to_do(
    make: Callable[[Path], tuple[Path, Reader]],
    reads: int,
    kind: type[TorchrelayError],
    again: str,
    tmp_path: Path,
) -> None:
    path, read = make(tmp_path)
    assert read()
    text = path.read_text()
    for found, remedy in (
        (reads + 1, "a newer torchrelay wrote it: upgrade this one"),
        (reads - 1, again),
    ):
        first, rest = text.split("\n", 1) if make is make_journal else (text, "")
        values = json.loads(first) | {"format_version": found}
        values.pop("digest", None)
        path.write_text(
            dump_manifest(values)
            if make is make_checkpoint
            else "\n".join([json.dumps(values), rest])
        )
        before = path.read_bytes()
        message = (
            f"has format_version {found}, this torchrelay reads format_version {reads}; .*{remedy}"
        )
        with pytest.raises(kind, match=message) as caught:
            read()
        assert type(caught.value) is kind
        assert path.read_bytes() == before
