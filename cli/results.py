"""Writes a run and its result for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .common import echo

if TYPE_CHECKING:
    from ..runs import RunRecord

# The metrics that say how good a model is, and how they are written.
HEADLINES = {"accuracy": ".4f", "f1_micro": ".4f", "nme": ".4f", "rmse": ".4g", "mrr": ".4f"}

# Columns of which a summary says what the model does not know.
MOST_UNFAMILIAR = 8


def tell_result(result: dict[str, Any], last: bool, as_json: bool) -> None:
    """Say where the run is, what to do next, and last the result."""
    lines = [run_line(result), f"folder    {result['run_dir']}"]
    if last:
        table = (
            ""
            if result["kind"] != "train"
            else f"torchrelay evaluate {result['run_id']} --table TABLE · "
        )
        lines.append(f"next      torchrelay show {result['run_id']} · {table}torchrelay ui")
    if interval := _interval(result["metrics"]):
        lines.append(interval)
    for line in (*lines, headline(result["metrics"], len(result["splits"]))):
        echo(line, err=as_json)


def tell_unfamiliar(result: dict[str, Any], as_json: bool) -> None:
    """Say what share of each column the model does not know."""
    from ..datasets.ingest import say_strange

    found = sorted(result["unfamiliar"], key=lambda one: -one["share"])
    for sentence in say_strange(found[:MOST_UNFAMILIAR]):
        echo(f"unfamiliar {sentence}", err=as_json)
    if len(found) > MOST_UNFAMILIAR:
        echo(
            f"unfamiliar {len(found) - MOST_UNFAMILIAR:,} more columns; report.json names them",
            err=as_json,
        )


def run_line(result: dict[str, Any]) -> str:
    """A run's ids, ours and MLflow's."""
    return (
        f"run       {result['run_id']} (MLflow {result['mlflow_run_id'] or 'does not have it yet'})"
    )


def result_of(record: RunRecord) -> str:
    """`headline` of a record."""
    return headline(record.metrics, len(record.splits))


def headline(metrics: dict[str, float], num_splits: int = 0) -> str:
    """The most important metric, for example `test accuracy 0.9833`.

    Over several splits, the mean with its deviation.
    """
    for split in ("test", "valid"):
        for name, digits in HEADLINES.items():
            if f"{split}/{name}" in metrics:
                value, deviation = metrics[f"{split}/{name}"], metrics.get(f"{split}/{name}_std")
                return f"{split} {name} {_number(value, deviation, digits)}{_over(num_splits)}"
    if "train/epoch_loss" in metrics:
        return f"train loss {metrics['train/epoch_loss']:.4g}{_over(num_splits)}"
    return ""


def _number(value: float, deviation: float | None, form: str) -> str:
    """A number, rounded with its deviation to the second digit of that."""
    if deviation is None or not math.isfinite(deviation):
        return f"{value:{form}}"
    if deviation == 0:
        return f"{value:{form}} ± 0"
    digits = min(max(0, 1 - math.floor(math.log10(deviation))), 8)
    return f"{value:.{digits}f} ± {deviation:.{digits}f}"


def _over(num_splits: int) -> str:
    return f" (mean of {num_splits} split{'s' * (num_splits > 1)})" if num_splits else ""


def _interval(metrics: dict[str, float]) -> str:
    """The headline's 95 % interval, and for points the error of a guess."""
    for name, digits in HEADLINES.items():
        low, high = (metrics.get(f"test/{name}_{end}") for end in ("low", "high"))
        if low is not None and high is not None:
            baseline = metrics.get("test/mean_shape_nme")
            guess = f"; the mean shape has {baseline:{digits}}" if baseline is not None else ""
            return f"interval  {low:{digits}} to {high:{digits}} (95 %, over the test rows){guess}"
    return ""


def count_lines(number: int) -> str:
    """`1 line`, `2 lines`."""
    return f"{number:,} line{'' if number == 1 else 's'}"


def count_runs(runs: list[int]) -> str:
    """`1 run`, `2 runs`."""
    return "1 run" if len(runs) == 1 else f"{len(runs):,} runs"
