"""SIGTERM and SIGINT around the loop: a flag, so that it can commit a checkpoint at the next step boundary."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """While entered, the two signals set `requested`; outside the main thread, where Python forbids it, they do not."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the previous handlers back, then let the one of the signal that came do what it means."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._received is not None and kind is None:
            os.kill(os.getpid(), self._received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
