from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry

from torchrelay import faults, settings
from torchrelay.disk import lock
from torchrelay.errors import BusyError, RecipeError, SourceError
from torchrelay.faults import FaultError
from torchrelay.flows.evaluate import evaluate
from torchrelay.flows.train import train
from torchrelay.runs import Journal, Run, RunRecord, list_records, load_record, update_record
from torchrelay.tasks import change_recipe

from ..conftest import WriteRecipe
from ..mlflow_private import forget_places

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    yield
    faults.arm("")


@pytest.fixture
def sigterm_ends() -> Iterator[None]:
    """SIGTERM as the command line takes it: an exception, once Prefect has had its word."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=settings.tracking_uri())


def events(result: dict[str, Any] | RunRecord) -> list[str]:
    run_id = result.run_id if isinstance(result, RunRecord) else result["run_id"]
    lines = list(Journal(settings.home().runs / run_id / "journal.jsonl").lines())
    return [line["name"] for line in lines if line["kind"] == "event"]


def only_run() -> RunRecord:
    [record] = list_records(settings.home())
    return record


def test_a_retry_by_prefect_goes_on_with_the_run_of_the_first_attempt(
    number_recipe: WriteRecipe,
) -> None:
    recipe, epochs = str(number_recipe()), {"train.epochs": 4}
    whole = train(recipe_file=recipe, overrides=epochs)
    faults.arm("train.epoch_done:raise:2")
    retried = train.with_options(retries=1)(recipe_file=recipe, overrides=epochs)
    assert len(list_records(settings.home())) == 2
    assert (retried["status"], retried["weights_sha256"]) == ("FINISHED", whole["weights_sha256"])
    assert events(retried) == ["resumed"]
    run = client().get_run(retried["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    for name in ("train/loss", "valid/loss", "test/rmse"):
        history = [
            [
                (point.step, point.value)
                for point in client().get_metric_history(one["mlflow_run_id"], name)
            ]
            for one in (whole, retried)
        ]
        assert history[0] == history[1]
    assert not (Path(retried["run_dir"]) / "error.txt").exists()
    said = Path(client().download_artifacts(run.info.run_id, "error.txt")).read_text()
    assert said.startswith("Traceback")
    assert said.endswith("FaultError: fault at train.epoch_done, time 2\n")


def test_a_flow_run_that_prefect_runs_again_gives_the_result_of_its_finished_run(
    number_recipe: WriteRecipe,
) -> None:
    parameters = {"recipe_file": str(number_recipe()), "overrides": {"train.epochs": 1}}
    with get_client(sync_client=True) as api:
        flow_run = api.create_flow_run(train, parameters=parameters)
        first: Any = run_flow(train, flow_run=flow_run, parameters=parameters)
        ended = only_run().ended
        api.set_flow_run_state(flow_run.id, AwaitingRetry(), force=True)
        again = api.read_flow_run(flow_run.id)
        second: Any = run_flow(train, flow_run=again, parameters=parameters)
        state = api.read_flow_run(flow_run.id).state
    assert state is not None
    assert state.is_completed()
    assert first == second
    assert only_run().prefect_flow_run_id == str(flow_run.id)
    assert only_run().ended == ended
    assert uuid.UUID(first["prefect_flow_run_id"]) == flow_run.id


def test_a_flow_run_whose_run_went_on_in_another_does_not_train_a_second_one(
    number_recipe: WriteRecipe,
) -> None:
    parameters = {"recipe_file": str(number_recipe()), "overrides": {"train.epochs": 2}}
    faults.arm("train.epoch_done:raise")
    with get_client(sync_client=True) as api:
        flow_run = api.create_flow_run(train, parameters=parameters)
        with pytest.raises(FaultError):
            run_flow(train, flow_run=flow_run, parameters=parameters)
        faults.arm("")
        resumed = train(resume=only_run().run_id)
        assert (resumed["earlier_flow_runs"], resumed["status"]) == ([str(flow_run.id)], "FINISHED")
        api.set_flow_run_state(flow_run.id, AwaitingRetry(), force=True)
        again: Any = run_flow(train, flow_run=api.read_flow_run(flow_run.id), parameters=parameters)
    assert again == resumed
    assert only_run().run_id == resumed["run_id"]


@pytest.mark.parametrize(
    ("point", "was_scored"), [("evaluate.scored", False), ("register.begun", True)]
)
def test_what_is_done_is_not_done_again(
    number_recipe: WriteRecipe, point: str, was_scored: bool
) -> None:
    faults.arm(f"{point}:raise")
    overrides = {"train.epochs": 1, "tracking.register": "line"}
    with pytest.raises(FaultError):
        train(recipe_file=str(number_recipe()), overrides=overrides)
    record = only_run()
    run_dir = settings.home().runs / record.run_id
    written = {
        name: (run_dir / name).stat().st_mtime_ns for name in ("weights/best.pt", "weights/last.pt")
    }
    scored = (run_dir / "predictions.parquet").stat().st_mtime_ns if was_scored else 0
    faults.arm("")
    assert record.status == "FAILED"
    result = train(resume=record.run_id)
    assert (result["run_id"], result["mlflow_run_id"]) == (record.run_id, record.mlflow_run_id)
    assert result["status"] == "FINISHED"
    assert result["done"] == ["train", "evaluate", "register"]
    assert {name: (run_dir / name).stat().st_mtime_ns for name in written} == written
    if was_scored:
        assert (run_dir / "predictions.parquet").stat().st_mtime_ns == scored
    assert [one.version for one in client().search_model_versions("name = 'line'")] in (["1"], [1])


def test_a_finished_run_is_registered_when_it_is_asked_to_and_nothing_else_is_done(
    number_recipe: WriteRecipe,
) -> None:
    first = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    scored = (Path(first["run_dir"]) / "predictions.parquet").stat().st_mtime_ns
    second = train(resume=first["run_id"], overrides={"tracking.register": "late"})
    assert list(client().get_registered_model("late").aliases) == ["champion"]
    assert (Path(first["run_dir"]) / "predictions.parquet").stat().st_mtime_ns == scored
    assert second["metrics"] == first["metrics"]
    with pytest.raises(SourceError, match="is finished"):
        train(resume=first["run_id"], overrides={"tracking.register": "late"})
    assert load_record(Path(first["run_dir"])).status == "FINISHED"


@pytest.mark.parametrize(
    "point",
    [
        "evaluate.scored:term",
        pytest.param("train.reported:term:7", marks=pytest.mark.slow),
        pytest.param("train.validated:term:2", marks=pytest.mark.slow),
        pytest.param("register.begun:term", marks=pytest.mark.slow),
    ],
)
def test_sigterm_kills_the_run_truthfully_wherever_it_is_and_it_goes_on_to_the_same_bits(
    number_recipe: WriteRecipe, sigterm_ends: None, point: str
) -> None:
    recipe, epochs = str(number_recipe()), {"train.epochs": 3, "tracking.register": "line"}
    whole = train(recipe_file=recipe, overrides=epochs)
    faults.arm(point)
    with pytest.raises((SystemExit, TerminationSignal)):
        train(recipe_file=recipe, overrides=epochs)
    faults.arm("")
    record = list_records(settings.home())[0]
    assert (record.status, record.error) == ("KILLED", "stopped by SIGTERM")
    assert client().get_run(record.mlflow_run_id).info.status == "KILLED"
    result = train(resume=record.run_id)
    assert result["weights_sha256"] == whole["weights_sha256"]
    assert {key: x for key, x in result["metrics"].items() if key != "rows_per_second"} == {
        key: x for key, x in whole["metrics"].items() if key != "rows_per_second"
    }


def fail_at_step_3(recipe: str, overrides: dict[str, Any]) -> RunRecord:
    """A run that died in its first epoch, before its first checkpoint."""
    faults.arm("train.reported:raise:3")
    with pytest.raises(FaultError):
        train(recipe_file=recipe, overrides=overrides)
    faults.arm("")
    return list_records(settings.home())[0]


def test_a_run_that_dies_before_its_record_leaves_nothing(number_recipe: WriteRecipe) -> None:
    faults.arm("run.recipe_written:raise")
    with pytest.raises(FaultError):
        train(recipe_file=str(number_recipe()))
    assert list(settings.home().runs.iterdir()) == []


@pytest.mark.slow
def test_a_run_goes_on_before_its_first_checkpoint_and_with_its_own_rows_alone(
    number_recipe: WriteRecipe,
) -> None:
    recipe, epochs = str(number_recipe()), {"train.epochs": 2}
    whole = train(recipe_file=recipe, overrides=epochs)
    record = fail_at_step_3(recipe, epochs)
    assert not (settings.home().runs / record.run_id / "checkpoints").exists()
    column = next(Path(record.pack_dir).glob("*.npy"))
    data = column.read_bytes()
    column.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        SourceError, match=f"run {record.run_id} cannot go on: pack .* does not have the sha256"
    ):
        train(resume=record.run_id)
    column.write_bytes(data)
    run_dir = settings.home().runs / record.run_id
    update_record(run_dir, fingerprint="00")
    with pytest.raises(SourceError, match="began with data of the fingerprint 00, the pack in"):
        train(resume=record.run_id)
    assert load_record(run_dir).status == "FAILED"
    update_record(run_dir, fingerprint=record.fingerprint, split_dir="/before/home/packs/split")
    with pytest.raises(
        SourceError, match=r"gone from /before/home/packs/split; bring it back, or train a new run"
    ):
        train(resume=record.run_id)
    update_record(run_dir, split_dir=record.split_dir)
    assert train(resume=record.run_id)["weights_sha256"] == whole["weights_sha256"]


@pytest.mark.slow
def test_a_run_goes_on_in_a_home_that_was_moved(
    number_recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, epochs = str(number_recipe()), {"train.epochs": 2}
    whole = train(recipe_file=recipe, overrides=epochs)
    record, before = fail_at_step_3(recipe, epochs), settings.home().root
    moved = tmp_path / "elsewhere" / "home"
    moved.parent.mkdir()
    before.rename(moved)
    (tmp_path / "numbers.csv").unlink()  # the pack has all that it needs
    monkeypatch.setenv("TORCHRELAY_HOME", str(moved))
    forget_places()
    result = train(resume=record.run_id)
    assert result["weights_sha256"] == whole["weights_sha256"]
    assert not before.exists()
    for one in (record, list_records(settings.home())[1]):
        files = [item.path for item in client().list_artifacts(one.mlflow_run_id)]
        assert {"data", "figures", "weights"} <= set(files)


def test_what_changes_on_the_way_is_recorded_and_what_would_break_the_run_is_refused(
    number_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    run_dir = Path(first["run_dir"])
    for key, value in {
        "train.batch_size": 4,
        "train.seed": 1,
        "train.accumulate": 2,
        "model.args": {},
        "tracking.experiment": "other",
        "train.optimizer.args.lr_decay": 0.1,
    }.items():
        with pytest.raises(RecipeError, match=rf"{key}.*: a run goes on with what it began with"):
            change_recipe(Run(run_dir), {key: value})
    assert (
        change_recipe(
            Run(run_dir), {"train.augment": [], "tracking.wait_seconds": 1}
        ).tracking.wait_seconds
        == 1
    )
    changes = {
        "train.epochs": 2,
        "train.optimizer.args.lr": 0.005,
        "train.optimizer.args.weight_decay": 0.01,
    }
    threads = load_record(run_dir).threads
    changes["train.threads"] = threads + 1
    second = train(resume=first["run_id"], overrides={**changes, "train.label_smoothing": 0.0})
    assert load_record(run_dir).threads == threads + 1
    assert "warning: not bit-identical from here on: num_threads changed" in capsys.readouterr().err
    expected = {
        "train.epochs": ["1", "2"],
        "train.optimizer.args.lr": ["0.02", "0.005"],
        "train.optimizer.args.weight_decay": [None, "0.01"],
        "train.threads": ["auto", str(threads + 1)],
    }
    lines = list(Journal(run_dir / "journal.jsonl").lines())
    [drift] = [line["fields"] for line in lines if line.get("name") == "drift"]
    assert drift == {"changes": expected, "from_step": first["steps"]}
    assert [line["path"] for line in lines if line["kind"] == "artifact"].count("recipe.yaml") == 2
    sent = client().download_artifacts(second["mlflow_run_id"], "recipe.yaml")
    assert Path(sent).read_text() == (run_dir / "recipe.yaml").read_text()
    tag = json.loads(client().get_run(second["mlflow_run_id"]).data.tags["torchrelay.drift"])
    assert tag["train.optimizer.args.lr"] == ["0.02", "0.005"]
    rates = [line["values"]["lr"] for line in lines if "lr" in line.get("values", ())]
    assert (rates[first["steps"] - 1], rates[first["steps"]]) == (0.02, 0.005)


@pytest.mark.slow
def test_a_second_writer_is_refused_with_pid_and_host_of_the_first(
    number_recipe: WriteRecipe, splits_recipe: WriteRecipe
) -> None:
    run = train(recipe_file=str(number_recipe()), overrides={"train.epochs": 1})
    parent = train(recipe_file=str(splits_recipe()), overrides={"train.epochs": 1})
    for run_id in (run["run_id"], parent["run_id"], parent["runs"][0]["run_id"]):
        with (
            lock(settings.home().runs / run_id / "lock", "mine"),
            pytest.raises(BusyError, match=rf"run {run_id} is being written by pid \d+ on \S+"),
        ):
            train(resume=run_id, overrides={"train.epochs": 2})
        assert load_record(settings.home().runs / run_id).status == "FINISHED"
    evaluated = evaluate(run["run_id"], "numbers.csv")
    assert (settings.home().runs / evaluated["run_id"] / "lock").read_text().startswith("pid ")
