"""nki.isa of Beta 1: instructions as functions that return the tile they write.

Each allocates its result, emits the instruction of the same name of nkilite.isa, which checks it, and applies `mask=`.
"""

import typing as _typing
from typing import Any as _Any

from nkilite.beta1.isa.dma import dma_copy, dma_transpose
from nkilite.beta1.isa.elementwise import (
    memset,
    reciprocal,
    scalar_tensor_tensor,
    tensor_copy,
    tensor_copy_dynamic_dst,
    tensor_copy_dynamic_src,
    tensor_copy_predicated,
    tensor_scalar,
    tensor_tensor,
)
from nkilite.beta1.isa.reduce import (
    bn_aggr,
    bn_stats,
    max8,
    nc_find_index8,
    nc_match_replace8,
    sequence_bounds,
    tensor_partition_reduce,
    tensor_reduce,
    tensor_scalar_cumulative,
    tensor_tensor_scan,
)
from nkilite.beta1.isa.scalar import activation, activation_reduce, tensor_scalar_reduce
from nkilite.beta1.isa.select import (
    affine_select,
    dropout,
    iota,
    local_gather,
    nc_stream_shuffle,
    range_select,
    select_reduce,
)
from nkilite.beta1.isa.tensor import nc_matmul, nc_transpose
from nkilite.isa import constants
from nkilite.isa.constants import (
    dge_mode,
    dma_engine,
    engine,
    gpsimd_engine,
    nc_version,
    oob_mode,
    reduce_cmd,
    scalar_engine,
    tensor_engine,
    unknown_engine,
    vector_engine,
)
from nkilite.isa.version import get_nc_version
from nkilite.suggest import unknown_name as _unknown_name

__all__ = [
    "activation",
    "activation_reduce",
    "affine_select",
    "bn_aggr",
    "bn_stats",
    "constants",
    "dge_mode",
    "dma_copy",
    "dma_engine",
    "dma_transpose",
    "dropout",
    "engine",
    "get_nc_version",
    "gpsimd_engine",
    "iota",
    "local_gather",
    "max8",
    "memset",
    "nc_find_index8",
    "nc_match_replace8",
    "nc_matmul",
    "nc_stream_shuffle",
    "nc_transpose",
    "nc_version",
    "oob_mode",
    "range_select",
    "reciprocal",
    "reduce_cmd",
    "scalar_engine",
    "scalar_tensor_tensor",
    "select_reduce",
    "sequence_bounds",
    "tensor_copy",
    "tensor_copy_dynamic_dst",
    "tensor_copy_dynamic_src",
    "tensor_copy_predicated",
    "tensor_engine",
    "tensor_partition_reduce",
    "tensor_reduce",
    "tensor_scalar",
    "tensor_scalar_cumulative",
    "tensor_scalar_reduce",
    "tensor_tensor",
    "tensor_tensor_scan",
    "unknown_engine",
    "vector_engine",
]


if not _typing.TYPE_CHECKING:  # a checker that sees it believes that every name exists

    def __getattr__(name: str) -> _Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _unknown_name("neuronxcc.nki.isa", "nisa", name, __all__, {})
