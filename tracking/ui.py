"""MLflow's own UI on this home.

A server on the loopback interface, in the foreground, until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO

from .. import settings
from ..addresses import hide_secrets
from ..errors import TrackingError
from .client import make_database

FIRST_PORT = 5000
NUM_PORTS = 100
LOOPBACK = ("127.0.0.1", "localhost", "::1")
START_SECONDS = 120
STOP_SECONDS = 10


def serve_ui(
    host: str = "127.0.0.1", port: int = 0, on_ready: Callable[[str], None] | None = None
) -> None:
    """Run MLflow's server on this process's tracker until Ctrl-C or SIGTERM,
    which both end it quietly.

    Args:
        host: a loopback address; the server asks nobody for a password.
        port: where it listens; 0 means 5000, or the next that is free.
        on_ready: called with the UI's address once it answers; by default that is said on standard
            error.
    Raises:
        TrackingError: the port is taken, the host is not loopback, the tracker is a server already,
            or MLflow's server ends by itself.
    """
    uri = settings.tracking_uri()
    if uri.startswith(("http://", "https://")):
        raise TrackingError(
            f"the tracker is a server already: open {settings.shown_tracking_uri()} "
            "(MLFLOW_TRACKING_URI) in a browser"
        )
    if host not in LOOPBACK:
        raise TrackingError(
            f"host {host}: the UI has no password, so it listens on this machine only "
            f"({' or '.join(LOOPBACK)}); "
            f"run mlflow server yourself to share it"
        )
    if settings.tracking_is_embedded():
        make_database()
    port = _free_port(host, port)
    process = subprocess.Popen(
        _command(host, port),
        # The tracker's address may have a password: the environment is this user's alone, a command
        # line everybody's.
        env={
            "PYTHONWARNINGS": "ignore",
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_BACKEND_STORE_URI": uri,
            "MLFLOW_REGISTRY_STORE_URI": uri,
        },
        # A session of its own: Ctrl-C reaches this process alone, which then ends the server and
        # its workers in order.
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    speaker = threading.Thread(target=_pass_on, args=(process.stdout,), name="ui", daemon=True)
    speaker.start()
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    with _sigterm_as_interrupt():
        try:
            _wait_until_ready(process, address)
            (on_ready or _say_address)(address)
            code = process.wait()
        except KeyboardInterrupt:
            return
        finally:
            _stop(process)
            speaker.join(STOP_SECONDS)
    raise TrackingError(
        f"MLflow's server at {address} ended by itself with exit code {code}; its output says why"
    )


def _say_address(address: str) -> None:
    sys.stderr.write(f"MLflow's UI is at {address}; Ctrl-C ends it\n")


def _pass_on(output: IO[str]) -> None:
    """Say on standard error what the server says, without secrets."""
    for line in output:
        sys.stderr.write(hide_secrets(line))
        sys.stderr.flush()


def _command(host: str, port: int) -> list[str]:
    artifacts = settings.home().artifacts.as_uri()
    return [
        sys.executable, "-m", "mlflow", "server",
        "--default-artifact-root", artifacts,
        "--artifacts-destination", artifacts,
        "--host", host,
        "--port", str(port),
        "--workers", "1",
        "--uvicorn-opts", "--log-level warning",
    ]  # fmt: skip


def _free_port(host: str, port: int) -> int:
    candidates = [port] if port else range(FIRST_PORT, FIRST_PORT + NUM_PORTS)
    for candidate in candidates:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    taken = (
        f"port {port}" if port else f"each port from {FIRST_PORT} to {FIRST_PORT + NUM_PORTS - 1}"
    )
    raise TrackingError(
        f"{taken} on {host} is taken, perhaps by another UI; name a free one with --port"
    )


def _wait_until_ready(process: subprocess.Popen[str], address: str) -> None:
    """Until it answers.

    A server that ended is left to the caller.
    """
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise TrackingError(
                    f"MLflow's server at {address} does not answer after {START_SECONDS} s"
                ) from None
            time.sleep(0.1)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the server to end, then end all that is left of its session."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
