"""Calls that repeat: what a Beta-1 function records for tiles of the same types it records again, with other buffers.

Kernels unroll to many calls of few kinds. The first call of a kind runs the function and its checks; if all it did was
to record instructions on its arguments and on new tiles, what it recorded is kept as a pattern. From then on a call of
this kind writes the pattern's words with its own buffers and offsets in them, for nothing else of it may differ: checks
and results depend on types, attributes and numbers, which are the key.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from enum import Enum
from operator import is_, itemgetter
from types import BuiltinFunctionType, FrameType, FunctionType, NoneType
from typing import TypeVar, cast

import numpy as np

from nkilite.beta1.index import LoopIndex
from nkilite.beta1.keywords import check_call
from nkilite.beta1.mask import Mask
from nkilite.beta1.tile import Tile, Unplaced, tile
from nkilite.beta1.zeros import Zeros
from nkilite.dtypes import DType
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS
from nkilite.ir.types import BufferKind, ViewType
from nkilite.trace import active
from nkilite.trace.builder import Builder
from nkilite.trace.tensor import NkiTensor

F = TypeVar("F", bound=Callable[..., object])

# Parameters that are no tiles.
_ATTRIBUTES = frozenset({
    "axes", "axis", "dge_mode", "dtype", "engine", "keepdims", "mask", "mode", "op", "op0", "op1", "oob_mode",
    "perf_mode", "reduce_cmd", "reduce_op", "tile_position", "tile_size",
})
# Classes of values that are part of a key as they are. Classes tell 1 from 1.0 and True.
_PLAIN = frozenset({
    int, LoopIndex, bool, str, NoneType, Mask, DType, type, FunctionType, BuiltinFunctionType, np.ufunc, type(np.max),
})


class Pattern:
    """What a call of a kind records.

    Attributes:
        tiles: types of its new tiles.
        words: makes the words of all its instructions of a pool: the place, the (buffer, offset) pairs of the tiles
            that are passed, the buffers of its new tiles, and constants.
        constants: the last of the pool.
        count: instructions.
        names: those that have one, counted from the first.
        result: the new tile it returns, the type of the view of it and the view's offset; None for no result.
        fresh: whether an assignment can let the last instruction write elsewhere.
        at: where the words of its only instruction have the only tile that it makes, which is its result; else -1.
    """

    __slots__ = ("at", "constants", "count", "fresh", "names", "result", "tiles", "words")

    tiles: tuple[ViewType, ...]
    words: Callable[[list[int]], tuple[int, ...]]
    constants: tuple[int, ...]
    count: int
    names: tuple[tuple[int, str], ...]
    result: tuple[int, ViewType, int] | None
    fresh: bool
    at: int


UNKNOWN = Pattern()  # of calls that may record something else each time
ONCE_MORE = Pattern()  # of calls of which the first may have made constants for all


def remembered(function: F) -> F:
    """A function that records calls like earlier ones of a kernel by their pattern.

    What stands for it is generated for its parameters: a key of types and attributes, one lookup, one record. A tile
    where an attribute is expected, or an attribute that cannot be told from another one by comparing it, only misses.
    """
    parameters = list(inspect.signature(function).parameters.values())
    header = "".join(p.name + (", " if p.default is p.empty else f"=d_{p.name}, ") for p in parameters)
    kinds, key, same, stored, pool = "", ["F"], [], [], ""
    for p in parameters:
        stored.append(f"w_{p.name}")
        if p.name in _ATTRIBUTES or isinstance(p.default, bool):
            key.append(f"{p.name}.__class__, {p.name}")
            found = p.name
        else:
            found = f"k_{p.name}"
            key.append(f"{found}.__class__, {found}")
            kinds += f"""
    {found} = {p.name}.kind if {p.name}.__class__ is T and {p.name}.mask is None else K({p.name})"""
            pool += f"""
        if {p.name}.__class__ is T:
            pool += ({p.name}.storage.open_id, {p.name}.offset)
        elif {p.name}.__class__ is Z:
            view = {p.name}.part
            pool += (view.storage.open_id, view.byte_offset)"""
        same.append(f"w_{p.name} is {found}" + ("" if p.default is False else f" or E(w_{p.name}, {found})"))
    values = "".join(f"{p.name}, " for p in parameters)
    found = "".join(f"k_{p.name}, " if f"k_{p.name} =" in kinds else f"{p.name}, " for p in parameters)
    source = f"""
def {function.__name__}({header}**others):
    if others:
        check(F, others)
    builder = current.builder
    if builder is None or not builder.records:
        return F({values}){kinds}
    frame = getframe(1)
    site = F, id(frame.f_code), frame.f_lasti
    known = builder.calls.get(site)
    if known:
        {", ".join(stored)}, pattern, place = known
        if ({") and (".join(same)}):
            pool = [place]
            try:{pool.replace(chr(10), chr(10) + "        ")}
                return again(builder, pattern, pool)
            except AttributeError:  # a tensor of another kernel
                return F({values})
    pool = [0]
    try:
        pattern = builder.patterns[{", ".join(key)}]{pool}
    except (KeyError, TypeError, AttributeError):  # new, or what cannot be part of a key, or a tensor of another kernel
        return compared(builder, F, ({values}), ({found}), site, frame)
    if known is None:
        keep(builder, site, ({found}), pattern, frame)
    pool[0] = builder.place(frame)
    return again(builder, pattern, pool)
"""
    namespace: dict[str, object] = {
        "F": function, "T": Tile, "Z": Zeros, "K": _kind, "E": _equal, "current": active.current, "again": _again,
        "compared": _compared, "keep": _keep, "check": check_call, "getframe": sys._getframe,
        **{f"d_{p.name}": p.default for p in parameters},
    }
    exec(compile(source, f"<nkilite Beta 1 {function.__name__}>", "exec"), namespace)
    made = cast(F, namespace[function.__name__])
    functools.update_wrapper(made, function)
    return made


def _kind(value: object) -> object:
    """What keys have of an argument other than a tile: the argument itself, or a type if it is a tile after all."""
    if value.__class__ is Unplaced:
        return value.nki.type
    if value.__class__ is Zeros and not value.pending() and value.mask is None:
        return value.part.type
    return value


class _Items(tuple[object, ...]):
    """What a list held."""


def _equal(known: object, found: object) -> bool:
    """Whether an argument that is not the one of an earlier call is another one like it."""
    cls = found.__class__
    if cls in _NUMBERS:
        return known.__class__ is cls and bool(known == found != 0)  # 0.0 and -0.0 are equal
    if isinstance(found, list):
        return isinstance(known, _Items) and len(known) == len(found) and all(map(is_, known, found))
    return known.__class__ is cls and _told_apart(found) and bool(known == found)


_NUMBERS = frozenset({float, np.float16, np.float32, np.float64})
_UNCHANGING = (float, np.generic, np.dtype, Enum)


def _stored(value: object) -> object:
    """An argument as it is compared with that of later calls. Raises TypeError if it may change, or is none."""
    if value.__class__ in _PLAIN or value.__class__ is ViewType or isinstance(value, _UNCHANGING):
        return value
    if value.__class__ is tuple and _PLAIN.issuperset(map(type, value)):
        return value
    if value.__class__ is list and _PLAIN.issuperset(map(type, value)):
        return _Items(value)
    raise TypeError


def _keep(
    builder: Builder, site: tuple[object, ...], kinds: tuple[object, ...], pattern: Pattern, frame: FrameType
) -> None:
    """The next call at a place with the same arguments can be recorded at once, if the place is the user's."""
    place = builder.place(frame)
    if builder.places[id(frame.f_code), frame.f_lasti] != place:
        builder.calls[site] = ()
        return
    try:
        builder.calls[site] = (*map(_stored, kinds), pattern, place)
    except TypeError:
        builder.calls[site] = ()


def _compared(
    builder: Builder,
    function: Callable[..., object],
    values: tuple[object, ...],
    kinds: tuple[object, ...],
    site: tuple[object, ...],
    frame: FrameType,
) -> object:
    """A call whose quick key is new, or means more than one call: by its full key, or by running the function.

    Args:
        kinds: the values, with types instead of tiles.
    """
    kind: list[object] = [function]
    pool = [0]
    exact = True
    try:
        for value in values:
            if value.__class__ is Tile or value.__class__ is Zeros:
                if value.mask is not None or (value.__class__ is Zeros and value.pending()):
                    return function(*values)
                view = value.nki
                kind.append(view.type)
                pool += (view.storage.open_id, view.byte_offset)
            elif value.__class__ in _PLAIN:
                kind += (value.__class__, value)
            else:
                kind += (value.__class__, _attribute(value))
                exact = exact and _told_apart(value)
    except (AttributeError, TypeError):  # a tensor of a kernel that has ended, or what is no attribute
        return function(*values)
    same = _same(pool)
    key = (*kind, same)
    pattern = cast("Pattern | None", builder.patterns.get(key))
    if pattern is None or pattern is ONCE_MORE:
        return _first(builder, key, pool, frame, lambda: function(*values))
    if pattern is UNKNOWN:
        return function(*values)
    if same is None:
        if exact:
            quick = (function, *(part for k in kinds for part in (k.__class__, k)))
            builder.patterns[quick] = pattern
        if site not in builder.calls:
            _keep(builder, site, kinds, pattern, frame)
    pool[0] = builder.place(frame)
    return _again(builder, pattern, pool)


def _again(builder: Builder, pattern: Pattern, pool: list[int]) -> Tile | None:
    """Record a pattern with the place and the tiles of a call."""
    if pattern.at >= 0 and builder.nesting.innermost is None:
        pool.append(-1)
        pool += pattern.constants
        words = builder.words
        start = len(words)
        words += pattern.words(pool)
        program = builder.program
        if pattern.names:
            program.names[program.count] = pattern.names[0][1]
        program.count = count = program.count + 1
        if builder.unplaced is not None:
            builder.unplaced.settle()
        unplaced: Unplaced = Unplaced()
        unplaced.mask, unplaced.made, unplaced.kind = None, count, pattern.tiles[0]
        unplaced._words = builder, start, start + pattern.at, pool[0]
        builder.unplaced = unplaced
        return unplaced
    made: list[NkiTensor] = []
    for kind in pattern.tiles:
        view = builder.tile(kind, "", pool[0])
        made.append(view)
        pool.append(view.storage.id)
    pool += pattern.constants
    words = builder.words
    start = len(words)
    words += pattern.words(pool)
    program = builder.program
    for number, name in pattern.names:
        program.names[program.count + number] = name
    program.count = count = program.count + pattern.count
    if pattern.result is None:
        return None
    number, kind, offset = pattern.result
    view = made[number]
    if view.type is not kind or offset:
        view = NkiTensor.of(view.storage, kind, offset)
    found = tile(view)
    if pattern.fresh:
        found.made = count
        if pattern.count == 1:
            builder.last = count - 1, start
    return found


def _told_apart(value: object) -> bool:
    """Whether comparing an attribute and its class with another one tells them apart."""
    cls = value.__class__
    number = cls is float or isinstance(value, np.generic)
    return isinstance(value, (Enum, np.dtype)) or (cls is tuple and not value) or bool(number and value != 0)


def _attribute(value: object) -> object:
    """A value as a part of keys. Raises TypeError for what may change, or is no attribute."""
    if isinstance(value, (float, np.generic)):
        return value if value else repr(value)  # 0.0 and -0.0 are equal
    if isinstance(value, (tuple, list)):
        return tuple((item.__class__, item if item.__class__ in _PLAIN else _attribute(item)) for item in value)
    if isinstance(value, (Enum, np.dtype)):
        return value
    raise TypeError


# --- the first call of a kind ---------------------------------------------------------------------------------------


class _State:
    """What of a builder has changed since."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        program = builder.program
        self.words, self.count, self.buffers = len(builder.words), program.count, len(program.buffers)
        self.other = self._other()

    def _other(self) -> tuple[int, ...]:
        """Sizes of all that is neither an instruction nor a tile, and may only grow."""
        builder, program = self.builder, self.builder.program
        sets = sum(len(value) for value in builder.constants.values() if isinstance(value, set))
        return (
            len(builder.constants), sets, len(program.dependencies), len(builder.nesting),
            len(program.inputs), len(program.outputs),
        )

    def only_instructions(self) -> bool:
        """Whether nothing else has."""
        return self._other() == self.other and len(self.builder.words) > self.words


def _same(pool: list[int]) -> tuple[int, ...] | None:
    """Which of the tiles that are passed are one: the first position of each; None if all differ.

    Of tiles that are one it cannot be told which of them an instruction uses, and where others are, too, it does not
    matter.
    """
    pairs = list(zip(pool[1::2], pool[2::2], strict=True))
    first = tuple(map(pairs.index, pairs))
    return None if len(set(first)) == len(first) else first


def _first(
    builder: Builder, key: tuple[object, ...], pool: list[int], frame: FrameType, run: Callable[[], object]
) -> object:
    """Run a call, and keep what it records if another one of its kind can be recorded like it."""
    builder.settle()
    before = _State(builder)
    result = run()
    builder.settle()
    pairs = list(zip(pool[1::2], pool[2::2], strict=True))
    unknown = UNKNOWN if key in builder.patterns else ONCE_MORE
    builder.patterns[key] = _pattern(before, pairs, builder.place(frame), result) or unknown
    return result


def _pattern(before: _State, pairs: list[tuple[int, int]], place: int, result: object) -> Pattern | None:
    """The pattern of what has been recorded; None if a call of its kind may record something else."""
    builder = before.builder
    program = builder.program
    made = program.buffers[before.buffers :]
    location = program.locations[place]
    plain = all(
        b.kind is BufferKind.internal and b.region.on_chip and not b.name and b.address is None
        and b.location is location and b.type.problem is None for b in made
    )
    if not plain or not before.only_instructions():
        return None
    found = Pattern()
    found.tiles, found.count = tuple(b.type for b in made), program.count - before.count
    found.result, found.fresh = None, False
    found.names = tuple(
        (number, program.names[before.count + number]) for number in range(found.count)
        if before.count + number in program.names
    )
    if result is not None:
        if result.__class__ is not Tile or result.mask is not None or result.nki.index is not None:
            return None
        view = result.nki
        if view.storage.id < before.buffers or view.type.problem is not None:
            return None
        found.result = view.storage.id - before.buffers, view.type, view.byte_offset
        found.fresh = result.made == program.count
    sources = _sources(before, pairs, place)
    if sources is None:
        return None
    constants: dict[int, int] = {}
    fixed = 1 + 2 * len(pairs) + len(made)
    chosen = [s if s >= 0 else fixed + constants.setdefault(~s, len(constants)) for s in sources]
    found.words, found.constants = itemgetter(*chosen), tuple(constants)
    places = [at for at, source in enumerate(sources) if source == 1 + 2 * len(pairs)]
    single = found.fresh and found.count == len(made) == len(places) == 1
    found.at = places[0] if single and found.result == (0, found.tiles[0], 0) else -1
    return found


def _sources(before: _State, pairs: list[tuple[int, int]], place: int) -> list[int] | None:
    """Where the words come from: positions in the pool, or ~ the words themselves; None if that is not known."""
    program = before.builder.program
    words = before.builder.words[before.words :]
    passed = {pair: 1 + 2 * i for i, pair in enumerate(pairs)}
    kept = {value.storage.id for value in before.builder.constants.values() if isinstance(value, NkiTensor)}
    sources: list[int] = []
    start = 0
    while start < len(words):
        signature = program.signatures[words[start]]
        if words[start + 1] != place:
            return None
        own = [~word for word in words[start : start + signature.n_words]]
        own[1] = 0
        for operand in signature.operands:
            at = operand.word
            buffer, offset = words[start + at], words[start + at + 1]
            if buffer >= before.buffers:
                own[at] = 1 + 2 * len(pairs) + buffer - before.buffers
            elif (buffer, offset) in passed:
                own[at] = passed[buffer, offset]
                own[at + 1] = own[at] + 1
            elif buffer not in kept and program.buffers[buffer].kind is not BufferKind.registers:
                return None
        assert len(own) >= WORDS_BEFORE_ARGUMENTS
        sources += own
        start += signature.n_words
    return sources
