"""Channels of the device memory: how long the busiest one takes for a DMA, where a target has a number of them.

Addresses go to the channels in turn, `hbm_interleave_bytes` to each. That many channels share the bandwidth of the
device equally, so that a transfer whose runs are a multiple of a whole turn apart has few of them to itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from nkilite.ir.types import IndirectKind, ViewType
from nkilite.isa import rules
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target


def limited(cost: Cost, target: Target, tensors: Iterable[ViewType]) -> Cost:
    """A DMA that takes at least as long as the busiest channel does for one of its tensors.

    Tensors are taken to begin at a multiple of the interleave. Rows that an index chooses at run time are taken to be
    spread evenly.
    """
    if not target.hbm_channels:
        return cost
    rate = target.device_hbm_bytes_per_ns / target.hbm_channels
    times = [
        busiest(kind, target) / rate for kind in tensors
        if kind.region in rules.HBM and (kind.indirection is None or kind.indirection.kind is not IndirectKind.vector)
    ]
    return replace(cost, transfer_ns=max([cost.transfer_ns, *times]))


def busiest(kind: ViewType, target: Target) -> int:
    """The most bytes of a view that one channel holds; what is read repeatedly counts once."""
    channels, interleave = target.hbm_channels, target.hbm_interleave_bytes
    starts, length = _runs(kind)
    whole, rest = divmod(length, interleave * channels)
    held = np.full(channels, whole * interleave * len(starts), np.int64)
    if rest:
        first = starts % (interleave * channels)
        at, end = first, first + rest
        while (more := at < end).any():
            at, end = at[more], end[more]
            unit = at // interleave
            upto = np.minimum((unit + 1) * interleave, end)
            held += np.bincount(unit % channels, upto - at, channels).astype(np.int64)
            at = upto
    return int(held.max())


def _runs(kind: ViewType) -> tuple[np.ndarray, int]:
    """Where the contiguous runs of a view begin, in bytes, and how long they are."""
    size = kind.dtype.itemsize
    dims = [(n, abs(stride)) for n, stride in zip(kind.shape, kind.strides, strict=True) if n != 1 and stride != 0]
    run = 1
    while dims and dims[-1][1] == run:
        run *= dims.pop()[0]
    starts = np.zeros(1, np.int64)
    for n, stride in dims:
        starts = (starts[:, None] + np.arange(n, dtype=np.int64) * stride * size).ravel()
    return starts, run * size
