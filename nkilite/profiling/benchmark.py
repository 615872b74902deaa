"""nki.benchmark: there is no chip to measure, so that what it reports is modelled.

A call models the kernel, prints what the timing model says, and runs it. Stand-ins for arrays will do, too; the kernel
is then only modelled. Source: nki.benchmark in the public documentation of Beta 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nkilite.dtypes import DType
from nkilite.errors import InvalidOperand, NoBenchmark, describe
from nkilite.profiling.profile import profile
from nkilite.runtime.kernel import Kernel, jit
from nkilite.runtime.options import check_vendor

__all__ = ["Benchmark", "BenchmarkResult", "Latency", "Shaped", "benchmark", "compile_options"]

PERCENTILES = (0, 1, 10, 25, 50, 90, 99, 100)


class Shaped:
    """A tensor argument without values.

    Attributes:
        shape, dtype: its type; dtype is None in an annotation that names none.
    """

    def __init__(self, shape: tuple[object, ...], dtype: DType | None) -> None:
        self.shape, self.dtype = shape, dtype

    def __repr__(self) -> str:
        return f"nt.tensor[{self.shape}{'' if self.dtype is None else f', {self.dtype}'}]"


class Latency(NamedTuple):
    """`benchmark_result.nc_latency`: one modelled number, which every percentile is.

    Attributes:
        modelled_us: microseconds on the NeuronCore.
    """

    modelled_us: float

    def get_latency_percentile(self, percentile: int) -> float:
        """Microseconds, modelled.

        Raises:
            InvalidOperand: a percentile that nki.benchmark does not have.
        """
        if percentile not in PERCENTILES:
            raise InvalidOperand(
                instruction="get_latency_percentile", operand="percentile", found=describe(percentile),
                expected=" or ".join(map(str, PERCENTILES)),
            )
        return self.modelled_us

    def __str__(self) -> str:
        return f"{self.modelled_us:.2f} us (modelled)"


class BenchmarkResult(NamedTuple):
    """What a benchmark found. All of it is modelled."""

    nc_latency: Latency


class Benchmark:
    """A kernel that is modelled, and then run, when it is called."""

    def __init__(
        self, kernel: Kernel[...], compile_options: str = "", found: list[BenchmarkResult] | None = None
    ) -> None:
        """`compile_options` are those of the vendor's compiler, of which ``--disable-dge`` has a meaning here."""
        self.kernel, self._compile_options = kernel, compile_options
        self._found: list[BenchmarkResult] = [] if found is None else found  # shared by the launches on all grids
        functools.update_wrapper(self, kernel.function, updated=())

    def __getitem__(self, grid: object) -> Benchmark:
        return Benchmark(self.kernel[grid], self._compile_options, self._found)

    @property
    def benchmark_result(self) -> BenchmarkResult:
        """What the last call found.

        Raises:
            NoBenchmark: there was none.
        """
        if not self._found:
            raise NoBenchmark(kernel=self.kernel.__name__)
        return self._found[-1]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Model a launch and print its latency; returns what the kernel makes of the arguments, if they have values."""
        found = profile(
            self.kernel, *map(_filled, args), disable_dge="--disable-dge" in self._compile_options.split(),
            **{k: _filled(v) for k, v in kwargs.items()},
        )
        self._found[:] = [BenchmarkResult(Latency(found.latency_us))]
        print(f"{self.kernel.__name__}: latency {found.latency_us:.2f} us on {found.target.name} (modelled)")
        if any(isinstance(a, Shaped) for a in (*args, *kwargs.values())):
            return None
        return self.kernel(*args, **kwargs)


def _filled(argument: Any) -> Any:
    """An array in the place of a stand-in.

    Raises:
        InvalidOperand: a stand-in without a dtype.
    """
    if not isinstance(argument, Shaped):
        return argument
    if argument.dtype is None:
        raise InvalidOperand(
            instruction="nki.benchmark", operand="an argument", found=repr(argument),
            expected="nt.tensor[shape, dtype] or an array",
        )
    return np.zeros(argument.shape, argument.dtype.numpy)


def benchmark(kernel: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A kernel whose latency is modelled when it is called: `@nki.benchmark`, with options, or as a call.

    Options (warmup, iters, save_neff_name, ...) are about runs on a chip and have no meaning here, but for
    `additional_compile_opt` with ``--disable-dge``.

    Raises:
        UnknownKeyword: no release has had such an option.
    """
    check_vendor("nki.benchmark", options)
    if kernel is None:
        return functools.partial(benchmark, **options)
    return Benchmark(jit(kernel), compile_options(options))


def compile_options(options: dict[str, object]) -> str:
    """What `additional_compile_opt` says, if it is there."""
    return str(options.get("additional_compile_opt") or "")
