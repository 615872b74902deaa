"""Loops: Python's `range` under its NKI names, and the loops that the device runs.

Python loops unroll while a kernel is traced; fori_loop and while_loop stay loops. Source: public pages
nki.language.affine_range, nki.language.fori_loop and "NKI Dynamic Loops".
"""

from __future__ import annotations

import builtins
import dis
import inspect
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from types import FrameType
from typing import Any

import numpy as np

from nkilite.deprecation import deprecated
from nkilite.dtypes import DType, int32
from nkilite.errors import InvalidOperand, LoopLeft, LoopTaken, RegisterInControlFlow, describe
from nkilite.ir.types import MemoryRegion
from nkilite.isa.loops import for_begin, for_end, while_begin, while_end
from nkilite.isa.registers import register_alloc, require_int, require_width
from nkilite.isa.scalars import NkiScalar, new_scalar
from nkilite.location import Location, code_of
from nkilite.trace import active
from nkilite.trace.builder import Builder
from nkilite.trace.indexing import DynamicSlice
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

__all__ = [
    "affine_range",
    "ds",
    "dynamic_range",
    "fori_loop",
    "range",
    "sequential_range",
    "static_range",
    "while_loop",
]

range = builtins.range


def ds(start: object, size: int) -> DynamicSlice:
    """An index of `size` elements from `start`: an int, or a runtime index (a [1, 1] tile or a register)."""
    return DynamicSlice(start, size)


def _unrolled(name: str, start: int, stop: int | None, step: int) -> builtins.range:
    builder = active.builder_or_none()
    if builder is None or builder.first_time_here(name, sys._getframe(2)):
        deprecated(f"nl.{name}", "range")
    if type(start) is int and stop is None and step == 1:
        return builtins.range(start)
    return _range(f"nl.{name}", start, stop, step)


def _range(name: str, start: Any, stop: Any, step: Any) -> builtins.range:
    bounds = (0, start, step) if stop is None else (start, stop, step)
    for operand, value in zip(("start", "stop", "step"), bounds, strict=True):
        if not isinstance(value, (int, np.integer)):
            if isinstance(value, VirtualRegister) and operand != "step":
                raise RegisterInControlFlow(use=f"a bound of {name}")
            raise InvalidOperand(
                instruction=name,
                operand=operand,
                found=describe(value),
                expected="an int",
            )
    return builtins.range(*map(int, bounds))


def affine_range(start: int, stop: int | None = None, step: int = 1) -> builtins.range:
    """Python's `range` (deprecated name)."""
    return _unrolled("affine_range", start, stop, step)


def sequential_range(start: int, stop: int | None = None, step: int = 1) -> builtins.range:
    """Python's `range` (deprecated name)."""
    return _unrolled("sequential_range", start, stop, step)


def static_range(start: int, stop: int | None = None, step: int = 1) -> builtins.range:
    """Python's `range` (deprecated name)."""
    return _unrolled("static_range", start, stop, step)


def dynamic_range(start: object, stop: object = None, step: int = 1) -> Iterable[object]:
    """A counted loop in the place of `range` (deprecated name).

    It is what a `for` statement runs over, whose body is left at its end alone: that is all the device can do. Over
    compile-time ints it unrolls. With a bound in a register the loop runs on the device: Python runs the body once,
    with what `fori_loop` passes to its body as the index, and the same holds for tensors made in it.

    Args:
        start, stop: as of `range`; ints, registers or scalars.
        step: a compile-time int, positive if a bound is in a register.

    Raises:
        InvalidOperand: a bound or the step is something else.
        LoopTaken: (by whoever iterates) something else than a `for` statement runs over it.
        LoopLeft: (when the kernel ends) the body was left by break, return or an exception.

    Source: nki.language.dynamic_range.
    """
    name = "nl.dynamic_range"
    deprecated(name, "nl.fori_loop")
    lower, upper = (0, start) if stop is None else (start, stop)
    if any(isinstance(bound, VirtualRegister) for bound in (lower, upper)):
        return _Dynamic(name, _Counted(name, lower, upper, step))
    turns = _range(name, start, stop, step)
    return turns if active.builder_or_none() is None else _Dynamic(name, turns)


class _Dynamic:
    """The turns of a loop of the device, for a `for` statement."""

    __slots__ = ("_name", "_turns")

    def __init__(self, name: str, turns: Iterable[object]) -> None:
        self._name, self._turns = name, turns

    def __iter__(self) -> Iterator[object]:
        builder, frame = active.builder(self._name), sys._getframe(1)
        if not _begins_for(frame):
            raise LoopTaken(loop=self._name)
        return self._to_the_end(builder, builder.program.locations[builder.place(frame)])

    def _to_the_end(self, builder: Builder, location: Location) -> Iterator[object]:
        """The index, turn by turn, for a statement which is wrong if it ends before."""
        left = LoopLeft(loop=self._name, location=location)
        builder.left.append(left)
        yield from self._turns
        builder.left.remove(left)


def _begins_for(frame: FrameType) -> bool:
    """Whether a frame begins a `for` statement now, whose body no other function carries out.

    What list, zip and the like iterate over is asked for by the instruction that calls them, and comprehensions do
    something else before they ask for what comes next.
    """
    code, at = frame.f_code, frame.f_lasti
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR) or code.co_code[at] != _GET_ITER:
        return False
    following = (code.co_code[i] for i in builtins.range(at + 2, len(code.co_code), 2))
    return next(op for op in following if op != dis.EXTENDED_ARG) == _FOR_ITER


_GET_ITER, _FOR_ITER = dis.opmap["GET_ITER"], dis.opmap["FOR_ITER"]


def fori_loop(lower: object, upper: object, body_fun: Callable[[object], object], step: int = 1) -> None:
    """A loop on the device: run ``body_fun(i)`` for i = lower, lower + step, ... below upper.

    The body is traced once. It carries state from iteration to iteration in tensors made before the loop; a tensor
    made in the body is a fresh one in every iteration, and ends with it.

    Args:
        lower: first value: an int, a register or a scalar.
        upper: end, exclusive: an int, a register or a scalar, read when the loop begins.
        body_fun: the body. Its argument is an NkiScalar, or a VirtualRegister if a bound is one that is no scalar; it
            is a copy, so that writing to it does not change the loop. The body returns nothing.
        step: a positive compile-time int.

    Raises:
        InvalidOperand: a bound or the step is something else, or the body returned a value.
        DtypeMismatch: one bound has 32 bits and the other 64.
        TensorOfLoop: (by whoever uses it) a tensor made in the body is used after the loop.

    Source: nki.language.fori_loop.
    """
    name = "nl.fori_loop"
    _require_body(name, body_fun)
    with closing(iter(_Counted(name, lower, upper, step))) as turns:
        for index in turns:
            returned = body_fun(index)
            if returned is not None:
                raise InvalidOperand(
                    instruction=name,
                    operand="the value returned by body_fun",
                    found=describe(returned),
                    expected="None",
                    fix="carry state through tensors made before the loop",
                )


class _Counted:
    """A counted loop on the device."""

    def __init__(self, name: str, lower: Any, upper: Any, step: object) -> None:
        self.name, self.builder = name, active.builder(name)
        for operand, bound in (("lower", lower), ("upper", upper)):
            if not isinstance(bound, VirtualRegister):
                _require_bound(name, operand, bound)
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 1:
            raise InvalidOperand(instruction=name, operand="step", found=describe(step), expected="a positive int")
        self._dtype = self._common_dtype(lower, upper)
        for operand, number in (("lower", lower), ("upper", upper), ("step", step)):
            if not isinstance(number, VirtualRegister):
                require_int(name, operand, number, self._dtype)
        self._lower, self._upper, self._step = lower, upper, int(step)

    def _common_dtype(self, lower: object, upper: object) -> DType:
        """The dtype of the bounds that are registers, which is that of the index."""
        bounds = ("lower", lower), ("upper", upper)
        registers = [(n, b.register_tensor.type) for n, b in bounds if isinstance(b, VirtualRegister)]
        if not registers:
            return int32
        require_width(self.name, *registers[0], *registers[-1])
        return registers[0][1].dtype

    def __iter__(self) -> Generator[VirtualRegister, None, None]:
        """The index, in every turn of the body; nothing is recorded of a loop that is known to have none."""
        bounds = self._lower, self._upper
        if not any(isinstance(bound, VirtualRegister) for bound in bounds) and self._lower >= self._upper:
            return
        plain = any(isinstance(b, VirtualRegister) and not isinstance(b, NkiScalar) for b in bounds)
        index = register_alloc() if plain else new_scalar(self._dtype)
        counter = self.builder.allocate(MemoryRegion.registers, (1, 2), self._dtype)
        turns = self.builder.loop(lambda: for_begin(index, counter, *bounds, self._step))
        with closing(turns):
            for _ in turns:
                yield index
                for_end(index, counter, self._step)


def while_loop(init: VirtualRegister, body_fun: Callable[[VirtualRegister], VirtualRegister]) -> None:
    """A loop on the device: while r is not zero, ``r = body_fun(r)``, beginning with init.

    The body is traced once; for tensors made in it, see `fori_loop`.

    Args:
        init: the first condition, a register; if it is zero, the body does not run.
        body_fun: the body. Its argument is a copy of the condition, which it may write to; it returns the register
            that is the next condition.

    Raises:
        InvalidOperand: init, or what the body returned, is not a register.
        TensorOfLoop: (by whoever uses it) a tensor made in the body is used after the loop.

    Source: nki.language.while_loop.
    """
    name = "nl.while_loop"
    builder = active.builder(name)
    _require_condition(name, "init", init)
    _require_body(name, body_fun)
    value = new_scalar(init.dtype) if isinstance(init, NkiScalar) else register_alloc()
    with closing(builder.loop(lambda: while_begin(value, init))) as turns:
        for _ in turns:
            condition = body_fun(value)
            _require_condition(name, "the value returned by body_fun", condition)
            while_end(value, condition)


def _require_bound(name: str, operand: str, bound: object) -> None:
    if isinstance(bound, bool) or not isinstance(bound, (int, np.integer)):
        raise InvalidOperand(
            instruction=name,
            operand=operand,
            found=describe(bound),
            expected="an int, a register or a scalar",
            fix=_LOAD if isinstance(bound, NkiTensor) else "",
        )


def _require_body(name: str, body_fun: object) -> None:
    found = describe(body_fun)
    if callable(body_fun) and code_of(body_fun) is not None:
        try:
            signature = inspect.signature(body_fun)
            signature.bind(None)
            return
        except TypeError:
            found = f"a function with the parameters {signature}"
        except ValueError as error:
            found = f"{found}, of which {error}"
    raise InvalidOperand(
        instruction=name, operand="body_fun", found=found, expected="a function of one argument, written in Python"
    )


def _require_condition(name: str, operand: str, condition: object) -> None:
    if not isinstance(condition, VirtualRegister):
        fix = _LOAD if isinstance(condition, NkiTensor) else ""
        raise InvalidOperand(
            instruction=name, operand=operand, found=describe(condition), expected="a register", fix=fix
        )


_LOAD = "read the tile into a register first: nisa.register_load(nisa.register_alloc(), tile)"
