"""The disk cache: hits run without tracing and do what a fresh compilation does, misses are what they should be."""

from __future__ import annotations

import enum
import functools
import importlib.util
import itertools
import os
import pickle
import subprocess
import sys
import textwrap
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.__main__ import app
from nkilite.errors import IndirectOutOfBounds, InvalidSetting, NonContiguousArgument
from nkilite.native import cache
from nkilite.native.cache import KERNELS, OBJECTS, CacheWarning, Store
from nkilite.runtime import identity, specialization

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
X = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch) -> Store:
    monkeypatch.setenv("NKILITE_CACHE", "1")
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("NKILITE_VERIFY", raising=False)
    monkeypatch.setattr(identity, "_MARGIN", -(10**18))  # somebody may be editing nkilite while this runs
    identity.sources.cache_clear()
    yield cache.store()
    identity.sources.cache_clear()


@pytest.fixture
def traced(monkeypatch) -> list[str]:
    """The names of kernels that are traced."""
    names: list[str] = []
    original = specialization.trace

    def trace(kernel, arguments):
        names.append(kernel.__name__)
        return original(kernel, arguments)

    monkeypatch.setattr(specialization, "trace", trace)
    return names


def copied(x):
    tile = nl.load(x)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def count(disk: Store, shelf: str) -> int:
    return sum(e.shelf == shelf for e in disk.entries())


def files(disk: Store, shelf: str) -> list[Path]:
    return [Path(e.path) for e in disk.entries() if e.shelf == shelf]


# --- hits ---------------------------------------------------------------------------------------------------------


def test_a_hit_runs_without_tracing(disk, traced) -> None:
    kernel = nki.jit(copied)
    for _ in range(3):
        np.testing.assert_array_equal(kernel(X), X)
        kernel.forget()
    assert traced == ["copied"]
    assert kernel(X[:8]).shape == (8, 32)
    assert kernel(X.astype(np.int32)).dtype == np.int32
    assert traced == ["copied"] * 3
    assert count(disk, KERNELS) == 3


def test_the_compiler_is_still_there_after_a_hit(disk, traced) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    kernel.forget()
    compiled = kernel.compile(X)
    assert len(traced) == 2
    assert compiled.program.count
    assert all(s.text for s in compiled.lowered.sources)
    assert set(compiled.seconds) >= {"trace", "passes"}


def test_a_gallery_in_a_fresh_process_is_bit_equal(disk, tmp_path) -> None:
    script = """
        import importlib, sys
        import numpy as np
        from kernels import GALLERY
        from nkilite.runtime import identity, specialization
        identity._MARGIN = -10**18
        warm = sys.argv[2] == "warm"
        if warm:
            def trace(kernel, arguments):
                raise AssertionError(f"{kernel.__name__} is traced")
            specialization.trace = trace
        found = {}
        for name in GALLERY:
            module = importlib.import_module(f"kernels.{name}")
            case = module.CASES[0]
            arrays = module.inputs(dtype=case.dtype, seed=1, **case.shape)
            results = getattr(module, name)(*arrays, **case.options)
            for i, result in enumerate(results if isinstance(results, (tuple, list)) else [results]):
                found[f"{name}-{i}"] = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
        np.savez(sys.argv[1], **found)
    """
    results = []
    for run in ("cold", "warm"):
        path = tmp_path / f"{run}.npz"
        arguments = [sys.executable, "-c", textwrap.dedent(script), path, run]
        subprocess.run(arguments, env=os.environ | ENVIRONMENT, check=True)
        results.append(np.load(path))
    cold, warm = results
    assert cold.files == warm.files
    for name in cold.files:
        np.testing.assert_array_equal(cold[name], warm[name], err_msg=name)


def test_errors_of_a_hit_say_the_same(disk, traced) -> None:
    @nki.jit
    def gather(x, indices):
        index = nl.load(indices)
        out = nl.ndarray((8, 32), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((8, 32), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x.ap([[32, 8], [1, 32]], 0, vector_offset=index, indirect_dim=0))
        nisa.dma_copy(dst=out, src=tile)
        return out

    good, bad = np.arange(8, dtype=np.int32)[:, None], np.full((8, 1), 64, np.int32)
    messages = []
    for _ in range(2):
        np.testing.assert_array_equal(gather(X, good), X[:8])
        with pytest.raises(IndirectOutOfBounds) as error:
            gather(X, bad)
        messages.append(str(error.value))
        gather.forget()
    assert traced == ["gather"]
    assert messages[0] == messages[1]
    assert "x.ap(" in messages[0]


def test_refused_arguments_and_prints_of_a_hit(disk, traced, capsys) -> None:
    @nki.jit
    def kernel(x, y):
        tile = nl.load(x)
        nl.device_print("tile", tile)
        nisa.dma_copy(dst=y, src=tile)  # writes y

    printed, y = [], np.zeros((4, 2), np.float32)
    for _ in range(2):
        kernel(X[:4, :2].copy(), y)
        printed.append(capsys.readouterr().out)
        with pytest.raises(NonContiguousArgument) as error:
            kernel(X[:4, :2].copy(), np.zeros((2, 4), np.float32).T)
        assert error.value.location.source.endswith("# writes y")
        kernel.forget()
    assert traced == ["kernel"]
    assert printed[0] == printed[1]
    assert "tile [[" in printed[0]


def test_warnings_are_given_again(disk, traced) -> None:
    @nki.jit
    def kernel(x):
        tile = nl.ndarray((64, 32), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[0:8], src=x[0:8])
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    seen = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            kernel(X)
        seen.append([(w.category, str(w.message), w.lineno) for w in found])
        kernel.forget()
    assert traced == ["kernel"]
    assert seen[0] == seen[1]
    assert "never written" in seen[0][0][1]


def test_constants_registers_and_loops_survive(disk, traced) -> None:
    table = np.arange(32, dtype=np.float32)[None, :].repeat(64, 0)

    @nki.jit
    def kernel(x):
        tile, total = nl.load(x), nl.zeros((64, 1), nl.float32)
        extra = nl.load(nl.shared_constant(table))

        def body(i):
            nisa.tensor_tensor(tile, tile, extra, nl.add)

        nl.fori_loop(0, 3, body)
        nisa.activation(tile, nl.copy, tile, reduce_op=nl.add, reduce_res=total, reduce_cmd=nisa.reduce_cmd.reduce)
        out = nl.ndarray((64, 1), nl.float32, nl.shared_hbm)
        nisa.dma_copy(out, total)
        return out

    for _ in range(3):
        np.testing.assert_allclose(kernel(X), (X + 3 * table).sum(axis=1, keepdims=True))
        kernel.forget()
    assert traced == ["kernel"]


def test_programs_share_micro_kernels(disk) -> None:
    @nki.jit
    def twice(x):
        return copied(x), copied(x)

    nki.jit(copied)(X)
    before = count(disk, OBJECTS)
    twice(X)
    assert count(disk, OBJECTS) == before
    assert count(disk, KERNELS) == 2


# --- what belongs to the identity ---------------------------------------------------------------------------------


class Mode(enum.Enum):
    first = 1
    last = 2


@dataclass
class Config:
    width: int
    mode: Mode = Mode.first

    def half(self) -> int:
        return self.width // 2


MODULE = '''
    import enum
    from dataclasses import dataclass
    import numpy as np
    import nkilite as nki
    import nkilite.language as nl
    import helpers

    SIZE = 128
    TABLE = np.arange(3)

    class Mode(enum.Enum):
        first = 1

    @dataclass
    class Config:
        width: int = 4

        def half(self):
            return self.width // 2

    CONFIG = Config()

    def helper(n, scale=2):
        return n + SIZE * scale

    @nki.jit
    def kernel(x):
        value = helper(CONFIG.half()) + TABLE[0] + Mode.first.value + helpers.deep.more()
        return nl.load(x)
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("", "", True),
        ("SIZE = 128", "SIZE = 64", False),
        ("SIZE * scale", "SIZE + scale", False),
        ("scale=2", "scale=3", False),
        ("arange(3)", "arange(4)", False),
        ("first = 1", "first = 2", False),
        ("width: int = 4", "width: int = 6", False),
        ("self.width // 2", "self.width // 4", False),
        ("Config()", "Config(8)", False),
        ("return nl.load(x)", "\n    return nl.load(x)", False),
        ("return 5", "return 6", False),
        ("UNUSED = 1", "UNUSED = 2", True),
    ],
)
def test_identity_follows_code_and_values(tmp_path, monkeypatch, old: str, new: str, same: bool) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files of one size and second would share it

    def load(change: bool) -> str:
        edit = (lambda text: text.replace(old, new)) if old and change else (lambda text: text)
        modules = {
            "deep": "def more():\n    return 5\n", "helpers": "import deep\nUNUSED = 1\n", "kernels_of_test": MODULE,
        }
        for name, text in modules.items():
            path = tmp_path / f"{name}.py"
            path.write_text(edit(textwrap.dedent(text)))
            spec = importlib.util.spec_from_file_location(name, path)
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        return identity.digest([module.kernel])

    assert (load(False) == load(True)) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, True, False),
        (0.0, -0.0, False),
        (float("nan"), float("nan"), True),
        ("1", 1, False),
        ((1, 2), [1, 2], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, False),
        ({"x", "y", "z"}, {"z", "y", "x"}, True),
        (Mode.first, Mode.last, False),
        (Config(1), Config(1), True),
        (Config(1), Config(2), False),
        (nl.float32, nl.bfloat16, False),
        (nl.add, nl.add, True),
        (nl.add, nl.multiply, False),
        (np.float32(1), np.float64(1), False),
        (np.dtype("f4"), np.dtype("f8"), False),
        (slice(1, 2), slice(1, 3), False),
        (functools.partial(max, 1), functools.partial(max, 2), False),
        (lambda x: x, lambda x: -x, False),
        (Config(4).half, Config(6).half, False),
        (np.zeros(3), np.zeros(4), False),
        (nisa.reduce_cmd.idle, nisa.reduce_cmd.reset, False),
    ],
)
def test_identity_of_values(one, other, same) -> None:
    assert (identity.digest([one]) == identity.digest([other])) is same


def tagged(tag, function):
    function.tag = tag
    return function


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (functools.lru_cache(lambda: 1), functools.lru_cache(lambda: 2), False),
        (functools.wraps(len)(lambda: 1), functools.wraps(len)(lambda: 2), False),
        (tagged(1, lambda: 1), tagged(2, lambda: 1), False),
    ],
)
def test_identity_looks_into_decorators(one, other, same) -> None:
    assert _told_apart(one, other) is not same


def _told_apart(one, other) -> bool:
    """By their digests; what has none is told apart, too."""
    try:
        return identity.digest([one]) != identity.digest([other])
    except identity.NoIdentity:
        return one is not other


COUNTER = itertools.count()
CLOCK = 0
BOX = SimpleNamespace(rows=8)


def reads_a_file(x):
    with open(__file__):
        return copied(x)


def reads_the_environment(x):
    return copied(x[: int(os.environ.get("ROWS", "64"))])


def prints(x):
    print("traced")
    return copied(x)


def draws(x):
    return copied(x[: np.random.randint(8, 9)])


def counts(x):
    return copied(x[: 8 + next(COUNTER)])


def uses_an_object(x):
    return copied(x[: BOX.rows])


@pytest.mark.parametrize("function", [reads_a_file, reads_the_environment, prints, draws, counts, uses_an_object])
def test_what_reaches_outside_is_traced_in_every_process(disk, traced, function) -> None:
    kernel = nki.jit(function)
    for _ in range(2):
        kernel(X)
        kernel.forget()
    assert len(traced) == 2
    assert not count(disk, KERNELS)


def test_a_trace_that_changes_what_it_reads_is_not_kept(disk, traced) -> None:
    seen: list[int] = []

    @nki.jit
    def appends(x):
        seen.append(1)
        return copied(x)

    @nki.jit
    def rebinds(x):
        global CLOCK
        CLOCK += 1
        return copied(x)

    for kernel in (appends, rebinds):
        for _ in range(2):
            kernel(X)
            kernel.forget()
    assert len(seen) == CLOCK == 2
    assert not count(disk, KERNELS)


def test_failing_kernels_are_not_kept(disk) -> None:
    @nki.jit
    def fails(x):
        copied(x)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fails(X)
    assert not count(disk, KERNELS)


def test_settings_that_change_code_are_part_of_the_key(disk, traced, monkeypatch) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    for name, value in (("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1"), ("NKILITE_CPU", "vector128"), ("NKILITE_X", "1")):
        monkeypatch.setenv(name, value)
        kernel.forget()
        kernel(X)
    assert len(traced) == 4
    monkeypatch.setenv("NKILITE_NUM_THREADS", "1")
    kernel.forget()
    kernel(X)
    assert len(traced) == 4
    monkeypatch.setenv("NKILITE_VERIFY", "1")
    kernel.forget()
    kernel(X)
    assert len(traced) == 5


# --- the files ----------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"something else"),
    ],
)
def test_damaged_entries_are_made_anew(disk, traced, damage) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    for path in files(disk, KERNELS):
        damage(path)
    kernel.forget()
    with pytest.warns(CacheWarning, match="damaged"):
        np.testing.assert_array_equal(kernel(X), X)
    kernel.forget()
    np.testing.assert_array_equal(kernel(X), X)
    assert len(traced) == 2


def test_entries_of_no_use_are_made_anew(disk, traced) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    (entry,) = files(disk, KERNELS)
    label, _, key = entry.name.rpartition("-")
    disk.put(KERNELS, label, key, zlib.compress(pickle.dumps(3)))
    kernel.forget()
    with pytest.warns(CacheWarning, match="damaged"):
        np.testing.assert_array_equal(kernel(X), X)
    assert len(traced) == 2


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_damaged_or_missing_object_code(disk, tmp_path, damage) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, nkilite as nki, nkilite.language as nl\n"
        "from nkilite.runtime import identity\n"
        "identity._MARGIN = -10**18\n"
        "@nki.jit\n"
        "def kernel(x):\n"
        "    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)\n"
        "    nl.store(out, nl.exp(nl.load(x)))\n"
        "    return out\n"
        "x = np.ones((8, 8), np.float32)\n"
        "np.testing.assert_allclose(kernel(x), np.exp(x), rtol=1e-6)\n"
    )

    def run() -> str:
        environment = os.environ | ENVIRONMENT
        done = subprocess.run([sys.executable, script], env=environment, stderr=subprocess.PIPE, check=True)
        return done.stderr.decode()

    assert not run()
    for path in files(disk, OBJECTS):
        damage(path)
    assert ("damaged" in run()) is (damage is flip)
    assert not run()


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_CACHE", "1")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    kernel = nki.jit(copied)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(kernel(X), X)
        np.testing.assert_array_equal(kernel(X[:8]), X[:8])
    assert len([w for w in found if w.category is CacheWarning]) == 1


def test_switched_off(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_CACHE", "0")
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path))
    nki.jit(copied)(X)
    assert not list(tmp_path.iterdir())


def test_the_least_recently_used_go_first(tmp_path, monkeypatch) -> None:
    disk = Store(str(tmp_path))
    monkeypatch.setenv("NKILITE_CACHE_SIZE", "100K")
    keys = [f"{i:02d}aa" for i in range(12)]
    for age, key in enumerate(keys[:8]):
        disk.put(KERNELS, "k", key, b"x" * 8192)
        path = next(e.path for e in disk.entries() if key in e.path)
        os.utime(path, (age, age))
    assert disk.get(KERNELS, "k", keys[0]) == b"x" * 8192
    for key in keys[8:]:
        disk.put(OBJECTS, "k", key, b"x" * 16384)
    left = {e.path.rpartition("-")[2] for e in disk.entries()}
    assert sum(e.bytes for e in disk.entries()) <= 100 * 1024
    assert {keys[0], *keys[8:]} <= left
    assert keys[1] not in left
    monkeypatch.setenv("NKILITE_CACHE_SIZE", "plenty")
    with pytest.raises(InvalidSetting, match="plenty"):
        disk.put(KERNELS, "k", "00", b"")


def test_processes_share_a_cache(disk, tmp_path) -> None:
    script = """
        import sys
        import numpy as np
        import nkilite as nki, nkilite.language as nl
        from nkilite.runtime import identity
        identity._MARGIN = -10**18

        @nki.jit
        def kernel(x, n):
            out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
            nl.store(out, nl.add(nl.load(x), float(n)))
            return out

        x = np.ones((16, 64), np.float32)
        for _ in range(3):
            for n in range(6):
                np.testing.assert_array_equal(kernel(x[:n + 1], n), x[:n + 1] + n)
            kernel.forget()
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    environment = {**os.environ, **ENVIRONMENT, "NKILITE_CACHE_SIZE": "40K"}
    running = [
        subprocess.Popen([sys.executable, "-W", "error", path], env=environment, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in running:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr.decode()
    assert count(disk, KERNELS) or count(disk, OBJECTS)
    assert not list(Path(disk.directory).rglob("*.part"))


# --- the command --------------------------------------------------------------------------------------------------


def test_info_and_clear(disk) -> None:
    nki.jit(copied)(X)
    nki.jit(copied)(X[:8])
    info = CliRunner().invoke(app, ["cache", "info"]).stdout
    assert str(disk.directory) in info
    assert "copied" in info and "1.0 GiB" in info
    cleared = CliRunner().invoke(app, ["cache", "clear"]).stdout
    assert cleared.startswith("removed ")
    assert not list(disk.entries())
    assert "copied" not in CliRunner().invoke(app, ["cache", "info"]).stdout
