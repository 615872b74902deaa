"""Which instructions can work on strips: a few columns of all rows at a time."""

from __future__ import annotations

from nkilite.ir.program import Signature
from nkilite.ir.types import MemoryRegion
from nkilite.passes.rows import RowShape, row_shape

_LEAST_COLUMNS = 16


def strip_shape(signature: Signature) -> RowShape | None:
    """How a signature works by row, if it is elementwise and on dense rows of tiles."""
    if not signature.definition.elementwise or any(o.type.region is MemoryRegion.registers for o in signature.operands):
        return None
    shape = row_shape(signature)
    if shape is None or any(not o.on_chip or not o.dense for o in shape.operands):
        return None
    return shape if max(o.type.free_size for o in signature.operands) >= _LEAST_COLUMNS else None


def panel_targets(signature: Signature) -> tuple[str, ...]:
    """The operand that a signature without a `panels` rule writes well in panels, strip by strip.

    It reads PSUM: what reads SBUF alone rather goes by rows with what came before, straight from HBM.
    """
    if strip_shape(signature) is None or not any(o.type.region is MemoryRegion.psum for o in signature.operands):
        return ()
    written = [o for o in signature.operands if o.writes]
    if len(written) != 1 or written[0].reads:
        return ()
    columns = written[0].type.free_size
    return (written[0].name,) if all(o.type.free_size in (1, columns) for o in signature.operands) else ()
