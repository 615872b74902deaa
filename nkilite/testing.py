"""Check a kernel against a NumPy reference: seeded inputs, reasoned tolerances, a report that says where.

::

    from nkilite.testing import check, make

    check(my_kernel, lambda x: np.exp(x.astype(np.float64)), make((256, 512), "bfloat16", seed=0))

runs ``my_kernel`` through `nki.simulate` and natively, and compares both with the reference. Nothing here
knows any particular kernel.

`first_difference(my_kernel, *arrays)` says at which instruction two ways of running a kernel part.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import nkilite as nki
from nkilite.dtypes import DTypeLike, float_limits
from nkilite.errors import NkiError
from nkilite.ir.sums import longest_sum
from nkilite.location import Location
from nkilite.runtime.observing import Observed, observe

__all__ = [
    "MODES", "Difference", "MismatchError", "check", "compare", "first_difference", "make", "run", "tolerance", "ulps",
]

MODES = ("simulate", "compiled")

# A rounding error is at most half an epsilon and errors add like a random walk, so their standard deviation
# is about 0.3 epsilon; four epsilons leave room for the tail of a few million elements and for more than one
# rounding.
_SAFETY = 4.0
_EPS_FLOAT32 = float(np.finfo(np.float32).eps)


class MismatchError(AssertionError):
    """A kernel's result differs from its reference by more than the tolerance allows."""


class Difference(NamedTuple):
    """The first instruction at which two runs of a kernel part.

    Attributes:
        number: of the instruction, among those that were compared.
        instruction: its name.
        name: the one the user gave it, or "".
        operand: what it wrote.
        element: the position in the operand where the difference is largest.
        values: there, by mode.
        allowed: how far they may be apart.
    """

    number: int
    instruction: str
    name: str
    operand: str
    location: Location
    element: tuple[int, ...]
    values: dict[str, float]
    allowed: float

    def __str__(self) -> str:
        called = f" {self.name!r}" if self.name else ""
        position = ", ".join(map(str, self.element))
        width = max(map(len, self.values))
        return "\n".join([
            f"the first difference is in what nisa.{self.instruction}{called} writes to {self.operand}[{position}]",
            f"  at {self.location}",
            f"     {self.location.source}",
            *(f"  {mode:{width}}  {value:.9g}" for mode, value in self.values.items()),
            f"  {'allowed':{width}}  {self.allowed:.3g}",
        ])


def make(shape: int | Iterable[int], dtype: DTypeLike, seed: int = 0) -> np.ndarray:
    """A reproducible array of `shape` in any unpacked element type of the chip.

    Floats are drawn from the standard normal distribution and rounded to `dtype` (``float8_e8m0fnu``, which
    holds powers of two only, gets exponents of a normal), integers uniformly from [-128, 128) or what the
    type holds of it, booleans with even odds. The same (shape, dtype, seed) gives the same array on every
    machine.

    Args:
        shape: the dimensions.
        dtype: a name ("bfloat16"), an ``nl`` dtype, or a NumPy or ml_dtypes type.
        seed: of ``numpy.random.default_rng``.

    Raises:
        TypeError: `dtype` is packed (``*_x4``) or unknown: packed words have no value of their own to draw.
    """
    target = _numpy_dtype(dtype)
    rng = np.random.default_rng(seed)
    size = (shape,) if isinstance(shape, int) else tuple(shape)
    if target.kind == "b":
        return rng.integers(0, 2, size).astype(np.bool_)
    if target.kind in "iu":
        limits = np.iinfo(target)
        return rng.integers(max(limits.min, -128), min(limits.max, 127) + 1, size).astype(target)
    values = rng.standard_normal(size, np.float32)
    if target == ml_dtypes.float8_e8m0fnu:
        values = np.exp2(np.rint(values))
    return values.astype(target)


def tolerance(dtype: DTypeLike, *, inputs: Iterable[Any] = (), reduction: int = 1) -> tuple[float, float]:
    """Tolerances ``(rtol, atol)`` for a result of `dtype`, `atol` in units of the result's RMS.

    Two things limit a correct kernel. Its last rounding is relative to each element, hence `rtol` from the
    epsilon of `dtype`. Every earlier error is relative to the terms that were added, not to their sum, which
    may cancel; so it is measured against the root mean square of the result: intermediates are rounded to the
    coarsest type in play, and float32 accumulation of n terms wanders by sqrt(n) epsilons.

    Integers and booleans must be exact.

    Args:
        dtype: of the output.
        inputs: dtypes of the inputs; the coarsest float among them and `dtype` is what intermediates may be
            kept in.
        reduction: the largest number of terms added into one output element.
    """
    output = _numpy_dtype(dtype)
    if not _is_float(output):
        return 0.0, 0.0
    floats = [t for t in (output, *map(_numpy_dtype, inputs)) if _is_float(t)]
    coarsest = max(_epsilon(t) for t in floats)
    accumulated = _EPS_FLOAT32 * reduction**0.5
    return _SAFETY * (_epsilon(output) / 2 + accumulated), _SAFETY * (coarsest + accumulated)


def ulps(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How many representable values of ``got.dtype`` apart `got` and `expected` are, after rounding to it."""
    target = got.dtype
    wanted = np.asarray(expected).astype(target)
    if not _is_float(target):
        return np.abs(got.astype(np.int64) - wanted.astype(np.int64))

    def ordered(values: np.ndarray) -> np.ndarray:
        # Sign and magnitude to a line on which neighbouring floats are neighbouring integers.
        bits = np.ascontiguousarray(values).view(f"i{target.itemsize}").astype(np.int64)
        lowest = -(1 << (8 * target.itemsize - 1))
        return np.where(bits < 0, lowest - bits, bits)

    result: np.ndarray = np.abs(ordered(got) - ordered(wanted))
    return result


def run(kernel: Callable[..., object], mode: str, *arrays: np.ndarray, **meta: object) -> tuple[np.ndarray, ...]:
    """Run `kernel` on copies of `arrays` and return its outputs as a tuple.

    Args:
        kernel: a kernel, with or without ``@nki.jit``; ``kernel[2]`` launches on two cores.
        mode: "simulate" for the NumPy rules of `nki.simulate`, "compiled" for native code.
        arrays: positional tensor arguments.
        meta: compile-time keyword arguments.

    Raises:
        ValueError: `mode` is neither of the two.
    """
    __tracebackhide__ = True
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {MODES}")
    if mode == "simulate":
        launch: Callable[..., object] = nki.simulate(kernel)
    else:
        launch = nki.jit(kernel) if inspect.isfunction(kernel) else kernel
    result = launch(*(array.copy() for array in arrays), **meta)
    return tuple(np.asarray(r) for r in (result if isinstance(result, (tuple, list)) else (result,)))


def compare(
    got: np.ndarray, expected: np.ndarray, *, rtol: float, atol: float, what: str = "result", remedy: str = ""
) -> None:
    """Require ``|got - expected| <= atol + rtol * |expected|`` in every element, NaN matching NaN.

    Args:
        got: the kernel's output.
        expected: of the same shape; any float or integer type, ideally float64.
        rtol: relative tolerance.
        atol: absolute tolerance, in the units of the result.
        what: names the result in the report.
        remedy: ends the report.

    Raises:
        MismatchError: naming the worst element, both values, the error in ulp, and the box all mismatches lie
            in.
    """
    __tracebackhide__ = True
    expected = np.asarray(expected)
    if got.shape != expected.shape:
        raise MismatchError(f"{what} has shape {got.shape}, the reference {expected.shape}")
    if expected.dtype not in (got.dtype, np.float64):
        raise MismatchError(f"{what} is {got.dtype}, the reference {expected.dtype}")
    left, right = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(left - right)
        # Infinities of one sign agree although their difference is NaN; a NaN agrees with a NaN alone; and no
        # finite value is near an infinity, although any is within a relative tolerance of it.
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        bad = ~(same | (np.isfinite(right) & (error <= atol + rtol * np.abs(right))))
    if not bad.any():
        return
    # A NaN or infinity that should not be there is worse than any finite error.
    severity = np.where(bad, np.where(np.isfinite(error), error, np.inf), -1.0)
    worst = np.unravel_index(int(np.argmax(severity)), bad.shape)
    box = ", ".join(f"{axis.min()}:{axis.max() + 1}" for axis in np.nonzero(bad))
    lines = [
        f"{what}: {np.count_nonzero(bad)} of {bad.size} elements of {got.dtype}{list(got.shape)} differ",
        f"  worst at    {tuple(map(int, worst))}",
        f"  expected    {right[worst]:.9g}",
        f"  got         {left[worst]:.9g}",
    ]
    if np.isfinite(error[worst]):
        distance = int(ulps(got[worst].reshape(1), expected[worst].reshape(1))[0])
        allowed = atol + rtol * abs(right[worst])
        lines.append(f"  error       {error[worst]:.3g}, {distance} ulp; allowed {allowed:.3g}")
    lines += [f"  all within  [{box}]", f"  tolerance   rtol={rtol:.3g} atol={atol:.3g}"]
    if remedy:
        lines.append(f"  fix         {remedy}")
    raise MismatchError("\n".join(lines))


def check(
    kernel: Callable[..., object],
    reference: Callable[..., object],
    *arrays: np.ndarray,
    modes: Iterable[str] = MODES,
    rtol: float | None = None,
    atol: float | None = None,
    reduction: int | None = None,
    **meta: object,
) -> None:
    """Run `kernel` in every mode and require its outputs to match ``reference(*arrays)``.

    Args:
        kernel: the kernel, with or without ``@nki.jit``; ``kernel[2]`` checks a two-core launch.
        reference: a NumPy function of the same arrays returning one array or a tuple, in float64 where it can
            (any output dtype is then accepted) and otherwise in the dtype the kernel must return. It is also
            passed those of `meta` that its signature names, so semantic options reach it and tile sizes do
            not.
        arrays: the tensor arguments; kernel and reference each get their own copies.
        modes: any of "simulate" and "compiled".
        rtol: relative tolerance; by default from the output dtype, see `tolerance`.
        atol: absolute tolerance; by default from the coarsest dtype in play and `reduction`, times the RMS of
            the expected output.
        reduction: the largest number of terms added into one output element; by default the longest chain of
            additions in the kernel's trace.
        meta: compile-time keyword arguments of the kernel.

    Raises:
        MismatchError: an output has the wrong count, shape, dtype or values.
    """
    __tracebackhide__ = True
    understood = inspect.signature(reference).parameters
    wanted = reference(*(a.copy() for a in arrays), **{k: v for k, v in meta.items() if k in understood})
    expected = tuple(wanted) if isinstance(wanted, (tuple, list)) else (wanted,)
    name = getattr(kernel, "__name__", repr(kernel))
    if reduction is None:
        reduction = _longest_sum(kernel, arrays, meta)
    for mode in modes:
        results = run(kernel, mode, *arrays, **meta)
        if len(results) != len(expected):
            raise MismatchError(
                f"{name} ({mode}) returns {len(results)} outputs, the reference {len(expected)}"
            )
        for index, (got, right) in enumerate(zip(results, expected, strict=True)):
            relative, per_rms = tolerance(got.dtype, inputs=[a.dtype for a in arrays], reduction=reduction)
            compare(
                got,
                right,
                rtol=relative if rtol is None else rtol,
                atol=per_rms * _rms(right) if atol is None else atol,
                what=f"{name} ({mode})" + (f" output {index}" if len(expected) > 1 else ""),
                remedy=_remedy(mode),
            )


def first_difference(
    kernel: Callable[..., object],
    *arrays: np.ndarray,
    between: tuple[str, str] = ("simulate", "compiled"),
    rtol: float | None = None,
    atol: float | None = None,
    **meta: object,
) -> Difference | None:
    """Run `kernel` in two ways and compare what every instruction writes; None where all of it agrees.

    What is written in loops that the device runs, through runtime indices and to registers is not compared. The
    compiled run keeps a copy of what every instruction writes, and so compiles each on its own: a difference that
    only fused instructions make does not show.

    Args:
        kernel: the kernel, with or without ``@nki.jit``, on one core.
        arrays: its tensor arguments, of which each run gets its own copies.
        between: two of "simulate", "compiled" and "float32", which is "simulate" without rounding to narrow tiles: all
            float tiles and arguments are float32. It tells where a kernel loses precision.
        rtol: relative tolerance; by default from the dtype that is written, see `tolerance`.
        atol: absolute tolerance; by default from the same dtype, times the RMS of what is written.
        meta: compile-time keyword arguments of the kernel.

    Raises:
        ValueError: `between` has other modes.
        OneCoreObserved: the kernel is launched on several cores.
    """
    __tracebackhide__ = True
    known = ("float32", *MODES)
    if len(set(between)) != 2 or not set(between) <= set(known):
        raise ValueError(f"between={between!r} is not two of {known}")
    one, other = (observe(_launchable(kernel), mode, tuple(a.copy() for a in arrays), meta) for mode in between)
    reduction = _longest_sum(kernel, arrays, meta)
    for number, (left, right) in enumerate(zip(one, other, strict=True)):
        found = _parted(number, left, right, between, (rtol, atol), reduction)
        if found is not None:
            return found
    return None


def _parted(
    number: int, left: Observed, right: Observed, between: tuple[str, str], given: tuple[object, ...], reduction: int
) -> Difference | None:
    """What is different between the two, if more than may be; packed elements have no value to compare."""
    narrow = min(left.dtype, right.dtype, key=lambda dtype: dtype.itemsize)
    if narrow.kind == "x":
        return None
    one, other = (np.asarray(seen.value).astype(np.float64) for seen in (left, right))
    relative, per_rms = tolerance(narrow.base, reduction=reduction)
    rtol = relative if given[0] is None else given[0]
    atol = per_rms * _rms(one) if given[1] is None else given[1]
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(one - other))
    bad = ~same & ~(error <= atol + rtol * np.abs(one))
    if not bad.any():
        return None
    worst = np.unravel_index(int(np.argmax(np.where(bad, np.nan_to_num(error, nan=np.inf), -1.0))), bad.shape)
    values = dict(zip(between, (float(one[worst]), float(other[worst])), strict=True))
    allowed = float(atol + rtol * abs(one[worst]))
    element = tuple(map(int, worst))
    return Difference(number, right.instruction, right.name, right.operand, right.location, element, values, allowed)


def _longest_sum(kernel: Callable[..., object], arrays: tuple[np.ndarray, ...], meta: dict[str, object]) -> int:
    try:
        return longest_sum(_launchable(kernel).trace(*(a.copy() for a in arrays), **meta))
    except NkiError:  # it only runs simulated, or what runs it next explains
        return 1


def _launchable(kernel: Callable[..., object]) -> nki.Kernel[...]:
    return kernel if isinstance(kernel, nki.Kernel) else nki.jit(kernel)


def _rms(values: object) -> float:
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


def _remedy(mode: str) -> str:
    modes = '("simulate", "compiled")' if mode == "compiled" else '("float32", "simulate")'
    return (
        f"nkilite.testing.first_difference(kernel, *arrays, between={modes}) names the instruction; "
        "a tolerance of your own is rtol= and atol=."
    )


def _numpy_dtype(dtype: DTypeLike) -> np.dtype:
    if isinstance(dtype, str):
        name = {"tfloat32": "float32"}.get(str(dtype), str(dtype))
        return np.dtype(getattr(ml_dtypes, name, name))
    found: np.dtype = np.dtype(dtype)
    return found


def _is_float(dtype: np.dtype) -> bool:
    # ml_dtypes registers its floats under kind "V"; finfo is what tells them from real void types.
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.fields is None)


def _epsilon(dtype: np.dtype) -> float:
    return float(float_limits(dtype).eps)
