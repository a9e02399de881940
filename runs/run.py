"""One run by its folder, each part of which is read once.

Another thread or process may change the record: `reread` sees it. What this process changes goes
through the run, and is seen at once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Literal, Self

from ..disk import describe_failure, digest, is_damage, lock, sha256_of_file, write_atomic
from ..errors import SourceError, TorchrelayError
from ..recipe import Recipe, dump_recipe, load_recipe
from ..schema import Schema
from .journal import Journal
from .layout import JOURNAL_FILE, LOCK_FILE, RECIPE_FILE, SCHEMA_FILE
from .record import RunRecord, load_record, update_record


class Run:
    """One run.

    Args:
        folder: of the run; it need not be there yet.
        record: what its record says, where that was read just now.
    """

    def __init__(self, folder: Path, record: RunRecord | None = None) -> None:
        self.folder = folder
        self._record = record

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The run in a folder.

        Raises:
            NoRecordError: there is none.
            SourceError: its record is of another run, or one that this version cannot read.
        """
        return cls(folder, load_record(folder))

    @property
    def run_id(self) -> str:
        """Our id."""
        return self.folder.name

    @property
    def record(self) -> RunRecord:
        """What is known about it.

        Raises:
            NoRecordError: it has no record.
            SourceError: its record is of another run, or one that this version cannot read.
        """
        return self.reread() if self._record is None else self._record

    def reread(self) -> RunRecord:
        """The record as it is on disk now."""
        self._record = load_record(self.folder)
        return self._record

    def update(self, **changes: Any) -> RunRecord:
        """Change fields of the record as `update_record` does."""
        self._record = update_record(self.folder, **changes)
        return self._record

    def mark_done(self, part: Literal["train", "evaluate", "register"]) -> None:
        """Note that a part of its work has written all that it leaves."""
        self.update(done=[*self.record.done, part])

    @functools.cached_property
    def recipe(self) -> Recipe:
        """What it runs.

        Raises:
            SourceError: it is not the recipe that the run was made with.
        """
        self.verify([RECIPE_FILE])
        return load_recipe(self.folder / RECIPE_FILE)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write its recipe.

        Raises:
            OSError: it cannot be written; the old one is intact.
        """
        write_atomic(self.folder / RECIPE_FILE, dump_recipe(recipe))
        with contextlib.suppress(AttributeError):  # it was not read yet
            del self.recipe

    @functools.cached_property
    def schema(self) -> Schema:
        """What its table's columns are.

        Raises:
            SourceError: it is not the schema that the run was made with.
        """
        self.verify([SCHEMA_FILE])
        return Schema.load(self.folder / SCHEMA_FILE)

    @functools.cached_property
    def journal(self) -> Journal:
        """Its journal, which whoever appends to it closes."""
        return Journal(self.folder / JOURNAL_FILE)

    @property
    def pack_dir(self) -> Path:
        """The pack that it reads."""
        return Path(self.record.pack_dir)

    @property
    def split_dir(self) -> Path:
        """The split of that pack, which a parent over several lacks."""
        return Path(self.record.split_dir)

    def verify(self, names: Iterable[str]) -> None:
        """Compare files with the sha256 that the record has of them.

        Raises:
            SourceError: one differs; says which, and what to do.
        """
        for name in names:
            if reason := self.why_changed(name):
                raise SourceError(
                    f"run {self.record.run_id}: {reason}; put it back from a copy (torchrelay "
                    "doctor --fix does where it finds one), or train the run again"
                )

    def why_changed(self, name: str) -> str:
        """Why a file is not the one that the record has the sha256 of.

        Empty where it is, or where the record has none, as of a run of before. A process reads a
        file once.

        Raises:
            SourceError: it cannot be read for another reason than damage.
        """
        expected = self.record.files.get(name)
        if expected is None:
            return ""
        try:
            if sha256_of_file(self.folder / name) == expected or (
                name == RECIPE_FILE and self._is_changing()
            ):
                return ""
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            if not is_damage(error):
                raise SourceError(
                    f"{self.folder / name} cannot be read: {describe_failure(error)}"
                ) from error
            return f"{name} cannot be read: {error.strerror}"
        return f"{name} does not have the sha256 that the run's record has of it"

    def _is_changing(self) -> bool:
        """Whether a process that died between journal, recipe and record left the recipe that it
        was about to have.
        """
        last = None
        with contextlib.suppress(TorchrelayError):
            for line in self.journal.lines():
                if line["kind"] == "event" and line["name"] == "recipe":
                    last = line["fields"]
        return last is not None and last["digest"] == digest(
            (self.folder / RECIPE_FILE).read_text("utf-8", "replace")
        )

    def lock(self) -> AbstractContextManager[IO[str]]:
        """Be its one writer for the life of a block.

        Raises:
            BusyError: another process is.
        """
        return lock(self.folder / LOCK_FILE, f"run {self.run_id}")
