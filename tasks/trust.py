"""Whose code may run: a class that the recipe of a source names is imported on the user's word alone.

A recipe that the user names himself says which code he wants. A source may be from anybody, and so may a run's folder:
what the user's word was is kept beside the runs, in the home, not in what can be copied into it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task

from ..errors import RecipeError, SourceError, shown_value
from ..files import read_json, write_json
from ..models.user_classes import locate_module, module_of
from ..recipe import Recipe
from ..recipe_file import load_recipe
from ..settings import home
from ..tracking.records import load_record
from ..tracking.registry import resolve_source
from .console import say
from .options import UNCACHED

# Folder of the home: for each run with code of the user's own, by its id, what was let in.
FOLDER = "trusted"


def check_source_code(source: str, trust_code: Sequence[str]) -> None:
    """Refuse a source whose recipe names code that nobody has let in; imports nothing of it.

    Raises:
        SourceError: see `admit_code`; or there is no such source.
    """
    found = resolve_source(source, home())
    admit_code(load_recipe(found.folder / "recipe.yaml"), found.folder, source, trust_code)


def admit_code(recipe: Recipe, folder: Path, label: str, trust_code: Sequence[str]) -> None:
    """Refuse code of a source that the user has let in neither now nor when its run was trained here.

    Args:
        recipe: of the source.
        folder: of the source; a run of this home where it is one of its runs' folders.
        label: the source, for messages.
        trust_code: modules that may be imported, each with what is below it.
    Raises:
        SourceError: names the module and the option.
        RecipeError: what is to be trusted is no module's name.
    """
    for one in trust_code:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", one):
            raise RecipeError(f"--trust-code {shown_value(one)}: expected a module, such as my_package.nets")
    module = module_of(recipe.model.name)
    if trust_code and not any(_covers(one, module) for one in trust_code):
        say(f"warning: --trust-code {' '.join(trust_code)}: without effect, because {label} names no code of these")
    if not module or any(_covers(one, module) for one in trust_code):
        return
    file = locate_module(module)
    known = _read(_key_of(folder)) if folder.absolute().parent == home().runs else {}
    if known.get("model") == recipe.model.name and known.get("file") == file:
        return
    raise SourceError(
        f"{label}: its recipe names the model {recipe.model.name}, and nobody has said that this code may run here; "
        f"nothing of it was imported. Look into {file or 'the module, which is not there'}, then say so with "
        f"--trust-code {module} (of a flow and of load_model: trust_code)"
    )


@task(**UNCACHED)
def admit_run(run_dir: Path, trust_code: Sequence[str]) -> None:
    """Let a run go on with the code that its recipe names, where the user has let it in; what he says now is kept.

    Raises:
        SourceError: see `admit_code`.
    """
    recipe = load_recipe(run_dir / "recipe.yaml")
    admit_code(recipe, run_dir, f"run {run_dir.name}", trust_code)
    if trust_code:
        vouch(run_dir, recipe, trust_code)


def vouch(run_dir: Path, recipe: Recipe, trust_code: Sequence[str] = ()) -> None:
    """Keep that a run of this home may import what its recipe names; nothing where that is no own code."""
    module, key = module_of(recipe.model.name), run_dir.name
    if not module or (not trust_code and _read(key).get("model") == recipe.model.name):
        return
    values = {"model": recipe.model.name, "file": locate_module(module), "trust_code": list(trust_code)}
    write_json(home().root / FOLDER / f"{key}.json", values)


def trusted_by_word(run_id: str) -> list[str]:
    """The modules that were let in by `--trust-code` for a run."""
    return list(_read(run_id).get("trust_code", []))


def _covers(trusted: str, module: str) -> bool:
    return module == trusted or module.startswith(f"{trusted}.")


def _key_of(run_dir: Path) -> str:
    """The run whose word counts: of one over a split column its parent's."""
    try:
        return load_record(run_dir).parent or run_dir.name
    except SourceError:
        return run_dir.name


def _read(run_id: str) -> dict[str, Any]:
    try:
        values = read_json(home().root / FOLDER / f"{run_id}.json")
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
