"""Commands to begin with, which make a data set, a recipe or a pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import (
    check,
    commands,
    dialect_options,
    json_option,
    prepare,
    print_json,
    recheck_option,
    set_option,
    single,
    tell,
)


@commands.command()
@click.argument("table", required=False, type=click.Path())
@click.option("--force", is_flag=True, help="Overwrite an existing recipe.")
@click.option(
    "--files",
    default="",
    type=click.Path(),
    help="Folder where the table's file paths start; found by default.",
)
@click.option("--target", default="", metavar="COLUMN", help="Column to learn; guessed by default.")
@click.option(
    "--out",
    default="",
    metavar="FILE",
    type=click.Path(),
    help="Recipe to write; by default beside TABLE.",
)
@dialect_options
@json_option
def init(
    table: str | None,
    force: bool,
    files: str,
    target: str,
    out: str,
    dialect: dict[str, Any],
    as_json: bool,
) -> None:
    """Write a recipe for a table, with its reasons.

    The recipe trains as it is. Without TABLE, the command explains itself.
    """
    if not table:
        from ..drafting import EXPLANATION

        click.echo(EXPLANATION, nl=False)
        return
    prepare()
    from ..datasets.table import locate_table
    from ..drafting import describe_draft, init_recipe
    from ..drafting.survey import NAMED_BY
    from ..recipe import Data

    locate_table(
        Data(table=table), NAMED_BY
    )  # as it was typed: a Path would make another URL of a URL
    place = Path(out) if out else None
    path, draft = init_recipe(
        Path(table),
        files=Path(files) if files else None,
        target=target,
        force=force,
        out=place,
        dialect=dialect,
    )
    guesses = describe_draft(draft)
    for part, text in guesses:
        tell(f"{part:<10}{text}")
    tell(f"recipe    {path}\nnext      torchrelay train {path}")
    if as_json:
        said = [{"part": part, "guess": text} for part, text in guesses]
        names = {"inputs": list(draft.inputs), "target": list(draft.target)}
        print_json(
            {
                "recipe": str(path.absolute()),
                "rows": draft.survey.num_rows,
                **names,
                "guesses": said,
            }
        )


@commands.command()
@click.argument("name", required=False)
@click.option(
    "--from",
    "source",
    type=click.Path(),
    help="Take tables and image archives from this folder, not from the network.",
)
@json_option
def fetch(name: str | None, source: str | None, as_json: bool) -> None:
    """Place a known data set as data/NAME/.

    A data set is a table with its files. digits comes with scikit-learn; cifar10 is downloaded.

    faces, languages, uci and wn18rr cannot be downloaded in this form; --from DIR takes them from a
    folder that holds faces/, languages/, uci/ or wn18rr/. Recipes that read them are written into
    recipes/ unless they are there.
    """
    from ..console import Progress
    from ..datasets import fetch as fetch_data
    from ..datasets import place

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
        tell(f"{one.table}: {one.rows:,} rows")
    for path in recipes:
        tell(f"next: torchrelay train {path}")
    if as_json:
        print_json(
            {"fetched": [{"table": str(one.table.absolute()), "rows": one.rows} for one in fetched]}
        )


@commands.command()
@click.argument("recipe")
@set_option
@recheck_option
@json_option
def ingest(recipe: str, items: tuple[str, ...], recheck: bool, as_json: bool) -> None:
    """Turn the recipe's table into a pack.

    Judges every row, decodes the images, and writes the data report.
    """
    overrides = single(items)
    check([overrides], recipe)
    from ..flows import ingest as ingest_flow

    result = ingest_flow(recipe_file=recipe, overrides=overrides, recheck=recheck)
    tell(
        f"pack      {result['pack_dir']}\nreport    {result['report_csv']}\nfigure    "
        f"{result['figure']}"
    )
    tell(f"next      torchrelay train {recipe}")
    if as_json:
        print_json(result)


def _copy_recipes(name: str) -> list[Path]:
    """Copy the shipped recipes of a data set into the working directory.

    A recipe that is there stays as it is.
    """
    from importlib.resources import files

    paths = []
    for shipped in sorted(files("torchrelay.recipes").iterdir(), key=lambda one: one.name):
        if not shipped.name.endswith(".yaml") or f"../data/{name}/" not in shipped.read_text(
            "utf-8"
        ):
            continue
        path = Path("recipes") / shipped.name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(shipped.read_text("utf-8"), "utf-8")
        paths.append(path)
    return paths
