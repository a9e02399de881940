"""A tracker that refuses, hangs, fails or answers late costs a training neither time nor a
point.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from torchrelay import settings
from torchrelay.cli import commands
from torchrelay.flows import train
from torchrelay.runs import JOURNAL_FILE, Journal, Run, waiting
from torchrelay.tracking.registry import resolve_source

from ..conftest import WriteRecipe
from .proxy import Mode, proxied
from .server import Server

pytestmark = pytest.mark.usefixtures("prefect_server")

Point = tuple[int, float]
# What a clock decides is another number in each run.
BY_THE_CLOCK = ("rows_per_second",)
# On a busy machine; `benchmarks/outage.py` measures them, and MLflow alone takes minutes.
MOST_SECONDS = 15


def histories(run: dict[str, Any], mlflow_run_id: str = "") -> dict[str, list[Point]]:
    """Every point that MLflow has of a run's metrics, by name."""
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    found = client.get_run(mlflow_run_id or run["mlflow_run_id"])
    return {
        key: sorted(
            (point.step, point.value) for point in client.get_metric_history(found.info.run_id, key)
        )
        for key in found.data.metrics
        if key not in BY_THE_CLOCK
    }


def sync(seconds: float = 0.0) -> dict[str, Any]:
    """`torchrelay sync --json`, which must leave nothing waiting.

    Args:
        seconds: for how long it is tried again. A run's thread, which ends with its process, lives
            on in a test, and holds the journal until the answer comes that it waits for.
    """
    deadline = time.monotonic() + seconds
    done = CliRunner().invoke(commands, ["sync", "--json"])
    while done.exit_code and time.monotonic() < deadline:
        time.sleep(1)
        done = CliRunner().invoke(commands, ["sync", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_training_without_a_tracker_has_the_same_weights_and_its_points_and_model_arrive_later(
    number_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(number_recipe(tracking={"register": "numbers", "wait_seconds": 0.3}))
    undisturbed = train(recipe_file=recipe, overrides={"train.epochs": 2, "tracking.register": ""})
    with proxied(mode="hang") as proxy, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        alone = train(recipe_file=recipe, overrides={"train.epochs": 2})
        assert proxy.num_requests > 0
    said = capsys.readouterr().err
    assert "lines of the journal wait for the tracker; torchrelay sync" in said
    assert "registered" not in said
    assert (alone["status"], alone["mlflow_run_id"]) == ("FINISHED", "")
    assert alone["weights_sha256"] == undisturbed["weights_sha256"]
    num_lines = waiting(Run(Path(alone["run_dir"])))

    done = sync()["runs"]
    assert [(one["run_id"], one["sent"], one["waiting"]) for one in done] == [
        (alone["run_id"], num_lines, 0)
    ]
    assert done[0]["registered"] == [{"name": "numbers", "number": "1"}]
    assert histories(alone, done[0]["mlflow_run_id"]) == histories(undisturbed)
    assert (
        str(resolve_source("models:/numbers@champion", settings.home()).folder) == alone["run_dir"]
    )
    assert sync() == {"runs": []}


@pytest.mark.slow
def test_a_run_that_began_without_a_tracker_is_resumed_and_is_one_run_in_it(
    number_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = str(number_recipe(tracking={"wait_seconds": 0.1}))
    whole = train(recipe_file=recipe, overrides={"train.epochs": 3})
    with socket.socket() as nobody, monkeypatch.context() as patch:
        nobody.bind(("127.0.0.1", 0))
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        short = train(recipe_file=recipe, overrides={"train.epochs": 2})
    longer = train(resume=short["run_id"], overrides={"train.epochs": 3})
    assert (longer["run_id"], longer["weights_sha256"]) == (
        short["run_id"],
        whole["weights_sha256"],
    )
    expected = {
        key: points for key, points in histories(whole).items() if not key.startswith("test/")
    }
    found = histories(longer)
    assert {key: found[key] for key in expected} == expected
    assert [step for step, _ in found["test/rmse"]] == [short["steps"], longer["steps"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.send(signal.SIGKILL)


def when(moment: str, act: Callable[[], None]) -> None:
    """Act once the newest run's journal has come to a moment, in a thread."""
    signs = {"middle": b'"step":60,', "end": b'"artifact","path":"weights"'}

    def watch() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for path in settings.home().runs.glob(f"*/{JOURNAL_FILE}"):
                if path.parent.name.startswith("disturbed") and signs[moment] in path.read_bytes():
                    act()
                    return
            time.sleep(0.002)

    threading.Thread(target=watch, daemon=True).start()


MOMENTS = ("start", "middle", "end")


@pytest.fixture
def undisturbed(number_recipe: WriteRecipe) -> tuple[str, dict[str, Any], float]:
    """A recipe, its run in the embedded tracker, and the seconds that it took."""
    recipe = str(number_recipe())
    train(recipe_file=recipe, overrides={"train.epochs": 1})  # what is imported and compiled once
    began = time.monotonic()
    result = train(recipe_file=recipe)
    return recipe, result, time.monotonic() - began


def assert_survives(
    undisturbed: tuple[str, dict[str, Any], float],
    address: str,
    bring_back: Callable[[], None],
    monkeypatch: Any,
) -> bool:
    """A run under a disturbance costs at most 5 s and is, once the tracker is back, the same as
    without.

    Returns:
        Whether MLflow had all of it when the run ended.
    """
    recipe, expected, seconds = undisturbed
    points = histories(expected)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    began = time.monotonic()
    result = train(
        recipe_file=recipe, overrides={"name": "disturbed", "tracking.experiment": "outages"}
    )
    added = time.monotonic() - began - seconds
    is_complete = waiting(Run(Path(result["run_dir"]))) == 0
    assert result["status"] == "FINISHED"
    assert result["weights_sha256"] == expected["weights_sha256"]
    bring_back()
    sync(seconds=70)
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("outages")
    assert experiment is not None
    runs = [
        run
        for run in client.search_runs([experiment.experiment_id])
        if run.data.tags["torchrelay.run_id"] == result["run_id"]
    ]
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert histories(result, runs[0].info.run_id) == points
    journal = Journal(Path(result["run_dir"]) / JOURNAL_FILE).points()
    for key in BY_THE_CLOCK:
        history = client.get_metric_history(runs[0].info.run_id, key)
        assert sorted((p.step, p.value) for p in history) == sorted(
            (p.step, p.value) for p in journal if p.key == key
        )
    assert added <= MOST_SECONDS, f"{added:.1f} s"
    return is_complete


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("mode", ["refuse", "hang", "500", "late"])
def test_whatever_a_tracker_does_and_when_costs_seconds_and_no_point(
    server: Server, undisturbed: Any, mode: Mode, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(server.port) as proxy:

        def disturb() -> None:
            proxy.mode = mode

        def bring_back() -> None:
            proxy.mode = "forward"

        disturb() if moment == "start" else when(moment, disturb)
        assert_survives(undisturbed, proxy.address, bring_back, monkeypatch)
        assert proxy.num_requests > 0


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("sign", [signal.SIGSTOP, signal.SIGKILL])
def test_a_server_that_is_stopped_or_killed_costs_seconds_and_no_point(
    server: Server,
    undisturbed: Any,
    sign: signal.Signals,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def disturb() -> None:
        server.send(sign)

    def bring_back() -> None:
        if sign == signal.SIGSTOP:
            server.send(signal.SIGCONT)
        else:
            server.start()

    disturb() if moment == "start" else when(moment, disturb)
    assert_survives(undisturbed, f"http://127.0.0.1:{server.port}", bring_back, monkeypatch)


@pytest.mark.slow
def test_an_orderly_run_is_complete_in_a_server_when_it_ends(
    server: Server, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(server.port) as proxy:
        assert assert_survives(undisturbed, proxy.address, lambda: None, monkeypatch)
        assert proxy.num_requests > 0
