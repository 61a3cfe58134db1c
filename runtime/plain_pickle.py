"""Reading what a pickle says without doing it.

Unpickling runs a little program whose instructions may import and call anything. Here the program is only followed: what it would import is
a `Named`, what it would call a `Made`, what it would fetch from elsewhere a `Stored`. Nothing is imported or called, and nothing is
allocated that is larger than the pickle itself.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass

from ..core.errors import InputError, UntrustedError

_COPY_AGAIN = "copy or save the file again"
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Named:
    """Something a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Made:
    """Something a pickle would call or create: `what(*args)`, then given `state` and `items`."""

    what: object
    args: tuple[object, ...]
    state: object = None
    items: dict[object, object] | None = None

    def is_a(self, *names: str) -> bool:
        """Whether it is made by one of these."""
        return str(self.what) in names


@dataclass(frozen=True, eq=False)
class Stored:
    """Something kept outside of the pickle, by its id."""

    key: object


def follow(source: bytes | bytearray | io.BytesIO, where: str, *, stored: list[Stored] | None = None) -> object:
    """What the pickle describes; what it refers to outside of itself is added to `stored`. Of a stream, it reads one pickle.

    Raises InputError when it is damaged, UntrustedError when it takes instructions that tensors and plain values never need.
    """
    stream = source if isinstance(source, io.BytesIO) else io.BytesIO(source)
    machine = _Machine([] if stored is None else stored)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except _UnknownInstructionError as error:
        problem = f"is a pickled object (instruction {error}); reading it would execute code it contains"
        raise UntrustedError(where, problem, fix="save plain tensors only") from None
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise InputError(where, f"is a truncated or damaged pickle ({str(error)[:100]})", fix=_COPY_AGAIN) from None
    raise InputError(where, "is a truncated or damaged pickle (it has no end)", fix=_COPY_AGAIN)


def describe(value: object) -> str:
    """What a pickled value is, for errors: `a pickled torch.nn.modules.linear.Linear`."""
    if isinstance(value, Made):
        return f"a pickled {str(_origin(value) or 'object')[:80]}"
    return f"a reference to {value}"[:100] if isinstance(value, Named) else f"a {type(value).__name__}"


def _origin(value: object, depth: int = 5) -> Named | None:
    """The class or function that is behind a call, also where it is an argument, as of `copyreg._reconstructor` and `getattr`."""
    if isinstance(value, Named):
        return value
    if isinstance(value, Stored):
        # torch.save once kept the source code of a class beside its name.
        return _origin(value.key[1], depth - 1) if depth and isinstance(value.key, tuple) and len(value.key) > 1 else None
    if not isinstance(value, Made) or not depth:
        return None
    indirect = isinstance(value.what, Named) and value.what.module in {"copyreg", "copy_reg", "builtins", "__builtin__"}
    behind = _origin(value.args[0], depth - 1) if indirect and value.args else None
    return behind or _origin(value.what, depth - 1)


class _UnknownInstructionError(Exception):
    """An instruction that is not followed here."""


class _Machine:
    """The stack, marks and memo of an unpickler."""

    def __init__(self, stored: list[Stored]) -> None:
        self.stored = stored
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def step(self, name: str, argument: object) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack[-count:] = [tuple(self.peek(i) for i in range(-count, 0))]
        elif name not in {"PROTO", "FRAME"}:
            instruction = getattr(self, f"_{name.lower()}", None)
            if instruction is None:
                raise _UnknownInstructionError(name)
            instruction(argument)

    def pop(self) -> object:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise IndexError("the stack is empty")
        return self.stack.pop()

    def peek(self, index: int = -1) -> object:
        return self.stack[index]

    def since_mark(self) -> list[object]:
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def _mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: object) -> None:
        self.stack.append(tuple(self.since_mark()))

    def _append(self, _: object) -> None:
        value = self.pop()
        _list(self.peek()).append(value)

    def _appends(self, _: object) -> None:
        values = self.since_mark()
        _list(self.peek()).extend(values)

    _additems = _appends

    def _setitem(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        _items(self.peek())[key] = value

    def _setitems(self, _: object) -> None:
        pairs = self.since_mark()
        _items(self.peek()).update(zip(pairs[::2], pairs[1::2], strict=True))

    def _global(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self.stack.append(Named(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(Named(_text(module), _text(name)))

    def _reduce(self, _: object) -> None:
        args, what = self.pop(), self.pop()
        if not isinstance(args, tuple):
            raise TypeError("a call without arguments")
        self.stack.append(Made(what, args))

    _newobj = _reduce

    def _build(self, _: object) -> None:
        state, target = self.pop(), self.peek()
        if not isinstance(target, Made) or target.state is not None:
            raise TypeError("a state for something that takes none")
        target.state = state

    def _binpersid(self, _: object) -> None:
        found = Stored(self.pop())
        self.stored.append(found)
        self.stack.append(found)

    def _binput(self, argument: object) -> None:
        self.memo[_number(argument)] = self.peek()

    _long_binput = _binput

    def _memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.peek()

    def _binget(self, argument: object) -> None:
        self.stack.append(self.memo[_number(argument)])

    _long_binget = _binget


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("items for something that is no list")
    return value


def _items(value: object) -> dict[object, object]:
    if isinstance(value, Made):
        value.items = {} if value.items is None else value.items
        return value.items
    if not isinstance(value, dict):
        raise TypeError("items for something that is no dictionary")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name that is no text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("a memo without a number")
    return value
