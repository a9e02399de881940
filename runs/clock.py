"""How long a run has worked, over all the times that it went on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from .record import RunRecord


def seconds_until(record: RunRecord, lines: Iterable[Mapping[str, Any]], end: float) -> float:
    """Seconds of a run up to a time.

    Those counted before it was last resumed, and those since.

    Args:
        record: with the seconds counted so far.
        lines: of its journal.
        end: milliseconds since 1970.
    """
    began = datetime.fromisoformat(record.created).timestamp() * 1000
    for line in lines:
        if line["kind"] == "status" and line["status"] == "RUNNING":
            began = line["time"]
    before = record.seconds.get("total", record.seconds.get("ingest", 0.0))
    return round(before + (end - began) / 1000, 3)
