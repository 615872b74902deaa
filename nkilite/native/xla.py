"""Compiled programs as custom calls of XLA (nkilite/native/xla_handler.py), and what takes Python in them.

That is the first call of a program, programs for several threads or cores, more calls at once than there are places,
faults, and what a kernel prints.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nkilite import forking
from nkilite.dtypes import as_dtype
from nkilite.errors import ArgumentError
from nkilite.host.cpu import host
from nkilite.native import xla_handler as layout
from nkilite.native.cores import Cores
from nkilite.native.executable import Executable
from nkilite.native.image import HbmArray
from nkilite.native.library import library
from nkilite.native.workspace import Workspace, address

_INTERNAL = 13  # an error code of XLA's


class OtherProcess(ArgumentError, RuntimeError):
    template = "the call of a kernel was compiled by another process."
    remedy = "trace and compile the function here; what jax exports or keeps on disk cannot hold kernels."


class Program:
    """A program that calls of XLA run; it stays for as long as the process, as what XLA compiled may.

    Attributes:
        number: an attribute of the calls.
    """

    def __init__(self, prepare: Callable[[], Executable | Cores], order: Sequence[int]) -> None:
        """
        Args:
            prepare: makes what runs, at the first call.
            order: for every input of the program, its number among the arguments of the call.
        """
        self._prepare, self._order = prepare, tuple(order)
        self._lock = forking.lock()
        self._executable: Executable | Cores | None = None
        self._workspaces: list[Workspace] = []
        self._record: np.ndarray | None = None
        self._places: list[np.ndarray] = []
        self.number = _registry().add(self)

    def run(self, given: Sequence[int], made: Sequence[int]) -> None:
        """Run on buffers at addresses; the next call needs no Python if that is possible.

        Raises:
            IndirectOutOfBounds: an index read by an indirect access is outside its tensor.
        """
        with self._lock:
            if self._executable is None:
                self._executable = self._prepare()
        image = self._executable.image
        inputs = [_array(spec, given[i]) for spec, i in zip(image.inputs, self._order, strict=True)]
        outputs = [_array(spec, at) for spec, at in zip(image.outputs, made, strict=True)]
        self._executable.run([*inputs, *outputs])
        with self._lock:
            self._add_place(self._executable)

    def finish(self, place: int, stopped: int) -> None:
        """Handle what stopped a walk in a place, and walk on.

        Raises:
            IndirectOutOfBounds: that was it.
        """
        assert isinstance(self._executable, Executable)
        self._executable.finish(stopped, self._workspaces[place])

    def _add_place(self, executable: Executable | Cores) -> None:
        """One more workspace for calls without Python."""
        executable.optimize()
        if not isinstance(executable, Executable) or not executable.quick or executable.scratch:
            return
        if len(self._places) == layout.MOST_PLACES:
            return
        workspace = executable.workspace()
        ranges = [word for memory in workspace.zeroed for word in (memory.ctypes.data, memory.nbytes)]
        place = np.array([0, workspace.address, len(workspace.zeroed), *ranges], np.int64)
        self._workspaces.append(workspace)
        self._places.append(place)
        if self._record is None:
            image = executable.image
            slots = {i: spec.slot for spec, i in zip(image.inputs, self._order, strict=True)}
            self._record = np.array([
                executable.walk.alone.address, address(executable.table), len(executable.table), len(image.inputs),
                len(image.outputs), *[0] * layout.MOST_PLACES, *(slots[i] for i in range(len(slots))),
                *(spec.slot for spec in image.outputs),
            ], np.int64)
        self._record[layout.PLACES + len(self._places) - 1] = address(place)
        _registry().publish(self.number, address(self._record))


class _Registry:
    """The programs of the process, where the handler finds them.

    Attributes:
        process: a number that no other process has; an attribute of calls.
        handler: address of the handler.
    """

    def __init__(self) -> None:
        self.process = secrets.randbits(62)
        self.programs: list[Program] = []
        native = library(host()).addresses_together(layout.SOURCES)
        self.handler = native["nkilite_xla"]
        know = ctypes.CFUNCTYPE(ctypes.c_void_p)(native["nkilite_xla_know"])()
        self._known = np.ctypeslib.as_array((ctypes.c_int64 * layout.KNOWN).from_address(know or 0))
        self._slow = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(self.slow)
        self._lock = forking.lock()
        self._records = [np.zeros(64, np.int64)]  # those of before stay: calls may be reading them
        self._known[layout.SLOW] = ctypes.cast(self._slow, ctypes.c_void_p).value or 0
        self._known[layout.RECORDS] = address(self._records[0])
        self._known[layout.PROCESS] = self.process

    def add(self, program: Program) -> int:
        """The number of a new program."""
        with self._lock:
            self.programs.append(program)
            if len(self.programs) > len(self._records[-1]):
                self._records.append(np.concatenate([self._records[-1], np.zeros_like(self._records[-1])]))
                self._known[layout.RECORDS] = address(self._records[-1])
            self._known[layout.COUNT] = len(self.programs)
            return len(self.programs) - 1

    def publish(self, number: int, record: int) -> None:
        """Let the handler run a program, whose record is at an address."""
        with self._lock:
            self._records[-1][number] = record

    def understand(self, minor: int) -> None:
        """The version of the interface that jaxlib speaks."""
        self._known[layout.VERSION] = minor

    def slow(self, frame: int, place: int, stopped: int) -> int:
        """A call that takes Python: 0, or the address of an error of XLA's."""
        try:
            attributes = _pointers(_word(frame + layout.ATTRIBUTES), 2)
            number, process = (_word(_word(a + layout.SCALAR_VALUE)) for a in attributes)
            if process != self.process:
                raise OtherProcess
            if stopped:
                self.programs[number].finish(place, stopped)
            else:
                given = _buffers(frame, layout.ARGUMENTS, layout.ARGUMENT_COUNT)
                made = _buffers(frame, layout.RESULTS, layout.RESULT_COUNT)
                self.programs[number].run(given, made)
        except BaseException as error:
            return _error(frame, f"{type(error).__name__}: {error}")
        return 0


_found: _Registry | None = None
_making = forking.lock()


def _registry() -> _Registry:
    global _found
    with _making:
        if _found is None:
            _found = _Registry()
        return _found


def handler(minor: int) -> int:
    """The address of the handler, for an XLA whose interface has this minor version."""
    _registry().understand(minor)
    return _registry().handler


def process() -> int:
    """What calls have to say of the process they are for."""
    return _registry().process


def _array(spec: HbmArray, at: int) -> np.ndarray:
    memory: Any = (ctypes.c_char * spec.bytes).from_address(at)
    result: np.ndarray = np.ndarray(spec.shape, as_dtype(spec.dtype).numpy, memory)
    return result


def _word(at: int) -> int:
    return ctypes.c_int64.from_address(at).value


def _pointers(at: int, count: int) -> list[int]:
    return list((ctypes.c_int64 * count).from_address(at)) if count else []


def _buffers(frame: int, array: int, count: int) -> list[int]:
    """The addresses of the arguments or results of a call."""
    found = _pointers(_word(frame + array), _word(frame + count))
    return [_word(buffer + layout.BUFFER_DATA) for buffer in found]


class _ErrorArguments(ctypes.Structure):
    """An XLA_FFI_Error_Create_Args."""

    _fields_ = (
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("message", ctypes.c_char_p), ("code", ctypes.c_int),
    )


def _error(frame: int, message: str) -> int:
    """An error that XLA takes, and frees."""
    create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(
        _word(_word(frame + layout.FRAME_API) + layout.API_ERROR_CREATE)
    )
    arguments = _ErrorArguments(28, None, message.encode(), _INTERNAL)
    return create(ctypes.addressof(arguments)) or 0
