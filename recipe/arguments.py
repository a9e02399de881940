"""Checks a recipe's arguments against the signature that will take them.

Values that no annotation can judge are left to the callers.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from ..errors import RecipeError, shown_value
from .model import nearest

# No number that stands for a rate, a size or a share is infinite, or none at all.
_STRICTLY = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)


def check_arguments(
    key: str,
    name: str,
    args: Mapping[str, Any],
    function: Callable[..., Any],
    filled: Collection[str] = (),
    typed: bool = True,
) -> None:
    """Refuse arguments that a function lacks, does not take or cannot use.

    Its annotations say which values it can use.

    Args:
        key: where the variant stands in the recipe, for example "train.schedule".
        name: the variant, for messages.
        args: the recipe's arguments.
        function: function or class that will get them by name.
        filled: parameters of the function that the caller gives itself; the recipe may not.
        typed: hold values against the annotations, by the strict rules of JSON: 1 is a float, "1"
            is not; and no number is infinite.
    Raises:
        RecipeError: names the key, the value and the nearest legal names, or the reason.
    """
    parameters = inspect.signature(function).parameters.values()
    named = {
        p.name: p
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in filled
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for arg, value in args.items():
        if arg in filled:
            raise RecipeError(
                f"{key}.args.{arg}: {shown_value(value)} is not the recipe's to give, {name} gets "
                "it; leave it out"
            )
        if arg not in named and not takes_any:
            hint = nearest(arg, named) if named else "it takes none"
            raise RecipeError(
                f"{key}.args.{arg} (value {shown_value(value)}): {name} takes no such argument; "
                f"{hint}"
            )
    for arg, parameter in named.items():
        if parameter.default is parameter.empty and arg not in args:
            raise RecipeError(f"{key}.args.{arg} is missing; {name} needs it and it has no default")
    if typed:
        _check_finite(f"{key}.args", args)
        _check_types(key, args, function)


def check_values(
    key: str, name: str, args: Mapping[str, Any], refusal: Callable[[dict[str, Any]], str]
) -> None:
    """Refuse values that only the taker of the arguments can judge.

    Args:
        key: where the variant stands in the recipe.
        name: the variant, for messages.
        args: the recipe's arguments.
        refusal: tries arguments and gives the reason why they are refused, or nothing.
    Raises:
        RecipeError: names the one argument without which there is no refusal, else all, with the
            reason.
    """
    reason = refusal(dict(args))
    if not reason:
        return
    guilty = [
        arg
        for arg in args
        if not refusal({other: value for other, value in args.items() if other != arg})
    ]
    place, value = (f".{guilty[0]}", args[guilty[0]]) if guilty else ("", dict(args))
    raise RecipeError(f"{key}.args{place}: got {shown_value(value)}; {name} refuses it: {reason}")


def _check_finite(key: str, value: Any) -> None:
    """Refuse infinities and NaN in arguments, whatever the annotations say."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{key}: got {value}; expected a finite number")
    inner = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, one in inner:
        _check_finite(f"{key}.{name}", one)


def _check_types(key: str, args: Mapping[str, Any], function: Callable[..., Any]) -> None:
    try:
        hints = get_type_hints(
            function.__init__ if isinstance(function, type) else function, include_extras=True
        )
    except NameError:
        return  # annotated with names that exist for type checkers alone
    for arg, value in args.items():
        try:
            text = json.dumps(value)
            TypeAdapter(hints[arg], config=_STRICTLY).validate_json(text, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]
            place = "".join(f".{part}" for part in problem["loc"] if isinstance(part, int))
            reason = problem["msg"][0].lower() + problem["msg"][1:]
            raise RecipeError(
                f"{key}.args.{arg}{place}: got {shown_value(value)}; {reason}"
            ) from error
        except (KeyError, TypeError, PydanticSchemaGenerationError):
            continue  # no annotation, or a value or annotation that JSON does not know
