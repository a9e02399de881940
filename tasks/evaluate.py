"""The evaluation task.

The best weights on the test rows, as metrics, tables, predictions and figures to look at.
"""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from prefect import task

from .. import figures
from ..console import say
from ..datasets.pack import read_keys
from ..disk import write_atomic
from ..engine import Evaluation, Scorer, evaluate, reduction_of
from ..engine.metrics import auto_monitor, compute_metrics, headline_interval, monitor_mode, unit_of
from ..faults import reach
from ..models.nets import KnowledgeGraphModel
from ..runs import (
    BEST,
    FIGURES,
    PREDICTIONS_FILE,
    TABLES,
    Recorder,
    Run,
    check_folder,
    checked,
    points_of,
    rewriting,
    thin,
)
from ..weights import load_into, load_weights
from .assembly import (
    build_scorer,
    choose_monitor,
    facts_of_source,
    names_of_run,
    naming_table_rows,
    rows_in_order,
    rows_scale,
    share_cores,
    summary_of,
    view_of,
)
from .options import UNCACHED
from .results import (
    draw_evaluation,
    images_as_stored,
    tabulate,
    tabulate_ranks,
    write_neighbours,
    write_ranked,
    write_tables,
    write_words,
)

MIXING = frozenset({"mixup", "cutmix"})
# Arguments of models that make their training loss another than the one that evaluations report.
OWN_LOSS = ("n3", "negatives")


@task(**UNCACHED)
def evaluate_model(folder: Path) -> None:
    """Score the test rows with the run's best weights.

    Writes metrics, `predictions.parquet`, `tables/` and `figures/` into the run's folder; MLflow
    gets them too. A table without test rows gets the figures of its training alone. Nothing of it
    is done again where it is done.

    Raises:
        SourceError: the weights do not fit the model that the recipe builds.
        TrainingError: the model's outputs are not finite; names the rows.
    """
    started = time.perf_counter()
    reach("evaluate.begun")
    run = Run.open(folder)
    record = run.record
    if "evaluate" in record.done:
        say("evaluate: done")
        return
    view = view_of(run)
    with rewriting(run, PREDICTIONS_FILE, TABLES), run.journal as journal:
        recorder = Recorder(journal, thin(0, 1), names_of_run(journal, view.schema))
        metrics: dict[str, float] = {}
        if len(view.rows["test"]):
            with naming_table_rows(view):
                found, precision = score_rows(run)
            run.update(precision=precision)
            reach("evaluate.scored")
            metrics = _write_results(run, found, rows_scale(view, found.rows.numpy()))
            metrics = recorder.named(metrics)
            recorder.log_epoch(record.steps, record.epochs, metrics)
            recorder.log_artifacts(run.folder / PREDICTIONS_FILE, "")
        else:
            say("no test rows: no test metrics")
        if view.schema.triple is not None and record.kind == "train":
            _describe_entities(run)
        if record.kind == "train":
            _draw_curves(run)
            write_words(run, run.recipe, view.schema)
        reach("evaluate.figures_drawn")
        if (run.folder / TABLES).is_dir():
            recorder.log_artifacts(run.folder / TABLES, TABLES)
        recorder.log_artifacts(run.folder / FIGURES, FIGURES)
    spent = record.seconds.get("evaluate", 0.0) + time.perf_counter() - started
    seconds = {**record.seconds, "evaluate": round(spent, 3)}
    run.update(metrics={**record.metrics, **metrics}, seconds=seconds)
    run.mark_done("evaluate")
    reach("evaluate.done")


def score_rows(run: Run, *, must_be_finite: bool = True) -> tuple[Evaluation, str]:
    """Run the best weights of a run over its test rows.

    Also gives the precision's name.

    Raises:
        SourceError: the weights are not those that were written, or do not fit the model that the
            recipe builds.
        OutputsNotFiniteError: see `evaluate`.
    """
    recipe, view, record = run.recipe, view_of(run), run.record
    is_evaluated = (
        view.schema.triple is not None and view.schema.targets[0].name in view.pack.features
    )
    others = facts_of_source(record) if is_evaluated else []
    with share_cores(recipe, record.threads) as cores:
        scorer = replace(_load_scorer(run), summarise=summary_of(view, *others))
        batches = checked(run, lambda: rows_in_order(recipe, view, "test", scorer))
        found = evaluate(scorer, cores.around(batches()), must_be_finite=must_be_finite)
    check_folder(run, is_now=True)
    return found, scorer.precision.name


def _load_scorer(run: Run) -> Scorer:
    scorer = build_scorer(run.recipe, view_of(run).schema)
    run.verify([BEST])
    weights = run.folder / BEST
    load_into(scorer.model, load_weights(weights), str(weights))
    return scorer


def _draw_curves(run: Run) -> None:
    """Draw how training went, with the metric that decided which epoch is
    best.
    """
    recipe, schema, journal = run.recipe, view_of(run).schema, run.journal
    train, chosen = recipe.train, choose_monitor(recipe, schema)
    shown = auto_monitor(schema) if chosen == "valid/loss" else chosen
    shown = names_of_run(journal, schema).get(shown, shown)
    differs = (
        train.label_smoothing > 0
        or train.class_weights != "none"
        or train.sampling == "balanced"
        or any(step.name in MIXING for step in train.augment)
        or any(recipe.model.args.get(name) for name in OWN_LOSS)
    )
    figures.curves(
        (point for line in journal.lines() for point in points_of(line)),
        run.folder / FIGURES / "curves.png",
        events=[line for line in journal.lines() if line["kind"] == "event"],
        headline=figures.Headline(
            chosen, monitor_mode(chosen, schema) == "max", unit_of(shown, schema)
        ),
        loss_unit="nats" if schema.target_facts.has_classes else "",
        train_label="train (as minimised)" if differs else "train",
    )


def _describe_entities(run: Run) -> None:
    """Write the nearest neighbours of entities, where the model has vectors
    of them.
    """
    schema, model = view_of(run).schema, _load_scorer(run).model
    if isinstance(model, KnowledgeGraphModel):
        write_neighbours(
            schema, model.entity_vectors().cpu(), run.folder / TABLES / "neighbours.csv"
        )


def _write_results(run: Run, found: Evaluation, scale: np.ndarray | None) -> dict[str, float]:
    """Write predictions, tables and figures.

    Gives the metrics.
    """
    recipe, view = run.recipe, view_of(run)
    schema, rows = view.schema, found.rows.numpy()
    reduction = reduction_of(recipe.train.loss)
    computed = compute_metrics(schema, found.outputs, found.target, found.losses, scale, reduction)
    groups = None if view.groups is None else view.groups[rows]
    computed |= headline_interval(schema, found.outputs, found.target, scale, groups)
    keys = read_keys(run.split_dir)
    if schema.triple is None:
        frame = tabulate(
            schema, found, scale, view.pack.rows[rows] + 1, None if keys is None else keys[rows]
        )
    else:
        frame = tabulate_ranks(view, found, keys)
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    write_atomic(run.folder / PREDICTIONS_FILE, content.getvalue())
    reach("evaluate.predictions_written")
    if schema.triple is None:
        write_tables(schema, found, scale, run.folder / TABLES)
        reach("evaluate.tables_written")
        draw_evaluation(view, found, scale, run.folder / FIGURES, images_as_stored(recipe))
    else:
        bounds = [computed[name] for name in ("mrr_low", "mrr_high") if name in computed]
        write_ranked(frame, run, (bounds[0], bounds[1]) if bounds else None)
    return {f"test/{name}": value for name, value in computed.items()}
