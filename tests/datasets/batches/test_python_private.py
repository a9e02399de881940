"""Python still keeps the callbacks for the end of threads where they are cleared."""

from __future__ import annotations

import subprocess
import sys

# concurrent.futures registers such a callback when its thread pools are imported.
SCRIPT = """
import concurrent.futures.thread, threading
from torchrelay.datasets.batches.python_private import forget_exit_callbacks
print(len(threading._threading_atexits), end=" ")
forget_exit_callbacks()
print(len(threading._threading_atexits))
"""


def test_callbacks_for_the_end_of_threads_are_forgotten() -> None:
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout
    assert said == "1 0\n"
