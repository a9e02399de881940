"""Commands that train, and the proof that a killed run survives."""

from __future__ import annotations

import random
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import TorchrelayError
from .common import (
    check,
    commands,
    device_option,
    dialect_options,
    echo,
    json_option,
    prepare,
    print_json,
    recheck_option,
    require_servers,
    set_option,
    single,
    tell,
    trust_option,
)
from .results import tell_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..recipe import Recipe


@commands.command()
@click.argument("recipe")
@set_option
@device_option
@click.option(
    "--dry-run",
    "is_dry",
    is_flag=True,
    help="Check everything, ingest, train two steps, but write no run.",
)
@recheck_option
@json_option
def train(
    recipe: str, items: tuple[str, ...], device: str, is_dry: bool, recheck: bool, as_json: bool
) -> None:
    """Train a new run.

    Ingests the table, trains, evaluates, logs, and registers the model.

    Several values of a key (--set train.seed=0,1,2) make one run each. A split by several columns
    (data.split.column: "split_*") makes one run for each column, below a parent with their mean and
    deviation.
    """
    from ..recipe import load_recipe, parse_overrides

    several = parse_overrides([*items, f"train.device={device}"] if device else items)
    if is_dry:
        recipes = [load_recipe(recipe, None, overrides) for overrides in several]
        options = [word for item in items for word in ("--set", item)] + (
            ["--device", device] if device else []
        )
        next_line = f"next      torchrelay train {shlex.join([recipe, *options])}"
        _try_recipes(recipes, next_line, as_json, recheck=recheck)
        return
    check(several, recipe)
    from ..flows import train as train_flow

    again = [recheck, *[False] * len(several)]  # what was read a moment ago need not be read again
    _run_several(
        several,
        as_json,
        lambda overrides: train_flow(recipe_file=recipe, overrides=overrides, recheck=again.pop(0)),
    )


@commands.command()
@click.argument("recipe", required=False, default="")
@click.option(
    "--from",
    "source",
    default="",
    metavar="SOURCE",
    help="Run, registered model or weights file to begin from.",
)
@click.option(
    "--rename",
    multiple=True,
    metavar="A=B",
    help="Rename keys A of the source to B of the model; may be repeated.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Keys of the model that begin at random; may be repeated.",
)
@click.option(
    "--freeze",
    multiple=True,
    metavar="GLOB",
    help="Keys of the model that are not trained; may be repeated.",
)
@click.option(
    "--thaw-after",
    type=click.IntRange(min=1),
    metavar="N",
    help="Epochs after which the frozen keys are trained too.",
)
@click.option(
    "--grow-head/--no-grow-head",
    default=None,
    help="Give new classes outputs of their own, or refuse them.",
)
@dialect_options
@trust_option
@set_option
@device_option
@click.option(
    "--dry-run",
    "is_dry",
    is_flag=True,
    help="Check everything, ingest, train two steps, but write no run.",
)
@json_option
def finetune(
    recipe: str,
    source: str,
    rename: tuple[str, ...],
    exclude: tuple[str, ...],
    freeze: tuple[str, ...],
    thaw_after: int | None,
    grow_head: bool | None,
    dialect: dict[str, Any],
    trust_code: tuple[str, ...],
    items: tuple[str, ...],
    device: str,
    is_dry: bool,
    as_json: bool,
) -> None:
    """Train a new run from the weights of SOURCE.

    Reports what came from SOURCE, which is a run id, runs:/…, models:/name@alias, or a weights
    file; by default the recipe's warm_start.source. Without RECIPE, the recipe of SOURCE is used,
    for example with --set data.table=more.csv. The options override the recipe's warm_start. In a
    pattern, * matches any text: --rename 'backbone.*=*' removes that prefix from all keys.
    """
    from ..recipe import parse_overrides, parse_renames

    options: dict[str, Any] = {
        "warm_start.rename": parse_renames(rename),
        "warm_start.exclude": list(exclude),
        "warm_start.freeze": list(freeze),
        "warm_start.thaw_after": thaw_after,
        "warm_start.grow_head": grow_head,
        "train.device": device,
    }
    given = {key: value for key, value in options.items() if value not in (None, "", [], {})}
    prepare()
    if not is_dry:
        require_servers()
    from ..recipe import Recipe
    from ..tasks import over_data, recipe_for_finetune
    from ..tasks.assembly import check_recipe

    several = [over_data({**given, **overrides}, dialect) for overrides in parse_overrides(items)]

    recipes = [
        recipe_for_finetune(Recipe(), recipe, overrides, source, trust_code)
        for overrides in several
    ]
    if is_dry:
        _try_recipes(recipes, "next      torchrelay finetune, the same without --dry-run", as_json)
        return
    for resolved in recipes:
        check_recipe(resolved)
    from ..flows import finetune as finetune_flow

    _run_several(
        several,
        as_json,
        lambda one: finetune_flow(Recipe(), recipe, one, source, trust_code=list(trust_code)),
    )


@commands.command()
@click.argument("run")
@trust_option
@set_option
@json_option
def resume(run: str, items: tuple[str, ...], trust_code: tuple[str, ...], as_json: bool) -> None:
    """Let a run go on from its last checkpoint.

    --set train.epochs=20 makes it longer.
    """
    from ..runs import Run, find_run
    from ..settings import home

    overrides = single(items)
    found = Run.open(find_run(home(), run))
    prepare()
    require_servers()
    from ..flows import train as train_flow
    from ..tasks import change_recipe
    from ..tasks.assembly import admit_code

    admit_code(change_recipe(found, overrides), found.folder, f"run {found.run_id}", trust_code)
    with found.lock():
        pass  # on a disk that cannot be written Prefect's server would fail first, and say less

    result = train_flow(overrides=overrides, resume=found.run_id, trust_code=list(trust_code))
    tell_result(result, True, as_json)
    if as_json:
        print_json(result)


@commands.command("verify-resume")
@click.argument("recipe")
@click.option(
    "--kills",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many times to kill the second run.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=10),
    default=200,
    show_default=True,
    help="Approximate length of each run in steps.",
)
@click.option(
    "--seed", type=int, help="Seed of the kills' moments; by default a new one each time."
)
@set_option
@device_option
@json_option
def verify_resume(
    recipe: str,
    kills: int,
    steps: int,
    seed: int | None,
    items: tuple[str, ...],
    device: str,
    as_json: bool,
) -> None:
    """Prove on RECIPE that a killed run ends with the same bits.

    Trains a short run without a stop, then again with SIGKILLs at random moments, and compares the
    weights by their hash and the metrics point by point. Exit code 1 if they differ. Both runs lie
    in a folder beside the home's runs, which is removed afterwards.
    """
    from ..recipe import load_recipe

    resolved = load_recipe(
        recipe, None, single((*items, f"train.device={device}") if device else items)
    )
    prepare()
    from ..upkeep.trials import verify_resume as verify

    chosen = random.randrange(10**6) if seed is None else seed
    found = verify(resolved, kills, steps, chosen)
    if as_json:
        print_json(found)
    killed = f"{len(found['kills'])} kill{'' if len(found['kills']) == 1 else 's'}"
    if found["identical"]:
        weights = found["weights_sha256"][0][:12]
        echo(
            f"identical after {killed}: weights {weights}, {found['points']:,} points", err=as_json
        )
        return
    tell(f"kept      {found['folder']}\nagain     the same command with --seed {chosen}")
    echo(f"different after {killed}: {found['first_difference']}", err=as_json)
    sys.exit(1)


def _run_several(
    several: list[dict[str, Any]], as_json: bool, start: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Run each set of overrides, and say what came of it.

    A run that fails does not stop the others.
    """
    results = []
    for overrides in several:
        if len(several) > 1:
            tell("with " + ", ".join(f"{key}={value}" for key, value in overrides.items()))
        try:
            results.append(start(overrides))
        except TorchrelayError as error:
            if len(several) == 1:
                raise
            tell(f"error: {error}")
            continue
        tell_result(results[-1], overrides is several[-1], as_json)
    if as_json:
        print_json(results[0] if len(several) == 1 else {"runs": results})
    if len(results) < len(several):
        tell(f"{len(several) - len(results)} of {len(several)} runs failed")
        sys.exit(1)


def _try_recipes(
    recipes: list[Recipe], next_line: str, as_json: bool, *, recheck: bool = False
) -> None:
    """Try each recipe without a run, and say what was found."""
    prepare()
    from ..upkeep.trials import dry_run

    results = []
    for resolved in recipes:
        results.append(dry_run(resolved, recheck=recheck))
        for line in (*_describe_dry_run(results[-1]), next_line):
            echo(line, err=as_json)
    num_warnings = sum(len(found["warnings"]) for found in results)
    warned = f"{num_warnings} warning{'' if num_warnings == 1 else 's'}, see above; nothing else"
    tell(f"dry run: {warned if num_warnings else 'nothing'} is wrong; no run was written")
    if as_json:
        print_json(results[0] if len(recipes) == 1 else {"runs": results})


def _describe_dry_run(found: dict[str, Any]) -> list[str]:
    seconds, num_epochs = found["seconds"], found["epochs"]
    epochs = f"{num_epochs} epoch{'' if num_epochs == 1 else 's'}"
    rows = [
        (
            f"rows      {', '.join(f'{count:,} {split}' for split, count in counts.items())}"
            f"{column and f' by {column}'}"
        )
        for column, counts in found.get("splits", {"": found["rows"]}).items()
    ]
    if "tried_split" in found:
        rows.append(f"tried     {found['tried_split']} alone, of {len(found['splits']):,} splits")
    losses = [f"{loss:.4g}" for loss in found["losses"]]
    valid = "" if found["valid_loss"] is None else f", valid {found['valid_loss']:.4g}"
    return [
        *rows,
        f"model     {found['model']}, {found['parameters']:,} parameters",
        f"device    {found['device']} in {found['precision']}",
        f"loss      {', '.join(losses)} in the first steps{valid}",
        f"time      {seconds['step']:.3g} s a step; about {seconds['epoch']:.3g} s an epoch of "
        f"{found['steps_per_epoch']:,} steps, {num_epochs * seconds['epoch']:.3g} s for {epochs}",
        f"pack      {found['pack_dir']} (stays: a run of this recipe finds it)",
    ]
