"""Says how much of a run's journal MLflow has.

A small file beside the journal, `shipped.json`, holds it. This file imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..disk import is_sealed, open_file, read_json, seal, unseal, write_json
from ..errors import TrackingError, check_format
from .journal import is_torn, parse, warn_of_damage
from .layout import CURSOR_FILE, JOURNAL_FILE
from .run import Run

FORMAT_VERSION = 1
# Kinds of lines that MLflow gets; the others are for readers of the journal.
SHIPPED_KINDS = frozenset(
    {"open", "params", "tags", "dataset", "metrics", "artifact", "model", "status"}
)

logger = logging.getLogger(__name__)


class Cursor(BaseModel):
    """How much of a journal MLflow has.

    It moves only after MLflow has taken what lies before it.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format_version: Literal[1] = FORMAT_VERSION
    """Version of this format."""
    offset: int = Field(default=0, ge=0)
    """Bytes of the journal that MLflow has, or need not have."""
    mlflow_run_id: str = ""
    """MLflow's id of the run; empty until it was made there."""
    experiment_id: str = ""
    """MLflow's id of its experiment."""
    is_uncertain: bool = False
    """MLflow was asked to make the run and did not answer: it may have made another than the one
    above.
    """

    @classmethod
    def load(cls, folder: Path) -> Cursor:
        """Read the cursor of a run.

        A run without a cursor, or with a damaged one, gets a new one, so that all is sent again,
        once.

        Raises:
            TrackingError: another version wrote it.
        """
        path = folder / CURSOR_FILE
        try:
            values = read_json(path)
            if not isinstance(values, dict) or (
                is_sealed(values) and (values := unseal(values)) is None
            ):
                raise ValueError("it is not as it was written")
            version = values.get("format_version")
            check_format(
                str(path),
                version,
                FORMAT_VERSION,
                "remove it: all is sent again, once",
                TrackingError,
            )
            return cls.model_validate(values)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:  # pydantic's ValidationError is a ValueError
            logger.warning("%s cannot be read; the whole journal is sent again: %s", path, error)
            return cls()

    def save(self, folder: Path) -> None:
        """Write the cursor, atomically and durably."""
        write_json(folder / CURSOR_FILE, seal(self.model_dump()))


class Line(NamedTuple):
    """A line of a journal that goes to MLflow.

    Attributes:
        end: offset of the byte after it.
    """

    values: dict[str, Any]
    end: int


def waiting(run: Run) -> int:
    """Count the lines of a run's journal that MLflow does not have yet.

    Raises:
        TrackingError: another version wrote the cursor, or the journal cannot be read.
    """
    try:
        size = (run.folder / JOURNAL_FILE).stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _unreadable(run, error) from error
    offset = Cursor.load(run.folder).offset
    if offset and offset == size:
        return 0
    with opened(run) as file:
        return (
            0
            if file is None
            else sum(1 for line in unshipped(file, offset) if is_shipped(line.values))
        )


def unshipped(file: BinaryIO, offset: int) -> Iterator[Line]:
    """The whole lines of a journal after an offset, whatever their kind.

    Lines before the first `open` line of a journal were sent by an older version itself, and are
    skipped.

    Args:
        file: the journal.
        offset: of the cursor.
    """
    file.seek(0, 2)
    size = file.tell()
    if offset > size:
        offset = 0  # not the journal that the cursor was made of: sent again, all is there once
    file.seek(offset)
    has_begun = offset > 0
    for data in iter(file.readline, b""):
        offset += len(data)
        if not data.endswith(b"\n"):
            return  # still being written, or torn; what opens the journal next ends it
        values = parse(data)
        if values is None and not is_torn(data):
            warn_of_damage(Path(file.name), f"the line before byte {offset:,}")
        has_begun = has_begun or (values is not None and values["kind"] == "open")
        if has_begun:
            yield Line(values or {"kind": "torn"}, offset)


def is_shipped(line: Mapping[str, Any]) -> bool:
    """Whether a line goes to MLflow at all."""
    return line["kind"] in SHIPPED_KINDS and line.get("kept", True)


@contextlib.contextmanager
def opened(run: Run) -> Iterator[BinaryIO | None]:
    """Open a run's journal for reading.

    None if there is none.

    Raises:
        TrackingError: it cannot be read.
    """
    try:
        file = open_file(run.folder / JOURNAL_FILE)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise _unreadable(run, error) from error
    with file:
        yield file


def _unreadable(run: Run, error: OSError) -> TrackingError:
    return TrackingError(f"journal {run.folder / JOURNAL_FILE} cannot be read: {error.strerror}")
