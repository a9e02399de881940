from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from prefect import get_client

from torchrelay import cli
from torchrelay.cli.results import headline

from ..conftest import RunCommand, WriteRecipe


def test_help_answers_without_the_heavy_libraries() -> None:
    code = (
        "import sys; from torchrelay import cli; sys.argv[1:] = ['--help']\ntry: "
        "cli.main()\nexcept SystemExit: pass\n"
    )
    code += (
        "print([name for name in ('torch', 'mlflow', 'prefect', 'pandas', 'pydantic') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: torchrelay" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("prefect_server")
def test_train_ends_with_the_place_the_next_commands_and_the_result(
    run: RunCommand, picture_recipe: WriteRecipe
) -> None:
    code, out, _ = run("train", str(picture_recipe()))
    lines = out.splitlines()
    assert code == 0
    assert lines[-1] == "test accuracy 1.0000"
    assert lines[0].startswith("run       pictures-")
    assert Path(lines[1].split()[1]).is_dir()
    assert lines[2].startswith("next      torchrelay show pictures-")
    assert (
        lines[3] == "interval  0.7941 to 1.0000 (95 %, over the test rows)"
    )  # 1 - .025^(1/16): all 16 are right


@pytest.mark.usefixtures("prefect_server")
def test_json_is_one_object_on_standard_output_and_runs_and_show_agree(
    run: RunCommand, number_recipe: WriteRecipe
) -> None:
    code, out, err = run("train", str(number_recipe()), "--set", "train.epochs=2", "--json")
    result = json.loads(out)
    assert code == 0
    assert "epoch 2/2" in err
    needed = (
        "run_id mlflow_run_id experiment status device precision epochs steps metrics "
        "rows_per_second seconds run_dir"
    )
    assert {*needed.split(), "weights", "weights_sha256"} <= set(result)
    listed = json.loads(run("runs", "--json")[1])["runs"]
    assert [one["run_id"] for one in listed] == [result["run_id"]]
    assert listed[0]["step"] == result["steps"]
    shown = json.loads(run("show", result["mlflow_run_id"], "--json")[1])
    assert shown["metrics"] == result["metrics"]


@pytest.mark.usefixtures("prefect_server")
def test_several_values_make_one_run_each(run: RunCommand, number_recipe: WriteRecipe) -> None:
    code, out, _ = run(
        "train",
        str(number_recipe()),
        "--set",
        "train.optimizer.args.lr=.01,.02",
        "--set",
        "train.epochs=1",
        "--json",
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
    run: RunCommand,
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


def test_a_recipe_that_is_not_there_names_those_that_are(
    run: RunCommand, picture_recipe: WriteRecipe
) -> None:
    picture_recipe()
    code, _, err = run("train", "picture.yaml")
    assert code == 2
    assert "recipe picture.yaml does not exist; recipes here: pictures.yaml" in err


def test_recipe_prints_defaults_and_schema(run: RunCommand, number_recipe: WriteRecipe) -> None:
    _, out, _ = run("recipe", str(number_recipe()), "--set", "train.epochs=1e1", "--json")
    assert json.loads(out)["train"]["epochs"] == 10
    _, out, _ = run("recipe", "--schema")
    assert json.loads(out)["properties"]["data"]


def test_models_are_listed_with_shapes_and_parameters(run: RunCommand) -> None:
    code, out, _ = run("models")
    assert code == 0
    assert any(
        line.startswith("lenet") and "61,706" in line and "32" in line for line in out.splitlines()
    )


@pytest.mark.usefixtures("prefect_server")
def test_a_mistake_found_inside_a_task_is_said_once(
    run: RunCommand, number_recipe: WriteRecipe
) -> None:
    recipe = number_recipe()
    table = Path("numbers.csv")
    table.write_text(table.read_text().replace("\n", "\nnan,1,1\n", 8))
    code, out, err = run("train", str(recipe))
    assert (code, out) == (2, "")
    assert err.count("rows are bad") == 1
    assert "Traceback" not in err


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.slow
def test_resume_takes_what_a_run_can_change_and_refuses_the_rest(
    run: RunCommand, number_recipe: WriteRecipe
) -> None:
    result = json.loads(run("train", str(number_recipe()), "--set", "train.epochs=2", "--json")[1])
    code, _, err = run("resume", result["run_id"], "--set", "train.batch_size=4")
    assert code == 2
    assert "train.batch_size: a run goes on with what it began with" in err
    code, _, err = run("resume", result["run_id"])
    assert code == 2
    assert "is finished (2 of 2 epochs); --set train.epochs=4 makes it longer" in err
    code, out, _ = run("resume", result["run_id"], "--set", "train.epochs=3", "--json")
    longer = json.loads(out)
    assert (code, longer["epochs"], longer["mlflow_run_id"]) == (0, 3, result["mlflow_run_id"])
    assert longer["prefect_flow_run_id"] != result["prefect_flow_run_id"]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.slow
def test_a_run_that_another_process_writes_is_left_as_it_is(
    run: RunCommand, number_recipe: WriteRecipe
) -> None:
    result = json.loads(run("train", str(number_recipe()), "--set", "train.epochs=1", "--json")[1])
    run_dir = Path(result["run_dir"])
    before = {
        name: (run_dir / name).read_bytes() for name in ("run.json", "recipe.yaml", "journal.jsonl")
    }
    hold = "import sys; from pathlib import Path; from torchrelay.disk import lock\n"
    hold += "with lock(Path(sys.argv[1]), 'it'): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(run_dir / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        code, _, err = run("resume", result["run_id"], "--set", "train.epochs=3")
        other.communicate("")
    assert code == 2
    assert f"is being written by pid {other.pid} on " in err
    assert {name: (run_dir / name).read_bytes() for name in before} == before


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.slow
def test_a_sweep_goes_on_after_a_run_that_fails_and_prints_those_that_did_not(
    run: RunCommand, number_recipe: WriteRecipe
) -> None:
    sweep = "train.optimizer={name: sgd, args: {lr: 1.0e+30}},{name: sgd, args: {lr: 0.01}}"
    code, out, err = run(
        "train", str(number_recipe()), "--set", sweep, "--set", "train.epochs=1", "--json"
    )
    assert code == 1
    assert [one["status"] for one in json.loads(out)["runs"]] == ["FINISHED"]
    assert "the loss is" in err
    assert "1 of 2 runs failed" in err


@pytest.mark.usefixtures("prefect_server")
def test_evaluate_and_ingest_end_with_their_results(
    run: RunCommand, picture_recipe: WriteRecipe
) -> None:
    recipe = str(picture_recipe())
    assert json.loads(run("ingest", recipe, "--json")[1])["rows"] == {
        "train": 24,
        "valid": 8,
        "test": 16,
    }
    trained = json.loads(run("train", recipe, "--json")[1])
    code, out, _ = run("evaluate", trained["run_id"], "--table", "pictures.csv")
    assert code == 0
    assert out.splitlines()[-1] == "test accuracy 1.0000"
    code, out, _ = run("predict", trained["run_id"], "--table", "pictures.csv", "--out", "out.csv")
    assert code == 0
    assert out.splitlines()[-1] == f"{Path('out.csv').absolute()}: 48 of 48 rows predicted"
    code, out, _ = run(
        "predict", trained["run_id"], "--table", "pictures.csv", "--out", "out.parquet", "--json"
    )
    assert json.loads(out)["rows_predicted"] == 48
    code, _, err = run("predict", trained["run_id"], "--table", "pictures.csv", "--out", "out.xlsx")
    assert code == 2
    assert "end its name in one of .csv, .tsv, .parquet" in err
    code, _, err = run("evaluate", trained["run_id"], "--table", "data/digits/digits.csv")
    assert code == 2
    assert "torchrelay fetch digits" in err
    with get_client(sync_client=True) as client:
        num_flow_runs = len(client.read_flow_runs())
        for command in (["evaluate"], ["predict", "--out", "out.csv"]):
            code, _, err = run(*command, "nosuch", "--table", "pictures.csv")
            assert code == 2
            assert "nosuch" in err
        assert (
            len(client.read_flow_runs()) == num_flow_runs
        )  # it is refused before Prefect begins one


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.slow
def test_splits_end_with_mean_and_deviation_and_are_shown_below_their_parent(
    run: RunCommand, splits_recipe: WriteRecipe
) -> None:
    code, out, _ = run("train", str(splits_recipe()), "--set", "train.epochs=1")
    assert code == 0
    assert re.fullmatch(r"test rmse [\d.]+ ± [\d.]+ \(mean of 3 splits\)", out.splitlines()[-1])
    _, first, *below = run("runs")[1].splitlines()
    assert first.endswith(out.splitlines()[-1])
    assert [line.split("-")[1] for line in below] == ["split_0", "split_1", "split_2"]
    assert all(line.startswith("  folds-") for line in below)
    parent = first.split()[0]
    shown = run("show", parent)[1].splitlines()
    assert [line.split()[:2] for line in shown if "split_" in line] == [
        [f"split_{n}", below[n].split()[0]] for n in (0, 1, 2)
    ]
    assert len(json.loads(run("show", parent, "--json")[1])["runs"]) == 3
    assert [one["parent"] for one in json.loads(run("runs", "--json")[1])["runs"]] == [
        parent
    ] * 3 + [""]


@pytest.mark.parametrize(
    ("deviation", "said"),
    [
        (0.5134, "test rmse 4.72 ± 0.51 (mean of 5 splits)"),
        (12.9, "test rmse 5 ± 13 (mean of 5 splits)"),
        (0.0, "test rmse 4.721 ± 0 (mean of 5 splits)"),
        (math.nan, "test rmse 4.721 (mean of 5 splits)"),
    ],
)
def test_mean_and_deviation_are_said_to_the_second_digit_of_the_deviation(
    deviation: float, said: str
) -> None:
    assert headline({"test/rmse": 4.7213, "test/rmse_std": deviation}, 5) == said


def test_options_of_finetune_go_over_the_warm_start_of_the_recipe(
    run: RunCommand, number_recipe: WriteRecipe
) -> None:
    layer = {
        "module.net.layers.0.weight": torch.zeros(16, 2),
        "module.net.layers.0.bias": torch.ones(16),
    }
    torch.save(layer, "net.pth")
    recipe = str(number_recipe(warm_start={"source": "older", "freeze": ["*"]}))
    options = [
        "--rename",
        "net.*=*",
        "--freeze",
        "layers.0.*",
        "--thaw-after",
        "3",
        "--no-grow-head",
        "--dry-run",
    ]
    code, out, err = run("finetune", recipe, "--from", "net.pth", *options, "--json")
    assert code == 0
    assert re.search(
        r"warm start: 2 of 4 keys from .*net.pth: 2 renamed, 2 missing; 2 frozen\n", err
    )
    assert len(json.loads(out)["losses"]) == 2
    for options, message in (
        (["--rename", "net"], "--rename net: expected FROM=TO"),
        (["--rename", "a=b", "--rename", "a=c"], "'a' was renamed to 'b' before"),
        (["--rename", "a=*"], r"warm_start.rename: .* '\*' has more \* than 'a'"),
        (
            ["--freeze", "layer.*", "--rename", "net.*=*", "--dry-run"],
            r"'layer.\*' fits no key of the model; did you mean",
        ),
    ):
        code, _, err = run("finetune", recipe, "--from", "net.pth", *options)
        assert code == 2
        assert re.search(message, err), err


def test_a_dry_run_over_several_splits_says_which_it_tried(
    run: RunCommand, splits_recipe: WriteRecipe
) -> None:
    _, out, _ = run("train", str(splits_recipe()), "--dry-run")
    assert [line.split()[0] for line in out.splitlines()[:5]] == [
        "rows",
        "rows",
        "rows",
        "tried",
        "model",
    ]
    assert out.splitlines()[3] == "tried     split_0 alone, of 3 splits"


def test_a_dry_run_says_what_it_found_and_writes_no_run(
    run: RunCommand, number_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = str(number_recipe())
    code, out, err = run("train", recipe, "--dry-run", "--set", "train.epochs=3")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "rows",
        "model",
        "device",
        "loss",
        "time",
        "pack",
        "next",
    ]
    assert out.splitlines()[1] == "model     mlp, 65 parameters"
    assert out.splitlines()[-1] == f"next      torchrelay train {recipe} --set train.epochs=3"
    assert err.splitlines()[-1] == "dry run: nothing is wrong; no run was written"
    code, out, err = run("train", recipe, "--dry-run", "--json", "--set", "train.seed=0,1")
    assert [len(one["losses"]) for one in json.loads(out)["runs"]] == [2, 2]
    assert err.splitlines()[-1] == "dry run: nothing is wrong; no run was written"
    warm = ["--set", "warm_start.thaw_after=1"]
    assert (
        run("train", recipe, "--dry-run", *warm)[2]
        .splitlines()[-1]
        .startswith("dry run: 1 warning, see above; n")
    )
    code, out, err = run("train", recipe, "--dry-run", "--json", *warm, "--set", "train.seed=0,1")
    assert [len(one["warnings"]) for one in json.loads(out)["runs"]] == [1, 1]
    assert (
        err.splitlines()[-1]
        == "dry run: 2 warnings, see above; nothing else is wrong; no run was written"
    )
    assert {path.name for path in (tmp_path / "home").iterdir()} <= {
        "packs",
        "prefect",
        "cache",
        "data.lock",
    }


@pytest.mark.slow
def test_sigterm_ends_a_run_as_killed_and_resume_finishes_it_in_the_same_mlflow_run(
    number_recipe: WriteRecipe, tmp_path: Path
) -> None:
    recipe = number_recipe(checkpoint={"every_epochs": 5})
    environment = {**os.environ, "TORCHRELAY_HOME": str(tmp_path / "fresh")}
    start = [sys.executable, "-c", "from torchrelay.cli import main; main()"]
    command = [*start, "train", str(recipe), "--set", "train.epochs=2000", "--json"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        while "epoch 3/" not in child.stderr.readline():
            assert child.poll() is None
        child.send_signal(15)
        child.communicate(timeout=60)
    assert child.returncode in (143, -15)
    listed = subprocess.run(
        [*start, "runs", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    [one] = json.loads(listed.stdout)["runs"]
    assert one["status"] == "KILLED"
    assert one["step"] > 0
    command = [
        *start,
        "resume",
        one["run_id"],
        "--set",
        f"train.epochs={one['epochs'] + 2}",
        "--json",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["mlflow_run_id"]) == ("FINISHED", one["mlflow_run_id"])
    assert f"resume: from step {one['step']:,}" in done.stderr


@pytest.mark.slow
def test_a_run_in_a_fresh_home_survives_a_temporary_server_that_is_slow_to_start(
    number_recipe: WriteRecipe,
    tmp_path: Path,
) -> None:
    """The server's process sleeps for longer than the 20 s after which Prefect gives up by
    itself.
    """
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import os, sys, time\nif 'uvicorn' in sys.orig_argv:\n    time.sleep(30)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    environment |= {
        "PYTHONPATH": str(slow),
        "TORCHRELAY_HOME": str(tmp_path / "fresh"),
        "HOME": str(tmp_path / "user"),
    }
    start = "from torchrelay.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        start,
        "train",
        str(number_recipe()),
        "--set",
        "train.epochs=1",
        "--json",
    ]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started > 30
    assert json.loads(done.stdout)["status"] == "FINISHED"
    assert not (tmp_path / "user").exists() or not any((tmp_path / "user").iterdir())


def test_weights_are_shown_packed_and_exported(run: RunCommand, tmp_path: Path) -> None:
    import torch

    net = torch.nn.Linear(2, 3)
    torch.save(
        {"epoch": 4, "state_dict": torch.nn.DataParallel(net).state_dict()}, tmp_path / "a.pt"
    )
    torch.save({**net.state_dict(), "bad\x1b[2J": torch.zeros(1)}, tmp_path / "b.pt")
    code, out, _ = run("weights", "show", "a.pt")
    assert code == 0
    assert "form      state_dict entry\nvalue     epoch = 4\n" in out
    assert "9 parameters in 2 tensors, 36 bytes, all keys begin with module.\n" in out
    assert "\nmodule.weight  3 x 2  float32\nmodule.bias    3      float32\n" in out
    assert "\x1b" not in run("weights", "show", "b.pt")[1]

    code, out, err = run(
        "weights", "pack", "a.pt", "b.pt", "-o", "both.pt", "--name", "first=a.pt", "--json"
    )
    assert code == 0
    assert [model["name"] for model in json.loads(out)["models"]] == ["first", "b"]
    assert "first: a.pt, without its optimizer's state" in err
    shown = json.loads(run("weights", "show", "both.pt", "--json")[1])
    assert (shown["form"], list(shown["models"])) == ("pack", ["first", "b"])
    assert shown["models"]["first"]["parameters"] == 9

    code, out, _ = run(
        "weights", "export", "both.pt", "--model", "first", "-o", "one.safetensors", "--json"
    )
    assert (code, json.loads(out)["tensors"]) == (0, 2)
    shown = json.loads(run("weights", "show", "one.safetensors", "--json")[1])
    assert [row["key"] for row in shown["models"][""]["tensors"]] == ["weight", "bias"]
    assert shown["extras"] == {"format": "pt", "source": "both.pt"}


def test_a_weights_file_that_would_run_code_is_refused_with_the_reason(
    run: RunCommand, tmp_path: Path
) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 3), tmp_path / "whole.pt")
    for arguments in (
        ("show", "whole.pt"),
        ("pack", "whole.pt", "-o", "b.pt"),
        ("export", "whole.pt", "-o", "b.pt"),
    ):
        code, _, err = run("weights", *arguments)
        assert code == 2
        assert "would run or build torch.nn.modules.linear.Linear" in err
    assert not (tmp_path / "b.pt").exists()
    code, _, err = run("weights", "pack", "whole.pt", "-o", "b.pt", "--name", "a=other.pt")
    assert (code, "expected NAME=SOURCE with one of whole.pt" in err) == (2, True)
    code, _, err = run("weights", "show", "--unsafe", "whole.pt")
    assert (code, "No such option" in err) == (2, True)


def test_placed_data_comes_with_the_recipes_that_read_it(run: RunCommand, tmp_path: Path) -> None:
    code, _, err = run(
        "train",
        str(Path(cli.__file__).parents[1] / "recipes" / "two-layer.yaml"),
        "--set",
        "data.table=data/uci/concrete.csv",
    )
    assert code == 2
    assert "`torchrelay fetch uci --from DIR` places it" in err
    (tmp_path / "source" / "uci").mkdir(parents=True)
    for name in ("concrete", "energy"):
        (tmp_path / "source" / "uci" / f"{name}.csv").write_text("x0,y\n1,2\n")
    code, _, err = run("fetch", "uci")
    assert (code, "uci/concrete.csv and uci/energy.csv" in err) == (2, True)
    code, out, err = run("fetch", "uci", "--from", "source")
    names = ["dynamic-net", "two-layer", "uci-concrete", "uci-energy"]
    assert (code, (out + err).splitlines()[2:]) == (
        0,
        [f"next: torchrelay train recipes/{name}.yaml" for name in names],
    )
    assert sorted(path.stem for path in Path("recipes").iterdir()) == names
    assert run("fetch", "uci")[0] == 0
