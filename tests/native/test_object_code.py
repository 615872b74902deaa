"""Object code on disk: what is compiled at once is one record, of which later programs take what they need."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path

import pytest

from nkilite.host.cpu import host
from nkilite.native.cache import OBJECTS, Store
from nkilite.native.cache import store as current
from nkilite.native.library import Library, Source, Unit


def source(number: int) -> Source:
    text = f"define i64 @f{number}(i64 %x) {{\n  %y = add i64 %x, {number}\n  ret i64 %y\n}}\n"
    return Source(f"f{number}", text, ())


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NKILITE_CACHE", "1")
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path / "cache"))
    found = current()
    assert found is not None
    return found


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of what is compiled, module by module."""
    modules: list[list[str]] = []
    original = Library._compile

    def compile(self: Library, units: Iterable[Unit]) -> bytes:
        units = list(units)
        modules.append([s.name for unit in units for s in unit])
        return original(self, units)

    monkeypatch.setattr(Library, "_compile", compile)
    return modules


def run(addresses: dict[str, int]) -> dict[str, int]:
    return {name: ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(a)(1000) - 1000 for name, a in addresses.items()}


def the_file(disk: Store) -> Path:
    (found,) = (Path(e.path) for e in disk.entries() if e.shelf == OBJECTS)
    return found


def test_one_module_and_one_record_for_all_that_is_new(disk, compiled) -> None:
    library = Library(host())
    assert run(library.addresses([source(1), source(2)])) == {"f1": 1, "f2": 2}
    assert run(library.addresses([source(2), source(3), source(4)])) == {"f2": 2, "f3": 3, "f4": 4}
    assert compiled == [["f1", "f2"], ["f3", "f4"]]
    assert the_file(disk).read_bytes().count(b"nkrecord") == 2


def test_another_process_takes_functions_from_several_records(disk, compiled) -> None:
    first = Library(host())
    first.addresses([source(1), source(2)])
    first.addresses([source(3)])
    compiled.clear()
    assert run(Library(host()).addresses([source(3), source(2)])) == {"f3": 3, "f2": 2}
    assert not compiled
    assert run(Library(host()).addresses([source(i) for i in range(1, 6)])) == {f"f{i}": i for i in range(1, 6)}
    assert compiled == [["f4", "f5"]]


def test_processes_that_do_not_know_of_each_other(disk, compiled) -> None:
    one, other = Library(host()), Library(host())
    one.addresses([source(1)])
    other.addresses([source(2)])
    one.addresses([source(3)])
    compiled.clear()
    assert run(Library(host()).addresses([source(1), source(2), source(3)])) == {"f1": 1, "f2": 2, "f3": 3}
    assert not compiled


def test_kept_functions_are_recalled_without_text(disk, compiled) -> None:
    library = Library(host())
    library.addresses([source(1), source(2), source(3)])
    kept = library.keep([source(1), source(3), source(4)], disk)
    assert compiled == [["f1", "f2", "f3"], ["f4"]]
    other = Library(host())
    assert other.recall(kept, disk)
    assert run({name: other._addresses[name] for name in ("f1", "f3", "f4")}) == {"f1": 1, "f3": 3, "f4": 4}
    the_file(disk).unlink()
    assert not Library(host()).recall(kept, disk)
    assert library.keep([source(1), source(3)], disk)
    assert compiled[2:] == [["f1", "f3"]]


def test_functions_that_have_gone_are_compiled_again(disk, compiled) -> None:
    Library(host()).addresses([source(1)])
    the_file(disk).unlink()
    assert run(Library(host()).addresses([source(1)])) == {"f1": 1}
    assert compiled == [["f1"]] * 2


def test_a_signal_handler_may_need_functions_while_others_are_compiled(disk, monkeypatch) -> None:
    library, original, seen = Library(host()), Library._compile, []

    def interrupted(self: Library, units: Iterable[Unit]) -> bytes:
        if not seen:
            seen.append(0)
            seen[0] = run(library.addresses([source(1)]))
        return original(self, units)

    monkeypatch.setattr(Library, "_compile", interrupted)
    assert run(library.addresses([source(2)])) == {"f2": 2}
    assert seen == [{"f1": 1}]
