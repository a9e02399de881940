"""What the tracker holds of runs.

Registered versions, and artifacts inside the home. Looks alone, and removes nothing.

The embedded database is read by SQLite, all runs at once: MLflow takes seconds to be imported, and
milliseconds a run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

from .. import settings
from ..disk import size_of
from ..runs import RUN_ID_TAG
from .database import DATABASE_FILE, ask_database, has_our_schema
from .mlflow_private import ALIASES, MODELS, RUNS, UNREFERENCED, VERSIONS
from .relocation import follow_home


class Version(NamedTuple):
    """A version of a registered model.

    Attributes:
        aliases: names such as champion that lead to it.
    """

    name: str
    number: str
    aliases: tuple[str, ...]

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.number}"


class Held(NamedTuple):
    """What the embedded tracker has of a run.

    Attributes:
        run_id: ours.
        places: its artifacts and those of its logged models: the id that MLflow has of each, and
            the address.
    """

    run_id: str
    places: list[tuple[str, str]]


class Holdings(NamedTuple):
    """What the tracker holds of all runs, as it was when it was asked.

    Attributes:
        versions: all versions of all registered models, by MLflow's id of the run that they were
            made from.
        runs: by MLflow's id; None where its client has to be asked for each.
    """

    versions: dict[str, list[Version]]
    runs: dict[str, Held] | None

    def measure(self, mlflow_run_id: str, run_id: str) -> int | None:
        """Bytes of a run's artifacts inside the home, 0 where they are on a
        server.

        None where MLflow has no such run.

        Args:
            mlflow_run_id: MLflow's id, as the run's record states it.
            run_id: ours. A run that MLflow has as another one of ours is not this one.
        """
        if self.runs is None:
            from .removal import measure_run

            return measure_run(mlflow_run_id, run_id)
        held = self.runs.get(mlflow_run_id)
        if held is None or held.run_id != run_id:
            return None
        return sum(size_of(folder) for folder in own_folders(held.places))


def list_holdings() -> Holdings:
    """Ask the tracker what it has.

    Makes no database where there is none.

    Raises:
        TrackingError: it cannot be asked.
    """
    path = settings.home().root / DATABASE_FILE
    if settings.tracking_is_embedded() and not path.exists():
        return Holdings({}, {})
    if not settings.tracking_is_embedded() or not has_our_schema(path):
        from .removal import list_versions

        return Holdings(list_versions(), None)
    follow_home(path, settings.home().artifacts)
    runs = {
        id_: Held(run_id, [(id_, uri)]) for id_, run_id, uri in ask_database(path, RUNS, RUN_ID_TAG)
    }
    for source, model_id, address in ask_database(path, MODELS):
        if source in runs:
            runs[source].places.append((model_id, address))
    aliases = ((name, str(number), alias) for name, number, alias in ask_database(path, ALIASES))
    made = ((name, str(number), run or "") for name, number, run in ask_database(path, VERSIONS))
    return Holdings(join_versions(made, aliases), runs)


def list_owners() -> dict[str, str]:
    """Our id of each run in the home's own database, by MLflow's id.

    None where there is no such database.

    Raises:
        TrackingError: it cannot be read.
    """
    path = settings.home().root / DATABASE_FILE
    return (
        {id_: run_id for id_, run_id, _ in ask_database(path, RUNS, RUN_ID_TAG)}
        if path.exists()
        else {}
    )


def join_versions(
    versions: Iterable[tuple[str, str, str]], aliases: Iterable[tuple[str, str, str]]
) -> dict[str, list[Version]]:
    """Versions with their aliases, by MLflow's id of the run that they were
    made from.

    Args:
        versions: name, number and MLflow's id of the run.
        aliases: name, number and alias.
    """
    leading: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, number, alias in aliases:
        leading[name, number].append(alias)
    found: dict[str, list[Version]] = defaultdict(list)
    for name, number, run in versions:
        found[run].append(Version(name, number, tuple(sorted(leading[name, number]))))
    return dict(found)


def own_folders(places: Iterable[tuple[str, str]]) -> Iterator[Path]:
    """Folders of the embedded tracker's artifacts that hold nothing but a
    run's.

    That is artifacts/<run id> and artifacts/models/<model id>, below an experiment's folder where
    it has one. A place of another name, or outside the artifacts once links and `..` are followed,
    is stated by somebody, and left alone.

    Args:
        places: MLflow's id of a run or model, and the address of its artifacts.
    """
    artifacts = settings.home().artifacts.resolve()
    for name, address in places:
        parts = urlparse(address or "")
        folder = Path(unquote(parts.path)).parent
        is_ours = folder.name == name and artifacts in folder.resolve().parents
        if settings.tracking_is_embedded() and parts.scheme == "file" and is_ours:
            yield folder


def has_unreferenced() -> bool:
    """Whether the embedded database may have data sets that no run refers
    to.
    """
    path = settings.home().root / DATABASE_FILE
    if not settings.tracking_is_embedded() or not path.exists():
        return False
    questions = (
        f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1"  # noqa: S608
        for table, condition in UNREFERENCED
    )
    return not has_our_schema(path) or any(ask_database(path, one) for one in questions)
