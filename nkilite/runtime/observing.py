"""Launches that keep what every instruction wrote: simulated, simulated without rounding to narrow tiles, compiled.

Each run calls the kernel function under a builder that copies the written operands of an instruction right after it,
so that number i of one run is number i of every other. What a loop that the device runs does in its body, and what
goes through a runtime index or into registers, is not kept.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from nkilite import isa, knobs
from nkilite.dtypes import DType, elements, float32
from nkilite.errors import ArgumentError
from nkilite.ir.definition import Role, Values
from nkilite.ir.meeting import ALONE
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import BufferKind, MemoryRegion, ViewType
from nkilite.ir.unwritten import check_written
from nkilite.location import Location, here
from nkilite.machine.target import get_target
from nkilite.native.compile import compile_program
from nkilite.runtime.binding import Arguments, bind
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.grid import cores_of
from nkilite.runtime.kernel import Kernel
from nkilite.runtime.results import check_returned, returned_views
from nkilite.runtime.tracebacks import presented
from nkilite.runtime.tracing import enter
from nkilite.trace import storage
from nkilite.trace.builder import Builder, NkiInstruction
from nkilite.trace.eager import EagerBuilder
from nkilite.trace.tensor import NkiTensor

Kept = TypeVar("Kept")  # what is left of a tensor that was written


class OneCoreObserved(ArgumentError, ValueError):
    template = "kernel {kernel!r} is launched on {cores} cores, and instructions are observed on one."
    remedy = "observe the kernel without [...], or compare its results with nkilite.testing.check."


class Observed(NamedTuple):
    """What an instruction wrote.

    Attributes:
        instruction: its name.
        name: the one the user gave it, or "".
        dtype: of the operand.
    """

    instruction: str
    name: str
    operand: str
    location: Location
    dtype: DType
    value: np.ndarray


class _Observer(Builder, Generic[Kept]):
    """Hands on what instructions have written, once for each."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[tuple[Signature, str, str, Location, Kept]] = []
        self._observing = False

    def emit(self, signature: Signature, operands: Values, name: str | None) -> NkiInstruction:
        recorded = super().emit(signature, operands, name)
        if self._observing or self.nesting.innermost is not None or signature.definition.control is not None:
            return recorded
        self._observing = True
        try:
            for operand, tensor in _written(signature, operands):
                self.seen.append((signature, name or "", operand, here(), self.keep(tensor)))
        finally:
            self._observing = False
        return recorded

    def redirect(self, made: NkiTensor, dst: NkiTensor, accumulate: bool = False) -> bool:
        return False  # what was kept of `made` stays true

    @abstractmethod
    def keep(self, tensor: NkiTensor) -> Kept:
        """What is left of a tensor that was written."""


class _Eager(_Observer[np.ndarray], EagerBuilder):
    """Keeps the values."""

    def keep(self, tensor: NkiTensor) -> np.ndarray:
        kept: np.ndarray = storage.read(tensor).copy()
        return kept


class _Wide(_Eager):
    """Tiles of narrow floats are float32, so that nothing is rounded on its way."""

    def tile(self, type: ViewType, name: str, place: int, address: tuple[int, int] | None = None) -> NkiTensor:
        return super().tile(ViewType.dense(type.region, _widened(type.dtype), type.shape), name, place, address)

    def allocate(
        self, region: MemoryRegion, shape: tuple[int, ...], dtype: DType, *args: Any, **kwargs: Any
    ) -> NkiTensor:
        return super().allocate(region, shape, _widened(dtype), *args, **kwargs)


class _Compiled(_Observer[NkiTensor]):
    """Keeps a copy in HBM, which the compiled program returns."""

    def keep(self, tensor: NkiTensor) -> NkiTensor:
        source = tensor
        if tensor.buffer is MemoryRegion.psum:  # which DMA engines do not reach
            source = self.allocate(MemoryRegion.sbuf, tensor.shape, tensor.dtype)
            isa.tensor_copy(source, tensor)
        kept = self.allocate(MemoryRegion.shared_hbm, tensor.shape, tensor.dtype)
        isa.dma_copy(kept, source)
        return kept


def observe(kernel: Kernel[...], mode: str, args: Args, kwargs: Kwargs) -> list[Observed]:
    """Run a kernel and return what each of its instructions wrote.

    Args:
        mode: a key of `MODES`.

    Raises:
        OneCoreObserved: it is launched on several.
    """
    try:
        return MODES[mode](kernel, args, kwargs)
    except Exception as error:
        shown = presented(error, kernel.__name__)
        raise shown from shown.__cause__


def _eager(kernel: Kernel[...], args: Args, kwargs: Kwargs, builder_of: type[_Eager] = _Eager) -> list[Observed]:
    arguments = bind(kernel, args, kwargs)
    builder = builder_of(kernel.__name__, get_target(knobs.target()), _core(kernel))
    enter(builder, kernel, arguments, eager=True)
    return [_observed(*seen) for seen in builder.seen]


def _wide(kernel: Kernel[...], args: Args, kwargs: Kwargs) -> list[Observed]:
    widened = [a.astype(np.float32) if isinstance(a, np.ndarray) and _is_narrow(a.dtype) else a for a in args]
    return _eager(kernel, tuple(widened), kwargs, _Wide)


def _compiled(kernel: Kernel[...], args: Args, kwargs: Kwargs) -> list[Observed]:
    arguments = bind(kernel, args, kwargs)
    builder = _Compiled(kernel.__name__, get_target(knobs.target()), _core(kernel))
    returned = enter(builder, kernel, arguments, eager=False)
    check_returned(returned, builder.program, kernel.__name__, kernel.location)
    check_written([builder.program], returned_views(returned), kernel.__name__)
    check_returned([kept for *_, kept in builder.seen], builder.program, kernel.__name__, kernel.location)
    arrays = _run(builder.program, arguments)
    return [
        _observed(call, name, at, line, elements(arrays[kept.storage.id], kept.dtype))
        for call, name, at, line, kept in builder.seen
    ]


def _run(program: Program, arguments: Arguments) -> dict[int, np.ndarray]:
    """The arrays of HBM buffers after a run, by buffer id."""
    outputs = {b.id: np.zeros(b.shape, b.dtype.numpy) for b in program.outputs}
    inputs = [b.id for b in program.buffers if b.kind is BufferKind.input]
    memory = [a.numpy.copy() for a in arguments.arrays]
    compile_program(program).executable.run([*memory, *outputs.values()])
    return {**dict(zip(inputs, memory, strict=True)), **outputs}


MODES: dict[str, Callable[[Kernel[...], Args, Kwargs], list[Observed]]] = {
    "float32": _wide, "simulate": _eager, "compiled": _compiled,
}


def _core(kernel: Kernel[...]) -> object:
    cores = cores_of(kernel, get_target(knobs.target()))
    if len(cores) > 1:
        raise OneCoreObserved(kernel=kernel.__name__, cores=len(cores))
    return cores[0] if cores else ALONE


def _written(signature: Signature, operands: Values) -> list[tuple[str, NkiTensor]]:
    """The tensors that a call writes and that can be copied."""
    names = [p.name for p in signature.definition.parameters if p.role is not Role.attribute]
    given = dict(zip(names, operands, strict=True))
    found = [(o.name, given[o.name]) for o in signature.operands if o.writes and o.name in given]
    return [(n, t) for n, t in found if t.index is None and t.buffer is not MemoryRegion.registers]


def _observed(signature: Signature, name: str, operand: str, where: Location, value: np.ndarray) -> Observed:
    return Observed(signature.name, name, operand, where, signature.arguments[operand].dtype, value)


def _is_narrow(dtype: np.dtype) -> bool:
    return dtype.itemsize < 4 and dtype.kind in "fV"


def _widened(dtype: DType) -> DType:
    return float32 if dtype.is_float else dtype
