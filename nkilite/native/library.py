"""Native code of this process: micro-kernels compiled on demand, each distinct one once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from nkilite import forking
from nkilite.host import llvm
from nkilite.host.cpu import Host
from nkilite.native import stack
from nkilite.native.cache import FORMAT, OBJECTS, Store, store
from nkilite.native.log import Log, Record, key_of

_STREAMING_METADATA = "!0 = !{i32 1}\n"


class Source(NamedTuple):
    """LLVM text of a function and the declarations it needs; `quick` if it is to be compiled quickly.

    One without text has the key of its object code, which is loaded or in the disk cache.
    """

    name: str
    text: str
    declarations: tuple[str, ...]
    quick: bool = False
    key: str = ""

    @property
    def quickly(self) -> Source:
        """The same function, under a name of its own, compiled quickly."""
        name = f"{self.name}.quick"
        return Source(name, self.text.replace(f"@{self.name}(", f"@{name}(", 1), self.declarations, True)


# Functions that are compiled together whatever else is.
Unit = tuple[Source, ...]


class Kept(NamedTuple):
    """Functions in the disk cache: a key of the object that has them, and the names of those that are taken from it."""

    key: str
    names: tuple[str, ...]


class Library:
    """Compiles functions for one host level and keeps their addresses.

    The object code of every function is kept on disk, too, by the text it was made of: programs that share a
    micro-kernel share it. What has to be compiled for a request is one module, because LLVM takes a millisecond for
    each, and one record of a log, whose keys stand for all of it and for each *unit*: what is always compiled together,
    mostly one function.
    """

    def __init__(self, host: Host) -> None:
        self._machine = target_machine(host)
        self._quick_machine = target_machine(host, optimized=False)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine(host))
        self.made_by = f"{FORMAT} {llvm.versions()} {self._machine.triple} {host.cpu} {host.features}"
        self._lock = forking.lock()
        self._addresses: dict[str, int] = {}
        self._logs: dict[Store, Log] = {}

    def addresses(self, sources: Iterable[Source], quickly: Collection[str] = ()) -> dict[str, int]:
        """Addresses of functions by name, compiling those that are new.

        Args:
            quickly: the names of functions that are compiled quickly where no good code of them is there.
        """
        wanted = {s.name: s for s in sources}
        with self._lock:
            chosen = self._chosen(wanted.values(), quickly, store())
            found = self._found([(s,) for s in chosen.values()])
            return {name: found[s.name] for name, s in chosen.items()}

    def optimized(self, name: str) -> bool:
        """Whether good code of a function is loaded."""
        return name in self._addresses

    def addresses_together(self, sources: Sequence[Source]) -> dict[str, int]:
        """Addresses of functions that call each other."""
        with self._lock:
            return self._found([tuple(sources)])

    def keep(self, sources: Iterable[Source], store: Store, quickly: Collection[str] = ()) -> list[Kept] | None:
        """Make sure that the object code of functions is in a disk cache; where it is, for `recall`.

        None if some has gone from there, of which there is no text.
        """
        log = self.log(store)
        with self._lock:
            chosen = self._chosen(sources, quickly, store)
        units = {self._key((s,)): s for s in chosen.values()}
        places = log.find(units)
        if any(not s.text for unit, s in units.items() if unit not in places):
            return None
        for missing in _modules((unit, (s,)) for unit, s in units.items() if unit not in places):
            record = stack.with_room(stack.COMPILER, self._made, missing)
            log.add([record])
            places.update(dict.fromkeys(missing, record.keys[0]))
        names: dict[str, list[str]] = {}
        for unit, source in units.items():
            names.setdefault(places[unit], []).append(source.name)
        return [Kept(key, tuple(found)) for key, found in names.items()]

    def recall(self, kept: Iterable[Kept], store: Store) -> bool:
        """Load functions from a disk cache without their text; whether all were there."""
        log = self.log(store)
        with self._lock:
            missing = [(key, tuple(name for name in names if name not in self._addresses)) for key, names in kept]
            missing = [(key, names) for key, names in missing if names]
            found = log.newest([key for key, _ in missing], 1)
            if not all(found.values()):
                return False
            objects = [(found[key][0].content, names) for key, names in missing]
            stack.with_room(stack.COMPILER, self._load, objects)
            return True

    def load(self, sources: Iterable[Source]) -> set[str]:
        """Load functions from the disk cache by their keys; the names of those that are loaded."""
        wanted = {s.name: s for s in sources}
        with self._lock:
            left = {self._key((s,)): (s,) for s in wanted.values() if s.name not in self._addresses}
            disk = store()
            if left and disk is not None:
                stack.with_room(stack.COMPILER, self._take, left, self.log(disk))
            return wanted.keys() & self._addresses.keys()

    def key_of(self, source: Source) -> str:
        """The key of the object code of a function."""
        return self._key((source,))

    def _found(self, units: Sequence[Unit]) -> dict[str, int]:
        """The addresses of the functions of units; called with the lock."""
        new = [unit for unit in units if unit[0].name not in self._addresses]
        if new:
            stack.with_room(stack.COMPILER, self._add, new)
        return {s.name: self._addresses[s.name] for unit in units for s in unit}

    def _chosen(self, sources: Iterable[Source], quickly: Collection[str], disk: Store | None) -> dict[str, Source]:
        """By name, the functions as they are or will be compiled."""
        chosen = {s.name: s for s in sources}
        quick = [s for s in chosen.values() if s.name in quickly and s.name not in self._addresses]
        keys = {s.name: self._key((s,)) for s in quick if s.text}
        good = self.log(disk).find(keys.values()) if disk is not None else {}
        return chosen | {s.name: s.quickly for s in quick if keys.get(s.name) not in good}

    def _add(self, units: Sequence[Unit]) -> None:
        """Load functions from disk, and those that are not there from modules compiled here and put there."""
        disk = store()
        log = None if disk is None else self.log(disk)
        wanted = {self._key(unit): unit for unit in units}
        if log is not None:
            wanted = self._take(wanted, log)
        for missing in _modules(wanted.items()):
            record = self._made(missing)
            if log is not None:
                log.add([record])
            self._load([(record.content, tuple(s.name for unit in missing.values() for s in unit))])

    def _take(self, wanted: dict[str, Unit], log: Log) -> dict[str, Unit]:
        """Load units, by key, that are in a log; those that are not."""
        left = dict(wanted)
        objects = []
        for records in log.newest(list(dict.fromkeys(log.find(wanted).values())), 1).values():
            for found in records:
                units = [left.pop(unit) for unit in found.keys[1:] if unit in left]
                objects.append((found.content, tuple(s.name for unit in units for s in unit)))
        self._load(objects)
        return left

    def log(self, store: Store) -> Log:
        """Where a disk cache keeps what this library compiles."""
        if store not in self._logs:
            self._logs[store] = Log(store, OBJECTS, "code", key_of(self.made_by))
        return self._logs[store]

    def _made(self, units: dict[str, Unit]) -> Record:
        """Units, by key, as they are kept."""
        return Record((key_of(*units), *units), self._compile(units.values()))

    def _compile(self, units: Iterable[Unit]) -> bytes:
        """Units, all compiled quickly or none, as one object."""
        sources = [s for unit in units for s in unit]
        machine = self._quick_machine if sources[0].quick else self._machine
        module = llvm.parse_assembly(module_text(sources))
        module.triple = machine.triple
        result: bytes = machine.emit_object(module)
        return result

    def _load(self, objects: Sequence[tuple[bytes, tuple[str, ...]]]) -> None:
        """Load object code, given with the names of the functions that are wanted of it."""
        if not objects:
            return
        for content, _ in objects:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(content))
        self._engine.finalize_object()
        for _, names in objects:
            for name in names:
                address = self._engine.get_function_address(name)
                assert address, name
                self._addresses[name] = address

    def _key(self, unit: Unit) -> str:
        if len(unit) == 1 and unit[0].key:
            return unit[0].key
        return key_of(f"{self.made_by} {module_text(unit)}")


def _modules(units: Iterable[tuple[str, Unit]]) -> list[dict[str, Unit]]:
    """Units, by key, as they are compiled: those that LLVM optimizes, those that it does not, as far as there are any.

    Each that refers to functions of this process, as operators of the user's are, is by itself: its object code is of
    no use to a process that has not loaded them.
    """
    both: tuple[dict[str, Unit], dict[str, Unit]] = {}, {}
    alone = []
    for key, unit in units:
        if any(" @llvm." not in declaration for s in unit for declaration in s.declarations):
            alone.append({key: unit})
        else:
            both[unit[0].quick][key] = unit
    return [part for part in both if part] + alone


def module_text(sources: Iterable[Source]) -> str:
    """One LLVM module with all the functions."""
    sources = list(sources)
    declarations = sorted({d for s in sources for d in s.declarations})
    return "\n".join([*declarations, *(s.text for s in sources), _STREAMING_METADATA])


def target_machine(host: Host, optimized: bool = True) -> llvm.TargetMachine:
    """LLVM's code generator for a host level."""
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=host.cpu, features=host.features, opt=3 if optimized else 0, jit=True)


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
    result: str = machine.emit_assembly(module)
    return result
