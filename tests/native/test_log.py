"""Records that processes append to one file: found by any key, each whole or not there."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from nkilite.native import log
from nkilite.native.cache import OBJECTS, CacheWarning, Store
from nkilite.native.log import Log, Record

A, B, C = ("0a" * 20, "0b" * 20, "0c" * 20)


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "cache"))


def got(log: Log, key: str) -> Record | None:
    """The newest record with a key."""
    return next(iter(log.newest([key], 1)[key]), None)


def opened(disk: Store, name: str = "ff" * 20) -> Log:
    """As another process has it."""
    return Log(disk, OBJECTS, "code", name)


def path(disk: Store, name: str = "ff" * 20) -> Path:
    return Path(disk.path(OBJECTS, "code", name))


def contents(disk: Store, *keys: str) -> list[bytes | None]:
    found = opened(disk)
    return [record and record.content for record in (got(found, key) for key in keys)]


@pytest.fixture
def three(disk) -> bytes:
    """What a file with three records holds."""
    opened(disk).add([Record((A, B), b"one"), Record((C,), b"two")])
    opened(disk).add([Record((B,), b"three")])
    return path(disk).read_bytes()


def test_records_are_found_by_any_key_the_newest_first(disk, three) -> None:
    assert contents(disk, A, B, C, "00" * 20) == [b"one", b"three", b"two", None]
    found = opened(disk)
    assert [r.content for r in found.newest([B], 5)[B]] == [b"three", b"one"]
    assert got(found, A).keys == (A, B)
    assert found.find([C, A, "00" * 20]) == {C: C, A: A}


def test_what_others_append_is_seen(disk) -> None:
    one, other = opened(disk), opened(disk)
    one.add([Record((A,), b"a")])
    assert other.find([A])
    other.add([Record((B,), b"b")])
    assert got(one, B).content == b"b"
    one.add([Record((C,), b"c")])
    assert contents(disk, A, B, C) == [b"a", b"b", b"c"]


def test_another_file_in_its_place_is_noticed(disk, three) -> None:
    found = opened(disk)
    assert got(found, A)
    path(disk).unlink()
    assert got(found, A) is None
    opened(disk).add([Record((C,), b"new")])
    assert (got(found, A), got(found, C).content) == (None, b"new")


def test_another_file_with_the_same_inode_is_noticed(disk) -> None:
    opened(disk).add([Record((A,), b"old")])
    found = opened(disk)
    assert got(found, A)
    path(disk).write_bytes(b"")
    opened(disk).add([Record((B,), b"new")])
    with pytest.warns(CacheWarning, match="damaged"):
        assert got(found, A) is None
    assert got(found, B).content == b"new"


def asked_and_added(disk: Store) -> Record | None:
    found = got(opened(disk), A)
    opened(disk).add([Record((A,), b"again")])
    return found


@pytest.mark.parametrize("at", [*range(0, 36, 3), 77])
def test_every_record_but_a_damaged_one_survives(disk, three, at) -> None:
    """Whichever byte of the first record is another one, its length included."""
    path(disk).write_bytes(three[:at] + bytes([three[at] ^ 1]) + three[at + 1 :])
    with pytest.warns(CacheWarning, match="damaged"):
        assert asked_and_added(disk) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert contents(disk, A, B, C) == [b"again", b"three", b"two"]


@pytest.mark.parametrize("left", [5, 40, -1])
def test_what_a_process_left_half_written_does_not_hide_what_follows_for_long(disk, three, left) -> None:
    path(disk).write_bytes(three[:left])
    opened(disk).add([Record((A,), bytes(1000))])
    with pytest.warns(CacheWarning, match="damaged"):
        opened(disk).add([Record((B,), b"b")])
    assert contents(disk, A, B) == [bytes(1000), b"b"]


def test_a_log_under_another_name_is_not_used(disk, three) -> None:
    other = "ee" * 20
    opened(disk, other).add([Record((A,), b"other")])
    path(disk, other).write_bytes(three)
    with pytest.warns(CacheWarning, match="damaged"):
        assert got(opened(disk, other), A) is None


def test_the_oldest_go_when_it_is_long(disk, monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_CACHE_SIZE", "40K")
    keys = [f"{i:040x}" for i in range(20)]
    for key in keys:
        opened(disk).add([Record((key,), bytes(1000))])
        assert path(disk).stat().st_size <= 40 * 1024 / log._OF_THE_CACHE
    kept = [content is not None for content in contents(disk, *keys)]
    assert kept == sorted(kept) and 3 <= sum(kept) < 20


def test_a_file_is_closed_when_it_is_replaced(disk, three, monkeypatch) -> None:
    """Windows refuses otherwise."""
    files, closed, open_, replace = [], [], disk.open, disk.replace

    def keeps(*arguments, **named):
        files.append(open_(*arguments, **named))
        return files[-1]

    def looks(*arguments):
        closed.append([file.closed for file in files])
        replace(*arguments)

    monkeypatch.setattr(disk, "open", keeps)
    monkeypatch.setattr(disk, "replace", looks)
    path(disk).write_bytes(three[: len(three) - 1] + b"?")
    with pytest.warns(CacheWarning):
        assert contents(disk, B) == [None]
    assert closed == [[True]]


def test_processes_that_append_at_once_lose_nothing(disk) -> None:
    program = """
import sys
from nkilite.native.cache import OBJECTS, Store
from nkilite.native.log import Log, Record
log = Log(Store(sys.argv[1]), OBJECTS, "code", "ff" * 20)
for i in range(100):
    log.add([Record((f"{int(sys.argv[2]):020x}{i:020x}",), bytes([i]) * (37 * i))])
"""
    Log(disk, OBJECTS, "code", "ff" * 20).add([Record((A,), b"")])  # the folders are there
    started = [subprocess.Popen([sys.executable, "-c", program, disk.directory, str(n)]) for n in range(3)]
    assert [process.wait() for process in started] == [0] * 3
    found = opened(disk)
    for n in range(3):
        for i in range(100):
            record = got(found, f"{n:020x}{i:020x}")
            assert record is not None and record.content == bytes([i]) * (37 * i)
