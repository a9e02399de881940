"""The recipe's `preprocess` chain.

Checks the names and arguments of functions of scikit-image, and runs them.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import RecipeError, shown_value
from ...recipe import MOST_PIXELS, Feature, Named, check_arguments, nearest
from ..verdicts import quote
from .formats import BadImage, channels_first

PREPROCESS_MODULES = (
    "color",
    "exposure",
    "filters",
    "morphology",
    "restoration",
    "segmentation",
    "transform",
    "util",
)
# By which a picture may be enlarged.
MOST_SCALE = 1_000


def check_preprocess(feature: Feature) -> None:
    """Check names and arguments of the chain without running it.

    Raises:
        RecipeError: a name is no public function of the allowed modules, or its arguments do not
            fit.
    """
    for step in feature.preprocess:
        function = _preprocess_function(step.name)
        picture = next(iter(inspect.signature(function).parameters))
        check_arguments(
            f"preprocess.{step.name}", step.name, step.args, function, filled=(picture,)
        )
        _check_size(step)


def _check_size(step: Named) -> None:
    """Refuse to make pictures of which none would find room in memory."""
    for name, most in (("output_shape", MOST_PIXELS), ("scale", MOST_SCALE)):
        given = step.args.get(name, 1)
        factors = [
            float(one)
            for one in (given if isinstance(given, list) else [given])
            if isinstance(one, int | float)
        ]
        if math.prod(factors) > most:
            raise RecipeError(
                f"preprocess.{step.name}.args.{name}: got {shown_value(given)}; expected a product "
                f"of at most {most:,}"
            )


def run_preprocess(image: np.ndarray, feature: Feature) -> np.ndarray:
    """Run the chain on (H, W) or (H, W, C).

    (C, H, W) again.
    """
    pixels = np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    for step in feature.preprocess:
        try:
            pixels = np.asarray(_preprocess_function(step.name)(pixels, **step.args))
        except Exception as error:  # any of scikit-image's several hundred functions
            raise BadImage(
                f"preprocess {step.name} failed", said=f"{type(error).__name__}: {quote(error)}"
            ) from error
    return channels_first(pixels)


@functools.cache
def _preprocess_function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(".")
    if module in PREPROCESS_MODULES and function in _public_functions(module):
        return getattr(importlib.import_module(f"skimage.{module}"), function)
    near = [
        f"{module}.{function}"
        for module in PREPROCESS_MODULES
        for function in _public_functions(module)
    ]
    hint = nearest(
        name,
        difflib.get_close_matches(name, near, 3, 0.5) or [f"{one}.*" for one in PREPROCESS_MODULES],
    )
    raise RecipeError(f"preprocess: {name} is not a function of scikit-image; {hint}")


def _public_functions(module: str) -> list[str]:
    namespace = importlib.import_module(f"skimage.{module}")
    return [
        name
        for name in namespace.__all__
        if not name.startswith("_")
        and callable(one := getattr(namespace, name))
        and not inspect.isclass(one)
    ]
