"""SIGTERM and SIGINT as a flag, so that work which must not be torn comes to a
point where it can stop.

    with StopFlag() as stop:
        ...                          # the first signal sets stop.requested and changes nothing else
        if stop.requested: return    # at the end of the block the signal means again what it meant
        before

A second signal does not wait: it means at once what it meant before.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

SIGNALS = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")


class StopRequested(BaseException):
    """Leaves a pass that is given up for a signal.

    Whoever began the pass catches it.
    """


class StopFlag:
    """While entered, the first of the two signals sets `requested`.

    Python lets the main thread alone set handlers. Elsewhere the flag stays down: there the
    process's own handlers decide, and a run that they end goes on from its last checkpoint. A
    signal that the process ignores, as what `nohup` or a script starts with `&` does, stays
    ignored.

    Attributes:
        handler: what is installed for the signals.
    """

    def __init__(self) -> None:
        self.handler = self._note
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    def repeat(self) -> None:
        """Let the signal that came mean what it meant before the block,
        which has ended with an error.
        """
        if self._received is not None:
            os.kill(os.getpid(), self._received)

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """The items, one after the other, until a signal comes.

        Raises:
            StopRequested: one came, before the next item was fetched.
        """
        source = iter(items)
        while True:
            if self.requested:
                raise StopRequested
            try:
                item = next(source)
            except StopIteration:
                return
            yield item

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            handled = [
                number
                for number in SIGNALS
                if signal.getsignal(number) not in (signal.SIG_IGN, None)
            ]
            self._previous = {number: signal.signal(number, self.handler) for number in handled}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the previous handlers back, then let the one of the signal
        that came do what it means.
        """
        self._put_back()
        if kind is None:
            self.repeat()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            self._put_back()
            os.kill(os.getpid(), number)
        else:
            self._received = number

    def _put_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
