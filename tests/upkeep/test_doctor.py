from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Running

from torchrelay.cli import commands
from torchrelay.datasets.pack import list_packs
from torchrelay.disk import lock, share_lock
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.errors import LockError
from torchrelay.flows import ingest
from torchrelay.recipe import load_recipe
from torchrelay.runs import (
    Journal,
    Run,
    RunRecord,
    journal_opening,
    load_record,
    now,
    save_record,
    update_record,
    waiting,
)
from torchrelay.schema import Schema
from torchrelay.settings import home, tracking_uri
from torchrelay.tasks import ingest_table
from torchrelay.tasks.services import SERVER, list_orphans
from torchrelay.tracking.registry import stage_model
from torchrelay.tracking.shipping import sync_run
from torchrelay.upkeep.doctor import doctor
from torchrelay.upkeep.examination import Finding
from torchrelay.upkeep.installation import check_clock, check_versions

from ..conftest import WriteRecipe
from ..tasks.conftest import MakeRun

LONG_AGO = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="milliseconds")


@pytest.fixture
def lost_run(make_run: MakeRun, number_recipe: WriteRecipe) -> Path:
    """A run of two epochs, 10 steps, whose process died after one; a lock of no process, a
    journal, no end.
    """
    run_dir = make_run(number_recipe(), "lost")
    update_record(run_dir, status="RUNNING")
    (run_dir / "lock").write_text(f"pid 999999 on {os.uname().nodename}")
    journal_a_run(run_dir)
    return run_dir


def journal_a_run(run_dir: Path) -> None:
    """Journal that a run began with the tracker that is set, and its seven steps."""
    recipe, schema = load_recipe(run_dir / "recipe.yaml"), Schema.load(run_dir / "schema.json")
    with Journal(run_dir / "journal.jsonl") as journal:
        journal_opening(journal, load_record(run_dir), recipe, schema, {"train": 10})
        for step in range(1, 8):
            journal.append_metrics(step, int(step > 5), {"train/loss": 1.0 / step})
            if step == 5:
                journal.append_metrics(step, 1, {"train/epoch_loss": 0.5})


def send(run_dir: Path) -> str:
    """Send a run to MLflow as far as it is journaled; MLflow's id of it."""
    shipped = sync_run(Run(run_dir))
    assert (shipped.num_waiting, shipped.reason) == (0, "")
    return shipped.mlflow_run_id


def parts(findings: list[Finding]) -> list[str]:
    return [one.part for one in findings]


def database_of_prefect(states: dict[str, str]) -> Path:
    """The folder of an embedded Prefect whose flow runs have these states."""
    folder = home().root / "prefect"
    folder.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(folder / "prefect.db")) as database:
        database.execute("CREATE TABLE flow_run (id TEXT, state_type TEXT)")
        database.executemany("INSERT INTO flow_run VALUES (?, ?)", states.items())
        database.commit()
    return folder


def damaged_pack() -> Path:
    """The one pack of this home, with a bit of its row numbers turned."""
    [pack_dir] = list_packs(home())
    path = pack_dir / "row.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return pack_dir


def test_an_empty_home_and_this_installation_are_in_order() -> None:
    assert doctor(home()) == ([], [])
    assert not home().root.exists()


def test_a_lost_run_is_killed_with_what_its_journal_says_and_mlflow_hears_of_it(
    lost_run: Path,
) -> None:
    mlflow_run_id = send(lost_run)
    client = MlflowClient(tracking_uri=tracking_uri())
    assert client.get_run(mlflow_run_id).info.status == "RUNNING"

    assert parts(doctor(home()).left) == ["runs", "MLflow"]
    assert load_record(lost_run).status == "RUNNING"
    examined = doctor(home(), fix=True)
    assert examined.left == []
    assert examined.mended == [
        "run lost: KILLED, process ended without a word; last step 7",
        f"run lost: 1 lines of its journal sent to MLflow at {tracking_uri()}",
    ]
    record = load_record(lost_run)
    assert (record.status, record.steps, record.epochs) == ("KILLED", 7, 1)
    assert record.error == "process ended without a word; last step 7"
    assert record.metrics["train/loss"] == 1 / 7
    last = list(Journal(lost_run / "journal.jsonl").lines())[-2][
        "time"
    ]  # the one after it says KILLED
    assert datetime.fromisoformat(record.ended).timestamp() * 1000 == pytest.approx(last, abs=1)
    run = client.get_run(mlflow_run_id)
    assert (run.info.status, run.info.end_time) == ("KILLED", last)
    assert doctor(home()) == ([], [])


@pytest.mark.parametrize(
    ("ended", "done", "goes_on", "status", "error"),
    [
        ("FINISHED", ["train", "evaluate"], False, "FINISHED", ""),
        ("FAILED", [], False, "FAILED", "see error.txt"),
        ("KILLED", [], False, "KILLED", "stopped by a signal or a cancel"),
        # It was made longer, and lost while it was reopened or after that.
        ("FINISHED", [], False, "KILLED", "process ended without a word; last step 7"),
        (
            "FINISHED",
            ["train", "evaluate"],
            True,
            "KILLED",
            "process ended without a word; last step 7",
        ),
    ],
)
def test_a_run_that_was_lost_when_it_had_ended_ended_as_its_journal_says(
    lost_run: Path, ended: str, done: list[str], goes_on: bool, status: str, error: str
) -> None:
    mlflow_run_id = send(lost_run)
    update_record(lost_run, done=done)
    ended_ms = round(time.time() * 1000)
    with Journal(lost_run / "journal.jsonl") as journal:
        journal.append_status(ended, ended_ms)
        if goes_on:
            journal.append_event("resumed", step=7)
    examined = doctor(home(), fix=True)
    assert (examined.left, len(examined.mended)) == ([], 2)
    record = load_record(lost_run)
    assert (record.status, record.error) == (status, error)
    run = MlflowClient(tracking_uri=tracking_uri()).get_run(mlflow_run_id)
    assert run.info.status == status
    if status == ended:
        assert examined.mended[0] == f"run lost: {status}, as its journal says"
        assert run.info.end_time == ended_ms
        assert datetime.fromisoformat(record.ended).timestamp() * 1000 == pytest.approx(
            ended_ms, abs=1
        )


def test_a_lost_evaluation_is_to_be_run_again_as_it_cannot_go_on(lost_run: Path) -> None:
    assert doctor(home()).left[0].remedy.endswith("; torchrelay resume lost lets it go on")
    update_record(lost_run, kind="evaluate")
    assert (
        doctor(home()).left[0].remedy.endswith("; it cannot go on: run torchrelay evaluate again")
    )


def test_a_run_that_a_living_process_writes_stays_as_it_is(lost_run: Path) -> None:
    with lock(lost_run / "lock", "run lost"):
        assert doctor(home(), fix=True) == ([], [])
    assert load_record(lost_run).status == "RUNNING"
    assert parts(doctor(home()).left) == ["runs", "MLflow"]


def test_a_run_of_another_host_is_left_to_that_host(lost_run: Path) -> None:
    (lost_run / "lock").write_text("pid 7 on elsewhere")
    [finding] = doctor(home(), fix=True).left
    assert finding.what == "lost is RUNNING, last on host elsewhere"
    assert finding.remedy.endswith(
        "where that host is no more, torchrelay doctor --fix --host elsewhere"
    )
    assert load_record(lost_run).status == "RUNNING"


def test_a_run_of_a_host_that_is_no_more_is_lost_and_one_of_another_is_not(
    lost_run: Path, make_run: MakeRun, number_recipe: WriteRecipe
) -> None:
    other = make_run(number_recipe(), "other")
    update_record(other, status="RUNNING")
    (lost_run / "lock").write_text("pid 7 on 3f2a9c1d0b77")
    (other / "lock").write_text("pid 7 on elsewhere")
    done = CliRunner().invoke(
        commands, ["doctor", "--fix", "--host", "3f2a9c1d0b77", "--host", "typo"]
    )
    assert (done.exit_code, load_record(lost_run).status, load_record(other).status) == (
        1,
        "KILLED",
        "RUNNING",
    )
    assert "warning: --host typo has no effect" in done.stderr
    assert "mended     run lost: KILLED, process ended without a word; last step 7\n" in done.stdout
    assert (
        "where that host is no more, torchrelay doctor --fix --host 3f2a9c1d0b77 --host typo "
        "--host elsewhere" in done.stdout
    )
    with lock(lost_run / "lock", "run lost"):
        (lost_run / "lock").write_text("pid 7 on 3f2a9c1d0b77")
        update_record(lost_run, status="RUNNING")
        doctor(home(), fix=True, gone_hosts=["3f2a9c1d0b77"])
        assert load_record(lost_run).status == "RUNNING"


def test_a_run_that_is_about_to_get_its_lock_is_not_lost(lost_run: Path) -> None:
    (lost_run / "lock").unlink()
    assert doctor(home(), fix=True) == ([], [])
    long_ago = time.time() - 3600
    os.utime(lost_run, (long_ago, long_ago))
    assert parts(doctor(home()).left) == ["runs", "MLflow"]


def test_mlflow_hears_of_an_end_that_it_missed(lost_run: Path) -> None:
    mlflow_run_id = send(lost_run)
    update_record(lost_run, status="FINISHED", ended=LONG_AGO)
    assert doctor(home(), fix=True).mended == [f"MLflow run {mlflow_run_id} of lost: FINISHED"]
    assert (
        MlflowClient(tracking_uri=tracking_uri()).get_run(mlflow_run_id).info.status == "FINISHED"
    )


def test_a_journal_that_waits_is_found_and_sent(lost_run: Path) -> None:
    send(lost_run)
    update_record(lost_run, status="KILLED", ended=now())
    with Journal(lost_run / "journal.jsonl") as journal:
        journal.append_metrics(8, 1, {"train/loss": 0.1})
        journal.append_status("KILLED")
    update_record(lost_run, ended=LONG_AGO)
    waits = [one.what for one in doctor(home()).left]
    assert waits[0] == "2 lines of the journal of lost wait for the tracker"
    assert doctor(home(), fix=True).mended == [
        f"run lost: 2 lines of its journal sent to MLflow at {tracking_uri()}"
    ]
    assert doctor(home()) == ([], [])


def test_a_journal_that_waits_for_another_tracker_is_found_and_not_sent_here(
    make_run: MakeRun, number_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run(number_recipe(), "theirs")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@team:5000")
        journal_a_run(run_dir)
    (run_dir / "lock").write_text("")
    update_record(run_dir, status="KILLED", ended=LONG_AGO)
    [finding] = doctor(home(), fix=True).left
    assert finding.what == (
        "10 lines of the journal of theirs wait for the tracker http://team:5000, "
        f"not for {tracking_uri()}"
    )
    assert finding.remedy == "set MLFLOW_TRACKING_URI=http://team:5000, then torchrelay sync theirs"
    assert waiting(Run(run_dir)) == 10


def test_a_silent_tracker_is_waited_for_once(
    make_run: MakeRun, number_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchrelay.settings.SYNC_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr("torchrelay.settings.ANSWER_SECONDS", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never reads one
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        first, second = (make_run(number_recipe(), name) for name in ("first", "second"))
        for run_dir in (first, second):
            journal_a_run(run_dir)
            (run_dir / "lock").write_text("")
            update_record(run_dir, status="KILLED", ended=LONG_AGO)
        installation, *left = doctor(home(), fix=True).left
    assert "does not answer" in installation.what
    assert [one.what.split()[6] for one in left] == ["first", "second"]
    reasons = [one.remedy.partition(" wait still: ")[2] for one in left]
    assert "does not answer in time" in reasons[0]
    assert reasons[0].partition(";")[0] == reasons[1].partition(";")[0]
    assert [(run_dir / "ship.lock").exists() for run_dir in (first, second)] == [True, False]


def test_a_version_that_waited_to_be_registered_is_named(
    make_run: MakeRun, number_recipe: WriteRecipe
) -> None:
    run_dir = make_run(number_recipe(), "good")
    (run_dir / "lock").write_text("")
    update_record(run_dir, ended=LONG_AGO)
    recipe = load_recipe(run_dir / "recipe.yaml")
    run = Run.open(run_dir)
    with run.journal as journal:
        journal_opening(
            journal,
            run.record,
            recipe,
            Schema.load(run_dir / "schema.json"),
            {"train": 10},
        )
        stage_model(run, "line", None, None)
    line, _ = doctor(home(), fix=True).mended
    assert line.endswith(f"sent to MLflow at {tracking_uri()}; registered: line version 1")


@pytest.mark.usefixtures("prefect_server")
def test_prefect_hears_that_a_flow_run_crashed(
    lost_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    with get_client(sync_client=True) as client:
        lost, other = (client.create_flow_run(ingest, state=Running()).id for _ in range(2))
        update_record(lost_run, prefect_flow_run_id=str(lost))
        assert parts(doctor(home()).left) == ["runs", "MLflow", "Prefect"]
        examined = doctor(home(), fix=True)
        assert examined.left == []
        assert examined.mended[2] == f"Prefect flow run {lost} of lost: Crashed"
        state = client.read_flow_run(lost).state
        assert state is not None
        assert state.is_crashed()
        assert state.message == "process ended without a word; last step 7"
        assert client.read_flow_run(other).state.is_running()


def test_a_prefect_server_that_does_not_answer_is_named(lost_run: Path) -> None:
    update_record(lost_run, prefect_flow_run_id=str(uuid.uuid4()))
    environment = {
        **os.environ,
        "PREFECT_API_URL": "http://user:s3cr3t@127.0.0.1:9/api",
        "PREFECT_CLIENT_MAX_RETRIES": "0",
    }
    code = "import sys; from torchrelay.cli import main; sys.argv[1:] = ['doctor']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "its flow runs cannot be read" in done.stdout
    assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.usefixtures("prefect_server")
def test_a_flow_run_whose_run_went_on_in_another_is_lost_and_the_other_is_not(
    lost_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    with get_client(sync_client=True) as client:
        first, second = (client.create_flow_run(ingest, state=Running()).id for _ in range(2))
        update_record(lost_run, prefect_flow_run_id=str(second), earlier_flow_runs=[str(first)])
        with lock(lost_run / "lock", "run lost"):
            assert doctor(home()) == ([], [])  # the first may be about to tell Prefect how it ended
            long_ago = time.time() - 3600
            os.utime(lost_run / "lock", (long_ago, long_ago))
            [finding] = doctor(home()).left
            assert (
                finding.what
                == f"flow run {first} is RUNNING there, lost went on in another flow run"
            )
            assert doctor(home(), fix=True).mended == [f"Prefect flow run {first} of lost: Crashed"]
        state = client.read_flow_run(first).state
        assert state is not None
        assert state.message == f"process ended without a word; lost went on in flow run {second}"
        assert client.read_flow_run(second).state.is_running()
        mended = doctor(home(), fix=True).mended
        assert mended[2:] == [f"Prefect flow run {second} of lost: Crashed"]


def test_what_was_mended_is_said_at_once_and_what_fails_is_a_finding_beside_the_others(
    lost_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(lost_run)
    flow_run_id = str(uuid.uuid4())
    update_record(lost_run, prefect_flow_run_id=flow_run_id)
    database_of_prefect({flow_run_id: "RUNNING"})
    pack_dir = damaged_pack()
    error: BaseException = KeyboardInterrupt()

    def no_server(**options: object) -> None:
        raise error

    monkeypatch.setattr("prefect.client.orchestration.get_client", no_server)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        doctor(home(), fix=True, tell=told.append)
    assert [line.split(":")[0] for line in told] == ["run lost", "run lost"]

    error = RuntimeError("Timed out while attempting to connect to the temporary server")
    prefect, pack = doctor(home(), fix=True, tell=told.append).left
    assert prefect.remedy.startswith("it could not be mended (RuntimeError: Timed out while")
    assert str(pack_dir) in pack.what

    def no_processes(attributes: list[str]) -> None:
        raise NotImplementedError("none here")

    monkeypatch.setattr("psutil.process_iter", no_processes)
    *found, pack = doctor(home(), fix=True, tell=told.append).left
    assert parts(found) == ["Prefect", "processes"]
    assert {one.what for one in found} == {
        "cannot be examined further: NotImplementedError: none here"
    }
    assert str(pack_dir) in pack.what
    assert len(told) == 2


def test_a_lock_that_cannot_be_written_is_a_finding_beside_the_others(lost_run: Path) -> None:
    (home().root / "data.lock").unlink()
    (home().root / "data.lock").mkdir()  # what a read-only disk does too, also for root
    pack_dir = damaged_pack()
    found = doctor(home()).left
    assert parts(found) == ["runs", "MLflow", "leftovers", "packs"]
    assert f"{home().root / 'data.lock'} cannot be written" in found[2].what
    assert str(pack_dir) in found[3].what


def test_a_run_whose_lock_cannot_be_written_is_refused_before_prefect_is_asked(
    lost_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lost_run / "lock").unlink()
    (lost_run / "lock").mkdir()  # what a read-only disk does too, also for root
    monkeypatch.setattr(
        "torchrelay.flows.train", lambda **options: pytest.fail("Prefect was asked")
    )
    error = CliRunner().invoke(commands, ["resume", "lost"]).exception
    assert isinstance(error, LockError)
    assert f"{lost_run / 'lock'} cannot be written" in str(error)


def test_what_dead_writers_left_goes_but_not_while_an_ingest_is_at_work(
    make_run: MakeRun, number_recipe
) -> None:
    run_dir = make_run(number_recipe(), "good")
    (run_dir / "lock").write_text("")
    half = [
        home().packs / ".pack.01234567.tmp",
        run_dir / "checkpoints" / ".step-1.tmp",
        home().runs / "half",
    ]
    for folder in half:
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (home().runs / "half" / "lock").write_text("")
    with share_lock(home().root / "data.lock"), lock(home().runs / "half" / "lock", "run half"):
        assert [one.what.split()[0] for one in doctor(home()).left] == [
            "runs/good/checkpoints/.step-1.tmp"
        ]
    examined = doctor(home(), fix=True)
    assert (examined.left, len(examined.mended)) == ([], 3)
    assert [folder.exists() for folder in half] == [False] * 3
    assert (run_dir / "weights" / "best.pt").exists()


def test_a_checkpoint_that_does_not_verify_is_set_aside(lost_run: Path) -> None:
    update_record(lost_run, status="KILLED", ended=now())
    store = CheckpointStore(lost_run / "checkpoints", 3, {"run_id": "lost"}, {})
    for step in (1, 2):
        store.save({"step": step, "x": torch.zeros(3)}, step, is_best=False)
    path = lost_run / "checkpoints" / "step-00000002" / "state.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    examined = doctor(home(), fix=True)
    assert examined.mended == ["checkpoint lost/step-00000002: set aside as bad-step-00000002"]
    assert (lost_run / "checkpoints" / "bad-step-00000002" / "state.pt").exists()
    assert store.load_last().state["step"] == 1
    assert doctor(home()) == ([], [])


def test_a_flow_run_that_was_lost_before_it_had_a_run_is_found_but_not_one_whose_server_lives() -> (
    None
):
    lost = str(uuid.uuid4())
    folder = database_of_prefect({lost: "RUNNING", "0" * 32: "COMPLETED"})
    environment = os.environ | {"PREFECT_HOME": str(folder), "PREFECT__SERVER_EPHEMERAL": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", SERVER], env=environment
    ) as server:
        assert doctor(home()) == ([], [])
        server.kill()
    [finding] = doctor(home()).left
    assert (
        finding.what
        == f"flow run {lost} is RUNNING there, and its process was lost before it had a run"
    )
    record = RunRecord(
        run_id="a", name="a", experiment="a", created=now(), earlier_flow_runs=[lost]
    )
    update_record(
        save_record(home(), record), status="KILLED", error="process ended without a word"
    )
    (home().runs / "a" / "lock").write_text("")
    [finding] = doctor(home()).left
    assert finding.what == f"flow run {lost} is RUNNING there, a went on in another flow run"
    (home().runs / "a" / "lock").write_text("pid 7 on elsewhere")
    assert doctor(home()) == ([], [])


def test_a_damaged_pack_is_found(number_recipe: WriteRecipe) -> None:
    ingest_table.fn(load_recipe(number_recipe()))
    assert doctor(home()) == ([], [])
    pack_dir = damaged_pack()
    [finding] = doctor(home(), fix=True).left
    assert finding.what == f"pack {pack_dir}: row.npy does not have the sha256 of the manifest"
    assert finding.remedy == "run `torchrelay ingest` again, which writes it anew"


def test_what_a_comparison_left_is_named_and_stays_and_one_at_work_is_not() -> None:
    folder = home().root / "verify-abc"
    with lock(folder / "lock", "mine"):
        assert doctor(home(), fix=True) == ([], [])
    [finding] = doctor(home(), fix=True).left
    assert finding.what.startswith("verify-abc holds the runs of a verify-resume")
    assert folder.is_dir()


def test_what_a_process_on_another_host_writes_stays(
    make_run: MakeRun, number_recipe: WriteRecipe
) -> None:
    run_dir = make_run(number_recipe(), "good")
    (run_dir / "lock").write_text("pid 7 on elsewhere")
    (run_dir / ".half.tmp").write_text("x")
    begun = home().runs / "begun"
    begun.mkdir()
    (begun / "lock").write_text("pid 8 on elsewhere")
    assert doctor(home(), fix=True) == ([], [])
    assert ((run_dir / ".half.tmp").exists(), begun.exists()) == (True, True)


@pytest.mark.skipif(
    sys.platform != "linux", reason="another system takes in orphans in another way"
)
def test_an_orphaned_prefect_server_of_this_home_is_ended_and_no_other(tmp_path: Path) -> None:
    own = {"PREFECT_HOME": str(home().root / "prefect"), "PREFECT__SERVER_EPHEMERAL": "1"}
    pids = []
    for environment in (own, {**own, "PREFECT_HOME": str(tmp_path / "other")}):
        code = "import os, sys, time; print(os.getpid(), flush=True); os.close(1); time.sleep(60)"
        script = f'"{sys.executable}" -c "{code}" {SERVER} &'
        done = subprocess.run(
            ["sh", "-c", script], env=os.environ | environment, stdout=subprocess.PIPE, text=True
        )
        pids.append(int(done.stdout))
    try:
        assert [process.pid for process in list_orphans(home())] == pids[:1]
        assert doctor(home(), fix=True).mended == [f"process {pids[0]}: ended"]
        assert list_orphans(home()) == []
        os.kill(pids[1], 0)
    finally:
        os.kill(pids[1], 9)


def test_a_version_outside_the_bounds_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site" / "probe-1.0.dist-info"
    folder.mkdir(parents=True)
    requires = ["click>=99", "numpy>=1", "not-there-at-all>=2", 'pandas>=99; extra == "more"']
    lines = [
        "Metadata-Version: 2.1",
        "Name: probe",
        "Version: 1.0",
        *(f"Requires-Dist: {one}" for one in requires),
    ]
    (folder / "METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path / "site")
    [click, missing] = check_versions("probe")
    assert click[0].endswith("is installed, probe needs click>=99")
    assert click[1] == "pip install 'click>=99'"
    assert missing[0] == "not-there-at-all is not installed, probe needs not-there-at-all>=2"
    assert list(check_versions("probe", ["numpy"])) == []


def test_a_run_from_the_future_says_that_the_clock_is_wrong() -> None:
    record = RunRecord(
        run_id="a", name="a", experiment="a", created="2030-01-01T00:00:00.000+00:00"
    )
    moment = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert list(check_clock([record], moment)) == []
    [(what, _)] = check_clock([record], moment - 7200)
    assert "in 120 minutes from now" in what


def test_a_server_that_does_not_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = doctor(home()).left
    assert "the MLflow server at http://127.0.0.1:9 does not answer" in found[0].what
    assert found[0].remedy == "start it, or unset MLFLOW_TRACKING_URI to work without one"
