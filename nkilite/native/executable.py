"""A compiled kernel: the instruction table with the addresses of this process, and the native loop that walks it."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nkilite.codegen.host import Host
from nkilite.codegen.kernel import STATUS_OUT_OF_BOUNDS, STATUS_PAUSE
from nkilite.dtypes import as_dtype
from nkilite.errors import IndirectOutOfBounds
from nkilite.native import entry
from nkilite.native.image import Image, Shown
from nkilite.native.library import library
from nkilite.native.parallel import Walk
from nkilite.native.walker import WIDTH
from nkilite.native.workspace import Workspace, address

_WORKSPACES_KEPT = os.cpu_count() or 1  # runs at the same time beyond that give their memory back


class Executable:
    """Runs an image on this host; several threads may run it at once, each in a workspace of its own."""

    def __init__(self, image: Image, host: Host) -> None:
        self.image = image
        lowered = image.lowered
        native = library(host)
        addresses = native.addresses(lowered.sources)
        self.table = lowered.table.copy()
        functions = np.array([addresses[s.name] for s in lowered.sources], np.int64)
        if len(self.table):
            self.table[lowered.entries] = functions[self.table[lowered.entries]]
        self._walk = Walk(host, image.bases, lowered.threads)
        self._slots = [a.slot for a in (*image.inputs, *image.outputs)]
        self._written = [i for i, a in enumerate(image.inputs) if a.written is not None]
        self._idle: list[Workspace] = []
        self._host = host
        #: Whether workspaces have an entry: for programs that run on one thread.
        self.quick = self._walk.most <= 1 and entry.available()

    def enter(self, *arrays: np.ndarray) -> bool:
        """Run with the memory for the inputs and then the outputs, NumPy arrays of the right shapes and dtypes.

        False, and nothing was run, if some are not contiguous, aligned or, where they are written, writable, or if
        one that is written overlaps another array.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        if not self.quick:
            fit = self._fit(arrays)
            if fit:
                self.run(arrays)
            return fit
        try:
            workspace = self._idle.pop()
        except IndexError:
            workspace = self._workspace()
        stopped = workspace.entry(*arrays)
        if stopped > 0:
            try:
                self._finish(stopped, workspace, self._walk.alone)
            finally:
                self._leave(workspace)
        elif len(self._idle) < _WORKSPACES_KEPT:
            self._idle.append(workspace)
        return stopped != entry.REFUSED

    def _fit(self, arrays: Sequence[np.ndarray]) -> bool:
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

    def _workspace(self) -> Workspace:
        """A new workspace, with its entry."""
        workspace, image = Workspace(self.image), self.image
        if self.quick:
            read, written = entry.CONTIGUOUS | entry.ALIGNED, entry.CONTIGUOUS | entry.ALIGNED | entry.WRITEABLE
            passed = [
                entry.Passed(a.slot, read if a.written is None else written, a.bytes, a.written is not None)
                for a in image.inputs
            ] + [entry.Passed(a.slot, written, a.bytes, True) for a in image.outputs]
            walk = ctypes.cast(self._walk.alone, ctypes.c_void_p).value or 0
            workspace.entry = entry.make_entry(
                self._host, walk, self.table, workspace.address, passed, workspace.registers
            )
        return workspace

    def run(self, arrays: Sequence[np.ndarray]) -> None:
        """Run with the given memory for the inputs and then the outputs; what is written overlaps nothing else.

        Raises:
            IndirectOutOfBounds: an index read by an indirect access is outside its tensor.
        """
        workspace, walk = self._enter(arrays), self._walk
        try:
            self._finish(walk(address(self.table), 0, len(self.table), workspace.address), workspace, walk)
        finally:
            self._leave(workspace)

    def time(self, arrays: Sequence[np.ndarray], launches: int) -> list[int]:
        """Nanoseconds (cpu-measured) of each of several runs, clocked around the native loop alone.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        elapsed = []
        clock, table, count = time.perf_counter_ns, address(self.table), len(self.table)
        workspace, walk = self._enter(arrays), self._walk
        try:
            for _ in range(launches):
                workspace.clear()
                started = clock()
                stopped = walk(table, 0, count, workspace.address)
                elapsed.append(clock() - started)
                self._finish(stopped, workspace, walk)
        finally:
            self._leave(workspace)
        return elapsed

    def _enter(self, arrays: Sequence[np.ndarray]) -> Workspace:
        """A workspace of this run alone, with the arrays among its bases."""
        try:
            workspace = self._idle.pop()  # the one used last, which is still in the cache
        except IndexError:
            workspace = self._workspace()
        for slot, array in zip(self._slots, arrays, strict=True):
            workspace.bases[slot] = address(array)
        workspace.clear()
        return workspace

    def _leave(self, workspace: Workspace) -> None:
        if len(self._idle) < _WORKSPACES_KEPT:
            self._idle.append(workspace)

    def _finish(self, stopped: int, workspace: Workspace, walk: Callable[[int, int, int, int], int]) -> None:
        """Handle what the walker stopped at, going on after every pause, until the end of the table."""
        while stopped:
            status, word = stopped >> 48, stopped & ((1 << 48) - 1)
            stop = self.image.stops[int(np.searchsorted(self.image.lowered.entries, word))]
            if status != STATUS_PAUSE:
                assert status == STATUS_OUT_OF_BOUNDS, status
                found, limit = workspace.fault()
                raise IndirectOutOfBounds(
                    instruction=f"nisa.{stop.instruction}", found=found, limit=limit, location=stop.location
                )
            assert stop.shown is not None
            self._print(stop.shown, word, workspace)
            after = word + (int(self.table[word + 1]) & WIDTH)
            stopped = walk(address(self.table), after, len(self.table), workspace.address)

    def _print(self, shown: Shown, word: int, workspace: Workspace) -> None:
        """What nl.device_print prints."""
        base, offset = self.table[word + shown.words : word + shown.words + 2].tolist()
        memory: Any = (ctypes.c_char * (shown.high - shown.low)).from_address(
            int(workspace.bases[base]) + offset + shown.low
        )
        dtype = as_dtype(shown.dtype).numpy
        print(shown.prefix, np.ndarray(shown.shape, dtype, memory, -shown.low, shown.strides))
