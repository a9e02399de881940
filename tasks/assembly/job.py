"""Where data, model and engine meet.

A recipe and a view of its pack become the job that the loop runs.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from ...console import say
from ...datasets.augment import doubts_about_augment
from ...datasets.batches import (
    BatchTransform,
    Order,
    PackDataset,
    make_loader,
    num_batches,
    prefetch,
    split_batches,
)
from ...datasets.pack import View, open_view
from ...engine import (
    Evaluation,
    Job,
    Loss,
    Measure,
    NotFiniteError,
    OutputsNotFiniteError,
    Reduction,
    Scorer,
    build_loss,
    build_training_loss,
    check_log_probabilities,
    reduction_of,
)
from ...engine.hardware import pick_device, pick_precision
from ...engine.metrics import (
    auto_monitor,
    compute_metrics,
    former_metric_names,
    metric_names,
    monitor_mode,
    names_kept,
)
from ...engine.optim import Average, Frozen, build_optimizer, build_schedule, learning_rate_factors
from ...errors import RecipeError
from ...models import build_model, probe
from ...models.nets import load_pretrained
from ...recipe import Recipe, nearest
from ...runs import Journal, Run
from ...schema import Batch, Schema
from ...settings import home
from ...weights import load_into, load_unwrapped
from .preflight import check_validation
from .ranking import summary_of

# Raw bytes that are gathered and augmented as one: several batches of small rows, one of large
# ones.
GROUP_BYTES = 4_000_000
MOST_AT_ONCE = 32
# What a message counts rows in.
TABLE_ROWS = "table (the first after the header is 1)"


# Of the runs that this process has open. A run cannot keep its own: `runs` knows neither packs nor
# splits.
_views: WeakKeyDictionary[Run, View] = WeakKeyDictionary()


def view_of(run: Run) -> View:
    """Open the rows of a run once, its split of its pack.

    Raises:
        DataError: pack or split are missing or do not belong together, or the split is not as it
            was written.
    """
    if run not in _views:
        _views[run] = open_view(run.pack_dir, run.split_dir)
    return _views[run]


def build_job(
    recipe: Recipe,
    view: View,
    schedule_epochs: int,
    *,
    is_new: bool = True,
    start: Mapping[str, Tensor] | None = None,
) -> Job:
    """Build model, optimizer, schedule, loss and batches of a run, from the
    recipe's seed.

    Args:
        schedule_epochs: length of the schedule; a run that goes on beyond it keeps the last
            learning rate.
        is_new: whether the run begins; one that goes on has its weights from its checkpoint, not
            from the recipe's pretrained ones.
        start: weights that a warm-started run begins with, in place of random or pretrained ones.
    Raises:
        RecipeError: the model, optimizer or monitor does not fit the data.
        SourceError: the pretrained weights do not fit the model.
        DeviceError: the device is not there.
    """
    train, warm = recipe.train, recipe.warm_start
    scorer = replace(build_scorer(recipe, view.schema), summarise=summary_of(view))
    _load_first_weights(scorer, recipe, is_new=is_new, start=start)
    factors = learning_rate_factors(scorer.model, warm.lr_factors)
    optimizer = build_optimizer(train.optimizer, scorer.model.parameters(), factors)
    training = _TrainingBatches(recipe, view, scorer)
    steps_per_epoch = math.ceil(training.num_batches / train.accumulate)
    monitor = _monitor(recipe, view)
    mode = monitor_mode(monitor, view.schema) if monitor else "max"
    reduction = reduction_of(train.loss)
    num_steps = schedule_epochs * steps_per_epoch
    for doubt in doubts_about_augment(train.augment, view.schema.inputs, view.schema.targets):
        say(f"warning: {doubt}")

    return Job(
        scorer=scorer,
        loss=_loss_of(recipe, scorer),
        optimizer=optimizer,
        scheduler=build_schedule(train.schedule, optimizer, num_steps, mode),
        train_batches=training,
        valid_batches=lambda: rows_in_order(recipe, view, "valid", scorer),
        measure=_measure_by(view, reduction),
        num_epochs=train.epochs,
        steps_per_epoch=steps_per_epoch,
        reduction=reduction,
        accumulate=train.accumulate,
        frozen=Frozen(scorer.model, warm.freeze, warm.thaw_after) if warm.freeze else None,
        average=Average(scorer.model, train.ema) if train.ema else None,
        scaler=GradScaler(scorer.device.type, enabled=scorer.precision.name == "fp16"),
        clip_norm=train.clip_norm,
        monitor=monitor,
        monitor_mode=mode,
        every_epochs=recipe.checkpoint.every_epochs,
        every_steps=recipe.checkpoint.every_steps,
        early_stop_epochs=train.early_stop_epochs,
        max_seconds=60 * train.max_minutes,
    )


def _measure_by(view: View, reduction: Reduction) -> Measure:
    """What gives the metrics of an evaluation of the validation rows."""

    def measure(found: Evaluation) -> dict[str, float]:
        scale = rows_scale(view, found.rows.numpy())
        return compute_metrics(
            view.schema, found.outputs, found.target, found.losses, scale, reduction
        )

    return measure


def _loss_of(recipe: Recipe, scorer: Scorer) -> Loss:
    """What training minimises, one value a row."""
    return build_training_loss(
        recipe.train.loss,
        scorer.schema,
        label_smoothing=recipe.train.label_smoothing,
        balanced=recipe.train.class_weights == "balanced",
        device=scorer.device,
    )


def _load_first_weights(
    scorer: Scorer, recipe: Recipe, *, is_new: bool, start: Mapping[str, Tensor] | None
) -> None:
    if start is not None:
        load_into(scorer.model, start, "what the run begins with")
    elif is_new:
        for line in load_pretrained(scorer.model, recipe.model, home().cache, load_unwrapped):
            say(line)


class _TrainingBatches:
    """The training rows as `Batches`, gathered, augmented and on the scorer's device."""

    def __init__(self, recipe: Recipe, view: View, scorer: Scorer) -> None:
        self._settings, self._device = recipe.train, scorer.device
        self._prepare = build_transform(recipe, scorer)
        self._rows = PackDataset(
            view.pack,
            view.schema,
            view.rows["train"],
            in_memory=True,
            with_mirrors=self._prepare.mirrors_first,
        )
        self._at_once = _batches_at_once(view.schema, recipe.train.batch_size)
        self.num_batches = num_batches(len(self._rows), recipe.train.batch_size)

    def __call__(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        train, prepare = self._settings, self._prepare
        come_mirrored = prepare.mirrors_first
        order = Order(
            seed=train.seed,
            epoch=epoch,
            start_batch=start_batch,
            balanced=train.sampling == "balanced",
            mirrored=functools.partial(prepare.mirrored, epoch=epoch) if come_mirrored else None,
        )
        groups = make_loader(
            self._rows,
            train.batch_size,
            order,
            num_workers=train.num_workers,
            pin_memory=self._device.type == "cuda",
            batches_at_once=self._at_once,
        )
        for group in groups if self._device.type == "cpu" else prefetch(groups):
            for batch in split_batches(
                prepare.begin(group, epoch, come_mirrored), train.batch_size
            ):
                yield prepare.finish(batch, epoch)


def build_scorer(recipe: Recipe, schema: Schema) -> Scorer:
    """Build the model with what it takes to score batches.

    Its weights are drawn from the recipe's seed.
    """
    train = recipe.train
    device = pick_device(train.device)
    precision = pick_precision(train.precision, device, schema.has_images)
    _seed(train.seed, train.deterministic and device.type == "cuda")
    model = build_model(recipe.model, schema)
    if train.loss == "nll":
        check_log_probabilities(schema, probe(model, schema))
    model = model.to(device, precision.dtype)
    if schema.has_images:
        model = model.to(memory_format=torch.channels_last)
    return Scorer(schema, model, build_loss(train.loss, schema), device, precision)


def build_transform(recipe: Recipe, scorer: Scorer) -> BatchTransform:
    """What makes raw batches ready for a scorer's model."""
    return BatchTransform(
        scorer.schema,
        recipe.train.augment,
        seed=recipe.train.seed,
        device=scorer.device,
        dtype=scorer.precision.dtype,
        channels_last=scorer.schema.has_images,
    )


def rows_in_order(recipe: Recipe, view: View, split: str, scorer: Scorer) -> Iterator[Batch]:
    """Batches of a split's rows in the table's order, ready for the model."""
    rows = PackDataset(view.pack, view.schema, view.rows[split])
    prepare = build_transform(recipe, scorer)
    for batch in make_loader(rows, recipe.train.batch_size, Order(shuffle=False)):
        yield prepare(batch)


@contextlib.contextmanager
def naming_table_rows(view: View) -> Iterator[None]:
    """Raise errors of rows in the block with their rows counted as in the
    table.
    """

    def numbers(error: NotFiniteError | OutputsNotFiniteError) -> list[int]:
        return [int(view.pack.rows[position]) + 1 for position in error.rows]

    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(error.what, numbers(error), TABLE_ROWS) from error
    except OutputsNotFiniteError as error:
        raise OutputsNotFiniteError(
            numbers(error), error.num_rows, error.precision, TABLE_ROWS
        ) from error


def rows_scale(view: View, rows: np.ndarray) -> np.ndarray | None:
    """Pixels of the file per pixel of the stored image, x and y of each of T
    targets; None where they are no points.

    Args:
        rows: int64, positions in the pack, shape (N,).
    Returns:
        float64, shape (N, 2T).
    """
    if not view.schema.target_facts.lies_on_image:
        return None
    dataset = PackDataset(view.pack, view.schema, rows)
    return np.concatenate([dataset.scale(target).numpy() for target in view.schema.targets], axis=1)


def _batches_at_once(schema: Schema, batch_size: int) -> int:
    """How many batches are gathered and augmented as one, so that small ones
    do not cost more than their bytes.
    """
    features = [*schema.inputs, *schema.targets]
    if any(feature.facts.is_sequence for feature in features):
        return 1  # all rows of a group would be padded to its longest text
    row_bytes = sum(
        math.prod(feature.shape) * np.dtype(feature.dtype).itemsize for feature in features
    )
    return max(1, min(MOST_AT_ONCE, GROUP_BYTES // (row_bytes * batch_size)))


def _seed(seed: int, deterministic: bool) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False  # it would choose algorithms by the clock
    torch.use_deterministic_algorithms(deterministic)


def choose_monitor(recipe: Recipe, schema: Schema) -> str:
    """The validation metric that the recipe names, or the one that `auto`
    stands for.

    Who balances the classes wants the rare ones found: by accuracy a model that never names them
    would be the best.
    """
    if recipe.checkpoint.monitor != "auto":
        named = recipe.checkpoint.monitor  # perhaps as older versions called it
        former = {
            f"valid/{old}": f"valid/{new}" for new, old in former_metric_names(schema).items()
        }
        return former.get(named, named) if named not in metric_names(schema) else named
    is_balanced = "balanced" in (recipe.train.class_weights, recipe.train.sampling)
    has_recall = len(schema.targets) == 1 and schema.triple is None
    return "valid/recall_macro" if is_balanced and has_recall else auto_monitor(schema)


def names_of_run(journal: Journal, schema: Schema) -> dict[str, str]:
    """What a run that an older version began calls metrics, by today's names.

    Nothing where it has those.
    """
    former = former_metric_names(schema)
    return names_kept(former, journal.newest()) if former else {}


def _monitor(recipe: Recipe, view: View) -> str:
    """The metric that decides which checkpoint is best.

    Empty where no rows validate.
    """
    check_validation(recipe, len(view.rows["valid"]))
    if not len(view.rows["valid"]):
        return ""
    name, legal = choose_monitor(recipe, view.schema), metric_names(view.schema)
    if name not in legal:
        raise RecipeError(
            f"checkpoint.monitor: {name!r} is not a validation metric of this target; "
            f"{nearest(name, legal)}"
        )
    return name
