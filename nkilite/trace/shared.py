"""Which tensors in shared HBM are one on all cores of a launch: those of one name, else the first, the second, ...

The public pages do not say how the shared tensors of two traces are matched. Where the cores disagree, in shape, dtype
or number, nothing is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from nkilite.errors import CoresDiffer
from nkilite.ir.meeting import there
from nkilite.ir.program import Program
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion
from nkilite.location import Location
from nkilite.trace.storage import Placement

Label = tuple[str, int]  # a name, or "" for all that have none, and how many of the same name came before


class SharedMemory:
    """The shared tensors of a launch while its cores make them."""

    def __init__(self) -> None:
        self._made: dict[Label, tuple[int, Buffer, Placement]] = {}
        self._counts: dict[int, Counter[str]] = {}

    def find(self, core: int, buffer: Buffer, place: Callable[[Buffer], Placement]) -> Placement:
        """The memory of a tensor that a core makes: that of the core that made it first, or what `place` gives.

        Raises:
            CoresDiffer: that core made another tensor.
        """
        counts = self._counts.setdefault(core, Counter())
        label = buffer.name, counts[buffer.name]
        counts[buffer.name] += 1
        if label not in self._made:
            self._made[label] = core, buffer, place(buffer)
        other, found, memory = self._made[label]
        _require_same(found, other, buffer, core)
        return memory


def match(programs: Sequence[Program]) -> list[list[Buffer]]:
    """The shared tensors of the programs of a launch, which are outputs of them all; by program, in one order.

    Raises:
        CoresDiffer: they are not the same.
    """
    labelled = [_labelled(program) for program in programs]
    first = labelled[0]
    for core, found in enumerate(labelled[1:], start=1):
        for label, buffer in first.items():
            if label in found:
                _require_same(buffer, 0, found[label], core)
            elif not label[0]:
                raise _missing(buffer, 0, core)
        for label, buffer in found.items():
            if label not in first and not label[0]:
                raise _missing(buffer, core, 0)
        _require_same_constants(programs[0], programs[core], core)
    common = [label for label in first if all(label in found for found in labelled)]
    return [[found[label] for label in common] for found in labelled]


def _labelled(program: Program) -> dict[Label, Buffer]:
    counts: Counter[str] = Counter()
    found = {}
    for buffer in program.buffers:
        if buffer.region is MemoryRegion.shared_hbm and buffer.kind is BufferKind.internal:
            found[buffer.name, counts[buffer.name]] = buffer
            counts[buffer.name] += 1
    return found


def _require_same(one: Buffer, core: int, other: Buffer, other_core: int) -> None:
    if one.shape != other.shape or one.dtype != other.dtype:
        what = "disagree about a tensor in shared HBM"
        raise CoresDiffer(
            what=f"{what} named {one.name!r}" if one.name else what, core=core, first=_described(one),
            other=other_core, second=_described(other), there=there(other.location), location=one.location,
        )


def _missing(buffer: Buffer, core: int, other: int) -> CoresDiffer:
    return CoresDiffer(
        what="make different numbers of unnamed tensors in shared HBM", core=core, first=_described(buffer),
        other=other, second="none to match it", there="no line of its own", location=buffer.location,
        fix="make the tensor on both cores, or give it a name, or make it with buffer=nl.private_hbm",
    )


def _require_same_constants(one: Program, other: Program, core: int) -> None:
    """Constants made at one line, counted there, have the same values."""
    values: dict[tuple[object, ...], Buffer] = {}
    for program in (one, other):
        counts: Counter[Location] = Counter()
        for buffer in program.buffers:
            if buffer.kind is not BufferKind.constant:
                continue
            key = buffer.location, counts[buffer.location]
            counts[buffer.location] += 1
            found = values.setdefault(key, buffer)
            if found.type is not buffer.type or _bytes(found) != _bytes(buffer):
                raise CoresDiffer(
                    what="disagree about a shared constant", core=0, first=_described(found), other=core,
                    second="other values", there=there(buffer.location), location=found.location,
                )


def _bytes(constant: Buffer) -> bytes:
    data = cast("Placement | np.ndarray", constant.data)
    return (data.memory if isinstance(data, Placement) else data).tobytes()


def _described(buffer: Buffer) -> str:
    return f"{buffer.dtype} {list(buffer.shape)}"
