"""The ingest task: from the recipe's table to a pack on disk; the work is in `datasets/build.py`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task

from ..datasets.build import Prepared, prepare_data
from ..files import read_json
from ..recipe import Recipe
from ..settings import home
from ..tracking import figures
from .console import Progress, say
from .options import UNCACHED


class Ingested(NamedTuple):
    """A pack that is ready, and what it cost."""

    data: Prepared
    seconds: float


@task(**UNCACHED)
def ingest_table(recipe: Recipe) -> Ingested:
    """Judge the rows, decode what is new, write the pack, fit the schema.

    Raises:
        DataError: the table or too many of its rows cannot be trained on.
    """
    started = time.perf_counter()
    with Progress("ingest", "images") as progress:
        data = prepare_data(recipe.data, home(), progress.update)
    for warning in data.warnings:
        say(f"warning: {warning}")
    seconds = time.perf_counter() - started
    rows = ", ".join(f"{count:,} {split}" for split, count in data.rows.items() if count)
    quarantined = f", {data.num_quarantined:,} quarantined" if data.num_quarantined else ""
    how = "pack reused" if data.reused else f"{data.num_decoded:,} files decoded"
    say(f"data: {rows}{quarantined} ({how}, {seconds:.1f} s)")
    return Ingested(data, seconds)


@task(**UNCACHED)
def report_data(ingested: Ingested) -> dict[str, Any]:
    """The record of an ingest as JSON."""
    data = ingested.data
    return {
        "pack_dir": str(data.pack_dir),
        "report": str(data.split_dir / "report.json"),
        "report_csv": str(data.split_dir / "data_report.csv"),
        "figure": str(draw_report(data.split_dir)),
        "quarantine": str(data.split_dir / "quarantine.csv"),
        "fingerprint": data.fingerprint,
        "rows": data.rows,
        "num_quarantined": data.num_quarantined,
        "num_decoded": data.num_decoded,
        "reused": data.reused,
        "warnings": data.warnings,
        "seconds": round(ingested.seconds, 3),
    }


def draw_report(split_dir: Path) -> Path:
    """The data report as a picture, drawn once for each split.

    It lies in `reports/` of the pack, beside `splits/`, whose folders are complete when they appear and never change.
    """
    path = split_dir.parent.parent / "reports" / f"{split_dir.name}.png"
    return path if path.is_file() else figures.data_report(read_json(split_dir / "report.json"), path)
