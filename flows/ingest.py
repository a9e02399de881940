"""The ingest flow turns a table into a pack.

Every row gets a verdict, and a data report describes the table.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from ..recipe import Recipe
from ..tasks import ingest_table, report_data, resolve_recipe
from ..tasks.services import quiet_user_errors


@flow(name="ingest", persist_result=False)
def ingest(
    recipe: Recipe = Recipe(),
    recipe_file: str = "",
    overrides: dict[str, Any] = {},  # noqa: B006 - Prefect shows the default in its form; nobody writes to it
    recheck: bool = False,
) -> dict[str, Any]:
    """Read the table, judge its rows, decode what is new, and write the pack.

    Args:
        recipe: fields that go over the file's.
        recipe_file: recipe to start from; relative to the working directory.
        overrides: dotted keys that go over both, for example {"data.max_bad_rows": 0.1}.
        recheck: read all files again, also those that seem to be as they were.

    Returns:
        Where pack, data report and quarantine lie, rows for training, validation and test, and the
        fingerprint, as JSON; of several split columns those of the first, and of each below
        `splits`.
    """
    quiet_user_errors()
    resolved = resolve_recipe(recipe, recipe_file, overrides)
    return report_data(ingest_table(resolved, recheck))
