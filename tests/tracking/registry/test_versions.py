from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchrelay import faults, settings
from torchrelay.disk import sha256_file
from torchrelay.errors import SourceError, TrackingError
from torchrelay.runs import FILES_TAG, JOURNAL_FILE, Journal, Run, update_record
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.tasks.assembly import Servable
from torchrelay.tracking.registry.staging import check_staged, files_of, stage_again, stage_model
from torchrelay.tracking.registry.versions import NEEDED, register_staged, resolve_source
from torchrelay.tracking.shipping import sync_run
from torchrelay.weights import read_weights_file

from ..conftest import mlflow_run_of

BEST = "weights/best.pt"
PIXELS = np.arange(3 * 3 * 8 * 8, dtype=np.uint8).reshape(3, 3, 8, 8)


def stage(
    run_dir: Path, name: str, servable: nn.Module | None, example: np.ndarray | None
) -> list[dict[str, Any]]:
    """Stage a version; the `model` lines that the journal has then."""
    run = Run.open(run_dir)
    with run.journal as journal:
        stage_model(run, name, servable, example)
        return [line for line in journal.lines() if line["kind"] == "model"]


def register(
    run_dir: Path, name: str, servable: nn.Module | None, example: np.ndarray | None
) -> str:
    return register_staged(
        mlflow_run_of(run_dir), Run(run_dir), stage(run_dir, name, servable, example)[-1]
    )


@pytest.fixture
def load(monkeypatch):
    """Load as a user of MLflow does, with the global tracking URI pointed at the home."""

    def load(uri: str) -> nn.Module:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri())
        try:
            return mlflow.pytorch.load_model(uri)
        finally:
            monkeypatch.delenv("MLFLOW_TRACKING_URI")

    return load


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_registered_model_gives_the_modules_outputs_for_any_number_of_raw_rows(
    make_run, load, num_rows
):
    run_dir, _, net = make_run()
    assert register(run_dir, "net", net, PIXELS[:num_rows]) == "1"
    loaded = load("models:/net@champion")
    for rows in (PIXELS[:1], PIXELS[:2], np.repeat(PIXELS, 5, axis=0)):
        x_NCHW = torch.from_numpy(rows)
        with torch.no_grad():
            torch.testing.assert_close(loaded(x_NCHW), net(x_NCHW), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "shape"), [("number", [2]), ("points", [1, 2])])
def test_a_registered_model_gives_numbers_in_their_own_units_and_points_in_pixels(
    make_run, load, kind, shape
):
    run_dir, _, _ = make_run()
    x = FeatureSchema(
        name="x", kind="number", columns=["x"], shape=[1], dtype="float64", mean=[2000.0], std=[5.0]
    )
    y = FeatureSchema(
        name="y",
        kind=kind,
        columns=["a", "b"],
        shape=shape,
        dtype="float64",
        mean=[70.0, 1e7],
        std=[3.0, 4.0],
    )
    net = nn.Linear(1, 2)
    nn.init.ones_(net.weight)
    nn.init.zeros_(net.bias)
    register(
        run_dir,
        "net",
        Servable(Schema(inputs=[x], targets=[y]), net),
        np.array([[2000.0], [2005.0]]),
    )
    served = load("models:/net@champion")(
        torch.tensor([[2000.0], [2005.0], [1990.0]], dtype=torch.float64)
    )
    # By hand: standardised they are 0, 1 and -2, which this net gives for both columns.
    assert served.tolist() == [[70, 1e7], [73, 1e7 + 4], [64, 1e7 - 8]]


def test_a_registered_model_serves_raw_arrays(make_run, monkeypatch):
    run_dir, _, net = make_run()
    register(run_dir, "net", net, PIXELS)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri())
    served = mlflow.pyfunc.load_model("models:/net@champion")
    with torch.no_grad():
        np.testing.assert_allclose(
            served.predict(PIXELS), net(torch.from_numpy(PIXELS)).numpy(), atol=1e-6
        )


def test_the_first_version_is_champion_and_later_ones_challenge_it(make_run):
    for number in ("1", "2", "3"):
        run_dir, run, _ = make_run()
        assert register(run_dir, "net", None, None) == number
    aliases = run.client.get_registered_model("net").aliases
    assert {alias: str(number) for alias, number in aliases.items()} == {
        "champion": "1",
        "challenger": "3",
    }


def test_a_version_is_tagged_with_its_run_its_data_and_its_test_metrics(make_run):
    metrics = {"test/accuracy": 0.975, "test/accuracy/a": 1.0, "valid/accuracy": 0.5}
    run_dir, run, net = make_run(metrics=metrics)
    register(run_dir, "net", net, PIXELS)
    version = run.client.get_model_version("net", "1")
    assert version.run_id == run.run_id
    assert version.tags == {
        "torchrelay.run_id": run_dir.name,
        "torchrelay.fingerprint": "0123456789abcdef" * 2,
        "torchrelay.weights_file_sha256": sha256_file(run_dir / BEST),
        "torchrelay.files_sha256": json.dumps(
            {part: sha256_file(run_dir / part) for part in NEEDED}
        ),
        "test/accuracy": "0.975",
    }


def test_a_model_that_cannot_be_exported_is_registered_with_its_weights_alone(make_run, caplog):
    class Branching(nn.Module):
        def forward(self, x_B: Tensor) -> Tensor:
            return x_B * 2.0 if float(x_B.float().sum()) > 0 else x_B * 3.0

    run_dir, _, _ = make_run()
    register(run_dir, "net", Branching(), PIXELS)
    assert "torch.export refused the model" in caplog.text
    assert resolve_source("models:/net/1", settings.home()).folder == run_dir


def test_a_version_that_is_sent_again_is_no_second_one(make_run):
    run_dir, run, net = make_run()
    line = stage(run_dir, "net", net, PIXELS)[0]
    staged = run_dir / line["folder"]
    shutil.copytree(staged, run_dir / "copy")
    assert register_staged(run, Run(run_dir), line) == "1"
    assert not staged.exists()
    shutil.copytree(run_dir / "copy", staged)  # killed before the cursor moved
    assert register_staged(run, Run(run_dir), line) == "1"
    assert stage(run_dir, "net", net, PIXELS) == [line]  # nor is it staged again
    assert len(run.client.search_logged_models([run.experiment_id])) == 1


@pytest.mark.parametrize("point", ["model_logged", "version_created"])
def test_a_registration_that_died_half_way_goes_on_with_the_model_that_it_logged(make_run, point):
    run_dir, run, net = make_run()
    line = stage(run_dir, "net", net, PIXELS)[0]
    faults.arm(f"register.{point}:raise")
    with pytest.raises(faults.FaultError):
        register_staged(run, Run(run_dir), line)
    faults.arm("")
    assert run.client.get_registered_model("net").aliases == {}
    assert register_staged(run, Run(run_dir), line) == "1"
    assert len(run.client.search_logged_models([run.experiment_id])) == 1
    assert {
        name: str(number) for name, number in run.client.get_registered_model("net").aliases.items()
    } == {"champion": "1"}


def test_a_version_is_made_when_the_journal_is_sent_whatever_its_run_has_become_by_then(
    make_run, load
):
    run_dir, run, net = make_run()
    stage(run_dir, "net", net, PIXELS)
    before = (run_dir / BEST).read_bytes()
    torch.save({"other": torch.zeros(1)}, run_dir / BEST)
    done = sync_run(Run(run_dir))
    assert (done.num_waiting, done.registered) == (0, (("net", "1"),))
    with torch.no_grad():
        torch.testing.assert_close(
            load("models:/net@champion")(torch.from_numpy(PIXELS)), net(torch.from_numpy(PIXELS))
        )
    assert resolve_source("models:/net/1", settings.home()).weights.read_bytes() == before
    logged = run.client.search_logged_models([run.experiment_id])[0]
    model = mlflow.models.Model.load(logged.artifact_location.removeprefix("file://"))
    assert (model.run_id, model.model_id) == (run.run_id, logged.model_id)


def test_a_name_that_mlflow_refuses_is_an_error_of_ours(make_run):
    run_dir, _, _ = make_run()
    with pytest.raises(TrackingError, match=r"cannot register 'a/b'"):
        register(run_dir, "a/b", None, None)


def test_a_name_that_a_prompt_has_is_refused_and_nothing_is_made_of_the_prompt(make_run, caplog):
    run_dir, run, net = make_run()
    run.client.register_prompt("net", "Say {{what}}")
    stage(run_dir, "net", net, PIXELS[:1])
    assert sync_run(Run(run_dir)).num_waiting == 0
    assert "already taken by a prompt" in caplog.text
    assert run.client.search_logged_models([run.experiment_id]) == []


@pytest.mark.parametrize("where", ["data/model.pt2", "MLmodel", "a link", "another"])
def test_a_version_that_was_changed_while_it_waited_is_not_registered(make_run, tmp_path, where):
    run_dir, run, net = make_run()
    [line] = stage(run_dir, "net", net, PIXELS[:1])
    folder = run_dir / line["folder"]
    if where == "a link":
        (folder / "data" / "private").symlink_to(tmp_path / "private")
    elif where == "another":
        (folder / "another").write_text("x")
    else:
        content = bytearray((folder / where).read_bytes())
        content[content.index(b"torch")] ^= 1
        (folder / where).write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{line['weights_sha256'][:16]} is not what was put together: "
    ):
        register_staged(run, Run(run_dir), line)
    assert run.client.search_registered_models() == []


def test_what_mlflow_kept_of_a_version_is_taken_again_only_where_it_is_as_it_was_sent(
    make_run, caplog
):
    run_dir, run, net = make_run()
    [line] = stage(run_dir, "net", net, PIXELS[:1])
    register_staged(run, Run(run_dir), line)
    assert stage_again(Run(run_dir), line, run_dir / line["folder"])
    check_staged(run_dir / line["folder"], line)
    assert (run_dir / line["folder"] / "MLmodel").is_file()
    [kept] = settings.home().artifacts.glob("models/*/artifacts/data/model.pt2")
    kept.write_bytes(kept.read_bytes()[:-1])
    shutil.rmtree(run_dir / line["folder"])
    assert stage_again(Run(run_dir), line, run_dir / line["folder"])
    assert "is not taken again for a version: data/model.pt2 has" in caplog.text
    check_staged(run_dir / line["folder"], line)
    assert not (run_dir / line["folder"] / "MLmodel").exists()


def test_a_version_that_was_deleted_is_made_anew_when_it_is_sent_again(make_run):
    run_dir, run, net = make_run()
    [line] = stage(run_dir, "net", net, PIXELS[:1])
    shutil.copytree(run_dir / line["folder"], run_dir / "kept")
    assert register_staged(run, Run(run_dir), line) == "1"
    run.client.delete_model_version("net", "1")
    (run_dir / "kept").rename(run_dir / line["folder"])
    assert register_staged(run, Run(run_dir), line) == "2"
    assert str(run.client.get_registered_model("net").aliases["champion"]) == "2"


def test_a_version_whose_files_are_gone_costs_a_warning_and_keeps_nothing_behind_it_waiting(
    make_run, caplog
):
    run_dir, run, net = make_run()
    [line] = stage(run_dir, "net", net, PIXELS[:1])
    shutil.rmtree(run_dir / line["folder"])
    (run_dir / "weights" / "best.pt").write_bytes(b"others")
    with Journal(run_dir / JOURNAL_FILE) as journal:
        journal.append_tags({"after": "it"})
    done = sync_run(Run(run_dir), patience_seconds=0.5)
    assert (done.num_waiting, done.registered) == (0, ())
    assert f"{run_dir / line['folder']} is gone" in caplog.text
    assert run.client.get_run(run.run_id).data.tags["after"] == "it"


def test_runs_that_register_one_new_name_at_once_get_a_version_each(make_run):
    runs = [make_run(run_id=f"run-{number}") for number in range(4)]
    for run_dir, _, net in runs:
        stage(run_dir, "net", net, PIXELS[:1])
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(sync_run, [Run(run_dir) for run_dir, _, _ in runs]))
    assert [one.reason for one in done] == [""] * 4
    assert sorted(one.registered[0].number for one in done) == ["1", "2", "3", "4"]
    assert set(runs[0][1].client.get_registered_model("net").aliases) >= {"champion"}


def test_every_form_of_a_source_finds_the_run_folder(make_run):
    run_dir, run, _ = make_run()
    register(run_dir, "net", None, None)
    home = settings.home()
    for source in (
        run_dir.name,
        run_dir.name[:-1],
        run.run_id,
        f"runs:/{run.run_id}",
        str(run_dir / BEST),
    ):
        found = resolve_source(source, home)
        assert (found.folder, found.weights, found.mlflow_run_id) == (
            run_dir,
            run_dir / BEST,
            run.run_id,
        )
        assert found.label == run_dir.name
    for source in ("models:/net@champion", "models:/net/1"):
        found = resolve_source(source, home)
        assert (found.folder, found.mlflow_run_id, found.label) == (
            run_dir,
            run.run_id,
            "models:/net/1",
        )


@pytest.mark.parametrize(
    "form", ["{ours}", "{theirs}", "runs:/{theirs}", "models:/net@champion", "models:/net/1"]
)
def test_a_source_without_a_run_folder_here_is_fetched_from_mlflow(make_run, tmp_path, form):
    run_dir, run, _ = make_run()
    register(run_dir, "net", None, None)
    run.set_status("FINISHED")
    run_dir.rename(tmp_path / "elsewhere")
    found = resolve_source(form.format(ours=run_dir.name, theirs=run.run_id), settings.home())
    assert found.folder.is_relative_to(settings.home().cache / "sources" / run.run_id)
    assert found.mlflow_run_id == run.run_id
    for name in ("recipe.yaml", "schema.json", BEST):
        assert (found.folder / name).read_bytes() == (tmp_path / "elsewhere" / name).read_bytes()


class Sent:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("form", ["models:/net@champion", "runs:/{theirs}"])
def test_neither_code_nor_a_pickle_of_a_logged_model_is_fetched_or_run(make_run, tmp_path, form):
    run_dir, run, _ = make_run()
    mark, flavor = tmp_path / "ran", tmp_path / "flavor"
    for folder in ("code", "data"):
        (flavor / folder).mkdir(parents=True)
    (flavor / "code" / "sent_net.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    )
    (flavor / "MLmodel").write_text("flavors:\n  pytorch: {code: code, model_data: data}\n")
    for name in ("model.pth", "pickle_module_info.txt"):
        (flavor / "data" / name).write_bytes(pickle.dumps(Sent(mark)))
    line = stage(run_dir, "net", None, None)[-1]
    shutil.copytree(flavor, run_dir / line["folder"], dirs_exist_ok=True)
    with pytest.raises(ValueError, match="'MLmodel' is none of its files"):
        register_staged(run, Run(run_dir), line)
    register_staged(run, Run(run_dir), {**line, "files": None})  # a line of before
    run.client.log_artifacts(run.run_id, str(flavor))
    run.set_status("FINISHED")
    run_dir.rename(tmp_path / "elsewhere")
    found = resolve_source(form.format(theirs=run.run_id), settings.home())
    files = {
        str(path.relative_to(found.folder)) for path in found.folder.rglob("*") if path.is_file()
    }
    assert files == {*NEEDED, "downloaded.json"}
    assert read_weights_file(found.weights).state
    assert not mark.exists()
    assert list(settings.home().artifacts.rglob("sent_net.py"))  # it is there to be had
    pickle.loads((flavor / "data" / "model.pth").read_bytes())
    assert mark.exists()


@pytest.mark.parametrize("form", ["models:/net@champion", "runs:/{theirs}"])
def test_weights_of_mlflow_that_are_a_pickle_are_refused_unread(make_run, tmp_path, form):
    run_dir, run, _ = make_run()
    torch.save(Sent(tmp_path / "ran"), run_dir / BEST)
    register(run_dir, "net", None, None)
    run.log_artifact(run_dir / BEST, "weights")
    run.set_status("FINISHED")
    run_dir.rename(tmp_path / "elsewhere")
    found = resolve_source(form.format(theirs=run.run_id), settings.home())
    with pytest.raises(SourceError, match="loading it would run or build"):
        read_weights_file(found.weights)
    assert not (tmp_path / "ran").exists()


def test_a_version_keeps_its_weights_when_its_run_goes_on(make_run):
    run_dir, run, _ = make_run()
    register(run_dir, "net", None, None)
    before = (run_dir / BEST).read_bytes()
    torch.save({"other": torch.zeros(1)}, run_dir / BEST)
    run.log_artifact(run_dir / BEST, "weights")
    found = resolve_source("models:/net@champion", settings.home())
    assert found.folder != run_dir
    assert found.weights.read_bytes() == before
    assert resolve_source(run_dir.name, settings.home()).folder == run_dir


def test_a_fetched_run_that_was_extended_is_fetched_again(make_run, tmp_path):
    run_dir, run, _ = make_run()
    run.set_status("FINISHED")
    run_dir.rename(tmp_path / "elsewhere")
    first = resolve_source(run.run_id, settings.home()).weights.read_bytes()
    torch.save({"other": torch.zeros(1)}, tmp_path / "best.pt")
    run.log_artifact(tmp_path / "best.pt", "weights")
    run.set_status("FINISHED")
    assert resolve_source(run.run_id, settings.home()).weights.read_bytes() != first


@pytest.mark.parametrize(
    "said", ["x", "[1]", "1", "null", '{"schema.json": 1}', '{"../x": "0"}', "[" * 100_000, ""]
)
def test_a_tag_that_does_not_say_what_the_files_are_is_refused_by_its_name(said, tmp_path):
    with pytest.raises(
        SourceError, match=r"^tag torchrelay\.files_sha256 is '.*; expected the sha256"
    ):
        files_of({FILES_TAG: said})
    with pytest.raises(
        ValueError, match=r"^tag torchrelay\.files_sha256"
    ):  # what a line says is set aside
        check_staged(tmp_path, {"tags": {FILES_TAG: said}})


def test_a_run_without_weights_says_how_to_get_them(make_run):
    run_dir, _, _ = make_run()
    update_record(run_dir, status="FAILED")
    (run_dir / BEST).unlink()
    with pytest.raises(
        SourceError, match=rf"\(FAILED\) has no weights/best.pt; torchrelay resume {run_dir.name}"
    ):
        resolve_source(run_dir.name, settings.home())


def test_a_run_in_mlflow_without_our_files_says_which_is_missing(make_run, tmp_path):
    run_dir, run, _ = make_run()
    run.set_status("FINISHED")
    shutil.rmtree(settings.home().artifacts / run.run_id / "artifacts" / "weights")
    run_dir.rename(tmp_path / "elsewhere")
    with pytest.raises(
        SourceError, match=rf"{run_dir.name} has no weights/best.pt among its artifacts"
    ):
        resolve_source(run.run_id, settings.home())
    assert not list((settings.home().cache / "sources" / run.run_id).iterdir())


def test_a_foreign_weights_file_says_what_is_missing(home, tmp_path):
    (tmp_path / "some" / "where").mkdir(parents=True)
    (tmp_path / "some" / "where" / "net.pt").write_bytes(b"x")
    (tmp_path / "some" / "recipe.yaml").write_text("")
    with pytest.raises(
        SourceError,
        match=r"net\.pt is not in the weights folder of a run: schema\.json missing in .*some",
    ):
        resolve_source(str(tmp_path / "some" / "where" / "net.pt"), home)
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(SourceError, match=r"table\.csv is not a weights file"):
        resolve_source(str(tmp_path / "table.csv"), home)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("models:/net@chalenger", r"does not exist; net has @champion \(version 1\)"),
        ("models:/net/7", r"does not exist; net has @champion \(version 1\)"),
        ("models:/nut/1", "does not exist; registered models are net"),
        ("models:/net", "expected models:/<name>@<alias> or models:/<name>/<version>"),
        ("models:/net/99999999999999999999", "expected models:/<name>@<alias>"),
        ("models:/net/Production", "expected models:/<name>@<alias>"),
        ("missing.pt", "weights file missing.pt does not exist"),
        ("0" * 32, r"does not exist in .*; MLflow at sqlite:.* has none either"),
        ("nothing", r"'nothing' does not exist .* the newest are digits-"),
    ],
)
def test_a_source_that_does_not_exist_names_what_does(make_run, source, message):
    run_dir, _, _ = make_run()
    register(run_dir, "net", None, None)
    with pytest.raises(SourceError, match=message):
        resolve_source(source, settings.home())


def test_a_run_id_with_a_slip_names_the_one_that_was_meant(make_run):
    run_dir, _, _ = make_run()
    with pytest.raises(SourceError, match=f"did you mean {run_dir.name}"):
        resolve_source(run_dir.name + "x", settings.home())
