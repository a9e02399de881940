"""Prefect's server, asked before a flow begins: there, gone, silent, locked, or something else."""

from __future__ import annotations

import contextlib
import http.server
import os
import resource
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from torchrelay import settings
from torchrelay.cli import commands
from torchrelay.errors import HomeError, ServerError
from torchrelay.tasks.services.servers import (
    ask_prefect,
    ask_server,
    require_files,
    require_prefect,
)

SECRET = "s3cr3tpw"


@contextlib.contextmanager
def server(answers: dict[str, tuple[int, str, str]]) -> Iterator[str]:
    """A web server: by path its status, type and text; the address of its API."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, text = answers.get(self.path, (404, "text/html", "no such page"))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://user:{SECRET}@127.0.0.1:{running.server_address[1]}/api"
        running.shutdown()


HEALTHY = (200, "application/json", "true")


@pytest.mark.parametrize(
    ("health", "version", "said"),
    [
        (
            (500, "text/plain", ""),
            HEALTHY,
            "answers with the HTTP status 500; start it, or unset PREFECT_API_URL",
        ),
        ((404, "text/html", ""), HEALTHY, "answers with the HTTP status 404"),
        ((200, "text/html", "<html>"), HEALTHY, "answers with a web page, which is not the API"),
        (HEALTHY, (401, "application/json", "{}"), "refuses us .*set PREFECT_API_KEY"),
    ],
)
def test_a_server_that_is_not_prefects_or_does_not_let_us_in_is_named(
    health: tuple[int, str, str],
    version: tuple[int, str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
):
    with server({"/api/health": health, "/api/admin/version": version}) as address:
        monkeypatch.setenv("PREFECT_API_URL", address)
        with pytest.raises(ServerError, match=said) as caught:
            require_prefect()
    assert SECRET not in str(caught.value)
    assert "Prefect's server at http://127.0.0.1:" in str(caught.value)


@pytest.mark.parametrize("version", [HEALTHY, (404, "application/json", "{}")])
def test_a_server_that_answers_as_prefects_does_is_worked_with(
    version: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
):
    with server({"/api/health": HEALTHY, "/api/admin/version": version}) as address:
        monkeypatch.setenv("PREFECT_API_URL", address)
        require_prefect()


@pytest.mark.parametrize(
    "address", ["nonsense", "ftp://host/api", "http://[::1", "http://host:99999999/api"]
)
def test_an_address_that_is_none_is_said(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_API_URL", address)
    with pytest.raises(ServerError, match="does not answer"):
        require_prefect()


def test_a_server_that_never_answers_is_given_up_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    profiles = tmp_path / "profiles.toml"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        profiles.write_text(f'active = "old"\n[profiles.old]\nPREFECT_API_URL = "{address}"\n')
        monkeypatch.setenv("PREFECT_PROFILES_PATH", str(profiles))
        began = time.monotonic()
        with pytest.raises(
            ServerError, match="within 4 s; start it, or take it out of the active profile"
        ):
            require_prefect()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "answer", ["HTTP/1.1 200 OK\r\nX: " + "x" * 20, "HTTP/1.1 307 -\r\nLocation: /again\r\n\r\n"]
)
@pytest.mark.parametrize("ask", [ask_prefect, lambda: ask_server(os.environ["PREFECT_API_URL"])])
def test_a_server_that_gives_sign_after_sign_or_way_after_way_is_given_up_too(
    ask: Callable[[], str], answer: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(settings, "ANSWER_SECONDS", 0.6)
    done = threading.Event()

    class Slow(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                for piece in [answer] if "Location" in answer else answer:
                    if not done.wait(0.2):
                        self.request.sendall(piece.encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as running:
        threading.Thread(target=running.serve_forever, daemon=True, args=(0.05,)).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{running.server_address[1]}/api")
        began = time.monotonic()
        assert ask() == "does not answer within 1 s"
        assert time.monotonic() - began < 2
        done.set()
        running.shutdown()


def test_every_command_that_runs_a_flow_says_in_one_line_that_the_server_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number_recipe
):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv(
            "PREFECT_API_URL", f"http://user:{SECRET}@127.0.0.1:{holder.getsockname()[1]}/api"
        )
        recipe = str(number_recipe())
        for arguments in (
            ["train", recipe],
            ["ingest", recipe],
            ["finetune", recipe, "--from", "x"],
            ["evaluate", "x", "--table", "numbers.csv"],
            ["predict", "x", "--table", "numbers.csv", "--out", "o.csv"],
        ):
            error = CliRunner().invoke(commands, arguments).exception
            assert isinstance(error, ServerError), arguments
            assert error.exit_code == 2
            assert str(error).endswith("; start it, or unset PREFECT_API_URL to work without one")
            assert SECRET not in str(error)


@pytest.mark.parametrize(
    "command",
    [("evaluate", "x", "--table", "x.csv"), ("predict", "x", "--table", "x", "--out", "y")],
)
def test_a_limit_of_open_files_that_is_too_low_is_refused_with_the_remedy(command: tuple[str, ...]):
    ended = subprocess.run(
        [sys.executable, "-c", "from torchrelay.cli import main; main()", *command],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: this process may open 48 files at once, and a flow with its databases needs about "
        "64; "
        "raise the limit, for example with ulimit -n 1024\n"
    )


def test_each_process_that_gathers_batches_needs_files_of_its_own():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        require_files(7)
        with pytest.raises(
            HomeError,
            match=r"may open 100 files at once, and 8 processes .* about 104; .*num_workers",
        ):
            require_files(8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
