"""Receives the instructions of a running kernel: one builder records them, the other executes them at once."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Generator, Sequence
from types import CodeType, FrameType
from typing import Any

import numpy as np

from nkilite import dtypes
from nkilite.errors import (
    DependencyOnLoop,
    InvalidOperand,
    NkiError,
    StaleTensor,
    TensorOfLoop,
    describe,
)
from nkilite.ir import limits
from nkilite.ir.coverage import (
    Coverage,
    Covered,
    Foreign,
    check_accumulation,
    check_read,
    runs_on_tensor_engine,
)
from nkilite.ir.definition import Definition, Parameter, Role
from nkilite.ir.meeting import ALONE, Arrival, Core
from nkilite.ir.program import IMMEDIATE, Program, Signature
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion, ViewType
from nkilite.ir.unwritten import Suspect, matters
from nkilite.location import UNKNOWN, Location, is_internal
from nkilite.machine.engine import Engine
from nkilite.machine.registers import REGISTERS
from nkilite.machine.target import Target
from nkilite.trace import storage
from nkilite.trace.nesting import Nesting
from nkilite.trace.rounding import Rounder
from nkilite.trace.shared import SharedMemory
from nkilite.trace.tensor import NkiTensor
from nkilite.trace.turns import Turns

_NUMBERS = (int, float, np.integer, np.floating, np.bool_)


class NkiInstruction:
    """Handle of an instruction in the kernel being built."""

    __slots__ = ("builder", "index")

    def __init__(self, builder: Builder, index: int) -> None:
        self.builder, self.index = builder, index

    def depends_on(self, *producers: NkiInstruction) -> NkiInstruction:
        """Make this instruction run after each of the producers; returns itself.

        Raises:
            DependencyOnLoop: a producer is in the body of a loop that this instruction is not in.
        """
        for producer in producers:
            if producer is not None:
                self.builder.depend(self.index, producer.index)
        return self


class Builder:
    """What a kernel's front end writes to.

    Instructions are recorded in the program. `records` says that this is all: that instructions only need their words
    (buffer ids and offsets), not their tensors.

    Attributes:
        prepared: the collective that is to be triggered next, if any.
        core: the core of the launch that is to run it.
        program: buffers, signatures and the instruction table, whose words are a list until the builder closes.
        nesting: the loops around what is recorded now.
        known: signatures already validated, by the argument types the instruction wrappers build.
        tiles: types of new tensors already validated, by the arguments of `nl.ndarray`.
        words: the instruction table while it grows.
        sites: (signature id, location id) of calls in user code that were made before, by place and key of `known`.
        places: location ids of places in user code, by (id of the code object, bytecode position); -1 for our own.
        left: what is wrong if nothing follows: a Python loop over the turns of a loop has ended before them, or a
            collective that was prepared is not triggered.
    """

    records = False

    def __init__(self, name: str, target: Target, core: Core = ALONE) -> None:
        self.target, self.core = target, core
        self.program = Program(name, target, core.cores)
        self.words: list[int] = []
        self.program.code = self.words  # type: ignore[assignment]
        self.nesting = Nesting()
        self.known: dict[tuple, Signature] = {}
        self.tiles: dict[tuple, ViewType] = {}
        self.constants: dict[Any, NkiTensor] = {}
        self._registers: dict[str, NkiTensor] = {}
        self.places: dict[tuple[int, int], int] = {}
        self.sites: dict[tuple, tuple[int, int]] = {}
        self._codes: dict[int, CodeType] = {}
        self._last = 0, 0  # an instruction, and the position of its words
        self._elsewhere: dict[tuple, tuple[int, int] | None] = {}
        self._asked: set[tuple] = set()
        self.left: NkiError | None = None
        self.prepared: Any = None

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
        data: Any = None,
    ) -> NkiTensor:
        """A tensor over a new buffer, made where the user's line is unless a location is given."""
        program = self.program
        if location is None:
            location = program.locations[self.place(sys._getframe(1))]
        loop = self.nesting.innermost if kind is BufferKind.internal else None
        buffer = program.add_buffer(region, shape, dtype, name, kind, address, location, data, loop)
        self._allocated(buffer)
        return NkiTensor(buffer, buffer.type)

    def tile(self, type: ViewType, name: str, place: int) -> NkiTensor:
        """A tensor of a checked type over a new internal buffer, at a location id: the usual case, made fast."""
        program = self.program
        buffers = program.buffers
        buffer = Buffer(
            len(buffers), type.region, type.shape, type.dtype, name, location=program.locations[place],
            loop=self.nesting.innermost, type=type,
        )
        buffers.append(buffer)
        if not self.records:
            self._allocated(buffer)
        return NkiTensor(buffer, type)

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

    def round_stochastically(self, state: NkiTensor) -> None:
        """The engines' registers `state` have just been set, and decide how all that follows is rounded."""

    # --- instructions ---------------------------------------------------------------------------------------------

    def find(self, definition: Definition, key: Callable[[], tuple], values: tuple) -> Signature:
        """The signature of a call whose key is new, has lists in it, or cannot be made (a wrong kind of argument)."""
        try:
            frozen = _frozen(key())
            found = self.known.get(frozen)
        except (AttributeError, TypeError):
            return self.specialize(definition, values)
        if found is None:
            found = self.known[frozen] = self.specialize(definition, values)
        return found

    def specialize(self, definition: Definition, values: tuple) -> Signature:
        """Normalize and check the arguments of a call; returns its interned signature."""
        limits.require_instruction(definition, self.target)
        arguments: dict[str, Any] = {}
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
        definition.rule("check")(call)
        limits.require_biases(call)
        limits.require_destinations(call)
        limits.require_patterns(call)
        signature = self.program.signature(definition, arguments)
        if open_engine:
            self.program.open_engines.add(signature.id)
        return signature

    def remember(self, frame: FrameType, key: tuple, signature: Signature) -> None:
        """The next call with this key at this place can be recorded at once."""
        self.place(frame)
        site = id(frame.f_code), frame.f_lasti
        self.sites[site + key] = signature.id, self.places[site]

    def emit(self, signature: Signature, operands: tuple, name: str | None) -> NkiInstruction:
        """Record a call of a checked signature.

        Raises:
            StaleTensor, TensorOfLoop: an operand belongs to a kernel call, or a loop body, that has ended.
        """
        if "check_immediates" in signature.definition.rules:
            _check_immediates(signature, operands)
        words = [signature.id, self.place(sys._getframe(1))]
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
        return self.record(words, name)

    def record(self, words: Sequence[int], name: str | None) -> NkiInstruction:
        """Append an instruction whose words are known."""
        self.words += words
        program = self.program
        index = program.count
        program.count = index + 1
        if name is not None:
            self.name(index, words[0], name)
        return NkiInstruction(self, index)

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
        start = self._last_start()
        words = self.words
        key = words[start], dst.type, accumulate
        try:
            found = self._elsewhere[key]
        except KeyError:
            found = self._elsewhere[key] = self._elsewhere_of(self.program.signatures[words[start]], dst, accumulate)
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

    def _elsewhere_of(self, signature: Signature, dst: NkiTensor, accumulate: bool) -> tuple[int, int] | None:
        """The signature of the same call with another dst, and the place of dst among its words; None if none."""
        arguments = dict(signature.arguments)
        if accumulate and "accumulate" not in arguments:
            return None
        arguments["dst"] = dst.type
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
        index, start = self._last
        last = self.program.count - 1
        if index > last:
            index = start = 0
        words, signatures = self.words, self.program.signatures
        while index < last:
            start += signatures[words[start]].n_words
            index += 1
        self._last = index, start
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

    def loop(self, begin: Callable[[], Any]) -> Generator[None, None, None]:
        """Record a loop: `begin` emits what begins it, the caller in every turn the body and what ends it.

        Tensors made in a turn close with it. If the iterator is not run to its end, nothing of the loop is kept.
        """
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
        for buffer in self.program.buffers:
            buffer.close()
        self.program.code = array("q", self.words)

    def _stale(self, signature: Signature, operands: tuple) -> NkiError:
        """The error for the first operand whose kernel call, or loop body, has ended."""
        names = [p.name for p in signature.definition.parameters if p.role is not Role.attribute]
        given = [(n, t) for n, t in zip(names, operands, strict=True) if isinstance(t, NkiTensor)]
        given += [(f"the index of {n}", t.index) for n, t in given if t.index is not None]
        name, tensor = next((n, t) for n, t in given if not hasattr(t.storage, "open_id"))
        buffer, buffers = tensor.storage, self.program.buffers
        ours = buffer.id < len(buffers) and buffers[buffer.id] is buffer
        error = TensorOfLoop if ours else StaleTensor
        return error(
            instruction=f"nisa.{signature.name}", operand=name, tensor=buffer.label, made=buffer.location
        )

    def _operands_of(self, signature: Signature, operands: tuple) -> tuple:
        if "registers" in signature.arguments:
            registers = signature.definition.registers(signature.arguments)
            assert registers is not None
            return (*operands, self.registers(registers))
        return operands


class TraceBuilder(Builder):
    """Records instructions into the program."""

    records = True


class EagerBuilder(Builder):
    """Executes each instruction at once by its reference rule, and records it: nki.simulate.

    Where a launch has several cores, each has a builder, and they take `turns`.
    """

    def __init__(
        self, name: str, target: Target, core: Core = ALONE, turns: Turns | None = None,
        shared: SharedMemory | None = None,
    ) -> None:
        super().__init__(name, target, core)
        self._baton = turns or Turns(1)
        self._shared = shared or SharedMemory()
        self._memory = storage.EagerMemory(
            target.num_partitions,
            {MemoryRegion.sbuf: target.sbuf_partition_bytes, MemoryRegion.psum: target.psum_partition_bytes},
        )
        self._follows = False  # whether the last control instruction is followed by an iteration
        self._repeats = False  # in an iteration after a loop's first, which is the one that is recorded
        self.refusals: dict[int, Callable[..., NkiError]] = {}  # input buffers that cannot be written: the error
        self._coverage: dict[int, Coverage] = {}
        self._foreign: dict[int, Foreign] = {}
        self.suspects: list[Suspect] = []  # reads of what was not written
        self._rounder: Rounder | None = None

    def round_stochastically(self, state: NkiTensor) -> None:
        self._rounder = Rounder(state, self.core.number)

    def _allocated(self, buffer: Buffer) -> None:
        shared = self.core.cores > 1 and buffer.region is MemoryRegion.shared_hbm
        if buffer.kind is BufferKind.internal and not shared:
            self._coverage[buffer.id] = Coverage(buffer)
            if buffer.region is MemoryRegion.psum:
                self._foreign[buffer.id] = Foreign(buffer)
        if buffer.data is None and buffer.region is MemoryRegion.shared_hbm:
            buffer.data = self._shared.find(self.core.number, buffer, self._memory.place)
        if buffer.data is None:
            buffer.data = self._memory.place(buffer)  # type: ignore[assignment]
        if buffer.kind is BufferKind.registers:
            buffer.data.memory[:] = 0  # type: ignore[union-attr]

    def record(self, words: Sequence[int], name: str | None) -> NkiInstruction:
        if self._repeats:
            return NkiInstruction(self, self.program.count - 1)
        return super().record(words, name)

    def depend(self, consumer: int, producer: int) -> None:
        if not self._repeats:
            super().depend(consumer, producer)

    def redirect(self, made: NkiTensor, dst: NkiTensor, accumulate: bool = False) -> bool:
        values = storage.read(made)
        if not super().redirect(made, dst, accumulate):
            return False
        for followed in (self._coverage, self._foreign):
            followed.pop(made.storage.id, None)
        coverage = self._coverage[dst.storage.id]
        covered = coverage.covered(dst.type, dst.byte_offset)
        if accumulate and covered is not Covered.none:
            before = storage.read(dst).astype(np.float32)
            if covered is Covered.some:
                before = np.where(coverage.unwritten(dst.type, dst.byte_offset), 0, before)
            values = before + values.reshape(dst.shape)
        if self._rounder is not None:
            signature = self.program.signatures[self.words[self._last_start()]]
            values = self._rounder.redirected(signature, dst, values)
        storage.write(dst, values)
        coverage.mark(dst.type, dst.byte_offset)
        if dst.storage.id in self._foreign:
            signature = self.program.signatures[self.words[self._last_start()]]
            self._foreign[dst.storage.id].wrote(dst.type, dst.byte_offset, runs_on_tensor_engine(signature))
        return True

    def _turns(self) -> Generator[None, None, bool]:
        outer, entered = self._repeats, self._follows
        try:
            while self._follows:
                for buffer in (yield from self._turn()):
                    if buffer.region.on_chip:  # nobody can ask for its values any more
                        buffer.data = None
                        self._coverage.pop(buffer.id, None)
                self._repeats = True
        finally:
            self._repeats = outer
        return entered and not outer

    def emit(self, signature: Signature, operands: tuple, name: str | None) -> NkiInstruction:
        recorded = super().emit(signature, operands, name)
        where = self.program.locations[self.place(sys._getframe(1))]
        if self.core.cores > 1 and self._seen_by_others(signature, operands):
            self._baton.in_order(self.core.number)
        arguments = dict(signature.arguments)
        tensors: dict[str, NkiTensor] = {}
        values = iter(self._operands_of(signature, operands))
        for key, kind in signature.arguments.items():
            if isinstance(kind, ViewType):
                tensors[key] = value = _next_given(values)
                arguments[key] = storage.read(value)
                if value.index is None:
                    continue
                if signature.skips_out_of_bounds:
                    arguments[f"{key}_present"] = storage.valid_rows(value)
                else:
                    storage.check_bounds(value, f"nisa.{signature.name}")
            elif kind is IMMEDIATE:
                arguments[key] = float(_next_given(values))
        for operand, allowed in limits.partition_rules(signature):
            tensor = tensors[operand.name]
            limits.require_partitions(signature, operand, allowed, tensor.storage, tensor.byte_offset, where)
        self._follow_writes(signature, arguments, tensors, where)
        written = [o.name for o in signature.operands if o.writes]
        rounder, call = self._rounder, signature
        rounds: tuple[str, ...] = ()
        if rounder is not None:
            rounds, call = rounder.of(signature)
            arguments |= {name: dtypes.cast(arguments[name], dtypes.float32) for name in rounds}
        if signature.definition.meets is not None:
            kinds = {name: tensor.dtype for name, tensor in tensors.items()}
            shared = frozenset(n for n, tensor in tensors.items() if tensor.type.region is MemoryRegion.shared_hbm)
            arrival = Arrival(signature.name, arguments, kinds, shared, where, self.core.number)
            exchanged = self._baton.meet(arrival)
            results: Any = [exchanged.get(name) for name in written]
        else:
            results = call.definition.rule("reference")(call, **arguments)
        if signature.definition.control is not None:
            *results, self._follows = results
        several = isinstance(results, (tuple, list)) and not isinstance(results, dtypes.Elements)
        for key, result in zip(written, results if several else (results,), strict=True):
            if result is not None:
                tensor = tensors[key]
                storage.write(tensor, rounder.round(tensor, result) if rounder and key in rounds else result)
        if rounder is not None:
            rounder.follow(signature.definition.control, self._follows)
        self._baton.finished(self.core.number)
        return recorded

    def _seen_by_others(self, signature: Signature, operands: tuple) -> bool:
        """Whether it matters what the other cores have done when an instruction begins.

        It does where it touches shared memory, unless it only reads arguments, and where it prints.
        """
        shared = [o for o in signature.operands if o.type.region is MemoryRegion.shared_hbm]
        if any(o.writes for o in shared) or signature.name == "device_print":
            return True
        tensors = [t for v in operands if v.__class__ is NkiTensor for t in (v, v.index) if t is not None]
        return bool(shared) and any(
            t.type.region is MemoryRegion.shared_hbm and t.storage.kind is not BufferKind.input for t in tensors
        )

    def looked_at(self) -> None:
        self._baton.in_order(self.core.number)

    def _follow_writes(
        self, signature: Signature, arguments: dict[str, Any], tensors: dict[str, NkiTensor], where: Location
    ) -> None:
        """Check reads of on-chip memory, settle accumulate=None, and record what is written."""
        infer = arguments.get("accumulate", False) is None
        for operand in signature.operands:
            tensor = tensors.get(operand.name) or tensors[operand.name.removesuffix(".index")].index
            assert tensor is not None
            coverage = self._coverage.get(tensor.storage.id)
            if coverage is None:
                continue
            tensor = storage.located(tensor)
            foreign = self._foreign.get(tensor.storage.id)
            if foreign is not None and operand.name == "dst" and arguments.get("accumulate", False) is not False:
                check_accumulation(foreign, signature, operand, tensor.storage, tensor.byte_offset, where)
            if infer and operand.name == "dst":
                covered = coverage.covered(tensor.type, tensor.byte_offset)
                arguments["accumulate"] = covered is not Covered.none
                if covered is Covered.some:
                    unwritten = coverage.unwritten(tensor.type, tensor.byte_offset)
                    arguments["dst"] = np.where(unwritten, 0, arguments["dst"])
            elif operand.reads:
                read = operand._replace(type=tensor.type)
                found = check_read(coverage, signature, read, tensor.storage, tensor.byte_offset, where)
                if isinstance(found, NkiError) and matters(signature):
                    raise found
                if found is not None:
                    self.suspects.append(Suspect(None if self._repeats else self.program.count - 1, found))
        for operand in signature.operands:
            if not operand.writes:
                continue
            tensor = tensors[operand.name]
            refusal = self.refusals.get(tensor.storage.id)
            if refusal is not None:
                raise refusal(location=where)
            coverage = self._coverage.get(tensor.storage.id)
            if coverage is not None:
                tensor = storage.located(tensor)
                coverage.mark(tensor.type, tensor.byte_offset)
                foreign = self._foreign.get(tensor.storage.id)
                if foreign is not None:
                    foreign.wrote(tensor.type, tensor.byte_offset, runs_on_tensor_engine(signature))


def _check_immediates(signature: Signature, operands: tuple) -> None:
    """Apply the instruction's rule for the numbers of a call."""
    numbers = [v for v in operands if v is not None and v.__class__ is not NkiTensor]
    names = [immediate.name for immediate in signature.immediates]
    signature.definition.rules["check_immediates"](signature, **dict(zip(names, numbers, strict=True)))


def _checked_name(program: Program, signature: int, name: Any) -> str:
    if isinstance(name, str):
        return name
    raise InvalidOperand(
        instruction=f"nisa.{program.signatures[signature].name}", operand="name", found=describe(name),
        expected="a string",
    )


def _next_given(values: Any) -> Any:
    return next(v for v in values if v is not None)


def _classify(definition: Definition, parameter: Parameter, value: Any) -> Any:
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


def _attribute(definition: Definition, parameter: Parameter, value: Any) -> Any:
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


def _invalid(definition: Definition, parameter: Parameter, value: Any, expected: str) -> InvalidOperand:
    fix = "pass the array as an argument of the kernel, where it is a tensor" if isinstance(value, np.ndarray) else ""
    return InvalidOperand(
        instruction=f"nisa.{definition.name}", operand=parameter.name, found=describe(value), expected=expected, fix=fix
    )


def _frozen(value: Any) -> Any:
    """Lists become tuples, recursively, so that attributes can be part of a key."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    return value
