"""A simulated launch that is watched: after every instruction, pictures of what it read and wrote."""

from __future__ import annotations

from typing import Any, NamedTuple

from nkilite import knobs
from nkilite.drawing.pictures import Grid, Picture, covered, picture
from nkilite.errors import ArgumentError, NkiError
from nkilite.ir import attributes
from nkilite.ir.definition import Control, Role, Values
from nkilite.ir.meeting import ALONE
from nkilite.ir.program import Signature
from nkilite.ir.types import Buffer, MemoryRegion, ViewType
from nkilite.location import Location, here
from nkilite.machine.target import get_target
from nkilite.runtime.binding import bind
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.grid import cores_of
from nkilite.runtime.kernel import Kernel
from nkilite.runtime.tracebacks import presented
from nkilite.runtime.tracing import enter
from nkilite.trace import storage
from nkilite.trace.builder import NkiInstruction
from nkilite.trace.eager import EagerBuilder
from nkilite.trace.tensor import NkiTensor

STEPS = 400  # instructions that are drawn


class OneCoreDrawn(ArgumentError, ValueError):
    template = "kernel {kernel!r} is launched on {cores} cores, and one is drawn."
    remedy = "draw the kernel without [...]."


class Touched(NamedTuple):
    """An operand of a step.

    Attributes:
        buffer: id of its buffer.
        shape: of the view.
        blocks: of the buffer's picture that the view covers (nkilite/drawing/pictures.py).
        picture: of the buffer after the step.
    """

    operand: str
    writes: bool
    reads: bool
    buffer: int
    shape: tuple[int, ...]
    dtype: str
    blocks: str
    picture: Picture


class Step(NamedTuple):
    """An instruction that was executed.

    Attributes:
        engine: the one that runs it.
        attributes: its other arguments that are no tensors, and no defaults.
    """

    engine: str
    instruction: str
    name: str
    attributes: tuple[tuple[str, str], ...]
    location: Location
    touched: tuple[Touched, ...]


class Watched(NamedTuple):
    """A launch.

    Attributes:
        buffers: by id, those that steps touch.
        executed: how many instructions there were, drawn or not.
        failure: what ended it, if anything did.
    """

    steps: list[Step]
    buffers: dict[int, Buffer]
    executed: int
    failure: NkiError | None


class _Watcher(EagerBuilder):
    """Executes instructions and draws what they touched."""

    def __init__(self, *args: Any, most: int) -> None:
        super().__init__(*args)
        self.steps: list[Step] = []
        self.buffers: dict[int, Buffer] = {}
        self.executed = 0
        self._most = most
        self._grids: dict[int, Grid] = {}

    def emit(self, signature: Signature, operands: Values, name: str | None) -> NkiInstruction:
        located = self._located(signature, operands)
        recorded = super().emit(signature, operands, name)
        if signature.definition.control is Control.end:
            return recorded
        self.executed += 1
        if len(self.steps) < self._most:
            given = _given(signature, operands)
            touched = tuple(
                self._touched(o.name, located.get(o.name, tensor), o.writes, o.reads)
                for o in signature.operands
                if isinstance(tensor := given.get(o.name), NkiTensor) and tensor.buffer is not MemoryRegion.registers
            )
            engine = signature.definition.rule("cost")(signature).engine.name
            self.steps.append(Step(engine, signature.name, name or "", _attributes(signature, given), here(), touched))
        return recorded

    def holders(self, buffer: Buffer) -> int:
        return super().holders(buffer) + (buffer.id in self.buffers)

    def redirect(self, made: NkiTensor, dst: NkiTensor, accumulate: bool = False) -> bool:
        redirected = super().redirect(made, dst, accumulate)
        if redirected and self.steps and self.executed <= self._most:
            last = self.steps[-1]
            touched = tuple(
                self._touched(t.operand, dst, True, accumulate) if t.writes and t.buffer == made.storage.id else t
                for t in last.touched
            )
            self.steps[-1] = last._replace(touched=touched)
        return redirected

    def _touched(self, operand: str, tensor: NkiTensor, writes: bool, reads: bool) -> Touched:
        buffer = tensor.storage
        grid = self._grids.get(buffer.id)
        if grid is None:
            grid = self._grids[buffer.id] = Grid.of(buffer)
            self.buffers[buffer.id] = buffer
        return Touched(
            operand, writes, reads, buffer.id, tensor.shape, str(tensor.dtype), covered(tensor, grid),
            picture(buffer, grid),
        )

    def _located(self, signature: Signature, operands: Values) -> dict[str, NkiTensor]:
        """Tensors that a scalar index places: before the instruction, which may write the index."""
        given = _given(signature, operands)
        return {n: storage.located(t) for n, t in given.items() if isinstance(t, NkiTensor) and t.index is not None}


def _given(signature: Signature, operands: Values) -> dict[str, object]:
    names = [p.name for p in signature.definition.parameters if p.role is not Role.attribute]
    return dict(zip(names, operands, strict=True))


def _attributes(signature: Signature, given: dict[str, object]) -> tuple[tuple[str, str], ...]:
    defaults = {p.name: p.default for p in signature.definition.parameters}
    found = []
    for name, value in signature.arguments.items():
        if isinstance(value, ViewType) or name in ("registers", "engine"):
            continue
        value = given.get(name, value)
        if value is not defaults.get(name):
            found.append((name, attributes.text(value)))
    return tuple(found)


def watch(kernel: Kernel[...], args: Args, kwargs: Kwargs, most: int = STEPS) -> Watched:
    """Simulate a launch and keep what each of its first instructions touched.

    A kernel that fails is drawn up to there. Arguments are not written.

    Raises:
        OneCoreDrawn: it is launched on several cores.
    """
    target = get_target(knobs.target())
    cores = cores_of(kernel, target)
    if len(cores) > 1:
        raise OneCoreDrawn(kernel=kernel.__name__, cores=len(cores))
    arguments = bind(kernel, args, kwargs)
    for array in arguments.arrays:
        array.numpy = array.numpy.copy()
    builder = _Watcher(kernel.__name__, target, cores[0] if cores else ALONE, most=most)
    failure: NkiError | None = None
    try:
        enter(builder, kernel, arguments, eager=True)
    except Exception as error:
        shown = presented(error, kernel.__name__)
        if not builder.steps or not isinstance(shown, NkiError):
            raise shown from shown.__cause__
        failure = shown
    return Watched(builder.steps, builder.buffers, builder.executed, failure)
