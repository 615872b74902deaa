"""A kernel lowered for the arguments of a call, as data that another process runs without the function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nkilite.dtypes import as_dtype
from nkilite.errors import ArgumentError
from nkilite.host.cpu import host
from nkilite.native.compile import image_for
from nkilite.native.cores import launchable
from nkilite.native.encoding import NotData, decode, encode
from nkilite.native.executable import Executable
from nkilite.runtime.binding import Arguments
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.dynamic import parts
from nkilite.runtime.recycler import new_array
from nkilite.runtime.results import Result, results_of
from nkilite.runtime.specialization import Launcher
from nkilite.runtime.tracing import trace

if TYPE_CHECKING:
    from nkilite.runtime.kernel import Kernel


class TooLarge(ArgumentError, ValueError):
    template = "the program of kernel {kernel!r} is too large for another process: {problem}."
    remedy = "write the kernel at the top level of a module, which the other process then imports."


class OtherCpu(ArgumentError, RuntimeError):
    template = "kernel {kernel!r} was lowered for the CPU level {found}, and this process runs {level}."
    remedy = "set NKILITE_CPU alike in both processes."


class Portable(NamedTuple):
    """What `Kernel.portable` makes. It can be pickled; `content` is plain data, and reading it runs nothing.

    Attributes:
        kernel: its name.
        level: the CPU level it is for.
        content: the images of its cores.
        results: the tensors that the kernel returns, in order, out of their containers.
    """

    kernel: str
    level: str
    content: bytes
    results: tuple[Result, ...]

    def launcher(self, arrays: Sequence[np.ndarray]) -> Launcher:
        """Compile, for the arrays of the call (`Kernel.memory`), or others like them.

        Its `run` returns a tuple of the results.

        Raises:
            OtherCpu: this process is for another CPU level.
        """
        level = host()
        if level.level != self.level:
            raise OtherCpu(kernel=self.kernel, found=self.level, level=level.level)
        executable = launchable([Executable(image, level) for image in decode(self.content)])
        new = [new_array(o.shape, as_dtype(o.dtype).numpy) for o in executable.image.outputs]
        return Launcher(executable, self.results, arrays, [*arrays, *new])


def portable(kernel: Kernel[...], arguments: Arguments) -> Portable:
    """Lower a kernel for the arguments of a call.

    Raises:
        TooLarge: its tables and constants are.
    """
    programs, returned = trace(kernel, arguments)
    results: list[Result] = []

    def leaf(value: object, _: str) -> object:
        if isinstance(value, Result):
            results.append(value)
        return value

    map_leaves(parts(results_of(returned[0], programs[0]), arguments.size_list), leaf, records=False)
    level = host()
    try:
        content = encode(tuple(image_for(program, level) for program in programs))
    except NotData as problem:
        raise TooLarge(kernel=kernel.__name__, problem=problem) from None
    return Portable(kernel.__name__, level.level, content, tuple(results))
