"""Whether a server that the environment names is there: asked once, in seconds, before anything waits for it."""

from __future__ import annotations

import base64
import json
import os

import httpx

from ..addresses import hide_secrets
from ..errors import ServerError
from ..settings import prefect_address, prefect_is_embedded, prefect_setting

SECONDS = 4.0


def require_prefect() -> None:
    """Make sure that Prefect's server answers, where one is named; a flow would try for half a minute and say less.

    Raises:
        ServerError: it does not answer, or not as Prefect's API does; names its address and what to do.
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
        f"Prefect's server at {hide_secrets(prefect_address())} {reason}; start it, or {unset} to work without one"
    )


def ask_prefect() -> str:
    """Why Prefect's server cannot be worked with; empty where it can."""
    address = prefect_address().rstrip("/")
    reason = ask_server(f"{address}/health", _prefect_headers())
    if reason:
        return reason
    # Its health is told to anybody; this, only to whoever may work with it. Prefect's cloud does not have it.
    return ask_server(f"{address}/admin/version", _prefect_headers(), passing=(404, 405))


def ask_server(address: str, headers: dict[str, str] | None = None, passing: tuple[int, ...] = ()) -> str:
    """Why a server's answer to a GET is none to work with, in a few words; empty where it is one.

    Args:
        address: with user and password, where it needs them.
        headers: to send.
        passing: statuses that are well all the same.
    """
    verify = os.environ.get("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "").lower() not in ("1", "true")
    try:
        with (
            httpx.Client(timeout=SECONDS, verify=verify, follow_redirects=True) as client,
            client.stream("GET", address, headers=headers) as answer,
        ):
            status, kind = answer.status_code, answer.headers.get("content-type", "")
    except httpx.TimeoutException:
        return f"does not answer within {SECONDS:.0f} s"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        return f"does not answer ({hide_secrets(str(error)) or type(error).__name__})"
    if status in passing:
        return ""
    if status in (401, 403):
        return f"refuses us (HTTP status {status}); set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
    if status >= 400:
        return f"answers with the HTTP status {status}"
    return "answers with a web page, which is not the API; its address ends in /api" if "html" in kind else ""


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
    return headers | ({str(name): str(value) for name, value in own.items()} if isinstance(own, dict) else {})
