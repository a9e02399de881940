"""What Prefect believes of our flow runs, and telling it otherwise.

Which of them is dead is found in `upkeep/doctor.py`.

Prefect is imported when it is asked, and not to look into the database inside the home.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from collections.abc import Collection

import psutil

from ...addresses import hide_secrets
from ...errors import ServerError
from ...settings import Home, prefect_is_embedded
from .prefect_private import FLOW_RUNS

BEFORE_THE_END = ("RUNNING", "PENDING", "CANCELLING")
PAGE = 200
SERVER = "prefect.server.api.server:create_app"
# What takes in a process whose parent has died.
REAPERS = ("init", "systemd", "launchd", "tini", "dumb-init", "docker-init")


def list_unfinished(home: Home, flow_run_ids: Collection[str]) -> dict[str, str]:
    """Those flow runs that Prefect takes for running, pending or being
    cancelled, with that word.

    Without a server the database inside the home is read, so that none is started to look.

    Raises:
        ServerError: the server cannot be reached.
        sqlite3.Error: the database cannot be read.
    """
    wanted = {str(uuid.UUID(one)) for one in flow_run_ids if one}
    states = (
        _states_in_database(home) if prefect_is_embedded() else _states_on_server(sorted(wanted))
    )
    return {
        one: state for one, state in states.items() if one in wanted and state in BEFORE_THE_END
    }


def list_abandoned(home: Home) -> dict[str, str]:
    """Flow runs in the database inside the home that have not ended, with their
    state, where no process is at them.

    A process that runs a flow there has started a temporary server, which ends with it; a moment
    later none is left.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    if not prefect_is_embedded():
        return {}
    states = _states_in_database(
        home
    )  # first, as a flow run that begins now has its server already
    return {} if states and _servers_of(home) else states


def end_flow_run(flow_run_id: str, status: str, state: str, message: str) -> str:
    """Tell Prefect how a flow run ended.

    Starts its temporary server where there is no other.

    Args:
        status: of our run, in MLflow's words.
        state: that Prefect has it in.
        message: shown with the new state.
    Returns:
        The new state's name.
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Completed, Crashed

    kind = Completed if status == "FINISHED" else Cancelled if state == "CANCELLING" else Crashed
    new = kind(message=message)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(uuid.UUID(flow_run_id), new, force=True)
    return str(new.name)


def list_orphans(home: Home) -> list[psutil.Process]:
    """Temporary Prefect servers of this home whose starter has died.

    Nobody will stop them.
    """
    return [process for process in _servers_of(home) if _is_orphan(process)]


def _servers_of(home: Home) -> list[psutil.Process]:
    """The temporary Prefect servers of this home."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if SERVER in (process.info["cmdline"] or ()) and _is_of(home, process):
                found.append(process)
    return found


def _is_orphan(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        parent = process.parent()
        return parent is None or parent.pid == 1 or parent.name() in REAPERS
    return False


def _is_of(home: Home, process: psutil.Process) -> bool:
    environment = process.environ()
    is_temporary = environment.get("PREFECT__SERVER_EPHEMERAL") == "1"
    return is_temporary and environment.get("PREFECT_HOME") == str(home.root / "prefect")


def _states_in_database(home: Home) -> dict[str, str]:
    path = home.root / "prefect" / "prefect.db"
    if not path.exists():
        return {}
    with contextlib.closing(
        sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
    ) as database:
        rows = database.execute(FLOW_RUNS, (json.dumps(BEFORE_THE_END),))
        return {str(uuid.UUID(str(one))): str(state) for one, state in rows}


def _states_on_server(wanted: list[str]) -> dict[str, str]:
    states: dict[str, str] = {}
    if not wanted:
        return states
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    try:
        with get_client(sync_client=True) as client:
            for start in range(0, len(wanted), PAGE):
                some = FlowRunFilter(
                    id=FlowRunFilterId(
                        any_=[uuid.UUID(one) for one in wanted[start : start + PAGE]]
                    )
                )
                for run in client.read_flow_runs(flow_run_filter=some):
                    states[str(run.id)] = run.state_type.value if run.state_type else ""
    except httpx.HTTPError as error:
        raise ServerError(hide_secrets(str(error)) or type(error).__name__) from error
    return states
