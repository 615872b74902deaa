"""What a call of a kernel does, for frameworks that have to know before it is run."""

from __future__ import annotations

from typing import NamedTuple

from nkilite.frameworks.calls import Call
from nkilite.ir.program import Program
from nkilite.native.image import written_inputs
from nkilite.runtime.binding import bind
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.dynamic import size_of
from nkilite.runtime.kernel import Kernel
from nkilite.runtime.results import Result, results_of
from nkilite.runtime.tracing import trace


class Outline(NamedTuple):
    """What a call does.

    Attributes:
        returned: what the kernel returns, with a Result in the place of every tensor.
        outputs: shape and dtype of every new array.
        written: which tensors of the call it writes.
    """

    returned: object
    outputs: tuple[tuple[tuple[int, ...], str], ...]
    written: tuple[int, ...]


class Traced(NamedTuple):
    """What a call runs.

    Attributes:
        programs: of every core.
        order: for every input of the programs, which tensor of the call it is.
        outline: what the call does.
    """

    programs: list[Program]
    order: list[int]
    outline: Outline


def outline(kernel: Kernel[...], call: Call) -> Outline:
    """What a call does: its kernel is traced for NumPy arrays, which are not read."""
    return traced(kernel, call).outline


def traced(kernel: Kernel[...], call: Call) -> Traced:
    """Trace a kernel for a call of NumPy arrays, which are not read."""
    args, kwargs = call.arguments()
    arguments = bind(kernel, args, kwargs)
    programs, returned = trace(kernel, arguments)
    order = [next(i for i, t in enumerate(call.tensors) if t is a.original) for a in arguments.given]
    ours, sizes = len(arguments.arrays) - len(order), arguments.size_list
    written = {i for p in programs for i, b in enumerate(p.inputs) if b.id in written_inputs(p)}

    def leaf(value: object, _: str) -> object:
        if not isinstance(value, Result):
            return value
        # The call may have its tensors in another order, and has none for what is ours between them and the results.
        array = order[value.array] if value.array < len(order) else value.array - ours
        return Result(array, size_of(value.shape, value.dims, sizes), value.dtype, value.strides, value.offset)

    return Traced(programs, order, Outline(
        map_leaves(results_of(returned[0], programs[0]), leaf, records=False),
        tuple((size_of(b.shape, b.dims, sizes), str(b.dtype)) for b in programs[0].outputs),
        tuple(sorted(order[i] for i in written)),
    ))
