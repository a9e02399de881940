"""The finetune flow trains a run from the weights of a source.

The source is a run, a registered model or a file.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from ..recipe import Recipe
from ..tasks import find_attempt, over_data, resolve_finetune
from ..tasks.services import quiet_user_errors
from .train import begin, go_on


@flow(name="finetune", persist_result=False)
def finetune(
    recipe: Recipe = Recipe(),
    recipe_file: str = "",
    overrides: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
    source: str = "",
    dialect: dict[str, Any] = {},  # noqa: B006 - the same
    trust_code: list[str] = [],  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
) -> dict[str, Any]:
    """Train a new run from the weights of a source.

    The run goes on by `resume` of the train flow, or by a retry of this one.

    Args:
        recipe: fields that go over the file's.
        recipe_file: recipe to start from, relative to the working directory; empty means the
            source's own, to which
            `overrides` may give another table.
        overrides: dotted keys that go over both, for example {"warm_start.freeze": ["conv1.*"]}.
        source: run id, `runs:/…`, `models:/name@alias`, or a weights file; empty means the recipe's
            `warm_start.source`.
        dialect: how the table is written, by the last names of the recipe's keys, for example
            {"delimiter": ";"}; goes over all of them.
        trust_code: modules that the source's recipe may have imported, where that recipe is the one
            that is trained.

    Returns:
        The run's record as JSON, with its `source`; `transfer.csv` in its folder says what came
        from there.
    """
    quiet_user_errors()
    attempt = find_attempt()
    if attempt.result is not None:
        return attempt.result
    if attempt.folder is not None:
        return go_on(attempt.folder, {})
    resolved = resolve_finetune(
        recipe, recipe_file, over_data(overrides, dialect), source, trust_code
    )
    return begin(resolved, recipe_file, trust_code=trust_code)
