"""MLflow's own server, to be stopped, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class Server:
    """A server on a free port of the loopback interface; `send` ends it.

    Args:
        folder: of its database and its artifacts.
    """

    def __init__(self, folder: Path) -> None:
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1",
            "--workers", "1",
        ]  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it, or start it again with what it knew, and wait until it answers."""
        self._process = subprocess.Popen(
            [*self._command, "--port", str(self.port)],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health"),
            ):
                return
            time.sleep(0.1)
        raise AssertionError("MLflow's server does not answer")

    def send(self, sign: signal.Signals) -> None:
        """Send a signal to it and its workers."""
        os.killpg(self._process.pid, sign)
        if sign == signal.SIGKILL:
            self._process.wait()
