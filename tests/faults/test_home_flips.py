"""A home whose files are changed: what torchrelay says of it, and what it can have back."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from torchrelay.engine.generations import read_pointer
from torchrelay.errors import DataError, RecipeError, SourceError, TorchrelayError
from torchrelay.files import write_json
from torchrelay.settings import home
from torchrelay.tasks.altered import find_altered_files, find_bad_splits
from torchrelay.tasks.examination import Examination
from torchrelay.tracking.records import load_record
from torchrelay.tracking.registry import resolve_source

from .flips import PROBES, Case, at_home, attempt, make_case


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("case"))


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
    assert finding.what == f"{case.run_id}: {name} does not have the sha256 that the run's record has of it"
    assert finding.mend is not None
    assert f"{name} put back from {place}" in finding.mend()
    assert (run_dir / name).read_bytes() == content
    assert list(find_altered_files(Examination.of(home()))) == []


def test_a_file_without_a_copy_stays_and_its_remedy_is_said(case: Case, run_dir: Path) -> None:
    exchange_classes(run_dir)
    exchange_classes(Path(load_record(run_dir).split_dir))
    [finding] = find_altered_files(Examination.of(home()))
    assert finding.mend is not None
    with pytest.raises(SourceError, match="no copy of it was found"):
        finding.mend()


def test_a_damaged_split_of_a_run_is_refused_by_a_resume_and_made_anew_by_the_doctor(case: Case, run_dir: Path) -> None:
    split_dir = Path(load_record(run_dir).split_dir)
    content = (split_dir / "schema.json").read_bytes()
    exchange_classes(split_dir)
    with pytest.raises(SourceError, match=r"cannot go on: split .*schema\.json does not have the sha256"):
        PROBES["resume"](case)
    [finding] = find_bad_splits(Examination.of(home()))
    assert finding.mend is not None
    assert finding.mend().startswith(f"packs/{split_dir.parents[1].name}/splits/{split_dir.name}: made anew from")
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
        (run_dir / "checkpoints" / pointer).write_text(read_pointer(run_dir / "checkpoints", pointer))


def test_a_run_of_an_older_version_opens_without_a_word(case: Case, run_dir: Path) -> None:
    calm = {probe: attempt(case, probe) for probe in ("predict", "doctor")}
    forget_digests(run_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {probe: attempt(case, probe) for probe in ("predict", "doctor")} == calm
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
    with pytest.raises(SourceError, match=r"run\.json is not as torchrelay wrote it; put a copy of it back, or"):
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
