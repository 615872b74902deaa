"""Executes the instructions of a running kernel at once, one after the other: nki.simulate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from nkilite import dtypes
from nkilite.errors import NkiError
from nkilite.ir.coverage import (
    Coverage,
    Covered,
    Foreign,
    check_accumulation,
    check_read,
    runs_on_tensor_engine,
)
from nkilite.ir.definition import Values
from nkilite.ir.meeting import ALONE, Arrival, Core
from nkilite.ir.numbers import NAN, NumberFound, overflows, watched
from nkilite.ir.program import Check, Operand, Signature
from nkilite.ir.rules import ArgumentsByName
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion
from nkilite.ir.unwritten import Suspect, matters
from nkilite.location import Location, user_frame
from nkilite.machine.target import Target
from nkilite.trace import bounded, storage
from nkilite.trace.builder import Builder, NkiInstruction
from nkilite.trace.plan import Plan
from nkilite.trace.rounding import Rounder
from nkilite.trace.shared import SharedMemory
from nkilite.trace.tensor import NkiTensor
from nkilite.trace.turns import Turns
from nkilite.trace.watching import Stop, Watch


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
            target.unwritten_byte, self._size_list,
        )
        self._follows = False  # whether the last control instruction is followed by an iteration
        self._repeats = False  # in an iteration after a loop's first, which is the one that is recorded
        self.refusals: dict[int, Callable[..., NkiError]] = {}  # input buffers that cannot be written: the error
        self._coverage: dict[int, Coverage] = {}
        self._foreign: dict[int, Foreign] = {}
        self._plans: dict[Signature, Plan] = {}
        self.suspects: list[Suspect] = []  # reads of what was not written
        self._rounder: Rounder | None = None
        self._found = False  # a NaN that is looked for
        self.left_out = False  # a loop has not run at all, so that not all is known that a program would write
        self.watch: Watch | None = None
        self._ran = 0  # instructions it was told of

    def round_stochastically(self, source: NkiTensor, location: Location) -> None:
        super().round_stochastically(source, location)
        state = self.registers("rounding")
        storage.write(state, storage.read(source))
        self._rounder = Rounder(state, self.core.number)

    def _size_list(self) -> list[int]:
        """The sizes of dynamic dimensions, by their places."""
        assert self.sizes is not None
        found: list[int] = storage.read(self.sizes).reshape(-1).tolist()
        return found

    def _allocated(self, buffer: Buffer) -> None:
        shared = self.core.cores > 1 and buffer.region is MemoryRegion.shared_hbm
        if buffer.kind is BufferKind.internal and not shared and not buffer.dims:
            self._coverage[buffer.id] = Coverage(buffer)
            if buffer.region is MemoryRegion.psum:
                self._foreign[buffer.id] = Foreign(buffer)
        if buffer.data is None and buffer.region is MemoryRegion.shared_hbm:
            buffer.data = self._shared.find(  # type: ignore[assignment]
                self.core.number, buffer, self._memory.place
            )
        if buffer.data is None:
            buffer.data = self._memory.place(buffer)  # type: ignore[assignment]
        if buffer.kind is BufferKind.registers:
            buffer.data.memory[:] = 0  # type: ignore[union-attr]

    def record(self, words: Sequence[int], name: str | None) -> NkiInstruction:
        if self._repeats:
            return NkiInstruction.of(self, self.program.count - 1)
        return super().record(words, name)

    def depend(self, consumer: int, producer: int) -> None:
        if not self._repeats:
            super().depend(consumer, producer)

    def holders(self, buffer: Buffer) -> int:
        return super().holders(buffer) + (buffer.id in self._coverage) + (buffer.id in self._foreign)

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
        if not entered:  # what its body would write counts as written, as in a program that is compiled
            self.left_out = True
            for id in [id for id in self._coverage if not self.program.buffers[id].region.on_chip]:
                del self._coverage[id]
        return entered and not outer

    def emit(self, signature: Signature, operands: Values, name: str | None) -> NkiInstruction:
        place = self.place(sys._getframe(1))
        recorded = self.record(self._words(signature, operands, place), name)
        where = self.program.locations[place]
        plan = self._plans.get(signature)
        if plan is None:
            plan = self._plans[signature] = Plan(self.program, signature)
        if self.core.cores > 1 and self._seen_by_others(plan, operands):
            self._baton.in_order(self.core.number)
        arguments, tensors = self._read(plan, signature, operands)
        plan.require_partitions(tensors, where)
        self._follow_writes(plan, signature, arguments, tensors, where)
        self._execute(plan, signature, arguments, tensors, where)
        if self.core.cores > 1 and signature.definition.meets is None:
            self._encounter(signature, tensors, where)
        if self._rounder is not None:
            self._rounder.follow(signature.definition.control, self._follows)
        if self.program.watch:
            self._look(signature, arguments, tensors, where)
        if self.watch is not None:
            numbers = {n: arguments[n] for n in signature.arguments if n not in tensors}
            self._tell(self.watch, signature, tensors, numbers, name or "", where)
        self._baton.finished(self.core.number)
        return recorded

    def _read(
        self, plan: Plan, signature: Signature, operands: Values
    ) -> tuple[dict[str, object], dict[str, NkiTensor]]:
        """What the reference rule of a call takes, and its tensors."""
        arguments = dict(signature.arguments)
        tensors: dict[str, NkiTensor] = {}
        values = [value for value in self._operands_of(signature, operands) if value is not None]
        for (key, is_tensor), value in zip(plan.given, values, strict=True):
            if not is_tensor:
                arguments[key] = float(value)
                continue
            tensors[key] = value
            arguments[key] = storage.read(value)
            if value.index is None:
                continue
            if key in plan.rows_of:
                arguments[f"{key}_rows"] = storage.row_indices(value)
            if signature.skips_out_of_bounds:
                arguments[f"{key}_present"] = storage.valid_rows(value)
            else:
                storage.check_bounds(value, signature.title)
        return arguments, tensors

    def _execute(
        self, plan: Plan, signature: Signature, arguments: ArgumentsByName, tensors: dict[str, NkiTensor],
        where: Location,
    ) -> None:
        """Compute what an instruction writes, together with the other cores where they meet, and write it."""
        rounder, call = self._rounder, signature
        rounds: tuple[str, ...] = ()
        if rounder is not None:
            rounds, call = rounder.of(signature)
            arguments |= {name: dtypes.cast(arguments[name], dtypes.float32) for name in rounds}
        if signature.definition.meets is not None:
            results: Any = self._exchanged(plan, signature, arguments, tensors, where)
        else:
            results = plan.reference(call, **arguments)
        if signature.definition.control is not None:
            *results, self._follows = results
        several = isinstance(results, (tuple, list)) and not isinstance(results, dtypes.Elements)
        for key, result in zip(plan.written, results if several else (results,), strict=True):
            if result is not None:
                tensor = tensors[key]
                storage.write(tensor, rounder.round(tensor, result) if rounder and key in rounds else result)

    def _exchanged(
        self, plan: Plan, signature: Signature, arguments: dict[str, object], tensors: dict[str, NkiTensor],
        where: Location,
    ) -> list[np.ndarray | dtypes.Elements | None]:
        """What other cores and ranks leave for the operands that an instruction writes."""
        kinds = {name: tensor.dtype for name, tensor in tensors.items()}
        shared = frozenset(n for n, tensor in tensors.items() if tensor.type.region is MemoryRegion.shared_hbm)
        arrival = Arrival(signature.name, arguments, kinds, shared, where, self.core.number)
        exchanged = self._baton.meet(arrival)
        return [exchanged.get(name) for name in plan.written]

    def _tell(
        self, watch: Watch, signature: Signature, tensors: dict[str, NkiTensor], numbers: dict[str, object], name: str,
        where: Location,
    ) -> None:
        """Let somebody look at the instruction that has just run; the other cores are where they would be then."""
        self._baton.in_order(self.core.number)
        self._ran += 1
        written = tuple(o.name for o in signature.operands if o.writes and o.name in tensors)
        watch(Stop(
            self.core.number, self._ran, signature.name, name, where, tensors, written, numbers, user_frame(2),
        ))

    def _encounter(self, signature: Signature, tensors: dict[str, NkiTensor], where: Location) -> None:
        """Say what the instruction that has just run has touched in shared memory."""
        if signature.name == bounded.CUT:
            tensors = bounded.touched[0](signature, tensors)
        for operand in signature.operands:
            tensor = tensors.get(operand.name)
            if tensor is None or operand.type.region is not MemoryRegion.shared_hbm:
                continue
            if tensor.storage.kind is not BufferKind.constant:
                self._baton.encounters.touch(self.core.number, tensor, signature.title, where, operand.writes)

    def _seen_by_others(self, plan: Plan, operands: Values) -> bool:
        """Whether it matters what the other cores have done when an instruction begins.

        It does where it touches shared memory, unless it only reads arguments, and where it prints.
        """
        if plan.orders or not plan.shared:
            return plan.orders
        tensors = [t for v in operands if v.__class__ is NkiTensor for t in (v, v.index) if t is not None]
        return any(
            t.type.region is MemoryRegion.shared_hbm and t.storage.kind is not BufferKind.input for t in tensors
        )

    def looked_at(self) -> None:
        self._baton.in_order(self.core.number)

    def _look(
        self, signature: Signature, arguments: ArgumentsByName, tensors: dict[str, NkiTensor], where: Location
    ) -> None:
        """Report the first NaN of all that is written, if that is asked for, and nothing after it."""
        for operand in watched(signature):
            tensor = tensors[operand.name]
            numbers = [arguments[i.name] for i in signature.immediates]
            what = self.program.watch if overflows(signature, numbers) else NAN
            values = storage.read(tensor).astype(np.float32)
            special = np.isnan(values) if what == NAN else ~np.isfinite(values)
            if special.any() and not self._found:
                self._found = True
                index = tuple(int(i) for i in np.argwhere(special)[0])
                label, shape = tensor.storage.label, tensor.shape
                check = Check(signature.name, signature.said(operand.name), label, shape, where)
                NumberFound(check, index, float(values[index])).report(self.program.fatal)

    def _follow_writes(
        self, plan: Plan, signature: Signature, arguments: ArgumentsByName, tensors: dict[str, NkiTensor],
        where: Location,
    ) -> None:
        """Check reads of on-chip memory, settle accumulate=None, and record what is written."""
        self._check_reads(plan, signature, arguments, tensors, where)
        for name in signature.definition.zeroed:
            arguments[name] = self._zeroed(tensors[name], arguments[name])
        self._mark_writes(plan, tensors, where)

    def _check_reads(
        self, plan: Plan, signature: Signature, arguments: dict[str, object], tensors: dict[str, NkiTensor],
        where: Location,
    ) -> None:
        for operand, argument, is_index in plan.operands:
            tensor = tensors[argument].index if is_index else tensors[argument]
            assert tensor is not None
            coverage = self._coverage.get(tensor.storage.id)
            if coverage is None or (coverage.full and not plan.accumulates):
                continue
            tensor = storage.located(tensor)
            if plan.accumulates and operand.name == "dst":
                self._accumulate(signature, operand, arguments, tensor, coverage, where)
                if signature.arguments["accumulate"] is None:
                    continue
            if operand.reads and coverage.covered(tensor.type, tensor.byte_offset) is not Covered.all:
                read = operand._replace(type=tensor.type)
                found = check_read(coverage, signature, read, tensor.storage, tensor.byte_offset, where)
                if isinstance(found, NkiError) and matters(signature):
                    raise found
                if found is not None:
                    self.suspects.append(Suspect(None if self._repeats else self.program.count - 1, found))

    def _mark_writes(self, plan: Plan, tensors: dict[str, NkiTensor], where: Location) -> None:
        for name in plan.written:
            tensor = tensors[name]
            refusal = self.refusals.get(tensor.storage.id)
            if refusal is not None:
                raise refusal(location=where)
            coverage = self._coverage.get(tensor.storage.id)
            if coverage is None:
                continue
            foreign = self._foreign.get(tensor.storage.id)
            if foreign is None and coverage.full:
                continue
            tensor = storage.located(tensor)
            coverage.mark(tensor.type, tensor.byte_offset)
            if foreign is not None:
                foreign.wrote(tensor.type, tensor.byte_offset, plan.tensor_engine)

    def _accumulate(
        self, signature: Signature, operand: Operand, arguments: ArgumentsByName, tensor: NkiTensor, coverage: Coverage,
        where: Location,
    ) -> None:
        """Check what a call that may add to its dst adds to, and settle accumulate=None."""
        foreign = self._foreign.get(tensor.storage.id)
        if foreign is not None:
            check_accumulation(foreign, signature, operand, tensor.storage, tensor.byte_offset, where)
        if signature.arguments["accumulate"] is not None:
            return
        covered = coverage.covered(tensor.type, tensor.byte_offset)
        arguments["accumulate"] = covered is not Covered.none
        if covered is Covered.some:
            unwritten = coverage.unwritten(tensor.type, tensor.byte_offset)
            arguments["dst"] = np.where(unwritten, 0, arguments["dst"])

    def _zeroed(self, tensor: NkiTensor, values: np.ndarray) -> np.ndarray:
        """The values of a tile with bytes of 0 where nothing has written it, as far as only it has its memory."""
        coverage = self._coverage.get(tensor.storage.id)
        if coverage is None or tensor.storage.address is not None:
            return values
        tensor = storage.located(tensor)
        patterns = np.array(values).view(f"u{values.dtype.itemsize}")
        patterns[coverage.unwritten(tensor.type, tensor.byte_offset)] = 0
        return patterns.view(values.dtype)
