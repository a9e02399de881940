"""Commands that keep a home in order."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from .common import commands, echo, json_option, prepare, print_json, print_table, tell
from .results import count_lines

if TYPE_CHECKING:
    from ..tracking.shipping import Shipped


@commands.command()
@click.argument("run", required=False)
@json_option
def sync(run: str | None, as_json: bool) -> None:
    """Send to MLflow what is left in the journals of runs.

    Exit code 1 if something still waits.

    If the database in the home is lost or damaged, sync makes a new one and sends all its runs
    again, with their registered versions.
    """
    prepare()
    from ..runs import Run, find_run
    from ..settings import home, shown_tracking_uri
    from ..tracking import recover
    from ..tracking.shipping import sync_home

    results = []
    chosen = [Run(find_run(home(), run))] if run else None
    for said in recover(home()):
        tell(said)
    for done in sync_home(home(), chosen):
        results.append(done)
        tell(
            f"{done.run_id}: {count_lines(done.num_sent)} sent"
            + (f", {done.num_waiting:,} wait" * bool(done.reason))
        )
        for name, number in done.registered:
            tell(f"registered: {name} version {number}")
        if done.reason:
            tell(f"  {done.reason}")
        if done.aside:
            tell(f"  MLflow does not take {done.aside}")
    tell(f"tracker: {shown_tracking_uri()}" if results else "nothing waits")
    if as_json:
        print_json({"runs": [_describe_shipped(done) for done in results]})
    if any(done.num_waiting for done in results):
        sys.exit(1)


def _describe_shipped(done: Shipped) -> dict[str, Any]:
    registered = [one._asdict() for one in done.registered]
    return {
        "run_id": done.run_id,
        "mlflow_run_id": done.mlflow_run_id,
        "sent": done.num_sent,
        "waiting": done.num_waiting,
        "reason": done.reason,
        "set_aside": done.aside,
        "registered": registered,
    }


@commands.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended, and say what was done.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Host that no longer exists, such as a replaced container; runs that it wrote last are "
    "taken for lost. May be repeated.",
)
@json_option
def doctor(fix: bool, hosts: tuple[str, ...], as_json: bool) -> None:
    """Find what lost processes left and what is broken.

    Looks at this home, MLflow, Prefect and the installation. Leaves a run alone while a process
    writes it.

    Exit code 0: nothing is wrong, or everything was mended; 1: something is left.
    """
    prepare()
    from ..settings import home
    from ..upkeep import describe_devices, describe_installation, last_hosts
    from ..upkeep import doctor as examine_home

    facts = describe_installation(home())
    for line in facts:
        tell(line)
    for name in sorted(set(hosts) - last_hosts(home())) if hosts else ():
        tell(f"warning: --host {name} has no effect: no run here was last on a host of that name")
    say = tell if as_json else echo
    left, mended = examine_home(
        home(), fix=fix, gone_hosts=hosts, tell=lambda line: say(f"mended     {line}")
    )
    facts.append(describe_devices())
    tell(facts[-1])
    if as_json:
        found = [
            {"part": one.part, "what": one.what, "remedy": one.remedy, "mends": bool(one.mend)}
            for one in left
        ]
        print_json({"facts": facts, "findings": found, "mended": mended})
    else:
        for part in dict.fromkeys(one.part for one in left):
            echo(part)
            for one in left:
                if one.part == part:
                    echo(f"  {one.what}; {one.remedy}")
        echo(
            f"{len(left):,} findings"
            if len(left) > 1
            else "1 finding"
            if left
            else "nothing is wrong"
        )
    if left:
        sys.exit(1)


@commands.command()
@click.option(
    "--keep-runs", type=click.IntRange(min=0), metavar="N", help="Keep the newest N runs."
)
@click.option(
    "--older-than",
    metavar="D",
    help="Remove runs whose last sign of life is older: 30d, 12h, 90m, 2w.",
)
@click.option(
    "--versions",
    is_flag=True,
    help="Also delete registered versions without an alias, with their runs.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@json_option
def prune(
    keep_runs: int | None, older_than: str | None, versions: bool, dry_run: bool, as_json: bool
) -> None:
    """Free space by removing old runs and unused data.

    Removes runs here and in MLflow, then packs and pixels that nothing needs. With both --keep-runs
    and --older-than, a run is removed only if both say so. A run that is being written stays. So
    does a run with a registered version that has an alias such as champion; a version without an
    alias keeps its run unless --versions is given.
    """
    if keep_runs is None and older_than is None:
        raise click.UsageError(
            "say what may go: --keep-runs N (all but the newest N), --older-than D (30d, 12h), or "
            "both: then a run "
            "goes that is not among the newest N and older than D; --dry-run shows it first"
        )
    prepare()
    from ..settings import home
    from ..upkeep import parse_age
    from ..upkeep import prune as prune_home

    age = parse_age(older_than) if older_than else None
    done = prune_home(
        home(), keep_runs=keep_runs, older_than=age, versions=versions, dry_run=dry_run
    )
    for run, reason in done.kept.items():
        tell(f"kept      {run}: {reason}")
    for note in done.notes:
        tell(f"note      {note}")
    if as_json:
        gone = [item._asdict() for item in done.gone]
        print_json(
            {
                "dry_run": dry_run,
                "gone": gone,
                "kept": done.kept,
                "notes": done.notes,
                "bytes": done.num_bytes,
            }
        )
        return
    if done.gone:
        print_table(
            ("what", "name", "bytes"),
            [(one.kind, one.name, f"{one.num_bytes:,}") for one in done.gone],
        )
    would = "would free" if dry_run else "freed"
    echo(
        f"{would} {done.num_bytes / 1e6:,.1f} MB: {len(done.gone):,} things"
        if done.gone
        else "nothing to free"
    )
