"""One step's forward pass in training, before a run is opened.

What a model refuses only there is found here.

A batch norm takes means over the rows of a batch, and torch refuses to take them over one value: in
evaluation, where a model is tried when it is built, that does not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...datasets import SCHEMA_FILE
from ...datasets.batches import free_memory, num_batches
from ...datasets.ingest import Prepared
from ...engine import autocast
from ...engine.optim import NORMS, Frozen
from ...errors import DataError, RecipeError, ShapeError
from ...models import build_model
from ...models.inputs import TORCHVISION
from ...recipe import Recipe
from ...schema import FeatureSchema, Schema
from .job import build_scorer

# What torch's norms say where they find one value to take a mean and a variance over.
OVER_THE_BATCH = "Expected more than 1 value per channel"
OVER_A_SAMPLE = "Expected more than 1 spatial element"

# Of the free memory, for the scores of an evaluation.
MOST_MEMORY = 0.8


def try_early(recipe: Recipe) -> None:
    """Before the table is read.

    Try a model whose norms depend on nothing that only the table says.

    Raises:
        RecipeError: see `try_training`.
    """
    schema = _stand_in(recipe) if recipe.train.batch_size == 1 else None
    if schema is None:
        return
    with torch.random.fork_rng(devices=[]):
        model = build_model(recipe.model, schema)
        _hold_frozen(recipe, model)
        try_forward(recipe, model, [_zeros(one, 1, torch.float32) for one in schema.inputs], 0)


def try_ingested(recipe: Recipe, splits: Mapping[str, Prepared]) -> None:
    """Before a run is opened.

    Try the model on the split with the fewest training rows.

    Raises:
        RecipeError: see `try_training`.
        DataError: see `check_memory`.
    """
    for one in splits.values():
        schema = Schema.load(one.split_dir / SCHEMA_FILE)
        check_memory(schema, max(one.rows["valid"], one.rows["test"]), recipe.data.table)
    data = min(splits.values(), key=lambda one: one.rows["train"])
    try_training(recipe, Schema.load(data.split_dir / SCHEMA_FILE), data.rows["train"])


def check_memory(schema: Schema, num_rows: int, table: str) -> None:
    """Refuse to measure rows whose scores, one a class, do not fit into memory
    together.

    Args:
        schema: of the table; of triples ranks are kept, not scores.
        num_rows: that are evaluated at once.
        table: for the message.
    Raises:
        DataError: says how much it would be.
    """
    num_outputs = sum(target.num_outputs for target in schema.targets)
    needed, most = 4 * num_rows * num_outputs, int(free_memory() * MOST_MEMORY)
    if schema.triple is None and needed > most:
        raise DataError(
            f"{table}: to measure {num_rows:,} rows of {num_outputs:,} classes, "
            f"{needed / 2**30:,.1f} GiB of scores "
            f"are kept, and memory has room for {most / 2**30:,.1f} GiB; validate, test or score "
            "fewer rows at "
            f"once, or join rare classes"
        )


def try_training(recipe: Recipe, schema: Schema, num_rows: int) -> None:
    """Run a recipe's model in training mode over the smallest batch that its
    rows make, of zeros.

    The model is built for it alone, on the recipe's device; torch's random state stays as it was.
    One that trains by a pass of its own is not tried.

    Args:
        schema: of the table.
        num_rows: that train; of triples, twice as many questions are asked.
    Raises:
        RecipeError: a norm finds one value alone, or the model fails otherwise; names the layer and
            the batch size.
    """
    size, name = recipe.train.batch_size, recipe.model.name
    rows = smallest_batch(num_rows if schema.triple is None else 2 * num_rows, size)
    is_own = ":" in name and not name.startswith(TORCHVISION)
    if rows > 1 and not is_own:
        return
    with torch.random.fork_rng(devices=[]):
        scorer = build_scorer(recipe, schema)
        _hold_frozen(recipe, scorer.model)
        has_norms = any(isinstance(part, NORMS) for part in scorer.model.modules())
        if hasattr(scorer.model, "training_losses") or (rows > 1 and not has_norms):
            return
        dtype = scorer.precision.dtype
        inputs = [_zeros(one, min(rows, 2), dtype).to(scorer.device) for one in schema.inputs]
        with autocast(scorer):
            try_forward(recipe, scorer.model, inputs, num_rows)


def smallest_batch(num_rows: int, batch_size: int) -> int:
    """Rows of the smallest batch of an epoch.

    A last one of a single row joins the one before it.
    """
    last = num_rows - (num_batches(num_rows, batch_size) - 1) * batch_size
    return min(last, batch_size) if num_rows > batch_size else num_rows


def try_forward(recipe: Recipe, model: nn.Module, inputs: Sequence[Tensor], num_rows: int) -> None:
    """Run a model, in the mode that it is in.

    Args:
        num_rows: that train, for the message.
    Raises:
        RecipeError: see `try_training`.
    """
    entered: list[str] = []
    handles = [
        hook for path, part in model.named_modules() for hook in _follow(path, part, entered)
    ]
    try:
        with torch.no_grad():
            model(*inputs)
    except (RecipeError, ShapeError):
        raise
    except Exception as error:  # whatever a net's own code raises
        raise _explain(error, recipe, model, entered[-1] if entered else "", num_rows) from error
    finally:
        for handle in handles:
            handle.remove()


def _hold_frozen(recipe: Recipe, model: nn.Module) -> None:
    """Training mode, in which a norm that stays frozen to the end uses its
    statistics and takes no mean.
    """
    warm = recipe.warm_start
    model.train()
    if warm.freeze and not 0 < warm.thaw_after < recipe.train.epochs:
        Frozen(model, warm.freeze, 0).hold(0)


def _follow(path: str, part: nn.Module, entered: list[str]) -> list[RemovableHandle]:
    """Keep in `entered` the modules whose forward pass has begun and not
    ended, the innermost last.
    """

    def enter(*_: object) -> None:
        entered.append(path)

    def leave(*_: object) -> None:
        entered.pop()

    return [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]


def _explain(
    error: Exception, recipe: Recipe, model: nn.Module, path: str, num_rows: int
) -> RecipeError:
    """What a recipe's author can do about it."""
    name, size = recipe.model.name, recipe.train.batch_size
    layer = f"its layer {path} ({type(model.get_submodule(path)).__name__})" if path else "it"
    text = " ".join(str(error).split())
    if OVER_THE_BATCH in text:
        remedy = "set train.batch_size to 2 or more"
        if size > 1:
            remedy = f"the table has {num_rows} training row, and two or more are needed"
        elif recipe.train.accumulate > 1:
            remedy += " (train.accumulate makes the steps larger, not the batches)"
        norm = (
            ", or model.args.norm to layer or none"
            if name == "mlp"
            else ", or take a model without batch norm"
        )
        return RecipeError(
            f"train.batch_size: {size}: model {name} has a batch norm, which takes mean and "
            "variance of each channel "
            f"over the rows of a batch, and {layer} finds one value alone; {remedy}{norm}"
        )
    if OVER_A_SAMPLE in text:
        return RecipeError(
            f"model.name: {name} has an instance norm, which takes mean and variance over the "
            "pixels or positions of "
            f"each row, and {layer} finds one alone, whatever train.batch_size is; give it larger "
            "inputs "
            f"(data.inputs size), or take a model without that norm"
        )
    return RecipeError(
        f"model.name: {name} works in evaluation and fails in training, where {layer} raises "
        f"{type(error).__name__}: "
        f"{text}; train.batch_size is {size}, on {recipe.train.device}"
    )


def _stand_in(recipe: Recipe) -> Schema | None:
    """A schema in whose place the table's would give the same norms over the
    same shapes; None where none is known.
    """
    target = FeatureSchema(
        name="y", kind="category", columns=["y"], shape=[], dtype="int64", classes=["0", "1"]
    )
    if recipe.model.name == "mlp":
        x = FeatureSchema(name="x", kind="number", columns=["x"], shape=[1], dtype="float32")
        return Schema(inputs=[x], targets=[target])
    images = [(name, one) for name, one in recipe.data.inputs.items() if one.facts.is_image]
    if not recipe.model.name.startswith(TORCHVISION) or len(images) != 1:
        return None
    ((name, image),) = images
    if not image.size or image.preprocess:  # whose functions may change any shape
        return None
    channels = {"gray": 1, "rgb": 3}.get(image.channels) or int(image.channels)
    x = FeatureSchema(
        name=name, kind="image", columns=[name], shape=[channels, *image.size], dtype="uint8"
    )
    return Schema(inputs=[x], targets=[target])


def _zeros(feature: FeatureSchema, rows: int, dtype: torch.dtype) -> Tensor:
    shape = (1,) if feature.facts.is_sequence else feature.shape
    return torch.zeros(rows, *shape, dtype=torch.int64 if feature.facts.has_ids else dtype)
