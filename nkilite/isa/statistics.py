"""Mean and variance along the free dimensions: bn_stats and bn_aggr."""

from __future__ import annotations

import numpy as np

from nkilite.codegen import statistics
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import FreeSizeExceeded, ShapeMismatch
from nkilite.ir.program import Signature
from nkilite.isa import arithmetic, rules
from nkilite.isa.arithmetic import Domain
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_BN_AGGR_DIMENSIONS = {"data": 5, "dst": 3}


def _require_shape(call: Signature, elements: int, expected: str) -> None:
    """Raise ShapeMismatch unless dst has the partitions of data and `elements` elements in each."""
    if call.dst.partitions != call.data.partitions or call.dst.free_size != elements:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"dst has shape {call.dst.shape}; data of {call.data.partitions} partitions gives "
            f"{expected} in each of them",
        )


@instruction(writes=("dst",), access="p: dst[p s] data[p f]")
def bn_stats(dst: NkiTensor, data: NkiTensor, name: str | None = None) -> None:
    """Statistics of each partition, for bn_aggr, on the Vector Engine in float32.

    dst holds six numbers per partition: count, mean and variance * count of the elements with even positions,
    then of those with odd positions. One sample of no elements (data with one element) is (0, 0, 0).

    Args:
        dst: SBUF or PSUM tile with the partitions of data and 6 elements in each.
        data: SBUF or PSUM tile of at most 512 elements per partition (`nl.tile_size.bn_stats_fmax`).

    Raises:
        FreeSizeExceeded: more elements per partition.
        ShapeMismatch: dst does not have 6 elements in each partition of data.
        WrongMemory, UnsupportedDtype: an operand in HBM, packed elements.

    Source: nki.isa.bn_stats.
    """


@bn_stats.check
def _bn_stats_check(call: Signature) -> None:
    rules.require_on_chip(call)
    limit = call.target.bn_stats_fmax
    if call.data.free_size > limit:
        raise FreeSizeExceeded(
            instruction="nisa.bn_stats", operand="data", found=call.data.free_size, limit=limit,
            target=call.target.name,
        )
    _require_shape(call, 6, "6 elements (count, mean, variance * count of even, then of odd positions)")
    arithmetic.require_dtypes(call, Domain.float32, "data", "dst")


@bn_stats.reference
def _bn_stats_reference(call: Signature, dst: np.ndarray, data: np.ndarray) -> np.ndarray:
    rows = data.astype(np.float32).reshape(data.shape[0], -1)
    result = np.zeros((data.shape[0], 6), np.float32)
    for half in range(2):
        sample = rows[:, half::2]
        count = sample.shape[1]
        if count:
            mean = sample.sum(axis=1, dtype=np.float32) / np.float32(count)
            squares = np.square(sample - mean[:, None]).sum(axis=1, dtype=np.float32)
            result[:, 3 * half : 3 * half + 3] = np.stack([np.full_like(mean, count), mean, squares], axis=1)
    return result.reshape(dst.shape)


@bn_stats.cost
def _bn_stats_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.data), rules.cost_operand(call.dst))
    return costs.vector_stream(call.target, call.data.free_size, operands)


@bn_stats.lower
def _bn_stats_lower(call: Signature, kernel: MicroKernel) -> None:
    statistics.even_odd(kernel, "dst", "data")


@instruction(writes=("dst",), access="p: dst[p s] data[p f]")
def bn_aggr(dst: NkiTensor, data: NkiTensor, name: str | None = None) -> None:
    """Mean and variance of each partition from the outputs of bn_stats, on the Vector Engine in float32.

    The samples (count, mean, variance * count) are pooled: the variance, which divides by the total count,
    includes how far their means are apart.

    Args:
        dst: SBUF or PSUM tile of up to three dimensions with the partitions of data and 2 elements in each: mean, then
            variance.
        data: SBUF or PSUM tile of up to five dimensions with any number of samples, three elements each, in each
            partition.

    Raises:
        ShapeMismatch: data does not hold whole samples, or dst does not have 2 elements in each partition.
        WrongMemory, UnsupportedDtype: an operand in HBM, packed elements.

    Source: nki.isa.bn_aggr.
    """


@bn_aggr.check
def _bn_aggr_check(call: Signature) -> None:
    rules.require_on_chip(call)
    for operand, most in _BN_AGGR_DIMENSIONS.items():
        rules.require_dimensions(call, operand, most)
    if call.data.free_size % 3:
        raise ShapeMismatch(
            instruction="nisa.bn_aggr",
            detail=f"data has {call.data.free_size} elements per partition, not a multiple of 3 (count, "
            "mean, variance * count)",
        )
    _require_shape(call, 2, "2 elements (mean, variance)")
    arithmetic.require_dtypes(call, Domain.float32, "data", "dst")


@bn_aggr.reference
def _bn_aggr_reference(call: Signature, dst: np.ndarray, data: np.ndarray) -> np.ndarray:
    samples = data.astype(np.float32).reshape(data.shape[0], -1, 3)
    count, mean, squares = samples[..., 0], samples[..., 1], samples[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        total = count.sum(axis=1, dtype=np.float32)
        overall = (count * mean).sum(axis=1, dtype=np.float32) / total
        between = count * np.square(mean - overall[:, None])
        variance = (squares + between).sum(axis=1, dtype=np.float32) / total
    return np.stack([overall, variance], axis=1).reshape(dst.shape)


@bn_aggr.cost
def _bn_aggr_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.data), rules.cost_operand(call.dst))
    n = call.data.free_size
    return costs.vector_stream(call.target, n, operands, cycles_per_element=costs.BN_AGGR_CYCLES)


@bn_aggr.lower
def _bn_aggr_lower(call: Signature, kernel: MicroKernel) -> None:
    statistics.aggregate(kernel, "dst", "data")
