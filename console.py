"""What a person sees while tasks work.

A bar on a terminal, plain lines elsewhere, Prefect's log in a worker.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from .addresses import hide_secrets

# A plain line of progress at most this often.
PLAIN_SECONDS = 10.0
# And one at least this often where work has no steps to count.
STILL_SECONDS = 15.0
WARNING = "warning: "

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)
_flow_logger: Callable[[], logging.Logger | logging.LoggerAdapter[Any]] | None = None


def runs_in_worker() -> bool:
    """Whether a Prefect worker started this process for a deployment's run."""
    return bool(os.environ.get("PREFECT__FLOW_RUN_ID"))


def log_in_worker(get_logger: Callable[[], logging.Logger | logging.LoggerAdapter[Any]]) -> None:
    """Let what is said in a worker go to the log that `get_logger` gives,
    that of the flow run.
    """
    global _flow_logger
    _flow_logger = get_logger


def say(text: str) -> None:
    """One line for people.

    To the flow run's log in a worker, else to standard error.
    """
    if text.startswith(WARNING) and (heard := _heard.get()) is not None:
        heard.append(text.removeprefix(WARNING))
    text = hide_secrets(text)
    if runs_in_worker() and _flow_logger is not None:
        _flow_logger().info(text)
    else:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def hearing_warnings() -> Iterator[list[str]]:
    """Collect the warnings that are said within the block, without that
    word.
    """
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


class Progress:
    """Progress of one piece of work, for example `with Progress("decode",
    "images") as progress: …`.
    """

    def __init__(self, label: str, unit: str) -> None:
        self._label = label
        self._unit = unit
        self._bar: Any = None
        self._task: Any = None
        self._is_terminal = sys.stderr.isatty() and not runs_in_worker()
        self._last = time.monotonic()
        self.moved = -math.inf  # when `update` was called last

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, text: str = "") -> None:
        """Show that `done` of `total` are done.

        Cheap enough to call at every step.
        """
        self.moved = now = time.monotonic()
        if self._is_terminal:
            if now - self._last > 0.1 or done == total:
                self._last = now
                self._draw(done, total, text)
        elif now - self._last > PLAIN_SECONDS:
            self._last = now
            say(f"{self._label}: {done:,} of {total:,} {self._unit} {text}".rstrip())

    def _draw(self, done: int, total: int, text: str) -> None:
        if self._bar is None:
            self._bar, self._task = self._start(total)
        self._bar.update(self._task, completed=done, total=total, text=text)

    def _start(self, total: int) -> tuple[Any, Any]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self._unit),
        )
        console = Console(stderr=True)
        bar = Bar(
            *columns,
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
        )
        bar.start()
        return bar, bar.add_task(self._label, total=total, text="")


@contextlib.contextmanager
def saying_still(what: str, progress: Progress | None = None) -> Iterator[None]:
    """Say again and again that work which takes long goes on, while it has no
    steps to count.

    Args:
        what: the work, for example `reading table.csv`.
        progress: of those parts of it that have steps; while it moves, nothing is said here.
    """
    ended = threading.Event()

    def speak() -> None:
        started = time.monotonic()
        while not ended.wait(STILL_SECONDS):
            if progress is not None and time.monotonic() - progress.moved < STILL_SECONDS:
                continue
            print(
                hide_secrets(f"still {what}, {time.monotonic() - started:.0f} s"),
                file=sys.stderr,
                flush=True,
            )

    speaker = threading.Thread(target=speak, name="still", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()
