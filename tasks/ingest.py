"""The ingest task.

From the recipe's table to a pack on disk; the work is in `datasets/ingest/prepare.py`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task

from .. import figures
from ..console import Progress, say, saying_still
from ..datasets import QUARANTINE, say_verdicts
from ..datasets.ingest import Prepared, prepare_data
from ..datasets.pack import hold_data, mark_used
from ..datasets.table import split_columns, with_split_column
from ..disk import read_json
from ..recipe import Recipe
from ..settings import home
from .assembly import inherited_schema_of
from .options import UNCACHED


class Ingested(NamedTuple):
    """A pack that is ready, with its splits, and what it cost.

    Attributes:
        splits: by the column that makes the split, in the table's order; "" where fractions do.
        several: whether the recipe's split is a pattern of columns, even one that only one column
            fits.
        seconds: of all splits together.
    """

    splits: dict[str, Prepared]
    several: bool
    seconds: float

    @property
    def first(self) -> Prepared:
        """The only split, or the first of several."""
        return next(iter(self.splits.values()))


@task(**UNCACHED)
def ingest_table(recipe: Recipe, recheck: bool = False) -> Ingested:
    """Judge the rows, decode what is new, write the pack, fit the schema for
    each split.

    With `recheck` every file is read again, also those that seem to be as they were.

    Raises:
        DataError: the table or too many of its rows cannot be trained on, by one of its splits.
    """
    started = time.perf_counter()
    columns = split_columns(recipe.data) or [""]
    several = columns != [recipe.data.split.column]
    splits = {
        column: _ingest_split(recipe, column, several, recheck=recheck and column == columns[0])
        for column in columns
    }
    for warning in dict.fromkeys(text for data in splits.values() for text in data.warnings):
        warned = [column for column, data in splits.items() if warning in data.warnings]
        say(
            f"warning: {warning}"
            if len(warned) == len(splits)
            else f"warning: by {', '.join(warned)}: {warning}"
        )
    return Ingested(splits, several, time.perf_counter() - started)


@task(**UNCACHED)
def report_data(ingested: Ingested) -> dict[str, Any]:
    """The record of an ingest as JSON.

    Of several splits the first, and each below `splits`.
    """
    all_data = ingested.splits.values()
    report = {
        "pack_dir": str(ingested.first.pack_dir),
        "fingerprint": ingested.first.fingerprint,
        "num_decoded": sum(data.num_decoded for data in all_data),
        "reused": all(data.reused for data in all_data),
        **_report_split(ingested.first),
        "seconds": round(ingested.seconds, 3),
    }
    if ingested.several:
        report["splits"] = {column: _report_split(data) for column, data in ingested.splits.items()}
    return report


def _ingest_split(recipe: Recipe, column: str, several: bool, *, recheck: bool) -> Prepared:
    """The pack, the first time, and the split that a column makes of it."""
    started = time.perf_counter()
    work = f"reading {Path(recipe.data.table).name}"
    with Progress("ingest", "images") as progress, hold_data(home()), saying_still(work, progress):
        one = with_split_column(recipe.data, column)
        data = prepare_data(
            one, home(), progress.update, inherited_schema_of(recipe), recheck=recheck
        )
        mark_used(data.pack_dir)
    rows = ", ".join(f"{count:,} {split}" for split, count in data.rows.items() if count)
    quarantined = f", {data.num_quarantined:,} quarantined" if data.num_quarantined else ""
    how = "pack reused" if data.reused else f"{data.num_decoded:,} files decoded"
    name = f"data by {column}" if several else "data"
    say(f"{name}: {rows}{quarantined} ({how}, {time.perf_counter() - started:.1f} s)")
    tell_quarantine(data)
    return data


def tell_quarantine(data: Prepared) -> None:
    """Say why rows are bad, and where all of them stand with their reasons."""
    if data.num_quarantined:
        say(f"quarantined: {say_verdicts(data.split_dir)}; {data.split_dir / QUARANTINE}")


def _report_split(data: Prepared) -> dict[str, Any]:
    return {
        "report": str(data.split_dir / "report.json"),
        "report_csv": str(data.split_dir / "data_report.csv"),
        "figure": str(draw_report(data.split_dir)),
        "quarantine": str(data.split_dir / QUARANTINE),
        "rows": data.rows,
        "num_quarantined": data.num_quarantined,
        "warnings": data.warnings,
    }


def draw_report(split_dir: Path) -> Path:
    """The data report as a picture, drawn once for each split.

    It lies in `reports/` of the pack, beside `splits/`, whose folders are complete when they appear
    and never change.
    """
    path = split_dir.parent.parent / "reports" / f"{split_dir.name}.png"
    return (
        path if path.is_file() else figures.data_report(read_json(split_dir / "report.json"), path)
    )
