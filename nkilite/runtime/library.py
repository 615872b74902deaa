"""Native code of this process: micro-kernels compiled on demand, each distinct one once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

import llvmlite.binding as llvm

from nkilite.codegen.host import Host

_STREAMING_METADATA = "!0 = !{i32 1}\n"


class Source(NamedTuple):
    """LLVM text of a function and the declarations it needs."""

    name: str
    text: str
    declarations: tuple[str, ...]


class Library:
    """Compiles functions for one host level and keeps their addresses."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._lock = threading.Lock()
        self._addresses: dict[str, int] = {}
        self._engines: list[llvm.ExecutionEngine] = []
        self._machine = target_machine(host)

    def addresses(self, sources: Iterable[Source]) -> dict[str, int]:
        """Addresses of functions by name, compiling those that are new in one module."""
        wanted = {s.name: s for s in sources}
        with self._lock:
            missing = [s for name, s in wanted.items() if name not in self._addresses]
            if missing:
                self._compile(missing)
            return {name: self._addresses[name] for name in wanted}

    def _compile(self, sources: list[Source]) -> None:
        module = llvm.parse_assembly(module_text(sources))
        module.triple = self._machine.triple
        engine = llvm.create_mcjit_compiler(module, target_machine(self.host))
        engine.finalize_object()
        self._engines.append(engine)
        for source in sources:
            self._addresses[source.name] = engine.get_function_address(source.name)


def module_text(sources: Iterable[Source]) -> str:
    """One LLVM module with all the functions."""
    sources = list(sources)
    declarations = sorted({d for s in sources for d in s.declarations})
    return "\n".join([*declarations, *(s.text for s in sources), _STREAMING_METADATA])


def target_machine(host: Host) -> llvm.TargetMachine:
    """LLVM's code generator for a host level."""
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=host.cpu, features=host.features, opt=3, jit=True)


_libraries: dict[str, Library] = {}


def library(host: Host) -> Library:
    """The process-wide library of a host level."""
    found = _libraries.get(host.level)
    if found is None:
        found = _libraries[host.level] = Library(host)
    return found


def assembly(sources: Iterable[Source], host: Host) -> str:
    """The host's assembly for functions."""
    module = llvm.parse_assembly(module_text(sources))
    machine = target_machine(host)
    module.triple = machine.triple
    return machine.emit_assembly(module)
