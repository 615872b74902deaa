"""How much is put into the code of micro-kernels: what does little work is compiled quickly.

A program that does little work is compiled hastily: nothing is decided about how it runs fast, and instructions take
micro-kernels that know no sizes (nkilite/native/forms.py), most of which others have needed before. Once launches have
lost as much by it as was saved, it is compiled well.

In any other program, LLVM makes code that runs up to twice as long in a third of the time. A micro-kernel is compiled
quickly if one launch of the program loses less by it than is saved; once launches have lost as much, it is compiled
again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import ceil, inf

import numpy as np

from nkilite import knobs
from nkilite.host.cpu import Products
from nkilite.ir.columns import Columns
from nkilite.ir.program import Program
from nkilite.isa.custom import custom_operator
from nkilite.native.lower import Lowered
from nkilite.native.meetings import work

_SAVED_NS = 400  # by a byte of text
_LOST = 1  # times the time of good code
_LAUNCHES_AT_MOST = 4  # with quick code: who launches more often repeats, and soon wants to see the time of good code

_SAVED_BY_HASTE_NS = 3_000_000  # by a kind of instruction
_HASTE = 2  # times the time of good code that instructions lose one after another
_INSTRUCTIONS_AT_MOST = 10_000  # of a program that is compiled hastily


def little(program: Program, products: Products) -> bool:
    """Whether a program is compiled hastily for a host with such means. None that loops, or has operators of the
    user's, is.

    Raises:
        InvalidSetting: NKILITE_OPTIMIZE is none of its values.
    """
    setting = knobs.optimize()
    if setting == "always" or program.count > _INSTRUCTIONS_AT_MOST:
        return False
    definitions = [s.definition for s in program.signatures]
    if any(d.control is not None or d is custom_operator.definition for d in definitions):
        return False
    uses = np.bincount(Columns.of(program).ids, minlength=len(program.signatures)).tolist()
    used = [(count, s) for count, s in zip(uses, program.signatures, strict=True) if count]
    return setting == "never" or _hasty_launches(sum(count * work(s, products) for count, s in used), len(used)) >= 1


def hasty_launches(programs: Collection[Lowered]) -> float:
    """How often programs of a launch that were compiled hastily are launched before they are compiled well."""
    if knobs.optimize() == "never":
        return inf
    return _hasty_launches(sum(float(p.work.sum()) for p in programs), sum(len(p.sources) for p in programs))


def _hasty_launches(work: float, kinds: int) -> float:
    """The same, of a program that has so many nanoseconds of work, in so many kinds of instructions."""
    return min(_LAUNCHES_AT_MOST, _SAVED_BY_HASTE_NS * kinds / max(_HASTE * work, 1.0))


def quick(lowered: Lowered) -> frozenset[str]:
    """The names of the micro-kernels that are to be compiled quickly.

    Raises:
        InvalidSetting: NKILITE_OPTIMIZE is none of its values.
    """
    setting = knobs.optimize()
    if setting == "always":
        return frozenset()
    found = _by_name(lowered)
    if setting == "never":
        return frozenset(found)
    return frozenset(name for name, (ns, size) in found.items() if ns * _LOST < size * _SAVED_NS)


def launches(lowered: Lowered, names: Collection[str]) -> float:
    """How often a program is launched before micro-kernels that were compiled quickly are compiled again."""
    if knobs.optimize() == "never":
        return inf
    found = _by_name(lowered)
    saved = _SAVED_NS * sum(found[name][1] for name in names)
    lost = _LOST * sum(found[name][0] for name in names)
    return min(_LAUNCHES_AT_MOST, max(1, ceil(saved / max(lost, 1.0))))


def stack(lowered: Lowered, names: Collection[str]) -> int:
    """Bytes of the stack that a program takes."""
    found = _by_name(lowered)
    return lowered.stack + quick_stack(found[name][1] for name in names)


def quick_stack(texts: Iterable[int]) -> int:
    """Bytes of the stack that functions with so many bytes of text take: quick code keeps every value there, in half as
    much as its text at most (a quarter is the most that was seen)."""
    return max(texts, default=0) // 2


def _by_name(lowered: Lowered) -> dict[str, tuple[float, int]]:
    """Of micro-kernels: rough nanoseconds of a launch, and bytes of text."""
    found: dict[str, tuple[float, int]] = {}
    for source, ns, size in zip(lowered.sources, lowered.work.tolist(), lowered.sizes.tolist(), strict=True):
        if source.quick:
            continue
        found[source.name] = found.get(source.name, (0.0, 0))[0] + ns, size
    return found
