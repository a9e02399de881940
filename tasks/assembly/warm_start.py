"""What a warm-started run begins with.

Worked out before the run is opened, then kept in its folder.

A run that is killed before its first checkpoint begins with the same bits again, whatever has
become of the source.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...console import say
from ...disk import write_atomic
from ...engine.optim import Frozen, learning_rate_factors
from ...errors import SourceError
from ...models import find_heads, find_label_axes, new_labels
from ...models.nets import asks_for_weights, load_pretrained
from ...recipe import Recipe, WarmStart
from ...runs import START, TRANSFER_FILE, Run
from ...schema import Schema
from ...settings import home
from ...weights import (
    Entry,
    describe,
    load_unwrapped,
    load_weights,
    plan_transfer,
    save_weights,
    sha256_of,
    state_of,
    tabulate,
)
from .job import build_scorer
from .sources import WarmSource, doubts_about_settings, find_source


class Start(NamedTuple):
    """Weights that a run begins with.

    Attributes:
        source: what they are from.
        source_sha256: digest of the source's weights, over the tensors' names, shapes, dtypes and
            bytes.
        state: all of the model's, by key.
        entries: the report.
    """

    source: WarmSource
    source_sha256: str
    state: dict[str, Tensor]
    entries: list[Entry]


def plan_start(recipe: Recipe, schema: Schema) -> Start | None:
    """Work out what a recipe's model begins with.

    None where it begins at random.

    Args:
        recipe: with a warm start, or without.
        schema: of the model, fitted with the source's where that is known.
    Raises:
        SourceError: the source cannot be read, nothing of it fits, or it lacks classes that
            `grow_head: false` wants.
        RecipeError: a pattern fits no key.
    """
    settings = recipe.warm_start
    if settings == WarmStart():
        return None
    model = build_scorer(recipe, schema).model
    if settings.freeze:
        Frozen(model, settings.freeze, settings.thaw_after)
    learning_rate_factors(model, settings.lr_factors)
    if not settings.source:
        return None
    source = find_source(settings.source)
    theirs, state = source.schema(), source.state()
    if not settings.grow_head and theirs is not None:
        _refuse_new_classes(source, schema, theirs)
    if theirs is not None and (doubt := _doubt_about_head(source, schema, theirs)):
        say(f"warning: {doubt}")
    for line in load_pretrained(model, recipe.model, home().cache, load_unwrapped):
        say(line)
    labels = find_label_axes(recipe.model, schema, theirs)
    transfer = plan_transfer(state_of(model), state, settings, labels, source.label)
    if not settings.grow_head and theirs is None:
        _refuse_other_head(source, transfer.entries, find_heads(recipe.model, schema))
    return Start(source, sha256_of(state), transfer.state, transfer.entries)


def warn_unused_settings(recipe: Recipe) -> None:
    """Warn of settings of a warm start that have no effect, or another one
    than was meant.
    """
    is_pretrained = asks_for_weights(recipe.model)
    for doubt in doubts_about_settings(recipe.warm_start, recipe.train.epochs, is_pretrained):
        say(f"warning: {doubt}")


def keep_start(run: Run, start: Start) -> None:
    """Write weights and report into a run's folder, and say what the report
    says.
    """
    save_weights(start.state, run.folder / START)
    write_atomic(run.folder / TRANSFER_FILE, tabulate(start.entries))
    say_start(start)


def say_start(start: Start) -> None:
    """Say what came from where."""
    for line in describe(start.entries, start.source.label):
        say(line)


def load_start(run: Run) -> dict[str, Tensor] | None:
    """What `keep_start` kept.

    None where the run begins at random.

    Raises:
        SourceError: it is gone, or not what was kept.
    """
    if not run.recipe.warm_start.source:
        return None
    run.verify([START])
    return load_weights(run.folder / START)


def _refuse_new_classes(source: WarmSource, schema: Schema, theirs: Schema) -> None:
    new = new_labels(schema, theirs)
    if new:
        shown = ", ".join(new[:10]) + (f", … ({len(new)} in all)" if len(new) > 10 else "")
        raise SourceError(
            f"the source {source.label} has no outputs for {shown}; warm_start.grow_head: true "
            "gives them new ones, or "
            f"take their rows out of the table"
        )


def _doubt_about_head(source: WarmSource, schema: Schema, theirs: Schema) -> str:
    """What to say where no class of the table is one of the source's, so
    that its head goes; empty where one is.
    """
    new, own = new_labels(schema, theirs), sum(target.num_outputs for target in schema.targets)
    if (
        not schema.target_facts.has_classes
        or schema.target_kind != theirs.target_kind
        or len(new) < own
    ):
        return ""
    ours, known = (
        ", ".join([repr(one) for target in each.targets for one in target.classes][:5])
        for each in (schema, theirs)
    )
    return (
        f"no class of the table ({ours}) is one of {source.label} ({known}): its head is thrown "
        "away, and begins at "
        f"random; if the classes are the same, spell them as the source does"
    )


def _preview(schema: Schema) -> str:
    """The first classes of the targets."""
    classes = [repr(name) for target in schema.targets for name in target.classes]
    return ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")


def _refuse_other_head(source: WarmSource, entries: list[Entry], heads: set[str]) -> None:
    odd = [
        f"{one.key} has {one.shape}, there {one.source_shape}"
        for one in entries
        if one.key in heads and one.what == "mismatch"
    ]
    if odd:
        raise SourceError(
            f"the head of {source.label} is not the model's: {'; '.join(odd)}; "
            "warm_start.grow_head: true starts it "
            f"afresh"
        )
