"""A compiled kernel: the instruction table, its memory, and the native loop that walks it."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy as np

from nkilite.codegen.host import Host
from nkilite.codegen.kernel import FAULT_WORDS, STATUS_JUMP, STATUS_OUT_OF_BOUNDS, STATUS_PAUSE
from nkilite.errors import IndirectOutOfBounds
from nkilite.ir.program import Instruction, Program
from nkilite.ir.types import Buffer, BufferKind, extent
from nkilite.passes.place import CpuPlacement
from nkilite.runtime.library import Source, library
from nkilite.runtime.lower import HEADER_WORDS, Lowered, cpu_strides

_ALIGN = 64
_REGISTER_BYTES = 4

# Walks [function, width, words...] entries from a word position to the end, or until one neither succeeds nor jumps;
# returns 0, or status << 48 | word position of that entry.
# STATUS_JUMP moves by the distance in the entry's last word, which control instructions have.
_WALKER = f"""
define i64 @nkilite_walk(ptr %table, i64 %start, i64 %count, ptr %bases) {{
entry:
  br label %head
head:
  %at = phi i64 [ %start, %entry ], [ %next, %advance ], [ %target, %jump ]
  %more = icmp slt i64 %at, %count
  br i1 %more, label %body, label %done
body:
  %entry_ptr = getelementptr i64, ptr %table, i64 %at
  %function = load ptr, ptr %entry_ptr, align 8
  %width_ptr = getelementptr i8, ptr %entry_ptr, i64 8
  %width = load i64, ptr %width_ptr, align 8
  %words = getelementptr i8, ptr %entry_ptr, i64 16
  %status = call i32 %function(ptr %words, ptr %bases, i64 0, i64 1)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %advance, label %other
advance:
  %next = add i64 %at, %width
  br label %head
other:
  %jumps = icmp eq i32 %status, {STATUS_JUMP}
  br i1 %jumps, label %jump, label %fail
jump:
  %past = getelementptr i64, ptr %entry_ptr, i64 %width
  %last = getelementptr i8, ptr %past, i64 -8
  %distance = load i64, ptr %last, align 8
  %target = add i64 %at, %distance
  br label %head
fail:
  %wide = zext i32 %status to i64
  %high = shl i64 %wide, 48
  %code = or i64 %high, %at
  ret i64 %code
done:
  ret i64 0
}}
"""


class Executable:
    """Runs a lowered program over arrays.

    One run at a time per executable: the arena is part of it.
    """

    def __init__(self, program: Program, placement: CpuPlacement, lowered: Lowered, host: Host) -> None:
        self.program = program
        self._entries = lowered.entries
        native = library(host)
        addresses = native.addresses([*lowered.sources, Source("nkilite_walk", _WALKER, ())])
        self.table = lowered.table
        functions = np.array([addresses[s.name] for s in lowered.sources], np.int64)
        if len(self.table):
            self.table[lowered.entries] = functions[self.table[lowered.entries]]
        prototype = ctypes.CFUNCTYPE(
            ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
        )
        self._walk = prototype(addresses["nkilite_walk"])
        self._placement = placement
        self._memory, arena = _aligned(placement.arena_bytes)
        self._accumulators = self._accumulation_registers(placement, arena - self._memory.ctypes.data)
        self._words = np.zeros(FAULT_WORDS + 1 + len(placement.external), np.int64)
        self._bases = self._words[FAULT_WORDS:]
        self._bases[0] = arena
        self._owned: list[np.ndarray] = []
        self._dynamic: list[tuple[int, Buffer]] = []
        outputs = {b.id for b in program.outputs}
        for slot, buffer in enumerate(placement.external, start=1):
            if buffer.kind is BufferKind.internal and buffer.id not in outputs:
                memory, address = _aligned(buffer.size_bytes)
                self._owned.append(memory)
                self._bases[slot] = address
            elif buffer.kind is BufferKind.constant:
                assert buffer.data is not None
                self._owned.append(buffer.data)
                self._bases[slot] = buffer.data.ctypes.data
            else:
                self._dynamic.append((slot, buffer))
        self._lock = threading.Lock()

    def _accumulation_registers(self, placement: CpuPlacement, arena: int) -> list[np.ndarray]:
        """The bytes of the engines' accumulation registers, which are zero when a kernel begins."""
        places = [placement.buffers[b.id] for b in self.program.buffers if b.kind is BufferKind.registers]
        size = self.program.target.num_partitions * _REGISTER_BYTES
        return [self._memory[arena + p.offset : arena + p.offset + size] for p in places]

    def run(self, arrays: dict[int, np.ndarray]) -> None:
        """Run with the given memory for input and output buffers (by buffer id).

        Raises:
            IndirectOutOfBounds: an index read by an indirect access is outside its tensor.
        """
        with self._lock:
            for slot, buffer in self._dynamic:
                self._bases[slot] = arrays[buffer.id].ctypes.data
            for registers in self._accumulators:
                registers[...] = 0
            self._finish(self._walk(self.table.ctypes.data, 0, len(self.table), self._bases.ctypes.data))

    def time(self, arrays: dict[int, np.ndarray], launches: int) -> list[int]:
        """Nanoseconds (cpu-measured) of each of several runs, clocked around the native loop alone.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        elapsed = []
        clock, walk, table, count = time.perf_counter_ns, self._walk, self.table.ctypes.data, len(self.table)
        with self._lock:
            for slot, buffer in self._dynamic:
                self._bases[slot] = arrays[buffer.id].ctypes.data
            bases = self._bases.ctypes.data
            for _ in range(launches):
                for registers in self._accumulators:
                    registers[...] = 0
                started = clock()
                stopped = walk(table, 0, count, bases)
                elapsed.append(clock() - started)
                self._finish(stopped)
        return elapsed

    def _finish(self, stopped: int) -> None:
        """Handle what the walker stopped at, going on after every pause, until the end of the table."""
        while stopped:
            status, word = stopped >> 48, stopped & ((1 << 48) - 1)
            index = int(np.searchsorted(self._entries, word))
            instruction = next(i for i in self.program if i.index == index)
            if status != STATUS_PAUSE:
                self._raise(status, instruction)
            self._print(instruction, word)
            after = word + int(self.table[word + 1])
            stopped = self._walk(self.table.ctypes.data, after, len(self.table), self._bases.ctypes.data)

    def _print(self, instruction: Instruction, word: int) -> None:
        """What nl.device_print prints."""
        call = instruction.signature
        buffer, _ = instruction.access(call.operand("tensor"))
        strides = cpu_strides(call.tensor, buffer.partition_bytes, self._placement.buffers[buffer.id].pitch)
        base, offset = self.table[word + HEADER_WORDS : word + HEADER_WORDS + 2].tolist()
        low, high = extent(call.tensor.shape, strides)
        size = high - low + call.tensor.dtype.itemsize
        memory = (ctypes.c_char * size).from_address(int(self._bases[base]) + offset + low)
        print(call.prefix, np.ndarray(call.tensor.shape, call.tensor.dtype.numpy, memory, -low, strides))

    def _raise(self, status: int, instruction: Instruction) -> None:
        assert status == STATUS_OUT_OF_BOUNDS, status
        found, limit = self._words[:FAULT_WORDS].tolist()
        raise IndirectOutOfBounds(
            instruction=f"nisa.{instruction.signature.name}", found=found, limit=limit, location=instruction.location
        )


def _aligned(size: int) -> tuple[np.ndarray, int]:
    """Memory whose returned address is aligned to a cache line, filled with NaN bytes like fresh simulated memory."""
    memory = np.full(size + _ALIGN, 0xFF, np.uint8)
    address = memory.ctypes.data
    return memory, address + -address % _ALIGN
