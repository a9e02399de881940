"""Which accelerators torch can use, asked in a process of its own.

Torch takes seconds to be imported.

Where no driver of such a device is there, torch has the processor alone, and is not asked.
"""

from __future__ import annotations

import contextlib
import functools
import json
import platform
import subprocess
import sys
from pathlib import Path

NVIDIA, AMD = Path("/dev/nvidiactl"), Path("/dev/kfd")
QUESTION = """import json, torch
cuda = {f"cuda:{at}": torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())}
print(json.dumps(cuda | ({"mps": ""} if torch.backends.mps.is_available() else {})))"""
ANSWER_SECONDS = 120


@functools.cache
def begin_to_ask() -> subprocess.Popen[str] | None:
    """Start the process that asks, once, which goes on beside the caller.

    None where there is nothing to ask.
    """
    is_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    if not is_apple and not NVIDIA.exists() and not AMD.exists():
        return None
    return subprocess.Popen(
        [sys.executable, "-c", QUESTION],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@functools.cache
def list_accelerators() -> dict[str, str]:
    """What torch can use beside the processor.

    Its name for each device, and the maker's; waits for the answer.
    """
    process = begin_to_ask()
    if process is None:
        return {}
    with process, contextlib.suppress(ValueError, IndexError, subprocess.TimeoutExpired):
        try:
            answer, _ = process.communicate(timeout=ANSWER_SECONDS)
            return dict(json.loads(answer.splitlines()[-1]))
        finally:
            process.kill()
    return {}


def is_nvidia_unused() -> bool:
    """Whether there is an NVIDIA device that torch cannot use."""
    return NVIDIA.exists() and not list_accelerators()
