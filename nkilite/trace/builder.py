"""Receives the instructions of a running kernel, and records them."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Generator, Hashable, Sequence
from types import CodeType, FrameType
from typing import Protocol, cast

import numpy as np

from nkilite import dtypes
from nkilite.dimensions import Dim
from nkilite.errors import (
    DependencyOnLoop,
    InvalidOperand,
    NkiError,
    StaleTensor,
    TensorOfLoop,
    describe,
)
from nkilite.ir import limits
from nkilite.ir.definition import REGISTRY, Definition, Parameter, Role, Values
from nkilite.ir.meeting import ALONE, Core
from nkilite.ir.program import IMMEDIATE, Program, Signature
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion, ViewType
from nkilite.location import UNKNOWN, Location, is_internal
from nkilite.machine.engine import Engine
from nkilite.machine.registers import REGISTERS
from nkilite.machine.target import Target
from nkilite.trace.nesting import Nesting
from nkilite.trace.tensor import PASS_DATA, NkiTensor, is_grid, whole
from nkilite.trace.writers import Write, Writer

_NUMBERS = (int, float, np.integer, np.floating, np.bool_)


class NkiInstruction:
    """Handle of an instruction in the kernel being built."""

    __slots__ = ("builder", "index")

    builder: Builder
    index: int

    @classmethod
    def of(cls, builder: Builder, index: int) -> NkiInstruction:
        """No constructor, as of NkiTensor."""
        made = cls()
        made.builder, made.index = builder, index
        return made

    def depends_on(self, *producers: NkiInstruction) -> NkiInstruction:
        """Make this instruction run after each of the producers; returns itself.

        Raises:
            DependencyOnLoop: a producer is in the body of a loop that this instruction is not in.
        """
        for producer in producers:
            if producer is not None:
                self.builder.depend(self.index, producer.index)
        return self


class Unplaced(Protocol):
    """What the last instruction has made, if its tile has no buffer yet."""

    def settle(self) -> object:
        """Give it one, and take it from `Builder.unplaced`."""


class Builder:
    """What a kernel's front end writes to.

    Instructions are recorded in the program. `records` says that this is all: that instructions only need their words
    (buffer ids and offsets), not their tensors.

    Attributes:
        configs: those of the kernel that was launched, for kernels that it calls.
        dimensions: the dynamic dimensions of the launch, with their places among the sizes.
        sizes: of these, in HBM; None if there are none.
        prepared: the collective that is to be triggered next, if any.
        core: the core of the launch that is to run it.
        program: buffers, signatures and the instruction table, whose words are a list until the builder closes.
        nesting: the loops around what is recorded now.
        known: signatures already validated, by the argument types the instruction wrappers build.
        tiles: types of new tensors already validated, by the arguments of `nl.ndarray`.
        placed: types of tiles with addresses that suit them.
        words: the instruction table while it grows.
        sites: (signature id, location id) of calls in user code that were made before, by place and key of `known`;
            and who takes the words of their operands, unless all are tensors.
        patterns: what calls of functions record, by kind of call (nkilite/beta1/remembered.py); calls: by their place.
        unplaced: a result that an assignment may yet place, if there is one; placements: what instructions become
            that write elsewhere, by signature, type of what they write, and whether they add to it.
        places: location ids of places in user code, by (id of the code object, bytecode position); -1 for our own.
        last: an instruction, and the position of its words, where they are known.
        left: what is wrong if nothing follows: a Python loop over the turns of a loop has ended before them, or a
            collective that was prepared is not triggered.
    """

    records = False

    def __init__(self, name: str, target: Target, core: Core = ALONE) -> None:
        self.target, self.core = target, core
        self.records = self.records  # read for every instruction, and sooner found here than in the class
        self.program = Program(name, target, core.cores)
        self.words: list[int] = []
        self.program.code = self.words  # type: ignore[assignment]
        self.nesting = Nesting()
        self.known: dict[tuple[object, ...], Signature] = {}
        self.tiles: dict[tuple[object, ...], ViewType] = {}
        self.placed: set[tuple[ViewType, tuple[int, int]]] = set()
        self.constants: dict[object, NkiTensor] = {}
        self._registers: dict[str, NkiTensor] = {}
        self.places: dict[tuple[int, int], int] = {}
        self.sites: dict[tuple[object, ...], tuple[object, ...]] = {}
        self._writers: dict[tuple[object, ...], Writer] = {}
        self.patterns: dict[tuple[object, ...], object] = {}
        self.calls: dict[tuple[object, ...], tuple[object, ...]] = {}
        self.unplaced: Unplaced | None = None
        self.placements: dict[tuple[int, ViewType, bool], tuple[int, int] | None] = {}
        self._codes: dict[int, CodeType] = {}
        self.last = 0, 0
        self._elsewhere: dict[tuple[object, ...], tuple[int, int] | None] = {}
        self._asked: set[tuple[object, ...]] = set()
        self.left: list[NkiError] = []
        self.prepared: object = None
        self.configs: Hashable = None
        self.dimensions: dict[Dim, int] = {}
        self.sizes: NkiTensor | None = None

    # --- buffers --------------------------------------------------------------------------------------------------

    def allocate(
        self,
        region: MemoryRegion,
        shape: tuple[int, ...],
        dtype: dtypes.DType,
        name: str = "",
        kind: BufferKind = BufferKind.internal,
        address: tuple[int, int] | None = None,
        location: Location | None = None,
        data: object = None,
        dims: tuple[tuple[int, int], ...] = (),
    ) -> NkiTensor:
        """A tensor over a new buffer, made where the user's line is unless a location is given.

        Args:
            dims: its dynamic dimensions, see `Buffer`.
        """
        program = self.program
        if location is None:
            location = program.locations[self.place(sys._getframe(1))]
        loop = self.nesting.innermost if kind is BufferKind.internal else None
        buffer = program.add_buffer(region, shape, dtype, name, kind, address, location, data, loop, dims)
        self._allocated(buffer)
        return whole(buffer)

    def tile(self, type: ViewType, name: str, place: int, address: tuple[int, int] | None = None) -> NkiTensor:
        """A tensor of a checked type over a new internal buffer, at a location id: the usual case, made fast."""
        made = NkiTensor()
        made.storage, made.type = self.buffer(type, name, place, address), type
        made.byte_offset, made.index = 0, None
        return made

    def buffer(self, type: ViewType, name: str, place: int, address: tuple[int, int] | None = None) -> Buffer:
        """A new internal buffer of a checked type, at a location id."""
        program = self.program
        buffers = program.buffers
        buffer = Buffer.internal(len(buffers), type, name, address, program.locations[place], self.nesting.innermost)
        buffers.append(buffer)
        if not self.records:
            self._allocated(buffer)
        return buffer

    def registers(self, name: str) -> NkiTensor:
        """The registers of an engine that have this name in `REGISTERS`."""
        found = self._registers.get(name)
        if found is None:
            columns, dtype = REGISTERS[name]
            found = self._registers[name] = self.allocate(
                MemoryRegion.registers, (self.target.num_partitions, columns), dtype,
                name=f"{name}_registers", kind=BufferKind.registers, location=UNKNOWN,
            )
        return found

    def _allocated(self, buffer: Buffer) -> None:
        """Called for every new buffer."""

    def round_stochastically(self, source: NkiTensor, location: Location) -> None:
        """Set the engines' registers that decide how all that follows is rounded, at a line of the kernel."""
        state = self.registers("rounding")
        signature = self.specialize(REGISTRY["set_rounding"], (state, source, self.core.number))
        tensors = (word for t in (state, source) for word in (t.storage.id, t.byte_offset))
        self.record([signature.id, self.program.location_id(location), *tensors], None)

    # --- instructions ---------------------------------------------------------------------------------------------

    def find(self, definition: Definition, key: Callable[[], tuple[object, ...]], values: Values) -> Signature:
        """The signature of a call whose key is new, has lists in it, or cannot be made (a wrong kind of argument)."""
        try:
            frozen = cast("tuple[object, ...]", _frozen(key()))
            found = self.known.get(frozen)
        except (AttributeError, TypeError):
            return self.specialize(definition, values)
        if found is None:
            found = self.known[frozen] = self.specialize(definition, values)
        return found

    def specialize(self, definition: Definition, values: Values) -> Signature:
        """Normalize and check the arguments of a call; returns its interned signature."""
        limits.require_instruction(definition.name, self.target)
        arguments: dict[str, object] = {}
        for parameter, value in zip(definition.parameters, values, strict=True):
            arguments[parameter.name] = _classify(definition, parameter, value)
        normalize = definition.rules.get("normalize")
        open_engine = "engine" in arguments and arguments["engine"] in (None, Engine.unknown)
        if normalize is not None:
            normalize(arguments, self.target)
        registers = definition.registers(arguments)
        if registers is not None:
            arguments["registers"] = self.registers(registers).type
        call = Signature(-1, definition, arguments, self.target, ())
        limits.require_widths(call)
        definition.rule("check")(call)
        limits.require_biases(call)
        limits.require_destinations(call)
        limits.require_patterns(call)
        signature = self.program.signature(definition, arguments)
        if open_engine:
            self.program.open_engines.add(signature.id)
        return signature

    def remember(self, frame: FrameType, key: tuple[object, ...], signature: Signature, *write: Write) -> None:
        """The next call with this key at this place can be recorded at once."""
        self.place(frame)
        site = id(frame.f_code), frame.f_lasti
        self.sites[site + key] = signature.id, self.places[site], *write

    def writer(self, signature: Signature, operands: Values) -> Write:
        """Who takes the words of operands like these, once their numbers are checked.

        Raises:
            NkiError: the instruction does not take them.
        """
        if "check_immediates" in signature.definition.rules:
            _check_immediates(signature, operands)
        numbers = [cast("float", v) for v in operands if v is not None and v.__class__ is not NkiTensor]
        key = signature.id, *(v.__class__ for v in numbers)
        found = self._writers.get(key)
        if found is None:
            registers = self._operands_of(signature, operands)[len(operands) :]
            found = self._writers[key] = Writer.of(operands, [(t.storage.id, t.byte_offset) for t in registers])
        found.know(numbers, [self.program.constant_id(v) for v in numbers])
        return found.write

    def emit(self, signature: Signature, operands: Values, name: str | None) -> NkiInstruction:
        """Record a call of a checked signature.

        Raises:
            StaleTensor, TensorOfLoop: an operand belongs to a kernel call, or a loop body, that has ended.
        """
        return self.record(self._words(signature, operands, self.place(sys._getframe(1))), name)

    def _words(self, signature: Signature, operands: Values, place: int) -> list[int]:
        """Those of a call at a location id, after a check of its numbers."""
        if "check_immediates" in signature.definition.rules:
            _check_immediates(signature, operands)
        words = [signature.id, place]
        try:
            for value in self._operands_of(signature, operands):
                if value.__class__ is NkiTensor:
                    words += (value.storage.open_id, value.byte_offset)
                    if value.index is not None:
                        words += (value.index.storage.open_id, value.index.byte_offset)
                elif value is not None:
                    words.append(self.program.constant_id(value))
        except AttributeError:
            raise self._stale(signature, operands) from None
        return words

    def record(self, words: Sequence[int], name: str | None) -> NkiInstruction:
        """Append an instruction whose words are known."""
        self.words += words
        program = self.program
        index = program.count
        program.count = index + 1
        if name is not None:
            self.name(index, words[0], name)
        return NkiInstruction.of(self, index)

    def holders(self, buffer: Buffer) -> int:
        """How many references to a buffer the builder and its program have."""
        return 1

    def redirect(self, made: NkiTensor, dst: NkiTensor, accumulate: bool = False) -> bool:
        """Let the last instruction, which has written all of the new tensor `made`, write `dst` instead.

        Nobody may use `made` any more. Nothing changes where the instruction cannot write `dst`.

        Args:
            accumulate: let it add to what `dst` holds, for matmuls.

        Returns:
            Whether it does.
        """
        if dst.index is not None:
            return False
        last, start = self.last
        if last != self.program.count - 1:
            start = self._last_start()
        words = self.words
        key = words[start], dst.type, accumulate
        try:
            found = self._elsewhere[key]
        except KeyError:
            found = self._elsewhere[key] = self.elsewhere(self.program.signatures[words[start]], dst.type, accumulate)
        if found is None:
            return False
        signature, word = found
        at = start + word
        if words[at] != made.storage.id:
            return False
        words[start] = signature
        words[at : at + 2] = dst.storage.open_id, dst.byte_offset
        buffers = self.program.buffers
        if buffers[-1] is made.storage:
            buffers.pop()
        return True

    def settle(self) -> None:
        """Give what has no buffer yet one."""
        if self.unplaced is not None:
            self.unplaced.settle()

    def elsewhere(self, signature: Signature, dst: ViewType, accumulate: bool) -> tuple[int, int] | None:
        """The signature of the same call with another dst, and the place of dst among its words; None if none.

        Args:
            accumulate: whether it is to add to what dst holds, for matmuls.
        """
        arguments = dict(signature.arguments)
        if accumulate and "accumulate" not in arguments:
            return None
        arguments["dst"] = dst
        if accumulate:
            arguments["accumulate"] = None
        call = Signature(-1, signature.definition, arguments, self.target, ())
        try:
            signature.definition.rule("check")(call)
        except NkiError:
            return None
        found = self.program.signature(signature.definition, arguments)
        if signature.id in self.program.open_engines:
            self.program.open_engines.add(found.id)
        return found.id, found.operand("dst").word

    def _last_start(self) -> int:
        """The position of the last instruction's words: from where it was asked for before, on."""
        index, start = self.last
        last = self.program.count - 1
        if index > last:
            index = start = 0
        words, signatures = self.words, self.program.signatures
        while index < last:
            start += signatures[words[start]].n_words
            index += 1
        self.last = index, start
        return start

    def name(self, index: int, signature: int, name: str) -> None:
        """Keep the user's name of an instruction."""
        self.program.names[index] = _checked_name(self.program, signature, name)

    def looked_at(self) -> None:
        """Python code is about to look at values."""

    def depend(self, consumer: int, producer: int) -> None:
        """Record that instruction `consumer` waits for `producer`.

        Raises:
            DependencyOnLoop: the producer is in the body of a loop that the consumer is not in.
        """
        if not set(self.nesting.around(producer)) <= set(self.nesting.around(consumer)):
            raise DependencyOnLoop
        self.program.dependencies.append((consumer, producer))

    # --- loops ----------------------------------------------------------------------------------------------------

    def loop(self, begin: Callable[[], object]) -> Generator[None, None, None]:
        """Record a loop: `begin` emits what begins it, the caller in every turn the body and what ends it.

        Tensors made in a turn close with it. If the iterator is not run to its end, nothing of the loop is kept.
        """
        self.settle()
        program, nesting = self.program, self.nesting
        start = len(program.code), program.count
        outside = len(nesting), nesting.innermost
        recorded = False
        try:
            begin()
            nesting.begin(program.count - 1)
            recorded = yield from self._turns()
            nesting.end(program.count - 1)
        finally:
            if not recorded:
                program.rewind(*start)
                self.last = 0, 0
                nesting.rewind(*outside)

    def _turns(self) -> Generator[None, None, bool]:
        """One turn, to record the body; returns whether the loop is recorded."""
        yield from self._turn()
        return True

    def _turn(self) -> Generator[None, None, list[Buffer]]:
        """A turn; closes the tensors made in it, and returns their buffers."""
        buffers, before, constants = self.program.buffers, len(self.program.buffers), dict(self.constants)
        made: list[Buffer] = []
        try:
            yield
        finally:
            made += (b for b in buffers[before:] if b.loop is not None)
            for buffer in made:
                buffer.close()
            self.constants = constants  # a loop may run zero times: what its body loaded is not there after it
            self.patterns.clear()
            self.calls.clear()
        return made

    # --- places ---------------------------------------------------------------------------------------------------

    def place(self, frame: FrameType | None) -> int:
        """The location id of the user's line in or below a frame; cheap, for it is asked once per instruction."""
        places = self.places
        while frame is not None:
            site = id(frame.f_code), frame.f_lasti
            found = places.get(site)
            if found is None:
                found = places[site] = self._new_place(frame)
            if found >= 0:
                return found
            frame = frame.f_back
        return self.program.location_id(UNKNOWN)

    def _new_place(self, frame: FrameType) -> int:
        """The location id of a frame, or -1 if it is one of ours. Keeps its code alive, so that its id stays unique."""
        code = self._codes[id(frame.f_code)] = frame.f_code
        if is_internal(code.co_filename):
            return -1
        return self.program.location_id(Location(code.co_filename, frame.f_lineno, code.co_name))

    def first_time_here(self, what: str, frame: FrameType) -> bool:
        """Whether the user's line in or below a frame has not asked this in this kernel call before."""
        site = what, id(frame.f_code), frame.f_lasti
        if site in self._asked:
            return False
        line = what, self.place(frame)
        first = line not in self._asked
        self._asked.add(line)
        if self.places[site[1:]] >= 0:
            self._asked.add(site)
        return first

    def close(self) -> None:
        """The kernel call has ended: its tensors are not accepted as operands any more, and its words are packed."""
        self.settle()
        for buffer in self.program.buffers:
            buffer.close()
        self.program.code = array("q", self.words)

    def _stale(self, signature: Signature, operands: Values) -> NkiError:
        """The error for the first operand whose kernel call, or loop body, has ended."""
        names = [p.name for p in signature.definition.parameters if p.role is not Role.attribute]
        given = [(n, t) for n, t in zip(names, operands, strict=True) if isinstance(t, NkiTensor)]
        given += [(f"the index of {n}", t.index) for n, t in given if t.index is not None]
        name, tensor = next((n, t) for n, t in given if not hasattr(t.storage, "open_id"))
        buffer, buffers = tensor.storage, self.program.buffers
        ours = buffer.id < len(buffers) and buffers[buffer.id] is buffer
        error = TensorOfLoop if ours else StaleTensor
        return error(
            instruction=signature.title, operand=signature.said(name), tensor=buffer.label, made=buffer.location
        )

    def _operands_of(self, signature: Signature, operands: Values) -> Values:
        if "registers" in signature.arguments:
            registers = signature.definition.registers(signature.arguments)
            assert registers is not None
            return (*operands, self.registers(registers))
        return operands


class TraceBuilder(Builder):
    """Records instructions into the program."""

    records = True


def _check_immediates(signature: Signature, operands: Values) -> None:
    """Apply the instruction's rule for the numbers of a call."""
    numbers = [v for v in operands if v is not None and v.__class__ is not NkiTensor]
    names = [immediate.name for immediate in signature.immediates]
    signature.definition.rules["check_immediates"](signature, **dict(zip(names, numbers, strict=True)))


def _checked_name(program: Program, signature: int, name: object) -> str:
    if isinstance(name, str):
        return name
    raise InvalidOperand(
        instruction=program.signatures[signature].title, operand="name", found=describe(name),
        expected="a string",
    )


def _classify(definition: Definition, parameter: Parameter, value: object) -> object:
    """The value a parameter has in a signature."""
    role = parameter.role
    if role is Role.attribute:
        return _attribute(definition, parameter, value)
    if isinstance(value, NkiTensor):
        if value.type.problem is not None:
            raise value.type.problem.raised()
        if role is not Role.immediate:
            return value.type
    elif isinstance(value, _NUMBERS):
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise _invalid(definition, parameter, value, "a number that float64 holds")
        if role in (Role.scalar_or_tensor, Role.immediate):
            return IMMEDIATE
    elif value is None and parameter.optional:
        return None
    expected = _EXPECTED[role]
    if parameter.register:
        expected = expected.replace("tensor", "register")
    raise _invalid(definition, parameter, value, expected)


_LARGEST = int(np.finfo(np.float64).max)
_EXPECTED = {
    Role.tensor: "a tensor", Role.optional_tensor: "a tensor or None", Role.immediate: "a number",
    Role.scalar_or_tensor: "a number or a tensor",
}


def _attribute(definition: Definition, parameter: Parameter, value: object) -> object:
    """A compile-time value in the form signatures keep: hashable, and flags as bool."""
    if isinstance(parameter.default, bool):
        if isinstance(value, (bool, int, np.bool_)) and value in (True, False):
            return bool(value)
        raise _invalid(definition, parameter, value, "True or False")
    frozen = _frozen(value)
    try:
        hash(frozen)
    except TypeError:
        raise _invalid(definition, parameter, value, "a compile-time value") from None
    if isinstance(value, NkiTensor):
        raise _invalid(definition, parameter, value, "a compile-time value")
    return frozen


def _invalid(definition: Definition, parameter: Parameter, value: object, expected: str) -> InvalidOperand:
    fix = ""
    if isinstance(value, np.ndarray):
        fix = "pass the array as an argument of the kernel, where it is a tensor"
    elif is_grid(value):
        fix = PASS_DATA
    return InvalidOperand(
        instruction=f"nisa.{definition.name}", operand=parameter.name, found=describe(value), expected=expected, fix=fix
    )


def _frozen(value: object) -> object:
    """Lists become tuples, recursively, and numbers of NumPy Python's, so that attributes can be part of a key."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    return value.item() if isinstance(value, np.generic) else value
