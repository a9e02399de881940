"""The kinds of features that a recipe may name, and what is true of each.

Everyone who meets a feature asks these facts, not the name of its kind. What is done with the
cells of a kind stands in `datasets/kinds`. Imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema


class Facts(NamedTuple):
    """What is true of every feature of a kind.

    Attributes:
        name: as recipes write it.
        settings: the fields of a recipe's feature that this kind has a use for, beside kind and
            columns.
        learned_as: whose losses, metrics and figures a target of this kind has: category, labels,
            number or points; empty where it cannot be a target.
        no_input: what to do instead, where it cannot be an input.
        is_number: raw values are float64, have a mean and a deviation, and are standardised.
        is_quantity: each of its columns is a number of its own, in a unit of its own.
        is_image: raw values are pixels (C, H, W).
        lies_on_image: values are places on an image input, and follow it where it is moved.
        has_classes: named classes or tags, in `FeatureSchema.classes`; a target gives an output
            for each.
        is_one_class: a value is one of these classes, as an id.
        has_ids: values as input are int64 ids, which a model embeds; 0 says nothing.
        is_sequence: rows have as many values as they have, and a batch is padded.
    """

    name: str
    settings: tuple[str, ...] = ()
    learned_as: str = ""
    no_input: str = ""
    is_number: bool = False
    is_quantity: bool = False
    is_image: bool = False
    lies_on_image: bool = False
    has_classes: bool = False
    is_one_class: bool = False
    has_ids: bool = False
    is_sequence: bool = False

    @property
    def has_tags(self) -> bool:
        """Whether a value has any number of the classes, also none."""
        return self.has_classes and not self.is_one_class


KINDS: dict[str, Facts] = {
    facts.name: facts
    for facts in (
        Facts(
            "image",
            ("size", "channels", "dtype", "background", "preprocess", "statistics"),
            is_image=True,
        ),
        Facts(
            "category",
            ("vocabulary", "labels"),
            learned_as="category",
            has_classes=True,
            is_one_class=True,
            has_ids=True,
        ),
        Facts("number", ("missing", "unit"), learned_as="number", is_number=True, is_quantity=True),
        Facts(
            "points",
            ("image", "swap", "normalise_by"),
            learned_as="points",
            is_number=True,
            lies_on_image=True,
        ),
        Facts(
            "text",
            ("tokens", "ngrams", "lowercase", "min_count", "max_vocabulary"),
            has_ids=True,
            is_sequence=True,
        ),
        Facts(
            "labels",
            ("separator", "labels"),
            learned_as="labels",
            no_input="read the column as text, whose tokens are what a cell holds",
            has_classes=True,
        ),
    )
}
"""By name, in the order in which messages and the recipe's JSON Schema list them."""


class _Registered:
    """A name in `KINDS`, for pydantic."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(_check)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": [*KINDS], "type": "string"}


KindName = Annotated[str, _Registered]
"""The name of a registered kind."""


def _check(name: object) -> str:
    """Refuse the name of no kind as pydantic refuses what is none of a Literal."""
    if isinstance(name, str) and name in KINDS:
        return name
    *others, last = map(repr, KINDS)
    expected = f"{', '.join(others)} or {last}"
    raise PydanticCustomError(
        "literal_error", "Input should be {expected}", {"expected": expected, "legal": [*KINDS]}
    )
