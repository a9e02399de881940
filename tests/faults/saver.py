"""A process that has torch loaded and forks a child for each piece of work, which a tracer kills or
feeds errors.

Reads lines of JSON: {"what": checkpoint | file | pack, "folder": …, "broken": "" | rename | fsync}.
    Answers each with
the child's pid, once the child has stopped itself to be traced, and with its exit code, once it has
ended: 0 done, 3 an error of ours, -9 killed, else a bug.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch

from torchrelay.datasets.pack import PackColumn, PackFeature, write_pack
from torchrelay.disk import write_atomic
from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.errors import TorchrelayError

TYPED = 3
PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1


def state(step: int) -> dict[str, object]:
    """A state of two tensors that depends on the step."""
    return {"step": step, "weight": torch.full((300,), float(step)), "bias": torch.zeros(7)}


def store_in(folder: Path) -> CheckpointStore:
    """Keeps the newest and the best."""
    return CheckpointStore(folder, 1, {"run_id": "tiny"}, {})


def column() -> PackColumn:
    """A feature of 50 numbers in two columns."""
    values = np.arange(100.0).reshape(50, 2)
    return PackColumn(
        PackFeature(name="x", kind="number", columns=["a", "b"], file="x"), {"values": values}
    )


def work(what: str, folder: Path) -> None:
    """Commit something once."""
    if what == "checkpoint":
        store_in(folder).save(state(3), 3, is_best=False)
    elif what == "file":
        write_atomic(folder / "file", "new" * 1000)
    else:
        write_pack(folder, [column()], np.arange(50), "0" * 32)


def break_commits(how: str) -> None:
    """Take out what makes a commit safe."""

    def copy_in_place(self: Path, target: Path) -> Path:
        if self.is_dir():
            shutil.copytree(self, target)
            shutil.rmtree(self)
        else:
            target.write_bytes(self.read_bytes())
            self.unlink()
        return target

    if how == "rename":
        Path.rename = Path.replace = copy_in_place  # pyright: ignore[reportAttributeAccessIssue]
    elif how == "fsync":
        os.fsync = lambda descriptor: None


def child(what: str, folder: Path, broken: str) -> int:
    """Do the work; the exit code."""
    break_commits(broken)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        work(what, folder)
    except TorchrelayError:
        return TYPED
    except OSError:  # what `files` itself raises
        return TYPED if what == "file" else 1
    except BaseException:  # noqa: BLE001  # the code says so
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # what is imported or made at a first use is there from now on
        for what in ("checkpoint", "file", "pack"):
            (Path(folder) / what).mkdir()
            work(what, Path(folder) / what)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(child(order["what"], Path(order["folder"]), order["broken"]))
        os.waitpid(pid, os.WUNTRACED)
        print(pid, flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
