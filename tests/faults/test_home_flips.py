"""A home whose files are changed: what torchrelay says of it, and what it can have back."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flips import OUTCOMES, Flip, Flipper, kind_of, try_flips, why_harmless
from home_probes import PROBES, Case, at_home, attempt, make_case

from torchrelay.disk import sha256_file, write_json
from torchrelay.engine.checkpoints import read_pointer
from torchrelay.errors import DataError, RecipeError, SourceError, TorchrelayError
from torchrelay.runs import (
    FILES_TAG,
    JOURNAL_FILE,
    NEEDED,
    Cursor,
    Journal,
    load_record,
    update_record,
)
from torchrelay.settings import home
from torchrelay.tracking.registry import resolve_source, staging
from torchrelay.tracking.registry import versions as registry
from torchrelay.upkeep import Examination, doctor
from torchrelay.upkeep.altered import (
    find_altered_artifacts,
    find_altered_files,
    find_altered_versions,
    find_bad_splits,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("case"), is_whole=False)


@pytest.fixture
def case(whole: Case, tmp_path: Path) -> Iterator[Case]:
    """A copy of the home, which a test may spoil."""
    shutil.copytree(whole.root, tmp_path / "copied")
    with at_home(tmp_path / "copied"):
        yield whole._replace(root=tmp_path / "copied")


@pytest.fixture
def run_dir(case: Case) -> Path:
    return case.root / "runs" / case.run_id


def exchange_classes(run_dir: Path) -> None:
    schema = json.loads((run_dir / "schema.json").read_text())
    schema["targets"][0]["classes"].reverse()
    write_json(run_dir / "schema.json", schema)


def zero_weights(run_dir: Path) -> None:
    path = run_dir / "weights" / "best.pt"
    state = torch.load(path, weights_only=True)
    torch.save({name: torch.zeros_like(value) for name, value in state.items()}, path)


def change_seed(run_dir: Path) -> None:
    path = run_dir / "recipe.yaml"
    path.write_text(path.read_text() + "\n# seed: 1\n")


@pytest.mark.parametrize(
    ("change", "name", "place"),
    [
        (exchange_classes, "schema.json", "its split"),
        (zero_weights, "weights/best.pt", "checkpoint step-"),
        (change_seed, "recipe.yaml", "checkpoint step-"),
    ],
)
def test_a_source_that_is_not_as_it_was_written_is_refused_named_by_the_doctor_and_had_back(
    change, name: str, place: str, case: Case, run_dir: Path
) -> None:
    content = (run_dir / name).read_bytes()
    change(run_dir)
    said = rf"{name} does not have the sha256 that the run's record has of it"
    with pytest.raises(SourceError, match=rf"run {case.run_id}: {said}; put it back from a copy"):
        resolve_source(case.run_id, home())
    with pytest.raises(SourceError, match=said):
        resolve_source(str(run_dir / "weights" / "best.pt"), home())
    [finding] = find_altered_files(Examination.of(home()))
    assert (
        finding.what
        == f"{case.run_id}: {name} does not have the sha256 that the run's record has of it"
    )
    assert finding.mend is not None
    assert f"{name} put back from {place}" in finding.mend()
    assert (run_dir / name).read_bytes() == content
    assert list(find_altered_files(Examination.of(home()))) == []


def edit_record(run_dir: Path) -> None:
    record = run_dir / "run.json"
    record.write_text(record.read_text().replace('"device": "cpu"', '"device": "cpU"'))


def lose_manifests(run_dir: Path) -> None:
    for manifest in run_dir.glob("checkpoints/*/manifest.json"):
        manifest.unlink()


@pytest.mark.parametrize("name", ["", "copied under another name"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (exchange_classes, "schema.json does not have the sha256"),
        (edit_record, "is not as torchrelay wrote it"),
        (lose_manifests, "is not what the manifest beside it says"),
        (None, ""),
    ],
)
def test_a_file_of_weights_is_held_against_the_record_near_it_whatever_its_folder_is_called(
    change, said: str, name: str, run_dir: Path
) -> None:
    if change is not None:
        change(run_dir)
    folder = run_dir.rename(run_dir.parent / name) if name else run_dir
    weights = (
        next(folder.glob("checkpoints/step-*/state.pt"))
        if "manifest" in said
        else folder / "weights" / "best.pt"
    )
    if change is None:
        assert resolve_source(str(weights), home()).folder == folder
        (folder / "run.json").unlink()
        assert resolve_source(str(weights), home()).label == str(weights)
        return
    with pytest.raises(SourceError, match=said):
        resolve_source(str(weights), home())


def test_a_file_without_a_copy_stays_and_its_remedy_is_said(case: Case, run_dir: Path) -> None:
    exchange_classes(run_dir)
    exchange_classes(Path(load_record(run_dir).split_dir))
    [finding] = find_altered_files(Examination.of(home()))
    assert finding.mend is not None
    with pytest.raises(SourceError, match="no copy of it was found"):
        finding.mend()


def test_a_damaged_split_of_a_run_is_refused_by_a_resume_and_made_anew_by_the_doctor(
    case: Case, run_dir: Path
) -> None:
    split_dir = Path(load_record(run_dir).split_dir)
    content = (split_dir / "schema.json").read_bytes()
    exchange_classes(split_dir)
    with pytest.raises(
        SourceError, match=r"cannot go on: split .*schema\.json does not have the sha256"
    ):
        PROBES["resume"](case)
    [finding] = find_bad_splits(Examination.of(home()))
    assert finding.mend is not None
    assert finding.mend().startswith(
        f"packs/{split_dir.parents[1].name}/splits/{split_dir.name}: made anew from"
    )
    assert (split_dir / "schema.json").read_bytes() == content
    shutil.move(case.table, case.table.with_suffix(".gone"))
    try:
        exchange_classes(split_dir)
        with pytest.raises(DataError, match=r"pictures\.csv"):
            finding.mend()
    finally:
        shutil.move(case.table.with_suffix(".gone"), case.table)


def forget_digests(run_dir: Path) -> None:
    """Leave a run as an older version did."""
    record = json.loads((run_dir / "run.json").read_text())
    del record["files"], record["digest"]
    write_json(run_dir / "run.json", record)
    (home().root / "packs").joinpath(*Path(record["split_dir"]).parts[1:], "manifest.json").unlink()
    for pointer in ("best", "last"):
        (run_dir / "checkpoints" / pointer).write_text(
            read_pointer(run_dir / "checkpoints", pointer)
        )


def test_a_run_of_an_older_version_opens_without_a_word(case: Case, run_dir: Path) -> None:
    before = set(home().runs.iterdir())
    calm = [attempt(case, probe) for probe in ("doctor", "predict")]
    for made in set(home().runs.iterdir()) - before:
        shutil.rmtree(made)
    forget_digests(run_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [attempt(case, probe) for probe in ("doctor", "predict")] == calm
    assert attempt(case, "resume").result


def test_a_changed_seed_is_refused_where_no_digest_tells_of_it(case: Case, run_dir: Path) -> None:
    forget_digests(run_dir)
    path = run_dir / "recipe.yaml"
    text = path.read_text()
    assert "seed: 0\n" in text
    path.write_text(text.replace("  seed: 0\n", "  seed: 1\n"))
    with pytest.raises(RecipeError, match=r"train\.seed: a run goes on with what it began with"):
        PROBES["resume"](case)


def test_other_rows_are_refused_where_no_digest_tells_of_them(case: Case, run_dir: Path) -> None:
    import numpy as np

    forget_digests(run_dir)
    path = Path(load_record(run_dir).split_dir) / "split.npy"
    side = np.load(path)
    side[np.flatnonzero(side == 2)[:3]] = 0
    np.save(path, side)
    with pytest.raises(SourceError, match="other rows train, validate or test now"):
        PROBES["resume"](case)


def test_a_record_that_is_not_as_it_was_written_is_refused_and_without_its_digest_it_is_taken(
    case: Case, run_dir: Path
) -> None:
    path = run_dir / "run.json"
    record = json.loads(path.read_text())
    write_json(path, record | {"epochs": 7})
    with pytest.raises(
        SourceError, match=r"run\.json is not as torchrelay wrote it; put a copy of it back, or"
    ):
        load_record(run_dir)
    del record["digest"]
    write_json(path, record | {"epochs": 7})
    assert load_record(run_dir).epochs == 7


def test_a_record_that_names_a_file_outside_its_folder_is_refused(run_dir: Path) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    del record["digest"]
    write_json(run_dir / "run.json", record | {"files": {"../../other": "0"}})
    with pytest.raises(TorchrelayError, match=r"'\.\./\.\./other' is no file in the run's folder"):
        load_record(run_dir)


def test_a_flip_in_the_middle_of_each_file_is_noticed_or_harmless_for_a_reason(case: Case) -> None:
    flipper = Flipper(case, ("show", "doctor"))
    found: dict[str, set[str]] = {}
    for file in flipper.files:
        if size := (case.root.with_name("kept") / file).stat().st_size:
            outcome, why = flipper.try_flip(Flip(file, 4 * size + 1))
            assert outcome in OUTCOMES[:3], (file, outcome, why)
            found.setdefault(kind_of(file), set()).add(outcome)
    harmless = {kind for kind, outcomes in found.items() if "harmless" in outcomes}
    assert harmless == {
        *("runs/…/*.png", "packs/…/*.png"),
        *(
            f"run ({kind})/{name}"
            for kind in ("train", "predict")
            for name in ("lock", "ship.lock")
        ),
    }
    assert len(found) > 30


@pytest.mark.parametrize(
    ("file", "after", "is_harmless"),
    [
        ("runs/a/run.json", b'{"a":  1}', True),
        ("runs/a/run.json", b'{"a": 3}', False),
        ("runs/a/run.json", b'{"a": ', False),
        ("runs/a/recipe.yaml", b'{"a":  1}', False),
        ("runs/a/checkpoints/best", b"step-00000001", False),
        ("runs/a/figures/data.png", b"", True),
        ("runs/a/ship.lock", b"", True),
    ],
)
def test_harmless_is_what_has_a_reason(file: str, after: bytes, is_harmless: bool) -> None:
    assert bool(why_harmless(file, b'{"a": 1}', after)) == is_harmless


def test_the_flips_find_a_result_that_changes_in_silence(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchrelay.runs.run.Run.why_changed", lambda run, name: "")
    flipper = Flipper(case, ("doctor", "predict"))
    name = f"runs/{case.run_id}/schema.json"
    schema = json.loads((case.root.with_name("kept") / name).read_text())
    schema["targets"][0]["classes"].reverse()
    assert flipper.try_change(name, json.dumps(schema).encode()) == (
        "silent",
        "predict gives something else",
    )


@pytest.mark.slow
def test_a_hundred_random_flips_of_all_files_of_a_home_change_nothing_in_silence(
    tmp_path: Path,
) -> None:
    flipper = Flipper(make_case(tmp_path / "case"))
    assert try_flips(flipper, flipper.draw(100, 13)) == []


def test_a_seed_is_refused_on_a_resume_by_set_and_by_hand(case: Case, run_dir: Path) -> None:
    from torchrelay.tasks import reopen_run

    with pytest.raises(RecipeError, match=r"^train\.seed: a run goes on with what it began with"):
        reopen_run.fn(run_dir, {"train.seed": 1, "train.epochs": 3})
    path = run_dir / "recipe.yaml"
    path.write_text(path.read_text().replace("  seed: 0\n", "  seed: 1\n"))
    with pytest.raises(SourceError, match=r"recipe\.yaml does not have the sha256"):
        PROBES["resume"](case)


def write_database(path: Path, owners: dict[str, str]) -> None:
    """What of MLflow's tables says whose a run is, by MLflow's id."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE runs (run_uuid, name, artifact_uri)")
        connection.execute("CREATE TABLE tags (run_uuid, key, value)")
        connection.executemany(
            "INSERT INTO runs VALUES (?, 'a name', '')", [(one,) for one in owners]
        )
        connection.executemany(
            "INSERT INTO tags VALUES (?, 'torchrelay.run_id', ?)", owners.items()
        )


def test_artifacts_that_are_not_what_was_sent_are_named_and_copied_again(
    case: Case, run_dir: Path
) -> None:
    update_record(run_dir, mlflow_run_id="0" * 32)
    write_database(case.root / "mlflow.db", {"0" * 32: case.run_id, "1" * 32: "another"})
    folder = case.root / "artifacts" / ("0" * 32) / "artifacts"
    split_dir = Path(load_record(run_dir).split_dir)
    shutil.copytree(run_dir / "weights", folder / "weights")
    (folder / "data").mkdir()
    shutil.copy(run_dir / "recipe.yaml", folder)
    shutil.copy(split_dir / "report.json", folder / "data")
    (folder / "data" / "report.json").write_text("{}")
    zero_weights(folder)
    assert (
        list(find_altered_artifacts(Examination.of(home()))) == []
    )  # lines wait: MLflow has not all of it yet
    Cursor(offset=(run_dir / JOURNAL_FILE).stat().st_size).save(run_dir)
    findings = list(find_altered_artifacts(Examination.of(home())))
    told = f"of run {case.run_id} is not what was sent to MLflow"
    assert {one.what for one in findings} == {
        f"artifact weights/best.pt {told}",
        f"artifact data/report.json {told}",
    }
    assert all(one.mend is not None and "copied from" in one.mend() for one in findings)
    assert list(find_altered_artifacts(Examination.of(home()))) == []
    change_seed(folder)
    change_seed(run_dir)
    [finding] = find_altered_artifacts(Examination.of(home()))
    assert finding.mend is not None
    with pytest.raises(DataError, match="is not as it was either"):
        finding.mend()


@pytest.mark.parametrize("how", ["another's id", "a link", "an id that MLflow does not have"])
def test_artifacts_that_are_another_runs_or_lie_elsewhere_are_left_alone(
    case: Case, run_dir: Path, how: str
) -> None:
    stated = {"another's id": "1", "a link": "0", "an id that MLflow does not have": "2"}[how] * 32
    update_record(run_dir, mlflow_run_id=stated)
    write_database(case.root / "mlflow.db", {"0" * 32: case.run_id, "1" * 32: "another"})
    Cursor(offset=(run_dir / JOURNAL_FILE).stat().st_size).save(run_dir)
    folder, killed_run = case.root / "artifacts" / stated / "artifacts", case.root / "killed_run"
    (killed_run if how == "a link" else folder).mkdir(parents=True)
    if how == "a link":
        folder.parent.mkdir(parents=True)
        folder.symlink_to(killed_run)
    (folder / "recipe.yaml").write_text("precious")
    found = list(find_altered_artifacts(Examination.of(home())))
    assert [one.mend for one in found] == ([None] if how == "another's id" else [])
    assert all(f"in MLflow it is {stated}, which is another" in one.what for one in found)


def test_the_doctor_puts_weights_back_from_artifacts(case: Case, run_dir: Path) -> None:
    update_record(run_dir, mlflow_run_id="0" * 32)
    shutil.copytree(
        run_dir / "weights", case.root / "artifacts" / ("0" * 32) / "artifacts" / "weights"
    )
    content = (run_dir / "weights" / "optimizer.pt").read_bytes()
    (run_dir / "weights" / "optimizer.pt").write_bytes(content[:-1])
    [finding] = find_altered_files(Examination.of(home()))
    assert finding.mend is not None
    assert "put back from MLflow's artifacts" in finding.mend()
    assert (run_dir / "weights" / "optimizer.pt").read_bytes() == content


def test_a_registered_model_that_is_not_what_was_registered_is_named(
    case: Case, run_dir: Path
) -> None:
    folder = case.root / "artifacts" / "models" / "m-0" / "artifacts"
    shutil.copytree(run_dir / "weights", folder / "weights")
    assert (
        list(find_altered_versions(Examination.of(home()))) == []
    )  # a version of before has no list
    staging.list_version(folder, {})
    assert list(find_altered_versions(Examination.of(home()))) == []
    (folder / "weights" / "last.pt").write_bytes(b"")
    [finding] = find_altered_versions(Examination.of(home()))
    assert (
        "registered model in artifacts/models/m-0/artifacts: weights/last.pt has 0 bytes"
        in finding.what
    )
    listed = (folder / "files.json").read_text()
    (folder / "files.json").write_text(listed.replace("weights/last.pt", "weights/lost.pt"))
    [finding] = find_altered_versions(Examination.of(home()))
    assert "files.json does not have the digest that it names" in finding.what


def test_a_run_that_mlflow_alone_has_is_fetched_as_it_was_sent_or_refused(
    case: Case, run_dir: Path, tmp_path: Path
) -> None:
    tags = [
        line["values"] for line in Journal(run_dir / JOURNAL_FILE).lines() if line["kind"] == "tags"
    ]
    files = json.loads(next(values[FILES_TAG] for values in tags if FILES_TAG in values))
    assert files == {name: sha256_file(run_dir / name) for name in NEEDED}

    def download(part: str, folder: Path) -> str:
        return str(shutil.copy(run_dir / part, folder / Path(part).name))

    fetched = registry.fetch_source(home(), "a", "whole", "run a", download, files)
    assert fetched.weights.read_bytes() == (run_dir / "weights" / "best.pt").read_bytes()
    exchange_classes(run_dir)
    with pytest.raises(
        SourceError,
        match=r"run a: schema\.json among its artifacts .* sha256 that it was sent with",
    ):
        registry.fetch_source(home(), "a", "changed", "run a", download, files)


def test_lines_of_a_journal_that_were_changed_are_named_by_the_doctor(
    case: Case, run_dir: Path
) -> None:
    path = run_dir / JOURNAL_FILE
    data = path.read_bytes()
    at = data.index(b'"epoch":1')
    path.write_bytes(data[: at + 8] + b"2" + data[at + 9 :])
    number = data[:at].count(b"\n") + 1
    told = f"has 1 lines that are garbled, the first of them line {number}"
    assert any(told in finding.what for finding in doctor(home()).left)
