"""Follow which on-chip bytes have been written: settles accumulate=None and rejects reads of never-written memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nkilite.ir.coverage import Coverage, Covered, check_read
from nkilite.ir.definition import REGISTRY
from nkilite.ir.program import IMMEDIATE, Program, Signature
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.passes.splice import splice

_TRACKED = (MemoryRegion.sbuf, MemoryRegion.psum)


class FollowWrites:
    """accumulate=None becomes False where a matmul is the first write of its PSUM region and True elsewhere.

    Coverage is kept per buffer and per byte: banks are reused through `address=`, and kernels fill a tile piecewise.
    A matmul onto a region that is only partly written gets its unwritten part zeroed first and then accumulates.
    """

    def run(self, program: Program) -> Program:
        coverage = [Coverage(b) if b.region in _TRACKED else None for b in program.buffers]
        inserted: dict[int, list[int]] = {}
        code = program.code
        plans = [_Plan(s) for s in program.signatures]
        start = 0
        for _ in range(program.count):
            plan = plans[code[start]]
            for word, kind, operand in plan.reads:
                cover = coverage[code[start + word]]
                assert cover is not None
                if not cover.full and (kind, code[start + word + 1]) not in cover.seen:
                    buffer = program.buffers[code[start + word]]
                    location = program.locations[code[start + 1]]
                    check_read(cover, plan.signature, operand, buffer, code[start + word + 1], location)
            if plan.infers:
                self._settle(program, plan, coverage, start, inserted)
                if len(plans) < len(program.signatures):
                    plans += [_Plan(s) for s in program.signatures[len(plans):]]
            for word, kind, _ in plan.writes:
                cover = coverage[code[start + word]]
                assert cover is not None
                if not cover.full and (kind, code[start + word + 1]) not in cover.seen:
                    cover.mark(kind, code[start + word + 1])
            start += plan.width
        widths = [s.n_words for s in program.signatures]
        splice(program, {at: [*words, *code[at:at + widths[code[at]]]] for at, words in inserted.items()})
        return program

    def _settle(self, program: Program, plan: _Plan, coverage: list, start: int, inserted: dict[int, list[int]]) -> None:
        """Decide accumulate=None of the instruction at a word position."""
        code = program.code
        dst = plan.signature.operand("dst")
        buffer, offset = code[start + dst.word], code[start + dst.word + 1]
        covered = coverage[buffer].covered(dst.type, offset)
        if covered is Covered.some:
            missing = coverage[buffer].unwritten(dst.type, offset)
            inserted[start] = _zeroing(program, dst.type, buffer, offset, missing, code[start + 1])
        code[start] = plan.settled(program, covered is not Covered.none)


class _Plan:
    """What to look at for instructions of one signature."""

    __slots__ = ("_settled", "infers", "reads", "signature", "width", "writes")

    def __init__(self, signature: Signature) -> None:
        tracked = [o for o in signature.operands if o.type.region in _TRACKED]
        self.signature = signature
        self.width = signature.n_words
        self.infers = signature.arguments.get("accumulate", False) is None
        self.reads = [(o.word, o.type, o) for o in tracked if o.reads and not (self.infers and o.name == "dst")]
        self.writes = [(o.word, o.type, o) for o in tracked if o.writes]
        self._settled: dict[bool, int] = {}

    def settled(self, program: Program, accumulate: bool) -> int:
        """The id of the signature with accumulate decided."""
        found = self._settled.get(accumulate)
        if found is None:
            arguments = {**self.signature.arguments, "accumulate": accumulate}
            found = self._settled[accumulate] = program.signature(self.signature.definition, arguments).id
        return found


def _zeroing(program: Program, type: ViewType, buffer: int, offset: int, missing: np.ndarray, where: int) -> list[int]:
    """Words of memset instructions that write 0 to the True elements of `missing`."""
    memset = REGISTRY["memset"]
    words: list[int] = []
    for corner, shape in _boxes(missing):
        at = offset + sum(c * s for c, s in zip(corner, type.strides, strict=True)) * type.dtype.itemsize
        box = ViewType.of(type.region, type.dtype, shape, type.strides)
        arguments = {"dst": box, "value": IMMEDIATE, "engine": None}
        normalize = memset.rules.get("normalize")
        if normalize is not None:
            normalize(arguments, program.target)
        words += [program.signature(memset, arguments).id, where, buffer, at, program.constant_id(0.0)]
    return words


def _boxes(mask: np.ndarray) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Disjoint boxes (corner, shape) that together are the True elements."""
    left = mask.copy()
    while left.any():
        corner = tuple(int(i) for i in np.unravel_index(int(left.argmax()), left.shape))
        shape = [1] * left.ndim
        for dim in range(left.ndim - 1, -1, -1):
            box = tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))
            while corner[dim] + shape[dim] < left.shape[dim]:
                grown = (*box[:dim], slice(corner[dim] + shape[dim], corner[dim] + shape[dim] + 1), *box[dim + 1:])
                if not left[grown].all():
                    break
                shape[dim] += 1
        left[tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))] = False
        yield corner, tuple(shape)
