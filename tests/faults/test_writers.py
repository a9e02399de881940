"""Several processes write their runs into one embedded home at once, and each point is there
once.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from mlflow import MlflowClient

from torchrelay import settings

# One process imports MLflow, which takes seconds, and becomes several. Each step is a batch of its
# own.
WRITERS = """
import multiprocessing, sys
import mlflow.store.tracking.sqlalchemy_store
import mlflow.store.model_registry.sqlalchemy_store
from torchrelay import settings
from torchrelay.recipe import Data, Recipe
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.runs import Run
from torchrelay.runs import JOURNAL_FILE, Journal
from torchrelay.runs import journal_opening
from torchrelay.tracking.shipping.outbox import Outbox
from torchrelay.runs import RunRecord, now, save_record

num_processes, num_batches = map(int, sys.argv[1:])

def write(number, barrier):
    y = FeatureSchema(name="y", kind="number", columns=["y"], shape=[1], dtype="float32")
    record = RunRecord(run_id=f"run-{number}", name="x", experiment="shared", \
created=now(), fingerprint="f" * 32)
    run_dir = save_record(settings.home(), record)
    barrier.wait()
    with Journal(run_dir / JOURNAL_FILE) as journal:
        recipe = Recipe(name="x", data=Data(table="t.csv"))
        journal_opening(journal, record, recipe, Schema(inputs=[y], targets=[y]), {})
        outbox = Outbox(Run(run_dir))
        for step in range(1, num_batches + 1):
            journal.append_metrics(step, 0, {"loss": 1 / step})
            journal.flush()
            while outbox.send_batch():
                pass

context = multiprocessing.get_context("fork")
barrier = context.Barrier(num_processes)
processes = [context.Process(target=write, args=(number, barrier)) \
for number in range(num_processes)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("num_processes", "num_batches"), [(3, 50), pytest.param(8, 1000, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_no_batch_of_several_processes_is_lost_or_doubled(
    num_processes: int, num_batches: int
) -> None:
    command = [sys.executable, "-c", WRITERS, str(num_processes), str(num_batches)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.stdout.strip() == str([0] * num_processes), done.stderr
    client = MlflowClient(tracking_uri=settings.tracking_uri())
    experiment = client.get_experiment_by_name("shared")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == num_processes
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "loss")
        assert sorted(point.step for point in history) == list(range(1, num_batches + 1))
