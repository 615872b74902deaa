"""nki.isa: the instructions of a NeuronCore."""

import typing as _typing
from typing import NoReturn as _NoReturn

from nkilite.errors import NkiValidationError
from nkilite.isa.constants import (
    dge_mode,
    dma_engine,
    engine,
    gpsimd_engine,
    matmul_perf_mode,
    nc_version,
    oob_mode,
    reduce_cmd,
    scalar_engine,
    tensor_engine,
    unknown_engine,
    vector_engine,
)
from nkilite.isa.copy import memset, tensor_copy, tensor_copy_predicated
from nkilite.isa.dma import dma_copy, dma_transpose
from nkilite.isa.dma_compute import dma_compute
from nkilite.isa.gather import local_gather, nc_n_gather
from nkilite.isa.gpsimd_search import nonzero_with_count, sequence_bounds, topk
from nkilite.isa.meetings import core_barrier, sendrecv, sendrecv_compute
from nkilite.isa.mx import nc_matmul_mx, quantize_mx
from nkilite.isa.pattern import affine_select, iota
from nkilite.isa.random import dropout, rand2, rand_get_state, rand_set_state, rng, set_rng_seed
from nkilite.isa.reduce import tensor_partition_reduce, tensor_reduce, tensor_scalar_reduce
from nkilite.isa.registers import register_alloc, register_load, register_move, register_store
from nkilite.isa.scalar import activate2, activation, activation_reduce, exponential
from nkilite.isa.scalars import NkiScalar, scalar_load, scalar_store
from nkilite.isa.scan import tensor_scalar_cumulative, tensor_tensor_scan
from nkilite.isa.search import max8, nc_find_index8, nc_match_replace8
from nkilite.isa.select import range_select, select_reduce
from nkilite.isa.shuffle import nc_stream_shuffle
from nkilite.isa.sparse import nc_matmul_sparse
from nkilite.isa.statistics import bn_aggr, bn_stats
from nkilite.isa.tensor import nc_matmul, nc_transpose
from nkilite.isa.vector import reciprocal, scalar_tensor_tensor, tensor_scalar, tensor_tensor
from nkilite.isa.version import get_nc_sub_version, get_nc_version
from nkilite.suggest import unknown_name as _unknown_name
from nkilite.trace.builder import NkiInstruction
from nkilite.trace.register import VirtualRegister

__all__ = [
    "NkiInstruction",
    "NkiScalar",
    "NkiValidationError",
    "VirtualRegister",
    "activate2",
    "activation",
    "activation_reduce",
    "affine_select",
    "bn_aggr",
    "bn_stats",
    "core_barrier",
    "dge_mode",
    "dma_compute",
    "dma_copy",
    "dma_engine",
    "dma_transpose",
    "dropout",
    "engine",
    "exponential",
    "get_nc_sub_version",
    "get_nc_version",
    "gpsimd_engine",
    "iota",
    "local_gather",
    "matmul_perf_mode",
    "max8",
    "memset",
    "nc_find_index8",
    "nc_match_replace8",
    "nc_matmul",
    "nc_matmul_mx",
    "nc_matmul_sparse",
    "nc_n_gather",
    "nc_stream_shuffle",
    "nc_transpose",
    "nc_version",
    "nonzero_with_count",
    "oob_mode",
    "quantize_mx",
    "rand2",
    "rand_get_state",
    "rand_set_state",
    "range_select",
    "reciprocal",
    "reduce_cmd",
    "register_alloc",
    "register_load",
    "register_move",
    "register_store",
    "rng",
    "scalar_engine",
    "scalar_load",
    "scalar_store",
    "scalar_tensor_tensor",
    "select_reduce",
    "sendrecv",
    "sendrecv_compute",
    "sequence_bounds",
    "set_rng_seed",
    "tensor_copy",
    "tensor_copy_predicated",
    "tensor_engine",
    "tensor_partition_reduce",
    "tensor_reduce",
    "tensor_scalar",
    "tensor_scalar_cumulative",
    "tensor_scalar_reduce",
    "tensor_tensor",
    "tensor_tensor_scan",
    "topk",
    "unknown_engine",
    "vector_engine",
]


if not _typing.TYPE_CHECKING:  # a checker that sees it believes that every name exists

    def __getattr__(name: str) -> _NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _unknown_name("nki.isa", "nisa", name, (n for n in globals() if not n.startswith("_")), {})
