"""nki.compiler.frontend: kernels as text, for programs that look at what a front end makes of them.

`ParserFrontend().compile(kernel, inputs=..., target="trn2", lnc=2)` traces, as a call of the kernel would; the result
prints the program of every core. Source: how nki-library's test harness uses the module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from nkilite import knobs
from nkilite.ir.printer import print_program
from nkilite.ir.program import Program
from nkilite.machine.target import get_target
from nkilite.runtime.kernel import Kernel, jit

__all__ = ["NKIFrontend", "ParserFrontend", "TracerFrontend"]


class Module:
    """What a front end made of a kernel: a program per core, printed by `module.operation.print()`."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = list(programs)

    @property
    def operation(self) -> Module:
        return self

    def print(self, file: TextIO | None = None, **options: object) -> None:
        """Write the text form; options of the vendor's printer are accepted and have no meaning."""
        print(self, file=sys.stdout if file is None else file)

    def __str__(self) -> str:
        return "\n".join(map(print_program, self.programs))


class Traced:
    """A kernel that has been traced.

    Attributes:
        module: its programs.
    """

    def __init__(self, module: Module) -> None:
        self.module = module


class NKIFrontend:
    """Traces kernels."""

    def compile(
        self,
        kernel: Callable[..., object],
        inputs: Mapping[str, object],
        target: str,
        lnc: int = 1,
        artifacts_dir: str | None = None,
        dump_python_ast: bool = False,
        output_names: Sequence[str] | None = None,
    ) -> Traced:
        """The programs of a kernel.

        Args:
            kernel: an `@nki.jit` kernel or a plain function.
            inputs: its arguments by name.
            target: the chip.
            lnc: cores of the launch.
            artifacts_dir, dump_python_ast, output_names: accepted; nothing is written.

        Raises:
            UnknownTarget: no such chip.
            NkiError: what tracing the kernel raises.
        """
        found = kernel if isinstance(kernel, Kernel) else jit(kernel)
        with knobs.overridden_target(get_target(target).name):
            return Traced(Module(found[lnc].programs(**inputs)))


class ParserFrontend(NKIFrontend):
    """The name that parses Python in the vendor's releases; here it traces."""


class TracerFrontend(NKIFrontend):
    """The name that traces in the vendor's releases."""
