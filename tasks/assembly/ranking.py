"""What a job needs to know of triples, whose tails are ranked among all
entities.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from ...console import say
from ...datasets.batches import PackDataset
from ...datasets.kinds import find_triple
from ...datasets.pack import View, open_view
from ...engine import Summarise
from ...engine.metrics import KnownAnswers, Ranker, best_answers
from ...errors import RecipeError, TorchrelayError
from ...models import TRIPLE_MODELS
from ...recipe import Recipe
from ...runs import RunRecord, find_run, load_record
from ...settings import home


def check_ranked(recipe: Recipe) -> None:
    """Refuse a model of triples for other tables, other models for triples, and
    settings that do not go together.

    Raises:
        RecipeError: names the key and what to do.
    """
    name, args = recipe.model.name, recipe.model.args
    is_ranked, is_for_triples = find_triple(recipe.data) is not None, name in TRIPLE_MODELS
    if is_for_triples and not is_ranked:
        raise RecipeError(
            f"model.name: {name} takes triples: two inputs of kind category, head and relation, "
            "and a target of kind "
            f"category that shares a vocabulary with the head; write vocabulary: entities on both"
        )
    if is_ranked and not is_for_triples and ("." not in name or name.startswith("torchvision:")):
        raise RecipeError(
            f"model.name: {name} does not rank entities, and the target shares a vocabulary with "
            "an input, so that it "
            f"is one; use {', '.join(TRIPLE_MODELS)}, or leave vocabulary out"
        )
    if is_for_triples and args.get("negatives") and recipe.train.class_weights == "balanced":
        raise RecipeError(
            "train.class_weights: balanced weighs by the class among all, and model.args.negatives "
            "draws some; leave "
            "one out"
        )


def summary_of(view: View, *others: View) -> Summarise | None:
    """What an evaluation keeps of the scores of a view's rows.

    All of them, unless entities are ranked.

    Then ranks, filtered by the facts of all the view's splits; or the best answers, where the tails
    are not known.

    Args:
        view: whose rows are scored.
        others: whose facts are true as well, for example those that the model was trained on; same
            schema.
    """
    schema = view.schema
    if schema.triple is None:
        return None
    if schema.targets[0].name not in view.pack.features:
        return best_answers
    facts = [
        PackDataset(one.pack, schema, np.concatenate(list(one.rows.values()))).questions()
        for one in (view, *others)
    ]
    known = KnownAnswers(*(np.concatenate(column) for column in list(zip(*facts, strict=True))[1:]))
    return Ranker(schema.triple, len(schema.inputs[schema.triple.relation].classes), known)


def facts_of_source(record: RunRecord) -> list[View]:
    """What the source of an evaluation was trained and tested on, where it
    is in this home; else a warning.
    """
    if record.kind == "train":
        return []
    with contextlib.suppress(TorchrelayError):
        source = load_record(find_run(home(), record.source))
        return [open_view(Path(source.pack_dir), Path(source.split_dir))]
    say(
        f"warning: the table that {record.source} was trained on is not in this home, so that "
        "ranks are filtered by "
        f"the facts of the evaluated table alone and may be worse than they are"
    )
    return []
