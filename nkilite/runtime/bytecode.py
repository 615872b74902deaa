"""What a function names: globals and closure variables with the attributes that follow, read off its bytecode.

Everything else bytecode does works on values it has already, so that these names, and what they lead to, are all a
function can reach. Names that lead further than that (imports, frames, namespaces, getattr with a computed name) are
refusals: whoever asks has to do without an answer.
"""

from __future__ import annotations

import dis
import re
import types
from collections.abc import Iterator
from typing import NamedTuple


class Access(NamedTuple):
    """A variable that is loaded.

    Attributes:
        cell: it is a closure variable, else a global or builtin one.
        path: the attributes loaded from it at once, `b` and `c` of `a.b.c`.
    """

    name: str
    cell: bool
    path: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        return ".".join((self.name, *self.path))


class Refusal(NamedTuple):
    """A name that leads anywhere, as a phrase, and the line."""

    what: str
    line: int


class Names(NamedTuple):
    """What a code object, and those nested in it, name.

    Attributes:
        of_definitions: whether the names of functions and classes are asked for (`__name__`).
    """

    accesses: tuple[Access, ...]
    refusals: tuple[Refusal, ...]
    of_definitions: bool


_NAMES_OF_DEFINITIONS = {"__name__", "__qualname__"}
# Special methods and the like: they are members of classes, which are looked at as a whole.
_SPECIAL = (
    {n for kind in (object, int, float, list, dict, set, str, slice) for n in dir(kind)}
    | {"__enter__", "__exit__", "__call__", "__post_init__", "__get__", "__set__", "__delete__", "__set_name__",
       "__missing__", "__next__", "__bool__", "__index__", "__round__", "__matmul__", "__rmatmul__", "__imatmul__",
       "__array_priority__", "__class_getitem__", "__fields__"}
    | _NAMES_OF_DEFINITIONS
) - {
    "__dict__", "__dir__", "__doc__", "__getattribute__", "__getnewargs__", "__getstate__", "__module__",
    "__reduce__", "__reduce_ex__", "__sizeof__", "__subclasshook__", "__init_subclass__",
}
_FRAMES = {
    "ag_frame", "cr_frame", "f_back", "f_builtins", "f_code", "f_globals", "f_locals", "gi_frame", "gi_yieldfrom",
    "mro", "tb_frame", "tb_next",
}
_BY_NAME = {"getattr", "hasattr", "setattr", "delattr"}
_FORMATS_ATTRIBUTES = re.compile(r"\{[^{}:!]*[.\[]")

_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_CELLS = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_CHECKED_ATTRIBUTES = {"LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD", "STORE_ATTR", "DELETE_ATTR"}
_HARMLESS = {
    "DELETE_DEREF", "DELETE_GLOBAL", "DELETE_NAME", "LOAD_CLOSURE", "MAKE_CELL", "STORE_DEREF", "STORE_GLOBAL",
    "STORE_NAME",
}
_NAMED = {*dis.hasname, *dis.hasfree}
_UNORDERED = ("SWAP", "COPY", "ROT", "DUP", "JUMP", "FOR_ITER")  # what a position on the stack holds is lost track of

_known: dict[types.CodeType, Names] = {}
_KNOWN_AT_MOST = 20_000


def names_in(code: types.CodeType) -> Names:
    """What a function's code names."""
    found = _known.get(code)
    if found is None:
        accesses: dict[tuple[object, ...], Access] = {}
        refusals: list[Refusal] = []
        of_definitions = False
        for inner in _nested(code):
            reader = _Reader(inner, frozenset(code.co_freevars))
            for access in reader.accesses:
                accesses.setdefault(access[:3], access)
            refusals += reader.refusals
            of_definitions = of_definitions or reader.of_definitions
        if len(_known) >= _KNOWN_AT_MOST:
            _known.clear()
        found = _known[code] = Names(tuple(accesses.values()), tuple(refusals), of_definitions)
    return found


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


class _Reader:
    """Reads one code object."""

    def __init__(self, code: types.CodeType, free: frozenset[str]) -> None:
        self.accesses: list[Access] = []
        self.refusals: list[Refusal] = []
        self.of_definitions = False
        instructions = list(dis.get_instructions(code))
        line = code.co_firstlineno
        for position, instruction in enumerate(instructions):
            name, found = instruction.opname, instruction.argval
            line = _line(instruction) or line
            if name in _GLOBALS or (name in _CELLS and found in free):
                self._variable(instructions, position, line)
                if name == "LOAD_FROM_DICT_OR_DEREF":
                    self._refuse("a variable of a class body", line)
            elif name in _ATTRIBUTES or name in _CHECKED_ATTRIBUTES:
                self._attribute(found, line)
            elif name == "IMPORT_NAME":
                self._refuse(f"the import of {found!r} in a function", line)
            elif name == "IMPORT_FROM" or name in _CELLS or name in _HARMLESS:
                pass
            elif instruction.opcode in _NAMED:
                self._refuse(f"{found!r} ({name})", line)
            elif name == "LOAD_CONST" and isinstance(found, str) and _FORMATS_ATTRIBUTES.search(found):
                self._refuse(f"the format {found!r}, which looks attributes up", line)

    def _refuse(self, what: str, line: int) -> None:
        self.refusals.append(Refusal(what, line))

    def _variable(self, instructions: list[dis.Instruction], position: int, line: int) -> None:
        name = instructions[position].argval
        path = []
        for following in instructions[position + 1 :]:
            if following.opname not in _ATTRIBUTES:
                break
            path.append(following.argval)
        self.accesses.append(Access(name, instructions[position].opname in _CELLS, tuple(path), line))
        if name in _BY_NAME and not path:
            found = _literal_name(instructions, position)
            if found is None:
                self._refuse(f"{name}() with a computed name", line)
            else:
                self._attribute(found, line)

    def _attribute(self, name: str, line: int) -> None:
        if name in _NAMES_OF_DEFINITIONS:
            self.of_definitions = True
        if name in _FRAMES or (name.startswith("__") and name.endswith("__") and name not in _SPECIAL):
            self._refuse(f"the attribute {name!r}", line)


def _line(instruction: dis.Instruction) -> int | None:
    line: int | None = getattr(getattr(instruction, "positions", None), "lineno", None)
    if line is not None:
        return line
    start = instruction.starts_line
    return start if isinstance(start, int) and not isinstance(start, bool) else None


def _literal_name(instructions: list[dis.Instruction], position: int) -> str | None:
    """The second argument of the call of the function loaded at a position, if it is a string in the code."""
    depth = 0
    last: dict[int, dis.Instruction] = {}  # by position on the stack: the instruction that wrote it
    for instruction in instructions[position + 1 :]:
        name = instruction.opname
        if any(word in name for word in _UNORDERED):
            return None
        if name.startswith("CALL") and depth in (2, 3):
            found = last.get(2)
            if found is not None and found.opname == "LOAD_CONST" and isinstance(found.argval, str):
                return found.argval
            return None
        if name == "PRECALL":
            continue
        argument = instruction.arg if instruction.opcode >= dis.HAVE_ARGUMENT else None
        before = depth
        depth += dis.stack_effect(instruction.opcode, argument, jump=False)
        if name in ("LOAD_GLOBAL", "LOAD_ATTR") and depth - before == 2 - (name == "LOAD_ATTR"):
            return None  # pushes what a call takes, too: a call among the arguments
        if depth < 0:
            return None
        last[depth] = instruction
    return None
