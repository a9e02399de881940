"""How a run begins.

Its recipe is resolved, its folder filled, its journal opened.

How a run goes on is in `reopen.py`, how it ends in `ending.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from ..console import say
from ..datasets import QUARANTINE
from ..disk import write_atomic
from ..engine.hardware import pick_device, pick_precision
from ..errors import RecipeError
from ..faults import reach
from ..recipe import Recipe, dump_recipe, load_recipe
from ..runs import (
    FIGURES,
    RECIPE_FILE,
    RECORD_FILE,
    SCHEMA_FILE,
    TRANSFER_FILE,
    WEIGHTS,
    Run,
    RunRecord,
    digests_of,
    git_commit,
    give_room,
    hold_of,
    journal_opening,
    keep_room,
    new_run_id,
    now,
    save_record,
    watch_folder,
)
from ..schema import Schema
from ..settings import home
from ..tracking.shipping import start_shipping, stop_shipping
from .assembly import (
    Start,
    admit_code,
    check_recipe,
    check_validation,
    has_images,
    keep_start,
    pin_source,
    plan_start,
    recipe_of,
    trusted_by_word,
    try_early,
    try_ingested,
    view_of,
    vouch,
    warn_unused_settings,
)
from .ingest import Ingested, draw_report
from .options import UNCACHED
from .services import flow_run_id, flow_run_url


@task(**UNCACHED)
def resolve_recipe(recipe: Recipe, recipe_file: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of file, fields and overrides, checked before anything
    expensive starts.

    Raises:
        RecipeError: something in it is not legal or does not exist.
        SourceError: the source of its warm start cannot be had.
        DataError: its table cannot be read or lacks columns, or has other inputs than the source.
    """
    resolved = load_recipe(recipe_file, recipe, overrides)
    check_recipe(resolved)
    try_early(resolved)
    return pin_source(resolved)


@task(**UNCACHED)
def resolve_finetune(
    recipe: Recipe,
    recipe_file: str,
    overrides: Mapping[str, Any],
    source: str,
    trust_code: Sequence[str] = (),
) -> Recipe:
    """The recipe of a finetuning, checked.

    Where neither file nor fields are given, the source's own.

    Raises:
        RecipeError: something in it is not legal or does not exist, or it names no source.
        SourceError: the source cannot be had.
        DataError: its table cannot be read or lacks columns, or has other inputs than the source.
    """
    resolved = recipe_for_finetune(recipe, recipe_file, overrides, source, trust_code)
    check_recipe(resolved)
    try_early(resolved)
    return pin_source(resolved)


def over_data(overrides: Mapping[str, Any], dialect: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides of a recipe, and over them the settings of its table's
    dialect by their last names.
    """
    return {**overrides, **{f"data.{key}": value for key, value in dialect.items()}}


def recipe_for_finetune(
    recipe: Recipe,
    recipe_file: str,
    overrides: Mapping[str, Any],
    source: str,
    trust_code: Sequence[str] = (),
) -> Recipe:
    """The recipe that file, fields, overrides and a source make.

    Args:
        recipe: fields that go over the file's.
        recipe_file: empty, where the fields name no table either, means the recipe that the source
            was trained by, without the warm start that it may have had itself.
        overrides: dotted keys that go over both.
        source: goes over all three; empty means the one that they name.
        trust_code: modules that may be imported where the recipe is the source's own.
    Raises:
        RecipeError: something is not legal, or no source is named.
        SourceError: the source does not exist.
    """
    over = dict(overrides)
    if source:
        over["warm_start.source"] = source
    if not recipe_file and not recipe.data.table:
        named = source or str(over.get("warm_start.source", "")) or recipe.warm_start.source
        if named:
            own = recipe.warm_start.model_dump(exclude_unset=True)
            recipe_file, over = str(recipe_of(named)), {"warm_start": own, **over}
            if not recipe.model.name and over.keys().isdisjoint(("model", "model.name")):
                folder = Path(recipe_file).parent
                admit_code(load_recipe(recipe_file), folder, named, trust_code)
    resolved = load_recipe(recipe_file, recipe, over)
    if not resolved.warm_start.source:
        raise RecipeError(
            "warm_start.source is missing: a finetuning begins from the weights of a run, a "
            "registered model or a "
            "file, for example torchrelay finetune RECIPE --from models:/digits@champion"
        )
    return resolved


def name_run(recipe: Recipe) -> Path:
    """Where the folder of a new run will be."""
    return home().runs / new_run_id(recipe.name)


@task(**UNCACHED)
def start_run(
    folder: Path,
    recipe: Recipe,
    ingested: Ingested,
    recipe_file: str,
    trust_code: Sequence[str] = (),
) -> None:
    """Open a new run.

    Its folder with recipe and schema, its journal with all that is known before training.

    Hold the run first. Where the recipe's split is a pattern of columns, it is the parent of one
    run for each of them (`splits.py`).

    Raises:
        RecipeError: a setting needs validation rows and there are none, a batch is too small for
            the model, or a pattern of the warm start fits no key.
        SourceError: the weights of a warm start do not fit.
    """
    reach("run.begun")
    data = ingested.first
    for one in ingested.splits.values():
        check_validation(recipe, one.rows["valid"])
    try_ingested(recipe, ingested.splits)
    warn_unused_settings(recipe)
    schema = Schema.load(data.split_dir / SCHEMA_FILE)
    start = plan_start(recipe, schema)
    if ingested.several:
        if recipe.tracking.register_as:
            say(
                "warning: tracking.register: without effect, because runs over several splits "
                "measure the recipe; "
                "train with data.split.column at one of them to register a model"
            )
        own: dict[str, Any] = {
            "kind": "splits",
            "splits": {column: str(one.split_dir) for column, one in ingested.splits.items()},
        }
        rows = {"table": max(sum(one.rows.values()) for one in ingested.splits.values())}
    else:
        own, rows = {"split_dir": str(data.split_dir)}, data.rows
    record = new_record(
        recipe,
        folder.name,
        schedule_epochs=recipe.train.epochs,
        seconds={"ingest": round(ingested.seconds, 3)},
        recipe_file=str(Path(recipe_file).absolute()) if recipe_file else "",
        pack_dir=str(data.pack_dir),
        fingerprint=data.fingerprint,
        **describe_source(start),
        **own,
    )
    vouch(folder.name, recipe, trust_code)
    # The runs over several splits begin each with weights of their own; here they were tried on the
    # first.
    open_run(record, recipe, schema, rows, None if ingested.several else start)


def describe_source(start: Start | None) -> dict[str, str]:
    """What a record says of the weights that a run begins with."""
    return (
        {}
        if start is None
        else {"source": start.source.label, "source_sha256": start.source_sha256}
    )


def new_record(recipe: Recipe, run_id: str, **fields: Any) -> RunRecord:
    """The record of a run that begins now, here and in this flow run."""
    device = pick_device(recipe.train.device)
    values: dict[str, Any] = {
        "run_id": run_id,
        "name": recipe.name,
        "experiment": recipe.experiment,
        "created": now(),
        "device": str(device),
        "precision": pick_precision(recipe.train.precision, device, has_images(recipe)).name,
        "git_commit": git_commit(Path.cwd()),
        "prefect_flow_run_id": flow_run_id(),
        "prefect_flow_run_url": flow_run_url(),
    }
    return RunRecord(**{**values, **fields})


@contextlib.contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Be the one writer of a run.

    What sends its journal to MLflow once it is open ends with the block.

    Raises:
        BusyError: another process is; names its pid and host.
    """
    run = Run(folder)
    with run.lock() as file, watch_folder(run, file):
        keep_room(run)
        try:
            yield
        finally:
            stop_shipping(run)
            hold = hold_of(run)
            if hold is not None and not hold.why_lost():  # else what lies there is another's
                give_room(run)


def open_run(
    record: RunRecord,
    recipe: Recipe,
    schema: Schema,
    rows: Mapping[str, int],
    start: Start | None = None,
) -> Path:
    """Fill the folder of a run, with a journal that opens the MLflow run.

    Hold the run first, within `keep_status`, which removes the folder where this fails. The record
    is the last of the files: without it the folder is no run, whenever we die.

    Args:
        record: one with a parent becomes a child of the parent's MLflow run.
        recipe: what is run.
        schema: of its data.
        rows: rows of each split, by its name.
        start: weights that a warm-started run begins with; they go into its folder.
    Raises:
        TrackingError: the journal cannot be written.
    """
    record = record.model_copy(
        update={"trust_code": trusted_by_word(record.parent or record.run_id)}
    )
    run = Run(home().runs / record.run_id, record)
    folder = run.folder
    try:
        write_atomic(folder / RECIPE_FILE, dump_recipe(recipe))
        reach("run.recipe_written")
        schema.save(folder / SCHEMA_FILE)
        if start is not None:
            keep_start(run, start)
        if record.split_dir:
            write_atomic(
                folder / FIGURES / "data.png", draw_report(Path(record.split_dir)).read_bytes()
            )
        with run.journal:
            journal_run(run, recipe, schema, rows)
        files = digests_of(folder, (RECIPE_FILE, SCHEMA_FILE, TRANSFER_FILE, WEIGHTS))
        save_record(home(), record.model_copy(update={"files": files}))
        reach("run.recorded")
    except BaseException:
        (folder / RECORD_FILE).unlink(
            missing_ok=True
        )  # `keep_status` removes a folder that is no run
        raise
    start_shipping(run)
    reach("run.opened")
    say(f"run: {record.run_id} in {folder}")
    return folder


def journal_run(
    run: Run,
    recipe: Recipe,
    schema: Schema | None = None,
    rows: Mapping[str, int] | None = None,
) -> None:
    """Journal a run's beginning, and the files that it has from there.

    A run that died before it has its schema.
    """
    journal, record, folder = run.journal, run.record, run.folder
    if rows is None:
        view = view_of(run) if record.split_dir else None
        rows = {} if view is None else {name: len(some) for name, some in view.rows.items()}
    with journal.together():
        journal_opening(journal, record, recipe, schema or run.schema, rows)
        for name in (RECIPE_FILE, SCHEMA_FILE, TRANSFER_FILE):
            if (folder / name).exists():
                journal.append_artifact(folder / name)
        for name in ("report.json", "data_report.csv", QUARANTINE) if record.split_dir else ():
            journal.append_artifact(Path(record.split_dir) / name, "data")
        if (folder / FIGURES).is_dir():
            journal.append_artifact(folder / FIGURES, FIGURES)
