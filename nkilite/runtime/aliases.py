"""Arguments that are one array: told at launch, and one buffer of the program that is compiled for such launches."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from nkilite.errors import ArgumentError, NonContiguousArgument, OverlappingArguments
from nkilite.ir.columns import Columns
from nkilite.ir.program import Program
from nkilite.native.image import written_inputs
from nkilite.native.workspace import address
from nkilite.runtime.arguments import ArrayArgument


def same_arrays(arguments: Sequence[ArrayArgument]) -> tuple[int, ...]:
    """Of every argument, the position of the first one that is the same memory; () if no two are."""
    if len(arguments) < 2:
        return ()
    firsts: dict[tuple[int, int], int] = {}
    found = tuple(firsts.setdefault(_memory(a), i) for i, a in enumerate(arguments))
    return found if len(firsts) < len(arguments) else ()


def merge(programs: Sequence[Program], same: Sequence[int]) -> None:
    """Make arguments that are one array one buffer: what uses the others uses the first of them, on every core.

    Arrays that no core writes stay as they are: programs that only read them are right for arrays that are apart, too.
    """
    if not same:
        return
    positions = [{b.id: i for i, b in enumerate(program.inputs)} for program in programs]
    firsts = {same[at[id]] for program, at in zip(programs, positions, strict=True) for id in written_inputs(program)}
    for program, at in zip(programs, positions, strict=True):
        instead = {id: program.inputs[same[i]].id for id, i in at.items() if same[i] in firsts}
        if any(id != first for id, first in instead.items()):
            _rename(program, instead)


def _rename(program: Program, instead: dict[int, int]) -> None:
    """Let instructions use other buffers."""
    renamed = np.arange(len(program.buffers))
    renamed[list(instead)] = list(instead.values())
    columns = Columns.of(program)
    code = columns.code.copy()
    for signature, _, starts in columns.uses():
        for operand in signature.operands:
            words = starts + operand.word
            code[words] = renamed[code[words]]
    program.code = array("q", code.tobytes())


def merged(same: Sequence[int], written: Sequence[bool]) -> bool:
    """Whether a program that writes some of its arguments is right only where those that are one array are one."""
    return any(first != i and written[first] for i, first in enumerate(same))


def refusal(argument: ArrayArgument, arguments: Sequence[ArrayArgument]) -> Callable[..., ArgumentError] | None:
    """The error, but for its location, of a kernel that writes an argument, one of several; None if it may.

    Whatever is the same memory has to be writable, and nothing may share a part of it.
    """
    for other in arguments:
        if _memory(argument) == _memory(other):
            if not other.writable:
                return partial(NonContiguousArgument, name=other.name, shape=other.shape, problem=_unwritable(other))
        elif np.may_share_memory(argument.numpy, other.numpy):
            return partial(OverlappingArguments, written=argument.name, other=other.name)
    return None


def _memory(argument: ArrayArgument) -> tuple[int, int]:
    """Address and bytes of a contiguous array."""
    return address(argument.numpy), argument.numpy.nbytes


def _unwritable(argument: ArrayArgument) -> str:
    """Why an argument cannot be written in place."""
    return "a JAX array" if argument.framework == "jax" else "not contiguous" if argument.copied else "read-only"
