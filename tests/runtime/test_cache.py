"""The disk cache: hits are not compiled and do what a fresh compilation does, misses are what they should be."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
import textwrap
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import knobs
from nkilite.__main__ import app
from nkilite.errors import IndirectOutOfBounds, InvalidSetting, NonContiguousArgument
from nkilite.native import cache, versions
from nkilite.native.cache import KERNELS, OBJECTS, CacheWarning, Store
from nkilite.native.encoding import NotData, decode, encode
from nkilite.runtime import specialization

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
X = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch) -> Store:
    monkeypatch.setenv("NKILITE_CACHE", "1")
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("NKILITE_VERIFY", raising=False)
    monkeypatch.setattr(versions, "_MARGIN", -(10**18))  # somebody may be editing nkilite while this runs
    versions.versions.cache_clear()
    yield cache.store()
    versions.versions.cache_clear()


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The names of programs that are compiled."""
    names: list[str] = []
    original = specialization.compile_program

    def compile_program(program, **how):
        names.append(program.name)
        return original(program, **how)

    monkeypatch.setattr(specialization, "compile_program", compile_program)
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


def test_a_hit_is_not_compiled(disk, compiled) -> None:
    kernel = nki.jit(copied)
    for _ in range(3):
        np.testing.assert_array_equal(kernel(X), X)
        kernel.forget()
    assert compiled == ["copied"]
    assert kernel(X[:8]).shape == (8, 32)
    assert kernel(X.astype(np.int32)).dtype == np.int32
    assert compiled == ["copied"] * 3
    assert count(disk, KERNELS) == 3


def test_the_compiler_is_still_there_after_a_hit(disk, compiled) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    kernel.forget()
    found = kernel.compile(X)
    assert len(compiled) == 2
    assert found.program.count
    assert all(s.text for s in found.lowered.sources)
    assert set(found.seconds) >= {"trace", "passes"}


def test_a_gallery_in_a_fresh_process_is_bit_equal(disk, tmp_path) -> None:
    script = """
        import importlib, sys
        import numpy as np
        from kernels import GALLERY
        from nkilite.native import versions
        from nkilite.runtime import specialization
        versions._MARGIN = -10**18
        warm = sys.argv[2] == "warm"
        if warm:
            def compile_program(program, **how):
                raise AssertionError(f"{program.name} is compiled")
            specialization.compile_program = compile_program
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


def test_errors_of_a_hit_say_the_same(disk, compiled) -> None:
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
    assert compiled == ["gather"]
    assert messages[0] == messages[1]
    assert "x.ap(" in messages[0]


def test_refused_arguments_and_prints_of_a_hit(disk, compiled, capsys) -> None:
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
    assert compiled == ["kernel"]
    assert printed[0] == printed[1]
    assert "tile [[" in printed[0]


def test_warnings_are_given_again(disk, compiled) -> None:
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
    assert compiled == ["kernel"]
    assert seen[0] == seen[1]
    assert "never written" in seen[0][0][1]


def test_constants_registers_and_loops_survive(disk, compiled) -> None:
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
    assert compiled == ["kernel"]


def test_programs_share_micro_kernels(disk) -> None:
    @nki.jit
    def twice(x):
        return copied(x), copied(x)

    nki.jit(copied)(X)
    before = [path.read_bytes() for path in files(disk, OBJECTS)]
    twice(X)
    assert [path.read_bytes() for path in files(disk, OBJECTS)] == before
    assert count(disk, KERNELS) == 2


# --- what belongs to the key ---------------------------------------------------------------------------------------


def test_failing_kernels_are_not_kept(disk) -> None:
    @nki.jit
    def fails(x):
        copied(x)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fails(X)
    assert not count(disk, KERNELS)


def test_settings_that_change_code_are_part_of_the_key(disk, compiled, monkeypatch) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    for name, value in (("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1"), ("NKILITE_CPU", "vector128"), ("NKILITE_X", "1")):
        monkeypatch.setenv(name, value)
        kernel.forget()
        kernel(X)
    assert len(compiled) == 4
    monkeypatch.setenv("NKILITE_NUM_THREADS", "1")
    kernel.forget()
    kernel(X)
    assert len(compiled) == 4
    monkeypatch.setenv("NKILITE_VERIFY", "1")
    kernel.forget()
    kernel(X)
    assert len(compiled) == 5


PROGRAM = """
    import os, sys
    import numpy as np
    import nkilite as nki, nkilite.isa as nisa, nkilite.language as nl
    from nkilite.native import versions
    versions._MARGIN = -10**18

    VALUE = float(os.environ["VALUE"])

    def times(x, factor):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        nisa.tensor_scalar(tile, tile, nl.multiply, float(factor))
        nl.store(out, tile)
        return out

    {setup}

    @nki.jit
    def kernel(x):
        return times(x, {factor})

    for _ in range(2):
        print(float(kernel(np.ones((4, 8), np.float32))[0, 0]))
"""
FACTORS = {
    "a second file": ("import config", "config.UNIT * config.scale()"),
    "a computed name": ("import config", "getattr(config, 'SC' + 'ALE')"),
    "a file that is read": ("open('scale', 'w').write(str(VALUE))", "open('scale').read()"),
    "state of an object": ("box = type('Box', (dict,), {})(); box.scale = VALUE", "box.scale"),
    "code that is generated": ("helper = eval(f'lambda: {VALUE}', {'__name__': 'numpy'})", "helper()"),
    "an attribute of a library": ("np.SCALE = VALUE", "np.SCALE"),
    "state of a library": ("np.random.seed(int(VALUE))", "VALUE + np.random.rand() * 1e-30"),
}


@pytest.mark.parametrize("what", FACTORS)
def test_another_process_sees_what_has_changed(disk, tmp_path, what) -> None:
    setup, factor = FACTORS[what]
    (tmp_path / "main.py").write_text(textwrap.dedent(PROGRAM).format(setup=textwrap.dedent(setup), factor=factor))
    for value in ("2.0", "3.0"):
        (tmp_path / "config.py").write_text(f"UNIT = 1.0\nSCALE = {value}\ndef scale(): return SCALE\n")
        environment = {**os.environ, **ENVIRONMENT, "VALUE": value, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "main.py"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [value] * 2


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
def test_damaged_entries_are_made_anew(disk, compiled, damage) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    for path in files(disk, KERNELS):
        damage(path)
    kernel.forget()
    with pytest.warns(CacheWarning, match="damaged"):
        np.testing.assert_array_equal(kernel(X), X)
    kernel.forget()
    np.testing.assert_array_equal(kernel(X), X)
    assert len(compiled) == 2


@pytest.mark.parametrize(
    "content", [b"", b"cos\nsystem\n(S'true'\ntR.", encode(3), encode((3, (), ())), encode((1, 2))],
    ids=["empty", "pickle", "number", "no image", "pair"],
)
def test_entries_of_no_use_are_made_anew(disk, compiled, content) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    (entry,) = files(disk, KERNELS)
    label, _, key = entry.name.rpartition("-")
    disk.put(KERNELS, label, key, content)
    kernel.forget()
    with pytest.warns(CacheWarning, match="damaged"):
        np.testing.assert_array_equal(kernel(X), X)
    assert len(compiled) == 2


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_damaged_or_missing_object_code(disk, tmp_path, damage) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, nkilite as nki, nkilite.language as nl\n"
        "from nkilite.native import versions\n"
        "versions._MARGIN = -10**18\n"
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


def _pipe(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, _: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _swap(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("spoil", [_pipe, _link, _swap])
def test_what_is_not_the_entry_is_not_read(disk, compiled, spoil) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    kernel(X[:8])
    first, other = files(disk, KERNELS)
    label, _, key = first.name.rpartition("-")
    kept = disk.get(KERNELS, label, key)
    spoil(first, other)
    with pytest.warns(CacheWarning, match="damaged"):
        assert disk.get(KERNELS, label, key) is None
    assert not os.path.lexists(first)
    disk.put(KERNELS, label, key, kept)
    assert disk.get(KERNELS, label, key) == kept


@pytest.mark.parametrize("spoil", [_pipe, _link])
def test_what_is_no_file_is_not_appended_to(disk, compiled, spoil) -> None:
    nki.jit(copied)(X)
    (code,) = (path for path in files(disk, OBJECTS) if path.name.startswith("code-"))
    spoil(code, code)
    with pytest.warns(CacheWarning, match="damaged"):
        np.testing.assert_array_equal(nki.jit(copied)(X.astype(np.int16)), X)
    assert not os.path.lexists(code) or code.is_file()


@pytest.mark.parametrize("folder", ["", KERNELS])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write_is_not_used(disk, compiled, folder, mode) -> None:
    kernel = nki.jit(copied)
    kernel(X)
    (Path(disk.directory) / folder).chmod(mode)
    kernel.forget()
    with pytest.warns(CacheWarning, match="others may write"):
        np.testing.assert_array_equal(kernel(X), X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(kernel(X[:8]), X[:8])
    assert len(compiled) == 3
    (Path(disk.directory) / folder).chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_of_somebody_else_is_not_used(disk) -> None:
    nki.jit(copied)(X)
    os.chown(disk.directory, 65534, -1)
    with pytest.warns(CacheWarning, match="belongs to user 65534"):
        assert disk.get(KERNELS, "copied", "00") is None


def test_folders_are_made_for_the_user_alone(disk) -> None:
    before = os.umask(0)
    try:
        nki.jit(copied)(X)
    finally:
        os.umask(before)
    made = [Path(disk.directory), *(p for p in Path(disk.directory).rglob("*") if p.is_dir())]
    assert len(made) > 3
    assert {p.stat().st_mode & 0o777 for p in made} == {0o700}


def test_where_the_cache_is(monkeypatch) -> None:
    monkeypatch.delenv("NKILITE_CACHE_DIR", raising=False)
    for home, base, want in (
        ("/home/me", "", "/home/me/.cache/nkilite"), ("/home/me", "/var/me", "/var/me/nkilite"),
        ("/home/me", "relative", "/home/me/.cache/nkilite"),
    ):
        monkeypatch.setenv("HOME", home)
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert knobs.cache_directory() == want
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    for home in (None, "", "relative"):
        monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
        assert knobs.cache_directory() is None
    monkeypatch.setenv("NKILITE_CACHE", "1")
    monkeypatch.setattr(cache, "_stores", {})
    with pytest.warns(CacheWarning, match="no home directory"):
        nki.jit(copied)(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nki.jit(copied)(X)
    assert "none: the user has no home" in CliRunner().invoke(app, ["cache", "info"]).stdout


def test_images_are_data() -> None:
    value = ("text", 1, 1.5, None, [True, {3: ("a", np.arange(6).reshape(2, 3))}], UserWarning)
    found = decode(encode(value))
    np.testing.assert_array_equal(found[4][1][3][1], value[4][1][3][1])
    assert (found[:4], found[5]) == (value[:4], UserWarning)
    for wrong in (object(), {1, 2}, np.array([object()]), os.system):
        with pytest.raises(NotData):
            encode(wrong)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
    for wrong in (b"", b"x", zlib.compress(b""), zlib.compress(b"\xff" * 8), bomb):
        with pytest.raises(NotData):
            decode(wrong)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 900 << 10


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
        from nkilite.native import versions
        versions._MARGIN = -10**18

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


def test_an_entry_that_the_system_cannot_read_is_none(tmp_path, monkeypatch) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.EIO, "broken")

    disk, key = Store(str(tmp_path / "cache")), "ab" * 20
    disk.put(OBJECTS, "entry", key, b"content")
    assert disk.get(OBJECTS, "entry", key) == b"content"
    monkeypatch.setattr(cache, "_opened", lambda *_: Broken())
    with pytest.warns(CacheWarning, match="cannot be read: .*broken"):
        assert disk.get(OBJECTS, "entry", key) is None
