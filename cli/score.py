"""Commands that use a model on another table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from .common import (
    commands,
    device_option,
    dialect_options,
    echo,
    json_option,
    prepare,
    print_json,
    require_servers,
    trust_option,
)
from .results import run_line, tell_result, tell_unfamiliar


def _table_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options for the table that SOURCE scores.

    The command gets `other`: table, files and dialect, as the flows call them.
    """

    @dialect_options
    @functools.wraps(command)
    def with_table(
        table: str, files: str, dialect: dict[str, Any], max_unknown: float | None, **arguments: Any
    ) -> None:
        limit = {} if max_unknown is None else {"max_unknown": max_unknown}
        command(other={"table": table, "files": files, "dialect": dialect | limit}, **arguments)

    files = click.option(
        "--files",
        default="",
        type=click.Path(),
        help="Folder where the table's file paths start; by default the table's own.",
    )
    table = click.option(
        "--table",
        required=True,
        type=click.Path(),
        help="CSV, TSV or Parquet file to score whole.",
    )
    max_unknown = click.option(
        "--max-unknown",
        type=click.FloatRange(0, 1),
        help="Share of an input's cells that SOURCE may not know before their rows get a verdict.",
    )
    return table(files(max_unknown(with_table)))


@commands.command()
@click.argument("source")
@_table_options
@trust_option
@device_option
@json_option
def evaluate(
    source: str, other: dict[str, Any], device: str, trust_code: tuple[str, ...], as_json: bool
) -> None:
    """Score all rows of another table with SOURCE.

    A row that cannot be read gets a verdict instead.

    SOURCE is a run id, runs:/…, models:/name@alias, or a weights file of a run.
    """
    _check(source, other["table"], trust_code)
    from ..flows import evaluate as evaluate_flow

    result = evaluate_flow(
        source=source,
        table=other["table"],
        files=other["files"],
        dialect=other["dialect"],
        device=device or "auto",
        trust_code=list(trust_code),
    )
    tell_unfamiliar(result, as_json)
    tell_result(result, True, as_json)
    if as_json:
        print_json(result)


@commands.command()
@click.argument("source")
@click.option(
    "--out", required=True, type=click.Path(), help="File to write: .csv, .tsv or .parquet."
)
@click.option("--prefix", default="", help="Prefix of the names of the new columns.")
@_table_options
@trust_option
@device_option
@json_option
def predict(
    source: str,
    other: dict[str, Any],
    out: str,
    prefix: str,
    device: str,
    trust_code: tuple[str, ...],
    as_json: bool,
) -> None:
    """Copy TABLE with a prediction or a verdict for every row.

    SOURCE is a run id, runs:/…, models:/name@alias, or a weights file of a run.
    """
    _check(source, other["table"], trust_code, out)
    from ..flows import predict as predict_flow

    result = predict_flow(
        source=source,
        table=other["table"],
        files=other["files"],
        dialect=other["dialect"],
        out=out,
        prefix=prefix,
        device=device or "auto",
        trust_code=list(trust_code),
    )
    if as_json:
        print_json(result)
    tell_unfamiliar(result, as_json)
    lines = [run_line(result), f"folder    {result['run_dir']}"]
    verdicts = result["rows"] - result["rows_predicted"]
    if verdicts:
        what = "row" if verdicts == 1 else "rows"
        lines.append(
            f"verdicts  {verdicts:,} {what} could not be predicted; the column {prefix}verdict "
            "says why"
        )
    for line in (
        *lines,
        f"{result['out']}: {result['rows_predicted']:,} of {result['rows']:,} rows predicted",
    ):
        echo(line, err=as_json)


def _check(source: str, table: str, trust_code: tuple[str, ...], out: str | None = None) -> None:
    """Check the arguments of a scoring before a Prefect server starts for it."""
    prepare()
    require_servers()
    from ..datasets.table import locate_output, locate_table
    from ..recipe import Data
    from ..tasks.assembly import check_source_code

    found = locate_table(Data(table=table), "--table")
    if out is not None:
        locate_output(out, str(found))
    check_source_code(source, trust_code)
