"""Functions that take the words of an instruction's operands: tensors without an index, and numbers that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

from nkilite.trace.tensor import NkiTensor

#: Called with operands, returns their words. Raises KeyError for numbers that are new, and AttributeError for tensors
#: whose loop or kernel has ended.
Write = Callable[..., tuple[int, ...]]
_Known = dict[tuple[object, ...], tuple[int, ...]]  # ids of numbers, zeros being known by their text: there are two


class Writer(NamedTuple):
    """For operands of some kinds."""

    write: Write
    known: _Known

    @classmethod
    def of(cls, operands: Sequence[object], registers: Sequence[tuple[int, int]]) -> Writer:
        """For operands like these, which registers follow, given by their words."""
        kinds = tuple(None if o is None else o.__class__ is NkiTensor for o in operands)
        known: _Known = {}
        return cls(_made(kinds)(known, tuple(chain(*registers))), known)

    def know(self, numbers: Sequence[object], ids: Sequence[int]) -> None:
        """Accept numbers from here on."""
        self.known[tuple(n or str(n) for n in numbers)] = tuple(ids)


@cache
def _made(kinds: tuple[bool | None, ...]) -> Callable[[_Known, tuple[int, ...]], Write]:
    """Makes functions for operands that are tensors (True), numbers (False) or None."""
    parameters = "".join(f"o{i}, " for i in range(len(kinds)))
    words = "".join(
        f"o{i}.storage.open_id, o{i}.byte_offset, " if tensor else f"n{i}, "
        for i, tensor in enumerate(kinds) if tensor is not None
    )
    numbers = [i for i, tensor in enumerate(kinds) if tensor is False]
    look_up = "".join(f"n{i}, " for i in numbers) + " = known[" + "".join(f"o{i} or str(o{i}), " for i in numbers) + "]"
    scope: dict[str, Callable[[_Known, tuple[int, ...]], Write]] = {}
    exec(compile(f"""
def make(known, registers):
    def write({parameters}):
        {look_up if numbers else ""}
        return ({words}*registers,)
    return write
""", "<nkilite words>", "exec"), scope)
    return scope["make"]
