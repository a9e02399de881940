"""Checkpoints: a folder a generation with `state.pt` and its manifest, committed by rename, pointed to last.

    checkpoints/
        step-00001234/state.pt       tensors and plain values alone, read with `weights_only=True`
        step-00001234/manifest.json  sha256 and size of each file, run id, fingerprint of hardware and versions
        last, best                   text files that name a generation

What stands in `state.pt` is the loop's business (`engine/loop.py`).
"""

from __future__ import annotations

import pickle
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import CheckpointError, check_format
from ..faults import reach
from ..files import commit_folder, read_json, sha256_file, write_atomic, write_json

FORMAT_VERSION = 1


class Checkpoint(NamedTuple):
    """A generation that verified."""

    folder: Path
    state: dict[str, Any]
    fingerprint: dict[str, str]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: made at the first save.
        keep: how many of the newest generations stay; the best stays too.
        facts: written into each manifest, for example {"run_id": …}.
        fingerprint: versions and hardware that decide the bits of a CPU run.
    """

    def __init__(self, folder: Path, keep: int, facts: Mapping[str, str], fingerprint: Mapping[str, str]) -> None:
        self.folder = folder
        self._keep = keep
        self._facts = dict(facts)
        self._fingerprint = dict(fingerprint)

    def save(self, state: Mapping[str, Any], step: int, *, is_best: bool) -> Path:
        """Commit a generation, then move the pointers, then drop what is no longer kept.

        Raises:
            CheckpointError: it cannot be written; the generations before it are intact.
        """
        final = self.folder / f"step-{step:08d}"
        reach("checkpoint.begun")
        try:
            if not self._verifies(final):
                if final.exists():
                    self._set_aside(final)
                with commit_folder(final) as temporary:
                    path = temporary / "state.pt"
                    torch.save(dict(state), path)
                    reach("checkpoint.state_written")
                    files = {path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}}
                    manifest = {"format_version": FORMAT_VERSION, "step": step, "files": files, **self._facts}
                    write_json(temporary / "manifest.json", {**manifest, "fingerprint": self._fingerprint})
                    reach("checkpoint.manifest_written")
            reach("checkpoint.committed")
            if is_best:
                write_atomic(self.folder / "best", final.name)
                reach("checkpoint.best_moved")
            write_atomic(self.folder / "last", final.name)
            reach("checkpoint.last_moved")
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
            raise CheckpointError(
                f"checkpoint {final} cannot be written ({error}); the ones before it are intact"
            ) from error
        self._prune()
        reach("checkpoint.pruned")
        return final

    def load_last(self) -> Checkpoint | None:
        """The newest generation that verifies; a bad one is set aside with a warning. None where there is none."""
        for folder in reversed(self._generations()):
            if (checkpoint := self._load(folder)) is not None:
                return checkpoint
            self._set_aside(folder)
        return None

    def load_best(self) -> Checkpoint | None:
        """The generation that `best` names, where it verifies."""
        try:
            folder = self.folder / (self.folder / "best").read_text("utf-8").strip()
        except OSError:
            return None
        checkpoint = self._load(folder)
        if checkpoint is None and folder.exists():
            self._set_aside(folder)
        return checkpoint

    def _generations(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.name[5:].isdigit())

    def _load(self, folder: Path) -> Checkpoint | None:
        if not self._verifies(folder):
            return None
        try:
            state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError):
            return None
        return Checkpoint(folder, state, read_json(folder / "manifest.json").get("fingerprint", {}))

    def _verifies(self, folder: Path) -> bool:
        try:
            manifest = read_json(folder / "manifest.json")
            version = manifest["format_version"]
            files = manifest["files"].items()
            intact = all(sha256_file(folder / name) == facts["sha256"] for name, facts in files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        again = "resume the run with the torchrelay that wrote it, or train it again"
        check_format(f"checkpoint {folder}", version, FORMAT_VERSION, again, CheckpointError)
        return intact

    def _set_aside(self, folder: Path) -> None:
        aside = folder.with_name(f"bad-{folder.name}")
        number = 1
        while aside.exists():
            number += 1
            aside = folder.with_name(f"bad-{folder.name}-{number}")
        folder.rename(aside)
        warnings.warn(f"checkpoint {folder} does not verify; set aside as {aside.name}", stacklevel=3)

    def _prune(self) -> None:
        best = self.folder / "best"
        kept = {best.read_text("utf-8").strip()} if best.exists() else set()
        for folder in self._generations()[: -self._keep]:
            if folder.name not in kept:
                shutil.rmtree(folder)
