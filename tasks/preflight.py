"""The second phase of checking a recipe, before anything expensive starts: does what it names exist and fit?"""

from __future__ import annotations

from ..datasets.augment import check_augment, check_augment_fits
from ..datasets.images import check_preprocess
from ..datasets.loader import check_sampling
from ..datasets.table import check_table
from ..engine.devices import pick_device, pick_precision
from ..engine.losses import check_loss
from ..engine.optimizers import check_optimizer
from ..engine.schedules import check_schedule
from ..errors import RecipeError
from ..models.registry import check_model
from ..recipe import Recipe


def check_recipe(recipe: Recipe) -> None:
    """Check names and arguments, then the table's columns.

    Raises:
        RecipeError: something that the recipe names does not exist or does not fit.
        DataError: the table, its columns or the folder of its files are not as the recipe says.
    """
    check_names(recipe)
    check_table(recipe.data)


def check_names(recipe: Recipe) -> None:
    """Check the models, optimizers, losses and devices that a recipe names, and their arguments.

    Raises:
        RecipeError: one does not exist or does not fit; names the nearest.
    """
    if not recipe.name:
        raise RecipeError("name is missing: runs and their experiment are named after it, for example name: cifar10")
    check_model(recipe.model)
    check_optimizer(recipe.train.optimizer)
    check_schedule(recipe.train.schedule)
    inputs, targets = recipe.data.inputs.values(), recipe.data.target.values()
    check_augment(recipe.train.augment)
    check_augment_fits(recipe.train.augment, inputs, targets)
    check_sampling(recipe.train.sampling, targets)
    for feature in inputs:
        check_preprocess(feature)
    for target in targets:
        check_loss(recipe.train.loss, target.kind)
    device = pick_device(recipe.train.device)
    pick_precision(recipe.train.precision, device, has_images(recipe))


def has_images(recipe: Recipe) -> bool:
    """Whether an input is an image."""
    return any(feature.kind == "image" for feature in recipe.data.inputs.values())
