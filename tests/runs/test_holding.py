"""A training whose folder is taken away notices, says so, makes nothing anew, and MLflow hears
that it failed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from torchrelay import settings
from torchrelay.disk import lock, make_folder, write_atomic
from torchrelay.errors import RunLostError
from torchrelay.runs import Run, holding
from torchrelay.runs.holding import check_folder, checked
from torchrelay.runs.journal import Journal
from torchrelay.runs.layout import JOURNAL_FILE
from torchrelay.runs.record import RunRecord, load_record, now, save_record
from torchrelay.settings import Home
from torchrelay.tasks import finish_run, hold_run, keep_status, open_run
from torchrelay.tracking import open_client

from ..conftest import WriteRecipe
from ..tasks.conftest import MakeRun


@pytest.fixture
def home(migrated_database: Path) -> Home:
    found = settings.home()
    found.root.mkdir(parents=True)
    shutil.copyfile(migrated_database, found.root / "mlflow.db")
    return found


def replace_folder(run_dir: Path) -> None:
    run_dir.rename(run_dir.with_name("moved"))
    shutil.copytree(run_dir.with_name("moved"), run_dir)


def replace_record(run_dir: Path) -> None:
    record = load_record(run_dir)
    save_record(
        settings.home(), record.model_copy(update={"created": "2020-01-01T00:00:00.000+00:00"})
    )


def steal_lock(run_dir: Path) -> None:
    (run_dir / "lock").unlink()
    (run_dir / "lock").write_text("pid 7 on elsewhere")


TAKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (shutil.rmtree, "was removed"),
    "emptied and made again": (
        lambda run_dir: (shutil.rmtree(run_dir), run_dir.mkdir()),
        "was replaced by another",
    ),
    "replaced by its copy": (replace_folder, "was replaced by another"),
    "moved": (lambda run_dir: run_dir.rename(run_dir.with_name("moved")), "was removed"),
    "home removed": (lambda run_dir: shutil.rmtree(run_dir.parents[1]), "was removed"),
    "record of another": (replace_record, "replaced by that of another run"),
    "record gone": (
        lambda run_dir: (run_dir / "run.json").unlink(),
        "its record cannot be read any more",
    ),
    "lock replaced": (steal_lock, "lock was replaced"),
    "lock removed": (lambda run_dir: (run_dir / "lock").unlink(), "lock was removed"),
}


@pytest.mark.parametrize(("take", "said"), TAKEN.values(), ids=TAKEN.keys())
def test_what_becomes_of_a_held_folder_is_noticed_and_ends_the_run(
    home: Home, take: Callable[[Path], object], said: str
) -> None:
    run_dir = home.runs / "held"
    record = RunRecord(run_id="held", name="x", experiment="x", created=now())
    after: list[str] = []
    lost = pytest.raises(RunLostError, match=rf"run held ends here: .*{said}")
    with lost as caught, hold_run(run_dir), keep_status(run_dir):
        check_folder(Run(run_dir), is_now=True)
        save_record(home, record)
        check_folder(Run(run_dir), is_now=True)
        take(run_dir)
        after = sorted(str(path) for path in home.root.rglob("*"))
        check_folder(Run(run_dir), is_now=True)
    assert caught.value.exit_code == 1
    if said != "lock was removed":
        assert (
            sorted(str(path) for path in home.root.rglob("*") if path.name != "mlflow.lock")
            == after
        )
    else:  # nobody took its place: the run is written down as failed
        assert load_record(run_dir).status == "FAILED"


def test_a_folder_that_was_removed_is_not_made_again_by_what_writes_into_it(home: Home) -> None:
    run_dir = home.runs / "held"
    with hold_run(run_dir):
        shutil.rmtree(home.root)
        for write in (
            lambda: write_atomic(run_dir / "weights" / "best.pt", b"x"),
            lambda: make_folder(run_dir / "figures"),
            lambda: Journal(run_dir / JOURNAL_FILE).append_event("made"),
            lambda: lock(run_dir / "ship.lock", "it").__enter__(),
        ):
            with pytest.raises(Exception, match="Was removed while it was written to"):
                write()
        assert not home.root.exists()
    make_folder(run_dir)
    assert run_dir.is_dir()


def test_a_run_in_good_order_is_left_alone_and_looked_at_every_two_seconds(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = home.runs / "held"
    looks: list[Path] = []
    real = holding.is_same_file
    monkeypatch.setattr(
        holding, "is_same_file", lambda path, opened: bool(looks.append(path)) or real(path, opened)
    )

    def batches() -> Iterator[int]:
        yield from range(1000)

    with hold_run(run_dir):
        save_record(home, RunRecord(run_id="held", name="x", experiment="x", created=now()))
        assert list(checked(Run(run_dir), batches)()) == list(range(1000))
        assert len(looks) == 2  # the folder and the lock, once
    looks.clear()
    monkeypatch.setattr(holding, "CHECK_SECONDS", 0.0)
    with hold_run(run_dir):
        list(checked(Run(run_dir), batches)())
        assert len(looks) == 2000
    check_folder(Run(run_dir), is_now=True)  # nobody holds it here


@pytest.mark.parametrize("take", [shutil.rmtree, replace_folder])
def test_a_run_that_is_lost_before_its_end_does_not_end_well_and_mlflow_hears_that_it_failed(
    home: Home, make_run: MakeRun, number_recipe: WriteRecipe, take: Callable[[Path], object]
) -> None:
    from torchrelay.recipe import load_recipe
    from torchrelay.schema import Schema

    source = make_run(number_recipe(), "source")
    recipe, schema = load_recipe(source / "recipe.yaml"), Schema.load(source / "schema.json")
    run_dir = home.runs / "held"
    record = RunRecord(run_id="held", name="x", experiment="x", created=now())
    mlflow_run_id = ""
    with (
        pytest.raises(RunLostError, match="run held ends here"),
        hold_run(run_dir),
        keep_status(run_dir),
    ):
        open_run(record, recipe, schema, {"train": 10})
        mlflow_run_id = load_record(run_dir).mlflow_run_id
        assert mlflow_run_id
        take(run_dir)
        finish_run.fn(run_dir)
    assert open_client().get_run(mlflow_run_id).info.status == "FAILED"
    assert (run_dir.exists(), os.listdir(home.runs).count("held")) == (
        (take is replace_folder),
    ) * 2
    if run_dir.exists():
        assert load_record(run_dir).status == "RUNNING"
