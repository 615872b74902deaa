"""Object code on disk: what is compiled at once is one entry, of which later programs take what they need."""

from __future__ import annotations

import ctypes
import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest

from nkilite.host.cpu import host
from nkilite.native import packs
from nkilite.native.cache import OBJECTS, CacheWarning, Store
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


def entries(disk: Store, label: str) -> list[Path]:
    return [Path(e.path) for e in disk.entries() if e.shelf == OBJECTS and e.label == label]


def test_one_module_and_one_entry_for_all_that_is_new(disk, compiled) -> None:
    library = Library(host())
    assert run(library.addresses([source(1), source(2)])) == {"f1": 1, "f2": 2}
    assert run(library.addresses([source(2), source(3), source(4)])) == {"f2": 2, "f3": 3, "f4": 4}
    assert compiled == [["f1", "f2"], ["f3", "f4"]]
    assert len(entries(disk, "pack")) == 2


def test_another_process_takes_functions_from_several_packs(disk, compiled) -> None:
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


def test_kept_functions_are_recalled_without_text_and_without_the_index(disk, compiled) -> None:
    library = Library(host())
    library.addresses([source(1), source(2), source(3)])
    kept = library.keep([source(1), source(3), source(4)], disk)
    assert compiled == [["f1", "f2", "f3"], ["f4"]]
    for path in entries(disk, "index"):
        path.unlink()
    other = Library(host())
    assert other.recall(kept, disk)
    assert run({name: other._addresses[name] for name in ("f1", "f3", "f4")}) == {"f1": 1, "f3": 3, "f4": 4}
    for path in entries(disk, "pack"):
        path.unlink()
    assert not Library(host()).recall(kept, disk)


def test_without_the_index_functions_are_compiled_again(disk, compiled) -> None:
    Library(host()).addresses([source(1)])
    for path in entries(disk, "index"):
        path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(Library(host()).addresses([source(1)])) == {"f1": 1}
    assert compiled == [["f1"]] * 2


def test_a_damaged_index_is_made_anew(disk, compiled) -> None:
    Library(host()).addresses([source(1)])
    for path in entries(disk, "index"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(CacheWarning, match="damaged"):
        assert run(Library(host()).addresses([source(1)])) == {"f1": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(Library(host()).addresses([source(1)])) == {"f1": 1}
    assert compiled == [["f1"]]  # packs say what is in them


def test_damage_does_not_change_what_is_compiled_together(disk, compiled) -> None:
    Library(host()).addresses([source(1), source(2)])
    Library(host()).addresses([source(3)])
    files = sorted([*entries(disk, "index"), *entries(disk, "pack")])
    for one, other in itertools.combinations(files, 2):
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
        library = Library(host())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert run(library.addresses([source(1), source(2)])) == {"f1": 1, "f2": 2}
            assert run(library.addresses([source(3)])) == {"f3": 3}
        assert said and all(w.category is CacheWarning for w in said)
        assert sorted([*entries(disk, "index"), *entries(disk, "pack")]) == files


def test_a_pack_that_holds_something_else_is_not_used(disk, compiled) -> None:
    """As an index would lead to that somebody has put together wrongly."""
    library = Library(host())
    library.addresses([source(1)])
    library.addresses([source(2)])
    found = library._packs_of(disk)
    keys = list(found._places)
    swapped = dict(zip(keys, reversed(list(found._places.values())), strict=True))
    content = b"".join(map(bytes.fromhex, (*swapped, *swapped.values())))
    disk.put(OBJECTS, "index", found._index, content)
    assert run(Library(host()).addresses([source(1), source(2)])) == {"f1": 1, "f2": 2}
    assert compiled == [["f1"], ["f2"], ["f1", "f2"]]


def test_the_index_is_bounded(disk, compiled, monkeypatch) -> None:
    monkeypatch.setattr(packs, "_UNITS_AT_MOST", 2)
    library = Library(host())
    for i in range(4):
        library.addresses([source(i)])
    compiled.clear()
    assert run(Library(host()).addresses([source(2), source(3)])) == {"f2": 2, "f3": 3}
    assert not compiled
    Library(host()).addresses([source(1)])
    assert compiled == [["f1"]]
