"""What `torchrelay checkpoints` finds in the folders of runs."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.errors import SourceError
from torchrelay.runs import RunRecord, now, save_record
from torchrelay.settings import Home
from torchrelay.upkeep.checkpoints import has_damage, list_checkpoints


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def make_run(home: Home, run_id: str, steps: int = 2, **fields: object) -> CheckpointStore:
    """A run whose first generation is the best."""
    values = {"run_id": run_id, "name": "x", "experiment": "x", "created": now()}
    run_dir = save_record(home, RunRecord.model_validate({**values, **fields}))
    store = CheckpointStore(run_dir / "checkpoints", 3, {"run_id": run_id}, {})
    for step in range(1, steps + 1):
        store.save({"epoch": 10 * step, "weight": torch.zeros(3)}, step, is_best=step == 1)
    return store


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_generations_come_with_step_epoch_size_and_marks(home: Home) -> None:
    folder = make_run(home, "one").folder
    first, second = list_checkpoints(home, "on")
    assert (first.name, first.step, first.epoch, first.is_best, first.is_last) == (
        "step-00000001",
        1,
        10,
        True,
        False,
    )
    assert (second.name, second.step, second.epoch, second.is_best, second.is_last) == (
        "step-00000002", 2, 20, False, True
    )  # fmt: skip
    assert first.bytes == sum(path.stat().st_size for path in (folder / first.name).iterdir())
    assert first.created[:10] == now()[:10]
    assert (first.problem, second.problem) == ("", "")


def test_what_is_wrong_is_said_and_nothing_is_changed(home: Home) -> None:
    folder = make_run(home, "one", steps=3).folder
    flip(folder / "step-00000001" / "state.pt", 700)
    flip(folder / "step-00000002" / "manifest.json", 30)
    (folder / "step-00000003" / "state.pt").unlink()
    before = sorted(folder.rglob("*"))
    found = list_checkpoints(home, "one")
    assert [one.problem for one in found] == [
        "state.pt does not have the sha256 of the manifest",
        "manifest.json does not have the digest that it names",
        "state.pt is missing",
    ]
    assert [one.epoch for one in found] == [10, None, 30]
    assert has_damage(found)
    assert sorted(folder.rglob("*")) == before


def test_what_was_set_aside_is_listed_last_and_does_no_harm(home: Home) -> None:
    store = make_run(home, "one")
    flip(store.folder / "step-00000002" / "state.pt", 700)
    with warnings.catch_warnings(action="ignore"):
        store.load_last()
    found = list_checkpoints(home, "one")
    assert [(one.name, one.step, one.is_set_aside) for one in found] == [
        ("step-00000001", 1, False),
        ("bad-step-00000002", 2, True),
    ]
    assert found[1].problem == "state.pt does not have the sha256 of the manifest"
    assert not has_damage(found)


def test_a_run_over_splits_lists_those_of_its_children(home: Home) -> None:
    make_run(home, "parent", steps=0, kind="splits", splits={"a": "", "b": ""})
    make_run(home, "child-b", steps=1, parent="parent", split_column="b")
    make_run(home, "child-a", steps=1, parent="parent", split_column="a")
    assert [one.run_id for one in list_checkpoints(home, "parent")] == ["child-a", "child-b"]


def test_a_run_that_does_not_exist_is_an_error(home: Home) -> None:
    with pytest.raises(SourceError, match="'nothing' does not exist"):
        list_checkpoints(home, "nothing")


def command(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from torchrelay import cli\ntry: cli.main()\n"
    code += (
        "finally: print([name for name in ('torch', 'mlflow', 'prefect') "
        "if name in sys.modules], file=sys.stderr)"
    )
    line = [sys.executable, "-c", code, "checkpoints", *arguments]
    environment = {"TORCHRELAY_HOME": str(home.root)}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


def test_the_command_needs_no_torch_and_exits_with_1_where_one_does_not_verify(home: Home) -> None:
    folder = make_run(home, "one").folder
    good = command(home, "one")
    assert (good.returncode, good.stderr) == (0, "[]\n")
    header, first, second = good.stdout.splitlines()
    assert header.split() == ["checkpoint", "step", "epoch", "bytes", "written", "(UTC)"]
    assert first.split()[:3] + first.split()[6:] == ["step-00000001", "1", "10", "best", "verified"]
    assert second.endswith("last  verified")
    flip(folder / "step-00000002" / "state.pt", 700)
    bad = command(home, "one", "--json")
    found = json.loads(bad.stdout)["checkpoints"]
    assert bad.returncode == 1
    assert [(one["verified"], one["epoch"]) for one in found] == [(True, 10), (False, 20)]
