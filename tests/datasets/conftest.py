"""Tiny real tables and pictures that the tests of datasets write into their own folders."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchrelay.datasets.files import Files, stamp_of
from torchrelay.recipe import Data
from torchrelay.settings import Home

sys.path.append(str(Path(__file__).parent / "images" / "formats"))

WriteTable = Callable[..., str]
WritePictures = Callable[..., None]
MakeData = Callable[..., Data]


def stat_files(paths: Sequence[str]) -> Files:
    """Files as `find_files` gives them; of those that are not there the path alone."""
    found = [Path(path).stat() if Path(path).exists() else None for path in paths]
    sizes = np.array([one.st_size if one else 0 for one in found], np.int64)
    return Files(list(paths), sizes, [stamp_of(one) if one else "" for one in found], [], [])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def write_table(tmp_path: Path) -> WriteTable:
    """Write text, bytes, or rows under a header, and give the path."""

    def write(content: str | bytes | list[str], name: str = "table.csv") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(content) + "\n" if isinstance(content, list) else content
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


@pytest.fixture
def write_pictures(tmp_path: Path) -> WritePictures:
    """Write PNG files of 4 x 4 random pixels that depend on the name alone, below images/."""

    def write(names: Iterable[str], size: tuple[int, int] = (4, 4)) -> None:
        for name in names:
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(
                0, 256, (*size, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(path, format="PNG")

    return write


@pytest.fixture
def image_data(tmp_path: Path) -> MakeData:
    """The data part of a recipe: column image in images/, column label, column split."""

    def make(table: str, **changes: Any) -> Data:
        values: dict[str, Any] = {
            "table": table,
            "files": str(tmp_path / "images"),
            "inputs": {"image": {"kind": "image"}},
            "target": {"label": {"kind": "category"}},
            "split": {"column": "split"},
        }
        return Data.model_validate(values | changes)

    return make


@pytest.fixture
def number_data() -> MakeData:
    """The data part of a recipe: columns x0, x1, … and the category column label, all rows
    train.
    """

    def make(table: str, **changes: Any) -> Data:
        values: dict[str, Any] = {
            "table": table,
            "inputs": {"x": {"kind": "number", "columns": "x*"}},
            "target": {"label": {"kind": "category"}},
            "split": {"valid": 0, "test": 0},
        }
        return Data.model_validate(values | changes)

    return make
