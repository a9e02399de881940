"""Models of the user's own, named `package.module:Class`.

They come from the working directory or from installed packages. Whether they fit the schema is
checked elsewhere.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import RecipeError, ShapeError, shown_value
from ..recipe import check_arguments, nearest
from ..schema import Schema
from .inputs import TORCHVISION

# Filled in from the schema where the signature has them and the recipe does not give them.
_FROM_SCHEMA = ("schema", "num_outputs", "num_classes", "in_channels")


def check_class(name: str, args: dict[str, Any]) -> None:
    """Refuse a class that cannot be imported, is no nn.Module, or does not fit.

    It does not fit if it does not take the recipe's arguments.

    Args:
        name: package.module:Class.
        args: the recipe's arguments.
    Raises:
        RecipeError: names the key, the value, and what went wrong where.
    """
    kind = _import_class(name)
    missing = {
        key: None
        for key in _FROM_SCHEMA
        if key in inspect.signature(kind).parameters and key not in args
    }
    check_arguments("model", name, missing | args, kind, typed=False)


def build_class(name: str, args: dict[str, Any], schema: Schema) -> nn.Module:
    """Build the class with the recipe's arguments and parts of the schema.

    Its signature says which parts it wants.

    Raises:
        RecipeError: see `check_class`; or the constructor raises.
        ShapeError: the class asks for in_channels and the inputs do not have exactly one image.
    """
    kind = _import_class(name)
    known: dict[str, Any] = {
        "schema": schema,
        "num_outputs": schema.num_outputs,
        "num_classes": schema.num_outputs,
    }
    images = [feature for feature in schema.inputs if feature.facts.is_image]
    if len(images) == 1:
        known["in_channels"] = images[0].shape[0]
    wanted = [
        key for key in _FROM_SCHEMA if key in inspect.signature(kind).parameters and key not in args
    ]
    if "in_channels" in wanted and "in_channels" not in known:
        kinds = ", ".join(f"{feature.name} ({feature.kind})" for feature in schema.inputs)
        raise ShapeError(
            f"model.name: {name} asks for in_channels, which one image has; data.inputs has "
            f"{kinds}; "
            f"give model.args.in_channels, or let the class take schema"
        )
    try:
        return kind(**{key: known[key] for key in wanted}, **args)
    except Exception as error:
        raise RecipeError(
            f"model.args: {name} refuses {shown_value(args)}: {_explain(error)}"
        ) from error


def module_of(name: str) -> str:
    """The module that a model's name makes torchrelay import.

    Empty for a model that is registered here.
    """
    module, _, class_name = name.partition(":")
    return "" if not module or not class_name or name.startswith(TORCHVISION) else module


def locate_module(name: str) -> str:
    """Find the file of a module without importing it or a package above it.

    Empty if there is none.
    """
    _look_here()
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first) if first else None
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return ""
            spec = PathFinder.find_spec(
                f"{spec.name}.{part}", list(spec.submodule_search_locations)
            )
    except (ImportError, ValueError):
        return ""
    return "" if spec is None else str(spec.origin or "")


def _look_here() -> str:
    """Let Python find modules in the working directory too."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(
            here
        )  # at the end: a folder here must not hide an installed package of its name
    importlib.invalidate_caches()
    return here


def _import_class(name: str) -> type[nn.Module]:
    module_name, _, class_name = name.partition(":")
    here = _look_here()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise RecipeError(
                f"model.name: {name!r}: there is no module {error.name}, neither in {here} nor "
                "installed; "
                f"expected package.module:Class"
            ) from error
        raise RecipeError(
            f"model.name: {name!r}: importing {module_name} failed: {_explain(error)}"
        ) from error
    except Exception as error:
        raise RecipeError(
            f"model.name: {name!r}: importing {module_name} failed: {_explain(error)}"
        ) from error
    kind = getattr(module, class_name, None)
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        models = [
            key
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, nn.Module)
        ]
        what = (
            "has no such class"
            if kind is None
            else f"{class_name} is no subclass of torch.nn.Module"
        )
        hint = nearest(class_name, models) if models else "it defines no model"
        raise RecipeError(
            f"model.name: {name!r}: {getattr(module, '__file__', module_name)}: {what}; {hint}"
        )
    return kind


def _explain(error: Exception) -> str:
    """Describe an exception of the user's code.

    Gives its kind, its message, and the last line that it came through.
    """
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
