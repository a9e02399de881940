"""Registered models.

A version made of what `staging.py` put together; and finding the run that a SOURCE names.

A version carries recipe, schema and weights itself, so that it stays what it was when its run goes
on. Which version deserves to be champion is not decided here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ... import settings
from ...disk import (
    commit_folder,
    digest,
    find_changed,
    list_files,
    read_json,
    remove_tree,
    sha256_file,
    sha256_of_file,
    write_json,
)
from ...errors import SourceError, TrackingError, shown
from ...faults import reach
from ...recipe import WEIGHTS_SUFFIXES
from ...runs import (
    BEST,
    NEEDED,
    RECIPE_FILE,
    RUN_ID_TAG,
    SCHEMA_FILE,
    Run,
    find_run,
    list_children,
    load_copied_record,
    verify_weights,
)
from ...settings import Home
from ..client import call, open_client
from ..mlflow_run import MlflowRun
from .staging import (
    WEIGHTS_TAG,
    check_staged,
    files_of,
    list_version,
    sign,
    stage_again,
    staged_folder,
)

CHAMPION, CHALLENGER = "champion", "challenger"
MODEL_VERSIONS_TAG = "mlflow.modelVersions"
# In the folder of a source that was downloaded: sha256 and size of its files.
DOWNLOADED = "downloaded.json"
FORMS = (
    "a run id, runs:/<run id>, models:/<name>@<alias>, models:/<name>/<version>, or a weights file "
    "in a run folder"
)
# Folders above a weights file that may hold its recipe and schema: beside it, of weights/best.pt,
# of a checkpoint.
MOST_FOLDERS_UP = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A run or model version that was named, as files.

    Attributes:
        folder: has recipe.yaml and schema.json.
        weights: state_dict to load.
        mlflow_run_id: MLflow's id of the run that made it; empty where it is not known.
        label: the run id or `models:/<name>/<version>`, for records and messages.
    """

    folder: Path
    weights: Path
    mlflow_run_id: str
    label: str


def register_staged(run: MlflowRun, ours: Run, line: Mapping[str, Any]) -> str:
    """Make the version of a `model` line. The first becomes its model's
    champion, a later one its challenger.

    Sent again, it finds the version by its run and the digest of its weights, and makes no second
    one.

    Args:
        run: MLflow run that the version belongs to.
        ours: our run, with the staged folder, which goes once the version is there.
        line: of the journal.
    Returns:
        The version's number; empty, with a warning, where the folder was removed before there was
        one.
    Raises:
        TrackingError: the name is not legal or a prompt's, or the server cannot be reached.
    """
    client, name, folder = run.client, line["name"], staged_folder(ours, line)
    number = _find_version(run, line)
    if not number and not folder.is_dir() and not stage_again(ours, line, folder):
        logger.warning("%s is gone; %r gets no version of it", folder, name)
        return ""
    if not number:
        check_staged(folder, line)
        _make_name(client, name)
        number = _create_version(run, folder, line)
    reach("register.version_created")
    model = call(f"read {name!r}", client.get_registered_model, name)
    if number not in {str(one) for one in model.aliases.values()} and number == _newest_version(
        client, name
    ):
        alias = CHAMPION if number == "1" or CHAMPION not in model.aliases else CHALLENGER
        call(
            f"name the {alias} of {name!r}", client.set_registered_model_alias, name, alias, number
        )
    reach("register.alias_set")
    remove_tree(folder)
    return number


def _make_name(client: MlflowClient, name: str) -> None:
    """Make the registered model of a name, unless there is one."""
    try:
        call(f"register {name!r}", client.create_registered_model, name)
    except TrackingError as error:
        is_there = (
            isinstance(error.__cause__, MlflowException)
            and "ALREADY_EXISTS" in error.__cause__.error_code
        )
        if not is_there or "already taken by a prompt" in str(error):
            raise


def _create_version(run: MlflowRun, folder: Path, line: Mapping[str, Any]) -> str:
    client, name = run.client, line["name"]
    logged = _find_logged_model(run, line) or call(
        "log the model",
        client.create_logged_model,
        run.experiment_id,
        name=name,
        source_run_id=run.run_id,
        tags={WEIGHTS_TAG: line["weights_sha256"]},
    )
    sign(folder, run.run_id, logged.model_id)
    list_version(folder, line)
    call("log the model", client.log_model_artifacts, logged.model_id, str(folder))
    call("log the model", client.finalize_logged_model, logged.model_id, "READY")
    outputs = call("read the run", client.get_run, run.run_id).outputs
    if logged.model_id not in {one.model_id for one in (outputs.model_outputs if outputs else ())}:
        # A database refuses it a second time.
        call(
            "log the model",
            client.log_outputs,
            run.run_id,
            [LoggedModelOutput(logged.model_id, line["step"])],
        )
    reach("register.model_logged")
    version = call(
        f"register {name!r}",
        client.create_model_version,
        name,
        # Not models:/<id>: on a database MLflow would look that up with its global tracking URI.
        source=logged.artifact_location,
        run_id=run.run_id,
        tags=line["tags"],
        model_id=logged.model_id,
        await_creation_for=0,
    )
    linked = json.dumps([{"name": name, "version": version.version}])
    call(
        "link the model",
        client.set_logged_model_tags,
        logged.model_id,
        {MODEL_VERSIONS_TAG: linked},
    )
    return str(version.version)


def _find_version(run: MlflowRun, line: Mapping[str, Any]) -> str:
    """The number of the version that a `model` line has become already.

    Empty where it has not.
    """
    condition = f"name = '{line['name']}' and run_id = '{run.run_id}'"
    found = call("list model versions", run.client.search_model_versions, condition)
    return next(
        (str(one.version) for one in found if one.tags.get(WEIGHTS_TAG) == line["weights_sha256"]),
        "",
    )


def _find_logged_model(run: MlflowRun, line: Mapping[str, Any]) -> LoggedModel | None:
    """The model that a registration which did not come to its end has
    logged.
    """
    condition = f"source_run_id = '{run.run_id}'"
    found = call(
        "list the run's models", run.client.search_logged_models, [run.experiment_id], condition
    )
    ours = (
        one
        for one in found
        if one.tags.get(WEIGHTS_TAG) == line["weights_sha256"] and one.name == line["name"]
    )
    return next(ours, None)


def _newest_version(client: MlflowClient, name: str) -> str:
    found = call("list model versions", client.search_model_versions, f"name = '{name}'")
    return str(max(int(one.version) for one in found))


def resolve_source(source: str, home: Home) -> Source:
    """Find what a SOURCE names.

    Files that are not here are fetched from MLflow's artifacts into the home's cache.

    Args:
        source: our run id or an unambiguous beginning, MLflow's run id, `runs:/<id>`,
            `models:/<name>@<alias>`,
            `models:/<name>/<version>`, or a weights file inside a run folder: weights/*.pt, the
            state.pt of a checkpoint, or any beside a recipe.yaml and a schema.json.
        home: where run folders and the cache are.
    Raises:
        SourceError: it does not exist, or lacks recipe, schema or weights; says which.
        TrackingError: it is not here and the server cannot be reached.
    """
    if source.startswith("models:/"):
        return _resolve_version(source, home)
    path = Path(source)
    if path.is_file():
        return _resolve_file(path.absolute())
    identifier = source.removeprefix("runs:/")
    try:
        run_dir = find_run(home, identifier)
    except SourceError as error:
        if path.suffix in WEIGHTS_SUFFIXES:
            raise SourceError(f"weights file {source} does not exist; SOURCE is {FORMS}") from error
        return _resolve_remote(identifier, home, error)
    record = (ours := Run.open(run_dir)).record
    if record.kind == "splits":
        names = ", ".join(child.run_id for child in list_children(home, record)) or "none yet"
        raise SourceError(
            f"run {record.run_id} has no weights of its own; name one of its runs: {names}"
        )
    for part in NEEDED:
        if not (run_dir / part).is_file():
            raise SourceError(
                f"run {record.run_id} ({record.status}) has no {part}; "
                f"torchrelay resume {record.run_id} brings it to its end"
            )
    ours.verify(NEEDED)
    return Source(run_dir, run_dir / BEST, record.mlflow_run_id, record.run_id)


def find_source_beside(weights: Path) -> Source | None:
    """A weights file as a source, by the recipe and the schema beside it or
    above.

    None where there are none.

    Where a run's record stands beside them, all three must be what it says, whatever the folder is
    called now.

    Args:
        weights: absolute.
    Raises:
        SourceError: one is not, or the record cannot be read.
    """
    folder = next(
        (one for one in list(weights.parents)[:MOST_FOLDERS_UP] if not _missing_in(one)), None
    )
    if folder is None:
        return None
    record = load_copied_record(folder)
    if record is not None:
        verify_weights(Run(folder, record), weights)
    if record is None or record.run_id != folder.name:
        return Source(folder, weights, "", str(weights))
    return Source(folder, weights, record.mlflow_run_id, record.run_id)


def _resolve_version(source: str, home: Home) -> Source:
    match = re.fullmatch(
        r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]{1,9}))", source
    )
    if match is None:
        raise SourceError(
            f"{source}: expected models:/<name>@<alias> or models:/<name>/<version>, with a number"
        )
    client, name = open_client(), match["name"]
    try:
        if match["alias"]:
            version = call(
                f"find {source}", client.get_model_version_by_alias, name, match["alias"]
            )
        else:
            version = call(f"find {source}", client.get_model_version, name, match["version"])
    except TrackingError as error:
        if isinstance(error.__cause__, MlflowException) and _is_missing(error.__cause__):
            raise SourceError(f"{source} does not exist; {_name_versions(client, name)}") from error
        raise
    label = f"models:/{name}/{version.version}"
    local = _local_weights(version, home)
    if local is not None:
        return Source(local, local / BEST, version.run_id or "", label)
    uri = call(f"find {label}", client.get_model_version_download_uri, name, str(version.version))
    key = digest(name, str(version.version), version.creation_timestamp)

    def download(part: str, folder: Path) -> str:
        return download_artifacts(
            artifact_uri=f"{uri}/{part}", dst_path=str(folder), tracking_uri=settings.tracking_uri()
        )

    return fetch_source(
        home, version.run_id or "versions", key, label, download, files_of(version.tags)
    )


def _local_weights(version: ModelVersion, home: Home) -> Path | None:
    """The run folder that a version was made from, where it is here and what
    makes up the model is still the same.
    """
    try:
        run_dir = find_run(home, version.tags.get(RUN_ID_TAG, ""))
    except SourceError:
        return None
    files = files_of(version.tags)
    if not files or not all((run_dir / part).is_file() for part in NEEDED):
        return None
    ours = Run.open(run_dir)
    is_same = all(
        sha256_of_file(run_dir / part) == expected
        for part, expected in files.items()
        if part in NEEDED
    )
    return run_dir if is_same and not any(ours.why_changed(part) for part in NEEDED) else None


def _resolve_file(path: Path) -> Source:
    if path.suffix not in WEIGHTS_SUFFIXES:
        raise SourceError(
            f"{path} is not a weights file ({', '.join(WEIGHTS_SUFFIXES)}); SOURCE is {FORMS}"
        )
    found = find_source_beside(path)
    if found is None:
        folder = path.parents[min(1, len(path.parents) - 1)]
        raise SourceError(
            f"{path} is not in the weights folder of a run: {' and '.join(_missing_in(folder))} "
            f"missing in {folder}, "
            f"which say how to build the model; SOURCE is {FORMS}. `torchrelay weights show "
            f"{path}` says what is in "
            f"the file, `torchrelay finetune RECIPE --from {path}` trains on from it"
        )
    return found


def _missing_in(folder: Path) -> list[str]:
    return [name for name in (RECIPE_FILE, SCHEMA_FILE) if not (folder / name).is_file()]


def _resolve_remote(identifier: str, home: Home, local_error: SourceError) -> Source:
    """A run without a folder here.

    By MLflow's id, or by ours, which is a tag in MLflow.
    """
    client = open_client()
    if re.fullmatch(r"[0-9a-f]{32}", identifier):
        try:
            run = call(f"find run {identifier}", client.get_run, identifier)
        except TrackingError as error:
            if isinstance(error.__cause__, MlflowException) and _is_missing(error.__cause__):
                raise SourceError(
                    f"{local_error}; MLflow at {settings.shown_tracking_uri()} has none either"
                ) from error
            raise
    elif re.fullmatch(r".+-\d{8}-\d{6}-[0-9a-f]{4}", identifier):
        experiments = [
            item.experiment_id for item in call("list experiments", client.search_experiments)
        ]
        found = call(
            f"find run {identifier}",
            client.search_runs,
            experiments,
            filter_string=f"tags.`{RUN_ID_TAG}` = '{identifier}'",
            max_results=1,
        )
        if not found:
            raise local_error
        run = found[0]
    else:
        raise local_error
    run_id = run.info.run_id
    key = str(run.info.end_time)
    if run.info.status == "RUNNING":  # its artifacts may change at any time
        key = "unfinished"
        remove_tree(_cached(home, run_id, key))

    def download(part: str, folder: Path) -> str:
        return client.download_artifacts(run_id, part, str(folder))

    return fetch_source(
        home, run_id, key, run.data.tags.get(RUN_ID_TAG, run_id), download, files_of(run.data.tags)
    )


def fetch_source(
    home: Home,
    run_id: str,
    key: str,
    label: str,
    download: Callable[[str, Path], str],
    expected: Mapping[str, str] | None = None,
) -> Source:
    """Download what a source needs, once.

    `key` changes when the artifacts may have.

    Args:
        home: whose cache keeps it.
        run_id: MLflow's.
        key: of the artifacts' state.
        label: for messages.
        download: fetches a part into a folder.
        expected: sha256 of the parts, where they are known.
    Raises:
        SourceError: a part is not there, or is not what was registered.
    """
    folder = _cached(home, run_id, key)
    if folder.is_dir() and (changed := _why_changed(folder)):
        logger.warning("%s: %s; downloaded anew", folder, changed)
        remove_tree(folder)
    if not folder.is_dir():
        with commit_folder(folder) as temporary:
            for part in NEEDED:
                try:
                    path = Path(call(f"download {part} of {label}", download, part, temporary))
                except TrackingError as error:
                    raise SourceError(
                        f"{label} has no {part} among its artifacts in MLflow: {error}"
                    ) from error
                (temporary / part).parent.mkdir(exist_ok=True)
                path.replace(temporary / part)
            for part, sha256 in (expected or {}).items():
                if part in NEEDED and sha256_file(temporary / part) != sha256:
                    raise SourceError(
                        f"{label}: {part} among its artifacts in MLflow does not have the sha256 "
                        "that it was "
                        f"sent with; put it back there, or name another source"
                    )
            write_json(temporary / DOWNLOADED, list_files(temporary, NEEDED))
    return Source(folder, folder / BEST, run_id, label)


def _why_changed(folder: Path) -> str:
    """Why a downloaded source is not what was downloaded.

    Empty where it is, or an older version left no list.
    """
    try:
        return next(find_changed(folder, read_json(folder / DOWNLOADED)), "")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{DOWNLOADED} cannot be read: {error}"


def _cached(home: Home, run_id: str, key: str) -> Path:
    """Where the files of a run that MLflow knows by an id are kept.

    That id is a name and never a path.
    """
    if not re.fullmatch(r"[\w-]+", run_id) or not re.fullmatch(r"[\w-]+", key):
        raise SourceError(
            f"MLflow at {settings.shown_tracking_uri()} has no run of a legal id: "
            f"{shown(repr(run_id))}"
        )
    return home.cache / "sources" / run_id / key


def _is_missing(error: MlflowException) -> bool:
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def _name_versions(client: MlflowClient, name: str) -> str:
    models = call("list registered models", client.search_registered_models)
    for model in models:
        if model.name == name:
            aliases = ", ".join(
                f"@{alias} (version {number})" for alias, number in sorted(model.aliases.items())
            )
            return f"{name} has {aliases or 'no aliases'}"
    names = ", ".join(sorted(model.name for model in models)[:10])
    return (
        f"registered models are {names}"
        if names
        else "no model is registered; tracking.register in a recipe does it"
    )
