"""How much is put into the code of micro-kernels: what does little work is compiled quickly.

LLVM makes code that runs up to twice as long in a third of the time. A micro-kernel is compiled quickly if one launch
of the program loses less by it than is saved; once launches have lost as much, it is compiled again.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil, inf

from nkilite import knobs
from nkilite.errors import InvalidSetting
from nkilite.native.lower import Lowered

_SAVED_NS = 300  # by a byte of text
_LOST = 1  # times the time of good code
_LAUNCHES_AT_MOST = 50  # with quick code

CHOICES = ("work", "always", "never")


def quick(lowered: Lowered) -> frozenset[str]:
    """The names of the micro-kernels that are to be compiled quickly.

    Raises:
        InvalidSetting: NKILITE_OPTIMIZE is none of its values.
    """
    setting = knobs.optimize()
    if setting not in CHOICES:
        raise InvalidSetting(variable="NKILITE_OPTIMIZE", found=setting, expected=" or ".join(CHOICES))
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
    """Bytes of the stack that a program takes: quick code keeps every value there, in half as much as its text at most
    (a quarter is the most that was seen)."""
    found = _by_name(lowered)
    return lowered.stack + max((found[name][1] for name in names), default=0) // 2


def _by_name(lowered: Lowered) -> dict[str, tuple[float, int]]:
    """Of micro-kernels: rough nanoseconds of a launch, and bytes of text."""
    found: dict[str, tuple[float, int]] = {}
    for source, ns, size in zip(lowered.sources, lowered.work.tolist(), lowered.sizes.tolist(), strict=True):
        found[source.name] = found.get(source.name, (0.0, 0))[0] + ns, size
    return found
