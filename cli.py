"""The command line: reads arguments, starts flows, prints results. Imports nothing heavy before a command needs it."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import TorchrelayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .recipe import Recipe
    from .tracking.records import RunRecord
    from .tracking.shipper import Shipped

SIGINT_EXIT, SIGTERM_EXIT = 130, 143
# The metrics that say how good a model is, and how they are written.
HEADLINES = {"accuracy": ".4f", "f1_micro": ".4f", "nme": ".4f", "rmse": ".4g", "mrr": ".4f"}

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
set_option = click.option("--set", "items", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
device_option = click.option("--device", default="", metavar="D", help="auto, cpu, cuda, cuda:1 or mps.")


def main() -> None:
    """Run the command line: exit code 0 done, 1 the run failed, 2 bad usage, recipe or data, 130 and 143 signals."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(SIGTERM_EXIT))
    try:
        commands.main(standalone_mode=False, prog_name="torchrelay")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TorchrelayError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; `torchrelay runs` shows the run, `torchrelay resume RUN` lets it go on", err=True)
        sys.exit(SIGINT_EXIT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="torchrelay")
def commands() -> None:
    """A table becomes a trained, evaluated, tracked PyTorch model, again and again.

    Start: torchrelay fetch digits, then torchrelay train recipes/digits.yaml
    """


@commands.command()
@click.argument("table", required=False, type=click.Path())
@click.option("--force", is_flag=True, help="Write over a recipe that is there.")
@click.option("--files", default="", type=click.Path(), help="Root of the table's file paths; looked for by default.")
@click.option("--target", default="", metavar="COLUMN", help="Column to learn; guessed by default.")
@json_option
def init(table: str | None, force: bool, files: str, target: str, as_json: bool) -> None:
    """Look at a table and write a recipe beside it that trains as it is, with the reasons of each guess."""
    if not table:
        from .tasks.draft_text import EXPLANATION

        click.echo(EXPLANATION, nl=False)
        return
    _prepare()
    from .tasks.draft_text import describe_draft, init_recipe

    path, draft = init_recipe(Path(table), files=Path(files) if files else None, target=target, force=force)
    guesses = describe_draft(draft)
    for part, text in guesses:
        _tell(f"{part:<10}{text}")
    _tell(f"recipe    {path}\nnext      torchrelay train {path}")
    if as_json:
        said = [{"part": part, "guess": text} for part, text in guesses]
        names = {"inputs": list(draft.inputs), "target": list(draft.target)}
        _print_json({"recipe": str(path.absolute()), "rows": draft.survey.num_rows, **names, "guesses": said})


@commands.command()
@click.argument("name", required=False)
@click.option("--from", "source", type=click.Path(), help="Take tables and image archives from this folder.")
@json_option
def fetch(name: str | None, source: str | None, as_json: bool) -> None:
    """Write data/NAME/, table and files of a known data set: digits, cifar10.

    Nobody offers faces, languages, uci and wn18rr in this form for download: --from DIR places them from a folder that
    holds faces/, languages/, uci/ or wn18rr/. The recipes that read them are written into recipes/ where they are not.
    """
    from .datasets.fetch import fetch as fetch_data
    from .datasets.fetch import place
    from .tasks.console import Progress

    if not name and not source:
        raise click.UsageError("name a data set (digits, cifar10), or a folder with --from")
    folder = Path("data")
    if source:
        fetched = place(Path(source), folder, [name] if name else [])
    else:
        with Progress("fetch", "images") as progress:
            fetched = [fetch_data(str(name), folder, progress.update)]
    names = dict.fromkeys(one.table.parent.name for one in fetched)
    recipes = [path for name in names for path in _copy_recipes(name)]
    for one in fetched:
        _tell(f"{one.table}: {one.rows:,} rows")
    for path in recipes:
        _tell(f"next: torchrelay train {path}")
    if as_json:
        _print_json({"fetched": [{"table": str(one.table.absolute()), "rows": one.rows} for one in fetched]})


@commands.command()
@click.argument("recipe")
@set_option
@json_option
def ingest(recipe: str, items: tuple[str, ...], as_json: bool) -> None:
    """Turn the recipe's table into a pack: verdicts, decoding, data report."""
    overrides = _single(items)
    _check([overrides], recipe)
    from .flows.ingest import ingest as ingest_flow

    result = ingest_flow(recipe_file=recipe, overrides=overrides)
    _tell(f"pack      {result['pack_dir']}\nreport    {result['report_csv']}\nfigure    {result['figure']}")
    _tell(f"next      torchrelay train {recipe}")
    if as_json:
        _print_json(result)


@commands.command()
@click.argument("recipe")
@set_option
@device_option
@click.option("--dry-run", "is_dry", is_flag=True, help="Check everything, ingest, train two steps; write no run.")
@json_option
def train(recipe: str, items: tuple[str, ...], device: str, is_dry: bool, as_json: bool) -> None:
    """Train a new run: ingest, train, evaluate, log, register.

    Several values of a key (--set train.seed=0,1,2) make one run each. A split by several columns (data.split.column:
    "split_*") makes one run each, below a parent with their mean and deviation.
    """
    from .recipe import load_recipe, parse_overrides

    several = parse_overrides([*items, f"train.device={device}"] if device else items)
    if is_dry:
        recipes = [load_recipe(recipe, None, overrides) for overrides in several]
        _try_recipes(recipes, f"next      torchrelay train {recipe}", as_json)
        return
    _check(several, recipe)
    from .flows.train import train as train_flow

    _run_several(several, as_json, lambda overrides: train_flow(recipe_file=recipe, overrides=overrides))


@commands.command()
@click.argument("recipe", required=False, default="")
@click.option("--from", "source", default="", metavar="SOURCE", help="Run, registered model or file to begin from.")
@click.option("--rename", multiple=True, metavar="A=B", help="What a key of the source is called in the model.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Keys of the model that begin at random.")
@click.option("--freeze", multiple=True, metavar="GLOB", help="Keys of the model that are not trained.")
@click.option("--thaw-after", type=click.IntRange(min=1), metavar="N", help="Epochs after which they are.")
@click.option("--grow-head/--no-grow-head", default=None, help="Give new classes outputs of their own, or refuse them.")
@set_option
@device_option
@click.option("--dry-run", "is_dry", is_flag=True, help="Check everything, ingest, train two steps; write no run.")
@json_option
def finetune(
    recipe: str,
    source: str,
    rename: tuple[str, ...],
    exclude: tuple[str, ...],
    freeze: tuple[str, ...],
    thaw_after: int | None,
    grow_head: bool | None,
    items: tuple[str, ...],
    device: str,
    is_dry: bool,
    as_json: bool,
) -> None:
    """Train a new run that begins from the weights of SOURCE, and say what came from there.

    SOURCE is a run id, runs:/…, models:/name@alias, or a weights file; by default the recipe's warm_start.source.
    Without RECIPE the source's own is taken, for example with --set data.table=more.csv. Options go over the recipe's
    warm_start. Patterns: * is any text. --rename 'backbone.*=*' takes the word off all keys that begin with it.
    """
    from .recipe import parse_overrides, parse_renames

    options: dict[str, Any] = {
        "warm_start.rename": parse_renames(rename),
        "warm_start.exclude": list(exclude),
        "warm_start.freeze": list(freeze),
        "warm_start.thaw_after": thaw_after,
        "warm_start.grow_head": grow_head,
        "train.device": device,
    }
    given = {key: value for key, value in options.items() if value not in (None, "", [], {})}
    several = [{**given, **overrides} for overrides in parse_overrides(items)]
    _prepare()
    from .recipe import Recipe
    from .tasks.preflight import check_recipe
    from .tasks.runs import recipe_for_finetune

    recipes = [recipe_for_finetune(Recipe(), recipe, overrides, source) for overrides in several]
    if is_dry:
        _try_recipes(recipes, "next      torchrelay finetune, the same without --dry-run", as_json)
        return
    for resolved in recipes:
        check_recipe(resolved)
    from .flows.finetune import finetune as finetune_flow

    _run_several(several, as_json, lambda one: finetune_flow(source=source, recipe_file=recipe, overrides=one))


@commands.command()
@click.argument("run")
@set_option
@json_option
def resume(run: str, items: tuple[str, ...], as_json: bool) -> None:
    """Let a run go on from its last checkpoint; --set train.epochs=20 makes it longer."""
    from .settings import home
    from .tracking.records import find_run

    overrides = _single(items)
    run_dir = find_run(home(), run)
    _prepare()
    from .flows.train import train as train_flow
    from .tasks.reopen import change_recipe

    change_recipe(run_dir, overrides)

    result = train_flow(overrides=overrides, resume=run_dir.name)
    _tell_result(result, True, as_json)
    if as_json:
        _print_json(result)


@commands.command("verify-resume")
@click.argument("recipe")
@click.option("--kills", type=click.IntRange(min=1), default=3, show_default=True, help="SIGKILLs of the second run.")
@click.option("--steps", type=click.IntRange(min=10), default=200, show_default=True, help="Length of a run, about.")
@click.option("--seed", type=int, help="Of the moments of the kills; by default another one each time.")
@set_option
@device_option
@json_option
def verify_resume(
    recipe: str, kills: int, steps: int, seed: int | None, items: tuple[str, ...], device: str, as_json: bool
) -> None:
    """Prove on RECIPE that a run survives: one short run without a stop, one with kills, the same bits.

    Both runs live in a folder beside the home's runs, which is removed; kills are real and come at random moments.
    Weights are compared by their hash, metrics point by point. Exit code 1 where they differ.
    """
    from .recipe import load_recipe

    resolved = load_recipe(recipe, None, _single((*items, f"train.device={device}") if device else items))
    _prepare()
    from .tasks.verify import verify_resume as verify

    chosen = random.randrange(10**6) if seed is None else seed
    found = verify(resolved, kills, steps, chosen)
    if as_json:
        _print_json(found)
    killed = f"{len(found['kills'])} kill{'' if len(found['kills']) == 1 else 's'}"
    if found["identical"]:
        weights = found["weights_sha256"][0][:12]
        click.echo(f"identical after {killed}: weights {weights}, {found['points']:,} points", err=as_json)
        return
    _tell(f"kept      {found['folder']}\nagain     the same command with --seed {chosen}")
    click.echo(f"different after {killed}: {found['first_difference']}", err=as_json)
    sys.exit(1)


@commands.command()
@click.argument("source")
@click.option("--table", required=True, type=click.Path(), help="CSV, TSV or Parquet file; all its rows are scored.")
@click.option("--files", default="", type=click.Path(), help="Root of the table's file paths; by default its folder.")
@device_option
@json_option
def evaluate(source: str, table: str, files: str, device: str, as_json: bool) -> None:
    """Score all rows of another table with SOURCE; a row that cannot be read gets a verdict.

    SOURCE is a run id, runs:/…, models:/name@alias, or a weights file of a run.
    """
    _prepare()
    from .datasets.table import locate_table
    from .recipe import Data

    locate_table(Data(table=table))
    from .flows.evaluate import evaluate as evaluate_flow

    result = evaluate_flow(source=source, table=table, files=files, device=device or "auto")
    _tell_result(result, True, as_json)
    if as_json:
        _print_json(result)


@commands.command()
@click.argument("source")
@click.option("--table", required=True, type=click.Path(), help="CSV, TSV or Parquet file with the source's inputs.")
@click.option("--out", required=True, type=click.Path(), help="File to write: .csv, .tsv or .parquet.")
@click.option("--files", default="", type=click.Path(), help="Root of the table's file paths; by default its folder.")
@click.option("--prefix", default="", help="Before the names of the columns that are added.")
@device_option
@json_option
def predict(source: str, table: str, out: str, files: str, prefix: str, device: str, as_json: bool) -> None:
    """Write TABLE again, with a prediction or a verdict for every row.

    SOURCE is a run id, runs:/…, models:/name@alias, or a weights file of a run.
    """
    _prepare()
    from .datasets.output import locate_output
    from .datasets.table import locate_table
    from .recipe import Data

    locate_output(out, str(locate_table(Data(table=table))))
    from .flows.predict import predict as predict_flow

    result = predict_flow(source=source, table=table, out=out, files=files, device=device or "auto", prefix=prefix)
    if as_json:
        _print_json(result)
    lines = [
        f"run       {result['run_id']} (MLflow {result['mlflow_run_id'] or 'has it not yet'})",
        f"folder    {result['run_dir']}",
    ]
    verdicts = result["rows"] - result["rows_predicted"]
    if verdicts:
        what = "row" if verdicts == 1 else "rows"
        lines.append(f"verdicts  {verdicts:,} {what} could not be predicted; the column {prefix}verdict says why")
    for line in (*lines, f"{result['out']}: {result['rows_predicted']:,} of {result['rows']:,} rows predicted"):
        click.echo(line, err=as_json)


@commands.command()
@json_option
def runs(as_json: bool) -> None:
    """List the runs of this home, newest first; needs no server."""
    from .settings import home
    from .tracking.cursor import waiting
    from .tracking.records import list_records

    records = list_records(home())
    wait = {record.run_id: waiting(home().runs / record.run_id) for record in records}
    if as_json:
        _print_json({"runs": [{**_listed(record), "waiting": wait[record.run_id]} for record in records]})
        return
    if not records:
        _tell(f"no runs in {home().runs}; torchrelay train RECIPE makes one")
        return
    shown = {one.run_id: one for one in records}
    rows = [
        ("  " * (one is not top) + one.run_id, one.status, one.experiment, f"{one.steps:,}", _result(one))
        for top in records
        if top.parent not in shown
        for one in (top, *(below for below in reversed(records) if below.parent == top.run_id))
    ]
    _print_table(("run", "status", "experiment", "steps", "result"), rows)
    if left := [number for number in wait.values() if number]:
        _tell(f"waiting for MLflow: {_lines(sum(left))} of the journals of {_count(left)}; torchrelay sync sends them")


@commands.command()
@click.argument("run")
@json_option
def show(run: str, as_json: bool) -> None:
    """Show one run: status, metrics, where its files are."""
    from .settings import home
    from .tracking.cursor import waiting
    from .tracking.records import describe_run, find_run, list_children, load_record

    run_dir = find_run(home(), run)
    record = load_record(run_dir)
    values = {**describe_run(home(), record), "waiting": waiting(run_dir)}
    if as_json:
        _print_json(values)
        return
    for key, value in values.items():
        if key not in ("metrics", "splits", "runs") and value not in ("", {}, 0):
            click.echo(f"{key:<22}{value}")
    children = {child.split_column: child for child in list_children(home(), record)}
    for column in record.splits:
        child = children.get(column)
        said = f"{child.run_id}  {child.status}  {_result(child)}" if child else "not begun"
        click.echo(f"  {column:<20}{said}".rstrip())
    width = max([20, *(len(key) + 2 for key in record.metrics)])
    for key, number in sorted(record.metrics.items()):
        click.echo(f"  {key:<{width}}{number:.6g}")


@commands.command()
@click.argument("run")
@json_option
def checkpoints(run: str, as_json: bool) -> None:
    """List the checkpoints of a run and verify every byte of them; needs no server, changes nothing.

    Exit code 1 where one that is in use does not verify: the run would go on from the one before it.
    """
    from .settings import home
    from .tasks.checkpoints import has_damage, list_checkpoints

    found = list_checkpoints(home(), run)
    if as_json:
        _print_json({"checkpoints": [{**one._asdict(), "verified": not one.problem} for one in found]})
    elif not found:
        _tell(f"run {run} has no checkpoints")
    else:
        several = len({one.run_id for one in found}) > 1
        rows = [
            (
                f"{one.run_id}/{one.name}" if several else one.name,
                f"{one.step:,}",
                "" if one.epoch is None else f"{one.epoch:,}",
                f"{one.bytes:,}",
                one.created[:19].replace("T", " "),
                " ".join(mark for mark, holds in (("best", one.is_best), ("last", one.is_last)) if holds),
                ("set aside: " if one.is_set_aside else "") + (one.problem or "verified"),
            )
            for one in found
        ]
        _print_table(("checkpoint", "step", "epoch", "bytes", "written (UTC)", "", ""), rows)
    if has_damage(found):
        sys.exit(1)


@commands.command()
@json_option
def models(as_json: bool) -> None:
    """List the registered models with input shapes and parameter counts."""
    from .models.registry import describe_models

    found = describe_models()
    if as_json:
        _print_json({"models": [model._asdict() for model in found]})
        return
    rows = [
        (model.name, model.inputs, f"{model.num_parameters:,}" if model.num_parameters else "", _short(model.doc))
        for model in found
    ]
    _print_table(("model", "input", "parameters", ""), rows)


@commands.command()
@click.argument("recipe", required=False)
@set_option
@click.option("--schema", is_flag=True, help="Print the JSON Schema of recipes, so that editors complete them.")
@json_option
def recipe(recipe: str | None, items: tuple[str, ...], schema: bool, as_json: bool) -> None:
    """Print a recipe with all its defaults, checked."""
    from .recipe import dump_recipe, load_recipe, recipe_schema

    if schema:
        _print_json(recipe_schema())
        return
    resolved = load_recipe(recipe or "", None, _single(items))
    if as_json:
        _print_json(resolved.model_dump(by_alias=True))
    else:
        click.echo(dump_recipe(resolved), nl=False)


@commands.group()
def weights() -> None:
    """Look into weights, pack several models into one file, export one.

    SOURCE is a run id, runs:/…, models:/name@alias, or any weights file: a state_dict, a checkpoint, or safetensors,
    of whatever origin. Code in a file is never run.
    """


@weights.command("show")
@click.argument("source")
@json_option
def show_weights(source: str, as_json: bool) -> None:
    """Say what SOURCE holds: models, keys, shapes, dtypes, what else is in the file."""
    _prepare()
    from .tasks.weights import describe_source

    found = describe_source(source)
    if as_json:
        _print_json(found)
        return
    click.echo(f"file      {found['path']} ({found['file_bytes']:,} bytes)\nform      {_plainly(found['form'])}")
    for name, value in found["extras"].items():
        click.echo(f"value     {_plainly(name)} = {_short(_plainly(value))}")
    if found["others"]:
        click.echo(f"other     {', '.join(map(_plainly, found['others']))}")
    for name, model in found["models"].items():
        click.echo(f"\nmodel     {_plainly(name)}" if name else "")
        prefix = f", all keys begin with {_plainly(model['prefix'])}" if model["prefix"] else ""
        click.echo(
            f"{model['parameters']:,} parameters in {len(model['tensors'])} tensors, {model['bytes']:,} bytes{prefix}"
            f"{'; with its optimizer' if model['has_optimizer'] else ''}\nsha256    {model['sha256']}"
        )
        rows = [
            (_plainly(row["key"]), " x ".join(map(str, row["shape"])) or "one", row["dtype"])
            for row in model["tensors"]
        ]
        _print_table(("key", "shape", "dtype"), rows)


@weights.command("pack")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--out", required=True, type=click.Path(), help="File to write, .pt or .tar.")
@click.option("--name", "named", multiple=True, metavar="NAME=SOURCE", help="What to call the model of a SOURCE.")
@json_option
def pack_weights(sources: tuple[str, ...], out: str, named: tuple[str, ...], as_json: bool) -> None:
    """Write several models into one file, each with its optimizer's state where SOURCE has it."""
    names = {source: name for name, _, source in (item.partition("=") for item in named)}
    odd = [item for item in named if "=" not in item or item.partition("=")[2] not in sources or item[0] == "="]
    if odd:
        raise click.UsageError(f"--name {odd[0]}: expected NAME=SOURCE with one of {', '.join(sources)}")
    _prepare()
    from .tasks.weights import pack_sources

    parts = pack_sources(sources, names, Path(out))
    said = [
        {"name": part.name, "source": part.label, "tensors": len(part.state), "optimizer": part.optimizer is not None}
        for part in parts
    ]
    for part in said:
        _tell(f"{part['name']}: {part['source']}, {'with' if part['optimizer'] else 'without'} its optimizer's state")
    _tell(f"packed    {out}\nnext      torchrelay weights export {out} --model {parts[0].name} -o {parts[0].name}.pt")
    if as_json:
        _print_json({"path": str(Path(out).absolute()), "models": said})


@weights.command("export")
@click.argument("source")
@click.option("-o", "--out", required=True, type=click.Path(), help="File to write, .pt or .safetensors.")
@click.option("--model", default="", metavar="NAME", help="Which model of a file of several.")
@click.option("--strip-prefix", default="", metavar="TEXT", help="What to take off the beginning of every key.")
@click.option("--with-optimizer", is_flag=True, help="Write a checkpoint with the optimizer's state, to go on from.")
@json_option
def export_weights(source: str, out: str, model: str, strip_prefix: str, with_optimizer: bool, as_json: bool) -> None:
    """Write the state_dict of one model alone, for inference; the module. of DataParallel goes."""
    _prepare()
    from .tasks.weights import export_source

    part = export_source(source, Path(out), model, strip_prefix, with_optimizer=with_optimizer)
    _tell(f"exported  {out}: {len(part.state)} tensors of {part.label}\nnext      torchrelay weights show {out}")
    if as_json:
        values = {"source": part.label, "tensors": len(part.state), "optimizer": with_optimizer}
        _print_json({"path": str(Path(out).absolute()), **values})


@commands.command()
@click.option("--keep-runs", type=click.IntRange(min=0), metavar="N", help="The newest N runs stay.")
@click.option("--older-than", metavar="D", help="Runs without a sign of life for so long go: 30d, 12h, 90m, 2w.")
@click.option("--versions", is_flag=True, help="Delete registered versions without an alias too, with their runs.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@json_option
def prune(keep_runs: int | None, older_than: str | None, versions: bool, dry_run: bool, as_json: bool) -> None:
    """Free space: old runs here and in MLflow, then packs and pixels that nothing refers to.

    With both options a run goes where both say so. A run that is being written stays, and so does one with a
    registered version: always where that has an alias such as champion, else unless --versions is given.
    """
    if keep_runs is None and older_than is None:
        raise click.UsageError(
            "say what may go: --keep-runs N (all but the newest N), --older-than D (30d, 12h), or both: then a run "
            "goes that is not among the newest N and older than D; --dry-run shows it first"
        )
    _prepare()
    from .settings import home
    from .tasks.prune import parse_age
    from .tasks.prune import prune as prune_home

    age = parse_age(older_than) if older_than else None
    done = prune_home(home(), keep_runs=keep_runs, older_than=age, versions=versions, dry_run=dry_run)
    for run, reason in done.kept.items():
        _tell(f"kept      {run}: {reason}")
    for note in done.notes:
        _tell(f"note      {note}")
    if as_json:
        gone = [item._asdict() for item in done.gone]
        _print_json({"dry_run": dry_run, "gone": gone, "kept": done.kept, "notes": done.notes, "bytes": done.num_bytes})
        return
    if done.gone:
        _print_table(("what", "name", "bytes"), [(one.kind, one.name, f"{one.num_bytes:,}") for one in done.gone])
    would = "would free" if dry_run else "freed"
    click.echo(f"{would} {done.num_bytes / 1e6:,.1f} MB: {len(done.gone):,} things" if done.gone else "nothing to free")


@commands.command()
@click.argument("run", required=False)
@json_option
def sync(run: str | None, as_json: bool) -> None:
    """Send to MLflow what runs left in their journals while it did not answer; exit code 1 if something still waits."""
    _prepare()
    from .settings import home
    from .tracking.records import find_run
    from .tracking.shipper import sync_home

    results = []
    for done in sync_home(home(), [find_run(home(), run)] if run else None):
        results.append(done)
        _tell(f"{done.run_id}: {_lines(done.num_sent)} sent" + (f", {done.num_waiting:,} wait" * bool(done.reason)))
        for name, number in done.registered:
            _tell(f"registered: {name} version {number}")
        if done.reason:
            _tell(f"  {done.reason}")
    if not results:
        _tell("nothing waits")
    if as_json:
        _print_json({"runs": [_describe_shipped(done) for done in results]})
    if any(done.num_waiting for done in results):
        sys.exit(1)


@commands.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended, and say each thing that was done.")
@json_option
def doctor(fix: bool, as_json: bool) -> None:
    """Find what lost processes left, here, in MLflow and in Prefect, and what is wrong with the installation.

    Exit code 0: nothing is wrong, or all was mended; 1: something is left. Runs that a process writes stay as they are.
    """
    _prepare()
    from .settings import home
    from .tasks.doctor import doctor as examine_home
    from .tasks.installation import describe_installation

    facts = describe_installation(home())
    for line in facts:
        _tell(line)
    left, mended = examine_home(home(), fix=fix)
    if as_json:
        found = [{"part": one.part, "what": one.what, "remedy": one.remedy, "mends": bool(one.mend)} for one in left]
        _print_json({"facts": facts, "findings": found, "mended": mended})
    else:
        for line in mended:
            click.echo(f"mended     {line}")
        for part in dict.fromkeys(one.part for one in left):
            click.echo(part)
            for one in left:
                if one.part == part:
                    click.echo(f"  {one.what}; {one.remedy}")
        click.echo(f"{len(left):,} findings" if len(left) > 1 else "1 finding" if left else "nothing is wrong")
    if left:
        sys.exit(1)


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, help="Port to listen on; by default 5000, or the next free one.")
def ui(host: str, port: int) -> None:
    """Open MLflow's UI on this home: compare runs, curves, artifacts. Ctrl-C ends it."""
    _prepare()
    from .tracking.ui import serve_ui

    serve_ui(host, port)


def _prepare() -> None:
    """Point the libraries at the home, and keep Prefect's own progress lines off the terminal."""
    from .settings import home, set_environment

    set_environment()
    home().root.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")


def _check(several: list[dict[str, Any]], recipe: str) -> None:
    """Both phases of checking for each set of overrides, before Prefect starts a server."""
    from .recipe import load_recipe

    recipes = [load_recipe(recipe, None, overrides) for overrides in several]
    _prepare()
    from .tasks.preflight import check_recipe

    for resolved in recipes:
        check_recipe(resolved)


def _single(items: tuple[str, ...]) -> dict[str, Any]:
    from .recipe import parse_overrides

    several = parse_overrides(items)
    if len(several) > 1:
        raise click.UsageError("several values of one --set are for torchrelay train")
    return several[0]


def _copy_recipes(name: str) -> list[Path]:
    """The shipped recipes that read a data set, in the working directory; copied there from the package if missing."""
    from importlib.resources import files

    paths = []
    for shipped in sorted(files("torchrelay.recipes").iterdir(), key=lambda one: one.name):
        if not shipped.name.endswith(".yaml") or f"../data/{name}/" not in shipped.read_text("utf-8"):
            continue
        path = Path("recipes") / shipped.name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(shipped.read_text("utf-8"), "utf-8")
        paths.append(path)
    return paths


def _run_several(
    several: list[dict[str, Any]], as_json: bool, start: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """A run for each set of overrides, and what came of it; of several, one that fails stops no other."""
    results = []
    for overrides in several:
        if len(several) > 1:
            _tell("with " + ", ".join(f"{key}={value}" for key, value in overrides.items()))
        try:
            results.append(start(overrides))
        except TorchrelayError as error:
            if len(several) == 1:
                raise
            _tell(f"error: {error}")
            continue
        _tell_result(results[-1], overrides is several[-1], as_json)
    if as_json:
        _print_json(results[0] if len(several) == 1 else {"runs": results})
    if len(results) < len(several):
        _tell(f"{len(several) - len(results)} of {len(several)} runs failed")
        sys.exit(1)


def _try_recipes(recipes: list[Recipe], next_line: str, as_json: bool) -> None:
    """A dry run of each recipe, and what it found."""
    _prepare()
    from .tasks.dry_run import dry_run

    results = []
    for resolved in recipes:
        results.append(dry_run(resolved))
        for line in (*_describe_dry_run(results[-1]), next_line):
            click.echo(line, err=as_json)
    _tell("dry run: nothing is wrong; no run was written")
    if as_json:
        _print_json(results[0] if len(recipes) == 1 else {"runs": results})


def _describe_dry_run(found: dict[str, Any]) -> list[str]:
    seconds, num_epochs = found["seconds"], found["epochs"]
    epochs = f"{num_epochs} epoch{'' if num_epochs == 1 else 's'}"
    rows = [
        f"rows      {', '.join(f'{count:,} {split}' for split, count in counts.items())}{column and f' by {column}'}"
        for column, counts in found.get("splits", {"": found["rows"]}).items()
    ]
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


def _tell_result(result: dict[str, Any], last: bool, as_json: bool) -> None:
    """Where the run is, what one does next, and, as the very last line, the result."""
    run_id = result["run_id"]
    lines = [
        f"run       {run_id} (MLflow {result['mlflow_run_id'] or 'has it not yet'})",
        f"folder    {result['run_dir']}",
    ]
    if last:
        table = "" if result["kind"] != "train" else f"torchrelay evaluate {run_id} --table TABLE · "
        lines.append(f"next      torchrelay show {run_id} · {table}torchrelay ui")
    if interval := _interval(result["metrics"]):
        lines.append(interval)
    for line in (*lines, _headline(result["metrics"], len(result["splits"]))):
        click.echo(line, err=as_json)


def _run_line(result: dict[str, Any]) -> str:
    return f"run       {result['run_id']} (MLflow {result['mlflow_run_id'] or 'does not have it yet'})"


def _count(runs: list[int]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs):,} runs"


def _lines(number: int) -> str:
    return f"{number:,} line{'' if number == 1 else 's'}"


def _describe_shipped(done: Shipped) -> dict[str, Any]:
    registered = [one._asdict() for one in done.registered]
    return {
        "run_id": done.run_id,
        "mlflow_run_id": done.mlflow_run_id,
        "sent": done.num_sent,
        "waiting": done.num_waiting,
        "reason": done.reason,
        "registered": registered,
    }


def _result(record: RunRecord) -> str:
    return _headline(record.metrics, len(record.splits))


def _headline(metrics: dict[str, float], num_splits: int = 0) -> str:
    """The metric that one looks at first, for example `test accuracy 0.9833`; over splits with its deviation."""
    for split in ("test", "valid"):
        for name, digits in HEADLINES.items():
            if f"{split}/{name}" in metrics:
                value, deviation = metrics[f"{split}/{name}"], metrics.get(f"{split}/{name}_std")
                return f"{split} {name} {_number(value, deviation, digits)}{_over(num_splits)}"
    if "train/epoch_loss" in metrics:
        return f"train loss {metrics['train/epoch_loss']:.4g}{_over(num_splits)}"
    return ""


def _number(value: float, deviation: float | None, form: str) -> str:
    """A number; where it has a deviation, both to the second digit of that."""
    if deviation is None or not math.isfinite(deviation):
        return f"{value:{form}}"
    if deviation == 0:
        return f"{value:{form}} ± 0"
    digits = min(max(0, 1 - math.floor(math.log10(deviation))), 8)
    return f"{value:.{digits}f} ± {deviation:.{digits}f}"


def _over(num_splits: int) -> str:
    return f" (mean of {num_splits} split{'s' * (num_splits > 1)})" if num_splits else ""


def _interval(metrics: dict[str, float]) -> str:
    """Between what the headline would lie on other rows like these, and, for points, what a guess would give."""
    for name, digits in HEADLINES.items():
        low, high = (metrics.get(f"test/{name}_{end}") for end in ("low", "high"))
        if low is not None and high is not None:
            baseline = metrics.get("test/mean_shape_nme")
            guess = f"; the mean shape has {baseline:{digits}}" if baseline is not None else ""
            return f"interval  {low:{digits}} to {high:{digits}} (95 %, over the test rows){guess}"
    return ""


def _listed(record: RunRecord) -> dict[str, Any]:
    return {**record.model_dump(exclude={"steps"}), "step": record.steps}


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _short(text: str) -> str:
    return textwrap.shorten(text, 80, placeholder=" …")


def _plainly(value: object) -> str:
    """A name or value out of somebody's file, without the control characters that a terminal would obey."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(_finite(value), ensure_ascii=False, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with null for NaN and the infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tell(text: str) -> None:
    click.echo(text, err=True)
