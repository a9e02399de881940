"""Weights in and out of runs: a model ready to use, several in one file, one exported; sources
of every form.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import torchrelay
from torchrelay.engine.checkpoints import read_pointer
from torchrelay.errors import SourceError
from torchrelay.flows import evaluate, train
from torchrelay.runs import load_record
from torchrelay.tasks.assembly.saved_models import (
    describe_source,
    export_source,
    load_model,
    pack_sources,
)
from torchrelay.weights import load_weights, open_weights_file, read_weights_file, sha256_of

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a table, and a run of 3 epochs that averages its weights and is registered
    as `numbers`.
    """
    folder = tmp_path_factory.mktemp("trained")
    generator = np.random.default_rng(3)
    a, b = generator.normal(0, 2, 60), generator.normal(5, 1, 60)
    lines = [f"{one:.6f},{two:.6f},{3 * one - 2 * two:.6f}" for one, two in zip(a, b, strict=True)]
    (folder / "numbers.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    (folder / "numbers.yaml").write_text(
        "name: numbers\n"
        "data:\n"
        "  table: numbers.csv\n"
        "  inputs: {x: {kind: number, columns: [a, b]}}\n"
        "  target: {y: {kind: number}}\n"
        "model: {name: mlp, args: {hidden: [4]}}\n"
        "train: {epochs: 3, batch_size: 8, ema: 0.5}\n"
        "tracking: {register: numbers}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TORCHRELAY_HOME", str(folder / "home"))
        return folder, train(recipe_file=str(folder / "numbers.yaml"))


@pytest.fixture
def run(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> dict[str, Any]:
    """The run, in the test's own copy of that home."""
    folder, result = trained
    shutil.copytree(folder / "home", tmp_path / "home", dirs_exist_ok=True)
    return {
        **result,
        "run_dir": tmp_path / "home" / "runs" / result["run_id"],
        "table": folder / "numbers.csv",
    }


def forms_of(run: dict[str, Any]) -> list[str]:
    best = run["run_dir"] / "weights" / "best.pt"
    return [
        run["run_id"],
        run["mlflow_run_id"],
        f"runs:/{run['mlflow_run_id']}",
        "models:/numbers@champion",
        str(best),
    ]


def test_a_model_loaded_from_any_source_predicts_what_the_run_predicted(
    run: dict[str, Any],
) -> None:
    predictions = pd.read_parquet(run["run_dir"] / "predictions.parquet")
    rows = pd.read_csv(run["table"]).iloc[predictions["row"] - 1]
    raw = torch.tensor(rows[["a", "b"]].to_numpy())
    before = torch.get_rng_state()
    for source in forms_of(run):
        loaded = torchrelay.load_model(source)
        assert not loaded.model.training
        assert not loaded.servable.training
        with torch.no_grad():
            np.testing.assert_allclose(
                loaded.servable(raw)[:, 0], predictions["prediction"], rtol=0, atol=1e-4
            )
        assert sha256_of(loaded.model.state_dict()) == sha256_of(load_weights(Path(run["weights"])))
        assert [feature.name for feature in loaded.schema.targets] == ["y"]
        assert loaded.recipe.model.name == "mlp"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_is_a_source_and_gives_what_the_run_keeps(run: dict[str, Any]) -> None:
    checkpoints = run["run_dir"] / "checkpoints"
    state = checkpoints / read_pointer(checkpoints, "best") / "state.pt"
    loaded = load_model(str(state))
    assert sha256_of(loaded.model.state_dict()) == sha256_of(load_weights(Path(run["weights"])))
    scored = evaluate(source=str(state), table=str(run["table"]))
    weights = Path(scored["run_dir"]) / "weights" / "best.pt"
    assert open_weights_file(weights).form == "state_dict"
    assert load_record(Path(scored["run_dir"])).source == run["run_id"]


def test_recipe_and_weights_alone_make_the_whole_model(run: dict[str, Any], tmp_path: Path) -> None:
    whole = tmp_path / "elsewhere"
    whole.mkdir()
    for name in ("recipe.yaml", "schema.json"):
        shutil.copy(run["run_dir"] / name, whole)
    export_source(run["run_id"], whole / "net.safetensors", with_optimizer=False)
    loaded = load_model(str(whole / "net.safetensors"))
    assert sha256_of(loaded.model.state_dict()) == sha256_of(load_weights(Path(run["weights"])))


def test_several_sources_become_one_file_and_go_on_from_it(
    run: dict[str, Any], tmp_path: Path
) -> None:
    foreign = nn.DataParallel(nn.Linear(2, 1))
    torch.save({"state_dict": foreign.state_dict(), "epoch": 9}, tmp_path / "theirs.pth")
    sources = ["models:/numbers@champion", str(tmp_path / "theirs.pth"), run["run_id"]]
    parts = pack_sources(sources, {run["run_id"]: "mine"}, tmp_path / "all.pt")
    assert [part.name for part in parts] == ["numbers", "theirs", "mine"]
    mine = read_weights_file(tmp_path / "all.pt", "mine")
    assert sha256_of(mine.state) == sha256_of(load_weights(Path(run["weights"])))
    assert mine.extras["theirs"] == {"epoch": 9, "source": str(tmp_path / "theirs.pth")}
    best = read_pointer(run["run_dir"] / "checkpoints", "best")
    assert best == f"step-{mine.extras['mine']['step']:08d}"
    assert list(mine.optimizers) == ["numbers", "mine"]
    model = load_model(run["run_id"]).model
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.load_state_dict(mine.optimizers["mine"])
    assert {int(state["step"]) for state in optimizer.state.values()} == {
        mine.extras["mine"]["step"]
    }
    export_source(str(tmp_path / "all.pt"), tmp_path / "one.tar", "mine", with_optimizer=True)
    one = read_weights_file(tmp_path / "one.tar")
    assert (one.form, list(one.optimizers)) == ("model_state_dict", [""])
    assert sha256_of(one.state) == sha256_of(mine.state)


def test_equal_names_give_way_to_the_runs_and_equal_runs_are_refused(
    run: dict[str, Any], tmp_path: Path
) -> None:
    parts = pack_sources([run["run_id"], "models:/numbers/1"], {}, tmp_path / "both.pt")
    assert [part.name for part in parts] == [run["run_id"], "models:/numbers/1"]
    with pytest.raises(
        SourceError, match=f"two models would be called '{run['run_id']}'; --name NAME=SOURCE"
    ):
        pack_sources([run["run_id"], run["mlflow_run_id"]], {}, tmp_path / "both.pt")
    with pytest.raises(
        SourceError, match=r"both\.safetensors: several models .* name it \.pt or \.tar"
    ):
        pack_sources([run["run_id"]], {}, tmp_path / "both.safetensors")


def test_an_export_is_a_state_dict_alone_without_the_prefix_of_a_wrapper(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    state = {f"module.net.{key}": value for key, value in net.state_dict().items()}
    torch.save(
        {"model_state_dict": state, "optimizer_state_dict": optimizer.state_dict()},
        tmp_path / "in.pt",
    )
    export_source(str(tmp_path / "in.pt"), tmp_path / "out.pt", with_optimizer=False)
    assert list(torch.load(tmp_path / "out.pt", weights_only=True)) == ["net.weight", "net.bias"]
    export_source(
        str(tmp_path / "in.pt"),
        tmp_path / "out.safetensors",
        strip_prefix="net.",
        with_optimizer=False,
    )
    assert sha256_of(load_weights(tmp_path / "out.safetensors")) == sha256_of(net.state_dict())
    with pytest.raises(
        SourceError,
        match=r"the key 'net\.weight' does not begin with 'nut\.'; they begin with 'net\.'",
    ):
        export_source(
            str(tmp_path / "in.pt"), tmp_path / "out.pt", strip_prefix="nut.", with_optimizer=False
        )
    with pytest.raises(SourceError, match=r"out\.pt has no optimizer's state"):
        export_source(str(tmp_path / "out.pt"), tmp_path / "two.pt", with_optimizer=True)
    with pytest.raises(
        SourceError, match=r"safetensors hold .* no optimizer's state; name it \.pt"
    ):
        export_source(str(tmp_path / "in.pt"), tmp_path / "two.safetensors", with_optimizer=True)
    with pytest.raises(SourceError, match=r"out\.txt: weights are written as \.pt, \.pth"):
        export_source(str(tmp_path / "in.pt"), tmp_path / "out.txt", with_optimizer=False)


def test_what_a_source_holds_is_counted(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    torch.save(
        {"state_dict": nn.DataParallel(net).state_dict(), "loss": 0.25, "rng": torch.arange(99)},
        tmp_path / "n.pt",
    )
    found = describe_source(str(tmp_path / "n.pt"))
    model = found["models"][""]
    # By hand: 3 x 4 + 4 of the linear layer and 4 + 4 of the norm are parameters; two statistics of
    # 4 and a count are in the file too, the count as an int64.
    assert model["parameters"] == 24
    assert model["bytes"] == 4 * (24 + 8) + 8
    assert model["tensors"][0] == {"key": "module.0.weight", "shape": [4, 3], "dtype": "float32"}
    assert (model["prefix"], model["has_module_prefix"], model["has_optimizer"]) == (
        "module.",
        True,
        False,
    )
    assert model["sha256"] == sha256_of(
        {f"module.{key}": value for key, value in net.state_dict().items()}
    )
    assert (found["form"], found["extras"], found["others"]) == (
        "state_dict entry",
        {"loss": 0.25},
        ["rng"],
    )


def test_a_weights_file_without_a_recipe_says_what_can_be_done_with_it(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "net.pt")
    with pytest.raises(
        SourceError,
        match=r"recipe\.yaml and schema\.json missing .*`torchrelay weights show .*finetune",
    ):
        load_model(str(tmp_path / "net.pt"))
    with pytest.raises(SourceError, match=r"a folder; name one of net\.pt"):
        describe_source(str(tmp_path))
