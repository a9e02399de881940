"""The private part of Python that is used here, checked on Python 3.11.

tests/datasets/batches/test_python_private.py fails where Python changes or drops it.
"""

from __future__ import annotations

import threading


def forget_exit_callbacks() -> None:
    """Drop what a forked process inherited for the end of threads.

    `threading` keeps these callbacks in a list without a public way to take one out, and a forked
    process inherits the list, but not the threads that its callbacks wait for.
    """
    getattr(threading, "_threading_atexits", []).clear()
