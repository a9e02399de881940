"""Pictures of several shards, gathered into one batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay.datasets.store import store as store_module

from .batches.test_loader import rows_of, same, view_of


def test_many_shards_give_the_same_batches_as_one(
    tmp_path: Path,
    write_table: Callable[..., str],
    write_pictures: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view, other = view_of(tmp_path, write_table, write_pictures), tmp_path / "other"
    other.mkdir()
    (other / "images").symlink_to(tmp_path / "images")
    monkeypatch.setattr(store_module, "SHARD_BYTES", 48 * 5)
    monkeypatch.setattr(store_module, "BATCH_FILES", 5)
    many = view_of(other, lambda rows: write_table(rows, "other/table.csv"), lambda names: None)
    assert len(many.pack.image("image").shards) > 5
    index = [3, 36, 0, 12, 12]
    assert same(
        rows_of(many, "train").__getitems__(index), rows_of(view, "train").__getitems__(index)
    )
