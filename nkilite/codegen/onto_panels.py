"""Instructions that write a tile in panels: moves, and elementwise ones, a strip of columns at a time."""

from __future__ import annotations

from nkilite.codegen import pack
from nkilite.codegen.followers import Followers
from nkilite.codegen.kernel import MicroKernel
from nkilite.schedule.panels import WIDTH

_STRIP = 4 * WIDTH  # columns


def takes(kernel: MicroKernel) -> bool:
    """Whether an instruction writes to panels, of which its lower rule knows nothing."""
    return any(o.writes and kernel.operands[o.name].panels for o in kernel.call.operands)


def write(kernel: MicroKernel) -> None:
    """The micro-kernel of such an instruction; calls side by side share its strips."""
    access = kernel.call.access
    if access.move is not None and access.straight:
        pack.pack(kernel, *access.move)
        return
    e = kernel.e
    (target,) = (o for o in kernel.operands.values() if o.panels)
    whole, rest = divmod(target.columns, _STRIP)
    strips = Followers([kernel], [set()], target.shape[0], target.columns)
    pieces = whole + bool(rest)
    first, end = e.i64(0), e.i64(pieces)
    if pieces > 1:
        first, end = kernel.share(pieces, columns=_STRIP, of=tuple(sorted(strips.names)))
    if whole:
        with e.loop(e.minimum(end, e.i64(whole)), start=first) as loop:
            strips.write(e.mul(loop.index, e.i64(_STRIP)), _STRIP, None)
    if rest:
        with e.when(e.compare("eq", end, e.i64(pieces))):
            strips.write(e.i64(whole * _STRIP), rest, None)
