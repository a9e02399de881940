"""The run folder and its record `run.json`.

Records are made, read, changed, listed and found without any server. The journal says what happened
at each step.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import logging
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from ..disk import (
    DIGEST,
    describe_failure,
    is_sealed,
    is_within,
    read_json,
    seal,
    unseal,
    write_json,
)
from ..errors import HomeError, SourceError, TrackingError, check_format, shown
from ..settings import Home
from .layout import RECORD_FILE

FORMAT_VERSION = 1
# It may be from anybody; one with ten metrics of each of 100,000 classes has 50 MB.
MOST_BYTES = 128_000_000
# Fields that are paths; on disk they are relative to the home where they lie in it, so that a home
# may be moved.
PATHS = ("pack_dir", "split_dir", "weights")
MAX_NAME_LENGTH = 60
# Of what was given for a run, when the nearest names are looked for.
MAX_COMPARED = 200

logger = logging.getLogger(__name__)


class NoRecordError(SourceError):
    """A folder has no record, so it is no run."""


class RunRecord(BaseModel):
    """What is known about one run.

    Frozen, changed on disk by `update_record`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format_version: Literal[1] = FORMAT_VERSION
    """Version of this format."""
    run_id: str
    """Our id, the name of the run's folder."""
    mlflow_run_id: str = ""
    """MLflow's id of the same run; empty until the tracker has it."""
    name: str
    """Name of the recipe."""
    experiment: str
    """Name of the MLflow experiment."""
    kind: Literal["train", "splits", "evaluate", "predict"] = "train"
    """A training; the parent of trainings over several split columns; an evaluation; or a
    prediction.
    """
    parent: str = ""
    """Run over several split columns that this one belongs to."""
    split_column: str = ""
    """Split column of its parent's pattern that it trains on."""
    status: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"] = "RUNNING"
    """In MLflow's words."""
    created: str
    """When it began, ISO 8601 in UTC."""
    ended: str = ""
    """When it ended, ISO 8601 in UTC; empty while it runs."""
    device: str = ""
    """Device it ran on, for example cuda:0."""
    precision: str = ""
    """fp32, bf16, fp16 or fp64."""
    threads: int = 0
    """Threads that its training computes with, also where it goes on; 0 where it did not begin
    yet.
    """
    waiting: str = ""
    """How these threads wait for each other."""
    epochs: int = 0
    """Epochs that are done; of a parent, by the run that has done fewest."""
    steps: int = 0
    """Optimizer steps that are done; of a parent, by all its runs together."""
    metrics: dict[str, float] = {}
    """The newest value of each metric; of a parent, mean and sample standard deviation (`…_std`)
    over its runs.
    """
    rows_per_second: float = 0.0
    """Training speed of the best epoch; of a parent, the mean over its runs."""
    seconds: dict[str, float] = {}
    """Wall time of the parts: total, ingest, train, evaluate; of a parent, of all its runs
    together.
    """
    done: list[Literal["train", "evaluate", "register"]] = []
    """Parts of its work that are done and need not be done again when it goes on."""
    stopped: str = ""
    """Why its training ended before its last epoch; empty where it did not."""
    schedule_epochs: int = 0
    """Epochs that the learning rate's schedule spans; training beyond them keeps its last value."""
    recipe_file: str = ""
    """Recipe that the run was started from."""
    pack_dir: str = ""
    """Pack that it read."""
    split_dir: str = ""
    """Split of that pack; empty for a parent."""
    splits: dict[str, str] = {}
    """Of a parent: the split of the pack that each column makes, in the table's order."""
    fingerprint: str = ""
    """Digest over every row and every file of the table, 32 hex digits."""
    weights: str = ""
    """Path of the best weights."""
    weights_sha256: str = ""
    """Digest of the last weights, over the tensors' names, shapes, dtypes and bytes."""
    source: str = ""
    """Run, model version or file whose weights it was made from; empty where there is none."""
    files: dict[str, str] = {}
    """sha256 of the files that it is made of, by their path in its folder; a run of before has
    none.
    """
    source_sha256: str = ""
    """Digest of the weights that a warm start began from, as in `weights_sha256`."""
    trust_code: list[str] = []
    """Modules of its source that were imported because the user said that they may be."""
    prefect_flow_run_id: str = ""
    """Prefect's id of the flow run."""
    earlier_flow_runs: list[str] = []
    """Prefect's ids of the flow runs that had it before that one, the oldest first."""
    prefect_flow_run_url: str = ""
    """Its page in Prefect's UI."""
    git_commit: str = ""
    """Commit of the working directory at the start."""
    error: str = ""
    """Why it failed."""

    @field_validator("created", "ended")
    @classmethod
    def _is_time(cls, value: str, info: ValidationInfo) -> str:
        if (value or info.field_name == "created") and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("has no time zone")
        return value

    @field_validator("mlflow_run_id")
    @classmethod
    def _is_id(cls, value: str) -> str:
        if not re.fullmatch(r"[\w-]*", value):
            raise ValueError(
                f"{shown(repr(value))} is no id of MLflow's, which has letters, digits, _ and -"
            )
        return value

    @field_validator(*PATHS)
    @classmethod
    def _is_path(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("has a NUL character, which no path has")
        return value

    @field_validator("files")
    @classmethod
    def _are_within(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not is_within(name):
                raise ValueError(f"{shown(repr(name))} is no file in the run's folder")
        return value


class Listing(NamedTuple):
    """The runs in a home's folder, and folders that are none.

    Attributes:
        records: of the runs, newest first.
        problems: folder's name -> why it is no run although it has a record.
    """

    records: list[RunRecord]
    problems: dict[str, str]


def now() -> str:
    """The time as `created` and `ended` have it.

    ISO 8601 in UTC, to the millisecond.
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_id(name: str) -> str:
    """Make an id `<name>-<yyyymmdd>-<hhmmss>-<4 hex>`, in UTC.

    The name is reduced to letters, digits, `.`, `_` and `-`.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:MAX_NAME_LENGTH].strip("-.") or "run"
    return f"{safe}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def describe_run(home: Home, record: RunRecord) -> dict[str, Any]:
    """A record as JSON, with the run's folder.

    That of a parent has its `runs` too.
    """
    values = {**record.model_dump(), "run_dir": str(home.runs / record.run_id)}
    if record.kind == "splits":
        children = list_children(home, record)
        values["runs"] = [
            {**one.model_dump(), "run_dir": str(home.runs / one.run_id)} for one in children
        ]
    return values


def flow_runs_of(record: RunRecord) -> list[str]:
    """Prefect's ids of all flow runs that wrote the run, the newest last."""
    return [one for one in (*record.earlier_flow_runs, record.prefect_flow_run_id) if one]


def git_commit(folder: Path) -> str:
    """The commit of a folder's work tree.

    Empty outside of one, or without git.
    """
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def save_record(home: Home, record: RunRecord) -> Path:
    """Write `run.json` into the run's folder, atomically.

    Makes the folder.

    Returns:
        The run's folder.
    Raises:
        TrackingError: it cannot be written.
    """
    run_dir = home.runs / record.run_id
    _write(run_dir / RECORD_FILE, record)
    return run_dir


def load_record(folder: Path, run_id: str = "") -> RunRecord:
    """Read `run.json`.

    Args:
        folder: of the run.
        run_id: what the record must say that it is of; by default the folder's name. A record of
            another id is none
            of this folder: it was put there by somebody, and nothing that it says is followed.
    Raises:
        NoRecordError: the folder has none.
        SourceError: it has one of another run, or one that this version cannot read.
    """
    record = load_copied_record(folder)
    if record is None:
        raise NoRecordError(f"{folder} has no {RECORD_FILE}, so it is no run; see torchrelay runs")
    if record.run_id != (run_id or folder.name):
        raise SourceError(
            f"{folder / RECORD_FILE} says that it is of run {shown(repr(record.run_id))}, which "
            "is not the name of "
            f"its folder; where that folder was renamed or copied, give it that name again"
        )
    if not record.splits and not any(getattr(record, name) for name in PATHS):
        return record
    root = folder.absolute().parent.parent
    return _with_paths(record, lambda one: str(root / one) if one else "")


def load_copied_record(folder: Path) -> RunRecord | None:
    """Read `run.json` of a run whose folder may have been copied or renamed.

    Its paths stay as they stand there.

    Returns:
        The record; None where the folder has none.
    Raises:
        SourceError: it has one that this version cannot read, or that is not as it was written.
    """
    path = folder / RECORD_FILE
    try:
        values = read_json(path, MOST_BYTES)
        version = values.get("format_version") if isinstance(values, dict) else None
        check_format(
            f"run record {path}", version, FORMAT_VERSION, "train the run again", SourceError
        )
        record = RunRecord.model_validate(
            {name: value for name, value in values.items() if name != DIGEST}
        )
    except FileNotFoundError:
        return None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise SourceError(f"{path} is not a run record: {shown(problems, 400)}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if is_sealed(values) and unseal(values) is None:
        raise SourceError(
            f"{path} is not as torchrelay wrote it; put a copy of it back, or, where all that it "
            "says is right, take "
            f"out its line {DIGEST!r}"
        )
    return record


def update_record(folder: Path, **changes: Any) -> RunRecord:
    """Change fields of a run's record on disk.

    Threads and processes make their changes one at a time.

    Raises:
        SourceError: there is no record, or a change does not fit it.
        TrackingError: it cannot be written, as on a full disk; the old one is intact.
    """
    with _alone(folder):
        values = load_record(folder).model_dump() | changes
        try:
            record = RunRecord.model_validate(values)
        except ValidationError as error:
            raise SourceError(f"{folder / RECORD_FILE} cannot be changed: {error}") from error
        _write(folder / RECORD_FILE, record)
    return record


def _write(path: Path, record: RunRecord) -> None:
    try:
        stored = _with_paths(record, lambda one: _shorten(one, path.absolute().parents[2]))
        write_json(path, seal(stored.model_dump()))
    except OSError as error:
        raise TrackingError(
            f"run record {path} cannot be written: {describe_failure(error)}"
        ) from error


def _with_paths(record: RunRecord, change: Callable[[str], str]) -> RunRecord:
    """The record with each of its paths changed."""
    changes: dict[str, Any] = {name: change(getattr(record, name)) for name in PATHS}
    splits = {column: change(one) for column, one in record.splits.items()}
    return record.model_copy(update=changes | {"splits": splits})


def _shorten(path: str, root: Path) -> str:
    return str(Path(path).relative_to(root)) if path and Path(path).is_relative_to(root) else path


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder itself, which leaves no file.

    If the folder is missing, whoever reads it finds out.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def list_records(home: Home) -> list[RunRecord]:
    """All runs of a home, newest first.

    A folder whose record cannot be read is skipped, with one warning.

    Raises:
        HomeError: the home is no folder, or cannot be read.
    """
    found = list_runs(home)
    for name, problem in found.problems.items():
        if home.runs / name not in warned_of:
            warned_of.add(home.runs / name)
            logger.warning("skipped %s, which is no run: %s", shown(repr(name)), problem)
    return found.records


# Folders that were warned of by this process.
warned_of: set[Path] = set()


def list_runs(home: Home) -> Listing:
    """All runs of a home, and all folders whose record is unusable.

    Each record is read once. A folder without a record belongs to a run that has not begun, and is
    skipped.

    Raises:
        HomeError: the home is no folder, or cannot be read.
    """
    records: list[RunRecord] = []
    problems: dict[str, str] = {}
    root = home.runs
    for name in _names_of_runs(home):
        try:
            records.append(load_record(root / name))
        except NoRecordError:
            continue
        except SourceError as error:
            problems[name] = str(error)
    records.sort(key=lambda record: (record.created, record.run_id), reverse=True)
    return Listing(records, problems)


def _names_of_runs(home: Home) -> list[str]:
    """The names of folders that may hold runs, in order."""
    try:
        with os.scandir(home.runs) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and _may_be_folder(entry)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HomeError.of(home.root, error) from error


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a path is a folder, or may be.

    For a path that cannot be examined, such as links in a circle, its record tells why.
    """
    try:
        return entry.is_dir()
    except OSError:
        return True


def list_children(home: Home, parent: RunRecord) -> list[RunRecord]:
    """The runs of a parent, in the order of its split columns.

    Of two runs for one column it is the newer.
    """
    newest_last = reversed(list_records(home))
    found = {
        record.split_column: record
        for record in newest_last
        if record.parent == parent.run_id and record.kind != "splits"
    }
    return [found[column] for column in parent.splits if column in found]


def find_run(home: Home, identifier: str) -> Path:
    """Find the folder of a run.

    Args:
        home: where to look.
        identifier: our run id, a prefix of it that only one run has, or MLflow's run id.
    Raises:
        SourceError: no run has it, several do, or the record of the one that has it cannot be read.
        HomeError: the home is no folder, or cannot be read.
    """
    names = _names_of_runs(home)
    if identifier in names and (home.runs / identifier / RECORD_FILE).exists():
        load_record(home.runs / identifier)
        return home.runs / identifier
    by_prefix = [
        name
        for name in names
        if identifier and name.startswith(identifier) and _is_run(home.runs / name)
    ]
    if len(by_prefix) == 1:
        return home.runs / by_prefix[0]
    if by_prefix:
        some = ", ".join(by_prefix[:5]) + (", …" if len(by_prefix) > 5 else "")
        raise SourceError(
            f"{identifier} is the beginning of {len(by_prefix)} runs ({some}); give more of it"
        )
    records = list_records(home)
    for record in records:
        if record.mlflow_run_id == identifier != "":
            return home.runs / record.run_id
    said = shown(repr(identifier))
    if not records:
        raise SourceError(
            f"run {said} does not exist: {home.runs} has no runs; torchrelay train makes one"
        )
    names = [record.run_id for record in records]
    near = difflib.get_close_matches(identifier[:MAX_COMPARED], names, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else f"the newest are {', '.join(names[:3])}"
    )
    raise SourceError(f"run {said} does not exist in {home.runs}; {hint}")


def _is_run(folder: Path) -> bool:
    try:
        load_record(folder)
    except SourceError:
        return False
    return True
