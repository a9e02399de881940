"""Journals the beginning of a run, and that a run goes on.

Needs no server.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import settings
from ..addresses import hide_in_values, hide_secrets, tell_apart
from ..recipe import Recipe, flatten
from ..schema import FeatureSchema, Schema
from .journal import Journal
from .record import RunRecord

RUN_ID_TAG = "torchrelay.run_id"
FINGERPRINT_TAG = "torchrelay.fingerprint"
TRUST_TAG = "torchrelay.trust_code"
DRIFT_TAG = "torchrelay.drift"


def is_open(journal: Journal) -> bool:
    """Whether a journal has its beginning."""
    return any(line["kind"] == "open" for line in journal.lines())


def is_meant_for_here(journal: Journal) -> bool:
    """Whether a run began with the tracker that this process has."""
    opened = _opening_of(journal)
    return (
        tracker_of(journal) == _tracker() and opened.get("tracker_digest", _digest()) == _digest()
    )


def tracker_of(journal: Journal) -> str:
    """The tracker that a run began with, its address without secrets.

    Empty for the embedded one. A run of an older version does not say; for it, this is the tracker
    of this process.
    """
    return hide_secrets(str(_opening_of(journal).get("tracker", _tracker())))


def _opening_of(journal: Journal) -> Mapping[str, Any]:
    return next((line for line in journal.lines() if line["kind"] == "open"), {})


def journal_opening(
    journal: Journal, record: RunRecord, recipe: Recipe, schema: Schema, rows: Mapping[str, int]
) -> None:
    """Journal what is known of a run before it does anything.

    These are its names, tags, parameters and data set.

    Args:
        journal: of the run.
        record: its names, device, commit, Prefect flow run and fingerprint become tags.
        recipe: resolved; each of its values becomes a parameter.
        schema: of the table; its columns are shown with the data set.
        rows: rows of each split, by its name.
    """
    journal.append(
        "open",
        tracker=_tracker(),
        tracker_digest=_digest(),
        experiment=record.experiment,
        start_ms=milliseconds(record.created),
        parent=record.parent,
        tags={name: value for name, value in _tags_of(record).items() if value},
    )
    journal.append_params(hide_in_values(flatten(recipe)))
    if record.fingerprint:
        journal.append("dataset", **_describe_data(record, recipe, schema, rows))


def journal_reopening(journal: Journal, record: RunRecord, recipe: Recipe) -> None:
    """Journal that a run goes on.

    Args:
        journal: of the run, with its beginning.
        record: the run, with the Prefect flow run that it goes on in.
        recipe: what it goes on with. Parameters cannot be changed, so that what differs from them
            is set as the tag
            `torchrelay.drift`, JSON of `{key: [before, now]}`.
    """
    before: dict[str, str] = {}
    has_drifted = False
    for line in journal.lines():
        if line["kind"] == "params":
            before = {**hide_in_values(line["values"]), **before}
        has_drifted = has_drifted or (line["kind"] == "tags" and DRIFT_TAG in line["values"])
    params = hide_in_values(flatten(recipe))
    journal.append_params({key: value for key, value in params.items() if key not in before})
    drift = {
        key: [before[key], value]
        for key, value in params.items()
        if before.get(key, value) != value
    }
    changing = ("prefect.", TRUST_TAG)
    tags = {
        name: value
        for name, value in _tags_of(record).items()
        if name.startswith(changing) and value
    }
    if drift or has_drifted:
        tags[DRIFT_TAG] = json.dumps(drift, ensure_ascii=False)
    journal.append_tags(tags)
    journal.append_status("RUNNING")


def _tracker() -> str:
    """The tracker's address without secrets.

    Empty for the embedded one, whose home may be moved.
    """
    return "" if settings.tracking_is_embedded() else settings.shown_tracking_uri()


def _digest() -> str:
    """A digest that tells trackers apart whose addresses look alike.

    They look alike if they differ only in hidden parts. Empty if nothing is hidden.
    """
    return "" if settings.tracking_is_embedded() else tell_apart(settings.tracking_uri())


def milliseconds(iso: str) -> int:
    """A record's time as milliseconds since 1970."""
    return round(datetime.fromisoformat(iso).timestamp() * 1000)


def _describe_data(
    record: RunRecord, recipe: Recipe, schema: Schema, rows: Mapping[str, int]
) -> dict[str, str]:
    columns = [
        *(("input", feature) for feature in schema.inputs),
        *(("target", feature) for feature in schema.targets),
    ]
    # The shape that MLflow's UI draws as a list of columns.
    colspec = [
        {"name": feature.name, "type": _describe(role, feature)} for role, feature in columns
    ]
    counts = {
        "num_rows": sum(rows.values()),
        **{f"num_rows_{key}": number for key, number in rows.items()},
    }
    return {
        "name": Path(recipe.data.table).stem or recipe.name,
        "digest": record.fingerprint,
        "source": json.dumps({"uri": recipe.data.table}, ensure_ascii=False),
        "schema": json.dumps({"mlflow_colspec": colspec}, ensure_ascii=False),
        "profile": json.dumps(counts),
        "context": "evaluation" if record.kind == "evaluate" else "training",
    }


def _describe(role: str, feature: FeatureSchema) -> str:
    size = "".join(f" {number} x" for number in feature.shape).removesuffix(" x")
    classes = f", {len(feature.classes)} classes" if feature.classes else ""
    return f"{role}: {feature.kind}, {feature.dtype}{size}{classes}"


def _tags_of(record: RunRecord) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        user = "unknown"
    return {
        RUN_ID_TAG: record.run_id,
        FINGERPRINT_TAG: record.fingerprint,
        "torchrelay.kind": record.kind,
        "torchrelay.source": record.source,
        "torchrelay.source_sha256": record.source_sha256,
        **({TRUST_TAG: ", ".join(record.trust_code)} if record.trust_code else {}),
        "torchrelay.parent": record.parent,
        "torchrelay.split_column": record.split_column,
        "device": record.device,
        "precision": record.precision,
        "prefect.flow_run_id": record.prefect_flow_run_id,
        "prefect.flow_run_url": hide_secrets(record.prefect_flow_run_url),
        "mlflow.user": user,
        "mlflow.source.name": record.recipe_file or sys.argv[0] or "torchrelay",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": record.git_commit,
    }
