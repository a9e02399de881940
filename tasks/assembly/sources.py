"""The source of a warm start.

Found, read, and held against the recipe before anything expensive starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ...datasets.ingest import InheritedSchema, check_inputs
from ...errors import RecipeError
from ...recipe import Recipe, WarmStart
from ...runs import RECIPE_FILE, SCHEMA_FILE
from ...schema import Schema
from ...settings import home
from ...tracking.registry import find_source_beside, resolve_source
from ...weights import check_rename, read_weights_file


class WarmSource(NamedTuple):
    """What a warm start begins from.

    Attributes:
        name: to be written into the recipe: it will mean the same weights tomorrow, as an alias may
            not.
        label: the run or model version that the weights are of, or their file; for records and
            messages.
        weights: a file that `read_weights_file` takes.
        folder: has recipe.yaml and schema.json; None for a file with neither near it.
    """

    name: str
    label: str
    weights: Path
    folder: Path | None

    def schema(self) -> Schema | None:
        """What the weights were trained on, where that is known."""
        return None if self.folder is None else Schema.load(self.folder / SCHEMA_FILE)

    def state(self) -> dict[str, Tensor]:
        """The weights, with the keys of their file.

        Raises:
            SourceError: they cannot be read.
        """
        return read_weights_file(self.weights).state


def find_source(text: str) -> WarmSource:
    """Find what `warm_start.source` names.

    Args:
        text: run id, runs:/<id>, models:/<name>@<alias>, or a weights file, with recipe and schema
            near it or alone.
    Raises:
        SourceError: it does not exist, or lacks recipe, schema or weights.
        TrackingError: it is not here and the server cannot be reached.
    """
    path = Path(text)
    if not path.is_file():
        found = resolve_source(text, home())
        return WarmSource(found.label, found.label, found.weights, found.folder)
    path = path.absolute()
    known = find_source_beside(path)
    if known is None:
        return WarmSource(str(path), str(path), path, None)
    return WarmSource(str(path), known.label, path, known.folder)


def check_source(recipe: Recipe) -> None:
    """Refuse a source that is not there, cannot be read, or was trained on
    other inputs; and names that it lacks.

    Raises:
        SourceError: the source cannot be found or read.
        RecipeError: `rename` has a pattern that fits none of its keys.
        DataError: its inputs are not those of the recipe.
    """
    settings = recipe.warm_start
    if not settings.source:
        return
    source = find_source(settings.source)
    check_rename(settings.rename, source.state())
    schema = source.schema()
    if schema is not None and settings.statistics == "source":
        check_inputs(recipe.data, schema)


def pin_source(recipe: Recipe) -> Recipe:
    """The recipe with a source that will mean the same weights tomorrow.

    A version for an alias, a whole run id.
    """
    settings = recipe.warm_start
    if not settings.source:
        return recipe
    name = find_source(settings.source).name
    return recipe.model_copy(update={"warm_start": settings.model_copy(update={"source": name})})


def inherited_schema_of(recipe: Recipe) -> InheritedSchema | None:
    """What the schema of a recipe's table takes over from the source of its
    warm start; None where there is none.
    """
    settings = recipe.warm_start
    schema = find_source(settings.source).schema() if settings.source else None
    return None if schema is None else InheritedSchema(schema, settings.statistics)


def doubts_about_settings(settings: WarmStart, num_epochs: int, is_pretrained: bool) -> list[str]:
    """Sentences about settings that have no effect, or not the one that was
    meant.

    Args:
        settings: the recipe's part.
        num_epochs: of the training.
        is_pretrained: whether the model has pretrained weights of its own.
    """
    doubts = []
    given = [name for name in ("rename", "exclude") if getattr(settings, name)]
    if given and not settings.source:
        doubts.append(
            f"warm_start.{', '.join(given)}: without effect, because warm_start.source is empty"
        )
    if settings.freeze and not settings.source and not is_pretrained:
        doubts.append(
            "warm_start.freeze: freezes weights that are as they were drawn, because no source is "
            "given"
        )
    if settings.thaw_after and not settings.freeze:
        doubts.append("warm_start.thaw_after: without effect, because nothing is frozen")
    if settings.freeze and settings.thaw_after >= num_epochs:
        doubts.append(
            f"warm_start.thaw_after: {settings.thaw_after} epochs of {num_epochs}: what is frozen "
            "stays so to the end"
        )
    return doubts


def recipe_of(source: str) -> Path:
    """The recipe that a source was trained by.

    Raises:
        SourceError: there is no such source.
        RecipeError: it is a file without recipe and schema near it.
    """
    found = find_source(source)
    if found.folder is None:
        raise RecipeError(
            f"{source} is a weights file without a recipe.yaml and a schema.json near it; name a "
            "recipe: torchrelay "
            f"finetune RECIPE --from {source}"
        )
    return found.folder / RECIPE_FILE
