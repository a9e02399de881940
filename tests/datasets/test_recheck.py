"""`--recheck` reads what the stamps of files would let it leave out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

from torchrelay.datasets.files import paths
from torchrelay.datasets.store import store

from ..conftest import RunCommand, WriteRecipe


def test_recheck_reads_again_what_no_stamp_shows(
    run: RunCommand, picture_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SETTLED_SECONDS", 0)
    for module in (paths, store):
        monkeypatch.setattr(module, "stamp_of", lambda status: "always the same")
    recipe = str(picture_recipe())
    run("train", recipe, "--dry-run")
    time.sleep(0.02)
    Image.new("L", (8, 8), 77).save(tmp_path / "images" / "0.png")
    assert "(pack reused" in run("train", recipe, "--dry-run")[2]
    assert "(1 files decoded" in run("train", recipe, "--dry-run", "--recheck")[2]
