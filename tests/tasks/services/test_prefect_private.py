"""Prefect still has the private parts that are used, and looks there."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.server.database.orm_models import FlowRun
from prefect.utilities.engine import can_ack_control_intent, capture_sigterm
from sqlalchemy import create_engine

from torchrelay.tasks.services.prefect_private import (
    FLOW_RUNS,
    begin_by,
    known_as_sigterm_handler,
)


def test_prefect_acknowledges_a_cancel_while_the_handler_that_it_was_told_of_is_installed() -> None:
    def handler(number: int, frame: object) -> None:
        pass

    with capture_sigterm():
        assert can_ack_control_intent()
        before = signal.signal(signal.SIGTERM, handler)
        assert not can_ack_control_intent()
        with known_as_sigterm_handler(handler):
            assert can_ack_control_intent()
        assert not can_ack_control_intent()
        signal.signal(signal.SIGTERM, before)
        assert can_ack_control_intent()


def test_prefect_starts_a_servers_process_by_the_function_that_it_was_given() -> None:
    class Server(SubprocessASGIServer):
        """Of this test alone."""

    process: list[Any] = []

    def begin(server: Server) -> subprocess.Popen[bytes]:
        code = (
            "import http.server, sys\n"
            "class Answer(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_response(200); self.end_headers()\n"
            f"http.server.HTTPServer(('127.0.0.1', {server.port}), Answer).serve_forever()"
        )
        process.append(subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL))
        return process[0]

    begin_by(Server, begin)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Server(port=probe.getsockname()[1])
    try:
        server.start(timeout=20)
        assert server.server_process is process[0]
    finally:
        server.stop()
        process[0].wait(timeout=10)


def test_prefects_table_of_flow_runs_can_be_asked_for_their_states() -> None:
    columns = list(FlowRun.__table__.columns.keys())
    with create_engine("sqlite://").begin() as connection:
        asked = f"{FlowRun.__tablename__} ({', '.join(columns)})"
        connection.exec_driver_sql(f"CREATE TABLE {asked}")
        for number, state in enumerate(("RUNNING", "COMPLETED", "PENDING")):
            connection.exec_driver_sql(
                "INSERT INTO flow_run (id, state_type) VALUES (?, ?)", (number, state)
            )
        rows = connection.exec_driver_sql(FLOW_RUNS, ('["RUNNING", "PENDING"]',)).fetchall()
    assert [tuple(row) for row in rows] == [(0, "RUNNING"), (2, "PENDING")]
