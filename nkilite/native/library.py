"""Native code of this process: micro-kernels compiled on demand, each distinct one once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nkilite.host import llvm
from nkilite.host.cpu import Host
from nkilite.native import stack
from nkilite.native.cache import FORMAT, OBJECTS, Store, store

_STREAMING_METADATA = "!0 = !{i32 1}\n"


class Source(NamedTuple):
    """LLVM text of a function and the declarations it needs."""

    name: str
    text: str
    declarations: tuple[str, ...]


class Library:
    """Compiles functions for one host level and keeps their addresses.

    The object code of every function is kept on disk, too, by the text it was made of: programs that share a
    micro-kernel share it.
    """

    def __init__(self, host: Host) -> None:
        self._machine = target_machine(host)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine(host))
        self._made_by = f"{FORMAT} {llvm.versions()} {self._machine.triple} {host.cpu} {host.features}"
        self._lock = threading.Lock()
        self._addresses: dict[str, int] = {}

    def addresses(self, sources: Iterable[Source]) -> dict[str, int]:
        """Addresses of functions by name, compiling those that are new, each on its own."""
        wanted = {s.name: s for s in sources}
        with self._lock:
            new = [s for name, s in wanted.items() if name not in self._addresses]
            if new:
                stack.with_room(stack.COMPILER, lambda: self._load({(s.name,): self._object(s) for s in new}))
            return {name: self._addresses[name] for name in wanted}

    def addresses_together(self, sources: Sequence[Source]) -> dict[str, int]:
        """Addresses of functions that call each other."""
        names = tuple(s.name for s in sources)
        with self._lock:
            if names[0] not in self._addresses:
                stack.with_room(stack.COMPILER, lambda: self._load({names: self._object(*sources)}))
            return {name: self._addresses[name] for name in names}

    def keep(self, sources: Iterable[Source], store: Store) -> list[tuple[str, str]]:
        """Make sure that the object code of functions is in a disk cache; (name, key) of each, for `recall`."""
        kept = {s.name: self._key(s) for s in sources}
        for source in sources:
            if not store.has(OBJECTS, source.name, kept[source.name]):
                code = stack.with_room(stack.COMPILER, self._compile, [source])
                store.put(OBJECTS, source.name, kept[source.name], code)
        return list(kept.items())

    def recall(self, kept: Iterable[tuple[str, str]], store: Store) -> bool:
        """Load functions from a disk cache without their text; whether all were there."""
        with self._lock:
            objects: dict[tuple[str, ...], bytes] = {}
            for name, key in kept:
                if name not in self._addresses:
                    found = store.get(OBJECTS, name, key)
                    if found is None:
                        return False
                    objects[(name,)] = found
            stack.with_room(stack.COMPILER, self._load, objects)
            return True

    def _object(self, *sources: Source) -> bytes:
        """The object code of functions: from disk, or compiled and put there."""
        disk = store()
        if disk is None:
            return self._compile(sources)
        label, key = sources[0].name, self._key(*sources)
        found = disk.get(OBJECTS, label, key)
        if found is None:
            found = self._compile(sources)
            disk.put(OBJECTS, label, key, found)
        return found

    def _compile(self, sources: Sequence[Source]) -> bytes:
        module = llvm.parse_assembly(module_text(sources))
        module.triple = self._machine.triple
        return self._machine.emit_object(module)

    def _load(self, objects: Mapping[tuple[str, ...], bytes]) -> None:
        """Load object code, given with the names of the functions in it."""
        if not objects:
            return
        for content in objects.values():
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(content))
        self._engine.finalize_object()
        for names in objects:
            for name in names:
                self._addresses[name] = self._engine.get_function_address(name)

    def _key(self, *sources: Source) -> str:
        return hashlib.blake2b(f"{self._made_by} {module_text(sources)}".encode(), digest_size=20).hexdigest()


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
    if found is None:  # threads may make one each: all of them use the first
        found = _libraries.setdefault(host.level, stack.with_room(stack.COMPILER, Library, host))
    return found


def assembly(sources: Iterable[Source], host: Host) -> str:
    """The host's assembly for functions."""
    module = llvm.parse_assembly(module_text(sources))
    machine = target_machine(host)
    module.triple = machine.triple
    return machine.emit_assembly(module)
