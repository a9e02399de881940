"""Small recipes over tables made here: a CNN, an MLP, a bag of words and triples, in all that a
checkpoint must keep.

Each case has something that a resumed run could get wrong: dropout draws from torch's generator,
    weights are averaged,
batches are accumulated, workers gather ahead, checkpoints fall in the middle of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

SPLITS = ("train", "train", "train", "valid", "test", "train")


def write_recipe(folder: Path, case: str, **changes: Any) -> Path:
    """Write the table and the recipe of a case; `changes` go over the recipe's parts."""
    data, recipe = CASES[case]
    folder.mkdir(parents=True, exist_ok=True)
    whole: dict[str, Any] = {"name": case, "data": data(folder), **recipe}
    for part, values in changes.items():
        whole[part] = {**whole.get(part, {}), **values}
    path = folder / f"{case}.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def _pictures(folder: Path) -> dict[str, Any]:
    """48 gray pictures whose class says which half is bright."""
    generator = np.random.default_rng(5)
    lines = ["image,label,split"]
    for number in range(48):
        pixels = generator.integers(0, 90, (8, 8), np.uint8)
        pixels[:, 4 * (number % 2) : 4 * (number % 2) + 4] += 150
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'left' if number % 2 else 'right'},{SPLITS[number // 2 % 6]}")
    image = {
        "kind": "image",
        "channels": "gray",
        "preprocess": [{"name": "transform.resize", "args": {"output_shape": [32, 32]}}],
    }
    return _data(folder, lines, {"image": image}, {"label": {"kind": "category"}})


def _numbers(folder: Path) -> dict[str, Any]:
    """120 rows of y = 3 a - 2 b + 10 with noise."""
    generator = np.random.default_rng(3)
    lines = ["a,b,y,split"]
    for number in range(120):
        a, b = generator.normal(0, 2), generator.normal(5, 1)
        lines.append(
            f"{a:.6f},{b:.6f},{3 * a - 2 * b + 10 + generator.normal(0, 0.05):.6f},"
            f"{SPLITS[number % 6]}"
        )
    return _data(
        folder, lines, {"x": {"kind": "number", "columns": ["a", "b"]}}, {"y": {"kind": "number"}}
    )


def _sentences(folder: Path) -> dict[str, Any]:
    """60 sentences whose words tell their language."""
    generator = np.random.default_rng(7)
    words = {
        "english": ("the", "house", "is", "red", "and", "old"),
        "spanish": ("la", "casa", "es", "roja", "y", "vieja"),
    }
    lines = ["text,language,split"]
    for number in range(60):
        language = ("english", "spanish")[number % 2]
        lines.append(
            f"{' '.join(generator.choice(words[language], 5))},{language},{SPLITS[number // 2 % 6]}"
        )
    return _data(
        folder,
        lines,
        {"text": {"kind": "text", "tokens": "words"}},
        {"language": {"kind": "category"}},
    )


def _facts(folder: Path) -> dict[str, Any]:
    """48 facts of 12 people at a round table."""
    cities, facts = ("oslo", "rome", "bern"), []
    for number in range(12):
        person = f"p{number}"
        facts += [(person, "lives_in", cities[number % 3])]
        facts += [
            (person, name, f"p{(number + step) % 12}")
            for name, step in (("next", 1), ("same", 3), ("faces", 6))
        ]
    np.random.default_rng(0).shuffle(facts)
    sides = [
        "test" if number % 8 == 3 else "valid" if number % 8 == 6 else "train"
        for number in range(len(facts))
    ]
    lines = [
        "head,relation,tail,split",
        *(",".join((*fact, side)) for fact, side in zip(facts, sides, strict=True)),
    ]
    entity = {"kind": "category", "vocabulary": "entities"}
    return _data(
        folder, lines, {"head": entity, "relation": {"kind": "category"}}, {"tail": entity}
    )


def _data(
    folder: Path, lines: list[str], inputs: dict[str, Any], target: dict[str, Any]
) -> dict[str, Any]:
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return {"table": "table.csv", "inputs": inputs, "target": target, "split": {"column": "split"}}


def _train(epochs: int, batch_size: int, optimizer: str, lr: float, **more: Any) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": {"name": optimizer, "args": {"lr": lr}},
        **more,
    }


Make = Callable[[Path], dict[str, Any]]
CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "cnn": (
        _pictures,
        {
            "model": {"name": "lenet"},
            "train": _train(
                6, 8, "adam", 0.003, augment=[{"name": "crop", "args": {"padding": 1}}]
            ),
        },
    ),
    "cnn-bf16-ema-workers": (
        _pictures,
        {
            "model": {"name": "lenet"},
            "train": _train(6, 4, "adamw", 0.003, precision="bf16", ema=0.9, num_workers=2),
            "checkpoint": {"every_steps": 3},
        },
    ),
    "mlp-dropout": (
        _numbers,
        {
            "model": {"name": "mlp", "args": {"hidden": [16, 16], "dropout": 0.2}},
            "train": _train(20, 8, "adam", 0.01, schedule={"name": "one_cycle"}),
            "checkpoint": {"every_steps": 7},
        },
    ),
    "mlp-ema-accumulate": (
        _numbers,
        {
            "model": {"name": "mlp", "args": {"hidden": [16]}},
            "train": _train(
                30,
                4,
                "adamw",
                0.01,
                ema=0.95,
                accumulate=3,
                clip_norm=1.0,
                schedule={"name": "plateau"},
            ),
        },
    ),
    "words": (
        _sentences,
        {
            "model": {"name": "bag_of_words"},
            "train": _train(20, 4, "sgd", 0.1, loss="nll"),
            "checkpoint": {"every_steps": 5, "keep": 1},
        },
    ),
    "words-workers": (
        _sentences,
        {"model": {"name": "bag_of_words"}, "train": _train(8, 8, "adam", 0.02, num_workers=2)},
    ),
    "triples-bf16": (
        _facts,
        {
            "model": {"name": "complex", "args": {"dim": 16, "n3": 0.01}},
            "train": _train(15, 16, "adagrad", 0.1, precision="bf16"),
            "checkpoint": {"every_steps": 4},
        },
    ),
    "triples-ema-accumulate": (
        _facts,
        {
            "model": {"name": "distmult", "args": {"dim": 16}},
            "train": _train(20, 8, "adam", 0.01, ema=0.9, accumulate=2),
        },
    ),
}
