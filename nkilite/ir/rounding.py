"""Which instructions round stochastically, and how one looks that leaves its results in float32."""

from __future__ import annotations

from typing import NamedTuple

from nkilite.dtypes import float32
from nkilite.errors import DtypeMismatch, UnsupportedDtype
from nkilite.ir.program import Operand, Signature
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.machine.engine import Engine
from nkilite.rounding import STOCHASTIC

_COMPUTE = (Engine.vector, Engine.scalar, Engine.gpsimd)
_TILES = (MemoryRegion.sbuf, MemoryRegion.psum)


class Rounded(NamedTuple):
    """An instruction that rounds.

    Attributes:
        names: the operands whose elements it rounds.
        wide: the arguments of the same instruction with these operands in float32.
    """

    names: tuple[str, ...]
    wide: dict[str, object]


def rounded(signature: Signature) -> Rounded | None:
    """What an instruction rounds where rounding is stochastic; None if nothing.

    Compute engines round what they make of tiles, and the Tensor Engine what it writes to PSUM on targets that say so.
    What only moves elements keeps their bits, functions of the user's round as they say, what reads no tile (memset,
    iota, random numbers) and DMA engines round to nearest.
    """
    definition = signature.definition
    if definition.control is not None or definition.meets is not None:
        return None
    names = tuple(o.name for o in signature.operands if o.writes and _narrow(o))
    reads = any(not o.writes and o.type.region in _TILES for o in signature.operands)
    if not names or not reads or not signature.access.known:
        return None
    move = signature.access.move
    if move is not None and signature.arguments[move[0]].dtype == signature.arguments[move[1]].dtype:
        return None
    engine = definition.rule("cost")(signature).engine
    if engine not in _COMPUTE and not (engine is Engine.tensor and signature.target.tensor_stochastic_rounding):
        return None
    wide = {n: widened(v) if n in names else v for n, v in signature.arguments.items()}
    try:
        definition.rule("check")(Signature(-1, definition, wide, signature.target, ()))
    except (DtypeMismatch, UnsupportedDtype):
        return None  # dst has to have the dtype of the elements that it takes
    return Rounded(names, wide)


def _narrow(operand: Operand) -> bool:
    return operand.type.region in _TILES and operand.type.dtype.base in STOCHASTIC


def widened(kind: ViewType) -> ViewType:
    """The type of a new tile for the elements of a view, in float32."""
    return ViewType.dense(kind.region, float32, kind.shape)
