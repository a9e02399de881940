"""Code that a source's recipe names runs on the user's word alone, and until then nothing of it
is opened.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from torchrelay.datasets.images import check_preprocess
from torchrelay.disk import lock
from torchrelay.errors import RecipeError, SourceError
from torchrelay.models import locate_module, module_of
from torchrelay.recipe import Recipe, dump_recipe
from torchrelay.runs import RunRecord, load_record, now, save_record
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.settings import home
from torchrelay.tasks.assembly.trust import admit_code, forget, trusted_by_word, vouch
from torchrelay.tasks.ending import keep_status
from torchrelay.tasks.reopen import reopen_run
from torchrelay.tasks.runs import hold_run, recipe_for_finetune
from torchrelay.tasks.scoring import name_scoring
from torchrelay.upkeep import Examination, find_leftovers

SENT = """
from pathlib import Path
Path("ran").touch()
from torch import nn
class Net(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
"""
# Loads a source under an audit hook that tells which of its files are opened or modules imported.
AUDITED = """
import json, sys
seen = []
def hook(event, args):
    if event in ("import", "open", "exec", "compile") and args and "sent_code" in str(args[0]):
        seen.append([event, str(args[0])])
import torchrelay
from torchrelay.tasks.assembly import saved_models as weights
sys.addaudithook(hook)
try:
    torchrelay.load_model("sent/weights/best.pt", trust_code=json.loads(sys.argv[1]))
    print(json.dumps(["loaded", len(seen)]))
except torchrelay.errors.TorchrelayError as error:
    print(json.dumps([str(error), len(seen), error.exit_code]))
"""


def own_recipe(model: str) -> Recipe:
    data = {
        "inputs": {"x": {"kind": "number", "columns": ["a", "b"]}},
        "target": {"y": {"kind": "number"}},
    }
    return Recipe.model_validate({"name": "sent", "data": data, "model": {"name": model}})


def send(folder: Path, model: str = "sent_code.nets:Net") -> Path:
    """A source as somebody sends it, with its code beside it; gives its weights."""
    (folder / "weights").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(own_recipe(model)))
    x = FeatureSchema(
        name="x",
        kind="number",
        dtype="float64",
        columns=["a", "b"],
        shape=[2],
        mean=[0, 0],
        std=[1, 1],
    )
    y = FeatureSchema(
        name="y", kind="number", dtype="float64", columns=["y"], shape=[1], mean=[0], std=[1]
    )
    Schema(inputs=[x], targets=[y]).save(folder / "schema.json")
    torch.save({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, folder / "weights" / "best.pt")
    return folder / "weights" / "best.pt"


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "sent_code").mkdir()
    (tmp_path / "sent_code" / "__init__.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\n"
    )
    (tmp_path / "sent_code" / "nets.py").write_text(SENT)
    yield send(tmp_path / "sent")
    for name in [name for name in sys.modules if name.partition(".")[0] == "sent_code"]:
        del sys.modules[name]


def audited(trust_code: list[str]) -> list[object]:
    command = [sys.executable, "-c", AUDITED, json.dumps(trust_code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_nothing_of_a_sources_code_is_opened_before_the_user_says_so(
    weights: Path, tmp_path: Path
) -> None:
    message, num_seen, exit_code = audited([])
    assert "names the model sent_code.nets:Net" in str(message)
    assert "--trust-code sent_code.nets" in str(message)
    assert (num_seen, exit_code) == (0, 2)
    assert not (tmp_path / "ran").exists()
    what, num_seen = audited(["sent_code"])
    assert what == "loaded"
    assert isinstance(num_seen, int)
    assert num_seen > 0
    assert (tmp_path / "ran").exists()


def test_predicting_and_finetuning_from_a_source_want_the_same_word(
    weights: Path, tmp_path: Path
) -> None:
    for kind in ("evaluate", "predict"):
        with pytest.raises(SourceError, match=r"--trust-code sent_code\.nets"):
            name_scoring(kind, str(weights))  # pyright: ignore[reportArgumentType]
    with pytest.raises(SourceError, match=r"--trust-code sent_code\.nets"):
        recipe_for_finetune(Recipe(), "", {}, str(weights))
    assert not (tmp_path / "ran").exists()
    run_dir = name_scoring("predict", str(weights), ["sent_code.nets"])
    assert trusted_by_word(run_dir.name) == ["sent_code.nets"]
    assert (
        recipe_for_finetune(Recipe(), "", {}, str(weights), ["sent_code"]).model.name
        == "sent_code.nets:Net"
    )
    assert (
        recipe_for_finetune(Recipe(), "", {"model.name": "mlp"}, str(weights)).model.name == "mlp"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["os:system", "subprocess:Popen", "torch.hub:load", "builtins:eval"]
)
def test_a_name_in_an_installed_package_is_code_of_a_source_too(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=rf"names the model {name}, .*--trust-code {name.partition(':')[0]} "
    ):
        admit_code(own_recipe(name), tmp_path, "sent", ())


@pytest.mark.parametrize("name", ["mlp", "torchvision:resnet18", "lenet", "nonsense", ":x", "x:"])
def test_models_that_are_registered_here_need_no_word(name: str, tmp_path: Path) -> None:
    admit_code(own_recipe(name), tmp_path, "sent", ())
    assert module_of(name) == ""


def test_a_word_covers_a_module_and_what_is_below_it_and_nothing_else(tmp_path: Path) -> None:
    admit_code(own_recipe("lab.nets:Net"), tmp_path, "sent", ["lab"])
    for other in ("la", "lab.net", "lab.nets.more", "nets"):
        with pytest.raises(SourceError, match=r"--trust-code lab\.nets"):
            admit_code(own_recipe("lab.nets:Net"), tmp_path, "sent", [other])
    with pytest.raises(RecipeError, match=r"--trust-code '\.\./lab': expected a module"):
        admit_code(own_recipe("lab.nets:Net"), tmp_path, "sent", ["../lab"])


def test_a_run_begun_here_needs_no_word_and_a_copy_of_it_does(
    weights: Path, tmp_path: Path
) -> None:
    recipe, run_dir = own_recipe("sent_code.nets:Net"), home().runs / "mine"
    run_dir.mkdir(parents=True)
    vouch(run_dir.name, recipe)
    admit_code(recipe, run_dir, "run mine", ())
    for elsewhere in (home().runs / "copied", tmp_path / "mine"):
        with pytest.raises(SourceError, match=r"nobody has said that this code may run here"):
            admit_code(recipe, elsewhere, "it", ())
    with pytest.raises(SourceError, match=r"--trust-code other"):
        admit_code(own_recipe("other:Net"), run_dir, "run mine", ())


def test_code_that_has_moved_since_wants_a_new_word(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run_dir = own_recipe("sent_code.nets:Net"), home().runs / "mine"
    monkeypatch.setattr(sys, "path", list(sys.path))
    vouch(run_dir.name, recipe)
    assert locate_module("sent_code.nets") == str(tmp_path / "sent_code" / "nets.py")
    shutil.move(tmp_path / "sent_code", tmp_path / "sent" / "sent_code")
    monkeypatch.chdir(tmp_path / "sent")
    with pytest.raises(SourceError, match=r"Look into .*sent/sent_code/nets\.py"):
        admit_code(recipe, run_dir, "run mine", ())
    assert not list(tmp_path.rglob("ran"))


def test_the_users_own_recipe_that_names_the_same_class_needs_no_word(
    weights: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(dump_recipe(own_recipe("sent_code.nets:Net")))
    resolved = recipe_for_finetune(Recipe(), str(own), {}, str(weights))
    assert (resolved.model.name, resolved.warm_start.source) == ("sent_code.nets:Net", str(weights))
    fields = Recipe.model_validate({"model": {"name": "sent_code.nets:Net"}})
    assert recipe_for_finetune(fields, "", {}, str(weights)).model.name == "sent_code.nets:Net"
    with pytest.raises(SourceError, match=r"--trust-code sent_code\.nets"):
        recipe_for_finetune(Recipe(), "", {"model.args": {}}, str(weights))


def test_a_run_goes_on_with_code_that_was_let_in_and_a_retry_wherever_it_was_checked_out(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = own_recipe("sent_code.nets:Net")
    record = RunRecord(
        run_id="mine", name="sent", experiment="sent", created=now(), prefect_flow_run_id="first"
    )
    run_dir = save_record(home(), record)
    (run_dir / "recipe.yaml").write_text(dump_recipe(recipe))
    with pytest.raises(
        SourceError, match=r"run mine: its recipe names .*--trust-code sent_code\.nets"
    ):
        reopen_run.fn(run_dir, {})
    vouch(run_dir.name, recipe)
    shutil.copytree(tmp_path / "sent_code", tmp_path / "anew" / "sent_code")
    shutil.rmtree(tmp_path / "sent_code")
    monkeypatch.chdir(tmp_path / "anew")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "anew"), *sys.path])
    with pytest.raises(SourceError, match=r"Look into .*anew/sent_code/nets\.py"):
        reopen_run.fn(run_dir, {})
    monkeypatch.setattr("torchrelay.tasks.reopen.flow_run_id", lambda: "first")
    assert not list(tmp_path.rglob("ran"))
    with pytest.raises(SourceError, match="is not a pack"):  # comes after, and this run has none
        reopen_run.fn(run_dir, {})
    assert (tmp_path / "anew" / "ran").exists()


def test_the_parent_that_a_record_states_is_a_run_and_no_path(
    weights: Path, tmp_path: Path
) -> None:
    recipe, mine = own_recipe("sent_code.nets:Net"), home().runs / "mine"
    vouch(mine.name, recipe)
    vouched = home().root / "trusted" / "mine.json"
    for parent, is_known in (
        ("mine", True),
        (str(vouched.with_suffix("")), False),
        ("../trusted/mine", False),
    ):
        record = RunRecord(
            run_id="child", name="sent", experiment="sent", created=now(), parent=parent
        )
        child = save_record(home(), record)
        with nullcontext() if is_known else pytest.raises(SourceError, match="nobody has said"):
            admit_code(recipe, child, "run child", ())


def test_what_was_let_in_for_a_run_goes_with_it(tmp_path: Path) -> None:
    vouch("mine", own_recipe("lab:Net"), ["lab"])
    vouch("mine", own_recipe("lab:Net"), ["lab.more", "lab"])
    assert trusted_by_word("mine") == ["lab", "lab.more"]
    forget("mine")
    forget("mine")
    assert trusted_by_word("mine") == []


def test_what_was_let_in_for_a_run_that_never_began_goes_with_its_folder(tmp_path: Path) -> None:
    ended, killed = home().runs / "ended", home().runs / "killed"
    with pytest.raises(ZeroDivisionError), hold_run(ended), keep_status(ended):
        vouch(ended.name, own_recipe("lab:Net"), ["lab"])
        raise ZeroDivisionError
    with lock(killed / "lock", "run killed"):
        vouch(killed.name, own_recipe("lab:Net"), ["lab"])
    assert trusted_by_word("killed") == ["lab"]
    for finding in find_leftovers(Examination.of(home())):
        assert finding.mend is not None
        finding.mend()
    assert list((home().root / "trusted").iterdir()) == []
    assert list(home().runs.iterdir()) == []


def test_a_sources_preprocessing_is_scikit_images_or_refused(weights: Path, tmp_path: Path) -> None:
    image = {
        "kind": "image",
        "columns": ["a"],
        "size": [8, 8],
        "preprocess": [{"name": "nets.run"}],
    }
    data = {"inputs": {"x": image}, "target": {"y": {"kind": "number"}}}
    for name in (
        "nets.run",
        "sent_code.nets",
        "os.system",
        "util.os.system",
        "util._warnings",
        "io.imread",
    ):
        image["preprocess"] = [{"name": name}]
        recipe = Recipe.model_validate({"name": "sent", "data": data, "model": {"name": "lenet"}})
        with pytest.raises(RecipeError, match="is not a function of scikit-image"):
            check_preprocess(recipe.data.inputs["x"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "load"),
    [("schema.json", Schema.load), ("run.json", lambda at: load_record(at.parent))],
)
def test_a_source_states_no_more_than_a_schema_or_a_record_can_have(
    tmp_path: Path, name: str, load: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(128_000_001)  # a hole: it takes no room on the disk
    with pytest.raises(
        SourceError, match=rf"{name} has 128,000,001 bytes, more than the 128,000,000"
    ):
        load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(SourceError, match="nested too deep"):
        load(path)
