from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from torchrelay import cli

from .conftest import WriteRecipe

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: exit code, standard output, standard error."""

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


def test_help_answers_without_the_heavy_libraries() -> None:
    code = (
        "import sys; from torchrelay import cli; sys.argv[1:] = ['--help']\ntry: cli.main()\nexcept SystemExit: pass\n"
    )
    code += "print([name for name in ('torch', 'mlflow', 'prefect', 'pandas', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: torchrelay" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("prefect_server")
def test_train_ends_with_the_place_the_next_commands_and_the_result(run: Run, picture_recipe: WriteRecipe) -> None:
    code, out, _ = run("train", str(picture_recipe()))
    lines = out.splitlines()
    assert code == 0
    assert lines[-1] == "test accuracy 1.0000"
    assert lines[0].startswith("run       pictures-")
    assert Path(lines[1].split()[1]).is_dir()
    assert lines[2].startswith("next      torchrelay show pictures-")


@pytest.mark.usefixtures("prefect_server")
def test_json_is_one_object_on_standard_output_and_runs_and_show_agree(run: Run, number_recipe: WriteRecipe) -> None:
    code, out, err = run("train", str(number_recipe()), "--set", "train.epochs=2", "--json")
    result = json.loads(out)
    assert code == 0
    assert "epoch 2/2" in err
    needed = (
        "run_id mlflow_run_id experiment status device precision epochs steps metrics rows_per_second seconds run_dir"
    )
    assert {*needed.split(), "weights", "weights_sha256"} <= set(result)
    listed = json.loads(run("runs", "--json")[1])["runs"]
    assert [one["run_id"] for one in listed] == [result["run_id"]]
    assert listed[0]["step"] == result["steps"]
    shown = json.loads(run("show", result["mlflow_run_id"], "--json")[1])
    assert shown["metrics"] == result["metrics"]


@pytest.mark.usefixtures("prefect_server")
def test_several_values_make_one_run_each(run: Run, number_recipe: WriteRecipe) -> None:
    code, out, _ = run(
        "train", str(number_recipe()), "--set", "train.optimizer.args.lr=.01,.02", "--set", "train.epochs=1", "--json"
    )
    runs = json.loads(out)["runs"]
    assert code == 0
    assert len({one["run_id"] for one in runs}) == 2
    assert len(json.loads(run("runs", "--json")[1])["runs"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epoch=3", r"unknown key train.epoch .*did you mean epochs"),
        ("train.device=cuda:7", r"no device 'cuda:7'; it has cpu"),
        ("train.optimizer.args.lrr=1", r"train.optimizer.args.lrr.*lr"),
        ("model.name=lennet", r"model.name.*lennet.*lenet"),
        ("data.table=nowhere.csv", r"nowhere.csv"),
        ("train.loss=mse", r"mse.*cross_entropy"),
        ("train.augment=[{name: flop}]", r"flop.*flip"),
    ],
)
def test_a_mistake_exits_with_2_and_one_message_before_a_server_starts(
    run: Run,
    picture_recipe: WriteRecipe,
    change: str,
    message: str,
) -> None:
    code, out, err = run("train", str(picture_recipe()), "--set", change)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.count("error:") == 1
    assert re.search(message, err), err
    assert "temporary server" not in err


def test_a_recipe_that_is_not_there_names_those_that_are(run: Run, picture_recipe: WriteRecipe) -> None:
    picture_recipe()
    code, _, err = run("train", "picture.yaml")
    assert code == 2
    assert "recipe picture.yaml does not exist; recipes here: pictures.yaml" in err


def test_recipe_prints_defaults_and_schema(run: Run, number_recipe: WriteRecipe) -> None:
    _, out, _ = run("recipe", str(number_recipe()), "--set", "train.epochs=1e1", "--json")
    assert json.loads(out)["train"]["epochs"] == 10
    _, out, _ = run("recipe", "--schema")
    assert json.loads(out)["properties"]["data"]


def test_models_are_listed_with_shapes_and_parameters(run: Run) -> None:
    code, out, _ = run("models")
    assert code == 0
    assert any(line.startswith("lenet") and "61,706" in line and "32" in line for line in out.splitlines())


@pytest.mark.slow
def test_a_run_in_a_fresh_home_survives_a_temporary_server_that_is_slow_to_start(
    number_recipe: WriteRecipe,
    tmp_path: Path,
) -> None:
    """The server's process sleeps for longer than the 20 s after which Prefect gives up by itself."""
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text("import os, sys, time\nif 'uvicorn' in sys.orig_argv:\n    time.sleep(30)\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    environment |= {"PYTHONPATH": str(slow), "TORCHRELAY_HOME": str(tmp_path / "fresh"), "HOME": str(tmp_path / "user")}
    command = [
        sys.executable,
        "-m",
        "torchrelay.cli_main",
        "train",
        str(number_recipe()),
        "--set",
        "train.epochs=1",
        "--json",
    ]
    command[1:3] = ["-c", "from torchrelay.cli import main; main()"]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started > 30
    assert json.loads(done.stdout)["status"] == "FINISHED"
    assert not (tmp_path / "user").exists() or not any((tmp_path / "user").iterdir())
