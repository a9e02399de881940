"""What is installed: the wheel, its place beside other packages, the lock, and what an import
costs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    path.parent.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("__init__.py")
    if path.parent != ROOT
    and not path.relative_to(ROOT).parts[0].startswith((".", "tests", "build"))
}


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the repository, where its folders hide no other package; a failure
    shows its output.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "data", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder / "dist",
        cwd=folder / "source",
    )
    (found,) = (folder / "dist").glob("*.whl")
    return found


def test_all_that_is_installed_lies_under_one_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"torchrelay"}


def test_the_wheel_holds_every_package_and_recipe_and_neither_tests_nor_benchmarks(
    wheel: Path,
) -> None:
    installed = {
        name.removeprefix("torchrelay/")
        for name in zipfile.ZipFile(wheel).namelist()
        if ".dist-info/" not in name
    }
    folders = [ROOT / folder for folder in (".", *sorted(PACKAGES))]
    modules = [path for folder in folders for path in folder.glob("*.pyi")]
    modules += [path for folder in folders for path in folder.glob("*.py")]
    recipes = list((ROOT / "recipes").glob("*.yaml"))
    wanted = {path.relative_to(ROOT).as_posix() for path in [*modules, *recipes, ROOT / "py.typed"]}
    assert installed == wanted


def test_the_wheel_carries_its_licence_and_its_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (licence,) = (name for name in archive.namelist() if name.endswith("/LICENSE"))
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    (entry_points,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
    assert "torchrelay = torchrelay.cli:main" in archive.read(entry_points).decode()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_works_in_a_fresh_environment_beside_hugging_face_datasets(
    wheel: Path, tmp_path: Path
) -> None:
    uv, python = Path(sys.executable).with_name("uv"), tmp_path / "fresh" / "bin" / "python"
    run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "fresh", cwd=tmp_path)
    constraints = tmp_path / "constraints.txt"
    pins = re.findall(
        r"^[\w.-]+==.*?(?= \\$)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    constraints.write_text("\n".join(pins))
    # One package that the lock does not know; its own versions of what the lock names must give
    # way.
    run(
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "-c",
        constraints,
        wheel,
        "datasets",
        cwd=tmp_path,
    )
    code = """
import datasets, torchrelay
from importlib.resources import files
from prefect.flows import load_flow_from_entrypoint
assert hasattr(datasets, "load_dataset"), datasets
print(torchrelay.__file__)
for name in ("ingest", "train", "evaluate"):
    print(load_flow_from_entrypoint(f"torchrelay.flows.{name}.{name}").name)
assert (files("torchrelay.recipes") / "digits.yaml").is_file()
"""
    place, *flows = run(python, "-c", code, cwd=tmp_path).split()
    assert Path(place).is_relative_to(tmp_path / "fresh")
    assert flows == ["ingest", "train", "evaluate"]
    assert "Usage: torchrelay" in run(python.with_name("torchrelay"), "--help", cwd=tmp_path)


# pyproject.toml and requirements.lock


def test_every_folder_with_code_is_a_listed_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == {
        "torchrelay",
        *(f"torchrelay.{name.replace('/', '.')}" for name in PACKAGES),
    }


def test_the_lock_names_versions_and_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.findall(r"://|--(?:index|extra-index|find-links)", text)
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert all(
        re.match(r"[\w.-]+==\S+( ; [^\\]*)? \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$", line)
        for line in lines
    )


def test_the_lock_holds_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    locked = set(
        re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    )
    assert {re.split(r"[<>=!~\[; ]", line)[0].lower() for line in wanted} <= locked


# Imports


HEAVY = (
    "torch",
    "torchvision",
    "mlflow",
    "prefect",
    "pandas",
    "numpy",
    "skimage",
    "sklearn",
    "matplotlib",
    "rich",
)


@pytest.mark.parametrize(
    "module", ["cli", "recipe.model", "recipe.file", "settings", "disk.atomic", "errors"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str, tmp_path: Path) -> None:
    code = (
        f"import sys, torchrelay.{module}; print(*(name for name in {HEAVY} if name in "
        "sys.modules))"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path).split() == []


def test_records_and_journals_are_read_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, torchrelay.schema\nfrom torchrelay.runs import Journal, load_record\n"
        "print(*(name for name in ('torch', 'mlflow', 'prefect', 'pandas') if name in sys.modules))"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path).split() == []
