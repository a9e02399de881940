"""What a pickle of `torch.save` would build, found out by a walk over its
opcodes that builds and calls nothing.

`torch.load(weights_only=True)` already refuses globals that are not on its list. This walk comes
before it, because that list holds more than weights need (`torch.Tensor(10**12)` is a legal call
there), because it names the first global only, and because it reserves memory for a storage before
it looks whether the file has so many bytes. Here every call has to be one of those that dense
tensors and plain values are written with, and every tensor has to lie inside its storage. Opcodes:
`pickletools` of the standard library.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import IO, Any, NamedTuple, cast

from ...errors import SourceError
from ..torch_private import METADATA
from .pickle_calls import (
    CALLS,
    DTYPES,
    STORAGES,
    UNKNOWN,
    Global,
    MalformedError,
    Mapping,
    Storage,
    TensorEntry,
    Unknown,
    as_storage,
    check_key,
    describe,
)

MOST_OPCODES = 2_000_000
MOST_VALUES = 2_000_000
MOST_LINE_BYTES = 100_000
# How often tensors may use a storage's bytes, and what expanded tensors may have beyond that.
MOST_SHARING, MOST_EXPANDED_BYTES = 8, 1 << 28
DEEPEST = 64
# Opcodes of protocol 2, the one that torch.save writes and the only one that torch's safe loader
# reads.
LOADABLE = frozenset(
    """
    PROTO STOP MARK GLOBAL REDUCE NEWOBJ BUILD APPEND APPENDS SETITEM SETITEMS
    TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWFALSE
    NEWTRUE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2
    BINFLOAT BINUNICODE SHORT_BINSTRING
    BINPERSID BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1
    """.split()  # noqa: SIM905 - a list of so many words is read better as text
)
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Scan(NamedTuple):
    """What one pickle holds.

    Its value (plain or of `pickle_calls.py`), and the storages that it names.
    """

    value: Any
    storages: dict[str, Storage]


def scan_pickle(file: IO[bytes], place: str) -> Scan:
    """Walk over one pickle, to its end and no further.

    Args:
        file: stands at the pickle's beginning, and behind its last byte afterwards.
        place: the file, for messages.
    Raises:
        SourceError: it asks for a global, a call or an opcode that weights do not need (names all
            the globals); a tensor does not lie inside its storage; it is torn, too large or too
            deep.
    """
    machine = _Machine()
    problem = ""
    try:
        machine.run(_Reader(file))
        _check_tree(machine.value)
        _check_size(machine)
    except MalformedError as error:
        problem = str(error)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        problem = f"its pickle is torn or no pickle: {str(error) or type(error).__name__}"
    if machine.wanted:
        names = ", ".join(sorted(machine.wanted)[:8])
        raise SourceError(
            f"{place} is refused: loading it would run or build {names}, and weights need no code; "
            "nothing was run. "
            "Its owner can convert it where it was made: torch.save(model.state_dict(), "
            "'weights.pt'), numbers as "
            f"float(x) or int(x)"
        )
    if problem:
        raise SourceError(f"{place} is refused: {problem}")
    if odd := machine.opcodes - LOADABLE:
        raise SourceError(
            f"{place} is refused: a pickle with {', '.join(sorted(odd)[:5])}, which torch's safe "
            "loader does not read; "
            f"its owner can save it again with torch.save(state, path), without pickle_protocol"
        )
    return Scan(machine.value, machine.storages)


def wanted_by_plain_pickle(file: IO[bytes]) -> list[str]:
    """What a pickle that torch.save did not write would import.

    Empty where the bytes are no whole pickle.
    """
    machine = _Machine()
    try:
        machine.run(_Reader(file))
    except (MalformedError, ValueError, IndexError, KeyError, TypeError, OverflowError):
        return []
    return sorted(machine.wanted) if not file.read(1) else []


class _Reader:
    """Gives no more than there is.

    A file's own `read` reserves memory for as many bytes as it is asked for.
    """

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
                raise MalformedError(
                    f"its pickle has more than {MOST_OPCODES:,} opcodes, far more than weights need"
                )
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
        """Off the stack.

        An empty part of it ends with its mark.
        """
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
        elif not isinstance(target, Unknown):
            raise MalformedError(f"its pickle appends to a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        """Add keys and values in turn to the dict on top."""
        target = self.top()
        if isinstance(target, Unknown):
            return
        if not isinstance(target, Mapping):
            raise MalformedError(f"its pickle sets keys of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            check_key(key)
            target.append((key, value))

    def find(self, module: Any, name: Any) -> None:
        """Push a global by name, without importing it."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise MalformedError("its pickle names a global with something other than text")
        full = f"{_RENAMED.get(module, module)}.{name}"
        if full in CALLS or full in STORAGES or full in DTYPES:
            self.push(Global(full))
        else:
            self.wanted.add(full)
            self.push(UNKNOWN)

    def call(self, function: Any, arguments: Any) -> None:
        """Push what a call would give."""
        if isinstance(function, Unknown):
            self.push(UNKNOWN)
            return
        if not isinstance(function, Global) or function.name not in CALLS:
            raise MalformedError(
                f"its pickle calls {describe(function)}, which is no function that rebuilds weights"
            )
        if not isinstance(arguments, tuple):
            raise MalformedError(f"its pickle calls {function.name} with no tuple of arguments")
        made = CALLS[function.name](function.name, arguments)
        if isinstance(made, TensorEntry) and made is not arguments[0]:
            self.num_bytes += made.num_bytes
        self.push(made)

    def build(self, state: Any) -> None:
        """Set attributes of the top.

        Only a state_dict has some, the versions of its modules.
        """
        target = self.top()
        if isinstance(target, Unknown):
            return
        names = [key for key, _ in state] if isinstance(state, Mapping) else [None]
        if not isinstance(target, Mapping) or names not in ([], [METADATA]):
            raise MalformedError(f"its pickle sets attributes of {describe(target)}")

    def find_storage(self, identifier: Any) -> None:
        """Push the storage that a persistent id names."""
        if isinstance(identifier, Unknown) or self.wanted:
            self.push(UNKNOWN)
            return
        storage = as_storage(identifier)
        known = self.storages.setdefault(storage.key, storage)
        if known.num_bytes != storage.num_bytes:
            raise MalformedError(f"storage {storage.key!r} has two sizes")
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
    machine.push(UNKNOWN)


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


def _check_tree(value: Any) -> None:
    """Bound what stands in the pickle, counted as often as it is reached.

    So loops and doublings end too.
    """
    waiting, count = [(value, 0)], 0
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, TensorEntry | Storage | Global) or not isinstance(one, list | tuple):
            continue
        count += len(one)
        if depth > DEEPEST:
            raise MalformedError(
                f"its values are nested more than {DEEPEST} deep, or contain themselves"
            )
        if count > MOST_VALUES:
            raise MalformedError(
                f"it has more than {MOST_VALUES:,} values, far more than weights need"
            )
        inner = [item for _, item in one] if isinstance(one, Mapping) else one
        waiting.extend((item, depth + 1) for item in inner)


def _check_size(machine: _Machine) -> None:
    """Bound what copies would take.

    Tensors may share a storage, and expanded ones are larger than theirs.
    """
    stored = sum(storage.num_bytes for storage in machine.storages.values())
    if machine.num_bytes > MOST_SHARING * stored + MOST_EXPANDED_BYTES:
        raise MalformedError(
            f"its tensors would take {machine.num_bytes:,} bytes, and their storages have "
            f"{stored:,}"
        )
