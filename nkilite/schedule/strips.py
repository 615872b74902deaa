"""Which instructions can work on strips: a few columns of all rows at a time."""

from __future__ import annotations

from nkilite.ir.program import Signature
from nkilite.ir.types import MemoryRegion
from nkilite.schedule.moves import shape_of, turned_into_panels
from nkilite.schedule.rows import RowShape, row_shape

_LEAST_COLUMNS = 16


def strip_shape(signature: Signature) -> RowShape | None:
    """How a signature works by row, if it is elementwise and on dense rows of tiles."""
    shape = row_shape(signature) if signature.access.columns >= _LEAST_COLUMNS else None
    return shape if shape is not None and all(o.on_chip and o.dense for o in shape.operands) else None


def panel_targets(signature: Signature) -> tuple[str, ...]:
    """The operand that a signature without a `panels` rule writes well in panels: as it moves or turns, or by strips.

    What goes by strips reads PSUM: what reads SBUF alone rather goes by rows with what came before, straight from HBM.
    """
    move = signature.access.move
    if move is not None and all(o.type.indirection is None for o in signature.operands):
        shape = shape_of(signature)
        if signature.access.straight or (shape is not None and turned_into_panels(shape)):
            return (move[0],)
    if strip_shape(signature) is None or not any(o.type.region is MemoryRegion.psum for o in signature.operands):
        return ()
    written = [o for o in signature.operands if o.writes]
    if len(written) != 1 or written[0].reads:
        return ()
    return (written[0].name,)
