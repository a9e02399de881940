"""Tables that are more than pictures of 8 bits with a label: they train through the flow as they
are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from torchrelay.flows.ingest import ingest
from torchrelay.flows.train import train
from torchrelay.schema import Schema

pytestmark = pytest.mark.usefixtures("prefect_server")

WriteRecipe = Callable[..., str]
SPLITS = ("train", "train", "train", "valid", "test", "test")


@pytest.fixture
def write_recipe(tmp_path: Path) -> WriteRecipe:
    """Write a table of text rows and a recipe for it."""

    def write(header: str, rows: list[str], data: dict[str, Any], model: str, **train: Any) -> str:
        (tmp_path / "table.csv").write_text("\n".join([header, *rows]) + "\n")
        recipe = {
            "name": "wide",
            "data": {"table": "table.csv", "split": {"column": "split"}, **data},
            "model": {"name": model},
            "train": {
                "batch_size": 8,
                "optimizer": {"name": "adam", "args": {"lr": 0.01}},
                **train,
            },
        }
        (tmp_path / "wide.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        return str(tmp_path / "wide.yaml")

    return write


def test_tiffs_of_16_bits_and_two_channels_are_learned(
    tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    # What tells the classes apart is in the low byte of the second channel: 8 bits, or one channel,
    # would lose it.
    generator, rows = np.random.default_rng(2), []
    for number in range(48):
        pixels = generator.integers(0, 2, (2, 8, 8)).astype(np.uint16) * np.uint16(256)
        pixels[1] = 40_000 + (200 if number % 2 else 0) + generator.integers(0, 20, (8, 8))
        tifffile.imwrite(
            tmp_path / f"{number}.tif",
            pixels.transpose(1, 2, 0),
            photometric="minisblack",
            planarconfig="contig",
        )
        rows.append(f"{number}.tif,{'high' if number % 2 else 'low'},{SPLITS[number // 2 % 6]}")
    image = {"kind": "image", "channels": 2, "dtype": "uint16"}
    data = {"inputs": {"image": image}, "target": {"label": {"kind": "category"}}}
    augment = [
        {"name": "flip", "args": {}},
        {"name": "crop", "args": {"padding": 1, "mode": "reflect"}},
    ]
    result = train(
        recipe_file=write_recipe("image,label,split", rows, data, "mlp", epochs=8, augment=augment)
    )
    assert result["metrics"]["test/accuracy"] == 1.0
    [feature] = Schema.load(Path(result["run_dir"]) / "schema.json").inputs
    assert (feature.shape, feature.dtype) == ([2, 8, 8], "uint16")
    assert feature.mean[1] == pytest.approx(40_109.5, abs=5)


def test_an_image_and_two_number_columns_are_learned_together(
    tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    # Half of the label is in the picture (which side is bright), half in the numbers: neither alone
    # tells four classes.
    generator, rows = np.random.default_rng(5), []
    for number in range(96):
        side, sign = number % 2, number // 2 % 2
        pixels = generator.integers(0, 90, (32, 32), np.uint8)
        pixels[:, 16 * side : 16 * side + 16] += 150
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        a = generator.normal(3 if sign else -3, 0.5)
        split = SPLITS[number // 4 % 6]
        rows.append(
            f"{number}.png,{a:.3f},{generator.normal(50, 9):.3f},{'lr'[side]}{'-+'[sign]},{split}"
        )
    inputs = {
        "image": {"kind": "image", "channels": "gray"},
        "x": {"kind": "number", "columns": ["a", "b"]},
    }
    data = {"inputs": inputs, "target": {"label": {"kind": "category"}}}
    result = train(recipe_file=write_recipe("image,a,b,label,split", rows, data, "lenet", epochs=6))
    assert result["metrics"]["test/accuracy"] > 0.9


def test_npy_pictures_are_ingested_and_a_pickled_one_gets_a_verdict(
    tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    rows = []
    for number in range(12):
        pixels = np.random.default_rng(number).random((6, 5, 4)).astype(np.float32)
        np.save(tmp_path / f"{number}.npy", pixels if number != 7 else np.array([[print]], object))
        rows.append(f"{number}.npy,{'ab'[number % 2]},{SPLITS[number // 2 % 6]}")
    image = {"kind": "image", "channels": 4, "dtype": "float32"}
    data = {
        "inputs": {"image": image},
        "target": {"label": {"kind": "category"}},
        "max_bad_rows": 0.1,
    }
    found = ingest(recipe_file=write_recipe("image,label,split", rows, data, "mlp"))
    assert found["num_decoded"] == 11
    assert '8,"bad image, a pickled npy, which is not read' in Path(found["quarantine"]).read_text()
    assert (
        Path(found["report_csv"])
        .read_text()
        .startswith("section,name,split,value\nrows,table,,12\n")
    )
