"""Whether the servers that a flow needs can work.

Looked at once, in seconds, before anything waits for them.

One that the environment names has to answer; one inside the home has to have room for its database.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import queue
import resource
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from ... import settings
from ...addresses import hide_secrets
from ...disk import describe_failure, require_space
from ...errors import HomeError, ServerError
from ...settings import (
    home,
    prefect_address,
    prefect_is_embedded,
    prefect_setting,
    tracking_is_embedded,
)

T = TypeVar("T")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# Measured after one run: 5.4 MB with the log of SQLite's transactions, which grows to 4 MB before
# it is emptied.
PREFECT_BYTES = 8_000_000
# 1 MB after one run; an artifact is written beside it.
MLFLOW_BYTES = 4_000_000
# Records, journals, figures. Pixels, packs and checkpoints ask for their own room once their size
# is known.
RUN_BYTES = 4_000_000
# Tried: a training with both databases in the home ends well where it may open 28, and Prefect's
# server has 17 open. The rest is for what libraries open in passing. macOS gives 256.
OPEN_FILES = 64
# Tried: with four of them a training has 20 more open.
FILES_OF_A_WORKER = 5


def require_files(num_workers: int = 0) -> None:
    """Make sure that a flow may open as many files as it needs.

    With fewer it ends wherever it happens to be.

    Args:
        num_workers: processes that will gather batches.
    Raises:
        HomeError: says the limit and what is needed.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = OPEN_FILES + FILES_OF_A_WORKER * num_workers
    if limit != resource.RLIM_INFINITY and limit < needed:
        what = (
            f"{num_workers:,} processes that gather batches need"
            if num_workers
            else "a flow with its databases needs"
        )
        less = ", or lower train.num_workers" if num_workers else ""
        raise HomeError(
            f"this process may open {limit:,} files at once, and {what} about {needed:,}; raise "
            "the limit, for example "
            f"with ulimit -n {max(1024, 2 * needed)}{less}"
        )


def require_room() -> None:
    """Make sure that the home can be written, and has room for the databases
    inside it and for a run's records.

    Raises:
        HomeError: says what is needed, and by what, and what is free.
    """
    root = home().root
    try:
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise HomeError.of(root, error) from error
    needs = {"the records of a run": RUN_BYTES}
    if tracking_is_embedded():
        needs["MLflow's database"] = MLFLOW_BYTES
    if prefect_is_embedded() and Path(os.environ.get("PREFECT_HOME") or root).is_relative_to(root):
        needs["Prefect's database"] = PREFECT_BYTES
    try:
        require_space(root, sum(needs.values()))
    except OSError as error:
        kinds = ", ".join(f"{num_bytes:,} for {what}" for what, num_bytes in needs.items())
        raise HomeError(
            f"the disk of the home {root} is too full: {describe_failure(error)}, or set "
            "TORCHRELAY_HOME to a folder "
            f"on a larger disk (of what is needed: {kinds})"
        ) from error


def require_prefect() -> None:
    """Make sure that Prefect's server answers, where one is named.

    A flow would try for half a minute and say less.

    Raises:
        ServerError: it does not answer, or not as Prefect's API does; names its address and what to
            do.
    """
    if prefect_is_embedded():
        return
    reason = ask_prefect()
    if not reason:
        return
    unset = "unset PREFECT_API_URL"
    if not os.environ.get("PREFECT_API_URL"):
        unset = "take it out of the active profile (prefect config unset PREFECT_API_URL)"
    raise ServerError(
        f"Prefect's server at {hide_secrets(prefect_address())} {reason}; start it, or {unset} to "
        "work without one"
    )


def ask_prefect() -> str:
    """Why Prefect's server cannot be worked with.

    Empty where it can.
    """
    return _in_time(_ask_prefect)


def ask_server(address: str) -> str:
    """Why a server's answer to a GET is none to work with, in a few words.

    Empty where it is one.

    Args:
        address: with user and password, where it needs them.
    """
    return _in_time(lambda: _ask(address))


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What a question gives, in a thread of its own.

    What bounds each read alone never ends where each gives a byte.

    Raises:
        TimeoutError: there is no answer by then; nobody waits for it any more.
        Exception: what the question raises.
    """
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:  # noqa: BLE001 - raised by whoever waits
            answers.put((None, error))

    threading.Thread(target=work, name="ask", daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"there is no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return cast(T, answer)


def _in_time(ask: Callable[[], str]) -> str:
    import httpx  # 80 ms, which a command that asks no server need not spend

    try:
        return within(settings.ANSWER_SECONDS, ask)
    except (TimeoutError, httpx.TimeoutException):
        return f"does not answer within {settings.ANSWER_SECONDS:.0f} s"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        return f"does not answer ({hide_secrets(str(error)) or type(error).__name__})"


def _ask_prefect() -> str:
    address = prefect_address().rstrip("/")
    reason = _ask(f"{address}/health", _prefect_headers())
    if reason:
        return reason
    # Its health is told to anybody; this, only to whoever may work with it. Prefect's cloud does
    # not have it.
    return _ask(f"{address}/admin/version", _prefect_headers(), passing=(404, 405))


def _ask(address: str, headers: dict[str, str] | None = None, passing: tuple[int, ...] = ()) -> str:
    """Why an answer is none to work with.

    `passing` are statuses that are well all the same.
    """
    import httpx

    verify = os.environ.get("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "").lower() not in ("1", "true")
    with (
        httpx.Client(
            timeout=settings.ANSWER_SECONDS, verify=verify, follow_redirects=True
        ) as client,
        client.stream("GET", address, headers=headers) as answer,
    ):
        status, kind = answer.status_code, answer.headers.get("content-type", "")
    if status in passing:
        return ""
    if status in (401, 403):
        return f"refuses us (HTTP status {status}); set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
    if status >= 400:
        return f"answers with the HTTP status {status}"
    return (
        "answers with a web page, which is not the API; its address ends in /api"
        if "html" in kind
        else ""
    )


def _prefect_headers() -> dict[str, str]:
    """What Prefect's client would send to be let in."""
    headers: dict[str, str] = {}
    if key := prefect_setting("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    elif known := prefect_setting("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(known.encode()).decode()}"
    try:
        own = json.loads(prefect_setting("PREFECT_CLIENT_CUSTOM_HEADERS") or "{}")
    except ValueError:
        own = {}
    return headers | (
        {str(name): str(value) for name, value in own.items()} if isinstance(own, dict) else {}
    )
