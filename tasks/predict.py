"""The prediction task.

The best weights on all rows of a table, written beside the table's own columns.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from prefect import task

from ..console import say
from ..datasets import read_verdicts
from ..datasets.table import write_output
from ..disk import sha256_file
from ..engine import OutputsNotFiniteError, finite_rows
from ..errors import DataError
from ..runs import Recorder, Run, thin
from .assembly import TABLE_ROWS, rows_scale, view_of
from .evaluate import score_rows
from .options import UNCACHED
from .results import VERDICT, Columns, describe_predictions
from .scoring import Prediction

NOT_FINITE = "the model's output is not a finite number"


class Predicted(NamedTuple):
    """What was written.

    Attributes:
        out: the file.
        rows: of the table.
        rows_predicted: those that have a prediction; the others have a verdict.
        unfamiliar: what the model does not know of the inputs, by column; see
            `datasets/ingest/unfamiliar.py`.
        rows_not_finite: those among the others for which the model gave NaN or infinity.
    """

    out: str
    rows: int
    rows_predicted: int
    unfamiliar: list[dict[str, Any]]
    rows_not_finite: int


@task(**UNCACHED)
def predict_rows(folder: Path, prediction: Prediction) -> Predicted:
    """Predict every row of the run's table that can be read, and write the
    table with the predictions.

    Raises:
        SourceError: the weights do not fit the model that the recipe builds.
        DataError: the table's file has changed since its rows were read.
        TrainingError: the model's outputs are finite in no row; nothing is written.
    """
    started = time.perf_counter()
    run = Run.open(folder)
    record, recipe, view = run.record, run.recipe, view_of(run)
    found, precision = score_rows(run, must_be_finite=False)
    rows = found.rows.numpy()
    verdicts = read_verdicts(run.split_dir)
    table_rows = view.pack.rows[rows]
    finite = finite_rows(found.outputs).numpy()
    num_odd = int((~finite).sum())
    if num_odd == len(rows):
        raise OutputsNotFiniteError((table_rows + 1).tolist(), len(rows), precision, TABLE_ROWS)
    verdicts |= dict.fromkeys(table_rows[~finite].tolist(), NOT_FINITE)
    num_rows = len(rows) + len(verdicts) - num_odd
    columns = describe_predictions(view.schema, found, rows_scale(view, rows))
    spread = _spread(columns, table_rows, finite, num_rows)
    spread[VERDICT] = pa.array([verdicts.get(row, "") for row in range(num_rows)], pa.string())
    if sha256_file(Path(recipe.data.table)) != prediction.table_sha256:
        raise DataError(
            f"{recipe.data.table} has changed while its rows were predicted; predict it again"
        )
    write_output(
        recipe.data,
        {f"{prediction.prefix}{name}": one for name, one in spread.items()},
        prediction.out,
    )
    seconds = time.perf_counter() - started
    num_predicted = num_rows - len(verdicts)
    metrics = {
        "predict/rows": float(num_rows),
        "predict/rows_predicted": float(num_predicted),
        "predict/rows_with_verdict": float(len(verdicts)),
        **({"predict/rows_not_finite": float(num_odd)} if num_odd else {}),
    }
    with run.journal as journal:
        Recorder(journal, thin(0, 1)).log_epoch(0, 0, metrics)
    changes = {**record.seconds, "predict": round(seconds, 3)}
    run.update(metrics={**record.metrics, **metrics}, precision=precision, seconds=changes)
    if num_odd:
        say(
            f"warning: {NOT_FINITE} in {num_odd:,} of {len(rows):,} rows, which have this as their "
            "verdict"
        )
    say(f"predict: {num_predicted:,} of {num_rows:,} rows in {seconds:.1f} s")
    return Predicted(str(prediction.out), num_rows, num_predicted, prediction.unfamiliar, num_odd)


def _spread(
    columns: Columns, table_rows: np.ndarray, is_given: np.ndarray, num_rows: int
) -> dict[str, pa.Array]:
    """The columns over all rows of the table, null where nothing is given."""
    missing = np.ones(num_rows, dtype=bool)
    missing[table_rows[is_given]] = False
    spread = {}
    for name, values in columns.items():
        wide = np.zeros(num_rows, dtype=values.dtype)
        wide[table_rows] = values
        wide = wide.astype(np.float64).round(6) if values.dtype == np.float32 else wide
        spread[name] = pa.array(wide, mask=missing)
    return spread
