"""What a tracker's outage costs a CIFAR-10 run: an MLflow server that is killed, stopped, fails or
is late.

    python benchmarks/outage.py [--epochs N] [--json FILE]

Each disturbance begins before the run, in its middle or at its end, and is over when the run has
ended; then
`torchrelay sync` sends what waits. Every row says how many seconds the command took longer than the
median of the undisturbed ones, and whether weights and points, once MLflow has them, are the same.
It needs data/cifar10, which
`torchrelay fetch cifar10` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "faults"))
from proxy import Proxy, proxied
from server import Server

TORCHRELAY = Path(sys.executable).with_name("torchrelay")
RECIPE = Path(__file__).parents[1] / "recipes" / "cifar10.yaml"
REPEATS = 3
MOMENTS = {"start": b"", "middle": b'"step":800,', "end": b'"artifact","path":"weights"'}
MODES = ("killed", "stopped", "500", "late")
BY_THE_CLOCK = ("rows_per_second",)
History = dict[str, list[tuple[int, float]]]


def main() -> None:
    """Run all disturbances, print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torchrelay-outage-") as scratch:
        server = Server(Path(scratch))
        try:
            bench = Bench(Path(scratch), server, arguments.epochs)
            rows = list(bench.measure())
        finally:
            server.send(SIGKILL)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if all(row["identical"] for row in rows) else 1)


class Bench:
    """Runs of one recipe in one home, tracked by one server.

    Args:
        scratch: holds the home.
        server: of MLflow.
        epochs: of each run.
    """

    def __init__(self, scratch: Path, server: Server, epochs: int) -> None:
        self._home, self._server, self._epochs = scratch / "home", server, epochs

    def measure(self) -> Iterator[dict[str, Any]]:
        """Train undisturbed, then under each disturbance; a row each, which is printed too."""
        with proxied(self._server.port) as proxy:
            self._train(proxy.address)  # decodes, imports and compiles what later runs find
            calm = [self._train(proxy.address) for _ in range(REPEATS)]
            seconds = statistics.median(one["wall"] for one in calm)
            expected = self._histories(calm[0]["mlflow_run_id"])
            num_points = sum(map(len, expected.values()))
            span = (
                f"{min(one['wall'] for one in calm):.1f} to {max(one['wall'] for one in calm):.1f}"
            )
            print(f"undisturbed: {seconds:.1f} s ({span}), {num_points:,} points in MLflow")
            for mode in MODES:
                for moment in MOMENTS:
                    with self._disturbance(proxy, mode, moment) as bring_back:
                        found = self._train(proxy.address)
                        bring_back()
                    self._run("sync", address=proxy.address)
                    history = self._histories(self._mlflow_id(found["run_id"]))
                    row = {
                        "server": mode,
                        "from": moment,
                        "added_seconds": round(found["wall"] - seconds, 2),
                        "identical": found["weights_sha256"] == calm[0]["weights_sha256"]
                        and history == expected,
                    }
                    verdict = "weights and points identical" if row["identical"] else "DIFFERENT"
                    print(
                        f"{mode:<8} {moment:<7} {row['added_seconds']:+6.1f} s  {verdict}",
                        flush=True,
                    )
                    yield row

    @contextmanager
    def _disturbance(self, proxy: Proxy, mode: str, moment: str) -> Iterator[Callable[[], None]]:
        """Disturb when the newest run has come to a moment; gives what ends it."""

        def disturb() -> None:
            if mode in ("killed", "stopped"):
                self._server.send(SIGKILL if mode == "killed" else SIGSTOP)
            else:
                proxy.mode = mode  # pyright: ignore[reportAttributeAccessIssue]

        def bring_back() -> None:
            if mode == "killed":
                self._server.start()
            elif mode == "stopped":
                self._server.send(SIGCONT)
            proxy.mode = "forward"

        done = threading.Event()
        known = set((self._home / "runs").iterdir())

        def watch() -> None:
            while not done.wait(0.01):
                for journal in (self._home / "runs").glob("*/journal.jsonl"):
                    if journal.parent not in known and MOMENTS[moment] in journal.read_bytes():
                        disturb()
                        return

        if moment == "start":
            disturb()
        else:
            threading.Thread(target=watch, daemon=True).start()
        try:
            yield bring_back
        finally:
            done.set()

    def _train(self, address: str) -> dict[str, Any]:
        began = time.monotonic()
        result = self._run(
            "train", str(RECIPE), "--set", f"train.epochs={self._epochs}", "--json", address=address
        )
        return {**json.loads(result), "wall": time.monotonic() - began}

    def _run(self, *arguments: str, address: str) -> str:
        environment = {
            **os.environ,
            "TORCHRELAY_HOME": str(self._home),
            "MLFLOW_TRACKING_URI": address,
        }
        done = subprocess.run(
            [TORCHRELAY, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"torchrelay {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def _mlflow_id(self, run_id: str) -> str:
        return json.loads((self._home / "runs" / run_id / "run.json").read_text())["mlflow_run_id"]

    def _histories(self, mlflow_run_id: str) -> History:
        """Every point that MLflow has of a run, by metric; what the clock decides is left out."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"http://127.0.0.1:{self._server.port}")
        return {
            key: sorted(
                (point.step, point.value) for point in client.get_metric_history(mlflow_run_id, key)
            )
            for key in client.get_run(mlflow_run_id).data.metrics
            if key not in BY_THE_CLOCK
        }


if __name__ == "__main__":
    main()
