"""The engines of a NeuronCore and the published cost of an instruction on each: pure functions to a `Cost`.

Every formula takes facts about one instruction (elements per partition, dtypes, where operands live) and a
`Target`, and returns how long the instruction occupies its engine. All results are modelled. Cycles are
initiation intervals in steady state: the time until the engine can start its next instruction, not the
latency of this one. `n` is always the number of elements per partition.

Sources (tags as in `target.py`): "isa-2.26" is the "Estimated instruction cost" of each instruction in the
2.26 API stubs; later stubs dropped most of them. "arch-v2" to "arch-v4" are the architecture guides. Where a
printed formula cannot be meant as printed, the function says what it does instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from nkilite.machine.target import Target

__all__ = [
    "BN_AGGR_CYCLES",
    "EXPONENTIAL_CYCLES",
    "QUANTIZE_MX_CYCLES",
    "RECIPROCAL_CYCLES",
    "SCAN_CYCLES",
    "Cost",
    "Engine",
    "Operand",
    "clock_ghz",
    "dma",
    "dma_issue_ns",
    "dma_transpose",
    "gpsimd_gather",
    "gpsimd_local_gather",
    "gpsimd_stream",
    "gpsimd_topk",
    "matmul",
    "matmul_mx",
    "result_latency_ns",
    "scalar_copy",
    "scalar_stream",
    "sequencer",
    "tensor_transpose",
    "vector_copy",
    "vector_copy_predicated",
    "vector_memset",
    "vector_reduce",
    "vector_scalar_tensor_tensor",
    "vector_stream",
    "vector_tensor_tensor",
]


class Engine(Enum):
    """The engines of a NeuronCore, with the values of the public ``nki.isa.engine``."""

    unknown = 0
    tensor = 1
    scalar = 2
    gpsimd = 3
    dma = 4
    vector = 5
    sync = 6

    __hash__ = object.__hash__  # members are singletons, and every instruction signature hashes one


@dataclass(frozen=True, slots=True)
class Cost:
    """What one instruction takes of its engine. All of it modelled.

    Attributes:
        engine: the engine whose in-order queue the instruction occupies; `Engine.dma` for the DMA engines.
        cycles: cycles of that engine until it can start the next instruction; 0 for DMA.
        gap_cycles: cycles after that which an access to memory keeps the engine from the next one.
        transfer_ns: time the slowest of the `dma_engines` taking part is busy; 0 for compute engines.
        fixed_ns: start-up latency before any data moves; it delays the result but occupies nothing.
        dma_engines: DMA engines working in parallel.
        bytes_moved: bytes a DMA carries, counted on its wider side.
    """

    engine: Engine
    cycles: float = 0.0
    gap_cycles: float = 0.0
    transfer_ns: float = 0.0
    fixed_ns: float = 0.0
    dma_engines: int = 0
    bytes_moved: int = 0

    def busy_ns(self, target: Target) -> float:
        """Nanoseconds the engine is occupied."""
        if self.engine is Engine.dma:
            return self.transfer_ns
        return self.cycles / clock_ghz(target, self.engine)

    def gap_ns(self, target: Target) -> float:
        """Nanoseconds from when it leaves its engine until that can start the next instruction."""
        return self.gap_cycles / clock_ghz(target, self.engine) if self.gap_cycles else 0.0

    def ns(self, target: Target) -> float:
        """Nanoseconds from issue to completion when nothing else is in the way."""
        return self.fixed_ns + self.busy_ns(target)


@dataclass(frozen=True, slots=True)
class Operand:
    """The facts about a tile operand that an engine's speed depends on.

    Attributes:
        dtype: canonical dtype name, such as ``"bfloat16"``.
        itemsize: bytes per element.
        in_psum: whether it lives in PSUM instead of SBUF.
        stride: elements between neighbours along the innermost free dimension.
    """

    dtype: str
    itemsize: int
    in_psum: bool = False
    stride: int = 1

    def slows_down(self, target: Target) -> bool:
        """Whether the innermost stride is so long that a memory port gives half its bandwidth (arch-v2)."""
        return abs(self.stride) * self.itemsize > target.full_bandwidth_stride_bytes


def clock_ghz(target: Target, engine: Engine) -> float:
    """Clock of a compute engine in GHz.

    The Sync Engine is a bare sequencer whose clock is not published; it is taken to run with the Scalar
    Engine.

    Raises:
        ValueError: `engine` has no clock of its own (``dma``, ``unknown``).
    """
    if engine is Engine.tensor:
        return target.tensor_ghz
    if engine is Engine.vector:
        return target.vector_ghz
    if engine is Engine.scalar or engine is Engine.sync:
        return target.scalar_ghz
    if engine is Engine.gpsimd:
        return target.gpsimd_ghz
    raise ValueError(f"engine {engine.name} has no clock")


def _streamed(
    engine: Engine, target: Target, cycles: float, operands: Iterable[Operand] = (), start: float | None = None
) -> Cost:
    """Cost of streaming tiles through a lane engine: twice for a far-strided operand, at least MIN_II.

    Starting an access to SBUF or PSUM takes `start` cycles more (`Target.memory_access_cycles`, arch-v2), which Vector
    and Scalar Engine do not hide; MIN_II has room for them: 65,536 tensor_tensor of 3 elements take 66 cycles each
    (autocomp's conv1d on trn1).
    """
    if any(o.slows_down(target) for o in operands):
        cycles *= 2
    busy = max(target.min_issue_cycles, cycles)
    start = target.memory_access_cycles if start is None else start
    return Cost(engine, busy, max(0.0, cycles + start - busy))


# --- Tensor Engine ------------------------------------------------------------------------------------------


def matmul(
    target: Target,
    stationary_n: int,
    moving_n: int,
    *,
    float32: bool,
    onezero: bool = False,
) -> Cost:
    """One nc_matmul among many of its shape, back to back: ``max(min(64, stationary_n), moving_n)`` per pass.

    Args:
        stationary_n: free size of the stationary tile (columns of the array it fills).
        moving_n: columns that stream through; in ``double_row`` mode the pairs along the first free
            dimension travel together, so count the last dimensions only.
        float32: whether an operand is float32 (not tfloat32): four passes.
        onezero: a float32 operand holds ones and zeros only, which halves the passes.

    Source: isa-2.26, nc_matmul; arch-v2, Tensor Engine cost model.
    """
    return _multiplied(target, _matmul_cycles(target, stationary_n, moving_n) * _passes(target, float32, onezero))


def matmul_mx(target: Target, stationary_n: int, moving_n: int) -> Cost:
    """One nc_matmul_mx: a cell takes four values per cycle, so cycles follow the x4 columns (arch-v4)."""
    return _multiplied(target, _matmul_cycles(target, stationary_n, moving_n))


def tensor_transpose(target: Target, partitions: int, n: int, *, float32: bool) -> Cost:
    """Transpose of a [partitions, n] tile by the Tensor Engine: ``max(partitions, min(64, n))`` per pass.

    The tile is the stationary operand and a partitions-wide identity moves. Float32 takes
    `Target.fp32_transpose_passes`. Source: isa-2.26, nc_transpose; arch-v3, transpose mode.
    """
    passes = target.fp32_transpose_passes if float32 else 1
    return _multiplied(target, _matmul_cycles(target, n, partitions) * passes)


def _matmul_cycles(target: Target, stationary_n: int, moving_n: int) -> int:
    return max(min(target.matmul_min_cycles, stationary_n), moving_n)


def _multiplied(target: Target, cycles: float) -> Cost:
    """Passes over the array, at the rate that the Tensor Engine sustains."""
    return Cost(Engine.tensor, cycles / target.tensor_sustained_rate)


def _passes(target: Target, float32: bool, onezero: bool) -> int:
    if not float32:
        return 1
    return target.fp32_matmul_passes // 2 if onezero else target.fp32_matmul_passes


# --- Vector Engine ------------------------------------------------------------------------------------------

#: Cycles per element of the instructions whose published cost is ``max(MIN_II, k * n)``.
RECIPROCAL_CYCLES = 2.5  # busy times of published profiles; isa-2.26 prints 8
SCAN_CYCLES = 2.0  # isa-2.26: tensor_tensor_scan
BN_AGGR_CYCLES = 13 / 3  # isa-2.26: bn_aggr, 13 cycles per (count, mean, variance) triple
EXPONENTIAL_CYCLES = 1 / 4  # arch-v4: fast exponential, 4x the Scalar Engine
QUANTIZE_MX_CYCLES = 1 / 4  # arch-v4: four elements per partition and cycle


def vector_stream(
    target: Target,
    n: int,
    operands: Iterable[Operand] = (),
    *,
    cycles_per_element: float = 1.0,
    reads_accumulator: bool = False,
    dynamic: bool = False,
) -> Cost:
    """An instruction that streams `n` elements through each lane: ``max(MIN_II, k * n)``.

    Covers range_select, select_reduce, nc_stream_shuffle, bn_stats, dropout, 32x32 transpose, max8,
    nc_find_index8 and nc_match_replace8 (k = 1; the last is printed as ``min(MIN_II, N)``, which would make
    long tiles free), and, with the constants above, reciprocal, tensor_tensor_scan, bn_aggr, exponential,
    quantize_mx and rand2.

    Args:
        operands: tile operands, for the penalty on far strides.
        cycles_per_element: k.
        reads_accumulator: a second instruction writes the reduction registers out: + MIN_II
            (tensor_scalar_reduce).
        dynamic: an operand's address comes from a register: at least MIN_II_DYNAMIC
            (tensor_copy_dynamic_src/_dst).
    """
    cost = _streamed(Engine.vector, target, cycles_per_element * n, operands)
    return _with_extras(target, cost, reads_accumulator, dynamic)


def vector_copy(
    target: Target,
    n: int,
    src: Operand,
    dst: Operand,
    *,
    reads_accumulator: bool = False,
    dynamic: bool = False,
) -> Cost:
    """tensor_copy or tensor_scalar on the Vector Engine: n cycles, n/2 or n/4 in the performance modes.

    The modes need fast dtypes on both sides: 4x when both tiles are in SBUF and contiguous along the
    innermost dimension; 2x when one condition fails (SBUF but strided, or contiguous with one side in PSUM).
    An unused second operator costs nothing less. Source: isa-2.26; arch-v3, Vector Engine performance mode.
    """
    fast = target.vector_fast_dtypes
    speedup = 1.0
    contiguous = src.stride == 1 and dst.stride == 1
    in_psum = src.in_psum + dst.in_psum
    if src.dtype == dst.dtype == "float32" and contiguous and not in_psum:
        speedup = target.vector_float32_speedup
    elif src.dtype in fast and dst.dtype in fast:
        if not in_psum:
            speedup = 4 if contiguous else 2
        elif in_psum == 1 and contiguous:
            speedup = 2
    cost = _streamed(Engine.vector, target, n / speedup, (src, dst))
    return _with_extras(target, cost, reads_accumulator, dynamic)


def vector_tensor_tensor(
    target: Target, n: int, data1: Operand, data2: Operand, dst: Operand, *, op: str
) -> Cost:
    """tensor_tensor on the Vector Engine: 2n cycles, n when the two reads can overlap.

    They overlap when the inputs come from different memories; when everything is bfloat16, contiguous and in
    SBUF and `op` is add, subtract or multiply (isa-2.26); and, with a performance mode, when all dtypes are
    fast and both inputs are in SBUF (arch-v3: 2x).
    """
    operands = (data1, data2, dst)
    overlapped = data1.in_psum != data2.in_psum
    if not data1.in_psum and not data2.in_psum:
        bf16 = all(o.dtype == "bfloat16" and o.stride == 1 for o in operands)
        overlapped = (bf16 and op in ("add", "subtract", "multiply")) or all(
            o.dtype in target.vector_fast_dtypes for o in operands
        )
    return _streamed(Engine.vector, target, n if overlapped else 2 * n, operands)


def vector_scalar_tensor_tensor(
    target: Target, n: int, data: Operand, operand1: Operand, dst: Operand, *, op0: str, op1: str,
    reads_accumulator: bool = False,
) -> Cost:
    """scalar_tensor_tensor: 2n cycles; n for (bf16 - scalar) * bf16 with n even. Source: isa-2.26."""
    bf16 = data.dtype == operand1.dtype == "bfloat16"
    fast = bf16 and op0 == "subtract" and op1 == "multiply" and n % 2 == 0
    cost = _streamed(Engine.vector, target, n if fast else 2 * n, (data, operand1, dst))
    return _with_extras(target, cost, reads_accumulator, False)


def vector_reduce(target: Target, n: int, src: Operand, dst: Operand, *, op: str) -> Cost:
    """tensor_reduce over `n` inputs: n cycles; n/2 for bf16 to bf16 add or maximum. Source: isa-2.26."""
    fast = src.dtype == dst.dtype == "bfloat16" and op in ("add", "maximum")
    return _streamed(Engine.vector, target, n / 2 if fast else n, (src, dst))


def vector_memset(target: Target, n: int, dst: Operand, *, zero: bool) -> Cost:
    """memset: n cycles; n/2 when zeroing bfloat16 or float16. Source: isa-2.26."""
    fast = zero and dst.dtype in ("bfloat16", "float16")
    return _streamed(Engine.vector, target, n / 2 if fast else n, (dst,))


def vector_copy_predicated(target: Target, n: int, src: Operand, predicate: Operand, dst: Operand) -> Cost:
    """tensor_copy_predicated: n cycles when src and predicate come from different memories, else 2n.

    Source: isa-2.26, whose second row speaks of src and dst in SBUF; what matters is one port for two reads.
    """
    overlapped = src.in_psum != predicate.in_psum
    return _streamed(Engine.vector, target, n if overlapped else 2 * n, (src, predicate, dst))


def _with_extras(target: Target, cost: Cost, reads_accumulator: bool, dynamic: bool) -> Cost:
    cycles = max(cost.cycles, target.dynamic_issue_cycles) if dynamic else cost.cycles
    if reads_accumulator:
        cycles += target.min_issue_cycles
    return replace(cost, cycles=cycles)


# --- Scalar Engine ------------------------------------------------------------------------------------------


def scalar_stream(
    target: Target,
    n: int,
    operands: Iterable[Operand] = (),
    *,
    reads_accumulator: bool = False,
    dynamic: bool = False,
) -> Cost:
    """activation and its kin: ``max(MIN_II, n)``, scale, bias, function and reduction included.

    The first operand is the input, whose memory decides what starting takes. `reads_accumulator` adds MIN_II for the
    instruction that writes the reduction registers out (activation_reduce). Source: isa-2.26; arch-v2, pipelined
    reduction.
    """
    operands = tuple(operands)
    start = target.activation_psum_cycles if operands and operands[0].in_psum else target.activation_sbuf_cycles
    return _with_extras(target, _streamed(Engine.scalar, target, n, operands, start), reads_accumulator, dynamic)


def scalar_copy(target: Target, n: int, src: Operand, dst: Operand, *, dynamic: bool = False) -> Cost:
    """tensor_copy or tensor_scalar on the Scalar Engine: n cycles, n/2 in fast dtypes.

    The 2x mode asks what the Vector Engine's 2x mode asks: both sides in SBUF, or contiguous with one side in
    PSUM. Source: isa-2.26; arch-v4, Scalar Engine performance mode.
    """
    fast = target.scalar_fast_dtypes
    speedup = 1
    if src.dtype in fast and dst.dtype in fast:
        in_psum = src.in_psum + dst.in_psum
        if not in_psum or (in_psum == 1 and src.stride == dst.stride == 1):
            speedup = 2
    return _with_extras(target, _streamed(Engine.scalar, target, n / speedup, (src, dst)), False, dynamic)


# --- GpSimd Engine ------------------------------------------------------------------------------------------

_GATHERED_AT_ONCE = 512  # elements per partition; isa, nc_n_gather


def gpsimd_stream(
    target: Target, n: int, operands: Iterable[Operand] = (), *, cycles_per_element: float = 1.0
) -> Cost:
    """A hand-tuned GpSimd kernel over `n` elements per partition: ``150 + k * n``.

    Published for iota and affine_select (k = 1, isa-2.26). For the others k is the number of input tiles,
    because the SBUF port delivers 32 bits per partition and cycle (arch-v2); rsqrt is published as 4x the
    Scalar Engine (k = 4).
    """
    cycles = cycles_per_element * n
    if any(o.slows_down(target) for o in operands):
        cycles *= 2
    return Cost(Engine.gpsimd, target.gpsimd_start_cycles + cycles)


def gpsimd_gather(target: Target, n: int, operands: Iterable[Operand] = ()) -> Cost:
    """nc_n_gather of `n` elements per partition: an instruction for every 512 of them, each an index and an element.

    The division into ``ceil(n / 512)`` instructions is published (isa, nc_n_gather); two words per element through a
    port of 32 bits per partition and cycle are `gpsimd_stream`'s.
    """
    groups = -(-n // _GATHERED_AT_ONCE)
    stream = gpsimd_stream(target, n, operands, cycles_per_element=2)
    return Cost(Engine.gpsimd, stream.cycles + (groups - 1) * target.gpsimd_start_cycles)


def gpsimd_local_gather(target: Target, indices: int, elements_per_index: int, itemsize: int) -> Cost:
    """local_gather of `indices` indices per core, each fetching `elements_per_index` elements.

    Four indices at a time cost 28 cycles plus one per element, and up to ``min(4 / itemsize,
    elements_per_index)`` elements travel per cycle. isa-2.26 prints the element count *divided* by this cost
    per element; that would make the longer fetches it recommends for speed the slower ones, so the count is
    multiplied here.
    """
    batch = 4 * elements_per_index
    per_element = ((28 + batch) / batch) / min(4 / itemsize, elements_per_index)
    return Cost(Engine.gpsimd, target.gpsimd_start_cycles + indices * elements_per_index * per_element)


def gpsimd_topk(target: Target, n: int, k: int) -> Cost:
    """topk of `k` out of `n` values laid over 16 partitions: ``4 * n + k`` (isa, topk)."""
    return Cost(Engine.gpsimd, max(target.min_issue_cycles, 4 * n + k))


# --- from one instruction to the next ----------------------------------------------------------------------


def result_latency_ns(target: Target, engine: Engine) -> float:
    """Time from when a compute instruction leaves its engine until a consumer can use the result.

    What `Target.dependency_cycles` (published for dependent one-element instructions) has beyond the minimum
    initiation interval: draining the pipeline, writing, and telling the consumer. Published profiles show about 200 ns
    for the Tensor Engine as for the others, not the 83 ns of these cycles at its clock.
    """
    clock = target.vector_ghz if engine is Engine.tensor else clock_ghz(target, engine)
    return (target.dependency_cycles - target.min_issue_cycles) / clock


def dma_issue_ns(target: Target, *, generated: bool) -> float:
    """Time a DMA instruction holds its queue: making its descriptors, or only triggering ready-made ones."""
    return target.dge_issue_ns if generated else target.dma_trigger_ns


# --- sequencers ---------------------------------------------------------------------------------------------


def sequencer(target: Target, engine: Engine) -> Cost:
    """A control instruction (register arithmetic, branch, semaphore): one minimum initiation interval.

    No figure is published for these; MIN_II is the shortest interval published for any instruction.
    """
    return Cost(engine, target.min_issue_cycles)


# --- DMA engines --------------------------------------------------------------------------------------------


def dma(
    target: Target,
    buffers: int,
    buffer_bytes: float,
    *,
    partitions: int | None = None,
    to_hbm: bool = False,
) -> Cost:
    """A DMA transfer of `buffers` contiguous runs of `buffer_bytes` bytes each.

    Each DMA engine serves eight SBUF partitions, so a tile of few partitions uses few engines (dma, example
    1). A buffer holds its engine for its bytes over the engine's bandwidth plus `Target.dma_descriptor_ns`; one that
    stores less than `Target.dma_store_bytes`, as long as these. Starting takes `Target.dma_start_ns` (dma-bw).

    Args:
        buffers: contiguous runs on the side that is cut into more of them; at least one per SBUF partition.
        buffer_bytes: bytes of one run (their mean when they differ); with a dtype cast, of the wider side.
        partitions: SBUF partitions touched; None when neither side is in SBUF (runs spread over all engines).
        to_hbm: whether it stores to HBM.
    """
    held = max(buffer_bytes, target.dma_store_bytes if to_hbm else 0)
    return replace(
        _dma(target, buffers, held, partitions, efficiency=1.0), bytes_moved=round(buffers * buffer_bytes)
    )


def dma_transpose(
    target: Target, total_bytes: int, *, src_in_sbuf: bool, partitions: int
) -> Cost:
    """A DMA transpose into SBUF: 16 engines together at 90% (from HBM) or 50% (from SBUF) of copy speed.

    The best rate needs 128 destination partitions and a multiple of 16 contiguous elements; a narrower
    destination is charged for the lanes it leaves idle. Source: arch-v3, DMA transpose.
    """
    best = target.dma_transpose_efficiency_sbuf if src_in_sbuf else target.dma_transpose_efficiency_hbm
    efficiency = best * min(1.0, partitions / target.num_partitions)
    per_engine = total_bytes / target.dma_engines
    return _dma(target, target.dma_engines, per_engine, None, efficiency)


def _dma(
    target: Target,
    buffers: int,
    buffer_bytes: float,
    partitions: int | None,
    efficiency: float,
) -> Cost:
    engines = target.dma_engines
    if partitions is not None:
        engines = min(engines, math.ceil(partitions / target.partitions_per_dma_engine))
    engines = max(1, min(engines, buffers))
    buffer_ns = buffer_bytes / (target.dma_bytes_per_ns * efficiency) + target.dma_descriptor_ns
    return Cost(
        Engine.dma,
        transfer_ns=math.ceil(buffers / engines) * buffer_ns,
        fixed_ns=target.dma_start_ns,
        dma_engines=engines,
        bytes_moved=round(buffers * buffer_bytes),
    )
