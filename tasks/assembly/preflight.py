"""The second phase of checking a recipe, before anything expensive starts.

Does what it names exist and fit?
"""

from __future__ import annotations

from pathlib import Path

from ...console import say, saying_still
from ...datasets.augment import check_augment, check_augment_fits
from ...datasets.batches import check_sampling
from ...datasets.images import check_preprocess
from ...datasets.table import check_table
from ...engine import check_loss
from ...engine.hardware import pick_device, pick_precision
from ...engine.optim import PLATEAU, check_optimizer, check_schedule
from ...errors import RecipeError
from ...models import check_log_softmax, check_model
from ...models.inputs import check_image_shape, check_inputs
from ...models.nets import fetch_pretrained
from ...recipe import Feature, Recipe
from ...settings import home
from ...weights import load_unwrapped
from ..services import require_files
from .ranking import check_ranked
from .sources import check_source


def check_recipe(recipe: Recipe) -> None:
    """Check names and arguments, then the table's columns.

    Fetch the model's pretrained weights.

    Raises:
        RecipeError: something that the recipe names does not exist or does not fit.
        SourceError: the model's pretrained weights, or those of a warm start, cannot be had.
        DataError: the table, its columns or the folder of its files are not as the recipe says.
    """
    check_names(recipe)
    split = recipe.data.split
    if not split.column and not split.valid:
        check_validation(recipe, num_rows=0)
    with saying_still(f"checking {Path(recipe.data.table).name}"):
        check_table(recipe.data)
    check_source(recipe)
    for line in fetch_pretrained(recipe.model, home().cache, load_unwrapped):
        say(line)


def check_names(recipe: Recipe) -> None:
    """Check the models, optimizers, losses and devices that a recipe names, and
    their arguments.

    Raises:
        RecipeError: one does not exist or does not fit; names the nearest.
        ShapeError: the model takes no inputs of these kinds.
        HomeError: this process may open too few files for the workers that the recipe asks for.
    """
    if not recipe.name:
        raise RecipeError(
            "name is missing: runs and their experiment are named after it, for example name: "
            "cifar10"
        )
    check_model(recipe.model)
    check_optimizer(recipe.train.optimizer)
    check_schedule(recipe.train.schedule)
    inputs, targets = recipe.data.inputs.values(), recipe.data.target.values()
    check_augment(recipe.train.augment)
    check_augment_fits(recipe.train.augment, inputs, targets)
    check_ranked(recipe)
    if inputs:
        check_inputs(recipe.model.name, recipe.data.inputs)
        for name, feature in recipe.data.inputs.items():
            if (
                feature.facts.is_image and not feature.preprocess
            ):  # whose functions may change any shape
                check_image_shape(recipe.model.name, name, _shape_said(feature))
    check_sampling(recipe.train.sampling, targets)
    for feature in inputs:
        check_preprocess(feature)
    for target in targets:
        check_loss(recipe.train.loss, target.facts.learned_as or target.kind)
    if recipe.train.loss == "nll":
        check_log_softmax(recipe.model.name)
    device = pick_device(recipe.train.device)
    pick_precision(recipe.train.precision, device, has_images(recipe))
    require_files(recipe.train.num_workers)
    _check_together(recipe)


def check_validation(recipe: Recipe, num_rows: int) -> None:
    """Refuse settings that need validation rows where there are none.

    Args:
        num_rows: validation rows.
    Raises:
        RecipeError: names the setting.
    """
    if num_rows:
        return
    train, monitor = recipe.train, recipe.checkpoint.monitor
    needs = {
        f"checkpoint.monitor: {monitor}": monitor != "auto",
        f"train.early_stop_epochs: {train.early_stop_epochs}": train.early_stop_epochs > 0,
        f"train.schedule: {train.schedule.name}": train.schedule.name == PLATEAU,
    }
    for setting, is_given in needs.items():
        if is_given:
            raise RecipeError(
                f"{setting} needs validation rows and the table has none; mark some as valid in "
                "the split, or leave "
                f"the setting out (without such rows the last weights are kept)"
            )


def _check_together(recipe: Recipe) -> None:
    """Refuse training settings that exclude each other, or that the target
    has no use for.
    """
    train = recipe.train
    if train.optimizer.name.lower() == "lbfgs":
        reason = "lbfgs computes its gradients anew several times a step, which"
        if train.clip_norm:
            raise RecipeError(
                f"train.clip_norm: {train.clip_norm}: {reason} clipping does not reach; leave it "
                "at 0"
            )
        if train.precision == "fp16":
            raise RecipeError(
                f"train.precision: fp16: {reason} its loss scaler cannot follow; use fp32"
            )
        if recipe.warm_start.lr_factors:
            raise RecipeError(
                "warm_start.lr_factors: lbfgs has one learning rate for all parameters; leave them "
                "out"
            )
    kinds = {target.kind for target in recipe.data.target.values()}
    have_classes = all(target.facts.is_one_class for target in recipe.data.target.values())
    if (
        len(kinds) == 1 and not have_classes
    ):  # of several kinds `check_table` says that they do not fit together
        for key in ("label_smoothing", "class_weights"):
            if (value := getattr(train, key)) not in (0, "none"):
                raise RecipeError(
                    f"train.{key}: {value} is for a category target; the target is "
                    f"{' and '.join(sorted(kinds))}"
                )
    if train.class_weights == train.sampling == "balanced":
        raise RecipeError(
            "train.class_weights and train.sampling: balanced, each of them makes up for rare "
            "classes, and both would "
            "do it twice; leave one out"
        )


def _shape_said(feature: Feature) -> list[int | None]:
    """Channels, height and width of an image as far as the recipe says them."""
    channels = {"gray": 1, "rgb": 3}.get(feature.channels) or int(feature.channels)
    return [channels, *(feature.size or [None, None])]


def has_images(recipe: Recipe) -> bool:
    """Whether an input is an image."""
    return any(feature.facts.is_image for feature in recipe.data.inputs.values())
