"""Elementwise instructions that write a tile in panels, a strip of columns at a time."""

from __future__ import annotations

from nkilite.codegen.followers import Followers
from nkilite.codegen.kernel import MicroKernel
from nkilite.ir.panels import WIDTH

_STRIP = 4 * WIDTH  # columns


def takes(kernel: MicroKernel) -> bool:
    """Whether an instruction writes to panels, of which its own rules know nothing."""
    return "panels" not in kernel.call.definition.rules and any(o.panels for o in kernel.operands.values())


def write(kernel: MicroKernel) -> None:
    """The micro-kernel of such an instruction; calls side by side share its strips."""
    e = kernel.e
    (target,) = (o for o in kernel.operands.values() if o.panels)
    whole, rest = divmod(target.columns, _STRIP)
    strips = Followers([kernel], (), target.shape[0], target.columns)
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
