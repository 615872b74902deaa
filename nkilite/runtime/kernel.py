"""`@nki.jit` and `nki.simulate`: what happens when a kernel is called."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nkilite import knobs
from nkilite.codegen.host import host
from nkilite.errors import (
    InvalidCall,
    InvalidOperand,
    InvalidReturn,
    NkiError,
    NonContiguousArgument,
    StaleTensor,
    UnsupportedError,
    describe,
)
from nkilite.ir.program import Program
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.location import Location, defined_at
from nkilite.machine.target import get_target
from nkilite.passes.allocate import Allocate
from nkilite.passes.pipeline import run_pipeline
from nkilite.runtime.arguments import ArrayArgument, cache_key, map_arrays, to_framework
from nkilite.runtime.collector import collector_paused
from nkilite.runtime.compile import Compilation, compile_program
from nkilite.runtime.configurations import configured
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.fingerprint import fingerprint
from nkilite.runtime.globals import Globals
from nkilite.runtime.schedule import Schedule, apply_schedule, as_schedule
from nkilite.runtime.tracebacks import presented
from nkilite.trace import active
from nkilite.trace.builder import Builder, EagerBuilder, TraceBuilder
from nkilite.trace.storage import Placement, array
from nkilite.trace.tensor import NkiTensor


class Kernel:
    """A function that runs on a (modelled) NeuronCore.

    Called with arrays it is traced, compiled to native code for this CPU and run; called inside another kernel it is
    inlined. Specializations are cached by argument shapes, dtypes and compile-time values, the target, the CPU level
    and the global values the function uses.
    """

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[..., Any], lnc: int = 1, simulated: bool = False) -> None:
        if not callable(function):
            raise InvalidOperand(
                instruction="nki.jit", operand="the kernel", found=describe(function), expected="a function"
            )
        functools.update_wrapper(self, function)
        self.function = function
        self.lnc = lnc
        self.simulated = simulated
        self.signature = inspect.signature(function)
        self._schedule: Schedule = ()
        self._specializations: dict[Any, Specialization] = {}

    def with_schedule(self, edges: Iterable[tuple[str, str | Sequence[str]]]) -> Kernel:
        """This kernel with dependencies between named instructions.

        Args:
            edges: (name, name or names of the instructions it waits for).

        They have no effect on results; `nkilite.profile` honours them. Source: public page "How to Use the NKI
        Scheduling APIs".

        Raises:
            InvalidSchedule: an entry is no such pair; when the kernel is traced, a name is unknown or an instruction
                would wait for a later one.
        """
        scheduled = Kernel(self.function, self.lnc, self.simulated)
        scheduled._schedule = as_schedule(edges, self.__name__)
        return scheduled

    @property
    def __signature__(self) -> inspect.Signature:
        return self.signature

    def __repr__(self) -> str:
        return f"<nki kernel {self.__qualname__}>"

    @property
    def location(self) -> Location:
        """Where the kernel is defined."""
        return defined_at(self.function)

    def __getitem__(self, lnc: Any) -> Kernel:
        """`kernel[lnc]`: the kernel on a logical NeuronCore of that many physical cores; 1 for now."""
        cores = lnc[0] if isinstance(lnc, tuple) and len(lnc) == 1 else lnc
        cores = getattr(cores, "size", cores)
        if cores != 1:
            raise UnsupportedError(feature=f"a launch on {cores} cores (kernel[{cores}])")
        return self

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if active.builder_or_none() is not None:
            return self._inline(args, kwargs)
        try:
            arguments = self._bind(args, kwargs)
            if self.simulated or knobs.simulator():
                return _simulate(self, arguments)
            return self._specialize(arguments).run(arguments.arrays)
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def _inline(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run as a part of the kernel that is being traced."""
        try:
            return self.function(*args, **kwargs)
        except TypeError as error:
            trace = error.__traceback__
            if trace is not None and trace.tb_next is None and not isinstance(error, NkiError):
                self._bind(args, kwargs)  # explains arguments that do not fit
            raise

    def trace(self, *args: Any, **kwargs: Any) -> Program:
        """The kernel's IR for these arguments, before any pass."""
        try:
            return _trace(self, self._bind(args, kwargs))[0]
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def check(self, *args: Any, **kwargs: Any) -> Program:
        """Trace for these arguments and run every pass, so that all mistakes show, but compile nothing."""
        try:
            return run_pipeline(_trace(self, self._bind(args, kwargs))[0])
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def launcher(self, *args: Any, **kwargs: Any) -> Launcher:
        """Compile for these arguments and bind the result to them, to be launched and timed repeatedly."""
        try:
            arguments = self._bind(args, kwargs)
            return Launcher(self._specialize(arguments), arguments)
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def forget(self) -> None:
        """Drop every compiled specialization; the next launch compiles anew."""
        self._specializations.clear()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the kernel's source, its Python helpers and the global values they read; see runtime/fingerprint."""
        return fingerprint(self.function)

    def compile(self, *args: Any, **kwargs: Any) -> Compilation:
        """Trace and compile for these arguments without running; the same object later calls use."""
        try:
            return self._specialize(self._bind(args, kwargs)).compilation
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def _bind(self, args: tuple, kwargs: dict[str, Any]) -> Arguments:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            problem = f"has {error}" if str(error).startswith("too many") else str(error)
            raise InvalidCall(function=self.__name__, problem=problem, signature=self.signature) from None
        bound.arguments.update(configured(self, bound.arguments))
        bound.apply_defaults()
        arrays: list[ArrayArgument] = []

        def remember(array: ArrayArgument) -> ArrayArgument:
            arrays.append(array)
            return array

        values = {k: map_arrays(v, k, self.__name__, remember) for k, v in bound.arguments.items()}
        key = tuple(cache_key(v, k, self.__name__) for k, v in values.items())
        return Arguments(bound, values, arrays, key)

    def _specialize(self, arguments: Arguments) -> Specialization:
        target = get_target(knobs.target())
        key = (target.name, host().level, arguments.key)
        found = self._specializations.get(key)
        if found is None or not found.globals.unchanged():
            found = self._specializations[key] = Specialization(self, arguments)
        return found


class Arguments:
    """Bound arguments with their arrays wrapped as ArrayArguments, those arrays in order, and the key of all."""

    __slots__ = ("arrays", "bound", "key", "values")

    def __init__(
        self, bound: inspect.BoundArguments, values: dict[str, Any], arrays: list[ArrayArgument], key: tuple
    ) -> None:
        self.bound, self.values, self.arrays, self.key = bound, values, arrays, key

    def call(self, function: Callable[..., Any], tensors: dict[int, NkiTensor], kernel: str) -> Any:
        """Call the kernel function with tensors (by id of their ArrayArgument) in the place of arrays."""

        def leaf(value: Any, _: str) -> Any:
            return tensors[id(value)] if isinstance(value, ArrayArgument) else value

        bound = inspect.BoundArguments(self.bound.signature, dict(self.bound.arguments))
        for name, value in self.values.items():
            bound.arguments[name] = map_leaves(value, leaf)
        return function(*bound.args, **bound.kwargs)

    @property
    def framework(self) -> str:
        return next((a.framework for a in self.arrays), "numpy")


def _enter(builder: Builder, kernel: Kernel, arguments: Arguments, eager: bool) -> Any:
    """Run the kernel function under a builder; returns what it returned."""
    tensors: dict[int, NkiTensor] = {}
    where = kernel.location
    for argument in arguments.arrays:
        data = None
        if eager:
            memory = argument.numpy.reshape(-1).view(np.uint8)
            data = Placement(memory, 0, 0)
        tensor = tensors[id(argument)] = builder.allocate(
            MemoryRegion.shared_hbm, argument.shape, argument.dtype, name=argument.name, kind=BufferKind.input,
            location=where, data=data,
        )
        if isinstance(builder, EagerBuilder) and not argument.writable:
            builder.unwritable[tensor.storage.id] = _unwritable(argument)
    try:
        with active.activate(builder):
            return arguments.call(kernel.function, tensors, kernel.__name__)
    finally:
        builder.close()


def _trace(kernel: Kernel, arguments: Arguments) -> tuple[Program, Any]:
    builder = TraceBuilder(kernel.__name__, get_target(knobs.target()))
    with collector_paused():
        returned = _enter(builder, kernel, arguments, eager=False)
    program = builder.program
    apply_schedule(program, kernel._schedule)
    for tensor in _tensors(returned, kernel, program):
        if tensor.storage.kind is not BufferKind.input and tensor.storage not in program.outputs:
            program.outputs.append(tensor.storage)
    return program, returned


def _tensors(returned: Any, kernel: Kernel, program: Program) -> list[NkiTensor]:
    """The tensors in a return value, which must all be in HBM and made by this call."""
    found: list[NkiTensor] = []
    name = kernel.__name__

    def visit(tensor: NkiTensor) -> NkiTensor:
        buffer = tensor.storage
        if buffer.id >= len(program.buffers) or program.buffers[buffer.id] is not buffer:
            raise StaleTensor(
                instruction=f"kernel {name!r}", operand="a returned value", tensor=buffer.label,
                made=buffer.location, location=kernel.location,
            )
        if tensor.buffer.on_chip or tensor.is_indirect():
            what = f"a tensor in {str(tensor.buffer).upper()}" if tensor.buffer.on_chip else "an indirect view"
            raise InvalidReturn(kernel=name, what=what, location=buffer.location)
        found.append(tensor)
        return tensor

    map_returned(returned, kernel, visit)
    return found


def map_returned(value: Any, kernel: Kernel, replace: Callable[[NkiTensor], Any]) -> Any:
    """Copy a return value with every tensor replaced; tuples, lists and dicts keep their nesting.

    Raises:
        InvalidReturn: anything that is not a tensor, a container of tensors, a number, a string or None.
    """

    def leaf(value: Any, _: str) -> Any:
        if isinstance(value, NkiTensor):
            return replace(value)
        if value is None or isinstance(value, (int, float, str)):
            return value
        what = f"a value of type {type(value).__name__}"
        fix = "return HBM tensors, numbers, strings or None, alone or in tuples, lists and dicts"
        raise InvalidReturn(kernel=kernel.__name__, what=what, fix=fix, location=kernel.location)

    return map_leaves(value, leaf, records=False)


class Specialization:
    """A kernel compiled for one set of shapes, dtypes and compile-time values."""

    def __init__(self, kernel: Kernel, arguments: Arguments) -> None:
        self.kernel = kernel
        self.globals = Globals(kernel.function)
        started = time.perf_counter()
        program, self._returned = _trace(kernel, arguments)
        traced = time.perf_counter() - started
        with collector_paused():
            self.compilation = compile_program(program)
        self.compilation.seconds = {"trace": traced, **self.compilation.seconds}
        self.program = self.compilation.program
        written = _written_inputs(self.program)
        self._in_place = [written.get(b.id) for b in self.program.inputs]

    def run(self, arguments: list[ArrayArgument]) -> Any:
        """Run on arrays and wrap the results in the framework of the inputs."""
        arrays = self.place(arguments)
        self.compilation.executable.run(arrays)
        return self.results(arguments, arrays)

    def place(self, arguments: list[ArrayArgument]) -> dict[int, np.ndarray]:
        """The memory of a run by buffer id: the arguments' own, and new arrays for the outputs."""
        arrays: dict[int, np.ndarray] = {}
        for buffer, argument, written in zip(self.program.inputs, arguments, self._in_place, strict=True):
            if written is not None and not argument.writable:
                raise NonContiguousArgument(location=written, **_unwritable(argument))
            arrays[buffer.id] = argument.numpy
        for buffer in self.program.outputs:
            arrays[buffer.id] = np.empty(buffer.shape, buffer.dtype.numpy)
        return arrays

    def results(self, arguments: list[ArrayArgument], arrays: dict[int, np.ndarray]) -> Any:
        """What the kernel returned, as arrays in the framework of the inputs."""
        originals = {b.id: a for b, a in zip(self.program.inputs, arguments, strict=True)}
        framework = next((a.framework for a in arguments), "numpy")

        def result(tensor: NkiTensor) -> Any:
            buffer = tensor.storage
            if buffer.id in originals and tensor.type is buffer.whole():
                return originals[buffer.id].original
            return to_framework(_view(arrays[buffer.id], tensor), tensor.dtype, framework)

        return map_returned(self._returned, self.kernel, result)


class Launcher:
    """A kernel compiled for, and bound to, one set of arguments; its outputs are reused from launch to launch."""

    def __init__(self, specialization: Specialization, arguments: Arguments) -> None:
        self._specialization = specialization
        self._arguments = arguments.arrays
        self._arrays = specialization.place(arguments.arrays)

    def run(self) -> Any:
        """Launch once and return what the kernel returns."""
        self._specialization.compilation.executable.run(self._arrays)
        return self._specialization.results(self._arguments, self._arrays)

    def time(self, launches: int = 1) -> list[float]:
        """Microseconds (cpu-measured) of each of `launches` runs, clocked around the native loop alone."""
        elapsed = self._specialization.compilation.executable.time(self._arrays, launches)
        return [nanoseconds / 1000 for nanoseconds in elapsed]


def _unwritable(argument: ArrayArgument) -> dict[str, Any]:
    """The fields of a NonContiguousArgument for an argument that cannot be written in place."""
    problem = "a JAX array" if argument.framework == "jax" else "not contiguous" if argument.copied else "read-only"
    return {"name": argument.name, "shape": argument.shape, "problem": problem}


def _view(data: np.ndarray, tensor: NkiTensor) -> np.ndarray:
    if tensor.type is tensor.storage.whole():
        return data
    strides = tuple(s * tensor.dtype.itemsize for s in tensor.strides)
    return np.ndarray(tensor.shape, tensor.dtype.numpy, data, tensor.byte_offset, strides)


def _written_inputs(program: Program) -> dict[int, Location]:
    """The input buffers a program writes, with the first line that does."""
    inputs = {b.id for b in program.inputs}
    written: dict[int, Location] = {}
    for instruction in program:
        for operand in instruction.signature.operands:
            if operand.writes:
                buffer, _ = instruction.access(operand)
                if buffer.id in inputs:
                    written.setdefault(buffer.id, instruction.location)
    return written


def _simulate(kernel: Kernel, arguments: Arguments) -> Any:
    builder = EagerBuilder(kernel.__name__, get_target(knobs.target()))
    returned = _enter(builder, kernel, arguments, eager=True)
    _tensors(returned, kernel, builder.program)
    Allocate().run(builder.program)  # overflows are mistakes here, too
    by_storage = {id(b): a for b, a in zip(builder.program.inputs, arguments.arrays, strict=True)}

    def result(tensor: NkiTensor) -> Any:
        argument = by_storage.get(id(tensor.storage))
        if argument is not None and tensor.type is tensor.storage.whole():
            return argument.original
        return to_framework(array(tensor).copy(), tensor.dtype, arguments.framework)

    return map_returned(returned, kernel, result)


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a function an NKI kernel; `@nki.jit` or `@nki.jit(...)`.

    Options of the vendor's compiler (mode, platform_target, ...) are accepted and have no meaning on a CPU.
    """
    if function is None:
        return functools.partial(jit, **options)
    return function if isinstance(function, Kernel) else Kernel(function)


def simulate(kernel: Callable[..., Any]) -> Kernel:
    """The kernel executed eagerly by NumPy reference semantics, so that print and breakpoint() see values.

    Args:
        kernel: an `@nki.jit` kernel or a plain function.
    """
    if isinstance(kernel, Kernel):
        return Kernel(kernel.function, kernel.lnc, simulated=True)
    return Kernel(kernel, simulated=True)
