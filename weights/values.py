"""Whether the values of a state_dict can be a model's.

Finite, and numbers of the class that the model keeps.

`load_state_dict` casts whatever comes: a complex weight loses its imaginary part, an integer one
becomes a float, and what is not a number is loaded as it is. Here such a state is refused before it
is loaded, by key and file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import SourceError

# Floats that are cast to each other. Smaller ones are numbers times a scale that stands elsewhere
# in their file.
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
RUNNING_VAR = "running_var"
MOST_NAMED = 5
REMEDY = "take an intact copy of it, or weights of another run or an earlier checkpoint"


def check_state(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str, remedy: str = REMEDY
) -> None:
    """Refuse a state_dict whose values cannot be those of a model.

    Args:
        own: parameters and buffers of the model, as it was built. What is infinite in them may be
            so in the state, as in a mask that a model keeps.
        state: what is to be loaded, by the same keys; keys that one side alone has, and tensors of
            another shape, are not looked at.
        place: the file, for the message.
        remedy: what to do.
    Raises:
        SourceError: a tensor is not finite, of another class of number than the model's (floating,
            integer, boolean, complex, quantised), or a negative variance; names the keys and what
            is wrong with each.
    """
    _refuse(
        {
            key: reason
            for key, value in state.items()
            if key in own and (reason := why_not(key, value, own[key]))
        },
        place,
        remedy,
    )


def check_finite(state: Mapping[str, Tensor], place: str, remedy: str = REMEDY) -> None:
    """Refuse a state_dict with values that are not finite, where it is not
    known which model it is of.

    Raises:
        SourceError: names the keys, and how many values of each are NaN or infinite. Zeros and
            minus infinities in two and more dimensions are a mask and no weights.
    """
    _refuse(
        {
            key: reason
            for key, value in state.items()
            if (reason := _why_not_finite(value)) and not _is_mask(value)
        },
        place,
        remedy,
    )


def why_not(key: str, value: Tensor, own: Tensor) -> str:
    """What keeps a tensor from being loaded in the place of a model's own.

    Empty where nothing does.
    """
    if value.is_quantized or class_of(value) != class_of(own):
        return (
            f"is {class_of(value)} ({_dtype(value)}), the model's is {class_of(own)} "
            f"({_dtype(own)})"
        )
    if value.shape != own.shape:
        return ""
    cast = value.to(own.dtype)
    if _is_suspect(cast) and not torch.equal(cast, own.to(cast.device)):
        allowed = cast == own.to(cast.device)  # infinite in the model as well
        if reason := _why_not_finite(cast.masked_fill(allowed, 0)):
            return (
                reason
                if _is_suspect(value)
                else f"{reason} once it is {_dtype(own)}, as the model's is"
            )
    if key.rpartition(".")[2] == RUNNING_VAR and bool((cast < 0).any()):
        return (
            f"has {int((cast < 0).sum()):,} negative values of {cast.numel():,}, and is a variance"
        )
    return ""


def class_of(value: Tensor) -> str:
    """What kind of number a tensor holds.

    Floating, integer, boolean, complex, quantised, or 8-bit floating.
    """
    if value.is_quantized:
        return "quantised"
    if value.is_complex():
        return "complex"
    if value.is_floating_point():
        return "floating" if value.dtype in FLOATS else "scaled floating"
    return "boolean" if value.dtype == torch.bool else "integer"


def _is_suspect(value: Tensor) -> bool:
    """Whether a tensor may hold what is not finite.

    One pass, and a sum that overflows is looked at again.
    """
    if value.is_quantized or value.dtype not in (*FLOATS, torch.complex64, torch.complex128):
        return False
    return not bool(value.sum(dtype=torch.float64 if _has_float64(value) else None).isfinite())


def _has_float64(value: Tensor) -> bool:
    return value.device.type != "mps" and not value.is_complex()


def _why_not_finite(value: Tensor) -> str:
    if not _is_suspect(value):
        return ""
    num_nan, num_bad = int(value.isnan().sum()), int((~value.isfinite()).sum())
    if not num_bad:
        return ""
    kinds = [
        f"{count:,} {what}"
        for count, what in ((num_nan, "NaN"), (num_bad - num_nan, "infinite"))
        if count
    ]
    return f"has {' and '.join(kinds)} of {value.numel():,} values"


def _is_mask(value: Tensor) -> bool:
    return (
        value.ndim > 1
        and not value.is_complex()
        and bool(((value == 0) | (value == -torch.inf)).all())
    )


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _refuse(odd: Mapping[str, str], place: str, remedy: str) -> None:
    if odd:
        named = "; ".join(f"{key} {reason}" for key, reason in list(odd.items())[:MOST_NAMED])
        more = f"; … ({len(odd):,} keys)" if len(odd) > MOST_NAMED else ""
        raise SourceError(f"{place} cannot be used: {named}{more}; {remedy}")
