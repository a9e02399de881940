"""What all commands share, such as the group, options and printing."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import click

from .. import __version__
from ..addresses import hide_in_values, hide_secrets, may_carry_secrets

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)
set_option = click.option(
    "--set",
    "items",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the recipe; may be repeated.",
)
trust_option = click.option(
    "--trust-code",
    "trust_code",
    multiple=True,
    metavar="MODULE",
    help="Module that SOURCE's recipe may import; may be repeated.",
)
device_option = click.option(
    "--device",
    default="",
    metavar="D",
    help="Device to compute on: auto, cpu, cuda, cuda:1 or mps.",
)

recheck_option = click.option(
    "--recheck", is_flag=True, help="Read all files again, even those that seem unchanged."
)


# Each is a setting of the recipe's `data` of the same name.
_DIALECT_OPTIONS = (
    click.option("--encoding", metavar="NAME", help="Encoding of a text table."),
    click.option(
        "--delimiter",
        metavar="SIGN",
        help=r"Sign between the fields of a text table; \t is a tab.",
    ),
    click.option(
        "--skip-lines",
        type=click.IntRange(min=0),
        metavar="N",
        help="Lines above the header.",
    ),
    click.option(
        "--skip-spaces/--keep-spaces",
        default=None,
        help="Whether to ignore spaces after a delimiter.",
    ),
    click.option(
        "--escape", metavar="SIGN", help=r"Sign before a quote within a cell: \ or nothing."
    ),
    click.option("--decimal", type=click.Choice([".", ","]), help="Decimal sign of numbers."),
    click.option(
        "--thousands", type=click.Choice(["", ",", ".", " ", "'"]), help="Sign between thousands."
    ),
    click.option(
        "--units",
        multiple=True,
        metavar="SIGN",
        help="Unit beside numbers, such as $; may be repeated.",
    ),
)
_DIALECT = (
    "encoding",
    "delimiter",
    "skip_lines",
    "skip_spaces",
    "escape",
    "decimal",
    "thousands",
    "units",
)


def dialect_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how a table is written.

    The command gets those that are given as `dialect`, by their names.
    """

    @functools.wraps(command)
    def with_dialect(**arguments: Any) -> None:
        given = {key: arguments.pop(key) for key in _DIALECT}
        dialect = {key: value for key, value in given.items() if value not in (None, ())}
        if "units" in dialect:
            dialect["units"] = list(dialect["units"])
        if dialect.get("delimiter") == r"\t":
            dialect["delimiter"] = "\t"
        command(dialect=dialect, **arguments)

    return functools.reduce(
        lambda wrapped, option: option(wrapped), reversed(_DIALECT_OPTIONS), with_dialect
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="torchrelay")
def commands() -> None:
    """Train PyTorch models on growing tables, evaluated and tracked.

    Start: torchrelay fetch digits, then torchrelay train recipes/digits.yaml
    """


def prepare() -> None:
    """Point the libraries at the home, and hide Prefect's progress lines."""
    from ..errors import HomeError
    from ..settings import home, make_home, set_environment

    set_environment()
    try:
        make_home()
    except OSError as error:
        raise HomeError.of(home().root, error) from error
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")


def require_servers() -> None:
    """Refuse to run a flow without enough files, room, or a Prefect server."""
    from ..settings import prefect_is_embedded
    from ..tasks.services import require_files, require_room

    require_files()
    require_room()

    if not prefect_is_embedded():
        from ..tasks.services import require_prefect as ask

        ask()


def check(several: list[dict[str, Any]], recipe: str) -> None:
    """Check each set of overrides in both phases, before Prefect starts."""
    from ..recipe import load_recipe

    recipes = [load_recipe(recipe, None, overrides) for overrides in several]
    prepare()
    require_servers()
    from ..tasks.assembly import check_recipe

    for resolved in recipes:
        check_recipe(resolved)


def single(items: tuple[str, ...]) -> dict[str, Any]:
    """The overrides of a command that makes one run only.

    Raises:
        click.UsageError: a key has several values.
    """
    from ..recipe import parse_overrides

    several = parse_overrides(items)
    if len(several) > 1:
        raise click.UsageError("several values of one --set are for torchrelay train")
    return several[0]


def echo(text: str, err: bool = False) -> None:
    """Print text without the secrets of addresses.

    On standard output, or standard error.
    """
    click.echo(hide_secrets(text), err=err)


def tell(text: str) -> None:
    """Print text for people on standard error."""
    echo(text, err=True)


def print_json(value: Any) -> None:
    """Print one JSON object, without secrets, on standard output."""
    text = _dump(value)
    click.echo(_dump(hide_in_values(json.loads(text))) if may_carry_secrets(text) else text)


def _dump(value: Any) -> str:
    is_ascii = sys.stdout.encoding.lower() not in (
        "utf-8",
        "utf8",
    )  # an escape of another kind would be no JSON
    return json.dumps(_finite(value), ensure_ascii=is_ascii, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """Replace NaN and the infinities, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as they need, on standard output."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in [header, *rows]
    )
    echo("\n".join(line.rstrip() for line in lines))


def short(text: str) -> str:
    """At most 80 characters of a text."""
    return textwrap.shorten(text, 80, placeholder=" …")


def plainly(value: object) -> str:
    """A name or value of somebody's file, safe to print.

    Control characters, which a terminal would obey, are escaped.
    """
    text = str(value)
    return text if text.isprintable() else repr(text)
