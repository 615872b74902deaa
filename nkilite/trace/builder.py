"""Receives the instructions of a running kernel: one builder records them, the other executes them at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from nkilite import dtypes
from nkilite.errors import InvalidOperand, NonContiguousArgument
from nkilite.ir.coverage import Coverage, Covered, check_read
from nkilite.ir.definition import Definition, Role
from nkilite.ir.program import IMMEDIATE, Program, Signature
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion, ViewType
from nkilite.location import UNKNOWN, Location, here, is_internal
from nkilite.machine.target import Target
from nkilite.trace import storage
from nkilite.trace.tensor import NkiTensor

_NUMBERS = (int, float, np.integer, np.floating, np.bool_)


class NkiInstruction:
    """Handle of an instruction in the kernel being built."""

    __slots__ = ("builder", "index")

    def __init__(self, builder: Builder, index: int) -> None:
        self.builder, self.index = builder, index

    def depends_on(self, *producers: NkiInstruction) -> NkiInstruction:
        """Make this instruction run after each of the producers; returns itself."""
        for producer in producers:
            if producer is not None:
                self.builder.program.dependencies.append((self.index, producer.index))
        return self


class Builder:
    """What a kernel's front end writes to.

    `records` says that instructions only need their words (buffer ids and offsets), not their tensors.

    Attributes:
        program: buffers, signatures and (when tracing) the instruction table.
        known: signatures already validated, by the argument types the instruction wrappers build.
    """

    records = False

    def __init__(self, name: str, target: Target) -> None:
        self.target = target
        self.program = Program(name, target)
        self.known: dict[tuple, Signature] = {}
        self.constants: dict[Any, NkiTensor] = {}
        self._registers: dict[str, NkiTensor] = {}

    # --- buffers --------------------------------------------------------------------------------------------------

    def allocate(self, region: MemoryRegion, shape: tuple[int, ...], dtype: dtypes.DType, **options: Any) -> NkiTensor:
        """A tensor over a new buffer."""
        options.setdefault("location", here())
        buffer = self.program.add_buffer(region, shape, dtype, **options)
        self._allocated(buffer)
        return NkiTensor(buffer, buffer.whole())

    def registers(self, engine: str) -> NkiTensor:
        """The accumulation registers of an engine: one float32 per partition."""
        found = self._registers.get(engine)
        if found is None:
            found = self._registers[engine] = self.allocate(
                MemoryRegion.registers, (self.target.num_partitions, 1), dtypes.float32,
                name=f"{engine}_registers", kind=BufferKind.registers, location=UNKNOWN,
            )
        return found

    def _allocated(self, buffer: Buffer) -> None:
        """Called for every new buffer."""

    # --- instructions ---------------------------------------------------------------------------------------------

    def specialize(self, definition: Definition, values: tuple) -> Signature:
        """Normalize and check the arguments of a call; returns its interned signature."""
        arguments: dict[str, Any] = {}
        for parameter, value in zip(definition.parameters, values, strict=True):
            arguments[parameter.name] = _classify(definition, parameter.name, parameter.role, value)
        normalize = definition.rules.get("normalize")
        if normalize is not None:
            normalize(arguments, self.target)
        engine = definition.registers(arguments)
        if engine is not None:
            arguments["registers"] = self.registers(engine).type
        call = Signature(-1, definition, arguments, self.target, ())
        definition.rule("check")(call)
        return self.program.signature(definition, arguments)

    def emit(self, signature: Signature, operands: tuple, name: str | None) -> Any:
        raise AssertionError("a Builder records or executes")

    def _operands_of(self, signature: Signature, operands: tuple) -> tuple:
        if "registers" in signature.arguments:
            engine = signature.definition.registers(signature.arguments)
            assert engine is not None
            return (*operands, self.registers(engine))
        return operands


class TraceBuilder(Builder):
    """Records instructions into the program."""

    records = True

    def __init__(self, name: str, target: Target) -> None:
        super().__init__(name, target)
        self._location_ids: dict[tuple[str, int], int] = {}

    def emit(self, signature: Signature, operands: tuple, name: str | None) -> NkiInstruction:
        _check_immediates(signature, operands)
        words = [signature.id, self.where()]
        for value in self._operands_of(signature, operands):
            if value.__class__ is NkiTensor:
                words.append(value.storage.id)
                words.append(value.byte_offset)
                if value.index is not None:
                    words.append(value.index.storage.id)
                    words.append(value.index.byte_offset)
            elif value is not None:
                words.append(self.program.constant_id(value))
        return self.record(words, name)

    def record(self, words: Sequence[int], name: str | None) -> NkiInstruction:
        """Append an instruction whose words are known."""
        program = self.program
        index = program.count
        program.code.extend(words)
        program.count = index + 1
        if name:
            program.names[index] = name
        return NkiInstruction(self, index)

    def where(self) -> int:
        """The location id of the user's line; cheap, for it is asked once per instruction."""
        frame = sys._getframe(2)
        code = frame.f_code
        while is_internal(code.co_filename):
            frame = frame.f_back  # type: ignore[assignment]
            if frame is None:
                return self.program.location_id(UNKNOWN)
            code = frame.f_code
        key = (code.co_filename, frame.f_lineno)
        found = self._location_ids.get(key)
        if found is None:
            location = Location(*key, code.co_name)
            found = self._location_ids[key] = self.program.location_id(location)
        return found


class EagerBuilder(Builder):
    """Executes each instruction at once by its reference rule: nki.simulate."""

    def __init__(self, name: str, target: Target) -> None:
        super().__init__(name, target)
        self._memory = storage.EagerMemory(
            target.num_partitions,
            {MemoryRegion.sbuf: target.sbuf_partition_bytes, MemoryRegion.psum: target.psum_partition_bytes},
        )
        self.unwritable: dict[int, dict[str, Any]] = {}  # input buffers that cannot be written, with the reason
        self._coverage: dict[int, Coverage] = {}
        self._count = 0

    def _allocated(self, buffer: Buffer) -> None:
        if buffer.region in (MemoryRegion.sbuf, MemoryRegion.psum):
            self._coverage[buffer.id] = Coverage(buffer)
        if buffer.data is None:
            buffer.data = self._memory.place(buffer)  # type: ignore[assignment]
        if buffer.kind is BufferKind.registers:
            buffer.data.memory[:] = 0  # type: ignore[union-attr]

    def emit(self, signature: Signature, operands: tuple, name: str | None) -> NkiInstruction:
        _check_immediates(signature, operands)
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
        self._follow_writes(signature, arguments, tensors)
        results = signature.definition.rule("reference")(signature, **arguments)
        written = [o.name for o in signature.operands if o.writes]
        for key, result in zip(written, results if isinstance(results, tuple) else (results,), strict=True):
            if result is not None:
                storage.write(tensors[key], result)
        self._count += 1
        return NkiInstruction(self, self._count - 1)


    def _follow_writes(self, signature: Signature, arguments: dict[str, Any], tensors: dict[str, NkiTensor]) -> None:
        """Check reads of on-chip memory, settle accumulate=None, and record what is written."""
        infer = arguments.get("accumulate", False) is None
        for operand in signature.operands:
            tensor = tensors.get(operand.name) or tensors[operand.name.removesuffix(".index")].index
            assert tensor is not None
            coverage = self._coverage.get(tensor.storage.id)
            if coverage is None:
                continue
            if infer and operand.name == "dst":
                covered = coverage.covered(tensor.type, tensor.byte_offset)
                arguments["accumulate"] = covered is not Covered.none
                if covered is Covered.some:
                    arguments["dst"] = np.where(coverage.unwritten(tensor.type, tensor.byte_offset), 0, arguments["dst"])
            elif operand.reads:
                check_read(coverage, signature, operand, tensor.storage, tensor.byte_offset, here())
        for operand in signature.operands:
            if not operand.writes:
                continue
            tensor = tensors[operand.name]
            problem = self.unwritable.get(tensor.storage.id)
            if problem is not None:
                raise NonContiguousArgument(location=here(), **problem)
            coverage = self._coverage.get(tensor.storage.id)
            if coverage is not None:
                coverage.mark(tensor.type, tensor.byte_offset)


def _check_immediates(signature: Signature, operands: tuple) -> None:
    """Apply the rule for the numbers of a call, where the instruction has one."""
    definition = signature.definition
    rule = definition.rules.get("check_immediates")
    if rule is not None:
        given = zip((p.name for p in definition.parameters if p.role is not Role.attribute), operands, strict=True)
        rule(signature, **{name: value for name, value in given if signature.arguments[name] is IMMEDIATE})


def _next_given(values: Any) -> Any:
    return next(v for v in values if v is not None)


def _classify(definition: Definition, name: str, role: Role, value: Any) -> Any:
    """The value a parameter has in a signature."""
    if role is Role.attribute:
        return _frozen(value)
    if isinstance(value, NkiTensor):
        if role is not Role.immediate:
            return value.type
    elif isinstance(value, _NUMBERS):
        if role in (Role.scalar_or_tensor, Role.immediate):
            return IMMEDIATE
    elif value is None and role is not Role.tensor:
        return None
    expected = {
        Role.tensor: "a tensor", Role.optional_tensor: "a tensor or None", Role.immediate: "a number",
        Role.scalar_or_tensor: "a number or a tensor",
    }[role]
    found = f"{type(value).__name__} {value!r}"
    raise InvalidOperand(instruction=f"nisa.{definition.name}", operand=name, found=found, expected=expected)


def _frozen(value: Any) -> Any:
    """Lists become tuples, recursively, so that attributes can be part of a key."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    return value
