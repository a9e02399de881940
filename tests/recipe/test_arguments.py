from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from torchrelay.errors import RecipeError
from torchrelay.recipe.arguments import check_arguments, check_values


def brew(
    water: float,
    cups: Annotated[int, Field(gt=0)] = 1,
    sizes: tuple[int, int] = (1, 2),
    beans: Any = None,
    plain=0,
) -> None:
    """A function as a recipe names one."""


def pour(water: float, **rest: Any) -> None:
    """A function that takes anything."""


def hidden(water: NoSuchName) -> None:  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
    """A function annotated with a name that does not exist at run time."""


def test_what_fits_is_accepted_with_whole_numbers_for_floats_and_lists_for_tuples() -> None:
    args = {"water": 1, "cups": 2, "sizes": [3, 4], "beans": object(), "plain": "x"}
    check_arguments("make", "brew", args, brew)
    check_arguments("make", "pour", {"water": 1, "milk": 3}, pour)
    check_arguments("make", "hidden", {"water": "deep"}, hidden)
    check_arguments("make", "brew", {"water": "1"}, brew, typed=False)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            {"water": 1, "cup": 3},
            r"^make\.args\.cup \(value 3\): brew takes no such argument; did you mean cups",
        ),
        ({}, r"^make\.args\.water is missing; brew needs it"),
        ({"water": "1"}, r"^make\.args\.water: got '1'; input should be a valid number$"),
        ({"water": True}, r"^make\.args\.water: got True; "),
        ({"water": 1, "cups": 0}, r"^make\.args\.cups: got 0; input should be greater than 0$"),
        ({"water": 1, "cups": 1.5}, r"^make\.args\.cups: got 1\.5; "),
        ({"water": 1, "sizes": [1, "2"]}, r"^make\.args\.sizes\.1: got \[1, '2'\]; "),
        ({"water": 1, "beans": 2}, r"^make\.args\.beans: 2 is not the recipe's to give"),
    ],
)
def test_what_does_not_fit_is_named_with_key_and_value(args: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_arguments("make", "brew", args, brew, filled=("beans",))


def test_a_refused_value_is_found_among_the_others() -> None:
    def refusal(args: dict[str, Any]) -> str:
        return "too hot" if args.get("heat", 0) > 9 else ""

    check_values("make", "brew", {"heat": 3}, refusal)
    with pytest.raises(RecipeError, match=r"^make\.args\.heat: got 10; brew refuses it: too hot$"):
        check_values("make", "brew", {"water": 1, "heat": 10}, refusal)
    with pytest.raises(
        RecipeError, match=r"^make\.args: got \{'water': 1\}; brew refuses it: always$"
    ):
        check_values("make", "brew", {"water": 1}, lambda args: "always")
