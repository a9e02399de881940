"""What every test stands on: a home and a working directory of its own, and one Prefect server for
those with flows.

The environment is set here, before any test file imports torch, Prefect or MLflow: no test reads or
    writes the
user's profile, home or servers.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

RunCommand = Callable[..., tuple[int, str, str]]
WriteRecipe = Callable[..., Path]

ROOT = Path(__file__).parents[1]

# Removed when this process ends; what the libraries write outside a test's own folders goes here.
_session_folder = tempfile.TemporaryDirectory(
    prefix="torchrelay-tests-", ignore_cleanup_errors=True
)

for _name in (
    "PREFECT_API_URL",
    "PREFECT_API_KEY",
    "PREFECT_PROFILE",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
):
    os.environ.pop(_name, None)
os.environ |= {
    "TORCHRELAY_HOME": f"{_session_folder.name}/home",
    "PREFECT_HOME": f"{_session_folder.name}/prefect",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLCONFIGDIR": f"{_session_folder.name}/matplotlib",
    "MPLBACKEND": "Agg",
    "TORCH_HOME": f"{_session_folder.name}/torch",
}
if "PYTEST_XDIST_WORKER" in os.environ:  # workers side by side, one core each
    os.environ["OMP_NUM_THREADS"] = "1"


if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in the background of a script; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that wait for servers and processes, so that workers wait beside others that
    compute.

    The last of them begins before the others end, and no worker is left alone with one.
    """
    files = list(dict.fromkeys(item.path for item in items))
    waits = {item.path for item in items if "prefect_server" in getattr(item, "fixturenames", ())}
    waits |= {path for path in files if path.parent.name in ("faults", "tracking")}
    waiting, computing = (
        [path for path in files if path in waits],
        [path for path in files if path not in waits],
    )
    place = {path: 0.7 * index / len(waiting) for index, path in enumerate(waiting)}
    place |= {path: index / len(computing) for index, path in enumerate(computing)}
    items.sort(key=lambda item: place[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs an accelerator where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.accelerator.is_available():
            pytest.skip("no accelerator")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder that holds pyproject.toml, prefect.yaml and the recipes; read it, never write
    in it.
    """
    return ROOT


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in its own folder, with its own TORCHRELAY_HOME inside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHRELAY_HOME", str(tmp_path / "home"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """A command of this process: exit code, standard output, standard error."""
    from torchrelay import cli

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["torchrelay", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(autouse=True)
def database_of_flows(request: pytest.FixtureRequest, own_folders: None) -> None:
    """What runs flows begins in a home whose database is there already; how one is made has
    tests of its own.
    """
    if "prefect_server" in request.fixturenames and "home" not in request.fixturenames:
        home = Path(os.environ["TORCHRELAY_HOME"])
        home.mkdir(mode=0o700)
        shutil.copyfile(request.getfixturevalue("migrated_database"), home / "mlflow.db")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One temporary Prefect server for all tests of a worker that run flows; it takes 6 to 16 s
    to start.
    """
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's migrations take a second or more: they run once, and each test copies the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHRELAY_HOME", str(tmp_path_factory.mktemp("migrated")))
        from torchrelay.tracking import make_database

        return make_database()


@pytest.fixture
def picture_recipe(tmp_path: Path) -> WriteRecipe:
    """A recipe for 8 x 8 gray pictures whose class says which half is bright."""

    def write(num_rows: int = 48, **changes: object) -> Path:
        generator = np.random.default_rng(5)
        lines = ["image,label,split"]
        (tmp_path / "images").mkdir(exist_ok=True)
        for number in range(num_rows):
            pixels = generator.integers(0, 90, (8, 8), np.uint8)
            label = "left" if number % 2 else "right"
            half = slice(0, 4) if label == "left" else slice(4, 8)
            pixels[:, half] += 150
            Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
            split = ("train", "train", "train", "valid", "test", "test")[number // 2 % 6]
            lines.append(f"images/{number}.png,{label},{split}")
        (tmp_path / "pictures.csv").write_text("\n".join(lines) + "\n")
        recipe = {
            "name": "pictures",
            "data": {
                "table": "pictures.csv",
                "inputs": {
                    "image": {
                        "kind": "image",
                        "channels": "gray",
                        "preprocess": [
                            {"name": "transform.resize", "args": {"output_shape": [32, 32]}}
                        ],
                    }
                },
                "target": {"label": {"kind": "category"}},
                "split": {"column": "split"},
            },
            "model": {"name": "lenet"},
            "train": {
                "epochs": 4,
                "batch_size": 8,
                "optimizer": {"name": "adam", "args": {"lr": 0.003}},
                "augment": [{"name": "crop", "args": {"padding": 1}}],
            },
        }
        return _write(tmp_path / "pictures.yaml", recipe, changes)

    return write


@pytest.fixture
def number_recipe(tmp_path: Path) -> WriteRecipe:
    """A recipe for y = 3 a - 2 b + 10 with a little noise, split by hash."""

    def write(num_rows: int = 120, **changes: object) -> Path:
        generator = np.random.default_rng(3)
        a, b = generator.normal(0, 2, num_rows), generator.normal(5, 1, num_rows)
        y = 3 * a - 2 * b + 10 + generator.normal(0, 0.05, num_rows)
        rows = [f"{one:.6f},{two:.6f},{three:.6f}" for one, two, three in zip(a, b, y, strict=True)]
        (tmp_path / "numbers.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")
        recipe = {
            "name": "numbers",
            "data": {
                "table": "numbers.csv",
                "inputs": {"x": {"kind": "number", "columns": ["a", "b"]}},
                "target": {"y": {"kind": "number"}},
                "split": {"valid": 0.2, "test": 0.2},
            },
            "model": {"name": "mlp", "args": {"hidden": [16]}},
            "train": {
                "epochs": 20,
                "batch_size": 8,
                "optimizer": {"name": "adam", "args": {"lr": 0.02}},
            },
        }
        return _write(tmp_path / "numbers.yaml", recipe, changes)

    return write


@pytest.fixture
def splits_recipe(tmp_path: Path) -> WriteRecipe:
    """A recipe for 40 numbers under three split columns, with 25, 24 and 23 training rows in one
    batch.
    """

    def write(**changes: object) -> Path:
        generator = np.random.default_rng(11)
        lines = ["a,b,y,split_0,split_1,split_2"]
        for number in range(40):
            a, b = generator.normal(0, 1, 2)
            sides = []
            for column in range(3):
                place = (number + 13 * column) % 40
                sides.append("train" if place < 25 - column else "valid" if place < 30 else "test")
            lines.append(
                f"{a:.6f},{b:.6f},{2 * a - b + generator.normal(0, 0.1):.6f},{','.join(sides)}"
            )
        (tmp_path / "folds.csv").write_text("\n".join(lines) + "\n")
        recipe = {
            "name": "folds",
            "data": {
                "table": "folds.csv",
                "inputs": {"x": {"kind": "number", "columns": ["a", "b"]}},
                "target": {"y": {"kind": "number"}},
                "split": {"column": "split_*"},
            },
            "model": {"name": "mlp", "args": {"hidden": [8]}},
            "train": {
                "epochs": 2,
                "batch_size": 64,
                "optimizer": {"name": "adam", "args": {"lr": 0.02}},
            },
        }
        return _write(tmp_path / "folds.yaml", recipe, changes)

    return write


@pytest.fixture
def graph_recipe(tmp_path: Path) -> WriteRecipe:
    """A recipe for 48 facts of 12 people at a round table: whom they sit next to and face, and
    where they live.

    The entity "p11" and the cities stand in training rows; "moon" stands in one test row alone.
    """

    def write(**changes: object) -> Path:
        cities = ("oslo", "rome", "bern")
        facts = []
        for number in range(12):
            person, later = f"p{number}", [f"p{(number + step) % 12}" for step in (1, 3, 6)]
            facts += [(person, "lives_in", cities[number % 3]), (person, "next_to", later[0])]
            facts += [(person, "shares_city", later[1]), (person, "shares_city", later[2])]
        np.random.default_rng(0).shuffle(facts)
        sides = [
            "test" if number % 8 == 3 else "valid" if number % 8 == 6 else "train"
            for number in range(48)
        ]
        rows = [",".join((*fact, side)) for fact, side in zip(facts, sides, strict=True)]
        rows.append("p0,next_to,moon,test")
        (tmp_path / "graph.csv").write_text("\n".join(["head,relation,tail,split", *rows]) + "\n")
        recipe = {
            "name": "graph",
            "data": {
                "table": "graph.csv",
                "inputs": {
                    "head": {"kind": "category", "vocabulary": "entities"},
                    "relation": {"kind": "category"},
                },
                "target": {"tail": {"kind": "category", "vocabulary": "entities"}},
                "split": {"column": "split"},
            },
            "model": {"name": "complex", "args": {"dim": 16, "n3": 0.01}},
            "train": {
                "epochs": 15,
                "batch_size": 16,
                "optimizer": {"name": "adagrad", "args": {"lr": 0.1}},
            },
        }
        return _write(tmp_path / "graph.yaml", recipe, changes)

    return write


# A norm that keeps running statistics and an embedded category in the body, dropout, a head.
NET_WITH_NORM = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, schema, num_outputs):
        super().__init__()
        self.colour = nn.Embedding(len(schema.inputs[1].classes) + 1, 4, padding_idx=0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x, colour):
        return self.head(self.drop(self.body(torch.cat([x, self.colour(colour[:, 0])], 1))))
"""


@pytest.fixture
def insect_recipe(tmp_path: Path) -> WriteRecipe:
    """A recipe for 60 insects of some classes and colours; the class decides where two numbers
    lie.
    """

    def write(name: str, classes: list[str], colours: list[str], **changes: object) -> Path:
        generator = np.random.default_rng(len(classes))
        lines = ["a,b,colour,label,split"]
        for number in range(60):
            place = number % len(classes)
            a, b = generator.normal(2 * place, 0.3), generator.normal(-place, 0.3)
            split = ("train", "train", "valid", "train", "test")[number // len(classes) % 5]
            lines.append(
                f"{a:.5f},{b:.5f},{colours[number % len(colours)]},{classes[place]},{split}"
            )
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        (tmp_path / "nets_with_norm.py").write_text(NET_WITH_NORM)
        recipe = {
            "name": name,
            "data": {
                "table": f"{name}.csv",
                "inputs": {
                    "x": {"kind": "number", "columns": ["a", "b"]},
                    "colour": {"kind": "category"},
                },
                "target": {"label": {"kind": "category"}},
                "split": {"column": "split"},
            },
            "model": {"name": "nets_with_norm:Net"},
            "train": {
                "epochs": 2,
                "batch_size": 8,
                "optimizer": {"name": "adamw", "args": {"lr": 0.01}},
            },
        }
        return _write(tmp_path / f"{name}.yaml", recipe, changes)

    return write


def _write(path: Path, recipe: dict[str, object], changes: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump({**recipe, **changes}, sort_keys=False))
    return path
