"""The Beta-1 dialect (`neuronxcc.nki`), a second front end onto the same instructions.

Kernels that `import neuronxcc.nki` trace to the programs that kernels of NKI 0.3 and later trace to. What differs is
how they are written: index tensors (index.py) and masks (mask.py) that subscripts (select.py) turn into access
patterns, tiles with operators (tile.py, arithmetic.py) that are assigned to (assign.py), functions that return tiles
(functional.py, memory.py, isa.py), block dimensions (blocks.py) and launch grids (grid.py).
"""

import typing as _typing
from typing import Any as _Any

from nkilite.beta1 import compiler, isa, language, typing
from nkilite.beta1.kernel import baremetal, benchmark, jit, profile, simulate_kernel, trace
from nkilite.beta1.typing import tensor
from nkilite.suggest import unknown_name as _unknown_name

__all__ = [
    "baremetal",
    "benchmark",
    "compiler",
    "isa",
    "jit",
    "language",
    "profile",
    "simulate_kernel",
    "tensor",
    "trace",
    "typing",
]


if not _typing.TYPE_CHECKING:  # a checker that sees it believes that every name exists

    def __getattr__(name: str) -> _Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _unknown_name("neuronxcc.nki", "nki", name, __all__, {})
