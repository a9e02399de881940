"""Whose code may run.

A class that the recipe of a source names is imported on the user's word alone.

A recipe that the user names himself says which code he wants. A source may be from anybody, and so
may a run's folder: what the user's word was is kept beside the runs, in the home, not in what can
be copied into it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...console import say
from ...disk import read_json, write_json
from ...errors import RecipeError, SourceError, shown_value
from ...models import locate_module, module_of
from ...recipe import Recipe, load_recipe
from ...runs import RECIPE_FILE, Run
from ...settings import home
from ...tracking.registry import resolve_source

# Folder of the home: for each run with code of the user's own, by its id, what was let in.
FOLDER = "trusted"


def check_source_code(source: str, trust_code: Sequence[str]) -> None:
    """Refuse a source whose recipe names code that nobody has let in.

    Imports nothing of it.

    Raises:
        SourceError: see `admit_code`; or there is no such source.
    """
    found = resolve_source(source, home())
    admit_code(load_recipe(found.folder / RECIPE_FILE), found.folder, source, trust_code)


def admit_code(
    recipe: Recipe,
    folder: Path,
    label: str,
    trust_code: Sequence[str] = (),
    *,
    anywhere: bool = False,
) -> None:
    """Refuse code of a source that the user has let in neither now nor when its
    run was trained here.

    Args:
        recipe: of the source.
        folder: of the source; a run of this home where it is one of its runs' folders.
        label: the source, for messages.
        trust_code: modules that may be imported, each with what is below it.
        anywhere: of a run of this home it does not matter in which file its class is: where Prefect
            retries a flow run, its code may have been checked out anew.
    Raises:
        SourceError: names the module and the option.
        RecipeError: what is to be trusted is no module's name.
    """
    for one in trust_code:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", one):
            raise RecipeError(
                f"--trust-code {shown_value(one)}: expected a module, such as my_package.nets"
            )
    module = module_of(recipe.model.name)
    is_covered = any(_covers(one, module) for one in trust_code)
    if trust_code and not is_covered:
        _warn(
            f"--trust-code {' '.join(trust_code)}: without effect, because {label} names no code "
            "of these"
        )
    if not module or is_covered:
        return
    file = locate_module(module)
    known = _read(_key_of(folder)) if folder.absolute().parent == home().runs else {}
    if known.get("model") == recipe.model.name and (anywhere or known.get("file") == file):
        return
    raise SourceError(
        f"{label}: its recipe names the model {recipe.model.name}, and nobody has said that this "
        "code may run here; "
        f"nothing of it was imported. Look into {file or 'the module, which is not there'}, then "
        "say so with "
        f"--trust-code {module} (of a flow and of load_model: trust_code)"
    )


def vouch(run_id: str, recipe: Recipe, trust_code: Sequence[str] = ()) -> None:
    """Keep that a run of this home may import what its recipe names.

    Nothing where that is no own code.
    """
    module, known = module_of(recipe.model.name), _read(run_id)
    if not module or (not trust_code and known.get("model") == recipe.model.name):
        return
    said = list(dict.fromkeys([*known.get("trust_code", []), *trust_code]))
    values = {"model": recipe.model.name, "file": locate_module(module), "trust_code": said}
    write_json(_file_of(run_id), values)


def forget(run_id: str) -> None:
    """Drop what was let in for a run that is removed."""
    _file_of(run_id).unlink(missing_ok=True)


def trusted_by_word(run_id: str) -> list[str]:
    """The modules that were let in by `--trust-code` for a run."""
    return list(_read(run_id).get("trust_code", []))


def _covers(trusted: str, module: str) -> bool:
    return module == trusted or module.startswith(f"{trusted}.")


def _key_of(folder: Path) -> str:
    """The run whose word counts.

    Of one over a split column its parent's.
    """
    try:
        return Run.open(folder).record.parent or folder.name
    except SourceError:
        return folder.name


def _file_of(run_id: str) -> Path:
    return home().root / FOLDER / f"{run_id}.json"


@functools.cache
def _warn(text: str) -> None:
    """Say it once.

    A command looks before its flow does.
    """
    say(f"warning: {text}")


def _read(run_id: str) -> dict[str, Any]:
    if Path(run_id).name != run_id:  # a record may state any parent
        return {}
    try:
        values = read_json(_file_of(run_id))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
