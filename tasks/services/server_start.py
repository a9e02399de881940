"""Starts Prefect's temporary server.

What it says stays off the terminal, and one that does not come up is given up.

Prefect's own start begins a server that fails, as on a full disk, again and again without an end.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from typing import IO, Any

import httpx
import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from ...errors import ServerError, shown
from ...settings import PREFECT_STARTUP_SECONDS, home
from .prefect_private import begin_by

LOOK_SECONDS = 0.1
# A port may be taken between the look whether it is free and the server's own.
MOST_PORTS = 3
# Lines of what the server says that are kept, in memory, as a full disk keeps nothing.
MOST_LINES = 400
# How the last line of a traceback begins.
ERROR_LINE = re.compile(r"[\w.]*(Error|Exception)\b.*:")
# What the system and SQLite say of a disk that is full or cannot be written, and of too many open
# files.
REMEDIES = {
    re.compile(
        "disk is full|No space left|quota", re.IGNORECASE
    ): "free space there, for example with torchrelay prune",
    re.compile(
        "readonly|Read-only", re.IGNORECASE
    ): "let it be written, or set TORCHRELAY_HOME to another folder",
    re.compile(
        "Too many open files|unable to open database file"
    ): "raise the limit of open files (ulimit -n)",
}

_said: collections.deque[str] = collections.deque(maxlen=MOST_LINES)


class OwnServer(SubprocessASGIServer):
    """Prefect's temporary server.

    Whoever makes one gets the one of this process.
    """

    def begin(self) -> subprocess.Popen[Any]:
        """Start it, and wait until it answers.

        Raises:
            ServerError: it ended before, or had its time; says what it said last.
        """
        code: int | None = None
        for _ in range(MOST_PORTS):
            process = self._start_process()
            if _is_up(process, f"{self.api_url}/health"):
                return process
            code = process.returncode
            if self.port is None or self.is_port_available(self.port):
                break
            self.port = self.find_available_port()
        raise ServerError(
            f"Prefect's temporary server does not start (exit code {code}): "
            f"{last_error() or 'it said nothing'}; a server that PREFECT_API_URL names would be "
            "used instead"
        )

    def _start_process(self) -> subprocess.Popen[Any]:
        """As Prefect does it, but for where its output goes."""
        app, place = "prefect.server.api.server:create_app", str(prefect.__module_path__.parent)
        options = {
            "app-dir": place,
            "host": "127.0.0.1",
            "port": str(self.port),
            "log-level": "error",
            "lifespan": "on",
        }
        own = {
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        }
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "--factory", app),
                *(word for name, value in options.items() for word in (f"--{name}", str(value))),
            ],
            env={
                **os.environ,
                **own,
                **get_current_settings().to_environment_variables(exclude_unset=True),
            },
            # Its database has the texts of flow runs: no more rights than the home.
            umask=0o077 if not home().root.stat().st_mode & 0o077 else -1,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        threading.Thread(
            target=_keep_output, args=(process.stdout,), name="prefect-server", daemon=True
        ).start()
        return process


begin_by(OwnServer, OwnServer.begin)


def use_own_server() -> None:
    """Let Prefect start its temporary server our way.

    A process has one, which is this one from now on.
    """
    OwnServer()


def last_error() -> str:
    """The last error that the temporary server told of, with what to do about
    it.

    Empty where there was none.
    """
    errors = [line for line in _said if ERROR_LINE.match(line)]
    if not errors:
        return shown((_said or [""])[-1].strip(), 300)
    said = shown(errors[-1].strip(), 300)
    remedies = [remedy for sign, remedy in REMEDIES.items() if sign.search(said)]
    return f"{said}, in {home().root}; {remedies[0]}" if remedies else said


def _keep_output(stream: IO[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        _said.extend(stream)


def _is_up(process: subprocess.Popen[Any], address: str) -> bool:
    """Wait until a server answers, or has ended, or has had its time, when
    it is killed.
    """
    patience = (
        os.environ.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS")
        or PREFECT_STARTUP_SECONDS
    )
    give_up = time.monotonic() + float(patience)
    with httpx.Client(timeout=5) as client:
        while process.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(address).status_code == httpx.codes.OK:
                    return True
            time.sleep(LOOK_SECONDS)
    process.kill()
    process.wait()
    return False
