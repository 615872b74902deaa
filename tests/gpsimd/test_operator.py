"""Functions in C++ as instructions: the same simulated and compiled, and errors with the user's lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import gpsimd
from nkilite.errors import (
    CompilationFailed,
    CompilerMissing,
    InvalidCall,
    InvalidOperand,
    NoSuchFunction,
    OperatorFailed,
    OperatorNotLoaded,
    UnsupportedDtype,
    WrongMemory,
)
from nkilite.gpsimd import build
from nkilite.ir import parse_program
from nkilite.ir.verifier import verify

MODES = {"simulate": nki.simulate, "compiled": nki.jit}
SOURCE = """\
#include <nkilite/gpsimd.h>
#include <cassert>

namespace mine {
// out = a * x + y, and the sum of every row.
void axpy(nkilite::Tensor out, nkilite::Tensor& sums, const nkilite::Tensor& x, const nkilite::Tensor& y, double a,
          int64_t repeats, bool negate) {
  assert(x.numel() == y.numel());
  nkilite::dispatch(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    auto to = out.tile<T>();
    auto left = x.tile<T>(), right = y.tile<T>();
    auto total = sums.tile<T>();
    for (int64_t p = to.first(); p < to.end(); p++) {
      double sum = 0;
      for (int64_t i = 0; i < to.columns(); i++) {
        double value = double(right[p][i]);
        for (int64_t r = 0; r < repeats; r++) value += a * double(left[p][i]);
        to[p][i] = T(negate ? -value : value);
        sum += double(to[p][i]);
      }
      total[p][0] = T(sum);
    }
  });
}
}  // namespace mine

void corner(nkilite::Tensor out, const nkilite::Tensor& x, int64_t column) {
  auto to = out.accessor<float, 2>();
  auto from = x.accessor<float, 2>();
  to[0][0] = from[from.size(0) - 1][column];
}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    file = tmp_path_factory.mktemp("operators") / "mine.cpp"
    file.write_text(SOURCE)
    return file


@pytest.fixture(scope="module")
def axpy(source):
    return {cores: gpsimd.operator(source, "mine::axpy", cores=cores, debug=True) for cores in (1, 8)}


@pytest.fixture(scope="module")
def corner(source):
    return gpsimd.operator(source, "corner", debug=True)


def new(shape, dtype=nl.float32, buffer=nl.sbuf):
    return nl.ndarray(shape, dtype=dtype, buffer=buffer)


def stored(*tiles):
    found = []
    for tile in tiles:
        found.append(new(tile.shape, tile.dtype, nl.shared_hbm))
        nl.store(found[-1], tile)
    return tuple(found)


def both(kernel, *arrays):
    """What a kernel returns simulated and compiled, which must be the same bits."""
    expected, got = (MODES[mode](kernel)(*(a.copy() for a in arrays)) for mode in MODES)
    for left, right in zip(expected, got, strict=True):
        np.testing.assert_array_equal(left.view(np.uint8), right.view(np.uint8))
    return expected


# --- results ------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_shape_and_dtype(axpy, data):
    kinds = [np.float32, ml_dtypes.bfloat16, np.float16, np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32]
    dtype = data.draw(st.sampled_from(kinds))
    shape = (data.draw(st.integers(1, 128)), *data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    cores, first = data.draw(st.sampled_from([1, 8])), data.draw(st.integers(0, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, y = (rng.integers(0, 3, (*shape[:-1], shape[-1] + 2)).astype(dtype) for _ in range(2))

    def kernel(x, y):
        x, y = nl.load(x), nl.load(y)
        here = (slice(None),) * (len(shape) - 1) + (slice(first, first + shape[-1]),)
        out, sums = new(x.shape, x.dtype), new((shape[0], 1), x.dtype)
        nisa.memset(out, 0)
        axpy[cores](out[here], sums, x[here], y[here], 2, 1, False)
        return stored(out, sums)

    out, sums = both(kernel, x, y)
    window = slice(first, first + shape[-1])
    right = 2 * x.astype(np.float64) + y.astype(np.float64)
    np.testing.assert_array_equal(out.astype(np.float64)[..., window], right[..., window])
    total = right[..., window].reshape(shape[0], -1).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(sums, total.astype(dtype))


def test_numbers_loops_and_in_place(axpy):
    def kernel(x):
        tile, sums = nl.load(x), new((x.shape[0], 1))

        def body(_):
            axpy[1](tile, sums, tile, tile, 0.5, 2, True)

        nl.fori_loop(0, 3, body)
        return stored(tile, sums)

    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    tile, sums = both(kernel, x)
    np.testing.assert_array_equal(tile, -8 * x)
    np.testing.assert_array_equal(sums[:, 0], -8 * x.sum(axis=1))


def test_two_cores_of_a_launch(axpy):
    def kernel(x):
        half = x.shape[0] // 2
        rows = slice(nl.program_id(0) * half, (nl.program_id(0) + 1) * half)
        out = new(x.shape, x.dtype, nl.shared_hbm)
        tile, result, sums = nl.load(x[rows]), new((half, x.shape[1])), new((half, 1))
        axpy[8](result, sums, tile, tile, 1.0, 1, False)
        nl.store(out[rows], result)
        return out

    x = np.arange(128, dtype=np.float32).reshape(64, 2)
    for run in MODES.values():
        np.testing.assert_array_equal(run(kernel)[2](x), 2 * x)


def test_what_it_does_not_write(source, corner):
    updates = gpsimd.operator(source, "corner", updates=True, debug=True)

    def kernel(x):
        tile, fresh, kept = nl.load(x), new((2, 3)), new((2, 3))
        nisa.memset(fresh, 7.0)
        nisa.memset(kept, 7.0)
        corner(fresh, tile, 1)
        updates(kept, tile, 1)
        return stored(fresh, kept)

    fresh, kept = both(kernel, np.arange(8, dtype=np.float32).reshape(4, 2))
    assert fresh[0, 0] == kept[0, 0] == 7.0
    assert (fresh.view(np.uint32).ravel()[1:] == 0xFFFFFFFF).all()
    assert (kept == 7).all()


def test_warm_launches_do_not_trace_again(axpy, monkeypatch):
    operator = axpy[8]

    @nki.jit
    def kernel(x):
        tile, out, sums = nl.load(x), new(x.shape), new((x.shape[0], 1))
        operator(out, sums, tile, tile, 1.0, 1, False)
        return stored(out)

    x = np.ones((4, 4), np.float32)
    np.testing.assert_array_equal(kernel(x)[0], 2 * x)
    calls = []
    monkeypatch.setattr(type(operator), "_number", lambda self, *_: calls.append(1) or 1.0)
    np.testing.assert_array_equal(kernel(3 * x)[0], 6 * x)
    assert not calls


def test_text_form_does_not_load(axpy):
    def kernel(x):
        tile, out, sums = nl.load(x), new(x.shape), new((x.shape[0], 1))
        axpy[1](out, sums, tile, tile, 1.0, 1, False)
        return stored(out)

    text = str(nki.jit(kernel).trace(np.ones((4, 4), np.float32)))
    assert str(parse_program(text)) == text
    with pytest.raises(OperatorNotLoaded, match="nothing loads native code of others by itself"):
        verify(parse_program(text.replace(axpy[1].name, "nkilite_operator_of_somebody")))


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_failures_have_the_line_of_the_kernel(mode, axpy, corner):
    def asserts(x):
        tile, out, sums = nl.load(x), new(x.shape), new((x.shape[0], 1))
        axpy[1](out, sums, tile, tile[:, :2], 1.0, 1, False)  # asserts
        return stored(out)

    def outside(x):
        out = new((1, 1))
        corner(out, nl.load(x), 9)  # outside
        return stored(out)

    def other_dtype(x):
        out = new((1, 1), nl.bfloat16)
        corner(out, nl.load(x), 0)  # other_dtype
        return stored(out)

    for kernel, says in (
        (asserts, r"mine::axpy \(mine.cpp\) failed: assertion `x.numel\(\) == y.numel\(\)` failed at .*mine.cpp:8"),
        (outside, r"failed: index 9 is not in \[0, 4\)"),
        (other_dtype, "the accessor is for float32, the tensor is bfloat16"),
    ):
        with pytest.raises(OperatorFailed, match=says) as caught:
            MODES[mode](kernel)(np.zeros((3, 4), np.float32))
        assert caught.value.location.source.endswith(f"# {kernel.__name__}")


@pytest.mark.parametrize("mode", MODES)
def test_calls_are_checked(mode, corner):
    def few(tile):
        corner(tile, tile)  # here

    def number(tile):
        corner(tile, 1.0, 0)  # here

    def tensor(tile):
        corner(tile, tile, tile)  # here

    def fraction(tile):
        corner(tile, tile, 0.5)  # here

    def psum(tile):
        corner(tile, new((2, 2), buffer=nl.psum), 0)  # here

    def packed(tile):
        corner(tile, new((2, 2), nl.float8_e5m2), 0)  # here

    for body, error, says in (
        (few, InvalidCall, "takes 3 arguments, and 2 were given"),
        (number, InvalidOperand, "argument 1 is float 1.0; expected a tile in SBUF"),
        (tensor, InvalidOperand, "argument 2 is a tensor"),
        (fraction, InvalidOperand, "a whole number of"),
        (psum, WrongMemory, "PSUM"),
        (packed, UnsupportedDtype, "float8_e5m2"),
    ):

        def kernel(x, body=body):
            body(nl.load(x))
            return x

        with pytest.raises(error, match=says) as caught:
            MODES[mode](kernel)(np.zeros((2, 2), np.float32))
        assert caught.value.location.source.endswith("# here")


def test_errors_of_the_compiler_are_at_the_line(tmp_path):
    file = tmp_path / "wrong.cpp"
    file.write_text("#include <nkilite/gpsimd.h>\n\nvoid f(nkilite::Tensor out) {\n  undeclared(out);\n}\n")
    with pytest.raises(CompilationFailed, match=r"cannot compile .*wrong.cpp: .*undeclared") as caught:
        gpsimd.operator(file, "f")
    assert (caught.value.location.file, caught.value.location.line) == (str(file), 4)
    assert "undeclared(out);" in str(caught.value)


@pytest.mark.parametrize(("function", "says"), [
    ("missing", "missing"), ("overloaded", "overloaded"), ("reads", "it writes 0 tensors"),
    ("text", "an operator takes"),
])  # fmt: skip
def test_functions_that_are_no_operators(tmp_path, function, says):
    file = tmp_path / "some.cpp"
    file.write_text(
        "#include <nkilite/gpsimd.h>\n"
        "void overloaded(nkilite::Tensor) {}\nvoid overloaded(nkilite::Tensor, double) {}\n"
        "void reads(const nkilite::Tensor&) {}\nvoid text(nkilite::Tensor, const char*) {}\n"
    )
    with pytest.raises(NoSuchFunction, match=says):
        gpsimd.operator(file, function, debug=True)


@pytest.mark.parametrize(("arguments", "says"), [
    ({"file": "nowhere.cpp"}, "a file with C"), ({"name": "f(); system"}, "the name of a function"),
    ({"cores": 4}, "1 or 8"), ({"cost": -1}, "cycles per element"), ({"cost": "much"}, "cycles per element"),
])  # fmt: skip
def test_what_operator_refuses(source, arguments, says):
    with pytest.raises(InvalidOperand, match=says) as caught:
        gpsimd.operator(**{"file": source, "name": "corner", **arguments})
    assert caught.value.location.file == __file__


def test_without_a_compiler(source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(CompilerMissing, match="CXX='no-such-compiler -O1' is no command"):
        gpsimd.operator(source, "corner")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CompilerMissing, match=r"none of c\+\+, g\+\+, clang\+\+ is on the PATH"):
        gpsimd.operator(source, "corner")


# --- the cache, the model, the page -------------------------------------------------------------------------


def test_the_cache_has_what_the_compiler_read(tmp_path, monkeypatch):
    monkeypatch.setenv("NKILITE_CACHE", "1")
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "size.h").write_text("constexpr float VALUE = 1;\n")
    file = tmp_path / "constant.cpp"
    file.write_text(
        '#include <nkilite/gpsimd.h>\n#include "size.h"\n'
        "void constant(nkilite::Tensor out) { out.accessor<float, 2>()[0][0] = VALUE; }\n"
    )
    compiled, run = [], build._run

    def watched(command, *rest):
        if "-E" not in command:
            compiled.append(command)
        return run(command, *rest)

    monkeypatch.setattr(build, "_run", watched)

    def value():
        operator = gpsimd.operator(file, "constant", debug=True)

        def kernel(x):
            tile = nl.load(x)
            operator(tile)
            return stored(tile)

        return float(nki.jit(kernel)(np.zeros((1, 1), np.float32))[0][0, 0])

    assert [value(), value(), len(compiled)] == [1, 1, 1]
    (tmp_path / "size.h").write_text("constexpr float VALUE = 2;\n")
    assert [value(), len(compiled)] == [2, 2]


def test_a_new_process_finds_program_and_operator(source, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport numpy as np\nimport nkilite as nki\nimport nkilite.language as nl\n"
        f"corner = nki.gpsimd.operator({str(source)!r}, 'corner', debug=True)\n"
        "@nki.jit\ndef kernel(x):\n    out = nl.ndarray((1, 1), dtype=x.dtype, buffer=nl.sbuf)\n"
        "    corner(out, nl.load(x), 1)\n"
        "    result = nl.ndarray((1, 1), dtype=x.dtype, buffer=nl.shared_hbm)\n    nl.store(result, out)\n"
        "    return result\n"
        "print(kernel(np.arange(6, dtype=np.float32).reshape(2, 3))[0, 0])\n"
    )
    environment = {**os.environ, "NKILITE_CACHE": "1", "NKILITE_CACHE_DIR": str(tmp_path / "cache")}
    for _ in range(2):
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "4.0"


def test_modelled_cost(source):
    def busy(**options):
        operator = gpsimd.operator(source, "corner", debug=True, **options)

        def kernel(x):
            tile, out = nl.load(x), new((128, 512))
            operator(out, tile, 0)
            return stored(out)

        return nki.profile(nki.jit(kernel), np.zeros((128, 512), np.float32)).engines["GpSimd"].busy_us

    ghz, start = 1.2, 150
    assert busy(cores=8) == pytest.approx((start + 512) / ghz / 1000)
    assert busy(cores=1) == pytest.approx((start + 8 * 512) / ghz / 1000)
    assert busy(cores=8, cost=2.5) == pytest.approx((start + 2.5 * 512 * 16) / ghz / 1000)
    assert busy(cores=8, cost="measured") > start / ghz / 1000


def test_page(tmp_path, monkeypatch, capsys):
    """The example of docs/custom-operators.md runs and prints what it shows."""
    page = (Path(__file__).parents[2] / "docs" / "custom-operators.md").read_text()
    blocks = {language: re.findall(rf"```{language}\n(.*?)```", page, re.S) for language in ("cpp", "python", "text")}
    (tmp_path / "leaky.cpp").write_text(blocks["cpp"][0])
    script = tmp_path / "example.py"
    script.write_text(blocks["python"][0])
    monkeypatch.chdir(tmp_path)
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.strip() == blocks["text"][0].strip()
