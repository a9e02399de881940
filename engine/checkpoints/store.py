"""Checkpoints.

A folder a generation with `state.pt` and its manifest, committed by rename, pointed to last.

    checkpoints/
        step-00001234/state.pt       tensors and plain values alone, read with `weights_only=True`
        step-00001234/manifest.json  sha256 and size of the state, which generation is best, run id,
                                     fingerprint
        last, best                   text files that name a generation, with a CRC over the name
        bad-step-00000999/           a generation that did not verify

The loop decides what stands in `state.pt` (`engine/loop.py`); `generations.py` handles the files of
one generation.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import io
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from ...disk import (
    commit_folder,
    describe_failure,
    remove_folder,
    remove_leftovers,
    require_space,
    seal_name,
    set_aside,
    write_atomic,
)
from ...errors import CheckpointError
from ...faults import reach
from .generations import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    STATE_FILE,
    DamagedError,
    dump_manifest,
    list_generations,
    name_generation,
    parse_name,
    read_manifest,
    read_pointer,
    read_state,
    verify_pointer,
)

# Beside the tensors: random states, manifest and pointers; and for each tensor its entry in the
# archive.
MARGIN_BYTES, MARGIN_BYTES_PER_TENSOR = 200_000, 1_000


class Checkpoint(NamedTuple):
    """A generation that verified.

    Attributes:
        best_is_lost: the best generation did not verify, so that this one took its place: its
            state's best metric is no longer that of weights that can be had.
    """

    folder: Path
    state: dict[str, Any]
    fingerprint: dict[str, str]
    best: str = ""
    best_is_lost: bool = False


class CheckpointStore:
    """The checkpoints of one run, which has one writer.

    Each generation says in its manifest which generation was the best when it was written, itself
    or one before it, so that a run that dies between a commit and its pointers is put right by the
    next load.

    Args:
        folder: made at the first save.
        keep: how many of the newest generations stay; the best stays too.
        facts: written into each manifest. A generation whose manifest has another `run_id` is
            another run's, and is not loaded.
        fingerprint: versions and hardware that decide the bits of a CPU run.
        on_error: what a save that fails does: stop raises, warn warns once for each kind of
            failure.
        on_save: called before each save; what it raises, the save raises.

    Attributes:
        failures: under warn, how many saves failed, by the name of the error: {"ENOSPC": 3}.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        facts: Mapping[str, str],
        fingerprint: Mapping[str, str],
        on_error: Literal["stop", "warn"] = "stop",
        *,
        on_save: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.failures: collections.Counter[str] = collections.Counter()
        self._keep = keep
        self._facts = dict(facts)
        self._fingerprint = dict(fingerprint)
        self._on_error = on_error
        self._on_save = on_save
        self._best: str | None = None
        self._is_clean = False

    def save(self, state: Mapping[str, Any], step: int, *, is_best: bool) -> Path | None:
        """Commit a generation, then move the pointers, then drop what is no
        longer kept.

        Where a generation of this step stands already and is the best if this one is, nothing is
        written.

        Returns:
            The generation; None where it could not be written and `on_error` is warn.
        Raises:
            CheckpointError: it cannot be written and `on_error` is stop; the generations before it
                are intact.
        """
        if self._on_save is not None:
            self._on_save()
        reach("checkpoint.begun")
        try:
            if not self._is_clean:
                remove_leftovers(self.folder)
                self._is_clean = True
            folder = self._standing(step, is_best=is_best) or self._commit(
                state, step, is_best=is_best
            )
        except OSError as error:
            self._fail(
                f"checkpoint {name_generation(step)} cannot be written to {self.folder}", error
            )
            return None
        reach("checkpoint.committed")
        if is_best:
            self._best = folder.name
        try:
            self._point(folder.name)
            self._prune()
            reach("checkpoint.pruned")
        except OSError as error:
            self._fail(
                f"checkpoint {folder} is written, but what is around it in its folder cannot be",
                error,
            )
        return folder

    def load_last(self) -> Checkpoint | None:
        """The newest generation that verifies.

        None where there is none.

        A bad one is set aside with a warning, and the pointers are put right. So is the best, in
        whose place comes the one that is returned.

        Raises:
            CheckpointError: another version of torchrelay wrote it, it cannot be read now, as for
                missing rights, or a bad one cannot be set aside.
        """
        newest = self._load_newest()
        if newest is None:
            self._drop_pointers()
            return None
        is_lost = (
            newest.best not in ("", newest.folder.name)
            and self._load(self.folder / newest.best) is None
        )
        if is_lost:
            self._replace_best(newest.best, newest)
        self._best = newest.folder.name if is_lost else newest.best
        self._mend_pointers(newest.folder.name)
        return newest._replace(best_is_lost=is_lost)

    def load_best(self) -> Checkpoint | None:
        """The best generation, or the newest where it no longer verifies.

        None where nothing was the best yet.

        Raises:
            CheckpointError: as in `load_last`.
        """
        try:
            name = self._best_name()
        except OSError as error:
            raise CheckpointError(
                f"which checkpoint is best in {self.folder}: {describe_failure(error)}"
            ) from error
        if not name:
            return None
        if (best := self._load(self.folder / name)) is not None:
            return best
        newest = self._load_newest()
        if newest is None:
            self._drop_pointers()
            return None
        self._replace_best(name, newest)
        self._best = newest.folder.name
        self._mend_pointers(newest.folder.name)
        return newest

    def _commit(self, state: Mapping[str, Any], step: int, *, is_best: bool) -> Path:
        """Write a generation under a temporary name and rename it."""
        tensors = {
            tensor.untyped_storage().data_ptr(): tensor for tensor in _tensors(state)
        }.values()
        num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        require_space(
            self.folder, num_bytes + MARGIN_BYTES + MARGIN_BYTES_PER_TENSOR * len(tensors)
        )
        final = self.folder / name_generation(step, 1 + self._newest_number(step))
        with commit_folder(final) as temporary:
            with (temporary / STATE_FILE).open("wb") as file:
                written = _Hashed(file)
                written.save(state)
            reach("checkpoint.state_written")
            manifest = {
                "format_version": FORMAT_VERSION,
                "step": step,
                "epoch": state.get("epoch"),
                "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "best": final.name if is_best else self._best_name(),
                "files": {
                    STATE_FILE: {"sha256": written.sha256.hexdigest(), "bytes": written.num_bytes}
                },
                **self._facts,
                "fingerprint": self._fingerprint,
            }
            (temporary / MANIFEST_FILE).write_text(dump_manifest(manifest), "utf-8")
            reach("checkpoint.manifest_written")
        return final

    def _standing(self, step: int, *, is_best: bool) -> Path | None:
        """A generation of this step that verifies and serves as well."""
        number = self._newest_number(step)
        if not number:
            return None
        folder = self.folder / name_generation(step, number)
        try:
            manifest = self._read_manifest(folder)
            read_state(folder, manifest)
        except DamagedError as error:
            _set_aside(folder, str(error))
            return None
        except (
            CheckpointError
        ):  # it cannot be read now, and stays; another of this step is written beside it
            return None
        return folder if not is_best or manifest["best"] == folder.name else None

    def _newest_number(self, step: int) -> int:
        orders = [parse_name(path.name) or (0, 0) for path in list_generations(self.folder)]
        return max((number for at, number in orders if at == step), default=0)

    def _best_name(self) -> str:
        if self._best is None:
            try:
                self._best = verify_pointer(self.folder, "best")
            except DamagedError as error:
                self._best = self._best_of_newest()
                _warn_of_pointer(self.folder, error)
        return self._best

    def _best_of_newest(self) -> str:
        """Which generation was the best when the newest whose manifest
        verifies was written.
        """
        for folder in reversed(list_generations(self.folder)):
            with contextlib.suppress(DamagedError):
                return self._read_manifest(folder)["best"]
        return ""

    def _read_manifest(self, folder: Path) -> dict[str, Any]:
        return read_manifest(folder, self._facts.get("run_id", ""))

    def _load_newest(self) -> Checkpoint | None:
        for folder in reversed(list_generations(self.folder)):
            if (checkpoint := self._load(folder)) is not None:
                return checkpoint
        return None

    def _load(self, folder: Path) -> Checkpoint | None:
        """A generation.

        None where it is gone or does not verify, in which case it is set aside.
        """
        if not folder.is_dir():
            return None
        try:
            manifest = self._read_manifest(folder)
            data = read_state(folder, manifest)
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except (DamagedError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            _set_aside(folder, str(error).partition("\n")[0])
            return None
        return Checkpoint(folder, state, manifest["fingerprint"], manifest["best"])

    def _replace_best(self, name: str, newest: Checkpoint) -> None:
        warnings.warn(
            f"the best checkpoint {name} is lost; {newest.folder.name}, the newest, takes its "
            "place",
            stacklevel=4,
        )

    def _mend_pointers(self, last: str) -> None:
        try:
            self._point(last)
        except OSError as error:
            self._fail(f"the pointers in {self.folder} cannot be written", error)

    def _point(self, last: str) -> None:
        """Let `best` and `last` name their generations.

        They are written where they do not.
        """
        for pointer, name in (("best", self._best_name()), ("last", last)):
            try:
                found = verify_pointer(self.folder, pointer)
            except DamagedError as error:
                found = ""
                _warn_of_pointer(self.folder, error)
            if name and found != name:
                write_atomic(self.folder / pointer, seal_name(name))
                reach(f"checkpoint.{pointer}_moved")

    def _drop_pointers(self) -> None:
        """No generation stands, so none is pointed to."""
        self._best = ""
        for pointer in ("best", "last"):
            with contextlib.suppress(OSError):
                (self.folder / pointer).unlink()

    def _prune(self) -> None:
        """Keep the newest, and what was the best when the oldest of them was
        written.

        A best after that is among them.

        So each of them can be gone on from with its best.
        """
        generations = list_generations(self.folder)
        kept = {self._best_name(), read_pointer(self.folder, "best")}
        try:
            kept.add(read_manifest(generations[-self._keep :][0])["best"])
        except DamagedError:
            pass  # found when it is loaded
        except CheckpointError:
            return  # it may name one that must stay
        for folder in generations[: -self._keep]:
            if folder.name not in kept:
                remove_folder(folder)

    def _fail(self, what: str, error: OSError) -> None:
        """Raise, or warn at the first failure of a kind, as `on_error` says."""
        text = f"{what}: {describe_failure(error)}. The checkpoints before it are intact"
        if self._on_error == "stop":
            raise CheckpointError(text) from error
        kind = errno.errorcode.get(error.errno or 0, type(error).__name__)
        self.failures[kind] += 1
        if self.failures[kind] == 1:
            warnings.warn(f"{text}; training goes on, and the next save tries anew", stacklevel=4)


class _Hashed:
    """A file that counts and hashes what `torch.save` writes into it, before
    it gets to the disk.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self._file = file
        self._error: OSError | None = None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state.

        Raises:
            OSError: it cannot be written.
        """
        try:
            torch.save(dict(state), cast(IO[bytes], self))
        except RuntimeError as error:  # which says nothing of the cause
            raise self._error or error from error

    def write(self, data: bytes) -> int:
        """As a file's."""
        self.sha256.update(data)
        self.num_bytes += len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self._error = error
            raise

    def flush(self) -> None:
        """As a file's."""
        self._file.flush()


def _set_aside(folder: Path, reason: str) -> None:
    try:
        aside = set_aside(folder)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {folder} does not verify ({reason}) and cannot be set aside: "
            f"{describe_failure(error)}"
        ) from error
    warnings.warn(
        f"checkpoint {folder} does not verify ({reason}); set aside as {aside.name}", stacklevel=4
    )


def _warn_of_pointer(folder: Path, error: DamagedError) -> None:
    warnings.warn(
        f"pointer in {folder}: {error}; what the manifests say takes its place", stacklevel=4
    )


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
