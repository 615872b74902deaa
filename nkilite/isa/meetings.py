"""Instructions at which the two cores of a launch meet: a barrier, and exchanges of tiles.

Source: public pages nki.isa.core_barrier, nki.isa.sendrecv, nki.isa.sendrecv_compute.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import SupportsIndex

import numpy as np

from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import Elements
from nkilite.errors import (
    DtypeMismatch,
    FreeSizeExceeded,
    InvalidOperand,
    ShapeMismatch,
    UnsupportedOnTarget,
    WrongMemory,
    describe,
)
from nkilite.ir.access import Opaque
from nkilite.ir.definition import Meets
from nkilite.ir.meeting import ALONE, Arrival, Core, Written
from nkilite.ir.program import Signature
from nkilite.ir.rank import Rank
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.isa import alu, constants, rules
from nkilite.isa.constants import dma_engine
from nkilite.isa.operators import Op
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.machine.target import Target
from nkilite.trace import active
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_DMA = constants.dma_engine.dma
_GPSIMD_DMA = constants.dma_engine.gpsimd_dma
_ENGINES = (Engine.gpsimd, Engine.vector, Engine.scalar, Engine.tensor, Engine.sync)
_MEETING = Opaque("the other core takes part")
_REDUCTIONS = tuple(alu.TABLE[name] for name in ("add", "maximum", "minimum"))
_BOTH = (0, 1)
# Bytes per partition that GpSimd's own DMA engine moves, by size of the elements. Source: nki.isa.sendrecv.
_GPSIMD_BYTES = {4: 1024, 2: 512, 1: 256}


def _core() -> Core:
    """Which core is being traced; text that is parsed belongs to none."""
    builder = active.builder_or_none()
    return ALONE if builder is None else builder.core


@instruction(writes=(), partly_read=("data",), meets=Meets.cores, access=_MEETING)
def core_barrier(
    data: NkiTensor, cores: Sequence[int], engine: Engine = Engine.gpsimd, name: str | None = None
) -> None:
    """Wait until every core has come here: what one wrote to shared HBM before can be read by the other after it.

    Args:
        data: the tensor in shared HBM that the cores share. One in another memory is taken, too: nki-library passes
            them, and a barrier orders everything.
        cores: (0, 1), the cores that meet; a launch on one core accepts (0,) and 0, too, and waits for nobody.
        engine: that waits. Any of nisa.engine; the others go on until they need something of `data`. nkilite runs a
            core's instructions in order, so that all of them wait.

    Raises:
        InvalidOperand: other cores.
        UnsupportedEngine: engine is none of those.
        UnsupportedOnTarget: the chip is older than trn2.
        CoresDiffer, Deadlock: the other core does not come to this barrier.

    Source: nki.isa.core_barrier.
    """


@core_barrier.normalize
def _core_barrier_normalize(arguments: dict[str, object], target: Target) -> None:
    rules.choose_engine(arguments, Engine.gpsimd)
    found, here = arguments["cores"], _core()
    accepted = (_BOTH,) if here.cores > 1 else (_BOTH, (0,))
    if ((found,) if isinstance(found, int) else found) not in accepted:
        raise InvalidOperand(
            instruction="nisa.core_barrier", operand="cores", found=describe(found),
            expected=f"(0, 1), the cores of a launch on {here.cores}" if here.cores > 1 else "(0, 1) or (0,)",
        )
    arguments["cores"] = tuple(range(here.cores))


@core_barrier.check
def _core_barrier_check(call: Signature) -> None:
    rules.require_engine(call, *_ENGINES)


@core_barrier.reference
def _core_barrier_reference(call: Signature, **_: object) -> tuple[object, ...]:
    return ()


@core_barrier.exchange
def _core_barrier_exchange(arrivals: Sequence[Arrival], rank: Rank) -> list[Written]:
    return [{} for _ in arrivals]


@core_barrier.cost
def _core_barrier_cost(call: Signature) -> Cost:
    return costs.sequencer(call.target, call.engine)


@instruction(meets=Meets.cores, access=_MEETING)
def sendrecv(
    src: NkiTensor,
    dst: NkiTensor,
    send_to_rank: SupportsIndex,
    recv_from_rank: SupportsIndex,
    pipe_id: SupportsIndex,
    dma_engine: dma_engine = _DMA,
    name: str | None = None,
) -> None:
    """Send `src` to the other core's `dst`, and receive its `src` in `dst`.

    Args:
        src: SBUF tile.
        dst: SBUF tile of the same dtype and shape; another slice of the same tile will do.
        send_to_rank: the other core, 1 - nl.program_id(0).
        recv_from_rank: the same.
        pipe_id: a number from 0 on. Calls of one pipe meet each other, in their order.
        dma_engine: `nisa.dma_engine.dma`, or `gpsimd_dma` for few bytes: at most 1024, 512 and 256 per partition of
            elements of 4, 2 and 1 bytes.

    Raises:
        WrongMemory: a tile is not in SBUF.
        DtypeMismatch, ShapeMismatch: src and dst differ.
        InvalidOperand: a core that is not the other one, or a pipe_id or dma_engine that is none.
        FreeSizeExceeded: too much for gpsimd_dma.
        UnsupportedOnTarget: the launch has one core, or the chip is older than trn2.
        CoresDiffer, Deadlock: the other core does not come to this exchange.

    Source: nki.isa.sendrecv.
    """


@instruction(meets=Meets.cores, access=_MEETING)
def sendrecv_compute(
    src: NkiTensor,
    dst: NkiTensor,
    send_to_rank: SupportsIndex,
    recv_from_rank: SupportsIndex,
    reduce_op: Op,
    name: str | None = None,
) -> None:
    """dst = reduce_op(src, the other core's src), on both cores.

    The DMA engines compute in float32 and round to dst's dtype.

    Args:
        src: tile in SBUF, or tensor in private HBM.
        dst: of the same dtype and shape, in the same memory.
        send_to_rank: the other core, 1 - nl.program_id(0).
        recv_from_rank: the same.
        reduce_op: nl.add, nl.maximum or nl.minimum.

    Raises:
        WrongMemory: not both in SBUF, or both in private HBM.
        DtypeMismatch, ShapeMismatch: src and dst differ.
        InvalidOperand: a core that is not the other one.
        UnknownOperator: another reduce_op.
        UnsupportedOnTarget: the launch has one core, or the chip is older than trn2.
        CoresDiffer, Deadlock: the other core does not come to this exchange.

    Source: nki.isa.sendrecv_compute.
    """


@sendrecv.normalize
def _sendrecv_normalize(arguments: dict[str, object], target: Target) -> None:
    _require_partner("nisa.sendrecv", arguments, target)
    pipe, engine = arguments["pipe_id"], arguments["dma_engine"]
    if isinstance(pipe, bool) or not isinstance(pipe, (int, np.integer)) or pipe < 0:
        raise InvalidOperand(
            instruction="nisa.sendrecv", operand="pipe_id", found=describe(pipe), expected="an int from 0 on"
        )
    if not isinstance(engine, constants.dma_engine):
        raise InvalidOperand(
            instruction="nisa.sendrecv", operand="dma_engine", found=describe(engine),
            expected="a member of nisa.dma_engine",
        )


@sendrecv_compute.normalize
def _sendrecv_compute_normalize(arguments: dict[str, object], target: Target) -> None:
    _require_partner("nisa.sendrecv_compute", arguments, target)
    arguments["reduce_op"] = alu.lookup(arguments["reduce_op"], "nisa.sendrecv_compute", _REDUCTIONS).name


def _require_partner(name: str, arguments: dict[str, object], target: Target) -> None:
    """Raise unless there is another core, and both ranks of the call are that one."""
    here = _core()
    if here.cores == 1:
        raise UnsupportedOnTarget(
            feature=name, needs="a launch on two cores, kernel[2](...)", target=f"one core of {target.name}",
            fix="launch the kernel with kernel[2](...), or leave the exchange out where nl.num_programs() is 1",
        )
    for operand in ("send_to_rank", "recv_from_rank"):
        if arguments[operand] != 1 - here.number or isinstance(arguments[operand], bool):
            raise InvalidOperand(
                instruction=name, operand=operand, found=describe(arguments[operand]),
                expected=f"{1 - here.number}, the other core of core {here.number}",
            )


def _require_alike(call: Signature) -> None:
    for operand in ("src", "dst"):
        kind = call.arguments[operand]
        if kind.indirection is not None:
            raise InvalidOperand(
                instruction=rules.instruction_name(call), operand=operand, found="a view with a runtime index",
                expected="a view whose address is known",
            )
        if kind.region.on_chip:
            rules.require_partitions(call, operand)
    if call.src.dtype != call.dst.dtype:
        raise DtypeMismatch(
            instruction=rules.instruction_name(call), detail=f"src is {call.src.dtype} and dst {call.dst.dtype}",
            hint="exchange tiles of one dtype, and convert with nisa.tensor_copy before or after.",
        )
    if call.src.shape != call.dst.shape:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call), detail=f"src has shape {call.src.shape} and dst {call.dst.shape}"
        )


@sendrecv.check
def _sendrecv_check(call: Signature) -> None:
    rules.require_memory(call, "src", rules.SBUF)
    rules.require_memory(call, "dst", rules.SBUF)
    _require_alike(call)
    limit = _GPSIMD_BYTES[call.src.dtype.itemsize]
    if call.dma_engine is _GPSIMD_DMA and call.src.free_bytes > limit:
        raise FreeSizeExceeded(
            instruction="nisa.sendrecv", operand="src", found=call.src.free_size, target=call.target.name,
            limit=f"{limit // call.src.dtype.itemsize} {call.src.dtype} ({limit} bytes) with dma_engine=gpsimd_dma",
        )


@sendrecv_compute.check
def _sendrecv_compute_check(call: Signature) -> None:
    allowed = (rules.SBUF, MemoryRegion.private_hbm)
    for operand in ("src", "dst"):
        kind: ViewType = call.arguments[operand]
        if kind.region not in allowed or kind.region is not call.src.region:
            raise WrongMemory(
                instruction="nisa.sendrecv_compute", operand=operand, found=str(kind.region).upper(),
                allowed="SBUF or private HBM, the same for src and dst",
                hint="allocate both with buffer=nl.sbuf, or both with buffer=nl.private_hbm",
            )
    rules.require_dtype(call, "src", rules.UNPACKED)
    _require_alike(call)


@sendrecv.reference
def _sendrecv_reference(call: Signature, src: np.ndarray, **_: object) -> np.ndarray:
    return src  # as between cores that hold the same; the exchange rule is for all others


@sendrecv_compute.reference
def _sendrecv_compute_reference(call: Signature, src: np.ndarray, reduce_op: str, **_: object) -> np.ndarray:
    return _reduced(reduce_op, src, src)


def _reduced(op: str, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        result: np.ndarray = alu.TABLE[op].numpy(one.astype(np.float32), other.astype(np.float32))
        return result


@sendrecv.exchange
def _sendrecv_exchange(arrivals: Sequence[Arrival], rank: Rank) -> list[Written]:
    return [{"dst": Elements(other.src.copy(), other.dtypes["src"])} for other in reversed(arrivals)]


@sendrecv_compute.exchange
def _sendrecv_compute_exchange(arrivals: Sequence[Arrival], rank: Rank) -> list[Written]:
    (one, other), op = (a.src for a in arrivals), arrivals[0].reduce_op
    return [{"dst": _reduced(op, one, other)}, {"dst": _reduced(op, other, one)}]


@sendrecv.equals
def _sendrecv_equals(call: Signature, reads: Mapping[str, int], theirs: Mapping[str, int]) -> Hashable:
    return theirs["src"] if call.src.strides[1:] == call.dst.strides[1:] else (*_layout(call), theirs["src"])


@sendrecv_compute.equals
def _sendrecv_compute_equals(call: Signature, reads: Mapping[str, int], theirs: Mapping[str, int]) -> Hashable:
    return call.reduce_op, *_layout(call), frozenset({reads["src"], theirs["src"]})  # all of them are commutative


def _layout(call: Signature) -> tuple[Hashable, ...]:
    return call.src.dtype, call.src.shape, call.src.strides[1:], call.dst.strides[1:]


@sendrecv.cost
@sendrecv_compute.cost
def _sendrecv_cost(call: Signature) -> Cost:
    return costs.dma(call.target, call.src.partitions, call.src.free_bytes, partitions=call.src.partitions)


@core_barrier.lower
@sendrecv.lower
@sendrecv_compute.lower
def _core_barrier_lower(call: Signature, kernel: MicroKernel) -> None:
    kernel.pause()
