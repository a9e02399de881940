"""What weights are pickled with.

Storages, and the calls that rebuild dense tensors and plain values, over stand-ins.

Nothing here builds a tensor or calls what a pickle names: each function checks the arguments that
it would get and gives a stand-in for the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

MOST_DIMENSIONS = 64
STORAGE_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}
STORAGES = {f"torch.{name}Storage": dtype for name, dtype in STORAGE_DTYPES.items()}
STORAGES["torch.storage.UntypedStorage"] = torch.uint8
DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
SCALARS = (str, int, float, bytes, complex, type(None))


class MalformedError(Exception):
    """Says what is wrong, for the message."""


class Storage(NamedTuple):
    """A block of bytes that tensors lie in.

    `key` names it in the file.
    """

    key: str
    dtype: torch.dtype
    num_bytes: int


class TensorEntry(NamedTuple):
    """A dense tensor that the pickle rebuilds over a storage."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Of its values.

        More than its storage has where it is expanded.
        """
        return math.prod(self.shape) * self.dtype.itemsize


class Mapping(list[tuple[Any, Any]]):
    """A dict of the pickle as its pairs.

    Keys of a hostile file are not hashed here.
    """


class Global(NamedTuple):
    """A class, function or dtype that the pickle names and that is allowed.

    It is not imported.
    """

    name: str


class Unknown:
    """What a global that is not allowed would have made."""


UNKNOWN = Unknown()


def as_storage(identifier: Any) -> Storage:
    """Read ("storage", type, key, device, number of elements), in the older
    format with None at its end.
    """
    match identifier:
        case ("storage", Global(kind), str(key), str(), int(count), *view) if (
            kind in STORAGES and count >= 0
        ):
            if view not in ([], [None]):
                raise MalformedError(
                    f"storage {key!r} is a view of another, which only files of 2016 have"
                )
            return Storage(key, STORAGES[kind], count * STORAGES[kind].itemsize)
    raise MalformedError("its pickle has a persistent id that is no storage of a tensor")


def _rebuild_tensor(name: str, arguments: tuple[Any, ...]) -> TensorEntry:
    """`_rebuild_tensor(storage, offset, shape, stride)`.

    V2 and v3 have more, and may have no hooks.
    """
    storage, offset, shape, stride, *rest = arguments
    if any(isinstance(one, Unknown) for one in (storage, *rest)):
        return TensorEntry(torch.uint8, ())
    if not isinstance(storage, Storage):
        raise MalformedError(f"{name} gets no storage")
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = DTYPES[rest[2].name]
    hooks = rest[1] if rest else Mapping()
    conjugates = rest[3:] if name.endswith("_v3") else rest[2:]
    if hooks not in (None, Mapping()) or any(one not in (None, Mapping()) for one in conjugates):
        raise MalformedError(f"{name} gets hooks or marks, which dense weights do not have")
    for numbers in (shape, stride):
        if (
            not isinstance(numbers, tuple)
            or len(numbers) > MOST_DIMENSIONS
            or not all(map(_is_count, numbers))
        ):
            raise MalformedError(f"{name} gets {describe(numbers)} for a shape or a stride")
    if len(shape) != len(stride) or not _is_count(offset):
        raise MalformedError(
            f"{name} gets {len(shape)} dimensions, {len(stride)} strides, offset {offset!r}"
        )
    size = math.prod(shape)
    last = (
        offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
        if size
        else -1
    )
    room = storage.num_bytes // dtype.itemsize
    if last >= room:
        raise MalformedError(
            f"a tensor of shape {list(shape)}, strides {list(stride)}, offset {offset} does not "
            "lie in its storage "
            f"{storage.key!r} of {room:,} elements"
        )
    return TensorEntry(dtype, shape)


def _rebuild_parameter(name: str, arguments: tuple[Any, ...]) -> Any:
    data, _, hooks = arguments
    if hooks != Mapping() or not isinstance(data, TensorEntry | Unknown):
        raise MalformedError(f"{name} gets no tensor, or hooks")
    return data


def _make_mapping(name: str, arguments: tuple[Any, ...]) -> Mapping:
    """`OrderedDict()`, `OrderedDict([[key, value], …])`, `Counter({…})`."""
    made = Mapping()
    (pairs,) = arguments or ((),)
    for pair in pairs:
        key, value = pair
        check_key(key)
        made.append((key, value))
    return made


def _make_set(name: str, arguments: tuple[Any, ...]) -> list[Any]:
    (items,) = arguments
    if not isinstance(items, list) or not all(isinstance(item, SCALARS) for item in items):
        raise MalformedError("a set with something other than numbers and texts")
    return items


def _make_plain(name: str, arguments: tuple[Any, ...]) -> Any:
    """`torch.Size((2, 3))`, `torch.device("cuda", 0)`, `complex(1.0, 2.0)`.

    Small, and without a side effect.
    """
    flat = arguments[0] if name == "torch.Size" and len(arguments) == 1 else arguments
    if len(flat) > MOST_DIMENSIONS or not all(isinstance(item, str | int | float) for item in flat):
        raise MalformedError(f"{name} gets {describe(arguments)}")
    return flat


def _encode(name: str, arguments: tuple[Any, ...]) -> bytes:
    """How protocol 2 writes bytes."""
    match arguments:
        case (str(text), "latin1"):
            return text.encode("latin1")
    raise MalformedError(f"{name} gets {describe(arguments)}")


CALLS: dict[str, Callable[[str, tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "collections.OrderedDict": _make_mapping,
    "collections.Counter": _make_mapping,
    "builtins.set": _make_set,
    "builtins.complex": _make_plain,
    "torch.Size": _make_plain,
    "torch.device": _make_plain,
    "_codecs.encode": _encode,
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def check_key(key: Any) -> None:
    """Keys that nest would be hashed by recursion, in C and without a limit."""
    if not isinstance(key, (*SCALARS, Unknown)):
        raise MalformedError(
            f"a dict has a key that is neither text nor number but {describe(key)}"
        )


def describe(value: Any) -> str:
    """A value in few words, for a message."""
    if isinstance(value, Global):
        return value.name
    return (
        repr(value)
        if isinstance(value, int | float | str) and len(repr(value)) < 80
        else type(value).__name__
    )
