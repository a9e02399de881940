"""The evaluate flow scores all rows of another table.

It uses the best weights of a run or a registered model.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from ..tasks import (
    OtherTable,
    evaluate_model,
    finish_run,
    hold_run,
    keep_status,
    name_scoring,
    start_evaluation,
)
from ..tasks.services import quiet_user_errors


@flow(name="evaluate", persist_result=False)
def evaluate(
    source: str,
    table: str,
    files: str = "",
    device: str = "auto",
    dialect: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
    trust_code: list[str] = [],  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
) -> dict[str, Any]:
    """Score every row of a table.

    The result is a run of its own, tagged with the one it came from.

    Args:
        source: run id, `runs:/…`, `models:/name@alias`, or a weights file in a run folder.
        table: CSV, TSV or Parquet file with the columns of the source's recipe, its target
            included.
        files: root of the table's relative file paths; empty means the table's folder.
        device: auto, cpu, cuda, cuda:1 or mps.
        dialect: how the table is written where that is not as the source's recipe says:
            `data.encoding`,
            `data.delimiter`, `data.decimal` and the like, by their last names, for example
            {"delimiter": ";"}; and
            `max_unknown` where another part of an input's cells than the recipe says may be
            unknown.
        trust_code: modules that the source's recipe may have imported, such as my_package.nets.

    Returns:
        The run's record as JSON (ids, status, metrics, seconds) with `rows`, `rows_scored`,
        `quarantine`, the file with the verdicts on the others, and `unfamiliar`, what the model
        does not know of the inputs, by column.
    """
    quiet_user_errors()
    folder = name_scoring("evaluate", source, trust_code)
    with hold_run(folder), keep_status(folder):
        scored = start_evaluation(folder, source, OtherTable(table, files, dialect), device)
        evaluate_model(folder)
        return {**finish_run(folder), **scored._asdict()}
