"""Commands that only look at runs, checkpoints, models and recipes.

Also MLflow's UI.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from .common import (
    commands,
    echo,
    json_option,
    plainly,
    prepare,
    print_json,
    print_table,
    set_option,
    short,
    single,
    tell,
)
from .results import count_lines, count_runs, headline, result_of

if TYPE_CHECKING:
    from ..runs import Run, RunRecord


@commands.command()
@json_option
def runs(as_json: bool) -> None:
    """List the runs of this home, newest first.

    Needs no server.
    """
    from ..runs import Run, list_runs
    from ..settings import home

    records, problems = list_runs(home())
    wait = {
        record.run_id: _count_waiting(Run(home().runs / record.run_id, record), problems)
        for record in records
    }
    for name, problem in problems.items():
        tell(f"warning: {plainly(name)}: {problem}; torchrelay doctor says what can be had back")
    if as_json:
        listed = [{**_listed(record), "waiting": wait[record.run_id]} for record in records]
        print_json({"runs": listed, "problems": problems})
        return
    if not records:
        tell(f"no runs in {home().runs}; torchrelay train RECIPE makes one")
        return
    parents = {one.run_id for one in records if one.kind == "splits"}
    below: dict[str, list[RunRecord]] = defaultdict(list)
    for one in reversed(records):
        below[one.parent].append(one)
    rows = [
        (
            "  " * (one is not top) + plainly(one.run_id),
            one.status,
            plainly(one.experiment),
            f"{one.steps:,}",
            result_of(one),
        )
        for top in records
        if top.parent not in parents or top.kind == "splits"
        for one in (
            top,
            *(one for one in below[top.run_id] if top.kind == "splits" and one.kind != "splits"),
        )
    ]
    print_table(("run", "status", "experiment", "steps", "result"), rows)
    if left := [number for number in wait.values() if number]:
        waiting_lines = f"{count_lines(sum(left))} of the journals of {count_runs(left)}"
        tell(f"waiting for MLflow: {waiting_lines}; torchrelay sync sends them")


def _count_waiting(run: Run, problems: dict[str, str]) -> int:
    """Count the lines of a journal that wait for MLflow.

    A journal that cannot be read counts as none; the reason is added to the problems.
    """
    from ..errors import TrackingError
    from ..runs import waiting

    try:
        return waiting(run)
    except TrackingError as error:
        problems[run.run_id] = str(error)
        return 0


@commands.command()
@click.argument("run")
@json_option
def show(run: str, as_json: bool) -> None:
    """Show one run's status, metrics and files."""
    from ..runs import Run, describe_run, find_run
    from ..settings import home

    found = Run.open(find_run(home(), run))
    record = found.record
    problems: dict[str, str] = {}
    values = {**describe_run(home(), record), "waiting": _count_waiting(found, problems)}
    for problem in problems.values():
        tell(f"warning: {problem}; torchrelay doctor says what can be had back")
    if as_json:
        print_json(values)
        return
    for key, value in values.items():
        if key not in ("metrics", "splits", "runs", "files") and value not in ("", {}, 0):
            echo(f"{key:<22}{plainly(value)}")
    children = {one["split_column"]: one for one in values.get("runs", ())}
    for column in record.splits:
        child = children.get(column)
        result = headline(child["metrics"], len(child["splits"])) if child else ""
        said = f"{child['run_id']}  {child['status']}  {result}" if child else "not begun"
        echo(f"  {column:<20}{said}".rstrip())
    width = max([20, *(len(key) + 2 for key in record.metrics)])
    for key, number in sorted(record.metrics.items()):
        echo(f"  {key:<{width}}{number:.6g}")


@commands.command()
@click.argument("run")
@json_option
def checkpoints(run: str, as_json: bool) -> None:
    """List a run's checkpoints and verify every byte.

    Needs no server and changes nothing.

    Exit code 1 if a checkpoint in use does not verify; the run would go on from the one before it.
    """
    from ..settings import home
    from ..upkeep import has_damage, list_checkpoints

    found = list_checkpoints(home(), run)
    if as_json:
        print_json(
            {"checkpoints": [{**one._asdict(), "verified": not one.problem} for one in found]}
        )
    elif not found:
        tell(f"run {run} has no checkpoints")
    else:
        several = len({one.run_id for one in found}) > 1
        rows = [
            (
                f"{one.run_id}/{one.name}" if several else one.name,
                f"{one.step:,}",
                "" if one.epoch is None else f"{one.epoch:,}",
                f"{one.bytes:,}",
                one.created[:19].replace("T", " "),
                " ".join(
                    mark for mark, holds in (("best", one.is_best), ("last", one.is_last)) if holds
                ),
                ("set aside: " if one.is_set_aside else "") + (one.problem or "verified"),
            )
            for one in found
        ]
        print_table(("checkpoint", "step", "epoch", "bytes", "written (UTC)", "", ""), rows)
    if has_damage(found):
        sys.exit(1)


@commands.command()
@json_option
def models(as_json: bool) -> None:
    """List the models with their inputs and sizes."""
    from ..models import describe_models

    found = describe_models()
    if as_json:
        print_json({"models": [model._asdict() for model in found]})
        return
    rows = [
        (
            model.name,
            model.inputs,
            f"{model.num_parameters:,}" if model.num_parameters else "",
            short(model.doc),
        )
        for model in found
    ]
    print_table(("model", "input", "parameters", ""), rows)


@commands.command()
@click.argument("recipe", required=False)
@set_option
@click.option(
    "--schema",
    is_flag=True,
    help="Print the JSON Schema of recipes, for completion in editors.",
)
@json_option
def recipe(recipe: str | None, items: tuple[str, ...], schema: bool, as_json: bool) -> None:
    """Check a recipe and print it with all its defaults."""
    from ..recipe import dump_recipe, load_recipe, recipe_schema

    if schema:
        print_json(recipe_schema())
        return
    resolved = load_recipe(recipe or "", None, single(items))
    if as_json:
        print_json(resolved.model_dump(by_alias=True))
    else:
        click.echo(dump_recipe(resolved), nl=False)


def _listed(record: RunRecord) -> dict[str, Any]:
    return {**record.model_dump(exclude={"steps"}), "step": record.steps}


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, help="Port to listen on; by default 5000, or the next free one.")
def ui(host: str, port: int) -> None:
    """Open MLflow's UI on this home.

    It compares runs and shows curves and artifacts. Ctrl-C ends it.
    """
    prepare()
    from ..tracking import serve_ui

    serve_ui(host, port)
