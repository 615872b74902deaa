"""A compiled kernel: the instruction table with the addresses of this process, and the native loop that walks it."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

from nkilite.codegen import foreign
from nkilite.codegen.kernel import STATUS_FOREIGN, STATUS_OUT_OF_BOUNDS, STATUS_PAUSE, STATUS_TOLD
from nkilite.dtypes import as_dtype, cast, elements
from nkilite.errors import BeyondDimension, IndirectOutOfBounds, OperatorFailed
from nkilite.host.cpu import Host
from nkilite.ir.meeting import Arrival, Written, exchange
from nkilite.ir.rank import current
from nkilite.native import effort, entry, stack
from nkilite.native.image import HbmArray, Image, Stop
from nkilite.native.library import library
from nkilite.native.numbers import first_found
from nkilite.native.parallel import Walk
from nkilite.native.walker import WIDTH
from nkilite.native.workspace import Workspace, address

_WORKSPACES_KEPT = os.cpu_count() or 1  # runs at the same time beyond that give their memory back


class Executable:
    """Runs an image on this host; several threads may run it at once, each in a workspace of its own."""

    def __init__(self, image: Image, host: Host) -> None:
        self.image = image
        lowered = image.lowered
        self.table = lowered.table.copy()
        quickly = effort.quick(lowered)
        self._call(library(host).addresses(lowered.sources, quickly))
        quick = [name for name in quickly if not library(host).optimized(name)]
        #: The launch, counted from 1, that is to have good code; 0 if all is good.
        self.hasty = effort.launches(lowered, quick) + 1 if quick else 0
        self.walk = Walk(host, image.bases, lowered.threads, image.arena_bytes if lowered.arenas else 0)
        self._slots = [a.slot for a in (*image.inputs, *image.outputs)]
        self._written = [i for i, a in enumerate(image.inputs) if a.written is not None]
        self._idle: list[Workspace] = []
        self._host = host
        #: Whether workspaces have an entry: for programs that run on one thread.
        self.quick = self.walk.most <= 1 and entry.available() and image.numbers is None
        #: Bytes of scratch on the stack; 0 if every stack has room for them.
        self.scratch = _scratch(effort.stack(lowered, quick))

    def _call(self, addresses: Mapping[str, int]) -> None:
        """Have the table call functions; whoever walks it meanwhile calls those of before, or these."""
        lowered = self.image.lowered
        functions = np.array([addresses[s.name] for s in lowered.sources], np.int64)
        if len(self.table):
            self.table[lowered.entries] = functions[lowered.table[lowered.entries]]

    def optimize(self) -> None:
        """Compile again what was compiled quickly, for programs that are launched often."""
        if self.hasty and self.hasty < inf:
            self._call(library(self._host).addresses(self.image.lowered.sources))
            self.hasty, self.scratch = 0, _scratch(self.image.lowered.stack)

    def _count(self) -> None:
        """A launch begins while there is code that was compiled quickly."""
        left = self.hasty  # other threads may count, too: a launch more or less does not matter
        if left > 1:
            self.hasty = left - 1
        else:
            self.optimize()

    def enter(self, *arrays: np.ndarray) -> bool:
        """Run with the memory for the inputs and then the outputs, NumPy arrays of the right shapes and dtypes.

        False, and nothing was run, if some are not contiguous, aligned or, where they are written, writable, or if
        one that is written overlaps another array.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        if self.scratch and not stack.fits(self.scratch):
            return stack.with_room(self.scratch, self.enter, *arrays)
        if not self.quick:
            fit = self.fit(arrays)
            if fit:
                self.run(arrays)
            return fit
        if self.hasty:
            self._count()
        try:
            workspace = self._idle.pop()
        except IndexError:
            workspace = self.workspace()
        return self._entered(workspace, (workspace.entries or self._entries(workspace)).arrays(*arrays))

    def enter_at(self, *addresses: int) -> bool:
        """`enter`, where it is `quick`, with memory of as many bytes at addresses, a negative one of which is refused.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        if self.scratch and not stack.fits(self.scratch):
            return stack.with_room(self.scratch, self.enter_at, *addresses)
        if self.hasty:
            self._count()
        try:
            workspace = self._idle.pop()
        except IndexError:
            workspace = self.workspace()
        return self._entered(workspace, (workspace.entries or self._entries(workspace)).addresses(*addresses))

    def _entered(self, workspace: Workspace, stopped: int) -> bool:
        """What follows an entry; whether it was not refused."""
        if stopped > 0:
            try:
                self.finish(stopped, workspace)
            finally:
                self.leave(workspace)
        elif len(self._idle) < _WORKSPACES_KEPT:
            self._idle.append(workspace)
        return stopped != entry.REFUSED

    def fit(self, arrays: Sequence[np.ndarray]) -> bool:
        """Whether nothing speaks against running with arrays, as an entry checks it."""
        inputs = len(self.image.inputs)
        for i, array in enumerate(arrays):
            flags = array.flags
            if not (flags.c_contiguous and flags.aligned):
                return False
            if not flags.writeable and (i >= inputs or i in self._written):
                return False
        return not any(
            np.may_share_memory(arrays[i], other)
            for i in (*self._written, *range(inputs, len(arrays)))
            for j, other in enumerate(arrays)
            if i != j
        )

    def workspace(self) -> Workspace:
        """A new workspace."""
        return Workspace(self.image, self._host)

    def _entries(self, workspace: Workspace) -> entry.Entries:
        """Make the entries of a workspace, which the first launch of a program does without."""
        read, written = entry.CONTIGUOUS | entry.ALIGNED, entry.CONTIGUOUS | entry.ALIGNED | entry.WRITEABLE
        passed = [
            entry.Passed(a.slot, read if a.written is None else written, _uneven(a), a.bytes, a.written is not None)
            for a in self.image.inputs
        ] + [entry.Passed(a.slot, written, _uneven(a), a.bytes, True) for a in self.image.outputs]
        workspace.entries = entry.make_entries(
            self._host, self.walk.alone.address, self.table, workspace.address, passed, workspace.zeroed
        )
        return workspace.entries

    def run(self, arrays: Sequence[np.ndarray]) -> None:
        """Run with the given memory for the inputs and then the outputs; what is written overlaps nothing else.

        Raises:
            IndirectOutOfBounds: an index read by an indirect access is outside its tensor.
        """
        if self.scratch and not stack.fits(self.scratch):
            return stack.with_room(self.scratch, self.run, arrays)
        workspace, walk = self.begin(arrays), self.walk
        try:
            self._finish(walk(address(self.table), 0, len(self.table), workspace.address), workspace, walk)
            self.look(workspace)
        finally:
            self.leave(workspace)

    def time(self, arrays: Sequence[np.ndarray], launches: int) -> list[int]:
        """Nanoseconds (cpu-measured) of each of several runs, clocked around the native loop alone.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        if self.scratch and not stack.fits(self.scratch):
            return stack.with_room(self.scratch, self.time, arrays, launches)
        self.optimize()
        elapsed = []
        clock, table, count = time.perf_counter_ns, address(self.table), len(self.table)
        workspace, walk = self.begin(arrays), self.walk
        try:
            for _ in range(launches):
                workspace.clear()
                started = clock()
                stopped = walk(table, 0, count, workspace.address)
                elapsed.append(clock() - started)
                self._finish(stopped, workspace, walk)
                self.look(workspace)
        finally:
            self.leave(workspace)
        return elapsed

    def look(self, workspace: Workspace) -> None:
        """Report what a run that has ended found of NaN and infinities.

        Raises:
            NotANumber: a result has one, and that is an error.
        """
        numbers = self.image.numbers
        if numbers is not None:
            found = first_found(numbers, workspace.arena[numbers.offset : numbers.offset + numbers.bytes])
            if found is not None:
                found.report(numbers.fatal)

    def begin(self, arrays: Sequence[np.ndarray]) -> Workspace:
        """A workspace of this run alone, with the arrays among its bases."""
        if self.hasty:
            self._count()
        try:
            workspace = self._idle.pop()  # the one used last, which is still in the cache
        except IndexError:
            workspace = self.workspace()
        for slot, array in zip(self._slots, arrays, strict=True):
            workspace.bases[slot] = address(array)
        workspace.clear()
        return workspace

    def leave(self, workspace: Workspace) -> None:
        """A run has ended: its workspace is there for the next one."""
        if len(self._idle) < _WORKSPACES_KEPT:
            self._idle.append(workspace)

    def finish(self, stopped: int, workspace: Workspace) -> None:
        """Handle what stopped a walk on one thread in a workspace, and walk on to the end.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        self._finish(stopped, workspace, self.walk.alone)

    def _finish(self, stopped: int, workspace: Workspace, walk: Callable[[int, int, int, int], int]) -> None:
        """Handle what the walker stopped at, going on after every pause, until the end of the table."""
        while stopped:
            stop, word = self.handle(stopped, workspace)
            if stop.meets:
                arrival = self.arrival(stop, word, workspace)
                receive(arrival, exchange([arrival], current())[0])
            after = self.following(word)
            stopped = walk(address(self.table), after, len(self.table), workspace.address)

    def handle(self, stopped: int, workspace: Workspace) -> tuple[Stop, int]:
        """What the walker stopped at, and the word position of it; prints what nl.device_print prints.

        Raises:
            IndirectOutOfBounds: it was an index that is outside its tensor.
            OperatorFailed: it was an operator of the user's that failed.
            KeyboardInterrupt: the run was told to end, by another thread.
        """
        status, word = stopped >> 48, stopped & ((1 << 48) - 1)
        if status == STATUS_TOLD:
            raise KeyboardInterrupt
        stop = self.image.stops[int(np.searchsorted(self.image.lowered.entries, word))]
        if status == STATUS_FOREIGN:
            function = foreign.find(dict(stop.values)["operator"])
            raise OperatorFailed(operator=function.title, found=function.failure(), location=stop.location)
        if status != STATUS_PAUSE:
            assert status == STATUS_OUT_OF_BOUNDS, status
            found, limit = workspace.fault()
            what = dict(stop.values).get("what")
            if what is not None:
                raise BeyondDimension(what=what, found=found, limit=limit, location=stop.location)
            raise IndirectOutOfBounds(
                instruction=f"nisa.{stop.instruction}", found=found, limit=limit, location=stop.location
            )
        if not stop.meets:
            (values,) = self._tensors(stop, word, workspace).values()
            ((_, held),) = stop.tensors
            print(dict(stop.values)["prefix"], elements(values, as_dtype(held.dtype)))
        return stop, word

    def following(self, word: int) -> int:
        """The word position of the entry after the one at a word position."""
        return word + (int(self.table[word + 1]) & WIDTH)

    def arrival(self, stop: Stop, word: int, workspace: Workspace, core: int = 0) -> Arrival:
        """The arrival of a core that has stopped at the meeting in the entry at a word position."""
        arguments = {**dict(stop.values), **self._tensors(stop, word, workspace)}
        dtypes = {name: as_dtype(held.dtype) for name, held in stop.tensors}
        shared = frozenset(name for name, held in stop.tensors if held.shared)
        return Arrival(stop.instruction, arguments, dtypes, shared, stop.location, core)

    def _tensors(self, stop: Stop, word: int, workspace: Workspace) -> dict[str, np.ndarray]:
        """The memory of the tensors of the instruction in the entry at a word position, by operand."""
        found = {}
        for name, held in stop.tensors:
            base, offset = self.table[word + held.words : word + held.words + 2].tolist()
            memory: Any = (ctypes.c_char * (held.high - held.low)).from_address(
                int(workspace.bases[base]) + offset + held.low
            )
            found[name] = np.ndarray(held.shape, as_dtype(held.dtype).numpy, memory, -held.low, held.strides)
        return found


def _scratch(bytes: int) -> int:
    return 0 if bytes <= stack.LITTLE else bytes


def _uneven(array: HbmArray) -> int:
    """The bits of an address at which such an array is not aligned."""
    return as_dtype(array.dtype).numpy.alignment - 1


def receive(arrival: Arrival, written: Written) -> None:
    """Write what a meeting gave a core."""
    for name, values in written.items():
        destination = arrival.arguments[name]
        np.copyto(destination, cast(values, arrival.dtypes[name]).reshape(destination.shape))
