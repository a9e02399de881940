"""Prefect's temporary server, the one inside the home, belongs to the process
that started it; imported in the server.

Prefect imports what stands under the entry point `prefect.collections` when its server begins, and
this module with it. In any other process, and in a server of anybody else, it does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from ...settings import home

LOOK_SECONDS = 1.0
# For what the server still has to write.
END_SECONDS = 5.0


def is_ours() -> bool:
    """Whether this process is the temporary server of this home."""
    is_temporary = os.environ.get("PREFECT__SERVER_EPHEMERAL") == "1"
    return is_temporary and os.environ.get("PREFECT_HOME") == str(home().root / "prefect")


def belong_to_starter() -> None:
    """Leave the starter's process group, and end when the starter has ended.

    Ctrl-C and `timeout` signal the whole group: without its server a flow run could not say how it
    ended, and Prefect tries that for a minute. And a server whose starter was killed has nobody who
    stops it.
    """
    starter = os.getppid()
    os.setpgid(0, 0)
    threading.Thread(target=_watch, args=(starter,), name="watch-starter", daemon=True).start()


def _watch(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)


if is_ours():
    belong_to_starter()
