"""What a pickle of `torch.save` would build, found out by a walk over its opcodes that builds and calls nothing.

`torch.load(weights_only=True)` already refuses globals that are not on its list. This walk comes before it, because
that list holds more than weights need (`torch.Tensor(10**12)` is a legal call there), because it names the first global
only, and because it reserves memory for a storage before it looks whether the file has so many bytes. Here every call
has to be one of those that dense tensors and plain values are written with, and every tensor has to lie inside its
storage. Opcodes: `pickletools` of the standard library.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from typing import IO, Any, NamedTuple, cast

import torch

from ..errors import SourceError

MOST_OPCODES = 2_000_000
MOST_VALUES = 2_000_000
MOST_LINE_BYTES = 100_000
# How often tensors may use a storage's bytes, and what expanded tensors may have beyond that.
MOST_SHARING, MOST_EXPANDED_BYTES = 8, 1 << 28
DEEPEST = 64
MOST_DIMENSIONS = 64
# Opcodes of protocol 2, the one that torch.save writes and the only one that torch's safe loader reads.
LOADABLE = frozenset(
    """
    PROTO STOP MARK GLOBAL REDUCE NEWOBJ BUILD APPEND APPENDS SETITEM SETITEMS TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWFALSE
    NEWTRUE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING
    BINPERSID BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1
    """.split()  # noqa: SIM905 - a list of so many words is read better as text
)
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
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_SCALARS = (str, int, float, bytes, complex, type(None))


class Storage(NamedTuple):
    """A block of bytes that tensors lie in; `key` names it in the file."""

    key: str
    dtype: torch.dtype
    num_bytes: int


class TensorEntry(NamedTuple):
    """A dense tensor that the pickle rebuilds over a storage."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Of its values: more than its storage has where it is expanded."""
        return math.prod(self.shape) * self.dtype.itemsize


class Mapping(list[tuple[Any, Any]]):
    """A dict of the pickle as its pairs: keys of a hostile file are not hashed here."""


class Scan(NamedTuple):
    """What one pickle holds: its value, in the types above and plain ones, and the storages that it names."""

    value: Any
    storages: dict[str, Storage]


class _Global(NamedTuple):
    name: str


class _Unknown:
    """What a global that is not allowed would have made."""


_UNKNOWN = _Unknown()


def scan_pickle(file: IO[bytes], place: str) -> Scan:
    """Walk over one pickle, to its end and no further.

    Args:
        file: stands at the pickle's beginning, and behind its last byte afterwards.
        place: the file, for messages.
    Raises:
        SourceError: it asks for a global, a call or an opcode that weights do not need (names all the globals); a
            tensor does not lie inside its storage; it is torn, too large or too deep.
    """
    machine = _Machine()
    problem = ""
    try:
        machine.run(_Reader(file))
        _check_tree(machine.value)
        _check_size(machine)
    except _MalformedError as error:
        problem = str(error)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        problem = f"its pickle is torn or no pickle: {str(error) or type(error).__name__}"
    if machine.wanted:
        names = ", ".join(sorted(machine.wanted)[:8])
        raise SourceError(
            f"{place} is refused: loading it would run or build {names}, and weights need no code; nothing was run. "
            f"Its owner can convert it where it was made: torch.save(model.state_dict(), 'weights.pt'), numbers as "
            f"float(x) or int(x)"
        )
    if problem:
        raise SourceError(f"{place} is refused: {problem}")
    if odd := machine.opcodes - LOADABLE:
        raise SourceError(
            f"{place} is refused: a pickle with {', '.join(sorted(odd)[:5])}, which torch's safe loader does not read; "
            f"its owner can save it again with torch.save(state, path), without pickle_protocol"
        )
    return Scan(machine.value, machine.storages)


def wanted_by_plain_pickle(file: IO[bytes]) -> list[str]:
    """What a pickle that torch.save did not write would import; empty where the bytes are no whole pickle."""
    machine = _Machine()
    try:
        machine.run(_Reader(file))
    except (_MalformedError, ValueError, IndexError, KeyError, TypeError, OverflowError):
        return []
    return sorted(machine.wanted) if not file.read(1) else []


class _Reader:
    """Gives no more than there is: a file's own `read` reserves memory for as many bytes as it is asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        here = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(here)

    def read(self, size: int) -> bytes:
        """Up to so many bytes."""
        return self._file.read(max(0, min(size, self._end - self._file.tell())))

    def readline(self) -> bytes:
        """A line, or its beginning."""
        return self._file.readline(MOST_LINE_BYTES)

    def tell(self) -> int:
        """The position in the file."""
        return self._file.tell()


class _MalformedError(Exception):
    """Says what is wrong, for the message."""


class _Machine:
    """A stack machine like pickle's, over stand-ins."""

    def __init__(self) -> None:
        self.value: Any = None
        self.storages: dict[str, Storage] = {}
        self.wanted: set[str] = set()
        self.opcodes: set[str] = set()
        self.num_bytes = 0
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: _Reader) -> None:
        """Follow the opcodes up to STOP."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
            if number > MOST_OPCODES:
                raise _MalformedError(f"its pickle has more than {MOST_OPCODES:,} opcodes, far more than weights need")
            self.opcodes.add(opcode.name)
            if opcode.name == "STOP":
                self.value = self._stack.pop()
                return
            _STEPS.get(opcode.name, _push)(self, argument)

    def pop_to_mark(self) -> list[Any]:
        """What stands above the last mark."""
        items, self._stack = self._stack, self._marks.pop()
        return items

    def mark(self, argument: Any) -> None:
        """Begin a new part of the stack."""
        self._marks.append(self._stack)
        self._stack = []

    def push(self, value: Any) -> None:
        """Onto the stack."""
        self._stack.append(value)

    def pop(self, argument: Any = None) -> Any:
        """Off the stack; an empty part of it ends with its mark."""
        if not self._stack and self._marks:
            return self.pop_to_mark()
        return self._stack.pop()

    def top(self) -> Any:
        """Of the stack."""
        return self._stack[-1]

    def put(self, argument: Any) -> None:
        """Remember the top under a number."""
        self._memo[len(self._memo) if argument is None else int(argument)] = self._stack[-1]

    def get(self, argument: Any) -> None:
        """Push what was remembered."""
        self._stack.append(self._memo[int(argument)])

    def extend(self, items: list[Any]) -> None:
        """Add to the list or set on top."""
        if isinstance(target := self.top(), list) and not isinstance(target, Mapping):
            target.extend(items)
        elif not isinstance(target, _Unknown):
            raise _MalformedError(f"its pickle appends to a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        """Add keys and values in turn to the dict on top."""
        target = self.top()
        if isinstance(target, _Unknown):
            return
        if not isinstance(target, Mapping):
            raise _MalformedError(f"its pickle sets keys of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _check_key(key)
            target.append((key, value))

    def find(self, module: Any, name: Any) -> None:
        """Push a global by name, without importing it."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise _MalformedError("its pickle names a global with something other than text")
        full = f"{_RENAMED.get(module, module)}.{name}"
        if full in _CALLS or full in STORAGES or full in DTYPES:
            self.push(_Global(full))
        else:
            self.wanted.add(full)
            self.push(_UNKNOWN)

    def call(self, function: Any, arguments: Any) -> None:
        """Push what a call would give."""
        if isinstance(function, _Unknown):
            self.push(_UNKNOWN)
            return
        if not isinstance(function, _Global) or function.name not in _CALLS:
            raise _MalformedError(f"its pickle calls {_describe(function)}, which is no function that rebuilds weights")
        if not isinstance(arguments, tuple):
            raise _MalformedError(f"its pickle calls {function.name} with no tuple of arguments")
        made = _CALLS[function.name](function.name, arguments)
        if isinstance(made, TensorEntry) and made is not arguments[0]:
            self.num_bytes += made.num_bytes
        self.push(made)

    def build(self, state: Any) -> None:
        """Set attributes of the top: only a state_dict has some, the versions of its modules."""
        target = self.top()
        if isinstance(target, _Unknown):
            return
        names = [key for key, _ in state] if isinstance(state, Mapping) else [None]
        if not isinstance(target, Mapping) or names not in ([], ["_metadata"]):
            raise _MalformedError(f"its pickle sets attributes of {_describe(target)}")

    def find_storage(self, identifier: Any) -> None:
        """Push the storage that a persistent id names."""
        if isinstance(identifier, _Unknown) or self.wanted:
            self.push(_UNKNOWN)
            return
        storage = _as_storage(identifier)
        known = self.storages.setdefault(storage.key, storage)
        if known.num_bytes != storage.num_bytes:
            raise _MalformedError(f"storage {storage.key!r} has two sizes")
        self.push(storage)


def _push(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _collect(size: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, argument: Any) -> None:
        items = [machine.pop() for _ in range(size)]
        machine.push(tuple(reversed(items)))

    return step


def _make_dict(machine: _Machine, argument: Any) -> None:
    items = machine.pop_to_mark()
    machine.push(Mapping())
    machine.set_items(items)


def _set_item(machine: _Machine, argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append(machine: _Machine, argument: Any) -> None:
    value = machine.pop()
    machine.extend([value])


def _reduce(machine: _Machine, argument: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _reduce_with_names(machine: _Machine, argument: Any) -> None:
    machine.pop()
    _reduce(machine, argument)


def _named_global(machine: _Machine, argument: Any) -> None:
    machine.find(*argument.split(" ", 1))


def _stacked_global(machine: _Machine, argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.find(module, name)


def _make_instance(machine: _Machine, argument: Any) -> None:
    items = machine.pop_to_mark()
    machine.find(*argument.split(" ", 1))
    machine.call(machine.pop(), tuple(items))


def _make_object(machine: _Machine, argument: Any) -> None:
    kind, *items = machine.pop_to_mark()
    machine.call(kind, tuple(items))


def _extension(machine: _Machine, argument: Any) -> None:
    machine.wanted.add(f"extension {argument} of copyreg")
    machine.push(_UNKNOWN)


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), lambda machine, argument: None),
    "NONE": lambda machine, argument: machine.push(None),
    "NEWTRUE": lambda machine, argument: machine.push(True),
    "NEWFALSE": lambda machine, argument: machine.push(False),
    "EMPTY_TUPLE": lambda machine, argument: machine.push(()),
    "EMPTY_LIST": lambda machine, argument: machine.push([]),
    "EMPTY_SET": lambda machine, argument: machine.push([]),
    "EMPTY_DICT": lambda machine, argument: machine.push(Mapping()),
    "MARK": _Machine.mark,
    "POP": lambda machine, argument: (machine.pop(), None)[1],
    "POP_MARK": lambda machine, argument: (machine.pop_to_mark(), None)[1],
    "DUP": lambda machine, argument: machine.push(machine.top()),
    "TUPLE": lambda machine, argument: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": _collect(1),
    "TUPLE2": _collect(2),
    "TUPLE3": _collect(3),
    "LIST": lambda machine, argument: machine.push(machine.pop_to_mark()),
    "FROZENSET": lambda machine, argument: machine.push(machine.pop_to_mark()),
    "DICT": _make_dict,
    "APPEND": _append,
    "APPENDS": lambda machine, argument: machine.extend(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, argument: machine.extend(machine.pop_to_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, argument: machine.set_items(machine.pop_to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _named_global,
    "STACK_GLOBAL": _stacked_global,
    "INST": _make_instance,
    "OBJ": _make_object,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _reduce_with_names,
    "BUILD": lambda machine, argument: machine.build(machine.pop()),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
    "PERSID": lambda machine, argument: machine.find_storage(argument),
    "BINPERSID": lambda machine, argument: machine.find_storage(machine.pop()),
}


def _as_storage(identifier: Any) -> Storage:
    """Read ("storage", type, key, device, number of elements), in the older format with None at its end."""
    match identifier:
        case ("storage", _Global(kind), str(key), str(), int(count), *view) if kind in STORAGES and count >= 0:
            if view not in ([], [None]):
                raise _MalformedError(f"storage {key!r} is a view of another, which only files of 2016 have")
            return Storage(key, STORAGES[kind], count * STORAGES[kind].itemsize)
    raise _MalformedError("its pickle has a persistent id that is no storage of a tensor")


def _rebuild_tensor(name: str, arguments: tuple[Any, ...]) -> TensorEntry:
    """`_rebuild_tensor(storage, offset, shape, stride)`; v2 and v3 have more, and may have no hooks."""
    storage, offset, shape, stride, *rest = arguments
    if any(isinstance(one, _Unknown) for one in (storage, *rest)):
        return TensorEntry(torch.uint8, ())
    if not isinstance(storage, Storage):
        raise _MalformedError(f"{name} gets no storage")
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = DTYPES[rest[2].name]
    hooks = rest[1] if rest else Mapping()
    conjugates = rest[3:] if name.endswith("_v3") else rest[2:]
    if hooks not in (None, Mapping()) or any(one not in (None, Mapping()) for one in conjugates):
        raise _MalformedError(f"{name} gets hooks or marks, which dense weights do not have")
    for numbers in (shape, stride):
        if not isinstance(numbers, tuple) or len(numbers) > MOST_DIMENSIONS or not all(map(_is_count, numbers)):
            raise _MalformedError(f"{name} gets {_describe(numbers)} for a shape or a stride")
    if len(shape) != len(stride) or not _is_count(offset):
        raise _MalformedError(f"{name} gets {len(shape)} dimensions, {len(stride)} strides, offset {offset!r}")
    size = math.prod(shape)
    last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True)) if size else -1
    room = storage.num_bytes // dtype.itemsize
    if last >= room:
        raise _MalformedError(
            f"a tensor of shape {list(shape)}, strides {list(stride)}, offset {offset} does not lie in its storage "
            f"{storage.key!r} of {room:,} elements"
        )
    return TensorEntry(dtype, shape)


def _rebuild_parameter(name: str, arguments: tuple[Any, ...]) -> Any:
    data, _, hooks = arguments
    if hooks != Mapping() or not isinstance(data, TensorEntry | _Unknown):
        raise _MalformedError(f"{name} gets no tensor, or hooks")
    return data


def _make_mapping(name: str, arguments: tuple[Any, ...]) -> Mapping:
    """`OrderedDict()`, `OrderedDict([[key, value], …])`, `Counter({…})`."""
    made = Mapping()
    (pairs,) = arguments or ((),)
    for pair in pairs:
        key, value = pair
        _check_key(key)
        made.append((key, value))
    return made


def _make_set(name: str, arguments: tuple[Any, ...]) -> list[Any]:
    (items,) = arguments
    if not isinstance(items, list) or not all(isinstance(item, _SCALARS) for item in items):
        raise _MalformedError("a set with something other than numbers and texts")
    return items


def _make_plain(name: str, arguments: tuple[Any, ...]) -> Any:
    """`torch.Size((2, 3))`, `torch.device("cuda", 0)`, `complex(1.0, 2.0)`: small, and without a side effect."""
    flat = arguments[0] if name == "torch.Size" and len(arguments) == 1 else arguments
    if len(flat) > MOST_DIMENSIONS or not all(isinstance(item, str | int | float) for item in flat):
        raise _MalformedError(f"{name} gets {_describe(arguments)}")
    return flat


def _encode(name: str, arguments: tuple[Any, ...]) -> bytes:
    """How protocol 2 writes bytes."""
    match arguments:
        case (str(text), "latin1"):
            return text.encode("latin1")
    raise _MalformedError(f"{name} gets {_describe(arguments)}")


_CALLS: dict[str, Callable[[str, tuple[Any, ...]], Any]] = {
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


def _check_key(key: Any) -> None:
    """Keys that nest would be hashed by recursion, in C and without a limit."""
    if not isinstance(key, (*_SCALARS, _Unknown)):
        raise _MalformedError(f"a dict has a key that is neither text nor number but {_describe(key)}")


def _check_tree(value: Any) -> None:
    """Bound what stands in the pickle, counted as often as it is reached: so loops and doublings end too."""
    waiting, count = [(value, 0)], 0
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, TensorEntry | Storage | _Global) or not isinstance(one, list | tuple):
            continue
        count += len(one)
        if depth > DEEPEST:
            raise _MalformedError(f"its values are nested more than {DEEPEST} deep, or contain themselves")
        if count > MOST_VALUES:
            raise _MalformedError(f"it has more than {MOST_VALUES:,} values, far more than weights need")
        inner = [item for _, item in one] if isinstance(one, Mapping) else one
        waiting.extend((item, depth + 1) for item in inner)


def _check_size(machine: _Machine) -> None:
    """Bound what copies would take: tensors may share a storage, and expanded ones are larger than theirs."""
    stored = sum(storage.num_bytes for storage in machine.storages.values())
    if machine.num_bytes > MOST_SHARING * stored + MOST_EXPANDED_BYTES:
        raise _MalformedError(f"its tensors would take {machine.num_bytes:,} bytes, and their storages have {stored:,}")


def _describe(value: Any) -> str:
    if isinstance(value, _Global):
        return value.name
    return repr(value) if isinstance(value, int | float | str) and len(repr(value)) < 80 else type(value).__name__
