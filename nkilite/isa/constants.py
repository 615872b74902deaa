"""The enumerations instructions take: engines, register commands, DMA and matmul modes, generations.

Values are those of the public nki.isa stubs. Members hash by identity: they are part of every signature key.
"""

from __future__ import annotations

from enum import Enum

from nkilite.ir.attributes import register_enum
from nkilite.ir.types import OobMode
from nkilite.machine.engine import Engine

__all__ = [
    "dge_mode",
    "dma_engine",
    "engine",
    "gpsimd_engine",
    "matmul_perf_mode",
    "nc_version",
    "oob_mode",
    "reduce_cmd",
    "scalar_engine",
    "tensor_engine",
    "unknown_engine",
    "vector_engine",
]

engine = Engine
oob_mode = OobMode

tensor_engine = Engine.tensor
vector_engine = Engine.vector
scalar_engine = Engine.scalar
gpsimd_engine = Engine.gpsimd
unknown_engine = Engine.unknown


class reduce_cmd(Enum):
    """What an instruction does with its engine's accumulation registers."""

    idle = 0
    reset = 1
    reduce = 2
    reset_reduce = 3
    load_reduce = 4

    __hash__ = object.__hash__


class dge_mode(Enum):
    """Where DMA descriptors are generated."""

    unknown = 0
    swdge = 1
    hwdge = 2
    none = 3

    __hash__ = object.__hash__


class matmul_perf_mode(Enum):
    """Tensor Engine performance modes."""

    none = "none"
    double_row = "double_row"

    __hash__ = object.__hash__


class nc_version(Enum):
    """NeuronCore generations; ordered."""

    gen2 = 2
    gen3 = 3
    gen4 = 4

    __hash__ = object.__hash__

    def __lt__(self, other: nc_version) -> bool:
        return self.value < other.value

    def __le__(self, other: nc_version) -> bool:
        return self.value <= other.value

    def __gt__(self, other: nc_version) -> bool:
        return self.value > other.value

    def __ge__(self, other: nc_version) -> bool:
        return self.value >= other.value


class dma_engine(Enum):
    """Which DMA engines a core-to-core transfer uses."""

    dma = 1
    gpsimd_dma = 2

    __hash__ = object.__hash__


for _kind in (Engine, reduce_cmd, dge_mode, OobMode, matmul_perf_mode, nc_version, dma_engine):
    register_enum(_kind)
