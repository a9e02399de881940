"""The predict flow labels all rows of a table.

It uses the best weights of a run or a registered model.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from ..tasks import (
    OtherTable,
    finish_run,
    hold_run,
    keep_status,
    name_scoring,
    predict_rows,
    start_prediction,
)
from ..tasks.services import quiet_user_errors


@flow(name="predict", persist_result=False)
def predict(
    source: str,
    table: str,
    out: str,
    files: str = "",
    device: str = "auto",
    prefix: str = "",
    dialect: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
    trust_code: list[str] = [],  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
) -> dict[str, Any]:
    """Copy a table with a prediction, or a verdict, for every row.

    The run is tagged with its source.

    Args:
        source: run id, `runs:/…`, `models:/name@alias`, or a weights file in a run folder.
        table: CSV, TSV or Parquet file with the inputs of the source's recipe; its target need not
            be there.
        out: CSV, TSV or Parquet file to write; one that is there is replaced.
        files: root of the table's relative file paths; empty means the table's folder.
        device: auto, cpu, cuda, cuda:1 or mps.
        prefix: before the names of the columns that are added.
        dialect: how the table is written where that is not as the source's recipe says:
            `data.encoding`,
            `data.delimiter`, `data.decimal` and the like, by their last names, for example
            {"delimiter": ";"}; and
            `max_unknown` where another part of an input's cells than the recipe says may be
            unknown.
        trust_code: modules that the source's recipe may have imported, such as my_package.nets.

    Returns:
        The run's record as JSON, with `out`, `rows`, `rows_predicted` and `unfamiliar`, what the
        model does not know of the inputs, by column.
    """
    quiet_user_errors()
    folder = name_scoring("predict", source, trust_code)
    with hold_run(folder), keep_status(folder):
        prediction = start_prediction(
            folder, source, OtherTable(table, files, dialect), out, device, prefix
        )
        predicted = predict_rows(folder, prediction)
        return {**finish_run(folder), **predicted._asdict()}
