"""The evaluation task: the best weights on the test rows, as metrics and as figures to look at."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from prefect import task

from ..datasets.build import View, open_view
from ..datasets.loader import PackDataset
from ..datasets.transform import unstandardise_target
from ..engine.evaluation import Evaluation, evaluate
from ..engine.metrics import compute_metrics, confusion_matrix
from ..engine.weights import load_into, load_weights
from ..recipe import load_recipe
from ..schema import FeatureSchema, Schema
from ..tracking import figures
from ..tracking.journal import Journal, thin
from ..tracking.mlflow_run import MlflowRun
from ..tracking.recorder import Recorder
from ..tracking.records import load_record, update_record
from .assemble import build_scorer, rows_in_order
from .console import say
from .options import UNCACHED

NUM_WORST = 25


@task(**UNCACHED)
def evaluate_model(run_dir: Path) -> None:
    """Score the test rows with the run's best weights; write metrics, `figures/`, and both into MLflow.

    A table without test rows gets the figures of its training alone.

    Raises:
        SourceError: the weights do not fit the model that the recipe builds.
    """
    started = time.perf_counter()
    record, recipe = load_record(run_dir), load_recipe(run_dir / "recipe.yaml")
    view = open_view(Path(record.pack_dir), Path(record.split_dir))
    tracker = MlflowRun.of(record)
    with Journal(run_dir / "journal.jsonl") as journal:
        recorder = Recorder(journal, tracker, thin(0, 1))
        metrics: dict[str, float] = {}
        if len(view.rows["test"]):
            scorer = build_scorer(recipe, view.schema)
            weights = run_dir / "weights" / "best.pt"
            load_into(scorer.model, load_weights(weights), str(weights))
            found = evaluate(scorer, rows_in_order(recipe, view, "test", scorer))
            computed = compute_metrics(view.schema, found.outputs, found.target, found.losses)
            metrics = {f"test/{name}": value for name, value in computed.items()}
            recorder.log_epoch(record.steps, record.epochs, metrics)
            draw_evaluation(view, found, metrics, run_dir / "figures")
            update_record(run_dir, precision=scorer.precision.name)
        else:
            say("no test rows: no test metrics")
        if record.kind == "train":
            figures.curves(journal.points(), run_dir / "figures" / "curves.png")
    recorder.log_artifacts(run_dir / "figures", "figures")
    seconds = {**record.seconds, "evaluate": round(time.perf_counter() - started, 3)}
    update_record(run_dir, metrics={**record.metrics, **metrics}, seconds=seconds)


def draw_evaluation(view: View, found: Evaluation, metrics: dict[str, float], folder: Path) -> None:
    """Draw the figures that fit the target, and the worst predictions."""
    schema = view.schema
    if schema.target.kind == "category":
        matrix = confusion_matrix(schema, found.outputs, found.target)
        figures.confusion(matrix, schema.target.classes, folder / "confusion.png")
        figures.class_accuracy(matrix, schema.target.classes, folder / "class_accuracy.png")
    else:
        target = unstandardise_target(schema, found.target).numpy()
        predicted = unstandardise_target(schema, found.outputs).numpy()
        for number, column in enumerate(schema.target.columns):
            name = "residuals.png" if number == 0 else f"residuals-{number}.png"
            figures.residuals(target[:, number], predicted[:, number], column, folder / name)
    _draw_worst(view, found, folder)


def _draw_worst(view: View, found: Evaluation, folder: Path) -> None:
    """The rows of the largest loss: their pictures where the first input is an image, else their numbers."""
    schema = view.schema
    worst = torch.argsort(found.losses, descending=True, stable=True)[:NUM_WORST]
    positions = found.rows[worst].numpy()
    batch = PackDataset(view.pack, schema, positions).__getitems__(range(len(positions)))
    said = _describe(schema, found, worst)
    first = schema.inputs[0]
    if first.kind == "image":
        titles = [f"{true} as {predicted}\n{rest}" for true, predicted, rest in said]
        figures.worst_images(_to_uint8(batch.inputs[0].numpy(), first), titles, folder / "worst.png")
        return
    rows = [f"{int(view.pack.rows[position]) + 1:,}" for position in positions]
    cells = [(row, true, predicted, rest) for row, (true, predicted, rest) in zip(rows, said, strict=True)]
    figures.worst_rows(("row of the table", "true", "predicted", ""), cells, folder / "worst.png")


def _describe(schema: Schema, found: Evaluation, rows: torch.Tensor) -> list[tuple[str, str, str]]:
    """For each row: what is true, what was predicted, how sure and how wrong."""
    outputs, target, losses = found.outputs[rows], found.target[rows], found.losses[rows]
    if schema.target.kind == "category":
        probabilities = outputs.softmax(dim=1)
        classes = schema.target.classes
        return [
            (classes[int(true)], classes[int(row.argmax())], f"p {row.max():.2f}, loss {loss:.2f}")
            for true, row, loss in zip(target, probabilities, losses, strict=True)
        ]
    true, predicted = unstandardise_target(schema, target), unstandardise_target(schema, outputs)
    return [
        (_numbers(one), _numbers(other), f"loss {loss:.3g}")
        for one, other, loss in zip(true, predicted, losses, strict=True)
    ]


def _numbers(values: torch.Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.tolist()[:3])


def _to_uint8(images_NCHW: np.ndarray, feature: FeatureSchema) -> np.ndarray:
    """Pixels as they can be shown: the range of the feature's type becomes 0 to 255."""
    if feature.dtype == "uint8":
        return images_NCHW
    top = 65535.0 if feature.dtype == "uint16" else max(float(images_NCHW.max()), 1e-9)
    return np.clip(images_NCHW / top * 255, 0, 255).astype(np.uint8)
