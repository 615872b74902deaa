"""nki.isa: the instructions of a NeuronCore."""

from typing import NoReturn as _NoReturn

from nkilite.isa.constants import *  # noqa: F403
from nkilite.isa.copy import memset, tensor_copy, tensor_copy_predicated
from nkilite.isa.dma import dma_copy, dma_transpose
from nkilite.isa.pattern import affine_select, iota
from nkilite.isa.reduce import tensor_partition_reduce, tensor_reduce, tensor_scalar_reduce
from nkilite.isa.registers import register_alloc, register_load, register_move, register_store
from nkilite.isa.scalar import activate2, activation, activation_reduce, exponential
from nkilite.isa.scalars import NkiScalar, scalar_load, scalar_store
from nkilite.isa.scan import tensor_scalar_cumulative, tensor_tensor_scan
from nkilite.isa.search import max8, nc_find_index8, nc_match_replace8
from nkilite.isa.select import range_select, select_reduce
from nkilite.isa.shuffle import nc_stream_shuffle
from nkilite.isa.statistics import bn_aggr, bn_stats
from nkilite.isa.tensor import nc_matmul, nc_transpose
from nkilite.isa.unsupported import FUNCTIONS as _UNSUPPORTED
from nkilite.isa.vector import reciprocal, scalar_tensor_tensor, tensor_scalar, tensor_tensor
from nkilite.isa.version import get_nc_sub_version, get_nc_version
from nkilite.suggest import unknown_name as _unknown_name
from nkilite.trace.register import VirtualRegister

globals().update(_UNSUPPORTED)


def __getattr__(name: str) -> _NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise _unknown_name("nki.isa", "nisa", name, (n for n in globals() if not n.startswith("_")), {})
